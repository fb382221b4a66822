//! Reads `trust` of fleet.yaml: who is believed, and the files that name them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::duration;
use super::page::{Extent, Page};
use super::yaml::{self, Node};
use crate::diagnostic::{Diagnostic, Severity};
use crate::id::{CommitId, shown};
use crate::trust::{self, Require, Trust};

const REQUIRE: [(&str, Require); 3] =
    [("every-commit", Require::EveryCommit), ("tip", Require::Tip), ("none", Require::None)];
const FORM: &str = "write trust: { signers: trust/allowed_signers }, a file in the form of git's gpg.ssh.allowedSignersFile, or of \
                    certificates as `gpg --export --armor` writes them; or a list of such files";
/// More files than this name nobody.
const MOST_FILES: usize = 20;
/// And all of them together are no longer than this.
const MOST_TEXT: usize = 1 << 20;
/// A promise of less is broken by a quiet evening, and one of more tells nobody anything.
const MAX_AGE: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(366 * 86_400));
/// More people than this agree to nothing.
const MOST_APPROVALS: usize = 10;

/// The section, before the file that it names is read.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    trust: Trust,
    /// Which files name the signers, and where that is said.
    signers: Vec<(String, Extent)>,
    /// Where it is said how many have to agree.
    approvals: Option<Extent>,
}

impl Written {
    /// Names the files of the signers.
    pub(super) fn signers(&self) -> impl Iterator<Item = &str> {
        self.signers.iter().map(|(path, _)| path.as_str())
    }

    /// Completes it by what the files of the signers say.
    pub(super) fn with(mut self, signers: Vec<trust::Signer>) -> Trust {
        self.trust.signers = signers;
        self.trust
    }
}

/// Reads the section.
pub(super) fn read(page: &mut Page<'_>, node: &Node) -> Written {
    let mut written = Written { trust: Trust { approvals: 1, ..Trust::default() }, ..Written::default() };
    let Some(mut table) = page.table(node, "`trust`") else { return written };
    if let Some((_, node)) = table.take("require") {
        written.trust.require = page.choice(node, "`require`", &REQUIRE).unwrap_or_default();
    }
    match table.take("signers") {
        Some((_, node)) => written.signers = paths(page, node),
        None if written.trust.require == Require::None || table.has_misspelt("signers") => {}
        None => drop(page.error("trust-signers", node.extent, "`trust` does not say who may sign").help(FORM)),
    }
    if let Some((_, node)) = table.take("approvals") {
        written.trust.approvals = approvals(page, node, written.trust.require).unwrap_or(1);
        written.approvals = Some(node.extent);
    }
    match table.take("branch") {
        Some((_, node)) => written.trust.branch = page.text(node, "`branch`").map(str::to_owned),
        None if written.signers.is_empty() || table.has_misspelt("branch") => {}
        None => {
            let message = "what is signed for one branch counts on every other: whoever can push can have hosts of this branch follow another";
            page.warning("trust-branch", node.extent, message).help("write `branch: main`, whatever hosts follow");
        }
    }
    if let Some((_, node)) = table.take("replaces") {
        let nodes = page.list(node, "`replaces`").unwrap_or_default();
        written.trust.replaces = nodes.iter().filter_map(|node| replaced(page, node)).collect();
    }
    if let Some((_, node)) = table.take("max-age") {
        written.trust.max_age = duration::read(page, node, "`max-age`", MAX_AGE.0, MAX_AGE.1);
    }
    table.finish(page, "`trust`");
    written
}

fn paths(page: &mut Page<'_>, node: &Node) -> Vec<(String, Extent)> {
    let nodes = match &node.kind {
        yaml::Kind::Sequence(nodes) => nodes.as_slice(),
        _ => std::slice::from_ref(node),
    };
    if nodes.is_empty() || nodes.len() > MOST_FILES {
        page.error("trust-signers", node.extent, format!("`signers` names from 1 to {MOST_FILES} files")).help(FORM);
        return Vec::new();
    }
    let mut paths: Vec<(String, Extent)> = Vec::new();
    for node in nodes {
        let Some((path, extent)) = path(page, node) else { continue };
        match paths.iter().any(|(other, _)| *other == path) {
            true => drop(
                page.error("trust-signers", extent, format!("`{}` is named twice", shown(&path)))
                    .help("name each file once"),
            ),
            false => paths.push((path, extent)),
        }
    }
    paths
}

fn path(page: &mut Page<'_>, node: &Node) -> Option<(String, Extent)> {
    let text = page.text(node, "`signers`")?;
    let is_inside = !text.starts_with('/') && text.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if !is_inside {
        page.error("trust-signers", node.extent, format!("`{}` is no path in this repository", shown(text)))
            .help("write it from the repository's root, such as trust/allowed_signers");
        return None;
    }
    Some((text.to_owned(), node.extent))
}

fn approvals(page: &mut Page<'_>, node: &Node, require: Require) -> Option<usize> {
    let text = page.as_written(node, "`approvals`")?;
    let Some(count) = text.parse().ok().filter(|count| (1..=MOST_APPROVALS).contains(count)) else {
        let message = format!("`approvals` is a number of people from 1 to {MOST_APPROVALS}, not `{}`", shown(text));
        page.error("trust-approvals", node.extent, message)
            .help("write how many have to agree when who may sign changes");
        return None;
    };
    if count > 1 && require != Require::EveryCommit {
        page.error(
            "trust-approvals",
            node.extent,
            "people agree by signing commits, and not every commit has to be signed here",
        )
        .help("write `require: every-commit`, or remove `approvals`");
    }
    Some(count)
}

fn replaced(page: &mut Page<'_>, node: &Node) -> Option<CommitId> {
    let text = page.as_written(node, "a commit")?;
    match CommitId::parse(text) {
        Ok(commit) => Some(commit),
        Err(_) => {
            page.error("trust-replaces", node.extent, format!("`{}` is not the whole name of a commit", shown(text)))
                .help("write all of its 40 digits: git rev-parse COMMIT");
            None
        }
    }
}

/// Reads the file of the signers, which is `page`, and compares it with the section.
pub(super) fn signers(page: &mut Page<'_>, reader: &mut trust::Reader) -> Vec<trust::Signer> {
    let (signers, mistakes) = reader.read(page.text);
    for mistake in mistakes {
        let severity = if mistake.is_warning { Severity::Warning } else { Severity::Error };
        let extent = Extent::new(mistake.extent.start, mistake.extent.end);
        page.complain(severity, "trust-signer", extent, mistake.message).help(mistake.help);
    }
    signers
}

/// Complains in fleet.yaml, which is `page`, about files of signers that are not there or name nobody; `read` are those that are there
/// and have no mistakes, with whom they name.
pub(super) fn check(page: &mut Page<'_>, written: &Written, read: &[(&str, Vec<trust::Signer>)]) {
    let mut is_whole = !written.signers.is_empty();
    for (path, extent) in &written.signers {
        match read.iter().find(|(name, _)| name == path) {
            None => {
                is_whole = false;
                page.error("trust-signers", *extent, format!("there is no file `{}`", shown(path))).help(FORM);
            }
            Some((_, signers)) if signers.is_empty() && written.trust.require != Require::None => {
                is_whole = false;
                let message = match written.signers.len() {
                    1 => format!("`{}` names nobody, so nothing could be believed", shown(path)),
                    _ => format!("`{}` names nobody", shown(path)),
                };
                page.error("trust-signers", *extent, message)
                    .help("add a line for each person who may sign: alice@example.com ssh-ed25519 AAAA…");
            }
            Some(_) => {}
        }
    }
    let named = read.iter().flat_map(|(_, signers)| signers);
    let people = named.map(|signer| signer.principals.as_str()).collect::<BTreeSet<_>>().len();
    if let Some(extent) = written.approvals.filter(|_| is_whole && people < written.trust.approvals) {
        let files: Vec<String> = written.signers().map(|path| format!("`{}`", shown(path))).collect();
        let message =
            format!("{} people have to agree, and {} names {people}", written.trust.approvals, files.join(" with "));
        page.error("trust-approvals", extent, message).help("lower `approvals`, or name more people");
    }
}

/// What a commit says of trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Nothing: there is no such section.
    Nothing,
    /// This.
    Trust(Arc<Trust>),
    /// It cannot be read.
    Unreadable,
}

/// Names the files of the signers in a fleet.yaml.
pub fn files_of_signers(fleet: &str) -> Vec<String> {
    if is_silent(fleet) {
        return Vec::new();
    }
    let mut page = Page::new(super::FLEET, fleet);
    let node = yaml::read(&mut page);
    let Some(section) = node.as_ref().and_then(section) else { return Vec::new() };
    read(&mut page, section).signers().map(str::to_owned).collect()
}

/// Says whether a fleet.yaml cannot have the section, however it is written: large ones are not read for nothing.
fn is_silent(fleet: &str) -> bool {
    !fleet.contains("trust") && !fleet.contains('\\')
}

/// Returns the section.
fn section(node: &Node) -> Option<&Node> {
    let yaml::Kind::Mapping(entries) = &node.kind else { return None };
    entries.iter().find(|(key, _)| key.text == "trust").map(|(_, node)| node)
}

/// Reads what a commit says of trust from its fleet.yaml, without looking at anything else; `file` returns the text of another file of
/// it. Whether the whole of it is sound is for [`super::parse`] to say.
pub fn said_of_trust<T: AsRef<str>>(fleet: &str, file: impl Fn(&str) -> Option<T>) -> Said {
    if is_silent(fleet) {
        return Said::Nothing;
    }
    let mut page = Page::new(super::FLEET, fleet);
    let Some(node) = yaml::read(&mut page) else { return Said::Unreadable };
    let Some(node) = section(&node) else {
        return if matches!(node.kind, yaml::Kind::Mapping(_)) { Said::Nothing } else { Said::Unreadable };
    };
    let written = read(&mut page, node);
    let mut diagnostics: Vec<Diagnostic> = Vec::new();
    let (mut found, mut reader, mut spare) = (Vec::new(), trust::Reader::default(), MOST_TEXT);
    for path in written.signers() {
        let text = file(path);
        let Some(text) = text.as_ref().map(AsRef::as_ref) else { return Said::Unreadable };
        let Some(left) = spare.checked_sub(text.len()) else { return Said::Unreadable };
        spare = left;
        let mut page = Page::new(path, text);
        found.push((path, signers(&mut page, &mut reader)));
        page.close(&mut diagnostics);
    }
    found.iter_mut().for_each(|(_, signers)| reader.leave_out_revoked(signers));
    check(&mut page, &written, &found);
    page.close(&mut diagnostics);
    let found: Vec<_> = found.into_iter().flat_map(|(_, signers)| signers).collect();
    match diagnostics.iter().any(Diagnostic::is_error) {
        true => Said::Unreadable,
        false => Said::Trust(Arc::new(written.with(found))),
    }
}
