//! Plans removals: only what is owned, only what nobody wants, and never many at once without an acknowledgement.

use std::collections::{BTreeMap, BTreeSet};

use crate::desired::{Desired, DesiredUnit, FileKind, UnitOrigin};
use crate::digest::Fields;
use crate::id::{AppName, ContainerName, HostPath, NetworkName, ResourceId, UnitName};
use crate::memory::{self, Inputs, Memory, Run};
use crate::observed::{ActiveState, FileState, Reach, UnitState};
use crate::plan::files::{Whose, is_edited, was_a_secret, whose};
use crate::plan::{Action, Draft, Held, Keep, Lesson, Step, Verb, Why};
use crate::plan::{order, units};

/// Removals below this number never need an acknowledgement.
const FREE_REMOVALS: usize = 3;
/// Removals up to one in this many owned things never need an acknowledgement.
const FREE_SHARE: usize = 5;

/// Plans the removal of everything owned that no application wants.
pub(super) fn plan(draft: &mut Draft<'_>) {
    let mut removals = Removals::default();
    // What an archive leaves out cannot be told before it is known what is in it.
    let owned = draft.memory.owned.iter().filter(|(_, owned)| !draft.plan.closed.contains(&owned.app));
    let owned: Vec<_> = owned.collect();
    for (id, owned) in owned {
        match id {
            ResourceId::File(path) if !draft.managed.contains_key(path) => file(draft, &mut removals, &owned.app, path),
            ResourceId::Container(name) if !draft.desired.containers().any(|(_, wanted, _)| wanted == name) => {
                container(draft, &mut removals, &owned.app, name);
            }
            ResourceId::Network(name) if !is_made(draft, name) => network(draft, &mut removals, &owned.app, name),
            ResourceId::File(_)
            | ResourceId::Container(_)
            | ResourceId::Unit(_)
            | ResourceId::Network(_)
            | ResourceId::Volume(_) => {}
        }
    }
    services(draft, &mut removals);
    remembered(draft, &mut removals);
    stop_dependents_first(draft, &mut removals);
    guard(draft, removals);
}

/// Says whether an application wants a network that mainstay makes.
fn is_made(draft: &Draft<'_>, name: &NetworkName) -> bool {
    draft.desired.networks().any(|(_, wanted, it)| wanted == name && it.settings.is_some())
}

/// What would be removed, before the guard has its say.
#[derive(Default)]
struct Removals {
    steps: Vec<Step>,
    counted: BTreeSet<ResourceId>,
    units: BTreeSet<UnitName>,
    /// Units of the host that are not ours to watch any more once all this is done.
    released: Vec<UnitName>,
}

/// Says whether something lies where an archive still is wanted: that another version leaves it out is a change of that.
fn is_of_an_archive(draft: &Draft<'_>, id: &ResourceId) -> bool {
    let ResourceId::File(path) = id else { return false };
    let above = std::iter::successors(path.parent(), HostPath::parent);
    above
        .into_iter()
        .any(|folder| draft.managed.get(&folder).is_some_and(|file| matches!(file.kind, FileKind::Archive { .. })))
}

impl Removals {
    /// Counts a removal for the guard, unless the application goes back to what it was. What held a quadlet to an image while it
    /// did was not wanted by any commit.
    fn count(&mut self, draft: &Draft<'_>, app: &AppName, id: ResourceId) {
        let is_pin = matches!(&id, ResourceId::File(path) if path.is_pin());
        if !is_pin && !draft.goes_back(app) && !is_of_an_archive(draft, &id) {
            self.counted.insert(id);
        }
    }

    fn step(&mut self, app: &AppName, action: Action) {
        self.steps.push(Step { app: Some(app.clone()), action, why: Why::Unwanted, reads: BTreeSet::new() });
    }
}

fn file(draft: &mut Draft<'_>, removals: &mut Removals, app: &AppName, path: &HostPath) {
    let id = ResourceId::File(path.clone());
    if let Some(why) = draft.observed.reader_away(path) {
        // It counts although it cannot be seen: the guard must not let it through in two halves.
        removals.count(draft, app, id.clone());
        return draft.unknown(app, id, &why);
    }
    let Some(state) = draft.observed.files.get(path).cloned() else {
        return draft.unknown(app, id, "was not looked at");
    };
    match &state {
        FileState::Unknown(why) => draft.unknown(app, id, why),
        FileState::Absent | FileState::Other => {
            // Whoever removed the text, or an earlier pass that was killed behind that, left its links and its process.
            let before = removals.steps.len();
            let made_of_it = draft.memory.quadlets.iter().filter(|(_, source)| *source == path).map(|(unit, _)| unit);
            for unit in made_of_it.chain(path.unit().as_ref()) {
                retire(draft, removals, app, unit);
            }
            if removals.steps.len() == before {
                draft.plan.lessons.push(Lesson::Gone(id));
            }
        }
        _ if whose(draft, path, &state) == Whose::Foreign => draft.plan.lessons.push(Lesson::Gone(id)),
        FileState::Directory { empty, .. } => {
            let needed = draft.managed.keys().any(|wanted| wanted.is_below(path.as_str()));
            let emptied = draft.memory.owned.keys().any(|other| match other {
                ResourceId::File(other) => other.is_below(path.as_str()) && !draft.managed.contains_key(other),
                _ => false,
            });
            if !needed && (*empty || emptied) {
                removals.step(app, Action::RemoveDirectory(path.clone()));
            } else if !needed {
                draft.plan.lessons.push(Lesson::Gone(id));
            }
        }
        FileState::Regular { .. } | FileState::Symlink { .. } => {
            if let Some(unit) = path.unit() {
                retire(draft, removals, app, &unit);
            }
            removals.count(draft, app, id);
            if is_edited(draft, path, &state) && !was_a_secret(draft, path) {
                draft.plan.keeps.insert(path.clone(), Keep::Unwanted);
            }
            removals.step(app, Action::RemoveFile(path.clone(), state));
        }
    }
}

/// Stops and disables a unit whose text goes, and every instance of a template whose text goes.
fn retire(draft: &Draft<'_>, removals: &mut Removals, app: &AppName, text: &UnitName) {
    let becomes = |unit: &UnitName| draft.desired.units().any(|(_, name, wanted)| name == unit && is_brought(wanted));
    let Some(units) = draft.observed.units.seen() else { return };
    for (unit, state) in units.iter().filter(|(unit, _)| *unit == text || unit.template().as_ref() == Some(text)) {
        // A text may go where another one takes its place: a unit file that becomes a quadlet.
        if becomes(unit) || !removals.units.insert(unit.clone()) {
            continue;
        }
        // One that failed would stay in systemd's memory as failed, without a text.
        if state.is_up() || state.active == ActiveState::Failed {
            removals.step(app, Action::RetireUnit(unit.clone()));
        }
        if state.enabled == Some(true) {
            removals.step(app, Action::DisableUnit(unit.clone()));
        }
    }
}

fn is_brought(unit: &DesiredUnit) -> bool {
    matches!(unit.origin, UnitOrigin::Application { .. })
}

/// Returns where the text of a unit is when it is ours: the quadlet that it is made of, or its own.
fn text_of(draft: &Draft<'_>, unit: &UnitName) -> HostPath {
    let template = unit.template();
    let source = draft.memory.quadlets.get(unit).or_else(|| draft.memory.quadlets.get(template.as_ref()?));
    source.cloned().unwrap_or_else(|| template.unwrap_or_else(|| unit.clone()).path())
}

/// Retires the services of quadlets that go, or that make a service of another name now.
fn services(draft: &mut Draft<'_>, removals: &mut Removals) {
    for (unit, path) in &draft.memory.quadlets {
        let of_text = draft.memory.owned.get(&ResourceId::File(path.clone())).map(|owned| owned.app.clone());
        let owner = of_text.or_else(|| draft.memory.units.get(unit).map(|known| known.app.clone()));
        let is_made = |wanted: &UnitName| wanted == unit || wanted.template().as_ref() == Some(unit);
        let stays = draft.managed.contains_key(path);
        let wanted = draft.desired.units().any(|(_, name, unit)| is_made(name) && is_brought(unit));
        // An instance that is no longer named goes with the others of `units:`.
        let is_elsewhere = wanted || (stays && unit.template().is_some());
        let is_seen = draft.observed.manager(unit.user()) == Reach::Seen(());
        let Some(app) = owner.filter(|_| !is_elsewhere && is_seen) else { continue };
        let before = removals.steps.len();
        retire(draft, removals, &app, unit);
        if stays && removals.steps.len() == before {
            draft.plan.lessons.push(Lesson::Released(unit.clone()));
        }
    }
}

fn container(draft: &mut Draft<'_>, removals: &mut Removals, app: &AppName, name: &ContainerName) {
    let id = ResourceId::Container(name.clone());
    match &draft.observed.containers {
        Reach::Seen(seen) => match seen.get(name) {
            Some(state) if state.mark.is_some() => {
                removals.step(app, Action::RemoveContainer(name.clone(), state.id.clone()));
                removals.count(draft, app, id);
            }
            // It may still be coming: the look after this one tells.
            None if draft.memory.owned.get(&id).is_some_and(|owned| owned.claim == Some(memory::coming())) => {
                draft.plan.lessons.push(Lesson::Made(id, app.clone()));
            }
            _ => draft.plan.lessons.push(Lesson::Gone(id)),
        },
        Reach::Unreachable(why) => {
            let why = why.clone();
            removals.count(draft, app, id.clone());
            draft.unknown(app, id, &why);
        }
        Reach::NotAsked => draft.unknown(app, id, "was not looked at"),
    }
}

/// Plans the removal of a network behind that of its containers. It does not count as a removal for the guard: a network
/// holds nothing, and is made again as it was.
fn network(draft: &mut Draft<'_>, removals: &mut Removals, app: &AppName, name: &NetworkName) {
    let id = ResourceId::Network(name.clone());
    let state = match &draft.observed.networks {
        Reach::Seen(seen) => seen.get(name).cloned(),
        Reach::Unreachable(why) => {
            let why = why.clone();
            return draft.unknown(app, id, &why);
        }
        Reach::NotAsked => return draft.unknown(app, id, "was not looked at"),
    };
    match state {
        Some(state) if state.mark.is_some() => {
            removals.step(app, Action::RemoveNetwork(name.clone(), state.id));
        }
        None if draft.memory.owned.get(&id).is_some_and(|owned| owned.claim == Some(memory::coming())) => {
            draft.plan.lessons.push(Lesson::Made(id, app.clone()));
        }
        _ => draft.plan.lessons.push(Lesson::Gone(id)),
    }
}

/// Puts the removals of containers into the reverse of the order in which they were started.
fn stop_dependents_first(draft: &Draft<'_>, removals: &mut Removals) {
    let Some(seen) = draft.observed.containers.seen() else { return };
    let after = removals.steps.iter().filter_map(|step| match &step.action {
        Action::RemoveContainer(name, _) => Some((name.clone(), seen.get(name)?.after.clone())),
        _ => None,
    });
    let after: BTreeMap<ContainerName, BTreeSet<ContainerName>> = after.collect();
    let started = order::sorted(&after.iter().map(|(name, after)| (name, after.iter().collect())).collect());
    removals.steps.sort_by_key(|step| match &step.action {
        Action::RemoveContainer(name, _) => started.iter().rev().position(|other| *other == name),
        _ => None,
    });
}

/// Retires units that were managed and are no longer wanted while their text stays; releases those of the host.
fn remembered(draft: &mut Draft<'_>, removals: &mut Removals) {
    for (name, known) in &draft.memory.units {
        let wanted = draft.desired.units().any(|(_, wanted, _)| wanted == name);
        // Of a user's that cannot be asked nothing is known, and nothing is forgotten.
        let is_seen = name.user().is_none() || draft.observed.manager(name.user()) == Reach::Seen(());
        if wanted || !is_seen {
            continue;
        }
        let text = text_of(draft, name);
        if !known.ours && adds_to(draft, removals, name, &known.app, &known.run) {
            continue;
        }
        if !known.ours || (!draft.managed.contains_key(&text) && !removals.units.contains(name)) {
            let text_stays = draft.memory.owned.contains_key(&ResourceId::File(text));
            if !known.ours || !text_stays || draft.observed.units.seen().is_some_and(|units| !units.contains_key(name))
            {
                draft.plan.lessons.push(Lesson::Released(name.clone()));
            }
            continue;
        }
        if draft.managed.contains_key(&text) && name.template().is_some() {
            let up = draft.observed.units.seen().and_then(|units| units.get(name)).is_some_and(UnitState::is_up);
            let app = known.app.clone();
            retire(draft, removals, &app, name);
            if up {
                removals.count(draft, &app, ResourceId::Unit(name.clone()));
            } else {
                draft.plan.lessons.push(Lesson::Released(name.clone()));
            }
        }
    }
}

/// Plans the restart of a unit of the host that goes on without our drop-ins, while it runs. Says whether it is still
/// to be remembered.
fn adds_to(draft: &Draft<'_>, removals: &mut Removals, name: &UnitName, app: &AppName, run: &Run) -> bool {
    let Some(units) = draft.observed.units.seen() else { return true };
    let reads = |unit: &UnitName| unit == name || name.template().as_ref() == Some(unit);
    let there = draft.memory.owned.keys().any(|id| match id {
        ResourceId::File(path) if draft.managed.contains_key(path) => false,
        ResourceId::File(path) => {
            let is_there = !matches!(draft.observed.files.get(path), None | Some(FileState::Absent));
            is_there && path.drop_in().is_some_and(|unit| reads(&unit))
        }
        _ => false,
    });
    let state = units.get(name);
    let happened =
        |was: &Option<String>| state.is_some_and(|state| state.invocation.is_some() && state.invocation != *was);
    let owed = match run {
        Run::Owed => true,
        Run::Beginning { was, .. } => !happened(was),
        Run::Unknown | Run::Started { .. } => false,
    };
    // What failed when we restarted it ran until then.
    let felled =
        |state: &UnitState| matches!(run, Run::Owed | Run::Beginning { .. }) && state.active == ActiveState::Failed;
    let Some(state) = state.filter(|state| state.is_up() && (there || owed) || felled(state)) else {
        removals.released.extend(there.then(|| name.clone()));
        return there;
    };
    let with = Inputs::none();
    let action =
        Action::RunUnit { unit: name.clone(), verb: Verb::Restart, with, was: state.invocation.clone(), once: false };
    removals.step(app, action);
    true
}

/// Numbers the applications that go: each goes after those that need it.
pub(super) fn ranks(desired: &Desired, memory: &Memory) -> BTreeMap<AppName, usize> {
    let leaving: BTreeMap<_, _> = memory.apps.iter().filter(|(app, _)| !desired.apps.contains_key(*app)).collect();
    let mut ranks: BTreeMap<AppName, usize> = BTreeMap::new();
    // Each round moves what is needed behind who needs it; without a circle the rounds are as many as the longest chain.
    for _ in 0..leaving.len() {
        let before = ranks.clone();
        for (app, known) in &leaving {
            let rank = before.get(*app).copied().unwrap_or(0) + 1;
            for needed in known.needs.iter().filter(|needed| leaving.contains_key(*needed)) {
                let is = ranks.entry(needed.clone()).or_default();
                *is = rank.max(*is);
            }
        }
        if ranks == before {
            break;
        }
    }
    ranks
}

/// Lets the removals through, or holds them until the repository acknowledges exactly these.
fn guard(draft: &mut Draft<'_>, removals: Removals) {
    let owned = draft.memory.owned.len();
    let free = FREE_REMOVALS.max(having(draft) / FREE_SHARE);
    let nothing_left = draft
        .desired
        .apps
        .values()
        .all(|app| app.files.is_empty() && app.units.is_empty() && app.containers.is_empty());
    let digest = digest(draft, &removals.counted);
    let many = removals.counted.len() > free || (nothing_left && !removals.counted.is_empty());
    let is_aside = |step: &Step| step.app.as_ref().is_some_and(|app| draft.is_aside(app));
    let stays: BTreeSet<UnitName> =
        removals.steps.iter().filter(|step| is_aside(step)).filter_map(|step| removed_drop_in(&step.action)).collect();
    let reads_one = |unit: &UnitName| stays.contains(unit) || unit.template().is_some_and(|it| stays.contains(&it));
    // What a failed release made goes with it: nobody has to acknowledge the way back.
    let (mut steps, rest): (Vec<Step>, Vec<Step>) =
        removals.steps.into_iter().partition(|step| step.app.as_ref().is_some_and(|app| draft.goes_back(app)));
    let (mut lessons, mut held) = (Vec::new(), None);
    if many && !draft.desired.acknowledged.contains(&digest) {
        held = Some(Held { digest, removals: removals.counted.into_iter().collect(), owned });
    } else {
        steps.extend(rest);
        // Of what is left alone for now, the end is still to be watched.
        let of_aside = |unit: &UnitName| draft.memory.units.get(unit).is_some_and(|known| draft.is_aside(&known.app));
        let released = removals.released.into_iter().filter(|unit| !of_aside(unit) && !reads_one(unit));
        lessons.extend(released.map(Lesson::Released));
    }
    // A unit that goes on without a drop-in is restarted once, when that has gone.
    let is_left = |step: &Step| match &step.action {
        Action::RunUnit { unit, .. } => is_aside(step) || reads_one(unit),
        _ => is_aside(step),
    };
    let (left, steps): (Vec<Step>, Vec<Step>) = steps.into_iter().partition(is_left);
    draft.plan.held = held;
    draft.plan.lessons.extend(lessons);
    owe(draft, &steps, &left);
    for step in &steps {
        if let Action::RemoveFile(path, _) = &step.action {
            units::go_on_without(draft, path);
        }
    }
    draft.plan.steps.extend(steps);
}

/// Returns the unit whose drop-in is removed.
fn removed_drop_in(action: &Action) -> Option<UnitName> {
    match action {
        Action::RemoveFile(path, _) => path.drop_in(),
        _ => None,
    }
}

/// Remembers the restarts that are left out while a drop-in of another application goes: nothing shows them after that.
fn owe(draft: &mut Draft<'_>, steps: &[Step], left: &[Step]) {
    let gone: BTreeSet<UnitName> = steps.iter().filter_map(|step| removed_drop_in(&step.action)).collect();
    let goes = |unit: &UnitName| gone.contains(unit) || unit.template().is_some_and(|it| gone.contains(&it));
    let owed = left.iter().filter_map(|step| match &step.action {
        Action::RunUnit { unit, .. } if goes(unit) => Some(Lesson::Owes(ResourceId::Unit(unit.clone()))),
        _ => None,
    });
    draft.plan.lessons.extend(owed);
}

/// Counts what the host has of ours and will have: once the new things are there, what was held for being too much must not go
/// on its own.
fn having(draft: &Draft<'_>) -> usize {
    let is_owned = |id: &ResourceId| draft.memory.owned.contains_key(id);
    let files = draft.desired.files().map(|(_, path, _)| ResourceId::File(path.clone()));
    let containers = draft.desired.containers().map(|(_, name, _)| ResourceId::Container(name.clone()));
    let networks = draft.desired.networks().map(|(_, name, _)| ResourceId::Network(name.clone()));
    draft.memory.owned.len() + files.chain(containers).chain(networks).filter(|id| !is_owned(id)).count()
}

/// Digests exactly these removals on exactly this host, so that an acknowledgement covers nothing else.
fn digest(draft: &Draft<'_>, removals: &BTreeSet<ResourceId>) -> String {
    let mut fields = Fields::default();
    fields.add("fleet", draft.desired.fleet.as_bytes()).add("host", draft.desired.host.as_str().as_bytes());
    for id in removals {
        fields.add("remove", id.to_string().as_bytes());
    }
    fields.finish().short()
}
