//! Networks and volumes on the engine: what is there, and making them. A network is removed by the id it was seen with; a
//! volume never is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;
use spec::container::{NetworkSettings, Pool};
use spec::desired::{DesiredNetwork, DesiredVolume};
use spec::id::{AppName, NetworkName, VolumeName};
use spec::observed::{NetworkState, VolumeState};

use super::containers::{mark, marks, short};
use super::{CHANGE, Engine, Error, body, path_escaped};

/// A row of the list of networks, or one of them in full. Everything may be missing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Network {
    name: String,
    id: String,
    #[serde(default)]
    labels: Option<HashMap<String, String>>,
    #[serde(default)]
    containers: Option<HashMap<String, serde::de::IgnoredAny>>,
    #[serde(default)]
    driver: Option<String>,
    #[serde(default)]
    options: Option<BTreeMap<String, String>>,
    #[serde(default)]
    internal: bool,
    #[serde(default, rename = "EnableIPv6")]
    ipv6: bool,
    #[serde(default, rename = "IPAM")]
    ipam: Option<Ipam>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Ipam {
    driver: Option<String>,
    options: Option<BTreeMap<String, String>>,
    config: Option<Vec<Range>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Range {
    subnet: Option<String>,
    #[serde(rename = "IPRange")]
    range: Option<String>,
    gateway: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Volume {
    #[serde(default)]
    driver: Option<String>,
    #[serde(default)]
    options: Option<BTreeMap<String, String>>,
    #[serde(default)]
    labels: Option<HashMap<String, String>>,
}

impl Network {
    /// Returns how it was made.
    fn settings(self) -> NetworkSettings {
        let ipam = self.ipam.unwrap_or_default();
        let pools = ipam.config.unwrap_or_default().into_iter().map(|it| Pool {
            subnet: it.subnet,
            range: it.range,
            gateway: it.gateway,
            taken: BTreeMap::new(),
        });
        NetworkSettings {
            driver: self.driver,
            options: self.options.unwrap_or_default(),
            internal: self.internal,
            // It concerns nobody but a cluster.
            attachable: false,
            ipv6: self.ipv6,
            ipam_driver: ipam.driver,
            ipam_options: ipam.options.unwrap_or_default(),
            pools: pools.collect(),
            labels: self.labels.unwrap_or_default().into_iter().collect(),
        }
    }
}

impl Engine {
    /// Lists every network, ours or not, in one call.
    ///
    /// # Errors
    /// Unreachable or timed out.
    pub async fn networks(&self) -> Result<BTreeMap<NetworkName, NetworkState>, Error> {
        let rows: Vec<Network> = self.get("list networks", "/networks").await?;
        let named = rows.into_iter().filter_map(|row| {
            let name = NetworkName::parse(&row.name).ok()?;
            let mark = row.labels.as_ref().and_then(|labels| mark(labels, &self.owner));
            let id = row.id.clone();
            Some((name, NetworkState { id, mark, settings: row.settings(), containers: BTreeSet::new() }))
        });
        Ok(named.collect())
    }

    /// Returns the ids of the containers that are attached to a network.
    ///
    /// # Errors
    /// Missing when there is no such network.
    pub async fn attached(&self, id: &str) -> Result<BTreeSet<String>, Error> {
        let path = format!("/networks/{}", path_escaped(id));
        let network: Network = self.get(&format!("inspect network {}", short(id)), &path).await?;
        Ok(network.containers.unwrap_or_default().into_keys().collect())
    }

    /// Returns what is known of a volume; `None` when there is none of that name.
    ///
    /// # Errors
    /// Unreachable or timed out.
    pub async fn volume(&self, name: &VolumeName) -> Result<Option<VolumeState>, Error> {
        let path = format!("/volumes/{name}");
        let volume: Volume = match self.get(&format!("inspect volume `{name}`"), &path).await {
            Ok(volume) => volume,
            Err(Error::Missing { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mark = volume.labels.as_ref().and_then(|labels| mark(labels, &self.owner));
        let driver = volume.driver.unwrap_or_default();
        Ok(Some(VolumeState { mark, driver, options: volume.options.unwrap_or_default() }))
    }

    /// Makes a network that has our labels.
    ///
    /// # Errors
    /// Refused with the engine's words, for instance when its range of addresses is taken.
    pub async fn create_network(
        &self,
        name: &NetworkName,
        wanted: &DesiredNetwork,
        app: &AppName,
    ) -> Result<(), Error> {
        let doing = format!("create network `{name}`");
        let client = self.client(&doing)?;
        let Some(settings) = &wanted.settings else { return Ok(()) };
        let request = body::network(name, settings, &marks(&self.owner, app, &wanted.digest));
        client.within(&doing, CHANGE, client.docker.create_network(request)).await.map(drop)
    }

    /// Removes a network. One that is gone is no error.
    ///
    /// # Errors
    /// Refused while containers are attached to it.
    pub async fn remove_network(&self, id: &str) -> Result<(), Error> {
        let doing = format!("remove network {}", short(id));
        let client = self.client(&doing)?;
        match client.within(&doing, CHANGE, client.docker.remove_network(&path_escaped(id))).await {
            Err(Error::Missing { .. }) => Ok(()),
            result => result,
        }
    }

    /// Makes a volume that has our labels.
    ///
    /// # Errors
    /// Refused with the engine's words.
    pub async fn create_volume(&self, name: &VolumeName, wanted: &DesiredVolume, app: &AppName) -> Result<(), Error> {
        let doing = format!("create volume `{name}`");
        let client = self.client(&doing)?;
        let Some(settings) = &wanted.settings else { return Ok(()) };
        let request = body::volume(name, settings, &marks(&self.owner, app, &wanted.digest));
        client.within(&doing, CHANGE, client.docker.create_volume(request)).await.map(drop)
    }
}
