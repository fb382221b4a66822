//! What is read of made-up fleets.

use spec::memory::AppState::{Applying, Converged, Drifted, Failed, RolledBack};

use super::made_up::{MadeUp, Says, main, now, says};
use super::*;
use crate::identity;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n  barn: {}\n  cellar: {}\n  shed: {}\n";
const UNIT: &str = "[Service]\nExecStart=/usr/bin/web\n";

fn made_up() -> MadeUp {
    let unit = format!("{UNIT}Environment=X=2\n");
    MadeUp::new(&[
        (DAY, "first", &[("fleet.yaml", FLEET), ("apps/web/web.service", UNIT)]),
        (HOUR, "second", &[("apps/web/web.service", &unit)]),
    ])
}

fn told(reading: &Reading) -> String {
    let rows = reading.rows().map(|row| {
        let silence = row.known.silence(reading.at).map(|it| format!(" silent {} s", it.as_secs())).unwrap_or_default();
        let release = row.release().map_or("-", CommitId::short);
        format!("{} {} {} {release} {:?}{silence}\n", row.host, row.app, row.state(), row.condition())
    });
    rows.collect()
}

#[test]
fn the_newest_record_of_each_host_counts() {
    let mut made = made_up();
    let (first, second) = (made.commits[0].clone(), made.commits[1].clone());
    made.record("attic", 0, DAY, &[says("web", Applying, DAY)]);
    made.record("attic", 0, DAY - 5, &[says("web", Converged, DAY - 5)]);
    made.record("attic", 1, 600, &[says("web", Converged, 600)]);
    // It goes back to the first commit's note: what counts is what was written last, not where.
    made.record("barn", 1, 700, &[says("web", Applying, 700)]);
    let went_back = Says { runs: Some(0), failure: Some("no"), ..says("web", RolledBack, 650) };
    made.record("barn", 1, 650, &[went_back]);
    made.record("cellar", 1, 800, &[says("web", Converged, 800)]);
    made.record("cellar", 0, 500, &[says("web", Drifted, 500)]);
    let (_, reading) = made.read();
    let (first, second) = (first.short(), second.short());
    assert_eq!(
        told(&reading),
        format!(
            "attic web converged {second} Well\nbarn web rolled-back {first} Trouble\ncellar web drifted {first} Trouble\n\
             shed web unreported - Unheard\n"
        )
    );
    assert_eq!(reading.aside, Aside::default());
    assert_eq!(reading.hosts[&HostName::parse("cellar").expect("a name")].position, Some(Position::Behind));
}

#[test]
fn who_has_said_nothing_for_too_long_is_silent() {
    let mut made = made_up();
    // Hourly heartbeats of a host at the newest commit: two may be missing.
    made.record("attic", 1, 3000, &[says("web", Converged, 3000)]);
    made.record("barn", 1, 3000, &[says("web", Converged, 3000)]);
    // It should have seen the newest commit 50 minutes ago, and has said nothing since.
    made.record("cellar", 0, DAY, &[says("web", Converged, DAY)]);
    made.heartbeat("cellar", 0, 2 * HOUR);
    // It has been heard of since, and is late.
    made.record("shed", 0, DAY, &[says("web", Converged, DAY)]);
    made.heartbeat("shed", 0, 300);
    let (mirror, reading) = made.read();
    let (first, second) = (made.commits[0].short(), made.commits[1].short());
    let expected = format!(
        "attic web converged {second} Well\nbarn web converged {second} Well\n\
         cellar web converged {first} Unheard silent 7200 s\nshed web converged {first} Well\n"
    );
    assert_eq!(told(&reading), expected);
    // Nobody is held to a commit that nobody has seen.
    let later = now().checked_add(Duration::from_secs(2 * 3600)).expect("a time");
    let reading = Reading::of(&mirror, &main(), later).expect("a fleet");
    let silent = |name: &str| reading.hosts[&HostName::parse(name).expect("a name")].is_silent;
    assert!(silent("cellar") && silent("attic") && silent("shed"));
}

#[test]
fn what_does_not_count_is_counted() {
    let mut made = made_up();
    let commit = made.commits[1].clone();
    made.record("stranger", 1, 600, &[says("web", Converged, 600)]);
    made.note("a/b", &commit, 600, "x");
    made.record("attic", 1, 600, &[says("web", Converged, 600)]);
    made.note("attic", &commit, 500, "nonsense");
    for ago in 0..6 {
        made.note("barn", &commit, 500 - ago, &format!("nonsense {ago}"));
    }
    made.record("cellar", 1, 600, &[says("web", Converged, 600)]);
    let (mirror, _) = made.read();
    let text = mirror.read_note(&HostName::parse("cellar").expect("a name"), &commit).expect("a note");
    made.note("shed", &commit, 400, &text);
    let newer = text.replace("\"mainstay-record\":1", "\"mainstay-record\":7,\"mood\":\"fine\"");
    made.note("cellar", &commit, 300, &newer);
    let (_, reading) = made.read();
    // Attic's last note is no record: the one before it is. What shed passes off as its own is cellar's.
    assert_eq!(reading.aside, Aside { strangers: 2, unreadable: 2, newer: 1, forged: 0 });
    let short = commit.short();
    assert_eq!(
        told(&reading),
        format!(
            "attic web converged {short} Well\nbarn web unreported - Unheard\ncellar web converged {short} Well\n\
             shed web unreported - Unheard\n"
        )
    );
}

#[test]
fn a_record_that_is_set_back_does_not_hide_what_the_host_said_since() {
    let key = identity::made_up(1);
    let fleet = format!("fleet: home\nhosts:\n  attic: {{ key: \"{}\" }}\n", key.public());
    let mut made = MadeUp::new(&[(DAY, "first", &[("fleet.yaml", &fleet), ("apps/web/web.service", UNIT)])]);
    let (commit, attic) = (made.commits[0].clone(), HostName::parse("attic").expect("a name"));
    let mut text = |state, ago| {
        made.record("attic", 0, ago, &[says("web", state, ago)]);
        let text = made.mirror().read_note(&attic, &commit).expect("a note");
        key.sign(RECORD, "home", &text).expect("signed")
    };
    let (well, ill) = (text(Converged, 3000), text(Failed, 900));
    // Whoever can push has put the old note there again.
    made.note("attic", &commit, 100, &well);
    made.sign_of_life("attic", 0, 900, &ill, &key);
    let (_, reading) = made.read();
    assert!(told(&reading).contains("web failed"), "{}", told(&reading));
    // And both: then it is heard of as long ago as it said that.
    made.sign_of_life("attic", 0, 3000, &well, &key);
    let (_, reading) = made.read();
    assert!(told(&reading).contains("web converged"), "{}", told(&reading));
    assert_eq!(reading.hosts[&attic].heard.map(|at| now().duration_since(at).as_secs()), Some(3000));
    // Less than it said is not what it said.
    let cut = well.split("\"app\":\"web\"").next().expect("a text").trim_end().to_owned();
    made.note("attic", &commit, 10, &cut);
    let (_, reading) = made.read();
    assert!(told(&reading).contains("web converged") && reading.aside.forged == 1, "{}", told(&reading));
    // What it did not sign is not there.
    made.sign_of_life("attic", 0, 10, &ill, &identity::made_up(2));
    made.note("attic", &commit, 10, ill.split("-----BEGIN").next().expect("a text"));
    let (_, reading) = made.read();
    assert!(told(&reading).contains("web converged") && reading.aside.forged == 2, "{}", told(&reading));
}

#[test]
fn a_signature_that_held_before_is_not_checked_again_and_vouches_for_nothing_else() {
    let [attic, barn] = [1, 2].map(identity::made_up);
    let fleet = |key: &str| format!("fleet: home\nhosts:\n  attic: {{ key: \"{key}\" }}\n");
    let files = |fleet| [("fleet.yaml", fleet), ("apps/web/web.service", UNIT)];
    let (first, second) = (fleet(attic.public()), fleet(barn.public()));
    let mut made = MadeUp::new(&[(DAY, "first", &files(&first)), (HOUR, "second", &files(&first))]);
    let (commit, name) = (made.commits[1].clone(), HostName::parse("attic").expect("a name"));
    made.record("attic", 1, 600, &[says("web", Converged, 600)]);
    let text = made.mirror().read_note(&name, &commit).expect("a note");
    let signed = attic.sign(RECORD, "home", &text).expect("signed");
    made.note("attic", &commit, 500, &signed);
    made.sign_of_life("attic", 1, 500, &signed, &attic);
    let (mirror, reading) = made.read();
    let path = mirror.own_folder().join("verified");
    let kept = std::fs::read(&path).expect("it is remembered");
    // The sign of life: the note stands in it.
    assert!(told(&reading).contains("web converged") && kept.len() == 34 + 32, "{}", kept.len());
    let (_, reading) = made.read();
    assert!(told(&reading).contains("web converged") && std::fs::read(&path).expect("it is") == kept);
    // What is damaged is no matter, and is replaced.
    for damaged in [&b"nonsense"[..], &kept[..kept.len() - 1], &[]] {
        std::fs::write(&path, damaged).expect("written");
        let (_, reading) = made.read();
        assert!(told(&reading).contains("web converged"), "{}", told(&reading));
        assert_eq!(std::fs::read(&path).expect("it is"), kept);
    }
    // It held for that key alone.
    let mut other = MadeUp::new(&[(DAY, "first", &files(&second)), (HOUR, "second", &files(&second))]);
    let commit = other.commits[1].clone();
    let folder = other.mirror().own_folder();
    std::fs::create_dir_all(&folder).expect("made");
    std::fs::write(folder.join("verified"), &kept).expect("written");
    other.note("attic", &commit, 500, &signed.replace(made.commits[1].as_str(), commit.as_str()));
    other.sign_of_life("attic", 1, 500, &signed, &attic);
    let (_, reading) = other.read();
    assert!(!told(&reading).contains("converged") && reading.aside.forged == 1, "{}", told(&reading));
    assert_eq!(std::fs::read(folder.join("verified")).expect("it is").len(), 34, "what nobody asked for is forgotten");
}

#[test]
fn a_commit_with_mistakes_holds_nobody() {
    let unit = format!("{UNIT}Environment=X=2\n");
    let mut made = MadeUp::new(&[
        (DAY, "first", &[("fleet.yaml", FLEET), ("apps/web/web.service", &unit)]),
        (HOUR, "second", &[("fleet.yaml", "fleet: home\nhots: {}\n")]),
    ]);
    made.record("attic", 0, 600, &[says("web", Converged, 600)]);
    let (_, reading) = made.read();
    assert_eq!((&reading.commit, reading.unsound.as_ref()), (&made.commits[0], Some(&made.commits[1])));
    let mut made = MadeUp::new(&[(HOUR, "first", &[("fleet.yaml", "fleet: home\nhots: {}\n")])]);
    let error = Reading::of(&made.mirror(), &main(), now()).err().expect("no fleet");
    assert!(matches!(error, FleetError::Unsound { .. }), "{error}");
}

#[test]
fn what_nobody_signed_changes_no_keys_here_either() {
    let (attic, other) = (identity::made_up(7), identity::made_up(8));
    let fleet =
        |key: &str| format!("fleet: home\nhosts:\n  attic: {{ key: \"{key}\" }}\ntrust: {{ signers: trust/people }}\n");
    let people = format!("ann@example.com {}\n", identity::made_up(9).public());
    let (good, evil) = (fleet(attic.public()), fleet(other.public()));
    let mut made = MadeUp::new(&[
        (DAY, "first", &[("fleet.yaml", &good), ("trust/people", &people), ("apps/web/web.service", UNIT)]),
        (HOUR, "evil", &[("fleet.yaml", &evil)]),
    ]);
    let (first, second) = (made.commits[0].clone(), made.commits[1].clone());
    let tip = |made: &MadeUp, commit: &CommitId| {
        made.git(&["update-ref", "refs/heads/main", commit.as_str()], None);
    };
    made.record("attic", 0, 600, &[says("web", Converged, 600)]);
    let (mirror, _) = made.read();
    let text = mirror.read_note(&HostName::parse("attic").expect("a name"), &first).expect("a note");
    made.note("attic", &first, 500, &attic.sign(RECORD, "home", &text).expect("signed"));
    made.note(
        "attic",
        &second,
        400,
        &other.sign(RECORD, "home", &text.replace("converged", "failed")).expect("signed"),
    );
    // The first that a clone sees is taken as it is, and what comes after it as hosts take it.
    std::fs::remove_dir_all(mirror.own_folder()).expect("removed");
    tip(&made, &first);
    let (_, reading) = made.read();
    assert_eq!((&reading.commit, reading.refused.is_none()), (&first, true));
    tip(&made, &second);
    let (mirror, reading) = made.read();
    assert_eq!((&reading.commit, &reading.tip, reading.unsound.is_none()), (&first, &second, true));
    assert_eq!(told(&reading), format!("attic web converged {} Well\n", first.short()));
    let (refused, why) = reading.refused.expect("it is not believed");
    assert_eq!(refused, second);
    let why = why.replace(&made.path().display().to_string(), "CLONE");
    expect_test::expect!["commit 709ed6ecd8 is not believed (unsigned): it is not signed (this clone believed FIRST before; to begin anew with what is there, remove CLONE/.git/mainstay/believed)"].assert_eq(&why.replace(first.short(), "FIRST").replace(second.as_str(), "SECOND"));
    // However many of them come, and whatever else is there.
    let mut last = second.clone();
    for _ in 0..MOST_UNSOUND {
        let args = ["-c", "user.name=e", "-c", "user.email=e@e", "commit-tree", "-p", last.as_str(), "-m", "x"];
        let tree = format!("{last}^{{tree}}");
        last = CommitId::parse(&made.git(&[&args[..], &[&tree]].concat(), None)).expect("a commit");
    }
    tip(&made, &last);
    let (_, reading) = made.read();
    assert_eq!((&reading.commit, &reading.tip), (&first, &last));
    // A clone that has forgotten begins anew.
    std::fs::remove_file(mirror.own_folder().join("believed")).expect("removed");
    tip(&made, &second);
    let (_, reading) = made.read();
    assert_eq!((&reading.commit, reading.refused.is_none()), (&second, true));
}

#[test]
fn a_fleet_of_ten_thousand_hosts_is_read_to_the_last_one() {
    let hosts: String = (0..10_000).map(|number| format!("  h{number:04}: {{}}\n")).collect();
    let mut made = MadeUp::new(&[(
        DAY,
        "first",
        &[("fleet.yaml", &format!("fleet: home\nhosts:\n{hosts}")), ("apps/web/web.service", UNIT)],
    )]);
    made.record("h0000", 0, 600, &[says("web", Converged, 600)]);
    let commit = made.commits[0].clone();
    let (mirror, _) = made.read();
    let text = mirror.read_note(&HostName::parse("h0000").expect("a name"), &commit).expect("a note");
    for number in 1..10_000 {
        let name = format!("h{number:04}");
        let state = if number % 1000 == 7 { "rolled-back" } else { "converged" };
        let text = text.replace("h0000", &name).replace("\"state\":\"converged\"", &format!("\"state\":\"{state}\""));
        if number != 5000 {
            made.note(&name, &commit, 600, &text);
        }
        made.heartbeat(&name, 0, 300);
    }
    let (_, reading) = made.read();
    assert_eq!(reading.aside, Aside::default());
    let count = |condition| reading.rows().filter(|row| row.condition() == condition).count();
    assert_eq!(count(Condition::Well), 10_000 - 10 - 1);
    assert_eq!(count(Condition::Trouble), 10);
    // Alive, and without a record.
    assert_eq!((count(Condition::Moving), count(Condition::Unheard)), (1, 0));
}
