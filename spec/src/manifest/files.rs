//! Reads `files:` of app.yaml: exceptions for what files/ brings, and the directories and links that git cannot carry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::critical::{self, Guard};
use super::folder::{BroughtFile, Folder};
use super::model::{File, FileKind, Policy, owned_by_root};
use super::page::{Extent, Page};
use super::policy;
use super::words::did_you_mean;
use super::yaml::{Key, Kind, Meaning, Node};
use crate::diagnostic::{Diagnostic, Location};
use crate::id::{HostPath, Mode, ResourceId, UNIT_DIRECTORY, shown};

/// The kinds that can be written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    File,
    Directory,
    Symlink,
}

const KINDS: [(&str, Written); 3] =
    [("file", Written::File), ("directory", Written::Directory), ("symlink", Written::Symlink)];

/// Reads `node`, if there is one, over the files of `folder`.
pub(super) fn read(
    page: &mut Page<'_>,
    node: Option<&Node>,
    folder: &Folder<'_>,
    policies: &mut BTreeMap<ResourceId, Policy>,
) -> BTreeMap<HostPath, File> {
    let mut files: BTreeMap<HostPath, File> = BTreeMap::new();
    for (path, brought) in &folder.files {
        files.insert(path.clone(), installed(brought));
    }
    let mut allowed: BTreeSet<HostPath> = BTreeSet::new();
    let mut declared: BTreeMap<HostPath, Extent> = BTreeMap::new();
    let entries = node.and_then(|node| page.entries(node, "`files`")).unwrap_or_default();
    for (key, node) in entries {
        let Some(path) = path(page, key, folder) else { continue };
        let Some(entry) = entry(page, key, node) else { continue };
        declared.insert(path.clone(), key.extent);
        policies.insert(ResourceId::File(path.clone()), entry.policy);
        if entry.allow_critical {
            allowed.insert(path.clone());
        }
        apply(page, key, &path, entry, &mut files, folder);
    }
    for (path, file) in &files {
        let written = declared.get(path).map_or_else(|| file.location.clone(), |extent| page.at(*extent));
        if matches!(file.kind, FileKind::Sealed { .. }) && path.as_str().len() > MOST_SEALED {
            let message = format!("what is encrypted cannot have a path of more than {MOST_SEALED} bytes");
            let mut complaint = Diagnostic::error("path", file.location.clone(), message);
            complaint.help("it is opened below /run/mainstay/secrets, where its path is a longer one");
            page.add(complaint);
        }
        if let Some(complaint) = guarded("files", path, allowed.contains(path), written) {
            page.add(complaint);
        }
    }
    files
}

/// The longest path of what is encrypted: where it is opened to stand a folder and the application's name before it.
pub(super) const MOST_SEALED: usize = 3800;

fn installed(brought: &BroughtFile) -> File {
    let (kind, mode) = match &brought.sealed {
        Some(sealed) => (FileKind::Sealed { sealed: Arc::clone(sealed), digest: brought.digest }, 0o600),
        None => {
            let kind = FileKind::Regular { content: brought.content.clone(), digest: brought.digest };
            (kind, if brought.executable { 0o755 } else { 0o644 })
        }
    };
    owned_by_root(kind, Mode::from_bits(mode), brought.location.clone())
}

/// Complains about a path of an entry below `key` that the host cannot do without, unless it is allowed.
pub(super) fn guarded(key: &str, path: &HostPath, allowed: bool, location: Location) -> Option<Diagnostic> {
    let (rule, message, help) = match critical::path(path) {
        Guard::Open => return None,
        Guard::Critical(_) if allowed => return None,
        Guard::Critical(why) => (
            "critical-path",
            format!("`{path}` is guarded: {why}"),
            format!("if you mean it, write {key}: {{ {path}: {{ allow-critical: true }} }} in app.yaml"),
        ),
        Guard::Never(why) => (
            "forbidden-path",
            format!("`{path}` cannot be managed: {why}"),
            "remove it; `allow-critical` does not help here".to_owned(),
        ),
    };
    let mut complaint = Diagnostic::error(rule, location, message);
    complaint.help(help);
    Some(complaint)
}

/// Reads a path on the host.
pub(super) fn path(page: &mut Page<'_>, key: &Key, folder: &Folder<'_>) -> Option<HostPath> {
    let parsed = HostPath::parse(&key.text).and_then(|path| match key.text.contains('\\') {
        true => Err(format!("`{}` holds a backslash", shown(&key.text))),
        false => Ok(path),
    });
    let path = match parsed {
        Ok(path) => path,
        Err(why) => {
            page.error("path", key.extent, format!("this path cannot be managed: {why}"))
                .help("write the absolute path on the host, such as /etc/motd");
            return None;
        }
    };
    if let Some(real) = critical::unaliased(&key.text) {
        page.error(
            "path-alias",
            key.extent,
            format!("`{path}` leads through a symbolic link on today's distributions"),
        )
        .help(format!("write {}", shown(&real)));
        return None;
    }
    if path.is_below(UNIT_DIRECTORY) {
        let brought = path.unit().is_some_and(|unit| folder.units.contains_key(&unit));
        page.error("unit-in-files", key.extent, format!("`{UNIT_DIRECTORY}` is not filled through `files`")).help(
            if brought || path.drop_in().is_some() {
                "remove this entry: units and drop-ins are installed with mode 0644 as root, which systemd wants"
            } else {
                "put the unit into the application's folder, and enable it with `units:`"
            },
        );
        return None;
    }
    Some(path)
}

/// An entry as written.
struct Exception {
    kind: Option<Written>,
    mode: Option<Mode>,
    owner: Option<String>,
    group: Option<String>,
    target: Option<String>,
    policy: Policy,
    allow_critical: bool,
}

fn entry(page: &mut Page<'_>, key: &Key, node: &Node) -> Option<Exception> {
    let mut table = page.table(node, &format!("the entry for `{}`", shown(&key.text)))?;
    let mut good = true;
    let kind = table.take("kind").and_then(|(_, node)| {
        let kind = page.choice(node, "`kind`", &KINDS);
        good &= kind.is_some();
        kind
    });
    let mode = table.take("mode").map(|(key, node)| (key.extent, mode(page, node)));
    if let (Some(Written::Symlink), Some((extent, _))) = (kind, &mode) {
        page.error("file-entry", *extent, "a symbolic link has no mode").help("remove it");
    }
    let owner = table.take("owner").and_then(|(_, node)| account(page, node, "`owner`"));
    let group = table.take("group").and_then(|(_, node)| account(page, node, "`group`"));
    let target = table.take("target").map(|(key, node)| (key.extent, target(page, node)));
    match (kind, &target) {
        (Some(Written::Symlink), None) => {
            page.error("file-entry", key.extent, "this symbolic link has no target")
                .help("add target: /where/it/leads");
            good = false;
        }
        (kind, Some((extent, _))) if kind != Some(Written::Symlink) && good => {
            page.error("file-entry", *extent, "only a symbolic link has a target")
                .help("add kind: symlink, or remove the target");
        }
        _ => {}
    }
    let allow_critical = table.take("allow-critical").and_then(|(_, node)| page.boolean(node, "`allow-critical`"));
    let policy = policy::read(page, &mut table);
    table.finish(page, "an entry of `files`");
    good.then_some(Exception {
        kind,
        mode: mode.and_then(|(_, mode)| mode),
        owner,
        group,
        target: target.and_then(|(_, target)| target),
        policy,
        allow_critical: allow_critical.unwrap_or(false),
    })
}

fn apply(
    page: &mut Page<'_>,
    key: &Key,
    path: &HostPath,
    entry: Exception,
    files: &mut BTreeMap<HostPath, File>,
    folder: &Folder<'_>,
) {
    let brought = folder.files.contains_key(path);
    let file = match (entry.kind, brought) {
        (None | Some(Written::File), true) => files.get_mut(path).expect("every file that is brought was put in"),
        (None | Some(Written::File), false) => {
            let help = match near(page, path, folder) {
                Some(near) => did_you_mean(near.as_str()),
                None => format!("add the file below files/, or write kind: directory or kind: symlink for `{path}`"),
            };
            page.error("file-missing", key.extent, format!("nothing in this folder brings `{path}`")).help(help);
            return;
        }
        (Some(kind), true) => {
            let kind = if kind == Written::Directory { "a directory" } else { "a symbolic link" };
            let other = folder.files[path].location.clone();
            page.error("conflict", key.extent, format!("`{path}` is {kind} here, but a file below files/"))
                .help("keep one of the two")
                .related(other, "the file");
            return;
        }
        (Some(kind), false) => {
            let (kind, mode) = match kind {
                Written::Symlink => (FileKind::Symlink { target: entry.target.unwrap_or_default() }, 0o777),
                _ => (FileKind::Directory, 0o755),
            };
            let location = page.at(key.extent);
            files.entry(path.clone()).or_insert(owned_by_root(kind, Mode::from_bits(mode), location))
        }
    };
    file.mode = entry.mode.unwrap_or(file.mode);
    file.owner = entry.owner.unwrap_or(std::mem::take(&mut file.owner));
    file.group = entry.group.unwrap_or(std::mem::take(&mut file.group));
}

fn near<'f>(page: &Page<'_>, path: &HostPath, folder: &'f Folder<'_>) -> Option<&'f HostPath> {
    let known = folder.files.keys();
    let near = page.near(path.as_str(), known.clone().map(HostPath::as_str));
    let named = || known.clone().find(|other| other.file_name() == path.file_name());
    known.clone().find(|other| Some(other.as_str()) == near).or_else(named)
}

/// Reads permission bits.
pub(super) fn mode(page: &mut Page<'_>, node: &Node) -> Option<Mode> {
    if let Kind::Scalar { text, plain: true } = &node.kind
        && node.meaning() == Meaning::Number
    {
        let help = match Mode::parse(text.trim_start_matches("0o")) {
            Ok(mode) => format!("put quotes around it: \"{mode}\""),
            Err(_) => "write the octal digits in quotes, such as \"0640\"".to_owned(),
        };
        let message = format!("mode {} is a number in YAML, and readers differ on whether it is octal", shown(text));
        page.error("file-mode", node.extent, message).help(help);
        return None;
    }
    let text = page.text(node, "`mode`")?;
    match Mode::parse(text) {
        Ok(mode) => Some(mode),
        Err(why) => {
            page.error("file-mode", node.extent, why).help("write the octal digits that chmod takes, in quotes");
            None
        }
    }
}

/// Reads a user or group: a name, or a number in decimal.
pub(super) fn account(page: &mut Page<'_>, node: &Node, what: &str) -> Option<String> {
    let text = page.as_written(node, what)?;
    let number = text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u32>().is_ok_and(|id| id < u32::MAX);
    let number = number && (text == "0" || !text.starts_with('0'));
    let name = text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.trim_end_matches('$').chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    if !number && !name {
        page.error("file-owner", node.extent, format!("{what} is a name or a number, not `{}`", shown(text)))
            .help("write it as `id` shows it on the host, such as www-data or 1000");
        return None;
    }
    Some(text.to_owned())
}

fn target(page: &mut Page<'_>, node: &Node) -> Option<String> {
    let text = page.text(node, "`target`")?;
    if text.is_empty() || text.len() > 4000 || text.contains(char::is_control) {
        page.error("file-entry", node.extent, "this is not the target of a symbolic link")
            .help("write a path, absolute or relative to the folder of the link");
        return None;
    }
    Some(text.to_owned())
}
