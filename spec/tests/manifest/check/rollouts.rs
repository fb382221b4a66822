//! Rollouts, freezes, holds and overrides.

use expect_test::expect;

use expect_test::Expect;
use spec::id::{AppName, HostName};
use spec::manifest::{App, Parsed};

use crate::support::{UNIT, lines, parse, tree};

const HOSTS: &str = "\
fleet: home
hosts:
  attic: { labels: { ring: canary } }
  barn: { labels: { ring: canary, site: farm } }
  cellar: {}
";

/// Reads `rules` behind the hosts; the application of the fleet is called web, and its app.yaml is `app`.
fn read(rules: &str, app: &str) -> Parsed {
    let app = format!("-- apps/web/app.yaml --\n{app}-- apps/web/web.service --\n{UNIT}");
    parse(&tree(&format!("-- fleet.yaml --\n{HOSTS}{rules}{app}")))
}

fn check(rules: &str, app: &str, expected: Expect) {
    expected.assert_eq(&lines(&read(rules, app)));
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
    progress-deadline: 2h
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
    let parsed = read(fleet, "rollout: at-once\n");
    assert_eq!(parsed.diagnostics, []);
    let fleet = parsed.fleet.expect("a fleet");
    let (web, attic) = (AppName::parse("web").expect("a name"), HostName::parse("attic").expect("a name"));
    assert_eq!(fleet.apps[&web].on(&attic).map(App::rollout), Some("at-once"));
    let (policy, freezes) = (&fleet.rollouts["default"], &fleet.freezes);
    expect![[r#"
        3 waves, bake 600s, at most 1, failures 10%, silent after 900s, late after 7200s, Stop, [Mon,Tue,Wed,Thu 09:00-16:00 Europe/Berlin]
    "#]]
    .assert_eq(&format!(
        "{} waves, bake {:?}, at most {}, failures {}, silent after {:?}, late after {:?}, {:?}, [{}]\n",
        policy.waves.len(),
        policy.bake,
        policy.max_unavailable,
        policy.failures,
        policy.silent_after,
        policy.progress_deadline,
        policy.on_failure,
        policy.windows[0]
    ));
    // Four times `silent-after`.
    assert_eq!(fleet.rollouts["at-once"].progress_deadline.as_secs(), 3600);
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
    let fleet = read("rollouts: { default: {} }\n", "").fleet.expect("a fleet");
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
        "rollout: short\n",
        expect![[r#"
            error[rollout-two-waves] fleet.yaml:7:3: rollout `default` has more than one wave for `barn`
              = make the selectors exclude each other, for instance with `not:`
            error[rollout-no-wave] fleet.yaml:9:3: rollout `short` has no wave for `cellar`
              = end with { share: 100% }
            warning[rollout-unused] fleet.yaml:11:3: no application names rollout `shrinking`
              = write `rollout: shrinking` in an app.yaml, or remove it
            error[rollout-waves] fleet.yaml:12:30: a share of 10% behind one of 50% adds no host
              = shares grow: each includes the ones before, such as 10%, 50%, 100%
            error[rollout-waves] fleet.yaml:12:46: a selector stands behind a share
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
        "",
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
        "rollout: defualt\n",
        expect![[r#"
            error[unknown-rollout] apps/web/app.yaml:1:10: there is no rollout `defualt`
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
            error[rollout-time] fleet.yaml:15:13: `from` is a day or a time, not `tomorrow`
              = write it such as 2026-12-20, 2026-12-20T18:00 or 2026-12-20T18:00:00Z
            error[rollout-window] fleet.yaml:15:45: there is no time zone `Berlin`
              = did you mean `Europe/Berlin`?
            error[freeze] fleet.yaml:16:29: this freeze ends before it begins
              = days count as a whole: a freeze of one day has it as `from` and as `to`
            error[freeze] fleet.yaml:17:5: this freeze gives no reason
              = write { from: 2026-12-20, to: 2027-01-03, zone: Europe/Berlin, where: { environment: prod }, reason: "…" }
            error[rollout-time] fleet.yaml:17:13: `from` is a day or a time, not `tomorrow`
              = write it such as 2026-12-20, 2026-12-20T18:00 or 2026-12-20T18:00:00Z
            error[freeze] fleet.yaml:18:5: this freeze has no `to`: it would never end
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
              = write at least 7 of its hex digits, as `git log --oneline` shows them
            error[unknown-value] fleet.yaml:21:40: an item of `ignore` is `windows`, `freezes`, `holds`, `waves`, `failures` or `needs`, not `window`
              = did you mean `windows`?
            error[override] fleet.yaml:22:5: this override gives no reason
              = write { commit: "1f2e3d4", app: mqtt, ignore: [windows, freezes], reason: "…", until: 2026-12-24T18:00:00Z }
            error[override] fleet.yaml:22:5: this override has no `ignore`: it would change nothing
              = write { commit: "1f2e3d4", app: mqtt, ignore: [windows, freezes], reason: "…", until: 2026-12-24T18:00:00Z }
            error[override] fleet.yaml:22:5: this override has no `until`: it would hold for good
              = write { commit: "1f2e3d4", app: mqtt, ignore: [windows, freezes], reason: "…", until: 2026-12-24T18:00:00Z }
            error[override] fleet.yaml:22:5: this override names no application
              = write { commit: "1f2e3d4", app: mqtt, ignore: [windows, freezes], reason: "…", until: 2026-12-24T18:00:00Z }
            error[override] fleet.yaml:22:5: this override names no commit
              = write { commit: "1f2e3d4", app: mqtt, ignore: [windows, freezes], reason: "…", until: 2026-12-24T18:00:00Z }
        "#]],
    );
}

#[test]
fn the_example_of_the_format_is_right() {
    let fleet = r#"-- fleet.yaml --
fleet: home
defaults: { environment: prod, drift: repair }       # drift: repair | report
hosts:
  attic: { labels: { site: home, role: broker }, address: 192.0.2.10 }
  barn:  { labels: { site: farm, role: broker, ring: canary }, address: 192.0.2.20 }
environments:
  prod:
    vars: { retention: 14d }
    endpoints: { billing: "https://billing.example" }   # a service outside the fleet, another one per environment
rollouts:
  default:
    waves:
      - { where: { ring: canary } }                     # who goes first; then shares of the rest
      - { share: 10% }
      - { share: 100% }
    bake: 10m                  # healthy this long before the next wave
    max-unavailable: 1         # hosts (or %) changing at the same time within a wave
    failures: 0                # hosts (or %) that may fail before the rollout halts for everybody
    silent-after: 15m          # an offline host is no longer waited for
    on-failure: rollback       # rollback | stop
    windows: ["Mon..Thu 09:00-16:00 Europe/Berlin"]
freezes:
  - { from: 2026-12-20, to: 2027-01-03, where: { environment: prod }, reason: "holidays" }
holds: []                      # - { app: mqtt, reason: "incident 42" }: deploy nothing new until removed
overrides: []                  # - { commit: 1f2e3d4, app: mqtt, ignore: [windows, freezes], reason: "…", until: … }
-- apps/mqtt/app.yaml --
place: { role: broker }
rollout: default
-- apps/mqtt/mqtt.service --
[Service]
ExecStart=/usr/bin/true
"#;
    assert_eq!(parse(&tree(fleet)).diagnostics, []);
}

#[test]
fn each_overlay_may_name_another_policy_and_a_template_as_well() {
    let rules = "rollouts: { careful: { bake: 1h }, \"2nd\": {} }\n";
    let text = format!(
        "-- fleet.yaml --\n{HOSTS}{rules}-- apps/web/web.service --\n{UNIT}-- apps/web/app.yaml --\nrollout: careful\n\
         -- apps/web/@barn/app.yaml --\nrollout: \"{{{{ vars.ring }}}}\"\nvars: {{ ring: 2nd }}\n\
         -- apps/web/@cellar/app.yaml --\nvars: {{}}\n"
    );
    let parsed = parse(&tree(&text));
    assert_eq!(parsed.diagnostics, []);
    let fleet = parsed.fleet.expect("a fleet");
    let web = AppName::parse("web").expect("a name");
    let named: Vec<_> = fleet.hosts.keys().filter_map(|host| fleet.apps[&web].on(host)).map(App::rollout).collect();
    assert_eq!(named, ["careful", "2nd", "default"]);
}

#[test]
fn a_rule_that_is_for_nobody_is_an_error() {
    let rules = "\
rollouts: { default: { waves: [ { where: { rnig: canary } }, { where: { host: barm } }, { share: 100% } ] } }
freezes:
  - { from: 2026-12-20, to: 2026-12-20, where: { site: farm, host: attic }, reason: x }
  - { from: 2026-12-20, to: 2026-12-20, where: , apps: [], reason: x }
holds: [ { app: web, where: { environment: prod }, reason: x } ]
";
    check(
        rules,
        "",
        expect![[r#"
        error[place-unknown-label] fleet.yaml:6:44: no host has a label `rnig`
          = did you mean `ring`?
        error[place-unknown-value] fleet.yaml:6:79: no host is called `barm`
          = did you mean `barn`?
        error[place-nobody] fleet.yaml:8:48: this selector matches no host
          = each label may fit some host, but no host has all of them; compare with the labels in fleet.yaml
        error[place-selector] fleet.yaml:9:41: `where` has no value
          = write `all`, labels such as { role: broker }, a list of selectors, or { not: { … } }
        error[freeze] fleet.yaml:9:56: this freeze is for no application
          = name some, or remove `apps` when it is for all of them
        error[place-unknown-label] fleet.yaml:10:31: no host is in an environment
          = set `environment:` for hosts in fleet.yaml, or correct the selector
    "#]],
    );
}

#[test]
fn what_is_misspelt_is_not_called_missing() {
    let rules = "\
rollouts: { defualt: { bkae: 10m, waves: [ { shared: 10% } ] } }
freezes: [ { form: 2026-12-20, too: 2026-12-21, reson: x } ]
holds: [ { apps: web, raison: x } ]
overrides: [ { comit: 1f2e3d4, app: web, ignor: [waves], untill: 2026-12-24, reason: x } ]
";
    check(
        rules,
        "",
        expect![[r#"
            error[rollout-unused] fleet.yaml:6:13: no application names rollout `defualt`
              = did you mean `default`?
            error[unknown-key] fleet.yaml:6:24: a rollout has no key `bkae`
              = did you mean `bake`?
            error[unknown-key] fleet.yaml:6:46: a wave has no key `shared`
              = did you mean `share`?
            error[unknown-key] fleet.yaml:7:14: a freeze has no key `form`
              = did you mean `from`?
            error[unknown-key] fleet.yaml:7:32: a freeze has no key `too`
              = did you mean `to`?
            error[unknown-key] fleet.yaml:7:49: a freeze has no key `reson`
              = did you mean `reason`?
            error[unknown-key] fleet.yaml:8:12: a hold has no key `apps`
              = did you mean `app`?
            error[unknown-key] fleet.yaml:8:23: a hold has no key `raison`
              = did you mean `reason`?
            error[unknown-key] fleet.yaml:9:16: an override has no key `comit`
              = did you mean `commit`?
            error[unknown-key] fleet.yaml:9:42: an override has no key `ignor`
              = did you mean `ignore`?
            error[unknown-key] fleet.yaml:9:58: an override has no key `untill`
              = did you mean `until`?
        "#]],
    );
    check(
        "rolouts: { careful: {} }\n",
        "rollout: careful\n",
        expect![[r#"
        error[unknown-key] fleet.yaml:6:1: fleet.yaml has no key `rolouts`
          = did you mean `rollouts`?
    "#]],
    );
    check(
        "rollouts: [ careful ]\n",
        "rollout: careful\n",
        expect![[r#"
        error[wrong-type] fleet.yaml:6:11: `rollouts` must be a map, but a list stands here
          = write a map such as { name: … }
    "#]],
    );
    check(
        "rollouts: { Careful: {}, careful: 5 }\n",
        "rollout: careful\n",
        expect![[r#"
            error[rollout-name] fleet.yaml:6:13: this is not a policy's name: `Careful` may hold only lower-case letters, digits and `-`
              = rename it, for instance to `careful`
            error[wrong-type] fleet.yaml:6:35: rollout `careful` must be a map, but a number stands here
              = write a map such as { key: value }
        "#]],
    );
}

#[test]
fn mistakes_elsewhere_make_no_rule_look_wrong() {
    // Neither which hosts there are is known, nor which applications, nor what one of them names.
    let rules = "rollouts: { careful: { waves: [ { where: { ring: blue } } ] }, other: {} }\n\
                 holds: [ { app: Web2, reason: x }, { app: web2, where: { host: shed }, reason: x } ]\n";
    let text = format!(
        "-- fleet.yaml --\nfleet: home\nhosts: {{ attic: {{ labels: [] }} }}\n{rules}-- apps/web/web.service --\n{UNIT}\
         -- apps/web/app.yaml --\nrollout: [careful]\n-- apps/Web2/web.service --\n{UNIT}"
    );
    crate::support::check(
        &text,
        expect![[r#"
        error[app-name] apps/Web2: this is not an application's name: `Web2` may hold only lower-case letters, digits and `-`
          = rename the folder
        error[wrong-type] apps/web/app.yaml:1:10: `rollout` must be a text, but a list stands here
          = write a text
        error[wrong-type] fleet.yaml:2:27: `labels` must be a map, but a list stands here
          = write a map such as { name: … }
        error[app-name] fleet.yaml:4:17: this is not an application's name: `Web2` may hold only lower-case letters, digits and `-`
          = rename it, for instance to `web2`
    "#]],
    );
    // An application that has no form for some host says so, and its policy is no matter.
    let rules = "rollouts: { default: { waves: [ { where: { ring: canary } } ] } }\n";
    check(
        rules,
        "rollout: \"{{ vars.ring }}\"\n",
        expect![[r#"
        error[template-undefined] apps/web/app.yaml:1:10: `vars` has no `ring`
          = give it a value in `vars:` of app.yaml, of an environment or of the host
          ~ for host `attic` and 2 more
    "#]],
    );
}

#[test]
fn a_long_list_is_cut_and_a_crowd_is_counted() {
    let hosts: String = (0..40).map(|number| format!("  h{number}: {{}}\n")).collect();
    let rules = "rollouts: { default: { waves: [ { share: 50% } ] } }\n";
    let holds = "  - { app: all, reason: x }\n".repeat(102);
    let text = format!(
        "-- fleet.yaml --\nfleet: home\nhosts:\n{hosts}{rules}holds:\n{holds}-- apps/web/web.service --\n{UNIT}"
    );
    crate::support::check(
        &text,
        expect![[r#"
        error[rollout-no-wave] fleet.yaml:43:13: rollout `default` has no wave for `h0`, `h1`, `h10`, `h11`, `h12` and 35 more
          = end with { share: 100% }
        error[rollout-list] fleet.yaml:145:5: `holds` has at most 100 items
          = remove those that no longer matter; git keeps them
    "#]],
    );
}

#[test]
fn what_is_said_of_moments_and_reasons() {
    let rules = "\
freezes:
  - { from: 2026-12-20, to: 2026-12-20T00:00:00Z, reason: x }
  - { from: 2026-02-30, to: 2026-12-20 18:00, reason: [x] }
  - { from: 2026-12-20, to: 2026-12-20, zone: Berlin, reason: \"two\\nlines\" }
  - { from: 2026-12-20, to: 2026-12-20, zone: CET, reason: 42 }
overrides:
  - { commit: 1f2e, app: web, ignore: [], reason: x, until: 2026-12-24T18:00:00Z }
  - { commit: 1F2E3D4, app: web, ignore: windows, reason: x, until: 24h }
";
    check(
        rules,
        "",
        expect![[r#"
        error[freeze] fleet.yaml:7:29: this freeze ends before it begins
          = days count as a whole: a freeze of one day has it as `from` and as `to`
        error[rollout-time] fleet.yaml:8:13: `from` is a day or a time, not `2026-02-30`
          = write it such as 2026-12-20, 2026-12-20T18:00 or 2026-12-20T18:00:00Z
        error[wrong-type] fleet.yaml:8:55: `reason` must be a text, but a list stands here
          = write a text
        error[rollout-window] fleet.yaml:9:47: there is no time zone `Berlin`
          = did you mean `Europe/Berlin`?
        error[freeze] fleet.yaml:9:63: a reason is one line of at most 200 characters
          = say it in short: it is shown wherever something waits; the commit's message has room for more
        error[wrong-type] fleet.yaml:10:60: `reason` is a text, but `42` is a number in YAML
          = put quotes around it: "42"
        error[override] fleet.yaml:12:15: `1f2e` is too short to mean one commit alone
          = write at least 7 of its hex digits, as `git log --oneline` shows them
        error[override] fleet.yaml:12:39: this override ignores nothing
          = write { commit: "1f2e3d4", app: mqtt, ignore: [windows, freezes], reason: "…", until: 2026-12-24T18:00:00Z }
        error[wrong-type] fleet.yaml:13:42: `ignore` must be a list, but a text stands here
          = write a list such as [one, two]
        error[rollout-time] fleet.yaml:13:69: `until` is a day or a time, not `24h`
          = write it such as 2026-12-20, 2026-12-20T18:00 or 2026-12-20T18:00:00Z
    "#]],
    );
    let rules = "overrides: [ { commit: 1F2E3D4, app: all, ignore: [waves], reason: x, until: 2026-12-24T18:00 } ]\n";
    let fleet = read(rules, "").fleet.expect("a fleet");
    assert_eq!((fleet.overrides[0].commit.as_str(), fleet.overrides[0].app.as_ref()), ("1f2e3d4", None));
}
