//! Changes to what systemd has loaded and to what starts at boot; jobs are in `run`. Nothing here starts or stops a unit.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt;
use spec::id::UnitName;
use zbus::Connection;

use super::{Error, Systemd, manager};

/// How long a reload may take: generators run in it, and 300 units take 0.4 s on a small machine.
const RELOAD: Duration = Duration::from_secs(90);
/// How long enabling may take: it scans every unit file on the disk.
const ENABLE: Duration = Duration::from_secs(30);

impl Systemd {
    /// Makes systemd read its unit files again (`daemon-reload`), and waits until it has.
    ///
    /// # Errors
    /// `RunFull` when systemd refuses for lack of room in /run; refused, unreachable or timed out.
    pub async fn reload(&mut self) -> Result<(), Error> {
        self.ask("reload systemd", "Reload", &(), RELOAD).await.map(drop)
    }

    /// Enables units, in one call and without a reload, and returns those that could not be, each with its reason.
    /// systemd stops at the first bad one, so after a refusal each is asked for alone.
    ///
    /// # Errors
    /// Unreachable or timed out.
    pub async fn enable(&mut self, names: &[UnitName]) -> Result<BTreeMap<UnitName, Error>, Error> {
        self.in_batch(Change::Enable, names).await
    }

    /// Disables units, as `enable` enables them.
    ///
    /// # Errors
    /// Unreachable or timed out.
    pub async fn disable(&mut self, names: &[UnitName]) -> Result<BTreeMap<UnitName, Error>, Error> {
        self.in_batch(Change::Disable, names).await
    }

    /// Forgets that units failed and how often they were started, so that a start limit hit earlier does not refuse a
    /// start of something new. A unit that is not loaded has nothing to forget.
    ///
    /// # Errors
    /// Unreachable or timed out.
    pub async fn reset_failed(&mut self, names: &[UnitName]) -> Result<(), Error> {
        let reset = |connection: Connection, name: UnitName| {
            async move {
                let answer = manager(&connection, "ResetFailedUnit", &(name.as_str(),)).await;
                (name, answer.map(drop))
            }
            .boxed()
        };
        self.each("reset failed units", names, &reset).await.map(drop)
    }

    async fn in_batch(&mut self, change: Change, names: &[UnitName]) -> Result<BTreeMap<UnitName, Error>, Error> {
        let mut failures = BTreeMap::new();
        if names.is_empty() {
            return Ok(failures);
        }
        match self.change(change, names).await {
            Ok(()) => return Ok(failures),
            Err(error) if error.is_unreachable() => return Err(error),
            Err(error) if names.len() == 1 => {
                failures.insert(names[0].clone(), error);
                return Ok(failures);
            }
            Err(error) => tracing::debug!(%error, "trying one by one"),
        }
        for name in names {
            match self.change(change, std::slice::from_ref(name)).await {
                Ok(()) => {}
                Err(error) if error.is_unreachable() => return Err(error),
                Err(error) => {
                    failures.insert(name.clone(), error);
                }
            }
        }
        Ok(failures)
    }

    async fn change(&mut self, change: Change, names: &[UnitName]) -> Result<(), Error> {
        let names: Vec<String> = names.iter().map(|name| name.as_str().to_owned()).collect();
        let answer = match change {
            // Not for this boot only, and never over a link that somebody else made.
            Change::Enable => self.ask("enable units", "EnableUnitFiles", &(names, false, false), ENABLE).await,
            Change::Disable => self.ask("disable units", "DisableUnitFiles", &(names, false), ENABLE).await,
        };
        answer.map(drop)
    }
}

#[derive(Clone, Copy)]
enum Change {
    Enable,
    Disable,
}
