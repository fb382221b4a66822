//! A crowd of clients that connect to a host and then never get on: half of them say nothing, half begin a request that never
//! ends.

use std::fs::File;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Host;

/// How long one of them tries to connect.
const PATIENCE: Duration = Duration::from_secs(10);
/// Descriptors that whoever calls this needs for other things.
const OTHERS: u64 = 200;

/// Connections that are held, as far as the other side leaves them open. They end with it.
pub struct Crowd {
    held: Vec<TcpStream>,
    asked: usize,
}

impl Crowd {
    /// Opens so many connections to a port on the host's loopback, or as many as the machine lets one process have.
    pub fn gather(host: &Host, port: u16, count: usize) -> Result<Crowd> {
        let network = format!("/proc/{}/ns/net", host.leader_pid().context("the host does not run")?);
        let network = File::open(&network).with_context(|| format!("failed to open {network}"))?;
        let most = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).context("failed to raise a limit")?;
        let room = most.map_or(count, |most| usize::try_from(most.saturating_sub(OTHERS)).unwrap_or(count));
        let asked = room.min(count);
        // A thread of its own: the network is the thread's.
        let opened = std::thread::spawn(move || -> Result<Vec<TcpStream>> {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .context("failed to enter the host's network")?;
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            Ok((0..asked).filter_map(|number| connect(&address, number)).collect())
        });
        let held = opened.join().map_err(|_| anyhow!("the crowd panicked"))??;
        Ok(Crowd { held, asked })
    }

    /// How many connected.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nobody could.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// How many tried.
    pub fn asked(&self) -> usize {
        self.asked
    }
}

fn connect(address: &SocketAddr, number: usize) -> Option<TcpStream> {
    let mut stream = TcpStream::connect_timeout(address, PATIENCE).ok()?;
    if number.is_multiple_of(2) {
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: local").ok()?;
    }
    Some(stream)
}
