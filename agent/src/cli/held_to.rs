//! What a command holds the host to: a folder in hand, the repository's newest commit, or what was believed last.

use std::path::PathBuf;

use anyhow::Context as _;
use jiff::Timestamp;
use spec::manifest;
use spec::tree::Tree;

use super::{Common, Ended};
use crate::belief::{Past, Refusal};
use crate::draw;
use crate::folder;
use crate::git::Peers;
use crate::pass::Host;
use crate::report::Notice;
use crate::settings::Settings;
use crate::trust;
use crate::upstream::{self, Done, LIMITS, Question, Upstream};

/// Where the desired state comes from.
pub(super) enum Origin {
    /// A folder in hand.
    Folder(PathBuf),
    /// The repository of the settings.
    Repository,
    /// What was believed last.
    Mirror,
}

/// Whether there is something to hold the host to.
pub(super) enum Believed {
    /// The newest there is.
    Yes(Option<Upstream>),
    /// What was believed before: the repository could not be asked.
    Stale(Option<Upstream>),
    /// Nothing; it was said why.
    No(Ended),
}

/// Makes the host believe what it should be held to, and prints why not.
pub(super) async fn believe(
    common: &Common,
    settings: &Settings,
    host: &mut Host,
    origin: Origin,
) -> anyhow::Result<Believed> {
    if let Origin::Folder(dir) = &origin {
        let tree = folder::read(dir, &LIMITS).with_context(|| format!("failed to read {}", dir.display()))?;
        return Ok(match host.believe(&tree, None, None) {
            Ok(_) => Believed::Yes(None),
            Err(refusal) => Believed::No(refused(common, &refusal, &tree)),
        });
    }
    let mut notice = Notice::read(&settings.state);
    if matches!(origin, Origin::Mirror) {
        let Some(commit) = host.ledger.memory.believed.clone() else { return Ok(Believed::No(nothing())) };
        let mirror = upstream::peek(&settings.state)?;
        let tree =
            mirror.tree(&commit, &LIMITS).with_context(|| format!("failed to read commit {}", commit.short()))?;
        let past = Past { mirror: &mirror, limits: LIMITS };
        return Ok(match host.believe(&tree, Some(commit), Some(&past)) {
            Ok(_) => {
                // For somebody who only looks; whoever acts has to ask.
                if host.only_looks() {
                    host.look_at_peers(&mirror, &Peers::All, Timestamp::now());
                }
                Believed::Yes(None)
            }
            Err(refusal) => Believed::No(refused(common, &refusal, &tree)),
        });
    }
    let mut upstream = Upstream::open(settings)?;
    upstream.fetch(Question { keep: host.commits(), ..Question::default() });
    let transfer = host.progress.transfer("the repository");
    let done = upstream.done().await;
    drop(transfer);
    let newest = match done {
        Done::Fetched(Ok(fetched)) => Some(fetched.tip),
        Done::Fetched(Err(error)) => {
            let why = crate::chain(&error);
            eprintln!("mainstay: the repository could not be asked; going on with what was believed before\n  {why}");
            None
        }
        Done::Pushed(_) => None,
    };
    let fresh = newest.is_some();
    let Some(commit) = newest.or_else(|| host.ledger.memory.believed.clone()) else {
        return Ok(Believed::No(nothing()));
    };
    let mirror = upstream.source().context("the mirror is busy")?.mirror();
    let is_known = host.ledger.memory.believed.as_ref() == Some(&commit);
    let judged = if is_known { Ok(()) } else { host.trusts(mirror, &commit).map(|_| ()) };
    // Most likely it has a mistake, which is better told as one.
    let is_mistaken = |tree: &Tree| manifest::parse(tree, Some(&commit)).fleet.is_none();
    let tree = || mirror.tree(&commit, &LIMITS).with_context(|| format!("failed to read commit {}", commit.short()));
    let is_unclear = matches!(judged, Err(trust::Refusal::Unclear { .. })) && host.may_be_told(mirror, &commit);
    if let Err(refusal) = judged
        && !(is_unclear && tree().as_ref().is_ok_and(is_mistaken))
    {
        anyhow::ensure!(!refusal.is_unread(), refusal);
        let why = crate::chain(&refusal);
        eprintln!("mainstay: {why}\nnothing was changed");
        notice.refused = Some((commit, why));
        notice.write(&settings.state).context("failed to write the notice for `mainstay status`")?;
        return Ok(Believed::No(Ended::Mistaken));
    }
    let tree = tree()?;
    let past = Past { mirror, limits: LIMITS };
    if let Err(refusal) = host.believe(&tree, Some(commit.clone()), Some(&past)) {
        notice.refused = Some((commit, refusal.to_string()));
        notice.write(&settings.state).context("failed to write the notice for `mainstay status`")?;
        return Ok(Believed::No(refused(common, &refusal, &tree)));
    }
    let standing = host.standing(mirror, &commit);
    let stale = standing.as_ref().and_then(|standing| standing.stale(Timestamp::now()));
    if notice.refused.take().is_some() || (&notice.trust, &notice.stale) != (&standing, &stale) {
        (notice.trust, notice.stale) = (standing, stale);
        notice.write(&settings.state).context("failed to write the notice for `mainstay status`")?;
    }
    Ok(if fresh { Believed::Yes(Some(upstream)) } else { Believed::Stale(Some(upstream)) })
}

fn nothing() -> Ended {
    eprintln!("mainstay: nothing was believed on this host yet, so there is nothing to hold it to");
    Ended::Impossible
}

/// Draws why a tree is not believed.
fn refused(common: &Common, refusal: &Refusal, tree: &Tree) -> Ended {
    match refusal {
        Refusal::Mistakes(diagnostics) if common.json => println!("{:#}", draw::json(diagnostics)),
        Refusal::Mistakes(diagnostics) => {
            eprint!("{}", draw::render(diagnostics, tree, common.colour()));
            eprintln!("nothing was changed");
        }
        other => eprintln!("mainstay: {other}"),
    }
    Ended::Mistaken
}
