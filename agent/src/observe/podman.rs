//! Asks Podman who has the names that services of quadlets would take: root's, and those of users through their managers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use spec::id::{ContainerName, UnitName, User};
use spec::observed::{Observed, Reach};

use crate::podman;
use crate::systemd::{self, Managers, Verb};

/// How long Podman may take for its lists.
const LISTS: Duration = Duration::from_secs(30);
/// Lines of what it prints beside our own.
const LINES: usize = 20;

/// Fills in who has these names. Who gives no answer is not asked twice: nothing takes a name in its store then.
pub async fn names(
    systemd: &mut Managers,
    asked: BTreeMap<Option<User>, BTreeSet<ContainerName>>,
    observed: &mut Observed,
) {
    let unit_of = |user: &Option<User>| podman::names_unit().of(user.as_ref());
    let stops = || asked.keys().map(|user| (unit_of(user), Verb::Stop)).collect::<Vec<_>>();
    // What an earlier pass left behind, which was killed in between.
    systemd.run(stops(), LISTS, &|| {}).await;
    let run = podman::run_name();
    let mut jobs = Vec::new();
    for (user, names) in &asked {
        let unit = unit_of(user);
        let command = podman::names_command(&run, names);
        let manager = systemd.of(user.as_ref());
        match manager.start_transient(&unit, "List names for mainstay", &command, LISTS).await {
            Ok(()) => jobs.push((unit, Verb::Start)),
            Err(error) => lose(observed, user, &crate::chain(&error)),
        }
    }
    for (unit, result) in systemd.run(jobs, LISTS, &|| {}).await {
        let user = unit.user().cloned();
        let most = asked.get(&user).map_or(0, BTreeSet::len) * 2 + LINES;
        let said = systemd::journal_tail(&unit, None, most).await;
        match (result, podman::holders(&run, &said)) {
            (Ok(_), Some(holders)) => {
                observed.podman.insert(user, Reach::Seen(holders));
            }
            (Ok(_), None) => lose(observed, &user, "its answer is not in the journal"),
            (Err(error), _) => lose(observed, &user, &of_podman(&unit, &crate::chain(&error), &said)),
        }
    }
    systemd.run(stops(), LISTS, &|| {}).await;
}

fn of_podman(unit: &UnitName, error: &str, said: &str) -> String {
    let last = said.lines().rev().find(|line| !podman::is_told(line)).unwrap_or_default();
    tracing::debug!(%unit, said, "Podman was asked for names");
    format!("{error}: {last}")
}

fn lose(observed: &mut Observed, user: &Option<User>, why: &str) {
    let whose = user.as_ref().map(|user| format!(" of {user}")).unwrap_or_default();
    let why = format!("Podman{whose} does not tell which names are taken: {why}");
    observed.podman.insert(user.clone(), Reach::Unreachable(why));
}
