//! The agent is killed at random instants, also while it recovers, also as a service, also with the whole host: what is
//! between two system calls, and in systemd while nobody waits for it any more, has its turn here.

use std::time::{Duration, Instant};

use crate::agent;
use crate::dice::Dice;
use crate::kill_world::{Containers, Version, World};
use crate::start;

/// How many kills, unless `MAINSTAY_KILLS` is a number.
fn kills(usual: usize) -> usize {
    std::env::var("MAINSTAY_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Goes there and back once undisturbed; says how long the longer way took.
fn measure(world: &World) -> Duration {
    let way = |to: Version| {
        let began = Instant::now();
        world.forget_starts();
        agent::converge(&world.host, to.folder());
        let took = began.elapsed();
        world.check(to, "undisturbed");
        took
    };
    way(Version::B).max(way(Version::A))
}

/// Runs one pass and sends it a signal after a while.
fn interrupt(world: &World, to: Version, signal: &str, after: Duration) -> Option<i32> {
    let (seconds, folder) = (after.as_secs_f64(), to.folder());
    let script = format!("timeout --foreground --signal {signal} {seconds} mainstay --json once --dir {folder}");
    world.host.try_sh(&script).unwrap().status.code()
}

fn at_random(containers: Containers, count: usize) {
    let Some(lab) = start() else { return };
    let mut world = World::new(&lab, containers);
    let mut dice = Dice::new();
    let span = measure(&world);
    let (mut at, mut killed) = (Version::A, 0);
    while killed < count {
        let to = at.other();
        world.forget_starts();
        let again = if dice.one_in(4) { 1 + dice.below(5) } else { 0 };
        let mut story = format!("after {killed} kills, on the way from {at:?} to {to:?} killed");
        for _ in 0..=again {
            let after = dice.moment(span);
            let ended = interrupt(&world, to, "KILL", after);
            story += &format!(" after {after:?} ({ended:?})");
            killed += usize::from(ended != Some(0));
        }
        if dice.one_in(5) {
            world.arrive(at, &format!("{story}, then sent back"));
        } else {
            world.recover(to, &story);
            at = to;
        }
    }
    eprintln!("{killed} kills, undisturbed it takes {span:?}");
}

// Two, so that neither takes minutes.

#[test]
fn at_random_instants() {
    at_random(Containers::Without, kills(80));
}

#[test]
fn at_random_instants_once_more() {
    at_random(Containers::Without, kills(80));
}

#[test]
fn at_random_instants_with_containers() {
    at_random(Containers::With, kills(40));
}

#[test]
fn asked_to_stop_at_random_instants() {
    let Some(lab) = start() else { return };
    let world = World::new(&lab, Containers::Without);
    let mut dice = Dice::new();
    let span = measure(&world);
    let mut at = Version::A;
    for _ in 0..15 {
        let to = at.other();
        world.forget_starts();
        let after = dice.moment(span);
        let began = Instant::now();
        let ended = interrupt(&world, to, "TERM", after);
        let story =
            format!("on the way to {to:?} asked to stop after {after:?}: {ended:?} after {:?}", began.elapsed());
        assert!(began.elapsed() < after + Duration::from_secs(5), "{story}");
        world.recover(to, &story);
        at = to;
    }
}

#[test]
fn the_power_goes_at_random_instants() {
    let Some(lab) = start() else { return };
    let mut world = World::new(&lab, Containers::With);
    let mut dice = Dice::new();
    let span = measure(&world);
    let mut at = Version::A;
    for _ in 0..5 {
        let to = at.other();
        let after = dice.moment(span);
        let began = Instant::now();
        let running = world.host.spawn(&["mainstay", "--json", "once", "--dir", to.folder()]).unwrap();
        // The instant is the experiment; nothing is waited for.
        lab::poll(after, || Ok((began.elapsed() >= after).then_some(()))).unwrap();
        world.host.kill().unwrap();
        drop(running);
        world.host.start().unwrap();
        world.host.wait_for(Duration::from_secs(30), "docker ps").unwrap();
        let (to, story) = match dice.one_in(3) {
            true => (at, format!("on the way to {to:?} the power went after {after:?}, then sent back to {at:?}")),
            false => (to, format!("on the way to {to:?} the power went after {after:?}")),
        };
        world.arrive(to, &story);
        at = to;
    }
}
