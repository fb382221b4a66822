//! What is done for quadlets: before anything changes, Podman's generator is asked about them and images are fetched; after
//! their start, Podman is asked what they run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use spec::desired::{DesiredUnit, FileKind};
use spec::id::{AppName, ContainerName, HostPath, QUADLET_DIRECTORY, ResourceId, UnitName, User};
use spec::images;
use spec::inputs::{self, Pull};
use spec::journal;
use spec::memory::Ran;
use spec::plan::{Action, Phase, Step};

use super::Work;
use crate::{observe, podman, systemd};

/// Where Podman looks for quadlets of every user, and below which for those of each (podman-systemd.unit(5)).
const EVERY_USERS: &str = "/etc/containers/systemd/users";
/// How much of somebody else's quadlets is read to see them together with ours.
const LARGEST: u64 = 1 << 20;
/// How many of the last lines of a failed pull are told.
const LINES: usize = 10;
/// How many lines are read of one that went well: an image has few names, and can be known by some digests.
const TOLD: usize = 40;

/// Asks Podman's generator about the quadlets as they will be. What it complains about fails its application, of which
/// nothing is changed then.
pub(super) async fn prove(work: &mut Work<'_>) {
    if podman::generator().is_none() {
        return;
    }
    let whose = work.plan.steps.iter().filter_map(|step| concerned(&step.action));
    for whose in whose.collect::<BTreeSet<Option<u32>>>() {
        prove_those(work, whose).await;
    }
}

/// Says whose quadlet is changed, if one is: root's (`None`), or that of a user with this number.
fn concerned(action: &Action) -> Option<Option<u32>> {
    match action {
        Action::WriteFile(path, _) | Action::RemoveFile(path, _) => {
            let is_one = path.quadlet().is_some() || path.quadlet_drop_in().is_some();
            is_one.then(|| path.quadlet_uid())
        }
        _ => None,
    }
}

async fn prove_those(work: &mut Work<'_>, whose: Option<u32>) {
    let reader = if whose.is_some() { podman::Reader::User } else { podman::Reader::Host };
    let complaints = match stage(work, whose) {
        Ok(stage) => podman::complaints(stage.path(), reader).await,
        Err(error) => Err(format!("the quadlets cannot be put together for Podman's generator: {error}")),
    };
    let plan = work.plan;
    let concerns = |step: &&Step| concerned(&step.action) == Some(whose);
    match complaints {
        Ok(complaints) => {
            for complaint in complaints {
                blame(work, whose, &complaint);
            }
        }
        Err(why) => plan.steps.iter().filter(concerns).for_each(|step| work.failed_with(step, &why, "")),
    }
}

/// Puts all quadlets of root or of a user together as they will be: those that are wanted, and those of others. What a user
/// has at home is left out: as root, nothing is read along a way that somebody else can bend.
fn stage(work: &Work<'_>, whose: Option<u32>) -> io::Result<tempfile::TempDir> {
    let stage = tempfile::Builder::new().prefix("mainstay-quadlets-").tempdir()?;
    let folder = folder_of(whose);
    if whose.is_some() {
        theirs(work, Path::new(EVERY_USERS), stage.path())?;
    }
    theirs(work, Path::new(&folder), stage.path())?;
    for (_, path, file) in work.desired.files() {
        if let (FileKind::Regular { content, .. }, Ok(within)) =
            (&file.kind, Path::new(path.as_str()).strip_prefix(&folder))
            && path.quadlet_uid() == whose
        {
            let target = stage.path().join(within);
            target.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(target, content)?;
        }
    }
    Ok(stage)
}

/// Returns where Podman looks for the quadlets of root or of a user.
fn folder_of(whose: Option<u32>) -> String {
    whose.map_or_else(|| QUADLET_DIRECTORY.to_owned(), |uid| format!("{EVERY_USERS}/{uid}"))
}

/// Copies what is in `folder` and not ours; Podman looks one folder deep and more, of which nobody makes use.
fn theirs(work: &Work<'_>, folder: &Path, target: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let is_ours = path.to_str().and_then(|path| HostPath::parse(path).ok()).is_some_and(|path| {
            work.ledger.memory.owned.contains_key(&ResourceId::File(path.clone())) || work.desired.file(&path).is_some()
        });
        let Some(name) = path.file_name() else { continue };
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) => {
                // A link that leads nowhere is nothing to Podman either.
                tracing::debug!(path = %path.display(), %error, "somebody's quadlet cannot be looked at");
                continue;
            }
        };
        let is_whole = folder.parent() == Path::new(EVERY_USERS).into() || folder == Path::new(QUADLET_DIRECTORY);
        if metadata.is_dir() && is_whole && path != Path::new(EVERY_USERS) {
            fs::create_dir_all(target.join(name))?;
            theirs(work, &path, &target.join(name))?;
        } else if metadata.is_file() && metadata.len() <= LARGEST && !is_ours {
            fs::copy(&path, target.join(name))?;
        }
    }
    Ok(())
}

/// Fails the application whose quadlet a complaint is about; one about somebody else's quadlet is theirs to mend.
fn blame(work: &mut Work<'_>, whose: Option<u32>, complaint: &str) {
    let desired = work.desired;
    let named =
        |path: &HostPath| path.quadlet_uid() == whose && path.quadlet().is_some_and(|name| mentions(complaint, name));
    let Some((app, path, file)) = desired.files().find(|(_, path, _)| named(path)) else {
        tracing::debug!(complaint, "Podman's generator complains about a quadlet that is not ours");
        return;
    };
    let text = match &file.kind {
        FileKind::Regular { content, .. } => String::from_utf8_lossy(content),
        FileKind::Symlink { .. } | FileKind::Directory | FileKind::Artifact { .. } | FileKind::Archive { .. } => {
            "".into()
        }
    };
    let line = line_of(&text, path.file_name(), complaint).map_or(String::new(), |line| format!(":{line}"));
    let why = format!("apps/{app}/{}{line}: Podman makes no service of {path}: {complaint}", path.file_name());
    let plan = work.plan;
    let of_app = |step: &&Step| step.app.as_ref() == Some(app);
    let writes = |step: &&Step| matches!(&step.action, Action::WriteFile(written, _) if written == path);
    if let Some(step) = plan.steps.iter().find(writes).or_else(|| plan.steps.iter().find(of_app)) {
        work.failed_with(step, &why, "");
    }
}

/// Says whether a complaint names a file, and not only one whose name ends like it.
fn mentions(complaint: &str, name: &str) -> bool {
    complaint.match_indices(name).any(|(at, _)| {
        let before = complaint[..at].chars().next_back();
        let behind = complaint[at + name.len()..].chars().next();
        let is_part = |c: char| c.is_alphanumeric() || "-_.@".contains(c);
        !before.is_some_and(is_part) && !behind.is_some_and(|c| c.is_alphanumeric() || "-_@".contains(c))
    })
}

/// Finds the line of a quadlet that a complaint is about: the first that holds a word which the complaint quotes or names.
fn line_of(text: &str, name: &str, complaint: &str) -> Option<usize> {
    let words = complaint.split(|c: char| c.is_whitespace() || "'\"`".contains(c));
    let telling = words.map(|word| word.trim_matches([':', ',', '.'])).filter(|word| word.len() > 2 && *word != name);
    let mut lines = telling.filter(|word| !word.starts_with('/')).filter_map(|word| {
        let starts =
            |line: &str| line.trim_start().strip_prefix(word).is_some_and(|rest| rest.trim_start().starts_with('='));
        let is_file = word.contains('.');
        text.lines().position(|line| starts(line) || (is_file && line.contains(word)))
    });
    lines.next().map(|index| index + 1)
}

/// Has Podman fetch what services of quadlets are about to be started with. A failure leaves the application as it is.
pub(super) async fn pull(work: &mut Work<'_>) {
    let mut of: BTreeMap<UnitName, (&Pull, Vec<&Step>)> = BTreeMap::new();
    for step in work.steps(Phase::Fetch) {
        if let Action::PullForUnit(unit, pull) = &step.action {
            of.entry(podman::pull_unit(pull).of(unit.user())).or_insert((pull, Vec::new())).1.push(step);
        }
    }
    if of.is_empty() {
        return;
    }
    let (deadline, progress) = (work.patience.pull, work.progress);
    let names: Vec<UnitName> = of.keys().cloned().collect();
    let mark = || progress.mark();
    let systemd = &mut work.providers.systemd;
    // What an earlier pass left behind, which was killed in between.
    let stops = names.iter().map(|name| (name.clone(), systemd::Verb::Stop)).collect();
    systemd.run(stops, deadline, &mark).await;
    let mut jobs = Vec::new();
    // Podman does not tell how far it is.
    let transfers: Vec<_> = of.values().map(|(pull, _)| progress.transfer(&format!("image {}", pull.image))).collect();
    for (name, (pull, steps)) in &of {
        let description = format!("Fetch {} for mainstay", pull.image);
        let command = podman::pull_command(pull);
        let systemd = work.providers.systemd.of(name.user());
        let started = systemd.start_transient(name, &description, &command, deadline).await;
        match started {
            Ok(()) => jobs.push((name.clone(), systemd::Verb::Start)),
            Err(error) => steps.iter().for_each(|step| work.failed_with(step, &not_pulled(step, &error), "")),
        }
    }
    let ran = tokio::select! {
        ran = work.providers.systemd.run(jobs, deadline, &mark) => ran,
        () = progress.overdue() => {
            work.outcome.interrupted = true;
            return;
        }
    };
    drop(transfers);
    for (name, result) in ran {
        let Some((pull, steps)) = of.get(&name) else { continue };
        let lines = if result.is_ok() { TOLD } else { LINES };
        let said = systemd::journal_tail(&name, None, lines).await;
        match result {
            Ok(_) => note(work, name.user(), pull, steps, &said),
            Err(error) => steps.iter().for_each(|step| work.failed_with(step, &not_pulled(step, &error.why), &said)),
        }
    }
    let stops = names.into_iter().map(|name| (name, systemd::Verb::Stop)).collect();
    work.providers.systemd.run(stops, deadline, &mark).await;
}

/// Words a failure by the image: the unit that fetches it is named by nobody, and gone.
fn not_pulled(step: &Step, error: &(dyn std::error::Error + 'static)) -> String {
    let why = crate::chain(error);
    format!("failed to pull {}: {}", step.action.object(), why.strip_prefix("failed to ").unwrap_or(&why))
}

fn note(work: &mut Work<'_>, user: Option<&User>, pull: &Pull, steps: &[&Step], printed: &str) {
    let told = podman::told(printed);
    let ran =
        told.as_ref().map(|told| Ran { id: told.id.clone(), digest: podman::digest_of(&pull.image, &told.digests) });
    if let Some(told) = told {
        images::fetched_by_podman(&mut work.ledger.memory, user, &pull.image, told);
    }
    for step in steps {
        if let (Action::PullForUnit(unit, _), Some(app), Some(ran)) = (&step.action, &step.app, &ran) {
            work.outcome.unit_images.insert((app.clone(), unit.clone()), ran.clone());
        }
        work.done(step);
    }
}

/// Notes which images the containers run that were just started. What is fetched before a start need not be what is started:
/// other quadlets build images, give their names away, and pull.
pub(super) async fn look(work: &mut Work<'_>, started: &[UnitName]) {
    let mut of: BTreeMap<(Option<User>, ContainerName), (&AppName, &UnitName, &DesiredUnit)> = BTreeMap::new();
    for (app, name, unit) in work.desired.units().filter(|(_, name, _)| started.contains(name)) {
        if let Some(container) = inputs::container_of(name, unit) {
            of.insert((name.user().cloned(), container), (app, name, unit));
        }
    }
    let mut asked: BTreeMap<Option<User>, BTreeSet<ContainerName>> = BTreeMap::new();
    for (user, container) in of.keys() {
        asked.entry(user.clone()).or_default().insert(container.clone());
    }
    let run = observe::images_run_in_podman(&mut work.providers.systemd, asked).await;
    let managed = inputs::managed(work.desired);
    for (key, (id, digests)) in run {
        let Some((app, service, unit)) = of.get(&key) else { continue };
        let called = inputs::runs(service, unit, &managed).map(|runs| runs.image).unwrap_or_default();
        let ran = Ran { id, digest: podman::digest_of(&called, &digests) };
        journal::running(&mut work.ledger.memory, [((*service).clone(), ran.clone())]);
        work.outcome.unit_images.insert(((*app).clone(), (*service).clone()), ran);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_find_their_line() {
        let text = "[Container]\nImage=x\nColour=red\nVolume=gone.volume:/x\n";
        let of = |complaint| line_of(text, "web.container", complaint);
        assert_eq!(
            of("converting \"web.container\": unsupported key 'Colour' in group 'Container' in /tmp/web.container"),
            Some(3)
        );
        assert_eq!(of("converting \"web.container\": requested Quadlet source gone.volume was not found"), Some(4));
        assert_eq!(of("converting \"web.container\": something else"), None);
        assert!(mentions("converting \"web.container\": x", "web.container"));
        assert!(!mentions("converting \"my-web.container\": x", "web.container"));
    }
}
