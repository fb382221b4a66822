//! What the other hosts say, as far as it is theirs. Whoever can push can write into the ref of any host; a sign of life counts where
//! the key signed it that fleet.yaml names for that host, and it counts once: an older one is not passed off as new.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use spec::id::HostName;
use spec::record::Record;
use tracing::warn;

use crate::git::{self, Mirror, Peers};
use crate::identity::{self, SEEN};

/// The file's name in the state folder. It can be lost: what is older than what was heard before counts once more then.
const NAME: &str = "heard.json";

/// The keys of hosts, as fleet.yaml names them: ssh-ed25519 AAAA….
pub type Keys = BTreeMap<HostName, String>;

/// What was heard, and what does not count.
pub struct Ears {
    path: PathBuf,
    known: BTreeMap<HostName, Last>,
    /// What stands in the refs of hosts and is not theirs, with the keys that it was compared with.
    refused: BTreeMap<HostName, (String, String)>,
    /// Signs of life that count and have no record in them that can be used.
    unusable: BTreeMap<HostName, String>,
    /// How many of both there were since this process began.
    count: u64,
    is_looking: bool,
}

/// The last sign of life of a host that counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Last {
    value: String,
    /// The key that it is signed with.
    by: String,
    /// Which it was: by the number of the record in it, and when it was given.
    order: (u64, Timestamp),
}

impl Ears {
    /// Reads what was heard before.
    pub fn open(state: &Path) -> Ears {
        let path = state.join(NAME);
        let known =
            fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Ears { path, known, refused: BTreeMap::new(), unusable: BTreeMap::new(), count: 0, is_looking: false }
    }

    /// Keeps nothing from now on: somebody else does.
    pub fn only_look(&mut self) {
        self.is_looking = true;
    }

    /// Returns by which values the signs of life of these hosts are known, of those whose sign is theirs. A host for which fleet.yaml
    /// names no key is taken by its word.
    pub fn hear(&mut self, mirror: &Mirror, whom: &Peers, keys: &Keys, fleet: &str) -> BTreeMap<HostName, String> {
        let before = self.known.clone();
        self.known.retain(|host, _| keys.contains_key(host));
        self.refused.retain(|host, _| keys.contains_key(host));
        let mut heard = mirror.heard(whom);
        heard.retain(|host, value| match keys.get(host) {
            Some(key) => self.is_theirs(mirror, host, value, key, fleet),
            None => true,
        });
        if self.known != before {
            self.keep();
        }
        heard
    }

    /// Returns of which hosts something is left out that is not theirs.
    pub fn ignored(&self) -> BTreeSet<HostName> {
        self.refused.keys().cloned().collect()
    }

    /// Returns how many signs of life and records were left out since this process began.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Counts a record that cannot be used, once.
    fn leave_out(&mut self, host: &HostName, value: &str, why: &str) {
        if self.unusable.get(host).is_some_and(|before| before == value) {
            return;
        }
        warn!(%host, why, "a record is left out");
        self.unusable.insert(host.clone(), value.to_owned());
        self.count += 1;
    }

    fn is_theirs(&mut self, mirror: &Mirror, host: &HostName, value: &str, key: &str, fleet: &str) -> bool {
        if self.known.get(host).is_some_and(|last| last.value == value && last.by == key) {
            self.refused.remove(host);
            return true;
        }
        if self.refused.get(host).is_some_and(|(refused, by)| refused == value && by == key) {
            return false;
        }
        let last = self.known.get(host).filter(|last| last.by == key);
        match sign(mirror, host, key, fleet, last) {
            Ok(order) => {
                self.refused.remove(host);
                let (value, by) = (value.to_owned(), key.to_owned());
                self.known.insert(host.clone(), Last { value, by, order });
                true
            }
            Err(why) => {
                warn!(%host, why, "what stands in the ref of a host is not what it said, and is left out");
                self.count += 1;
                self.refused.insert(host.clone(), (value.to_owned(), key.to_owned()));
                false
            }
        }
    }

    fn keep(&self) {
        if self.is_looking {
            return;
        }
        if let Err(error) = write(&self.path, &self.known) {
            warn!(%error, "failed to keep what was heard of the other hosts");
        }
    }
}

/// What a mirror holds of the others, heard with these ears.
pub struct Hearing<'h> {
    /// The mirror.
    pub mirror: &'h Mirror,
    /// The ears.
    pub ears: &'h mut Ears,
    /// Who signs with which key.
    pub keys: &'h Keys,
    /// The fleet.
    pub fleet: &'h str,
}

impl Hearing<'_> {
    /// Returns by which values the signs of life of these hosts are known, of those whose sign is theirs.
    pub fn values(&mut self, whom: &Peers) -> BTreeMap<HostName, String> {
        self.ears.hear(self.mirror, whom, self.keys, self.fleet)
    }

    /// Reads the record in another host's sign of life, if it is one, and theirs.
    pub fn record(&mut self, host: &HostName) -> Option<Record> {
        let only = Peers::Some(BTreeSet::from([host.clone()]));
        let value = self.values(&only).remove(host)?;
        let why = match Record::parse(&self.mirror.record_heard(host)?) {
            Ok(record) if record.host != *host || record.fleet != self.fleet => {
                "it is of another host or fleet than its ref".to_owned()
            }
            Ok(record) => return Some(record),
            Err(why) => why,
        };
        self.ears.leave_out(host, &value, &why);
        None
    }
}

/// Checks that a sign of life is of this host, this fleet and this moment, and returns which one it is.
fn sign(
    mirror: &Mirror,
    host: &HostName,
    key: &str,
    fleet: &str,
    last: Option<&Last>,
) -> Result<(u64, Timestamp), String> {
    let text = mirror.sign_heard(host).ok_or("it cannot be read")?;
    let said = identity::verify(key, SEEN, fleet, &text).map_err(|why| why.to_string())?;
    let (who, at) = git::said_by(said).ok_or("it does not say whose it is and when it was given")?;
    if who != host.as_str() {
        return Err("it is of another host".to_owned());
    }
    let counter = match said.split_once("\n\n") {
        Some((_, record)) => Record::parse(record)?.counter,
        None => 0,
    };
    let order = (counter, at);
    match last.is_none_or(|last| last.order < order) {
        true => Ok(order),
        false => Err("it is older than what it said before".to_owned()),
    }
}

fn write(path: &Path, known: &BTreeMap<HostName, Last>) -> io::Result<()> {
    let new = path.with_extension("json.new");
    fs::write(&new, serde_json::to_vec(known)?)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use spec::id::CommitId;

    use super::*;
    use crate::identity::{Identity, RECORD, made_up};

    /// A mirror in which anybody writes what hosts are to have said.
    struct Scene {
        folder: tempfile::TempDir,
        ears: Ears,
        keys: Keys,
    }

    fn host(name: &str) -> HostName {
        HostName::parse(name).expect("a name")
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + 60 * minute).expect("a time")
    }

    /// What a host says at a minute, with a record of that number.
    fn text(name: &str, minute: i64, counter: Option<u64>) -> String {
        let commit = CommitId::parse(&"2b".repeat(20)).expect("a commit");
        let record = counter.map(|counter| {
            let (fleet, host, at) = ("home".to_owned(), host(name), at(minute));
            let record = Record { fleet, host, commit, counter, at, apps: BTreeMap::new(), told: Vec::new() };
            format!("\n{}", made_up(7).sign(RECORD, "home", &record.text()).expect("signed"))
        });
        format!("mainstay: {name} seen at {}, at {}\n{}", at(minute), "2b".repeat(20), record.unwrap_or_default())
    }

    impl Scene {
        fn new(enrolled: &[(&str, &Identity)]) -> Scene {
            let folder = tempfile::tempdir().expect("a folder");
            drop(Mirror::open(&folder.path().join("mirror.git")).expect("a mirror"));
            let keys = enrolled.iter().map(|(name, key)| (host(name), key.public().to_owned())).collect();
            Scene { ears: Ears::open(folder.path()), folder, keys }
        }

        /// Somebody writes into the ref of a host, in a commit of that number, and it is heard whether that is the host's.
        fn hears(&mut self, name: &str, number: u64, text: &str) -> bool {
            let git = |words: &[&str], input: &str| {
                let mut git = Command::new("git");
                git.arg("--git-dir").arg(self.folder.path().join("mirror.git")).args([
                    "-c",
                    "user.name=a",
                    "-c",
                    "user.email=a",
                ]);
                git.env("GIT_COMMITTER_DATE", format!("@{} +0000", 1_790_000_000 + number));
                let git = git.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
                let mut child = git.spawn().expect("git is installed");
                child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("git reads");
                let output = child.wait_with_output().expect("git ends");
                assert!(output.status.success());
                String::from_utf8_lossy(&output.stdout).trim().to_owned()
            };
            let tree = git(&["hash-object", "-w", "-t", "tree", "--stdin"], "");
            let commit = git(&["commit-tree", &tree, "-F", "-"], text);
            git(&["update-ref", &format!("refs/mainstay/heard/{name}"), &commit], "");
            self.listens(name)
        }

        fn listens(&mut self, name: &str) -> bool {
            let mirror = Mirror::open(&self.folder.path().join("mirror.git")).expect("a mirror");
            let Scene { ears, keys, .. } = self;
            let mut hearing = Hearing { mirror: &mirror, ears, keys, fleet: "home" };
            hearing.values(&Peers::All).contains_key(&host(name))
        }
    }

    #[test]
    fn only_the_host_itself_speaks_for_it_and_each_word_counts_once() {
        let (attic, eve) = (made_up(1), made_up(2));
        let mut scene = Scene::new(&[("attic", &attic), ("eve", &eve)]);
        let said = |by: &Identity, text: &str| by.sign(SEEN, "home", text).expect("signed");
        let first = said(&attic, &text("attic", 1, Some(5)));
        assert!(scene.hears("attic", 1, &first));
        // Another host forges it, passes it off as its own, or says it for another fleet or in another place.
        assert!(!scene.hears("attic", 2, &text("attic", 2, Some(6))));
        assert_eq!(scene.ears.ignored(), BTreeSet::from([host("attic")]));
        assert!(!scene.hears("attic", 3, &said(&eve, &text("attic", 2, Some(6)))));
        assert!(!scene.hears("eve", 4, &first));
        assert!(!scene.hears("eve", 5, &said(&eve, &text("attic", 2, Some(6)))));
        assert!(!scene.hears("attic", 6, &attic.sign(SEEN, "farm", &text("attic", 2, Some(6))).expect("signed")));
        assert!(!scene.hears("attic", 7, &attic.sign(RECORD, "home", &text("attic", 2, Some(6))).expect("signed")));
        for garbage in ["", "hello", "mainstay: attic seen at noon, at home\n", "mainstay: attic\n\n{}"] {
            assert!(!scene.hears("attic", 8, &said(&attic, &format!("{garbage}\n"))), "{garbage:?}");
        }
        // The same word in another commit, and an older one, are no new sign of life; also after a restart.
        assert!(!scene.hears("attic", 9, &first));
        assert!(scene.hears("attic", 10, &said(&attic, &text("attic", 3, Some(5)))));
        assert!(!scene.hears("attic", 11, &said(&attic, &text("attic", 2, Some(5)))));
        assert!(!scene.hears("attic", 12, &said(&attic, &text("attic", 9, None))));
        assert!(
            scene.hears("attic", 13, &said(&attic, &text("attic", 2, Some(6)))),
            "its clock went back; its number did not"
        );
        scene.ears = Ears::open(scene.folder.path());
        assert!(scene.listens("attic") && !scene.hears("attic", 14, &said(&attic, &text("attic", 3, Some(5)))));
    }

    #[test]
    fn a_host_without_a_key_is_taken_by_its_word_and_a_new_key_begins_anew() {
        let (attic, new) = (made_up(1), made_up(2));
        let mut scene = Scene::new(&[]);
        assert!(scene.hears("attic", 1, "mainstay: attic seen"));
        scene.keys.insert(host("attic"), attic.public().to_owned());
        assert!(!scene.listens("attic"), "from now on it has to be signed");
        let said = |by: &Identity, minute, counter| {
            by.sign(SEEN, "home", &text("attic", minute, Some(counter))).expect("signed")
        };
        assert!(scene.hears("attic", 2, &said(&attic, 5, 9)));
        scene.keys.insert(host("attic"), new.public().to_owned());
        assert!(!scene.listens("attic"), "what an old key signed counts no more");
        assert!(scene.hears("attic", 3, &said(&new, 1, 1)));
        assert!(!scene.hears("attic", 4, &said(&attic, 6, 10)));
    }
}
