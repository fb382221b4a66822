//! The accounts of the host that a unit runs with (systemd.exec(5), systemd.socket(5)).

use std::collections::{BTreeMap, BTreeSet};

use super::{Managed, assignments, drop_ins, is_podmans, quadlet_drop_ins, with_drop_ins};
use crate::desired::{DesiredUnit, UnitOrigin};
use crate::id::UnitName;

/// The accounts of the host that a unit runs with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Names of users.
    pub users: BTreeSet<String>,
    /// Names of groups.
    pub groups: BTreeSet<String>,
}

/// Returns the accounts that the text and drop-ins of a unit of ours name; numbers, and names that systemd makes up itself
/// (`DynamicUser=`) or that are put together by specifiers, are left out.
pub fn accounts(name: &UnitName, unit: &DesiredUnit, managed: &Managed<'_>) -> Accounts {
    let UnitOrigin::Application { path, text } = &unit.origin else { return Accounts::default() };
    let mut drop_ins = drop_ins(name, managed);
    drop_ins.extend(quadlet_drop_ins(path, managed));
    let text = with_drop_ins(Some(&**text), &drop_ins).unwrap_or_default();
    let mut last: BTreeMap<String, String> = BTreeMap::new();
    let mut accounts = Accounts::default();
    let mut is_dynamic = false;
    for (_, key, value) in assignments(&text).into_iter().filter(|(section, ..)| !is_podmans(section)) {
        match key.as_str() {
            "DynamicUser" => is_dynamic = matches!(value.as_str(), "yes" | "true" | "1" | "on" | "y" | "t"),
            "User" | "SocketUser" | "Group" | "SocketGroup" => {
                last.insert(key, value);
            }
            "SupplementaryGroups" if value.is_empty() => accounts.groups.clear(),
            "SupplementaryGroups" => accounts.groups.extend(value.split_whitespace().map(str::to_owned)),
            _ => {}
        }
    }
    for (key, name) in last {
        match key.as_str() {
            "User" | "Group" if is_dynamic => {}
            "User" | "SocketUser" => drop(accounts.users.insert(name)),
            _ => drop(accounts.groups.insert(name)),
        }
    }
    let is_name = |name: &String| !name.is_empty() && !name.contains('%') && !name.bytes().all(|c| c.is_ascii_digit());
    accounts.users.retain(is_name);
    accounts.groups.retain(is_name);
    accounts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::{DesiredFile, FileKind};
    use crate::digest::Digest;
    use crate::id::{HostPath, Mode};

    #[test]
    fn a_unit_runs_with_the_accounts_of_its_text_and_drop_ins() {
        let path = HostPath::parse("/etc/systemd/system/web.service.d/x.conf").expect("a path");
        let text: &[u8] = b"[Service]\nUser=other\nSupplementaryGroups=adm\n";
        let kind = FileKind::Regular { content: text.into(), digest: Digest::of(text) };
        let (owner, group) = ("root".to_owned(), "root".to_owned());
        let drop_in = DesiredFile { kind, mode: Mode::from_bits(0o644), owner, group };
        let managed = Managed::from([(&path, &drop_in)]);
        let name = UnitName::parse("web.service").expect("a unit");
        let of = |text: &str| {
            let unit = DesiredUnit {
                origin: UnitOrigin::Application { path: name.path(), text: text.into() },
                state: None,
                enabled: None,
                restart_on: BTreeSet::new(),
                reload_on: BTreeSet::new(),
                ignore: BTreeSet::new(),
            };
            let accounts = accounts(&name, &unit, &managed);
            format!("{} {}", Vec::from_iter(accounts.users).join(","), Vec::from_iter(accounts.groups).join(","))
        };
        assert_eq!(of("[Service]\nUser=web\nGroup=web\nSupplementaryGroups=a b\n"), "other a,adm,b,web");
        assert_eq!(of("[Service]\nUser=web\nDynamicUser=yes\nGroup=web\n"), " adm");
        assert_eq!(of("[Service]\nGroup=1000\nSupplementaryGroups=a%i\n[Container]\nGroup=inside\n"), "other adm");
        assert_eq!(of("[Socket]\nSocketUser=www-data\n[Service]\nGroup=web\nGroup=\n"), "other,www-data adm");
    }
}
