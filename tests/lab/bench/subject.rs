//! The agent as the bench sees it: the real service on the host, its log, and what the kernel counts of it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::{Host, Running, product};

/// How long to wait for anything in the agent's log.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where it answers, where it is told by webhooks.
pub(super) const ENDPOINT: &str = "127.0.0.1:9105";

/// One line of the agent's log.
pub(super) struct Event {
    /// In microseconds since 1970.
    pub(super) at: u64,
    pub(super) message: String,
    fields: BTreeMap<String, String>,
}

impl Event {
    /// A field that is a number.
    pub(super) fn number(&self, field: &str) -> Option<u64> {
        self.fields.get(field)?.parse().ok()
    }
}

/// How the agent is told to work.
pub(super) enum Pace {
    /// It looks at the host five times a second, and asks the repository only when told to.
    Poked,
    /// It looks at the host five times a second, and asks the repository every second.
    Busy,
    /// It looks at the host when it hears of something, and asks the repository only when told to.
    Hearing,
    /// It looks at the host when it hears of something, and asks the repository when a webhook tells it to.
    Told,
    /// As installed, logging as installed.
    Usual,
}

/// The agent on a host.
pub(super) struct Subject<'a> {
    host: &'a Host,
    repository: String,
    log: Receiver<Event>,
    _follows: Running,
}

impl<'a> Subject<'a> {
    /// Installs the program with its service, and follows its log.
    pub(super) fn install(host: &'a Host, program: &Path, repository: String) -> Result<Subject<'a>> {
        host.copy_in(program, "/usr/bin/mainstay")?;
        product::bring_units(host)?;
        host.sh("chmod 0755 /usr/bin/mainstay")?;
        let mut follows = host.spawn(&["journalctl", "--follow", "--no-tail", "--output=json", "--unit=mainstay"])?;
        let lines = BufReader::new(follows.stdout.take().context("journalctl has an output")?).lines();
        let (sender, log) = channel();
        std::thread::spawn(move || {
            let events = lines.map_while(Result::ok).filter_map(|line| event(&line));
            // Ends with the host, or when nobody listens any more.
            for event in events {
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Ok(Subject { host, repository, log, _follows: follows })
    }

    /// Starts it, or starts it again, at another pace; returns when it says that it is ready.
    pub(super) fn start(&self, pace: &Pace) -> Result<()> {
        let (settings, log) = match pace {
            Pace::Poked => ("poll: 1h\nobserve: 200ms\n", "mainstay=debug"),
            Pace::Busy => ("poll: 1s\nobserve: 200ms\n", "mainstay=debug"),
            Pace::Hearing => ("poll: 1h\nobserve: 1h\n", "mainstay=debug"),
            Pace::Told => (
                "poll: 1h\nobserve: 1h\nendpoint: { listen: [\"ENDPOINT\"], hooks: /etc/mainstay/hook }\n",
                "mainstay=debug",
            ),
            Pace::Usual => ("", "mainstay=info"),
        };
        let settings = settings.replace("ENDPOINT", ENDPOINT);
        let settings = format!("repository: \"{}\"\n{settings}", self.repository);
        self.host.write("/etc/mainstay/agent.yaml", settings)?;
        let drop_in = format!("[Service]\nEnvironment=RUST_LOG={log}\n");
        self.host.write("/etc/systemd/system/mainstay.service.d/bench.conf", drop_in)?;
        self.host.sh("systemctl daemon-reload && systemctl restart mainstay")?;
        self.wait_for("starts", |event| event.message.ends_with(" starts")).map(drop)
    }

    /// Waits for a line of the log that `wanted` accepts.
    pub(super) fn wait_for(&self, what: &str, wanted: impl Fn(&Event) -> bool) -> Result<Event> {
        let end = Instant::now() + PATIENCE;
        let mut last = String::from("nothing");
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.log.recv_timeout(left);
            let event = event.with_context(|| format!("the agent did not say `{what}`; it said last: {last}"))?;
            if wanted(&event) {
                return Ok(event);
            }
            last = event.message;
        }
    }

    /// The main process, as the host counts.
    pub(super) fn process(&self) -> Result<String> {
        Ok(self.host.sh("systemctl show -P MainPID mainstay")?.trim().to_owned())
    }

    /// Its processes: with who talks to servers, while that one is there.
    fn processes(&self) -> Result<Vec<String>> {
        let said = self.host.sh("systemctl show -P MainPID mainstay mainstay-fetch")?;
        Ok(said.split_whitespace().filter(|process| *process != "0").map(str::to_owned).collect())
    }

    /// What it has computed since it was started, children included, in microseconds.
    pub(super) fn cpu(&self) -> Result<u64> {
        let said = self.host.sh("systemctl show -P CPUUsageNSec mainstay mainstay-fetch")?;
        let counts: Vec<u64> = said.split_whitespace().filter_map(|count| count.parse().ok()).collect();
        anyhow::ensure!(!counts.is_empty(), "the service manager does not count processor time");
        Ok(counts.iter().sum::<u64>() / 1000)
    }

    /// How often its threads slept and were woken.
    pub(super) fn wakes(&self) -> Result<u64> {
        let mut said = String::new();
        for process in self.processes()? {
            said += &self.host.sh(&format!("cat /proc/{process}/task/*/status"))?;
        }
        let counts = said.lines().filter_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        counts.map(|count| count.trim().parse::<u64>().context("the kernel counts in numbers")).sum()
    }

    /// What of it is in memory, in kilobytes, by the kernel's names.
    pub(super) fn memory(&self) -> Result<BTreeMap<String, u64>> {
        let mut sums = BTreeMap::new();
        for process in self.processes()? {
            let said = self.host.sh(&format!("cat /proc/{process}/smaps_rollup"))?;
            let lines = said.lines().filter_map(|line| line.split_once(':'));
            let number = |text: &str| text.trim().trim_end_matches(" kB").parse::<u64>().ok();
            for (name, number) in lines.filter_map(|(name, rest)| Some((name.to_owned(), number(rest)?))) {
                *sums.entry(name).or_insert(0) += number;
            }
        }
        Ok(sums)
    }

    /// The last lines of its log, for the note of what went wrong.
    pub(super) fn last_words(&self) -> String {
        let read = "journalctl --unit=mainstay --no-pager --output=verbose | grep -E ' (MESSAGE|F_WHY|F_ERROR)='";
        let said = self.host.sh(&format!("{read} | grep -vE '=(awake|pass done|asked the repository)$' | tail -n 15"));
        said.unwrap_or_else(|error| format!("{error:#}"))
    }
}

fn event(line: &str) -> Option<Event> {
    let said: BTreeMap<String, serde_json::Value> = serde_json::from_str(line).ok()?;
    let text = |key: &str| said.get(key).and_then(serde_json::Value::as_str).map(str::to_owned);
    let at = text("_SOURCE_REALTIME_TIMESTAMP").or_else(|| text("__REALTIME_TIMESTAMP"))?.parse().ok()?;
    let fields = said.keys().filter_map(|key| Some((key.strip_prefix("F_")?.to_ascii_lowercase(), text(key)?)));
    Some(Event { at, message: text("MESSAGE").unwrap_or_default(), fields: fields.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_line_are_read() {
        let line = r#"{"MESSAGE":"pass done","F_WALL_US":"12","__REALTIME_TIMESTAMP":"7","_PID":"3"}"#;
        let event = event(line).unwrap();
        assert_eq!((event.at, event.message.as_str(), event.number("wall_us")), (7, "pass done", Some(12)));
        assert_eq!(event.number("pid"), None);
    }
}
