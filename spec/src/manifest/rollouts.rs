//! Reads `rollouts`, `freezes`, `holds` and `overrides` of fleet.yaml, once all hosts and applications are known.
//!
//! The agent does not act on them yet, so that [`super::parse`] refuses them by name and does not read them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::{Span, Timestamp};

use super::decode::Table;
use super::duration;
use super::model::{App, Application, Host};
use super::page::{Extent, Page};
use super::place;
use super::rollout::{Count, DEFAULT, Freeze, Held, OnFailure, Override, RULES, Rollout, Wave};
use super::selector::Place;
use super::words::{did_you_mean, list};
use super::yaml::{self, Key, Node};
use crate::calendar::{Window, Zone};
use crate::diagnostic::Diagnostic;
use crate::id::{AppName, HostName, shown};

/// More of anything in a list than this is a mistake.
const MOST: usize = 100;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
/// As many digits of a commit tell it from every other one.
const LEAST_DIGITS: usize = 7;

const ON_FAILURE: [(&str, OnFailure); 2] = [("rollback", OnFailure::Rollback), ("stop", OnFailure::Stop)];

/// What fleet.yaml says of how changes spread.
#[derive(Default)]
pub(super) struct Rules {
    pub(super) rollouts: BTreeMap<String, Rollout>,
    pub(super) freezes: Vec<Freeze>,
    pub(super) holds: Vec<Held>,
    pub(super) overrides: Vec<Override>,
    /// Where each policy was written.
    extents: BTreeMap<String, Extent>,
}

/// What there is to name.
pub(super) struct Known<'f> {
    /// The hosts, unless they have mistakes.
    pub(super) hosts: Option<&'f BTreeMap<HostName, Host>>,
    /// The applications, unless there are mistakes in which there are.
    pub(super) apps: &'f BTreeMap<AppName, Application>,
}

/// Reads the sections out of the text of fleet.yaml, of which the others are read elsewhere.
pub(super) fn read(page: &mut Page<'_>, known: &Known<'_>) -> Rules {
    let mut rules = Rules::default();
    let Some(node) = yaml::read(page).filter(|node| !node.is_null()) else { return rules };
    let Some(mut table) = page.table(&node, "fleet.yaml") else { return rules };
    if let Some((_, node)) = table.take("rollouts") {
        for (key, node) in page.entries(node, "`rollouts`").unwrap_or_default() {
            let name = page.name("rollout-name", key.extent, "a policy's name", HostName::parse(&key.text));
            let before = page.errors();
            let rollout = rollout(page, key, node, known);
            if let (Some(name), Some(rollout)) = (name, rollout) {
                rules.extents.insert(name.as_str().to_owned(), key.extent);
                if page.errors() == before {
                    everybody_has_a_wave(page, key, &rollout, known);
                }
                rules.rollouts.insert(name.as_str().to_owned(), rollout);
            }
        }
    }
    they_are_used(page, &rules, known);
    rules.freezes = items(page, &mut table, "freezes", |page, node| freeze(page, node, known));
    rules.holds = items(page, &mut table, "holds", |page, node| held(page, node, known));
    rules.overrides = items(page, &mut table, "overrides", |page, node| an_override(page, node, known));
    rules
}

fn items<T>(
    page: &mut Page<'_>,
    table: &mut Table<'_>,
    section: &'static str,
    mut read: impl FnMut(&mut Page<'_>, &Node) -> Option<T>,
) -> Vec<T> {
    let Some((_, node)) = table.take(section) else { return Vec::new() };
    let items = page.list(node, &format!("`{section}`")).unwrap_or_default();
    if let Some(first) = items.get(MOST) {
        page.error("rollout-list", first.extent, format!("`{section}` has at most {MOST} items"))
            .help("remove those that are over; git keeps them");
    }
    items.iter().take(MOST).filter_map(|node| read(page, node)).collect()
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
        let items = page.list(node, "`windows`").unwrap_or_default();
        rollout.windows = items.iter().take(MOST).filter_map(|node| window(page, node)).collect();
    }
    table.finish(page, "a rollout");
    Some(rollout)
}

fn waves(page: &mut Page<'_>, node: &Node, known: &Known<'_>) -> Vec<Wave> {
    const FORM: &str = "write { where: { ring: canary } } for chosen hosts, or { share: 10% } of the others";
    let Some(items) = page.list(node, "`waves`") else { return Vec::new() };
    if items.is_empty() {
        page.error("rollout-waves", node.extent, "a rollout without waves reaches no host")
            .help("remove `waves` when everybody goes at once");
    }
    let (mut waves, mut shares) = (Vec::new(), 0);
    for node in items.iter().take(MOST) {
        let Some(mut table) = page.table(node, "a wave") else { continue };
        let (selector, share) = (table.take("where"), table.take("share"));
        let misspelt = table.has_misspelt("where") || table.has_misspelt("share");
        table.finish(page, "a wave");
        match (selector, share) {
            (Some((_, node)), None) => {
                if shares > 0 {
                    page.error("rollout-waves", node.extent, "a selector stands behind a share")
                        .help("put the selectors first: shares are of the hosts that match none of them");
                }
                waves.extend(place::read(page, node, known.hosts).map(Wave::Where));
            }
            (None, Some((_, node))) => {
                let Some(share) = percent(page, node, "`share`") else { continue };
                if share <= shares {
                    let message = format!("a share of {share}% behind one of {shares}% adds no host");
                    page.error("rollout-waves", node.extent, message)
                        .help("shares grow: each includes the ones before, such as 10%, 50%, 100%");
                }
                shares = shares.max(share);
                waves.push(Wave::Share(share));
            }
            (Some((key, _)), Some(_)) => {
                page.error("rollout-waves", key.extent, "a wave is a selector or a share").help(FORM);
            }
            (None, None) if misspelt => {}
            (None, None) => {
                page.error("rollout-waves", node.extent, "this wave says neither `where` nor `share`").help(FORM);
            }
        }
    }
    waves
}

/// Complains about hosts that would have no turn, or two.
fn everybody_has_a_wave(page: &mut Page<'_>, key: &Key, rollout: &Rollout, known: &Known<'_>) {
    let Some(hosts) = known.hosts else { return };
    let name = key.text.as_str();
    let has_rest = rollout.waves.last() == Some(&Wave::Share(100));
    let ends_short = rollout.waves.last().is_some_and(|last| matches!(last, Wave::Share(share) if *share < 100));
    let used = |host: &HostName| {
        let mut forms = known.apps.values().filter_map(|app| app.on(host));
        forms.any(|form| form.rollout() == name)
    };
    let (mut twice, mut never) = (Vec::new(), Vec::new());
    for (host, it) in hosts {
        let matching = rollout.waves.iter().filter(|wave| matches!(wave, Wave::Where(place) if place.holds(host, it)));
        match matching.count() {
            0 if !has_rest && used(host) => never.push(host.as_str()),
            0 | 1 => {}
            _ => twice.push(host.as_str()),
        }
    }
    if !twice.is_empty() {
        let message = format!("rollout `{name}` has more than one wave for {}", list(&twice));
        page.error("rollout-two-waves", key.extent, message)
            .help("make the selectors exclude each other, for instance with `not:`");
    }
    if !never.is_empty() {
        let message = format!("rollout `{name}` has no wave for {}", list(&never));
        page.error("rollout-no-wave", key.extent, message).help(match ends_short {
            true => "end with { share: 100% }",
            false => "add { share: 100% } as the last wave: everybody else",
        });
    }
}

/// Complains about policies that no application names, and applications that name one that there is not.
fn they_are_used(page: &mut Page<'_>, rules: &Rules, known: &Known<'_>) {
    let named = known.apps.values().flat_map(|app| &app.variants).filter_map(|form| form.rollout.as_ref());
    for (name, location) in named.filter(|(name, _)| name != DEFAULT && !rules.extents.contains_key(name)) {
        let message = format!("there is no rollout `{}`", shown(name));
        let mut complaint = Diagnostic::error("unknown-rollout", location.clone(), message);
        let known = rules.extents.keys().map(String::as_str).chain([DEFAULT]);
        complaint.help(page.near(name, known).map_or_else(
            || format!("name one of `rollouts` in fleet.yaml, or add `{}:` there", shown(name)),
            did_you_mean,
        ));
        page.add(complaint);
    }
    let forms = known.apps.values().flat_map(|app| &app.variants);
    let used: BTreeSet<&str> = forms.map(App::rollout).collect();
    for (name, extent) in rules.extents.iter().filter(|(name, _)| *name != DEFAULT && !used.contains(name.as_str())) {
        page.warning("rollout-unused", *extent, format!("no application names rollout `{name}`"))
            .help(format!("write `rollout: {name}` in an app.yaml, or remove it"));
    }
}

fn window(page: &mut Page<'_>, node: &Node) -> Option<Window> {
    let text = page.text(node, "a window")?;
    match Window::parse(text) {
        Ok(window) => Some(window),
        Err(bad) => {
            let near = bad.zone.as_deref().and_then(|zone| page.near(zone, Zone::names())).map(did_you_mean);
            page.error("rollout-window", node.extent, bad.message).help(near.unwrap_or(bad.help));
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

fn freeze(page: &mut Page<'_>, node: &Node, known: &Known<'_>) -> Option<Freeze> {
    const FORM: &str =
        "write { from: 2026-12-20, to: 2027-01-03, zone: Europe/Berlin, where: { environment: prod }, reason: \"…\" }";
    let mut table = page.table(node, "a freeze")?;
    let zone = match table.take("zone") {
        Some((_, node)) => zone(page, node)?,
        None => Zone::parse("UTC")?,
    };
    let mut day = |page: &mut Page<'_>, key, is_last| {
        let Some((_, node)) = table.take(key) else {
            page.error("freeze", node.extent, format!("this freeze does not say `{key}`")).help(FORM);
            return None;
        };
        moment(page, node, &format!("`{key}`"), &zone, is_last).map(|at| (at, node.extent))
    };
    let (from, to) = (day(page, "from", false), day(page, "to", true));
    let place = table.take("where").and_then(|(_, node)| place::read(page, node, known.hosts));
    let apps = table.take("apps").map(|(_, node)| {
        let names = page.list(node, "`apps`").unwrap_or_default();
        names.iter().filter_map(|node| app(page, node, known)).collect()
    });
    let reason = reason(page, &mut table, "freeze", node, FORM);
    table.finish(page, "a freeze");
    let ((from, _), (to, extent)) = (from?, to?);
    if to <= from {
        page.error("freeze", extent, "this freeze ends before it begins").help("`from` and `to` are both included");
        return None;
    }
    Some(Freeze { from, to, place: place.unwrap_or(Place::All), apps: apps.unwrap_or_default(), reason: reason? })
}

fn held(page: &mut Page<'_>, node: &Node, known: &Known<'_>) -> Option<Held> {
    const FORM: &str = "write { app: mqtt, reason: \"incident 42\" }; `app: all` holds every application";
    let mut table = page.table(node, "a hold")?;
    let named = all_or_one(page, &mut table, node, "hold", known, FORM);
    let place = table.take("where").and_then(|(_, node)| place::read(page, node, known.hosts));
    let reason = reason(page, &mut table, "hold", node, FORM);
    table.finish(page, "a hold");
    Some(Held { app: named?, place: place.unwrap_or(Place::All), reason: reason? })
}

fn an_override(page: &mut Page<'_>, node: &Node, known: &Known<'_>) -> Option<Override> {
    const FORM: &str = "write { commit: \"1f2e3d4\", app: mqtt, ignore: [windows, freezes], reason: \"…\", until: 2026-12-24T18:00:00Z }";
    let mut table = page.table(node, "an override")?;
    let commit = match table.take("commit") {
        Some((_, node)) => commit(page, node),
        None => {
            page.error("override", node.extent, "this override names no commit").help(FORM);
            None
        }
    };
    let named = all_or_one(page, &mut table, node, "override", known, FORM);
    let mut ignore = BTreeSet::new();
    match table.take("ignore") {
        Some((_, node)) => {
            for node in page.list(node, "`ignore`").unwrap_or_default() {
                ignore.extend(page.choice(node, "an item of `ignore`", &RULES));
            }
        }
        None => {
            page.error("override", node.extent, "this override does not say what to ignore").help(FORM);
        }
    }
    let until = match table.take("until") {
        Some((_, node)) => {
            let utc = Zone::parse("UTC")?;
            moment(page, node, "`until`", &utc, true)
        }
        None => {
            page.error("override", node.extent, "this override has no end").help(FORM);
            None
        }
    };
    let reason = reason(page, &mut table, "override", node, FORM);
    table.finish(page, "an override");
    Some(Override { commit: commit?, app: named?, ignore, reason: reason?, until: until? })
}

fn commit(page: &mut Page<'_>, node: &Node) -> Option<String> {
    let text = page.as_written(node, "`commit`")?;
    let digits = (LEAST_DIGITS..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if !digits {
        let message = format!("`{}` is not a commit", shown(text));
        page.error("override", node.extent, message)
            .help(format!("write at least {LEAST_DIGITS} of its hex digits, in quotes when they look like a number"));
        return None;
    }
    Some(text.to_owned())
}

fn reason(page: &mut Page<'_>, table: &mut Table<'_>, rule: &'static str, at: &Node, form: &str) -> Option<String> {
    let Some((_, node)) = table.take("reason") else {
        page.error(rule, at.extent, format!("this {rule} gives no reason")).help(form);
        return None;
    };
    let text = page.text(node, "`reason`")?;
    if text.trim().is_empty() {
        page.error(rule, node.extent, "the reason is empty").help(form);
        return None;
    }
    Some(text.to_owned())
}

/// Reads `app`: a name, or `all`. The outer `None` has been complained about.
#[expect(clippy::option_option, reason = "what could not be read is not everything")]
fn all_or_one(
    page: &mut Page<'_>,
    table: &mut Table<'_>,
    at: &Node,
    rule: &'static str,
    known: &Known<'_>,
    form: &str,
) -> Option<Option<AppName>> {
    let Some((_, node)) = table.take("app") else {
        page.error(rule, at.extent, format!("this {rule} names no application")).help(form);
        return None;
    };
    match page.text(node, "`app`")? {
        "all" => Some(None),
        _ => app(page, node, known).map(Some),
    }
}

fn app(page: &mut Page<'_>, node: &Node, known: &Known<'_>) -> Option<AppName> {
    let text = page.text(node, "an application")?;
    let name = page.name("app-name", node.extent, "an application's name", AppName::parse(text))?;
    if !known.apps.contains_key(&name) {
        let near = page.near(text, known.apps.keys().map(AppName::as_str)).map(did_you_mean);
        let help = near.unwrap_or_else(|| "remove it: what is not there cannot change".to_owned());
        page.error("unknown-app", node.extent, format!("there is no application `{name}`")).help(help);
        return None;
    }
    Some(name)
}

fn zone(page: &mut Page<'_>, node: &Node) -> Option<Zone> {
    let text = page.text(node, "`zone`")?;
    let zone = Zone::parse(text);
    if zone.is_none() {
        let bad = crate::calendar::BadWindow::zone(text);
        let near = page.near(text, Zone::names()).map(did_you_mean);
        page.error("rollout-window", node.extent, bad.message).help(near.unwrap_or(bad.help));
    }
    zone
}

/// Reads a day, of which a last one counts to its end, a time of day in `zone`, or a moment with its own offset.
fn moment(page: &mut Page<'_>, node: &Node, what: &str, zone: &Zone, is_last: bool) -> Option<Timestamp> {
    let text = page.as_written(node, what)?;
    // A moment says its offset; jiff would take a date alone for no moment at all.
    let exact = text.parse::<Timestamp>().ok();
    let found = exact.or_else(|| {
        if let Some(day) = text.parse::<Date>().ok().filter(|_| text.len() == "2026-12-20".len()) {
            let day = if is_last { day.checked_add(Span::new().days(1)).ok()? } else { day };
            return zone.first(day.to_datetime(jiff::civil::Time::midnight()));
        }
        let time: DateTime = text.parse().ok().filter(|_| text.contains(':'))?;
        zone.first(time)
    });
    if found.is_none() {
        page.error("rollout-time", node.extent, format!("{what} is a day or a time, not `{}`", shown(text)))
            .help("write it such as 2026-12-20, 2026-12-20T18:00 or 2026-12-20T18:00:00Z");
    }
    found
}
