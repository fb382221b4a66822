//! What must hold for an application to be well: where to look, what must be found there, and how patiently.
//!
//! Values only; the agent does the looking. Patience is part of the release: a check that became stricter is a new one.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{ContainerName, UnitName, shown};

/// How long a check may take after a change until it passes for the first time, unless it says.
pub const WITHIN: Duration = Duration::from_secs(30);
/// How long one try may take, unless the check says.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// How much time lies between two looks later on, unless the check says.
pub const INTERVAL: Duration = Duration::from_secs(30);
/// So many tries in a row must fail before an application that was well is called unhealthy.
pub const STRIKES: u32 = 3;

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What people call it, when they do.
    pub name: Option<String>,
    /// Where to look and what to find.
    pub probe: Probe,
    /// How long it may take after a change until it passes.
    pub within: Duration,
    /// How long one try may take.
    pub timeout: Duration,
    /// How much time lies between two looks once the application is well.
    pub interval: Duration,
}

/// Where to look, and what must be found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Probe {
    /// Something accepts connections.
    Tcp {
        /// `HOST:PORT`, an IPv6 address in brackets.
        address: String,
    },
    /// Something answers a GET.
    Http {
        /// The whole URL, http or https.
        url: String,
        /// The status codes that count; 200 to 399 when empty.
        status: BTreeSet<u16>,
        /// What the body must contain.
        body: Option<String>,
    },
    /// A program ends well.
    Exec {
        /// The program's absolute path and its arguments.
        command: Vec<String>,
        /// Who runs it; root when nobody is named.
        user: Option<String>,
    },
    /// A unit is active.
    Unit {
        /// The unit.
        unit: UnitName,
    },
    /// A container is healthy, or runs when it has no health check.
    Container {
        /// The container.
        container: ContainerName,
        /// The service of the quadlet that makes it, whose user's Podman has it, or root's; without one it is on the host's
        /// engine.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<UnitName>,
    },
}

impl fmt::Display for Check {
    /// The name, or what is looked at; never a query or an argument, which may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            return write!(f, "check `{}`", shown(name));
        }
        match &self.probe {
            Probe::Tcp { address } => write!(f, "check of tcp {}", shown(address)),
            Probe::Http { url, .. } => {
                write!(f, "check of {}", shown(url.split(['?', '#']).next().unwrap_or_default()))
            }
            Probe::Exec { command, .. } => {
                write!(f, "check by {}", shown(command.first().map_or("nothing", String::as_str)))
            }
            Probe::Unit { unit } => write!(f, "check of unit {unit}"),
            Probe::Container { container, service } => {
                write!(f, "check of container {container}")?;
                match service.as_ref().and_then(UnitName::user) {
                    Some(user) => write!(f, " of {user}"),
                    None => Ok(()),
                }
            }
        }
    }
}
