//! What is printed of a made-up fleet, at the widths that terminals have.

mod rollouts;

use expect_test::{Expect, expect};
use serde_json::Value;
use spec::id::{AppName, HostName};
use spec::memory::AppState::{Applying, Converged, RolledBack};

use super::super::Ended;
use super::{Place, Repo, diff, history, locate, status};
use crate::fleet::made_up::{MadeUp, Says, main, now, says};
use crate::fleet::{Reading, contrast, past};
use crate::git::Mirror;
use crate::history::annotations::annotations;
use crate::snapshot::Release;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const FLEET: &str = "fleet: home\nhosts:\n  attic: { labels: { role: broker } }\n  barn: { labels: { role: broker } }\n  \
                     cellar: { labels: { role: web } }\n  shed: { labels: { role: web } }\n  store: { labels: { role: none } }\n";
const BROKER: &str = "[Service]\nExecStart=/usr/bin/broker --config /etc/broker.conf\n";
const PAGE: &str = "[Service]\nExecStart=/usr/bin/page\n";

/// Five hosts: one went back, one is silent, one never said anything.
fn made_up() -> MadeUp {
    let other = format!("{PAGE}Environment=COLOUR=red\n");
    let mut made = MadeUp::new(&[
        (
            4 * DAY,
            "two brokers and a page",
            &[
                ("fleet.yaml", FLEET),
                ("apps/mqtt/app.yaml", "place: { role: broker }\n"),
                ("apps/mqtt/broker.service", BROKER),
                ("apps/mqtt/files/etc/broker.conf", "keep 1\n"),
                ("apps/mqtt/@barn/files/etc/extra.conf", "x\n"),
                ("apps/page/app.yaml", "place: { role: web }\n"),
                ("apps/page/page.service", PAGE),
            ],
        ),
        (HOUR, "page: another colour\n\nTicket: 4711\n", &[("apps/page/page.service", &other)]),
        (10 * MINUTE, "mqtt: keep more", &[("apps/mqtt/files/etc/broker.conf", "keep 2\n")]),
    ]);
    for (host, app) in [("attic", "mqtt"), ("barn", "mqtt"), ("cellar", "page"), ("shed", "page")] {
        made.record(host, 0, 4 * DAY - 5, &[says(app, Applying, 4 * DAY - 5)]);
        made.record(host, 0, 4 * DAY - 9, &[says(app, Converged, 4 * DAY - 9)]);
        made.heartbeat(host, 0, 3 * DAY);
    }
    made.record("cellar", 1, 59 * MINUTE, &[says("page", Applying, 59 * MINUTE)]);
    made.record("cellar", 1, 58 * MINUTE, &[says("page", Converged, 58 * MINUTE)]);
    made.record("cellar", 2, 9 * MINUTE, &[says("page", Converged, 58 * MINUTE)]);
    made.record("attic", 2, 9 * MINUTE, &[says("mqtt", Applying, 9 * MINUTE)]);
    made.record("attic", 2, 9 * MINUTE - 12, &[says("mqtt", Converged, 9 * MINUTE - 12)]);
    made.record("barn", 2, 8 * MINUTE, &[says("mqtt", Applying, 8 * MINUTE)]);
    let why = "failed to start unit `broker.service`: see https://user:hunter2@logs.example/x";
    let back = || Says { runs: Some(0), failure: Some(why), ..says("mqtt", RolledBack, 7 * MINUTE) };
    made.record("barn", 2, 7 * MINUTE, &[back()]);
    made
}

fn repo(mirror: Mirror) -> Repo {
    Repo { mirror, followed: main(), records: None, is_fetched: false, unreachable: None }
}

/// Commits have other numbers in every repository, but these do not: all of them are made of the same bytes.
fn status(reading: &Reading, mirror: &Mirror, most: usize, width: Option<usize>) -> String {
    status::text(reading, &Release::read(mirror, &reading.commit), most, false, width)
}

#[test]
fn the_status_fits_the_terminal() {
    let mut made = made_up();
    let (mirror, reading) = made.read();
    let check = |width: usize, expected: Expect| expected.assert_eq(&status(&reading, &mirror, 60, Some(width)));
    check(
        60,
        expect![[r#"
        home at 2902a4d5ec mqtt: keep more (main, 10 min ago)
        5 hosts: 3 at 2902a4d5ec, 1 silent, 1 unreported; 1
            application is not well

        HOST    APPLICATION  STATE        SINCE       RELEASE
        attic   mqtt         converged    8 min ago   2902a4d5ec
        barn    mqtt         rolled-back  7 min ago   98c98fb3fc
            not 2902a4d5ec
            failed to start unit `broker.service`: see
                https://***@logs.example/x
        cellar  page         converged    58 min ago  2902a4d5ec
        shed    page         converged    3 d ago     98c98fb3fc
            silent for 3 d

        Nothing is placed on store (unreported)
    "#]],
    );
    check(
        80,
        expect![[r#"
        home at 2902a4d5ec mqtt: keep more (main, 10 min ago)
        5 hosts: 3 at 2902a4d5ec, 1 silent, 1 unreported; 1 application is not well

        HOST    APPLICATION  STATE        SINCE       RELEASE
        attic   mqtt         converged    8 min ago   2902a4d5ec
        barn    mqtt         rolled-back  7 min ago   98c98fb3fc  not 2902a4d5ec
            failed to start unit `broker.service`: see https://***@logs.example/x
        cellar  page         converged    58 min ago  2902a4d5ec
        shed    page         converged    3 d ago     98c98fb3fc  silent for 3 d

        Nothing is placed on store (unreported)
    "#]],
    );
    check(
        120,
        expect![[r#"
        home at 2902a4d5ec mqtt: keep more (main, 10 min ago)
        5 hosts: 3 at 2902a4d5ec, 1 silent, 1 unreported; 1 application is not well

        HOST    APPLICATION  STATE        SINCE                              RELEASE
        attic   mqtt         converged    2026-11-22 04:51:12Z (8 min ago)   2902a4d5ec
        barn    mqtt         rolled-back  2026-11-22 04:53:00Z (7 min ago)   98c98fb3fc  not 2902a4d5ec
            failed to start unit `broker.service`: see https://***@logs.example/x
        cellar  page         converged    2026-11-22 04:02:00Z (58 min ago)  2902a4d5ec
        shed    page         converged    2026-11-18 05:00:09Z (3 d ago)     98c98fb3fc  silent for 3 d

        Nothing is placed on store (unreported)
    "#]],
    );
    expect!["5 hosts: 3 at 2902a4d5ec, 1 silent, 1 unreported; 1 application is not well; barn mqtt rolled-back, shed page silent"].assert_eq(&status::lines(&reading));
}

#[test]
fn a_large_fleet_is_summed_up() {
    let hosts: String = (0..70).map(|number| format!("  h{number:02}: {{}}\n")).collect();
    let fleet = format!("fleet: home\nhosts:\n{hosts}");
    let mut made = MadeUp::new(&[
        (
            DAY,
            "first",
            &[("fleet.yaml", &fleet), ("apps/page/page.service", PAGE), ("apps/mqtt/broker.service", BROKER)],
        ),
        (HOUR, "second", &[("apps/page/page.service", "[Service]\nExecStart=/usr/bin/page --new\n")]),
    ]);
    for number in 0..69 {
        let (host, commit) = (format!("h{number:02}"), usize::from(number > 2));
        let page = match number {
            10 => Says { runs: Some(0), failure: Some("it did not stay up"), ..says("page", RolledBack, 1000) },
            11..14 => says("page", Applying, 30),
            _ => says("page", Converged, 1000),
        };
        made.record(&host, commit, 1000, &[says("mqtt", Converged, 4000), page]);
    }
    let (mirror, reading) = made.read();
    expect![[r#"
        home at 03b44cf8e5 second (main, 1 h ago)
        70 hosts: 66 at 03b44cf8e5, 3 silent, 1 unreported; 1 application is not well

        APPLICATION     WELL   MOVING   NOT OK  UNHEARD  RELEASES
        mqtt              66        0        0        4  03b44cf8e5 on 66, 919bc3b76b on 3
        page              62        3        1        4  03b44cf8e5 on 65, 919bc3b76b on 4

        Not well, or not there yet:
        HOST  APPLICATION  STATE        SINCE                              RELEASE
        h10   page         rolled-back  2026-11-22 04:43:20Z (16 min ago)  919bc3b76b  not 03b44cf8e5
            it did not stay up
        h00   mqtt         converged    2026-11-22 03:53:20Z (1 h ago)     919bc3b76b  silent for 16 min
        h00   page         converged    2026-11-22 04:43:20Z (16 min ago)  919bc3b76b  silent for 16 min
        h01   mqtt         converged    2026-11-22 03:53:20Z (1 h ago)     919bc3b76b  silent for 16 min
        h01   page         converged    2026-11-22 04:43:20Z (16 min ago)  919bc3b76b  silent for 16 min
        h02   mqtt         converged    2026-11-22 03:53:20Z (1 h ago)     919bc3b76b  silent for 16 min
        h02   page         converged    2026-11-22 04:43:20Z (16 min ago)  919bc3b76b  silent for 16 min
        h69   mqtt         unreported
        h69   page         unreported
        h11   page         applying     2026-11-22 04:59:30Z (30 s ago)    03b44cf8e5
        h12   page         applying     2026-11-22 04:59:30Z (30 s ago)    03b44cf8e5
        h13   page         applying     2026-11-22 04:59:30Z (30 s ago)    03b44cf8e5

        Everything: mainstay fleet status --all
    "#]]
    .assert_eq(&status(&reading, &mirror, 60, Some(100)));
    assert_eq!(status(&reading, &mirror, usize::MAX, None).lines().count(), 2 + 1 + 1 + 140 + 1);
}

#[test]
fn the_history_of_all_hosts_is_one() {
    let mut made = made_up();
    let (mirror, reading) = made.read();
    let read = |name: Option<&str>, limit: usize| {
        let of = name.map(|name| history::meant(&reading, name).expect("a name")).unwrap_or_default();
        past::read(&mirror, &reading, of.host.as_ref(), of.app.as_ref(), limit).expect("a history").0
    };
    let check = |name, limit, width, expected: Expect| {
        expected.assert_eq(&history::text(&read(name, limit), now(), Some(width)));
    };
    check(
        None,
        50,
        80,
        expect![[r#"
        WHEN        HOST    APPLICATION  STATE        COMMIT
        7 min ago   barn    mqtt         rolled-back  2902a4d5ec mqtt: keep more (took
                                                      60 s)
            failed to start unit `broker.service`: see https://***@logs.example/x
        8 min ago   attic   mqtt         converged    2902a4d5ec mqtt: keep more (took
                                                      12 s)
        58 min ago  cellar  page         converged    c8c68f5dfb page: another colour
                                                      (took 60 s)
        3 d ago     shed    page         converged    98c98fb3fc two brokers and a page
                                                      (took 4 s)
        3 d ago     cellar  page         converged    98c98fb3fc two brokers and a page
                                                      (took 4 s)
        3 d ago     attic   mqtt         converged    98c98fb3fc two brokers and a page
                                                      (took 4 s)
        3 d ago     barn    mqtt         converged    98c98fb3fc two brokers and a page
                                                      (took 4 s)
    "#]],
    );
    check(
        Some("page"),
        2,
        120,
        expect![[r#"
        WHEN                               HOST    APPLICATION  STATE      COMMIT
        2026-11-22 04:02:00Z (58 min ago)  cellar  page         converged  c8c68f5dfb page: another colour (took 60 s)
        2026-11-18 05:00:09Z (3 d ago)     shed    page         converged  98c98fb3fc two brokers and a page (took 4 s)
    "#]],
    );
    check(
        Some("barn"),
        50,
        60,
        expect![[r#"
        WHEN        HOST  APPLICATION  STATE        COMMIT
        7 min ago   barn  mqtt         rolled-back  2902a4d5ec mqtt:
            keep more (took 60 s)
            failed to start unit `broker.service`: see
                https://***@logs.example/x
        3 d ago     barn  mqtt         converged    98c98fb3fc two
            brokers and a page (took 4 s)
    "#]],
    );
    let of = |name: &str| history::meant(&reading, name).map_err(|error| error.to_string());
    assert_eq!(of("app:gone").map(|of| of.app), Ok(AppName::parse("gone").ok()));
    assert_eq!(of("host:shed").map(|of| of.host), Ok(HostName::parse("shed").ok()));
    expect!["fleet `home` has neither a host nor an application `shef`: did you mean `shed`?; app:NAME is for one that is gone"].assert_eq(&of("shef").expect_err("no name"));
    let all = annotations(&read(None, 50));
    let lines: Vec<String> = all.iter().map(|it| serde_json::to_string(it).expect("JSON")).collect();
    expect![[r#"
        {"time":1795323120000,"timeEnd":1795323180000,"tags":["mainstay","rolled-back","mqtt","barn"],"text":"mqtt rolled-back on barn: 2902a4d5ec mqtt: keep more\nfailed to start unit `broker.service`: see https://***@logs.example/x"}
        {"time":1795323060000,"timeEnd":1795323072000,"tags":["mainstay","converged","mqtt","attic"],"text":"mqtt converged on attic: 2902a4d5ec mqtt: keep more"}
        {"time":1795320060000,"timeEnd":1795320120000,"tags":["mainstay","converged","page","cellar"],"text":"page converged on cellar: c8c68f5dfb page: another colour"}
        {"time":1794978005000,"timeEnd":1794978009000,"tags":["mainstay","converged","mqtt","attic","barn"],"text":"mqtt converged on attic, barn: 98c98fb3fc two brokers and a page"}
        {"time":1794978005000,"timeEnd":1794978009000,"tags":["mainstay","converged","page","cellar","shed"],"text":"page converged on cellar, shed: 98c98fb3fc two brokers and a page"}
    "#]].assert_eq(&(lines.join("\n") + "\n"));
}

#[test]
fn a_commit_is_where_a_release_runs_that_contains_it() {
    let mut made = made_up();
    let (mirror, reading) = made.read();
    let repo = repo(mirror);
    let check = |what: &str, all: bool, expected: Expect| {
        let found = locate::commits(&repo, &reading.commit, what).expect("a commit");
        let texts = found.iter().map(|commit| locate::locate(&repo, &reading, commit, all).expect("a commit"));
        let texts: Vec<String> = texts.map(|it| locate::text(&it, &reading)).collect();
        expected.assert_eq(&texts.join("\n"));
    };
    check(
        "main",
        false,
        expect![[r#"
        2902a4d5ec mqtt: keep more (Ada, 10 min ago)
          mqtt  runs on 1 of 2 hosts: attic
                failed on barn
    "#]],
    );
    check(
        "ticket: 4711",
        false,
        expect![[r#"
        c8c68f5dfb page: another colour (Ada, 1 h ago)
          page  runs on 1 of 2 hosts: cellar
                nothing is heard of shed
    "#]],
    );
    check(
        "main~1",
        true,
        expect![[r#"
        c8c68f5dfb page: another colour (Ada, 1 h ago)
          mqtt  runs on 1 of 2 hosts: attic
                failed on barn
          page  runs on 1 of 2 hosts: cellar
                nothing is heard of shed
    "#]],
    );
    check(
        "PAGE",
        false,
        expect![[r#"
        c8c68f5dfb page: another colour (Ada, 1 h ago)
          page  runs on 1 of 2 hosts: cellar
                nothing is heard of shed

        98c98fb3fc two brokers and a page (Ada, 4 d ago)
          mqtt  runs on 2 of 2 hosts: attic, barn
          page  runs on 2 of 2 hosts: cellar, shed
    "#]],
    );
    let nothing = locate::commits(&repo, &reading.commit, "no such words").expect_err("nothing");
    assert_eq!(nothing.to_string(), "no commit is called `no such words`, and no message on main says `no such words`");
}

#[test]
fn two_hosts_differ_in_what_they_run_and_in_what_is_wanted_of_them() {
    let mut made = made_up();
    let (mirror, reading) = made.read();
    let check = |left: &str, right: &str, expected: Expect| {
        let [left, right] = [left, right].map(|name| HostName::parse(name).expect("a name"));
        let hosts = [&left, &right];
        expected.assert_eq(&diff::text(hosts, &contrast::contrast(&mirror, &reading, hosts)));
    };
    check(
        "attic",
        "barn",
        expect![[r#"
        mqtt: converged at 2902a4d5ec on attic, rolled-back at 98c98fb3fc on barn
          not the same  file /etc/broker.conf
          only on barn  file /etc/extra.conf
    "#]],
    );
    check(
        "attic",
        "cellar",
        expect![[r#"
        mqtt: only on attic, converged at 2902a4d5ec

        page: only on cellar, converged at 2902a4d5ec
    "#]],
    );
    check(
        "cellar",
        "shed",
        expect![[r#"
        page: converged at 2902a4d5ec on cellar, converged at 98c98fb3fc on shed
          not the same  file /etc/systemd/system/page.service
    "#]],
    );
    check(
        "attic",
        "attic",
        expect![[r#"
        attic and attic are alike, as far as their records and releases say
    "#]],
    );
}

#[test]
fn a_clone_is_brought_up_to_date_and_says_when_it_cannot_be() {
    let mut origin = made_up();
    origin.write();
    let scratch = tempfile::tempdir().expect("a folder");
    let dir = scratch.path().join("clone");
    origin.git(&["clone", "--quiet", ".", &dir.to_string_lossy()], None);
    let place = |no_fetch| Place { dir: Some(dir.clone()), remote: None, branch: None, records: None, no_fetch };
    let read = |place: &Place| {
        let clone = place.open().expect("a clone");
        let reading = clone.read().expect("a fleet");
        let reported = reading.hosts.values().filter(|known| known.is_reported()).count();
        (reported, clone.ended(Ended::Well), clone.remarks(&reading))
    };
    assert_eq!(read(&place(true)), (0, Ended::Well, Vec::new()), "nothing was fetched");
    assert_eq!(read(&place(false)), (4, Ended::Well, Vec::new()));
    let mirror = Mirror::of_clone(&dir).expect("a clone");
    let followed = mirror.followed(None, None).expect("a branch");
    assert_eq!(followed.to_string(), "origin/main");
    let wrong = mirror.followed(Some("upstram"), None).expect_err("no remote");
    assert!(crate::chain(&wrong).ends_with("it has no remote `upstram`; it has origin"), "{}", crate::chain(&wrong));
    // What is heard of while somebody looks on.
    origin.record("shed", 2, 5, &[says("page", Converged, 5)]);
    origin.write();
    assert_eq!(read(&place(true)).0, 4);
    let json: Value = {
        let clone = place(false).open().expect("a clone");
        Value::Object(clone.as_json(&clone.read().expect("a fleet")))
    };
    assert_eq!(
        (&json["fleet"], &json["branch"], &json["unreachable"]),
        (&"home".into(), &"origin/main".into(), &Value::Null)
    );
    std::fs::rename(origin.path(), scratch.path().join("elsewhere")).expect("renamed");
    let (reported, ended, remarks) = read(&place(false));
    assert_eq!((reported, ended), (4, Ended::Impossible), "what is there is told all the same");
    assert!(remarks.len() == 1 && remarks[0].contains("origin/main cannot be fetched: `git` failed"), "{remarks:?}");
    std::fs::rename(scratch.path().join("elsewhere"), origin.path()).expect("renamed back");
}
