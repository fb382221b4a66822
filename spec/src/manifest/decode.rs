//! Reads values out of YAML nodes by hand, complaining about each mistake and going on with the next value.
//!
//! Every function returns `None` after complaining, so a caller never complains about the same value again.

use std::collections::BTreeMap;

use super::page::{Extent, Page, not_supported};
use super::words::{did_you_mean, list, nearest, one_of};
use super::yaml::{Key, Kind, Meaning, Node};
use crate::id::shown;

/// The entries of a map that nobody has asked for yet.
pub(super) struct Table<'n> {
    entries: Vec<(&'n Key, Option<&'n Node>)>,
    known: Vec<&'static str>,
    later: &'static [&'static str],
}

impl<'n> Table<'n> {
    /// Names keys of the format that this version does not act on.
    pub(super) fn later(mut self, keys: &'static [&'static str]) -> Table<'n> {
        self.later = keys;
        self
    }

    /// Hands out the value of `key` and where the key stands.
    pub(super) fn take(&mut self, key: &'static str) -> Option<(&'n Key, &'n Node)> {
        self.known.push(key);
        let (found, node) = self.entries.iter_mut().find(|(entry, node)| entry.text == key && node.is_some())?;
        node.take().map(|node| (*found, node))
    }

    /// Hands out where a key stands that is no part of the table, for who can say more of it than that.
    pub(super) fn take_foreign(&mut self, key: &str) -> Option<&'n Key> {
        let (found, node) = self.entries.iter_mut().find(|(entry, node)| entry.text == key && node.is_some())?;
        node.take().map(|_| *found)
    }

    /// Says whether `key` stands here and nobody has asked for it yet.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(entry, node)| entry.text == key && node.is_some())
    }

    /// Says whether a key stands here that was probably meant to be `key`, and will be complained about as such.
    pub(super) fn has_misspelt(&self, key: &'static str) -> bool {
        let left = self.entries.iter().filter(|(_, node)| node.is_some()).take(100);
        left.into_iter().any(|(entry, _)| nearest(&entry.text, [key]).is_some())
    }

    /// Complains about what nobody asked for.
    pub(super) fn finish(self, page: &mut Page<'_>, what: &str) {
        for (key, _) in self.entries.iter().filter(|(_, node)| node.is_some()) {
            let text = shown(&key.text);
            if self.later.contains(&key.text.as_str()) {
                not_supported(page, key.extent, &format!("`{text}`"));
                continue;
            }
            let near = page.near(&key.text, self.known.iter().chain(self.later).copied());
            let complaint = page.error("unknown-key", key.extent, format!("{what} has no key `{text}`"));
            match near {
                Some(near) => complaint.help(did_you_mean(near)),
                None if key.text == "<<" => complaint.help("merge keys are no part of YAML 1.2: write the entries out"),
                // A list that nobody reads to its end helps nobody.
                None if self.known.len() > MOST_LISTED => {
                    complaint.help("remove it; README.md says which keys are read, and what does the same as others")
                }
                None => complaint.help(format!("it knows {}", list(&self.known))),
            };
        }
    }
}

/// More keys than this are not listed for one that is unknown.
const MOST_LISTED: usize = 20;

impl Page<'_> {
    /// Reads a map.
    pub(super) fn table<'n>(&mut self, node: &'n Node, what: &str) -> Option<Table<'n>> {
        match &node.kind {
            Kind::Mapping(entries) => Some(Table {
                entries: entries.iter().map(|(key, node)| (key, Some(node))).collect(),
                known: Vec::new(),
                later: &[],
            }),
            _ => self.unlike(node, what, "a map", " such as { key: value }"),
        }
    }

    /// Reads a map whose keys are names that the author chose.
    pub(super) fn entries<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [(Key, Node)]> {
        match &node.kind {
            Kind::Mapping(entries) => Some(entries),
            _ => self.unlike(node, what, "a map", " such as { name: … }"),
        }
    }

    /// Reads a list.
    pub(super) fn list<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Node]> {
        match &node.kind {
            Kind::Sequence(items) => Some(items),
            _ => self.unlike(node, what, "a list", " such as [one, two]"),
        }
    }

    /// Reads a text that neither quotes nor their absence turn into something else.
    pub(super) fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match (&node.kind, node.meaning()) {
            (Kind::Scalar { text, .. }, Meaning::Text) => Some(text),
            (Kind::Scalar { text, .. }, meaning) if meaning != Meaning::Null => {
                let message = format!("{what} is a text, but `{}` is {} in YAML", shown(text), node.describe());
                self.error("wrong-type", node.extent, message)
                    .help(format!("put quotes around it: \"{}\"", shown(text)));
                None
            }
            _ => self.unlike(node, what, "a text", ""),
        }
    }

    /// Reads a text, number or boolean exactly as it was written.
    pub(super) fn as_written<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.kind {
            Kind::Scalar { text, .. } if !node.is_null() => Some(text),
            _ => self.unlike(node, what, "a text, number or boolean", ""),
        }
    }

    /// Reads `true` or `false`.
    pub(super) fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        match &node.kind {
            Kind::Scalar { text, plain: true } if text == "true" => return Some(true),
            Kind::Scalar { text, plain: true } if text == "false" => return Some(false),
            Kind::Scalar { text, .. } if !node.is_null() => {
                let quoted = matches!(text.as_str(), "true" | "false");
                let message = match quoted {
                    true => format!("{what} is `true` or `false`, but quotes make this a text"),
                    false => format!("{what} is `true` or `false`, not `{}`", shown(text)),
                };
                let help = match text.to_ascii_lowercase().as_str() {
                    "yes" | "on" | "true" | "y" => "write true, without quotes",
                    "no" | "off" | "false" | "n" => "write false, without quotes",
                    _ => "write true or false, without quotes",
                };
                self.error("wrong-type", node.extent, message).help(help);
            }
            _ => return self.unlike(node, what, "`true` or `false`", ""),
        }
        None
    }

    /// Reads one of a few words.
    pub(super) fn choice<T: Copy>(&mut self, node: &Node, what: &str, words: &[(&'static str, T)]) -> Option<T> {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let Kind::Scalar { text, .. } = &node.kind else {
            return self.unlike(node, what, &one_of(&known), "");
        };
        if node.is_null() {
            return self.unlike(node, what, &one_of(&known), "");
        }
        let found = words.iter().find(|(word, _)| word == text);
        if found.is_none() {
            let message = format!("{what} is {}, not `{}`", one_of(&known), shown(text));
            let meant =
                synonym(text).filter(|word| known.contains(word)).or_else(|| self.near(text, known.iter().copied()));
            let help = meant.map_or_else(|| format!("write {}", one_of(&known)), did_you_mean);
            self.error("unknown-value", node.extent, message).help(help);
        }
        found.map(|(_, value)| *value)
    }

    /// Reads a list of texts, numbers or booleans as they were written.
    pub(super) fn words(&mut self, node: &Node, what: &str) -> Vec<(String, Extent)> {
        let items = self.list(node, what).unwrap_or_default();
        let item = format!("an item of {what}");
        items.iter().filter_map(|node| Some((self.as_written(node, &item)?.to_owned(), node.extent))).collect()
    }

    /// Checks a text by one of the grammars in [`crate::id`].
    pub(super) fn name<T>(
        &mut self,
        rule: &'static str,
        extent: Extent,
        what: &str,
        parsed: Result<T, String>,
    ) -> Option<T> {
        match parsed {
            Ok(name) => Some(name),
            Err(why) => {
                // Some grammars already say what the text is not.
                let message = if why.contains(" is not ") { why } else { format!("this is not {what}: {why}") };
                let plain = slug(self.text.get(extent.start..extent.end).unwrap_or_default());
                let help = if plain.is_empty() {
                    "give it a name".to_owned()
                } else {
                    format!("rename it, for instance to `{plain}`")
                };
                self.error(rule, extent, message).help(help);
                None
            }
        }
    }

    fn unlike<T>(&mut self, node: &Node, what: &str, wanted: &str, example: &str) -> Option<T> {
        if node.is_null() {
            self.error("no-value", node.extent, format!("{what} has no value"))
                .help(format!("write {wanted}{example} behind it, or remove it"));
        } else {
            self.error(
                "wrong-type",
                node.extent,
                format!("{what} must be {wanted}, but {} stands here", node.describe()),
            )
            .help(format!("write {wanted}{example}"));
        }
        None
    }
}

/// Returns our word for what people write out of habit from other tools.
fn synonym(text: &str) -> Option<&'static str> {
    Some(match text.to_lowercase().as_str() {
        "started" | "start" | "active" | "up" | "restarted" => "running",
        "stop" | "inactive" | "down" | "dead" => "stopped",
        "dir" | "folder" => "directory",
        "link" => "symlink",
        "regular" => "file",
        "fix" | "enforce" | "correct" => "repair",
        "warn" | "ignore" | "notify" => "report",
        _ => return None,
    })
}

/// Makes a name that every grammar accepts out of one that does not.
fn slug(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = text.chars().take(63).map(plain).collect();
    name.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

/// Converts a value of `vars`, which templates are given.
pub(super) fn value(node: &Node) -> serde_json::Value {
    use serde_json::Value;
    match &node.kind {
        Kind::Sequence(items) => Value::Array(items.iter().map(value).collect()),
        Kind::Mapping(entries) => {
            Value::Object(entries.iter().map(|(key, node)| (key.text.clone(), value(node))).collect())
        }
        Kind::Scalar { text, .. } => match node.meaning() {
            Meaning::Null => Value::Null,
            Meaning::Boolean => Value::Bool(text.eq_ignore_ascii_case("true")),
            // A number that JSON would write in another way keeps its spelling: `0755` must not become 755.
            Meaning::Number => match serde_json::from_str::<serde_json::Number>(text) {
                Ok(number) if number.to_string() == *text => Value::Number(number),
                _ => Value::String(text.clone()),
            },
            Meaning::Text => Value::String(text.clone()),
        },
    }
}

/// Reads a map of values for templates.
pub(super) fn values(page: &mut Page<'_>, node: &Node, what: &str) -> BTreeMap<String, serde_json::Value> {
    let entries = page.entries(node, what).unwrap_or_default();
    entries.iter().map(|(key, node)| (key.text.clone(), value(node))).collect()
}
