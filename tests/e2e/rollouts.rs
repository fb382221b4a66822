//! Hosts that never talk to each other roll a change out, canaries first, and stop at the first sign of trouble; nothing is
//! between them but the git server.

use crate::dice::Dice;
use crate::fleet_story::Fleet;
use crate::{agent, start};

const SERVICE: &str = "[Service]\nExecStart=/bin/sh -c 'grep -q good /etc/web.conf || exit 3; exec sleep infinity'\n[Install]\nWantedBy=multi-user.target\n";
const OTHER: &str = "[Service]\nExecStart=/bin/sh -c 'test -s /etc/other.conf; exec sleep infinity'\n[Install]\nWantedBy=multi-user.target\n";

fn fleet_file(names: &[&str], more: &str) -> String {
    let hosts: String = names
        .iter()
        .enumerate()
        .map(|(number, name)| {
            let labels = if number == 0 { "{ labels: { ring: canary } }" } else { "{}" };
            format!("  {name}: {labels}\n")
        })
        .collect();
    format!("fleet: home\nhosts:\n{hosts}{more}")
}

const CAREFUL: &str = "rollouts:\n  default:\n    waves: [ { where: { ring: canary } }, { share: 25% }, { share: 100% } ]\n    bake: 3s\n    max-unavailable: 4\n    failures: 0\n    silent-after: 40s\n";

/// Twelve hosts: a good commit by canary, a quarter and the rest; a bad one that stops at the canary while another application goes
/// on; the next good one, with one host that is off all the time and comes back.
#[test]
fn twelve_hosts_roll_out_wave_by_wave_and_stop_at_a_bad_commit() {
    let Some(lab) = start() else { return };
    let names: Vec<String> = (0..12).map(|number| format!("h{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    // Everybody at once at first, which takes less time.
    let files = [
        ("fleet.yaml", fleet_file(&names, "")),
        ("apps/web/web.service", SERVICE.to_owned()),
        ("apps/web/files/etc/web.conf", "good 1\n".to_owned()),
        ("apps/other/other.service", OTHER.to_owned()),
        ("apps/other/files/etc/other.conf", "1\n".to_owned()),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let (fleet, first) = Fleet::start(&lab, &names, &files);
    let rest = &names[1..];
    fleet.await_state(&names, "web", &first, "converged");

    let careful = fleet_file(&names, CAREFUL);
    let edits = [("fleet.yaml", careful.as_str()), ("apps/web/files/etc/web.conf", "good 2\n")];
    let good = fleet.repo.commit(&edits, "good").unwrap();
    fleet.await_state(&names, "web", &good, "converged");
    let when =
        |host, state| fleet.when("web", &good, host, state).unwrap_or_else(|| panic!("{host} was never {state}"));
    let mut began: Vec<jiff::Timestamp> = rest.iter().map(|host| when(host, "applying")).collect();
    let canary = when(names[0], "converged");
    assert!(
        began.iter().all(|at| *at >= canary),
        "nobody begins before the canary has baked: {:#?}",
        fleet.story("web")
    );
    assert!(canary.duration_since(when(names[0], "baking")).as_secs() >= 2, "it baked");
    // A quarter of the eleven others is three: the fourth begins when they have baked.
    began.sort();
    let mut baked: Vec<jiff::Timestamp> = rest.iter().map(|host| when(host, "converged")).collect();
    baked.sort();
    assert!(began[3] >= baked[2], "the last wave waits for the one before: {:#?}", fleet.story("web"));
    let since = fleet.when("web", &good, names[0], "applying").unwrap();
    assert!(fleet.most_changing("web", since) <= 4, "{:#?}", fleet.story("web"));
    for host in &fleet.hosts {
        host.sh("grep -q 'good 2' /etc/web.conf; systemctl is-active web other").unwrap();
    }

    // A commit that breaks one application everywhere and changes another one. One host is off.
    fleet.hosts[11].kill().unwrap();
    let bad = fleet
        .repo
        .commit(&[("apps/web/files/etc/web.conf", "broken\n"), ("apps/other/files/etc/other.conf", "2\n")], "bad")
        .unwrap();
    fleet.await_state(&names[..1], "web", &bad, "rolled-back");
    fleet.await_state(&names[..11], "other", &bad, "converged");
    fleet.await_state(&names[1..11], "web", &bad, "waiting");
    for host in &fleet.hosts[1..11] {
        host.sh("grep -q 'good 2' /etc/web.conf; grep -q 2 /etc/other.conf; systemctl is-active web other").unwrap();
    }
    assert!(rest.iter().all(|host| fleet.when("web", &bad, host, "applying").is_none()), "{:#?}", fleet.story("web"));
    let told = fleet.host("h05").sh("mainstay plan || true").unwrap();
    assert!(told.contains("halted: the release failed on h00"), "{told}");
    let canary = fleet.says("h00", "web");
    assert!(canary["failure"].as_str().unwrap().contains("web.service"), "{canary}");

    // The next one mends it. Who was off all the time gets it when it is back, and nobody waits for it until then.
    let mended = fleet.repo.commit(&[("apps/web/files/etc/web.conf", "good 3\n")], "mended").unwrap();
    fleet.await_state(&names[..11], "web", &mended, "converged");
    fleet.hosts[11].start().unwrap();
    fleet.await_state(&names[11..], "web", &mended, "converged");
    fleet.hosts[11].sh("grep -q 'good 3' /etc/web.conf; grep -q 2 /etc/other.conf").unwrap();
    assert!(fleet.when("web", &bad, "h11", "applying").is_none());
    assert!(fleet.most_changing("web", since) <= 4, "{:#?}", fleet.story("web"));
}

/// The first full minute that leaves time to be told before it.
fn next_minute(now: jiff::Timestamp) -> jiff::Timestamp {
    let soon = now.as_second() + 20;
    jiff::Timestamp::from_second(soon - soon.rem_euclid(60) + 60).unwrap()
}

/// What holds a change back, each for itself: a hold, a freeze, a window, what is needed elsewhere; an override breaks through.
#[test]
fn holds_freezes_windows_and_needs_are_waited_for() {
    let Some(lab) = start() else { return };
    let names = ["attic", "barn"];
    let base = fleet_file(&names, "");
    let web = "place: { host: attic }\n";
    let files = [
        ("fleet.yaml", base.as_str()),
        ("apps/web/app.yaml", web),
        ("apps/web/files/etc/web", "1\n"),
        ("apps/store/app.yaml", "place: { host: barn }\n"),
        ("apps/store/files/etc/store", "1\n"),
    ];
    let (fleet, first) = Fleet::start(&lab, &names, &files);
    fleet.await_state(&["attic"], "web", &first, "converged");
    let attic = fleet.host("attic");
    let is_held = |words: &str| {
        attic.wait_for(agent::SOON, &format!("mainstay plan | grep -F '{words}'")).unwrap_or_else(|error| {
            panic!("{error:#}\n{}\n{}", attic.sh("mainstay plan || true").unwrap(), agent::log(attic))
        });
    };

    // A hold works at once, also for the commit that brings it, and for as long as it stands.
    let held = format!("{base}holds: [ {{ app: web, reason: \"incident 42\" }} ]\n");
    let commit = fleet.repo.commit(&[("fleet.yaml", &held), ("apps/web/files/etc/web", "2\n")], "held").unwrap();
    fleet.await_state(&["attic"], "web", &commit, "waiting");
    is_held("held: incident 42");
    assert_eq!(attic.read("/etc/web").unwrap(), "1\n");
    // It keeps what it has: drift is repaired, at the release before.
    attic.sh("echo drift >/etc/web").unwrap();
    attic.wait_for(agent::SOON, "grep -x 1 /etc/web").unwrap();

    // A freeze and a window, each until its end; the freeze is over when the hold goes.
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let day = |days: i64| now.date().saturating_add(jiff::Span::new().days(days));
    let frozen = format!("{base}freezes: [ {{ from: {}, to: {}, reason: holidays }} ]\n", day(-1), day(2));
    let commit = fleet.repo.commit(&[("fleet.yaml", &frozen)], "frozen").unwrap();
    fleet.await_state(&["attic"], "web", &commit, "waiting");
    is_held("frozen: holidays, until ");
    let weekday = |days: i64| day(days).strftime("%a").to_string();
    let window =
        format!("{base}rollouts: {{ default: {{ windows: [\"{} 09:00-16:00 Europe/Berlin\"] }} }}\n", weekday(3));
    let commit = fleet.repo.commit(&[("fleet.yaml", &window)], "another window").unwrap();
    fleet.await_state(&["attic"], "web", &commit, "waiting");
    is_held("outside its windows");
    assert_eq!(attic.read("/etc/web").unwrap(), "1\n");

    // Somebody breaks the glass, in the open: for that commit, with a reason and an end.
    let content = fleet.repo.commit(&[("apps/web/files/etc/web", "3\n")], "urgent").unwrap();
    fleet.await_state(&["attic"], "web", &content, "waiting");
    let broken = format!(
        "{window}overrides: [ {{ commit: {}, app: web, ignore: [windows], reason: \"incident 43\", until: {}T00:00:00Z }} ]\n",
        &content[..10],
        day(2)
    );
    let commit = fleet.repo.commit(&[("fleet.yaml", &broken)], "break the glass").unwrap();
    fleet.await_state(&["attic"], "web", &commit, "converged");
    assert_eq!(attic.read("/etc/web").unwrap(), "3\n");

    // A window that opens: what waits begins by itself, not before, and nobody has to do anything.
    let opens = next_minute(jiff::Timestamp::now());
    let hours = |from: jiff::Timestamp| {
        let (from, to) = (from.to_zoned(jiff::tz::TimeZone::UTC), from + jiff::SignedDuration::from_hours(1));
        format!("{}-{} UTC", from.strftime("%H:%M"), to.to_zoned(jiff::tz::TimeZone::UTC).strftime("%H:%M"))
    };
    let opening = format!("{base}rollouts: {{ default: {{ windows: [\"{}\"] }} }}\n", hours(opens));
    let edits = [("fleet.yaml", opening.as_str()), ("apps/web/files/etc/web", "3b\n")];
    let commit = fleet.repo.commit(&edits, "when it opens").unwrap();
    fleet.await_state(&["attic"], "web", &commit, "waiting");
    is_held(&format!("outside its windows ({}), until {}", hours(opens), opens.strftime("%Y-%m-%d %H:%M:%SZ")));
    fleet.await_state(&["attic"], "web", &commit, "converged");
    // By the file, not by a record: nobody else is concerned, so nothing has to be announced before it begins.
    let written = || agent::written(attic, "/etc/web");
    assert!(written() >= opens, "{} {:#?}", written(), fleet.story("web"));
    assert_eq!(attic.read("/etc/web").unwrap(), "3b\n");

    // What is needed on another host comes first: here it cannot, and then it can.
    let needs = "place: { host: attic }\nneeds: [store]\n";
    let slow = "place: { host: barn }\nchecks: [ { exec: [\"/usr/bin/test\", \"-e\", \"/run/go\"], within: 20s } ]\n";
    let edits = [
        ("fleet.yaml", base.as_str()),
        ("apps/web/app.yaml", needs),
        ("apps/web/files/etc/web", "4\n"),
        ("apps/store/app.yaml", slow),
        ("apps/store/files/etc/store", "2\n"),
    ];
    let commit = fleet.repo.commit(&edits, "needs").unwrap();
    is_held("it needs store: it is not healthy at this commit on barn");
    assert_eq!(attic.read("/etc/web").unwrap(), "3b\n");
    fleet.host("barn").sh("touch /run/go").unwrap();
    fleet.await_state(&["attic"], "web", &commit, "converged");
    assert_eq!(attic.read("/etc/web").unwrap(), "4\n");
    let store = fleet.when("store", &commit, "barn", "converged").unwrap();
    assert!(written() >= store, "{} {:#?}", written(), fleet.story("web"));
}

/// A release that works at first and not for long enough is taken back; a removal, and what moves between applications, takes its
/// turn like any other change and is never lost in between.
#[test]
fn what_fails_while_it_bakes_goes_back_and_removals_take_their_turn() {
    let Some(lab) = start() else { return };
    let names = ["attic", "barn"];
    let text = fleet_file(
        &names,
        "rollouts:\n  default:\n    waves: [ { where: { ring: canary } }, { share: 100% } ]\n    bake: 8s\n    max-unavailable: 1\n    failures: 0\n    silent-after: 40s\n",
    );
    let checks =
        "checks: [ { exec: [\"/usr/bin/grep\", \"-q\", \"good\", \"/etc/web.conf\"], within: 5s, interval: 1s } ]\n";
    let files = [
        ("fleet.yaml", text.as_str()),
        ("apps/web/app.yaml", checks),
        (
            "apps/web/web.service",
            "[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n",
        ),
        ("apps/web/files/etc/web.conf", "good 1\n"),
        ("apps/old/files/etc/shared", "mine\n"),
        ("apps/old/files/etc/old", "old\n"),
    ];
    let (fleet, first) = Fleet::start(&lab, &names, &files);
    fleet.await_state(&names, "web", &first, "converged");
    fleet.await_state(&names, "old", &first, "converged");

    // Its check passes until somebody spoils what it looks at, in the time of baking.
    let late = "checks: [ { exec: [\"/usr/bin/test\", \"!\", \"-e\", \"/run/broken\"], within: 5s, interval: 1s } ]\n";
    let commit = fleet
        .repo
        .commit(&[("apps/web/app.yaml", late), ("apps/web/files/etc/web.conf", "good 2\n")], "works at first")
        .unwrap();
    fleet.await_state(&names[..1], "web", &commit, "baking");
    fleet.host("attic").sh("touch /run/broken").unwrap();
    fleet.await_state(&names[..1], "web", &commit, "rolled-back");
    let attic = fleet.host("attic");
    assert_eq!(attic.read("/etc/web.conf").unwrap(), "good 1\n");
    let failure = fleet.says("attic", "web");
    assert!(failure["failure"].as_str().unwrap().contains("did not stay healthy while it baked"), "{failure}");
    assert_eq!(fleet.host("barn").read("/etc/web.conf").unwrap(), "good 1\n");
    assert!(fleet.when("web", &commit, "barn", "applying").is_none());

    // An application goes, and another one takes over what it had: the canary first, and the file is there all the time.
    let watch = "while sleep 0.02; do test -e /etc/shared || echo gone >>/run/gone; done";
    for host in &fleet.hosts {
        host.sh(&format!("systemd-run --quiet --unit watch-shared sh -c '{watch}'")).unwrap();
    }
    let commit = fleet
        .repo
        .change()
        .remove("apps/old")
        .write("apps/new/files/etc/shared", "mine\n")
        .write("apps/new/files/etc/new", "new\n")
        .write("apps/web/app.yaml", checks)
        .write("apps/web/files/etc/web.conf", "good 3\n")
        .commit("another one has it now")
        .unwrap();
    fleet.await_state(&names[..1], "new", &commit, "baking");
    let barn = fleet.host("barn");
    assert!(barn.sh("cat /etc/old /etc/shared").unwrap().contains("old\nmine\n"), "its turn has not come");
    barn.sh("test ! -e /etc/new").unwrap();
    fleet.await_state(&names, "new", &commit, "converged");
    for host in &fleet.hosts {
        host.wait_for(agent::SOON, "test ! -e /etc/old && test -e /etc/new").unwrap();
        host.sh("test ! -e /run/gone; grep -x mine /etc/shared; systemctl stop watch-shared").unwrap();
    }
    let gone = fleet.when("old", &commit, "barn", "gone").unwrap();
    assert!(gone >= fleet.when("new", &commit, "attic", "converged").unwrap(), "{:#?}", fleet.story("old"));
}

const BROKER: &str = "[Service]\nStateDirectory=broker\nExecStart=/usr/sbin/mosquitto -c /etc/broker.conf\n[Install]\nWantedBy=multi-user.target\n";

/// Two brokers are upgraded while somebody publishes all the time, on both with QoS 1 as one does who has two: never are both down
/// together, and no message is lost.
#[test]
fn two_brokers_are_never_down_together_under_a_client_that_publishes() {
    let Some(lab) = start() else { return };
    let names = ["attic", "barn", "shop"];
    let rules = "rollouts:\n  default:\n    waves: [ { share: 100% } ]\n    bake: 2s\n    max-unavailable: 1\n    failures: 0\n    silent-after: 40s\n";
    let text = fleet_file(&names, rules);
    let place = "place: { host: [attic, barn] }\nchecks: [ { tcp: \"127.0.0.1:1883\", within: 10s } ]\n";
    let conf = |number: u32| {
        format!(
            "# {number}\nlistener 1883 0.0.0.0\nallow_anonymous true\nuser root\npersistence true\npersistence_location /var/lib/broker/\n"
        )
    };
    let files = [
        ("fleet.yaml", text.as_str()),
        ("apps/mqtt/app.yaml", place),
        ("apps/mqtt/broker.service", BROKER),
        ("apps/mqtt/files/etc/broker.conf", &conf(0)),
    ];
    let (fleet, first) = Fleet::start(&lab, &names, &files);
    let brokers = &names[..2];
    fleet.await_state(brokers, "mqtt", &first, "converged");

    // A message counts as sent when one of the two has taken it; who listens is subscribed at both.
    let shop = fleet.host("shop");
    let listeners: Vec<_> = brokers
        .iter()
        .map(|broker| {
            let listen = format!("while true; do mosquitto_sub -h {broker} -t talk -q 1 -i listener -c >>/run/heard 2>/dev/null; sleep 0.05; done");
            shop.spawn(&["bash", "-c", &listen]).unwrap()
        })
        .collect();
    for broker in brokers {
        let hello =
            format!("mosquitto_pub -h {broker} -t talk -q 1 -m hello-{broker}; grep -q hello-{broker} /run/heard");
        shop.wait_for(agent::SOON, &hello).unwrap();
    }
    let talk = "for number in $(seq 1000000); do
        until timeout 3 mosquitto_pub -h attic -t talk -q 1 -m $number 2>/dev/null || { timeout 3 mosquitto_pub -h barn -t talk -q 1 -m $number 2>/dev/null && echo $number >>/run/second; }; do
            echo $number >>/run/both-down; sleep 0.05
        done
        echo $number >>/run/taken; sleep 0.02
    done";
    let talker = shop.spawn(&["bash", "-c", talk]).unwrap();
    shop.wait_for(agent::SOON, "test $(wc -l </run/taken) -ge 20").unwrap();
    for number in 1..=3 {
        let commit = fleet.repo.commit(&[("apps/mqtt/files/etc/broker.conf", &conf(number))], "upgrade").unwrap();
        fleet.await_state(brokers, "mqtt", &commit, "converged");
    }
    shop.wait_for(agent::SOON, "test -s /run/second").unwrap();
    talker.end().unwrap();
    let lost = "sort -u /run/heard >/run/h; sort -u /run/taken >/run/t; comm -13 /run/h /run/t | wc -l";
    let heard_all = || Ok((shop.sh(lost)?.trim() == "0").then_some(()));
    let is_whole = lab::poll(agent::SOON, heard_all).unwrap().is_some();
    listeners.into_iter().for_each(|listener| listener.end().unwrap());
    let both_down = shop.sh("cat /run/both-down 2>/dev/null || true").unwrap();
    assert_eq!(both_down, "", "both were down: {:#?}", fleet.story("mqtt"));
    assert!(is_whole, "messages were lost: {}", shop.sh(lost).unwrap());
    let sent: usize = shop.sh("wc -l </run/taken").unwrap().trim().parse().unwrap();
    eprintln!("{sent} messages were taken, and each was heard");
    assert_eq!(fleet.most_changing("mqtt", jiff::Timestamp::UNIX_EPOCH), 1, "{:#?}", fleet.story("mqtt"));
}

/// Hosts lose their power at random moments of a rollout and come back: everybody arrives, and never do more change than may.
#[test]
fn hosts_that_lose_power_at_random_moments_arrive_all_the_same() {
    let Some(lab) = start() else { return };
    let names = ["h0", "h1", "h2", "h3"];
    let rules = "rollouts:\n  default:\n    waves: [ { where: { ring: canary } }, { share: 100% } ]\n    bake: 2s\n    max-unavailable: 1\n    failures: 0\n    silent-after: 60s\n";
    let text = fleet_file(&names, rules);
    let files =
        [("fleet.yaml", text.as_str()), ("apps/web/web.service", SERVICE), ("apps/web/files/etc/web.conf", "good 0\n")];
    let (fleet, first) = Fleet::start(&lab, &names, &files);
    fleet.await_state(&names, "web", &first, "converged");
    let since = fleet.when("web", &first, "h3", "converged").unwrap();
    let mut dice = Dice::new();
    for round in 1..=2 {
        let content = format!("good {round}\n");
        let commit = fleet.repo.commit(&[("apps/web/files/etc/web.conf", &content)], "next").unwrap();
        for _ in 0..3 {
            let host = &fleet.hosts[usize::try_from(dice.below(4)).unwrap()];
            // The moment is when some record appears, and then some: what is struck at is the work, not the waiting for it.
            let before = fleet.story("web").len();
            let moves = || Ok((fleet.story("web").len() > before).then_some(()));
            lab::poll(std::time::Duration::from_secs(8), moves).unwrap();
            host.kill().unwrap();
            host.start().unwrap();
        }
        fleet.await_state(&names, "web", &commit, "converged");
        for host in &fleet.hosts {
            host.sh(&format!("grep -qx 'good {round}' /etc/web.conf && systemctl is-active web")).unwrap();
        }
    }
    assert!(fleet.most_changing("web", since) <= 1, "{:#?}", fleet.story("web"));
}
