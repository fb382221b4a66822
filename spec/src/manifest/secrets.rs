//! What is encrypted in a repository: the values of secrets/*.yaml by their names, and whether every host can read what it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::folder;
use super::model::{Application, FileKind, Host};
use super::page::{Extent, Page};
use super::quadlet;
use super::yaml::{self, Kind, Node};
use crate::container::Mount;
use crate::diagnostic::{Diagnostic, Location};
use crate::id::{AppName, HostName, HostPath, shown};
use crate::sealed::{self, Blob, Envelope, Form, MOST_BYTES, Part, Readers, Secret, Secrets, Unsealed};
use crate::tree::{Entry, Tree};

/// Where the files are.
const FOLDER: &str = "secrets/";
/// What SOPS says of a file stands below this key of it.
const SOPS: &str = "sops";
/// What to do about a secret that everybody can read.
const EXPOSED: &str = "replace it where it is used: whoever has the repository has it, as an older commit too; then `mainstay secret encrypt`";

/// Reads secrets/*.yaml.
pub(super) fn read(tree: &Tree, diagnostics: &mut Vec<Diagnostic>) -> Secrets {
    let mut secrets = Secrets::new();
    for (path, entry) in super::below(tree, FOLDER) {
        let name = &path[FOLDER.len()..];
        if folder::is_for_people(name) {
            continue;
        }
        if name.contains('/') || !name.ends_with(".yaml") {
            let mut complaint = Diagnostic::error(
                "unknown-file",
                Location::whole(path),
                format!("secrets/ holds only *.yaml files, not `{}`", shown(name)),
            );
            complaint
                .help("name it secrets/NAME.yaml; an encrypted file of a host goes to apps/NAME/files/…, as PATH.age");
            diagnostics.push(complaint);
            continue;
        }
        let (Some(text), Entry::File { bytes, .. }) = (super::text(entry, path, diagnostics), entry) else { continue };
        let mut page = Page::new(path, text);
        if bytes.len() > MOST_BYTES {
            page.error("secret", Extent::new(0, 0), "it is larger than 1 MiB").help("no secret is that long");
        } else if let Some(node) = yaml::read(&mut page) {
            file(&mut page, &node, bytes, &mut secrets);
        }
        page.close(diagnostics);
    }
    secrets
}

/// Takes the values of one file.
fn file(page: &mut Page<'_>, node: &Node, bytes: &Arc<[u8]>, secrets: &mut Secrets) {
    let Some(entries) = page.entries(node, "a file of secrets") else { return };
    let sops = entries.iter().find(|(key, _)| key.text == SOPS).map(|(_, node)| readers_of_sops(page, node));
    let origin = Origin { file: &Blob::from(Arc::clone(bytes)), sops: &sops };
    for (key, node) in entries.iter().filter(|(key, _)| key.text != SOPS) {
        values(page, &origin, &mut vec![key.text.clone()], key.extent, node, secrets);
    }
}

/// The file that values are in.
struct Origin<'f> {
    file: &'f Blob,
    /// Who can read it, where SOPS encrypts it.
    sops: &'f Option<Readers>,
}

/// Takes what stands at and below a key.
fn values(
    page: &mut Page<'_>,
    origin: &Origin<'_>,
    path: &mut Vec<String>,
    at: Extent,
    node: &Node,
    secrets: &mut Secrets,
) {
    let text = match &node.kind {
        Kind::Scalar { text, .. } => text,
        Kind::Mapping(entries) => {
            for (key, node) in entries {
                path.push(key.text.clone());
                values(page, origin, path, key.extent, node, secrets);
                path.pop();
            }
            return;
        }
        Kind::Sequence(_) => {
            page.error("secret", node.extent, "a list has no names by which a template could ask for its values")
                .help("write NAME: VALUE for each, or all of it as one text");
            return;
        }
    };
    let sealed = match origin.sops {
        Some(readers) if text.starts_with("ENC[") => {
            let envelope = Envelope::Sops { file: origin.file.clone(), path: path.clone(), value: text.clone() };
            Ok((envelope, readers.clone()))
        }
        // SOPS leaves empty values as they are.
        Some(_) if text.is_empty() => return,
        _ => sealed::readers(text.as_bytes())
            .map(|readers| (Envelope::Age(Blob::from(Arc::from(text.as_bytes()))), readers)),
    };
    let name = path.join(".");
    match sealed {
        Ok((envelope, readers)) => {
            let secret = Secret { envelope: Arc::new(envelope), readers, location: page.at(at) };
            let location = secret.location.clone();
            if let Some(other) = secrets.insert(name.clone(), secret) {
                let mut complaint =
                    Diagnostic::error("secret-twice", location, format!("there are two secrets `{}`", shown(&name)));
                complaint.help("rename one of the two").related(other.location, "the other one");
                page.add(complaint);
            }
        }
        Err(Unsealed::Plain) => {
            page.error("secret-plain", at, format!("`{}` is not encrypted", shown(&name))).help(EXPOSED);
            // Who needs it is known all the same, and who encrypts it has to know. What it is goes no further than here.
            let envelope = Arc::new(Envelope::Age(Blob::from(Arc::from([]))));
            let location = page.at(at);
            secrets.entry(name).or_insert(Secret { envelope, readers: Readers::default(), location });
        }
        Err(damaged) => {
            page.error("secret", at, format!("`{}` cannot be opened by anybody: {damaged}", shown(&name)))
                .help("take it from an older commit, or encrypt it again");
        }
    }
}

/// Reads for whom SOPS encrypted a file.
fn readers_of_sops(page: &mut Page<'_>, node: &Node) -> Readers {
    let mut readers = Readers::default();
    let Kind::Mapping(entries) = &node.kind else { return readers };
    let of = |name: &str| entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node);
    if let Some(Kind::Sequence(items)) = of("age").map(|node| &node.kind) {
        for item in items {
            let Kind::Mapping(entries) = &item.kind else { continue };
            let recipient = entries.iter().find(|(key, _)| key.text == "recipient").map(|(_, node)| &node.kind);
            match recipient {
                Some(Kind::Scalar { text, .. }) if text.starts_with("ssh-") => readers.marks.extend(sealed::mark(text)),
                _ => readers.unnamed += 1,
            }
        }
    }
    let binds_part = of("mac_only_encrypted").map(|node| &node.kind);
    if of("mac").is_none() || matches!(binds_part, Some(Kind::Scalar { text, .. }) if text == "true") {
        page.error(
            "secret",
            node.extent,
            "it has no `mac` over all of it, so that nobody can tell whether somebody changed it",
        )
        .help("encrypt it with SOPS as it comes, without `mac_only_encrypted` or a tool that leaves it out");
    } else if readers.marks.is_empty() && readers.unnamed == 0 {
        page.error("secret", node.extent, "SOPS did not encrypt it with age, and hosts have no other keys")
            .help("name the hosts' keys as `age` recipients in .sops.yaml");
    }
    readers
}

/// A value of a file in secrets/, as its authors see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretValue {
    /// The keys that lead to it.
    pub path: Vec<String>,
    /// What it is: encrypted, or not yet.
    pub text: String,
    /// The bytes of the file that it takes, from behind the colon to its end, and to that of what is said behind it.
    pub place: Range<usize>,
    /// What is said of it in the line of its key: `# …`, or nothing.
    pub comment: String,
    /// How far its key is indented.
    pub indent: usize,
    /// Where its key is.
    pub location: Location,
}

impl SecretValue {
    /// Returns the name by which templates ask for it.
    pub fn name(&self) -> String {
        self.path.join(".")
    }
}

/// Reads the values of a file in secrets/ with their places, so that they can be replaced and all else stays as it is.
///
/// # Errors
/// All mistakes, each of them where it is.
pub fn written(path: &str, text: &str) -> Result<Vec<SecretValue>, Vec<Diagnostic>> {
    let (mut page, mut found) = (Page::new(path, text), Vec::new());
    if let Some(node) = yaml::read(&mut page).filter(|node| !node.is_null())
        && let Some(entries) = page.entries(&node, "a file of secrets")
    {
        if let Some((key, _)) = entries.iter().find(|(key, _)| key.text == SOPS) {
            page.error("secret-sops", key.extent, "SOPS encrypts this file as a whole")
                .help("use SOPS for it: `sops edit FILE`, and `sops updatekeys FILE` after a change of .sops.yaml");
        } else {
            places(&mut page, entries, &mut Vec::new(), &mut found);
        }
    }
    let mut diagnostics = Vec::new();
    page.close(&mut diagnostics);
    if diagnostics.iter().any(Diagnostic::is_error) { Err(diagnostics) } else { Ok(found) }
}

fn places(page: &mut Page<'_>, entries: &[(yaml::Key, Node)], path: &mut Vec<String>, found: &mut Vec<SecretValue>) {
    for (key, node) in entries {
        // What an alias repeats stands where it was written first.
        if found.last().is_some_and(|last| key.extent.start < last.place.end) {
            page.error("secret", key.extent, "what stands here is repeated elsewhere, by an alias")
                .help("write it out: a secret has no anchors and aliases");
            return;
        }
        path.push(key.text.clone());
        let before = &page.text[..key.extent.start];
        let line = &before[before.rfind('\n').map_or(0, |at| at + 1)..];
        let behind = &page.text[key.extent.end..];
        let colon = behind.find(|c: char| c != ' ').filter(|at| behind[*at..].starts_with(':'));
        match (&node.kind, colon) {
            (Kind::Mapping(entries), _) => places(page, entries, path, found),
            (Kind::Scalar { text, .. }, Some(colon)) if line.bytes().all(|byte| byte == b' ') => {
                let start = key.extent.end + colon + 1;
                if page.text[start..].trim_start_matches(' ').starts_with(['*', '&']) {
                    page.error("secret", key.extent, "this value is another one's, or is to be")
                        .help("write it out: a secret has no anchors and aliases");
                    path.pop();
                    continue;
                }
                let end = start + page.text[start..node.extent.end.max(start)].trim_end().len();
                let (comment, end) = comment(page.text, start, end);
                let (path, text, indent) = (path.clone(), text.clone(), line.len());
                let location = page.at(key.extent);
                found.push(SecretValue { path, text, place: start..end, comment, indent, location });
            }
            (Kind::Scalar { .. }, _) => {
                page.error("secret", key.extent, "this value stands in a line with others")
                    .help("write each on a line of its own, NAME: VALUE");
            }
            (Kind::Sequence(_), _) => {
                page.error("secret", node.extent, "a list has no names by which a template could ask for its values")
                    .help("write NAME: VALUE for each, or all of it as one text");
            }
        }
        path.pop();
    }
}

/// Finds what is said in the line of a key whose value takes these bytes, and where all of that ends.
fn comment(text: &str, start: usize, end: usize) -> (String, usize) {
    let value = text[start..end].trim_start();
    if value.starts_with(['|', '>']) {
        let head = value.lines().next().unwrap_or_default();
        return (head.find(" #").map_or("", |at| head[at..].trim()).to_owned(), end);
    }
    let behind = text[end..].lines().next().unwrap_or_default();
    match behind.trim_start().starts_with('#') && (behind.starts_with([' ', '\t']) || start == end) {
        true => (behind.trim().to_owned(), end + behind.trim_end().len()),
        false => (String::new(), end),
    }
}

/// What is encrypted in a repository, and for whom it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealedFiles {
    /// The people for whom everything is.
    pub recipients: Vec<String>,
    /// The keys of the hosts that need something of each file, by the file's path; empty for one that no host needs.
    pub files: BTreeMap<String, BTreeSet<String>>,
    /// The values, by the names by which templates ask for them.
    pub values: BTreeMap<String, Arc<Envelope>>,
    /// The names of those that stand in a line of a file with variables, with one such file: they cannot have line breaks.
    pub lines: BTreeMap<String, Location>,
}

/// Reads for whom something is encrypted: a key of age, or of ssh.
pub(super) fn recipient(page: &mut Page<'_>, node: &Node, what: &str) -> Option<String> {
    let text = page.text(node, what)?;
    let mut words = text.split_whitespace();
    let (kind, data) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if text.contains("PRIVATE KEY") || text.starts_with("AGE-SECRET-KEY-") {
        page.error("recipient", node.extent, "this is a private key")
            .help("replace this key everywhere: whoever reads the repository has it; write the public half here");
        return None;
    }
    // Bech32 (BIP 173): 32 bytes and a checksum behind `age1`.
    let is_age = kind.len() == 62
        && kind.starts_with("age1")
        && kind.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if is_age && data.is_empty() {
        return Some(kind.to_owned());
    }
    if matches!(kind, "ssh-ed25519" | "ssh-rsa") && crate::trust::fingerprint(kind, data).is_ok() {
        return Some(format!("{kind} {data}"));
    }
    page.error("recipient", node.extent, format!("{what} is no key that age encrypts for"))
        .help("write the line that `age-keygen` prints as the public key (age1…), or that of a .pub file of ssh (ssh-ed25519, ssh-rsa)");
    None
}

/// Something encrypted, and the hosts that need it for an application.
struct Need<'a> {
    /// Where it is.
    location: Location,
    /// The file that it is for.
    place: Location,
    what: String,
    readers: Readers,
    hosts: BTreeSet<&'a HostName>,
}

/// Lists what is needed where.
fn needs<'a>(apps: &'a BTreeMap<AppName, Application>, secrets: &Secrets) -> Vec<Need<'a>> {
    let known: BTreeMap<*const Envelope, (&String, &Secret)> =
        secrets.iter().map(|(name, secret)| (Arc::as_ptr(&secret.envelope), (name, secret))).collect();
    let mut needs = Vec::new();
    for (app, application) in apps {
        for (at, form) in application.variants.iter().enumerate() {
            let hosts: BTreeSet<&HostName> =
                application.hosts.iter().filter(|(_, variant)| **variant == at).map(|(name, _)| name).collect();
            for file in form.files.values() {
                let FileKind::Sealed { sealed, .. } = &file.kind else { continue };
                let envelopes: BTreeMap<*const Envelope, &Arc<Envelope>> =
                    sealed.envelopes().map(|envelope| (Arc::as_ptr(envelope), envelope)).collect();
                for (pointer, envelope) in envelopes {
                    let found = match (known.get(&pointer), &**envelope) {
                        (Some((name, secret)), _) => {
                            let what = format!("secret `{}`, which `{app}` needs", shown(name));
                            Some((secret.location.clone(), what, secret.readers.clone()))
                        }
                        (None, Envelope::Age(blob)) => {
                            let readers = sealed::readers(&blob.bytes).ok();
                            readers.map(|readers| (file.location.clone(), "this file".to_owned(), readers))
                        }
                        (None, Envelope::Sops { .. }) => None,
                    };
                    let need = found.map(|(location, what, readers)| Need {
                        location,
                        place: file.location.clone(),
                        what,
                        readers,
                        hosts: hosts.clone(),
                    });
                    needs.extend(need);
                }
            }
        }
    }
    needs
}

/// Finds out which values cannot have line breaks.
fn lines(apps: &BTreeMap<AppName, Application>, secrets: &Secrets) -> BTreeMap<String, Location> {
    let known: BTreeMap<*const Envelope, &String> =
        secrets.iter().map(|(name, secret)| (Arc::as_ptr(&secret.envelope), name)).collect();
    let mut lines = BTreeMap::new();
    for file in apps.values().flat_map(|app| &app.variants).flat_map(|form| form.files.values()) {
        let FileKind::Sealed { sealed, .. } = &file.kind else { continue };
        for part in &sealed.0 {
            let Part::Sealed(envelope, Form::Line) = part else { continue };
            let name = known.get(&Arc::as_ptr(envelope)).map(|name| (*name).clone());
            lines.extend(name.map(|name| (name, file.location.clone())));
        }
    }
    lines
}

/// Warns about folders that containers mount with a link to a secret in them: where it leads is not in the container.
pub(super) fn check_mounts(apps: &BTreeMap<AppName, Application>, diagnostics: &mut Vec<Diagnostic>) {
    let forms = || apps.values().flat_map(|app| &app.variants);
    let sealed: BTreeSet<&HostPath> = forms()
        .flat_map(|form| &form.files)
        .filter(|(_, file)| matches!(file.kind, FileKind::Sealed { .. }))
        .map(|(path, _)| path)
        .collect();
    if sealed.is_empty() {
        return;
    }
    let mut complain = |folder: &str, location: &Location| {
        let Some(path) = sealed.iter().find(|path| path.is_below(folder)) else { return };
        let message = format!(
            "`{}` is mounted as a folder, and `{path}` in it is a link to a secret, which leads nowhere in a container",
            shown(folder)
        );
        let mut warning = Diagnostic::warning("secret-mount", location.clone(), message);
        warning.help(format!("mount `{path}` itself, beside the folder or in its place"));
        diagnostics.push(warning);
    };
    for form in forms() {
        for container in form.containers.values() {
            container
                .settings
                .mounts
                .iter()
                .filter_map(Mount::host_path)
                .for_each(|folder| complain(folder, &container.location));
        }
        for (_, file) in form.files.iter().filter(|(path, _)| path.quadlet().is_some()) {
            let FileKind::Regular { content, .. } = &file.kind else { continue };
            let text = std::str::from_utf8(content).unwrap_or_default();
            quadlet::mounted(text).iter().for_each(|folder| complain(folder, &file.location));
        }
    }
}

fn hosts_key<'h>(hosts: &'h BTreeMap<HostName, Host>, name: &HostName) -> Option<&'h String> {
    let host = hosts.get(name)?;
    host.recipient.as_ref().or(host.key.as_ref())
}

/// Who cannot read something that they need.
#[derive(Default)]
struct Lacking<'h> {
    /// fleet.yaml names no key for them.
    keyless: BTreeSet<&'h HostName>,
    /// It is not for their key.
    unable: BTreeSet<&'h HostName>,
}

/// Complains about what a host needs and cannot read; returns who should be able to read what.
pub(super) fn check(
    apps: &BTreeMap<AppName, Application>,
    (secrets, hosts_of): (&Secrets, &BTreeMap<HostName, Host>),
    recipients: &[String],
    is_signed: bool,
    diagnostics: &mut Vec<Diagnostic>,
) -> SealedFiles {
    let values = secrets.iter().map(|(name, secret)| (name.clone(), Arc::clone(&secret.envelope))).collect();
    let mut all = SealedFiles { recipients: recipients.to_vec(), values, ..SealedFiles::default() };
    all.files.extend(secrets.values().map(|secret| (secret.location.file.clone(), BTreeSet::new())));
    let forms = apps.values().flat_map(|app| &app.variants).flat_map(|form| form.files.values());
    let whole =
        forms.filter(|file| matches!(file.kind, FileKind::Sealed { .. }) && file.location.file.ends_with(".age"));
    all.files.extend(whole.map(|file| (file.location.file.clone(), BTreeSet::new())));
    let needs = needs(apps, secrets);
    all.lines = lines(apps, secrets);
    let keys = |hosts: &BTreeSet<&HostName>| -> BTreeSet<String> {
        hosts.iter().filter_map(|name| hosts_key(hosts_of, name)).cloned().collect()
    };
    for need in &needs {
        all.files.entry(need.location.file.clone()).or_default().extend(keys(&need.hosts));
    }
    let mut lacking: BTreeMap<(&Location, &str), Lacking<'_>> = BTreeMap::new();
    // What is not encrypted was told of.
    let is_plain = |need: &Need<'_>| need.readers == Readers::default();
    for need in needs.iter().filter(|need| !is_plain(need)) {
        let marks: BTreeSet<&str> = need.readers.marks.iter().map(String::as_str).collect();
        // Which of age's own keys can open it cannot be told, but how many should.
        let wanted = all.files[&need.location.file].iter().chain(recipients).collect::<BTreeSet<_>>();
        let is_for_all_of_age = need.readers.unnamed >= wanted.iter().filter(|key| key.starts_with("age1")).count();
        for name in &need.hosts {
            let Lacking { keyless, unable } = lacking.entry((&need.location, &need.what)).or_default();
            match hosts_key(hosts_of, name) {
                None => drop(keyless.insert(name)),
                Some(key) if key.starts_with("age1") && is_for_all_of_age => {}
                Some(key) if sealed::mark(key).is_none_or(|mark| !marks.contains(mark.as_str())) => {
                    unable.insert(name);
                }
                Some(_) => {}
            }
        }
    }
    for ((location, what), Lacking { keyless, unable }) in lacking {
        if !keyless.is_empty() {
            let message = format!("{} cannot read {what}: fleet.yaml names no key", named(&keyless));
            let mut complaint = Diagnostic::error("secret-no-key", location.clone(), message);
            complaint.help("add the line that `mainstay install` prints on the host, then `mainstay secret rekey`");
            diagnostics.push(complaint);
        }
        if !unable.is_empty() {
            let message = format!("{} cannot read {what}: it is not encrypted for that key", named(&unable));
            let mut complaint = Diagnostic::error("secret-unreadable", location.clone(), message);
            complaint.help("`mainstay secret rekey` encrypts it for all hosts that need it");
            diagnostics.push(complaint);
        }
    }
    if let Some(location) = needs.first().map(|need| &need.place).filter(|_| !is_signed) {
        let message =
            "nobody has to sign commits here: whoever can push can put another secret in the place of this one";
        let mut warning = Diagnostic::warning("secret-unsigned", location.clone(), message);
        warning.help("say in fleet.yaml whose commits are believed: trust: { signers: trust/allowed_signers }");
        diagnostics.push(warning);
    }
    all
}

/// Names some hosts.
fn named(hosts: &BTreeSet<&HostName>) -> String {
    const MOST_NAMED: usize = 5;
    let names: Vec<String> = hosts.iter().take(MOST_NAMED).map(|host| format!("`{host}`")).collect();
    let more = hosts.len().saturating_sub(MOST_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{} {}{more}", if hosts.len() == 1 { "host" } else { "hosts" }, names.join(", "))
}

/// A file of SOPS, to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sops {
    /// The key of the file, encrypted with age for one reader after the other.
    pub keys: Vec<String>,
    /// When it was written; that it was not changed since is bound to it.
    pub last_modified: String,
    /// What says so, encrypted.
    pub mac: String,
    /// The values with the keys that lead to them, as they stand in the file.
    pub values: Vec<(Vec<String>, String)>,
}

/// Reads a file of SOPS.
///
/// # Errors
/// It is none, or one whose values say nothing of each other.
pub fn sops(text: &str) -> Result<Sops, String> {
    let mut page = Page::new("", text);
    let node = yaml::read(&mut page).filter(|_| page.errors() == 0).ok_or("its file is no YAML")?;
    let Kind::Mapping(entries) = &node.kind else { return Err("its file is no map".to_owned()) };
    let (_, said) = entries.iter().find(|(key, _)| key.text == SOPS).ok_or("its file is not one of SOPS")?;
    let text = |node: &Node, name: &str| {
        let Kind::Mapping(entries) = &node.kind else { return None };
        let (_, node) = entries.iter().find(|(key, _)| key.text == name)?;
        if let Kind::Scalar { text, .. } = &node.kind { Some(text.clone()) } else { None }
    };
    if text(said, "mac_only_encrypted").is_some_and(|it| it == "true") {
        return Err("its file does not bind all of it together (`mac_only_encrypted`)".to_owned());
    }
    let mut keys = Vec::new();
    if let Kind::Mapping(entries) = &said.kind
        && let Some((_, age)) = entries.iter().find(|(key, _)| key.text == "age")
        && let Kind::Sequence(items) = &age.kind
    {
        keys.extend(items.iter().filter_map(|item| text(item, "enc")));
    }
    let mut sops = Sops {
        keys,
        last_modified: text(said, "lastmodified").ok_or("its file does not say when it was written")?,
        mac: text(said, "mac").ok_or("its file has no `mac`")?,
        values: Vec::new(),
    };
    for (key, node) in entries.iter().filter(|(key, _)| key.text != SOPS) {
        collect(node, &mut vec![key.text.clone()], &mut sops.values)?;
    }
    Ok(sops)
}

fn collect(node: &Node, path: &mut Vec<String>, values: &mut Vec<(Vec<String>, String)>) -> Result<(), String> {
    match &node.kind {
        // Empty ones are left as they are, and add nothing to what binds them.
        Kind::Scalar { text, .. } if text.is_empty() => {}
        Kind::Scalar { text, .. } => values.push((path.clone(), text.clone())),
        Kind::Mapping(entries) => {
            for (key, node) in entries {
                path.push(key.text.clone());
                collect(node, path, values)?;
                path.pop();
            }
        }
        Kind::Sequence(_) => return Err("its file holds a list, whose values have no names".to_owned()),
    }
    Ok(())
}
