//! What templates are given: the host, its variables, and what they belong to.

use std::collections::BTreeMap;

use minijinja::Value;
use serde_json::Value as Json;

use super::model::{Environment, Host};
use crate::id::{AppName, HostName};

/// What is the same for every host and application.
pub(super) struct Setting<'f> {
    /// The fleet's name.
    pub(super) fleet: &'f str,
    /// The commit, or `local` for a folder in hand.
    pub(super) commit: &'f str,
    /// The environments.
    pub(super) environments: &'f BTreeMap<String, Environment>,
}

/// Collects what the templates of `app` are given on the host called `name`.
///
/// Variables are replaced as a whole, key by key: those of the application by those of the environment, both by the host's.
pub(super) fn of(
    setting: &Setting<'_>,
    app: &AppName,
    app_vars: &BTreeMap<String, Json>,
    name: &HostName,
    host: &Host,
) -> Value {
    let environment = host.environment.as_ref().and_then(|name| setting.environments.get(name));
    let mut vars = app_vars.clone();
    vars.extend(environment.iter().flat_map(|environment| environment.vars.clone()));
    vars.extend(host.vars.clone());
    let labels: BTreeMap<String, Value> =
        host.labels.iter().map(|(label, value)| (label.clone(), Value::from(value))).collect();
    let text = |text: &Option<String>| text.as_ref().map_or(Value::from(()), Value::from);
    let host = BTreeMap::from([
        ("name", Value::from(name.as_str())),
        ("address", text(&host.address)),
        ("environment", text(&host.environment)),
        ("labels", Value::from(labels)),
    ]);
    Value::from(BTreeMap::from([
        ("host", Value::from(host)),
        ("vars", vars.iter().map(|(name, value)| (name.clone(), of_json(value))).collect::<BTreeMap<_, _>>().into()),
        ("commit", Value::from(setting.commit)),
        ("fleet", Value::from(setting.fleet)),
        ("app", Value::from(app.as_str())),
    ]))
}

fn of_json(value: &Json) -> Value {
    match value {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => Value::from(number),
            (None, Some(number), _) => Value::from(number),
            (None, None, number) => Value::from(number.unwrap_or_default()),
        },
        Json::String(text) => Value::from(text),
        Json::Array(items) => items.iter().map(of_json).collect::<Vec<_>>().into(),
        Json::Object(entries) => {
            entries.iter().map(|(name, value)| (name.clone(), of_json(value))).collect::<BTreeMap<_, _>>().into()
        }
    }
}
