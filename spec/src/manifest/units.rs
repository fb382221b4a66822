//! Reads `units:` of app.yaml over the units of the application's folder, and settles what is started and enabled.

use std::collections::{BTreeMap, BTreeSet};

use super::critical::{self, Guard};
use super::drop_in::QuadletDropIn;
use super::folder::{BroughtUnit, Folder};
use super::model::{Policy, State, Unit, UnitText, Watch};
use super::page::{Extent, Page};
use super::policy;
use super::words::did_you_mean;
use super::yaml::{Key, Node};
use crate::diagnostic::{Diagnostic, Location};
use crate::id::{HostPath, ResourceId, UnitName, shown};

const STATES: [(&str, State); 2] = [("running", State::Running), ("stopped", State::Stopped)];

/// What an entry asks for.
#[derive(Default)]
struct Wish {
    state: Option<(State, Extent)>,
    enabled: Option<(bool, Extent)>,
    restart_on: BTreeSet<HostPath>,
    reload_on: BTreeSet<HostPath>,
    ignore: BTreeSet<HostPath>,
    allow_critical: bool,
    policy: Policy,
}

impl Wish {
    fn restarts_or_reloads(&self, path: &HostPath) -> bool {
        self.restart_on.contains(path) || self.reload_on.contains(path)
    }

    /// Says whether anything is asked of the unit.
    fn asks(&self) -> bool {
        let lists = [&self.restart_on, &self.reload_on, &self.ignore];
        self.state.is_some() || self.enabled.is_some() || lists.iter().any(|paths| !paths.is_empty())
    }
}

/// Reads `node`, if there is one; the paths that units watch go to `watches`.
pub(super) fn read(
    page: &mut Page<'_>,
    node: Option<&Node>,
    folder: &Folder<'_>,
    watches: &mut BTreeSet<Watch>,
    policies: &mut BTreeMap<ResourceId, Policy>,
) -> BTreeMap<UnitName, Unit> {
    let entries = node.and_then(|node| page.entries(node, "`units`")).unwrap_or_default();
    let triggered = triggered(page, folder, entries);
    let mut units = BTreeMap::new();
    let mut allowed = BTreeSet::new();
    let mut written = BTreeSet::new();
    for (key, node) in entries {
        let wish = wish(page, key, node, watches);
        let name = match UnitName::parse(&key.text) {
            Ok(name) => name,
            Err(why) => {
                let reserved = critical::unit(&key.text) != Guard::Open;
                let quadlet = folder.units.iter().find(|(_, it)| it.path.file_name() == key.text);
                let help = if reserved {
                    "remove it: the host depends on it"
                } else if let Some((service, _)) = quadlet {
                    &format!("name the service that Podman makes of it, {service}")
                } else {
                    "write the whole name, such as web.service"
                };
                page.error("unit-name", key.extent, format!("this is not a unit's name: {why}")).help(help);
                continue;
            }
        };
        let Some(wish) = wish else { continue };
        policies.insert(ResourceId::Unit(name.clone()), wish.policy);
        if let Some(brought) = folder.units.get(&name) {
            policies.insert(ResourceId::File(brought.path.clone()), wish.policy);
        } else if wish.policy.adopt.is_some() && !folder.drop_ins.iter().any(|drop_in| drop_in.unit == name) {
            let message = format!("no text of `{name}` is in this folder, so there is nothing to take over");
            page.error("adopt", key.extent, message)
                .help("remove `adopt`: it is for a file that is in the way of ours");
        }
        if wish.allow_critical {
            allowed.insert(name.clone());
        }
        if wish.state.is_some() {
            written.insert(name.clone());
        }
        guard(page, &name, wish.allow_critical, page.at(key.extent));
        if let Some(unit) = wanted(page, key, &name, wish, folder, &triggered) {
            units.insert(name, unit);
        }
    }
    for (name, brought) in &folder.units {
        guard_brought(page, name, brought, &allowed);
        if !name.is_template() && !units.contains_key(name) {
            let (state, enabled) = defaults(brought, triggered.contains(name));
            let unit = Unit {
                text: Some(text(brought)),
                state,
                enabled,
                restart_on: BTreeSet::new(),
                reload_on: BTreeSet::new(),
                ignore: BTreeSet::new(),
                location: brought.location.clone(),
            };
            units.insert(name.clone(), unit);
        }
    }
    check_drop_ins(page, folder, &units, &allowed);
    follow_pods(folder, &mut units, &written);
    units
}

/// Gives containers in a pod the pod's state, unless app.yaml says otherwise: starting one would start its pod.
fn follow_pods(folder: &Folder<'_>, units: &mut BTreeMap<UnitName, Unit>, written: &BTreeSet<UnitName>) {
    for (name, brought) in folder.units.iter().filter(|(name, _)| !written.contains(*name)) {
        let Some(pod) = brought.quadlet.as_ref().and_then(|quadlet| quadlet.pod.as_ref()) else { continue };
        let found = folder.units.iter().find(|(_, it)| it.path.file_name() == pod);
        let state = found.and_then(|(pod, _)| units.get(pod)).map(|pod| pod.state);
        if let (Some(state), Some(unit)) = (state.filter(|it| *it != Some(State::Running)), units.get_mut(name)) {
            unit.state = state;
        }
    }
}

/// Checks what drop-ins add to: the rest of the unit may be in this folder, in another, or on the host.
fn check_drop_ins(
    page: &mut Page<'_>,
    folder: &Folder<'_>,
    units: &BTreeMap<UnitName, Unit>,
    allowed: &BTreeSet<UnitName>,
) {
    let mut seen = BTreeSet::new();
    for drop_in in &folder.drop_ins {
        let name = &drop_in.unit;
        let base = folder.units.get(name).or_else(|| folder.units.get(&name.template()?));
        if let (Some(location), Some(true)) = (&drop_in.adds_command, base.map(|base| base.traits.has_its_command)) {
            let message = format!("`{name}` has an `ExecStart=` already, and only a oneshot may have two");
            let mut complaint = Diagnostic::error("drop-in", location.clone(), message);
            complaint.help("write an empty `ExecStart=` before this one to replace it");
            page.add(complaint);
        }
        if !seen.insert(name) {
            continue;
        }
        guard(page, name, allowed.contains(name), drop_in.location.clone());
        let (message, help) = match (base, similar(page, name, folder)) {
            (None, Some(near)) => (
                format!("no unit `{name}` is in this folder, so the host must provide it"),
                did_you_mean(&format!("{near}.d")),
            ),
            _ if name.is_template() && !units.keys().any(|unit| unit.template().as_ref() == Some(name)) => (
                format!("no instance of `{name}` is restarted when this changes, because `units:` names none"),
                format!("write units: {{ {}blue.{}: {{}} }} for each instance in app.yaml", name.stem(), name.suffix()),
            ),
            _ => continue,
        };
        let mut complaint = Diagnostic::warning("drop-in-unit", drop_in.location.clone(), message);
        complaint.help(help);
        page.add(complaint);
    }
    for drop_in in &folder.quadlet_drop_ins {
        if !folder.units.values().any(|it| it.path.file_name() == drop_in.quadlet) {
            page.add(stray(drop_in, folder));
        }
    }
}

/// Complains about a drop-in whose quadlet is not here. Podman reads those of an instance only beside a quadlet of that name.
fn stray(drop_in: &QuadletDropIn, folder: &Folder<'_>) -> Diagnostic {
    let name = shown(&drop_in.quadlet);
    let instance = drop_in.quadlet.split_once('@').and_then(|(base, rest)| Some((base, rest.rsplit_once('.')?)));
    let template = instance.map(|(base, (instance, kind))| (format!("{base}@.{kind}"), instance));
    let found = template.and_then(|(template, instance)| {
        let (service, _) = folder.units.iter().find(|(_, it)| it.path.file_name() == template)?;
        Some((template, service.stem().to_owned() + instance))
    });
    if let Some((template, service)) = found {
        let message = format!("Podman reads `{name}.d/` only for a file `{name}`, and `{template}` is not called so");
        let mut complaint = Diagnostic::error("drop-in", drop_in.location.clone(), message);
        complaint.help(format!(
            "move it to {template}.d/ for every instance, or what it says for systemd to {service}.service.d/ for this one"
        ));
        return complaint;
    }
    let message = format!("no quadlet `{name}` is in this folder, so that nothing is restarted for this");
    let mut complaint = Diagnostic::warning("drop-in-unit", drop_in.location.clone(), message);
    complaint.help("move it to the application that brings the quadlet");
    complaint
}

fn text(brought: &BroughtUnit) -> UnitText {
    UnitText { path: brought.path.clone(), text: brought.text.clone() }
}

/// What systemd's own convention says: a unit that can be enabled is, unless something else starts it.
///
/// Podman makes the links for a quadlet's [Install]. What its containers need is started by them.
fn defaults(brought: &BroughtUnit, is_triggered: bool) -> (Option<State>, Option<bool>) {
    if let Some(quadlet) = &brought.quadlet {
        return ((quadlet.runs() && !is_triggered).then_some(State::Running), None);
    }
    if brought.traits.installs && !is_triggered { (Some(State::Running), Some(true)) } else { (None, None) }
}

/// Finds the units that a timer, socket or path of this folder starts.
fn triggered(page: &mut Page<'_>, folder: &Folder<'_>, entries: &[(Key, Node)]) -> BTreeSet<UnitName> {
    let mut found = BTreeSet::new();
    for (name, brought) in folder.units.iter().filter(|(name, _)| matches!(name.suffix(), "timer" | "socket" | "path"))
    {
        let target = match &brought.traits.triggers {
            Some(named) => UnitName::parse(named).ok(),
            None => Some(name.with_suffix("service")),
        };
        let Some(target) = target else { continue };
        let is_here = folder.units.contains_key(&target)
            || target.template().is_some_and(|template| folder.units.contains_key(&template));
        let is_of_the_host = entries.iter().any(|(key, _)| key.text == target.as_str())
            || folder.drop_ins.iter().any(|drop_in| drop_in.unit == target);
        if !is_here && !is_of_the_host {
            let message = format!("`{name}` starts `{target}`, which is not in this folder");
            let mut complaint = Diagnostic::warning("unit-trigger", brought.location.clone(), message);
            complaint.help(match similar(page, &target, folder) {
                Some(near) => did_you_mean(near.as_str()),
                None => format!(
                    "bring `{target}`, or name another unit; that is fine when the host or another application has it"
                ),
            });
            page.add(complaint);
        }
        found.insert(target);
    }
    found
}

fn guard(page: &mut Page<'_>, name: &UnitName, allowed: bool, location: Location) {
    let (rule, message, help) = match critical::unit(name.as_str()) {
        Guard::Open => return,
        Guard::Critical(_) if allowed => return,
        Guard::Critical(why) => (
            "critical-unit",
            format!("unit `{name}` is guarded: {why}"),
            format!("if you mean it, write units: {{ {name}: {{ allow-critical: true }} }} in app.yaml"),
        ),
        Guard::Never(why) => (
            "forbidden-unit",
            format!("unit `{name}` cannot be managed: {why}"),
            "remove it; `allow-critical` does not help here".to_owned(),
        ),
    };
    let mut complaint = Diagnostic::error(rule, location, message);
    complaint.help(help);
    page.add(complaint);
}

fn guard_brought(page: &mut Page<'_>, name: &UnitName, brought: &BroughtUnit, allowed: &BTreeSet<UnitName>) {
    guard(page, name, allowed.contains(name), brought.location.clone());
    for (alias, _) in &brought.traits.aliases {
        if critical::unit(alias) != Guard::Open && !allowed.contains(name) {
            let message = format!("unit `{name}` takes the name `{}`, on which the host depends", shown(alias));
            let mut complaint = Diagnostic::error("critical-unit", brought.location.clone(), message);
            complaint.help(format!(
                "remove the `Alias=`, or write units: {{ {name}: {{ allow-critical: true }} }} in app.yaml"
            ));
            page.add(complaint);
        }
    }
}

fn wish(page: &mut Page<'_>, key: &Key, node: &Node, watches: &mut BTreeSet<Watch>) -> Option<Wish> {
    let mut table = page.table(node, &format!("the entry for `{}`", shown(&key.text)))?;
    let mut wish = Wish::default();
    if let Some((key, node)) = table.take("state") {
        wish.state = page.choice(node, "`state`", &STATES).map(|state| (state, key.extent));
    }
    if let Some((key, node)) = table.take("enabled") {
        wish.enabled = page.boolean(node, "`enabled`").map(|enabled| (enabled, key.extent));
    }
    if let Some((_, node)) = table.take("restart-on") {
        wish.restart_on = watched(page, node, "`restart-on`", watches);
    }
    if let Some((key, node)) = table.take("reload-on") {
        wish.reload_on = watched(page, node, "`reload-on`", watches);
        if let Some(both) = wish.reload_on.intersection(&wish.restart_on).next() {
            page.error("unit-watch", key.extent, format!("`{both}` both reloads and restarts the unit"))
                .help("keep it in one of the two lists");
        }
    }
    if let Some((key, node)) = table.take("ignore") {
        wish.ignore = watched(page, node, "`ignore`", watches);
        if let Some(both) = wish.ignore.iter().find(|path| wish.restarts_or_reloads(path)) {
            page.error("unit-watch", key.extent, format!("`{both}` is ignored, and restarts or reloads the unit"))
                .help("keep it in one of the lists");
        }
    }
    if let Some((_, node)) = table.take("allow-critical") {
        wish.allow_critical = page.boolean(node, "`allow-critical`").unwrap_or(false);
    }
    wish.policy = policy::read(page, &mut table);
    table.finish(page, "an entry of `units`");
    Some(wish)
}

fn watched(page: &mut Page<'_>, node: &Node, what: &str, watches: &mut BTreeSet<Watch>) -> BTreeSet<HostPath> {
    let mut paths = BTreeSet::new();
    for (text, extent) in page.words(node, what) {
        match HostPath::parse(&text) {
            Ok(path) => {
                watches.insert(Watch { path: path.clone(), location: page.at(extent) });
                paths.insert(path);
            }
            Err(why) => {
                page.error("unit-watch", extent, format!("this is not a path on the host: {why}"))
                    .help("write the absolute path of a file that an application brings");
            }
        }
    }
    paths
}

fn wanted(
    page: &mut Page<'_>,
    key: &Key,
    name: &UnitName,
    wish: Wish,
    folder: &Folder<'_>,
    triggered: &BTreeSet<UnitName>,
) -> Option<Unit> {
    if name.is_template() {
        check_template(page, key, name, &wish);
        return None;
    }
    let source = name.template().filter(|template| folder.units.contains_key(template)).unwrap_or(name.clone());
    let brought = folder.units.get(&source);
    let (state, enabled) = match brought {
        Some(brought) => settle(page, name, &wish, brought, triggered.contains(name)),
        None => {
            check_host_unit(page, key, name, &wish, folder);
            (wish.state.map(|(state, _)| state), wish.enabled.map(|(enabled, _)| enabled))
        }
    };
    let location = page.at(key.extent);
    let text = brought.map(text);
    let Wish { restart_on, reload_on, ignore, .. } = wish;
    Some(Unit { text, state, enabled, restart_on, reload_on, ignore, location })
}

/// Combines what is written with the defaults, so that half a wish means what people mean by it: `stopped` alone does not
/// leave the unit enabled, and `enabled: false` alone does not start it.
fn settle(
    page: &mut Page<'_>,
    name: &UnitName,
    wish: &Wish,
    brought: &BroughtUnit,
    is_triggered: bool,
) -> (Option<State>, Option<bool>) {
    if let (Some((false, extent)), Some(_)) = (wish.enabled, &brought.quadlet) {
        page.error(
            "quadlet-enabled",
            extent,
            format!("Podman enables `{name}` as its quadlet says, and nothing else can"),
        )
        .help("remove [Install] from the quadlet, and this entry");
    }
    if let Some((true, extent)) = wish.enabled
        && !brought.traits.installs
    {
        page.error(
            "unit-not-installable",
            extent,
            format!("`{name}` cannot be enabled: its text has no [Install] section"),
        )
        .help("add [Install] with WantedBy=multi-user.target to the unit, or write only `state: running`");
    }
    let (default_state, default_enabled) = defaults(brought, is_triggered);
    if brought.quadlet.is_some() {
        return (wish.state.map_or(default_state, |(state, _)| Some(state)), None);
    }
    let state = match (wish.state, wish.enabled) {
        (Some((state, _)), _) => Some(state),
        (None, Some((false, _))) => None,
        (None, _) => default_state,
    };
    let enabled = match (wish.enabled, wish.state) {
        (Some((enabled, _)), _) => Some(enabled),
        (None, Some((State::Stopped, _))) => default_enabled.map(|_| false),
        (None, _) => default_enabled,
    };
    (state, enabled)
}

fn check_template(page: &mut Page<'_>, key: &Key, name: &UnitName, wish: &Wish) {
    if wish.asks() {
        let instance = format!("{}blue.{}", name.stem(), name.suffix());
        page.error("unit-template", key.extent, format!("`{name}` is a template, which is never started itself"))
            .help(format!("name an instance, such as {instance}"));
    }
}

fn check_host_unit(page: &mut Page<'_>, key: &Key, name: &UnitName, wish: &Wish, folder: &Folder<'_>) {
    if let Some(near) = similar(page, name, folder) {
        page.warning(
            "unit-misspelt",
            key.extent,
            format!("no unit `{name}` is in this folder, so the host must provide it"),
        )
        .help(did_you_mean(near.as_str()));
    }
    let has_drop_ins = folder.drop_ins.iter().any(|it| it.unit == *name || name.template().as_ref() == Some(&it.unit));
    if !wish.asks() && !has_drop_ins {
        page.warning("unit-asks-nothing", key.extent, format!("this entry asks nothing of the host's unit `{name}`"))
            .help("add `state:` or `enabled:`, or remove it");
    }
}

/// Finds the unit of this folder that was most likely meant; suffixes say nothing, so only stems are compared.
fn similar<'f>(page: &Page<'_>, name: &UnitName, folder: &'f Folder<'_>) -> Option<&'f UnitName> {
    let same_kind = |other: &&UnitName| other.suffix() == name.suffix() && *other != name;
    let near = page.near(name.stem(), folder.units.keys().filter(same_kind).map(UnitName::stem))?;
    folder.units.keys().filter(same_kind).find(|other| other.stem() == near)
}
