//! Hears of changes to files, by inotify(7), on the folders that they are in: a file that is replaced or made anew is another one,
//! and its folder is the same. The folders above are listened to as well, since one of them may be moved away with all below.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use inotify::{Event, EventMask, EventStream, Inotify, WatchDescriptor, WatchMask};
use tracing::{debug, warn};

/// Folders that are listened to at most; what is in others shows at the next look.
const MOST: usize = 4096;
/// Room for events that are read at once.
const BUFFER: usize = 16 * 1024;

/// Listens to folders.
pub(super) struct Files {
    events: EventStream<Vec<u8>>,
    /// The names that matter, by folder.
    wanted: BTreeMap<PathBuf, BTreeSet<OsString>>,
    folders: BTreeMap<PathBuf, WatchDescriptor>,
    has_warned: bool,
}

impl Files {
    /// Listens to nothing yet.
    ///
    /// # Errors
    /// The kernel has no room for one more listener.
    pub(super) fn new() -> io::Result<Files> {
        let events = Inotify::init()?.into_event_stream(vec![0; BUFFER])?;
        Ok(Files { events, wanted: BTreeMap::new(), folders: BTreeMap::new(), has_warned: false })
    }

    /// Listens for changes to these from now on, and to no others.
    pub(super) fn follow<'a>(&mut self, paths: impl Iterator<Item = &'a Path>) {
        let mut wanted: BTreeMap<PathBuf, BTreeSet<OsString>> = BTreeMap::new();
        for mut path in paths {
            // Until a folder is known: then the ones above are, too.
            while let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
                let is_known = wanted.contains_key(parent);
                wanted.entry(parent.to_owned()).or_default().insert(name.to_owned());
                if is_known {
                    break;
                }
                path = parent;
            }
        }
        let gone: Vec<PathBuf> = self.folders.keys().filter(|folder| !wanted.contains_key(*folder)).cloned().collect();
        for folder in gone {
            self.leave(&folder);
        }
        self.wanted = wanted;
        self.complete();
    }

    /// Listens to folders that were not there the last time, or have left.
    pub(super) fn complete(&mut self) {
        if self.folders.len() >= self.wanted.len() {
            return;
        }
        let new: Vec<&PathBuf> = self.wanted.keys().filter(|folder| !self.folders.contains_key(*folder)).collect();
        for folder in new {
            if self.folders.len() >= MOST {
                break;
            }
            match self.events.watches().add(folder, mask()) {
                Ok(descriptor) => drop(self.folders.insert(folder.clone(), descriptor)),
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) if self.has_warned => {
                    debug!(folder = %folder.display(), %error, "a folder is not listened to");
                }
                Err(error) => {
                    self.has_warned = true;
                    warn!(
                        folder = %folder.display(),
                        "changes are noticed at the next look only, since the kernel does not let us listen: {error} (see \
                         fs.inotify.max_user_watches)"
                    );
                }
            }
        }
    }

    /// Says whether every folder that is there is listened to.
    pub(super) fn hears_all(&self) -> bool {
        !self.has_warned && self.folders.len() < MOST
    }

    /// Waits for a change to what is followed.
    pub(super) async fn next(&mut self) {
        loop {
            match self.events.next().await {
                Some(Ok(event)) => {
                    if self.concerns(&event) {
                        return;
                    }
                }
                Some(Err(error)) => {
                    debug!(%error, "events of files could not be read");
                    std::future::pending::<()>().await;
                }
                None => std::future::pending::<()>().await,
            }
        }
    }

    fn concerns(&mut self, event: &Event<OsString>) -> bool {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            return true;
        }
        let Some(folder) = self.folders.iter().find(|(_, it)| **it == event.wd).map(|(folder, _)| folder.clone())
        else {
            return false;
        };
        if event
            .mask
            .intersects(EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED | EventMask::UNMOUNT)
        {
            // The next look finds another one in its place, or makes it.
            self.leave(&folder);
            return true;
        }
        let names = self.wanted.get(&folder);
        event.name.as_ref().is_some_and(|name| names.is_some_and(|names| names.contains(name)))
    }

    fn leave(&mut self, folder: &Path) {
        if let Some(descriptor) = self.folders.remove(folder)
            && let Err(error) = self.events.watches().remove(descriptor)
        {
            // It went by itself when the folder did.
            debug!(folder = %folder.display(), %error, "no longer listened to");
        }
    }
}

fn mask() -> WatchMask {
    WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::MOVE
        | WatchMask::MODIFY
        | WatchMask::CLOSE_WRITE
        | WatchMask::ATTRIB
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR
}
