//! Reads files of settings: every mistake in all of them at once, each with its place.

use std::collections::BTreeSet;

use super::decode::Table;
use super::page::Page;
use super::yaml::{self, Node};
use crate::diagnostic::Diagnostic;
use crate::settings::{KEYS, Key, Kind, Origin, Settings, Value};

/// Reads files, each with its path and text; what a later one says counts more.
///
/// # Errors
/// Every mistake in them.
pub fn settings<'f>(files: impl IntoIterator<Item = (&'f str, &'f str)>) -> Result<Settings, Vec<Diagnostic>> {
    let (mut settings, mut diagnostics) = (Settings::default(), Vec::new());
    for (path, text) in files {
        let mut page = Page::new(path, text);
        read(&mut page, &mut settings);
        page.close(&mut diagnostics);
    }
    if diagnostics.iter().any(Diagnostic::is_error) { Err(diagnostics) } else { Ok(settings) }
}

fn read(page: &mut Page<'_>, settings: &mut Settings) {
    let Some(root) = yaml::read(page).filter(|root| !root.is_null()) else { return };
    let Some(mut table) = page.table(&root, "the file") else { return };
    let mut done = BTreeSet::new();
    for key in KEYS {
        let (group, _) = key.parts();
        if group.is_empty() {
            take(page, &mut table, key, settings);
        } else if done.insert(group) {
            let Some((_, node)) = table.take(group) else { continue };
            let Some(mut within) = page.table(node, &format!("`{group}`")) else { continue };
            for key in KEYS.iter().filter(|key| key.parts().0 == group) {
                take(page, &mut within, key, settings);
            }
            within.finish(page, &format!("`{group}`"));
        }
    }
    table.finish(page, "a file of settings");
}

fn take(page: &mut Page<'_>, table: &mut Table<'_>, key: &Key, settings: &mut Settings) {
    let (_, name) = key.parts();
    let Some((place, node)) = table.take(name) else { return };
    let what = format!("`{}`", key.path);
    if key.is_list() {
        take_list(page, node, key, settings, Origin::File(page.at(place.extent)));
        return;
    }
    if key.kind == Kind::Boolean && page.boolean(node, &what).is_none() {
        return;
    }
    let Some(text) = page.as_written(node, &what) else { return };
    match key.read(text) {
        Ok(value) => settings.set(key, value, Origin::File(page.at(place.extent))),
        Err((wrong, help)) => {
            page.error("setting", node.extent, format!("{what}: {wrong}")).help(help);
        }
    }
}

fn take_list(page: &mut Page<'_>, node: &Node, key: &Key, settings: &mut Settings, origin: Origin) {
    let what = format!("`{}`", key.path);
    let Some(items) = page.list(node, &what) else { return };
    let mut all = Vec::new();
    for item in items {
        let Some(text) = page.as_written(item, &format!("an entry of {what}")) else { continue };
        match key.read(text) {
            Ok(Value::Texts(texts)) => all.extend(texts),
            Ok(_) => {}
            Err((wrong, help)) => {
                page.error("setting", item.extent, format!("{what}: {wrong}")).help(help);
            }
        }
    }
    settings.set(key, Value::Texts(all), origin);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::example;

    #[test]
    fn the_last_file_counts_and_each_value_knows_where_it_stands() {
        let first = "repository: ssh://git@forge/srv/fleet.git\npoll: 30s\nreport: { push: false }\n";
        let second = "# nothing else\npoll: 10s\nreport:\n  heartbeat: 2h\n";
        let settings = settings([("agent.yaml", first), ("agent.d/10.yaml", second)]).expect("settings");
        let origin = |path: &str| match settings.get(path) {
            Some((_, Origin::File(place))) => place.to_string(),
            found => format!("{found:?}"),
        };
        assert_eq!(settings.text("repository"), Some("ssh://git@forge/srv/fleet.git"));
        assert_eq!((settings.duration("poll").as_secs(), origin("poll").as_str()), (10, "agent.d/10.yaml:2:1"));
        assert_eq!((settings.is_on("report.push"), origin("report.push").as_str()), (false, "agent.yaml:3:11"));
        assert_eq!(settings.duration("report.heartbeat").as_secs(), 7200);
        assert_eq!(settings.get("settle").map(|(_, origin)| origin), Some(&Origin::Default));
    }

    #[test]
    fn all_mistakes_of_all_files_are_told_at_once() {
        let first = "repositry: x\npoll: 30\ngit: { conect: 1s, key: id }\nbranch: a\nbranch: b\n";
        let mistakes = settings([("agent.yaml", first), ("10.yaml", "report: { push: maybe }\nhost:\n")]);
        let told: Vec<String> = mistakes.expect_err("mistakes").iter().map(ToString::to_string).collect();
        for (place, wrong) in [
            ("agent.yaml:1:1", "did you mean `repository`"),
            ("agent.yaml:2:7", "no length of time"),
            ("agent.yaml:3:8", "did you mean `connect`"),
            ("agent.yaml:3:25", "no absolute path"),
            ("agent.yaml:5:1", "branch"),
            ("10.yaml:1:17", "`true` or `false`"),
            ("10.yaml:2:1", "no value"),
        ] {
            assert!(told.iter().any(|it| it.starts_with(place) && it.contains(wrong)), "{place} {wrong}: {told:#?}");
        }
        assert_eq!(told.len(), 7, "{told:#?}");
    }

    #[test]
    fn lists_are_read_and_each_of_their_mistakes_is_told() {
        let read = |text| settings([("agent.yaml", text)]);
        let sound = read("endpoint: { listen: [\"127.0.0.1:9105\", \"[::1]:9105\"], names: [] }\n").expect("settings");
        assert_eq!(sound.texts("endpoint.listen"), ["127.0.0.1:9105", "[::1]:9105"]);
        assert!(sound.texts("endpoint.names").is_empty());
        let mistakes = read("endpoint:\n  listen: [9105, \"127.0.0.1:9105\", \"::1\"]\n  names: attic\n");
        let told: Vec<String> = mistakes.expect_err("mistakes").iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 3, "{told:#?}");
        for (place, wrong) in [("2:12", "no address"), ("2:36", "no address"), ("3:10", "a list")] {
            let place = format!("agent.yaml:{place}");
            assert!(told.iter().any(|it| it.starts_with(&place) && it.contains(wrong)), "{place} {wrong}: {told:#?}");
        }
    }

    #[test]
    fn the_example_is_sound_with_its_signs_taken_off() {
        assert_eq!(settings([("example", example().as_str())]), Ok(Settings::default()));
        // A group of which nothing has a value would be a group without a value.
        let has_values = |group: &str| KEYS.iter().any(|key| key.parts().0 == group && !key.default.is_empty());
        let is_group = |line: &str| line.strip_suffix(':').is_some_and(|group| has_values(&group[1..]));
        let is_value = |line: &str| line.contains(": ") && !line.ends_with('.') && !line.ends_with('…');
        let is_key = |line: &&str| is_group(line) || is_value(line);
        let bare: String = example().lines().filter(is_key).map(|line| format!("{}\n", &line[1..])).collect();
        let read = settings([("example", bare.as_str())]).unwrap_or_else(|told| panic!("{told:#?}\n{bare}"));
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            let (value, origin) = read.get(key.path).expect("a value");
            assert_eq!((key.spell(value).as_str(), origin == &Origin::Default), (key.default, false), "{bare}");
        }
    }
}
