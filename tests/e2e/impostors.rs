//! Somebody else speaks for a host: whoever can push writes what they like into its refs. What it did not sign counts for nothing and is
//! counted; a rollout neither goes on nor stops by it.

use lab::{Forge, Host, Repo};

use crate::{agent, start};

const RULES: &str = "rollouts:\n  default:\n    waves: [ { where: { ring: canary } }, { share: 100% } ]\n    bake: 1s\n    max-unavailable: 1\n    failures: 0\n    silent-after: 10m\n";
const SEEN: &str = "refs/mainstay/seen/";
const NOTES: &str = "refs/notes/mainstay/";

/// Three hosts whose keys fleet.yaml names, the canary first.
struct Scene {
    _forge: Forge,
    repo: Repo,
    hosts: Vec<Host>,
    first: String,
}

impl Scene {
    fn start(lab: &lab::Lab) -> Scene {
        let forge = lab.forge().unwrap();
        let hosts = lab.boot_all(&["attic", "barn", "cellar"]).unwrap();
        let repo = forge.repo("fleet").unwrap();
        let mut fleet = String::from("fleet: home\nhosts:\n");
        for host in &hosts {
            host.sh("mkdir -p /etc/mainstay; ssh-keygen -q -t ed25519 -N '' -f /etc/mainstay/identity").unwrap();
            let key = host.sh("cut -d ' ' -f 1-2 /etc/mainstay/identity.pub").unwrap();
            let ring = if host.name() == "attic" { ", labels: { ring: canary }" } else { "" };
            fleet += &format!("  {}: {{ key: \"{}\"{ring} }}\n", host.name(), key.trim());
        }
        // Everybody at once at first, which takes less time.
        let files = [("fleet.yaml", fleet.clone()), ("apps/web/files/etc/web", "1\n".to_owned())];
        let change = files.iter().fold(repo.change(), |change, (path, text)| change.write(path, text));
        let first = change.commit("begin").unwrap();
        for host in &hosts {
            forge.authorize(host).unwrap();
            agent::follow(host, &repo.ssh_url(), &format!("host: {}\n", host.name()));
        }
        for host in &hosts {
            agent::await_converged(host, &first);
        }
        let first = repo.commit(&[("fleet.yaml", &(fleet + RULES))], "the canary first").unwrap();
        for host in &hosts {
            agent::await_converged(host, &first);
        }
        Scene { _forge: forge, repo, hosts, first }
    }

    fn host(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name() == name).unwrap()
    }

    /// What a host's sign of life says, as it stands in the repository.
    fn sign(&self, name: &str) -> String {
        self.repo.git(&["log", "-1", "--format=%B", &format!("{SEEN}{name}")]).unwrap()
    }

    /// Somebody writes a sign of life for a host, and the same record as its note, by force.
    fn forge(&self, name: &str, text: &str) {
        let tree = self.repo.git_with(&["mktree"], b"").unwrap();
        let commit = self.repo.git_with(&["commit-tree", tree.trim(), "-F", "-"], text.as_bytes()).unwrap();
        self.repo.git(&["update-ref", &format!("{SEEN}{name}"), commit.trim()]).unwrap();
        let record = text.split_once("\n\n").map_or(text, |(_, record)| record);
        let tip = self.repo.tip("main").unwrap().unwrap();
        let notes = format!("{NOTES}{name}");
        self.repo.git_with(&["notes", "--ref", &notes, "add", "-f", "-F", "-", &tip], record.as_bytes()).unwrap();
    }

    /// Waits until a host has left something out, and then until it has asked again.
    fn ignores(&self, name: &str) {
        let metrics = "curl -s --unix-socket /run/mainstay/agent.sock http://localhost/metrics";
        self.host(name).wait_for(agent::SOON, &format!("{metrics} | grep -E '^mainstay_hosts_ignored [1-9]'")).unwrap();
        let count = format!("{metrics} | sed -n 's/^mainstay_fetches_total //p'");
        let before: u64 = self.host(name).sh(&count).unwrap().trim().parse().unwrap();
        self.host(name).wait_for(agent::SOON, &format!("test $({count}) -gt {}", before + 2)).unwrap();
    }

    fn has(&self, name: &str, content: &str) {
        assert_eq!(self.host(name).read("/etc/web").unwrap(), content, "{name}");
    }
}

/// `text` as another host signs it.
fn signed_by(host: &Host, namespace: &str, text: &str) -> String {
    host.write("/run/payload", format!("home\n{text}")).unwrap();
    let signature = host.sh(&format!(
        "rm -f /run/payload.sig; ssh-keygen -q -Y sign -f /etc/mainstay/identity -n {namespace} /run/payload; cat /run/payload.sig"
    ));
    format!("{text}{}", signature.unwrap())
}

#[test]
fn nobody_speaks_for_another_host() {
    let Some(lab) = start() else { return };
    let scene = Scene::start(&lab);
    // Everybody's word counts as it stands there.
    let told = scene.sign("attic");
    assert!(told.matches("-----BEGIN SSH SIGNATURE-----").count() == 2, "{told}");
    scene.host("attic").sh("systemctl stop mainstay").unwrap();
    let second = scene.repo.commit(&[("apps/web/files/etc/web", "2\n")], "second").unwrap();
    scene.host("barn").wait_for(agent::SOON, "mainstay plan 2>&1 | grep attic").unwrap();

    // The canary is off, and somebody says in its name that it is well with the second commit: without a signature, with that of
    // another host, and with an old word of its own.
    let unsigned = told.split("-----BEGIN").next().unwrap().replace(&scene.first, &second);
    scene.forge("attic", &unsigned);
    for name in ["barn", "cellar"] {
        scene.ignores(name);
        scene.has(name, "1\n");
    }
    let by_barn = signed_by(scene.host("barn"), "mainstay-seen", &unsigned);
    scene.forge("attic", &by_barn);
    scene.ignores("cellar");
    scene.forge("attic", &told);
    scene.ignores("cellar");
    for name in ["barn", "cellar"] {
        scene.has(name, "1\n");
    }
    // Nor does it fail by what somebody else says.
    let failed = unsigned.replace("\"converged\"", "\"failed\"");
    scene.forge("attic", &failed);
    scene.ignores("barn");
    let plan = scene.host("barn").sh("mainstay plan 2>&1 || true").unwrap();
    assert!(!plan.contains("halted"), "{plan}");

    // Who reads a clone sees that as well, and not what was forged.
    let barn = scene.host("barn");
    barn.sh(&format!("git clone -q {} /root/clone", scene.repo.ssh_url())).unwrap();
    let text = barn.sh("cd /root/clone; mainstay fleet status 2>&1 || true").unwrap();
    assert!(text.contains("not signed with the key that fleet.yaml names") && !text.contains("failed"), "{text}");

    // It is back, and says itself how it is.
    scene.host("attic").sh("systemctl start mainstay").unwrap();
    for host in &scene.hosts {
        agent::await_converged(host, &second);
        scene.has(host.name(), "2\n");
    }
}
