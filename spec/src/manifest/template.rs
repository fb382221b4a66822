//! Renders templates: text and values in, text or a mistake with its place out.
//!
//! A template reads nothing but the values it is given. There is no loader, no function that reaches a file, the environment,
//! a command, the clock or chance, and no way to name another template. Work and output are bounded.

use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, Template, UndefinedBehavior, Value};

use super::page::Extent;
use super::template_errors::{Mistake, Refusal, explain};

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
pub(super) fn engine() -> Environment<'static> {
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
    engine.add_function("secret", |_: &str| -> Result<Value, Error> { Err(Refusal::Secret.into()) });
    engine.set_formatter(print);
    engine
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
    Ok(String::from_utf8(text.bytes).expect("the engine writes text"))
}

/// Prints the value of one expression; refuses what nobody means to print.
fn print(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
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
