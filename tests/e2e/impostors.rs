//! Somebody else speaks for a host: whoever can push writes what they like into its refs. What it did not sign counts for nothing and is
//! counted; a rollout neither goes on nor stops by it.

use lab::{Forge, Host, Repo};

use crate::{agent, start};

const RULES: &str = "rollouts:\n  default:\n    waves: [ { where: { ring: canary } }, { share: 100% } ]\n    bake: 1s\n    max-unavailable: 1\n    failures: 0\n    silent-after: 10m\n";
const SEEN: &str = "refs/mainstay/seen/";
const NOTES: &str = "refs/notes/mainstay/";
const METRICS: &str = "curl -s --unix-socket /run/mainstay/agent.sock http://localhost/metrics";

/// Three hosts whose keys fleet.yaml names, the canary first.
struct Scene {
    _forge: Forge,
    repo: Repo,
    hosts: Vec<Host>,
    first: String,
    /// What the canary said at first, and not since.
    old: String,
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
        let mut scene = Scene { _forge: forge, repo, hosts, first, old: String::new() };
        scene.old = scene.await_sign("attic");
        scene.first = scene.repo.commit(&[("fleet.yaml", &(fleet + RULES))], "the canary first").unwrap();
        for host in &scene.hosts {
            agent::await_converged(host, &scene.first);
            scene.await_sign(host.name());
        }
        scene
    }

    /// Waits until a host has said that it is where it should be, and returns that.
    fn await_sign(&self, name: &str) -> String {
        let is_there = || Ok(Some(self.sign(name)).filter(|said| said.matches(&self.first).count() == 2));
        lab::poll(agent::SOON, is_there).unwrap().unwrap_or_else(|| panic!("{name} says {}", self.sign(name)))
    }

    fn host(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name() == name).unwrap()
    }

    /// What a host's sign of life says, as it stands in the repository.
    fn sign(&self, name: &str) -> String {
        self.repo.git(&["log", "-1", "--format=%B", &format!("{SEEN}{name}")]).unwrap_or_default()
    }

    /// Somebody writes a sign of life for a host, and the same record as its note, by force.
    fn forge(&self, name: &str, text: &str) {
        let record = text.split_once("\n\n").map_or(text, |(_, record)| record);
        self.forge_both(name, text, record);
    }

    fn forge_both(&self, name: &str, text: &str, record: &str) {
        let tree = self.repo.git_with(&["mktree"], b"").unwrap();
        let commit = self.repo.git_with(&["commit-tree", tree.trim(), "-F", "-"], text.as_bytes()).unwrap();
        self.repo.git(&["update-ref", &format!("{SEEN}{name}"), commit.trim()]).unwrap();
        let tip = self.repo.tip("main").unwrap().unwrap();
        let notes = format!("{NOTES}{name}");
        self.repo.git_with(&["notes", "--ref", &notes, "add", "-f", "-F", "-", &tip], record.as_bytes()).unwrap();
    }

    /// How much of others a host has left out so far.
    fn left_out(&self, name: &str) -> u64 {
        let text = self.host(name).sh(&format!("{METRICS} | sed -n 's/^mainstay_records_refused_total //p'"));
        text.unwrap().trim().parse().unwrap()
    }

    /// Waits until a host has left out more than that, says so, and has asked again after that.
    fn ignores(&self, name: &str, before: u64) {
        let host = self.host(name);
        let more = format!("test $({METRICS} | sed -n 's/^mainstay_records_refused_total //p') -gt {before}");
        host.wait_for(agent::SOON, &more).unwrap();
        let one = host.wait_for(agent::SOON, &format!("{METRICS} | grep -x 'mainstay_hosts_ignored 1'"));
        assert!(
            one.is_ok(),
            "{}\n{}",
            host.sh(&format!("{METRICS} | grep -E 'ignored|refused'")).unwrap(),
            agent::log(host)
        );
        self.asks_twice(name);
    }

    /// Waits until a host has asked the repository again, from beginning to end.
    fn asks_twice(&self, name: &str) {
        let count = format!("{METRICS} | sed -n 's/^mainstay_fetches_total //p'");
        let before: u64 = self.host(name).sh(&count).unwrap().trim().parse().unwrap();
        self.host(name).wait_for(agent::SOON, &format!("test $({count}) -gt {}", before + 2)).unwrap();
    }

    fn has(&self, name: &str, content: &str) {
        assert_eq!(self.host(name).read("/etc/web").unwrap(), content, "{name}");
    }
}

/// `text` as a host signs it, for a fleet.
fn signed_by(host: &Host, namespace: &str, fleet: &str, text: &str) -> String {
    host.write("/run/payload", format!("{fleet}\n{text}")).unwrap();
    let signature = host.sh(&format!(
        "rm -f /run/payload.sig; ssh-keygen -q -Y sign -f /etc/mainstay/identity -n {namespace} /run/payload; cat /run/payload.sig"
    ));
    format!("{text}{}", signature.unwrap())
}

/// Makes something out of the canary's last word, and of the one that it would say.
type Forging = fn(&Scene, &str, &str) -> String;

/// What somebody who can push writes in the name of the canary, which is off, and says that it is well with a commit; made from the
/// last that it said itself.
const FORGED: [(&str, Forging); 9] = [
    ("without a signature", |_, _, word| word.to_owned()),
    ("signed by another host", |it, _, word| signed_by(it.host("barn"), "mainstay-seen", "home", word)),
    ("its own word about another commit", |_, told, word| {
        let (_, signature) = told.rsplit_once("-----BEGIN").unwrap();
        format!("{word}-----BEGIN{signature}")
    }),
    ("an old word of its own", |it, _, _| it.old.clone()),
    ("its own word in another fleet", |it, _, word| signed_by(it.host("attic"), "mainstay-seen", "other", word)),
    ("its own word for something else", |it, _, word| signed_by(it.host("attic"), "file", "home", word)),
    ("that it failed", |_, _, word| word.replace("\"converged\"", "\"failed\"")),
    ("nonsense", |_, _, _| "\u{1b}[2J{\"mainstay-record\":1,".to_owned()),
    ("a megabyte", |_, _, word| format!("{word}{}", "x".repeat(1 << 20))),
];

#[test]
fn nobody_speaks_for_another_host() {
    let Some(lab) = start() else { return };
    let scene = Scene::start(&lab);
    // Everybody's word counts as it stands there.
    let told = scene.sign("attic");
    assert!(told.matches("-----BEGIN SSH SIGNATURE-----").count() == 2, "{told}");
    scene.host("attic").sh("systemctl stop mainstay").unwrap();
    let second = scene.repo.commit(&[("apps/web/files/etc/web", "2\n")], "second").unwrap();
    for name in ["barn", "cellar"] {
        // It waits for the canary, whose last word it has heard by now.
        let heard = "grep -q attic /var/lib/mainstay/heard.json && (mainstay plan || true) 2>&1 | grep attic";
        scene.host(name).wait_for(agent::SOON, heard).unwrap();
    }
    let word = told.split("-----BEGIN").next().unwrap().replace(&scene.first, &second);
    for (name, forged) in FORGED {
        eprintln!("{name}");
        let before = ["barn", "cellar"].map(|host| (host, scene.left_out(host)));
        scene.forge("attic", &forged(&scene, &told, &word));
        for (host, before) in before {
            scene.ignores(host, before);
            scene.has(host, "1\n");
            let plan = scene.host(host).sh("mainstay plan 2>&1 || true").unwrap();
            assert!(!plan.contains("halted"), "{name}: {plan}");
        }
    }

    // Who reads a clone sees that as well, and not what was forged.
    scene.forge("attic", &word.replace("\"converged\"", "\"failed\""));
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

/// What a host says of itself, as it stands in the repository, made into something else, and signed with its key as newer than that.
fn lies(scene: &Scene, name: &str, change: impl Fn(String) -> String) {
    let host = scene.host(name);
    let told = scene.sign(name);
    let (head, record) = told.split_once("\n\n").unwrap();
    let record = record.split("-----BEGIN").next().unwrap();
    let from = record.find("\"counter\":").unwrap() + 10;
    let digits = record[from..].chars().take_while(char::is_ascii_digit).count();
    let counter: u64 = record[from..from + digits].parse().unwrap();
    let record = change(format!("{}{}{}", &record[..from], counter + 1000, &record[from + digits..]));
    let record = signed_by(host, "mainstay-record", "home", &record);
    let at = host.sh("date -u -d '+1 second' +%Y-%m-%dT%H:%M:%SZ").unwrap();
    let head = change(head.to_owned());
    let (before, rest) = head.split_once("seen at ").unwrap();
    let (_, behind) = rest.split_once(", at ").unwrap();
    let head = format!("{before}seen at {}, at {behind}", at.trim());
    scene.forge_both(name, &signed_by(host, "mainstay-seen", "home", &format!("{head}\n\n{record}")), &record);
}

/// The release of `web` that a host is to have at a commit, as its record names it.
fn release(scene: &Scene, commit: &str) -> String {
    let url = scene.repo.ssh_url();
    let script = format!(
        "rm -rf /root/look; git clone -q {url} /root/look; cd /root/look; git checkout -q {commit}; \
         mainstay render --host barn --json | grep -o '\"release\": *\"[0-9a-f]*\"' | grep -oE '[0-9a-f]{{64}}'"
    );
    scene.host("cellar").sh(&script).unwrap().trim().to_owned()
}

/// Whoever is root on a host can lie about that one, with its key. It is a canary beside another one. That it is well takes nobody's turn
/// but its own: the other one is waited for. That it failed is one failure, and one may be. That it is changing for ever, or down, is passed over,
/// though only one may change at a time.
#[test]
fn a_host_that_lies_about_itself_is_one_host() {
    let Some(lab) = start() else { return };
    let scene = Scene::start(&lab);
    let (attic, barn) = (scene.host("attic"), scene.host("barn"));
    let key = barn.sh("cut -d ' ' -f 1-2 /etc/mainstay/identity.pub").unwrap();
    let fleet = scene.repo.show("main", "fleet.yaml").unwrap().replace("failures: 0", "failures: 1");
    let fleet = fleet.replace("max-unavailable: 1", "max-unavailable: 1\n    progress-deadline: 15s");
    let fleet =
        fleet.replace(&format!("\"{}\"", key.trim()), &format!("\"{}\", labels: {{ ring: canary }}", key.trim()));
    let before = scene.repo.commit(&[("fleet.yaml", &fleet)], "two canaries").unwrap();
    for host in &scene.hosts {
        agent::await_converged(host, &before);
    }
    let said = |commit: &str| {
        let is_there = || {
            let told = scene.sign("barn");
            Ok((told.matches(commit).count() == 2 && told.contains("converged")).then_some(()))
        };
        lab::poll(agent::SOON, is_there).unwrap().unwrap_or_else(|| panic!("barn says {}", scene.sign("barn")));
    };
    said(&before);
    let (mut first, mut old) = (before.clone(), release(&scene, &before));
    for (content, state) in [("2\n", "converged"), ("3\n", "failed"), ("4\n", "applying")] {
        eprintln!("{state}");
        for host in [attic, barn] {
            host.sh("systemctl stop mainstay").unwrap();
        }
        let next = scene.repo.commit(&[("apps/web/files/etc/web", content)], state).unwrap();
        let new = release(&scene, &next);
        lies(&scene, "barn", |text| text.replace(&first, &next).replace(&old, &new).replace("converged", state));
        // Whatever it says, the other canary comes before the rest.
        scene.asks_twice("cellar");
        scene.asks_twice("cellar");
        let told = scene.host("cellar").read("/etc/web").unwrap();
        assert_ne!(told, content, "{state}: it went on by the word of one");
        let plan = scene.host("cellar").sh("mainstay plan 2>&1 || true").unwrap();
        assert!(plan.contains("attic") && !plan.contains("halted"), "{state}: {plan}");
        attic.sh("systemctl start mainstay").unwrap();
        for name in ["attic", "cellar"] {
            // One that says that it is not available takes the only turn, until it has taken too long.
            let there = format!("systemctl show -P StatusText mainstay | grep '^converged on {}'", &next[..10]);
            scene.host(name).wait_for(3 * agent::SOON, &there).unwrap();
            scene.has(name, content);
        }
        if state == "failed" {
            let status = scene.host("cellar").sh(&format!(
                "rm -rf /root/clone; git clone -q {} /root/clone; cd /root/clone; mainstay fleet status 2>&1 || true",
                scene.repo.ssh_url()
            ));
            let status = status.unwrap();
            assert!(status.lines().any(|line| line.contains("barn") && line.contains("failed")), "its word: {status}");
        }
        barn.sh("systemctl start mainstay").unwrap();
        agent::await_converged(barn, &next);
        scene.has("barn", content);
        // Its own word, after the lie.
        said(&next);
        (first, old) = (next, new);
    }
}
