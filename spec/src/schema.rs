//! JSON Schemas of what authors write, for editors: keys are completed, and hovering over one says what it is for.
//!
//! The reader in [`crate::manifest`] decides what is right and has the better words for what is wrong. A schema that knows less
//! would underline what is right, so a test holds each table of keys here to what the reader says that it knows.

mod fleet;
mod app;
mod settings;

use serde_json::{Map, Value, json};

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `fleet.yaml`.
    Fleet,
    /// `hosts/*.yaml`.
    Hosts,
    /// `apps/*/app.yaml`.
    App,
    /// `/etc/mainstay/agent.yaml` and its drop-ins.
    Settings,
}

impl Subject {
    /// All of them.
    pub const ALL: [Subject; 4] = [Subject::Fleet, Subject::Hosts, Subject::App, Subject::Settings];

    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Subject::Fleet => "fleet",
            Subject::Hosts => "hosts",
            Subject::App => "app",
            Subject::Settings => "settings",
        }
    }

    /// Finds one by its name.
    pub fn parse(text: &str) -> Option<Subject> {
        Subject::ALL.into_iter().find(|it| it.as_str() == text)
    }

    /// Returns the files that it describes.
    pub fn files(self) -> &'static str {
        match self {
            Subject::Fleet => "fleet.yaml",
            Subject::Hosts => "hosts/*.yaml",
            Subject::App => "apps/*/app.yaml",
            Subject::Settings => "/etc/mainstay/agent.yaml",
        }
    }
}

/// Returns the schema of a file, in the draft of 2020-12.
pub fn of(subject: Subject) -> Value {
    let (schema, about) = match subject {
        Subject::Fleet => (fleet::file(), "The hosts of a fleet, their environments, and what holds for all of them."),
        Subject::Hosts => (fleet::hosts(), "More hosts, in the form of `hosts:` in fleet.yaml."),
        Subject::App => (app::file(), "What its folder alone does not say of an application. Everything is optional."),
        Subject::Settings => (settings::file(), "The settings of the agent on one host."),
    };
    let mut whole = Map::new();
    whole.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    whole.insert("title".to_owned(), subject.files().into());
    whole.insert("description".to_owned(), about.into());
    if let Value::Object(schema) = schema {
        whole.extend(schema);
    }
    Value::Object(whole)
}

/// A key, its schema, and what it is for.
type Key = (&'static str, Value, &'static str);

/// A map of known keys, each with its schema and what it is for.
fn table(keys: &[Key]) -> Value {
    let described = keys.iter().map(|(key, schema, about)| ((*key).to_owned(), about_it(schema.clone(), about)));
    json!({ "type": "object", "additionalProperties": false, "properties": Map::from_iter(described) })
}

/// The same, of which some keys have to be there.
fn table_with(required: &[&str], keys: &[Key]) -> Value {
    with(table(keys), "required", required.to_vec().into())
}

/// A map from names that the author chooses.
fn map(value: Value) -> Value {
    with(json!({ "type": "object" }), "additionalProperties", value)
}

fn list(item: Value) -> Value {
    with(json!({ "type": "array" }), "items", item)
}

fn text() -> Value {
    json!({ "type": "string" })
}

/// What is read as it is written, so that quotes make no difference.
fn word() -> Value {
    json!({ "type": ["string", "number", "boolean"] })
}

fn boolean() -> Value {
    json!({ "type": "boolean" })
}

fn choice(words: &[&str]) -> Value {
    json!({ "enum": words })
}

/// A length of time. Templates may stand for one.
fn duration() -> Value {
    json!({ "type": "string", "examples": ["500ms", "30s", "5m", "1h30m"] })
}

/// Either of two.
fn either(one: Value, other: Value) -> Value {
    with(json!({}), "anyOf", Value::Array(vec![one, other]))
}

/// The same, or nothing behind the key.
fn or_nothing(schema: Value) -> Value {
    either(schema, json!({ "type": "null" }))
}

fn with(mut schema: Value, key: &str, value: Value) -> Value {
    if let Value::Object(schema) = &mut schema {
        schema.insert(key.to_owned(), value);
    }
    schema
}

fn about_it(schema: Value, about: &str) -> Value {
    with(schema, "description", about.into())
}

/// A selector, which the schema that it is part of has in its definitions.
fn place() -> Value {
    json!({ "$ref": "#/$defs/place" })
}

/// The definition of a selector.
fn place_definition() -> Value {
    let again = place();
    let label = either(text(), with(list(text()), "minItems", 1.into()));
    let labels = json!({
        "type": "object", "minProperties": 1,
        "properties": { "not": again }, "additionalProperties": label,
    });
    json!({ "anyOf": [{ "const": "all" }, labels, { "type": "array", "minItems": 1, "items": again }] })
}

/// Values for templates.
fn vars() -> Value {
    map(json!(true))
}
