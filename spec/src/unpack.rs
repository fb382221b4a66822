//! What is in an archive, and what of it may come onto a host: the traps of archives are refused here, before a byte is written.
//!
//! The agent reads an archive and asks about each entry in turn. Nothing is skipped: what cannot be unpacked as it is refuses
//! the archive as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::artifact::{Origin, Unpack};
use crate::container::Mount;
use crate::desired::{Desired, DesiredApp, DesiredFile, FileKind};
use crate::digest::Digest;
use crate::id::{HostPath, Mode, ResourceId, shown};
use crate::manifest;

/// An archive with more entries is refused: each costs a look at every pass.
pub const MOST_ENTRIES: usize = 5_000;

/// What an archive holds, by path below the directory it is unpacked into.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// Files, links and directories.
    pub members: BTreeMap<String, Member>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Member {
    /// A regular file.
    File {
        /// The digest of its content.
        digest: Digest,
        /// Whether anybody may execute it.
        executable: bool,
    },
    /// A symbolic link.
    Link {
        /// Where it leads; never out of the directory.
        target: String,
    },
    /// A directory.
    Directory,
}

/// An entry of an archive, as it stands there.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'e> {
    /// Its path.
    pub path: &'e [u8],
    /// What it is.
    pub kind: Kind<'e>,
    /// Its mode.
    pub mode: u32,
    /// How many bytes it has.
    pub size: u64,
}

/// The kinds of entry.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'e> {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link and where it leads.
    Symlink(&'e [u8]),
    /// Another name of an entry before it.
    Hardlink(&'e [u8]),
    /// Anything else.
    Other,
}

/// What the agent does with an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// Nothing more.
    Noted,
    /// It takes in the content, and tells its digest with [`Listing::took`].
    Content(String),
}

/// Why an archive is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

fn refuse<T>(name: &str, why: &str) -> Result<T, Refused> {
    Err(Refused(format!("`{}` in it {why}", shown(name))))
}

/// An archive being read.
pub struct Listing<'o> {
    unpack: &'o Unpack,
    limit: u64,
    size: u64,
    members: BTreeMap<String, Member>,
    /// Files by the paths that they have in the archive, for hard links.
    files: BTreeMap<String, String>,
}

impl<'o> Listing<'o> {
    /// Begins to read the archive of `origin`, which says `unpack`.
    pub fn new(origin: &Origin, unpack: &'o Unpack) -> Listing<'o> {
        Listing { unpack, limit: origin.limit, size: 0, members: BTreeMap::new(), files: BTreeMap::new() }
    }

    /// Takes note of the next entry.
    ///
    /// # Errors
    /// The archive is not to be unpacked.
    pub fn admit(&mut self, entry: &Entry<'_>) -> Result<Admitted, Refused> {
        let Ok(path) = std::str::from_utf8(entry.path) else {
            return refuse(&String::from_utf8_lossy(entry.path), "has a name that is not UTF-8");
        };
        if matches!(entry.kind, Kind::Other) {
            return refuse(path, "is neither a file nor a directory nor a link");
        }
        if entry.mode & 0o6000 != 0 {
            return refuse(path, "has the setuid or setgid bit");
        }
        let Some(name) = self.stripped(path, entry.kind)? else { return Ok(Admitted::Noted) };
        let file = |digest, executable| Member::File { digest, executable };
        match entry.kind {
            Kind::Directory => self.add_directory(&name)?,
            Kind::Symlink(target) => {
                let target = leads_inside(&name, target)?;
                self.add(&name, Member::Link { target })?;
            }
            Kind::Hardlink(target) => {
                let before = std::str::from_utf8(target).ok().and_then(normal).and_then(|it| self.files.get(&it));
                let before = before.and_then(|name| self.members.get(name)).cloned();
                let Some(before @ Member::File { .. }) = before else {
                    return refuse(path, "is a link to something that is no file before it in the archive");
                };
                self.add(&name, before)?;
            }
            Kind::File | Kind::Other => {
                self.size = self.size.saturating_add(entry.size);
                if self.size > self.limit {
                    let why = format!("holds more than {} bytes; `limit` of its entry allows more", self.limit);
                    return Err(Refused(format!("it {why}")));
                }
                self.add(&name, file(Digest::of(b""), entry.mode & 0o111 != 0))?;
                self.files.extend(normal(path).map(|path| (path, name.clone())));
                return Ok(Admitted::Content(name));
            }
        }
        Ok(Admitted::Noted)
    }

    /// Takes note of a content.
    pub fn took(&mut self, name: &str, content: Digest) {
        if let Some(Member::File { digest, .. }) = self.members.get_mut(name) {
            *digest = content;
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// There is nothing in the archive.
    pub fn finish(self) -> Result<Inventory, Refused> {
        match self.members.is_empty() {
            true => Err(Refused("there is nothing in it".to_owned())),
            false => Ok(Inventory { members: self.members }),
        }
    }

    /// Returns the path below the directory; `None` for a directory that is stripped away.
    fn stripped(&self, path: &str, kind: Kind<'_>) -> Result<Option<String>, Refused> {
        let Some(whole) = normal(path) else { return refuse(path, "has a path that is absolute or leads upwards") };
        let parts: Vec<&str> = whole.split('/').filter(|part| !part.is_empty()).collect();
        if parts.len() <= self.unpack.strip {
            return match kind {
                Kind::Directory => Ok(None),
                _ => refuse(path, &format!("lies above what `strip: {}` leaves", self.unpack.strip)),
            };
        }
        let name = parts[self.unpack.strip..].join("/");
        let on_host = HostPath::parse(&format!("{}/{name}", self.unpack.into));
        match on_host {
            Ok(on_host) if !name.contains('\\') => match manifest::is_open(&on_host) {
                true => Ok(Some(name)),
                false => refuse(path, &format!("would be {on_host}, which is guarded")),
            },
            _ => refuse(path, "has a name that no path on a host should have"),
        }
    }

    /// Adds a directory; archives may name one more than once.
    fn add_directory(&mut self, name: &str) -> Result<(), Refused> {
        match self.members.get(name) {
            Some(Member::Directory) => Ok(()),
            _ => self.add(name, Member::Directory),
        }
    }

    fn add(&mut self, name: &str, member: Member) -> Result<(), Refused> {
        if self.members.contains_key(name) {
            return refuse(name, "is there twice");
        }
        let mut above = name;
        while let Some((folder, _)) = above.rsplit_once('/') {
            match self.members.get(folder) {
                Some(Member::Directory) => break,
                Some(_) => return refuse(name, "lies below something that is no directory"),
                None => self.members.insert(folder.to_owned(), Member::Directory),
            };
            above = folder;
        }
        self.members.insert(name.to_owned(), member);
        if self.members.len() > MOST_ENTRIES {
            return Err(Refused(format!("it holds more than {MOST_ENTRIES} entries")));
        }
        Ok(())
    }
}

/// Removes `.` from a path; `None` when it is absolute or leads upwards.
fn normal(path: &str) -> Option<String> {
    let parts = || path.split('/').filter(|part| !part.is_empty() && *part != ".");
    let is_fine = !path.starts_with('/') && !path.is_empty() && parts().all(|part| part != "..");
    is_fine.then(|| parts().collect::<Vec<_>>().join("/"))
}

/// Returns the target of a link that stays inside. It may only begin with `..`: behind a name, which can be a link itself, `..`
/// leads elsewhere than it looks.
fn leads_inside(name: &str, target: &[u8]) -> Result<String, Refused> {
    let outside = |why| refuse(name, why);
    let Ok(target) = std::str::from_utf8(target) else { return outside("leads to a name that is not UTF-8") };
    if target.is_empty() || target.starts_with('/') || target.chars().any(char::is_control) || target.len() > 4000 {
        return outside("is a link that leads out of the directory, or nowhere");
    }
    let parts: Vec<&str> = target.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let upwards = parts.iter().take_while(|part| **part == "..").count();
    if parts[upwards..].contains(&"..") || upwards > name.matches('/').count() {
        return outside("is a link that leads out of the directory");
    }
    Ok(target.to_owned())
}

impl Member {
    /// Returns the mode it gets: who made the archive decides only what can be executed.
    pub fn mode(&self) -> Mode {
        Mode::from_bits(match self {
            Member::File { executable: false, .. } => 0o644,
            Member::File { executable: true, .. } | Member::Directory => 0o755,
            Member::Link { .. } => 0o777,
        })
    }
}

/// Puts what archives hold among the files of their applications, for those of which `find` knows it. Returns whether there
/// was one.
pub fn open(desired: &mut Desired, mut find: impl FnMut(&Origin) -> Option<Inventory>) -> bool {
    let mut opened: BTreeMap<HostPath, BTreeSet<HostPath>> = BTreeMap::new();
    for app in desired.apps.values_mut() {
        let closed: Vec<(HostPath, Arc<Origin>)> = app.closed_archives().collect();
        for (path, origin) in closed {
            if let Some(inventory) = find(&origin) {
                let members = open_one(app, &path, &origin, inventory);
                opened.insert(path, members);
            }
        }
    }
    if opened.is_empty() {
        return false;
    }
    for container in desired.apps.values_mut().flat_map(|app| app.containers.values_mut()) {
        let mut read: BTreeSet<HostPath> = BTreeSet::new();
        for (_, members) in opened.iter().filter(|(path, _)| container.inputs.contains(*path)) {
            let sources: Vec<&str> = container.settings.mounts.iter().filter_map(Mount::host_path).collect();
            let mounted =
                |path: &&HostPath| sources.iter().any(|source| path.as_str() == *source || path.is_below(source));
            read.extend(members.iter().filter(mounted).cloned());
        }
        container.inputs.retain(|path| !opened.contains_key(path));
        container.inputs.extend(read);
    }
    true
}

/// Adds the members of one archive; returns the files and links among them.
fn open_one(app: &mut DesiredApp, path: &HostPath, origin: &Arc<Origin>, inventory: Inventory) -> BTreeSet<HostPath> {
    let mut leaves = BTreeSet::new();
    let policy = app.policies.get(&ResourceId::File(path.clone())).copied();
    let Some(root) = app.files.get_mut(path) else { return leaves };
    root.kind = FileKind::Archive { origin: Arc::clone(origin), is_open: true };
    let (owner, group) = (root.owner.clone(), root.group.clone());
    for (name, member) in inventory.members {
        // It was proven when the archive was read.
        let Ok(at) = HostPath::parse(&format!("{path}/{name}")) else { continue };
        let mode = member.mode();
        let kind = match member {
            Member::File { digest, .. } => FileKind::Artifact { digest, origin: Arc::clone(origin) },
            Member::Link { target } => FileKind::Symlink { target },
            Member::Directory => FileKind::Directory,
        };
        if kind != FileKind::Directory {
            leaves.insert(at.clone());
        }
        if let Some(policy) = policy {
            app.policies.insert(ResourceId::File(at.clone()), policy);
        }
        app.files.insert(at, DesiredFile { kind, mode, owner: owner.clone(), group: group.clone() });
    }
    leaves
}

#[cfg(test)]
mod tests;
