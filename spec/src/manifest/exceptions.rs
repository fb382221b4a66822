//! Reads `freezes`, `holds` and `overrides` of fleet.yaml: when, where and for what other rules hold than those of the policies.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::{Date, DateTime};
use jiff::{Span, Timestamp};

use super::decode::Table;
use super::model::{Application, Host};
use super::page::{Extent, Page};
use super::place;
use super::rollout::{Freeze, Held, Override, RULES};
use super::selector::Place;
use super::words::did_you_mean;
use super::yaml::{Kind, Node};
use crate::calendar::{BadWindow, Zone};
use crate::id::{AppName, HostName, shown};

/// More of anything in a list than this is a mistake.
const MOST: usize = 100;
/// As many digits of a commit tell it from every other one.
const LEAST_DIGITS: usize = 7;
/// A reason is shown wherever something waits because of it.
const LONGEST_REASON: usize = 200;

/// What there is to name.
pub(super) struct Known<'f> {
    /// The hosts, unless they have mistakes.
    pub(super) hosts: Option<&'f BTreeMap<HostName, Host>>,
    /// The applications.
    pub(super) apps: &'f BTreeMap<AppName, Application>,
    /// Those that have mistakes, so that what they name is not all that they mean to.
    pub(super) faulty: BTreeSet<&'f AppName>,
    /// Whether a folder has mistakes that would be an application.
    pub(super) has_strangers: bool,
}

/// Reads a list, of which each item says one thing.
pub(super) fn items<T>(
    page: &mut Page<'_>,
    node: &Node,
    what: &str,
    mut read: impl FnMut(&mut Page<'_>, &Node) -> Option<T>,
) -> Vec<T> {
    let items = page.list(node, what).unwrap_or_default();
    if let Some(first) = items.get(MOST) {
        page.error("rollout-list", first.extent, format!("{what} has at most {MOST} items"))
            .help("remove those that no longer matter; git keeps them");
    }
    items.iter().take(MOST).filter_map(|node| read(page, node)).collect()
}

/// Reads a freeze.
pub(super) fn freeze(page: &mut Page<'_>, node: &Node, known: &Known<'_>) -> Option<Freeze> {
    let form = Form {
        rule: "freeze",
        at: node.extent,
        help: "write { from: 2026-12-20, to: 2027-01-03, zone: Europe/Berlin, where: { environment: prod }, reason: \"…\" }",
    };
    let mut table = page.table(node, "a freeze")?;
    let before = page.errors();
    let zone = table.take("zone").and_then(|(_, node)| zone(page, node)).or_else(|| Zone::parse("UTC"))?;
    let from = form.take(page, &mut table, "from", "this freeze has no `from`");
    let from = from.and_then(|node| moment(page, node, "`from`", &zone, Day::Begins));
    let to = form.take(page, &mut table, "to", "this freeze has no `to`: it would never end");
    let to = to.and_then(|node| Some((moment(page, node, "`to`", &zone, Day::Ends)?, node.extent)));
    let place = table.take("where").and_then(|(_, node)| place::rule(page, node, "`where`", known.hosts));
    let apps = table.take("apps").map(|(_, node)| {
        if is_empty_list(node) {
            page.error("freeze", node.extent, "this freeze is for no application")
                .help("name some, or remove `apps` when it is for all of them");
        }
        items(page, node, "`apps`", |page, node| app(page, node, known)).into_iter().collect()
    });
    let reason = form.reason(page, &mut table);
    table.finish(page, "a freeze");
    let (from, (to, extent)) = (from?, to?);
    if to <= from {
        page.error("freeze", extent, "this freeze ends before it begins")
            .help("days count as a whole: a freeze of one day has it as `from` and as `to`");
    }
    let freeze =
        Freeze { from, to, place: place.unwrap_or(Place::All), apps: apps.unwrap_or_default(), reason: reason? };
    // One that could be read in part would freeze more than is meant, or less.
    (page.errors() == before).then_some(freeze)
}

/// Reads a hold.
pub(super) fn held(page: &mut Page<'_>, node: &Node, known: &Known<'_>) -> Option<Held> {
    let form = Form {
        rule: "hold",
        at: node.extent,
        help: "write { app: mqtt, reason: \"incident 42\" }; `app: all` holds every application",
    };
    let mut table = page.table(node, "a hold")?;
    let before = page.errors();
    let app = form.app(page, &mut table, known);
    let place = table.take("where").and_then(|(_, node)| place::rule(page, node, "`where`", known.hosts));
    let reason = form.reason(page, &mut table);
    table.finish(page, "a hold");
    let held = Held { app, place: place.unwrap_or(Place::All), reason: reason? };
    (page.errors() == before).then_some(held)
}

/// Reads an override.
pub(super) fn an_override(page: &mut Page<'_>, node: &Node, known: &Known<'_>) -> Option<Override> {
    let form = Form {
        rule: "override",
        at: node.extent,
        help: "write { commit: \"1f2e3d4\", app: mqtt, ignore: [windows, freezes], reason: \"…\", until: 2026-12-24T18:00:00Z }",
    };
    let mut table = page.table(node, "an override")?;
    let before = page.errors();
    let commit = form.take(page, &mut table, "commit", "this override names no commit");
    let commit = commit.and_then(|node| commit_of(page, node));
    let app = form.app(page, &mut table, known);
    let ignore = form.take(page, &mut table, "ignore", "this override has no `ignore`: it would change nothing");
    let ignore = ignore.map(|node| {
        if is_empty_list(node) {
            page.error("override", node.extent, "this override ignores nothing").help(form.help);
        }
        items(page, node, "`ignore`", |page, node| page.choice(node, "an item of `ignore`", &RULES))
    });
    let until = form.take(page, &mut table, "until", "this override has no `until`: it would hold for good");
    let until = until.and_then(|node| moment(page, node, "`until`", &Zone::parse("UTC")?, Day::Ends));
    let reason = form.reason(page, &mut table);
    table.finish(page, "an override");
    let ignore = BTreeSet::from_iter(ignore?);
    let read = Override { commit: commit?, app, ignore, reason: reason?, until: until? };
    (page.errors() == before).then_some(read)
}

/// How an item is written, for whoever left something out.
struct Form {
    rule: &'static str,
    at: Extent,
    help: &'static str,
}

impl Form {
    /// Hands out the value of a key that has to be there.
    fn take<'n>(
        &self,
        page: &mut Page<'_>,
        table: &mut Table<'n>,
        key: &'static str,
        message: &str,
    ) -> Option<&'n Node> {
        let found = table.take(key);
        if found.is_none() && !table.has_misspelt(key) {
            page.error(self.rule, self.at, message).help(self.help);
        }
        found.map(|(_, node)| node)
    }

    fn reason(&self, page: &mut Page<'_>, table: &mut Table<'_>) -> Option<String> {
        let node = self.take(page, table, "reason", &format!("this {} gives no reason", self.rule))?;
        let text = page.text(node, "`reason`")?.trim();
        if text.is_empty() {
            page.error(self.rule, node.extent, "the reason is empty").help(self.help);
            return None;
        }
        if text.chars().any(char::is_control) || text.chars().count() > LONGEST_REASON {
            page.error(self.rule, node.extent, format!("a reason is one line of at most {LONGEST_REASON} characters"))
                .help("say it in short: it is shown wherever something waits; the commit's message has room for more");
            return None;
        }
        Some(text.to_owned())
    }

    /// Reads `app`: a name, or `None` for `all` and for what has been complained about.
    fn app(&self, page: &mut Page<'_>, table: &mut Table<'_>, known: &Known<'_>) -> Option<AppName> {
        let node = self.take(page, table, "app", &format!("this {} names no application", self.rule))?;
        match &node.kind {
            Kind::Scalar { text, .. } if text == "all" => None,
            _ => app(page, node, known),
        }
    }
}

fn is_empty_list(node: &Node) -> bool {
    matches!(&node.kind, Kind::Sequence(items) if items.is_empty())
}

fn commit_of(page: &mut Page<'_>, node: &Node) -> Option<String> {
    let text = page.as_written(node, "`commit`")?;
    let is_hex = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex && (LEAST_DIGITS..=64).contains(&text.len()) {
        return Some(text.to_ascii_lowercase());
    }
    let message = match is_hex && text.len() < LEAST_DIGITS {
        true => format!("`{}` is too short to mean one commit alone", shown(text)),
        false => format!("`{}` is not a commit", shown(text)),
    };
    page.error("override", node.extent, message)
        .help(format!("write at least {LEAST_DIGITS} of its hex digits, as `git log --oneline` shows them"));
    None
}

fn app(page: &mut Page<'_>, node: &Node, known: &Known<'_>) -> Option<AppName> {
    let text = page.text(node, "an application")?;
    let name = page.name("app-name", node.extent, "an application's name", AppName::parse(text))?;
    if !known.apps.contains_key(&name) && !known.has_strangers {
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
        bad_zone(page, node.extent, BadWindow::zone(text));
    }
    zone
}

/// Complains about a window or a zone, with the zone that was most likely meant.
pub(super) fn bad_zone(page: &mut Page<'_>, extent: Extent, bad: BadWindow) {
    let near = bad.zone.as_deref().and_then(|zone| nearest_zone(page, zone));
    page.error("rollout-window", extent, bad.message).help(near.unwrap_or(bad.help));
}

/// Finds the zone that was most likely meant: a city alone means the one that it is in.
fn nearest_zone(page: &Page<'_>, zone: &str) -> Option<String> {
    let city = |name: &&str| name.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(zone));
    let mut cities = Zone::names().filter(city);
    cities.next().filter(|_| cities.next().is_none()).or_else(|| page.near(zone, Zone::names())).map(did_you_mean)
}

/// What a day stands for that is written without a time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Day {
    /// Its first moment.
    Begins,
    /// The first moment after it.
    Ends,
}

/// Reads a day, a time of day in `zone`, or a moment with its own offset.
fn moment(page: &mut Page<'_>, node: &Node, what: &str, zone: &Zone, day: Day) -> Option<Timestamp> {
    let text = page.as_written(node, what)?;
    // A moment says its offset; jiff would take a date alone for no moment at all.
    let found = text.parse::<Timestamp>().ok().or_else(|| {
        if let Some(date) = text.parse::<Date>().ok().filter(|_| text.len() == "2026-12-20".len()) {
            let date = if day == Day::Ends { date.checked_add(Span::new().days(1)).ok()? } else { date };
            return zone.first(date.to_datetime(jiff::civil::Time::midnight()));
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
