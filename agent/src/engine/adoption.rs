//! Somebody else's container in the place of a wanted one: stopped, so that it frees its ports and volumes, and kept under another
//! name, with all that is in it. Nothing here ever removes one.

use std::collections::HashMap;

use bollard::models::{ContainerUpdateBody, RestartPolicy, RestartPolicyNameEnum};
use bollard::query_parameters::RenameContainerOptions;
use serde::Deserialize;
use spec::id::{AppName, ContainerName, shown};
use spec::memory::Adopted;

use super::containers::FLEET;
use super::{CHANGE, Engine, Error, path_escaped};

/// How many names are tried for what is kept.
const NAMES: usize = 100;
/// The label by which Podman knows the unit that a container is made and removed by.
const PODMAN_UNIT: &str = "PODMAN_SYSTEMD_UNIT";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    #[serde(default)]
    state: State,
    #[serde(default)]
    host_config: HostConfig,
    #[serde(default)]
    config: Config,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct State {
    running: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    auto_remove: bool,
    restart_policy: Option<RestartPolicy>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    labels: Option<HashMap<String, String>>,
}

impl Engine {
    /// Returns what it takes to give somebody else's container its place back once it was set aside for one of `app`.
    ///
    /// # Errors
    /// Refused when it cannot be kept, or when whoever made it would make it again; Missing when it is gone.
    pub async fn adoptable(&self, id: &str, app: &AppName) -> Result<Adopted, Error> {
        let doing = "take over the container that is in the way";
        let path = format!("/containers/{}/json", path_escaped(id));
        let is: Inspected = self.get(doing, &path).await?;
        if let Some(words) = is.obstacle() {
            return Err(Error::Refused { doing: doing.into(), words });
        }
        let policy = is.host_config.restart_policy.unwrap_or_default();
        let name = policy.name.unwrap_or(RestartPolicyNameEnum::NO).to_string();
        let restart = (name, policy.maximum_retry_count.unwrap_or_default());
        Ok(Adopted { app: app.clone(), id: id.to_owned(), running: is.state.running, restart, back: None })
    }

    /// Gives a stopped container another name, beside that of the container which takes its place, and has the engine not start
    /// it after a reboot. Returns the name.
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
        self.set_restart(id, RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None })
            .await?;
        self.rename(id, &kept).await?;
        Ok(kept)
    }

    /// Undoes [`Engine::set_aside`], and starts the container if it ran. What was not done to it is not undone.
    ///
    /// # Errors
    /// Refused with the engine's words, also when its name is taken; Missing when it is gone.
    pub async fn put_back(&self, name: &ContainerName, theirs: &Adopted) -> Result<(), Error> {
        let is_there = self.containers().await?.get(name).is_some_and(|it| it.id == theirs.id);
        if !is_there {
            self.rename(&theirs.id, name.as_str()).await?;
        }
        let (policy, most) = &theirs.restart;
        let maximum_retry_count = Some(*most).filter(|most| *most > 0);
        self.set_restart(&theirs.id, RestartPolicy { name: policy.parse().ok(), maximum_retry_count }).await?;
        if theirs.running { self.start(&theirs.id).await } else { Ok(()) }
    }

    async fn rename(&self, id: &str, name: &str) -> Result<(), Error> {
        let doing = format!("call a container `{name}`");
        let client = self.client(&doing)?;
        let options = RenameContainerOptions { name: name.to_owned() };
        client.within(&doing, CHANGE, client.docker.rename_container(id, options)).await
    }

    async fn set_restart(&self, id: &str, policy: RestartPolicy) -> Result<(), Error> {
        let doing = "change when the engine starts the container that was in the way";
        let client = self.client(doing)?;
        let body = ContainerUpdateBody { restart_policy: Some(policy), ..ContainerUpdateBody::default() };
        client.within(doing, CHANGE, client.docker.update_container(id, body)).await
    }
}

impl Inspected {
    /// Says why the container cannot be set aside, if it cannot.
    fn obstacle(&self) -> Option<String> {
        let label = |key| self.config.labels.as_ref().and_then(|labels| labels.get(key));
        if self.host_config.auto_remove {
            let words = "it was started with `--rm`: it would be gone when it stops, with all that is in it; remove it yourself";
            return Some(words.to_owned());
        }
        if let Some(unit) = label(PODMAN_UNIT) {
            let words =
                "it belongs to a unit that would make it again; stop and disable that one, or take over its file";
            return Some(format!("{words} ({})", shown(unit)));
        }
        let fleet = label(FLEET)?;
        Some(format!(
            "mainstay put it there for another host or the fleet `{}`, which would make it again",
            shown(fleet)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_lost_or_made_again_is_not_taken_over() {
        let obstacle = |text: &str| serde_json::from_str::<Inspected>(text).expect("an answer").obstacle();
        assert_eq!(obstacle(r#"{"Config":{"Labels":{"com.docker.compose.project":"shop"}}}"#), None);
        assert_eq!(obstacle(r#"{"HostConfig":{"RestartPolicy":{"Name":""}},"Config":{"Labels":null}}"#), None);
        for (text, words) in [
            (r#"{"HostConfig":{"AutoRemove":true}}"#, "`--rm`"),
            (r#"{"Config":{"Labels":{"PODMAN_SYSTEMD_UNIT":"web.service"}}}"#, "(web.service)"),
            (r#"{"Config":{"Labels":{"io.mainstay.fleet":"other"}}}"#, "fleet `other`"),
        ] {
            assert!(obstacle(text).is_some_and(|said| said.contains(words)), "{text}");
        }
    }
}
