//! Drift that is repaired while ten thousand connections sit at the endpoint, beside the same while there are none.

use anyhow::{Context, Result, ensure};
use lab::Crowd;

use super::subject::{ENDPOINT, Pace};
use super::table::{Samples, Unit as Shown};
use super::{Bench, is_pass};

/// So many connections.
const CROWD: usize = 10_000;
/// So many repairs in a row. The agent lets a connection that says nothing sit for ten seconds.
const REPAIRS: usize = 5;

impl Bench<'_> {
    /// With and without them in turns, so that a busy machine is as busy for both.
    pub(super) fn crowd(&mut self, rounds: usize) -> Result<()> {
        eprintln!("bench: {rounds} rounds of drift with {CROWD} connections, and without");
        self.scene.host.write("/etc/mainstay/hook", format!("{}\n", super::HOOK))?;
        self.subject.start(&Pace::Told)?;
        self.subject.wait_for("pass done", is_pass)?;
        let port = ENDPOINT.rsplit(':').next().and_then(|port| port.parse().ok()).context("it listens at a port")?;
        let mut took: [Vec<u64>; 2] = Default::default();
        for round in 0..rounds * 2 {
            let crowd = match round % 2 {
                0 => None,
                _ => Some(Crowd::gather(&self.scene.host, port, CROWD)?),
            };
            if let Some(crowd) = &crowd {
                ensure!(crowd.len() * 10 > crowd.asked() * 9, "{} of {} connected", crowd.len(), crowd.asked());
            }
            for repair in 0..REPAIRS {
                let number = (round * REPAIRS + repair) % self.units.len();
                took[round % 2].push(self.repaired(number)?);
            }
        }
        let [alone, among]: [Samples; 2] = took.map(|took| took.into_iter().collect());
        self.row("  file edited, 10 000 idle connections", Shown::Time, among, Some(alone), "1.1 x");
        self.notes.push(format!(
            "{CROWD} idle connections: the floor is the same repair by the same agent with nobody connected, in turns; half of \
             the connections have begun a request that they never end"
        ));
        Ok(())
    }

    /// Edits a unit's file; returns after how long it was as wanted again.
    fn repaired(&mut self, number: usize) -> Result<u64> {
        let path = self.units[number].config_path.clone();
        // A person's word: what was edited before is not taken for a fight.
        self.poke()?;
        self.subject.wait_for("asked the repository", |event| event.message == "asked the repository")?;
        let at = self.happens(&format!("edit {path}"))?;
        Ok(self.scene.written_at(&path)?.saturating_sub(at))
    }
}
