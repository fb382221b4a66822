//! Outages a host can be made to suffer while it stays switched on: no network, no progress.

use std::sync::atomic::Ordering;

use anyhow::{Context, Result};

use crate::host::MOMENT;
use crate::{Host, shell};

impl Host {
    /// Pulls the network cable; it stays out, also across boots, until [`Host::rejoin`].
    pub fn cut(&self) -> Result<()> {
        self.is_cut.store(true, Ordering::Relaxed);
        self.ensure_link("down")
    }

    /// Plugs the network cable in again.
    pub fn rejoin(&self) -> Result<()> {
        self.is_cut.store(false, Ordering::Relaxed);
        self.ensure_link("up")
    }

    /// Stops every process of the host where it is, until [`Host::thaw`]. Do not enter it meanwhile.
    pub fn freeze(&self) -> Result<()> {
        self.set_frozen("1")
    }

    /// Lets a frozen host go on.
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen("0")
    }

    pub(crate) fn ensure_thawed(&self) -> Result<()> {
        let freezer = self.cgroup_in(&self.network.cgroups.unified).join("cgroup.freeze");
        match std::fs::write(&freezer, "0") {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("failed to write {}", freezer.display()))
            }
            _ => Ok(()),
        }
    }

    /// A new interface comes with its cable in.
    pub(crate) fn ensure_cut_as_before(&self) -> Result<()> {
        if self.is_cut.load(Ordering::Relaxed) {
            self.ensure_link("down")?;
        }
        Ok(())
    }

    /// A host that is off has no interface; the next boot looks at `is_cut`.
    fn ensure_link(&self, state: &str) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        let mut command = self.network.command("ip");
        command.args(["link", "set", &format!("vb-{}", self.machine_name()), state]);
        shell::check(&mut command, MOMENT)
            .with_context(|| format!("failed to set the link of `{}` {state}", self.name))?;
        Ok(())
    }

    fn set_frozen(&self, wanted: &str) -> Result<()> {
        let group = self.cgroup_in(&self.network.cgroups.unified);
        std::fs::write(group.join("cgroup.freeze"), wanted)
            .with_context(|| format!("host `{}` has no freezer", self.name))?;
        let settled = shell::poll(MOMENT, || {
            let events = std::fs::read_to_string(group.join("cgroup.events")).context("failed to read the freezer")?;
            Ok(events.lines().any(|line| line.strip_prefix("frozen ") == Some(wanted)).then_some(()))
        })?;
        settled.with_context(|| format!("host `{}` did not freeze or thaw within {MOMENT:?}", self.name))
    }
}
