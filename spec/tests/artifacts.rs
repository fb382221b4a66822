//! Plans for artifacts, as golden text: fetched first, and a restart for exactly what names them.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::{Expect, expect};
use jiff::Timestamp;
use spec::desired::Desired;
use spec::digest::Digest;
use spec::id::{HostName, HostPath, Mode};
use spec::journal;
use spec::memory::Memory;
use spec::observed::{Access, ActiveState, FileState, LoadState, Observed, Reach, UnitState};
use spec::plan::{self, Action, Patience, Plan};
use spec::tree::Tree;
use spec::{inputs, manifest, resolve};

const BRIDGE: &str = "/usr/local/bin/bridge";

/// An application with a service that runs an artifact, and one that does not.
fn desired(version: &str) -> Desired {
    let mut tree = Tree::default();
    tree.insert("fleet.yaml", b"fleet: home\nhosts: { attic: {} }\n");
    let digest = Digest::of(version.as_bytes());
    let app = format!(
        "artifacts:\n  {BRIDGE}: {{ url: \"https://ci.example/bridge-{version}\", sha256: \"{digest}\", mode: \"0755\" }}\n"
    );
    tree.insert("apps/bridge/app.yaml", app.as_bytes());
    for (unit, command) in [("bridge", BRIDGE), ("other", "/usr/bin/other")] {
        let text = format!("[Service]\nExecStart={command}\n[Install]\nWantedBy=multi-user.target\n");
        tree.insert(&format!("apps/bridge/{unit}.service"), text.as_bytes());
    }
    let parsed = manifest::parse(&tree, None);
    let fleet = parsed.fleet.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
    resolve::resolve(&fleet, &HostName::parse("attic").expect("valid")).expect("valid")
}

fn path(text: &str) -> HostPath {
    HostPath::parse(text).expect("a path")
}

/// A host on which everything runs that `desired` wants, and what is remembered of it.
fn converged(desired: &Desired) -> (Observed, Memory) {
    let root = || BTreeMap::from([("root".to_owned(), Some(0))]);
    let mut observed = Observed { users: root(), groups: root(), ..Observed::default() };
    let mut units = BTreeMap::new();
    let mut memory = Memory::default();
    for (app, path, file) in desired.files() {
        let access = Access { mode: file.mode, uid: 0, gid: 0 };
        let digest = inputs::fingerprint(&file.kind);
        let state = FileState::Regular { digest, access, modified: Timestamp::UNIX_EPOCH, mark: None };
        observed.files.insert(path.clone(), state);
        journal::wrote(&mut memory, app, path, &file.kind, &[]);
    }
    let mut step = Plan::default();
    for (app, name, unit) in desired.units() {
        let with = inputs::of_unit(name, unit, None, &inputs::managed(desired)).digests;
        let invocation = Some("run".to_owned());
        step.lessons.push(plan::Lesson::Runs(name.clone(), app.clone(), true, with, invocation.clone()));
        let state = UnitState {
            load: LoadState::Loaded,
            active: ActiveState::Active,
            enabled: Some(true),
            invocation,
            ..UnitState::not_found()
        };
        units.insert(name.clone(), state);
    }
    observed.units = Reach::Seen(units);
    journal::learn(&mut memory, &step.lessons);
    journal::settle(&mut memory, desired, &Plan::default(), &BTreeSet::new(), Timestamp::UNIX_EPOCH);
    (observed, memory)
}

fn check(desired: &Desired, observed: &Observed, memory: &Memory, expected: &Expect) -> Plan {
    let plan = plan::plan(desired, observed, memory, Timestamp::UNIX_EPOCH, Patience::Now);
    expected.assert_eq(&plan.to_string());
    plan
}

#[test]
fn another_version_is_fetched_first_and_restarts_what_names_it() {
    let (mut observed, memory) = converged(&desired("1.4"));
    check(
        &desired("1.4"),
        &observed,
        &memory,
        &expect![[r#"
        nothing to do
    "#]],
    );
    let plan = check(
        &desired("1.5"),
        &observed,
        &memory,
        &expect![[r#"
        fetch    https://ci.example/bridge-1.5  bridge  its content differs
        write    /usr/local/bin/bridge          bridge  its content differs
        restart  bridge.service                 bridge  /usr/local/bin/bridge changes
    "#]],
    );
    let run = plan.steps.iter().find(|step| matches!(step.action, Action::RunUnit { .. })).expect("a restart");
    assert_eq!(
        run.reads.iter().map(HostPath::as_str).collect::<Vec<_>>(),
        ["/etc/systemd/system/bridge.service", BRIDGE]
    );

    observed.artifacts.insert(Digest::of(b"1.5"));
    check(
        &desired("1.5"),
        &observed,
        &memory,
        &expect![[r#"
        write    /usr/local/bin/bridge  bridge  its content differs
        restart  bridge.service         bridge  /usr/local/bin/bridge changes
    "#]],
    );
}

#[test]
fn what_is_in_place_is_not_fetched_for_its_mode() {
    let wanted = desired("1.4");
    let (mut observed, memory) = converged(&wanted);
    let access = Access { mode: Mode::from_bits(0o700), uid: 0, gid: 0 };
    let digest = Digest::of(b"1.4");
    let state = FileState::Regular { digest, access, modified: Timestamp::UNIX_EPOCH, mark: None };
    observed.files.insert(path(BRIDGE), state);
    check(
        &wanted,
        &observed,
        &memory,
        &expect![[r#"
        set      /usr/local/bin/bridge  bridge  drift: mode 0700 -> 0755
    "#]],
    );
}

#[test]
fn an_edited_artifact_is_kept_and_fetched_again() {
    let wanted = desired("1.4");
    let (mut observed, memory) = converged(&wanted);
    let access = Access { mode: Mode::from_bits(0o755), uid: 0, gid: 0 };
    let state = FileState::Regular { digest: Digest::of(b"x"), access, modified: Timestamp::UNIX_EPOCH, mark: None };
    observed.files.insert(path(BRIDGE), state);
    check(
        &wanted,
        &observed,
        &memory,
        &expect![[r#"
        fetch    https://ci.example/bridge-1.4  bridge  drift: its content differs
        write    /usr/local/bin/bridge          bridge  drift: its content differs
        kept before, `mainstay restore` brings it back:
          /usr/local/bin/bridge: it was edited on this host
    "#]],
    );
    observed.files.insert(path(BRIDGE), FileState::Absent);
    check(
        &wanted,
        &observed,
        &memory,
        &expect![[r#"
        fetch    https://ci.example/bridge-1.4  bridge  drift: it was removed
        create   /usr/local/bin/bridge          bridge  drift: it was removed
    "#]],
    );
}

#[test]
fn another_address_of_the_same_bytes_changes_nothing_but_the_release() {
    let release = |url: &str| {
        let mut tree = Tree::default();
        tree.insert("fleet.yaml", b"fleet: home\nhosts: { attic: {} }\n");
        let digest = Digest::of(b"1.4");
        let app = format!("artifacts: {{ {BRIDGE}: {{ url: \"https://{url}\", sha256: \"{digest}\" }} }}\n");
        tree.insert("apps/bridge/app.yaml", app.as_bytes());
        let fleet = manifest::parse(&tree, None).fleet.expect("a sound repository");
        resolve::resolve(&fleet, &HostName::parse("attic").expect("valid")).expect("valid")
    };
    let (one, other) = (release("one.example/x"), release("other.example/x"));
    let digest = |desired: &Desired| desired.apps.values().map(|app| app.digest).next();
    assert_ne!(digest(&one), digest(&other), "who failed at one address may try another");
    let (observed, memory) = converged(&one);
    check(
        &other,
        &observed,
        &memory,
        &expect![[r#"
        nothing to do
    "#]],
    );
}
