//! The agent is killed before every system call that changes something, and one further pass makes the host whole.
//!
//! A kill on entry to a call is also a kill after the call before it: together they cut an apply at every seam. Each test
//! goes to and fro between two versions of one host, and every way is one experiment. `MAINSTAY_KILLS=all` tries every
//! call on both ways; otherwise odd ones are tried on the way there and even ones on the way back.

use crate::kill_world::{Containers, Version, World};
use crate::start;

/// Calls on files, the ledger's among them.
const FILES: [&str; 13] = [
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "mkdirat",
    "linkat",
    "fsync",
    "fchown",
    "fchownat",
    "fchmod",
    "fchmodat",
    "fsetxattr",
];

/// More than any apply makes of one call.
const ENOUGH: usize = 150;

/// How one attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Killed,
    Ended,
}

fn is_all() -> bool {
    std::env::var_os("MAINSTAY_KILLS").is_some_and(|value| value == "all")
}

/// Goes to `to` and is killed on entry to the `nth` such call, if it gets that far.
fn attempt(world: &World, to: Version, call: &str, nth: usize) -> Attempt {
    // Not with --seccomp-bpf: strace then injects errors, but no signals.
    let script = format!(
        "strace -f -qq -o /run/trace -e trace={call} -e inject={call}:signal=KILL:when={nth} \
         mainstay --json once --dir {}",
        to.folder()
    );
    let output = world.host.try_sh(&script).unwrap();
    match output.status.code() {
        Some(0) => Attempt::Ended,
        Some(137) | None => Attempt::Killed,
        code => panic!("{call} {nth}: {code:?} {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// Kills at every one of the calls in turn; says how many kills there were.
fn sweep(world: &World, calls: &[&str]) -> usize {
    let (mut at, mut kills) = (Version::A, 0);
    for call in calls {
        for first in if is_all() { vec![Version::A, Version::B] } else { vec![at] } {
            if at != first {
                at = at.other();
                world.recover(at, "going back");
            }
            for nth in 1..=ENOUGH {
                // Without `all`, a way is one experiment; with it, the way back is none.
                if is_all() && at != first {
                    at = first;
                    world.recover_quietly(at);
                }
                let to = at.other();
                world.forget_starts();
                let ended = attempt(world, to, call, nth);
                at = to;
                if ended == Attempt::Ended {
                    world.check(to, &format!("{call} {nth}: not killed"));
                    break;
                }
                kills += 1;
                let last = world.host.sh("grep -v '+++' /run/trace | tail -n 1 | cut -c1-200").unwrap();
                world.recover(to, &format!("killed before {call} number {nth} on the way to {to:?}: {last}"));
                assert!(nth < ENOUGH, "no end of {call}");
            }
        }
    }
    eprintln!("{kills} kills");
    kills
}

#[test]
fn before_every_change_of_a_file() {
    let Some(lab) = start() else { return };
    let world = World::new(&lab, Containers::Without);
    assert!(sweep(&world, &FILES) > 40);
}

#[test]
fn before_every_message_to_systemd() {
    let Some(lab) = start() else { return };
    let world = World::new(&lab, Containers::Without);
    assert!(sweep(&world, &["sendmsg"]) > 20);
    // What follows an answer is nearly always the next message.
    if is_all() {
        assert!(sweep(&world, &["recvmsg"]) > 20);
    }
}

#[test]
fn before_every_message_to_the_engine_and_every_answer() {
    let Some(lab) = start() else { return };
    let world = World::new(&lab, Containers::With);
    assert!(sweep(&world, &["sendto", "recvfrom"]) > 15);
}
