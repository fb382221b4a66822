//! When what a commit changes can begin: repositories in, turns out.

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use jiff::Timestamp;
use spec::digest::Digest;
use spec::forecast::forecast;
use spec::id::{AppName, CommitId, HostName};
use spec::manifest::{self, Fleet};
use spec::resolve;
use spec::schedule::{Moment, schedule};
use spec::tree::Tree;

const HOSTS: &str = "\
fleet: home
hosts:
  attic: { labels: { ring: canary } }
  barn: {}
  cellar: {}
  shed: { labels: { site: farm } }
";
const WAVES: &str = "rollouts:\n  default:\n    waves: [ { where: { ring: canary } }, { share: 50% }, { share: 100% } ]\n    bake: 1h\n";
/// A Monday.
const NOW: &str = "2026-11-23T08:30:00Z";

fn fleet(rules: &str, release: &str, app: &str) -> Fleet {
    let mut tree = Tree::default();
    tree.insert("fleet.yaml", format!("{HOSTS}{rules}").as_bytes());
    tree.insert("apps/web/web.service", format!("[Service]\nExecStart=/usr/bin/web {release}\n").as_bytes());
    tree.insert("apps/web/app.yaml", app.as_bytes());
    let parsed = manifest::parse(&tree, None);
    parsed.fleet.unwrap_or_else(|| panic!("{:#?}", parsed.diagnostics))
}

fn turns(from: &Fleet, to: &Fleet, at_override: Option<&Fleet>) -> String {
    let commit = CommitId::parse(&"f".repeat(40)).expect("a commit");
    let at: Timestamp = NOW.parse().expect("a time");
    let digests = |_: &str, host: &HostName| -> Option<BTreeMap<AppName, Digest>> {
        let desired = resolve::resolve(at_override?, host).ok()?;
        Some(desired.apps.into_iter().map(|(name, app)| (name, app.digest)).collect())
    };
    let schedule = schedule(to, &forecast(from, to), &Moment { commit: &commit, at }, digests);
    let lines = schedule.iter().flat_map(|(app, turns)| {
        turns.iter().map(move |(host, turn)| {
            format!("{app} {host:<6} {}/{} {}: {}\n", turn.wave, turn.waves, turn.who, turn.start)
        })
    });
    lines.collect()
}

#[allow(clippy::needless_pass_by_value, reason = "the macro hands over a value")]
fn check(rules: &str, expected: Expect) {
    expected.assert_eq(&turns(&fleet("", "1", ""), &fleet(rules, "2", ""), None));
}

#[test]
fn a_wave_begins_when_those_before_have_been_healthy_for_long_enough() {
    check(
        WAVES,
        expect![[r#"
        web attic  1/3 { ring: canary }: from 2026-11-23 08:30:00Z
        web barn   2/3 up to 50% of the others: from 2026-11-23 09:30:00Z
        web cellar 3/3 all others: from 2026-11-23 10:30:00Z
        web shed   2/3 up to 50% of the others: from 2026-11-23 09:30:00Z
    "#]],
    );
    check(
        "",
        expect![[r#"
        web attic  1/1 all: from 2026-11-23 08:30:00Z
        web barn   1/1 all: from 2026-11-23 08:30:00Z
        web cellar 1/1 all: from 2026-11-23 08:30:00Z
        web shed   1/1 all: from 2026-11-23 08:30:00Z
    "#]],
    );
}

#[test]
fn windows_and_freezes_move_everything_behind_them() {
    check(
        &format!("{WAVES}    windows: [\"Mon..Thu 09:00-11:00 UTC\"]\n"),
        expect![[r#"
        web attic  1/3 { ring: canary }: from 2026-11-23 09:00:00Z, outside its windows (Mon,Tue,Wed,Thu 09:00-11:00 UTC)
        web barn   2/3 up to 50% of the others: from 2026-11-23 10:00:00Z
        web cellar 3/3 all others: from 2026-11-24 09:00:00Z, outside its windows (Mon,Tue,Wed,Thu 09:00-11:00 UTC)
        web shed   2/3 up to 50% of the others: from 2026-11-23 10:00:00Z
    "#]],
    );
    check(
        &format!(
            "{WAVES}freezes: [ {{ from: 2026-11-20, to: 2026-11-24, where: {{ ring: canary }}, reason: fair }} ]\n"
        ),
        expect![[r#"
            web attic  1/3 { ring: canary }: from 2026-11-25 00:00:00Z, frozen: fair
            web barn   2/3 up to 50% of the others: from 2026-11-25 01:00:00Z
            web cellar 3/3 all others: from 2026-11-25 02:00:00Z
            web shed   2/3 up to 50% of the others: from 2026-11-25 01:00:00Z
        "#]],
    );
}

#[test]
fn nobody_waits_for_who_is_held() {
    check(
        &format!("{WAVES}holds: [ {{ app: web, where: {{ ring: canary }}, reason: incident 42 }} ]\n"),
        expect![[r#"
            web attic  1/3 { ring: canary }: held: incident 42
            web barn   2/3 up to 50% of the others: from 2026-11-23 08:30:00Z
            web cellar 3/3 all others: from 2026-11-23 09:30:00Z
            web shed   2/3 up to 50% of the others: from 2026-11-23 08:30:00Z
        "#]],
    );
}

#[test]
fn only_who_changes_is_waited_for_and_removals_go_in_waves() {
    let from = fleet("", "1", "");
    let to = fleet(WAVES, "1", "place: { not: { ring: canary } }\n");
    expect![[r#"
        web attic  1/3 { ring: canary }: from 2026-11-23 08:30:00Z
    "#]]
    .assert_eq(&turns(&from, &to, None));
    let to = fleet(WAVES, "1", "place: { not: { site: farm } }\n");
    expect![[r#"
        web shed   2/3 up to 50% of the others: from 2026-11-23 08:30:00Z
    "#]]
    .assert_eq(&turns(&from, &to, None));
    let mut from = fleet("", "1", "");
    from.apps.clear();
    expect![[r#"
        web attic  1/3 { ring: canary }: from 2026-11-23 08:30:00Z
        web barn   2/3 up to 50% of the others: from 2026-11-23 09:30:00Z
        web cellar 3/3 all others: from 2026-11-23 10:30:00Z
    "#]]
    .assert_eq(&turns(&from, &to, None));
}

#[test]
fn an_override_is_for_the_hosts_that_get_the_content_of_its_commit() {
    let rules = format!(
        "{WAVES}holds: [ {{ app: web, reason: incident 42 }} ]\n\
         overrides: [ {{ commit: 1f2e3d4, app: web, ignore: [holds, waves], reason: mended, until: 2026-12-01 }} ]\n"
    );
    let (from, to) = (fleet("", "1", ""), fleet(&rules, "2", ""));
    expect![[r#"
        web attic  1/3 { ring: canary }: from 2026-11-23 08:30:00Z
        web barn   2/3 up to 50% of the others: from 2026-11-23 08:30:00Z
        web cellar 3/3 all others: from 2026-11-23 08:30:00Z
        web shed   2/3 up to 50% of the others: from 2026-11-23 08:30:00Z
    "#]]
    .assert_eq(&turns(&from, &to, Some(&fleet("", "2", ""))));
    expect![[r#"
        web attic  1/3 { ring: canary }: held: incident 42
        web barn   2/3 up to 50% of the others: held: incident 42
        web cellar 3/3 all others: held: incident 42
        web shed   2/3 up to 50% of the others: held: incident 42
    "#]]
    .assert_eq(&turns(&from, &to, Some(&fleet("", "3", "place: { site: farm }"))));
}
