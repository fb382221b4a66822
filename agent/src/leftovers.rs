//! Removes images that nothing needs any more: from the engine, and from the stores of Podman, root's and those of users.
//!
//! Which these are is decided in `spec::images`; that nobody uses one is for the engine and for Podman to say.

use std::collections::BTreeMap;
use std::time::Duration;

use spec::id::{UnitName, User};
use spec::images::Unneeded;
use spec::memory::Memory;
use tracing::{debug, info};

use crate::engine::Engine;
use crate::observe::{self, Providers};
use crate::podman::{self, Fate};
use crate::progress::Progress;
use crate::systemd::{self, Managers, Verb};

/// So many images are removed from the engine, and from each store, after one pass at most.
const IMAGES: usize = 5;
/// How long Podman may take for those of all stores.
const REMOVAL: Duration = Duration::from_secs(120);
/// Lines of what it said that are read: our own of each image, and Podman's about it.
const LINES: usize = 60;

/// Removes images, a few of them: the rest goes after the next change. One that a container uses stays, and one that somebody
/// has named is theirs from now on. A user of whom `is_named` says no is not asked again when there is no answer. Says
/// whether anything is to be remembered.
pub async fn remove_images(
    providers: &mut Providers,
    memory: &mut Memory,
    unneeded: Unneeded,
    is_named: impl Fn(&User) -> bool,
    progress: &Progress,
) -> bool {
    let from_engine = clear_engine(&providers.engine, memory, unneeded.engine).await;
    if unneeded.podman.is_empty() || progress.is_stopping() {
        return from_engine;
    }
    let stores =
        unneeded.podman.into_iter().map(|(user, ids)| (user, ids.into_iter().take(IMAGES).collect())).collect();
    let before = memory.stores.clone();
    let clearing = tokio::time::timeout(REMOVAL, clear_stores(&mut providers.systemd, memory, stores, is_named));
    match progress.within_reason(clearing).await {
        Some(Ok(())) => {}
        // What goes meanwhile is found to be gone the next time.
        Some(Err(_)) => debug!("removing images takes too long: they are left to the next change"),
        None => debug!("asked to stop while images are removed"),
    }
    from_engine || memory.stores != before
}

async fn clear_engine(engine: &Engine, memory: &mut Memory, unneeded: Vec<String>) -> bool {
    let mut is_news = false;
    for id in unneeded.into_iter().take(IMAGES) {
        let reference = memory.pulled.get(&id).and_then(|pulled| pulled.reference.clone());
        match engine.remove_image(&id, reference.as_deref()).await {
            Ok(is_gone) => {
                info!(id, reference, is_gone, "an image that was fetched is not needed any more");
                memory.pulled.remove(&id);
                is_news = true;
            }
            Err(error) => debug!(id, error = crate::chain(&error), "an image that is not needed stays for now"),
        }
    }
    is_news
}

/// Has Podman remove images, in all stores at once.
async fn clear_stores(
    systemd: &mut Managers,
    memory: &mut Memory,
    mut stores: BTreeMap<Option<User>, Vec<String>>,
    is_named: impl Fn(&User) -> bool,
) {
    stores.retain(|user, ids| user.as_ref().is_none_or(|user| is_there(memory, user, ids)));
    let unit_of = |user: &Option<User>| podman::removal_unit().of(user.as_ref());
    let all = |verb| stores.keys().map(|user| (unit_of(user), verb)).collect::<Vec<_>>();
    // What an earlier pass left behind, which was killed in between.
    systemd.run(all(Verb::Stop), REMOVAL, &|| {}).await;
    let run = podman::run_name();
    let mut jobs = Vec::new();
    for (user, ids) in &stores {
        let known = memory.stores.of(user.as_ref());
        let images = ids.iter().filter_map(|id| Some((id.as_str(), &known?.get(id)?.names)));
        let command = podman::removal_command(&run, images);
        let unit = unit_of(user);
        let manager = systemd.of(user.as_ref());
        match manager.start_transient(&unit, "Remove images for mainstay", &command, REMOVAL).await {
            Ok(()) => jobs.push((unit, Verb::Start)),
            Err(error) => {
                debug!(%unit, error = crate::chain(&error), "images that are not needed stay for now");
                if let Some(user) = user.as_ref().filter(|user| !is_named(user)) {
                    ids.iter().for_each(|id| memory.stores.forget(Some(user), id));
                }
            }
        }
    }
    for (unit, result) in systemd.run(jobs, REMOVAL, &|| {}).await {
        let said = systemd::journal_tail(&unit, None, LINES).await;
        if let Err(error) = result {
            debug!(%unit, error = crate::chain(&error), said, "images that are not needed may stay for now");
        }
        let ids = stores.get(&unit.user().cloned()).map(Vec::as_slice).unwrap_or_default();
        take(memory, &unit, ids, &podman::fates(&run, &said));
    }
    systemd.run(all(Verb::Stop), REMOVAL, &|| {}).await;
}

/// Takes in what became of images.
fn take(memory: &mut Memory, unit: &UnitName, ids: &[String], fates: &BTreeMap<String, Fate>) {
    for id in ids {
        match fates.get(id) {
            Some(fate) => {
                let user = unit.user().map(User::name);
                info!(id, user, is_gone = *fate == Fate::Gone, "an image that was fetched is not needed any more");
                memory.stores.forget(unit.user(), id);
            }
            None => debug!(id, %unit, "an image that is not needed stays for now"),
        }
    }
}

/// Says whether a user's store can be asked about. That of an account which is no more, or is another one by now, never will.
fn is_there(memory: &mut Memory, user: &User, ids: &[String]) -> bool {
    if let Some(why) = observe::stranger(user) {
        debug!(%user, why, "images are left to themselves");
        ids.iter().for_each(|id| memory.stores.forget(Some(user), id));
        return false;
    }
    let is_up = systemd::seems_up(user);
    if !is_up {
        debug!(%user, "the manager is not running: images that are not needed stay for now");
    }
    is_up
}
