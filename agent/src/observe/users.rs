//! Looks at the users whose managers have units that are wanted or remembered. A host without any is asked nothing.

use std::collections::{BTreeMap, BTreeSet};

use spec::desired::Desired;
use spec::id::{UnitName, User};
use spec::memory::Memory;
use spec::observed::{ActiveState, Manager, ManagerState, UnitState};

use crate::systemd::{self, Managers};

/// Names the users that are asked about.
pub(super) fn named(desired: &Desired, memory: &Memory) -> BTreeSet<User> {
    let wanted = desired.apps.values().filter_map(|app| app.user.as_ref());
    let units = memory.units.keys().chain(memory.quadlets.keys()).filter_map(UnitName::user);
    wanted.chain(units).chain(&memory.reloads_owed).cloned().collect()
}

/// Looks at each of `users`, and adds the states of their units to those of the host's manager. What its manager says of the
/// managers of users is among these.
pub(super) async fn look(
    systemd: &mut Managers,
    users: BTreeSet<User>,
    all: &[UnitName],
    states: &mut BTreeMap<UnitName, UnitState>,
) -> BTreeMap<User, Manager> {
    systemd.keep_only(|user| users.contains(user));
    let mut managers = BTreeMap::new();
    for user in users {
        let names: Vec<UnitName> = all.iter().filter(|name| name.user() == Some(&user)).cloned().collect();
        let stranger = stranger(&user);
        let manager = user.manager();
        let seen = if all.contains(&manager) { states.get(&manager).cloned() } else { states.remove(&manager) };
        let state = match seen.map(|state| state.active) {
            _ if stranger.is_some() => ManagerState::Down,
            Some(ActiveState::Active | ActiveState::Reloading) => match systemd.of(Some(&user)).units(&names).await {
                Ok(seen) => {
                    states.extend(seen);
                    ManagerState::Up
                }
                Err(error) => away(&user, &error),
            },
            Some(ActiveState::Activating) => ManagerState::Away(format!("the manager of {user} is just starting")),
            Some(ActiveState::Deactivating) => ManagerState::Away(format!("the manager of {user} is just ending")),
            Some(ActiveState::Inactive | ActiveState::Failed) | None => ManagerState::Down,
        };
        if state == ManagerState::Down {
            states.extend(names.into_iter().map(|name| (name, UnitState::not_found())));
        }
        let lingers = systemd::lingers(&user);
        managers.insert(user, Manager { stranger, lingers, state });
    }
    managers
}

/// Forgets what a manager said of units that it says no more of.
pub(super) fn lose(
    managers: &mut BTreeMap<User, Manager>,
    states: &mut BTreeMap<UnitName, UnitState>,
    user: &User,
    error: &systemd::Error,
) {
    states.retain(|name, _| name.user() != Some(user));
    if let Some(manager) = managers.get_mut(user) {
        manager.state = away(user, error);
    }
}

/// Describes a manager that gave no answer.
fn away(user: &User, error: &systemd::Error) -> ManagerState {
    ManagerState::Away(format!("the manager of {user} cannot be asked: {}", crate::chain(error)))
}

/// Says in which way the host's account of this name is another, when it is.
pub fn stranger(user: &User) -> Option<String> {
    let (name, uid) = (user.name(), user.uid());
    match uzers::get_user_by_name(name).map(|found| found.uid()) {
        Some(found) if found == uid => None,
        Some(found) => Some(format!(
            "`{name}` has the number {found} on this host, and app.yaml says {uid}: correct `uid`, or the account"
        )),
        None => {
            Some(format!("this host has no user `{name}`: make the account (useradd --uid {uid} --create-home {name})"))
        }
    }
}
