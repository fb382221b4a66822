//! What really happened on the hosts, asked of systemd and of the brokers themselves and never of the agent.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Host, Running};

/// The services that run on a host, each with the id that systemd gave to this run of it.
pub(crate) type Services = BTreeMap<String, String>;

/// Looks at the services of a host.
pub(crate) fn services(host: &Host) -> Result<Services> {
    let text = host.sh("systemctl show '*.service' --property=Id,InvocationID,SubState")?;
    let mut services = Services::new();
    for unit in text.split("\n\n") {
        let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        if let (Some(name), Some(run), Some("running")) = (value("Id"), value("InvocationID"), value("SubState")) {
            services.insert(name.to_owned(), run.to_owned());
        }
    }
    Ok(services)
}

/// The services that ran before and run anew, or not any more.
pub(crate) fn restarted(before: &Services, after: &Services) -> Vec<String> {
    let is_other = |name: &&String| before.get(*name) != after.get(*name);
    before.keys().filter(is_other).cloned().collect()
}

/// The run of a container: another one after a restart.
pub(crate) fn container(host: &Host, name: &str) -> Result<String> {
    host.sh(&format!("docker inspect --format '{{{{.Id}}}} {{{{.State.StartedAt}}}}' {name}"))
}

/// A client that talks to one broker all the time, and another one that listens.
pub(crate) struct Talk<'a> {
    broker: String,
    talker: (&'a Host, Running),
    listener: (&'a Host, Running),
}

/// What came of it.
pub(crate) struct Talked {
    /// Messages that were sent.
    pub(crate) sent: usize,
    /// Messages that the broker took.
    pub(crate) taken: usize,
    /// Messages that reached the listener.
    pub(crate) heard: usize,
}

impl<'a> Talk<'a> {
    /// Starts to talk; returns when the first message has arrived.
    pub(crate) fn start(broker: &str, talker: &'a Host, listener: &'a Host) -> Result<Talk<'a>> {
        let listen = format!("exec mosquitto_sub -h {broker} -t talk -q 1 >/run/heard-{broker}");
        let talk = format!(
            "for number in $(seq 1000000); do
                 if timeout 2 mosquitto_pub -h {broker} -t talk -q 1 -m $number 2>/dev/null
                 then echo taken; else echo refused; fi
                 sleep 0.05
             done >/run/sent-{broker}"
        );
        let listener_runs = listener.spawn(&["bash", "-c", &listen])?;
        // The listener's subscription must be there before what it is to hear.
        let hello = format!("mosquitto_pub -h {broker} -t talk -q 1 -m hello; test -s /run/heard-{broker}");
        listener.wait_for(Duration::from_secs(10), &hello)?;
        let talker_runs = talker.spawn(&["bash", "-c", &talk])?;
        talker.wait_for(Duration::from_secs(10), &format!("grep -q taken /run/sent-{broker}"))?;
        Ok(Talk { broker: broker.to_owned(), talker: (talker, talker_runs), listener: (listener, listener_runs) })
    }

    /// Stops and counts.
    pub(crate) fn end(self) -> Result<Talked> {
        let Talk { broker, talker: (talker, talks), listener: (listener, listens) } = self;
        talks.end()?;
        let count = format!("wc -l </run/sent-{broker}; grep -c taken /run/sent-{broker} || true");
        let counts = talker.sh(&count)?;
        let mut counts = counts.split_whitespace().map(str::parse::<usize>);
        let mut next = || counts.next().context("two numbers were printed")?.context("they are numbers");
        let (sent, taken) = (next()?, next()?);
        let heard = || {
            let count = listener.sh(&format!("grep -vc hello /run/heard-{broker} || true"))?;
            count.trim().parse::<usize>().context("a number was printed")
        };
        // The last ones may still be on their way.
        lab::poll(Duration::from_secs(2), || Ok((heard()? >= taken).then_some(())))?;
        let heard = heard()?;
        listens.end()?;
        Ok(Talked { sent, taken, heard })
    }
}
