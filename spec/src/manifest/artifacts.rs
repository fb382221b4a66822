//! Reads `artifacts:` of app.yaml: files whose bytes the repository does not hold, by their path on the host.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::critical;
use super::files::{self, account, guarded, mode};
use super::folder::Folder;
use super::model::{File, FileKind, Policy, owned_by_root};
use super::page::Page;
use super::policy;
use super::yaml::{Key, Node};
use crate::artifact::{Address, LIMIT, MOST, Origin, Unpack};
use crate::digest::Digest;
use crate::id::{HostPath, Mode, QUADLET_DIRECTORY, ResourceId, shown};

/// More folders than these are not left out of an archive's paths.
const MOST_STRIPPED: usize = 20;
/// The units of sizes, the largest first.
const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];

/// Reads `node` and adds what it names to the files that the application brings otherwise.
pub(super) fn read(
    page: &mut Page<'_>,
    node: &Node,
    folder: &Folder<'_>,
    files: &mut BTreeMap<HostPath, File>,
    policies: &mut BTreeMap<ResourceId, Policy>,
) {
    for (key, node) in page.entries(node, "`artifacts`").unwrap_or_default() {
        let path = files::path(page, key, folder);
        let entry = entry(page, key, node);
        let (Some(path), Some(entry)) = (path, entry) else { continue };
        if path.is_below(QUADLET_DIRECTORY) {
            page.error("unit-in-files", key.extent, format!("`{QUADLET_DIRECTORY}` is not filled through `artifacts`"))
                .help("put the quadlet into the application's folder: it is checked, and started from there");
            continue;
        }
        if let Some(complaint) = guarded("artifacts", &path, entry.allow_critical, page.at(key.extent)) {
            page.add(complaint);
        }
        if let Some(other) = files.get(&path) {
            let other = other.location.clone();
            page.error("conflict", key.extent, format!("`{path}` is an artifact here, and a file of this application"))
                .help("keep one of the two; mode and owner of an artifact stand in its own entry")
                .related(other, "the file");
            continue;
        }
        let unpack = match entry.strip {
            Some(_) if !is_fit(page, key, &path) => continue,
            Some(strip) => Some(Unpack { into: path.clone(), strip }),
            None => None,
        };
        policies.insert(ResourceId::File(path.clone()), entry.policy);
        let origin = Origin { unpack, ..entry.origin };
        let file = owned_by_root(FileKind::Artifact { origin: Arc::new(origin) }, entry.mode, page.at(key.extent));
        let owner = entry.owner.unwrap_or_else(|| file.owner.clone());
        let group = entry.group.unwrap_or_else(|| file.group.clone());
        files.insert(path, File { owner, group, ..file });
    }
}

/// An entry as written.
struct Entry {
    origin: Origin,
    mode: Mode,
    owner: Option<String>,
    group: Option<String>,
    policy: Policy,
    allow_critical: bool,
    /// How many folders of an archive are left out, if it is one that is unpacked.
    strip: Option<usize>,
}

/// Complains about a directory that no archive may fill: what is in it is known only when it was fetched.
fn is_fit(page: &mut Page<'_>, key: &Key, path: &HostPath) -> bool {
    let is_at_top = path.parent().is_none();
    if is_at_top || !critical::is_open(path) {
        let message = format!("an archive is not unpacked into `{path}`, which others have to share");
        page.error("artifact-unpack", key.extent, message).help("give it a directory of its own, such as /opt/bridge");
        return false;
    }
    true
}

fn entry(page: &mut Page<'_>, key: &Key, node: &Node) -> Option<Entry> {
    let mut table = page.table(node, &format!("the entry for `{}`", shown(&key.text)))?;
    let before = page.errors();
    let mut required = |page: &mut Page<'_>, name: &'static str, help: &str| {
        let found = table.take(name).map(|(_, node)| node);
        if found.is_none() && !table.has_misspelt(name) {
            page.error("artifact", key.extent, format!("this artifact has no `{name}`")).help(help);
        }
        found
    };
    let address = required(page, "url", "add url: https://… where it is fetched from");
    let digest = required(page, "sha256", "add the digest of its bytes, as `sha256sum` prints it");
    let address = address.and_then(|node| url(page, node));
    let digest = digest.and_then(|node| sha256(page, node));
    let limit = table.take("limit").map_or(Some(LIMIT), |(_, node)| limit(page, node));
    let written_mode = table.take("mode").map(|(key, node)| (key.extent, mode(page, node)));
    let otherwise = Mode::from_bits(if table.has("unpack") { 0o755 } else { 0o644 });
    let mode = written_mode.as_ref().map_or(Some(otherwise), |(_, mode)| *mode);
    let written_mode = written_mode.map(|(extent, _)| extent);
    let unpack = table.take("unpack").map(|(_, node)| page.choice(node, "`unpack`", &[("tar", ())]));
    let strip = table.take("strip").map(|(key, node)| (key.extent, strip(page, node)));
    match (&unpack, &strip, &written_mode) {
        (None, Some((extent, _)), _) => {
            page.error("artifact-unpack", *extent, "`strip` is for an archive that is unpacked")
                .help("add unpack: tar, or remove it");
        }
        (Some(_), _, Some(extent)) => {
            page.error("artifact-unpack", *extent, "what is unpacked has no mode of its own")
                .help("remove it: directories and what can be executed get 0755, the rest 0644");
        }
        _ => {}
    }
    let owner = table.take("owner").and_then(|(_, node)| account(page, node, "`owner`"));
    let group = table.take("group").and_then(|(_, node)| account(page, node, "`group`"));
    let allow_critical = table.take("allow-critical").and_then(|(_, node)| page.boolean(node, "`allow-critical`"));
    let policy = policy::read(page, &mut table);
    table.finish(page, "an entry of `artifacts`");
    let (url, sha256, limit, mode) = (address?, digest?, limit?, mode?);
    (page.errors() == before).then_some(Entry {
        origin: Origin { url, sha256, limit, unpack: None },
        mode,
        owner,
        group,
        policy,
        allow_critical: allow_critical.unwrap_or(false),
        strip: unpack.map(|_| strip.and_then(|(_, strip)| strip).unwrap_or(0)),
    })
}

fn url(page: &mut Page<'_>, node: &Node) -> Option<String> {
    let text = page.text(node, "`url`")?;
    match Address::parse(text) {
        Ok(_) => Some(text.to_owned()),
        Err(flaw) => {
            let message = format!("`{}` is not where an artifact can be fetched: {}", shown(text), flaw.why);
            page.error("artifact-url", node.extent, message).help(flaw.help);
            None
        }
    }
}

fn sha256(page: &mut Page<'_>, node: &Node) -> Option<Digest> {
    let text = page.as_written(node, "`sha256`")?;
    let bare = text.strip_prefix("sha256:").unwrap_or(text);
    if let (Ok(digest), true) = (Digest::parse(bare), bare == text) {
        return Some(digest);
    }
    let help = match (Digest::parse(bare).is_ok(), bare.len()) {
        (true, _) => "remove `sha256:` from it".to_owned(),
        (false, 64) => "only 0 to 9 and a to f are hex digits".to_owned(),
        (false, length) => format!("it has {length} characters: copy all that `sha256sum` prints"),
    };
    page.error("artifact-sha256", node.extent, "`sha256` is not the digest of a file, which has 64 hex digits")
        .help(help);
    None
}

fn strip(page: &mut Page<'_>, node: &Node) -> Option<usize> {
    let text = page.as_written(node, "`strip`")?;
    match text.parse::<usize>() {
        Ok(strip) if strip <= MOST_STRIPPED => Some(strip),
        _ => {
            page.error(
                "artifact-unpack",
                node.extent,
                format!("`strip` is a number up to {MOST_STRIPPED}, not `{}`", shown(text)),
            )
            .help("write how many leading folders of the archive's paths are left out, such as 1");
            None
        }
    }
}

fn limit(page: &mut Page<'_>, node: &Node) -> Option<u64> {
    let text = page.as_written(node, "`limit`")?;
    let size = UNITS.iter().find_map(|(unit, bits)| {
        let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(1 << bits)
    });
    if let Some(size @ 1..=MOST) = size {
        return Some(size);
    }
    let message = match size {
        Some(_) => format!("`limit` is between 1KiB and {}GiB, not `{}`", MOST >> 30, shown(text)),
        None => format!("`limit` is a size with its unit, not `{}`", shown(text)),
    };
    page.error("size", node.extent, message).help("write it such as 64MiB or 2GiB");
    None
}
