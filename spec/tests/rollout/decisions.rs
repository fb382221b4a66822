//! Single decisions, with what is said about them.

use std::collections::BTreeMap;
use std::time::Duration;

use expect_test::{Expect, expect};
use jiff::Timestamp;
use spec::digest::Digest;
use spec::id::HostName;
use spec::memory::AppState;
use spec::record::{AppRecord, Record};
use spec::rollout::{self, Change, Gate, Own, Peer, Signs, Stage, Standing, Turn};

use crate::fleet::{self, app, commit, fleet, host};

const WAVES: &str = "waves: [{ where: { ring: canary } }, { share: 50% }, { share: 100% }]";

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// A Monday.
fn noon() -> Timestamp {
    at("2026-11-23T12:00:00Z")
}

/// Writes the turn of every host of a fleet of six, of which the first is the canary, when the stages in the order of their turns
/// are these.
fn turns(rules: &str, stages: &[Stage], expected: Expect) {
    let fleet = fleet(stages.len(), 1, &format!("rollouts: {{ default: {{ {rules} }} }}\n"));
    let policy = rollout::policy(&fleet, &app(), &host(0));
    let order = rollout::order(&fleet, &app(), &policy, fleet.hosts.keys());
    let given: BTreeMap<&HostName, Stage> = order.iter().map(|it| it.1).zip(stages.iter().copied()).collect();
    let standing = Standing::of(&policy, &order, |host| given[host]);
    let mut text = String::new();
    if standing.is_halted() {
        text.push_str(&format!("{}\n", standing.halt()));
    }
    for (host, is_due) in standing.turns() {
        assert_eq!(standing.turn(host, false) == Turn::Go, is_due, "{host}");
    }
    for (host, wave, stage) in standing.members() {
        let turn = match standing.turn(host, false) {
            _ if stage != Waiting => String::new(),
            Turn::Go => "goes".to_owned(),
            Turn::Wait(because) => because,
        };
        text.push_str(format!("{host} {} {stage:?} {turn}", wave + 1).trim_end());
        text.push('\n');
    }
    expected.assert_eq(&text);
}

use Stage::{Baking, Changing, Done, Down, Failed, Held, Silent, Waiting};

#[test]
fn the_canary_goes_first() {
    turns(
        WAVES,
        &[Waiting; 6],
        expect![[r#"
        h0 1 Waiting goes
        h1 2 Waiting wave 1 has to pass first: h0 has to be healthy
        h4 2 Waiting wave 1 has to pass first: h0 has to be healthy
        h2 2 Waiting wave 1 has to pass first: h0 has to be healthy
        h5 3 Waiting wave 1 has to pass first: h0 has to be healthy
        h3 3 Waiting wave 1 has to pass first: h0 has to be healthy
    "#]],
    );
}

#[test]
fn the_next_wave_waits_until_the_canary_has_been_healthy_for_long_enough() {
    turns(
        WAVES,
        &[Baking, Waiting, Waiting, Waiting, Waiting, Waiting],
        expect![[r#"
        h0 1 Baking
        h1 2 Waiting wave 1 has to pass first: h0 has to have been healthy for long enough
        h4 2 Waiting wave 1 has to pass first: h0 has to have been healthy for long enough
        h2 2 Waiting wave 1 has to pass first: h0 has to have been healthy for long enough
        h5 3 Waiting wave 1 has to pass first: h0 has to have been healthy for long enough
        h3 3 Waiting wave 1 has to pass first: h0 has to have been healthy for long enough
    "#]],
    );
}

#[test]
fn within_a_wave_as_many_go_as_may_be_unavailable() {
    let rules = format!("{WAVES}, max-unavailable: 2");
    turns(
        &rules,
        &[Done, Changing, Waiting, Waiting, Waiting, Waiting],
        expect![[r#"
        h0 1 Done
        h1 2 Changing
        h4 2 Waiting goes
        h2 2 Waiting at most 2 hosts may change at a time: h1 and 1 more first
        h5 3 Waiting wave 2 has to pass first: h1 has to be healthy
        h3 3 Waiting wave 2 has to pass first: h1 has to be healthy
    "#]],
    );
    turns(
        &rules,
        &[Done, Baking, Baking, Waiting, Waiting, Waiting],
        expect![[r#"
            h0 1 Done
            h1 2 Baking
            h4 2 Baking
            h2 2 Waiting goes
            h5 3 Waiting wave 2 has to pass first: h1 has to have been healthy for long enough
            h3 3 Waiting wave 2 has to pass first: h1 has to have been healthy for long enough
        "#]],
    );
    // Who stands behind and changes all the same counts too: it was not passed over by everybody.
    turns(
        WAVES,
        &[Done, Waiting, Changing, Waiting, Waiting, Waiting],
        expect![[r#"
        h0 1 Done
        h1 2 Waiting at most one host may change at a time: h4 first
        h4 2 Changing
        h2 2 Waiting at most one host may change at a time: h1 and 1 more first
        h5 3 Waiting wave 2 has to pass first: h1 has to be healthy
        h3 3 Waiting wave 2 has to pass first: h1 has to be healthy
    "#]],
    );
    // Who came back after it was passed over counts too.
    turns(
        &rules,
        &[Changing, Changing, Waiting, Waiting, Waiting, Waiting],
        expect![[r#"
        h0 1 Changing
        h1 2 Changing
        h4 2 Waiting wave 1 has to pass first: h0 has to be healthy
        h2 2 Waiting wave 1 has to pass first: h0 has to be healthy
        h5 3 Waiting wave 1 has to pass first: h0 has to be healthy
        h3 3 Waiting wave 1 has to pass first: h0 has to be healthy
    "#]],
    );
}

#[test]
fn who_is_silent_or_held_is_not_waited_for() {
    turns(
        WAVES,
        &[Done, Silent, Held, Waiting, Waiting, Waiting],
        expect![[r#"
        h0 1 Done
        h1 2 Silent
        h4 2 Held
        h2 2 Waiting goes
        h5 3 Waiting wave 2 has to pass first: h2 has to be healthy
        h3 3 Waiting wave 2 has to pass first: h2 has to be healthy
    "#]],
    );
}

#[test]
fn where_the_canary_is_silent_one_host_tries_it_in_its_place() {
    let rules = format!("{WAVES}, max-unavailable: 100%");
    turns(
        &rules,
        &[Silent, Silent, Waiting, Waiting, Waiting, Waiting],
        expect![[r#"
            h0 1 Silent
            h1 2 Silent
            h4 2 Waiting goes
            h2 2 Waiting the waves before have not proven it: one host of this wave goes first
            h5 3 Waiting wave 2 has to pass first: h4 has to be healthy
            h3 3 Waiting wave 2 has to pass first: h4 has to be healthy
        "#]],
    );
    turns(
        &rules,
        &[Silent, Silent, Baking, Waiting, Waiting, Waiting],
        expect![[r#"
            h0 1 Silent
            h1 2 Silent
            h4 2 Baking
            h2 2 Waiting the waves before have not proven it: one host of this wave goes first
            h5 3 Waiting wave 2 has to pass first: h4 has to have been healthy for long enough
            h3 3 Waiting wave 2 has to pass first: h4 has to have been healthy for long enough
        "#]],
    );
    turns(
        &rules,
        &[Silent, Silent, Done, Waiting, Waiting, Waiting],
        expect![[r#"
        h0 1 Silent
        h1 2 Silent
        h4 2 Done
        h2 2 Waiting goes
        h5 3 Waiting wave 2 has to pass first: h2 has to be healthy
        h3 3 Waiting wave 2 has to pass first: h2 has to be healthy
    "#]],
    );
}

#[test]
fn more_failures_than_may_be_halt_it() {
    turns(
        WAVES,
        &[Failed, Waiting, Waiting, Waiting, Waiting, Waiting],
        expect![[r#"
            halted: the release failed on h0, and none may
            h0 1 Failed
            h1 2 Waiting goes
            h4 2 Waiting the waves before have not proven it: one host of this wave goes first
            h2 2 Waiting the waves before have not proven it: one host of this wave goes first
            h5 3 Waiting wave 2 has to pass first: h1 has to be healthy
            h3 3 Waiting wave 2 has to pass first: h1 has to be healthy
        "#]],
    );
    // One more is allowed, and the first of the next wave tries it.
    turns(
        &format!("{WAVES}, failures: 1"),
        &[Failed, Waiting, Waiting, Waiting, Waiting, Waiting],
        expect![[r#"
            h0 1 Failed
            h1 2 Waiting goes
            h4 2 Waiting the waves before have not proven it: one host of this wave goes first
            h2 2 Waiting the waves before have not proven it: one host of this wave goes first
            h5 3 Waiting wave 2 has to pass first: h1 has to be healthy
            h3 3 Waiting wave 2 has to pass first: h1 has to be healthy
        "#]],
    );
    // Half of the fleet may fail, and none of one canary.
    turns(
        &format!("{WAVES}, failures: 50%"),
        &[Down, Waiting, Waiting, Waiting, Waiting, Waiting],
        expect![[r#"
            halted: the release failed on h0, and none may
            h0 1 Down
            h1 2 Waiting at most one host may change at a time: h0 first
            h4 2 Waiting the waves before have not proven it: one host of this wave goes first
            h2 2 Waiting the waves before have not proven it: one host of this wave goes first
            h5 3 Waiting wave 2 has to pass first: h1 has to be healthy
            h3 3 Waiting wave 2 has to pass first: h1 has to be healthy
        "#]],
    );
}

fn record(state: AppState, digest: &str, change: impl FnOnce(&mut Record, &mut AppRecord)) -> Record {
    let mut own = fleet::said(state, Digest::of(digest.as_bytes()), noon());
    let mut record = fleet::record(host(1), commit(1), own.clone(), noon());
    change(&mut record, &mut own);
    record.apps.insert(app(), own);
    record
}

/// The stage of a host of which the release of commit 2 is `new`, after as many seconds without a sign.
fn stage_of(record: Option<Record>, quiet: i64) -> Stage {
    let (app, commit) = (app(), commit(2));
    let peer = Peer { record, heard: noon() };
    let now = Timestamp::from_second(noon().as_second() + quiet).expect("a time");
    let release = (&app, Some(Digest::of(b"new")), &commit);
    rollout::stage(Some(&peer), release, Duration::from_secs(900), noon(), now)
}

#[test]
fn a_record_says_how_far_its_host_is() {
    let plain = |_: &mut Record, _: &mut AppRecord| {};
    let of_2 = |record: &mut Record, _: &mut AppRecord| record.commit = commit(2);
    for (record, stage) in [
        (None, Waiting),
        (Some(record(AppState::Converged, "old", plain)), Waiting),
        (Some(record(AppState::Applying, "new", plain)), Changing),
        (Some(record(AppState::Unhealthy, "new", plain)), Changing),
        // Not available, whatever it changes to.
        (Some(record(AppState::Applying, "old", plain)), Changing),
        (Some(record(AppState::Baking, "new", plain)), Baking),
        (Some(record(AppState::Converged, "new", plain)), Done),
        (Some(record(AppState::Repaired, "new", plain)), Done),
        (Some(record(AppState::Failed, "new", plain)), Down),
        // An agent of another version counts its digests in another way.
        (Some(record(AppState::Converged, "new, counted in another way", of_2)), Done),
        (
            Some(record(AppState::Waiting, "old", |record, own| {
                record.commit = commit(2);
                own.runs = Some(commit(1));
            })),
            Waiting,
        ),
        (
            Some(record(AppState::RolledBack, "old", |record, own| {
                record.commit = commit(2);
                (own.runs, own.bad) = (Some(commit(1)), Some(Digest::of(b"new")));
            })),
            Failed,
        ),
    ] {
        assert_eq!(stage_of(record.clone(), 0), stage, "{record:?}");
        let later = if matches!(stage, Done | Failed) { stage } else { Silent };
        assert_eq!(stage_of(record.clone(), 901), later, "{record:?}");
    }
}

#[test]
fn who_has_removed_it_is_done() {
    let (app, commit) = (app(), commit(2));
    let said = |record: Record| {
        let peer = Peer { record: Some(record), heard: noon() };
        rollout::stage(Some(&peer), (&app, None, &commit), Duration::from_secs(900), noon(), noon())
    };
    let mut gone = record(AppState::Converged, "old", |_, _| {});
    assert_eq!(said(gone.clone()), Waiting);
    assert_eq!(said(record(AppState::Applying, "old", |_, _| {})), Changing);
    gone.apps.clear();
    assert_eq!(said(gone), Done);
}

/// Writes what is decided for the only host of a fleet at `now`.
fn permitted(rules: &str, now: &str, expected: Expect) {
    let fleet = fleet(2, 1, rules);
    let (app, commit, host) = (app(), commit(2), host(0));
    let change = Change { app: &app, commit: &commit, host: &host };
    expected.assert_eq(&said(&rollout::permitted(&fleet, &change, at(now))));
}

fn said(gate: &Gate) -> String {
    match gate {
        Gate::Go => "goes\n".to_owned(),
        Gate::Wait { until: Some(until), because } => format!("waits until {until}: {because}\n"),
        Gate::Wait { until: None, because } => format!("waits: {because}\n"),
        Gate::Blocked { because } => format!("blocked: {because}\n"),
    }
}

#[test]
fn windows_freezes_and_holds() {
    let windows = "rollouts: { default: { windows: [\"Mon..Thu 09:00-16:00 Europe/Berlin\"] } }\n";
    permitted(
        windows,
        "2026-11-23T12:00:00Z",
        expect![[r#"
        goes
    "#]],
    );
    permitted(
        windows,
        "2026-11-23T18:00:00Z",
        expect![[r#"
        waits until 2026-11-24T08:00:00Z: outside its windows (Mon,Tue,Wed,Thu 09:00-16:00 Europe/Berlin)
    "#]],
    );
    // Out of a freeze into a weekend.
    let both = format!("{windows}freezes: [{{ from: 2026-11-25, to: 2026-11-27, reason: a fair }}]\n");
    permitted(
        &both,
        "2026-11-25T12:00:00Z",
        expect![[r#"
        waits until 2026-11-30T08:00:00Z: frozen: a fair
    "#]],
    );
    let elsewhere = "freezes: [{ from: 2026-11-25, to: 2026-11-27, where: { host: h1 }, reason: a fair }]\n";
    permitted(
        elsewhere,
        "2026-11-25T12:00:00Z",
        expect![[r#"
        goes
    "#]],
    );
    permitted(
        "holds: [{ app: web, reason: incident 42 }]\n",
        "2026-11-25T12:00:00Z",
        expect![[r#"
        blocked: held: incident 42
    "#]],
    );
    let over = "freezes: [{ from: 2026-11-25, to: 2026-11-27, reason: a fair }]\noverrides: [{ commit: 0000000000000000000000000000000000000002, app: web, ignore: [freezes], reason: a hole, until: 2026-11-26 }]\n";
    permitted(
        over,
        "2026-11-25T12:00:00Z",
        expect![[r#"
        goes
    "#]],
    );
    // The override ends with its last day, in the middle of the freeze.
    permitted(
        over,
        "2026-11-27T12:00:00Z",
        expect![[r#"
        waits until 2026-11-28T00:00:00Z: frozen: a fair
    "#]],
    );
}

#[test]
fn nobody_begins_unseen_or_with_an_old_view() {
    let fleet = fleet(2, 2, "rollouts: { default: { silent-after: 16m } }\n");
    let policy = rollout::policy(&fleet, &app(), &host(0));
    let order = rollout::order(&fleet, &app(), &policy, fleet.hosts.keys());
    let standing = Standing::of(&policy, &order, |name| if *name == host(0) { Waiting } else { Done });
    let (app, commit, host) = (app(), commit(2), host(0));
    let change = Change { app: &app, commit: &commit, host: &host };
    let ago = |minutes: i64| Timestamp::from_second(noon().as_second() - 60 * minutes).expect("a time");
    let mut text = String::new();
    for (view, signs) in [
        (0, Signs::Unreported),
        (5, Signs::Unreported),
        (0, Signs::None),
        (0, Signs::Since { first: ago(1), last: ago(1), was_away: false }),
        (0, Signs::Since { first: ago(60), last: ago(9), was_away: false }),
        (0, Signs::Since { first: ago(3), last: ago(1), was_away: true }),
        (2, Signs::Since { first: ago(5), last: ago(1), was_away: true }),
        (1, Signs::Since { first: ago(5), last: ago(1), was_away: true }),
    ] {
        let own = Own { view: ago(view), signs };
        text.push_str(&said(&rollout::decide(&fleet, &change, &standing, &own, noon())));
    }
    expect![[r#"
        goes
        waits: the other hosts' records have to be fetched again first
        waits: this host's own record has to be published first
        goes
        waits: this host's own record has to be published first
        waits until 2026-11-23T12:01:00Z: this host was away: the others have to see first that it is back
        waits: this host was away: the others have to see first that it is back
        goes
    "#]]
    .assert_eq(&text);
}

/// Writes what is decided for who needs an application whose hosts are so far.
fn needed(stages: &[Stage], expected: Expect) {
    let fleet = fleet(stages.len() + 1, 1, "");
    let (app, commit, host) = (app(), commit(2), host(stages.len()));
    let policy = rollout::policy(&fleet, &app, &host);
    let order = rollout::order(&fleet, &app, &policy, fleet.hosts.keys().filter(|it| **it != host));
    let mut stages = stages.iter();
    let standing = Standing::of(&policy, &order, |_| *stages.next().expect("as many as hosts"));
    let change = Change { app: &app, commit: &commit, host: &host };
    let all = BTreeMap::from([(&app, &standing)]);
    expected.assert_eq(&said(&rollout::needs(&fleet, &change, &all, noon())));
}

#[test]
fn what_is_needed_is_healthy_where_it_is_heard_of_and_somewhere() {
    needed(
        &[Done, Waiting, Silent],
        expect![[r#"
        waits: it needs web: it is not healthy at this commit on h2
    "#]],
    );
    needed(
        &[Done, Baking, Silent],
        expect![[r#"
        goes
    "#]],
    );
    needed(
        &[Done, Held],
        expect![[r#"
        waits: it needs web: it is not healthy at this commit on h0
    "#]],
    );
    needed(
        &[Silent; 5],
        expect![[r#"
        waits: it needs web: it is healthy nowhere at this commit; silent: h1, h4, h2 and 2 more
    "#]],
    );
}
