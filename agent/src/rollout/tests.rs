//! What one host makes of the others' records, with a mirror on disk and no network.

use std::io::Write as _;
use std::process::{Command, Stdio};

use expect_test::expect;
use spec::id::CommitId;
use spec::memory::AppMemory;
use spec::tree::Tree;

use super::*;
use crate::belief;
use crate::ears::{Ears, Keys};
use crate::git::Mirror;

const FLEET: &str = "fleet: home\nhosts:\n  attic: { labels: { ring: canary } }\n  barn: {}\n  shop: {}\nrollouts:\n  default:\n    waves: [ { where: { ring: canary } }, { share: 100% } ]\n    bake: 10m\n    max-unavailable: 1\n    silent-after: 16m\n";

fn host(name: &str) -> HostName {
    HostName::parse(name).expect("a name")
}

fn web() -> AppName {
    AppName::parse("web").expect("a name")
}

fn commit() -> CommitId {
    CommitId::parse(&"2b".repeat(20)).expect("a commit")
}

/// So many minutes after the beginning.
fn at(minutes: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + 60 * minutes).expect("a time")
}

/// A host on the way to a commit that changes its application.
struct Scene {
    folder: tempfile::TempDir,
    mirror: Mirror,
    belief: Belief,
    ears: Ears,
    memory: Memory,
    rollouts: Rollouts,
    counter: u64,
}

impl Scene {
    fn of(name: &str) -> Scene {
        Scene::with(name, FLEET, &[("web", "{}")])
    }

    /// A fleet, and its applications with what their app.yaml says.
    fn with(name: &str, fleet: &str, apps: &[(&str, &str)]) -> Scene {
        let folder = tempfile::tempdir().expect("a folder");
        let mut tree = Tree::default();
        tree.insert("fleet.yaml", fleet.as_bytes());
        for (app, text) in apps {
            tree.insert(&format!("apps/{app}/app.yaml"), text.as_bytes());
            tree.insert(&format!("apps/{app}/files/etc/{app}"), b"2\n");
        }
        let mut memory = Memory::default();
        let (belief, _) = belief::believe(&tree, Some(commit()), &host(name), &memory, None).expect("it is sound");
        let known = AppMemory {
            state: AppState::Converged,
            since: at(-60),
            reached: true,
            digest: Digest::of(b"1"),
            commit: CommitId::parse(&"1a".repeat(20)).ok(),
            from: None,
            changes: 1,
            images: BTreeMap::new(),
            repairs: 0,
            next_repair: None,
            going: false,
            baking: None,
            failure: None,
            needs: BTreeSet::new(),
            bad: None,
            unhealthy: None,
        };
        for (app, _) in apps {
            memory.apps.insert(AppName::parse(app).expect("a name"), known.clone());
        }
        let mirror = Mirror::open(&folder.path().join("mirror.git")).expect("a mirror");
        let rollouts = Rollouts::open(folder.path(), &host(name), true);
        let ears = Ears::open(folder.path());
        Scene { folder, mirror, belief, memory, rollouts, ears, counter: 0 }
    }

    fn target(&self) -> Digest {
        self.belief.desired.apps[&web()].digest
    }

    /// Another host writes a record, which is fetched.
    fn says(&mut self, name: &str, change: impl FnOnce(&mut Record)) {
        self.counter += 1;
        let said = AppRecord { state: AppState::Waiting, ..AppRecord::begins(self.target(), at(0)) };
        let mut record = Record {
            fleet: "home".to_owned(),
            host: host(name),
            commit: commit(),
            counter: self.counter,
            at: at(0),
            apps: BTreeMap::from([(web(), said)]),
            told: Vec::new(),
        };
        change(&mut record);
        self.writes(name, &record.text());
    }

    fn state(&mut self, name: &str, state: AppState) {
        self.says(name, |record| record.apps.values_mut().for_each(|app| app.state = state));
    }

    /// What this host announces arrives where the others read it.
    fn announces(&mut self) {
        let (me, intents) = (self.rollouts.host.clone(), self.rollouts.intents.clone());
        self.says(me.as_str(), |record| announce(&intents, record));
    }

    /// What a host's sign of life has in it is what is fetched of it, whatever that is.
    fn writes(&mut self, name: &str, text: &str) {
        let git = |words: &[&str], input: &str| {
            let mut git = Command::new("git");
            git.arg("--git-dir").arg(self.folder.path().join("mirror.git")).args([
                "-c",
                "user.name=a",
                "-c",
                "user.email=a",
            ]);
            let git = git.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = git.spawn().expect("git is installed");
            child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("git reads");
            let output = child.wait_with_output().expect("git ends");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        let tree = git(&["hash-object", "-w", "-t", "tree", "--stdin"], "");
        let sign = git(&["commit-tree", &tree, "-F", "-"], &format!("mainstay: {name} seen\n\n{text}"));
        git(&["update-ref", &format!("refs/mainstay/heard/{name}"), &sign], "");
        self.mirror = Mirror::open(&self.folder.path().join("mirror.git")).expect("a mirror");
    }

    fn look(&mut self, now: Timestamp) {
        self.look_at(&Peers::All, now);
    }

    fn look_at(&mut self, whom: &Peers, now: Timestamp) {
        let scheme = self.belief.scheme.clone().expect("something waits");
        let Scene { mirror, ears, belief, .. } = self;
        let mut hearing = Hearing { mirror, ears, keys: &belief.keys, fleet: &scheme.fleet.name };
        self.rollouts.look(&mut hearing, &scheme, (whom, now), now);
    }

    /// What keeps the change from beginning, or that nothing does.
    fn told(&mut self, now: Timestamp) -> String {
        let holds = self.rollouts.holds(&self.belief, &self.memory, &BTreeMap::new(), now);
        match holds.get(&web()) {
            Some(Hold::Waits(why)) => format!("{why}\n"),
            Some(other) => format!("{other:?}\n"),
            None => "it begins\n".to_owned(),
        }
    }

    fn restart(&mut self) {
        let host = self.rollouts.host.clone();
        self.rollouts = Rollouts::open(self.folder.path(), &host, true);
    }
}

#[test]
fn what_was_heard_of_a_host_before_its_key_was_named_counts_no_more() {
    let mut barn = Scene::of("barn");
    barn.rollouts.polled(at(-1));
    barn.told(at(0));
    barn.state("attic", AppState::Failed);
    barn.look(at(1));
    assert!(barn.told(at(1)).contains("halted"), "{}", barn.told(at(1)));
    // It may have been anybody's word.
    let key = crate::identity::made_up(1).public().to_owned();
    barn.belief.keys = [(host("attic"), key)].into_iter().collect::<Keys>().into();
    barn.look(at(2));
    assert!(!barn.told(at(2)).contains("halted"), "{}", barn.told(at(2)));
    assert!(!barn.rollouts.records().any(|(name, _)| *name == host("attic")));
}

#[test]
fn a_host_waits_for_the_canary_then_says_that_it_begins_and_begins() {
    let mut barn = Scene::of("barn");
    barn.rollouts.polled(at(-1));
    let mut told = barn.told(at(0));
    for (minute, state) in [(1, AppState::Waiting), (2, AppState::Applying), (3, AppState::Baking)] {
        barn.state("attic", state);
        barn.look(at(minute));
        barn.rollouts.signed(at(minute));
        told += &barn.told(at(minute));
    }
    barn.rollouts.signed(at(9));
    barn.state("attic", AppState::Converged);
    barn.state("shop", AppState::Converged);
    barn.look(at(14));
    assert!(barn.rollouts.announced().is_empty(), "nothing is announced that may not begin");
    told += &barn.told(at(14));
    let announced = barn.rollouts.announced();
    assert_eq!(announced, Announced::from([(web(), Some(barn.target()))]));
    told += &barn.told(at(14));
    assert!(barn.rollouts.seen(&announced, at(14)) && !barn.rollouts.seen(&announced, at(14)));
    told += &barn.told(at(15));
    // A look that does not show it yet is no later one.
    barn.look(at(15));
    told += &barn.told(at(15));
    barn.announces();
    barn.look(at(15));
    told += &barn.told(at(15));
    expect![[r#"
        wave 1 has to pass first: attic has to be healthy
        wave 1 has to pass first: attic has to be healthy
        wave 1 has to pass first: attic has to be healthy
        wave 1 has to pass first: attic has to have been healthy for long enough
        it is its turn: the other hosts have to be told before it begins
        it is its turn: the other hosts have to be told before it begins
        it is its turn: the other hosts have to be told before it begins
        it is its turn: the other hosts have to be told before it begins
        it begins
    "#]]
    .assert_eq(&told);
    // What was seen too long ago does not count, and takes back what was announced.
    assert_eq!(barn.told(at(20)), "the other hosts' records have to be fetched again first\n");
    assert!(barn.rollouts.announced().is_empty());
}

#[test]
fn what_is_no_record_of_its_host_moves_nobody() {
    let mut barn = Scene::of("barn");
    barn.told(at(0));
    let canary_first = "wave 1 has to pass first: attic has to be healthy\n";
    let converged = |record: &mut Record| record.apps.values_mut().for_each(|app| app.state = AppState::Converged);
    barn.says("attic", |record| {
        converged(record);
        record.host = host("shop");
    });
    barn.look(at(1));
    assert_eq!(barn.told(at(1)), canary_first, "of another host");
    barn.says("attic", |record| {
        converged(record);
        record.fleet = "work".to_owned();
    });
    barn.look(at(1));
    assert_eq!(barn.told(at(1)), canary_first, "of another fleet");
    barn.says("stranger", converged);
    barn.writes("attic", "attic converged: trust me\n");
    barn.look(at(1));
    assert_eq!(barn.told(at(1)), canary_first, "no record, and one of nobody's");
    barn.says("attic", converged);
    barn.look(at(1));
    assert_eq!(barn.told(at(1)), "at most one host may change at a time: shop first\n");
    barn.says("shop", converged);
    barn.look(at(1));
    assert_eq!(barn.told(at(1)), "this host's own record has to be published first\n");
}

#[test]
fn who_is_silent_is_passed_over_also_after_a_restart_and_who_was_away_shows_itself_first() {
    let mut barn = Scene::of("barn");
    barn.rollouts.polled(at(-1));
    barn.told(at(0));
    barn.state("attic", AppState::Waiting);
    barn.state("shop", AppState::Converged);
    barn.look(at(1));
    barn.restart();
    barn.look(at(10));
    assert_eq!(barn.told(at(10)), "wave 1 has to pass first: attic has to be healthy\n");
    barn.restart();
    barn.look(at(18));
    assert_eq!(barn.told(at(18)), "this host's own record has to be published first\n");
    // It has said nothing since it saw the release: the others may have passed it over, and have to see that it is there.
    barn.rollouts.signed(at(18));
    assert_eq!(
        barn.told(at(18)),
        "this host was away: the others have to see first that it is back, until 2026-09-21 14:35:20Z\n"
    );
    barn.look(at(22));
    barn.rollouts.signed(at(22));
    assert_eq!(barn.told(at(22)), "it is its turn: the other hosts have to be told before it begins\n");
}

/// One that is run by a timer is away in between, longer than a quiet host may be: it gets its turn in a run that stays until the
/// others have seen it, and never without that.
#[test]
fn who_is_only_there_now_and_then_has_its_turn_when_it_stays_until_it_was_seen() {
    let mut barn = Scene::of("barn");
    barn.state("attic", AppState::Converged);
    barn.state("shop", AppState::Converged);
    let mut told = String::new();
    for run in 0..3 {
        barn.restart();
        let begun = 10 * run;
        barn.told(at(begun));
        for _ in 0..2 {
            barn.look(at(begun));
            told = barn.told(at(begun));
            barn.rollouts.signed(at(begun));
        }
        assert!(told.starts_with("this host was away: the others have to see first that it is back"), "{told}");
    }
    // A quarter of silent-after later, in the same run.
    let seen = barn.rollouts.next().expect("a moment");
    assert_eq!(seen, at(24));
    assert!(!barn.rollouts.is_about_to_begin());
    barn.look(seen);
    barn.told(seen);
    let announced = barn.rollouts.announced();
    assert!(barn.rollouts.is_about_to_begin() && barn.rollouts.seen(&announced, seen));
    barn.announces();
    let later = seen.checked_add(Duration::from_secs(1)).expect("a time");
    barn.look(later);
    assert!(!barn.rollouts.is_about_to_begin());
    assert_eq!(barn.told(later), "it begins\n");
}

#[test]
fn a_canary_that_never_comes_to_an_end_is_waited_for_until_it_is_late() {
    let mut barn = Scene::of("barn");
    let mut told = Vec::new();
    // Twice ten minutes to bake, and four times `silent-after`; a look every ten minutes, of which one is left out.
    for minute in (0..=140).step_by(10) {
        if minute != 40 {
            let canary = if minute < 30 { AppState::Applying } else { AppState::Baking };
            barn.says("attic", |record| {
                record.counter += 1;
                record.apps.values_mut().for_each(|app| app.state = canary);
            });
            barn.state("shop", AppState::Waiting);
            barn.look(at(minute));
        }
        let line = barn.told(at(minute));
        if told.last().is_none_or(|(_, before)| *before != line) {
            told.push((minute, line));
        }
    }
    let told: String = told.into_iter().map(|(minute, line)| format!("{minute}: {line}")).collect();
    expect![[r#"
        0: wave 1 has to pass first: attic has to be healthy
        30: wave 1 has to pass first: attic has to have been healthy for long enough
        120: the waves before have not proven it: one host of this wave goes first
    "#]]
    .assert_eq(&told);
}

#[test]
fn a_host_that_reports_to_nobody_takes_its_turn_all_the_same() {
    let mut barn = Scene::of("barn");
    barn.rollouts = Rollouts::open(barn.folder.path(), &host("barn"), false);
    barn.told(at(0));
    barn.state("attic", AppState::Converged);
    barn.state("shop", AppState::Applying);
    barn.look(at(12));
    assert_eq!(barn.told(at(12)), "at most one host may change at a time: shop first\n");
    barn.state("shop", AppState::Baking);
    barn.look(at(12));
    assert_eq!(barn.told(at(12)), "it begins\n");
}

#[test]
fn a_host_looks_at_those_who_come_before_it_and_at_everybody_right_before_it_begins() {
    let usual = Duration::from_secs(60);
    let only = |name: &str| Some(Peers::Some(BTreeSet::from([host(name)])));
    let mut barn = Scene::of("barn");
    barn.rollouts.polled(at(-1));
    barn.told(at(0));
    // The canary, whenever the repository is asked anyway but for those who come next.
    assert_eq!((barn.rollouts.asks(), barn.rollouts.lacks_view()), (only("attic"), false));
    let look = |barn: &mut Scene, minute| {
        let whom = barn.rollouts.asks().expect("it looks");
        barn.look_at(&whom, at(minute));
        barn.rollouts.signed(at(minute));
        barn.told(at(minute))
    };
    barn.state("attic", AppState::Converged);
    barn.state("shop", AppState::Applying);
    assert_eq!(look(&mut barn, 1), "at most one host may change at a time: shop first\n");
    assert_eq!(barn.rollouts.asks(), only("shop"));
    assert_eq!(barn.rollouts.interval(usual), Duration::from_secs(30), "one batch is before it");
    barn.state("shop", AppState::Converged);
    assert_eq!(look(&mut barn, 2), "the other hosts' records have to be fetched again first\n");
    // Everybody once: somebody may have what it is to have no longer.
    assert_eq!(barn.rollouts.asks(), Some(Peers::All));
    assert_eq!(barn.rollouts.interval(usual), Duration::from_secs(15));
    assert_eq!(look(&mut barn, 3), "it is its turn: the other hosts have to be told before it begins\n");
    let announced = barn.rollouts.announced();
    barn.rollouts.seen(&announced, at(3));
    barn.announces();
    // By now it is known who takes part.
    let scheme = barn.belief.scheme.clone().expect("something waits");
    let taking_part: BTreeSet<&HostName> = barn.rollouts.others.taking_part(&scheme).collect();
    assert_eq!(taking_part, BTreeSet::from([&host("attic"), &host("barn"), &host("shop")]));
    assert_eq!(look(&mut barn, 4), "it begins\n");
}

/// Two applications between which something moves, each with a policy by which another host goes first.
const TWO_ORDERS: &str = "fleet: home\nhosts:\n  attic: { labels: { ring: one } }\n  barn: { labels: { ring: two } }\nrollouts:\n  one:\n    waves: [ { where: { ring: one } }, { where: { ring: two } } ]\n    max-unavailable: 1\n  two:\n    waves: [ { where: { ring: two } }, { where: { ring: one } } ]\n    max-unavailable: 1\n    bake: 10m\n";

#[test]
fn applications_that_go_together_by_different_policies_go_by_that_of_the_more_careful_one() {
    let (fan, web) = (AppName::parse("fan").expect("a name"), web());
    let group = [BTreeSet::from([fan.clone(), web.clone()])];
    let mut told = Vec::new();
    for name in ["attic", "barn"] {
        let mut scene = Scene::with(name, TWO_ORDERS, &[("fan", "rollout: one"), ("web", "rollout: two")]);
        scene.rollouts.polled(at(-1));
        for minute in [0, 1, 2] {
            scene.look(at(minute));
            scene.rollouts.signed(at(minute));
            let Scene { belief, memory, rollouts, .. } = &mut scene;
            let holds = rollouts.holds(belief, memory, &BTreeMap::new(), at(minute));
            let holds = rollouts.lead(belief, memory, holds, &group, at(minute));
            for app in [&fan, &web] {
                let why = holds.get(app).map_or("it begins".to_owned(), |hold| match hold {
                    Hold::Waits(why) => why.clone(),
                    other => format!("{other:?}"),
                });
                told.push(format!("{name} {app}: {why}"));
            }
            rollouts.retract(|app| holds.get(app).is_some_and(|hold| *hold != Hold::Waits(TURN.to_owned())));
            let announced = rollouts.announced();
            rollouts.seen(&announced, at(minute));
            if !announced.is_empty() {
                scene.announces();
            }
        }
    }
    expect![[r#"
        attic fan: it goes together with web, whose turn has not come
        attic web: wave 1 has to pass first: barn has to be healthy
        attic fan: it goes together with web, whose turn has not come
        attic web: wave 1 has to pass first: barn has to be healthy
        attic fan: it goes together with web, whose turn has not come
        attic web: wave 1 has to pass first: barn has to be healthy
        barn fan: it is its turn: the other hosts have to be told before it begins
        barn web: it is its turn: the other hosts have to be told before it begins
        barn fan: it begins
        barn web: it begins
        barn fan: it begins
        barn web: it begins"#]]
    .assert_eq(&told.join("\n"));
}
