//! What the services of a project share: its volumes, and the files of the application's folder that they name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::attached::{Access, Content, Sort};
use super::variables::{self, Format};
use super::{PROJECTS, Project, amounts};
use crate::digest::Digest;
use crate::id::{HostPath, Mode, VolumeName, shown};
use crate::manifest::files::MOST_SEALED;
use crate::manifest::folder::Encrypted;
use crate::manifest::model::{File, FileKind, Volume, owned_by_root};
use crate::manifest::page::{Extent, Page};
use crate::manifest::words::did_you_mean;
use crate::manifest::yaml::{Kind, Node};

impl Project<'_> {
    /// Returns what a volume of this file is called on the engine, and notes that it is used.
    pub(super) fn volume(&mut self, page: &mut Page<'_>, key: &str, extent: Extent) -> Option<VolumeName> {
        let Some(declared) = self.volumes.get(key) else {
            let near = page.near(key, self.volumes.keys().map(String::as_str)).map(did_you_mean);
            page.error("compose-volume", extent, format!("there is no volume `{}`", shown(key))).help(
                near.unwrap_or_else(|| {
                    format!("declare it: volumes: {{ {}: }}; a path begins with `./` or `/`", shown(key))
                }),
            );
            return None;
        };
        let called = match (&declared.name, &declared.settings) {
            (Some(name), _) => name.clone(),
            (None, None) => key.to_owned(),
            (None, Some(_)) => format!("{}_{key}", self.name),
        };
        let name = page.name("volume-name", declared.extent, "the name of a volume", VolumeName::parse(&called))?;
        let settings = declared.settings.clone().map(|mut settings| {
            let labels = [("project", self.name.clone()), ("volume", key.to_owned())];
            settings.labels.extend(labels.map(|(label, value)| (format!("com.docker.compose.{label}"), value)));
            settings
        });
        let location = page.at(declared.extent);
        self.brought.volumes.insert(name.clone(), Volume { settings, location });
        Some(name)
    }

    /// Returns the path on the host that a mount's source means, and installs the files of the folder that lie there. A
    /// relative path at which the folder has nothing is a place for data: the engine makes it, and nobody takes it away.
    pub(super) fn host_path(&mut self, page: &mut Page<'_>, source: &str, extent: Extent) -> Option<String> {
        if source.starts_with('/') {
            let trimmed = source.trim_end_matches('/');
            if trimmed.is_empty() {
                return Some("/".to_owned());
            }
            return page
                .name("container-volume", extent, "a path of the host", HostPath::parse(trimmed))
                .map(String::from);
        }
        let within = self.within(page, source, extent)?;
        let below = format!("{within}/");
        let brought: Vec<String> =
            self.beside.keys().filter(|path| **path == within || path.starts_with(&below)).cloned().collect();
        for path in brought {
            self.install(page, &path, extent);
        }
        let path = format!("{PROJECTS}/{}/{within}", self.app);
        page.name("container-volume", extent, "a path of the host", HostPath::parse(&path)).map(String::from)
    }

    /// Returns a relative path as the folder's files are called.
    pub(super) fn within(&self, page: &mut Page<'_>, path: &str, extent: Extent) -> Option<String> {
        let mut parts: Vec<&str> = Vec::new();
        let mut stays = !path.starts_with(['~', '/']);
        for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
            match part {
                ".." => stays &= parts.pop().is_some(),
                part => parts.push(part),
            }
        }
        let help = "name a file or folder beside the compose file, such as ./conf, or an absolute path of the host";
        if !stays {
            let message = format!("`{}` does not stay within the application's folder", shown(path));
            page.error("compose-path", extent, message).help(help);
            return None;
        }
        if parts.is_empty() {
            let message =
                format!("`{}` is the application's folder itself, with all that belongs to no service", shown(path));
            page.error("compose-path", extent, message).help(help);
            return None;
        }
        Some(parts.join("/"))
    }

    /// Installs a file of the folder for services that mount it, or a folder that it lies in.
    fn install(&mut self, page: &mut Page<'_>, within: &str, extent: Extent) {
        let Some(beside) = self.beside.get(within) else { return };
        let path = HostPath::parse(&format!("{PROJECTS}/{}/{within}", self.app));
        let Some(path) = page.name("compose-path", extent, "a path of the host", path) else { return };
        let kind = FileKind::Regular { content: beside.content.clone(), digest: Digest::of(&beside.content) };
        let mode = Mode::from_bits(if beside.executable { 0o755 } else { 0o644 });
        self.brought.used.insert(within.to_owned());
        self.brought.files.insert(path, owned_by_root(kind, mode, page.at(extent)));
    }

    /// Finds the file of a config or secret.
    pub(super) fn file(&mut self, page: &mut Page<'_>, path: &str, extent: Extent) -> Option<Content> {
        if path.starts_with('/') {
            return page.name("compose-path", extent, "a path of the host", HostPath::parse(path)).map(Content::OnHost);
        }
        let within = self.within(page, path, extent)?;
        if let Some(Encrypted { location, sealed }) = self.encrypted.get(&within) {
            if self.beside.contains_key(&within) {
                let message = format!("`{}` is there twice: encrypted, and in the clear", shown(&within));
                page.error("secret-plain", extent, message)
                    .help("remove the one in the clear, and replace what it holds");
            }
            self.brought.used.insert(within);
            return Some(Content::Sealed(Arc::clone(sealed), location.clone()));
        }
        let Some(beside) = self.beside.get(&within) else {
            let near = page.near(&within, self.beside.keys().map(String::as_str)).map(did_you_mean);
            page.error("compose-path", extent, format!("the application's folder has no file `{}`", shown(&within)))
                .help(near.unwrap_or_else(|| "add it beside compose.yaml".to_owned()));
            return None;
        };
        let content = beside.content.clone();
        self.brought.used.insert(within);
        Some(Content::Bytes(content))
    }

    /// Installs a config or secret for one service, and returns its path on the host. Secrets lie in a folder that only root
    /// may enter: the container's user reads the mounted file all the same.
    pub(super) fn attach(
        &mut self,
        page: &mut Page<'_>,
        sort: Sort,
        key: &str,
        access: &Access,
        extent: Extent,
    ) -> Option<String> {
        let (all, what, folder) = match sort {
            Sort::Config => (&self.configs, "config", ".configs"),
            Sort::Secret => (&self.secrets, "secret", ".secrets"),
        };
        let (kind, from) = match all.get(key) {
            Some(Content::Bytes(bytes)) => {
                (FileKind::Regular { digest: Digest::of(bytes), content: bytes.clone() }, None)
            }
            Some(Content::Sealed(..)) if sort == Sort::Config => {
                page.error("sealed-place", extent, format!("config `{}` is encrypted, which secrets are", shown(key)))
                    .help("declare it in `secrets`, and name it in those of the service");
                return None;
            }
            Some(Content::Sealed(sealed, location)) => {
                let kind = FileKind::Sealed { digest: sealed.digest(), sealed: Arc::clone(sealed) };
                (kind, Some(location.clone()))
            }
            Some(Content::OnHost(path)) => return Some(path.to_string()),
            Some(Content::Faulty) => return None,
            None => {
                let near = page.near(key, all.keys().map(String::as_str)).map(did_you_mean);
                page.error("compose-attached", extent, format!("there is no {what} `{}`", shown(key))).help(
                    near.unwrap_or_else(|| format!("declare it: {what}s: {{ {}: {{ file: ./NAME }} }}", shown(key))),
                );
                return None;
            }
        };
        let (uid, gid) = (access.uid.as_deref().unwrap_or("0"), access.gid.as_deref().unwrap_or("0"));
        let mode = Mode::from_bits(access.mode.unwrap_or(0o444));
        let own =
            if (uid, gid, mode.bits()) == ("0", "0", 0o444) { String::new() } else { format!("@{uid}.{gid}.{mode}") };
        let folder = format!("{PROJECTS}/{}/{folder}", self.app);
        let path =
            page.name("compose-attached", extent, "a file's name", HostPath::parse(&format!("{folder}/{key}{own}")))?;
        if from.is_some() && path.as_str().len() > MOST_SEALED {
            let message = format!("what is encrypted cannot have a path of more than {MOST_SEALED} bytes");
            page.error("path", extent, message).help("give the secret a shorter name");
            return None;
        }
        let location = from.unwrap_or_else(|| page.at(extent));
        if let (Sort::Secret, Ok(folder)) = (sort, HostPath::parse(&folder)) {
            let file = owned_by_root(FileKind::Directory, Mode::from_bits(0o700), location.clone());
            self.brought.files.insert(folder, file);
        }
        let file = File { owner: uid.to_owned(), group: gid.to_owned(), ..owned_by_root(kind, mode, location) };
        self.brought.files.insert(path.clone(), file);
        Some(path.to_string())
    }

    /// Reads `env_file` of a service; of several, the later ones win.
    pub(super) fn env_files(&mut self, page: &mut Page<'_>, node: &Node) -> BTreeMap<String, String> {
        let items = match &node.kind {
            Kind::Sequence(items) => items.iter().collect(),
            Kind::Scalar { .. } | Kind::Mapping(_) => vec![node],
        };
        let mut env = BTreeMap::new();
        for item in items {
            let (mut path, mut required, mut format) = (None, true, Format::Compose);
            if let Kind::Mapping(_) = &item.kind {
                let Some(mut table) = page.table(item, "an entry of `env_file`") else { continue };
                path = table.take("path").and_then(|(_, node)| amounts::text(page, node, "`path`"));
                required = table.take("required").and_then(|(_, node)| amounts::switch(page, node, "`required`"))
                    != Some(false);
                let raw =
                    table.take("format").and_then(|(_, node)| page.choice(node, "`format`", &[("raw", Format::Raw)]));
                format = raw.unwrap_or(format);
                table.finish(page, "an entry of `env_file`");
            } else if let Some(text) = amounts::text(page, item, "`env_file`") {
                path = Some(text);
            }
            let Some(within) = path.and_then(|path| self.within(page, &path, item.extent)) else { continue };
            match self.beside.get(&within) {
                Some(beside) => {
                    let mut file = Page::new(&beside.path, std::str::from_utf8(&beside.content).unwrap_or_default());
                    env.extend(variables::read_file(&mut file, format, &self.variables));
                    file.close(&mut self.elsewhere);
                    self.brought.used.insert(within);
                }
                None if self.encrypted.contains_key(&within) => {
                    let message = format!(
                        "`{}` is encrypted, and whoever may ask the engine reads an environment",
                        shown(&within)
                    );
                    page.error("sealed-place", item.extent, message)
                        .help("declare it in `secrets`, and let the service read /run/secrets/NAME");
                    self.brought.used.insert(within);
                }
                None if !required => {}
                None => {
                    page.error(
                        "compose-path",
                        item.extent,
                        format!("the application's folder has no file `{}`", shown(&within)),
                    )
                    .help("add it beside compose.yaml, or write required: false");
                }
            }
        }
        env
    }
}
