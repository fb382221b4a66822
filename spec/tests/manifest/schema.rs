//! The schemas for editors, held to what the reader says: each table of keys, every repository of these tests, and the examples.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;
use spec::diagnostic::Diagnostic;
use spec::manifest::Parsed;
use spec::schema::{self, Subject};
use spec::tree::{Entry, Tree};

use crate::support::{FLEET, UNIT, parse, tree};

fn validator(subject: Subject) -> &'static Validator {
    static ALL: LazyLock<Vec<Validator>> = LazyLock::new(|| {
        let sound = |subject| jsonschema::draft202012::new(&schema::of(subject)).expect("a sound schema");
        Subject::ALL.into_iter().map(sound).collect()
    });
    &ALL[Subject::ALL.into_iter().position(|it| it == subject).expect("one of them")]
}

fn subject_of(path: &str) -> Option<Subject> {
    match path {
        "fleet.yaml" => Some(Subject::Fleet),
        _ if path.starts_with("hosts/") && path.ends_with(".yaml") => Some(Subject::Hosts),
        _ if path.starts_with("apps/") && path.ends_with("/app.yaml") && !path.contains("/files/") => {
            Some(Subject::App)
        }
        _ => None,
    }
}

fn complaints(subject: Subject, text: &str) -> Option<Vec<String>> {
    // Read as the reader reads: YAML 1.2, without merge keys.
    let options = serde_yaml::options! { strict_booleans: true };
    let value: Value = serde_yaml::from_str_with_options(text, options).ok().filter(|_| !text.contains("<<:"))?;
    let complaints = validator(subject).iter_errors(&value);
    Some(complaints.map(|it| format!("{}: {it}", it.instance_path())).collect())
}

/// Compares what the schemas say of a repository with what the reader said.
pub(crate) fn hold(tree: &Tree, parsed: &Parsed) {
    for (path, entry) in &tree.entries {
        let (Some(subject), Entry::File { bytes, .. }) = (subject_of(path), entry) else { continue };
        let Some(complaints) = std::str::from_utf8(bytes).ok().and_then(|text| complaints(subject, text)) else {
            continue;
        };
        let said: Vec<&Diagnostic> =
            parsed.diagnostics.iter().filter(|it| it.is_error() && it.location.file == *path).collect();
        let text = String::from_utf8_lossy(bytes);
        assert!(!said.is_empty() || complaints.is_empty(), "{path} is right, but: {complaints:#?}\n{text}");
        let is_plain = said.iter().any(|it| ["unknown-key", "wrong-type"].contains(&it.rule));
        assert!(!is_plain || !complaints.is_empty(), "{path} is wrong, and its schema accepts it: {said:#?}\n{text}");
    }
}

/// The tables of keys: where each stands in its schema, and a file with a key in it that nobody knows.
const TABLES: &[(Subject, &str, &str)] = &[
    (Subject::Fleet, "", "fleet: home\nzzqq: 1\n"),
    (Subject::Fleet, "/properties/defaults", "fleet: home\ndefaults: { zzqq: 1 }\n"),
    (Subject::Fleet, "/properties/hosts/additionalProperties/anyOf/0", "fleet: home\nhosts: { attic: { zzqq: 1 } }\n"),
    (Subject::Fleet, "/properties/acknowledge/items", "fleet: home\nacknowledge: [{ zzqq: 1 }]\n"),
    (
        Subject::Fleet,
        "/properties/rollouts/additionalProperties",
        "fleet: home\nhosts: { a: }\nrollouts: { default: { zzqq: 1 } }\n",
    ),
    (
        Subject::Fleet,
        "/properties/rollouts/additionalProperties/properties/waves/items/anyOf/0",
        "fleet: home\nhosts: { a: }\nrollouts: { default: { waves: [{ where: all, zzqq: 1 }] } }\n",
    ),
    (
        Subject::Fleet,
        "/properties/rollouts/additionalProperties/properties/waves/items/anyOf/1",
        "fleet: home\nhosts: { a: }\nrollouts: { default: { waves: [{ share: 100%, zzqq: 1 }] } }\n",
    ),
    (Subject::Fleet, "/properties/freezes/items", "fleet: home\nhosts: { a: }\nfreezes: [{ zzqq: 1 }]\n"),
    (Subject::Fleet, "/properties/holds/items", "fleet: home\nhosts: { a: }\nholds: [{ zzqq: 1 }]\n"),
    (Subject::Fleet, "/properties/overrides/items", "fleet: home\nhosts: { a: }\noverrides: [{ zzqq: 1 }]\n"),
    (Subject::Fleet, "/properties/trust", "fleet: home\nhosts: { a: }\ntrust: { signers: keys, zzqq: 1 }\n"),
    (Subject::Fleet, "/properties/alerts/items", "fleet: home\nhosts: { a: }\nalerts: [{ zzqq: 1 }]\n"),
    (
        Subject::Fleet,
        "/properties/environments/additionalProperties/anyOf/0",
        "fleet: home\nenvironments: { prod: { zzqq: 1 } }\n",
    ),
    (
        Subject::Fleet,
        "/properties/environments/additionalProperties/anyOf/0/properties/endpoints/additionalProperties/anyOf/1",
        "fleet: home\nenvironments: { prod: { endpoints: { api: { zzqq: 1 } } } }\n",
    ),
    (Subject::Hosts, "/additionalProperties/anyOf/0", "cellar: { zzqq: 1 }\n"),
    (Subject::App, "/anyOf/0", "zzqq: 1\n"),
    (Subject::App, "/anyOf/0/properties/endpoints/additionalProperties", "endpoints: { api: { zzqq: 1 } }\n"),
    (Subject::App, "/anyOf/0/properties/user", "user: { zzqq: 1 }\n"),
    (Subject::App, "/anyOf/0/properties/units/additionalProperties", "units: { web.service: { zzqq: 1 } }\n"),
    (Subject::App, "/anyOf/0/properties/files/additionalProperties", "files: { /etc/web: { zzqq: 1 } }\n"),
    (Subject::App, "/anyOf/0/properties/artifacts/additionalProperties", "artifacts: { /opt/web: { zzqq: 1 } }\n"),
    (Subject::App, "/anyOf/0/properties/compose", "compose: { zzqq: 1 }\n"),
    (Subject::App, "/anyOf/0/properties/containers/additionalProperties", "containers: { web: { zzqq: 1 } }\n"),
    (Subject::App, "/anyOf/0/properties/checks/items/anyOf/0", "checks: [{ tcp: \"web:1\", zzqq: 1 }]\n"),
    (Subject::App, "/anyOf/0/properties/checks/items/anyOf/1", "checks: [{ http: \"http://web\", zzqq: 1 }]\n"),
    (Subject::App, "/anyOf/0/properties/checks/items/anyOf/2", "checks: [{ exec: [/bin/true], zzqq: 1 }]\n"),
    (Subject::App, "/anyOf/0/properties/checks/items/anyOf/3", "checks: [{ unit: web.service, zzqq: 1 }]\n"),
    (Subject::App, "/anyOf/0/properties/checks/items/anyOf/4", "checks: [{ container: web, zzqq: 1 }]\n"),
];

/// The kinds of checks, which the reader lists together.
const CHECKS: [&str; 5] = ["tcp", "http", "exec", "unit", "container"];

#[test]
fn each_table_knows_the_keys_that_the_reader_knows() {
    for (subject, pointer, text) in TABLES {
        let mut repository = tree(&format!("-- fleet.yaml --\n{FLEET}\n-- apps/web/web.service --\n{UNIT}"));
        let path = match subject {
            Subject::Fleet => "fleet.yaml",
            Subject::Hosts => "hosts/more.yaml",
            Subject::App | Subject::Settings => "apps/web/app.yaml",
        };
        repository.insert(path, text.as_bytes());
        let said = parse(&repository).diagnostics;
        let unknown = said.iter().find(|it| it.rule == "unknown-key" && it.message.contains("zzqq"));
        let help = unknown.map(|it| it.help.clone()).unwrap_or_else(|| panic!("{text}: {said:#?}"));
        let words = help.strip_prefix("it knows ").unwrap_or_else(|| panic!("{text}: {help}"));
        let mut known: BTreeSet<&str> = words.split('`').skip(1).step_by(2).collect();
        let whole = schema::of(*subject);
        let keys = whole.pointer(&format!("{pointer}/properties")).and_then(Value::as_object).expect(pointer);
        // The reader lists the kinds of a choice together.
        if pointer.contains("/checks/") {
            known.retain(|key| !CHECKS.contains(key) || keys.contains_key(*key));
        }
        if pointer.contains("/waves/") {
            known.retain(|key| keys.contains_key(*key));
        }
        assert_eq!(keys.keys().map(String::as_str).collect::<BTreeSet<_>>(), known, "{pointer} of {subject:?}");
    }
}

#[test]
fn no_table_is_left_out_and_each_key_says_what_it_is_for() {
    fn walk(at: &str, schema: &Value, tables: &mut BTreeSet<String>) {
        let Value::Object(keys) = schema else { return };
        let closed = keys.get("additionalProperties") == Some(&Value::Bool(false));
        if closed {
            tables.insert(at.to_owned());
        }
        for (key, value) in keys {
            let at = format!("{at}/{key}");
            match value {
                Value::Array(all) => {
                    for (index, it) in all.iter().enumerate() {
                        walk(&format!("{at}/{index}"), it, tables);
                    }
                }
                _ => walk(&at, value, tables),
            }
            if let ("properties", true, Value::Object(all)) = (key.as_str(), closed, value) {
                let bare = all.iter().find(|(_, it)| it["description"].as_str().is_none_or(str::is_empty));
                assert_eq!(bare, None, "{at}");
            }
        }
    }
    for subject in [Subject::Fleet, Subject::App] {
        let mut tables = BTreeSet::new();
        walk("", &schema::of(subject), &mut tables);
        let listed = TABLES.iter().filter(|(of, ..)| *of == subject).map(|(_, pointer, _)| (*pointer).to_owned());
        assert_eq!(tables, listed.collect(), "{subject:?}");
    }
}

#[test]
fn what_the_readers_words_are_for_is_refused_as_well() {
    for (subject, wrong) in [
        (Subject::App, "units: [web.service]"),
        (Subject::App, "units: { web.service: { enabled: \"true\" } }"),
        (Subject::App, "checks: [{ tcp: \"web:1\", http: \"http://web\" }]"),
        (Subject::App, "files: { /etc/web: { mode: 640 } }"),
        (Subject::App, "drift: fix"),
        (Subject::App, "place: attic"),
        (Subject::Fleet, "hosts: {}"),
        (Subject::Fleet, "fleet: home\nrollouts: { default: { waves: [{ share: 10 }] } }"),
        (Subject::Fleet, "fleet: home\nrollouts: { default: { on-failure: retry } }"),
        (
            Subject::Fleet,
            "fleet: home\noverrides: [{ commit: 1f2e3d4, app: all, ignore: [window], reason: x, until: 2026-12-24 }]",
        ),
        (Subject::Fleet, "fleet: home\nholds: [{ app: all }]"),
        (Subject::Settings, "endpoint: { listn: [] }"),
        (Subject::Settings, "poll: 30"),
        (Subject::Settings, "alerts: { on: [faild] }"),
    ] {
        assert!(!complaints(subject, wrong).expect("YAML").is_empty(), "{wrong}");
    }
    assert!(
        complaints(Subject::Settings, "poll: 30s\ngit: { connect: 5s }\nreport: { push: false }")
            .expect("YAML")
            .is_empty()
    );
}

#[test]
fn the_examples_are_right() {
    let examples = [
        (Subject::Fleet, include_str!("../../../examples/brokers/fleet.yaml")),
        (Subject::Fleet, include_str!("../../../examples/shop/fleet.yaml")),
        (Subject::Fleet, include_str!("../../../examples/stack/fleet.yaml")),
        (Subject::Fleet, include_str!("../../../examples/plain/fleet.yaml")),
        (Subject::App, include_str!("../../../examples/brokers/apps/page/app.yaml")),
        (Subject::App, include_str!("../../../examples/brokers/apps/mqtt/app.yaml")),
        (Subject::App, include_str!("../../../examples/brokers/apps/mqtt-farm/app.yaml")),
        (Subject::App, include_str!("../../../examples/brokers/apps/mqtt-home/app.yaml")),
        (Subject::App, include_str!("../../../examples/stack/apps/notes/app.yaml")),
        (Subject::App, include_str!("../../../examples/shop/apps/shop/app.yaml")),
        (Subject::App, include_str!("../../../examples/plain/apps/greeter/app.yaml")),
    ];
    for (subject, text) in examples {
        assert_eq!(complaints(subject, text), Some(Vec::new()), "{text}");
    }
}
