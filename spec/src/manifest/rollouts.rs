//! Reads `rollouts` of fleet.yaml, and with them freezes, holds and overrides, once all hosts and applications are known.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::decode::Table;
use super::duration;
use super::exceptions::{self, Known, items};
use super::model::App;
use super::page::{Extent, Page};
use super::place;
use super::rollout::{Count, DEFAULT, Freeze, Held, OnFailure, Override, Rollout, Wave, progress_deadline};
use super::words::{did_you_mean, list, one_after_another};
use super::yaml::{Key, Kind, Node};
use crate::calendar::Window;
use crate::diagnostic::{Diagnostic, Location};
use crate::id::{HostName, shown};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
/// What policies consist of.
const PARTS: [&str; 8] =
    ["waves", "bake", "max-unavailable", "failures", "silent-after", "progress-deadline", "on-failure", "windows"];
/// More hosts than this are counted, not named.
const MOST_NAMED: usize = 5;

const ON_FAILURE: [(&str, OnFailure); 2] = [("rollback", OnFailure::Rollback), ("stop", OnFailure::Stop)];

/// The sections as they are written, kept until there is something to compare them with.
#[derive(Default)]
pub(super) struct Written {
    rollouts: Option<Node>,
    freezes: Option<Node>,
    holds: Option<Node>,
    overrides: Option<Node>,
    /// Whether a key stands there that was probably meant to be `rollouts`.
    is_misspelt: bool,
}

impl Written {
    /// Takes them out of fleet.yaml.
    pub(super) fn take(table: &mut Table<'_>) -> Written {
        let mut take = |key| table.take(key).map(|(_, node)| node.clone());
        let (rollouts, freezes) = (take("rollouts"), take("freezes"));
        let (holds, overrides) = (take("holds"), take("overrides"));
        Written { is_misspelt: table.has_misspelt("rollouts"), rollouts, freezes, holds, overrides }
    }
}

/// What fleet.yaml says of how changes spread.
#[derive(Default)]
pub(super) struct Rules {
    pub(super) rollouts: BTreeMap<String, Rollout>,
    pub(super) freezes: Vec<Freeze>,
    pub(super) holds: Vec<Held>,
    pub(super) overrides: Vec<Override>,
}

/// Reads what was `written` on fleet.yaml, which is `page`.
pub(super) fn read(page: &mut Page<'_>, written: &Written, known: &Known<'_>) -> Rules {
    let mut rules = Rules::default();
    let mut named: BTreeMap<&str, Extent> = BTreeMap::new();
    let entries = written.rollouts.as_ref().map(|node| page.entries(node, "`rollouts`"));
    if let Some(key) = entries.flatten().and_then(nameless) {
        page.error(
            "rollout-name",
            key.extent,
            format!("`{}` is a part of a policy, and policies have names", key.text),
        )
        .help("write it two spaces to the right, below the name of the policy: `default:` is that of all applications");
        return rules;
    }
    for (key, node) in entries.flatten().unwrap_or_default() {
        named.insert(&key.text, key.extent);
        let name = page.name("rollout-name", key.extent, "a policy's name", HostName::parse(&key.text));
        let before = page.errors();
        if let (Some(rollout), Some(name)) = (rollout(page, key, node, known), name) {
            if page.errors() == before {
                everybody_has_a_wave(page, key, &rollout, known);
            }
            rules.rollouts.insert(name.as_str().to_owned(), rollout);
        }
    }
    if !written.is_misspelt && entries.is_none_or(|entries| entries.is_some()) {
        they_are_used(page, &named, known);
    }
    if let Some(node) = &written.freezes {
        rules.freezes = items(page, node, "`freezes`", |page, node| exceptions::freeze(page, node, known));
    }
    if let Some(node) = &written.holds {
        rules.holds = items(page, node, "`holds`", |page, node| exceptions::held(page, node, known));
    }
    if let Some(node) = &written.overrides {
        rules.overrides = items(page, node, "`overrides`", |page, node| exceptions::an_override(page, node, known));
    }
    rules
}

/// Finds what was meant to be a part of a policy, if the name of the policy was left out.
fn nameless(entries: &[(Key, Node)]) -> Option<&Key> {
    let is_part = |(key, node): &&(Key, Node)| {
        PARTS.contains(&key.text.as_str()) && !matches!(node.kind, Kind::Mapping(_)) && !node.is_null()
    };
    entries.iter().find(is_part).map(|(key, _)| key)
}

fn rollout(page: &mut Page<'_>, key: &Key, node: &Node, known: &Known<'_>) -> Option<Rollout> {
    let mut table = page.table(node, &format!("rollout `{}`", shown(&key.text)))?;
    // Somebody who writes a policy means that changes do not reach everybody at once.
    let mut rollout = Rollout { max_unavailable: Count::Percent(25), failures: Count::Hosts(0), ..Rollout::default() };
    if let Some((_, node)) = table.take("waves") {
        rollout.waves = waves(page, node, known);
    }
    let mut time = |page: &mut Page<'_>, key, least, most| {
        let (_, node) = table.take(key)?;
        duration::read(page, node, &format!("`{key}`"), least, most)
    };
    rollout.bake = time(page, "bake", Duration::ZERO, 30 * DAY).unwrap_or(rollout.bake);
    rollout.silent_after = time(page, "silent-after", 10 * SECOND, 30 * DAY).unwrap_or(rollout.silent_after);
    let deadline = time(page, "progress-deadline", 10 * SECOND, 30 * DAY);
    rollout.progress_deadline = deadline.unwrap_or_else(|| progress_deadline(rollout.silent_after));
    if let Some((_, node)) = table.take("max-unavailable")
        && let Some(count) = count(page, node, "`max-unavailable`", 1)
    {
        rollout.max_unavailable = count;
    }
    if let Some((_, node)) = table.take("failures")
        && let Some(count) = count(page, node, "`failures`", 0)
    {
        rollout.failures = count;
    }
    if let Some((_, node)) = table.take("on-failure") {
        rollout.on_failure = page.choice(node, "`on-failure`", &ON_FAILURE).unwrap_or(rollout.on_failure);
    }
    if let Some((_, node)) = table.take("windows") {
        rollout.windows = items(page, node, "`windows`", window);
    }
    table.finish(page, "a rollout");
    Some(rollout)
}

fn waves(page: &mut Page<'_>, node: &Node, known: &Known<'_>) -> Vec<Wave> {
    if matches!(&node.kind, Kind::Sequence(items) if items.is_empty()) {
        page.error("rollout-waves", node.extent, "a rollout without waves reaches no host")
            .help("remove `waves` when everybody goes at once");
    }
    let mut shares = 0;
    items(page, node, "`waves`", |page, node| {
        let wave = wave(page, node, known)?;
        match &wave {
            Wave::Where(_) if shares > 0 => {
                page.error("rollout-waves", node.extent, "a selector stands behind a share")
                    .help("put the selectors first: shares are of the hosts that match none of them");
            }
            Wave::Where(_) => {}
            Wave::Share(share) if *share <= shares => {
                let message = format!("a share of {share}% behind one of {shares}% adds no host");
                page.error("rollout-waves", node.extent, message)
                    .help("shares grow: each includes the ones before, such as 10%, 50%, 100%");
            }
            Wave::Share(share) => shares = *share,
        }
        Some(wave)
    })
}

fn wave(page: &mut Page<'_>, node: &Node, known: &Known<'_>) -> Option<Wave> {
    const FORM: &str = "write { where: { ring: canary } } for chosen hosts, or { share: 10% } of the others";
    if !matches!(node.kind, Kind::Mapping(_)) {
        page.error("rollout-waves", node.extent, format!("{} is not a wave", node.describe())).help(FORM);
        return None;
    }
    let mut table = page.table(node, "a wave")?;
    let (selector, share) = (table.take("where"), table.take("share"));
    let is_misspelt = table.has_misspelt("where") || table.has_misspelt("share");
    if selector.is_none() && share.is_none() && !is_misspelt {
        page.error("rollout-waves", node.extent, "this wave says neither `where` nor `share`").help(FORM);
        return None;
    }
    table.finish(page, "a wave");
    match (selector, share) {
        (Some((_, node)), None) => place::rule(page, node, "`where`", known.hosts).map(Wave::Where),
        (None, Some((_, node))) => percent(page, node, "`share`").map(Wave::Share),
        (Some((key, _)), Some(_)) => {
            page.error("rollout-waves", key.extent, "a wave is a selector or a share").help(FORM);
            None
        }
        (None, None) => None,
    }
}

/// Complains about hosts that would have no turn, or two.
fn everybody_has_a_wave(page: &mut Page<'_>, key: &Key, rollout: &Rollout, known: &Known<'_>) {
    let Some(hosts) = known.hosts else { return };
    let name = key.text.as_str();
    let has_rest = rollout.waves.last() == Some(&Wave::Share(100));
    let (mut twice, mut never) = (Vec::new(), Vec::new());
    let users = if has_rest { BTreeSet::new() } else { users(name, known) };
    for (host, it) in hosts {
        let matching = rollout.waves.iter().filter(|wave| matches!(wave, Wave::Where(place) if place.holds(host, it)));
        match matching.count() {
            0 if users.contains(host) => never.push(host.as_str()),
            0 | 1 => {}
            _ => twice.push(host.as_str()),
        }
    }
    if !twice.is_empty() {
        let message = format!("rollout `{name}` has more than one wave for {}", some_of(&twice));
        page.error("rollout-two-waves", key.extent, message)
            .help("make the selectors exclude each other, for instance with `not:`");
    }
    if !never.is_empty() {
        let message = format!("rollout `{name}` has no wave for {}", some_of(&never));
        page.error("rollout-no-wave", key.extent, message).help(match rollout.waves.last() {
            Some(Wave::Share(_)) => "end with { share: 100% }",
            _ => "add { share: 100% } as the last wave: everybody else",
        });
    }
}

/// Collects the hosts to which changes come by the policy called `name`.
fn users<'f>(name: &str, known: &Known<'f>) -> BTreeSet<&'f HostName> {
    let sound = known.apps.iter().filter(|(app, _)| !known.faulty.contains(app));
    let hosts =
        sound.flat_map(|(_, app)| app.hosts.keys().filter(|host| app.on(host).is_some_and(|it| it.rollout() == name)));
    hosts.collect()
}

/// Names a few of many hosts.
fn some_of(hosts: &[&str]) -> String {
    let more = hosts.len().saturating_sub(MOST_NAMED);
    match more {
        0 => list(hosts),
        _ => format!("{} and {more} more", one_after_another(&hosts[..MOST_NAMED])),
    }
}

/// Complains about policies that no application names, and applications that name one that there is not.
fn they_are_used(page: &mut Page<'_>, named: &BTreeMap<&str, Extent>, known: &Known<'_>) {
    let forms = || known.apps.values().flat_map(|app| &app.variants);
    let wanted: BTreeSet<&(String, Location)> = forms().filter_map(|form| form.rollout.as_ref()).collect();
    let unknown = wanted.into_iter().filter(|(name, _)| name != DEFAULT && !named.contains_key(name.as_str()));
    let mut meant = BTreeSet::from([DEFAULT]);
    for (name, location) in unknown {
        let mut complaint =
            Diagnostic::error("unknown-rollout", location.clone(), format!("there is no rollout `{}`", shown(name)));
        let near = page.near(name, named.keys().copied().chain([DEFAULT]));
        meant.extend(near);
        complaint.help(near.map_or_else(
            || format!("name one of `rollouts` in fleet.yaml, or add `{}:` there", shown(name)),
            did_you_mean,
        ));
        page.add(complaint);
    }
    if !known.faulty.is_empty() || known.has_strangers {
        return;
    }
    let used: BTreeSet<&str> = forms().map(App::rollout).chain(meant).collect();
    let is_name = |name: &str| HostName::parse(name).is_ok();
    for (name, extent) in named.iter().filter(|(name, _)| !used.contains(*name) && is_name(name)) {
        let message = format!("no application names rollout `{name}`");
        if !named.contains_key(DEFAULT) && page.near(name, [DEFAULT]).is_some() {
            // Everybody would go at once, and whoever wrote this means that nobody does.
            page.error("rollout-unused", *extent, message).help(did_you_mean(DEFAULT));
        } else {
            page.warning("rollout-unused", *extent, message)
                .help(format!("write `rollout: {name}` in an app.yaml, or remove it"));
        }
    }
}

fn window(page: &mut Page<'_>, node: &Node) -> Option<Window> {
    let text = page.text(node, "a window")?;
    match Window::parse(text) {
        Ok(window) => Some(window),
        Err(bad) => {
            exceptions::bad_zone(page, node.extent, bad);
            None
        }
    }
}

fn percent(page: &mut Page<'_>, node: &Node, what: &str) -> Option<u8> {
    let text = page.as_written(node, what)?;
    let number = text.strip_suffix('%').and_then(|digits| digits.parse().ok());
    if let Some(percent @ 1..=100) = number {
        return Some(percent);
    }
    let bare = text.parse::<u8>().is_ok();
    page.error("rollout-share", node.extent, format!("{what} is between 1% and 100%, not `{}`", shown(text)))
        .help(if bare { format!("write the sign: {text}%") } else { "write whole percent, such as 10%".to_owned() });
    None
}

fn count(page: &mut Page<'_>, node: &Node, what: &str, least: u32) -> Option<Count> {
    let text = page.as_written(node, what)?;
    if text.ends_with('%') {
        let number = text.trim_end_matches('%').parse::<u8>().ok().filter(|percent| *percent <= 100);
        if let Some(percent) = number.filter(|percent| u32::from(*percent) >= least) {
            return Some(Count::Percent(percent));
        }
    } else if let Some(count) = text.parse().ok().filter(|count| *count >= least) {
        return Some(Count::Hosts(count));
    }
    let message = format!("{what} is a number of hosts or percent of them, from {least} on, not `{}`", shown(text));
    page.error("rollout-count", node.extent, message).help("write it such as 1 or 10%");
    None
}
