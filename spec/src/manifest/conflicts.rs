//! Checks what only the whole repository shows: two applications that want one thing on one host, and paths nobody brings.

use std::collections::{BTreeMap, BTreeSet};

use super::model::Watch;
use super::model::{App, FileKind, Host, Port};
use super::words::{did_you_mean, nearest};
use crate::diagnostic::{Diagnostic, Location};
use crate::id::{AppName, HostName, HostPath};

/// One application's wish for something that only one can have.
struct Claim<'f> {
    app: &'f AppName,
    location: &'f Location,
}

/// Looks for conflicts between applications on each host.
pub(super) fn check(
    apps: &BTreeMap<AppName, App>,
    hosts: &BTreeMap<HostName, Host>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let mut placed: BTreeMap<&AppName, BTreeSet<&HostName>> = BTreeMap::new();
    for (name, app) in apps {
        placed
            .insert(name, hosts.iter().filter(|(host, it)| app.place.holds(host, it)).map(|(host, _)| host).collect());
    }
    let mut checker = Checker { placed, diagnostics, made: 0 };
    checker.same_names(apps);
    checker.same_ports(apps);
    checker.files_as_folders(apps);
}

/// More complaints than this of one kind are not made; the ones made name the applications to look at.
const MOST: usize = 200;

struct Checker<'f, 'd> {
    placed: BTreeMap<&'f AppName, BTreeSet<&'f HostName>>,
    diagnostics: &'d mut Vec<Diagnostic>,
    made: usize,
}

impl<'f> Checker<'f, '_> {
    /// Returns hosts that have both applications.
    fn shared(&self, one: &AppName, other: &AppName) -> Vec<&'f HostName> {
        match (self.placed.get(one), self.placed.get(other)) {
            (Some(one), Some(other)) => one.intersection(other).copied().collect(),
            _ => Vec::new(),
        }
    }

    fn meet(&self, one: &AppName, other: &AppName) -> bool {
        match (self.placed.get(one), self.placed.get(other)) {
            (Some(one), Some(other)) => !one.is_disjoint(other),
            _ => false,
        }
    }

    fn same_names(&mut self, apps: &'f BTreeMap<AppName, App>) {
        let mut claims: BTreeMap<(&str, &str), Vec<Claim<'f>>> = BTreeMap::new();
        for (app, content) in apps {
            for (path, file) in &content.files {
                // A unit's text is one wish with the unit.
                let (kind, name) = match path.unit() {
                    Some(unit) if content.units.contains_key(&unit) => continue,
                    Some(_) => ("unit", path.file_name()),
                    None => ("path", path.as_str()),
                };
                claims.entry((kind, name)).or_default().push(Claim { app, location: &file.location });
            }
            for (unit, wanted) in &content.units {
                claims.entry(("unit", unit.as_str())).or_default().push(Claim { app, location: &wanted.location });
            }
            for (container, wanted) in &content.containers {
                claims
                    .entry(("container", container.as_str()))
                    .or_default()
                    .push(Claim { app, location: &wanted.location });
            }
        }
        for ((kind, name), claims) in claims {
            for (index, later) in claims.iter().enumerate().skip(1) {
                let earlier = claims[..index].iter().find(|earlier| self.meet(earlier.app, later.app));
                if let Some(earlier) = earlier {
                    self.complain(&format!("{kind} `{name}` is wanted"), earlier, later);
                }
            }
        }
    }

    fn complain(&mut self, what: &str, earlier: &Claim<'f>, later: &Claim<'f>) {
        self.made += 1;
        if self.made > MOST {
            return;
        }
        let hosts = self.shared(earlier.app, later.app);
        let Some((first, rest)) = hosts.split_first() else { return };
        let others = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
        let (message, help) = if earlier.app == later.app {
            (format!("{what} twice by `{}`", later.app), "keep one of the two".to_owned())
        } else {
            (
                format!("{what} by `{}` and `{}` on host `{first}`{others}", earlier.app, later.app),
                "let one application have it, or place the two on different hosts".to_owned(),
            )
        };
        let mut complaint = Diagnostic::error("conflict", later.location.clone(), message);
        complaint.help(help).related(earlier.location.clone(), "wanted here as well");
        self.diagnostics.push(complaint);
    }

    fn same_ports(&mut self, apps: &'f BTreeMap<AppName, App>) {
        let mut claims: BTreeMap<(u16, bool), Vec<(&Port, Claim<'f>)>> = BTreeMap::new();
        for (app, content) in apps {
            for container in content.containers.values() {
                for port in &container.ports {
                    let claim = Claim { app, location: &port.location };
                    claims.entry((port.host, port.udp)).or_default().push((port, claim));
                }
            }
        }
        for ((number, udp), claims) in claims {
            let protocol = if udp { "udp" } else { "tcp" };
            for (index, (port, later)) in claims.iter().enumerate().skip(1) {
                let earlier = claims[..index].iter().find(|(other, earlier)| {
                    // The same port written twice in one container was complained about where it was read.
                    (earlier.location.file != later.location.file
                        || port.container != other.container
                        || port.address != other.address)
                        && overlap(port, other)
                        && self.meet(earlier.app, later.app)
                });
                if let Some((_, earlier)) = earlier {
                    self.complain(&format!("host port {number}/{protocol} is wanted"), earlier, later);
                }
            }
        }
    }

    fn files_as_folders(&mut self, apps: &'f BTreeMap<AppName, App>) {
        let mut leaves: BTreeMap<&str, Vec<Claim<'f>>> = BTreeMap::new();
        for (app, content) in apps {
            let files = content.files.iter().filter(|(_, file)| file.kind != FileKind::Directory);
            for (path, file) in files {
                leaves.entry(path.as_str()).or_default().push(Claim { app, location: &file.location });
            }
        }
        for (app, content) in apps {
            for (path, file) in &content.files {
                let mut above = path.parent();
                while let Some(folder) = above {
                    let claims = leaves.get(folder.as_str()).into_iter().flatten();
                    let clash = claims.into_iter().find(|claim| self.meet(claim.app, app));
                    self.made += usize::from(clash.is_some());
                    if let Some(clash) = clash.filter(|_| self.made <= MOST) {
                        let message =
                            format!("`{path}` needs `{folder}` to be a folder, but it is wanted as a file or link");
                        let mut complaint = Diagnostic::error("conflict", file.location.clone(), message);
                        complaint
                            .help(if clash.app == app {
                                "move one of the two"
                            } else {
                                "move one of the two, or place the applications on different hosts"
                            })
                            .related(clash.location.clone(), "wanted as a file or link here");
                        self.diagnostics.push(complaint);
                    }
                    above = folder.parent();
                }
            }
        }
    }
}

/// Says whether two ports of one number and protocol cannot both be listened on.
fn overlap(one: &Port, other: &Port) -> bool {
    match (one.address, other.address) {
        (Some(one), Some(other)) => one == other || one.is_unspecified() || other.is_unspecified(),
        _ => true,
    }
}

/// Warns about watched paths that no application brings.
pub(super) fn check_watches(watches: &[Watch], apps: &BTreeMap<AppName, App>, diagnostics: &mut Vec<Diagnostic>) {
    let managed: BTreeSet<&str> = apps.values().flat_map(|app| app.files.keys()).map(HostPath::as_str).collect();
    let mut made = 0;
    for Watch { path, location } in watches {
        let folder = format!("{path}/");
        let holds_some = managed.range(folder.as_str()..).next().is_some_and(|next| next.starts_with(&folder));
        if managed.contains(path.as_str()) || holds_some {
            continue;
        }
        made += 1;
        if made > MOST {
            break;
        }
        let message = format!("no application brings `{path}`, so its changes are never seen");
        let mut complaint = Diagnostic::warning("watch-unmanaged", location.clone(), message);
        let help = match nearest(path.as_str(), managed.iter().copied()) {
            Some(near) => did_you_mean(near),
            None => "bring it below files/, or remove it from the list".to_owned(),
        };
        complaint.help(help);
        diagnostics.push(complaint);
    }
}
