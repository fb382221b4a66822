//! Reads `trust` of fleet.yaml: who is believed, and the file that names them.

use std::sync::Arc;

use super::page::{Extent, Page};
use super::yaml::{self, Node};
use crate::diagnostic::{Diagnostic, Severity};
use crate::id::{CommitId, shown};
use crate::trust::{self, Require, Trust};

const REQUIRE: [(&str, Require); 3] =
    [("every-commit", Require::EveryCommit), ("tip", Require::Tip), ("none", Require::None)];
const FORM: &str =
    "write trust: { signers: trust/allowed_signers }, a file in the form of git's gpg.ssh.allowedSignersFile";
/// More people than this agree to nothing.
const MOST_APPROVALS: usize = 10;

/// The section, before the file that it names is read.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    trust: Trust,
    /// Which file names the signers, and where that is said.
    signers: Option<(String, Extent)>,
    /// Where it is said how many have to agree.
    approvals: Option<Extent>,
}

impl Written {
    /// Names the file of the signers.
    pub(super) fn signers(&self) -> Option<&str> {
        self.signers.as_ref().map(|(path, _)| path.as_str())
    }

    /// Completes it by what the file of the signers says.
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
        Some((_, node)) => written.signers = path(page, node),
        None if written.trust.require == Require::None || table.has_misspelt("signers") => {}
        None => drop(page.error("trust-signers", node.extent, "`trust` does not say who may sign").help(FORM)),
    }
    if let Some((_, node)) = table.take("approvals") {
        written.trust.approvals = approvals(page, node, written.trust.require).unwrap_or(1);
        written.approvals = Some(node.extent);
    }
    if let Some((_, node)) = table.take("branch") {
        written.trust.branch = page.text(node, "`branch`").map(str::to_owned);
    }
    if let Some((_, node)) = table.take("replaces") {
        let nodes = page.list(node, "`replaces`").unwrap_or_default();
        written.trust.replaces = nodes.iter().filter_map(|node| replaced(page, node)).collect();
    }
    table.finish(page, "`trust`");
    written
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
pub(super) fn signers(page: &mut Page<'_>) -> Vec<trust::Signer> {
    let (signers, mistakes) = trust::read_signers(page.text);
    for mistake in mistakes {
        let severity = if mistake.is_warning { Severity::Warning } else { Severity::Error };
        let extent = Extent::new(mistake.extent.start, mistake.extent.end);
        page.complain(severity, "trust-signer", extent, mistake.message).help(mistake.help);
    }
    signers
}

/// Complains in fleet.yaml, which is `page`, about a file of signers that is not there or names nobody.
pub(super) fn check(page: &mut Page<'_>, written: &Written, signers: Option<&[trust::Signer]>) {
    let Some((path, extent)) = &written.signers else { return };
    let people = |signers: &[trust::Signer]| {
        signers.iter().map(|signer| signer.principals.clone()).collect::<std::collections::BTreeSet<_>>().len()
    };
    match signers {
        None => drop(page.error("trust-signers", *extent, format!("there is no file `{}`", shown(path))).help(FORM)),
        Some([]) if written.trust.require != Require::None => drop(
            page.error(
                "trust-signers",
                *extent,
                format!("`{}` names nobody, so nothing could be believed", shown(path)),
            )
            .help("add a line for each person who may sign: alice@example.com ssh-ed25519 AAAA…"),
        ),
        Some(signers) if people(signers) < written.trust.approvals => {
            let extent = written.approvals.unwrap_or(*extent);
            let message = format!(
                "{} people have to agree, and `{}` names {}",
                written.trust.approvals,
                shown(path),
                people(signers)
            );
            page.error("trust-approvals", extent, message).help("lower `approvals`, or name more people");
        }
        Some(_) => {}
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

/// Names the file of the signers in a fleet.yaml, where it names one.
pub fn file_of_signers(fleet: &str) -> Option<String> {
    if is_silent(fleet) {
        return None;
    }
    let mut page = Page::new(super::FLEET, fleet);
    let node = yaml::read(&mut page)?;
    let written = read(&mut page, section(&node)?);
    written.signers.map(|(path, _)| path)
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
pub fn said_of_trust(fleet: &str, file: impl FnOnce(&str) -> Option<String>) -> Said {
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
    let mut found = Vec::new();
    if let Some(path) = written.signers() {
        let Some(text) = file(path) else { return Said::Unreadable };
        let mut page = Page::new(path, &text);
        found = signers(&mut page);
        page.close(&mut diagnostics);
    }
    check(&mut page, &written, Some(&found));
    page.close(&mut diagnostics);
    match diagnostics.iter().any(Diagnostic::is_error) {
        true => Said::Unreadable,
        false => Said::Trust(Arc::new(written.with(found))),
    }
}
