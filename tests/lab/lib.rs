//! The lab: real Debian hosts with systemd, booted in a second or two, for end-to-end tests and for trying things out.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let lab = lab::Lab::start()?;
//! let [attic, barn] = lab.boot_all(&["attic", "barn"])?.try_into().ok().expect("two were asked for");
//! attic.sh("ping -c 1 barn")?;
//! barn.cut()?;
//! # Ok(()) }
//! ```
//!
//! A lab is a set of namespaces held by one process; nothing of it appears in the machine's main ones, and all of it
//! goes when the process that started it ends, in whatever way. Only [`product`] knows anything about mainstay.

// Bottom floor first.
mod shell;
mod process;
mod machine;
mod mirror;
mod tree;
pub mod tools;
pub mod register;
mod network;
pub mod enter;
mod host;
mod crowd;
mod disk;
mod outage;
mod work;
mod repo;
mod browser;
mod forge;
pub mod product;

use std::num::NonZero;
use std::sync::Arc;

use anyhow::{Context, Result};

pub use browser::Browser;
pub use crowd::Crowd;
pub use forge::{Forge, Image, Signer};
pub use host::Host;
pub use machine::available;
pub use process::Process;
pub use repo::{Change, Note, Repo};
pub use shell::poll;
pub use tree::{Debian, cache as tree_cache, ensure as root_tree};
pub use work::Running;

use network::Network;

/// Makes what every lab on this machine shares: programs, and the root tree. [`Lab::start`] does the same when it has to; whoever
/// starts many at once does it before.
pub fn prepare() -> Result<()> {
    machine::ensure_programs()?;
    // What only some tests need may be missing: these say so.
    for (what, got) in [("Prometheus", tools::prometheus().map(drop)), ("a browser", browser::ensure())] {
        if let Err(error) = got {
            eprintln!("lab: {what} is not here, and tests with it will fail: {error:#}");
        }
    }
    tree::ensure(Debian::Trixie)?;
    tree::ensure(Debian::Bookworm).map(drop)
}

/// A network of hosts. Keep it as long as more hosts may be booted; it ends with its last host.
pub struct Lab {
    network: Arc<Network>,
}

impl Lab {
    /// Makes an empty lab. The very first one on a machine builds the root tree, which takes about a minute.
    pub fn start() -> Result<Lab> {
        Ok(Lab { network: Arc::new(Network::start().context("failed to start a lab")?) })
    }

    /// Boots one host; its name is also its host name, known to all others.
    pub fn boot(&self, name: &str) -> Result<Host> {
        self.boot_on(name, Debian::Trixie)
    }

    /// Boots one host of another release of Debian; the very first one on a machine builds its root tree.
    pub fn boot_on(&self, name: &str, debian: Debian) -> Result<Host> {
        Host::boot(&self.network, name, debian, None, |_| Ok(()))
    }

    /// Boots several hosts, a few at a time, and returns them in the order of their names here.
    pub fn boot_all(&self, names: &[&str]) -> Result<Vec<Host>> {
        // A boot is mostly computing: more at once would not be done earlier, and each would look late.
        let at_once = 2 * std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut hosts = Vec::new();
        for names in names.chunks(at_once) {
            let booted: Result<Vec<_>> = std::thread::scope(|scope| {
                let boots: Vec<_> = names.iter().map(|name| scope.spawn(|| self.boot(name))).collect();
                let booted = boots.into_iter().map(|boot| boot.join().expect("a boot does not panic"));
                booted.collect()
            });
            hosts.extend(booted?);
        }
        Ok(hosts)
    }

    /// Boots the lab's forge; there is room for one.
    pub fn forge(&self) -> Result<Forge> {
        Forge::boot(&self.network)
    }

    /// What this lab is called in `/run/mainstay-lab` and among the machine's cgroups.
    pub fn id(&self) -> &str {
        &self.network.id
    }
}
