//! Rollouts, freezes, holds and overrides.

use expect_test::expect;

use expect_test::Expect;
use spec::diagnostic::{Diagnostic, Location};
use spec::manifest::{self, Fleet};

use crate::support::{UNIT, lines_of, parse, tree};

const HOSTS: &str = "\
fleet: home
hosts:
  attic: { labels: { ring: canary } }
  barn: { labels: { ring: canary, site: farm } }
  cellar: {}
";

/// Reads `rules` behind the hosts; the application of the fleet names rollout `named`.
fn read(rules: &str, named: Option<&str>) -> (Fleet, Vec<Diagnostic>) {
    let text = format!("-- fleet.yaml --\n{HOSTS}-- apps/web/web.service --\n{UNIT}");
    let mut fleet = parse(&tree(&text)).fleet.expect("a fleet");
    let forms = fleet.apps.values_mut().flat_map(|app| &mut app.variants);
    let named = named.map(|name| (name.to_owned(), Location::whole("apps/web/app.yaml")));
    forms.for_each(|form| form.rollout.clone_from(&named));
    let complaints = manifest::rollouts(&format!("{HOSTS}{rules}"), &mut fleet);
    (fleet, complaints)
}

fn check(rules: &str, named: Option<&str>, expected: Expect) {
    expected.assert_eq(&lines_of(&read(rules, named).1));
}

#[test]
fn everything_is_read() {
    let fleet = "\
rollouts:
  default:
    waves: [ { where: { ring: canary } }, { share: 50% }, { share: 100% } ]
    bake: 10m
    max-unavailable: 1
    failures: 10%
    silent-after: 15m
    on-failure: stop
    windows: [\"Mon..Thu 09:00-16:00 Europe/Berlin\"]
  at-once: {}
freezes:
  - { from: 2026-12-20, to: 2027-01-03, zone: Europe/Berlin, where: { ring: canary }, apps: [web], reason: holidays }
  - { from: 2026-12-20T18:00:00Z, to: \"2026-12-21T06:00\", reason: the move }
holds:
  - { app: web, reason: incident 42 }
  - { app: all, where: { host: attic }, reason: it is on fire }
overrides:
  - { commit: 1f2e3d4, app: web, ignore: [windows, freezes], reason: a hole is mended, until: 2026-12-24 }
";
    let (fleet, complaints) = read(fleet, Some("at-once"));
    assert_eq!(complaints, []);
    let (policy, freezes) = (&fleet.rollouts["default"], &fleet.freezes);
    expect![[r#"
        3 waves, bake 600s, at most 1, failures 10%, silent after 900s, Stop, [Mon,Tue,Wed,Thu 09:00-16:00 Europe/Berlin]
    "#]]
    .assert_eq(&format!(
        "{} waves, bake {:?}, at most {}, failures {}, silent after {:?}, {:?}, [{}]\n",
        policy.waves.len(),
        policy.bake,
        policy.max_unavailable,
        policy.failures,
        policy.silent_after,
        policy.on_failure,
        policy.windows[0]
    ));
    let times: Vec<String> = freezes.iter().map(|freeze| format!("{} {}", freeze.from, freeze.to)).collect();
    assert_eq!(
        times,
        ["2026-12-19T23:00:00Z 2027-01-03T23:00:00Z", "2026-12-20T18:00:00Z 2026-12-21T06:00:00Z"],
        "the last day counts"
    );
    assert_eq!(fleet.holds.iter().filter(|held| held.app.is_none()).count(), 1);
    assert_eq!(fleet.overrides[0].until.to_string(), "2026-12-25T00:00:00Z");
}

#[test]
fn who_writes_a_policy_means_that_not_everybody_goes_at_once() {
    let (fleet, _) = read("rollouts: { default: {} }\n", None);
    let policy = &fleet.rollouts["default"];
    assert_eq!((policy.max_unavailable.of(100), policy.failures.of(100)), (25, 0));
}

#[test]
fn waves_that_leave_somebody_out_or_take_somebody_twice() {
    let fleet = "\
rollouts:
  default:
    waves: [ { where: { ring: canary } }, { where: { site: farm } } ]
  short:
    waves: [ { where: { ring: canary } }, { share: 50% } ]
  shrinking:
    waves: [ { share: 50% }, { share: 10% }, { where: all } ]
  odd:
    waves: [ { share: 10 }, { share: 0% }, { where: all, share: 10% }, {}, { wher: all } ]
  none:
    waves: []
";
    check(
        fleet,
        Some("short"),
        expect![[r#"
            error[rollout-two-waves] fleet.yaml:7:3: rollout `default` has more than one wave for `barn`
              = make the selectors exclude each other, for instance with `not:`
            error[rollout-no-wave] fleet.yaml:9:3: rollout `short` has no wave for `cellar`
              = end with { share: 100% }
            warning[rollout-unused] fleet.yaml:11:3: no application names rollout `shrinking`
              = write `rollout: shrinking` in an app.yaml, or remove it
            error[rollout-waves] fleet.yaml:12:39: a share of 10% behind one of 50% adds no host
              = shares grow: each includes the ones before, such as 10%, 50%, 100%
            error[rollout-waves] fleet.yaml:12:55: a selector stands behind a share
              = put the selectors first: shares are of the hosts that match none of them
            warning[rollout-unused] fleet.yaml:13:3: no application names rollout `odd`
              = write `rollout: odd` in an app.yaml, or remove it
            error[rollout-share] fleet.yaml:14:23: `share` is between 1% and 100%, not `10`
              = write the sign: 10%
            error[rollout-share] fleet.yaml:14:38: `share` is between 1% and 100%, not `0%`
              = write whole percent, such as 10%
            error[rollout-waves] fleet.yaml:14:46: a wave is a selector or a share
              = write { where: { ring: canary } } for chosen hosts, or { share: 10% } of the others
            error[rollout-waves] fleet.yaml:14:72: this wave says neither `where` nor `share`
              = write { where: { ring: canary } } for chosen hosts, or { share: 10% } of the others
            error[unknown-key] fleet.yaml:14:78: a wave has no key `wher`
              = did you mean `where`?
            warning[rollout-unused] fleet.yaml:15:3: no application names rollout `none`
              = write `rollout: none` in an app.yaml, or remove it
            error[rollout-waves] fleet.yaml:16:12: a rollout without waves reaches no host
              = remove `waves` when everybody goes at once
        "#]],
    );
    check(
        "rollouts: { default: { waves: [ { where: { ring: canary } } ] } }\n",
        None,
        expect![[r#"
        error[rollout-no-wave] fleet.yaml:6:13: rollout `default` has no wave for `cellar`
          = add { share: 100% } as the last wave: everybody else
    "#]],
    );
}

#[test]
fn values_that_are_off() {
    let fleet = "\
rollouts:
  default:
    bake: 10
    max-unavailable: 0
    failures: -1
    silent-after: 1s
    on-failure: rolback
    windows: [\"Mon 09:00-16:00 Europe/Berln\", \"Mon 09:00-16:00\"]
freezes:
  - { from: tomorrow, to: 2027-01-03, zone: Berlin, reason: holidays }
  - { from: 2026-12-20, to: 2026-12-19, reason: holidays }
  - { from: tomorrow, to: 2027-01-03 }
  - { from: 2026-12-20, reason: \" \" }
holds: [ { app: wbe, reason: x }, { reason: x }, { app: web } ]
overrides:
  - { commit: main, app: web, ignore: [window], reason: x, until: 2026-12-24 }
  - {}
";
    check(
        fleet,
        Some("defualt"),
        expect![[r#"
            error[unknown-rollout] apps/web/app.yaml: there is no rollout `defualt`
              = did you mean `default`?
            error[duration] fleet.yaml:8:11: `bake` is a length of time with its unit, not `10`
              = add the unit: 10s for seconds, 10m for minutes
            error[rollout-count] fleet.yaml:9:22: `max-unavailable` is a number of hosts or percent of them, from 1 on, not `0`
              = write it such as 1 or 10%
            error[rollout-count] fleet.yaml:10:15: `failures` is a number of hosts or percent of them, from 0 on, not `-1`
              = write it such as 1 or 10%
            error[duration] fleet.yaml:11:19: `silent-after` is between 10s and 30d, not `1s`
              = choose a length of time between the two
            error[unknown-value] fleet.yaml:12:17: `on-failure` is `rollback` or `stop`, not `rolback`
              = did you mean `rollback`?
            error[rollout-window] fleet.yaml:13:15: there is no time zone `Europe/Berln`
              = did you mean `Europe/Berlin`?
            error[rollout-window] fleet.yaml:13:47: the window names no time zone
              = add one: UTC, or a name such as Europe/Berlin
            error[rollout-window] fleet.yaml:15:45: there is no time zone `Berlin`
              = use a name of the IANA database, such as Europe/Berlin, or UTC
            error[freeze] fleet.yaml:16:29: this freeze ends before it begins
              = `from` and `to` are both included
            error[freeze] fleet.yaml:17:5: this freeze gives no reason
              = write { from: 2026-12-20, to: 2027-01-03, zone: Europe/Berlin, where: { environment: prod }, reason: "…" }
            error[rollout-time] fleet.yaml:17:13: `from` is a day or a time, not `tomorrow`
              = write it such as 2026-12-20, 2026-12-20T18:00 or 2026-12-20T18:00:00Z
            error[freeze] fleet.yaml:18:5: this freeze does not say `to`
              = write { from: 2026-12-20, to: 2027-01-03, zone: Europe/Berlin, where: { environment: prod }, reason: "…" }
            error[freeze] fleet.yaml:18:33: the reason is empty
              = write { from: 2026-12-20, to: 2027-01-03, zone: Europe/Berlin, where: { environment: prod }, reason: "…" }
            error[unknown-app] fleet.yaml:19:17: there is no application `wbe`
              = did you mean `web`?
            error[hold] fleet.yaml:19:35: this hold names no application
              = write { app: mqtt, reason: "incident 42" }; `app: all` holds every application
            error[hold] fleet.yaml:19:50: this hold gives no reason
              = write { app: mqtt, reason: "incident 42" }; `app: all` holds every application
            error[override] fleet.yaml:21:15: `main` is not a commit
              = write at least 7 of its hex digits, in quotes when they look like a number
            error[unknown-value] fleet.yaml:21:40: an item of `ignore` is `windows`, `freezes`, `holds`, `waves`, `failures` or `needs`, not `window`
              = did you mean `windows`?
            error[override] fleet.yaml:22:5: this override does not say what to ignore
              = write { commit: "1f2e3d4", app: mqtt, ignore: [windows, freezes], reason: "…", until: 2026-12-24T18:00:00Z }
            error[override] fleet.yaml:22:5: this override gives no reason
              = write { commit: "1f2e3d4", app: mqtt, ignore: [windows, freezes], reason: "…", until: 2026-12-24T18:00:00Z }
            error[override] fleet.yaml:22:5: this override has no end
              = write { commit: "1f2e3d4", app: mqtt, ignore: [windows, freezes], reason: "…", until: 2026-12-24T18:00:00Z }
            error[override] fleet.yaml:22:5: this override names no application
              = write { commit: "1f2e3d4", app: mqtt, ignore: [windows, freezes], reason: "…", until: 2026-12-24T18:00:00Z }
            error[override] fleet.yaml:22:5: this override names no commit
              = write { commit: "1f2e3d4", app: mqtt, ignore: [windows, freezes], reason: "…", until: 2026-12-24T18:00:00Z }
        "#]],
    );
}
