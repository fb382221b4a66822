//! What a fleet did, as its records tell it: every state of an application on every host, with its moment.

use std::collections::BTreeMap;

use lab::{Forge, Host, Lab, Repo};
use serde_json::Value;

use crate::agent;

/// A fleet that follows a repository.
pub(crate) struct Fleet {
    /// Held as long as the fleet: the repository is on it.
    _forge: Forge,
    pub(crate) repo: Repo,
    pub(crate) hosts: Vec<Host>,
}

/// A record: when it was written, of which commit, and what it says of each application.
type Written = (jiff::Timestamp, String, BTreeMap<String, Value>);

/// An application came into a state on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) at: jiff::Timestamp,
    pub(crate) host: String,
    pub(crate) commit: String,
    pub(crate) state: String,
}

impl Fleet {
    /// Boots hosts that follow a repository with these files, and sign what they say.
    pub(crate) fn start(lab: &Lab, names: &[&str], files: &[(&str, &str)]) -> (Fleet, String) {
        Fleet::start_with(lab, names, files, "")
    }

    /// The same, with more in the settings of each host.
    pub(crate) fn start_with(lab: &Lab, names: &[&str], files: &[(&str, &str)], more: &str) -> (Fleet, String) {
        let forge = lab.forge().unwrap();
        let hosts = lab.boot_all(names).unwrap();
        let mut repo = forge.repo("fleet").unwrap();
        for host in &hosts {
            host.sh("mkdir -p /etc/mainstay; ssh-keygen -q -t ed25519 -N '' -f /etc/mainstay/identity").unwrap();
            repo.enrol(host.name(), &host.sh("cut -d ' ' -f 1-2 /etc/mainstay/identity.pub").unwrap());
        }
        let first = repo.commit(files, "begin").unwrap();
        for host in &hosts {
            forge.authorize(host).unwrap();
            agent::follow(host, &repo.ssh_url(), &format!("host: {}\n{more}", host.name()));
        }
        (Fleet { _forge: forge, repo, hosts }, first)
    }

    pub(crate) fn host(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name() == name).unwrap()
    }

    /// What the newest record of a host says of an application.
    pub(crate) fn says(&self, host: &str, app: &str) -> Value {
        let story = self.records(host);
        story.last().and_then(|(_, _, apps)| apps.get(app)).cloned().unwrap_or_default()
    }

    /// Waits until the records of these hosts say that an application is in `state` at `commit`.
    pub(crate) fn await_state(&self, hosts: &[&str], app: &str, commit: &str, state: &str) {
        let is_there = |host: &&str| {
            let story = self.records(host);
            story
                .last()
                .is_some_and(|(_, at, apps)| at == commit && apps.get(app).is_some_and(|it| it["state"] == state))
        };
        let all = || Ok(hosts.iter().all(is_there).then_some(()));
        if lab::poll(3 * agent::SOON, all).unwrap().is_none() {
            let open = hosts.iter().filter(|host| !is_there(host));
            let told: String = open
                .map(|name| {
                    let host = self.host(name);
                    let plan = if host.is_running() {
                        host.sh("mainstay plan 2>&1 || true").unwrap()
                    } else {
                        "off".to_owned()
                    };
                    format!("== {name}: {}\n{plan}\n{}\n", self.says(name, app), agent::log(host))
                })
                .collect();
            panic!("{app} is not {state} at {commit}:\n{told}");
        }
    }

    /// The records of a host, in order: when, of which commit, and what it says of each application.
    fn records(&self, host: &str) -> Vec<Written> {
        self.all_records().remove(host).unwrap_or_default()
    }

    /// The records of all hosts, read with two questions.
    fn all_records(&self) -> BTreeMap<String, Vec<Written>> {
        const LOG: [&str; 9] = [
            "log",
            "--source",
            "--reverse",
            "--format=@%S",
            "--raw",
            "--no-abbrev",
            "--root",
            "-m",
            "--glob=refs/notes/mainstay",
        ];
        let Ok(log) = self.repo.git(&LOG) else { return BTreeMap::new() };
        let (mut host, mut blobs) = ("", Vec::new());
        for line in log.lines() {
            match line.strip_prefix('@') {
                Some(name) => host = name.trim_start_matches("refs/notes/mainstay/"),
                None => blobs.extend(line.split_whitespace().nth(3).map(|blob| (host, blob))),
            }
        }
        let asked: String = blobs.iter().map(|(_, blob)| format!("{blob}\n")).collect();
        let texts = self.repo.git_with(&["cat-file", "--batch"], asked.as_bytes()).unwrap();
        let mut all: BTreeMap<String, Vec<Written>> = BTreeMap::new();
        let mut host = String::new();
        for value in texts.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            if value.get("mainstay-record").is_some() {
                value["host"].as_str().unwrap().clone_into(&mut host);
                let at = value["at"].as_str().unwrap().parse().unwrap();
                let commit = value["commit"].as_str().unwrap().to_owned();
                all.entry(host.clone()).or_default().push((at, commit, BTreeMap::new()));
            } else if let Some(app) = value["app"].as_str()
                && let Some((_, _, apps)) = all.get_mut(&host).and_then(|records| records.last_mut())
            {
                apps.insert(app.to_owned(), value.clone());
            }
        }
        all.values_mut().for_each(|records| records.sort_by_key(|(at, ..)| *at));
        all
    }

    /// Every change of state of an application, on all hosts, in the order of time.
    pub(crate) fn story(&self, app: &str) -> Vec<Moment> {
        let mut moments = Vec::new();
        for (host, records) in self.all_records() {
            let mut before = String::new();
            for (at, commit, apps) in records {
                let state = apps.get(app).map_or("gone", |it| it["state"].as_str().unwrap_or_default()).to_owned();
                let now = format!("{commit} {state}");
                if now != before {
                    moments.push(Moment { at, host: host.clone(), commit, state });
                }
                before = now;
            }
        }
        moments.sort_by_key(|moment| moment.at);
        moments
    }

    /// How many hosts were changing an application at the same time, at most, from a moment on.
    pub(crate) fn most_changing(&self, app: &str, since: jiff::Timestamp) -> usize {
        let mut changing = std::collections::BTreeSet::new();
        let mut most = 0;
        for moment in self.story(app).into_iter().filter(|moment| moment.at >= since) {
            match moment.state.as_str() {
                "applying" => drop(changing.insert(moment.host)),
                _ => drop(changing.remove(&moment.host)),
            }
            most = most.max(changing.len());
        }
        most
    }

    /// When a host came into a state at a commit, first.
    pub(crate) fn when(&self, app: &str, commit: &str, host: &str, state: &str) -> Option<jiff::Timestamp> {
        let story = self.story(app);
        story.into_iter().find(|it| it.commit == commit && it.host == host && it.state == state).map(|it| it.at)
    }
}
