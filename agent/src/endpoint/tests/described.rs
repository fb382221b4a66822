//! Holds the description true: what it lists answers, what answers is listed, and answers have the fields that it says and no others.

use std::sync::LazyLock;

use serde_json::{Value, json};
use spec::digest::Digest;
use spec::id::{AppName, CommitId, ContainerName};
use spec::memory::AppState;
use spec::trust::{Standing, Trust};

use super::*;
use crate::history::annotations::annotations;
use crate::history::{Entry, Event};
use crate::snapshot::{App, Bad, Change, Condition, Endpoint, PlanView, Refused, Release, StepView};

fn description() -> &'static Value {
    static READ: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(DESCRIPTION).expect("it is JSON"));
    &READ
}

/// Says where a value is not what a schema says. Of the standard, so much as the description uses; what else it uses fails.
fn check(schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    let root = description();
    let fields = schema.as_object().expect("a schema is an object");
    if let Some(name) = fields.get("$ref").and_then(Value::as_str) {
        return check(root.pointer(&name[1..]).unwrap_or_else(|| panic!("{name} is not there")), value, at, wrong);
    }
    if let Some(choices) = fields.get("anyOf").and_then(Value::as_array) {
        let fits = |choice: &Value| {
            let mut wrong = Vec::new();
            check(choice, value, at, &mut wrong);
            wrong
        };
        let tried: Vec<Vec<String>> = choices.iter().map(fits).collect();
        if tried.iter().all(|wrong| !wrong.is_empty()) {
            wrong.extend(tried.into_iter().flatten());
        }
        return;
    }
    for key in fields.keys() {
        let known =
            ["type", "description", "additionalProperties", "required", "properties", "items", "enum", "format"];
        assert!(known.contains(&key.as_str()), "{at}: `{key}` is not understood here");
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let allowed = match &fields["type"] {
        Value::Array(kinds) => kinds.iter().any(|it| it == kind),
        only => only == kind,
    };
    if !allowed {
        wrong.push(format!("{at} is {kind}, and {} is said", fields["type"]));
        return;
    }
    if fields.get("enum").and_then(Value::as_array).is_some_and(|known| !known.contains(value)) {
        wrong.push(format!("{at} is {value}"));
    }
    match value {
        Value::String(text) if schema["format"] == "date-time" && text.parse::<jiff::Timestamp>().is_err() => {
            wrong.push(format!("{at} is no time: {text}"));
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(number, item)| check(&schema["items"], item, &format!("{at}[{number}]"), wrong));
        }
        Value::Object(given) => {
            let none = serde_json::Map::new();
            let known = fields.get("properties").and_then(Value::as_object).unwrap_or(&none);
            for name in fields.get("required").and_then(Value::as_array).into_iter().flatten() {
                if !given.contains_key(name.as_str().unwrap_or_default()) {
                    wrong.push(format!("{at} lacks {name}"));
                }
            }
            for (name, value) in given {
                let at = format!("{at}.{name}");
                match (known.get(name), fields.get("additionalProperties")) {
                    (Some(schema), _) => check(schema, value, &at, wrong),
                    (None, Some(rest @ Value::Object(_))) => check(rest, value, &at, wrong),
                    (None, Some(Value::Bool(false))) => wrong.push(format!("{at} is not described")),
                    (None, _) => {}
                }
            }
        }
        _ => {}
    }
}

#[track_caller]
fn fits(name: &str, value: &Value) {
    let mut wrong = Vec::new();
    check(&json!({ "$ref": format!("#/components/schemas/{name}") }), value, name, &mut wrong);
    assert!(wrong.is_empty(), "{wrong:#?}\n{value:#}");
}

/// A picture in which nothing is left out.
fn everything() -> Snapshot {
    let host = HostName::parse("attic").expect("a name");
    let repository = Repository { url: Some("ssh://git@forge/fleet.git".to_owned()), branch: "main".to_owned() };
    let mut snapshot = Snapshot::first(host, repository);
    let (at, id) = (snapshot.at, CommitId::parse(&"1f".repeat(20)).expect("a commit"));
    let (text, name) = (|| "words".to_owned(), AppName::parse("web").expect("a name"));
    let release = Release { id: id.clone(), subject: Some(text()), author: Some(text()), committed: Some(at) };
    let step = || StepView { app: Some(name.clone()), verb: "write", object: text(), why: text() };
    let bad = Bad { commit: Some(id.clone()), digest: Digest::of(b"x"), since: at, stuck: true };
    let app = App {
        state: AppState::Failed,
        since: at,
        commit: Some(release.clone()),
        from: Some(id.clone()),
        digest: Digest::of(b"x"),
        changes: 1,
        images: [(ContainerName::parse("web").expect("a name"), text())].into(),
        trouble: Some(text()),
        failures: 1,
        again_at: Some(at),
        bad: Some(bad),
    };
    let plan = plan(&name, &id);
    let differences = plan.differences.clone();
    let change =
        Change { at, commit: Some(id.clone()), steps: vec![step()], more: 1, failed: vec![name.clone()], differences };
    snapshot.fleet = Some(text());
    snapshot.commit = Some(release);
    (snapshot.ready, snapshot.condition) = (true, Condition::Unconverged);
    snapshot.apps.insert(name, app);
    snapshot.refused = Some(Refused { commit: id, why: text() });
    (snapshot.unreachable, snapshot.unreported) = (Some(text()), Some(text()));
    let trust = Trust { max_age: Some(Duration::from_secs(60)), ..Trust::default() };
    (snapshot.trust, snapshot.stale) = (Some(Standing::of(&trust, at)), Some(text()));
    snapshot.plan = plan;
    snapshot.changes.push(Arc::new(change));
    snapshot.endpoints = Arc::new([("web".to_owned(), Endpoint { url: text(), all: vec![text()] })].into());
    snapshot
}

/// A plan that says everything that a plan can say.
fn plan(app: &AppName, commit: &CommitId) -> PlanView {
    use spec::desired::{HeldBack, Hold};
    use spec::id::{HostPath, ResourceId, UnitName};
    use spec::plan::{Action, Conflict, Held, Keep, Note, Plan, Step, Unknown, Why};
    let (app, why) = (app.clone(), || "words".to_owned());
    let path = HostPath::parse("/etc/web").expect("a path");
    let resource = ResourceId::File(path.clone());
    let step = |app| Step { app, action: Action::ReloadSystemd, why: Why::Unwanted, reads: Default::default() };
    let held =
        |why| HeldBack { why, wanted: Some(Digest::of(b"x")), commit: Some(commit.clone()), is_untouched: false };
    let unit = UnitName::parse("web.service").expect("a name");
    let holds = [Hold::Bad, Hold::Stuck(why()), Hold::Waits(why())];
    let names = ["a", "b", "c"].map(|name| AppName::parse(name).expect("a name"));
    let plan = Plan {
        steps: vec![step(Some(app.clone())), step(None)],
        conflicts: vec![Conflict { app: app.clone(), resource: resource.clone(), why: why() }],
        drift: vec![step(Some(app.clone()))],
        contested: [(ResourceId::Unit(unit), app.clone())].into(),
        unknown: vec![Unknown { app: app.clone(), resource: resource.clone(), why: why() }],
        waiting: [(app.clone(), jiff::Timestamp::UNIX_EPOCH)].into(),
        held_back: names.into_iter().zip(holds.map(held)).collect(),
        held: Some(Held { digest: why(), removals: vec![resource.clone()], owned: 2 }),
        keeps: [(path.clone(), Keep::Edited)].into(),
        notes: vec![Note { app, resource, text: why() }],
        ..Plan::default()
    };
    PlanView::of(&plan).with([crate::difference::Difference { path, text: why() }])
}

#[tokio::test]
async fn what_is_described_answers_as_it_is_described() {
    let host = HostName::parse("attic").expect("a name");
    let nothing = Snapshot::first(host, Repository { url: None, branch: "main".to_owned() });
    for snapshot in [nothing, everything()] {
        let open = open_with(None, snapshot).await;
        for (path, methods) in description()["paths"].as_object().expect("paths") {
            let (method, about) = methods.as_object().expect("methods").iter().next().expect("one");
            let answer = open.begin(&method.to_uppercase(), &path.replace("{app}", "web")).await;
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            let status = head.split(' ').nth(1).expect("a status");
            let content = about["responses"][status]["content"].as_object();
            let content = content.unwrap_or_else(|| panic!("{path}: {status} is not described"));
            let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).expect("a type");
            let kind = kind.split(';').next().expect("a type");
            let described = content.get(kind).unwrap_or_else(|| panic!("{path}: {kind} is not described"));
            if kind == "application/json" {
                let mut wrong = Vec::new();
                let value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"));
                check(&described["schema"], &value, path, &mut wrong);
                assert!(wrong.is_empty(), "{wrong:#?}\n{value:#}");
            }
        }
    }
}

#[test]
fn what_can_be_asked_is_described() {
    let description = description();
    let paths = description["paths"].as_object().expect("paths");
    let literals =
        include_str!("../route.rs").lines().filter_map(|line| line.trim().strip_prefix('"')?.split_once("\" =>"));
    let listed: Vec<&str> = literals.map(|(path, _)| path).collect();
    assert!(listed.len() > 15, "{listed:?}");
    for path in &listed {
        assert!(paths.contains_key(*path), "{path} is not described");
    }
    assert_eq!(paths.len(), listed.len() + 1, "and /v1/apps/{{app}}");
}

#[test]
fn all_that_can_be_told_is_described() {
    let full: Value = serde_json::from_str(&everything().text(Detail::Full)).expect("JSON");
    fits("Status", &full);
    let at = jiff::Timestamp::UNIX_EPOCH;
    let id = CommitId::parse(&"1f".repeat(20)).expect("a commit");
    let app = AppName::parse("web").expect("a name");
    let commit = Release { id: id.clone(), subject: Some("words".to_owned()), author: None, committed: Some(at) };
    let (from, runs, took_seconds, failure) = (Some(id.clone()), Some(id), Some(3), Some("words".to_owned()));
    let entry = Entry { at, app, state: "removed", commit, from, runs, took_seconds, failure };
    fits("History", &json!({ "history": [&entry] }));
    let event = Event { host: HostName::parse("attic").expect("a name"), entry };
    fits("Annotations", &json!(annotations(&[event])));
    // And the checker notices what is missing, too much, or of another kind.
    for (pointer, value) in
        [("/agent/more", json!(1)), ("/condition", json!("well")), ("/apps/web/since", json!("now"))]
    {
        let mut off = full.clone();
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        off.pointer_mut(parent).expect("it is there")[name] = value;
        let mut wrong = Vec::new();
        check(&json!({ "$ref": "#/components/schemas/Status" }), &off, "Status", &mut wrong);
        assert_eq!(wrong.len(), 1, "{pointer}: {wrong:?}");
    }
}
