//! How a plan reads: in the order it is carried out, in the words of the logs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::desired::{HeldBack, Hold};
use crate::id::{AppName, shown};
use crate::inputs::Pull;
use crate::plan::fights::REPAIRS;
use crate::plan::{Action, Keep, Plan, Step, Verb, Why};

impl Verb {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Start => "start",
            Verb::Restart => "restart",
            Verb::Reload => "reload",
            Verb::Stop => "stop",
        }
    }
}

impl Action {
    /// Returns the verb people read.
    pub fn verb(&self) -> &'static str {
        match self {
            Action::PullImage(_) | Action::PullForUnit(..) => "pull",
            Action::FetchArtifact(_) => "fetch",
            Action::RetireUnit(_) => "stop",
            Action::DisableUnit(_) => "disable",
            Action::RemoveContainer(..)
            | Action::RemoveNetwork(..)
            | Action::RemoveFile(..)
            | Action::RemoveDirectory(_) => "remove",
            Action::CreateNetwork(_) | Action::CreateVolume(_) => "create",
            Action::WriteFile(_, crate::observed::FileState::Absent) => "create",
            Action::WriteFile(..) => "write",
            Action::SetAccess(..) => "set",
            Action::EnableUnit(_) => "enable",
            Action::Linger(_) => "enable",
            Action::StartManager(_) => "start",
            Action::ReloadSystemd | Action::ReloadManager(_) => "reload",
            Action::RunUnit { verb, .. } => verb.as_str(),
            Action::CreateContainer(_) => "create",
            Action::ReplaceContainer(..) | Action::AdoptContainer(..) => "replace",
            Action::StartContainer(..) => "start",
        }
    }

    /// Returns what it is done to.
    pub fn object(&self) -> String {
        match self {
            Action::PullImage(image) => format!("image {}", shown(image)),
            Action::PullForUnit(unit, Pull { image, .. }) => match unit.user() {
                Some(user) => format!("image {} for {user}", shown(image)),
                None => format!("image {}", shown(image)),
            },
            Action::FetchArtifact(origin) => shown(&origin.url),
            Action::Linger(user) => format!("lingering of {user}"),
            Action::StartManager(user) => format!("manager of {user}"),
            Action::ReloadSystemd => "systemd".to_owned(),
            Action::ReloadManager(user) => format!("systemd of {user}"),
            Action::RetireUnit(unit)
            | Action::DisableUnit(unit)
            | Action::EnableUnit(unit)
            | Action::RunUnit { unit, .. } => unit.to_string(),
            Action::RemoveContainer(name, _)
            | Action::CreateContainer(name)
            | Action::ReplaceContainer(name, _)
            | Action::AdoptContainer(name, _)
            | Action::StartContainer(name, _) => format!("container {name}"),
            Action::CreateNetwork(name) | Action::RemoveNetwork(name, _) => format!("network {name}"),
            Action::CreateVolume(name) => format!("volume {name}"),
            Action::RemoveFile(path, _)
            | Action::RemoveDirectory(path)
            | Action::WriteFile(path, _)
            | Action::SetAccess(path, _) => path.to_string(),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::New => f.write_str("new"),
            Why::Changed(text) => f.write_str(text),
            Why::Drifted(text) => write!(f, "drift: {text}"),
            Why::Owed(text) => write!(f, "owed: {text}"),
            Why::Unwanted => f.write_str("no longer wanted"),
        }
    }
}

impl Keep {
    /// Says why something is kept.
    pub fn as_str(self) -> &'static str {
        match self {
            Keep::Adopted => "it was there before mainstay and is taken over",
            Keep::Edited => "it was edited on this host",
            Keep::Unwanted => "it was edited on this host and is no longer wanted",
        }
    }
}

impl fmt::Display for Step {
    /// One line: `restart web.service (/etc/web.conf changes)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.action.verb(), self.action.object(), self.why)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        table(f, &self.steps)?;
        if !self.keeps.is_empty() {
            writeln!(f, "kept before, `mainstay restore` brings it back:")?;
            self.keeps.iter().try_for_each(|(path, keep)| writeln!(f, "  {path}: {}", keep.as_str()))?;
        }
        if !self.drift.is_empty() {
            writeln!(f, "drift, reported only:")?;
            table(f, &self.drift)?;
        }
        for (id, app) in &self.contested {
            writeln!(
                f,
                "no longer repaired in {app}: {id}: it was changed back {REPAIRS} times within an hour by somebody else; \
                 waits for a commit that changes {app}, or for SIGHUP"
            )?;
        }
        if let Some(pause) = &self.pauses.host {
            writeln!(f, "paused: nothing on this host is changed {pause}")?;
        }
        for (app, pause) in &self.pauses.apps {
            writeln!(f, "paused: nothing of {app} is changed {pause}")?;
        }
        if !self.postponed.is_empty() {
            writeln!(f, "not done while it is paused, `mainstay resume` ends that:")?;
            table(f, &self.postponed)?;
        }
        for conflict in &self.conflicts {
            writeln!(f, "conflict in {}: {}: {}", conflict.app, conflict.resource, conflict.why)?;
        }
        let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for unknown in &self.unknown {
            reasons.entry(&unknown.why).or_default().push(format!("{} ({})", unknown.resource, unknown.app));
        }
        for (why, resources) in reasons {
            writeln!(f, "left alone: {why}")?;
            resources.iter().try_for_each(|resource| writeln!(f, "  {resource}"))?;
        }
        for (app, until) in &self.waiting {
            writeln!(
                f,
                "waiting: {app} failed, or drifts again and again; it is tried again at {}",
                until.strftime("%Y-%m-%d %H:%M:%SZ")
            )?;
        }
        for (app, held) in &self.held_back {
            held_back(f, app, held)?;
        }
        for note in &self.notes {
            writeln!(f, "note on {}: {}: {}", note.app, note.resource, note.text)?;
        }
        if let Some(held) = &self.held {
            let count = held.removals.len();
            writeln!(f, "held: {count} of {} owned things would be removed at once:", held.owned)?;
            for id in &held.removals {
                writeln!(f, "  {id}")?;
            }
            writeln!(f, "  to let this happen, commit to fleet.yaml:")?;
            writeln!(f, "    acknowledge:")?;
            writeln!(f, "      - {{ prune: \"{}\", reason: \"why\" }}", held.digest)?;
        }
        if self.is_empty() {
            writeln!(f, "nothing to do")?;
        }
        Ok(())
    }
}

/// Says why an application is not brought to the commit, and what ends that.
fn held_back(f: &mut fmt::Formatter<'_>, app: &AppName, held: &HeldBack) -> fmt::Result {
    let release = match &held.commit {
        Some(commit) => format!("the release of {}", commit.short()),
        None => "its last good release".to_owned(),
    };
    match &held.why {
        Hold::Bad => writeln!(
            f,
            "held back: {app} stays at {release}: the commit's failed here and is not tried again until a commit changes \
             it, or `mainstay retry {app}`"
        ),
        Hold::Stuck(why) => writeln!(
            f,
            "stopped: {app} failed and was not taken back: a person is needed, then a commit or `mainstay retry {app}`: {}",
            shown(why.lines().next().unwrap_or_default())
        ),
        Hold::Paused => writeln!(f, "waits: {app} stays at {release} while it is paused; the commit has another one"),
        Hold::Waits(why) if held.is_untouched => writeln!(f, "waits: {app}: {why}"),
        Hold::Waits(why) => writeln!(f, "waits: {app} stays at {release}: {why}"),
    }
}

/// Writes steps as aligned columns: verb, object, application, reason. One image for several services is pulled once.
fn table(f: &mut fmt::Formatter<'_>, steps: &[Step]) -> fmt::Result {
    let mut pulled = BTreeSet::new();
    let is_new = |step: &&Step| {
        !matches!(step.action, Action::PullForUnit(..)) || pulled.insert((step.app.clone(), step.action.object()))
    };
    let steps: Vec<&Step> = steps.iter().filter(is_new).collect();
    let objects: Vec<String> = steps.iter().map(|step| step.action.object()).collect();
    let width = objects.iter().map(|object| object.chars().count()).max().unwrap_or(0).min(56);
    let apps = steps.iter().filter_map(|step| step.app.as_ref()).map(|app| app.as_str().len()).max().unwrap_or(0);
    for (step, object) in steps.into_iter().zip(&objects) {
        let app = step.app.as_ref().map_or("", |app| app.as_str());
        writeln!(f, "{:<8} {object:<width$}  {app:<apps$}  {}", step.action.verb(), step.why)?;
    }
    Ok(())
}
