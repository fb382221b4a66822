//! `mainstay fleet serve`: a page of the fleet, for a browser on this machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use spec::id::AppName;
use tokio::sync::watch;

use super::super::{Common, Ended, out};
use super::{Place, Repo, answered, status};
use crate::endpoint::fleet::{FleetPage, Told};
use crate::fleet::{Condition, FleetError, Reading};
use crate::snapshot::Release;

/// Where it listens unless told otherwise.
const LISTEN: &str = "127.0.0.1:9106";
/// Nobody needs to know sooner.
const LEAST: Duration = Duration::from_secs(5);
/// So much longer at most, so that pages of several people do not ask together.
const JITTER: f64 = 0.2;
/// How long a fetch may take that is one of many.
const FETCH: Duration = Duration::from_secs(60);
const FITS: &str = "writing to a string does not fail";

const EXAMPLES: &str = "\
Examples:
  mainstay fleet serve                    then open http://127.0.0.1:9106
  mainstay fleet serve --token ~/token    for those who know it only";

/// Show the fleet in a browser, live
///
/// Serves a page with what `fleet status` shows, the same as JSON (/v1/fleet), and metrics for Prometheus (/metrics), until Ctrl-C. It
/// is read from the clone, which is fetched again and again, and answers only on this machine: put a web server with TLS and a login
/// before it for others, and name the host that they ask for with --name.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The address, of the loopback
    #[arg(long, value_name = "ADDRESS", default_value = LISTEN)]
    listen: SocketAddr,
    /// Answer requests for this name as well
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// A file with a token, without which nothing is told
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// How often to fetch; 5s at least
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "30s")]
    every: Duration,
}

/// Serves it.
///
/// # Errors
/// The address cannot be had, or the clone cannot be read at the beginning.
pub(super) async fn run(_common: &Common, place: &Place, args: &Args) -> anyhow::Result<Ended> {
    let mut stop = std::pin::pin!(out::stopped()?);
    let page = FleetPage::open(args.listen, &args.names, args.token.as_deref())
        .with_context(|| format!("failed to listen on {}", args.listen))?;
    let mut clone = place.open()?;
    let first = match told(&clone) {
        Ok(first) => first,
        Err(error) => return answered(Err(error.into())),
    };
    println!("the fleet is at http://{}", page.address()?);
    out::flush();
    let (teller, listener) = watch::channel(first);
    let mut served = std::pin::pin!(page.serve(listener));
    loop {
        let pause = args.every.max(LEAST).mul_f64(1.0 + JITTER * fastrand::f64());
        let renewal = async move {
            tokio::time::sleep(pause).await;
            tokio::task::spawn_blocking(move || {
                clone.renew(FETCH);
                let told = told(&clone);
                (clone, told)
            })
            .await
        };
        let (renewed, news) = tokio::select! {
            () = &mut stop => return Ok(Ended::Well),
            () = &mut served => return Ok(Ended::Impossible),
            renewed = renewal => renewed?,
        };
        clone = renewed;
        match news {
            Ok(news) => drop(teller.send_replace(news)),
            // What was read last is shown on, with when that was.
            Err(error) => eprintln!("mainstay: {}", crate::chain(&error)),
        }
    }
}

/// Reads the fleet, and puts it into the forms that are asked for.
fn told(clone: &Repo) -> Result<Told, FleetError> {
    let reading = clone.read()?;
    let newest = Release::read(&clone.mirror, &reading.commit);
    let mut answer = status::as_json(clone, &reading);
    if let Value::Object(answer) = &mut answer {
        answer.insert("subject".to_owned(), json!(newest.subject));
    }
    let metrics = metrics(&reading, clone.unreachable.is_none());
    Ok(Told { json: Arc::from(answer.to_string()), metrics: Arc::from(metrics) })
}

pub(super) fn metrics(reading: &Reading, is_fetched: bool) -> String {
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, values: Vec<(String, String)>| {
        writeln!(text, "# HELP mainstay_fleet_{name} {help}\n# TYPE mainstay_fleet_{name} gauge").expect(FITS);
        for (labels, value) in values {
            writeln!(text, "mainstay_fleet_{name}{labels} {value}").expect(FITS);
        }
    };
    let hosts = status::Sum::of(reading).counts();
    let hosts = hosts.into_iter().map(|(state, count)| (format!("{{state=\"{state}\"}}"), count.to_string()));
    gauge("hosts", "Hosts by where they are beside the newest commit.", hosts.collect());
    let mut apps: BTreeMap<&AppName, [usize; 4]> = BTreeMap::new();
    for row in reading.rows() {
        apps.entry(row.app).or_default()[row.condition().number()] += 1;
    }
    let words = Condition::ALL.map(Condition::as_str);
    let apps = apps.into_iter().flat_map(|(app, counts)| {
        let labels = words.map(|word| format!("{{app=\"{app}\",condition=\"{word}\"}}"));
        labels.into_iter().zip(counts.map(|count| count.to_string()))
    });
    gauge("applications", "Hosts of each application by how it fares there.", apps.collect());
    let once = |value: String| vec![(String::new(), value)];
    gauge("read_timestamp_seconds", "When the fleet was read.", once(reading.at.as_second().to_string()));
    gauge("fetched", "Whether the last fetch succeeded.", once(u8::from(is_fetched).to_string()));
    text
}
