//! Hosts that are alive and come to no end: what those who wait for them make of it.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::{Expect, expect};
use jiff::{SignedDuration, Timestamp};
use spec::id::HostName;
use spec::memory::AppState;
use spec::rollout::{Gate, Known, Overdue, Own, Peer, Scheme, Signs, Stage};

use crate::fleet::{self, app, commit, fleet, host, said};

use AppState::{Applying, Baking, Converged, Failed, Waiting};

const CAREFUL: &str = "rollouts: { default: { waves: [{ where: { ring: canary } }, { share: 100% }], bake: 5m, max-unavailable: 2, \
                       silent-after: 15m, progress-deadline: 1h, failures: 1 } }\n";

fn at(minute: i64) -> Timestamp {
    let noon: Timestamp = "2026-11-23T12:00:00Z".parse().expect("a time");
    noon + SignedDuration::from_mins(minute)
}

/// What `asks` is told every five minutes while the others say what `says` makes of the minute, where that changes. A host that says
/// nothing in a minute is not heard then.
fn told(rules: &str, hosts: usize, asks: usize, says: impl Fn(usize, i64) -> Option<AppState>, expected: Expect) {
    let fleet = fleet(hosts, 1, rules);
    let (me, pending) = (host(asks), BTreeSet::from([app()]));
    let scheme = Scheme::of(&fleet, &commit(2), &me, &pending).expect("something decides");
    let (mut peers, mut overdue) = (BTreeMap::new(), BTreeMap::from([(app(), Overdue::default())]));
    let (mut text, mut before) = (String::new(), String::new());
    for minute in (0..=180).step_by(5) {
        for number in (0..hosts).filter(|number| *number != asks) {
            if let Some(state) = says(number, minute) {
                peers.insert(host(number), peer(&scheme, &host(number), state, minute));
            }
        }
        let own = Own { view: at(minute), signs: Signs::Unreported };
        let ask = |overdue: &BTreeMap<_, _>, what: &mut dyn FnMut(&Known<'_>)| {
            what(&Known { peers: &peers, own, stage: &|_| Stage::Waiting, since: &|_| at(0), overdue });
        };
        let mut awaited = Vec::new();
        ask(&overdue, &mut |known| awaited = scheme.awaited(&app(), known, at(minute)));
        overdue.entry(app()).or_default().note(&awaited, |_| true, at(minute));
        // The agent that looks may be another one each time.
        let kept = serde_json::to_string(&overdue).expect("it can be kept");
        overdue = serde_json::from_str(&kept).expect("it can be read");
        let mut line = String::new();
        ask(&overdue, &mut |known| {
            line = match scheme.gate(&app(), known, at(minute)).gate {
                Gate::Go => "it may go".to_owned(),
                Gate::Wait { because, .. } => because,
                Gate::Blocked { because } => because,
            };
        });
        if line != before {
            text.push_str(&format!("{minute}: {line}\n"));
            before = line;
        }
    }
    expected.assert_eq(&text);
}

fn peer(scheme: &Scheme, name: &HostName, state: AppState, minute: i64) -> Peer {
    let target = scheme.targets(&app()).and_then(|targets| targets.get(name)).copied().flatten();
    let said = said(state, target.expect("it is placed there"), at(minute));
    let record = fleet::record(name.clone(), commit(2), said, at(minute));
    Peer { record: Some(record), heard: at(minute) }
}

fn all(state: AppState) -> impl Fn(usize, i64) -> Option<AppState> {
    move |number, _| Some(if number == 0 { state } else { Waiting })
}

#[test]
fn a_canary_that_changes_for_ever_has_failed_after_the_bake_and_the_deadline() {
    told(
        CAREFUL,
        3,
        1,
        all(Applying),
        expect![[r#"
            0: wave 1 has to pass first: h0 has to be healthy
            75: it may go
        "#]],
    );
    // None may.
    let strict = CAREFUL.replace("failures: 1", "failures: 0");
    told(
        &strict,
        3,
        1,
        all(Applying),
        expect![[r#"
            0: wave 1 has to pass first: h0 has to be healthy
            75: halted: the release came to no end in time on h0, and none may
        "#]],
    );
    // A change that takes long is no lie.
    told(
        CAREFUL,
        3,
        1,
        |number, minute| match number {
            0 if minute < 60 => Some(Applying),
            0 => Some(Converged),
            _ => Some(Waiting),
        },
        expect![[r#"
            0: wave 1 has to pass first: h0 has to be healthy
            60: it may go
        "#]],
    );
}

/// What it says may be true, for as long as others have for that; then it is one of those that may fail.
#[test]
fn one_that_changes_or_is_down_for_ever_takes_nobodys_turn() {
    let one = CAREFUL.replace("max-unavailable: 2", "max-unavailable: 1");
    let changes = expect![[r#"
        0: wave 1 has to pass first: h0 has to be healthy
        75: it may go
    "#]];
    told(&one, 3, 1, all(Applying), changes);
    let is_down = expect![[r#"
        0: at most one host may change at a time: h0 first
        75: it may go
    "#]];
    told(&one, 3, 1, all(Failed), is_down);
    // Nothing else bounds how many are down where any number may fail.
    let over = "overrides: [{ commit: 0000000000000000000000000000000000000002, app: web, ignore: [failures], reason: a hole, until: 2026-11-26 }]\n";
    let any = format!("{one}{over}");
    let changes = expect![[r#"
        0: wave 1 has to pass first: h0 has to be healthy
        75: at most one host may change at a time: h0 first
    "#]];
    told(&any, 3, 1, all(Applying), changes);
    let is_down = expect![[r#"
        0: at most one host may change at a time: h0 first
    "#]];
    told(&any, 3, 1, all(Failed), is_down);
}

#[test]
fn a_canary_that_says_for_ever_that_it_waits_or_bakes_is_passed_over() {
    told(
        CAREFUL,
        3,
        1,
        all(Waiting),
        expect![[r#"
            0: wave 1 has to pass first: h0 has to be healthy
            75: it may go
        "#]],
    );
    told(
        CAREFUL,
        3,
        1,
        all(Baking),
        expect![[r#"
            0: wave 1 has to pass first: h0 has to have been healthy for long enough
            75: it may go
        "#]],
    );
}

#[test]
fn nobody_gains_by_changing_its_word() {
    let flips = |number: usize, minute: i64| Some(if number == 0 && minute % 10 == 0 { Applying } else { Waiting });
    told(
        CAREFUL,
        3,
        1,
        flips,
        expect![[r#"
            0: wave 1 has to pass first: h0 has to be healthy
            150: it may go
        "#]],
    );
}

#[test]
fn what_nobody_saw_counts_for_no_longer_than_silent_after() {
    let seldom = |number: usize, minute: i64| match number {
        0 => (minute % 60 == 0).then_some(Applying),
        _ => Some(Waiting),
    };
    told(
        CAREFUL,
        3,
        1,
        seldom,
        expect![[r#"
        0: wave 1 has to pass first: h0 has to be healthy
        20: it may go
        60: wave 1 has to pass first: h0 has to be healthy
        80: it may go
        120: wave 1 has to pass first: h0 has to be healthy
        140: it may go
        180: wave 1 has to pass first: h0 has to be healthy
    "#]],
    );
}

#[test]
fn who_may_not_begin_is_not_late() {
    let freeze = format!("freezes: [{{ from: \"{}\", to: \"{}\", reason: holidays }}]\n", at(-10), at(120));
    told(
        &format!("{CAREFUL}{freeze}"),
        3,
        1,
        all(Waiting),
        expect![[r#"
        0: frozen: holidays
        120: wave 1 has to pass first: h0 has to be healthy
    "#]],
    );
    // Its turn comes only when the canary is there.
    let late = |number: usize, minute: i64| match number {
        0 if minute < 90 => Some(if minute < 60 { Applying } else { Baking }),
        0 => Some(Converged),
        _ => Some(Waiting),
    };
    told(
        &CAREFUL.replace("max-unavailable: 2", "max-unavailable: 1"),
        4,
        2,
        late,
        expect![[r#"
            0: wave 1 has to pass first: h0 has to be healthy
            60: wave 1 has to pass first: h0 has to have been healthy for long enough
            90: at most one host may change at a time: h1 first
            165: it may go
        "#]],
    );
}
