//! Who deploys: only what was signed by somebody who may is believed, by real hosts that follow a real repository over ssh. What is
//! refused changes nothing, is named with its reason, and drift is repaired meanwhile.

use lab::{Forge, Host, Repo, Signer};

use crate::{agent, start};

/// A host that follows a repository whose commits are signed.
struct Scene {
    forge: Forge,
    repo: Repo,
    host: Host,
    ann: Signer,
    bob: Signer,
    eve: Signer,
    count: usize,
}

fn fleet(more: &str) -> String {
    format!("fleet: home\nhosts: {{ attic: {{}} }}\ntrust: {{ signers: trust/signers{more} }}\n")
}

fn people(signers: &[(&str, &Signer)]) -> String {
    signers.iter().map(|(name, signer)| format!("{name}@example.com {}\n", signer.public_key)).collect()
}

impl Scene {
    fn start(lab: &lab::Lab) -> Scene {
        let forge = lab.forge().unwrap();
        let host = lab.boot("attic").unwrap();
        let repo = forge.repo("fleet").unwrap();
        let [ann, bob, eve] = ["ann", "bob", "eve"].map(|name| forge.signer(name).unwrap());
        let files = [
            ("fleet.yaml", fleet("")),
            ("trust/signers", people(&[("ann", &ann), ("bob", &bob)])),
            ("apps/web/files/etc/web", "0\n".to_owned()),
        ];
        let change = files.iter().fold(repo.change(), |change, (path, text)| change.write(path, text));
        let first = change.signed_by(&ann).commit("begin").unwrap();
        host.write("/etc/mainstay/first", people(&[("ann", &ann)])).unwrap();
        forge.authorize(&host).unwrap();
        agent::follow(&host, &repo.ssh_url(), "trust: { signers: /etc/mainstay/first }\n");
        agent::await_converged(&host, &first);
        Scene { forge, repo, host, ann, bob, eve, count: 0 }
    }

    /// Changes the file that shows what is deployed; signed by somebody.
    fn change(&mut self, by: Option<&Signer>) -> String {
        self.count += 1;
        let change = self.repo.change().write("apps/web/files/etc/web", format!("{}\n", self.count));
        let change = match by {
            Some(by) => change.signed_by(by),
            None => change.unsigned(),
        };
        change.commit(&format!("change {}", self.count)).unwrap()
    }

    fn is_at(&self, content: &str) {
        assert_eq!(self.host.read("/etc/web").unwrap(), content);
    }

    /// The branch is at a commit that is refused for a reason; nothing changes, and drift is put back.
    fn is_refused(&self, tip: &str, reason: &str) {
        let before = self.host.read("/etc/web").unwrap();
        self.refused(tip, reason);
        self.host.sh("echo drift >/etc/web").unwrap();
        self.host.wait_for(agent::SOON, &format!("grep -x {} /etc/web", before.trim())).unwrap();
    }

    /// Returns why.
    fn refused(&self, tip: &str, reason: &str) -> String {
        agent::await_status(&self.host, &format!("{} is refused", &tip[..10]));
        let status = self.host.try_sh("mainstay --json status").unwrap();
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(status.contains(reason), "{reason}: {status}");
        status.lines().find(|line| line.contains(reason)).unwrap_or_default().trim().to_owned()
    }

    /// The branch is set to a commit, whatever it is at.
    fn set(&self, commit: &str) {
        self.repo.git(&["update-ref", "refs/heads/main", commit]).unwrap();
    }

    fn at(&self, commit: &str) -> String {
        self.set(commit);
        commit.to_owned()
    }

    fn explain(&self, commit: &str) -> String {
        String::from_utf8_lossy(&self.host.try_sh(&format!("mainstay trust explain {commit} 2>&1")).unwrap().stdout)
            .into_owned()
    }
}

/// Does something to the branch, and returns its tip.
type Attack = fn(&mut Matrix) -> String;

/// What somebody may try who can push to the branch, by its name in the list of attacks, and what is said of it.
const ATTACKS: [(&str, Attack, &str); 16] = [
    ("unsigned", |it| it.scene.change(None), "(unsigned)"),
    ("wrong signer", |it| it.scene.change(Some(&it.scene.eve.clone())), "(unknown-signer)"),
    ("wrong signer, with OpenPGP", |it| it.scene.change(Some(&it.mallory.clone())), "(unknown-signer)"),
    ("a key that is out of date", |it| it.scene.change(Some(&it.dan.clone())), "(not-valid)"),
    ("a key that its owner revoked, a signed merge", |it| it.merged(&it.gils.clone()), "(unknown-signer)"),
    ("a key that was removed", |it| it.scene.change(Some(&it.scene.bob.clone())), "(unknown-signer)"),
    ("unsigned in the middle, a signed tip", Matrix::covered, "(unsigned)"),
    ("a key that was removed, a signed merge", |it| it.merged(&it.bobs.clone()), "which was removed from those who"),
    ("a signature for something else than git", Matrix::for_a_file, "(bad-signature)"),
    ("a signature of another commit", Matrix::transplanted, "(bad-signature)"),
    ("added by one's own word", Matrix::added_by_herself, "counts from the next one on"),
    ("replay of an older commit", |it| it.scene.at(&it.older.clone()), "is older than"),
    ("rewrite", Matrix::rewritten, "does not go on from"),
    ("another repository of the same people", Matrix::of_another_repository, "does not go on from"),
    ("meant for another branch", Matrix::for_another_branch, "for the branch `prod`"),
    ("nobody left who signs", Matrix::without_signers, "trust/signers"),
];

/// A branch with a history: bob was removed, gil revoked his key, dan's ran out.
struct Matrix {
    scene: Scene,
    mallory: Signer,
    dan: Signer,
    /// A commit from before bob was removed, and what is believed now.
    older: String,
    good: String,
    /// What bob and gil signed before that, and that was never merged.
    bobs: String,
    gils: String,
}

impl Matrix {
    fn start(lab: &lab::Lab) -> Matrix {
        let mut scene = Scene::start(lab);
        let forge = &scene.forge;
        let [gil, una, mallory] = ["gil", "una", "mallory"].map(|name| forge.openpgp_signer(name).unwrap());
        let dan = forge.signer("dan").unwrap();
        let (ann, bob) = (scene.ann.clone(), scene.bob.clone());
        let named = fleet("").replace("trust/signers", "[trust/signers, trust/people.asc]");
        let dans = format!("dan@example.com valid-before=\"20200101Z\" {}\n", dan.public_key);
        let all = people(&[("ann", &ann), ("bob", &bob)]) + &dans;
        let change = scene.repo.change().write("fleet.yaml", named).write("trust/signers", all);
        let older = change
            .write("trust/people.asc", format!("{}{}", gil.public_key, una.public_key))
            .signed_by(&ann)
            .commit("more people")
            .unwrap();
        let [bobs, gils] = [&bob, &gil].map(|signer| {
            let side = scene.change(Some(signer));
            scene.set(&older);
            side
        });
        let revoked = scene.forge.revoke(&gil).unwrap();
        let change = scene.repo.change().write("trust/signers", people(&[("ann", &ann)]) + &dans);
        // One to drift beside each attack: a file that is changed again and again is somebody's, and left alone.
        let change = (0..ATTACKS.len())
            .fold(change, |change, number| change.write(&format!("apps/web/files/etc/drift/{number}"), "ours\n"));
        let good =
            change.write("trust/people.asc", revoked + &una.public_key).signed_by(&ann).commit("less of them").unwrap();
        agent::await_converged(&scene.host, &good);
        Matrix { scene, mallory, dan, older, good, bobs, gils }
    }

    /// Writes a commit as it stands there, and sets the branch to it.
    fn raw(&self, text: &str) -> String {
        let id = self.scene.repo.git_with(&["hash-object", "-t", "commit", "-w", "--stdin"], text.as_bytes()).unwrap();
        self.scene.at(id.trim())
    }

    fn text(&self, commit: &str) -> String {
        self.scene.repo.git(&["cat-file", "commit", commit]).unwrap()
    }

    fn covered(&mut self) -> String {
        self.scene.change(None);
        self.scene.change(Some(&self.scene.ann.clone()))
    }

    fn merged(&mut self, side: &str) -> String {
        let tip = self.scene.change(Some(&self.scene.ann.clone()));
        let tree = format!("{tip}^{{tree}}");
        let sign = ["-c", "gpg.format=ssh", "-c", "user.signingKey=/home/git/signer-ann", "commit-tree", "-S"];
        let merge = [&sign[..], &["-m", "merge", "-p", &tip, "-p", side, &tree]].concat();
        let merge = self.scene.repo.git(&merge).unwrap();
        self.scene.at(merge.trim())
    }

    fn for_a_file(&mut self) -> String {
        let unsigned = self.scene.change(None);
        let text = self.text(&unsigned);
        self.scene.forge.write("/run/payload", &text).unwrap();
        let sign = "rm -f /run/payload.sig; ssh-keygen -q -Y sign -f /home/git/signer-ann -n file /run/payload";
        self.scene.forge.sh(sign).unwrap();
        let signature = self.scene.forge.read("/run/payload.sig").unwrap();
        self.raw(&signed(&text, &signature))
    }

    fn transplanted(&mut self) -> String {
        let text = self.text(&self.good);
        let (_, behind) = text.split_once("gpgsig ").unwrap();
        let signature: Vec<&str> = behind.lines().take_while(|line| !line.is_empty()).map(str::trim_start).collect();
        let unsigned = self.scene.change(None);
        self.raw(&signed(&self.text(&unsigned), &signature.join("\n")))
    }

    fn added_by_herself(&mut self) -> String {
        let (ann, eve) = (&self.scene.ann, &self.scene.eve);
        let both = people(&[("ann", ann), ("eve", eve)]);
        self.scene.repo.change().write("trust/signers", both).signed_by(eve).commit("me too").unwrap()
    }

    fn rewritten(&mut self) -> String {
        self.scene.set(&self.older);
        self.scene.change(Some(&self.scene.ann.clone()))
    }

    fn of_another_repository(&mut self) -> String {
        self.scene.repo.git(&["update-ref", "-d", "refs/heads/main"]).unwrap();
        let ann = self.scene.ann.clone();
        let files = [("fleet.yaml", fleet("")), ("trust/signers", people(&[("ann", &ann)]))];
        let change = files.iter().fold(self.scene.repo.change(), |change, (path, text)| change.write(path, text));
        change.write("apps/web/files/etc/web", "elsewhere\n").signed_by(&ann).commit("another one").unwrap()
    }

    fn for_another_branch(&mut self) -> String {
        let change = self.scene.repo.change().write("fleet.yaml", fleet(", branch: prod"));
        change.signed_by(&self.scene.ann).commit("for prod").unwrap()
    }

    fn without_signers(&mut self) -> String {
        let change = self.scene.repo.change().write("trust/signers", "# nobody\n").remove("trust/people.asc");
        change.write("fleet.yaml", fleet("")).signed_by(&self.scene.ann).commit("nobody").unwrap()
    }
}

/// Puts a signature into a commit, as git does (gitformat-signature(5)).
fn signed(commit: &str, signature: &str) -> String {
    let (headers, message) = commit.split_once("\n\n").unwrap();
    format!("{headers}\ngpgsig {}\n\n{message}", signature.trim().replace('\n', "\n "))
}

#[test]
fn whatever_is_pushed_is_refused_for_its_reason_and_changes_nothing() {
    let Some(lab) = start() else { return };
    let mut matrix = Matrix::start(&lab);
    for (number, (name, attack, reason)) in ATTACKS.into_iter().enumerate() {
        let before = matrix.scene.host.read("/etc/web").unwrap();
        let tip = attack(&mut matrix);
        let host = &matrix.scene.host;
        eprintln!("{name}: {}", matrix.scene.refused(&tip, reason));
        host.sh(&format!("echo drift >/etc/drift/{number}")).unwrap();
        host.wait_for(agent::SOON, &format!("grep -x ours /etc/drift/{number}")).unwrap();
        assert_eq!(host.read("/etc/web").unwrap(), before, "{name}");
        matrix.scene.set(&matrix.good);
        agent::await_converged(&matrix.scene.host, &matrix.good);
    }
    // A branch that is gone takes nothing away, and the loss of the state does not help an older commit.
    let Matrix { scene, good, older, .. } = &matrix;
    scene.repo.git(&["update-ref", "-d", "refs/heads/main"]).unwrap();
    scene.host.wait_for(agent::SOON, "(mainstay status || true) | grep -F 'has no branch `main`'").unwrap();
    scene.host.sh("echo drift >/etc/web").unwrap();
    scene.host.wait_for(agent::SOON, "grep -x 0 /etc/web").unwrap();
    scene.host.sh("systemctl stop mainstay; rm -rf /var/lib/mainstay/*").unwrap();
    scene.repo.git(&["update-ref", "refs/heads/main", older]).unwrap();
    scene.host.sh("systemctl start mainstay").unwrap();
    scene.host.wait_for(agent::SOON, "{ mainstay --json status || true; } | grep -F 'does not go on from'").unwrap();
    scene.set(good);
    agent::await_converged(&scene.host, good);
}

#[test]
fn who_may_sign_changes_by_who_may() {
    let Some(lab) = start() else { return };
    let mut scene = Scene::start(&lab);
    let (ann, bob, eve) = (scene.ann.clone(), scene.bob.clone(), scene.eve.clone());
    let good = scene.change(Some(&bob));
    agent::await_converged(&scene.host, &good);
    scene.is_at("1\n");
    let unsigned = scene.change(None);
    scene.is_refused(&unsigned, "(unsigned)");
    assert!(scene.explain(&unsigned).contains("it is not signed"), "{}", scene.explain(&unsigned));
    scene.set(&good);

    // Who was removed is out, and who was added is in.
    let change = scene.repo.change().write("trust/signers", people(&[("ann", &ann), ("eve", &eve)]));
    let removed = change.signed_by(&ann).commit("eve for bob").unwrap();
    agent::await_converged(&scene.host, &removed);
    let by_eve = scene.change(Some(&eve));
    agent::await_converged(&scene.host, &by_eve);
    let by_bob = scene.change(Some(&bob));
    scene.is_refused(&by_bob, "(unknown-signer)");
    scene.set(&by_eve);
    agent::await_converged(&scene.host, &by_eve);
    assert!(scene.explain(&by_eve).contains("this is what the host is held to"), "{}", scene.explain(&by_eve));

    // The agent starts anew: it enforces what it believed, and refuses what it refused.
    let again = scene.change(Some(&bob));
    scene.host.sh("systemctl restart mainstay").unwrap();
    scene.is_refused(&again, "(unknown-signer)");
}

#[test]
fn a_branch_goes_neither_back_nor_sideways_unless_somebody_says_so() {
    let Some(lab) = start() else { return };
    let mut scene = Scene::start(&lab);
    let ann = scene.ann.clone();
    let one = scene.change(Some(&ann));
    let two = scene.change(Some(&ann));
    agent::await_converged(&scene.host, &two);
    scene.set(&one);
    scene.is_refused(&one, "is older than");
    // The loss of the state takes it no further back.
    scene.host.sh("systemctl stop mainstay; rm -rf /var/lib/mainstay/*; systemctl start mainstay").unwrap();
    scene.host.wait_for(agent::SOON, "{ mainstay --json status || true; } | grep -F 'does not go on from'").unwrap();
    scene.is_at("2\n");
    scene.set(&two);
    agent::await_converged(&scene.host, &two);

    // Another repository with the same people, and the same branch rewritten.
    scene.repo.git(&["update-ref", "-d", "refs/heads/main"]).unwrap();
    let files = [
        ("fleet.yaml", fleet("")),
        ("trust/signers", people(&[("ann", &scene.ann)])),
        ("apps/web/files/etc/web", "3\n".to_owned()),
    ];
    let change = files.iter().fold(scene.repo.change(), |change, (path, text)| change.write(path, text));
    let other = change.signed_by(&ann).commit("another history").unwrap();
    scene.is_refused(&other, "does not go on from");
    let said = scene.host.try_sh(&format!("mainstay accept-rewrite {one} {other} 2>&1")).unwrap();
    assert!(!said.status.success() && String::from_utf8_lossy(&said.stdout).contains("believes"), "{said:?}");
    scene.host.sh(&format!("mainstay accept-rewrite {two} {other}")).unwrap();
    agent::await_converged(&scene.host, &other);
    scene.is_at("3\n");

    // Said in the repository, by somebody who may; and not by somebody who may not.
    scene.repo.git(&["update-ref", "-d", "refs/heads/main"]).unwrap();
    let replaces = fleet(&format!(", replaces: [{other}]"));
    let files = [
        ("fleet.yaml", replaces),
        ("trust/signers", people(&[("ann", &scene.ann), ("eve", &scene.eve)])),
        ("apps/web/files/etc/web", "4\n".to_owned()),
    ];
    let with = |signer: &Signer| {
        let change = files.iter().fold(scene.repo.change(), |change, (path, text)| change.write(path, text));
        change.signed_by(signer).commit("in place of the other").unwrap()
    };
    let by_eve = with(&scene.eve);
    scene.is_refused(&by_eve, "(unknown-signer)");
    scene.repo.git(&["update-ref", "-d", "refs/heads/main"]).unwrap();
    let by_ann = with(&ann);
    agent::await_converged(&scene.host, &by_ann);
    scene.is_at("4\n");
}

#[test]
fn a_host_that_was_not_told_whom_to_believe_believes_nobody() {
    let Some(lab) = start() else { return };
    let forge = lab.forge().unwrap();
    let host = lab.boot("attic").unwrap();
    let repo = forge.repo("fleet").unwrap();
    let ann = forge.signer("ann").unwrap();
    let files = [
        ("fleet.yaml", fleet("")),
        ("trust/signers", people(&[("ann", &ann)])),
        ("apps/web/files/etc/web", "0\n".to_owned()),
    ];
    let change = files.iter().fold(repo.change(), |change, (path, text)| change.write(path, text));
    let first = change.signed_by(&ann).commit("begin").unwrap();
    forge.authorize(&host).unwrap();
    agent::follow(&host, &repo.ssh_url(), "trust: {}\n");
    let refused = |reason: &str| {
        host.wait_for(agent::SOON, &format!("{{ mainstay --json status || true; }} | grep -F '{reason}'")).unwrap();
        host.sh("test ! -e /etc/web").unwrap();
    };
    refused("this host was not told by whom");
    for (text, reason) in [("# nobody\n", "names nobody"), ("ann ssh-ed25519 AAAA\n", "the key is damaged")] {
        host.write("/etc/mainstay/first", text).unwrap();
        agent::set(&host, &repo.ssh_url(), "trust: { signers: /etc/mainstay/first }\n");
        host.sh("systemctl restart mainstay").unwrap();
        refused(reason);
    }
    host.sh("rm /etc/mainstay/first; systemctl restart mainstay").unwrap();
    refused("cannot be read");
    host.write("/etc/mainstay/first", people(&[("ann", &ann)])).unwrap();
    host.sh("systemctl restart mainstay").unwrap();
    agent::await_converged(&host, &first);
}

#[test]
fn signatures_of_openpgp_count_like_those_of_ssh() {
    let Some(lab) = start() else { return };
    let forge = lab.forge().unwrap();
    let host = lab.boot("attic").unwrap();
    let repo = forge.repo("fleet").unwrap();
    let (ann, gil, eve) =
        (forge.signer("ann").unwrap(), forge.openpgp_signer("gil").unwrap(), forge.openpgp_signer("eve").unwrap());
    let named = fleet("").replace("trust/signers", "[trust/signers, trust/people.asc]");
    let web = |number: u32| repo.change().write("apps/web/files/etc/web", format!("{number}\n"));
    let begin = web(0)
        .write("fleet.yaml", named)
        .write("trust/signers", people(&[("ann", &ann)]))
        .write("trust/people.asc", &gil.public_key);
    let first = begin.signed_by(&ann).commit("begin").unwrap();
    host.write("/etc/mainstay/first", people(&[("ann", &ann)])).unwrap();
    forge.authorize(&host).unwrap();
    agent::follow(&host, &repo.ssh_url(), "trust: { signers: /etc/mainstay/first }\n");
    agent::await_converged(&host, &first);
    let by_gil = web(1).signed_by(&gil).commit("by gil").unwrap();
    agent::await_converged(&host, &by_gil);
    let explained = host.sh("mainstay trust explain").unwrap();
    assert!(explained.contains("it is signed with openpgp:"), "{explained}");

    let refused = |tip: &str, reason: &str| {
        agent::await_status(&host, &format!("{} is refused", &tip[..10]));
        let status = String::from_utf8(host.try_sh("mainstay --json status").unwrap().stdout).unwrap();
        assert!(status.contains(reason), "{reason}: {status}");
        repo.git(&["update-ref", "refs/heads/main", &by_gil]).unwrap();
        agent::await_converged(&host, &by_gil);
    };
    let by_eve = web(2).signed_by(&eve).commit("by eve").unwrap();
    refused(&by_eve, "(unknown-signer)");
    // Nor does she count once she is added by her own word, or before somebody who may has said so.
    let both = format!("{}{}", gil.public_key, eve.public_key);
    let herself = web(2).write("trust/people.asc", &both).signed_by(&eve).commit("me too").unwrap();
    refused(&herself, "counts from the next one on");

    // A key that its owner revoked is out with the certificate that says so.
    let revoked = forge.revoke(&gil).unwrap();
    let told = web(3).write("trust/people.asc", format!("{revoked}{}", eve.public_key));
    let told = told.signed_by(&ann).commit("gil lost his key").unwrap();
    agent::await_converged(&host, &told);
    let by_eve = web(4).signed_by(&eve).commit("by eve, who may now").unwrap();
    agent::await_converged(&host, &by_eve);
    assert_eq!(host.read("/etc/web").unwrap(), "4\n");
}

#[test]
fn a_branch_that_is_quieter_than_it_promises_is_stale() {
    let Some(lab) = start() else { return };
    let mut scene = Scene::start(&lab);
    let ann = scene.ann.clone();
    let change = scene.repo.change().write("fleet.yaml", fleet(", max-age: 1h"));
    // That is over in a moment, whatever a server has to say by then.
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3570);
    let old = change.at(old).signed_by(&ann).commit("it promises one each hour").unwrap();
    agent::await_converged(&scene.host, &old);
    let metric =
        "curl -s --unix-socket /run/mainstay/agent.sock http://localhost/metrics | grep -x 'mainstay_commit_stale";
    scene.host.sh(&format!("{metric} 0'")).unwrap();
    scene.host.wait_for(agent::SOON, "(mainstay status || true) | grep -F 'STALE: the newest commit is of'").unwrap();
    scene.host.wait_for(agent::SOON, &format!("{metric} 1'")).unwrap();
    scene.host.wait_for(agent::SOON, "systemctl status mainstay | grep 'Status: .*; STALE'").unwrap();
    scene
        .host
        .wait_for(agent::SOON, "journalctl -u mainstay --no-pager | grep -i 'newer ones may be withheld'")
        .unwrap();
    let quiet = scene.change(Some(&ann));
    agent::await_converged(&scene.host, &quiet);
    scene.host.wait_for(agent::SOON, &format!("{metric} 0'")).unwrap();
}
