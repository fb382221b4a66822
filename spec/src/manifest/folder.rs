//! Sorts the content of one application's folder into what mainstay knows, and complains about the rest.
//!
//! Nothing is skipped silently: a file is installed, is known to be for people (README.md), or is a mistake.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::critical;
use super::drop_in::{self, DropIn, QuadletDropIn};
use super::layers::Source;
use super::page::Page;
use super::quadlet::{self, Quadlet};
use super::unit::{self, Traits};
use super::words::did_you_mean;
use crate::diagnostic::{Diagnostic, Location};
use crate::digest::Digest;
use crate::id::{HostPath, QUADLET_DIRECTORY, QUADLET_SUFFIXES, UNIT_DIRECTORY, UNIT_SUFFIXES, UnitName, shown};
use crate::sealed::{self, Sealed};
use crate::tree::Entry;

/// What an application's folder holds.
#[derive(Default)]
pub(super) struct Folder<'t> {
    /// The path and text of app.yaml.
    pub(super) app_yaml: Option<(String, &'t str)>,
    /// The units at the folder's root, and the services that Podman makes of its quadlets.
    pub(super) units: BTreeMap<UnitName, BroughtUnit>,
    /// The drop-ins, in the order of their paths.
    pub(super) drop_ins: Vec<DropIn>,
    /// The drop-ins for quadlets.
    pub(super) quadlet_drop_ins: Vec<QuadletDropIn>,
    /// The files below files/, by their path on the host.
    pub(super) files: BTreeMap<HostPath, BroughtFile>,
    /// The path and text of the compose file.
    pub(super) compose: Option<(String, &'t str)>,
    /// What lies beside a compose file and nothing else knows: the compose file may name it.
    pub(super) beside: BTreeMap<String, Beside>,
    /// What lies there encrypted, by the path without `.age`: one of its secrets may be it.
    pub(super) encrypted: BTreeMap<String, Encrypted>,
    /// Whether anything was complained about, so that "empty" is not said on top.
    pub(super) is_faulty: bool,
}

/// A unit that the application brings.
pub(super) struct BroughtUnit {
    /// Where the text goes.
    pub(super) path: HostPath,
    /// What more there is to know when the text is a quadlet.
    pub(super) quadlet: Option<Quadlet>,
    pub(super) text: Arc<str>,
    pub(super) traits: Traits,
    pub(super) location: Location,
}

/// A file that the application brings.
pub(super) struct BroughtFile {
    pub(super) content: Arc<[u8]>,
    pub(super) digest: Digest,
    pub(super) executable: bool,
    /// What it consists of, where something of it is encrypted.
    pub(super) sealed: Option<Arc<Sealed>>,
    pub(super) location: Location,
}

/// A file that the compose file may name.
pub(super) struct Beside {
    /// Where it stands in the repository.
    pub(super) path: String,
    pub(super) content: Arc<[u8]>,
    pub(super) executable: bool,
    /// Whether it would be a mistake without a compose file that names it.
    pub(super) is_strange: bool,
}

/// A file beside a compose file that is encrypted as a whole.
pub(super) struct Encrypted {
    /// Where it stands in the repository.
    pub(super) location: Location,
    pub(super) sealed: Arc<Sealed>,
}

/// What a compose file may be called.
pub const COMPOSE: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

/// Unit types that systemd has and mainstay does not manage.
const OTHER_UNITS: [&str; 4] = ["automount", "swap", "scope", "device"];

/// Sorts `files`, the layered content of one application's folder.
pub(super) fn sort<'t>(files: &'t [Source<'_>], diagnostics: &mut Vec<Diagnostic>) -> Folder<'t> {
    let mut sorter = Sorter { root: "", folder: Folder::default(), diagnostics, reported: BTreeSet::new() };
    let has_compose = files.iter().any(|file| COMPOSE.contains(&file.within));
    for file in files {
        if let (true, Entry::File { bytes, .. }, Some(within)) =
            (has_compose && !file.within.starts_with("files/"), &file.entry, file.within.strip_suffix(".age"))
        {
            if let Some(sealed) = sorter.opened(file.path, bytes) {
                let encrypted = Encrypted { location: Location::whole(file.path), sealed };
                sorter.folder.encrypted.insert(within.to_owned(), encrypted);
            }
            continue;
        }
        if let (true, Entry::File { bytes, executable }) = (has_compose && is_beside(file.within), &file.entry) {
            let is_strange = !is_for_people(file.within);
            let (path, content) = (file.path.to_owned(), bytes.clone());
            let beside = Beside { path, content, executable: *executable, is_strange };
            sorter.folder.beside.insert(file.within.to_owned(), beside);
            continue;
        }
        sorter.root = file.root;
        sorter.sort(file);
    }
    sorter.folder
}

/// Says whether a file means nothing to mainstay by its name, so that a compose file may name it.
fn is_beside(within: &str) -> bool {
    match within.split_once('/') {
        Some((folder, _)) => {
            !matches!(folder, "files" | "file") && !folder.starts_with('@') && drop_in::unit_of(folder).is_none()
        }
        None => {
            let suffix = within.rsplit_once('.').map_or("", |(_, suffix)| suffix);
            let known = UNIT_SUFFIXES.contains(&suffix)
                || OTHER_UNITS.contains(&suffix)
                || suffix == "artifact"
                || quadlet::kind_of(within).is_some();
            !known && !matches!(within, "app.yaml" | "app.yml") && !COMPOSE.contains(&within)
        }
    }
}

/// Complains about what is encrypted beside a compose file of which no secret is it.
pub(super) fn unopened(folder: &Folder<'_>, used: &BTreeSet<String>) -> Vec<Diagnostic> {
    let unused = folder.encrypted.iter().filter(|(within, _)| !used.contains(*within));
    let complaint = |(within, encrypted): (&String, &Encrypted)| {
        let message = "it is encrypted, and nothing opens it: only secrets of the compose file, and what goes to a host's own path, can be";
        let mut complaint = Diagnostic::error("sealed-place", encrypted.location.clone(), message.to_owned());
        complaint.help(format!(
            "name it as one, without `.age`: secrets: {{ NAME: {{ file: ./{} }} }}, or move it to files/PATH.age",
            shown(within)
        ));
        complaint
    };
    unused.map(complaint).collect()
}

/// Warns about what lies beside a compose file that does not name it, once for each folder: people keep more there than what
/// a host needs. What is nearly called like something that mainstay reads is a mistake.
pub(super) fn strangers(folder: &Folder<'_>, used: &BTreeSet<String>) -> Vec<Diagnostic> {
    let strange = folder.beside.iter().filter(|(within, beside)| beside.is_strange && !used.contains(*within));
    let (meant, others): (Vec<_>, Vec<_>) = strange.partition(|(within, _)| nearly(within).is_some());
    let mistakes = meant.into_iter().map(|(within, beside)| {
        let message = format!("mainstay does not know what `{}` is for", shown(within));
        let mut complaint = Diagnostic::error("unknown-file", Location::whole(&beside.path), message);
        complaint.help(did_you_mean(&nearly(within).unwrap_or_default()));
        complaint
    });
    let mut groups: BTreeMap<&str, Vec<(&String, &Beside)>> = BTreeMap::new();
    for (within, beside) in others {
        groups.entry(within.split_once('/').map_or(within, |(top, _)| top)).or_default().push((within, beside));
    }
    let warnings = groups.into_iter().filter_map(|(top, files)| {
        let (within, first) = files.first()?;
        let message = match files.len() {
            1 => format!("`{}` is not deployed: the compose file does not name it", shown(within)),
            count => format!("{count} files in `{}/` are not deployed: the compose file does not name them", shown(top)),
        };
        let mut warning = Diagnostic::warning("not-deployed", Location::whole(&first.path), message);
        warning.help("that is fine for what only people and their tools read; what a service needs is mounted by its relative path");
        Some(warning)
    });
    mistakes.chain(warnings).collect()
}

/// Returns what a file was probably meant to be called, when that means something to mainstay.
fn nearly(within: &str) -> Option<String> {
    // Shorter ones are near to too much: `.env.prod` is no pod.
    const LEAST: usize = 5;
    let of_unit = |name: &str| {
        let (stem, suffix) = name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty())?;
        let known = UNIT_SUFFIXES.into_iter().chain(QUADLET_SUFFIXES).filter(|it| it.len() >= LEAST);
        let near = known.filter(|it| strsim::damerau_levenshtein(&suffix.to_lowercase(), it) <= 1).min()?;
        Some(format!("{stem}.{near}"))
    };
    match within.split_once('/') {
        None if strsim::damerau_levenshtein(&within.to_lowercase(), "app.yaml") <= 1 => Some("app.yaml".to_owned()),
        None => of_unit(within),
        Some(("Files" | "flies" | "filse" | "fiels" | "rootfs", below)) => Some(format!("files/{below}")),
        Some((folder, below)) => Some(format!("{}.d/{below}", of_unit(folder.strip_suffix(".d")?)?)),
    }
}

struct Sorter<'s, 't> {
    /// The folder of the layer that the file at hand belongs to.
    root: &'t str,
    folder: Folder<'t>,
    diagnostics: &'s mut Vec<Diagnostic>,
    /// Folders that were complained about as a whole.
    reported: BTreeSet<String>,
}

impl<'t> Sorter<'_, 't> {
    fn sort(&mut self, file: &'t Source<'_>) {
        let path = file.path;
        let Some((bytes, executable)) = content(&file.entry, path, self.diagnostics) else {
            self.folder.is_faulty = true;
            return;
        };
        match file.within.split_once('/') {
            Some(("files", below)) => self.file(path, below, (bytes, &file.sealed), executable),
            Some((folder, below)) => match drop_in::unit_of(folder) {
                Some(unit) => self.drop_in(path, (unit, below), bytes),
                None => self.subfolder(folder, below),
            },
            None => self.at_root(path, file.within, bytes),
        }
    }

    fn error(&mut self, rule: &'static str, path: &str, message: String) -> &mut Diagnostic {
        self.folder.is_faulty = true;
        self.diagnostics.push(Diagnostic::error(rule, Location::whole(path), message));
        self.diagnostics.last_mut().expect("one was just pushed")
    }

    fn at_root(&mut self, path: &str, name: &str, bytes: &'t Arc<[u8]>) {
        let suffix = name.rsplit_once('.').map_or("", |(_, suffix)| suffix);
        let shown_name = shown(name);
        if name == "app.yaml" {
            match std::str::from_utf8(bytes) {
                Ok(text) => self.folder.app_yaml = Some((path.to_owned(), text)),
                Err(_) => {
                    self.error("not-utf8", path, "app.yaml is not UTF-8".to_owned()).help("save it as UTF-8");
                }
            }
        } else if UNIT_SUFFIXES.contains(&suffix) {
            self.unit(path, name, bytes);
        } else if quadlet::kind_of(name).is_some() {
            self.quadlet(path, name, bytes);
        } else if suffix == "artifact" {
            self.error(
                "not-supported",
                path,
                "an .artifact quadlet is not supported by this version of mainstay".to_owned(),
            )
            .help("remove it; podman artifact pull in a unit of its own does the same");
        } else if COMPOSE.contains(&name) {
            self.compose(path, bytes);
        } else if matches!(suffix, "j2" | "age") {
            self.rendered(path, suffix);
        } else if OTHER_UNITS.contains(&suffix) {
            self.error("unit-type", path, format!("mainstay does not manage .{suffix} units such as `{shown_name}`"))
                .help(format!("it manages .{}", UNIT_SUFFIXES.join(", .")));
        } else if is_for_people(name) {
        } else if is_leftover(name) {
            self.error("leftover", path, format!("an editor or a merge left `{shown_name}` behind"))
                .help("git rm it, and keep its like out with .gitignore");
        } else if strsim::damerau_levenshtein(&name.to_lowercase(), "app.yaml") <= 2 {
            self.error("unknown-file", path, format!("`{shown_name}` is not a file that mainstay reads"))
                .help("did you mean `app.yaml`?");
        } else if let Some(near) = nearly(name) {
            self.error("unknown-file", path, format!("mainstay does not know what `{shown_name}` is for"))
                .help(did_you_mean(&near));
        } else {
            self.error("unknown-file", path, format!("mainstay does not know what `{shown_name}` is for")).help(
                "put it under files/, at the path that it has on the host (files/etc/…), or move it out of apps/",
            );
        }
    }

    /// Keeps the compose file: there is one.
    fn compose(&mut self, path: &str, bytes: &'t Arc<[u8]>) {
        if let Some((other, _)) = &self.folder.compose {
            let message = format!("`{}` is a compose file too", shown(other));
            self.error("compose-twice", path, message).help("keep one of the two: an application is one project");
            return;
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => self.folder.compose = Some((path.to_owned(), text)),
            Err(_) => {
                self.error("not-utf8", path, "the compose file is not UTF-8".to_owned()).help("save it as UTF-8");
            }
        }
    }

    /// Complains about what is encrypted where nothing can be, and about a template that renders to another one.
    fn rendered(&mut self, path: &str, suffix: &str) {
        if suffix == "j2" {
            self.error("template-name", path, "this name says nothing of what the template renders to".to_owned())
                .help("write one `.j2` behind the name that the file has on the host");
            return;
        }
        let message =
            "only what goes to a host's own path can be encrypted: everybody on a host can read its units".to_owned();
        self.error("sealed-place", path, message)
            .help("move what is secret to files/PATH.age, and let the unit name it: EnvironmentFile=, LoadCredential= or a mount");
    }

    /// Takes up a file that is encrypted as a whole: its name on the host is the one before `.age`.
    fn sealed(&mut self, path: &str, below: &str, bytes: &Arc<[u8]>) {
        if let Some(sealed) = self.opened(path, bytes) {
            self.file(path, below, (bytes, &Some(sealed)), false);
        }
    }

    /// Reads for whom a file is encrypted as a whole; complains about one that is not.
    fn opened(&mut self, path: &str, bytes: &Arc<[u8]>) -> Option<Arc<Sealed>> {
        if bytes.len() > sealed::MOST_BYTES {
            self.error("secret", path, "it is larger than 1 MiB".to_owned()).help("no secret is that long");
            return None;
        }
        match sealed::readers(bytes) {
            Ok(_) => return Some(Arc::new(Sealed::whole(Arc::clone(bytes)))),
            Err(sealed::Unsealed::Plain) => {
                self.error("secret-plain", path, "this file is not encrypted".to_owned()).help(
                    "replace what it holds where it is used: whoever has the repository has it, as an older commit too; then \
                     `mainstay secret encrypt`",
                );
            }
            Err(damaged) => {
                self.error("secret", path, format!("nobody can open this file: {damaged}"))
                    .help("take it from an older commit, or encrypt it again");
            }
        }
        None
    }

    fn unit(&mut self, path: &str, name: &str, bytes: &Arc<[u8]>) {
        let unit = match UnitName::parse(name) {
            Ok(unit) => unit,
            Err(why) => {
                self.error("unit-name", path, format!("this is not a unit's name: {why}")).help("rename the file");
                return;
            }
        };
        let Ok(text) = std::str::from_utf8(bytes) else {
            self.error("not-utf8", path, format!("unit `{unit}` is not UTF-8")).help("save it as UTF-8");
            return;
        };
        let mut page = Page::new(path, text);
        let traits = unit::read(&mut page, &unit);
        let before = self.diagnostics.len();
        page.close(self.diagnostics);
        self.folder.is_faulty |= self.diagnostics.len() > before;
        let (text, location) = (Arc::from(text), Location::whole(path));
        let brought = BroughtUnit { path: unit.path(), quadlet: None, text, traits, location };
        self.bring(unit, brought);
    }

    fn quadlet(&mut self, path: &str, name: &str, bytes: &Arc<[u8]>) {
        let target = match HostPath::parse(&format!("{QUADLET_DIRECTORY}/{name}")) {
            Ok(target) => target,
            Err(why) => {
                self.error("quadlet-name", path, format!("this is not a quadlet's name: {why}"))
                    .help("rename the file");
                return;
            }
        };
        let Ok(text) = std::str::from_utf8(bytes) else {
            self.error("not-utf8", path, format!("quadlet `{}` is not UTF-8", shown(name))).help("save it as UTF-8");
            return;
        };
        let mut page = Page::new(path, text);
        let read = quadlet::read(&mut page, name);
        let before = self.diagnostics.len();
        page.close(self.diagnostics);
        self.folder.is_faulty |= self.diagnostics.len() > before;
        if let Some(quadlet::Read { service, traits, quadlet }) = read {
            let (text, location) = (Arc::from(text), Location::whole(path));
            self.bring(service, BroughtUnit { path: target, quadlet: Some(quadlet), text, traits, location });
        }
    }

    /// Takes a unit up; two of one name are possible only with quadlets.
    fn bring(&mut self, unit: UnitName, brought: BroughtUnit) {
        if let Some(earlier) = self.folder.units.get(&unit) {
            let earlier = earlier.location.clone();
            let message = format!("unit `{unit}` is brought twice: a quadlet becomes a service of that name");
            self.error("conflict", &brought.location.file, message)
                .help("rename one of the two, or give the quadlet a `ServiceName=`")
                .related(earlier, "brought here as well");
        } else {
            self.folder.units.insert(unit, brought);
        }
    }

    fn drop_in(&mut self, path: &str, (unit, below): (&str, &str), bytes: &[u8]) {
        if is_for_people(below) {
            return;
        }
        let before = self.diagnostics.len();
        if UNIT_SUFFIXES.contains(&unit.rsplit('.').next().unwrap_or_default()) {
            self.folder.drop_ins.extend(drop_in::read(path, (unit, below), bytes, self.diagnostics));
        } else {
            let read = drop_in::read_for_quadlet(path, (unit, below), bytes, self.diagnostics);
            self.folder.quadlet_drop_ins.extend(read);
        }
        self.folder.is_faulty |= self.diagnostics.len() > before;
    }

    fn file(&mut self, path: &str, below: &str, (bytes, sealed): (&Arc<[u8]>, &Option<Arc<Sealed>>), executable: bool) {
        let target = format!("/{below}");
        if below.ends_with(".j2") {
            return self.rendered(path, "j2");
        }
        if let Some(below) = below.strip_suffix(".age") {
            return self.sealed(path, below, bytes);
        }
        if below.split('/').next_back() == Some(".gitkeep") {
            let folder = target.rsplit_once('/').map_or("/", |(folder, _)| folder);
            self.error("gitkeep", path, "`.gitkeep` would be installed on the host".to_owned()).help(format!(
                "remove it; to make the folder, write files: {{ {}: {{ kind: directory }} }} in app.yaml",
                shown(folder)
            ));
            return;
        }
        if target.starts_with(&format!("{UNIT_DIRECTORY}/")) {
            return self.unit_in_files(path, &target);
        }
        if target.starts_with(&format!("{QUADLET_DIRECTORY}/")) {
            let help = format!(
                "move it to {}/{}: quadlets are read from there",
                shown(self.root),
                shown(below.rsplit('/').next().unwrap_or_default())
            );
            self.error("unit-in-files", path, format!("`{QUADLET_DIRECTORY}` is not filled through files/")).help(help);
            return;
        }
        if let Some(name) = below.rsplit('/').next().filter(|name| is_leftover(name)) {
            let message =
                format!("an editor or a merge left `{}` behind, and it is installed on the host", shown(name));
            let mut warning = Diagnostic::warning("leftover", Location::whole(path), message);
            warning.help("git rm it, and keep its like out with .gitignore");
            self.diagnostics.push(warning);
        }
        let parsed = HostPath::parse(&target).and_then(|parsed| match below.contains('\\') {
            true => Err(format!("`{}` holds a backslash", shown(&target))),
            false => Ok(parsed),
        });
        match parsed {
            Ok(parsed) if critical::unaliased(&target).is_some() => {
                let real = critical::unaliased(&target).expect("the guard of this arm found it");
                let help = format!("move the file to {}/files{}", shown(self.root), shown(&real));
                self.error(
                    "path-alias",
                    path,
                    format!("`{parsed}` leads through a symbolic link on today's distributions"),
                )
                .help(help);
            }
            Ok(parsed) => {
                let location = Location::whole(path);
                let digest = sealed.as_ref().map_or_else(|| Digest::of(bytes), |sealed| sealed.digest());
                let sealed = sealed.clone();
                let brought = BroughtFile { content: bytes.clone(), digest, executable, sealed, location };
                if let Some(other) = self.folder.files.insert(parsed.clone(), brought) {
                    self.error("conflict", path, format!("`{parsed}` is brought twice, encrypted and as it is"))
                        .help("keep one of the two")
                        .related(other.location, "brought here as well");
                }
            }
            Err(why) => {
                self.error("path", path, format!("this path cannot be managed: {why}")).help("rename the file");
            }
        }
    }

    fn unit_in_files(&mut self, path: &str, target: &str) {
        let name = target.rsplit('/').next().unwrap_or_default();
        let root = shown(self.root);
        let direct = target.matches('/').count() == UNIT_DIRECTORY.matches('/').count() + 1;
        let help = match UnitName::parse(name) {
            Ok(unit) if direct => {
                format!("move it to {root}/{unit}: units are checked, enabled and started from there")
            }
            _ => match target.rsplit('/').nth(1).filter(|folder| drop_in::unit_of(folder).is_some()) {
                Some(folder) => {
                    format!("move it to {root}/{}/{}: drop-ins are read from there", shown(folder), shown(name))
                }
                None => "enable units with `units:` in app.yaml".to_owned(),
            },
        };
        self.error("unit-in-files", path, format!("`{UNIT_DIRECTORY}` is not filled through files/")).help(help);
    }

    /// Finds the drop-ins that were meant by a folder like `web.d`.
    fn drop_in_of(&self, folder: &str, below: &str) -> Option<String> {
        let stem = folder.strip_suffix(".d").filter(|stem| !stem.contains('.'))?;
        below.ends_with(".conf").then(|| format!("{stem}.service.d/{below}"))
    }

    fn subfolder(&mut self, folder: &str, below: &str) {
        let path = format!("{}/{folder}", self.root);
        if !self.reported.insert(path.clone()) {
            return;
        }
        let name = shown(folder);
        if matches!(folder.to_lowercase().as_str(), "file" | "files" | "flies" | "filse" | "rootfs" | "root") {
            self.error("unknown-folder", &path, format!("`{name}/` is not a folder that mainstay reads"))
                .help("did you mean `files/`?");
        } else if let Some(near) = nearly(&format!("{folder}/{below}")).or_else(|| self.drop_in_of(folder, below)) {
            let name = format!("{name}/");
            self.error("unknown-folder", &path, format!("`{name}` is not a folder that mainstay reads"))
                .help(did_you_mean(&near));
        } else {
            let first = shown(below.split('/').next_back().unwrap_or_default());
            self.error("unknown-folder", &path, format!("mainstay does not know what the folder `{name}/` is for")).help(format!(
                "put what the host needs (such as `{first}`) under files/, at its path there, and the rest outside apps/"
            ));
        }
    }
}

/// Says whether a file is what an editor, a merge or a desktop leaves behind, by its name.
fn is_leftover(name: &str) -> bool {
    let ends = ["~", ".swp", ".swo", ".orig", ".rej", ".bak"];
    matches!(name, ".DS_Store" | "Thumbs.db") || name.starts_with(".#") || ends.iter().any(|end| name.ends_with(end))
}

/// Files that people and tools keep beside the ones for mainstay.
pub(super) fn is_for_people(name: &str) -> bool {
    let lower = name.to_lowercase();
    lower.ends_with(".md")
        || ["readme", "license", "licence", "codeowners", "notice"]
            .iter()
            .any(|word| lower == *word || lower.starts_with(&format!("{word}.")))
        || matches!(name, ".gitkeep" | ".gitignore" | ".gitattributes" | ".editorconfig")
}

/// Returns the bytes of a regular file; complains about everything else, which mainstay never follows.
pub(super) fn content<'t>(
    entry: &'t Entry,
    path: &str,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<(&'t Arc<[u8]>, bool)> {
    let (rule, message, help) = match entry {
        Entry::File { bytes, executable } => return Some((bytes, *executable)),
        Entry::Symlink { target } => (
            "symlink",
            format!("a symbolic link to `{}` stands here, and mainstay follows none", shown(target)),
            "put a regular file here; to make a link on the host, write files: { /path: { kind: symlink, target: … } } in app.yaml",
        ),
        Entry::Submodule => (
            "submodule",
            "a git submodule stands here, and mainstay fetches none".to_owned(),
            "commit the files themselves: one commit is one closed tree",
        ),
        Entry::Refused { why } => (
            "refused",
            format!("this file cannot be read: {}", shown(why)),
            "replace or remove it; what is too large here can be fetched by hosts: see `artifacts:` of app.yaml",
        ),
    };
    let mut complaint = Diagnostic::error(rule, Location::whole(path), message);
    complaint.help(help);
    diagnostics.push(complaint);
    None
}
