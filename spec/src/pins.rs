//! Holds what goes back to the images that it ran: a drop-in beside each quadlet whose text would start another one by now.
//!
//! A release keeps a quadlet as its author wrote it, which names an image by a tag. The tag may have moved since, or be asked
//! for anew at each start. What the drop-in says is the image's id: Podman finds no image by its registry's digest any more
//! once its tag has moved, and would have to ask the registry. Drop-ins are files of the application like others, so that the
//! planner writes, repairs and removes them.

use std::collections::{BTreeMap, BTreeSet};

use crate::course::Release;
use crate::desired::{Desired, DesiredApp, DesiredFile, DesiredUnit, FileKind, UnitGoal, UnitOrigin};
use crate::digest::Digest;
use crate::id::{AppName, HostPath, Mode, PIN, ResourceId, UnitName, User};
use crate::inputs::{self, Managed};
use crate::memory::{Memory, Ran, Run};

/// The ids of what Podman has, by whose it is and by the name that was asked for; `None` where it has nothing of that name.
pub type Found = BTreeMap<(Option<User>, String), Option<String>>;

/// Begins the first line of a drop-in.
const RAN: &str = "# The last good release ran ";
/// Begins the names of images that come from no registry.
const BUILT_HERE: &str = "localhost/";

/// A service whose image has to be looked after.
struct Case<'a> {
    app: &'a AppName,
    service: &'a UnitName,
    /// The image it ran in the last good release.
    ran: &'a Ran,
    /// The image that its text names.
    image: String,
    path: HostPath,
    need: Need,
}

/// Whether a service needs a drop-in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// It has one.
    Held,
    /// Its text starts another image, or may at each start.
    Moves,
    /// It is started with what the name leads to.
    Doubtful,
}

/// Names the images that have to be looked up before it is known what is held, by whose Podman it is. Nothing has to be while
/// all runs as it ran, or is held already.
pub fn in_doubt(
    desired: &Desired,
    good: &BTreeMap<AppName, Release>,
    memory: &Memory,
) -> BTreeMap<Option<User>, BTreeSet<String>> {
    let mut names: BTreeMap<Option<User>, BTreeSet<String>> = BTreeMap::new();
    for case in cases(desired, good, memory).into_iter().filter(|case| case.need != Need::Held) {
        let of = names.entry(case.service.user().cloned()).or_default();
        of.extend([case.image, case.ran.id.clone()]);
    }
    names
}

/// Holds the services of applications that are at their last good release to the images they ran there, where their texts
/// would start others.
pub fn pin(desired: &mut Desired, good: &BTreeMap<AppName, Release>, memory: &Memory, found: &Found) {
    let cases = cases(desired, good, memory);
    let pins = cases.iter().filter_map(|case| {
        let now = |name: &str| found.get(&(case.service.user().cloned(), name.to_owned()));
        let is_moved = now(&case.image).is_some_and(|id| id.as_ref() != Some(&case.ran.id));
        let is_here = now(&case.ran.id).is_none_or(Option::is_some);
        let content = match case.need {
            Need::Held => held(case, memory),
            Need::Doubtful if !is_moved => return None,
            Need::Doubtful | Need::Moves => text(case.ran, is_here)?,
        };
        Some((case.app.clone(), case.path.clone(), file(content)))
    });
    let pins: Vec<_> = pins.collect();
    for (app, path, file) in pins {
        if let Some(app) = desired.apps.get_mut(&app) {
            app.files.insert(path, file);
        }
    }
}

/// Names every drop-in that is wanted to hold a quadlet.
pub fn all(desired: &Desired) -> BTreeSet<HostPath> {
    desired.files().map(|(_, path, _)| path).filter(|path| path.is_pin()).cloned().collect()
}

/// Returns the image that the service of a quadlet is held to, as its registry calls it.
pub fn held_to(app: &DesiredApp, service: &UnitName) -> Option<String> {
    let FileKind::Regular { content, .. } = &app.files.get(&pin_of(app.units.get(service)?)?)?.kind else {
        return None;
    };
    let rest = std::str::from_utf8(content).ok()?.strip_prefix(RAN)?;
    rest.split_once(';').map(|(image, _)| image.to_owned())
}

/// Collects the services that may need a drop-in and that `desired` has none for.
fn cases<'a>(desired: &'a Desired, good: &'a BTreeMap<AppName, Release>, memory: &Memory) -> Vec<Case<'a>> {
    let held = desired.held_back.iter().filter(|(_, held)| !held.is_untouched).map(|(app, _)| app);
    let mut cases = Vec::new();
    let mut managed = None;
    for app in held {
        let (Some(wanted), Some(release)) = (desired.apps.get(app), good.get(app)) else { continue };
        if release.app.digest != wanted.digest {
            continue;
        }
        for (service, unit) in &wanted.units {
            let (Some(ran), Some(path)) = (release.ran.get(service), pin_of(unit)) else { continue };
            let managed = managed.get_or_insert_with(|| inputs::managed(desired));
            let Some((image, need)) = need(service, unit, ran, &path, memory, managed) else { continue };
            if !wanted.files.contains_key(&path) && is_for_all(unit, ran, wanted, release) {
                cases.push(Case { app, service, ran, image, path, need });
            }
        }
    }
    cases
}

/// Says what a service needs, and which image its text names.
fn need(
    service: &UnitName,
    unit: &DesiredUnit,
    ran: &Ran,
    path: &HostPath,
    memory: &Memory,
    managed: &Managed<'_>,
) -> Option<(String, Need)> {
    let runs = inputs::runs(service, unit, managed)?;
    if memory.owned.contains_key(&ResourceId::File(path.clone())) {
        return Some((runs.image, Need::Held));
    }
    if unit.state == Some(UnitGoal::Stopped) {
        return None;
    }
    let start = inputs::of_unit(service, unit, None, managed).digests.start;
    let is_as_it_was = match memory.units.get(service).map(|known| &known.run) {
        Some(Run::Started { with, .. } | Run::Beginning { with, .. }) => with.start == start,
        Some(Run::Unknown | Run::Owed) | None => false,
    };
    let runs_another = memory.ran.get(service).is_some_and(|now| now.id != ran.id);
    match (is_as_it_was, runs.moves) {
        // What the failed release did not touch goes on, and follows its tag as at any other time.
        (true, _) if !runs_another => None,
        (true, _) | (false, true) => Some((runs.image, Need::Moves)),
        (false, false) => Some((runs.image, Need::Doubtful)),
    }
}

/// Returns where the drop-in for a quadlet is: the instances of a template share theirs.
fn pin_of(unit: &DesiredUnit) -> Option<HostPath> {
    let UnitOrigin::Application { path, .. } = &unit.origin else { return None };
    path.quadlet().filter(|name| name.ends_with(".container"))?;
    HostPath::parse(&format!("{path}.d/{PIN}")).ok()
}

/// Says whether all services that would share a drop-in ran this image.
fn is_for_all(unit: &DesiredUnit, ran: &Ran, wanted: &DesiredApp, release: &Release) -> bool {
    let shares = |other: &DesiredUnit| pin_of(other) == pin_of(unit);
    let sharing = wanted.units.iter().filter(|(_, other)| shares(other));
    sharing.filter_map(|(service, _)| release.ran.get(service)).all(|it| it.id == ran.id)
}

/// Returns what is in the drop-in that is there: which of the two it is shows in what was put there.
fn held(case: &Case<'_>, memory: &Memory) -> String {
    let owned = memory.owned.get(&ResourceId::File(case.path.clone()));
    let is_put =
        |text: &String| owned.is_some_and(|it| [it.put, it.claim].contains(&Some(Digest::of(text.as_bytes()))));
    let by_digest = text(case.ran, false).filter(is_put);
    by_digest.or_else(|| text(case.ran, true)).unwrap_or_default()
}

/// Writes the drop-in. An image that somebody has removed is fetched again, by its digest; what was built here, nobody has.
fn text(ran: &Ran, is_here: bool) -> Option<String> {
    let of_registry = ran.digest.as_ref().filter(|digest| !digest.starts_with(BUILT_HERE));
    let (image, pull) = match (of_registry, is_here) {
        (_, true) => (&ran.id, "never"),
        (Some(digest), false) => (digest, "missing"),
        (None, false) => return None,
    };
    let known = ran.digest.as_deref().unwrap_or(&ran.id);
    Some(format!("{RAN}{known}; written by mainstay, until a newer commit.\n[Container]\nImage={image}\nPull={pull}\n"))
}

fn file(content: String) -> DesiredFile {
    let kind = FileKind::Regular { digest: Digest::of(content.as_bytes()), content: content.into_bytes().into() };
    let (owner, group) = ("root".to_owned(), "root".to_owned());
    DesiredFile { kind, mode: Mode::from_bits(0o644), owner, group }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::desired::{DriftPolicy, HeldBack, Hold};
    use crate::id::HostName;
    use crate::memory::{Owned, UnitMemory};

    const QUADLET: &str = "/etc/containers/systemd/web.container";

    fn ran(id: &str, digest: Option<&str>) -> Ran {
        Ran { id: id.to_owned(), digest: digest.map(str::to_owned) }
    }

    /// An application that is back at its good release, whose quadlet says this of its image.
    fn back(pull: &str, image: Ran) -> (Desired, BTreeMap<AppName, Release>) {
        let (app, service) = (AppName::parse("web").unwrap(), UnitName::parse("web.service").unwrap());
        let path = HostPath::parse(QUADLET).unwrap();
        let text = format!("[Container]\nImage=r.lan/web:1\n{pull}");
        let unit = DesiredUnit {
            origin: UnitOrigin::Application { path: path.clone(), text: Arc::from(text.as_str()) },
            state: None,
            enabled: None,
            restart_on: BTreeSet::new(),
            reload_on: BTreeSet::new(),
            ignore: BTreeSet::new(),
        };
        let wanted = DesiredApp {
            secrets: BTreeMap::new(),
            digest: Digest::of(b"good"),
            drift: DriftPolicy::Repair,
            adopt: false,
            policies: BTreeMap::new(),
            user: None,
            files: BTreeMap::from([(path, file(text))]),
            units: BTreeMap::from([(service.clone(), unit)]),
            containers: BTreeMap::new(),
            needs: BTreeSet::new(),
            checks: Vec::new(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
        };
        let held = HeldBack { why: Hold::Bad, wanted: Some(Digest::of(b"bad")), commit: None, is_untouched: false };
        let desired = Desired {
            fleet: "home".to_owned(),
            host: HostName::parse("attic").unwrap(),
            apps: BTreeMap::from([(app.clone(), wanted.clone())]),
            published: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            held_back: BTreeMap::from([(app.clone(), held)]),
        };
        let ran = BTreeMap::from([(service, image)]);
        let release = Release { commit: None, app: wanted, reads: BTreeMap::new(), published: BTreeMap::new(), ran };
        (desired, BTreeMap::from([(app, release)]))
    }

    /// Remembers that the service was started with this text in place and this image.
    fn started(text: &str, image: &str) -> Memory {
        let (desired, _) = back(text, ran(image, None));
        let (app, service, unit) = desired.units().next().unwrap();
        let with = inputs::of_unit(service, unit, None, &inputs::managed(&desired)).digests;
        let known = UnitMemory { app: app.clone(), ours: true, run: Run::Started { with, invocation: None } };
        Memory {
            units: BTreeMap::from([(service.clone(), known)]),
            ran: BTreeMap::from([(service.clone(), ran(image, None))]),
            ..Memory::default()
        }
    }

    fn found(now: Option<&str>, is_here: bool) -> Found {
        let here = is_here.then(|| "a".to_owned());
        Found::from([((None, "r.lan/web:1".to_owned()), now.map(str::to_owned)), ((None, "a".to_owned()), here)])
    }

    /// Returns the lines that hold the quadlet, if any do.
    fn check(pull: &str, image: Ran, memory: &Memory, found: &Found) -> String {
        let (mut desired, good) = back(pull, image);
        pin(&mut desired, &good, memory, found);
        let path = HostPath::parse(&format!("{QUADLET}.d/{PIN}")).unwrap();
        assert!(path.is_pin());
        let FileKind::Regular { content, .. } = (match desired.file(&path) {
            Some(file) => file.kind.clone(),
            None => return "nothing".to_owned(),
        }) else {
            panic!("a drop-in is a file")
        };
        let text = String::from_utf8(content.to_vec()).unwrap();
        text.lines().skip(2).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn only_what_would_start_another_image_is_held() {
        let a = || ran("a", Some("r.lan/web@sha256:aa"));
        let (touched, same) = (started("# other\n", "b"), started("", "a"));
        let (here, gone) = (found(Some("a"), true), found(Some("b"), false));
        let moved = found(Some("b"), true);
        assert_eq!(check("", a(), &touched, &here), "nothing", "the name leads to it still");
        assert_eq!(check("", a(), &touched, &moved), "Image=a Pull=never");
        assert_eq!(check("", a(), &touched, &found(None, true)), "Image=a Pull=never");
        assert_eq!(check("", a(), &touched, &gone), "Image=r.lan/web@sha256:aa Pull=missing");
        assert_eq!(check("", ran("a", None), &touched, &gone), "nothing", "there is nothing to hold it to");
        assert_eq!(check("Pull=always\n", a(), &touched, &here), "Image=a Pull=never");
        assert_eq!(check("Pull=newer\n", a(), &touched, &Found::new()), "Image=a Pull=never");
        assert_eq!(check("", a(), &touched, &Found::new()), "nothing", "Podman did not say");
        assert_eq!(check("Pull=always\n", a(), &started("Pull=always\n", "a"), &moved), "nothing", "it runs on");
        assert_eq!(check("", a(), &same, &moved), "nothing", "it runs on");
        assert_eq!(check("", a(), &started("", "b"), &Found::new()), "Image=a Pull=never", "it has slipped through");
        assert_eq!(check("Pull=never\n", a(), &touched, &here), "nothing", "the name leads to it still");
        assert_eq!(check("Pull=never\n", a(), &touched, &moved), "Image=a Pull=never");
        let built = || ran("a", Some("localhost/web@sha256:aa"));
        assert_eq!(check("", built(), &touched, &moved), "Image=a Pull=never");
        assert_eq!(check("", built(), &touched, &gone), "nothing", "no registry has it");
    }

    #[test]
    fn instances_that_ran_the_same_are_held_together() {
        let template = HostPath::parse("/etc/containers/systemd/web@.container").unwrap();
        let of = |images: [&str; 2]| {
            let (mut desired, mut good) = back("", ran("a", None));
            for app in desired.apps.values_mut().chain(good.values_mut().map(|release| &mut release.app)) {
                let mut unit = app.units.pop_first().unwrap().1;
                let UnitOrigin::Application { path, .. } = &mut unit.origin else { panic!("it is ours") };
                path.clone_from(&template);
                app.units = ["web@1", "web@2"]
                    .map(|name| (UnitName::parse(&format!("{name}.service")).unwrap(), unit.clone()))
                    .into();
            }
            let release = good.values_mut().next().unwrap();
            release.ran = release.app.units.keys().cloned().zip(images.map(|id| ran(id, None))).collect();
            let found = Found::from(["a", "b", "r.lan/web:1"].map(|it| ((None, it.to_owned()), Some("c".to_owned()))));
            pin(&mut desired, &good, &Memory::default(), &found);
            all(&desired)
        };
        let path = HostPath::parse(&format!("{template}.d/{PIN}")).unwrap();
        assert_eq!(of(["a", "a"]), BTreeSet::from([path]));
        assert_eq!(of(["a", "b"]), BTreeSet::new(), "one drop-in cannot say both");
    }

    #[test]
    fn what_is_held_stays_as_it_is_held() {
        let image = || ran("a", Some("r.lan/web@sha256:aa"));
        let path = HostPath::parse(&format!("{QUADLET}.d/{PIN}")).unwrap();
        for (is_here, lines) in [(true, "Image=a Pull=never"), (false, "Image=r.lan/web@sha256:aa Pull=missing")] {
            let put = Digest::of(text(&image(), is_here).unwrap().as_bytes());
            let app = AppName::parse("web").unwrap();
            for owned in [Owned::claimed(&app, put), Owned { put: Some(put), ..Owned::by(&app) }] {
                let owned = BTreeMap::from([(ResourceId::File(path.clone()), owned)]);
                let memory = Memory { owned, ..started("# other\n", "b") };
                let (mut desired, good) = back("", image());
                assert_eq!(in_doubt(&desired, &good, &memory), BTreeMap::new(), "nothing is asked again");
                assert_eq!(check("", image(), &memory, &Found::new()), lines);
                pin(&mut desired, &good, &memory, &Found::new());
                let held = held_to(&desired.apps[&app], &UnitName::parse("web.service").unwrap());
                assert_eq!(held.as_deref(), Some("r.lan/web@sha256:aa"));
            }
        }
        let nothing = Memory { units: BTreeMap::new(), ..Memory::default() };
        let (mut desired, good) = back("", image());
        desired.held_back.values_mut().for_each(|held| held.is_untouched = true);
        assert_eq!(in_doubt(&desired, &good, &nothing), BTreeMap::new(), "nothing of it is changed");
    }
}
