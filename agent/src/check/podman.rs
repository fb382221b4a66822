//! Looks at a container that a quadlet's service runs, in the Podman that has it: root's, or that of the service's user.
//!
//! The way is Podman's socket, which systemd listens on and which is started where it does not listen yet: a look costs one
//! request then. Where there is no such socket to start, the `podman` program is run as a service of the same manager.

use std::time::Duration;

use spec::id::{ContainerName, UnitName};
use tracing::{debug, info};

use super::{Miss, verdict};
use crate::engine::{self, Health, Podman};
use crate::podman;
use crate::systemd::{self, Managers, Verb};

/// How long a start may take: the socket's, and that of the program.
const START: Duration = Duration::from_secs(30);
/// Lines of what the program printed, of which one is ours.
const LINES: usize = 10;

/// Looks at the container that `service` runs.
pub(super) async fn healthy(container: &ContainerName, service: &UnitName) -> Result<(), Miss> {
    let user = service.user();
    let client = Podman::of(user).map_err(|error| Miss::blind(&error))?;
    let mut seen = client.inspect_run(container).await;
    if seen.as_ref().is_err_and(engine::Error::is_nobody_there) {
        let socket = podman::socket_unit().of(user);
        let mut managers = Managers::new();
        match managers.run(vec![(socket.clone(), Verb::Start)], START, &|| {}).await.remove(&socket) {
            Some(Err(error)) => {
                debug!(unit = %socket, error = crate::chain(&error), "Podman's socket cannot be started");
            }
            _ => {
                seen = client.inspect_run(container).await;
                info!(unit = %socket, "Podman's socket was started, to look at containers");
            }
        }
        if seen.as_ref().is_err_and(engine::Error::is_nobody_there) {
            return by_program(&mut managers, container, service).await;
        }
    }
    match seen {
        Ok(state) => verdict(Some((state.running, state.health))),
        Err(engine::Error::Missing { .. }) => verdict(None),
        Err(error) => Err(Miss::blind(&error)),
    }
}

/// Has the `podman` program look.
async fn by_program(managers: &mut Managers, container: &ContainerName, service: &UnitName) -> Result<(), Miss> {
    let user = service.user();
    let unit = podman::look_unit(container).of(user);
    let stop = || vec![(unit.clone(), Verb::Stop)];
    // What an earlier look left behind, which was late or killed.
    managers.run(stop(), START, &|| {}).await;
    let run = podman::run_name();
    let command = podman::look_command(&run, container);
    let started = managers.of(user).start_transient(&unit, "Look at a container for mainstay", &command, START).await;
    started.map_err(|error| Miss::blind(&error))?;
    let ran = managers.run(vec![(unit.clone(), Verb::Start)], START, &|| {}).await.remove(&unit);
    let said = systemd::journal_tail(&unit, None, LINES).await;
    managers.run(stop(), START, &|| {}).await;
    if let Some(Err(error)) = ran {
        return Err(Miss { said, ..Miss::blind(&error) });
    }
    let state = podman::looked_at(&run, &said).ok_or_else(|| Miss {
        why: "Podman's answer is not in the journal".to_owned(),
        said,
        is_blind: true,
    })?;
    verdict(state.map(|(running, health)| (running, Health::of(&health))))
}
