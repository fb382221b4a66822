//! The last good release of each application, whole, in a file of its own: what an application goes back to.
//!
//! Written when a release was reached and its checks passed, so before it is needed. One file holds everything of it, so
//! that none can be half there; one per application bounds them. Contents can be secret: nobody but root may read them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use spec::course::Release;
use spec::desired::{DesiredApp, DesiredFile, FileKind, Hold};
use spec::digest::Digest;
use spec::id::{AppName, CommitId, HostPath, UnitName};
use spec::images;
use spec::memory::{Memory, Ran};
use spec::sealed::Part;
use tracing::{error, warn};

/// The version of the files' format that this agent writes.
const VERSION: u32 = 1;
const GOOD: &str = "releases";
const BAKING: &str = "baking";
/// The longest first line: it holds a digest for each artifact.
const LONGEST_HEAD: u64 = 4 << 20;

/// The first line of a file: enough to know what it holds, and whether it is whole.
#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    /// The digest of the release.
    release: Digest,
    /// The digest of everything behind this line.
    sha256: Digest,
    /// The artifacts it is made of, which the store keeps for it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    artifacts: BTreeSet<Digest>,
    /// The images it is made of, which stay on the engine for it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    images: BTreeSet<String>,
}

/// The second line; the contents of files follow, one after another.
#[derive(Serialize, Deserialize)]
struct Body {
    commit: Option<CommitId>,
    app: DesiredApp,
    reads: BTreeMap<HostPath, Digest>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    published: BTreeMap<HostPath, DesiredFile>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    ran: BTreeMap<UnitName, Ran>,
    /// Of each content, its digest and how long it is.
    contents: Vec<(Digest, usize)>,
}

/// The releases of this host that its applications can be held to.
pub struct Releases {
    /// Those that are good.
    good: Shelf,
    /// Those that were reached and have not been healthy for long enough: where one bakes while a newer commit waits, it is
    /// held to it; where it fails, it goes back to the good one.
    baking: Shelf,
}

/// One release of each application, at most.
struct Shelf {
    folder: PathBuf,
    /// Which release of each application is kept.
    kept: BTreeMap<AppName, Digest>,
    /// Which artifacts each is made of.
    artifacts: BTreeMap<AppName, BTreeSet<Digest>>,
    /// Which images each is made of.
    images: BTreeMap<AppName, BTreeSet<String>>,
    /// Those that are in use, read once.
    read: BTreeMap<AppName, Release>,
}

impl Releases {
    /// Looks at what is kept in the state folder. What cannot be read is not kept, and says so.
    pub fn open(state: &Path) -> Releases {
        Releases { good: Shelf::open(state.join(GOOD)), baking: Shelf::open(state.join(BAKING)) }
    }

    /// Returns which good release of each application is kept.
    pub fn kept(&self) -> &BTreeMap<AppName, Digest> {
        &self.good.kept
    }

    /// Returns which release of each application bakes.
    pub fn baking(&self) -> &BTreeMap<AppName, Digest> {
        &self.baking.kept
    }

    /// Names the artifacts that the releases which are kept are made of.
    pub fn artifacts(&self) -> impl Iterator<Item = Digest> {
        self.shelves().flat_map(|shelf| shelf.artifacts.values().flatten().copied())
    }

    /// Names the images that the releases which are kept are made of.
    pub fn images(&self) -> impl Iterator<Item = String> {
        self.shelves().flat_map(|shelf| shelf.images.values().flatten().cloned())
    }

    fn shelves(&self) -> impl Iterator<Item = &Shelf> {
        [&self.good, &self.baking].into_iter()
    }

    /// Returns the releases that these applications are held to: the last good ones, or those that bake where nothing is wrong
    /// with them. One that is lost or damaged is left out.
    pub fn of(&mut self, holds: &BTreeMap<AppName, Hold>, memory: &Memory) -> BTreeMap<AppName, Release> {
        let bakes = |app: &AppName, hold: &Hold| {
            let known = memory.apps.get(app).filter(|known| known.baking.is_some() && known.reached);
            let here = known.is_some_and(|known| self.baking.kept.get(app) == Some(&known.digest));
            here && matches!(hold, Hold::Waits(_) | Hold::Paused)
        };
        let baking: BTreeSet<&AppName> =
            holds.iter().filter(|(app, hold)| bakes(app, hold)).map(|(app, _)| app).collect();
        let mut found = self.baking.of(baking.iter().copied());
        // What waits stays what it is: it goes back to an older release only if it is not well at the one that it is at.
        let may_go_back = |app: &AppName, hold: &Hold| {
            let known = memory.apps.get(app).filter(|_| matches!(hold, Hold::Waits(_)));
            known.is_none_or(|known| {
                let is_stuck = known.bad.as_ref().is_some_and(|bad| bad.stuck.is_some());
                let is_there = self.good.kept.get(app) == Some(&known.digest);
                is_there || !(is_stuck || known.reached && known.bad.is_none())
            })
        };
        let rest = holds.iter().filter(|(app, hold)| !found.contains_key(*app) && may_go_back(app, hold));
        let rest: Vec<&AppName> = rest.map(|(app, _)| app).collect();
        found.extend(self.good.of(rest.into_iter()));
        found
    }

    /// Keeps a good release in the place of the one before, durably, and `images` on the engine beside those that it names.
    /// Nothing is written when it is kept already.
    ///
    /// # Errors
    /// The disk refuses. Nothing is kept then: what was kept is no longer the last good one.
    pub fn keep(&mut self, name: &AppName, release: &Release, images: BTreeSet<String>) -> io::Result<()> {
        self.good.keep(name, release, images)?;
        self.baking.forget(name);
        Ok(())
    }

    /// Keeps a release that was reached beside the last good one, until it has been healthy for long enough.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn bake(&mut self, name: &AppName, release: &Release, images: BTreeSet<String>) -> io::Result<()> {
        self.baking.keep(name, release, images)
    }

    /// Takes a release that has baked for the good one.
    ///
    /// # Errors
    /// The disk refuses; it stays where it was.
    pub fn baked(&mut self, name: &AppName) -> io::Result<()> {
        let Some(digest) = self.baking.kept.get(name).copied() else { return Ok(()) };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.good.folder)?;
        fs::rename(self.baking.folder.join(name.as_str()), self.good.folder.join(name.as_str()))?;
        File::open(&self.good.folder)?.sync_all()?;
        self.good.kept.insert(name.clone(), digest);
        self.good.artifacts.insert(name.clone(), self.baking.artifacts.remove(name).unwrap_or_default());
        self.good.images.insert(name.clone(), self.baking.images.remove(name).unwrap_or_default());
        self.good.read.remove(name);
        self.baking.kept.remove(name);
        self.baking.read.remove(name);
        Ok(())
    }

    /// Forgets a release that failed while it baked.
    pub fn spoil(&mut self, name: &AppName) {
        self.baking.forget(name);
    }

    /// Forgets what is kept of applications that this host has no longer.
    pub fn keep_only(&mut self, wanted: impl Fn(&AppName) -> bool) {
        self.good.keep_only(&wanted);
        self.baking.keep_only(&wanted);
    }
}

impl Shelf {
    /// Looks at what is kept in a folder. What cannot be read is not kept, and says so.
    fn open(folder: PathBuf) -> Shelf {
        let (mut kept, mut artifacts, mut images) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            // What a write left unfinished begins with a dot, which no application's name does.
            let Some(app) = name.to_str().and_then(|name| AppName::parse(name).ok()) else { continue };
            match head(&entry.path()) {
                Ok(head) => {
                    artifacts.insert(app.clone(), head.artifacts);
                    images.insert(app.clone(), head.images);
                    kept.insert(app, head.release);
                }
                Err(error) => warn!(%app, %error, "the last good release cannot be read"),
            }
        }
        Shelf { folder, kept, artifacts, images, read: BTreeMap::new() }
    }

    /// Returns the releases of these applications; one that is lost or damaged is left out.
    fn of<'a>(&mut self, apps: impl Iterator<Item = &'a AppName>) -> BTreeMap<AppName, Release> {
        let mut found = BTreeMap::new();
        let wanted: BTreeSet<&AppName> = apps.filter(|app| self.kept.contains_key(*app)).collect();
        self.read.retain(|app, _| wanted.contains(app));
        for app in wanted {
            if !self.read.contains_key(app) {
                match read(&self.folder.join(app.as_str())) {
                    Ok(release) => {
                        self.read.insert(app.clone(), release);
                    }
                    Err(error) => {
                        error!(%app, %error, "the last good release is damaged; the application cannot go back to it");
                        continue;
                    }
                }
            }
            found.insert(app.clone(), self.read[app].clone());
        }
        found
    }

    /// Keeps a release in the place of the one before, durably, and `images` on the engine beside those that it names.
    /// Nothing is written when it is kept already.
    ///
    /// # Errors
    /// The disk refuses. Nothing is kept then: what was kept is no longer the last good one.
    fn keep(&mut self, name: &AppName, release: &Release, mut images: BTreeSet<String>) -> io::Result<()> {
        if self.kept.get(name) == Some(&release.app.digest) {
            return Ok(());
        }
        self.read.remove(name);
        images.extend(images::of_app(&release.app));
        let written = write(&self.folder, name, release, &images);
        match &written {
            Ok(()) => {
                self.kept.insert(name.clone(), release.app.digest);
                self.artifacts.insert(name.clone(), release.app.artifacts().collect());
                self.images.insert(name.clone(), images);
            }
            Err(_) => self.forget(name),
        }
        written
    }

    /// Forgets what is kept of applications that this host has no longer.
    fn keep_only(&mut self, wanted: impl Fn(&AppName) -> bool) {
        let gone: Vec<AppName> = self.kept.keys().filter(|app| !wanted(app)).cloned().collect();
        gone.iter().for_each(|app| self.forget(app));
    }

    fn forget(&mut self, name: &AppName) {
        self.artifacts.remove(name);
        self.images.remove(name);
        self.read.remove(name);
        if self.kept.remove(name).is_none() {
            return;
        }
        match fs::remove_file(self.folder.join(name.as_str())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(app = %name, %error, "failed to remove a release that is not needed any more");
            }
            _ => {}
        }
    }
}

fn write(folder: &Path, name: &AppName, release: &Release, images: &BTreeSet<String>) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut contents: BTreeMap<Digest, &[u8]> = BTreeMap::new();
    for file in release.app.files.values().chain(release.published.values()) {
        if let FileKind::Regular { content, digest } = &file.kind {
            contents.insert(*digest, content);
        }
    }
    for envelope in release.app.secrets.values().flat_map(|secret| secret.sealed.envelopes()) {
        contents.insert(envelope.blob().digest, &envelope.blob().bytes);
    }
    let body = Body {
        commit: release.commit.clone(),
        app: release.app.clone(),
        reads: release.reads.clone(),
        published: release.published.clone(),
        ran: release.ran.clone(),
        contents: contents.iter().map(|(digest, content)| (*digest, content.len())).collect(),
    };
    let mut bytes = serde_json::to_vec(&body)?;
    bytes.push(b'\n');
    contents.values().for_each(|content| bytes.extend_from_slice(content));
    let (artifacts, images) = (release.app.artifacts().collect(), images.clone());
    let head = Head { version: VERSION, release: release.app.digest, sha256: Digest::of(&bytes), artifacts, images };
    let new = folder.join(format!(".{name}"));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(&head)?)?;
    file.write_all(b"\n")?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&new, folder.join(name.as_str()))?;
    File::open(folder)?.sync_all()
}

fn head(path: &Path) -> io::Result<Head> {
    let mut line = String::new();
    BufReader::new(File::open(path)?).take(LONGEST_HEAD).read_line(&mut line)?;
    let head: Head = serde_json::from_str(&line)?;
    if head.version == VERSION { Ok(head) } else { Err(damaged("it was written by another version of mainstay")) }
}

fn read(path: &Path) -> io::Result<Release> {
    let head = head(path)?;
    let bytes = fs::read(path)?;
    let rest = bytes.splitn(2, |byte| *byte == b'\n').nth(1).unwrap_or_default();
    if Digest::of(rest) != head.sha256 {
        return Err(damaged("its checksum is wrong"));
    }
    let mut parts = rest.splitn(2, |byte| *byte == b'\n');
    let body: Body = serde_json::from_slice(parts.next().unwrap_or_default())?;
    let mut rest = parts.next().unwrap_or_default();
    let mut contents: BTreeMap<Digest, Arc<[u8]>> = BTreeMap::new();
    for (digest, length) in body.contents {
        let (content, behind) = rest.split_at_checked(length).ok_or_else(|| damaged("it is too short"))?;
        contents.insert(digest, Arc::from(content));
        rest = behind;
    }
    let (commit, mut app, reads, ran) = (body.commit, body.app, body.reads, body.ran);
    let mut published = body.published;
    for file in app.files.values_mut().chain(published.values_mut()) {
        if let FileKind::Regular { content, digest } = &mut file.kind {
            *content = contents.get(digest).cloned().ok_or_else(|| damaged("a content is missing"))?;
        }
    }
    for secret in app.secrets.values_mut() {
        for part in &mut Arc::make_mut(&mut secret.sealed).0 {
            let Part::Sealed(envelope, _) = part else { continue };
            let blob = Arc::make_mut(envelope).blob_mut();
            blob.bytes =
                contents.get(&blob.digest).cloned().ok_or_else(|| damaged("something encrypted is missing"))?;
        }
    }
    Ok(Release { commit, app, reads, published, ran })
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// An application that brings two files.
#[cfg(test)]
pub(crate) fn made_up() -> DesiredApp {
    tests::release(b"made up").app
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use spec::desired::DriftPolicy;
    use spec::id::Mode;

    use super::*;

    pub(super) fn release(content: &[u8]) -> Release {
        let owner = || "root".to_owned();
        let kind = FileKind::Regular { content: content.into(), digest: Digest::of(content) };
        let file = DesiredFile { kind, mode: Mode::from_bits(0o640), owner: owner(), group: owner() };
        let paths = ["/etc/one", "/etc/two"].map(|path| HostPath::parse(path).expect("a path"));
        let app = DesiredApp {
            secrets: BTreeMap::new(),
            digest: Digest::of(content),
            drift: DriftPolicy::Repair,
            adopt: false,
            policies: BTreeMap::new(),
            user: None,
            files: paths.into_iter().map(|path| (path, file.clone())).collect(),
            units: BTreeMap::new(),
            containers: BTreeMap::new(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            needs: BTreeSet::new(),
            checks: Vec::new(),
        };
        let reads = BTreeMap::from([(HostPath::parse("/etc/theirs").expect("a path"), Digest::of(b"theirs"))]);
        let image = Ran { id: "1f".repeat(32), digest: Some("r.lan/web@sha256:2f".to_owned()) };
        let ran = BTreeMap::from([(UnitName::parse("web.service").expect("a unit"), image)]);
        let path = HostPath::parse("/run/mainstay/endpoints.env").expect("a path");
        let published = BTreeMap::from([(path, file)]);
        Release { commit: CommitId::parse(&"1f".repeat(20)).ok(), app, reads, published, ran }
    }

    fn web() -> AppName {
        AppName::parse("web").expect("a name")
    }

    #[test]
    fn a_release_comes_back_byte_for_byte() {
        let state = tempfile::tempdir().expect("a folder");
        for content in [b"one\n\0\xff two".as_slice(), b"", b"{}\n\n"] {
            let kept = release(content);
            Releases::open(state.path()).keep(&web(), &kept, BTreeSet::new()).expect("kept");
            let mut releases = Releases::open(state.path());
            assert_eq!(releases.kept(), &BTreeMap::from([(web(), kept.app.digest)]));
            assert_eq!(releases.good.of([&web()].into_iter()), BTreeMap::from([(web(), kept)]));
        }
        for path in ["releases", "releases/web"] {
            let mode = fs::metadata(state.path().join(path)).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{path}");
        }
    }

    #[test]
    fn what_is_encrypted_is_kept_once_however_often_it_is_named() {
        use spec::desired::DesiredSecret;
        use spec::sealed::{Blob, Envelope, Form, Sealed};
        let state = tempfile::tempdir().expect("a folder");
        let sops = Blob::from(Arc::<[u8]>::from(vec![b's'; 100_000]));
        let value = |name: String| Envelope::Sops { file: sops.clone(), path: vec![name], value: "ENC[]".to_owned() };
        let values = (0..100).map(|at| Part::Sealed(Arc::new(value(at.to_string())), Form::Line));
        let whole = Envelope::Age(Arc::<[u8]>::from(b"age".as_slice()).into());
        let parts = values.chain([Part::Text("=".to_owned()), Part::Sealed(Arc::new(whole), Form::Plain)]).collect();
        let mut kept = release(b"one");
        let path = HostPath::parse("/run/mainstay/secrets/web/etc/env").expect("a path");
        let mut file = kept.app.files.values().next().expect("a file").clone();
        // What is in it is kept nowhere.
        file.kind = FileKind::Regular { content: [].into(), digest: Digest::of(b"sealed") };
        kept.app.secrets.insert(path, DesiredSecret { sealed: Arc::new(Sealed(parts)), file });
        Releases::open(state.path()).keep(&web(), &kept, BTreeSet::new()).expect("kept");
        assert_eq!(Releases::open(state.path()).good.of([&web()].into_iter()), BTreeMap::from([(web(), kept)]));
        let size = fs::metadata(state.path().join("releases/web")).expect("a file").len();
        assert!(size < 150_000, "{size} bytes");
    }

    #[test]
    fn damage_is_noticed_and_what_is_not_wanted_goes() {
        let state = tempfile::tempdir().expect("a folder");
        let mut releases = Releases::open(state.path());
        releases.keep(&web(), &release(b"content"), BTreeSet::new()).expect("kept");
        let path = state.path().join("releases/web");
        let whole = fs::read(&path).expect("it is there");
        for cut in [0, 10, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..cut]).expect("damage");
            assert_eq!(Releases::open(state.path()).good.of([&web()].into_iter()), BTreeMap::new(), "{cut}");
        }
        let mut flipped = whole.clone();
        *flipped.last_mut().expect("not empty") ^= 1;
        fs::write(&path, flipped).expect("damage");
        assert_eq!(Releases::open(state.path()).good.of([&web()].into_iter()), BTreeMap::new());
        releases.keep_only(|_| false);
        assert!(!path.exists() && releases.kept().is_empty());
    }
}
