//! The agent's own memory is damaged, lost, out of reach or in somebody else's hands: no service is restarted for it,
//! nothing is removed on doubt, and nothing at all is changed that could not be written down first.

use lab::Host;

use crate::kill_world::{Containers, Version, World};
use crate::{agent, start};

const STATE: &str = "/var/lib/mainstay";

/// When each service was started, and what every managed file is.
fn untouched(host: &Host) -> String {
    host.sh(
        "systemctl show -P InvocationID web old toggle still foreign; \
         stat -c '%n %i %y %a' /etc/web.conf /etc/web.key /etc/old/old.conf /etc/still.conf /etc/systemd/system/*.service",
    )
    .unwrap()
}

#[test]
fn a_damaged_or_lost_ledger_restarts_nothing_and_the_next_commit_still_changes_everything() {
    let Some(lab) = start() else { return };
    let world = World::new(&lab, Containers::Without);
    let host = &world.host;
    let damages = [
        ("truncated", "truncate -s 100 ledger.json"),
        ("a bit flipped", "sed -i 's/\\(sha256\":\"\\)./\\1x/' ledger.json"),
        ("empty", ": >ledger.json"),
        ("a directory", "rm ledger.json; mkdir ledger.json"),
        ("both empty", ": >ledger.json; : >ledger.json.before"),
        ("both gone", "rm -rf ledger.json ledger.json.before"),
        ("all of it gone", "rm -rf /var/lib/mainstay"),
    ];
    for (damage, how) in damages {
        let before = untouched(host);
        host.sh(&format!("cd {STATE}; {how}")).unwrap();
        let (code, said) = agent::once(host, Version::A.folder());
        assert_eq!((code, untouched(host)), (0, before), "{damage}: {said}");
        world.forget_starts();
        let (code, said) = agent::once(host, Version::B.folder());
        assert!(code == 0 && host.read("/etc/web.conf").unwrap() == "version B\n", "{damage}: {said}");
        // What is back from marks alone need not know of directories; the way back must work all the same.
        agent::converge(host, Version::A.folder());
        host.sh("test ! -d /var/lib/mainstay/ledger.json").unwrap();
    }
}

#[test]
fn a_newer_ledger_a_taken_one_and_a_read_only_one_change_nothing() {
    let Some(lab) = start() else { return };
    let world = World::new(&lab, Containers::Without);
    let host = &world.host;
    let before = untouched(host);
    let refused = |what: &str, says: &str| {
        let (code, said) = agent::once(host, Version::B.folder());
        assert!(code == 1 && said.contains(says), "{what}: {code} {said}");
        assert_eq!(untouched(host), before, "{what}");
    };

    let ledger = host.read(&format!("{STATE}/ledger.json")).unwrap();
    host.write(&format!("{STATE}/ledger.json"), "{\"version\":99,\"more\":[]}").unwrap();
    refused("from the future", "newer mainstay (format 99");
    host.write(&format!("{STATE}/ledger.json"), ledger).unwrap();

    let holder = host.spawn(&["flock", &format!("{STATE}/lock"), "sh", "-c", "echo held; sleep 1h"]).unwrap();
    host.wait_for(std::time::Duration::from_secs(5), &format!("! flock -n {STATE}/lock true")).unwrap();
    refused("another agent", "another mainstay works with");
    holder.end().unwrap();
    host.wait_for(std::time::Duration::from_secs(5), &format!("flock -n {STATE}/lock true")).unwrap();

    host.sh(&format!("mount --bind {STATE} {STATE}; mount -o remount,bind,ro {STATE}")).unwrap();
    refused("read-only", "Read-only file system");
    host.sh(&format!("umount {STATE}")).unwrap();

    host.sh(&format!(
        "cp -a {STATE} /root/state; mount -t tmpfs -o size=32k none {STATE}; cp -a /root/state/ledger.json {STATE}/"
    ))
    .unwrap();
    host.sh(&format!("head -c 1M /dev/zero >{STATE}/fill || true")).unwrap();
    refused("full", "No space left on device");
    host.sh(&format!("umount {STATE}")).unwrap();
    world.forget_starts();
    agent::converge(host, Version::B.folder());
    world.check(Version::B, "after all that");
}
