//! The agent's settings, out of the table by which they are read.

use serde_json::{Map, Value, json};

use super::{about_it, boolean, choice, duration, list, or_nothing, text, with, word};
use crate::settings::{EVENTS, KEYS, Key, Kind};

/// The whole file: an empty one changes nothing.
pub(super) fn file() -> Value {
    let mut groups: Map<String, Value> = Map::new();
    for key in KEYS {
        let (group, name) = key.parts();
        let schema = described(key);
        if group.is_empty() {
            groups.insert(name.to_owned(), schema);
            continue;
        }
        let within = groups.entry(group).or_insert_with(|| {
            json!({ "type": "object", "additionalProperties": false, "properties": {}, "description": about(group) })
        });
        if let Some(Value::Object(keys)) = within.get_mut("properties") {
            keys.insert(name.to_owned(), schema);
        }
    }
    or_nothing(json!({ "type": "object", "additionalProperties": false, "properties": groups }))
}

fn about(group: &str) -> &'static str {
    match group {
        "git" => "How the repository is reached.",
        "report" => "How records of this host get to others.",
        "backups" => "What is kept of what others wrote.",
        "endpoint" => "Where the agent answers.",
        "alerts" => "Who is told when a person is needed.",
        "trust" => "Whom to believe, before the repository itself says so.",
        _ => "Settings.",
    }
}

fn described(key: &Key) -> Value {
    let schema = match key.kind {
        Kind::Text | Kind::Host | Kind::Commit | Kind::Count(..) | Kind::Size(..) => word(),
        Kind::Path | Kind::Program => with(text(), "pattern", "^/".into()),
        Kind::Url => with(text(), "pattern", "^https?://".into()),
        Kind::Duration(..) => duration(),
        Kind::Boolean => boolean(),
        Kind::Addresses | Kind::Names => list(text()),
        Kind::Events => list(choice(&EVENTS)),
    };
    let default = match key.default {
        "" => String::new(),
        default => format!(" [default: {default}]"),
    };
    about_it(schema, &format!("{}{default}.", key.about))
}
