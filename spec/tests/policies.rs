//! What entries say beyond what they want: adoption, and drift that is only reported or that somebody else fights over; as
//! golden text, from a repository as authors write it.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::{Expect, expect};
use jiff::{SignedDuration, Timestamp};
use spec::desired::Desired;
use spec::digest::Digest;
use spec::id::{AppName, HostName, HostPath, Mode, ResourceId, UnitName};
use spec::inputs;
use spec::journal;
use spec::memory::{Inputs, Memory, Owned, Run, UnitMemory};
use spec::observed::{Access, ActiveState, FileState, LoadState, Observed, Reach, UnitState};
use spec::plan::{self, Patience, Plan};
use spec::tree::Tree;
use spec::{manifest, resolve};

const UNIT: &str = "[Service]\nExecStart=/usr/bin/web\n\n[Install]\nWantedBy=multi-user.target\n";

fn path(text: &str) -> HostPath {
    HostPath::parse(text).expect("a path")
}

fn app() -> AppName {
    AppName::parse("web").expect("a name")
}

/// One application with two units and two files, and what its app.yaml says.
fn desired(app_yaml: &str, conf: &str) -> Desired {
    let mut tree = Tree::default();
    tree.insert("fleet.yaml", b"fleet: home\nhosts: { attic: {} }\n");
    tree.insert("apps/web/app.yaml", app_yaml.as_bytes());
    for unit in ["one", "two"] {
        tree.insert(&format!("apps/web/{unit}.service"), UNIT.as_bytes());
    }
    tree.insert("apps/web/files/etc/web.conf", conf.as_bytes());
    tree.insert("apps/web/files/etc/other", b"other\n");
    let parsed = manifest::parse(&tree, None);
    let fleet = parsed.fleet.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
    resolve::resolve(&fleet, &HostName::parse("attic").expect("valid")).expect("valid")
}

fn regular(content: &str, mode: u32) -> FileState {
    let access = Access { mode: Mode::from_bits(mode), uid: 0, gid: 0 };
    let digest = Digest::of(content.as_bytes());
    FileState::Regular { digest, access, modified: Timestamp::UNIX_EPOCH, mark: None }
}

/// A host on which all is as `desired` says.
fn converged(desired: &Desired) -> (Observed, Memory) {
    let mut observed = Observed {
        users: BTreeMap::from([("root".to_owned(), Some(0))]),
        groups: BTreeMap::from([("root".to_owned(), Some(0))]),
        units: Reach::Seen(BTreeMap::new()),
        ..Observed::default()
    };
    let mut memory = Memory::default();
    for (app, path, file) in desired.files() {
        let spec::desired::FileKind::Regular { content, .. } = &file.kind else { panic!("only files are here") };
        let text = String::from_utf8_lossy(content);
        observed.files.insert(path.clone(), regular(&text, file.mode.bits()));
        let owned = Owned { put: Some(inputs::fingerprint(&file.kind)), ..Owned::by(app) };
        memory.owned.insert(ResourceId::File(path.clone()), owned);
    }
    for (app, name, unit) in desired.units() {
        let with: Inputs = inputs::of_unit(name, unit, None, &inputs::managed(desired)).digests;
        let run = Run::Started { with, invocation: None };
        memory.units.insert(name.clone(), UnitMemory { app: app.clone(), ours: true, run });
        put_unit(&mut observed, name.as_str(), ActiveState::Active);
    }
    journal::settle(&mut memory, desired, &Plan::default(), &BTreeSet::new(), Timestamp::UNIX_EPOCH);
    (observed, memory)
}

fn put_unit(observed: &mut Observed, name: &str, active: ActiveState) {
    let state = UnitState { load: LoadState::Loaded, active, enabled: Some(true), ..UnitState::not_found() };
    if let Reach::Seen(units) = &mut observed.units {
        units.insert(UnitName::parse(name).expect("a unit"), state);
    }
}

fn plan_at(desired: &Desired, observed: &Observed, memory: &Memory, now: Timestamp) -> Plan {
    plan::plan(desired, observed, memory, now, Patience::Wait)
}

fn check(desired: &Desired, observed: &Observed, memory: &Memory, expected: &Expect) {
    expected.assert_eq(&plan_at(desired, observed, memory, Timestamp::UNIX_EPOCH).to_string());
}

#[test]
fn what_was_there_is_taken_over_where_the_repository_says_so() {
    let wanted = desired("files: { /etc/web.conf: { adopt: true } }\n", "ours\n");
    let (mut observed, mut memory) = converged(&wanted);
    memory.owned.remove(&ResourceId::File(path("/etc/web.conf")));
    memory.owned.remove(&ResourceId::File(path("/etc/other")));
    observed.files.insert(path("/etc/web.conf"), regular("theirs\n", 0o600));
    observed.files.insert(path("/etc/other"), regular("theirs\n", 0o600));
    check(
        &wanted,
        &observed,
        &memory,
        &expect![[r#"
        write    /etc/web.conf  web  a file that was there is taken over
        kept before, `mainstay restore` brings it back:
          /etc/web.conf: it was there before mainstay and is taken over
        conflict in web: file /etc/other: a file is there already, mainstay did not put it there, and it differs from what is wanted; move it away, give the application another path, or write `adopt: true` for it: then it is kept and replaced
    "#]],
    );
    observed.files.insert(path("/etc/other"), regular("other\n", 0o644));
    let access = Access { mode: Mode::from_bits(0o755), uid: 0, gid: 0 };
    observed.files.insert(path("/etc/web.conf"), FileState::Directory { access, empty: true });
    check(
        &wanted,
        &observed,
        &memory,
        &expect![[r#"
        conflict in web: file /etc/web.conf: is a directory and should be a file; move it away, mainstay does not remove it
    "#]],
    );
}

#[test]
fn what_is_as_wanted_is_taken_over_without_a_write_and_its_mode_is_kept_otherwise() {
    let wanted = desired("adopt: true\nfiles: { /etc/other: { adopt: false } }\n", "ours\n");
    let (mut observed, mut memory) = converged(&wanted);
    memory.owned.remove(&ResourceId::File(path("/etc/web.conf")));
    memory.owned.remove(&ResourceId::File(path("/etc/other")));
    let plan = plan_at(&wanted, &observed, &memory, Timestamp::UNIX_EPOCH);
    assert!(plan.is_empty(), "{plan}");
    journal::learn(&mut memory, &plan.lessons);
    let owned = memory.owned.get(&ResourceId::File(path("/etc/web.conf"))).cloned();
    assert_eq!(owned, Some(Owned { put: Some(Digest::of(b"ours\n")), ..Owned::by(&app()) }));
    assert!(!memory.owned.contains_key(&ResourceId::File(path("/etc/other"))), "its entry says no");
    memory.owned.remove(&ResourceId::File(path("/etc/web.conf")));
    observed.files.insert(path("/etc/web.conf"), regular("ours\n", 0o600));
    check(
        &wanted,
        &observed,
        &memory,
        &expect![[r#"
        set      /etc/web.conf  web  a file that was there is taken over
        kept before, `mainstay restore` brings it back:
          /etc/web.conf: it was there before mainstay and is taken over
    "#]],
    );
}

#[test]
fn drift_of_one_resource_is_its_own() {
    let yaml = "units: { one.service: { drift: report } }\nfiles: { /etc/other: { drift: report } }\n";
    let wanted = desired(yaml, "ours\n");
    let (mut observed, memory) = converged(&wanted);
    put_unit(&mut observed, "one.service", ActiveState::Inactive);
    put_unit(&mut observed, "two.service", ActiveState::Inactive);
    observed.files.insert(path("/etc/web.conf"), regular("edited\n", 0o644));
    observed.files.insert(path("/etc/other"), regular("edited\n", 0o644));
    check(
        &wanted,
        &observed,
        &memory,
        &expect![[r#"
        write    /etc/web.conf  web  drift: its content differs
        start    two.service    web  drift: it is not running
        kept before, `mainstay restore` brings it back:
          /etc/web.conf: it was edited on this host
        drift, reported only:
        write    /etc/other   web  drift: its content differs
        start    one.service  web  drift: it is not running
    "#]],
    );
}

#[test]
fn a_commits_change_is_made_beside_drift_that_is_only_reported() {
    let (mut observed, memory) = converged(&desired("drift: report\n", "ours\n"));
    put_unit(&mut observed, "one.service", ActiveState::Inactive);
    observed.files.insert(path("/etc/other"), regular("edited\n", 0o644));
    check(
        &desired("drift: report\n", "next\n"),
        &observed,
        &memory,
        &expect![[r#"
        write    /etc/web.conf  web  its content differs
        drift, reported only:
        write    /etc/other   web  drift: its content differs
        start    one.service  web  drift: it is not running
    "#]],
    );
}

#[test]
fn what_is_changed_back_again_and_again_is_left_until_a_commit_or_a_person_says_otherwise() {
    let wanted = desired("", "ours\n");
    let (mut observed, mut memory) = converged(&wanted);
    put_unit(&mut observed, "one.service", ActiveState::Inactive);
    observed.files.insert(path("/etc/web.conf"), regular("edited\n", 0o644));
    let mut now = Timestamp::UNIX_EPOCH;
    for round in 0..20 {
        now += SignedDuration::from_mins(2);
        let plan = plan_at(&wanted, &observed, &memory, now);
        assert_eq!(plan.steps.len(), if round < plan::fights::REPAIRS { 2 } else { 0 }, "{round}:\n{plan}");
        journal::settle(&mut memory, &wanted, &plan, &BTreeSet::new(), now);
    }
    check(
        &wanted,
        &observed,
        &memory,
        &expect![[r#"
        drift, reported only:
        write    /etc/web.conf  web  drift: its content differs
        start    one.service    web  drift: it is not running
        no longer repaired in web: file /etc/web.conf: it was changed back 5 times within an hour by somebody else; waits for a commit that changes web, or for SIGHUP
        no longer repaired in web: unit one.service: it was changed back 5 times within an hour by somebody else; waits for a commit that changes web, or for SIGHUP
    "#]],
    );
    // It does not begin anew an hour later, and what is in somebody else's way meanwhile is not the neighbours' matter.
    now += SignedDuration::from_hours(5);
    put_unit(&mut observed, "two.service", ActiveState::Inactive);
    let plan = plan_at(&wanted, &observed, &memory, now);
    let steps: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
    assert_eq!(steps, ["start two.service (drift: it is not running)"]);
    assert_eq!(plan_at(&desired("", "next\n"), &observed, &memory, now).contested, BTreeMap::new(), "another commit");
    let mut asked = memory.clone();
    journal::make_peace(&mut asked);
    assert_eq!(plan_at(&wanted, &observed, &asked, now).contested, BTreeMap::new(), "a person asked");
    // Nothing is remembered of a fight that is over.
    let (calm, _) = converged(&wanted);
    let plan = plan_at(&wanted, &calm, &memory, now);
    journal::settle(&mut memory, &wanted, &plan, &BTreeSet::new(), now);
    assert_eq!(memory.fights, BTreeMap::new());
}

#[test]
fn what_drifts_now_and_then_is_repaired_for_ever() {
    let wanted = desired("", "ours\n");
    let (mut observed, mut memory) = converged(&wanted);
    observed.files.insert(path("/etc/web.conf"), regular("edited\n", 0o644));
    let mut now = Timestamp::UNIX_EPOCH;
    for round in 0..50 {
        now += SignedDuration::from_mins(13);
        let plan = plan_at(&wanted, &observed, &memory, now);
        assert_eq!(plan.steps.len(), 1, "{round}:\n{plan}");
        journal::settle(&mut memory, &wanted, &plan, &BTreeSet::new(), now);
        assert!(memory.fights.values().all(|fight| fight.repairs.len() <= plan::fights::REPAIRS));
    }
}
