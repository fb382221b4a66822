//! What is said to each kind of receiver.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use spec::lookout::{Call, Finding, MANY, Matter};

use super::{Change, Kind, Subject, Trouble};
use crate::snapshot::Snapshot;

/// The event of a trouble that is over, as in `alerts: { on: … }`.
pub(super) const RECOVERED: &str = "recovered";
/// For how long Alertmanager takes an alert for true that is not repeated.
const HOLDS: SignedDuration = SignedDuration::from_hours(1);
/// For how long it takes a test for true.
const TEST_HOLDS: SignedDuration = SignedDuration::from_mins(1);

/// Something to tell, with everything that a receiver needs to put it into words.
#[derive(Clone, Debug)]
pub struct Message {
    /// The host that it is about; `None` for the fleet.
    host: Option<String>,
    /// The host that tells it.
    by: String,
    fleet: String,
    app: Option<String>,
    commit: Option<String>,
    subject: Option<String>,
    before: Option<Trouble>,
    now: Option<Trouble>,
    at: Timestamp,
    holds: SignedDuration,
}

impl Message {
    /// Puts together what is to be told.
    pub(super) fn of(picture: &Snapshot, change: &Change, at: Timestamp) -> Message {
        let app = match &change.subject {
            Subject::Host | Subject::Branch => None,
            Subject::App(app) => Some(app),
        };
        let release = app.and_then(|app| picture.apps.get(app)?.commit.as_ref()).or(picture.commit.as_ref());
        Message {
            host: Some(picture.host.to_string()),
            by: picture.host.to_string(),
            fleet: picture.fleet.clone().unwrap_or_default(),
            app: app.map(ToString::to_string),
            commit: release.map(|release| release.id.as_str().to_owned()),
            subject: release.and_then(|release| release.subject.clone()),
            before: change.before.clone(),
            now: change.now.clone(),
            at,
            holds: HOLDS,
        }
    }

    /// Puts together what is to be told of the fleet.
    pub(super) fn of_fleet(picture: &Snapshot, call: &Call, at: Timestamp) -> Message {
        let (kind, of) = match call.subject.matter {
            Matter::Halted => (Kind::Halted, (None, Some(call.subject.of.clone()))),
            Matter::Silent => (Kind::Silent, (Some(call.subject.of.clone()).filter(|of| of != MANY), None)),
        };
        let Finding { about, since, text } = call.finding.clone();
        let trouble = Trouble { kind, about, since, text };
        let release = picture.commit.as_ref();
        Message {
            host: of.0,
            by: picture.host.to_string(),
            fleet: picture.fleet.clone().unwrap_or_default(),
            app: of.1,
            commit: release.map(|release| release.id.as_str().to_owned()),
            subject: release.and_then(|release| release.subject.clone()),
            before: Some(trouble.clone()).filter(|_| call.is_over),
            now: Some(trouble).filter(|_| !call.is_over),
            at,
            holds: HOLDS,
        }
    }

    /// Makes one that says nothing but that it arrives.
    pub fn test(host: &str) -> Message {
        let now = Timestamp::now();
        let text = "this is a test: nothing is wrong".to_owned();
        Message {
            host: Some(host.to_owned()),
            by: host.to_owned(),
            fleet: "test".to_owned(),
            app: Some("test".to_owned()),
            commit: None,
            subject: None,
            before: None,
            now: Some(Trouble { kind: Kind::Failed, about: "test".to_owned(), since: now, text }),
            at: now,
            holds: TEST_HOLDS,
        }
    }

    fn event(&self) -> &'static str {
        self.now.as_ref().map_or(RECOVERED, |trouble| trouble.kind.as_str())
    }

    /// One line that says who and what.
    pub(super) fn title(&self) -> String {
        let what = match (&self.now, &self.before) {
            (Some(trouble), _) => trouble.kind.as_str().replace('-', " "),
            (None, Some(before)) => format!("recovered ({} before)", before.kind.as_str().replace('-', " ")),
            (None, None) => RECOVERED.to_owned(),
        };
        match (&self.app, &self.host) {
            (Some(app), Some(host)) => format!("{app} on {host}: {what}"),
            (Some(app), None) => format!("{app} in {}: {what}", self.fleet),
            (None, Some(host)) => format!("{host}: {what}"),
            (None, None) => format!("{}: {what}", self.fleet),
        }
    }

    /// What is the matter, in words.
    pub(super) fn text(&self) -> String {
        let said = self.now.as_ref().map(|trouble| trouble.text.as_str()).unwrap_or_default();
        let release = self.commit.as_deref().map(|commit| {
            let subject = self.subject.as_deref().unwrap_or_default();
            format!("at {} {subject}", commit.get(..10).unwrap_or(commit)).trim_end().to_owned()
        });
        [Some(said.to_owned()), release]
            .into_iter()
            .flatten()
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Says whether somebody should be woken.
    pub(super) fn is_urgent(&self) -> bool {
        matches!(self.now.as_ref().map(|trouble| trouble.kind), Some(Kind::Failed | Kind::Unhealthy))
    }

    /// Says whether it is over.
    pub(super) fn is_recovery(&self) -> bool {
        self.now.is_none()
    }

    /// As JSON for whoever reads it.
    pub(super) fn generic(&self) -> Value {
        json!({
            "version": 1,
            "event": self.event(),
            "before": self.before.as_ref().map(|before| before.kind.as_str()),
            "fleet": self.fleet,
            "host": self.host,
            "by": self.by,
            "app": self.app,
            "commit": self.commit,
            "subject": self.subject,
            "since": self.now.as_ref().map_or(self.at, |trouble| trouble.since).to_string(),
            "at": self.at.to_string(),
            "title": self.title(),
            "text": self.text(),
        })
    }

    /// As Slack and those who took over its form want it: three characters are markup.
    pub(super) fn slack(&self) -> Value {
        let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let text = self.text();
        let text = if text.is_empty() { String::new() } else { format!("\n{}", escaped(&text)) };
        json!({ "text": format!("*{}*{text}", escaped(&self.title())) })
    }

    /// As Alertmanager's API v2 wants it (`POST /api/v2/alerts`): what was and is no longer so ends, what is begins.
    pub(super) fn alertmanager(&self) -> Value {
        let mut alerts = Vec::new();
        let ended = self.before.as_ref().filter(|before| self.now.as_ref().is_none_or(|now| !now.is_same(before)));
        alerts.extend(ended.map(|before| self.alert(before, self.at)));
        let until = self.at.saturating_add(self.holds).unwrap_or(self.at);
        alerts.extend(self.now.as_ref().map(|now| self.alert(now, until)));
        // An alert is known by its labels: of two releases in the same trouble it is the same one that goes on.
        alerts.dedup_by(|second, first| {
            let is_one = second["labels"] == first["labels"];
            if is_one {
                first.clone_from(second);
            }
            is_one
        });
        Value::Array(alerts)
    }

    fn alert(&self, trouble: &Trouble, until: Timestamp) -> Value {
        let severity = if matches!(trouble.kind, Kind::Failed | Kind::Unhealthy) { "critical" } else { "warning" };
        let mut labels = json!({
            "alertname": format!("Mainstay{}", camel(trouble.kind.as_str())),
            "fleet": self.fleet,
            "severity": severity,
        });
        if let Some(host) = &self.host {
            labels["host"] = Value::from(host.as_str());
        }
        if let Some(app) = &self.app {
            labels["app"] = Value::from(app.as_str());
        }
        json!({
            "labels": labels,
            "annotations": { "summary": self.title(), "description": trouble.text },
            "startsAt": trouble.since.min(until).to_string(),
            "endsAt": until.to_string(),
        })
    }
}

/// Writes `rolled-back` as `RolledBack`.
fn camel(word: &str) -> String {
    let part = |part: &str| part.get(..1).unwrap_or_default().to_ascii_uppercase() + part.get(1..).unwrap_or_default();
    word.split('-').map(part).collect()
}
