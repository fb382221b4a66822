//! Which of the images that this agent fetched are needed no longer. Whether a container uses one is for the engine to say.

use std::collections::BTreeSet;

use crate::desired::{DesiredApp, FileKind};
use crate::inputs::{self, Managed};
use crate::memory::{Memory, Pulled};

/// Where images without a registry in their name come from.
const HUB: &str = "docker.io";

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

/// Names the images that an application is made of: those of its containers, and of its quadlets.
pub fn of_app(app: &DesiredApp) -> BTreeSet<String> {
    let containers = app.containers.values().map(|container| container.settings.image.clone());
    let managed: Managed<'_> =
        app.files.iter().filter(|(_, file)| matches!(file.kind, FileKind::Regular { .. })).collect();
    let units = app.units.iter().filter_map(|(name, unit)| Some(inputs::pull(name, unit, &managed)?.image));
    containers.chain(units).collect()
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

/// Names the images that are in none of these applications and in no release that is kept.
pub fn unneeded<'a>(
    memory: &Memory,
    apps: impl Iterator<Item = &'a DesiredApp>,
    kept: impl Iterator<Item = String>,
) -> Vec<String> {
    if memory.pulled.is_empty() {
        return Vec::new();
    }
    let needed: BTreeSet<String> = apps.flat_map(of_app).chain(kept).map(|it| full_reference(&it)).collect();
    let is_needed = |pulled: &Pulled| {
        [&pulled.reference, &pulled.digest].into_iter().flatten().any(|it| needed.contains(&full_reference(it)))
    };
    memory.pulled.iter().filter(|(_, pulled)| !is_needed(pulled)).map(|(id, _)| id.clone()).collect()
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
            unneeded(memory, std::iter::empty(), kept.iter().map(|it| (*it).to_owned()))
        };
        assert_eq!(unneeded(&memory, &["web:1"]), ["one"], "what was there before is nobody's business");
        assert_eq!(unneeded(&memory, &["web:1", "web@sha256:1"]), Vec::<String>::new(), "a release needs it");
        assert_eq!(unneeded(&memory, &[]), ["one", "two"]);
        // Asked for again, it is the same image: it is ours still.
        let now = BTreeSet::from(["theirs".to_owned(), "one".to_owned(), "two".to_owned()]);
        fetched(&mut memory, "two", "web:1", digest("2"), &now);
        assert_eq!(unneeded(&memory, &["web:1"]), ["one"]);
    }
}
