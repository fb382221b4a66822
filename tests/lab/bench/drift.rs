//! Drift of each kind, made by the floor's program, until what is wanted holds again.

use std::time::Duration;

use anyhow::{Context, Result};

use super::floor::Parts;
use super::scene;
use super::subject::Pace;
use super::table::{Samples, Unit as Shown};
use super::{Bench, is_pass, worked};

/// What somebody does to a thing, beside when the host is as wanted again, both in microseconds.
struct Kind {
    what: &'static str,
    aim: &'static str,
    /// The part of the floor's repair that it is compared with.
    floor: &'static str,
}

const STOPPED: Kind = Kind { what: "drift: unit stopped", aim: "50 ms", floor: "start a unit" };
const EDITED: Kind = Kind { what: "  file edited", aim: "50 ms", floor: "write a file" };
const DELETED: Kind = Kind { what: "  file deleted", aim: "50 ms", floor: "write a file" };
const REMOVED: Kind = Kind { what: "  container removed", aim: "1.5 x", floor: "create and start a container" };

impl Bench<'_> {
    /// From what somebody did until it is undone, of each kind; before each, the floor does what undoing takes.
    pub(super) fn drift(&mut self, rounds: usize) -> Result<()> {
        eprintln!("bench: {rounds} rounds of drift");
        self.subject.start(&Pace::Hearing)?;
        self.subject.wait_for("pass done", is_pass)?;
        let mut repairs = Vec::new();
        let mut took: [Vec<u64>; 4] = Default::default();
        let containers = scene::containers();
        for round in 0..rounds {
            // Another unit each time, and a person's word: else it is taken for a fight.
            let unit = &self.units[round];
            let (name, path, text) = (unit.name.clone(), unit.config_path.clone(), unit.text_path.clone());
            let container = containers[round % containers.len()].clone();
            self.poke()?;
            self.subject.wait_for("asked the repository", |event| event.message == "asked the repository")?;
            repairs.push(self.floor.ask("repair")?);
            let at = self.happens(&format!("stop {name}"))?;
            took[0].push(self.scene.up_since(&self.units[round])?.saturating_sub(at));
            let at = self.happens(&format!("edit {path}"))?;
            took[1].push(self.scene.written_at(&path)?.saturating_sub(at));
            let at = self.happens(&format!("unlink {text}"))?;
            took[2].push(self.scene.written_at(&text)?.saturating_sub(at));
            let at = self.happens(&format!("vanish {container}"))?;
            took[3].push(self.scene.container_since(&container)?.saturating_sub(at));
        }
        for (kind, took) in [STOPPED, EDITED, DELETED, REMOVED].into_iter().zip(took) {
            let part = |parts: &Parts| parts.get(kind.floor).copied();
            let floor: Samples = repairs.iter().filter_map(part).collect();
            self.row(kind.what, Shown::Time, took.into_iter().collect(), Some(floor), kind.aim);
        }
        self.notes.push(
            "drift: from when it is done (the unit is down, the file is closed, the container is gone) until systemd, the file \
             system and the engine say that it is back; the agent hears of it, and looks by itself once an hour only"
                .to_owned(),
        );
        Ok(())
    }

    /// Lets the floor's program do something to the host, and waits until the agent has undone it; returns when it was done.
    pub(super) fn happens(&mut self, what: &str) -> Result<u64> {
        // What the agent heard of its last repair, and looks that find nothing, are over.
        std::thread::sleep(Duration::from_secs(1));
        let answer = self.floor.ask(what)?;
        self.subject.wait_for("pass done", worked).with_context(|| format!("after `{what}`"))?;
        answer.get("at").copied().context("the floor says when")
    }
}
