//! Asks Podman who has the names that services of quadlets would take, and which images names lead to: root's, and those of
//! users through their managers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use spec::id::{ContainerName, UnitName, User};
use spec::observed::{Observed, Reach};
use spec::pins::Found;

use crate::podman;
use crate::systemd::{self, Managers, Verb};

/// Images that containers run: their ids, and what registries call them, by whose Podman and which container it is.
pub(super) type Run = BTreeMap<(Option<User>, ContainerName), (String, Vec<String>)>;

/// How many digests an image is known by, at most.
const DIGESTS: usize = 10;
/// How long Podman may take for its lists.
const LISTS: Duration = Duration::from_secs(30);
/// Lines of what it prints beside our own.
const LINES: usize = 20;

/// Fills in who has these names. Who gives no answer is not asked twice: nothing takes a name in its store then.
pub async fn names(
    systemd: &mut Managers,
    asked: BTreeMap<Option<User>, BTreeSet<ContainerName>>,
    observed: &mut Observed,
) {
    let run = podman::run_name();
    let commands = asked.iter().map(|(user, names)| {
        let unit = podman::names_unit().of(user.as_ref());
        (unit, (podman::names_command(&run, names), names.len() * 2 + LINES))
    });
    for (unit, answer) in ask(systemd, "List names for mainstay", commands.collect()).await {
        let user = unit.user().cloned();
        match answer.map(|said| podman::holders(&run, &said)) {
            Ok(Some(holders)) => {
                observed.podman.insert(user, Reach::Seen(holders));
            }
            Ok(None) => lose(observed, &user, "its answer is not in the journal"),
            Err(why) => lose(observed, &user, &why),
        }
    }
}

/// Looks up which images names lead to, by whose Podman it is. Who gives no answer is left out.
pub async fn images(systemd: &mut Managers, asked: BTreeMap<Option<User>, BTreeSet<String>>) -> Found {
    let run = podman::run_name();
    let commands = asked.iter().map(|(user, names)| {
        let unit = podman::images_unit().of(user.as_ref());
        (unit, (podman::images_command(&run, names), names.len() + LINES))
    });
    let mut found = Found::new();
    for (unit, answer) in ask(systemd, "List images for mainstay", commands.collect()).await {
        match answer {
            Ok(said) => {
                let ids = podman::image_ids(&run, &said).into_iter();
                found.extend(ids.map(|(name, id)| ((unit.user().cloned(), name), id)));
            }
            Err(why) => tracing::debug!(%unit, why, "Podman does not tell which images it has"),
        }
    }
    found
}

/// Looks up which images containers run, and what registries call these, by whose Podman it is. Who gives no answer is left
/// out, and what is gone.
pub async fn images_run(systemd: &mut Managers, asked: BTreeMap<Option<User>, BTreeSet<ContainerName>>) -> Run {
    let run = podman::run_name();
    let commands = asked.iter().map(|(user, names)| {
        let unit = podman::run_unit().of(user.as_ref());
        (unit, (podman::run_command(&run, names), names.len() * (1 + DIGESTS) + LINES))
    });
    let mut found = Run::new();
    for (unit, answer) in ask(systemd, "List what containers run for mainstay", commands.collect()).await {
        match answer {
            Ok(said) => {
                let images = podman::images_run(&run, &said).into_iter();
                found.extend(images.map(|(name, image)| ((unit.user().cloned(), name), image)));
            }
            Err(why) => tracing::debug!(%unit, why, "Podman does not tell what containers run"),
        }
    }
    found
}

/// Runs a command of ours for each Podman, and returns what it printed last, as many lines as are said with it, or why it did not
/// end well.
async fn ask(
    systemd: &mut Managers,
    description: &str,
    commands: BTreeMap<UnitName, (Vec<String>, usize)>,
) -> BTreeMap<UnitName, Result<String, String>> {
    let stops = || commands.keys().map(|unit| (unit.clone(), Verb::Stop)).collect::<Vec<_>>();
    // What an earlier pass left behind, which was killed in between.
    systemd.run(stops(), LISTS, &|| {}).await;
    let (mut jobs, mut answers) = (Vec::new(), BTreeMap::new());
    for (unit, (command, _)) in &commands {
        match systemd.of(unit.user()).start_transient(unit, description, command, LISTS).await {
            Ok(()) => jobs.push((unit.clone(), Verb::Start)),
            Err(error) => drop(answers.insert(unit.clone(), Err(crate::chain(&error)))),
        }
    }
    for (unit, result) in systemd.run(jobs, LISTS, &|| {}).await {
        let most = commands.get(&unit).map_or(LINES, |(_, lines)| *lines);
        let said = systemd::journal_tail(&unit, None, most).await;
        let answer = result.map_err(|error| of_podman(&unit, &crate::chain(&error), &said));
        answers.insert(unit, answer.map(|_| said));
    }
    systemd.run(stops(), LISTS, &|| {}).await;
    answers
}

fn of_podman(unit: &UnitName, error: &str, said: &str) -> String {
    let last = said.lines().rev().find(|line| !podman::is_told(line)).unwrap_or_default();
    tracing::debug!(%unit, said, "Podman was asked");
    format!("{error}: {last}")
}

fn lose(observed: &mut Observed, user: &Option<User>, why: &str) {
    let whose = user.as_ref().map(|user| format!(" of {user}")).unwrap_or_default();
    let why = format!("Podman{whose} does not tell which names are taken: {why}");
    observed.podman.insert(user.clone(), Reach::Unreachable(why));
}
