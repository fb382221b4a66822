//! What somebody else wrote where mainstay writes or removes is kept first, and `mainstay restore` gives it back.

use lab::Host;
use serde_json::Value;

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";

fn folder(host: &Host, files: &[(&str, &str)]) -> String {
    let all = [&[("fleet.yaml", FLEET)], files].concat();
    agent::write_folder(host, "/root/fleet", &all);
    "/root/fleet".to_owned()
}

/// What `mainstay restore` lists, the newest first.
fn listed(host: &Host) -> Vec<Value> {
    let list = host.sh("mainstay restore --json").unwrap();
    serde_json::from_str::<Value>(&list).unwrap().as_array().unwrap().clone()
}

fn id(entry: &Value) -> &str {
    entry["id"].as_str().unwrap()
}

#[test]
fn what_somebody_edited_is_kept_before_it_is_overwritten_or_removed() {
    let Some(lab) = start() else { return };
    let host = lab.boot("attic").unwrap();
    agent::install(&host);
    let both = [("apps/web/files/etc/web.conf", "one\n"), ("apps/web/files/etc/gone.conf", "one\n")];
    agent::converge(&host, &folder(&host, &both));
    assert!(host.sh("mainstay restore").unwrap().starts_with("Nothing is kept"));

    let next = [("apps/web/files/etc/web.conf", "two\n"), ("apps/web/files/etc/gone.conf", "one\n")];
    agent::converge(&host, &folder(&host, &next));
    assert_eq!(listed(&host), Vec::<Value>::new(), "our own writing is in git, and not kept");

    // An edit is drift: it is put back, and what was written is not lost with it.
    host.sh("echo edited >/etc/web.conf; chmod 0640 /etc/web.conf; chown daemon: /etc/web.conf").unwrap();
    host.sh("touch -d 2020-02-02T02:02:02Z /etc/web.conf").unwrap();
    let plan = agent::plan(&host, "/root/fleet");
    assert_eq!(plan["kept"][0]["path"], "/etc/web.conf");
    agent::converge(&host, "/root/fleet");
    assert_eq!(host.read("/etc/web.conf").unwrap(), "two\n");
    let entries = listed(&host);
    let said = ["path", "app", "why", "mode", "size"].map(|key| entries[0][key].to_string());
    assert_eq!(said, ["\"/etc/web.conf\"", "\"web\"", "\"it was edited on this host\"", "\"0640\"", "7"]);
    assert_eq!(entries.len(), 1);
    assert_eq!(host.sh("cd /var/lib/mainstay/backups; stat -c %a . *").unwrap(), "700\n600\n600\n600\n");

    // Back over a managed path only on purpose; anywhere else as it was.
    let edit = id(&entries[0]);
    let refused = host.try_sh(&format!("mainstay restore {edit} 2>&1")).unwrap();
    let text = String::from_utf8_lossy(&refused.stdout);
    assert!(refused.status.code() == Some(1) && text.contains("managed by application web"), "{text}");
    assert_eq!(host.sh(&format!("mainstay restore {edit} --print")).unwrap(), "edited\n");
    host.sh(&format!("cd /root; mainstay restore {} --to back", &edit[..6])).unwrap();
    let back = host.sh("cat /root/back; stat -c '%a %U %Y' /root/back").unwrap();
    assert_eq!(back, "edited\n640 daemon 1580608922\n");
    assert!(host.sh(&format!("mainstay restore {edit} --to /root/back")).is_err(), "nothing is replaced unasked");
    host.sh(&format!("echo mine >/root/back; mainstay restore {edit} --to /root/back --replace")).unwrap();
    assert_eq!(host.sh(&format!("mainstay restore {} --print", id(&listed(&host)[0]))).unwrap(), "mine\n");

    // What is edited and then no longer wanted goes, and comes back at its own place.
    host.sh("rm /etc/gone.conf; ln -s /etc/hostname /etc/gone.conf").unwrap();
    agent::converge(&host, &folder(&host, &[("apps/web/files/etc/web.conf", "two\n")]));
    assert!(host.sh("test ! -L /etc/gone.conf").is_ok());
    let link = listed(&host).into_iter().find(|entry| entry["path"] == "/etc/gone.conf").unwrap();
    host.sh(&format!("mainstay restore {}", id(&link))).unwrap();
    assert_eq!(host.sh("readlink /etc/gone.conf").unwrap(), "/etc/hostname\n");
    agent::converge(&host, "/root/fleet");
    assert!(host.sh("test -L /etc/gone.conf").is_ok(), "it is theirs now");
    eprintln!("{}", host.sh("mainstay restore").unwrap());
}

#[test]
fn what_cannot_be_kept_is_not_overwritten() {
    let Some(lab) = start() else { return };
    let host = lab.boot("attic").unwrap();
    agent::install(&host);
    agent::converge(&host, &folder(&host, &[("apps/web/files/etc/web.conf", "one\n")]));
    host.sh("mkdir -m 0700 /var/lib/mainstay/backups").unwrap();
    host.sh("mount -t tmpfs -o size=16k none /var/lib/mainstay/backups").unwrap();
    let edit = "head -c 40000 /dev/zero | tr '\\0' x >/etc/web.conf";
    host.sh(edit).unwrap();
    let (code, said) = agent::once(&host, "/root/fleet");
    assert!(code == 4 && said.contains("could not be kept") && said.contains("No space left"), "{code} {said}");
    assert_eq!(host.sh("wc -c </etc/web.conf").unwrap(), "40000\n");
    assert_eq!(host.sh("ls -A /etc | { grep mainstay || true; }; ls -A /var/lib/mainstay/backups").unwrap(), "lock\n");

    host.sh("umount /var/lib/mainstay/backups").unwrap();
    host.write("/etc/mainstay/agent.yaml", "backups: { bytes: 32KiB }\n").unwrap();
    let (code, said) = agent::once(&host, "/root/fleet");
    assert!(code == 4 && said.contains("it has 40000 bytes") && said.contains("raise the bound"), "{code} {said}");
    host.sh("rm /etc/mainstay/agent.yaml").unwrap();
    agent::converge(&host, "/root/fleet");
    assert_eq!(host.read("/etc/web.conf").unwrap(), "one\n");
    assert_eq!(listed(&host)[0]["size"], 40_000);
}
