//! Complaints to authors: where, what is wrong, and what to do; all of them at once.

use std::fmt;

use crate::id::shown;

/// A place in a file of the repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The file, from the repository's root.
    pub file: String,
    /// The bytes of the file that are meant; `None` when the file as a whole is.
    pub span: Option<Span>,
}

/// A run of bytes within a file, with the position people use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Byte offset of the first byte.
    pub start: usize,
    /// Byte offset behind the last byte.
    pub end: usize,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// How much a complaint weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The commit is not applied.
    Error,
    /// The commit is applied; a person should look.
    Warning,
}

/// One mistake in a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// Where.
    pub location: Location,
    /// How much it weighs.
    pub severity: Severity,
    /// A stable kebab-case name for the rule, such as `unknown-key`.
    pub rule: &'static str,
    /// What is wrong: lower case, names the object, no full stop.
    pub message: String,
    /// What to do about it; may be empty.
    pub help: String,
    /// A second place that matters, with what it is: "first defined here".
    pub related: Option<(Location, String)>,
    /// For whom it is a mistake, where that is not everybody; may be empty.
    pub note: String,
}

impl Location {
    /// Means a file as a whole.
    pub fn whole(file: &str) -> Location {
        Location { file: file.to_owned(), span: None }
    }

    /// Means the bytes `span` of a file.
    pub fn at(file: &str, span: Span) -> Location {
        Location { file: file.to_owned(), span: Some(span) }
    }
}

impl Diagnostic {
    /// Builds an error without help.
    pub fn error(rule: &'static str, location: Location, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            location,
            severity: Severity::Error,
            rule,
            message: message.into(),
            help: String::new(),
            related: None,
            note: String::new(),
        }
    }

    /// Builds a warning without help.
    pub fn warning(rule: &'static str, location: Location, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(rule, location, message) }
    }

    /// Says what to do about it; an empty text leaves what was said before.
    pub fn help(&mut self, help: impl Into<String>) -> &mut Diagnostic {
        let help = help.into();
        if !help.is_empty() {
            self.help = help;
        }
        self
    }

    /// Names a second place that matters and what it is.
    pub fn related(&mut self, location: Location, what: impl Into<String>) -> &mut Diagnostic {
        self.related = Some((location, what.into()));
        self
    }

    /// Says whether this keeps the commit from being applied.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Location {
    /// The file's name comes from a repository, so what a terminal would act upon is escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = shown(&self.file);
        match self.span {
            Some(span) => write!(f, "{file}:{}:{}", span.line, span.column),
            None => f.write_str(&file),
        }
    }
}

impl fmt::Display for Diagnostic {
    /// One line, for logs and records; the drawn form with its excerpt belongs to the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.location, self.message)?;
        if !self.help.is_empty() {
            write!(f, " ({})", self.help)?;
        }
        if !self.note.is_empty() {
            write!(f, "; {}", self.note)?;
        }
        Ok(())
    }
}
