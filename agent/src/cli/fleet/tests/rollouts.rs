//! Why something is not there yet, and whether a commit has arrived, in made-up fleets.

use expect_test::{Expect, expect};
use spec::id::{AppName, HostName};
use spec::manifest::{self, Place};
use spec::memory::AppState::{Applying, Baking, Converged, Failed, RolledBack, Waiting};

use super::super::{explain, serve, wait};
use super::{DAY, HOUR, MINUTE, PAGE};
use crate::fleet::Reading;
use crate::fleet::arrival::{Arrival, Awaited, Verdict};
use crate::fleet::made_up::{MadeUp, Says, main, now, says};
use crate::fleet::spread::Contained;
use crate::fleet::turns::Turns;
use crate::git::Mirror;
use crate::upstream::LIMITS;

const HOSTS: &str = "fleet: home\nhosts:\n  attic: { labels: { ring: canary } }\n  barn: {}\n  cellar: {}\n";
const ROLLOUT: &str = "rollouts:\n  default:\n    waves: [ { where: { ring: canary } }, { share: 100% } ]\n    bake: 10m\n    \
                       max-unavailable: 1\n    failures: 0\n";

/// Three commits, of which the second and the third change the page.
fn made_up(more: &str) -> MadeUp {
    let [red, blue] = ["red", "blue"].map(|colour| format!("{PAGE}Environment=COLOUR={colour}\n"));
    let fleet = format!("{HOSTS}{ROLLOUT}{more}");
    let mut made = MadeUp::new(&[
        (DAY, "first", &[("fleet.yaml", &fleet), ("apps/page/page.service", PAGE)]),
        (HOUR, "second", &[("apps/page/page.service", &red)]),
        (20 * MINUTE, "third", &[("apps/page/page.service", &blue)]),
    ]);
    for host in ["attic", "barn", "cellar"] {
        made.record(host, 0, DAY, &[says("page", Converged, DAY)]);
        made.heartbeat(host, 0, 60);
    }
    made
}

/// The canary bakes, and the others wait for it.
fn baking(more: &str) -> MadeUp {
    let mut made = made_up(more);
    made.record("attic", 2, 4 * MINUTE, &[says("page", Baking, 4 * MINUTE)]);
    made.record("barn", 2, 5 * MINUTE, &[Says { runs: Some(0), ..says("page", Waiting, 5 * MINUTE) }]);
    made
}

/// The canary went back.
fn halted() -> MadeUp {
    let mut made = made_up("");
    let back = Says { runs: Some(0), failure: Some("it did not stay up"), ..says("page", RolledBack, MINUTE) };
    made.record("attic", 2, MINUTE, &[back]);
    made
}

fn explained(reading: &Reading) -> String {
    let app = AppName::parse("page").expect("a name");
    let turns = Turns::of(reading);
    let text = reading.hosts.keys().map(|host| {
        let row = explain::find(reading, host, &app).expect("it is placed there");
        explain::text(&row, &turns.explain(&row), reading.at)
    });
    text.collect()
}

#[test]
fn why_it_is_not_there_yet_is_one_sentence_for_each_host() {
    let check = |mut made: MadeUp, expected: Expect| expected.assert_eq(&explained(&made.read().1));
    check(
        baking(""),
        expect![[r#"
        page on attic: it is at 79680926e0, and has to stay healthy for 10 min since 2026-11-22 04:56:00Z; at the earliest it goes on at 2026-11-22 05:06:00Z (in 6 min)
        page on barn: waits: wave 1 has to pass first: attic has to have been healthy for long enough; at the earliest it goes on at 2026-11-22 05:06:00Z (in 6 min)
        page on cellar: waits: wave 1 has to pass first: attic has to have been healthy for long enough; at the earliest it goes on at 2026-11-22 05:06:00Z (in 6 min)
    "#]],
    );
    check(
        halted(),
        expect![[r#"
        page on attic: 79680926e0 failed there: it did not stay up; 8d749bf61e runs until a commit changes page, or `mainstay retry page` on attic
        page on barn: blocked: halted: the release failed on attic, and none may
        page on cellar: blocked: halted: the release failed on attic, and none may
    "#]],
    );
    check(
        baking("holds: [ { app: page, reason: incident 42 } ]\n"),
        expect![[r#"
        page on attic: it is at d7c158901c, and has to stay healthy for 10 min since 2026-11-22 04:56:00Z; at the earliest it goes on at 2026-11-22 05:06:00Z (in 6 min)
        page on barn: blocked: held: incident 42
        page on cellar: blocked: held: incident 42
    "#]],
    );
    check(
        baking("freezes: [ { from: 2026-11-20, to: 2026-11-24, reason: holidays } ]\n"),
        expect![[r#"
        page on attic: it is at 2a45801af6, and has to stay healthy for 10 min since 2026-11-22 04:56:00Z; at the earliest it goes on at 2026-11-22 05:06:00Z (in 6 min)
        page on barn: waits: frozen: holidays; at the earliest it goes on at 2026-11-25 00:00:00Z (in 2 d)
        page on cellar: waits: frozen: holidays; at the earliest it goes on at 2026-11-25 00:00:00Z (in 2 d)
    "#]],
    );
    let mut away = made_up("");
    away.record("attic", 2, 18 * MINUTE, &[says("page", Converged, 18 * MINUTE)]);
    away.heartbeat("barn", 0, 20 * MINUTE);
    away.record("cellar", 2, 30, &[says("page", Applying, 30)]);
    check(
        away,
        expect![[r#"
        page on attic: it is as 79680926e0 wants it, since 2026-11-22 04:42:00Z
        page on barn: barn has been silent for 20 min: the others do not wait for it, and it goes on when it is back
        page on cellar: it is being changed since 2026-11-22 04:59:30Z
    "#]],
    );
    let mut made = made_up("");
    let (_, reading) = made.read();
    let [attic, page] = ["attic", "pag"];
    let (attic, page) = (HostName::parse(attic).expect("a name"), AppName::parse(page).expect("a name"));
    let wrong = explain::find(&reading, &attic, &page).expect_err("no application").to_string();
    assert_eq!(wrong, "there is no application `pag` in fleet `home`: did you mean `page`?");
}

/// Looks whether a commit has arrived, which somebody waits for since some seconds.
fn arrival(made: &mut MadeUp, commit: usize, place: &Place, since: i64) -> (Verdict, String) {
    let (mirror, reading) = made.read();
    let id = made.commits[commit].clone();
    let awaited = awaited(&mirror, made, commit, place, since);
    let arrival: Arrival = awaited.look(&reading, &mut Contained::new(&mirror, &id));
    let text = wait::text(&id, &arrival, "").replace(id.short(), "it");
    let text =
        made.commits.iter().enumerate().fold(text, |text, (number, it)| text.replace(it.short(), &number.to_string()));
    (arrival.verdict(), text)
}

fn awaited(mirror: &Mirror, made: &MadeUp, commit: usize, place: &Place, since: i64) -> Awaited {
    let id = &made.commits[commit];
    let fleet = manifest::parse(&mirror.tree(id, &LIMITS).expect("a tree"), Some(id)).fleet.expect("a fleet");
    let begun = jiff::Timestamp::from_second(now().as_second() - since).expect("a time");
    Awaited::new(&fleet, id, place, None, begun)
}

#[test]
fn a_commit_arrives_or_does_not_and_each_end_is_told_apart() {
    let at = |ago: i64| says("page", Converged, ago);
    let all = Place::All;
    let check =
        |(verdict, text): (Verdict, String), expected: Expect| expected.assert_eq(&format!("{verdict:?} {text}"));
    check(
        arrival(&mut baking(""), 2, &all, 60),
        expect![
            "Open : it on 0 of 3; open: page on attic (baking), page on barn (waiting), page on cellar (not begun)"
        ],
    );
    check(
        arrival(&mut halted(), 2, &all, 60),
        expect![
            "Halted : it on 0 of 3; page: halted: the release failed on attic, and none may; failed: page on attic (rolled-back); open: page on barn (not begun), page on cellar (not begun)"
        ],
    );
    // Who waits for the first commit does not wait for what comes after it.
    check(arrival(&mut baking(""), 0, &all, 60), expect!["Open : it on 2 of 3; open: page on attic (baking)"]);
    let canary = wait::selector("ring=canary").expect("a selector");
    check(arrival(&mut baking(""), 1, &canary, 60), expect!["Open : it on 0 of 1; open: page on attic (baking)"]);
    let mut made = made_up("");
    ["attic", "barn", "cellar"].iter().for_each(|host| made.record(host, 2, 60, &[at(60)]));
    check(arrival(&mut made, 2, &all, 60), expect!["Converged : it on 3 of 3"]);
    check(arrival(&mut made, 1, &all, 60), expect!["Superseded : it on 3 of 3; superseded by 2"]);
    let mut made = made_up("");
    made.record("attic", 1, 60, &[at(60)]);
    made.record("barn", 2, 60, &[at(60)]);
    check(
        arrival(&mut made, 1, &wait::selector("host!=cellar").expect("a selector"), 60),
        expect!["Superseded : it on 2 of 2; superseded by 2"],
    );
    // It failed where there is nothing to go back to, and nobody else has to do with it.
    let mut made = made_up("");
    made.record("attic", 2, 60, &[Says { failure: Some("no"), ..says("page", Failed, 60) }]);
    check(arrival(&mut made, 2, &canary, 60), expect!["Failed : it on 0 of 1; failed: page on attic (failed)"]);
}

#[test]
fn a_fix_that_was_pushed_is_waited_for_before_the_hosts_that_failed_have_seen_it() {
    let check =
        |(verdict, text): (Verdict, String), expected: Expect| expected.assert_eq(&format!("{verdict:?} {text}"));
    let canary = wait::selector("ring=canary").expect("a selector");
    // It went back from the second commit; the third is there, and nobody has seen it yet.
    let mut made = made_up("");
    let back = || Says { runs: Some(0), failure: Some("no"), ..says("page", RolledBack, 10 * MINUTE) };
    made.record("attic", 1, 10 * MINUTE, &[back()]);
    check(
        arrival(&mut made, 1, &canary, 60),
        expect!["Open : it on 0 of 1; open: page on attic (failed, and a later commit is to come)"],
    );
    // For the others that is no halt: what failed is not what they are to get.
    check(
        arrival(&mut made, 1, &Place::All, 60),
        expect![
            "Open : it on 0 of 3; open: page on attic (failed, and a later commit is to come), page on barn (not begun), page on cellar (not begun)"
        ],
    );
    // The fix arrives, and takes the place of what failed.
    made.record("attic", 2, 60, &[says("page", Converged, 60)]);
    check(arrival(&mut made, 1, &canary, 60), expect!["Superseded : it on 1 of 1; superseded by 2"]);
    // Or it fails as well: now nothing is to come.
    let mut made = made_up("");
    made.record("attic", 1, 10 * MINUTE, &[back()]);
    made.record("attic", 2, 60, &[Says { runs: Some(0), failure: Some("no"), ..says("page", RolledBack, 60) }]);
    check(arrival(&mut made, 1, &canary, 60), expect!["Failed : it on 0 of 1; failed: page on attic (rolled-back)"]);
    // A release that failed where nothing was before is mended by a later one too.
    let mut made = made_up("");
    made.record("attic", 1, 10 * MINUTE, &[Says { failure: Some("no"), ..says("page", Failed, 10 * MINUTE) }]);
    check(
        arrival(&mut made, 1, &canary, 60),
        expect!["Open : it on 0 of 1; open: page on attic (failed, and a later commit is to come)"],
    );
}

#[test]
fn each_end_has_an_exit_code_of_its_own() {
    let told = |verdict: Verdict| {
        let (word, ended) = wait::outcome(&verdict);
        format!("{word} {}", ended.code())
    };
    let all =
        [Verdict::Converged, Verdict::Failed, Verdict::Halted, Verdict::Superseded, Verdict::Open, Verdict::Unheard];
    assert_eq!(all.map(told), ["converged 0", "failed 4", "halted 5", "superseded 6", "timeout 7", "unheard 1"]);
}

/// What `fleet explain` says is what the host itself decides, with overrides of earlier commits as well.
#[test]
fn an_override_of_an_earlier_commit_counts_as_it_does_on_the_host() {
    let [red, blue] = ["red", "blue"].map(|colour| format!("{PAGE}Environment=COLOUR={colour}\n"));
    let frozen = format!("{HOSTS}{ROLLOUT}freezes: [ {{ from: 2026-11-20, to: 2026-11-24, reason: holidays }} ]\n");
    let (first, second, third) = (
        [("fleet.yaml", frozen.as_str()), ("apps/page/page.service", PAGE)],
        [("apps/page/page.service", red.as_str())],
        [("apps/page/page.service", blue.as_str())],
    );
    let three = [(DAY, "first", &first[..]), (HOUR, "second", &second[..]), (20 * MINUTE, "third", &third[..])];
    let meant = MadeUp::new(&three).commits[2].as_str()[..10].to_owned();
    let broken = format!(
        "{frozen}overrides: [ {{ commit: \"{meant}\", app: page, ignore: [freezes], reason: urgent, until: 2026-11-23 }} ]\n"
    );
    let fourth = [("fleet.yaml", broken.as_str())];
    let mut made = MadeUp::new(&[three[0], three[1], three[2], (MINUTE, "break the glass", &fourth[..])]);
    assert_eq!(made.commits[2].as_str()[..10], meant, "the same commit");
    for host in ["attic", "barn", "cellar"] {
        made.record(host, 0, DAY, &[says("page", Converged, DAY)]);
        made.heartbeat(host, 0, 60);
    }
    expect![[r#"
        page on attic: nothing keeps it back: attic, last heard of 1 min ago, has not said that it saw 64553b890b
        page on barn: waits: wave 1 has to pass first: attic has to be healthy
        page on cellar: waits: wave 1 has to pass first: attic has to be healthy
    "#]]
    .assert_eq(&explained(&made.read().1));
}

#[test]
fn who_says_nothing_is_waited_for_as_long_as_its_rollout_does() {
    let mut made = made_up("");
    made.record("attic", 2, 20 * MINUTE, &[says("page", Converged, 20 * MINUTE)]);
    made.record("barn", 2, 60, &[says("page", Converged, 60)]);
    made.heartbeat("cellar", 0, DAY);
    let check =
        |(verdict, text): (Verdict, String), expected: Expect| expected.assert_eq(&format!("{verdict:?} {text}"));
    check(arrival(&mut made, 2, &Place::All, 60), expect!["Open : it on 2 of 3; open: page on cellar (not begun)"]);
    check(
        arrival(&mut made, 2, &Place::All, 16 * MINUTE),
        expect!["Converged : it on 2 of 3; passed over: page on cellar (silent)"],
    );
    check(
        arrival(&mut made, 2, &wait::selector("host=cellar").expect("a selector"), HOUR),
        expect!["Unheard : it on 0 of 1; passed over: page on cellar (silent)"],
    );
    let (mirror, reading) = made.read();
    let strict = awaited(&mirror, &made, 2, &Place::All, HOUR).strictly();
    let arrival = strict.look(&reading, &mut Contained::new(&mirror, &made.commits[2]));
    assert_eq!(arrival.verdict(), Verdict::Open);
}

#[test]
fn selectors_are_read() {
    let read = |text: &str| wait::selector(text).map(|place| format!("{place:?}"));
    assert_eq!(
        read("ring=canary|early, site!=farm"),
        Ok("Each([Label { name: \"ring\", values: {\"canary\", \"early\"} }, Not(Label { name: \"site\", values: {\"farm\"} })])"
            .to_owned())
    );
    for wrong in ["", "ring", "=canary", "ring=", "ring=a|", "ring=a,,site=b"] {
        read(wrong).expect_err(wrong);
    }
}

#[test]
fn a_fleet_can_be_counted() {
    let mut made = baking("");
    let (_, reading) = made.read();
    let text = serve::metrics(&reading, true);
    let counted: String = text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    expect![[r#"
        mainstay_fleet_hosts{state="newest"} 2
        mainstay_fleet_hosts{state="behind"} 1
        mainstay_fleet_hosts{state="elsewhere"} 0
        mainstay_fleet_hosts{state="silent"} 0
        mainstay_fleet_hosts{state="unreported"} 0
        mainstay_fleet_applications{app="page",condition="well"} 1
        mainstay_fleet_applications{app="page",condition="moving"} 2
        mainstay_fleet_applications{app="page",condition="trouble"} 0
        mainstay_fleet_applications{app="page",condition="unheard"} 0
        mainstay_fleet_read_timestamp_seconds 1795323600
        mainstay_fleet_fetched 1
    "#]]
    .assert_eq(&counted);
    assert_eq!(main().to_string(), reading.branch);
}
