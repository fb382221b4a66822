//! Renders a folder for every host that has it. Hosts for which all of it comes out equal share one form.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::{Environment, Template, Value};

use super::expressions::Expression;
use super::layers::{Layer, Source};
use super::page::Page;
use super::rendered::{Rendered, Told};
use super::template::{self, Target};
use super::template_errors::Mistake;
use crate::diagnostic::{Diagnostic, Location};
use crate::digest::{Digest, Fields};
use crate::id::{HostName, shown};
use crate::sealed::MARKS;
use crate::tree::Entry;

/// A folder as it is rendered for some hosts.
pub(super) struct Form<'t, 'h> {
    /// All files, rendered where they are templates.
    pub(super) files: Vec<Source<'t>>,
    /// The rendered texts of app.yaml, by where they begin.
    pub(super) values: BTreeMap<usize, String>,
    /// The hosts for which it comes out like this.
    pub(super) hosts: Vec<&'h HostName>,
    /// What could not be rendered. Such a form is read only for the mistakes in the rest of it.
    pub(super) missing: Option<Missing<'h>>,
}

/// What a form lacks.
pub(super) struct Missing<'h> {
    /// Everybody for whom something could not be rendered.
    pub(super) hosts: Vec<&'h HostName>,
    /// Texts of app.yaml, by where they begin.
    values: BTreeSet<usize>,
    /// Whether a unit or the like is among it, so that others may seem to name what does not exist.
    has_parts: bool,
}

/// The templates of one folder, understood.
struct Stencils<'v, 't> {
    files: Vec<(&'v Source<'t>, &'v str, Template<'v, 'v>)>,
    values: Vec<(&'v Expression, Template<'v, 'v>)>,
}

/// Says whether anything has to be rendered.
pub(super) fn is_templated(files: &Layer<'_>, expressions: &[Expression]) -> bool {
    !expressions.is_empty() || files.values().any(|source| source.is_template)
}

/// Renders `files` and the texts of app.yaml, `page`, with each host's scene, where it has one.
///
/// Where something cannot be rendered, the last form holds what is left, for the mistakes in it.
pub(super) fn render<'t, 'h>(
    engine: &Environment<'_>,
    files: &Layer<'t>,
    (page, expressions): (&Page<'_>, &[Expression]),
    scenes: impl Iterator<Item = (&'h HostName, Option<Value>)>,
    told: &mut Told<'h>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Form<'t, 'h>> {
    let before = diagnostics.len();
    let stencils = understand(engine, files, (page, expressions), diagnostics);
    let is_sound = diagnostics.len() == before;
    let mut forms: Vec<Form<'_, '_>> = Vec::new();
    let mut known: BTreeMap<Digest, usize> = BTreeMap::new();
    let mut partial: Option<Filled<'_>> = None;
    let mut failed = Vec::new();
    for (host, scene) in scenes {
        let Some(scene) = scene.filter(|_| !told.is_full()) else {
            failed.push(host);
            continue;
        };
        // What was not understood hides no mistake in what was.
        let filled = fill(engine, &stencils, page, &scene, host, told);
        if !is_sound || !filled.is_whole {
            partial.get_or_insert(filled);
            failed.push(host);
            continue;
        }
        let digest = filled.digest();
        if let Some(form) = known.get(&digest) {
            forms[*form].hosts.push(host);
            continue;
        }
        known.insert(digest, forms.len());
        let (files, values) = (with(files, filled.texts), filled.values);
        forms.push(Form { files, values, hosts: vec![host], missing: None });
    }
    if !failed.is_empty() || forms.is_empty() {
        forms.push(incomplete(files, expressions, partial.unwrap_or_default(), failed));
    }
    forms
}

/// Makes a form of what could be rendered. Files keep the text of their template, since nobody reads what they hold.
fn incomplete<'t, 'h>(
    files: &Layer<'t>,
    expressions: &[Expression],
    filled: Filled<'t>,
    hosts: Vec<&'h HostName>,
) -> Form<'t, 'h> {
    let Filled { texts, values, .. } = filled;
    let is_part = |source: &Source<'_>| {
        source.is_template && !texts.contains_key(source.within) && !source.within.starts_with("files/")
    };
    let has_parts = files.values().any(is_part);
    let kept = files.iter().filter(|(_, source)| !is_part(source));
    let kept = kept.map(|(within, source)| (*within, source.clone())).collect();
    let lacking = expressions.iter().map(|it| it.extent.start).filter(|at| !values.contains_key(at)).collect();
    let first = hosts.first().into_iter().copied().collect();
    let missing = Some(Missing { hosts, values: lacking, has_parts });
    Form { files: with(&kept, texts), values, hosts: first, missing }
}

/// Understands every template, and complains about those that cannot be.
fn understand<'v, 't>(
    engine: &'v Environment<'v>,
    files: &'v Layer<'t>,
    (page, expressions): (&Page<'_>, &'v [Expression]),
    diagnostics: &mut Vec<Diagnostic>,
) -> Stencils<'v, 't> {
    let mut stencils = Stencils { files: Vec::new(), values: Vec::new() };
    for source in files.values().filter(|source| source.is_template) {
        // What is no file is complained about when the folder is read.
        let Entry::File { bytes, .. } = &source.entry else { continue };
        let Ok(text) = std::str::from_utf8(bytes) else {
            let message = format!("the template `{}` is not UTF-8", shown(source.within));
            let mut complaint = Diagnostic::error("not-utf8", Location::whole(source.path), message);
            complaint.help("save it as UTF-8, or bring the file as it is, without .j2");
            diagnostics.push(complaint);
            continue;
        };
        match template::compile(engine, text, Target::of(source.within)) {
            Ok(template) => stencils.files.push((source, text, template)),
            Err(mistake) => diagnostics.push(complaint(&Page::new(source.path, text), mistake)),
        }
    }
    for expression in expressions {
        match template::compile(engine, &expression.text, Target::Text) {
            Ok(template) => stencils.values.push((expression, template)),
            Err(mistake) => diagnostics.push(complaint(page, Mistake { extent: expression.extent, ..mistake })),
        }
    }
    stencils
}

fn complaint(page: &Page<'_>, mistake: Mistake) -> Diagnostic {
    let mut complaint = Diagnostic::error(mistake.rule, page.at(mistake.extent), mistake.message);
    complaint.help(mistake.help);
    complaint
}

/// What the templates of one folder render to for one host.
#[derive(Default)]
struct Filled<'t> {
    texts: BTreeMap<&'t str, String>,
    values: BTreeMap<usize, String>,
    is_whole: bool,
}

/// Renders everything for one host, and complains about every mistake.
fn fill<'t, 'h>(
    engine: &Environment<'_>,
    stencils: &Stencils<'_, 't>,
    page: &Page<'_>,
    scene: &Value,
    host: &'h HostName,
    told: &mut Told<'h>,
) -> Filled<'t> {
    let mut filled = Filled { is_whole: true, ..Filled::default() };
    for (source, text, stencil) in &stencils.files {
        match template::render(engine, stencil, scene) {
            Ok(rendered) if rendered.contains(MARKS) && !source.within.starts_with("files/") => {
                filled.is_whole = false;
                told.mistake(&Page::new(source.path, text), None, Mistake::exposed(text), host);
            }
            Ok(rendered) => {
                filled.texts.insert(source.within, rendered);
            }
            Err(mistakes) => {
                filled.is_whole = false;
                let page = Page::new(source.path, text);
                mistakes.into_iter().for_each(|mistake| told.mistake(&page, None, mistake, host));
            }
        }
    }
    for (expression, stencil) in &stencils.values {
        match template::render(engine, stencil, scene) {
            Ok(rendered) if rendered.contains(MARKS) => {
                filled.is_whole = false;
                told.mistake(page, Some(expression.extent), Mistake::exposed(""), host);
            }
            Ok(rendered) => {
                filled.values.insert(expression.extent.start, rendered);
            }
            Err(mistakes) => {
                filled.is_whole = false;
                let extent = Some(expression.extent);
                mistakes.into_iter().for_each(|mistake| told.mistake(page, extent, mistake, host));
            }
        }
    }
    filled
}

impl Filled<'_> {
    fn digest(&self) -> Digest {
        let mut fields = Fields::default();
        for (within, text) in &self.texts {
            fields.add(within, text.as_bytes());
        }
        for (at, text) in &self.values {
            fields.add(&at.to_string(), text.as_bytes());
        }
        fields.finish()
    }
}

/// Puts the rendered texts in the place of their templates.
fn with<'t>(files: &Layer<'t>, mut texts: BTreeMap<&'t str, String>) -> Vec<Source<'t>> {
    let rendered = |source: &Source<'t>| {
        let mut source = source.clone();
        if let (Some(text), Entry::File { bytes, .. }) = (texts.remove(source.within), &mut source.entry) {
            *bytes = text.into_bytes().into();
        }
        source
    };
    files.values().map(rendered).collect()
}

fn text(entry: &Entry) -> Option<&str> {
    match entry {
        Entry::File { bytes, .. } => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

/// The complaints that may be about nothing but a part that is missing: the others hold whatever it holds.
const OF_PARTS: [&str; 14] = [
    "adopt",
    "compose-choice",
    "compose-path",
    "drop-in-unit",
    "empty-app",
    "env-file",
    "quadlet-reference",
    "unit-asks-nothing",
    "unit-misspelt",
    "unit-name",
    "unit-trigger",
    "unknown-file",
    "user",
    "user-unit",
];

/// Tells the mistakes that were found in a form, about the templates where they come from them.
pub(super) fn tell<'h>(
    form: &Form<'_, 'h>,
    files: &Layer<'_>,
    app_yaml: &str,
    (said, told): (Vec<Diagnostic>, &mut Told<'h>),
    diagnostics: &mut Vec<Diagnostic>,
) {
    let mut texts: BTreeMap<&str, Rendered<'_>> = BTreeMap::new();
    for file in form.files.iter().filter(|file| file.is_template) {
        let source = files.get(file.within).and_then(|source| text(&source.entry));
        if let (Some(source), Some(text)) = (source, text(&file.entry)) {
            texts.insert(file.path, Rendered { source, text });
        }
    }
    for complaint in said {
        let is_head = complaint.location.file == app_yaml;
        let at = complaint.location.span.filter(|_| is_head).map(|span| span.start);
        if let Some(missing) = &form.missing {
            let may_be_of_parts = missing.has_parts && OF_PARTS.contains(&complaint.rule);
            if may_be_of_parts || at.is_some_and(|at| missing.values.contains(&at)) {
                continue;
            }
        }
        match at.and_then(|at| form.values.get(&at)) {
            Some(value) => told.value(complaint, value, &form.hosts),
            None => told.complaint(complaint, &texts, &form.hosts, diagnostics),
        }
    }
}
