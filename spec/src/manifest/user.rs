//! Reads `user:` of app.yaml: in whose manager the quadlets of an application run, and what such an application cannot bring.

use std::collections::BTreeMap;

use super::folder::Folder;
use super::model::App;
use super::page::{Extent, Page};
use super::yaml::Node;
use crate::check::Probe;
use crate::diagnostic::Diagnostic;
use crate::id::{HostPath, ResourceId, User, shown};

/// Reads the name and the number of the account.
///
/// Both are written down: the number is where Podman looks for the quadlets, and what a host wants does not depend on what
/// accounts it has. That they belong together is looked up on the host.
pub(super) fn read(page: &mut Page<'_>, (at, node): (Extent, &Node)) -> Option<User> {
    let mut table = page.table(node, "`user`")?;
    let name = table.take("name").and_then(|(_, node)| Some((page.text(node, "`name`")?, node.extent)));
    let uid = table.take("uid").and_then(|(_, node)| Some((page.as_written(node, "`uid`")?, node.extent)));
    let is_misspelt = ["name", "uid"].iter().any(|key| table.has_misspelt(key));
    table.finish(page, "`user`");
    let (Some((name, at_name)), Some((uid, at_uid))) = (name, uid) else {
        if !is_misspelt {
            page.error("user", at, "`user` needs the name of an account and its number")
                .help("write both: user: { name: alice, uid: 1500 }");
        }
        return None;
    };
    let Ok(number) = uid.parse::<u32>() else {
        page.error("user", at_uid, format!("`{}` is not the number of a user", shown(uid)))
            .help("write what `id -u NAME` prints on the host");
        return None;
    };
    match User::new(name, number) {
        Ok(user) => Some(user),
        Err(why) if name == "root" || number == 0 => {
            page.error("user", at_name, format!("this is not a user with a manager of its own: {why}"))
                .help("remove `user:`: without it, quadlets are root's");
            None
        }
        Err(why) => {
            page.error("user", at_name, format!("this user cannot have services: {why}"))
                .help("name the account that the quadlets should run as");
            None
        }
    }
}

/// Puts the quadlets of a folder where Podman looks for those of `user`, and refuses what cannot be the user's alone.
pub(super) fn place(page: &mut Page<'_>, folder: &mut Folder<'_>, at: Extent, user: &User) {
    let directory = user.quadlet_directory();
    let moved = |path: &HostPath, below: &str| HostPath::parse(&format!("{directory}/{below}")).unwrap_or(path.clone());
    if folder.units.values().all(|brought| brought.quadlet.is_none()) && !folder.is_faulty {
        page.error("user", at, format!("nothing of this application runs as `{user}`: it brings no quadlet"))
            .help("remove `user:`, or bring a .container file");
    }
    for (name, brought) in &mut folder.units {
        if brought.quadlet.is_some() {
            brought.path = moved(&brought.path, brought.path.file_name());
            continue;
        }
        let message =
            format!("unit `{name}` cannot be `{user}`'s alone: systemd has no folder for one user that is root's");
        let mut complaint = Diagnostic::error("user-unit", brought.location.clone(), message);
        complaint.help("make a quadlet of it, or move it to an application without `user:` and give it a `User=`");
        page.add(complaint);
    }
    for drop_in in &folder.drop_ins {
        let message = format!("a drop-in for `{}` would be for this unit of every user", drop_in.unit);
        let mut complaint = Diagnostic::error("user-unit", drop_in.location.clone(), message);
        complaint.help("write it for the quadlet instead, into NAME.container.d/: it takes [Service] and [Unit] too");
        page.add(complaint);
    }
    for drop_in in &mut folder.quadlet_drop_ins {
        drop_in.path = moved(&drop_in.path, &format!("{}.d/{}", drop_in.quadlet, drop_in.path.file_name()));
    }
}

/// Gives the services of an application's quadlets to the manager of `user`.
pub(super) fn give(page: &mut Page<'_>, app: &mut App, user: &User) {
    for (name, unit) in app.units.iter().filter(|(_, unit)| unit.text.is_none()) {
        let message =
            format!("`{name}` is no service of a quadlet in this folder, and nothing else of `{user}` is managed");
        let mut complaint = Diagnostic::error("user-unit", unit.location.clone(), message);
        complaint.help("remove the entry; a unit of the host belongs to an application without `user:`");
        page.add(complaint);
    }
    for check in &mut app.checks {
        if let Probe::Unit { unit } = &mut check.probe
            && app.units.contains_key(unit)
        {
            *unit = unit.of(Some(user));
        }
    }
    let units = std::mem::take(&mut app.units).into_iter();
    app.units = units.map(|(name, unit)| (name.of(Some(user)), unit)).collect();
    let policies = std::mem::take(&mut app.policies).into_iter();
    app.policies = policies
        .map(|(id, policy)| match id {
            ResourceId::Unit(name) => (ResourceId::Unit(name.of(Some(user))), policy),
            other => (other, policy),
        })
        .collect::<BTreeMap<_, _>>();
    app.user = Some(user.clone());
}
