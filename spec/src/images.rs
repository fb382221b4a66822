//! Which of the images that this agent fetched are needed no longer. Whether a container uses one is for the engine to say.

use std::collections::{BTreeMap, BTreeSet};

use crate::desired::{DesiredApp, DesiredFile, DesiredUnit, FileKind, UnitOrigin};
use crate::id::{HostPath, UnitName, User};
use crate::inputs::{self, Managed};
use crate::memory::{Fetched, Memory, Pulled, Stores};

/// Where images without a registry in their name come from.
const HUB: &str = "docker.io";
/// The option of `podman pod create` that names an image.
const INFRA: &str = "--infra-image";

/// Writes a reference out as `registry/path`, without tag and digest.
pub fn full_name(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    match name.split_once('/') {
        Some((registry, _)) if registry.contains(['.', ':']) || registry == "localhost" => name.to_owned(),
        Some(_) => format!("{HUB}/{name}"),
        None => format!("{HUB}/library/{name}"),
    }
}

/// Writes a reference out with its registry and tag or digest, so that two spellings of it can be compared.
pub fn full_reference(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    let tag = name.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.contains('/'));
    match image.split_once('@') {
        Some((_, digest)) => format!("{}@{digest}", full_name(image)),
        None => format!("{}:{}", full_name(image), tag.unwrap_or("latest")),
    }
}

/// Names the images that an application is made of: those of its containers, and those that its quadlets speak of.
pub fn of_app(app: &DesiredApp) -> BTreeSet<String> {
    let containers = app.containers.values().map(|container| container.settings.image.clone());
    let managed: Managed<'_> =
        app.files.iter().filter(|(_, file)| matches!(file.kind, FileKind::Regular { .. })).collect();
    let quadlets = app.units.iter().flat_map(|(name, unit)| of_quadlet(name, unit, &managed));
    containers.chain(quadlets).collect()
}

/// Names the images that a quadlet speaks of, whoever fetches them: what says never to pull one needs it most. One name too
/// many only keeps an image.
fn of_quadlet(name: &UnitName, unit: &DesiredUnit, managed: &Managed<'_>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let UnitOrigin::Application { path, text } = &unit.origin else { return found };
    if path.quadlet().is_none() {
        return found;
    }
    for (_, key, value) in inputs::assignments(&inputs::quadlet_text(path, text, managed)) {
        let value = inputs::specifiers(name, &value);
        match key.as_str() {
            "Yaml" => {
                let file = HostPath::parse(&value).ok().and_then(|path| managed.get(&path).copied());
                if let Some(DesiredFile { kind: FileKind::Regular { content, .. }, .. }) = file {
                    found.extend(of_manifest(&String::from_utf8_lossy(content)));
                }
            }
            "Mount" => found.extend(value.split(',').filter_map(|it| {
                let source = it.strip_prefix("source=").or_else(|| it.strip_prefix("src="));
                source.map(str::to_owned)
            })),
            "PodmanArgs" => {
                found.extend(value.split(['=', ' ']).skip_while(|it| *it != INFRA).nth(1).map(str::to_owned));
            }
            "Image" => {
                found.insert(value);
            }
            _ => {}
        }
    }
    // What other quadlets make has its name, not theirs.
    found.retain(|image| !image.is_empty() && !image.ends_with(".image") && !image.ends_with(".build"));
    found
}

/// Finds what may be an image in a manifest of Kubernetes, however it is laid out.
fn of_manifest(text: &str) -> impl Iterator<Item = String> {
    let behind = text.split("image").skip(1).filter_map(|rest| rest.trim_start_matches(['"', '\'']).strip_prefix(':'));
    let ends = |c: char| c.is_whitespace() || ",}\"'".contains(c);
    behind.filter_map(move |value| {
        value.trim_start().trim_start_matches(['"', '\'']).split(ends).next().map(str::to_owned)
    })
}

/// Notes an image that was fetched as `reference`, unless somebody had it before. The name leads to it from now on.
pub fn fetched(memory: &mut Memory, id: &str, reference: &str, digest: Option<String>, before: &BTreeSet<String>) {
    for pulled in memory.pulled.values_mut() {
        pulled.reference = pulled.reference.take().filter(|other| other != reference);
    }
    if !before.contains(id) || memory.pulled.contains_key(id) {
        memory.pulled.insert(id.to_owned(), Pulled { reference: Some(reference.to_owned()), digest });
    }
}

/// What Podman said of an image that it was to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its id.
    pub id: String,
    /// Whether it was not in the store before.
    pub is_new: bool,
    /// What the store calls it.
    pub names: BTreeSet<String>,
    /// What its registry calls it.
    pub digests: BTreeSet<String>,
}

/// Notes an image that Podman has as `reference` in the store of a user, or in root's (`None`): as this agent's, unless
/// somebody had it before. The name leads to it from now on.
pub fn fetched_by_podman(memory: &mut Memory, user: Option<&User>, reference: &str, told: Told) {
    let moved: BTreeSet<String> =
        told.names.iter().map(String::as_str).chain([reference]).map(full_reference).collect();
    let store = match user {
        None => &mut memory.stores.root,
        Some(user) => memory.stores.users.entry(user.clone()).or_default(),
    };
    for (_, other) in store.iter_mut().filter(|(id, _)| **id != told.id) {
        other.names.retain(|name| !moved.contains(&full_reference(name)));
    }
    if told.is_new || store.contains_key(&told.id) {
        let image = store.entry(told.id).or_default();
        image.names.insert(reference.to_owned());
        image.digests.extend(told.digests);
        // Nobody else can have named a new one yet; what is called so later may be theirs.
        image.names.extend(told.names.into_iter().filter(|_| told.is_new));
    }
    memory.stores.users.retain(|_, store| !store.is_empty());
}

/// The images that this agent fetched and nothing needs any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unneeded {
    /// Those on the engine, by id.
    pub engine: Vec<String>,
    /// Those in root's store of Podman (`None`) and in those of users, by id.
    pub podman: BTreeMap<Option<User>, Vec<String>>,
}

/// Names the images that are in none of these applications, in no release that is kept, and were not run last. A name
/// counts wherever it is said: the engine may be Podman, whose store is root's then.
pub fn unneeded<'a>(
    memory: &Memory,
    apps: impl Iterator<Item = &'a DesiredApp>,
    kept: impl Iterator<Item = String>,
) -> Unneeded {
    let Memory { pulled, stores, .. } = memory;
    if pulled.is_empty() && *stores == Stores::default() {
        return Unneeded::default();
    }
    let run = memory.apps.values().flat_map(|app| app.images.values().cloned());
    let needed: BTreeSet<String> = apps.flat_map(of_app).chain(kept).chain(run).map(|it| full_reference(&it)).collect();
    let is_needed = |name: &String| needed.contains(&full_reference(name));
    let on_engine = pulled.iter().filter(|(_, it)| ![&it.reference, &it.digest].into_iter().flatten().any(is_needed));
    let unneeded_in = |store: &BTreeMap<String, Fetched>| -> Vec<String> {
        let unneeded = store.iter().filter(|(_, image)| !image.names.iter().chain(&image.digests).any(is_needed));
        unneeded.map(|(id, _)| id.clone()).collect()
    };
    let users = stores.users.iter().map(|(user, store)| (Some(user.clone()), unneeded_in(store)));
    let podman = std::iter::once((None, unneeded_in(&stores.root))).chain(users);
    Unneeded {
        engine: on_engine.map(|(id, _)| id.clone()).collect(),
        podman: podman.filter(|(_, ids)| !ids.is_empty()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_moves_on_leaves_its_image_to_be_removed() {
        let mut memory = Memory::default();
        let digest = |name: &str| Some(format!("web@sha256:{name}"));
        let theirs = BTreeSet::from(["theirs".to_owned()]);
        fetched(&mut memory, "theirs", "web:0", digest("0"), &theirs);
        fetched(&mut memory, "one", "web:1", digest("1"), &theirs);
        fetched(&mut memory, "two", "web:1", digest("2"), &theirs);
        let unneeded = |memory: &Memory, kept: &[&str]| {
            unneeded(memory, std::iter::empty(), kept.iter().map(|it| (*it).to_owned())).engine
        };
        assert_eq!(unneeded(&memory, &["web:1"]), ["one"], "what was there before is nobody's business");
        assert_eq!(unneeded(&memory, &["web:1", "web@sha256:1"]), Vec::<String>::new(), "a release needs it");
        assert_eq!(unneeded(&memory, &[]), ["one", "two"]);
        // Asked for again, it is the same image: it is ours still.
        let now = BTreeSet::from(["theirs".to_owned(), "one".to_owned(), "two".to_owned()]);
        fetched(&mut memory, "two", "web:1", digest("2"), &now);
        assert_eq!(unneeded(&memory, &["web:1"]), ["one"]);
    }

    #[test]
    fn each_store_of_podman_is_for_itself() {
        let alice = User::new("alice", 1500).expect("a user");
        let mut memory = Memory::default();
        let told = |id: &str, is_new| Told {
            id: id.to_owned(),
            is_new,
            names: BTreeSet::from([format!("docker.io/library/web:{id}")]),
            digests: BTreeSet::from([format!("web@sha256:{id}"), format!("mirror/web@sha256:{id}")]),
        };
        for user in [None, Some(&alice)] {
            fetched_by_podman(&mut memory, user, "web:0", told("0", false));
            assert_eq!(memory, Memory::default(), "what was there before is nobody's business");
        }
        fetched_by_podman(&mut memory, None, "web:1", told("1", true));
        fetched_by_podman(&mut memory, Some(&alice), "web:1", told("1", false));
        fetched_by_podman(&mut memory, Some(&alice), "web:2", told("2", true));
        let unneeded = |memory: &Memory, kept: &[&str]| {
            unneeded(memory, std::iter::empty(), kept.iter().map(|it| (*it).to_owned())).podman
        };
        let (root, hers) = ((None, vec!["1".to_owned()]), (Some(alice.clone()), vec!["2".to_owned()]));
        assert_eq!(unneeded(&memory, &[]), BTreeMap::from([root.clone(), hers.clone()]));
        assert_eq!(unneeded(&memory, &["web:2"]), BTreeMap::from([root.clone()]));
        assert_eq!(unneeded(&memory, &["mirror/web@sha256:2", "docker.io/library/web:1"]), BTreeMap::new());
        let text = serde_json::to_string(&memory).expect("it is text");
        assert_eq!(serde_json::from_str::<Memory>(&text).expect("it is read again"), memory);

        // A name that moves on leaves the image to its digests.
        fetched_by_podman(&mut memory, None, "web:1", told("3", true));
        assert_eq!(unneeded(&memory, &["web:1", "web:2"]), BTreeMap::from([root]));
        assert_eq!(unneeded(&memory, &["web:1", "web:2", "web@sha256:1"]), BTreeMap::new());

        memory.stores.forget(None, "1");
        memory.stores.forget(Some(&alice), "2");
        assert_eq!(memory.stores.users, BTreeMap::new());
        assert_eq!(unneeded(&memory, &["web:1"]), BTreeMap::new());
    }

    #[test]
    fn manifests_name_images_however_they_are_laid_out() {
        let text = "spec:\n  containers:\n    - name: a\n      image: web:1 # ours\n    - { image: \"db:2\", name: b}\n\
                    {\"image\":\"cache:3\"}\n";
        assert_eq!(of_manifest(text).collect::<Vec<_>>(), ["web:1", "db:2", "cache:3"]);
    }
}
