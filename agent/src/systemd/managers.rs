//! systemd on this host: its own manager, and the users' managers that units are asked of. A unit's name says which one has it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use spec::id::{UnitName, User};
use spec::observed::InvocationId;

use super::{Error, JobDone, JobError, Systemd, Unsettled, Verb};

/// All managers. Those of users are made when they are first asked for.
#[derive(Debug, Default)]
pub struct Managers {
    /// The host's.
    pub host: Systemd,
    users: BTreeMap<User, Systemd>,
}

/// What became of units that were started, by manager.
pub type Settled = BTreeMap<Option<User>, Result<BTreeMap<UnitName, Result<Option<InvocationId>, Unsettled>>, Error>>;

impl Managers {
    /// Makes clients that have not connected yet.
    pub fn new() -> Managers {
        Managers::default()
    }

    /// Returns the manager of a user's units, or of the host's.
    pub fn of(&mut self, user: Option<&User>) -> &mut Systemd {
        match user {
            None => &mut self.host,
            Some(user) => self.users.entry(user.clone()).or_insert_with(|| Systemd::of(user)),
        }
    }

    /// Forgets the connections to managers of users that nothing is asked of any more.
    pub fn keep_only<'u>(&mut self, users: impl Fn(&User) -> bool + 'u) {
        self.users.retain(|user, _| users(user));
    }

    /// Runs jobs in all managers at once, see [`Systemd::run`].
    pub async fn run(
        &mut self,
        jobs: Vec<(UnitName, Verb)>,
        deadline: Duration,
        mark: &(dyn Fn() + Send + Sync),
    ) -> BTreeMap<UnitName, Result<JobDone, JobError>> {
        let mut jobs = by_manager(jobs, |(unit, _)| unit);
        let running = self.each(&jobs.keys().cloned().collect::<Vec<_>>()).into_iter().map(|(user, systemd)| {
            let jobs = jobs.remove(&user).unwrap_or_default();
            async move { systemd.run(jobs, deadline, &mut |_, _| mark()).await }
        });
        let running: Vec<_> = running.collect();
        join_all(running).await.into_iter().flatten().collect()
    }

    /// Watches started units in all managers at once, see [`Systemd::settle`].
    pub async fn settle(&mut self, started: &[UnitName], window: Duration) -> Settled {
        let started = by_manager(started.to_vec(), |unit| unit);
        let settling = self.each(&started.keys().cloned().collect::<Vec<_>>()).into_iter().map(|(user, systemd)| {
            let units = started.get(&user).map(Vec::as_slice).unwrap_or_default();
            async move { (user, systemd.settle(units, window).await) }
        });
        let settling: Vec<_> = settling.collect();
        join_all(settling).await.into_iter().collect()
    }

    /// Borrows several managers.
    fn each(&mut self, wanted: &[Option<User>]) -> Vec<(Option<User>, &mut Systemd)> {
        for user in wanted.iter().flatten() {
            self.of(Some(user));
        }
        let host = std::iter::once((None, &mut self.host));
        let all = host.chain(self.users.iter_mut().map(|(user, systemd)| (Some(user.clone()), systemd)));
        all.filter(|(user, _)| wanted.contains(user)).collect()
    }
}

/// Sorts what is about units by the managers that have them.
pub fn by_manager<T>(items: Vec<T>, unit: impl Fn(&T) -> &UnitName) -> BTreeMap<Option<User>, Vec<T>> {
    let mut sorted: BTreeMap<Option<User>, Vec<T>> = BTreeMap::new();
    for item in items {
        sorted.entry(unit(&item).user().cloned()).or_default().push(item);
    }
    sorted
}
