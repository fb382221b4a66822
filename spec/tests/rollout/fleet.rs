//! A fleet of one application, made from a few words.

use std::collections::BTreeMap;
use std::ops::Range;

use jiff::Timestamp;
use spec::digest::Digest;
use spec::id::{AppName, CommitId, HostName};
use spec::manifest::{self, Fleet};
use spec::memory::AppState;
use spec::record::{AppRecord, Record};
use spec::tree::Tree;

/// Reads a fleet whose fleet.yaml goes on with `rules`; hosts are `h0`, `h1` and so on, the first `canaries` of them with the label
/// `ring: canary`.
pub(crate) fn fleet(hosts: usize, canaries: usize, rules: &str) -> Fleet {
    fleet_of(0..hosts, canaries, rules)
}

/// Reads such a fleet of which only some hosts are there.
pub(crate) fn fleet_of(hosts: Range<usize>, canaries: usize, rules: &str) -> Fleet {
    let mut text = "fleet: home\nhosts:\n".to_owned();
    for number in hosts {
        let labels = if number < canaries { "{ labels: { ring: canary } }" } else { "{}" };
        text.push_str(&format!("  h{number}: {labels}\n"));
    }
    text.push_str(rules);
    let mut tree = Tree::default();
    tree.insert("fleet.yaml", text.as_bytes());
    tree.insert("apps/web/web.service", b"[Service]\nExecStart=/usr/bin/true\n");
    let parsed = manifest::parse(&tree, None);
    assert_eq!(parsed.diagnostics, [], "{rules}");
    parsed.fleet.expect("a sound fleet")
}

/// The application.
pub(crate) fn app() -> AppName {
    AppName::parse("web").expect("a name")
}

/// The name of a host.
pub(crate) fn host(number: usize) -> HostName {
    HostName::parse(&format!("h{number}")).expect("a name")
}

/// A commit.
pub(crate) fn commit(number: usize) -> CommitId {
    CommitId::parse(&format!("{number:040x}")).expect("a commit")
}

/// What a host says of the application.
pub(crate) fn said(state: AppState, digest: Digest, at: Timestamp) -> AppRecord {
    AppRecord { state, changes: 1, ..AppRecord::begins(digest, at) }
}

/// The record in which it says so.
pub(crate) fn record(host: HostName, commit: CommitId, said: AppRecord, at: Timestamp) -> Record {
    Record {
        fleet: "home".to_owned(),
        host,
        commit,
        counter: 1,
        at,
        apps: BTreeMap::from([(app(), said)]),
        told: Vec::new(),
    }
}
