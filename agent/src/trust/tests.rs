//! Histories that real git wrote and real ssh-keygen signed, and what is believed of them.

use std::fmt::Write as _;
use std::process::Command;

use expect_test::expect;
use tempfile::TempDir;

use super::*;

/// Somebody's clone, the keys of some people, and the mirror of a host: here the clone itself.
struct Scene {
    folder: TempDir,
    settings: settings::Trust,
    believed: Option<CommitId>,
    floor: Option<CommitId>,
    accepted: Option<Accepted>,
}

const PEOPLE: [(&str, &[&str]); 5] = [
    ("ann", &["-t", "ed25519"]),
    ("bob", &["-t", "ecdsa", "-b", "256"]),
    ("cat", &["-t", "rsa", "-b", "2048"]),
    ("dan", &["-t", "ecdsa", "-b", "521"]),
    ("eve", &["-t", "ed25519"]),
];

impl Scene {
    fn new() -> Scene {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = settings::Trust { floor: folder.path().join("floor"), ..settings::Trust::default() };
        let scene = Scene { folder, settings, believed: None, floor: None, accepted: None };
        for (name, form) in PEOPLE {
            let key = scene.key(name);
            scene.run(Command::new("ssh-keygen").args(["-q", "-N", "", "-C", name, "-f", &key]).args(form));
        }
        scene.git(&["init", "--quiet", "--initial-branch=main"]);
        scene
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}.key", self.folder.path().display())
    }

    fn public(&self, name: &str) -> String {
        let text = fs::read_to_string(format!("{}.pub", self.key(name))).expect("a key");
        text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    fn repo(&self) -> PathBuf {
        self.folder.path().join("repo")
    }

    fn run(&self, command: &mut Command) -> String {
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn git(&self, words: &[&str]) -> String {
        fs::create_dir_all(self.repo()).expect("a folder");
        let mut git = Command::new("git");
        git.current_dir(self.repo()).env("HOME", self.folder.path()).env("GIT_CONFIG_NOSYSTEM", "1");
        git.args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "gpg.format=ssh", "-c", "commit.gpgSign=false"]);
        self.run(git.args(words))
    }

    /// Writes a file of signers: each with the options of its line.
    fn signers(&self, people: &[(&str, &str)]) -> String {
        let mut text = String::new();
        for (name, options) in people {
            let space = if options.is_empty() { "" } else { " " };
            writeln!(text, "{name}@example.com {options}{space}{}", self.public(name)).expect("written");
        }
        text
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.repo().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    /// Commits what is there, signed by somebody; by nobody as "".
    fn commit(&self, by: &str, message: &str) -> CommitId {
        self.git(&["add", "-A"]);
        let key = format!("user.signingKey={}.pub", self.key(by));
        let sign: &[&str] = if by.is_empty() { &[] } else { &["-c", &key] };
        let flags: &[&str] = if by.is_empty() { &[] } else { &["-S"] };
        let words = [sign, &["commit", "--quiet", "--allow-empty", "-m", message], flags].concat();
        self.git(&words);
        self.head()
    }

    fn head(&self) -> CommitId {
        CommitId::parse(&self.git(&["rev-parse", "HEAD"])).expect("a commit")
    }

    /// Says that signatures are asked for, of these people.
    fn trusts(&self, people: &[(&str, &str)], more: &str) {
        self.write(
            "fleet.yaml",
            &format!("fleet: home\nhosts: {{ attic: {{}} }}\ntrust: {{ signers: trust/people{more} }}\n"),
        );
        self.write("trust/people", &self.signers(people));
    }

    /// The settings of the host name these people.
    fn told(&mut self, people: &[(&str, &str)]) {
        let path = self.folder.path().join("first");
        fs::write(&path, self.signers(people)).expect("written");
        self.settings.signers = Some(path);
    }

    /// What the host makes of a commit; believes it if it can.
    fn hear(&mut self, tip: &CommitId) -> String {
        let mirror = Mirror::of_clone(&self.repo()).expect("a clone");
        let before =
            Before { believed: self.believed.as_ref(), floor: self.floor.as_ref(), accepted: self.accepted.as_ref() };
        let judged =
            Judge::new(&mirror, &self.settings).and_then(|it| it.believe(before, tip, "main", Timestamp::now()));
        match judged {
            Ok(verdict) => {
                self.believed = Some(tip.clone());
                format!("believed, {:?}\n", verdict.trust.require)
            }
            Err(refusal) => {
                let text = refusal.to_string();
                let named = |text: String, (name, _): (&str, _)| text.replace(&self.fingerprint(name), name);
                let text = PEOPLE.into_iter().fold(text, named).replace(&self.folder.path().display().to_string(), "");
                let commits = self.git(&["rev-list", "--all", "--reflog"]);
                let text = commits.lines().fold(text, |text, id| text.replace(id, "ID").replace(&id[..10], "ID"));
                format!("{text}\n")
            }
        }
    }

    fn fingerprint(&self, name: &str) -> String {
        let line = self.run(Command::new("ssh-keygen").args(["-l", "-f", &format!("{}.pub", self.key(name))]));
        line.split_whitespace().nth(1).expect("a fingerprint").to_owned()
    }
}

#[test]
fn every_type_of_key_that_git_signs_with_is_understood() {
    let mut scene = Scene::new();
    scene.trusts(&[("ann", ""), ("bob", ""), ("cat", ""), ("dan", "")], "");
    scene.told(&[("ann", "")]);
    let first = scene.commit("ann", "first");
    let mut told = scene.hear(&first);
    for by in ["bob", "cat", "dan", "eve", ""] {
        let next = scene.commit(by, "next");
        told += &scene.hear(&next);
        let good = scene.believed.clone().expect("something is believed");
        scene.git(&["reset", "--quiet", "--hard", good.as_str()]);
    }
    expect![[r#"
        believed, EveryCommit
        believed, EveryCommit
        believed, EveryCommit
        believed, EveryCommit
        commit ID is not believed (unknown-signer): it is signed with eve, which is not among those who may sign
        commit ID is not believed (unsigned): it is not signed
    "#]]
    .assert_eq(&told);
}

#[test]
fn a_host_that_knows_nothing_believes_what_its_settings_say() {
    let mut scene = Scene::new();
    scene.trusts(&[("ann", "")], "");
    let first = scene.commit("ann", "first");
    let mut told = scene.hear(&first);
    scene.told(&[("bob", "")]);
    told += &scene.hear(&first);
    fs::write(scene.settings.signers.as_ref().expect("set"), "bob@example.com ssh-ed25519 AAAA\n").expect("written");
    told += &scene.hear(&first);
    fs::write(scene.settings.signers.as_ref().expect("set"), "# nobody yet\n").expect("written");
    told += &scene.hear(&first);
    scene.settings.signers = Some(scene.folder.path().join("missing"));
    told += &scene.hear(&first);
    // Somebody who pushed before the keys were there, and is the tip's ancestor.
    scene.told(&[("ann", "")]);
    let second = scene.commit("", "second");
    let third = scene.commit("ann", "third");
    scene.settings.since = Some(first.clone());
    told += &scene.hear(&third);
    scene.settings.since = Some(third.clone());
    told += &scene.hear(&first);
    scene.settings.since = Some(CommitId::parse(&"ab".repeat(20)).expect("a commit"));
    told += &scene.hear(&third).replace(&"ab".repeat(20), "ID");
    scene.settings.since = Some(second);
    told += &scene.hear(&third);
    expect![[r#"
        the repository says that its commits are signed, and this host was not told by whom: compare the keys in the repository with the people they are of, copy their file to this host, and name it with `trust: { signers: FILE }` in /etc/mainstay/agent.yaml
        commit ID is not believed (unknown-signer): it is signed with ann, which is not trusted before this commit: ann@example.com counts from the next one on, and somebody who is trusted already has to sign this one
        the signers that the settings name cannot be used, so nothing is believed: /first:1: the key is damaged: it is too short; copy the whole line of the .pub file
        the signers that the settings name cannot be used, so nothing is believed: /first names nobody
        the signers that the settings name cannot be used, so nothing is believed: /missing cannot be read: No such file or directory (os error 2)
        commit ID is not believed (unsigned): it is not signed
        ID is older than ID, which was believed before: the branch was set back, and this host does not go back with it; to go back, revert what came since with a new commit, or say `mainstay accept-rewrite ID ID` on each host
        ID does not go on from ID, which was believed before: the branch was rewritten, or is another one; if that is meant, say `mainstay accept-rewrite ID ID` on each host, or `trust: { replaces: [ID] }` in fleet.yaml in a commit on the new branch, signed by somebody who is trusted already
        believed, EveryCommit
    "#]].assert_eq(&told);
}

#[test]
fn a_branch_that_was_set_back_rewritten_or_taken_from_elsewhere_is_not_followed() {
    let mut scene = Scene::new();
    scene.told(&[("ann", ""), ("bob", "")]);
    scene.trusts(&[("ann", ""), ("bob", "")], "");
    let first = scene.commit("ann", "first");
    let second = scene.commit("ann", "second");
    let mut told = scene.hear(&second) + &scene.hear(&first);
    scene.git(&["checkout", "--quiet", "--orphan", "other"]);
    let other = scene.commit("ann", "other");
    told += &scene.hear(&other);
    // The state is lost, and with it what was believed; the floor is not.
    let second_again = scene.believed.take();
    scene.floor = second_again.clone();
    told += &scene.hear(&first);
    told += &scene.hear(&second);
    // What was believed is not there any more: nobody can say by it who may replace it.
    scene.believed = CommitId::parse(&"ab".repeat(20)).ok();
    scene.git(&["checkout", "--quiet", "--orphan", "third"]);
    scene.write(
        "fleet.yaml",
        &format!(
            "fleet: home\nhosts: {{ attic: {{}} }}\ntrust: {{ require: none, replaces: [{}] }}\n",
            "ab".repeat(20)
        ),
    );
    let unsigned = scene.commit("", "replaces what is gone");
    told += &scene.hear(&unsigned).replace(&"ab".repeat(20), "ID");
    scene.git(&["checkout", "--quiet", "--force", "other"]);
    // A person accepts it, or somebody who is trusted says so in the repository.
    scene.accepted = Some(Accepted { from: second.clone(), to: other.clone(), by_settings: false });
    told += &scene.hear(&other);
    (scene.believed, scene.accepted, scene.floor) = (Some(second.clone()), None, None);
    scene.trusts(&[("ann", ""), ("eve", "")], &format!(", replaces: [{second}]"));
    let by_eve = scene.commit("eve", "replaces");
    told += &scene.hear(&by_eve);
    scene.git(&["reset", "--quiet", "--hard", other.as_str()]);
    scene.trusts(&[("ann", "")], &format!(", replaces: [{second}]"));
    let by_bob = scene.commit("bob", "replaces");
    told += &scene.hear(&by_bob);
    expect![[r#"
        believed, EveryCommit
        ID is older than ID, which was believed before: the branch was set back, and this host does not go back with it; to go back, revert what came since with a new commit, or say `mainstay accept-rewrite ID ID` on each host
        ID does not go on from ID, which was believed before: the branch was rewritten, or is another one; if that is meant, say `mainstay accept-rewrite ID ID` on each host, or `trust: { replaces: [ID] }` in fleet.yaml in a commit on the new branch, signed by somebody who is trusted already
        ID is older than ID, which was believed before: the branch was set back, and this host does not go back with it; to go back, revert what came since with a new commit, or say `mainstay accept-rewrite ID ID` on each host
        believed, EveryCommit
        ID does not go on from ID, which was believed before: the branch was rewritten, or is another one; if that is meant, say `mainstay accept-rewrite ID ID` on each host, or `trust: { replaces: [ID] }` in fleet.yaml in a commit on the new branch, signed by somebody who is trusted already
        believed, EveryCommit
        commit ID is not believed (unknown-signer): it is signed with eve, which is not trusted before this commit: eve@example.com counts from the next one on, and somebody who is trusted already has to sign this one
        believed, EveryCommit
    "#]].assert_eq(&told);
}

#[test]
fn what_is_signed_for_something_else_or_changed_afterwards_counts_for_nothing() {
    let mut scene = Scene::new();
    scene.told(&[("ann", ""), ("bob", "namespaces=\"file\""), ("cat", "valid-before=\"20200101Z\"")]);
    scene.write("fleet.yaml", "fleet: home\nhosts: { attic: {} }\n");
    let first = scene.commit("ann", "first");
    let mut told = scene.hear(&first);
    for by in ["bob", "cat"] {
        let next = scene.commit(by, "next");
        told += &scene.hear(&next);
        scene.git(&["reset", "--quiet", "--hard", first.as_str()]);
    }
    // The same signature over another message.
    let signed = scene.commit("ann", "pay ann");
    let raw = scene.git(&["cat-file", "commit", signed.as_str()]);
    let forged = scene.folder.path().join("forged");
    fs::write(&forged, raw.replace("pay ann", "pay eve") + "\n").expect("written");
    let forged = scene.git(&["hash-object", "-t", "commit", "-w", &forged.display().to_string()]);
    scene.git(&["update-ref", "refs/heads/forged", &forged]);
    told += &scene.hear(&CommitId::parse(&forged).expect("a commit"));
    // Made for files, by somebody who may sign commits.
    let payload = scene.folder.path().join("payload");
    let body: Vec<&str> = raw.split("-----END SSH SIGNATURE-----").collect();
    let head: String =
        raw.lines().take_while(|line| !line.starts_with("gpgsig")).map(|line| format!("{line}\n")).collect();
    let text = format!("{head}{}\n", body[1].trim_start_matches('\n').replacen("", "\n", 1));
    fs::write(&payload, &text).expect("written");
    scene.run(Command::new("ssh-keygen").args([
        "-q",
        "-Y",
        "sign",
        "-n",
        "file",
        "-f",
        &scene.key("ann"),
        &payload.display().to_string(),
    ]));
    let armoured = fs::read_to_string(payload.with_extension("sig")).expect("a signature");
    let folded = armoured.trim_end().replace('\n', "\n ");
    fs::write(&payload, text.replacen("\n\n", &format!("\ngpgsig {folded}\n\n"), 1)).expect("written");
    let made = scene.git(&["hash-object", "-t", "commit", "-w", &payload.display().to_string()]);
    scene.git(&["update-ref", "refs/heads/made", &made]);
    told += &scene.hear(&CommitId::parse(&made).expect("a commit"));
    expect![[r#"
        believed, EveryCommit
        commit ID is not believed (not-valid): it is signed by bob@example.com with bob, who may sign for file and not for `git`
        commit ID is not believed (not-valid): it is signed by cat@example.com with cat, who may not sign since 2020-01-01T00:00:00Z
        commit ID is not believed (bad-signature): its signature does not hold: it is not one of ann over this commit
        commit ID is not believed (bad-signature): its signature does not hold: it was made for `file` and not for git
    "#]].assert_eq(&told);
}

#[test]
fn trust_begins_with_the_commit_that_asks_for_it_and_is_for_its_branch_alone() {
    let mut scene = Scene::new();
    scene.write("fleet.yaml", "fleet: home\nhosts: { attic: {} }\n");
    let first = scene.commit("", "first");
    let mut told = scene.hear(&first);
    scene.trusts(&[("ann", "")], ", branch: main");
    let second = scene.commit("", "second");
    let third = scene.commit("", "third");
    told += &scene.hear(&third);
    told += &scene.hear(&second);
    scene.git(&["reset", "--quiet", "--hard", second.as_str()]);
    scene.trusts(&[("ann", "")], ", branch: prod");
    let prod = scene.commit("ann", "for another branch");
    told += &scene.hear(&prod);
    expect![[r#"
        believed, None
        commit ID is not believed (unsigned): it is not signed
        believed, EveryCommit
        fleet.yaml says that this is for the branch `prod`, and this host follows `main`
    "#]]
    .assert_eq(&told);
}

#[test]
fn a_change_of_signers_waits_until_enough_people_agree() {
    let mut scene = Scene::new();
    scene.told(&[("ann", ""), ("bob", "")]);
    scene.trusts(&[("ann", ""), ("bob", "")], ", approvals: 2");
    let first = scene.commit("ann", "first");
    let mut told = scene.hear(&first);
    scene.trusts(&[("ann", ""), ("bob", ""), ("eve", "")], ", approvals: 2");
    let change = scene.commit("ann", "eve signs, too");
    told += &scene.hear(&change);
    let agreed = scene.commit("bob", &format!("I know eve\n\nApproves: {change}"));
    told += &scene.hear(&agreed);
    let by_eve = scene.commit("eve", "hello");
    told += &scene.hear(&by_eve);
    expect![[r#"
        believed, EveryCommit
        commit ID is not believed (not-approved): it changes who is trusted, and 1 of the 2 who have to agree do: somebody else who is trusted already has to sign a commit on top of it that says `Approves: ID`, on a line of its own at the end of its message
        believed, EveryCommit
        believed, EveryCommit
    "#]].assert_eq(&told);
}

#[test]
fn the_floor_is_raised_and_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("floor");
    let read = |floor: &Floor| floor.commit().map(Option::<&CommitId>::cloned).map_err(|error| error.to_string());
    assert_eq!(read(&Floor::open(&path)), Ok(None));
    let commit = CommitId::parse(&"ab".repeat(20)).expect("a commit");
    let mut floor = Floor::open(&path);
    floor.raise(&commit);
    assert_eq!((read(&floor), read(&Floor::open(&path))), (Ok(Some(commit.clone())), Ok(Some(commit))));
    fs::write(&path, "nonsense\n").expect("written");
    assert!(read(&Floor::open(&path)).is_err_and(|why| why.contains("should name a commit")));
}

#[test]
fn a_crowd_of_commits_that_nobody_signed_costs_one_reading_of_what_they_share() {
    let mut scene = Scene::new();
    scene.trusts(&[("ann", "")], "");
    scene.told(&[("ann", "")]);
    let first = scene.commit("ann", "first");
    scene.hear(&first);
    let size = |path: &str| fs::metadata(scene.repo().join(path)).expect("a file").len();
    let once = size("fleet.yaml") + size("trust/people");
    // Some differ in what does not matter here, and so are other trees.
    let mut tip = first.clone();
    for number in 0..60 {
        scene.write("more", &(number % 7).to_string());
        tip = scene.commit("", "push");
    }
    let mirror = Mirror::of_clone(&scene.repo()).expect("a clone");
    let judge = Judge::new(&mirror, &scene.settings).expect("settings");
    let before = Before { believed: Some(&first), floor: None, accepted: None };
    let Err(refused) = judge.believe(before, &tip, "main", Timestamp::now()) else { panic!("nobody signed it") };
    assert!(refused.to_string().contains("not signed"), "{refused}");
    assert_eq!(MOST_READ - judge.left.get(), once);
}

#[test]
fn what_is_wrong_is_told_of_what_somebody_wrote_who_may() {
    let mut scene = Scene::new();
    scene.trusts(&[("ann", "")], "");
    scene.told(&[("ann", "")]);
    let first = scene.commit("ann", "first");
    scene.hear(&first);
    scene.write("fleet.yaml", "fleet: home\ntrust: { signers: [, }\n");
    let told = |scene: &Scene, commit: &CommitId| {
        let mirror = Mirror::of_clone(&scene.repo()).expect("a clone");
        let judge = Judge::new(&mirror, &scene.settings).expect("settings");
        let before = || Before { believed: scene.believed.as_ref(), floor: None, accepted: None };
        let judged = judge.believe(before(), commit, "main", Timestamp::now());
        assert!(matches!(judged, Err(Refusal::Unclear { .. })), "{:?}", judged.err());
        judge.may_be_told(&before(), commit)
    };
    for (by, expected) in [("ann", true), ("eve", false), ("", false)] {
        let commit = scene.commit(by, "oops");
        assert_eq!(told(&scene, &commit), expected, "{by:?}");
    }
    // A host that was told nobody believes whoever writes, and says what is wrong.
    scene.settings.signers = None;
    scene.believed = None;
    let commit = scene.commit("", "oops");
    assert!(told(&scene, &commit));
}

#[test]
fn what_takes_too_long_to_check_is_not_believed() {
    let mut scene = Scene::new();
    scene.trusts(&[("ann", "")], "");
    scene.told(&[("ann", "")]);
    let first = scene.commit("ann", "first");
    scene.hear(&first);
    scene.write("more", "1");
    let tip = scene.commit("ann", "second");
    let mirror = Mirror::of_clone(&scene.repo()).expect("a clone");
    let case = Case { believed: Some(first.clone()), ..Case::new(&scene.settings, "main") };
    let judge = |cancel| case.judge(&mirror, &tip, Timestamp::now(), Some(&AtomicBool::new(cancel)));
    assert!(judge(false).is_ok());
    // Who ends for another reason judges it again; who was given too much does not.
    let interrupted = judge(true).expect_err("the agent ends");
    assert!(matches!(interrupted, Refusal::Interrupted) && interrupted.is_passing());
    let late = Judge { longest: Duration::ZERO, ..Judge::new(&mirror, &scene.settings).expect("settings") };
    let before = Before { believed: Some(&first), floor: None, accepted: None };
    let late = late.believe(before, &tip, "main", Timestamp::now()).expect_err("it is late");
    assert!(matches!(late, Refusal::TooLong) && !late.is_passing(), "{late}");
}
