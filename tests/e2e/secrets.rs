//! What is encrypted in a repository: written by its author with the commands of this program, read by the one service that is to have it,
//! and by nobody else on the host, in the repository, or in anything that anybody printed.

use lab::{Forge, Host, Repo};

use crate::{agent, start};

/// Where the author works.
const DESK: &str = "/root/fleet";
/// Where the test keeps what is secret, which is searched for everywhere else.
const PLANTED: &str = "/run/planted";
const SHOP: &str = "[Service]\nExecStart=/bin/sleep infinity\nLoadCredential=db:/etc/shop/db\nLoadCredential=key:/etc/shop/tls.key\n\
                    [Install]\nWantedBy=multi-user.target\n";
const OTHER: &str = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";
/// Where something secret may be on a host: opened, handed on by systemd, and where its owner put it.
const PLACES: [&str; 3] = ["/run/mainstay/secrets/", "/run/credentials/", "/etc/mainstay/private/"];
const OPENED: &str = "/run/mainstay/secrets/shop/etc/shop";

struct Scene {
    forge: Forge,
    repo: Repo,
    host: Host,
    desk: Host,
    planted: Vec<String>,
}

impl Scene {
    fn start(lab: &lab::Lab) -> Scene {
        Scene::with(lab, |_| {
            vec![
                ("apps/shop/shop.service", SHOP.to_owned()),
                ("apps/shop/files/etc/shop/db.j2", "user=smith password={{ secret(\"shop.db\") }}\n".to_owned()),
                ("apps/other/other.service", OTHER.to_owned()),
            ]
        })
    }

    /// With these applications.
    fn with(lab: &lab::Lab, apps: impl FnOnce(&Forge) -> Vec<(&'static str, String)>) -> Scene {
        let forge = lab.forge().unwrap();
        let mut hosts = lab.boot_all(&["attic", "desk"]).unwrap();
        let (desk, host) = (hosts.remove(1), hosts.remove(0));
        let repo = forge.repo("fleet").unwrap();
        agent::install(&desk);
        desk.sh("mkdir -p /root/.config/mainstay; age-keygen -o /root/.config/mainstay/identity 2>/dev/null").unwrap();
        // An editor that writes what was planted in the place of what it is given.
        desk.write("/usr/local/bin/plant", format!("#!/bin/sh\ncat {PLANTED}/next >\"$1\"\n")).unwrap();
        desk.sh(&format!("chmod 0755 /usr/local/bin/plant; mkdir -p {PLANTED}")).unwrap();
        host.sh("mkdir -p /etc/mainstay; ssh-keygen -q -t ed25519 -N '' -f /etc/mainstay/identity").unwrap();
        let scene = Scene { forge, repo, host, desk, planted: Vec::new() };
        let key = scene.host.sh("cut -d ' ' -f 1-2 /etc/mainstay/identity.pub").unwrap();
        let ann = scene.desk.sh("age-keygen -y /root/.config/mainstay/identity").unwrap();
        let fleet = format!(
            "fleet: home\nhosts: {{ attic: {{ key: \"{}\" }} }}\nrecipients: [{}]\n\
             trust: {{ signers: trust/signers, branch: main }}\n",
            key.trim(),
            ann.trim()
        );
        let signers = scene.host.read("/usr/share/lab/signers").unwrap();
        let apps = apps(&scene.forge);
        let mut files = vec![("fleet.yaml", fleet.as_str()), ("trust/signers", signers.as_str())];
        files.extend(apps.iter().map(|(path, text)| (*path, text.as_str())));
        agent::write_folder(&scene.desk, DESK, &files);
        scene
    }

    /// Makes up something that is nowhere yet.
    fn plant(&mut self, name: &str) -> String {
        let secret = format!("canary-{name}-{:016x}", unheard_of(self.planted.len()));
        self.planted.push(secret.clone());
        secret
    }

    /// Plants what the settings of the host name, and returns these.
    fn plant_settings(&mut self) -> String {
        let [token, hook, git, registry, receiver] =
            ["token", "hook", "git", "registry", "receiver"].map(|name| self.plant(name));
        use std::fmt::Write as _;
        let mut script = String::from("umask 077; mkdir -p /etc/mainstay/private; cd /etc/mainstay/private\n");
        for (name, secret) in [("token", &token), ("hook", &hook), ("git", &git)] {
            writeln!(script, "echo {secret} >{name}").unwrap();
        }
        writeln!(
            script,
            "echo '{{\"auths\":{{\"r.example\":{{\"username\":\"u\",\"password\":\"{registry}\"}}}}}}' >auth.json"
        )
        .unwrap();
        writeln!(script, "echo 'https://127.0.0.1:1/{receiver}' >receiver").unwrap();
        self.host.sh(&script).unwrap();
        let at = "/etc/mainstay/private";
        format!(
            "registries: {at}/auth.json\ngit: {{ token: {at}/git }}\n\
             endpoint: {{ listen: [\"127.0.0.1:9105\"], token: {at}/token, hooks: {at}/hook }}\n\
             alerts: {{ slack: {at}/receiver }}\n"
        )
    }

    /// Runs a command as the author.
    fn author(&self, command: &str) -> String {
        let output = self.desk.try_sh(&format!("cd {DESK}; HOME=/root EDITOR=plant {command} 2>&1")).unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{command}: {said}");
        said
    }

    fn edit(&self, file: &str, text: &str) -> String {
        self.desk.write(&format!("{PLANTED}/next"), text).unwrap();
        self.author(&format!("mainstay secret edit {file}"))
    }

    /// Commits what the author has in hand.
    fn commit(&self, message: &str) -> String {
        let files = self.desk.sh(&format!("cd {DESK}; find . -type f -printf '%P\\n'")).unwrap();
        let change = files.lines().fold(self.repo.change().remove_all(), |change, path| {
            change.write(path, self.desk.read(&format!("{DESK}/{path}")).unwrap())
        });
        change.commit(message).unwrap()
    }

    /// Looks for everything that was planted, and names where it is, apart from where it may be: there something `is_found`, or nothing
    /// any more.
    fn hits(&self, is_found: bool) -> String {
        let mut found = String::new();
        let patterns: String = self.planted.iter().flat_map(|secret| spelt(secret)).map(|it| it + "\n").collect();
        for (host, may) in [(&self.host, &PLACES[..]), (&self.desk, &[])] {
            // Nothing found is what is hoped for, and no failure.
            let script = format!(
                "set +e +o pipefail
                what={PLANTED}/patterns
                grep -raslF --exclude-dir=proc --exclude-dir=sys --exclude-dir=planted -f $what /
                for it in /proc/[0-9]*; do grep -asqF -f $what $it/environ && echo $it/environ; done
                for it in /proc/[0-9]*; do grep -asqF -f $what $it/cmdline && echo $it/cmdline; done
                grep -aF -f $what {PLANTED}/executed
                for it in /var/lib/mainstay*/mirror.git; do
                    git --git-dir $it cat-file --batch-all-objects --batch --buffer --unordered | grep -aqF -f $what && echo in $it
                done
                journalctl -a --no-pager | grep -aF -f $what
                echo searched"
            );
            host.sh(&format!("mkdir -p {PLANTED}")).unwrap();
            host.write(&format!("{PLANTED}/patterns"), &patterns).unwrap();
            let said = host.sh(&script).unwrap();
            let hits = said.strip_suffix("searched\n").unwrap_or_else(|| panic!("it ended before: {said}"));
            let (mut meant, stray): (Vec<&str>, Vec<&str>) =
                hits.lines().partition(|hit| may.iter().any(|place| hit.starts_with(place)));
            meant.retain(|hit| !hit.starts_with(PLACES[2]));
            assert_eq!(!meant.is_empty(), is_found && !may.is_empty(), "{}: {hits}", host.name());
            found.extend(stray.iter().map(|hit| format!("{}: {hit}\n", host.name())));
        }
        let said = self.said();
        let objects =
            self.repo.git(&["cat-file", "--batch-all-objects", "--batch", "--buffer", "--unordered"]).unwrap();
        for secret in self.planted.iter().flat_map(|secret| spelt(secret)) {
            found += if said.contains(&secret) { "something printed it\n" } else { "" };
            found += if objects.contains(&secret) { "the repository holds it\n" } else { "" };
        }
        found
    }

    /// Writes down, from now on, whatever the two processes have executed, with all arguments and variables: it is over before anybody looks.
    fn watch_executed(&self) -> lab::Running {
        let traced = format!(
            "mkdir -p {PLANTED}; exec strace -f -q -v -s 100000 -e trace=execve,execveat -o {PLANTED}/executed \
             $(for unit in mainstay mainstay-fetch; do systemctl show -P MainPID $unit | grep -v '^0$' | sed 's/^/-p /'; done)"
        );
        let running = self.host.spawn(&["sh", "-c", &traced]).unwrap();
        self.host
            .wait_for(
                agent::SOON,
                "grep -q '^TracerPid:[[:space:]]*[1-9]' /proc/$(systemctl show -P MainPID mainstay)/status",
            )
            .unwrap();
        running
    }

    /// Everything that can be asked for on the host.
    fn said(&self) -> String {
        let commands = [
            "mainstay status",
            "mainstay --json status",
            "mainstay plan",
            "mainstay --json plan",
            "mainstay history",
            "mainstay logs shop",
            "mainstay doctor",
            "mainstay settings",
            "systemctl status shop mainstay",
            "systemctl show shop mainstay",
            "coredumpctl --no-pager",
            "mainstay trust explain",
            "podman inspect $(podman ps -aq)",
            "docker inspect $(docker ps -aq)",
        ];
        let paths = ["/metrics", "/v1/status", "/v1/plan", "/v1/history", "/v1/annotations", "/"];
        let asked = paths.map(|path| format!("curl -s --unix-socket /run/mainstay/agent.sock http://localhost{path}"));
        let all: Vec<String> = commands.into_iter().map(str::to_owned).chain(asked).collect();
        self.host.sh(&format!("set +e; ({}) 2>&1; true", all.join("; "))).unwrap()
    }
}

/// Returns a secret as it is, and what of it is in any text in base64 (RFC 4648, section 4), wherever it begins there.
fn spelt(secret: &str) -> Vec<String> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = |from: usize| -> String {
        let groups = secret.as_bytes()[from..].chunks_exact(3);
        let digits = groups.flat_map(|it| {
            let all = u32::from_be_bytes([0, it[0], it[1], it[2]]);
            [18, 12, 6, 0].map(|by| char::from(DIGITS[(all >> by) as usize & 63]))
        });
        digits.collect()
    };
    vec![secret.to_owned(), bits(0), bits(1), bits(2)]
}

/// Different in every run, so that nothing that an earlier one left is found.
fn unheard_of(count: usize) -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(count)
}

#[test]
fn what_is_encrypted_reaches_its_reader_and_nobody_else() {
    let Some(lab) = start() else { return };
    let mut scene = Scene::start(&lab);
    let (db, key) = (scene.plant("db"), scene.plant("key"));
    let said = scene.edit("secrets/shop.yaml", &format!("# of the shop\nshop:\n  db: {db}\n"));
    assert!(said.contains("1 value encrypted for 1 host and 1 person"), "{said}");
    // A file in the clear becomes one that is not.
    scene.desk.sh(&format!("printf '%s\\n' '{key}' >{DESK}/apps/shop/files/etc/shop/tls.key")).unwrap();
    let said = scene.author("mainstay secret encrypt apps/shop/files/etc/shop/tls.key");
    assert!(said.contains("tls.key is gone"), "{said}");
    assert_eq!(scene.author("mainstay secret show shop.db"), db);
    // What this program encrypts, age opens, and the other way round.
    let sealed = format!("{DESK}/apps/shop/files/etc/shop/tls.key.age");
    assert_eq!(scene.desk.sh(&format!("age -d -i /root/.config/mainstay/identity {sealed}")).unwrap().trim(), key);
    scene.author("mainstay secret check");
    scene.author("mainstay check");
    let first = scene.commit("what is secret");
    scene.forge.authorize(&scene.host).unwrap();
    let settings = scene.plant_settings();
    agent::follow(&scene.host, &scene.repo.ssh_url(), &settings);
    agent::await_converged(&scene.host, &first);

    let host = &scene.host;
    let credential = |name: &str| host.read(&format!("/run/credentials/shop.service/{name}")).unwrap();
    assert_eq!(credential("db"), format!("user=smith password={db}\n"));
    assert_eq!(credential("key").trim(), key);
    assert_eq!(host.sh("stat -c '%F %a %U:%G' -L /etc/shop/db").unwrap(), "regular file 600 root:root\n");
    assert_eq!(
        host.sh("stat -f -c %T -L /etc/shop/db; readlink /etc/shop/db").unwrap(),
        format!("tmpfs\n{OPENED}/db\n")
    );
    assert_eq!(scene.hits(true), "");

    // What is still to come is planned, and nothing of it is shown.
    scene.host.sh("systemctl stop mainstay").unwrap();
    let later = scene.plant("later");
    scene.edit("secrets/shop.yaml", &format!("# of the shop\nshop:\n  db: {later}\n"));
    let waits = scene.commit("a value that waits");
    let plan = scene.host.sh("mainstay plan 2>&1 || true").unwrap();
    assert!(plan.contains("restart  shop.service"), "{plan}");
    assert_eq!(scene.hits(true), "");
    scene.host.sh("systemctl start mainstay").unwrap();
    agent::await_converged(&scene.host, &waits);
    let _watch = scene.watch_executed();
    let host = &scene.host;

    // Another value restarts who reads it, and nobody else.
    let (shop, other) = (agent::invocation(host, "shop"), agent::invocation(host, "other"));
    let again = scene.plant("again");
    scene.edit("secrets/shop.yaml", &format!("# of the shop\nshop:\n  db: {again}\n"));
    let second = scene.commit("another value");
    let host = &scene.host;
    agent::await_converged(host, &second);
    assert_eq!(host.read("/run/credentials/shop.service/db").unwrap(), format!("user=smith password={again}\n"));
    assert!(agent::invocation(host, "shop") != shop && agent::invocation(host, "other") == other);

    // An editor that puts a copy in the place of the link leaves it on a disk, and no backup keeps it there.
    scene.host.sh("sed -i s/smith/jones/ /etc/shop/db").unwrap();
    scene.host.wait_for(agent::SOON, "test -L /etc/shop/db").unwrap();
    agent::await_rest(&scene.host);
    assert_eq!(scene.hits(true), "");
    // Something was executed, or nothing was watched.
    assert!(!scene.host.sh(&format!("grep -c execve {PLANTED}/executed || true")).unwrap().starts_with('0'));

    // Who writes into it makes it drift, and no backup of it.
    scene.host.sh(&format!("echo spoilt >>{OPENED}/db")).unwrap();
    scene.host.wait_for(agent::SOON, &format!("! grep -q spoilt {OPENED}/db")).unwrap();
    agent::await_rest(&scene.host);
    assert_eq!(scene.hits(true), "");

    // The same, encrypted anew, restarts nobody.
    let shop = agent::invocation(&scene.host, "shop");
    let said = scene.author("mainstay secret rekey --all");
    assert!(said.contains("secrets/shop.yaml: 1 value"), "{said}");
    let third = scene.commit("encrypted anew");
    agent::await_converged(&scene.host, &third);
    assert_eq!(agent::invocation(&scene.host, "shop"), shop);

    // It is put back like anything else, also where the whole folder was emptied, as a boot does.
    scene.host.sh(&format!("rm -rf {OPENED}")).unwrap();
    scene.host.wait_for(agent::SOON, &format!("test -s {OPENED}/db")).unwrap();
    assert_eq!(scene.host.read(&format!("{OPENED}/db")).unwrap(), format!("user=smith password={again}\n"));

    // An agent that dies in the middle leaves nothing of it in a core: there is none, of it or of who talks to servers in its place.
    for unit in ["mainstay-fetch", "mainstay"] {
        scene.host.sh("mainstay sync").unwrap();
        // Not even where cores are piped to a program, which no limit keeps from it: what is nobody's to read is root's there (proc(5)).
        scene.host.sh(&format!("test $(stat -c %U /proc/$(systemctl show -P MainPID {unit})/environ) = root")).unwrap();
        scene.host.sh(&format!("kill -ABRT $(systemctl show -P MainPID {unit})")).unwrap();
        agent::await_converged(&scene.host, &third);
    }
    assert_eq!(scene.hits(true), "");
    let cores = "find / -xdev \\( -name 'core' -o -name 'core.*' -o -path '/var/lib/systemd/coredump/*' -o -path '/var/crash/*' \\) \
                 -type f -not -path '/proc/*' -not -path '/sys/*' -not -path '/usr/*'";
    assert_eq!(scene.host.sh(cores).unwrap(), "");
}

#[test]
fn what_cannot_be_opened_leaves_the_old_value_and_what_is_not_wanted_is_gone() {
    let Some(lab) = start() else { return };
    let mut scene = Scene::start(&lab);
    let (db, key) = (scene.plant("db"), scene.plant("key"));
    scene.edit("secrets/shop.yaml", &format!("shop:\n  db: {db}\n"));
    scene.edit("apps/shop/files/etc/shop/tls.key.age", &key);
    let first = scene.commit("what is secret");
    scene.forge.authorize(&scene.host).unwrap();
    agent::follow(&scene.host, &scene.repo.ssh_url(), "");
    agent::await_converged(&scene.host, &first);
    let shop = agent::invocation(&scene.host, "shop");

    // Somebody encrypts for a key of age that the repository takes for that of the host.
    let wrong = scene.desk.sh("age-keygen 2>/dev/null | age-keygen -y").unwrap();
    scene
        .desk
        .sh(&format!("cd {DESK}; sed -i 's/attic: {{/attic: {{ recipient: {},/' fleet.yaml", wrong.trim()))
        .unwrap();
    let said = scene.author("mainstay secret rekey");
    assert!(said.contains("somebody could read it before"), "{said}");
    let second = scene.commit("for another key");
    let says = format!(
        "(mainstay status || true) | tr -s ' \\n' '  ' | grep {} | grep 'it is encrypted for other keys'",
        &second[..10]
    );
    scene.host.wait_for(agent::SOON, &says).unwrap();
    let status = String::from_utf8_lossy(&scene.host.try_sh("mainstay status").unwrap().stdout).into_owned();
    assert!(!status.contains("restart shop"), "{status}");
    assert_eq!(scene.host.read(&format!("{OPENED}/tls.key")).unwrap().trim(), key);
    assert_eq!(agent::invocation(&scene.host, "shop"), shop);

    // It is mended, and nothing has happened.
    scene.desk.sh(&format!("cd {DESK}; sed -i 's/ recipient: [a-z0-9]*,//' fleet.yaml")).unwrap();
    scene.author("mainstay secret rekey --all");
    let third = scene.commit("for the host again");
    agent::await_converged(&scene.host, &third);
    assert_eq!(agent::invocation(&scene.host, "shop"), shop);

    // In the clear it is not deployed, and not printed either.
    let plain = scene.plant("plain");
    scene.desk.write(&format!("{DESK}/secrets/more.yaml"), format!("more: {plain}\n")).unwrap();
    let checked = scene.desk.try_sh(&format!("cd {DESK}; mainstay secret check 2>&1")).unwrap();
    assert_eq!(checked.status.code(), Some(3), "what checks in CI sees it");
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.contains("`more` is not encrypted") && !checked.contains(&plain), "{checked}");
    scene.author("mainstay secret encrypt");

    // Nobody wants it any more.
    let unit = OTHER;
    scene.desk.sh(&format!("cd {DESK}; rm -r apps/shop/files")).unwrap();
    scene.desk.write(&format!("{DESK}/apps/shop/shop.service"), unit).unwrap();
    let fourth = scene.commit("without");
    agent::await_converged(&scene.host, &fourth);
    let left =
        "test ! -e /run/mainstay/secrets/shop && ! ls /etc/shop/db /etc/shop/tls.key /run/credentials/shop.service/db";
    scene.host.wait_for(agent::SOON, left).unwrap();
    let hits = scene.hits(false);
    assert_eq!(hits, "");
}

/// Each of these reads it in a way of its own.
const ENVIRONMENT: &str = "[Service]\nEnvironmentFile=/etc/plain/db.env\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";
const COMPOSE: &str = "services:\n  web:\n    image: IMAGE\n    command: [sleep, \"1000\"]\n    restart: unless-stopped\n    \
                       secrets: [{ source: db, uid: \"65534\", mode: 0400 }]\n  beside:\n    image: IMAGE\n    command: [sleep, \"1000\"]\n    \
                       restart: unless-stopped\nsecrets:\n  db: { file: ./db.txt }\n";

#[test]
fn whoever_reads_it_in_whatever_way_gets_it_and_another_value() {
    let Some(lab) = start() else { return };
    let mut scene = Scene::with(&lab, |forge| {
        let image = forge.image("shop", "1", "one").unwrap().reference;
        let quadlet = format!(
            "[Container]\nImage={image}\nExec=sleep 1000\nVolume=/etc/box/db:/run/db:ro\n[Service]\nTimeoutStopSec=1\n\
             [Install]\nWantedBy=multi-user.target\n"
        );
        vec![
            ("apps/plain/plain.service", ENVIRONMENT.to_owned()),
            ("apps/plain/files/etc/plain/db.env.j2", "DB={{ secret(\"db\") }}\n".to_owned()),
            ("apps/box/box.container", quadlet),
            ("apps/box/files/etc/box/db.j2", "{{ secret(\"db\") }}\n".to_owned()),
            ("apps/shop/compose.yaml", COMPOSE.replace("IMAGE", &image)),
            ("apps/other/other.service", OTHER.to_owned()),
        ]
    });
    scene.host.start_docker().unwrap();
    scene.forge.authorize(&scene.host).unwrap();
    let (mut before, mut commit) = (Vec::new(), String::new());
    for round in ["first", "second"] {
        let db = scene.plant(round);
        // The compose file has one for itself.
        match round {
            "first" => {
                scene.desk.write(&format!("{DESK}/apps/shop/db.txt"), &db).unwrap();
                scene.edit("secrets/db.yaml", &format!("db: {db}\n"));
                scene.author("mainstay secret encrypt apps/shop/db.txt");
            }
            _ => {
                scene.edit("secrets/db.yaml", &format!("db: {db}\n"));
                scene.edit("apps/shop/db.txt.age", &db);
            }
        }
        scene.author("mainstay secret check");
        scene.author("mainstay check");
        commit = scene.commit(round);
        if round == "first" {
            agent::follow(&scene.host, &scene.repo.ssh_url(), "");
        }
        agent::await_converged(&scene.host, &commit);
        let host = &scene.host;
        let environment =
            host.sh("tr '\\0' '\\n' </proc/$(systemctl show -P MainPID plain)/environ | grep ^DB=").unwrap();
        assert_eq!(environment.trim(), format!("DB={db}"), "{round}");
        assert_eq!(host.sh("podman exec systemd-box cat /run/db").unwrap().trim(), db, "{round}");
        assert_eq!(host.sh("docker exec shop-web-1 cat /run/secrets/db").unwrap().trim(), db, "{round}");
        assert_eq!(host.sh("docker exec shop-web-1 stat -c '%a %u' /run/secrets/db").unwrap(), "400 65534\n");
        let id =
            |name: &str| host.sh(&format!("docker inspect -f '{{{{.Id}}}} {{{{.State.StartedAt}}}}' {name}")).unwrap();
        let now = vec![
            agent::invocation(host, "plain"),
            agent::invocation(host, "box"),
            id("shop-web-1"),
            agent::invocation(host, "other"),
            id("shop-beside-1"),
        ];
        if round == "second" {
            let changed: Vec<bool> = std::iter::zip(&now, &before).map(|(now, before)| now != before).collect();
            assert_eq!(changed, [true, true, true, false, false], "who reads it begins anew, and nobody else");
        }
        before = now;
        // The environment of who asked for that is its own.
        let hits = scene.hits(true);
        let own = format!("/proc/{}/environ", scene.host.sh("systemctl show -P MainPID plain").unwrap().trim());
        let stray: Vec<&str> = hits.lines().filter(|hit| !hit.ends_with(&own)).collect();
        assert!(stray.is_empty(), "{stray:?}");
    }
    assert!(!commit.is_empty());

    // Gone with who wanted it.
    scene.desk.sh(&format!("cd {DESK}; rm -r apps/plain apps/box apps/shop")).unwrap();
    let last = scene.commit("without");
    scene.host.sh("mainstay sync || true").unwrap();
    agent::await_status(&scene.host, &last[..10]);
    // So much at once wants a word of somebody.
    let said = scene.host.wait_for(agent::SOON, "(mainstay status || true) | grep -o 'prune: \"[0-9a-f]*'").unwrap();
    let fleet = scene.desk.read(&format!("{DESK}/fleet.yaml")).unwrap();
    let word = format!("acknowledge: [ {{ {}\", reason: \"all of it\" }} ]\n", said.trim());
    scene.desk.write(&format!("{DESK}/fleet.yaml"), fleet + &word).unwrap();
    let last = scene.commit("and so it is meant");
    agent::await_converged(&scene.host, &last);
    scene.host.wait_for(agent::SOON, "test -z \"$(find /run/mainstay/secrets -type f)\"").unwrap();
    assert_eq!(scene.hits(false), "");
}
