//! Somebody else's container in the place of a wanted one: stopped, so that it frees its ports and volumes, and kept under another
//! name, with all that is in it. Nothing here ever removes one.

use bollard::models::{ContainerUpdateBody, RestartPolicy, RestartPolicyNameEnum};
use bollard::query_parameters::RenameContainerOptions;
use serde::Deserialize;
use spec::id::ContainerName;

use super::{CHANGE, Engine, Error, path_escaped};

/// How many names are tried for what is kept.
const NAMES: usize = 100;

/// A container of somebody else that was set aside, with what it takes to put it back.
#[derive(Clone, Debug)]
pub struct Aside {
    /// Its id, which stays.
    pub id: String,
    was_running: bool,
    restart: RestartPolicy,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    #[serde(default)]
    state: State,
    #[serde(default)]
    host_config: HostConfig,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct State {
    running: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    restart_policy: Option<RestartPolicy>,
}

impl Engine {
    /// Has the engine no longer start a container by itself, neither now nor after a reboot, and says how it was.
    ///
    /// # Errors
    /// Missing when it is gone; Refused with the engine's words.
    pub async fn quiet(&self, id: &str) -> Result<Aside, Error> {
        let path = format!("/containers/{}/json", path_escaped(id));
        let is: Inspected = self.get("look at the container that is in the way", &path).await?;
        let restart = is.host_config.restart_policy.unwrap_or_default();
        let aside = Aside { id: id.to_owned(), was_running: is.state.running, restart };
        let never = RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None };
        self.set_restart(id, never).await?;
        Ok(aside)
    }

    /// Gives a stopped container another name, beside that of the container which takes its place, and returns it.
    ///
    /// # Errors
    /// Refused with the engine's words, or when too many are kept already.
    pub async fn set_aside(&self, name: &ContainerName, id: &str) -> Result<String, Error> {
        let taken = self.containers().await?;
        let names = (1..=NAMES).map(|index| match index {
            1 => format!("{name}.before"),
            index => format!("{name}.before-{index}"),
        });
        let mut free = names.filter(|name| !taken.keys().any(|taken| taken.as_str() == name));
        let Some(kept) = free.next() else {
            let doing = format!("keep the container that was called `{name}`");
            return Err(Error::Refused { doing: doing.into(), words: format!("{NAMES} are kept already") });
        };
        self.rename(id, &kept).await?;
        Ok(kept)
    }

    /// Undoes [`Engine::quiet`] and [`Engine::set_aside`], and starts the container if it ran.
    ///
    /// # Errors
    /// Refused with the engine's words, also when its name is taken.
    pub async fn put_back(&self, name: &ContainerName, aside: &Aside) -> Result<(), Error> {
        let is_there = self.containers().await?.get(name).is_some_and(|it| it.id == aside.id);
        if !is_there {
            self.rename(&aside.id, name.as_str()).await?;
        }
        self.set_restart(&aside.id, aside.restart.clone()).await?;
        if aside.was_running { self.start(&aside.id).await } else { Ok(()) }
    }

    async fn rename(&self, id: &str, name: &str) -> Result<(), Error> {
        let doing = format!("call a container `{name}`");
        let client = self.client(&doing)?;
        let options = RenameContainerOptions { name: name.to_owned() };
        client.within(&doing, CHANGE, client.docker.rename_container(id, options)).await
    }

    async fn set_restart(&self, id: &str, policy: RestartPolicy) -> Result<(), Error> {
        let doing = "change when the engine starts the container that is in the way";
        let client = self.client(doing)?;
        let body = ContainerUpdateBody { restart_policy: Some(policy), ..ContainerUpdateBody::default() };
        client.within(doing, CHANGE, client.docker.update_container(id, body)).await
    }
}
