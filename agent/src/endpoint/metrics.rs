//! What can be counted, in the text that Prometheus reads: written when it is asked for, of what is known anyway.
//!
//! No registry: a family that is kept between two looks would be a second memory of what the picture says.

use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use spec::id::AppName;
use spec::memory::AppState;
use spec::trust::Require;

use crate::board::Pulse;
use crate::snapshot::{App, Condition, Snapshot};

/// The states of an application, each of which is a series.
const STATES: [AppState; 8] = [
    AppState::Waiting,
    AppState::Applying,
    AppState::Converged,
    AppState::Failed,
    AppState::RolledBack,
    AppState::Unhealthy,
    AppState::Drifted,
    AppState::Repaired,
];

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// What everybody reads: text/plain, version 0.0.4.
    Prometheus,
    /// The standard that came of it.
    OpenMetrics,
}

impl Form {
    /// Finds out what a client reads.
    pub(super) fn accepted(accept: &str) -> Form {
        match accept.contains("application/openmetrics-text") {
            true => Form::OpenMetrics,
            false => Form::Prometheus,
        }
    }

    /// Returns its name.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Form::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Writes everything.
pub(super) fn write(snapshot: &Snapshot, pulse: &Pulse, form: Form) -> String {
    let mut page = Page { text: String::with_capacity(8 << 10), form };
    about_the_agent(&mut page, snapshot);
    about_the_commit(&mut page, snapshot);
    about_apps(&mut page, snapshot);
    about_passes(&mut page, pulse);
    about_the_repository(&mut page, pulse);
    about_the_process(&mut page);
    page.text.push_str("# EOF\n");
    page.text
}

fn about_the_agent(page: &mut Page, snapshot: &Snapshot) {
    page.gauge("mainstay_build_info", "The program that runs.");
    page.sample("mainstay_build_info", &[("version", snapshot.agent.version)], 1);
    page.gauge("mainstay_ready", "Whether a commit is believed and the first look at the host is over.");
    page.sample("mainstay_ready", &[], u8::from(snapshot.ready));
    page.gauge("mainstay_converged", "Whether everything on this host is as the commit says.");
    page.sample("mainstay_converged", &[], u8::from(snapshot.condition == Condition::Converged));
    page.gauge("mainstay_paused", "Whether a person paused everything on this host.");
    page.sample("mainstay_paused", &[], u8::from(snapshot.plan.paused.host.is_some()));
}

fn about_the_commit(page: &mut Page, snapshot: &Snapshot) {
    page.gauge("mainstay_believed_commit_info", "The commit that this host is held to.");
    if let Some(commit) = &snapshot.commit {
        page.sample("mainstay_believed_commit_info", &[("commit", commit.id.as_str())], 1);
    }
    page.gauge("mainstay_commit_refused", "Whether a newer commit is not believed.");
    page.sample("mainstay_commit_refused", &[], u8::from(snapshot.refused.is_some()));
    page.gauge(
        "mainstay_commit_stale",
        "Whether the branch has been quiet for longer than it promises: newer commits may be withheld.",
    );
    page.sample("mainstay_commit_stale", &[], u8::from(snapshot.stale.is_some()));
    page.gauge(
        "mainstay_signatures_required",
        "Whether commits have to be signed; while they have not, whoever can push is root here.",
    );
    if let Some(trust) = &snapshot.trust {
        page.sample("mainstay_signatures_required", &[], u8::from(trust.require != Require::None));
    }
    page.gauge("mainstay_repository_unreachable", "Whether the repository could not be asked.");
    page.sample("mainstay_repository_unreachable", &[], u8::from(snapshot.unreachable.is_some()));
    page.gauge("mainstay_removals_held", "Removals that wait for an acknowledgement.");
    page.sample("mainstay_removals_held", &[], snapshot.plan.held.as_ref().map_or(0, |held| held.removals.len()));
}

fn about_apps(page: &mut Page, snapshot: &Snapshot) {
    let apps = &snapshot.apps;
    let mut each = |name: &str, help: &str, value: &dyn Fn(&AppName, &App) -> usize| {
        page.gauge(name, help);
        for (app, known) in apps {
            page.sample(name, &[("app", app.as_str())], value(app, known));
        }
    };
    let plan = &snapshot.plan;
    each("mainstay_app_failures", "Passes in a row that failed at this release.", &|_, known| known.failures as usize);
    each("mainstay_app_drift", "Differences that are only reported.", &|app, _| {
        plan.drift.iter().filter(|it| it.app.as_ref() == Some(app)).count()
    });
    each("mainstay_app_conflicts", "What a person has to resolve.", &|app, _| {
        plan.conflicts.iter().filter(|it| it.app == *app).count()
    });
    each("mainstay_app_unknown", "What could not be looked at and is left alone.", &|app, _| {
        plan.unknown.iter().filter(|it| it.app == *app).count()
    });
    each("mainstay_app_paused", "Whether a person paused an application, or everything.", &|app, _| {
        usize::from(plan.is_paused(app))
    });
    each("mainstay_app_postponed", "Changes that wait for the end of a pause.", &|app, _| {
        plan.postponed.iter().filter(|it| it.app.as_ref() == Some(app)).count()
    });
    page.gauge("mainstay_app_state", "The state of an application: 1 for the one that it is in.");
    for (app, known) in apps {
        for state in STATES {
            let labels = [("app", app.as_str()), ("state", state.as_str())];
            page.sample("mainstay_app_state", &labels, u8::from(known.state == state));
        }
    }
    page.gauge("mainstay_app_state_since_timestamp_seconds", "When an application came into its state.");
    for (app, known) in apps {
        let labels = [("app", app.as_str())];
        page.sample("mainstay_app_state_since_timestamp_seconds", &labels, known.since.as_second());
    }
    page.gauge("mainstay_app_release_info", "The commit of the release that an application is at.");
    for (app, known) in apps {
        if let Some(commit) = &known.commit {
            page.sample("mainstay_app_release_info", &[("app", app.as_str()), ("commit", commit.id.as_str())], 1);
        }
    }
}

fn about_passes(page: &mut Page, pulse: &Pulse) {
    page.counter("mainstay_passes", "Looks at the host, with what followed from them.", &pulse.passes);
    page.gauge("mainstay_last_pass_seconds", "How long the last pass took.");
    page.sample("mainstay_last_pass_seconds", &[], seconds(&pulse.pass_us));
    page.gauge("mainstay_last_pass_cpu_seconds", "How much of the last pass was computing.");
    page.sample("mainstay_last_pass_cpu_seconds", &[], seconds(&pulse.pass_cpu_us));
    page.moment("mainstay_last_pass_timestamp_seconds", "When the last pass ended.", &pulse.passed_at);
    page.counter("mainstay_steps_done", "Changes that were made to the host.", &pulse.steps);
    page.counter("mainstay_steps_failed", "Changes that were tried and failed.", &pulse.failed);
    page.counter("mainstay_repairs", "Changes that were due since the host had drifted.", &pulse.repairs);
}

fn about_the_repository(page: &mut Page, pulse: &Pulse) {
    page.counter("mainstay_fetches", "Times that the repository was asked and answered.", &pulse.fetches);
    page.counter("mainstay_fetch_failures", "Times that it was asked and did not.", &pulse.fetch_failures);
    page.moment("mainstay_last_fetch_timestamp_seconds", "When it answered last.", &pulse.fetched_at);
    page.counter("mainstay_pushes", "Times that records were pushed.", &pulse.pushes);
    page.counter("mainstay_push_failures", "Times that records could not be pushed.", &pulse.push_failures);
    page.gauge(
        "mainstay_hosts_ignored",
        "Other hosts in whose refs stands what they did not sign, as far as they were looked at.",
    );
    page.sample("mainstay_hosts_ignored", &[], pulse.ignored.load(Ordering::Relaxed));
    page.counter(
        "mainstay_records_refused",
        "Signs of life and records of other hosts that were forged, replayed, too large or malformed.",
        &pulse.refused,
    );
    page.moment("mainstay_last_push_timestamp_seconds", "When records were pushed last.", &pulse.pushed_at);
}

/// The usual names for what a process takes, which dashboards know.
fn about_the_process(page: &mut Page) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    page.gauge("process_resident_memory_bytes", "Resident memory size in bytes.");
    page.sample("process_resident_memory_bytes", &[], resident.map_or(0, |kib: u64| kib << 10));
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let spent = std::time::Duration::try_from(spent).unwrap_or_default().as_secs_f64();
    page.family("process_cpu_seconds", "Total user and system CPU time spent in seconds.", "counter");
    page.sample("process_cpu_seconds_total", &[], spent);
}

fn seconds(micros: &AtomicU64) -> f64 {
    std::time::Duration::from_micros(micros.load(Ordering::Relaxed)).as_secs_f64()
}

/// The text so far.
struct Page {
    text: String,
    form: Form,
}

impl Page {
    fn gauge(&mut self, name: &str, help: &str) {
        self.family(name, help, "gauge");
    }

    /// Begins a family of series. The name of a counter's family ends in `_total` or not, depending on the form; that of its
    /// series always does.
    fn family(&mut self, name: &str, help: &str, kind: &str) {
        let total = if kind == "counter" && self.form == Form::Prometheus { "_total" } else { "" };
        self.line(format_args!("# HELP {name}{total} {help}"));
        self.line(format_args!("# TYPE {name}{total} {kind}"));
    }

    fn counter(&mut self, name: &str, help: &str, counter: &AtomicU64) {
        self.family(name, help, "counter");
        self.sample(&format!("{name}_total"), &[], counter.load(Ordering::Relaxed));
    }

    /// Adds when something happened last; nothing while it never did.
    fn moment(&mut self, name: &str, help: &str, moment: &AtomicU64) {
        self.gauge(name, help);
        match moment.load(Ordering::Relaxed) {
            0 => {}
            moment => self.sample(name, &[], moment),
        }
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        // Names of applications, states, commits and versions hold nothing that has to be escaped.
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        match labels.is_empty() {
            true => self.line(format_args!("{name} {value}")),
            false => self.line(format_args!("{name}{{{}}} {value}", labels.join(","))),
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("writing to a string does not fail");
    }
}

#[cfg(test)]
mod tests {
    use spec::digest::Digest;
    use spec::id::{CommitId, HostName};

    use super::*;
    use crate::snapshot::{Release, Repository};

    fn page(form: Form) -> String {
        let host = HostName::parse("attic").expect("a name");
        let mut snapshot = Snapshot::first(host, Repository { url: None, branch: "main".to_owned() });
        let id = CommitId::parse(&"1f".repeat(20)).expect("a commit");
        let release = Release { id, subject: None, author: None, committed: None };
        snapshot.commit = Some(release.clone());
        let app = App {
            state: AppState::RolledBack,
            since: jiff::Timestamp::UNIX_EPOCH,
            commit: Some(release),
            from: None,
            digest: Digest::of(b"x"),
            changes: 1,
            images: std::collections::BTreeMap::new(),
            trouble: None,
            failures: 2,
            again_at: None,
            bad: None,
        };
        snapshot.apps.insert(AppName::parse("web").expect("a name"), app);
        let pulse = Pulse::default();
        pulse.spent(1500, 300);
        write(&snapshot, &pulse, form)
    }

    #[test]
    fn series_stand_below_their_family() {
        for (form, total) in [(Form::Prometheus, "_total"), (Form::OpenMetrics, "")] {
            let text = page(form);
            assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
            assert!(
                text.contains(&format!("# TYPE mainstay_passes{total} counter\nmainstay_passes_total 1\n")),
                "{text}"
            );
            let mut family = String::new();
            for line in text.lines() {
                if let Some(rest) = line.strip_prefix("# TYPE ") {
                    family = rest.split(' ').next().unwrap_or_default().to_owned();
                } else if !line.starts_with('#') {
                    assert!(line.starts_with(&family), "{line} below {family}");
                    let value = line.rsplit(' ').next().unwrap_or_default();
                    assert!(value.parse::<f64>().is_ok(), "{line}");
                }
            }
        }
    }

    #[test]
    fn an_application_is_in_one_state() {
        let text = page(Form::Prometheus);
        assert_eq!(text.matches("mainstay_app_state{app=\"web\"").count(), STATES.len());
        assert!(text.contains("mainstay_app_state{app=\"web\",state=\"rolled-back\"} 1\n"), "{text}");
        assert_eq!(
            text.lines().filter(|line| line.starts_with("mainstay_app_state{") && line.ends_with(" 1")).count(),
            1
        );
        assert!(text.contains("mainstay_app_failures{app=\"web\"} 2\n"), "{text}");
        assert!(text.contains("mainstay_last_pass_seconds 0.0015\n"), "{text}");
        assert!(!text.contains("mainstay_last_push_timestamp_seconds 0"), "never is no moment: {text}");
    }
}
