//! YAML text into a tree of nodes that know where they stand and how they were quoted.
//!
//! Built on the event parser below `serde_yaml`, because typed deserialisation stops at the first mistake and forgets
//! quotes; authors get every mistake at once, and `mode: 0755` must not read like `mode: "0755"`. Work is bounded before
//! anything is expanded: bytes, nodes, depth, and what aliases repeat.

use std::collections::BTreeMap;

use serde_yaml::granit_parser::{self, Event, Parser, ScalarStyle};

use super::page::{Extent, Page};
use super::yaml_errors::{MOST_DEPTH, complain_depth, complain_syntax};
use crate::diagnostic::Location;
use crate::id::shown;

/// The largest YAML file that is read.
const MOST_BYTES: usize = 1 << 20;
/// The most values, keys included, that a file may hold.
const MOST_NODES: usize = 50_000;
/// What all aliases of a file together may repeat.
const MOST_ALIASED_BYTES: usize = 4 << 20;

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Where it stands; an absent value stands where its key does.
    pub(super) extent: Extent,
    /// What it is.
    pub(super) kind: Kind,
}

/// The kinds of value.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Text; `plain` when it was written without quotes or block indicator.
    Scalar { text: String, plain: bool },
    /// A list.
    Sequence(Vec<Node>),
    /// A map whose keys are distinct texts, in the order written.
    Mapping(Vec<(Key, Node)>),
}

/// The key of a map's entry.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// Where it stands.
    pub(super) extent: Extent,
    /// What it says.
    pub(super) text: String,
}

/// What a plain scalar means by the core schema of YAML 1.2, in which `yes`, `no`, `on` and `off` are text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Null,
    Boolean,
    Number,
    Text,
}

impl Node {
    /// Says what this scalar means; lists and maps mean text to nobody and are asked first.
    pub(super) fn meaning(&self) -> Meaning {
        match &self.kind {
            Kind::Scalar { text, plain: true } => meaning(text),
            _ => Meaning::Text,
        }
    }

    /// Says whether nothing was written.
    pub(super) fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Scalar { .. }) && self.meaning() == Meaning::Null
    }

    /// Names the kind of value for a message.
    pub(super) fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::Sequence(_) => "a list",
            Kind::Mapping(_) => "a map",
            Kind::Scalar { .. } => match self.meaning() {
                Meaning::Null => "nothing",
                Meaning::Boolean => "a boolean",
                Meaning::Number => "a number",
                Meaning::Text => "a text",
            },
        }
    }

    /// Counts this node and those below it.
    pub(super) fn count(&self) -> usize {
        self.size().nodes
    }

    /// Moves this node and those below it by as many bytes: its file is read with another one.
    pub(super) fn shift(&mut self, by: usize) {
        let moved = |extent: Extent| Extent::new(extent.start + by, extent.end + by);
        self.extent = moved(self.extent);
        match &mut self.kind {
            Kind::Scalar { .. } => {}
            Kind::Sequence(items) => items.iter_mut().for_each(|item| item.shift(by)),
            Kind::Mapping(entries) => entries.iter_mut().for_each(|(key, node)| {
                key.extent = moved(key.extent);
                node.shift(by);
            }),
        }
    }

    /// Counts this node, those below it, their text, and the levels they take.
    fn size(&self) -> Size {
        match &self.kind {
            Kind::Scalar { text, .. } => Size { nodes: 1, bytes: text.len(), depth: 0 },
            Kind::Sequence(items) => items.iter().fold(Size::ONE, |sum, item| sum.add(item.size())),
            Kind::Mapping(entries) => entries.iter().fold(Size::ONE, |sum, (key, value)| {
                let sum = sum.add(value.size());
                Size { nodes: sum.nodes + 1, bytes: sum.bytes + key.text.len(), ..sum }
            }),
        }
    }
}

#[derive(Clone, Copy)]
struct Size {
    nodes: usize,
    bytes: usize,
    depth: usize,
}

impl Size {
    const ONE: Size = Size { nodes: 1, bytes: 0, depth: 1 };

    fn add(self, below: Size) -> Size {
        Size {
            nodes: self.nodes + below.nodes,
            bytes: self.bytes + below.bytes,
            depth: self.depth.max(below.depth + 1),
        }
    }
}

fn meaning(text: &str) -> Meaning {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Meaning::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => return Meaning::Boolean,
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let begins = unsigned.starts_with(|c: char| c.is_ascii_digit())
        || unsigned.strip_prefix('.').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let based = |prefix: &str, radix| {
        unsigned.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)))
    };
    let special = matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN");
    // `1_000` is text by the core schema, but nobody who writes it means text.
    let decimal = begins && unsigned.replace('_', "").parse::<f64>().is_ok();
    if decimal || special || based("0x", 16) || based("0o", 8) { Meaning::Number } else { Meaning::Text }
}

/// Reads the page as one YAML document.
///
/// Returns `None` after complaining about what cannot be read; duplicate keys and tags are complained about, and reading
/// goes on with the first of the duplicates.
pub(super) fn read(page: &mut Page<'_>) -> Option<Node> {
    if page.text.len() > MOST_BYTES {
        page.error("yaml-too-large", Extent::new(0, 0), "the file is larger than 1 MiB")
            .help("split it: hosts can be spread over hosts/*.yaml, and each application has an app.yaml of its own");
        return None;
    }
    let options = granit_parser::options! {
        emit_comments: false,
        disallow_directives: true,
        flow_nesting_limit: MOST_DEPTH,
        block_nesting_limit: MOST_DEPTH,
    };
    let mut builder = Builder::default();
    let text = page.text;
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                complain_syntax(page, &error);
                return None;
            }
        };
        let range = span.byte_range().unwrap_or(0..0);
        let extent = Extent::new(range.start, range.end);
        if builder.take(page, event, extent).is_err() {
            return None;
        }
    }
    let nothing = Node { extent: Extent::new(0, 0), kind: Kind::Scalar { text: String::new(), plain: true } };
    Some(builder.root.unwrap_or(nothing))
}

/// A list or map whose end has not been seen.
struct Open {
    extent: Extent,
    anchor: usize,
    content: Content,
}

enum Content {
    Items(Vec<Node>),
    Entries { done: Vec<(Key, Node)>, key: Option<Key> },
}

/// The complaint was made; reading cannot go on.
struct Hopeless;

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    nodes: usize,
    aliased_bytes: usize,
    anchors: BTreeMap<usize, Node>,
}

impl Builder {
    fn take(&mut self, page: &mut Page<'_>, event: Event<'_>, extent: Extent) -> Result<(), Hopeless> {
        let tag = match &event {
            Event::Scalar(_, _, _, tag) | Event::SequenceStart(_, _, tag) | Event::MappingStart(_, _, tag) => {
                tag.is_some()
            }
            _ => false,
        };
        if tag {
            page.error("yaml-tag", extent, "a YAML tag (`!…`) is written here")
                .help("remove the tag: mainstay gives no meaning to any");
        }
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    page.error("yaml-documents", extent, "a second YAML document begins here")
                        .help("keep one document in a file: remove this `---` and everything below it");
                    return Err(Hopeless);
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, _) => {
                let kind = Kind::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                self.attach(page, Node { extent, kind }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.open(page, extent, anchor, Content::Items(Vec::new())),
            Event::MappingStart(_, anchor, _) => {
                self.open(page, extent, anchor, Content::Entries { done: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(page, extent),
            Event::Alias(anchor) => self.repeat(page, anchor, extent),
            _ => Ok(()),
        }
    }

    fn open(&mut self, page: &mut Page<'_>, extent: Extent, anchor: usize, content: Content) -> Result<(), Hopeless> {
        if self.open.len() >= MOST_DEPTH {
            complain_depth(page, extent);
            return Err(Hopeless);
        }
        self.open.push(Open { extent, anchor, content });
        Ok(())
    }

    fn close(&mut self, page: &mut Page<'_>, end: Extent) -> Result<(), Hopeless> {
        let Open { extent, anchor, content } = self.open.pop().expect("the parser pairs starts with ends");
        let (kind, extent) = match content {
            Content::Items(items) => {
                let extent = if page.text[extent.start..].starts_with('[') {
                    Extent::new(extent.start, end.end)
                } else {
                    extent
                };
                (Kind::Sequence(items), extent)
            }
            Content::Entries { done, .. } => {
                // A block map has no sign of its own: its first key stands for it.
                let first = done.first().map_or(extent, |(key, _)| key.extent);
                let extent =
                    if page.text[extent.start..].starts_with('{') { Extent::new(extent.start, end.end) } else { first };
                (Kind::Mapping(distinct(page, done)), extent)
            }
        };
        self.attach(page, Node { extent, kind }, anchor)
    }

    fn repeat(&mut self, page: &mut Page<'_>, anchor: usize, extent: Extent) -> Result<(), Hopeless> {
        let Some(node) = self.anchors.get(&anchor) else {
            page.error("yaml-alias", extent, "this alias lies within the value that it repeats")
                .help("write the value out");
            return Err(Hopeless);
        };
        let size = node.size();
        self.nodes += size.nodes;
        self.aliased_bytes += size.bytes;
        if self.open.len() + size.depth > MOST_DEPTH {
            complain_depth(page, extent);
            return Err(Hopeless);
        }
        self.within_alias_budget(page, extent)?;
        let node = self.anchors.get(&anchor).cloned().expect("it was found above");
        self.attach(page, node, 0)
    }

    fn within_alias_budget(&self, page: &mut Page<'_>, extent: Extent) -> Result<(), Hopeless> {
        if self.nodes <= MOST_NODES && self.aliased_bytes <= MOST_ALIASED_BYTES {
            return Ok(());
        }
        page.error("yaml-too-large", extent, "anchors and aliases make this file too large")
            .help("write out what is meant: each `*alias` repeats everything below its `&anchor`");
        Err(Hopeless)
    }

    fn attach(&mut self, page: &mut Page<'_>, mut node: Node, anchor: usize) -> Result<(), Hopeless> {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            page.error("yaml-too-large", node.extent, format!("the file holds more than {MOST_NODES} values")).help(
                "split it: hosts can be spread over hosts/*.yaml, and each application has an app.yaml of its own",
            );
            return Err(Hopeless);
        }
        if anchor != 0 {
            // The copy kept for aliases counts as well: anchors within anchors would multiply the text otherwise.
            self.aliased_bytes += node.size().bytes;
            self.within_alias_budget(page, node.extent)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::Items(items)) => items.push(node),
            Some(Content::Entries { done, key }) => match key.take() {
                None => *key = Some(key_of(page, node)),
                Some(key) => {
                    if node.extent.is_empty() {
                        node.extent = key.extent;
                    }
                    done.push((key, node));
                }
            },
        }
        Ok(())
    }
}

fn key_of(page: &mut Page<'_>, node: Node) -> Key {
    let extent = node.extent;
    match node.kind {
        Kind::Scalar { text, .. } => Key { extent, text },
        Kind::Mapping(_) if page.text[..extent.start].ends_with('{') => {
            page.error("yaml-key", extent, "a value that begins with `{{` needs quotes")
                .help("put quotes around all of it: \"{{ … }}\"");
            Key { extent, text: String::new() }
        }
        Kind::Sequence(_) | Kind::Mapping(_) => {
            page.error("yaml-key", extent, "a key must be a text, but this one is a list or a map")
                .help("put quotes around a value that begins with `{` or `[`");
            Key { extent, text: String::new() }
        }
    }
}

/// Keeps the first of each key and complains about the others.
fn distinct(page: &mut Page<'_>, entries: Vec<(Key, Node)>) -> Vec<(Key, Node)> {
    let mut first: BTreeMap<String, Extent> = BTreeMap::new();
    let mut kept = Vec::with_capacity(entries.len());
    for (key, node) in entries {
        if let Some(earlier) = first.get(&key.text) {
            let earlier: Location = page.at(*earlier);
            page.error("duplicate-key", key.extent, format!("`{}` is written twice", shown(&key.text)))
                .help("keep one of the two")
                .related(earlier, "first written here");
            continue;
        }
        first.insert(key.text.clone(), key.extent);
        kept.push((key, node));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_yaml_1_2_says() {
        for (text, expected) in [
            ("", Meaning::Null),
            ("~", Meaning::Null),
            ("true", Meaning::Boolean),
            ("yes", Meaning::Text),
            ("no", Meaning::Text),
            ("on", Meaning::Text),
            ("0755", Meaning::Number),
            ("0o755", Meaning::Number),
            ("1_000", Meaning::Number),
            ("1e3", Meaning::Number),
            ("-1.5", Meaning::Number),
            (".5", Meaning::Number),
            ("1.2.3", Meaning::Text),
            ("inf", Meaning::Text),
            ("10m", Meaning::Text),
            ("127.0.0.1", Meaning::Text),
            ("-", Meaning::Text),
            (".", Meaning::Text),
        ] {
            assert_eq!(meaning(text), expected, "{text:?}");
        }
    }
}
