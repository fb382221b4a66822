//! The template engine's errors in the words of somebody who writes templates, with what may have been meant.

use std::error::Error as _;
use std::fmt;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

use super::endpoints::{self, Endpoints};
use super::page::Extent;
use super::words::{did_you_mean, list, nearest};
use crate::id::shown;

/// A mistake in a template, and where in it.
#[derive(Clone, Debug)]
pub(super) struct Mistake {
    pub(super) rule: &'static str,
    pub(super) extent: Extent,
    pub(super) message: String,
    pub(super) help: String,
}

impl Mistake {
    /// Complains about a template as a whole.
    pub(super) fn too_large(message: &str) -> Mistake {
        let help = "look for a loop that repeats itself, or bring the file as it is".to_owned();
        Mistake { rule: "template-too-large", extent: Extent::new(0, 0), message: message.to_owned(), help }
    }

    /// Complains about a secret where everybody on the host could read it.
    pub(super) fn exposed(source: &str) -> Mistake {
        let at = source.find("secret").unwrap_or_default();
        let message = "a secret would stand where everybody on the host can read it".to_owned();
        let help =
            "print it in a file below files/, and let this one name that: EnvironmentFile=, LoadCredential= or a mount"
                .to_owned();
        let extent = Extent::new(at, (at + "secret".len()).min(source.len()));
        Mistake { rule: "sealed-place", extent, message, help }
    }

    /// Complains about a secret that is compared.
    pub(super) fn compared(at: usize) -> Mistake {
        let (rule, message, help) = Refusal::Handled.words();
        Mistake { rule, extent: Extent::new(at, at + "secret".len()), message, help }
    }

    /// Complains about a character that stands for the edge of a secret.
    pub(super) fn marked(at: usize) -> Mistake {
        let message = "the characters U+F0000 and U+F0001 cannot stand in a template".to_owned();
        let help = "remove it: no font shows it".to_owned();
        Mistake { rule: "template-character", extent: Extent::new(at, at + 4), message, help }
    }
}

/// What mainstay itself refuses while a template is rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// `secret("…")` of a name that there is not.
    NoSecret {
        /// The name.
        name: String,
        /// What was most likely meant.
        near: Option<String>,
        /// Whether there is any.
        is_any: bool,
    },
    /// A secret that is not just printed.
    Handled,
    /// A value that would begin or join a line of its own.
    LeavesLine,
    /// A value with a NUL.
    Nul,
    /// A value that has no text of its own.
    Unprintable(&'static str),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().1)
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::new(ErrorKind::InvalidOperation, "refused").with_source(refusal)
    }
}

impl Refusal {
    /// Returns the rule, the message, and what to do.
    fn words(&self) -> (&'static str, String, String) {
        let (rule, message, help) = match self {
            Refusal::NoSecret { name, near, is_any } => {
                let help = match (near, is_any) {
                    (Some(near), _) => did_you_mean(near),
                    (None, true) => "`mainstay secret list` shows those that there are".to_owned(),
                    (None, false) => "add it: `mainstay secret edit secrets/NAME.yaml`".to_owned(),
                };
                return ("secret-unknown", format!("there is no secret `{}`", shown(name)), help);
            }
            Refusal::Handled => (
                "secret-handled",
                "a secret cannot be compared or changed here: it is known on its host only",
                "print it as it is, or in base64: {{ secret(\"name\") }}, {{ secret(\"name\") | base64 }}",
            ),
            Refusal::LeavesLine => (
                "template-line",
                "this value would leave its line: it holds a line break, or ends with a backslash",
                "write one value per line, with a loop if need be: what is rendered here adds no line by itself",
            ),
            Refusal::Nul => ("template-nul", "this value holds a NUL character", "remove it"),
            Refusal::Unprintable("nothing") => {
                ("template-value", "this has no value", "give it one, or say what stands in: `| default(\"…\", true)`")
            }
            Refusal::Unprintable("a list") => {
                ("template-value", "this is a list", "say how to write it: a loop, `| join(\", \")` or `| tojson`")
            }
            Refusal::Unprintable(_) => {
                ("template-value", "this is a map", "name what is meant in it, or write `| tojson`")
            }
        };
        (rule, message.to_owned(), help.to_owned())
    }
}

/// Turns the engine's error about `source`, rendered with `scene`, into a mistake.
pub(super) fn explain(error: &Error, source: &str, scene: &Value) -> Mistake {
    let extent = place(error, source);
    let own = error.source().and_then(|source| source.downcast_ref::<Refusal>());
    if let Some(refusal) = own {
        let (rule, message, help) = refusal.words();
        return Mistake { rule, extent, message, help };
    }
    let detail = error.detail().unwrap_or_default();
    let (rule, message, help) = match error.kind() {
        ErrorKind::UndefinedError => undefined(detail, scene),
        ErrorKind::SyntaxError => syntax(detail),
        ErrorKind::OutOfFuel => (
            "template-too-large",
            "rendering takes too many steps".to_owned(),
            "look for a loop that repeats itself".to_owned(),
        ),
        ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction | ErrorKind::UnknownMethod => (
            "template-unknown",
            unknown(detail),
            "a template computes with the values it is given; it reaches no file, command or environment".to_owned(),
        ),
        _ => match subtraction(source.get(extent.start..extent.end).unwrap_or_default(), scene) {
            Some(told) => told,
            None => (
                "template-value",
                shown(&sentence(error)),
                "`mainstay render --host NAME` shows what each host is given; `| default(…)` stands in for what is missing"
                    .to_owned(),
            ),
        },
    };
    Mistake { rule, extent, message, help }
}

/// Names what the engine does not know: "filter x is unknown" of it.
fn unknown(detail: &str) -> String {
    match detail.strip_suffix(" is unknown").map(|it| it.rsplit_once(' ').unwrap_or(("", it))) {
        Some(("", name)) => format!("there is no function `{}`", shown(name)),
        Some((kind, name)) => format!("there is no {} `{}`", shown(kind), shown(name)),
        None => shown(detail),
    }
}

/// Explains a name with a `-` in it, which is a subtraction to the engine.
fn subtraction(text: &str, scene: &Value) -> Option<(&'static str, String, String)> {
    let (above, name) = text.trim().split_once('.')?;
    let (left, right) = name.split_once('-')?;
    let value = scene.get_attr(above).ok()?;
    names(&value).iter().any(|known| known == name).then(|| {
        (
            "template-undefined",
            format!(
                "`{0}.{1}` takes `{2}` from `{0}.{3}`: a `-` is a minus here",
                shown(above),
                shown(name),
                shown(right),
                shown(left)
            ),
            format!("write {}[\"{}\"]", shown(above), shown(name)),
        )
    })
}

fn sentence(error: &Error) -> String {
    let mut text = error.kind().to_string();
    if let Some(detail) = error.detail() {
        text = format!("{text}: {detail}");
    }
    match error.source() {
        Some(source) => format!("{text}: {source}"),
        None => text,
    }
}

/// Finds where the error is: what it means, or its line.
fn place(error: &Error, source: &str) -> Extent {
    if let Some(range) = error.range().filter(|range| range.start < range.end && range.end <= source.len()) {
        return Extent::new(range.start, range.end);
    }
    let Some(line) = error.line() else { return Extent::new(0, 0) };
    let start: usize = source.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let text = source[start.min(source.len())..].split('\n').next().unwrap_or_default();
    let indent = text.len() - text.trim_start().len();
    Extent::new(start + indent, start + text.trim_end().len())
}

/// Statements of the language that reach for other files, or that this engine is built without.
const ELSEWHERE: [&str; 9] = ["include", "import", "from", "extends", "block", "macro", "call", "endblock", "endmacro"];

fn syntax(detail: &str) -> (&'static str, String, String) {
    let statement = detail.strip_prefix("unknown statement ");
    if let Some(statement) = statement.filter(|statement| ELSEWHERE.contains(statement)) {
        return (
            "template-syntax",
            format!("`{statement}` is no part of these templates"),
            "each template stands alone: write the text here, or keep what differs in `vars`".to_owned(),
        );
    }
    (
        "template-syntax",
        format!("this is not a template: {}", shown(detail)),
        "each `{{` ends with `}}`, each `{%` with `%}`, and each `{% if %}` and `{% for %}` with its `{% end… %}`"
            .to_owned(),
    )
}

/// Says which name is unknown, and what there is instead.
fn undefined(detail: &str, scene: &Value) -> (&'static str, String, String) {
    const RULE: &str = "template-undefined";
    let expression = detail.split('`').nth(1).unwrap_or_default();
    let mut above = String::new();
    let mut value = scene.clone();
    for part in parts(expression) {
        let next = value.get_attr(part).unwrap_or_default();
        if next.is_undefined() {
            if let Some(message) = value.downcast_object_ref().and_then(|endpoints| elsewhere(endpoints, part)) {
                let help = "place it there, or write where it lies outside under `endpoints:` of the environment";
                return ("endpoint-nowhere", message, help.to_owned());
            }
            let known = names(&value);
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let message = match above.as_str() {
                "" => format!("`{}` is not defined", shown(part)),
                above => format!("`{above}` has no `{}`", shown(part)),
            };
            return (RULE, message, suggestion(part, &above, &known));
        }
        above = if above.is_empty() { part.to_owned() } else { format!("{above}.{part}") };
        value = next;
    }
    let what = if expression.is_empty() { "something here".to_owned() } else { format!("`{}`", shown(expression)) };
    (RULE, format!("{what} is not defined"), "write what stands in where there is none: `| default(\"…\")`".to_owned())
}

/// Says of an endpoint that somebody offers why it is not found here.
fn elsewhere(endpoints: &Endpoints, name: &str) -> Option<String> {
    let app = endpoints.offered.get(name)?;
    let here = match &endpoints.environment {
        Some(environment) => format!("no host of environment `{environment}`"),
        None => "no host without an environment".to_owned(),
    };
    Some(format!("endpoint `{name}` leads nowhere: `{app}` offers it, and is placed on {here}"))
}

fn suggestion(part: &str, above: &str, known: &[&str]) -> String {
    const MOST_LISTED: usize = 12;
    let whole = |name: &str| if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") };
    if let Some(near) = nearest(part, known.iter().copied()) {
        return did_you_mean(&whole(near));
    }
    match (known.len(), above) {
        (0, "vars") => "give it a value in `vars:` of app.yaml, of an environment or of the host".to_owned(),
        (0, "endpoints") => {
            "offer it with `endpoints:` in the app.yaml of an application, or of an environment".to_owned()
        }
        (0, _) => String::new(),
        (1..=MOST_LISTED, "") => format!("templates know {}", list(known)),
        (1..=MOST_LISTED, _) => format!("`{above}` has {}", list(known)),
        _ => format!("`{above}` has {} and {} more", list(&known[..MOST_LISTED]), known.len() - MOST_LISTED),
    }
}

/// Splits `vars.list[0].name` or `vars["a b"]` into its names.
fn parts(expression: &str) -> impl Iterator<Item = &str> {
    expression.split(['.', '[', ']']).map(|part| part.trim_matches(['"', '\''])).filter(|part| !part.is_empty())
}

fn names(value: &Value) -> Vec<String> {
    if value.kind() == ValueKind::Plain {
        return endpoints::PARTS.map(str::to_owned).to_vec();
    }
    if value.kind() != ValueKind::Map {
        return Vec::new();
    }
    let keys = value.try_iter().into_iter().flatten();
    keys.filter_map(|key| key.as_str().map(str::to_owned)).collect()
}
