//! Which units a unit goes down and comes up with.

use std::collections::{BTreeMap, BTreeSet};

use super::{Managed, assignments, drop_ins, is_podmans, on_the_host, quadlet_drop_ins, specifiers, with_drop_ins};
use crate::desired::{Desired, DesiredUnit, UnitOrigin};
use crate::id::{HostPath, UnitName};

/// Names the service that each text of an application makes.
pub fn made_of(desired: &Desired) -> BTreeMap<&HostPath, &UnitName> {
    let texts = desired.units().filter_map(|(_, name, unit)| match &unit.origin {
        UnitOrigin::Application { path, .. } => Some((path, name)),
        UnitOrigin::Host => None,
    });
    texts.collect()
}

/// Names the units that a unit requires, so that it goes down and comes up with them: `Requires=`, `Requisite=`, `BindsTo=` and
/// `PartOf=` (systemd.unit(5)), and for quadlets what they name of each other, which Podman writes so (podman-systemd.unit(5)).
/// `made` tells the services of texts, see [`made_of`].
pub fn required(
    name: &UnitName,
    unit: &DesiredUnit,
    host_text: Option<&str>,
    managed: &Managed<'_>,
    made: &BTreeMap<&HostPath, &UnitName>,
) -> BTreeSet<UnitName> {
    let (own, text) = match &unit.origin {
        UnitOrigin::Application { path, text } => (Some(path), Some(&**text)),
        UnitOrigin::Host => (None, host_text),
    };
    let mut drop_ins = drop_ins(name, managed);
    drop_ins.extend(own.into_iter().flat_map(|path| quadlet_drop_ins(path, managed)));
    let Some(text) = with_drop_ins(text, &drop_ins) else { return BTreeSet::new() };
    let folder = own.filter(|path| path.quadlet().is_some()).and_then(HostPath::parent);
    let beside =
        |word: &str| made.get(&HostPath::parse(&format!("{}/{word}", folder.as_ref()?)).ok()?).copied().cloned();
    let mut by_key: BTreeMap<String, BTreeSet<UnitName>> = BTreeMap::new();
    for (section, key, value) in assignments(&text) {
        let value = specifiers(name, &value);
        let is_requirement =
            section == "Unit" && matches!(key.as_str(), "Requires" | "Requisite" | "BindsTo" | "PartOf");
        if is_requirement && value.is_empty() {
            by_key.remove(&key);
        } else if is_requirement {
            // Podman takes the names of quadlets here, too.
            let named = value.split_whitespace().filter_map(|word| match beside(word) {
                Some(unit) => Some(unit),
                None => Some(UnitName::parse(word).ok()?.of(name.user())),
            });
            by_key.entry(key).or_default().extend(named);
        } else if is_podmans(&section) && matches!(key.as_str(), "Pod" | "Network" | "Volume" | "Image" | "Mount") {
            let named = on_the_host(&key, &value).split(':').next().and_then(|word| beside(word.trim()));
            by_key.entry(key).or_default().extend(named);
        }
    }
    by_key.into_values().flatten().collect()
}
