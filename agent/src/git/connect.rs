//! From an address to a connection that gix can talk git over.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use gix::protocol::transport::client::blocking_io::{Transport, http};
use gix::protocol::transport::client::git::{ConnectMode, blocking_io::Connection};
use gix::protocol::transport::{Protocol, Service};

use super::command;
use super::credential::Credentials;
use super::error::{Verdict, because};
use super::http::{Client, Requests};
use super::opening::Openings;
use super::remote::{Address, Deadlines, Remote};
use super::wire::{self, Watch};

/// What is kept from one conversation for the next.
#[derive(Default)]
pub(super) struct Kept {
    client: Option<Client>,
    /// Where the fetcher listens, which then talks to servers in the place of this process.
    pub(super) fetcher: Option<PathBuf>,
    pub(super) openings: Openings,
}

impl Kept {
    /// Makes a client for `remote`, where one is needed and none fits.
    ///
    /// # Errors
    /// The client cannot be built; ask a person.
    pub(super) fn ensure_client(&mut self, remote: &Remote, deadlines: &Deadlines) -> Result<(), Verdict> {
        if !matches!(remote.url.address(), Address::Http { .. }) || self.fetcher.is_some() {
            return Ok(());
        }
        if !self.client.as_ref().is_some_and(|client| client.suits(remote, deadlines)) {
            self.client = Some(Client::new(remote, deadlines).map_err(|why| Verdict::Config(because(why)))?);
        }
        Ok(())
    }
}

impl Kept {
    /// Returns where who talks to `remote` in the place of this process listens. A repository on this machine takes no network.
    pub(super) fn fetcher_for(&self, remote: &Remote) -> Option<&Path> {
        self.fetcher.as_deref().filter(|_| !matches!(remote.url.address(), Address::File { .. }))
    }
}

/// Connects to `remote` for `service`.
///
/// # Errors
/// The verdict is in `watch`.
pub(super) fn connect<'w>(
    remote: &Remote,
    service: Service,
    kept: &'w Kept,
    watch: &'w Watch<'w>,
) -> io::Result<Box<dyn Transport + 'w>> {
    let config = |why: String| watch.fail(Verdict::Config(because(why)));
    match remote.url.address() {
        Address::Http { url } => {
            let client = kept.client.as_ref().ok_or_else(|| config("there is no http client".to_owned()))?;
            let credentials = Credentials::find(remote, watch).map_err(|verdict| watch.fail(verdict))?.map(Rc::new);
            let url = gix::url::parse(url.as_str()).map_err(|error| config(error.to_string()))?;
            let requests = Requests { client, watch, credentials };
            Ok(Box::new(http::Transport::new_http(requests, url, Protocol::V2, false)))
        }
        Address::Git { host, port, path } => {
            let (reader, writer) = wire::tcp(host, *port, watch)?;
            let virtual_host = Some((host.trim_matches(['[', ']']), Some(*port)));
            let mode = ConnectMode::Daemon;
            Ok(Box::new(Connection::new(reader, writer, Protocol::V2, path.as_str(), virtual_host, mode, false)))
        }
        Address::Ssh { user, host, port, path } => {
            let target = (user.as_deref(), host.as_str(), *port);
            let command =
                command::ssh(&remote.ssh, &watch.deadlines, target, (service.as_str(), path)).map_err(config)?;
            piped(command, path, watch)
        }
        Address::File { path } => piped(command::git_serve(service.as_git_subcommand(), path), path, watch),
    }
}

fn piped<'w>(command: std::process::Command, path: &str, watch: &'w Watch<'w>) -> io::Result<Box<dyn Transport + 'w>> {
    let (reader, writer) = wire::child(command, watch)?;
    let nobody = None::<(&str, Option<u16>)>;
    Ok(Box::new(Connection::new(reader, writer, Protocol::V2, path, nobody, ConnectMode::Process, false)))
}
