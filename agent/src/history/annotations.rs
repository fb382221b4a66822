//! Deployments as Grafana's annotations, so that a dashboard draws a line, or a span, at each of them.
//!
//! Times are in milliseconds, as Grafana's HTTP API and its sources of JSON take them.

use std::collections::BTreeMap;

use serde::Serialize;
use spec::id::{AppName, CommitId, HostName, shown};

use super::Event;

/// More hosts than this are counted, not named.
const MOST_HOSTS: usize = 5;

/// An annotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Annotation {
    /// When it began.
    pub time: i64,
    /// When it ended.
    pub time_end: i64,
    /// What dashboards select by.
    pub tags: Vec<String>,
    /// What is read.
    pub text: String,
}

/// One application that came to one end with one commit, on however many hosts.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Deployment<'e> {
    app: &'e AppName,
    state: &'e str,
    commit: &'e CommitId,
    /// What is no deployment stands for itself.
    alone: Option<usize>,
}

/// Puts events into annotations, the latest first. What a commit did to an application is one span from the first host that began
/// to the last that was done, however many they are.
pub fn annotations(events: &[Event]) -> Vec<Annotation> {
    let mut deployments: BTreeMap<Deployment<'_>, Vec<&Event>> = BTreeMap::new();
    for (number, event) in events.iter().enumerate() {
        let entry = &event.entry;
        let is_deployment = match entry.state {
            "converged" => entry.took_seconds.is_some(),
            "applying" | "baking" | "failed" | "rolled-back" | "removed" => true,
            _ => false,
        };
        let alone = (!is_deployment).then_some(number);
        let deployment = Deployment { app: &entry.app, state: entry.state, commit: &entry.commit.id, alone };
        deployments.entry(deployment).or_default().push(event);
    }
    let mut all: Vec<Annotation> =
        deployments.iter().map(|(deployment, events)| annotation(deployment, events)).collect();
    all.sort_by(|left, right| (right.time, &left.text).cmp(&(left.time, &right.text)));
    all
}

fn annotation(deployment: &Deployment<'_>, events: &[&Event]) -> Annotation {
    let Deployment { app, state, commit, .. } = deployment;
    let ends = events.iter().map(|event| event.entry.at.as_millisecond());
    let begins = events.iter().map(|event| {
        event.entry.at.as_millisecond().saturating_sub(event.entry.took_seconds.unwrap_or(0).saturating_mul(1000))
    });
    let mut hosts: Vec<&HostName> = events.iter().map(|event| &event.host).collect();
    hosts.sort();
    hosts.dedup();
    let named: Vec<&str> = hosts.iter().take(MOST_HOSTS).map(|host| host.as_str()).collect();
    let more = match hosts.len().saturating_sub(MOST_HOSTS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let subject = events.iter().find_map(|event| event.entry.commit.subject.as_deref()).map(shown).unwrap_or_default();
    let text = format!("{app} {state} on {}{more}: {} {subject}", named.join(", "), commit.short());
    let failure = events.iter().find_map(|event| event.entry.failure.as_deref());
    let failure = failure.map(|why| format!("\n{}", shown(why.lines().next().unwrap_or_default()))).unwrap_or_default();
    let mut tags = ["mainstay", state, app.as_str()].map(str::to_owned).to_vec();
    tags.extend(hosts.iter().take(MOST_HOSTS).map(ToString::to_string));
    Annotation {
        time: begins.min().unwrap_or_default(),
        time_end: ends.max().unwrap_or_default(),
        tags,
        text: text.trim_end().to_owned() + &failure,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::history::Entry;
    use crate::snapshot::Release;

    fn event(host: &str, second: i64, state: &'static str, took: Option<i64>) -> Event {
        let commit = CommitId::parse(&"94".repeat(20)).expect("a commit");
        let release = Release { subject: Some("web: another page".to_owned()), ..Release::nameless(&commit) };
        let entry = Entry {
            at: jiff::Timestamp::from_second(1_790_000_000 + second).expect("a time"),
            app: AppName::parse("web").expect("a name"),
            state,
            commit: release,
            from: None,
            runs: None,
            took_seconds: took,
            failure: (state == "failed").then(|| "failed to start unit `web.service`\n  | more".to_owned()),
        };
        Event { host: HostName::parse(host).expect("a name"), entry }
    }

    #[test]
    fn a_deployment_is_one_span_over_all_hosts_and_a_repair_is_one_on_its_own() {
        let events = [
            event("attic", 50, "repaired", None),
            event("attic", 40, "repaired", None),
            event("cellar", 20, "failed", Some(1)),
            event("barn", 14, "converged", Some(6)),
            event("attic", 5, "converged", Some(4)),
        ];
        let lines = annotations(&events).into_iter().map(|it| serde_json::to_string(&it).expect("JSON") + "\n");
        expect![[r#"
            {"time":1790000050000,"timeEnd":1790000050000,"tags":["mainstay","repaired","web","attic"],"text":"web repaired on attic: 9494949494 web: another page"}
            {"time":1790000040000,"timeEnd":1790000040000,"tags":["mainstay","repaired","web","attic"],"text":"web repaired on attic: 9494949494 web: another page"}
            {"time":1790000019000,"timeEnd":1790000020000,"tags":["mainstay","failed","web","cellar"],"text":"web failed on cellar: 9494949494 web: another page\nfailed to start unit `web.service`"}
            {"time":1790000001000,"timeEnd":1790000014000,"tags":["mainstay","converged","web","attic","barn"],"text":"web converged on attic, barn: 9494949494 web: another page"}
        "#]]
        .assert_eq(&lines.collect::<String>());
    }
}
