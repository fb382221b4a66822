//! What a service mounts: volumes in the short and the long form, `tmpfs`, and the files of configs and secrets.

use std::collections::BTreeSet;

use crate::container::{Mount, MountSource};
use crate::id::{HostPath, shown};
use crate::manifest::page::{Extent, Page};
use crate::manifest::yaml::{Kind, Node};

use super::Project;
use super::amounts::{bytes, mode_of, one_or_more, switch, text};

const FORMS: &str = "write \"SOURCE:TARGET\" or \"SOURCE:TARGET:ro\", such as \"./conf:/etc/app:ro\" or \"data:/data\"";

/// Reads `volumes` of a service.
pub(super) fn read(page: &mut Page<'_>, project: &mut Project<'_>, node: &Node) -> Vec<Mount> {
    let items = page.list(node, "`volumes`").unwrap_or_default();
    let mut mounts = Vec::new();
    for item in items {
        mounts.extend(match &item.kind {
            Kind::Mapping(_) => long(page, project, item),
            _ => page.as_written(item, "a volume").and_then(|text| short(page, project, text, item.extent)),
        });
    }
    mounts
}

fn short(page: &mut Page<'_>, project: &mut Project<'_>, text: &str, extent: Extent) -> Option<Mount> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        [_] => {
            page.error("container-volume", extent, format!("`{}` is a volume without a name", shown(text)))
                .help("give it a name: nobody would find, or remove, what an engine names by itself");
            return None;
        }
        _ => {
            page.error("container-volume", extent, format!("`{}` has too many parts", shown(text))).help(FORMS);
            return None;
        }
    };
    let mut read_only = false;
    let (mut relabel, mut propagation, mut nocopy) = (None, None, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "z" | "Z" => relabel = option.chars().next(),
            "nocopy" => nocopy = true,
            // For the virtual machine below an engine on other systems.
            "cached" | "delegated" | "consistent" => {}
            _ if is_propagation(option) => propagation = Some(option.to_owned()),
            _ => {
                page.error("container-volume", extent, format!("`{}` is no option of a volume", shown(option)))
                    .help("`ro`, `rw`, `z`, `Z`, `nocopy` and the propagations are");
                return None;
            }
        }
    }
    let target = target_of(page, target, extent)?;
    let source = if source.starts_with(['/', '.', '~']) {
        let path = project.host_path(page, source, extent)?;
        MountSource::Bind { path, create: true, propagation, relabel }
    } else {
        MountSource::Volume { name: project.volume(page, source, extent)?, nocopy, subpath: None }
    };
    Some(Mount { target, source, read_only })
}

fn is_propagation(word: &str) -> bool {
    matches!(word, "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate")
}

fn target_of(page: &mut Page<'_>, target: &str, extent: Extent) -> Option<String> {
    let trimmed = if target.len() > 1 { target.trim_end_matches('/') } else { target };
    match HostPath::parse(trimmed) {
        Ok(path) => Some(path.to_string()),
        Err(why) => {
            page.error("container-volume", extent, format!("the path inside is not one: {why}")).help(FORMS);
            None
        }
    }
}

fn long(page: &mut Page<'_>, project: &mut Project<'_>, node: &Node) -> Option<Mount> {
    const KINDS: [(&str, u8); 3] = [("bind", 0), ("volume", 1), ("tmpfs", 2)];
    let mut table = page.table(node, "a volume")?;
    let kind = table.take("type").and_then(|(_, node)| page.choice(node, "`type`", &KINDS));
    let source = table.take("source").and_then(|(key, node)| Some((text(page, node, "`source`")?, key.extent)));
    let target = table.take("target").and_then(|(_, node)| text(page, node, "`target`"));
    let read_only = table.take("read_only").and_then(|(_, node)| switch(page, node, "`read_only`"));
    let (mut create, mut propagation, mut relabel) = (true, None, None);
    if let Some(mut bind) = table.take("bind").and_then(|(_, node)| page.table(node, "`bind`")) {
        create =
            bind.take("create_host_path").and_then(|(_, node)| switch(page, node, "`create_host_path`")) != Some(false);
        propagation = bind.take("propagation").and_then(|(_, node)| text(page, node, "`propagation`"));
        relabel = bind.take("selinux").and_then(|(_, node)| page.choice(node, "`selinux`", &[("z", 'z'), ("Z", 'Z')]));
        bind.later(&["recursive"]).finish(page, "`bind`");
    }
    let (mut nocopy, mut subpath) = (false, None);
    if let Some(mut volume) = table.take("volume").and_then(|(_, node)| page.table(node, "`volume`")) {
        nocopy = volume.take("nocopy").and_then(|(_, node)| switch(page, node, "`nocopy`")) == Some(true);
        subpath = volume.take("subpath").and_then(|(_, node)| text(page, node, "`subpath`"));
        volume.later(&["labels"]).finish(page, "`volume`");
    }
    let (mut size, mut mode) = (None, None);
    if let Some(mut tmpfs) = table.take("tmpfs").and_then(|(_, node)| page.table(node, "`tmpfs`")) {
        size =
            tmpfs.take("size").and_then(|(_, node)| bytes(page, node, "`size`")).and_then(|it| u64::try_from(it).ok());
        mode = tmpfs.take("mode").and_then(|(_, node)| mode_of(page, node));
        tmpfs.finish(page, "`tmpfs`");
    }
    // For the virtual machine below an engine on other systems.
    table.take("consistency");
    table.later(&["image"]).finish(page, "a volume");
    let Some(target) = target else {
        page.error("container-volume", node.extent, "this volume has no `target`").help("add target: /path/inside");
        return None;
    };
    let target = target_of(page, &target, node.extent)?;
    let source = match (kind?, source) {
        (0, Some((source, extent))) => {
            let path = project.host_path(page, &source, extent)?;
            MountSource::Bind { path, create, propagation, relabel }
        }
        (1, Some((source, extent))) => {
            MountSource::Volume { name: project.volume(page, &source, extent)?, nocopy, subpath }
        }
        (2, None) => MountSource::Tmpfs { size, mode, options: None },
        (2, Some((_, extent))) => {
            page.error("container-volume", extent, "a tmpfs has no source").help("remove it");
            return None;
        }
        (_, None) => {
            page.error("container-volume", node.extent, "this volume has no `source`")
                .help("add source: a path of the host, or the name of a volume");
            return None;
        }
        _ => return None,
    };
    Some(Mount { target, source, read_only: read_only.unwrap_or(false) })
}

/// Complains about two mounts at one path inside, which no engine accepts.
pub(super) fn check_targets(page: &mut Page<'_>, extent: Extent, mounts: &[Mount]) {
    let mut seen = BTreeSet::new();
    for target in mounts.iter().map(|mount| mount.target.as_str()).filter(|target| !seen.insert(*target)) {
        page.error("container-volume", extent, format!("two things are mounted at `{}`", shown(target)))
            .help("keep one of the two");
    }
}

/// Reads `tmpfs` of a service: paths inside, with options behind a colon.
pub(super) fn tmpfs(page: &mut Page<'_>, node: &Node) -> Vec<Mount> {
    let mut mounts = Vec::new();
    for word in one_or_more(page, node, "`tmpfs`") {
        let (path, options) = word.split_once(':').unwrap_or((&word, ""));
        let Some(target) = target_of(page, path, node.extent) else { continue };
        let options = Some(options.to_owned());
        mounts.push(Mount { target, source: MountSource::Tmpfs { size: None, mode: None, options }, read_only: false });
    }
    mounts
}
