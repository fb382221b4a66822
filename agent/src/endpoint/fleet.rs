//! The page of a whole fleet, for whoever has a clone of its repository: served on the loopback, behind the same guard as a host's
//! own page, and read-only. What it shows is read elsewhere and put up here.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use spec::id::HostName;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::debug;

use super::answer::{self, Answer, TEXT};
use super::connection::{self, Connections};
use super::guard::{Door, Guard};
use super::listen::{BREATH, OTHERS};
use super::metrics::Form;
use super::page;
use super::route::Route;
use super::secret;
use crate::web;

/// What there is to show.
#[derive(Clone, Debug)]
pub struct Told {
    /// Everything, as JSON.
    pub json: Arc<str>,
    /// What can be counted, for Prometheus.
    pub metrics: Arc<str>,
}

/// A page that can be served.
pub struct FleetPage {
    listener: TcpListener,
    guard: Guard,
}

impl FleetPage {
    /// Begins to listen. `names` are those that requests may be for, beside the loopback's; with a token, only who sends it is told
    /// anything.
    ///
    /// # Errors
    /// Others could reach the address, it cannot be had, or the token is of no use.
    pub fn open(address: SocketAddr, names: &[String], token: Option<&Path>) -> io::Result<FleetPage> {
        if !address.ip().is_loopback() {
            return Err(io::Error::other(format!(
                "others can reach {address}: listen on the loopback, and let a web server with TLS and a login stand before it"
            )));
        }
        let token = token.map(|path| secret("--token", path)).transpose().map_err(io::Error::other)?;
        let host = HostName::parse("localhost").map_err(io::Error::other)?;
        let guard = Guard::new(&[address], names, &host, token.as_deref());
        Ok(FleetPage { listener: web::bind(address)?, guard })
    }

    /// Returns where it listens.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers, for ever.
    pub async fn serve(self, told: watch::Receiver<Told>) {
        let guard = Arc::new(self.guard);
        let mut connections = Connections::default();
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    debug!(%error, "a connection could not be taken");
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
            };
            let (guard, told) = (Arc::clone(&guard), told.clone());
            let is_crowd = connections.take_in(|slot| {
                connection::serve(stream, slot, move |request| {
                    let answer = answer_to(&request, &guard, &told.borrow());
                    async move { answer }
                })
            });
            if is_crowd {
                tokio::time::sleep(OTHERS).await;
            }
        }
    }
}

/// What is asked, and as what of a host's own page it is guarded.
enum Asked {
    File(&'static page::File),
    Alive,
    Everything,
    Metrics,
}

fn answer_to(request: &Request<Incoming>, guard: &Guard, told: &Told) -> Answer {
    let asked = match request.uri().path() {
        "/" => Asked::File(&page::FLEET),
        "/style.css" => Asked::File(&page::STYLE),
        "/icon.svg" => Asked::File(&page::ICON),
        "/fleet.js" => Asked::File(&page::FLEET_SCRIPT),
        "/healthz" => Asked::Alive,
        "/v1/fleet" => Asked::Everything,
        "/metrics" => Asked::Metrics,
        _ => return answer::guarded(answer::refusal(StatusCode::NOT_FOUND, "there is nothing; see /v1/fleet")),
    };
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return answer::guarded(answer::other_method("GET, HEAD"));
    }
    let like = match &asked {
        Asked::File(file) => Route::Page(file),
        Asked::Alive => Route::Health,
        Asked::Everything => Route::Status,
        Asked::Metrics => Route::Metrics,
    };
    let answer = match guard.admit(Door::Tcp, &like, request) {
        Err(refusal) => *refusal,
        Ok(_) => match asked {
            Asked::File(file) => page::answer(file),
            Asked::Alive => answer::whole(StatusCode::OK, TEXT, "ok\n"),
            Asked::Everything => answer::shared(Arc::clone(&told.json)),
            Asked::Metrics => answer::whole(StatusCode::OK, Form::Prometheus.kind(), told.metrics.to_string()),
        },
    };
    answer::guarded(answer)
}
