//! Which overrides are for the releases that one host is about to have.
//!
//! An override names a commit, and is written down in a later one: it cannot name the commit that it stands in. So it is for a
//! release and not for a commit: it holds for an application wherever the newest commit has the content that the named commit has
//! there, and ends with the first commit that changes that.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::digest::Digest;
use crate::id::{AppName, CommitId};
use crate::manifest::Override;

/// Rewrites overrides so that [`Override::breaks`] holds at `newest` for just the applications of one host that they are for.
///
/// `targets` is what the host is to have at `newest`, `None` for what is removed there. `digests` tells what it had at the commit
/// that begins with some digits, and `None` where that commit is not there, not believed or cannot be read: no rule is broken for
/// what nobody can look at. It is asked once for each commit, and only for overrides that have not ended.
///
/// Whoever decides puts the result in the place of [`crate::manifest::Fleet::overrides`] as soon as a commit is believed, and
/// again when an override that was not readable may have become so:
///
/// ```
/// # use std::collections::BTreeMap;
/// # use spec::{id::CommitId, manifest::Fleet, rollout};
/// # fn take_over(fleet: &mut Fleet, newest: &CommitId, now: jiff::Timestamp) {
/// let targets = BTreeMap::new(); // of spec::resolve::resolve(fleet, host), and what is remembered and leaves
/// fleet.overrides = rollout::overrides(&fleet.overrides, &targets, newest, now, |_digits| None);
/// # }
/// ```
pub fn overrides(
    written: &[Override],
    targets: &BTreeMap<AppName, Option<Digest>>,
    newest: &CommitId,
    now: Timestamp,
    mut digests: impl FnMut(&str) -> Option<BTreeMap<AppName, Digest>>,
) -> Vec<Override> {
    let mut known: BTreeMap<&str, Option<BTreeMap<AppName, Digest>>> = BTreeMap::new();
    let mut in_force = Vec::new();
    for it in written.iter().filter(|it| now < it.until) {
        let is_newest = newest.as_str().starts_with(&it.commit);
        if !is_newest && !known.contains_key(it.commit.as_str()) {
            known.insert(&it.commit, digests(&it.commit));
        }
        let there = known.get(it.commit.as_str()).and_then(Option::as_ref);
        let is_for = |app: &AppName, target: Option<Digest>| {
            let is_meant = it.app.as_ref().is_none_or(|meant| meant == app);
            is_meant && (is_newest || there.is_some_and(|there| there.get(app).copied() == target))
        };
        for (app, _) in targets.iter().filter(|(app, target)| is_for(app, **target)) {
            in_force.push(Override { commit: newest.as_str().to_owned(), app: Some(app.clone()), ..it.clone() });
        }
    }
    in_force
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::manifest::Rule;

    const NOW: &str = "2026-11-22T09:00:00Z";

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn name(text: &str) -> AppName {
        AppName::parse(text).expect("a name")
    }

    fn newest() -> CommitId {
        CommitId::parse(&"f".repeat(40)).expect("a commit")
    }

    fn written(commit: &str, app: Option<&str>) -> Override {
        let ignore = BTreeSet::from([Rule::Windows]);
        let until = at("2026-11-23T00:00:00Z");
        Override { commit: commit.to_owned(), app: app.map(name), ignore, reason: "a hole".to_owned(), until }
    }

    /// What the host is to have: mqtt as it was at 1111111, web as since 2222222, and old no more.
    fn targets() -> BTreeMap<AppName, Option<Digest>> {
        BTreeMap::from([
            (name("mqtt"), Some(Digest::of(b"mqtt 1"))),
            (name("web"), Some(Digest::of(b"web 2"))),
            (name("old"), None),
        ])
    }

    fn digests(commit: &str) -> Option<BTreeMap<AppName, Digest>> {
        let (mqtt, old) = (Digest::of(b"mqtt 1"), Digest::of(b"old 1"));
        match commit {
            "1111111" => {
                Some(BTreeMap::from([(name("mqtt"), mqtt), (name("web"), Digest::of(b"web 1")), (name("old"), old)]))
            }
            "2222222" => Some(BTreeMap::from([(name("mqtt"), mqtt), (name("web"), Digest::of(b"web 2"))])),
            _ => None,
        }
    }

    /// Names the applications for which windows are not looked at.
    fn broken(all: &[Override], now: &str) -> Vec<&'static str> {
        let now = at(now);
        let in_force = overrides(all, &targets(), &newest(), now, digests);
        let breaks =
            |app: &&str| in_force.iter().any(|it| it.breaks(Rule::Windows, &name(app), newest().as_str(), now));
        ["mqtt", "old", "web"].into_iter().filter(breaks).collect()
    }

    #[test]
    fn one_holds_wherever_the_content_is_that_of_its_commit() {
        assert_eq!(broken(&[written("1111111", None)], NOW), ["mqtt"]);
        assert_eq!(broken(&[written("2222222", None)], NOW), ["mqtt", "old", "web"], "what the commit removed as well");
        assert_eq!(broken(&[written("2222222", Some("web"))], NOW), ["web"]);
        assert_eq!(broken(&[written("1111111", Some("web"))], NOW), [""; 0], "a newer commit has another web");
        assert_eq!(broken(&[written("1111111", Some("old"))], NOW), [""; 0], "it was there then");
    }

    #[test]
    fn the_newest_commit_is_never_asked_for_and_one_that_is_unknown_breaks_nothing() {
        assert_eq!(broken(&[written("fffffff", Some("web"))], NOW), ["web"]);
        assert_eq!(broken(&[written("3333333", None)], NOW), [""; 0]);
    }

    #[test]
    fn each_commit_is_asked_for_once_and_only_while_it_matters() {
        let mut asked = Vec::new();
        let mut ended = written("4444444", None);
        ended.until = at(NOW);
        let all = [written("1111111", Some("mqtt")), written("1111111", Some("web")), ended, written("fffffff", None)];
        let in_force = overrides(&all, &targets(), &newest(), at(NOW), |commit| {
            asked.push(commit.to_owned());
            digests(commit)
        });
        assert_eq!((asked, in_force.len()), (vec!["1111111".to_owned()], 4));
        assert_eq!(broken(&all, "2026-11-23T00:00:00Z"), [""; 0], "all have ended");
    }
}
