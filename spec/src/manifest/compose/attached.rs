//! Configs and secrets: files of the folder, or texts, that services find mounted read-only inside.

use std::sync::Arc;

use crate::container::{Mount, MountSource, Settings};
use crate::diagnostic::Location;
use crate::id::{HostPath, shown};
use crate::manifest::decode::Table;
use crate::manifest::page::{Extent, Page};
use crate::manifest::yaml::{Kind, Node};
use crate::sealed::Sealed;

use super::Project;
use super::amounts::{mode_of, switch, text};

/// What a config or secret holds.
pub(super) enum Content {
    /// These bytes: a file of the folder, or a text.
    Bytes(Arc<[u8]>),
    /// A file of the folder that is encrypted.
    Sealed(Arc<Sealed>, Location),
    /// A file that is on the host already.
    OnHost(HostPath),
    /// It was complained about.
    Faulty,
}

/// Reads one of the top-level `configs` or `secrets`.
pub(super) fn declared(page: &mut Page<'_>, project: &mut Project<'_>, extent: Extent, node: &Node) -> Content {
    let Some(mut table) = page.table(node, "a config or secret") else { return Content::Faulty };
    let file = table.take("file").and_then(|(_, node)| Some((text(page, node, "`file`")?, node.extent)));
    let content = table.take("content").and_then(|(_, node)| text(page, node, "`content`"));
    let variable =
        table.take("environment").and_then(|(_, node)| Some((text(page, node, "`environment`")?, node.extent)));
    // A label for people: within the project it goes by its key.
    table.take("name");
    let external = table.take("external").filter(|(_, node)| switch(page, node, "`external`") == Some(true));
    if let Some((key, _)) = external {
        page.error("not-supported", key.extent, "`external` configs and secrets are a cluster's").help("name a `file`");
        return Content::Faulty;
    }
    table.later(&["driver", "driver_opts", "labels", "template_driver"]).finish(page, "a config or secret");
    match (file, content, variable) {
        (Some((file, extent)), None, None) => project.file(page, &file, extent).unwrap_or(Content::Faulty),
        (None, Some(text), None) => Content::Bytes(text.into_bytes().into()),
        (None, None, Some((name, extent))) => match project.variables.get(&name) {
            Some(value) => Content::Bytes(value.clone().into_bytes().into()),
            None => {
                let message = format!("variable `{}` is not set in `.env` or in `vars` of app.yaml", shown(&name));
                page.error("compose-variable", extent, message).help("set it there, or name a `file`");
                Content::Faulty
            }
        },
        _ => {
            page.error("compose-value", extent, "a config or secret has one of `file`, `content` and `environment`")
                .help("name a file of the folder: file: ./NAME");
            Content::Faulty
        }
    }
}

/// The two kinds, which differ in where they go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Config,
    Secret,
}

/// Reads `configs` and `secrets` of a service.
pub(super) fn read(page: &mut Page<'_>, project: &mut Project<'_>, table: &mut Table<'_>, settings: &mut Settings) {
    for (key, sort) in [("configs", Sort::Config), ("secrets", Sort::Secret)] {
        let Some((_, node)) = table.take(key) else { continue };
        for item in page.list(node, &format!("`{key}`")).unwrap_or_default() {
            if let Some(mount) = one(page, project, sort, item) {
                settings.mounts.push(mount);
            }
        }
    }
}

fn one(page: &mut Page<'_>, project: &mut Project<'_>, sort: Sort, node: &Node) -> Option<Mount> {
    let (mut target, mut access) = (None, Access::default());
    let source = match &node.kind {
        Kind::Mapping(_) => {
            let mut table = page.table(node, "a config or secret")?;
            let mut word =
                |page: &mut Page<'_>, key| table.take(key).and_then(|(_, node)| text(page, node, &format!("`{key}`")));
            let source = word(page, "source");
            target = word(page, "target");
            access.uid = word(page, "uid");
            access.gid = word(page, "gid");
            access.mode = table.take("mode").and_then(|(_, node)| mode_of(page, node));
            table.finish(page, "a config or secret");
            source?
        }
        _ => text(page, node, "a config or secret")?,
    };
    let target = match (target, sort) {
        (Some(target), _) if target.starts_with('/') => target,
        (Some(target), Sort::Config) => format!("/{target}"),
        (Some(target), Sort::Secret) => format!("/run/secrets/{target}"),
        (None, Sort::Config) => format!("/{source}"),
        (None, Sort::Secret) => format!("/run/secrets/{source}"),
    };
    if let Err(why) = HostPath::parse(&target) {
        page.error("container-volume", node.extent, format!("the path inside is not one: {why}"))
            .help("write another `target`");
        return None;
    }
    let path = project.attach(page, sort, &source, &access, node.extent)?;
    let source = MountSource::Bind { path, create: false, propagation: None, relabel: None };
    Some(Mount { target, source, read_only: true })
}

/// Who may read the file inside.
#[derive(Default)]
pub(super) struct Access {
    pub(super) uid: Option<String>,
    pub(super) gid: Option<String>,
    pub(super) mode: Option<u32>,
}
