//! Checks what only the whole repository shows: two applications that want one thing on one host, and paths nobody brings.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::model::Watch;
use super::model::{App, Application, File, FileKind, Port, Unit};
use super::words::{did_you_mean, nearest};
use crate::container::Protocol;
use crate::diagnostic::{Diagnostic, Location};
use crate::id::{AppName, ENDPOINTS_FILE, HostName, HostPath, User};

/// One form of an application, and the hosts that have it in this form.
struct Piece<'f> {
    app: &'f AppName,
    content: &'f App,
    hosts: BTreeSet<&'f HostName>,
}

/// A piece's wish for something that only one can have.
#[derive(Clone, Copy)]
struct Claim<'f> {
    piece: usize,
    location: &'f Location,
}

/// What two claims are about and where they stand: the same two lines are one mistake, on however many hosts.
type Clash<'f> = (String, &'f AppName, &'f Location, &'f AppName, &'f Location);

/// Looks for conflicts between applications on each host.
pub(super) fn check(apps: &BTreeMap<AppName, Application>, diagnostics: &mut Vec<Diagnostic>) {
    let mut pieces = Vec::new();
    for (app, application) in apps {
        let first = pieces.len();
        let forms = application.variants.iter();
        pieces.extend(forms.map(|content| Piece { app, content, hosts: BTreeSet::new() }));
        for (host, variant) in &application.hosts {
            pieces[first + variant].hosts.insert(host);
        }
    }
    let mut checker = Checker { pieces: &pieces, clashes: BTreeMap::new() };
    checker.same_names();
    checker.same_ports();
    checker.complain(diagnostics);
    files_as_folders(&pieces, diagnostics);
    references(&pieces, diagnostics);
}

/// Says whether the file is the quadlet of a unit, whose name is one wish with it.
fn is_text_of(path: &HostPath, unit: &Unit) -> bool {
    path.quadlet().is_some() && unit.text.as_ref().is_some_and(|text| text.path == *path)
}

/// Names something of a user so that what two applications call alike is the same: by the number, which says where it is.
fn owned_by<'n>(name: &'n str, user: Option<&User>) -> Cow<'n, str> {
    user.map_or(name.into(), |user| format!("{name} of user {}", user.uid()).into())
}

fn podman(kind: &str) -> &'static str {
    match kind {
        "container" => "Podman's container",
        "volume" => "Podman's volume",
        "network" => "Podman's network",
        _ => "Podman's pod",
    }
}

/// Looks for quadlets that others name: in the same application, in another on the same hosts, or on the host itself.
fn references(pieces: &[Piece<'_>], diagnostics: &mut Vec<Diagnostic>) {
    for piece in pieces {
        // Each user's Podman knows that user's alone.
        let user = &piece.content.user;
        let brings = |piece: &Piece<'_>, name: &str| {
            piece.content.user == *user && piece.content.quadlets.iter().any(|it| it.file == name)
        };
        let own = || piece.content.quadlets.iter();
        let names = own().flat_map(|it| &it.references).filter(|(name, _)| !brings(piece, name));
        for (name, location) in names.take(MOST) {
            let homes: Vec<&Piece<'_>> = pieces.iter().filter(|home| brings(home, name)).collect();
            let lacks = |host: &&HostName| !homes.iter().any(|home| home.hosts.contains(host));
            let lacking = piece.hosts.iter().copied().find(lacks);
            let near = nearest(name, own().map(|it| it.file.as_str()));
            let mut complaint = match (homes.first(), lacking) {
                (Some(_), None) => continue,
                (Some(home), Some(host)) => {
                    let message = format!("`{name}` is brought by `{}`, which is not on host `{host}`", home.app);
                    Diagnostic::warning("quadlet-reference", location.clone(), message)
                }
                (None, _) => {
                    let message = format!("no application brings the quadlet `{name}`, so the host must have it");
                    match near {
                        Some(_) => Diagnostic::error("quadlet-reference", location.clone(), message),
                        None => Diagnostic::warning("quadlet-reference", location.clone(), message),
                    }
                }
            };
            complaint.help(match near {
                Some(near) => did_you_mean(near),
                None => format!("put `{name}` into the application's folder"),
            });
            diagnostics.push(complaint);
        }
    }
}

/// More complaints than this of one kind are not made; the ones made name the applications to look at.
const MOST: usize = 200;

struct Checker<'f> {
    pieces: &'f [Piece<'f>],
    /// What clashes, and on which hosts.
    clashes: BTreeMap<Clash<'f>, BTreeSet<&'f HostName>>,
}

/// Says whether two claims meet on a host. Two forms of one application never do.
fn meet(pieces: &[Piece<'_>], one: usize, other: usize) -> bool {
    let (first, second) = (&pieces[one], &pieces[other]);
    match one == other {
        true => !first.hosts.is_empty(),
        false => first.app != second.app && !first.hosts.is_disjoint(&second.hosts),
    }
}

/// Says whether nothing can clash: all claims are of one application, and each of another form of it.
fn is_alone<'c>(pieces: &[Piece<'_>], mut claims: impl Iterator<Item = &'c Claim<'c>>) -> bool {
    let Some(first) = claims.next() else { return true };
    let mut last = first.piece;
    claims.all(|claim| {
        let fresh = claim.piece > last && pieces[claim.piece].app == pieces[first.piece].app;
        last = claim.piece;
        fresh
    })
}

impl<'f> Checker<'f> {
    fn clash(&mut self, what: impl FnOnce() -> String, earlier: Claim<'f>, later: Claim<'f>) {
        if self.clashes.len() >= MOST {
            return;
        }
        let (one, other) = (&self.pieces[earlier.piece], &self.pieces[later.piece]);
        let clash = (what(), one.app, earlier.location, other.app, later.location);
        self.clashes.entry(clash).or_default().extend(one.hosts.intersection(&other.hosts));
    }

    fn same_names(&mut self) {
        let mut claims: BTreeMap<(&str, Cow<'_, str>), Vec<Claim<'f>>> = BTreeMap::new();
        for (piece, Piece { content, .. }) in self.pieces.iter().enumerate() {
            for (path, file) in &content.files {
                // A unit's text is one wish with the unit.
                let (kind, name) = match path.unit() {
                    _ if content.units.values().any(|it| is_text_of(path, it)) => continue,
                    Some(unit) if content.units.contains_key(&unit) => continue,
                    Some(_) => ("unit", path.file_name()),
                    None => ("path", path.as_str()),
                };
                claims.entry((kind, name.into())).or_default().push(Claim { piece, location: &file.location });
            }
            for (unit, wanted) in &content.units {
                claims
                    .entry(("unit", owned_by(unit.as_str(), unit.user())))
                    .or_default()
                    .push(Claim { piece, location: &wanted.location });
            }
            for quadlet in &content.quadlets {
                if let Some((kind, name)) = &quadlet.resource {
                    let claim = Claim { piece, location: &quadlet.location };
                    claims.entry((podman(kind), owned_by(name, content.user.as_ref()))).or_default().push(claim);
                }
            }
            for (container, wanted) in &content.containers {
                let claim = Claim { piece, location: &wanted.location };
                claims.entry(("container", container.as_str().into())).or_default().push(claim);
            }
            for (network, wanted) in content.networks.iter().filter(|(_, wanted)| wanted.settings.is_some()) {
                let claim = Claim { piece, location: &wanted.location };
                claims.entry(("network", network.as_str().into())).or_default().push(claim);
            }
            for (volume, wanted) in content.volumes.iter().filter(|(_, wanted)| wanted.settings.is_some()) {
                claims
                    .entry(("volume", volume.as_str().into()))
                    .or_default()
                    .push(Claim { piece, location: &wanted.location });
            }
        }
        for ((kind, name), claims) in claims {
            if is_alone(self.pieces, claims.iter()) {
                continue;
            }
            for (index, later) in claims.iter().enumerate().skip(1) {
                let earlier = claims[..index].iter().find(|earlier| meet(self.pieces, earlier.piece, later.piece));
                if let Some(earlier) = earlier {
                    self.clash(|| format!("{kind} `{name}` is wanted"), *earlier, *later);
                }
            }
        }
    }

    /// Says what clashes, and where.
    fn complain(self, diagnostics: &mut Vec<Diagnostic>) {
        for ((what, one, earlier, other, later), hosts) in self.clashes {
            let Some(first) = hosts.first() else { continue };
            let others = if hosts.len() == 1 { String::new() } else { format!(" and {} more", hosts.len() - 1) };
            let (message, help) = if one == other {
                (format!("{what} twice by `{other}`"), "keep one of the two")
            } else {
                (
                    format!("{what} by `{one}` and `{other}` on host `{first}`{others}"),
                    "let one application have it, or place the two on different hosts",
                )
            };
            let mut complaint = Diagnostic::error("conflict", later.clone(), message);
            complaint.help(help).related(earlier.clone(), "wanted here as well");
            diagnostics.push(complaint);
        }
    }

    fn same_ports(&mut self) {
        let mut claims: BTreeMap<(u16, Protocol), Vec<(&Port, Claim<'f>)>> = BTreeMap::new();
        for (piece, Piece { content, .. }) in self.pieces.iter().enumerate() {
            let of_quadlets = content.quadlets.iter().flat_map(|quadlet| &quadlet.ports);
            for port in content.containers.values().flat_map(|container| &container.ports).chain(of_quadlets) {
                let claim = Claim { piece, location: &port.location };
                claims.entry((port.host, port.protocol)).or_default().push((port, claim));
            }
        }
        for ((number, protocol), claims) in claims {
            if is_alone(self.pieces, claims.iter().map(|(_, claim)| claim)) {
                continue;
            }
            let protocol = protocol.as_str();
            for (index, (port, later)) in claims.iter().enumerate().skip(1) {
                let earlier = claims[..index].iter().find(|(other, earlier)| {
                    // The same port written twice in one container was complained about where it was read.
                    (earlier.location.file != later.location.file
                        || port.container != other.container
                        || port.address != other.address)
                        && overlap(port, other)
                        && meet(self.pieces, earlier.piece, later.piece)
                });
                if let Some((_, earlier)) = earlier {
                    self.clash(|| format!("host port {number}/{protocol} is wanted"), *earlier, *later);
                }
            }
        }
    }
}

fn files_as_folders(pieces: &[Piece<'_>], diagnostics: &mut Vec<Diagnostic>) {
    let mut leaves: BTreeMap<&str, Vec<Claim<'_>>> = BTreeMap::new();
    for (piece, Piece { content, .. }) in pieces.iter().enumerate() {
        for (path, file) in content.files.iter().filter(|(_, file)| file.kind != FileKind::Directory) {
            leaves.entry(path.as_str()).or_default().push(Claim { piece, location: &file.location });
        }
    }
    let mut made = BTreeSet::new();
    for (piece, Piece { app, content, .. }) in pieces.iter().enumerate() {
        for (path, file) in &content.files {
            let mut above = path.parent();
            while let Some(folder) = above {
                let claims = leaves.get(folder.as_str()).into_iter().flatten();
                let clash = claims.into_iter().find(|claim| meet(pieces, claim.piece, piece));
                if let Some(clash) = clash
                    && made.len() < MOST
                    && made.insert((path, &file.location, clash.location))
                {
                    let is_archive = pieces[clash.piece].content.files.get(&folder).is_some_and(File::is_archive);
                    let (message, what) = match is_archive {
                        true => (format!("`{path}` lies in `{folder}`, where an archive is unpacked"), "unpacked here"),
                        false => (
                            format!("`{path}` needs `{folder}` to be a folder, but it is wanted as a file or link"),
                            "wanted as a file or link here",
                        ),
                    };
                    let mut complaint = Diagnostic::error("conflict", file.location.clone(), message);
                    complaint
                        .help(if pieces[clash.piece].app == *app {
                            "move one of the two"
                        } else {
                            "move one of the two, or place the applications on different hosts"
                        })
                        .related(clash.location.clone(), what);
                    diagnostics.push(complaint);
                }
                above = folder.parent();
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
pub(super) fn check_watches(
    watches: &BTreeSet<Watch>,
    apps: &BTreeMap<AppName, Application>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let variants = apps.values().flat_map(|application| &application.variants);
    let mut managed: BTreeSet<&str> = variants.flat_map(|app| app.files.keys()).map(HostPath::as_str).collect();
    managed.insert(ENDPOINTS_FILE);
    let files = apps.values().flat_map(|application| &application.variants).flat_map(|app| &app.files);
    let archives: BTreeSet<&HostPath> = files.filter(|(_, file)| file.is_archive()).map(|(path, _)| path).collect();
    let mut made = 0;
    for Watch { path, location } in watches {
        let folder = format!("{path}/");
        let holds_some = managed.range(folder.as_str()..).next().is_some_and(|next| next.starts_with(&folder));
        let mut above = std::iter::successors(path.parent(), HostPath::parent);
        if managed.contains(path.as_str()) || holds_some || above.any(|folder| archives.contains(&folder)) {
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
