//! What is the matter with a fleet is told once, by one host for all, whoever dies meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use spec::id::HostName;
use spec::lookout::{Call, Finding, LINE, Lookout, MOST_SINGLE, Matter, REPEATERS, Subject, Watch};
use spec::manifest::{Alert, Receiver};
use spec::record::Told;

const PATIENCE: Duration = Duration::from_secs(60);
const HEARTBEAT: Duration = Duration::from_secs(3600);

fn host(number: usize) -> HostName {
    HostName::parse(&format!("h{number:04}")).expect("a name")
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + i64::try_from(seconds).expect("a time")).expect("a time")
}

fn alerts(receiver: Receiver) -> Vec<Alert> {
    let on = BTreeSet::from(["halted", "silent", "recovered"]);
    vec![Alert { receiver, url: "https://alerts.example/hook".to_owned(), on }]
}

fn halted() -> Subject {
    Subject { matter: Matter::Halted, of: "web".to_owned() }
}

fn finding(about: &str) -> Finding {
    Finding { about: about.to_owned(), since: at(0), text: "the release failed on h0009, and none may".to_owned() }
}

/// Hosts that see each other's records, and nothing else of each other.
struct Fleet {
    alerts: Vec<Alert>,
    hosts: Vec<Lookout>,
    is_up: Vec<bool>,
    published: BTreeMap<HostName, Vec<Told>>,
    views: Vec<Option<Timestamp>>,
    /// What somebody heard, and from whom.
    heard: Vec<(usize, String)>,
}

impl Fleet {
    fn of(count: usize) -> Fleet {
        Fleet {
            alerts: alerts(Receiver::Webhook),
            hosts: vec![Lookout::default(); count],
            is_up: vec![true; count],
            published: BTreeMap::new(),
            views: vec![None; count],
            heard: Vec::new(),
        }
    }

    /// A host takes in what is so, and what the others published.
    fn look(&mut self, number: usize, about: Option<&str>, now: u64) {
        let line: Vec<HostName> = (0..self.hosts.len()).map(host).collect();
        let me = &mut self.hosts[number];
        for (name, told) in self.published.iter().filter(|(name, _)| **name != host(number)) {
            me.heard(name, told, at(now));
        }
        self.views[number] = Some(at(now));
        match about {
            Some(about) => me.found(halted(), finding(about), line, PATIENCE, at(now)),
            None => me.over(&halted(), at(now)),
        }
        me.tidy(&host(number), &self.alerts, at(now));
    }

    /// It tells what falls to it; where it dies in between, nobody sees that it did.
    fn tell(&mut self, number: usize, now: u64, dies: bool) {
        for call in self.hosts[number].calls(&host(number), &self.alerts, self.views[number]) {
            if call.is_told {
                continue;
            }
            self.heard.push((number, format!("{} {}", call.finding.about, if call.is_over { "over" } else { "so" })));
            if dies {
                self.is_up[number] = false;
                return;
            }
            self.hosts[number].tell(&host(number), &call, at(now));
            self.published.insert(host(number), self.hosts[number].told().to_vec());
        }
    }

    fn turn(&mut self, about: Option<&str>, now: u64) {
        for number in 0..self.hosts.len() {
            if self.is_up[number] {
                self.look(number, about, now);
                self.tell(number, now, false);
            }
        }
    }

    fn told(&self) -> Vec<(usize, &str)> {
        self.heard.iter().map(|(number, text)| (*number, text.as_str())).collect()
    }
}

#[test]
fn the_first_in_line_tells_and_the_others_see_that_it_did() {
    let mut fleet = Fleet::of(6);
    fleet.turn(Some("r1"), 1);
    assert_eq!(fleet.told(), [], "it looks once more first");
    for now in [10, 100, 1000, 10_000] {
        fleet.turn(Some("r1"), now);
    }
    assert_eq!(fleet.told(), [(0, "r1 so")]);
    // Another release in the same state is another matter; what was mended is over once.
    fleet.turn(Some("r2"), 10_001);
    fleet.turn(Some("r2"), 10_010);
    for now in [20_000, 20_010, 20_100, 30_000] {
        fleet.turn(None, now);
    }
    assert_eq!(fleet.told(), [(0, "r1 so"), (0, "r2 so"), (0, "r2 over")]);
    // The same again is told again.
    fleet.turn(Some("r2"), 40_000);
    fleet.turn(Some("r2"), 40_010);
    assert_eq!(fleet.told().last(), Some(&(0, "r2 so")));
}

#[test]
fn the_next_in_line_takes_over_from_one_that_is_gone() {
    let mut fleet = Fleet::of(6);
    fleet.is_up[0] = false;
    for now in [1, 10, 60] {
        fleet.turn(Some("r1"), now);
    }
    assert_eq!(fleet.told(), [], "the first may still be about to tell");
    fleet.turn(Some("r1"), 62);
    assert_eq!(fleet.told(), [(1, "r1 so")]);
    // Who told it is gone as well, and what it told is known all the same.
    fleet.is_up[1] = false;
    for now in [100, 1000, 5000] {
        fleet.turn(Some("r1"), now);
    }
    assert_eq!(fleet.told(), [(1, "r1 so")]);
    // It is over: the next one says so, after those before it had the time to. The first is back by then, and is not in time.
    fleet.turn(None, 6000);
    fleet.turn(None, 6060);
    assert_eq!(fleet.told().len(), 1);
    // The line is behind the one that told it: 0, which is away, then 2.
    for now in [6061, 6119, 6121] {
        fleet.turn(None, now);
    }
    assert_eq!(fleet.told(), [(1, "r1 so"), (2, "r1 over")]);
    // Whoever comes back sees that.
    fleet.is_up = vec![true; 6];
    for now in [7000, 7100, 8000] {
        fleet.turn(None, now);
    }
    assert_eq!(fleet.told().len(), 2);
    assert!(fleet.hosts[1].told().is_empty(), "what it told was taken up by another one");
}

#[test]
fn a_host_that_was_started_again_knows_what_it_told_and_looks_first() {
    let mut fleet = Fleet::of(2);
    fleet.turn(Some("r1"), 1);
    fleet.turn(Some("r1"), 10);
    let text = serde_json::to_string(&fleet.hosts[0]).expect("it can be kept");
    let mut again: Lookout = serde_json::from_str(&text).expect("it can be read");
    let (me, alerts) = (host(0), &fleet.alerts);
    let told = again.calls(&me, alerts, None);
    assert!(told.len() == 1 && told[0].is_told, "{told:?}");
    again.over(&halted(), at(20));
    assert_eq!(again.calls(&me, alerts, Some(at(20))), [], "it does not know yet what the others told");
    assert!(again.wants(&me, alerts, Some(at(20)), at(21)) && !again.wants(&me, alerts, Some(at(20)), at(20)));
    assert!(!again.wants(&me, alerts, Some(at(22)), at(23)));
    let over = again.calls(&me, alerts, Some(at(22)));
    assert!(matches!(over.as_slice(), [Call { is_over: true, is_told: false, .. }]), "{over:?}");
}

#[test]
fn who_forgets_is_told_again_by_the_teller_and_those_behind_it() {
    let mut fleet = Fleet::of(7);
    fleet.alerts = alerts(Receiver::Alertmanager);
    fleet.is_up[0] = false;
    for now in [1, 62, 70] {
        fleet.turn(Some("r1"), now);
    }
    assert_eq!(fleet.told(), [(1, "r1 so")]);
    for number in 1..7 {
        let calls = fleet.hosts[number].calls(&host(number), &fleet.alerts, fleet.views[number]);
        let repeats = (1..1 + REPEATERS).contains(&number);
        assert_eq!(calls.iter().filter(|call| call.is_told).count(), usize::from(repeats), "{number}: {calls:?}");
    }
}

#[test]
fn however_many_of_the_first_are_down_the_next_one_tells() {
    for down in [4, 5, 20, LINE - 1] {
        let mut fleet = Fleet::of(LINE + 1);
        fleet.is_up[..down].fill(false);
        let due = 60 * u64::try_from(down).expect("few");
        // It looks once more when its time is over, and is seen by whoever waits behind it.
        for now in [1, due, due + 2, due + 10, due + 10_000, due + 20_000] {
            fleet.turn(Some("r1"), now);
            assert_eq!(fleet.told().len(), usize::from(now > due), "{now}");
        }
        assert_eq!(fleet.told(), [(down, "r1 so")]);
    }
}

#[test]
fn what_is_not_of_this_world_is_not_believed() {
    let mut fleet = Fleet::of(2);
    let to = fleet.alerts[0].id();
    let forged = |at| Told {
        subject: "halted web".to_owned(),
        about: "r1".to_owned(),
        to: to.clone(),
        since: at,
        at,
        over: false,
    };
    fleet.published.insert(host(1), vec![forged(at(99_999))]);
    fleet.turn(Some("r1"), 1);
    fleet.turn(Some("r1"), 10);
    assert_eq!(fleet.told(), [(0, "r1 so")]);
}

#[test]
fn only_the_first_listens_to_everybody_while_it_is_there() {
    let (watch, hour, none) = (watch(9), 3600, [""; 0]);
    let line = |count: usize| Some((0..count).map(host).collect::<BTreeSet<HostName>>());
    let mut second = Lookout::default();
    assert_eq!(Lookout::default().listens_to(&host(0), &watch), None);
    assert_eq!((second.listens_to(&host(1), &watch), second.listens_to(&host(3), &watch)), (line(1), line(3)));
    let mut listen = |signs: &[(usize, u32)], now| {
        let signs: BTreeMap<HostName, String> = signs.iter().map(|(it, sign)| (host(*it), sign.to_string())).collect();
        second.listen(&host(1), &watch, &signs, HEARTBEAT, at(now));
        let open: Vec<String> = second.open(Matter::Silent).map(|(subject, _)| subject.to_string()).collect();
        (open, second.listens_to(&host(1), &watch).is_none())
    };
    for now in [0, hour, 2 * hour] {
        assert_eq!(listen(&[(0, 1)], now), (none.map(str::to_owned).to_vec(), false));
    }
    assert_eq!(listen(&[(0, 1)], 3 * hour), (vec!["silent h0000".to_owned()], true));
    // From now on it hears the others, and counts from now on.
    for now in [4 * hour, 5 * hour, 6 * hour] {
        assert_eq!(listen(&[(0, 1), (5, 1)], now), (vec!["silent h0000".to_owned()], true));
    }
    let both = vec!["silent h0000".to_owned(), "silent h0005".to_owned()];
    assert_eq!(listen(&[(0, 1), (5, 1)], 7 * hour), (both, true));
    // The first is back; what became of the other is still to be told.
    assert_eq!(listen(&[(0, 2), (5, 1)], 8 * hour), (vec!["silent h0005".to_owned()], true));
    assert_eq!(listen(&[(0, 3), (5, 2)], 9 * hour), (Vec::new(), false));
}

fn watch(count: usize) -> Watch {
    Watch {
        line: (0..LINE).map(host).collect(),
        hosts: (0..count).map(|number| (host(number), Duration::from_secs(900))).collect(),
    }
}

/// What the first of those who listen has to say after looking at these hosts' signs.
fn listen(lookout: &mut Lookout, signs: &[(usize, u32)], all: usize, now: u64) -> Vec<String> {
    let signs = signs.iter().map(|(number, sign)| (host(*number), sign.to_string())).collect();
    lookout.listen(&host(0), &watch(all), &signs, HEARTBEAT, at(now));
    let alerts = alerts(Receiver::Webhook);
    // It looks once more before it tells.
    let calls = lookout.calls(&host(0), &alerts, Some(at(now + 1)));
    let mut said = Vec::new();
    for call in calls.iter().filter(|call| !call.is_told) {
        said.push(format!("{} {}", call.subject, if call.is_over { "over" } else { "so" }));
        lookout.tell(&host(0), call, at(now + 1));
    }
    lookout.tidy(&host(0), &alerts, at(now + 1));
    said
}

#[test]
fn a_host_that_says_nothing_is_told_of_and_that_it_is_back() {
    let (mut lookout, hour, none) = (Lookout::default(), 3600, [""; 0]);
    assert!(lookout.is_deaf(HEARTBEAT, at(0)));
    for (number, now) in [0, hour, 2 * hour].into_iter().enumerate() {
        let alive = u32::try_from(number).expect("few");
        assert_eq!(listen(&mut lookout, &[(1, alive), (2, 0), (7, alive)], 8, now), none);
    }
    assert!(!lookout.is_deaf(HEARTBEAT, at(3 * hour - 1)) && lookout.is_deaf(HEARTBEAT, at(3 * hour)));
    // Two signs of life may be late or lost, and who never gave any is not missed.
    assert_eq!(listen(&mut lookout, &[(1, 3), (2, 0), (7, 3)], 8, 3 * hour), ["silent h0002 so"]);
    assert_eq!(listen(&mut lookout, &[(1, 4), (2, 0), (7, 4)], 8, 4 * hour), none);
    assert_eq!(listen(&mut lookout, &[(1, 5), (2, 5), (7, 5)], 8, 5 * hour), ["silent h0002 over"]);
    assert_eq!(listen(&mut lookout, &[(1, 6), (2, 6), (7, 6)], 8, 6 * hour), none);
}

#[test]
fn who_was_deaf_itself_counts_anew() {
    let (mut lookout, hour, none) = (Lookout::default(), 3600, [""; 0]);
    let same: Vec<(usize, u32)> = (1..8).map(|number| (number, 0)).collect();
    assert_eq!(listen(&mut lookout, &same, 8, 0), none);
    // The git server was away for a day: the others have not come back yet.
    assert_eq!(listen(&mut lookout, &same, 8, 24 * hour), none);
    assert_eq!(listen(&mut lookout, &same, 8, 25 * hour), none);
    assert_eq!(listen(&mut lookout, &same, 8, 26 * hour), none);
    assert_eq!(listen(&mut lookout, &same, 8, 27 * hour).len(), 7);
}

#[test]
fn many_that_are_silent_at_once_are_told_as_one() {
    let (mut lookout, hour) = (Lookout::default(), 3600);
    let signs =
        |alive: u32, from: usize| (1..1000).map(|it| (it, if it < from { alive } else { 0 })).collect::<Vec<_>>();
    for number in 0..3 {
        listen(&mut lookout, &signs(number, 998), 1000, u64::from(number) * hour);
    }
    assert_eq!(listen(&mut lookout, &signs(3, 998), 1000, 3 * hour), ["silent h0998 so", "silent h0999 so"]);
    for number in 4..6 {
        listen(&mut lookout, &signs(3, 998), 1000, number * hour);
    }
    assert_eq!(listen(&mut lookout, &signs(3, 998), 1000, 6 * hour), ["silent * so"]);
    let about = lookout.open(Matter::Silent).map(|(_, finding)| finding.text.clone()).next().expect("many");
    assert!(about.starts_with("nothing is heard of 999 hosts: h0001, ") && about.ends_with(" and 991 more"), "{about}");
    assert_eq!(listen(&mut lookout, &signs(7, 1000), 1000, 7 * hour).len(), 3, "all of it is over");
    assert!(lookout.told().len() <= MOST_SINGLE, "{:?}", lookout.told());
}

/// So many hosts look in any order.
const SOME: usize = 8;

proptest! {
    /// Hosts look in any order and die at any moment, now and then in the moment between telling and saying that they told: that is
    /// the only way in which anything is told twice. While one of the line is there, everything is told, and that it is over.
    #[test]
    fn told_at_least_once_and_twice_only_where_somebody_died_in_between(
        steps in proptest::collection::vec((0..SOME, 0_u8..12), 0..60),
        survivor in 0..SOME,
    ) {
        let mut fleet = Fleet::of(SOME);
        let (mut now, mut deaths) = (0, 0);
        for about in [Some("r1"), None] {
            for (number, what) in &steps {
                now += 7;
                match (what, fleet.is_up[*number]) {
                    (0, _) if *number != survivor => fleet.is_up[*number] = false,
                    (1, _) => fleet.is_up[*number] = true,
                    (2, true) if *number != survivor => {
                        let before = fleet.heard.len();
                        fleet.look(*number, about, now);
                        fleet.tell(*number, now, true);
                        deaths += fleet.heard.len() - before;
                    }
                    (_, true) => {
                        fleet.look(*number, about, now);
                        fleet.tell(*number, now, false);
                    }
                    (_, false) => {}
                }
            }
            // In the end only one is there.
            fleet.is_up = (0..SOME).map(|number| number == survivor).collect();
            for _ in 0..20 {
                now += 61;
                fleet.turn(about, now);
            }
        }
        let count = |text: &str| fleet.heard.iter().filter(|(_, heard)| heard == text).count();
        prop_assert!(count("r1 so") >= 1 && count("r1 over") >= 1, "{:?}", fleet.heard);
        prop_assert!(count("r1 so") + count("r1 over") <= 2 + deaths, "{deaths} deaths: {:?}", fleet.heard);
    }
}
