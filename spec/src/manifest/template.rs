//! Renders templates: text and values in, text or a mistake with its place out.
//!
//! A template reads nothing but the values it is given. There is no loader, no function that reaches a file, the environment,
//! a command, the clock or chance, and no way to name another template. Work and output are bounded.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Object, ObjectRepr, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, Template, UndefinedBehavior, Value};

use super::page::Extent;
use super::template_errors::{Mistake, Refusal, explain};
use super::words::nearest;
use crate::sealed::{self, Form};

/// The most steps that one rendering may take; a configuration file of a thousand lines takes a tenth of it.
const MOST_STEPS: u64 = 100_000;
/// The largest text that is rendered, and the largest template that is read.
pub(super) const MOST_BYTES: usize = 1 << 20;

/// More mistakes than this in one template are not looked for.
const MOST_MISTAKES: usize = 20;

/// What a rendered text is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Lines with a meaning each (units, quadlets, drop-ins, environment files): a value stays within its line, so that none
    /// can add a directive of its own (CVE-2018-15686, CVE-2024-3154).
    Lines,
    /// Any other text.
    Text,
}

impl Target {
    /// Says what the file called `within` in its application's folder is read as.
    pub(super) fn of(within: &str) -> Target {
        let (folder, name) = within.rsplit_once('/').unwrap_or(("", within));
        let settings = ["files/etc/default", "files/etc/sysconfig", "files/etc/environment.d"];
        let is_lines = match folder {
            // Units and quadlets, beside compose files and their environment files.
            "" => !name.ends_with(".yaml") && !name.ends_with(".yml"),
            _ if !folder.contains('/') && folder.ends_with(".d") => true,
            _ => name.ends_with(".env") || settings.contains(&folder) || within == "files/etc/environment",
        };
        if is_lines { Target::Lines } else { Target::Text }
    }

    /// The name that templates of this target carry, by which the printer knows them.
    fn name(self) -> &'static str {
        match self {
            Target::Lines => "lines",
            Target::Text => "text",
        }
    }
}

/// The engine, set up once and used for all templates.
pub(super) fn engine(secrets: Arc<BTreeSet<String>>) -> Environment<'static> {
    let mut engine = Environment::new();
    // Ansible's templates are written for both: a line that holds only a block leaves no empty line behind.
    let syntax = SyntaxConfig::builder().keep_trailing_newline(true).trim_blocks(true).lstrip_blocks(true).build();
    engine.set_syntax(syntax.expect("the delimiters are the usual ones"));
    engine.set_auto_escape_callback(|_| AutoEscape::None);
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.set_fuel(Some(MOST_STEPS));
    // Errors know which expression they mean.
    engine.set_debug(true);
    engine.remove_global("debug");
    engine.remove_global("namespace");
    engine.add_function("secret", move |name: &str| -> Result<Value, Error> {
        if secrets.contains(name) {
            return Ok(Value::from_object(Held { name: name.to_owned(), is_base64: false }));
        }
        let near = nearest(name, secrets.iter().map(String::as_str)).map(str::to_owned);
        Err(Refusal::NoSecret { name: name.to_owned(), near, is_any: !secrets.is_empty() }.into())
    });
    engine.add_filter("base64", base64);
    engine.set_formatter(print);
    engine
}

/// A value that is encrypted: all that a template can do with it is to print it.
#[derive(Debug)]
struct Held {
    name: String,
    is_base64: bool,
}

impl Object for Held {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whatever makes a text of it is refused for these marks.
        write!(f, "{}{}{}", sealed::OPEN, self.name, sealed::CLOSE)
    }
}

/// Writes a text in base64, be it known or not.
fn base64(value: &Value) -> Result<Value, Error> {
    if let Some(held) = value.downcast_object_ref::<Held>() {
        return Ok(Value::from_object(Held { name: held.name.clone(), is_base64: true }));
    }
    let text =
        value.as_str().ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "only a text is written in base64"))?;
    if text.contains(sealed::MARKS) {
        return Err(Refusal::Handled.into());
    }
    Ok(Value::from(STANDARD.encode(text)))
}

/// Finds a secret that is compared with something, or decides over what is printed: nobody who renders knows what it is.
fn compared(source: &str) -> Option<usize> {
    const CALL: &[u8] = b"secret(";
    const OPERATORS: [&[u8]; 9] = [b"==", b"!=", b"<", b">", b"in ", b"is ", b"not ", b"and ", b"or "];
    const DECIDES: [&[u8]; 7] = [b"==", b"!=", b"<", b">", b" in", b" not", b"if"];
    let bytes = source.as_bytes();
    // The next parenthesis that closes, and whether an operator follows: looked for once, however many calls are before it.
    let mut close: Option<(usize, bool)> = None;
    let (mut at, mut is_inside) = (0, false);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let step = match rest {
            [b'{', b'{' | b'%', ..] => {
                is_inside = true;
                2
            }
            [b'}' | b'%', b'}', ..] => {
                is_inside = false;
                2
            }
            _ if is_inside && rest.starts_with(CALL) => {
                let known = close.filter(|(known, _)| *known > at);
                let (_, is_compared) = *close.insert(known.unwrap_or_else(|| {
                    let end = rest.iter().position(|byte| *byte == b')').map_or(bytes.len(), |end| at + end);
                    let behind = bytes.get(end + 1..).unwrap_or_default().trim_ascii_start();
                    (end, OPERATORS.iter().any(|it| behind.starts_with(it)))
                }));
                let before = bytes[..at].trim_ascii_end();
                if is_compared || DECIDES.iter().any(|it| before.ends_with(it)) {
                    return Some(at);
                }
                CALL.len()
            }
            _ => 1,
        };
        at += step;
    }
    None
}

/// Understands a template.
///
/// # Errors
/// Its syntax, with the place.
pub(super) fn compile<'e>(
    engine: &'e Environment<'e>,
    source: &'e str,
    target: Target,
) -> Result<Template<'e, 'e>, Mistake> {
    if source.len() > MOST_BYTES {
        return Err(Mistake::too_large("the template is larger than 1 MiB"));
    }
    if let Some(at) = source.find(sealed::MARKS) {
        return Err(Mistake::marked(at));
    }
    if let Some(at) = compared(source) {
        return Err(Mistake::compared(at));
    }
    let template = engine.template_from_named_str(target.name(), source);
    template.map_err(|error| explain(&error, source, &Value::UNDEFINED))
}

/// Renders a template with `scene`.
///
/// # Errors
/// Every mistake that can be found, with its place in the template.
pub(super) fn render(
    engine: &Environment<'_>,
    template: &Template<'_, '_>,
    scene: &Value,
) -> Result<String, Vec<Mistake>> {
    let first = match render_once(template, scene) {
        Ok(text) => return Ok(text),
        Err(mistake) => mistake,
    };
    // The engine stops at the first mistake. It goes on when the expression that holds it says nothing any more.
    let mut source = template.source().to_owned();
    let mut mistakes = vec![first];
    while mistakes.len() < MOST_MISTAKES && mistakes.last().is_some_and(|mistake| blank(&mut source, mistake.extent)) {
        let Ok(template) = engine.template_from_named_str(template.name(), &source) else { break };
        match render_once(&template, scene) {
            Ok(_) => break,
            Err(mistake) => mistakes.push(mistake),
        }
    }
    Err(mistakes)
}

/// Overwrites the expression around `extent` with spaces, and says whether there is one.
fn blank(source: &mut String, extent: Extent) -> bool {
    let Some(start) = source.get(..extent.start).and_then(|before| before.rfind("{{")) else { return false };
    let Some(end) = source.get(extent.end..).and_then(|behind| behind.find("}}")) else { return false };
    let end = extent.end + end + 2;
    if source[start..extent.start].contains("}}") || source[start..end].contains("{%") {
        return false;
    }
    let blanks: String = source[start..end].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect();
    source.replace_range(start..end, &blanks);
    true
}

fn render_once(template: &Template<'_, '_>, scene: &Value) -> Result<String, Mistake> {
    let mut text = Bounded::default();
    let rendered = template.render_captured_to(scene.clone(), &mut text);
    if let Err(error) = rendered {
        return Err(match text.is_full {
            true => Mistake::too_large("the template renders to more than 1 MiB"),
            false => explain(&error, template.source(), scene),
        });
    }
    let text = String::from_utf8(text.bytes).expect("the engine writes text");
    if text.matches(sealed::OPEN).count() > sealed::MOST_PARTS {
        return Err(Mistake::too_large("the template prints more than 1000 secrets"));
    }
    Ok(text)
}

/// Prints the value of one expression; refuses what nobody means to print.
fn print(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    if let Some(held) = value.downcast_object_ref::<Held>() {
        let form = match (held.is_base64, state.name() == Target::Lines.name()) {
            (true, _) => Form::Base64,
            (false, true) => Form::Line,
            (false, false) => Form::Plain,
        };
        let marked = sealed::marked(&held.name, form);
        return out.write_str(&marked).map_err(|_| Error::new(ErrorKind::WriteFailure, "the output was refused"));
    }
    let refused = match value.kind() {
        ValueKind::None => Some("nothing"),
        ValueKind::Map => Some("a map"),
        ValueKind::Seq | ValueKind::Iterable => Some("a list"),
        _ => None,
    };
    if let Some(what) = refused {
        return Err(Refusal::Unprintable(what).into());
    }
    let text = value.to_string();
    if text.contains('\0') {
        return Err(Refusal::Nul.into());
    }
    if text.contains(sealed::MARKS) {
        return Err(Refusal::Handled.into());
    }
    let leaves_line = text.contains(['\n', '\r']) || text.trim_end().ends_with('\\');
    if leaves_line && state.name() == Target::Lines.name() {
        return Err(Refusal::LeavesLine.into());
    }
    out.write_str(&text).map_err(|_| Error::new(ErrorKind::WriteFailure, "the output was refused"))
}

/// Takes so many bytes and no more.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    is_full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MOST_BYTES {
            self.is_full = true;
            return Err(io::Error::other("larger than 1 MiB"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
