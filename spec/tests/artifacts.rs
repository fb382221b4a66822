//! Plans for artifacts, as golden text: fetched first, and a restart for exactly what names them.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::{Expect, expect};
use jiff::Timestamp;
use spec::desired::{Desired, FileKind};
use spec::digest::Digest;
use spec::id::{HostName, HostPath, Mode};
use spec::journal;
use spec::memory::Memory;
use spec::observed::{Access, ActiveState, FileState, LoadState, Observed, Reach, UnitState};
use spec::plan::{self, Action, Patience, Plan};
use spec::tree::Tree;
use spec::unpack::{self, Inventory, Member};
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
        let state = match &file.kind {
            FileKind::Symlink { target } => FileState::Symlink { target: target.clone(), access },
            kind if kind.is_directory() => FileState::Directory { access, empty: false },
            _ => FileState::Regular { digest, access, modified: Timestamp::UNIX_EPOCH, mark: None },
        };
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

/// An application with an archive below /opt/app, of which `find` knows the content.
fn with_archive(version: &str, is_open: bool) -> Desired {
    let mut tree = Tree::default();
    tree.insert("fleet.yaml", b"fleet: home\nhosts: { attic: {} }\n");
    let digest = Digest::of(version.as_bytes());
    let app = format!(
        "artifacts:\n  /opt/app: {{ url: \"https://ci.example/app-{version}.tgz\", sha256: \"{digest}\", unpack: tar }}\n"
    );
    tree.insert("apps/app/app.yaml", app.as_bytes());
    let unit = "[Service]\nExecStart=/opt/app/bin/run\n[Install]\nWantedBy=multi-user.target\n";
    tree.insert("apps/app/app.service", unit.as_bytes());
    let parsed = manifest::parse(&tree, None);
    let fleet = parsed.fleet.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
    let mut desired = resolve::resolve(&fleet, &HostName::parse("attic").expect("valid")).expect("valid");
    let file = |content: &str, executable| Member::File { digest: Digest::of(content.as_bytes()), executable };
    let mut members = BTreeMap::from([
        ("bin".to_owned(), Member::Directory),
        ("bin/run".to_owned(), file("run", true)),
        (format!("lib-{version}"), file(version, false)),
        ("now".to_owned(), Member::Link { target: format!("lib-{version}") }),
    ]);
    if version == "1" {
        members.extend((0..9).map(|index| (format!("old{index}"), file("old", false))));
    }
    let opened = unpack::open(&mut desired, |_| is_open.then(|| Inventory { members: members.clone() }));
    assert_eq!(opened, is_open);
    desired
}

#[test]
fn what_is_in_an_archive_is_planned_once_it_is_known() {
    let mut observed = Observed::default();
    let wanted = with_archive("1", false);
    for (_, path, _) in wanted.files() {
        observed.files.insert(path.clone(), FileState::Absent);
    }
    observed.units = Reach::Seen(BTreeMap::new());
    (observed.users, observed.groups) =
        (BTreeMap::from([("root".to_owned(), Some(0))]), BTreeMap::from([("root".to_owned(), Some(0))]));
    check(
        &wanted,
        &observed,
        &Memory::default(),
        &expect![[r#"
        fetch    https://ci.example/app-1.tgz  app  what is in it is not known
        left alone: what is in it is planned once it was fetched
          file /opt/app (app)
    "#]],
    );
}

#[test]
fn another_archive_changes_what_differs_and_restarts_what_runs_from_it() {
    let (mut observed, memory) = converged(&with_archive("1", true));
    check(
        &with_archive("1", true),
        &observed,
        &memory,
        &expect![[r#"
        nothing to do
    "#]],
    );
    // Nothing is removed, and nothing held, while it is not known what the new one leaves out.
    check(
        &with_archive("2", false),
        &observed,
        &memory,
        &expect![[r#"
        fetch    https://ci.example/app-2.tgz  app  what is in it is not known
        left alone: what is in it is planned once it was fetched
          file /opt/app (app)
    "#]],
    );
    observed.files.insert(path("/opt/app/lib-2"), FileState::Absent);
    let later = with_archive("2", true);
    check(
        &later,
        &observed,
        &memory,
        &expect![[r#"
        fetch    https://ci.example/app-2.tgz  app  new
        remove   /opt/app/lib-1                app  no longer wanted
        remove   /opt/app/old0                 app  no longer wanted
        remove   /opt/app/old1                 app  no longer wanted
        remove   /opt/app/old2                 app  no longer wanted
        remove   /opt/app/old3                 app  no longer wanted
        remove   /opt/app/old4                 app  no longer wanted
        remove   /opt/app/old5                 app  no longer wanted
        remove   /opt/app/old6                 app  no longer wanted
        remove   /opt/app/old7                 app  no longer wanted
        remove   /opt/app/old8                 app  no longer wanted
        create   /opt/app/lib-2                app  new
        write    /opt/app/now                  app  it points to lib-1
        restart  app.service                   app  /opt/app changes
    "#]],
    );
    observed.artifacts.insert(Digest::of(b"2"));
    let plan = check(
        &later,
        &observed,
        &memory,
        &expect![[r#"
        remove   /opt/app/lib-1  app  no longer wanted
        remove   /opt/app/old0   app  no longer wanted
        remove   /opt/app/old1   app  no longer wanted
        remove   /opt/app/old2   app  no longer wanted
        remove   /opt/app/old3   app  no longer wanted
        remove   /opt/app/old4   app  no longer wanted
        remove   /opt/app/old5   app  no longer wanted
        remove   /opt/app/old6   app  no longer wanted
        remove   /opt/app/old7   app  no longer wanted
        remove   /opt/app/old8   app  no longer wanted
        create   /opt/app/lib-2  app  new
        write    /opt/app/now    app  it points to lib-1
        restart  app.service     app  /opt/app changes
    "#]],
    );
    let run = plan.steps.iter().find(|step| matches!(step.action, Action::RunUnit { .. })).expect("a restart");
    assert!(run.reads.contains(&path("/opt/app")));
}

#[test]
fn drift_within_an_archive_is_that_of_one_file() {
    let wanted = with_archive("1", true);
    let (mut observed, memory) = converged(&wanted);
    observed.files.insert(path("/opt/app/old0"), FileState::Absent);
    observed.artifacts.insert(Digest::of(b"old"));
    check(
        &wanted,
        &observed,
        &memory,
        &expect![[r#"
        create   /opt/app/old0  app  drift: it was removed
    "#]],
    );
    // What somebody else put there is nobody's business, unless the archive brings it.
    let mut foreign = memory.clone();
    foreign.owned.remove(&spec::id::ResourceId::File(path("/opt/app/old1")));
    let access = Access { mode: Mode::from_bits(0o644), uid: 0, gid: 0 };
    let digest = Digest::of(b"theirs");
    let theirs = FileState::Regular { digest, access, modified: Timestamp::UNIX_EPOCH, mark: None };
    observed.files.insert(path("/opt/app/old1"), theirs);
    check(
        &wanted,
        &observed,
        &foreign,
        &expect![[r#"
        create   /opt/app/old0  app  drift: it was removed
        conflict in app: file /opt/app/old1: a file is there already, mainstay did not put it there, and it differs from what is wanted; move it away, give the application another path, or write `adopt: true` for it: then it is kept and replaced
        conflict in app: unit app.service: waits for /opt/app, which cannot be put in place
    "#]],
    );
}
