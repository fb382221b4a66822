//! What templates are given: the host, its variables, and what they belong to.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::Value;
use serde_json::Value as Json;

use super::endpoints::{Endpoints, Found};
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
    /// Where endpoints are found in each environment.
    pub(super) endpoints: BTreeMap<Option<String>, Arc<Found>>,
    /// Who offers endpoints, wherever they are placed.
    pub(super) offered: Arc<BTreeMap<String, AppName>>,
}

/// Collects the variables that hold on a host.
///
/// They are replaced as a whole, key by key: those of the application by those of the environment, both by the host's.
pub(super) fn vars(setting: &Setting<'_>, app_vars: &BTreeMap<String, Json>, host: &Host) -> BTreeMap<String, Json> {
    let environment = host.environment.as_ref().and_then(|name| setting.environments.get(name));
    let mut vars = app_vars.clone();
    vars.extend(environment.iter().flat_map(|environment| environment.vars.clone()));
    vars.extend(host.vars.clone());
    vars
}

/// Collects what the templates of `app` are given on the host called `name`.
pub(super) fn of(
    setting: &Setting<'_>,
    app: &AppName,
    app_vars: &BTreeMap<String, Json>,
    name: &HostName,
    host: &Host,
) -> Value {
    let vars = vars(setting, app_vars, host);
    let labels: BTreeMap<String, Value> =
        host.labels.iter().map(|(label, value)| (label.clone(), Value::from(value))).collect();
    let endpoints = Endpoints {
        found: setting.endpoints.get(&host.environment).cloned(),
        host: name.clone(),
        environment: host.environment.clone(),
        offered: setting.offered.clone(),
    };
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
        ("endpoints", Value::from_object(endpoints)),
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
