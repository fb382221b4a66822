//! What a unit reads when it starts: the managed paths that its text names, and digests of all of it.
//!
//! Pure text work on unit files (systemd.syntax(7), systemd.unit(5), systemd.exec(5)); nothing here asks systemd.

mod accounts;
mod builds;
mod claims;
mod pulls;
mod required;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::desired::{Desired, DesiredFile, DesiredUnit, FileKind, UnitOrigin};
use crate::digest::{Digest, Fields};
use crate::id::{ContainerName, HostPath, SECRETS_DIRECTORY, UNIT_DIRECTORY, UnitName};
use crate::memory::Inputs;
pub use accounts::{Accounts, accounts};
pub use claims::{claims, runner};
pub use pulls::{Pull, Runs, pull, runs};
pub use required::{made_of, required};

/// Every managed path of a host; what unit texts are searched for.
pub type Managed<'a> = BTreeMap<&'a HostPath, &'a DesiredFile>;

/// Collects every managed path of a host, and what the agent publishes.
pub fn managed(desired: &Desired) -> Managed<'_> {
    let secrets = desired.secrets().map(|(_, path, secret)| (path, &secret.file));
    desired.files().map(|(_, path, file)| (path, file)).chain(&desired.published).chain(secrets).collect()
}

/// The managed paths that matter to one unit, and their digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitInputs {
    /// Its text (when an application brings it), its drop-ins, and what these or `restart-on` name: a change restarts.
    pub restart: BTreeSet<HostPath>,
    /// What `reload-on` names: a change reloads.
    pub reload: BTreeSet<HostPath>,
    /// Digests of both.
    pub digests: Inputs,
    /// Whether it is a job that runs to its end instead of staying.
    pub once: bool,
}

/// Works out what a unit reads.
///
/// `host_text` is the text of a unit that the host provides. It is searched for managed paths but is no input itself:
/// whoever upgrades that unit's package restarts it. It must not hold the drop-ins that are managed: these are known
/// better, and before systemd has read them.
pub fn of_unit(name: &UnitName, unit: &DesiredUnit, host_text: Option<&str>, managed: &Managed<'_>) -> UnitInputs {
    let (own, text) = match &unit.origin {
        UnitOrigin::Application { path, text } => (Some(path), Some(&**text)),
        UnitOrigin::Host => (None, host_text),
    };
    let mut drop_ins = drop_ins(name, managed);
    drop_ins.extend(own.into_iter().flat_map(|path| quadlet_drop_ins(path, managed)));
    let text = with_drop_ins(text, &drop_ins);
    let mut restart = text.as_ref().map(|text| named(name, text, managed)).unwrap_or_default();
    restart.extend(own.cloned());
    restart.extend(drop_ins.iter().map(|(path, _)| (*path).clone()));
    let built = own.zip(text.as_ref()).map(|(path, text)| builds::reads(path, text, managed));
    restart.extend(built.into_iter().flatten());
    restart.extend(as_archives(unit.restart_on.iter().cloned(), managed));
    // A part of an archive that only reloads, or is ignored, says nothing of the rest of it.
    restart.retain(|path| !unit.reload_on.contains(path) && !unit.ignore.contains(path));
    let digests = Inputs { start: digest(&restart, managed), reload: digest(&unit.reload_on, managed) };
    let once = text.is_some_and(|text| runs_to_its_end(&text)) || own.is_some_and(builds::is_build);
    UnitInputs { restart, reload: unit.reload_on.clone(), digests, once }
}

/// Returns the quadlet of the pod that the container of a .container quadlet is in.
pub fn pod_of(unit: &DesiredUnit) -> Option<HostPath> {
    let UnitOrigin::Application { path, text } = &unit.origin else { return None };
    path.quadlet().filter(|file| file.ends_with(".container"))?;
    let pod = last(text, "Container", "Pod")?;
    HostPath::parse(&format!("{}/{pod}", path.parent()?)).ok()
}

/// Says what a restart does not do, for the service of a network or volume: Podman leaves one that is there as it is.
pub fn kept_by_podman(unit: &DesiredUnit, managed: &Managed<'_>) -> Option<String> {
    let UnitOrigin::Application { path, text } = &unit.origin else { return None };
    let (stem, kind) = path.quadlet()?.rsplit_once('.')?;
    let (section, key) = match kind {
        "network" => ("Network", "NetworkName"),
        "volume" => ("Volume", "VolumeName"),
        _ => return None,
    };
    let text = quadlet_text(path, text, managed);
    let own = || assignments(&text).into_iter().rev().filter(|(of, ..)| of == section);
    if own()
        .any(|(_, key, value)| key == "NetworkDeleteOnStop" && matches!(value.as_str(), "true" | "yes" | "1" | "on"))
    {
        return None;
    }
    let named = own().find(|(_, it, value)| it == key && !value.is_empty()).map(|(.., value)| value);
    let name = named.unwrap_or_else(|| format!("systemd-{stem}"));
    let (name, holds) = (crate::id::shown(&name), if kind == "volume" { ", which removes what it holds" } else { "" });
    Some(format!("; Podman keeps a {kind} as it is until you remove it: `podman {kind} rm {name}`{holds}"))
}

/// Returns what Podman calls the container of a .container quadlet, for the record of its image.
pub fn container_of(name: &UnitName, unit: &DesiredUnit) -> Option<ContainerName> {
    let UnitOrigin::Application { path, text } = &unit.origin else { return None };
    path.quadlet().filter(|file| file.ends_with(".container"))?;
    let named = last(text, "Container", "ContainerName");
    let named = named.map(|value| specifiers(name, &value)).filter(|value| !value.contains('%'));
    ContainerName::parse(&named.unwrap_or_else(|| format!("systemd-{}", name.stem().replace('@', "_")))).ok()
}

/// Returns the managed drop-ins of a unit with their texts, in the order in which systemd reads them: by file name, where
/// one of an instance takes the place of its template's (systemd.unit(5)).
pub fn drop_ins<'m>(name: &UnitName, managed: &Managed<'m>) -> Vec<(&'m HostPath, &'m str)> {
    let mut found: BTreeMap<&'m str, (&'m HostPath, &'m str)> = BTreeMap::new();
    for unit in name.template().iter().chain([name]) {
        let within = texts_below(&unit.drop_in_folder(), managed);
        let ours = within.filter(|(path, _)| path.drop_in().as_ref() == Some(unit));
        found.extend(ours.map(|(path, text)| (path.file_name(), (path, text))));
    }
    found.into_values().collect()
}

/// Returns the path where a unit file would hide what Podman makes of a quadlet of root: systemd reads that one instead.
pub fn hiding(name: &UnitName, unit: &DesiredUnit) -> Option<HostPath> {
    let UnitOrigin::Application { path, .. } = &unit.origin else { return None };
    let is_made = path.quadlet().is_some() && name.user().is_none();
    is_made.then(|| name.template().unwrap_or_else(|| name.clone()).path())
}

/// Returns the last value of a key: it is the one that counts.
fn last(text: &str, section: &str, key: &str) -> Option<String> {
    let found = assignments(text).into_iter().rev().find(|(of, it, _)| of == section && it == key);
    found.map(|(.., value)| value)
}

/// Puts a quadlet's text and its drop-ins together, as Podman reads them.
pub fn quadlet_text<'t>(path: &HostPath, text: &'t str, managed: &Managed<'t>) -> Cow<'t, str> {
    with_drop_ins(Some(text), &quadlet_drop_ins(path, managed)).unwrap_or(Cow::Borrowed(text))
}

/// Returns the managed drop-ins of the quadlet whose text is at `path`, in the order in which Podman reads them.
fn quadlet_drop_ins<'m>(path: &HostPath, managed: &Managed<'m>) -> Vec<(&'m HostPath, &'m str)> {
    let (Some(name), Ok(folder)) = (path.quadlet(), HostPath::parse(&format!("{path}.d"))) else { return Vec::new() };
    texts_below(&folder, managed).filter(|(path, _)| path.quadlet_drop_in() == Some(name)).collect()
}

/// Iterates over the managed files below a folder, with their texts.
fn texts_below<'m>(
    folder: &HostPath,
    managed: &Managed<'m>,
) -> impl Iterator<Item = (&'m HostPath, &'m str)> + use<'m> {
    let behind = (Bound::Excluded(folder), Bound::Unbounded);
    let within: Vec<_> = managed
        .range::<HostPath, _>(behind)
        // What lies below a folder follows it, but for names that go on where it ends.
        .take_while(|(path, _)| path.as_str().starts_with(folder.as_str()))
        .filter_map(|(path, file)| match &file.kind {
            FileKind::Regular { content, .. } => Some((*path, std::str::from_utf8(content).unwrap_or_default())),
            FileKind::Symlink { .. } | FileKind::Directory | FileKind::Artifact { .. } | FileKind::Archive { .. } => {
                None
            }
        })
        .collect();
    within.into_iter()
}

/// Puts a unit's text and its drop-ins together, as systemd reads them.
fn with_drop_ins<'t>(text: Option<&'t str>, drop_ins: &[(&HostPath, &str)]) -> Option<Cow<'t, str>> {
    if drop_ins.is_empty() {
        return text.map(Cow::Borrowed);
    }
    let texts = text.into_iter().chain(drop_ins.iter().map(|(_, text)| *text));
    Some(Cow::Owned(texts.flat_map(|text| [text, "\n"]).collect()))
}

/// Digests the content of `paths`. Mode and owner are left out: a running service is not affected by them.
fn digest(paths: &BTreeSet<HostPath>, managed: &Managed<'_>) -> Digest {
    let mut fields = Fields::default();
    for path in paths {
        let content = managed.get(path).map(|file| match &file.kind {
            FileKind::Archive { origin, .. } => origin.key().to_string(),
            // Whoever reads a link to a secret reads that.
            FileKind::Symlink { target } if target.starts_with(SECRETS_DIRECTORY) => {
                let opened = HostPath::parse(target).ok().and_then(|target| managed.get(&target));
                opened.map_or_else(|| fingerprint(&file.kind), |file| fingerprint(&file.kind)).to_string()
            }
            kind => fingerprint(kind).to_string(),
        });
        fields.add(path.as_str(), content.unwrap_or_default().as_bytes());
    }
    fields.finish()
}

/// Digests what a path is and holds, without mode and owner.
pub fn fingerprint(kind: &FileKind) -> Digest {
    match kind {
        FileKind::Regular { digest, .. } | FileKind::Artifact { digest, .. } => *digest,
        FileKind::Symlink { target } => Fields::default().add("symlink", target.as_bytes()).finish(),
        FileKind::Directory | FileKind::Archive { .. } => Fields::default().add("directory", b"").finish(),
    }
}

/// How a directive's value refers to paths.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reference {
    /// Only the very path counts: an argument that names a directory does not name every file below it.
    Exact,
    /// A named directory stands for everything below it: it is bound or loaded as a whole.
    Subtree,
    /// The value may hold `*` and `?`.
    Glob,
}

/// Says how the directive `key` refers to paths, or `None` where it only mentions them (`ReadWritePaths=`, conditions).
fn reference(key: &str) -> Option<Reference> {
    match key {
        "Environment" | "StandardInput" => Some(Reference::Exact),
        "EnvironmentFile" => Some(Reference::Glob),
        "LoadCredential" | "LoadCredentialEncrypted" | "BindPaths" | "BindReadOnlyPaths" => Some(Reference::Subtree),
        _ if key.starts_with("Exec") && key != "ExecSearchPath" && key != "ExecPaths" => Some(Reference::Exact),
        _ => None,
    }
}

/// Says whether a section of a quadlet is Podman's: what a command in it names is inside the container.
fn is_podmans(section: &str) -> bool {
    matches!(section, "Container" | "Volume" | "Network" | "Pod" | "Kube" | "Build" | "Image")
}

/// Says how a key in one of Podman's sections refers to paths of the host (podman-systemd.unit(5)).
fn quadlet_reference(key: &str) -> Option<Reference> {
    match key {
        "EnvironmentFile"
        | "Yaml"
        | "ConfigMap"
        | "File"
        | "IgnoreFile"
        | "SeccompProfile"
        | "ContainersConfModule" => Some(Reference::Exact),
        "Volume" | "Mount" | "SetWorkingDirectory" | "PodmanArgs" => Some(Reference::Subtree),
        _ => None,
    }
}

/// Returns the part of a value that names something of the host; the rest is inside the container.
fn on_the_host<'v>(key: &str, value: &'v str) -> &'v str {
    match key {
        "Volume" => value.split(':').next().unwrap_or(value),
        "Mount" => value
            .split(',')
            .find_map(|part| part.trim().strip_prefix("source=").or(part.trim().strip_prefix("src=")))
            .unwrap_or_default(),
        _ => value,
    }
}

/// Returns the managed paths that a unit's text names.
pub fn named(unit: &UnitName, text: &str, managed: &Managed<'_>) -> BTreeSet<HostPath> {
    let mut by_key: BTreeMap<String, BTreeSet<HostPath>> = BTreeMap::new();
    for (section, key, value) in assignments(text) {
        let (reference, value) = match is_podmans(&section) {
            true => match quadlet_reference(&key) {
                Some(reference) => (reference, on_the_host(&key, &value).to_owned()),
                None => continue,
            },
            false => match reference(&key) {
                Some(reference) => (reference, value),
                None => continue,
            },
        };
        if value.is_empty() {
            // All of these are lists, which an empty value begins anew.
            by_key.remove(&key);
            continue;
        }
        let found = by_key.entry(key).or_default();
        let value = specifiers(unit, &value);
        for candidate in paths_in(&value) {
            match reference {
                Reference::Glob if candidate.contains(['*', '?']) => {
                    found.extend(
                        managed.keys().filter(|path| glob(candidate, path.as_str())).map(|path| (*path).clone()),
                    );
                }
                Reference::Subtree => {
                    let archive = HostPath::parse(candidate).ok().and_then(|path| archive_of(&path, managed));
                    found.extend(archive);
                    found.extend(
                        managed
                            .keys()
                            .filter(|path| path.as_str() == candidate || path.is_below(candidate))
                            .map(|path| (*path).clone()),
                    );
                }
                Reference::Exact | Reference::Glob => {
                    let path = HostPath::parse(candidate).ok();
                    found.extend(path.filter(|path| managed.contains_key(path) || archive_of(path, managed).is_some()));
                }
            }
        }
    }
    as_archives(by_key.into_values().flatten(), managed)
}

/// Finds the archive that a path is of. What is started from an archive is started with all of it.
pub fn archive_of(path: &HostPath, managed: &Managed<'_>) -> Option<HostPath> {
    let is_archive =
        |path: &HostPath| managed.get(path).is_some_and(|file| matches!(file.kind, FileKind::Archive { .. }));
    std::iter::successors(Some(path.clone()), HostPath::parent).find(is_archive)
}

/// Names archives in the place of what is in them: a unit reads an archive as a whole, whether it is known what that is or not.
fn as_archives(paths: impl IntoIterator<Item = HostPath>, managed: &Managed<'_>) -> BTreeSet<HostPath> {
    paths.into_iter().map(|path| archive_of(&path, managed).unwrap_or(path)).collect()
}

/// Splits a unit's text into `(section, key, value)`, with continuation lines joined and comments dropped.
pub fn assignments(text: &str) -> Vec<(String, String, String)> {
    let mut section = String::new();
    let mut found = Vec::new();
    let mut pending = String::new();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(part) = line.strip_suffix('\\') {
            pending.push_str(part);
            pending.push(' ');
            continue;
        }
        pending.push_str(line);
        let whole = std::mem::take(&mut pending);
        if let Some(name) = whole.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if let Some((key, value)) = whole.split_once('=') {
            found.push((section.clone(), key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    found
}

/// Expands the specifiers that depend on nothing but the unit's name (systemd.unit(5), "Specifiers").
pub fn specifiers(unit: &UnitName, value: &str) -> String {
    if !value.contains('%') {
        return value.to_owned();
    }
    let (prefix, instance) = unit.stem().split_once('@').unwrap_or((unit.stem(), ""));
    let mut expanded = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match if c == '%' { chars.next() } else { None } {
            None => expanded.push(c),
            Some('n') => expanded.push_str(unit.as_str()),
            Some('N') => expanded.push_str(unit.stem()),
            Some('p' | 'P') => expanded.push_str(prefix),
            Some('i' | 'I') => expanded.push_str(instance),
            Some('j' | 'J') => expanded.push_str(prefix.rsplit('-').next().unwrap_or_default()),
            Some('E') => expanded.push_str("/etc"),
            Some('%') => expanded.push('%'),
            Some(other) => expanded.extend(['%', other]),
        }
    }
    expanded
}

/// Finds the absolute paths in a value: at the start of a word, or behind what separates an option from its path.
fn paths_in(value: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for word in value.split(|c: char| c.is_whitespace() || "\"',;".contains(c)) {
        let Some(first) = word.find('/') else { continue };
        let mut starts = vec![first];
        starts.extend(
            word.match_indices(['=', ':', '@', '(']).map(|(at, _)| at + 1).filter(|at| word[*at..].starts_with('/')),
        );
        for start in starts {
            let rest = &word[start..];
            found.push(rest.split(':').next().unwrap_or(rest).trim_end_matches('/'));
        }
    }
    found
}

/// Matches `*` and `?` within one path component, as glob(7) does.
fn glob(pattern: &str, text: &str) -> bool {
    match (pattern.chars().next(), text.chars().next()) {
        (None, None) => true,
        (Some('*'), next) => {
            glob(&pattern[1..], text) || next.is_some_and(|c| c != '/' && glob(pattern, &text[c.len_utf8()..]))
        }
        (Some('?'), Some(c)) => c != '/' && glob(&pattern[1..], &text[c.len_utf8()..]),
        (Some(wanted), Some(c)) => wanted == c && glob(&pattern[wanted.len_utf8()..], &text[c.len_utf8()..]),
        _ => false,
    }
}

/// Says whether a unit's text describes a job that runs to its end instead of staying: a oneshot that does not remain.
pub fn runs_to_its_end(text: &str) -> bool {
    let mut oneshot = false;
    let mut remains = false;
    for (section, key, value) in assignments(text) {
        match (section.as_str(), key.as_str()) {
            ("Service", "Type") => oneshot = value == "oneshot",
            ("Service", "RemainAfterExit") => {
                remains = matches!(value.as_str(), "yes" | "true" | "1" | "on" | "y" | "t");
            }
            _ => {}
        }
    }
    oneshot && !remains
}

/// Returns the symlinks that enabling a unit makes, or `None` where only systemd can tell (`Also=`, no `[Install]`).
///
/// systemd.unit(5), "[Install] Section Options".
pub fn install_links(unit: &UnitName, text: &str) -> Option<Vec<HostPath>> {
    let mut links = Vec::new();
    for (section, key, value) in assignments(text) {
        if section != "Install" {
            continue;
        }
        let folder = match key.as_str() {
            "WantedBy" => "wants",
            "RequiredBy" => "requires",
            "UpheldBy" => "upholds",
            "Alias" => "",
            _ => return None,
        };
        for target in specifiers(unit, &value).split_whitespace() {
            let link = match folder {
                "" => format!("{UNIT_DIRECTORY}/{target}"),
                folder => format!("{UNIT_DIRECTORY}/{target}.{folder}/{unit}"),
            };
            links.push(HostPath::parse(&link).ok()?);
        }
    }
    (!links.is_empty()).then_some(links)
}

/// Returns the symlinks by which a unit was enabled with its old text and would not be with its new one; none where only
/// systemd can tell.
pub fn stale_links(unit: &UnitName, old: &str, new: &str) -> Vec<HostPath> {
    let has_install = assignments(new).iter().any(|(section, ..)| section == "Install");
    let stay = match install_links(unit, new) {
        None if has_install => return Vec::new(),
        links => links.unwrap_or_default(),
    };
    let were = install_links(unit, old).unwrap_or_default();
    were.into_iter().filter(|link| !stay.contains(link)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Mode;

    fn check(unit: &str, text: &str, expected: &[&str]) {
        let file = DesiredFile {
            kind: FileKind::Directory,
            mode: Mode::from_bits(0o755),
            owner: "root".to_owned(),
            group: "root".to_owned(),
        };
        let paths: Vec<HostPath> =
            ["/etc/app/main.conf", "/etc/app/blue.env", "/etc/app/d/x.conf", "/usr/local/bin/app", "/conf"]
                .iter()
                .map(|path| HostPath::parse(path).expect("a path"))
                .collect();
        let managed: Managed<'_> = paths.iter().map(|path| (path, &file)).collect();
        let found = named(&UnitName::parse(unit).expect("a unit"), text, &managed);
        assert_eq!(found.iter().map(HostPath::as_str).collect::<Vec<_>>(), expected, "{text}");
    }

    #[test]
    fn exec_arguments_name_their_files() {
        check(
            "a.service",
            "[Service]\nExecStart=/usr/local/bin/app -c /etc/app/main.conf",
            &["/etc/app/main.conf", "/usr/local/bin/app"],
        );
        check("a.service", "[Service]\nExecStartPre=-@/usr/local/bin/app x", &["/usr/local/bin/app"]);
        check("a.service", "[Service]\nExecStart=app --conf=/etc/app/main.conf", &["/etc/app/main.conf"]);
        check("a.service", "[Service]\nExecStart=app -c/etc/app/main.conf \\\n  more", &["/etc/app/main.conf"]);
        check("a.service", "[Service]\nExecStart=sh -c 'exec cat /etc/app/main.conf'", &["/etc/app/main.conf"]);
        check("a.service", "[Service]\nExecStart=app /opt/conf", &[]);
        let reset =
            "[Service]\nExecStart=app /conf\nExecStartPre=app /etc/app/main.conf\n[Service]\nExecStart=\nExecStart=x";
        check("a.service", reset, &["/etc/app/main.conf"]);
        check("a.service", "[Service]\nExecStart=app --dir /etc/app", &[]);
        check("a.service", "# /etc/app/main.conf\n[Service]\nReadOnlyPaths=/etc/app/main.conf", &[]);
    }

    #[test]
    fn quadlets_name_what_is_on_the_host() {
        check(
            "a.service",
            "[Container]\nVolume=/etc/app:/conf:ro",
            &["/etc/app/blue.env", "/etc/app/d/x.conf", "/etc/app/main.conf"],
        );
        check("a.service", "[Container]\nVolume=data.volume:/etc/app/main.conf\nExec=run /conf", &[]);
        check("a.service", "[Container]\nMount=type=bind,source=/conf,target=/etc/app/main.conf", &["/conf"]);
        check("a@blue.service", "[Container]\nEnvironmentFile=/etc/app/%i.env", &["/etc/app/blue.env"]);
        check(
            "a.service",
            "[Kube]\nYaml=/conf\n[Service]\nExecStartPre=x /etc/app/main.conf",
            &["/conf", "/etc/app/main.conf"],
        );
    }

    #[test]
    fn environment_credentials_and_binds_name_their_files() {
        check("a@blue.service", "[Service]\nEnvironmentFile=-/etc/app/%i.env", &["/etc/app/blue.env"]);
        check("a.service", "[Service]\nEnvironmentFile=/etc/app/*.env", &["/etc/app/blue.env"]);
        check("a.service", "[Service]\nLoadCredential=conf:/etc/app/main.conf", &["/etc/app/main.conf"]);
        check("a.service", "[Service]\nBindReadOnlyPaths=/etc/app/d:/x /conf:/y", &["/conf", "/etc/app/d/x.conf"]);
        check("a.service", "[Service]\nEnvironment=\"CONF=/etc/app/main.conf\"", &["/etc/app/main.conf"]);
    }

    #[test]
    fn what_is_ignored_is_no_input() {
        let root = || "root".to_owned();
        let file =
            DesiredFile { kind: FileKind::Directory, mode: Mode::from_bits(0o755), owner: root(), group: root() };
        let [main, notes] = ["/etc/main", "/etc/notes"].map(|path| HostPath::parse(path).expect("a path"));
        let managed = Managed::from([(&main, &file), (&notes, &file)]);
        let (name, text) =
            (UnitName::parse("a.service").expect("a unit"), "[Service]\nExecStart=a /etc/main /etc/notes");
        let mut unit = DesiredUnit {
            origin: UnitOrigin::Host,
            state: None,
            enabled: None,
            restart_on: BTreeSet::new(),
            reload_on: BTreeSet::new(),
            ignore: BTreeSet::new(),
        };
        let read = |unit: &DesiredUnit| of_unit(&name, unit, Some(text), &managed).restart;
        assert_eq!(read(&unit), BTreeSet::from([main.clone(), notes.clone()]));
        unit.ignore.insert(notes.clone());
        assert_eq!(read(&unit), BTreeSet::from([main.clone()]));
    }

    #[test]
    fn drop_ins_are_read_in_systemd_s_order() {
        let paths = [
            "a-b.service.d/x.conf",
            "a.service.d/10-a.conf",
            "a@.service.d/10-a.conf",
            "a@.service.d/20-b.conf",
            "a@1.service.d/10-a.conf",
        ]
        .map(|path| HostPath::parse(&format!("{UNIT_DIRECTORY}/{path}")).expect("a path"));
        let content = b"[Service]\nEnvironmentFile=/conf\n";
        let file = DesiredFile {
            kind: FileKind::Regular { content: content.as_slice().into(), digest: Digest::of(content) },
            mode: Mode::from_bits(0o644),
            owner: "root".to_owned(),
            group: "root".to_owned(),
        };
        let conf = HostPath::parse("/conf").expect("a path");
        let managed: Managed<'_> = paths.iter().chain([&conf]).map(|path| (path, &file)).collect();
        let of = |unit: &str| -> Vec<String> {
            let unit = UnitName::parse(unit).expect("a unit");
            let short = |path: &HostPath| path.as_str().trim_start_matches(UNIT_DIRECTORY).to_owned();
            drop_ins(&unit, &managed).iter().map(|(path, _)| short(path)).collect()
        };
        assert_eq!(of("a.service"), ["/a.service.d/10-a.conf"]);
        assert_eq!(of("a@1.service"), ["/a@1.service.d/10-a.conf", "/a@.service.d/20-b.conf"]);
        assert_eq!(of("a@2.service"), ["/a@.service.d/10-a.conf", "/a@.service.d/20-b.conf"]);
        let unit = DesiredUnit {
            origin: UnitOrigin::Host,
            state: None,
            enabled: None,
            restart_on: BTreeSet::new(),
            reload_on: BTreeSet::new(),
            ignore: BTreeSet::new(),
        };
        let inputs = of_unit(&UnitName::parse("a.service").expect("a unit"), &unit, None, &managed);
        assert!(inputs.restart.contains(&conf), "what a drop-in names is an input");
    }

    #[test]
    fn oneshots_and_links_are_recognised() {
        assert!(runs_to_its_end("[Service]\nType=oneshot\nExecStart=/bin/true"));
        assert!(!runs_to_its_end("[Service]\nType=oneshot\nRemainAfterExit=yes"));
        assert!(!runs_to_its_end("[Service]\nType=simple"));
        let unit = UnitName::parse("a.timer").expect("a unit");
        let links = install_links(&unit, "[Install]\nWantedBy=timers.target\nAlias=b.timer").expect("links");
        assert_eq!(
            links.iter().map(HostPath::as_str).collect::<Vec<_>>(),
            ["/etc/systemd/system/timers.target.wants/a.timer", "/etc/systemd/system/b.timer"]
        );
        assert_eq!(install_links(&unit, "[Timer]\nOnCalendar=daily"), None);
        let stale =
            |old: &str, new: &str| stale_links(&unit, old, new).iter().map(HostPath::to_string).collect::<Vec<_>>();
        let (one, two) = ("[Install]\nWantedBy=one.target", "[Install]\nWantedBy=two.target one.target");
        let link = format!("/etc/systemd/system/two.target.wants/{unit}");
        assert_eq!(stale(two, one), [link]);
        assert_eq!(stale(one, two), Vec::<String>::new());
        assert_eq!(stale(one, "[Timer]").len(), 1);
        assert_eq!(stale(two, "[Install]\nAlso=x.timer"), Vec::<String>::new());
    }
}
