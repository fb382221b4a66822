//! The secrets of a repository in the hands of those who write it: opened with their own keys, changed, and encrypted for the hosts that
//! need them and for the people whom fleet.yaml names. What is not changed stays as it is, comments among it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use spec::diagnostic::Diagnostic;
use spec::manifest::{self, Parsed, SecretValue};
use spec::sealed::{self, Readers, Sealed, Unsealed};
use spec::tree::{Entry, Tree};
use zeroize::Zeroizing;

use crate::folder;
use crate::seal::{self, Opened, Opener, Unopened};
use crate::upstream::LIMITS;

/// Where values are.
const FOLDER: &str = "secrets/";
/// Mistakes behind which no host that needs something can be hidden.
const HARMLESS: [&str; 4] = ["no-apps", "secret-plain", "secret-no-key", "secret-unreadable"];
/// What the name of a file ends in that is encrypted as a whole.
const SUFFIX: &str = ".age";

/// Why something cannot be done with the secrets of a repository. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The repository cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("failed to write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is none of the files that hold secrets.
    #[error(
        "{0} holds no secrets: values are in secrets/NAME.yaml, and whole files in apps/NAME/files/PATH.age, or beside a compose file"
    )]
    NotOne(String),
    /// There is no such secret.
    #[error("there is no secret `{0}`: `mainstay secret list` shows those that there are")]
    Unknown(String),
    /// A file has mistakes.
    #[error("{path} has mistakes")]
    Mistakes {
        /// Which.
        path: String,
        /// All of them.
        mistakes: Vec<Diagnostic>,
    },
    /// The caller cannot open something.
    #[error("{what} cannot be opened: {why}")]
    Closed {
        /// What.
        what: String,
        /// Why.
        #[source]
        why: Unopened,
    },
    /// Nobody could open it afterwards.
    #[error(
        "nobody could read {0}: no host with a key needs it, and fleet.yaml names nobody: write `recipients: [age1…]` there, your own public \
         key first"
    )]
    ForNobody(String),
    /// What would be written is there already.
    #[error("{0} is there already: `mainstay secret edit {0}` changes it")]
    Exists(String),
    /// A template is none of what is encrypted as a whole.
    #[error("{0} is a template: put its secret into secrets/NAME.yaml, and print it with {{{{ secret(\"name\") }}}}")]
    Template(String),
    /// The repository has mistakes, so that nobody can tell who needs what.
    #[error("the repository has mistakes, so that it cannot be told which hosts need {path}: mend these first")]
    Unsound {
        /// Which file it was about.
        path: String,
        /// All of them.
        mistakes: Vec<Diagnostic>,
    },
    /// Somebody else wrote it meanwhile.
    #[error("{} was changed by somebody else meanwhile", _0.display())]
    Changed(PathBuf),
    /// What was to be written does not read as it should.
    #[error(
        "{path} cannot be written so that it reads as it should: {why}; write each value in a line of its own, or in lines below its key"
    )]
    Unwritable {
        /// Which file.
        path: String,
        /// What is in the way.
        why: String,
    },
    /// A key is none.
    #[error("{path} cannot be encrypted: {why}")]
    Unsealable {
        /// Which file.
        path: String,
        /// Why.
        why: String,
    },
}

/// The secrets of a repository's folder.
pub struct Vault {
    dir: PathBuf,
    tree: Tree,
    parsed: Parsed,
    opener: Opener,
}

/// Something that is encrypted, in one piece.
pub struct Piece {
    /// The file that it is in.
    pub file: String,
    /// The name of the value; `None` for a file as a whole.
    pub name: Option<String>,
    /// Who can open it; `None` where it is not encrypted.
    pub readers: Option<Readers>,
}

/// What became of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sealing {
    /// How many pieces of it were encrypted anew.
    pub sealed: usize,
    /// For whom.
    pub readers: Vec<String>,
    /// The file whose place it took, in the clear, and that is gone.
    pub replaced: Option<String>,
    /// Somebody could read it before and cannot any more, who may still know what it was.
    pub lost_readers: bool,
}

impl Vault {
    /// Reads a repository's folder.
    ///
    /// # Errors
    /// It cannot be read; mistakes in it are none of them.
    pub fn open(dir: &Path, opener: Opener) -> Result<Vault, VaultError> {
        let tree = folder::read(dir, &LIMITS).map_err(|source| VaultError::Read { path: dir.to_owned(), source })?;
        let parsed = manifest::parse(&tree, None);
        Ok(Vault { dir: dir.to_owned(), tree, parsed, opener })
    }

    /// Returns the files.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Returns what was read of them.
    pub fn parsed(&self) -> &Parsed {
        &self.parsed
    }

    /// Names the files that hold secrets.
    pub fn files(&self) -> Vec<String> {
        let files = self.tree.entries.iter().filter(|(_, entry)| matches!(entry, Entry::File { .. }));
        files.map(|(path, _)| path.clone()).filter(|path| is_page(path) || self.is_whole(path)).collect()
    }

    /// Says whether a file is encrypted as a whole: one that goes to a path of the host, or lies beside a compose file.
    fn is_whole(&self, file: &str) -> bool {
        let app = file.strip_prefix("apps/").and_then(|rest| rest.split_once('/')).filter(|_| file.ends_with(SUFFIX));
        let has_compose = |(app, _): (&str, &str)| {
            // It may be there for some hosts only, and be a template.
            let below = format!("apps/{app}/");
            let names = self.tree.entries.keys().filter_map(|path| path.strip_prefix(&below)?.rsplit('/').next());
            names.into_iter().any(|name| manifest::COMPOSE.contains(&name.strip_suffix(".j2").unwrap_or(name)))
        };
        is_placed(file) || app.is_some_and(has_compose)
    }

    /// Names the file that somebody means by a path from where they are, or from the repository's root.
    ///
    /// # Errors
    /// It is outside of the repository, or of a kind that holds no secrets.
    pub fn named(&self, path: &Path) -> Result<String, VaultError> {
        let root = fs::canonicalize(&self.dir).map_err(|source| VaultError::Read { path: self.dir.clone(), source })?;
        let whole = std::path::absolute(path).map_err(|source| VaultError::Read { path: path.to_owned(), source })?;
        let folder = whole.parent().and_then(|folder| fs::canonicalize(folder).ok());
        let whole = folder.zip(whole.file_name()).map(|(folder, name)| folder.join(name));
        let below = whole.as_deref().and_then(|whole| whole.strip_prefix(&root).ok());
        let plain: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
        let name = below.unwrap_or(&plain).to_string_lossy().into_owned();
        let is_inside = !Path::new(&name).is_absolute() && !name.split('/').any(|part| matches!(part, ".." | "." | ""));
        let is_one = is_page(&name) || self.is_whole(&name) || self.is_whole(&format!("{name}{SUFFIX}"));
        if is_inside && is_one { Ok(name) } else { Err(VaultError::NotOne(path.display().to_string())) }
    }

    /// Lists what is encrypted, or should be, in a file.
    ///
    /// # Errors
    /// The file has mistakes.
    pub fn pieces(&self, file: &str) -> Result<Vec<Piece>, VaultError> {
        if self.is_whole(file) {
            let readers = sealed::readers(self.bytes(file)?).ok();
            return Ok(vec![Piece { file: file.to_owned(), name: None, readers }]);
        }
        let text = self.text(file)?;
        let values = match manifest::sops(text) {
            Ok(sops) => sops.values.into_iter().map(|(path, _)| (path.join("."), Some(Readers::default()))).collect(),
            Err(_) => {
                let values = self.values(file, text)?.into_iter();
                values.map(|it| (it.name(), sealed::readers(it.text.as_bytes()).ok())).collect::<Vec<_>>()
            }
        };
        let piece = |(name, readers)| Piece { file: file.to_owned(), name: Some(name), readers };
        Ok(values.into_iter().map(piece).collect())
    }

    /// Says for whom a file should be encrypted: the hosts that need something of it, and the people.
    ///
    /// # Errors
    /// Mistakes elsewhere in the repository hide that.
    pub fn readers(&self, file: &str) -> Result<Vec<String>, VaultError> {
        readers(&self.parsed, file)
    }

    /// Lists what more can read than should: the file, and the name of the value.
    pub fn strangers(&self) -> Vec<(String, Option<String>)> {
        let pieces = self.files().into_iter().filter_map(|file| self.pieces(&file).ok()).flatten();
        // Who should read it is not known where the repository has mistakes; those are told of anyway.
        let has_more = |piece: &Piece| match (&piece.readers, self.readers(&piece.file)) {
            (Some(found), Ok(wanted)) => loses(found, &wanted),
            _ => false,
        };
        pieces.filter(has_more).map(|piece| (piece.file, piece.name)).collect()
    }

    /// Opens a value by its name, or a file.
    ///
    /// # Errors
    /// There is none, or it is not for whoever asks.
    pub fn show(&mut self, what: &str) -> Result<Opened, VaultError> {
        let file = self.files().into_iter().find(|file| file == what || format!("./{file}") == what);
        if let Some(file) = file.filter(|file| self.is_whole(file)) {
            let bytes = self.bytes(&file)?.to_vec();
            return self.opened(what, &Sealed::whole(bytes.into()));
        }
        match self.parsed.sealed.values.get(what).map(Sealed::of) {
            Some(sealed) => self.opened(what, &sealed),
            None => Err(VaultError::Unknown(what.to_owned())),
        }
    }

    /// Writes a file as its author edits it: each value in the clear; empty where there is no such file yet.
    ///
    /// # Errors
    /// Something of it cannot be opened.
    pub fn draft(&mut self, file: &str) -> Result<Opened, VaultError> {
        if !self.tree.entries.contains_key(file) {
            return Ok(Zeroizing::new(Vec::new()));
        }
        if self.is_whole(file) {
            let bytes = self.bytes(file)?.to_vec();
            return self.opened(file, &Sealed::whole(bytes.into()));
        }
        let text = self.text(file)?.to_owned();
        let values = self.values(file, &text)?;
        let mut clear = Vec::new();
        for value in &values {
            clear.push(self.clear(file, value)?);
        }
        let draft = replaced(&text, &values, |at| literal(&clear[at], &values[at]));
        Ok(Zeroizing::new(draft.into_bytes()))
    }

    /// Encrypts a file as its author left it, and writes it. What is as it was before stays encrypted as it is, as long as those can
    /// read it who should.
    ///
    /// # Errors
    /// It has mistakes, or nobody could read it; nothing was written.
    pub fn store(&mut self, file: &str, content: &[u8]) -> Result<Sealing, VaultError> {
        if self.is_whole(file) {
            return self.store_whole(file, content);
        }
        let text =
            std::str::from_utf8(content).map_err(|_| VaultError::NotOne(format!("{file}: what is not UTF-8")))?;
        let values = self.values(file, text)?;
        let before = self.kept(file)?;
        let parsed = self.parsed_with(file, text, &values)?;
        let readers = readers(&parsed, file)?;
        stay_in_lines(&parsed, file, &values)?;
        let mut sealing = Sealing { readers: readers.clone(), ..Sealing::default() };
        let mut all = Vec::new();
        for value in &values {
            let found = before.get(&value.path).filter(|(clear, _)| **clear == value.text);
            let sealed = match (sealed::readers(value.text.as_bytes()), found) {
                (Ok(_), _) => value.text.clone(),
                (Err(Unsealed::Damaged(why)), _) => {
                    let what = format!("`{}` in {file}", value.name());
                    return Err(VaultError::Closed { what, why: Unopened::Damaged(format!("it is damaged: {why}")) });
                }
                (_, Some((_, sealed))) if is_for(sealed, &readers) => sealed.clone(),
                (_, found) => {
                    sealing.sealed += 1;
                    sealing.lost_readers |= found.is_some_and(|(_, sealed)| loses_readers(sealed, &readers));
                    self.sealed(file, value.text.as_bytes(), &readers)?
                }
            };
            all.push(sealed);
        }
        let text = replaced(text, &values, |at| block(&all[at], &values[at]));
        let wanted = values.into_iter().map(|value| value.path).zip(all).collect();
        self.write_values(file, &text, &wanted)?;
        Ok(sealing)
    }

    /// Encrypts what stands in the clear in a file: its values, or all of it, which then is another file.
    ///
    /// # Errors
    /// It has mistakes, or nobody could read it; nothing was written.
    pub fn encrypt(&mut self, file: &str) -> Result<Sealing, VaultError> {
        if is_page(file) {
            // All that is encrypted stays as it is: whoever encrypts need not be able to open it.
            let text = self.text(file)?.to_owned();
            return self.store(file, text.as_bytes());
        }
        if self.is_whole(file) && sealed::readers(self.bytes(file)?) != Err(Unsealed::Plain) {
            return Ok(Sealing::default());
        }
        let content = Zeroizing::new(self.bytes(file)?.to_vec());
        if self.is_whole(file) {
            return self.store_whole(file, &content);
        }
        if file.ends_with(".j2") {
            return Err(VaultError::Template(file.to_owned()));
        }
        let sealed = format!("{file}{SUFFIX}");
        if fs::symlink_metadata(self.dir.join(&sealed)).is_ok() {
            return Err(VaultError::Exists(sealed));
        }
        // Both at once are a mistake of the repository.
        let plain = self.tree.entries.remove(file);
        let sealing = self.store_whole(&sealed, &content).inspect_err(|_| {
            self.tree.entries.extend(plain.map(|plain| (file.to_owned(), plain)));
        })?;
        let path = self.dir.join(file);
        fs::remove_file(&path).map_err(|source| VaultError::Write { path, source })?;
        Ok(Sealing { replaced: Some(file.to_owned()), ..sealing })
    }

    /// Encrypts a file anew for those who should be able to read it: all of it that is not for exactly these, or `all`.
    ///
    /// # Errors
    /// Something of it cannot be opened; nothing of this file was written.
    pub fn rekey(&mut self, file: &str, all: bool) -> Result<Sealing, VaultError> {
        let readers = self.readers(file)?;
        let is_due = |text: &str| all || !is_for(text, &readers);
        let mut sealing = Sealing { readers: readers.clone(), ..Sealing::default() };
        if self.is_whole(file) {
            let bytes = self.bytes(file)?.to_vec();
            let found = sealed::readers(&bytes);
            if !all && found.as_ref().is_ok_and(|found| are(found, &readers)) {
                return Ok(sealing);
            }
            let content = self.opened(file, &Sealed::whole(bytes.into()))?;
            sealing.lost_readers = found.is_ok_and(|found| loses(&found, &readers));
            let text = self.sealed(file, &content, &readers)?;
            self.write(file, text.as_bytes())?;
            return Ok(Sealing { sealed: 1, ..sealing });
        }
        let text = self.text(file)?.to_owned();
        let values = self.values(file, &text)?;
        let mut new = Vec::new();
        for value in &values {
            if sealed::readers(value.text.as_bytes()) == Err(Unsealed::Plain) || !is_due(&value.text) {
                new.push(None);
                continue;
            }
            let clear = self.clear(file, value)?;
            sealing.lost_readers |= loses_readers(&value.text, &readers);
            sealing.sealed += 1;
            new.push(Some(self.sealed(file, clear.as_bytes(), &readers)?));
        }
        if sealing.sealed > 0 {
            let old = |at: usize| text[values[at].place.clone()].to_owned();
            let new_text = replaced(&text, &values, |at| match &new[at] {
                Some(sealed) => block(sealed, &values[at]),
                None => old(at),
            });
            let wanted = values.into_iter().zip(new).map(|(value, new)| (value.path, new.unwrap_or(value.text)));
            self.write_values(file, &new_text, &wanted.collect())?;
        }
        Ok(sealing)
    }

    fn store_whole(&mut self, file: &str, content: &[u8]) -> Result<Sealing, VaultError> {
        let before = self.tree.entries.contains_key(file).then(|| self.bytes(file).map(<[u8]>::to_vec)).transpose()?;
        // Whoever needs it is told by the repository that has it.
        let mut tree = self.tree.clone();
        tree.insert(file, placeholder()?.as_bytes());
        let readers = readers(&manifest::parse(&tree, None), file)?;
        let found = before.as_ref().and_then(|bytes| sealed::readers(bytes).ok());
        let lost_readers = found.is_some_and(|found| loses(&found, &readers));
        let text = self.sealed(file, content, &readers)?;
        self.write(file, text.as_bytes())?;
        Ok(Sealing { sealed: 1, readers, replaced: None, lost_readers })
    }

    /// Reads the repository with a file of values as it is to be: which of them a template prints may have changed with it.
    fn parsed_with(&self, file: &str, text: &str, values: &[SecretValue]) -> Result<Parsed, VaultError> {
        let stand_in = placeholder()?;
        let text = replaced(text, values, |at| block(&stand_in, &values[at]));
        let mut tree = self.tree.clone();
        tree.insert(file, text.as_bytes());
        Ok(manifest::parse(&tree, None))
    }

    /// Returns what a file holds: each value in the clear, and as it is encrypted.
    fn kept(&mut self, file: &str) -> Result<Kept, VaultError> {
        if !self.tree.entries.contains_key(file) {
            return Ok(BTreeMap::new());
        }
        let text = self.text(file)?.to_owned();
        let mut kept = BTreeMap::new();
        for value in self.values(file, &text)? {
            if sealed::readers(value.text.as_bytes()).is_ok()
                && let Ok(clear) = self.clear(file, &value)
            {
                kept.insert(value.path, (clear, value.text));
            }
        }
        Ok(kept)
    }

    fn clear(&mut self, file: &str, value: &SecretValue) -> Result<Zeroizing<String>, VaultError> {
        if sealed::readers(value.text.as_bytes()) == Err(Unsealed::Plain) {
            return Ok(Zeroizing::new(value.text.clone()));
        }
        let what = format!("`{}` in {file}", value.name());
        let opened = self.opened(&what, &Sealed::whole(value.text.as_bytes().into()))?;
        let text =
            String::from_utf8(opened.to_vec()).map_err(|_| VaultError::NotOne(format!("{what} is not text, and")))?;
        Ok(Zeroizing::new(text))
    }

    fn opened(&mut self, what: &str, sealed: &Sealed) -> Result<Opened, VaultError> {
        self.opener.open(sealed).map_err(|why| VaultError::Closed { what: what.to_owned(), why })
    }

    fn sealed(&self, file: &str, content: &[u8], readers: &[String]) -> Result<String, VaultError> {
        if readers.is_empty() {
            return Err(VaultError::ForNobody(file.to_owned()));
        }
        seal::seal(content, readers).map_err(|why| VaultError::Unsealable { path: file.to_owned(), why })
    }

    fn values(&self, file: &str, text: &str) -> Result<Vec<SecretValue>, VaultError> {
        let mistakes = |mistakes| VaultError::Mistakes { path: file.to_owned(), mistakes };
        manifest::written(file, text).map_err(mistakes)
    }

    fn text(&self, file: &str) -> Result<&str, VaultError> {
        let not_one = || VaultError::NotOne(format!("{file}, which is not UTF-8,"));
        std::str::from_utf8(self.bytes(file)?).map_err(|_| not_one())
    }

    fn bytes(&self, file: &str) -> Result<&[u8], VaultError> {
        match self.tree.entries.get(file) {
            Some(Entry::File { bytes, .. }) => Ok(bytes),
            _ => {
                let source = io::Error::from(io::ErrorKind::NotFound);
                Err(VaultError::Read { path: self.dir.join(file), source })
            }
        }
    }

    /// Writes a file of values, if it reads as it should: these, each in its place, and nothing else.
    fn write_values(
        &mut self,
        file: &str,
        text: &str,
        wanted: &BTreeMap<Vec<String>, String>,
    ) -> Result<(), VaultError> {
        let unwritable = |why: String| VaultError::Unwritable { path: file.to_owned(), why };
        if text.len() > sealed::MOST_BYTES {
            return Err(unwritable(format!(
                "it would be larger than {} bytes: spread it over several files",
                sealed::MOST_BYTES
            )));
        }
        let found = self.values(file, text).map_err(|_| unwritable("it would be no YAML any more".to_owned()))?;
        let odd =
            found.iter().find(|value| wanted.get(&value.path).is_none_or(|it| it.trim_end() != value.text.trim_end()));
        match odd {
            Some(value) => Err(unwritable(format!("`{}` would be another value", value.name()))),
            None if found.len() != wanted.len() => Err(unwritable("some of its values would be gone".to_owned())),
            None => self.write(file, text.as_bytes()),
        }
    }

    /// Writes a file whole, unless somebody else did since it was read, and reads the repository anew with it.
    fn write(&mut self, file: &str, content: &[u8]) -> Result<(), VaultError> {
        let path = self.dir.join(file);
        let before = self.bytes(file).ok().map(<[u8]>::to_vec);
        let is_as_read = match fs::read(&path) {
            Ok(now) => before.is_some_and(|before| before == now),
            Err(error) => error.kind() == io::ErrorKind::NotFound && before.is_none(),
        };
        if !is_as_read {
            return Err(VaultError::Changed(path));
        }
        let written = || -> io::Result<()> {
            let folder = path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder)?;
            let mut new = tempfile::NamedTempFile::new_in(folder)?;
            io::Write::write_all(&mut new, content)?;
            // Who reads the repository reads this too: it is encrypted.
            let mode = fs::metadata(&path).map_or(0o644, |it| std::os::unix::fs::MetadataExt::mode(&it) & 0o777);
            new.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
            new.as_file().sync_all()?;
            new.persist(&path).map_err(|error| error.error)?;
            Ok(())
        };
        written().map_err(|source| VaultError::Write { path: path.clone(), source })?;
        self.tree.insert(file, content);
        self.parsed = manifest::parse(&self.tree, None);
        Ok(())
    }
}

/// Values by the keys that lead to them: in the clear, and encrypted.
type Kept = BTreeMap<Vec<String>, (Zeroizing<String>, String)>;

/// Says whether a file is one of values.
fn is_page(file: &str) -> bool {
    file.strip_prefix(FOLDER).is_some_and(|name| !name.contains('/') && name.ends_with(".yaml"))
}

/// Says whether a file goes to a path of the host, and is encrypted as a whole.
fn is_placed(file: &str) -> bool {
    let parts: Vec<&str> = file.split('/').collect();
    // With what is added or replaced for some hosts: apps/NAME/@PLACE/files/….
    let is_below = |at: usize| parts.len() > at + 1 && parts[at] == "files";
    let is_layer = parts.len() > 2 && parts[2].starts_with('@');
    parts[0] == "apps" && is_below(if is_layer { 3 } else { 2 }) && file.ends_with(SUFFIX)
}

/// Returns something encrypted that nobody can open.
fn placeholder() -> Result<String, VaultError> {
    let key = age::x25519::Identity::generate().to_public().to_string();
    seal::seal(b"", &[key]).map_err(|why| VaultError::Unsealable { path: "a test".to_owned(), why })
}

/// Says for whom a file should be encrypted. Where something else is wrong in the repository hosts may be missing, which is no reason to
/// lock them out.
fn readers(parsed: &Parsed, file: &str) -> Result<Vec<String>, VaultError> {
    // What leaves nobody out: a repository may begin with its secrets, and these are what is being mended.
    let is_about_secrets = |it: &Diagnostic| HARMLESS.contains(&it.rule);
    let mistakes: Vec<Diagnostic> =
        parsed.diagnostics.iter().filter(|it| it.is_error() && !is_about_secrets(it)).cloned().collect();
    if !mistakes.is_empty() {
        return Err(VaultError::Unsound { path: file.to_owned(), mistakes });
    }
    let hosts = parsed.sealed.files.get(file).into_iter().flatten();
    let all: BTreeSet<&String> = parsed.sealed.recipients.iter().chain(hosts).collect();
    Ok(all.into_iter().cloned().collect())
}

/// Refuses values that cannot stand where they are printed, which their host would find out otherwise.
fn stay_in_lines(parsed: &Parsed, file: &str, values: &[SecretValue]) -> Result<(), VaultError> {
    let lines = &parsed.sealed.lines;
    let leaves = values.iter().filter(|value| seal::leaves_line(value.text.as_bytes()));
    let plain = leaves.filter(|value| sealed::readers(value.text.as_bytes()) == Err(Unsealed::Plain));
    let mistakes: Vec<Diagnostic> = plain
        .filter_map(|value| {
            let place = lines.get(&value.name())?;
            let message = format!("`{}` has a line break, and `{}` has it in a line", value.name(), place.file);
            let mut mistake = Diagnostic::error("secret-line", value.location.clone(), message);
            mistake.help("write it behind its key (NAME: VALUE), print it with `| base64`, or give the service a file of its own");
            Some(mistake)
        })
        .collect();
    if mistakes.is_empty() { Ok(()) } else { Err(VaultError::Mistakes { path: file.to_owned(), mistakes }) }
}

/// Says whether those for whom something is encrypted are those who should be, as far as that can be told.
fn are(found: &Readers, wanted: &[String]) -> bool {
    let (named, unnamed): (Vec<&String>, Vec<&String>) = wanted.iter().partition(|key| !key.starts_with("age1"));
    let marks: BTreeSet<String> = named.iter().filter_map(|key| sealed::mark(key)).collect();
    marks == found.marks.iter().cloned().collect() && unnamed.len() == found.unnamed
}

fn is_for(sealed: &str, wanted: &[String]) -> bool {
    sealed::readers(sealed.as_bytes()).is_ok_and(|found| are(&found, wanted))
}

/// Says whether somebody can read it who should not any more.
fn loses(found: &Readers, wanted: &[String]) -> bool {
    let marks: BTreeSet<String> = wanted.iter().filter_map(|key| sealed::mark(key)).collect();
    let unnamed = wanted.iter().filter(|key| key.starts_with("age1")).count();
    found.marks.iter().any(|mark| !marks.contains(mark)) || found.unnamed > unnamed
}

fn loses_readers(sealed: &str, wanted: &[String]) -> bool {
    sealed::readers(sealed.as_bytes()).is_ok_and(|found| loses(&found, wanted))
}

/// Replaces the values of a text.
fn replaced(text: &str, values: &[SecretValue], mut with: impl FnMut(usize) -> String) -> String {
    let mut new = String::with_capacity(text.len());
    let mut end = 0;
    for (at, value) in values.iter().enumerate() {
        new.push_str(&text[end..value.place.start]);
        new.push_str(&with(at));
        end = value.place.end;
    }
    new.push_str(&text[end..]);
    new
}

/// Writes a text behind a key, in lines of its own.
fn block(text: &str, SecretValue { indent, comment, .. }: &SecretValue) -> String {
    let margin = " ".repeat(indent + 2);
    let head = format!(" | {comment}").trim_end().to_owned();
    text.trim_end_matches('\n').lines().fold(head, |all, line| all + "\n" + &margin + line)
}

/// Writes a value behind a key as people edit it.
fn literal(text: &str, value: &SecretValue) -> String {
    let is_block = text.ends_with('\n') && !text.ends_with("\n\n") && text.len() > 1;
    let is_plain = |c: char| c == '\n' || (!c.is_control() && !matches!(c, '\u{FEFF}' | '\u{2028}' | '\u{2029}'));
    let lines_end = text.lines().all(|line| !line.ends_with(' '));
    if is_block && lines_end && text.chars().all(is_plain) && !text.starts_with([' ', '\n']) {
        return block(text, value);
    }
    // A text of JSON is one of YAML.
    format!(" {} {}", serde_json::Value::from(text), value.comment).trim_end().to_owned()
}

#[cfg(test)]
mod tests;
