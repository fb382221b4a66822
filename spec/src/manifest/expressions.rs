//! Texts in app.yaml that hold `{{ … }}`: found before anything is read, and replaced in the tree of nodes.
//!
//! They are rendered one by one after YAML was understood, so that no value can add a key, an item or a comment.

use std::collections::BTreeMap;

use super::page::{Extent, Page};
use super::yaml::{Kind, Node};

/// Parts of app.yaml that are never rendered: they decide where an application goes and what its templates are given.
const PLAIN: [&str; 4] = ["place", "vars", "needs", "endpoints"];

/// A text that is a template.
pub(super) struct Expression {
    /// Where it stands.
    pub(super) extent: Extent,
    /// What it says.
    pub(super) text: String,
}

/// Finds the texts of app.yaml that are templates, and complains about keys that look like one.
pub(super) fn find(page: &mut Page<'_>, node: &Node) -> Vec<Expression> {
    let mut found = Vec::new();
    let Kind::Mapping(entries) = &node.kind else { return found };
    for (key, node) in entries {
        if !PLAIN.contains(&key.text.as_str()) {
            find_below(page, node, &mut found);
        }
    }
    found
}

fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark))
}

fn find_below(page: &mut Page<'_>, node: &Node, found: &mut Vec<Expression>) {
    match &node.kind {
        Kind::Scalar { text, .. } if is_template(text) => {
            found.push(Expression { extent: node.extent, text: text.clone() });
        }
        Kind::Scalar { .. } => {}
        Kind::Sequence(items) => items.iter().for_each(|item| find_below(page, item, found)),
        Kind::Mapping(entries) => {
            for (key, node) in entries {
                if is_template(&key.text) {
                    page.error("template-key", key.extent, "keys are not rendered, only values are")
                        .help("write the name itself; what differs among hosts belongs into an overlay's app.yaml");
                }
                find_below(page, node, found);
            }
        }
    }
}

/// Puts the rendered `texts`, by where they begin, into the tree.
pub(super) fn substitute(node: &mut Node, texts: &BTreeMap<usize, String>) {
    match &mut node.kind {
        Kind::Scalar { text, plain } => {
            if let Some(rendered) = texts.get(&node.extent.start).filter(|_| is_template(text)) {
                text.clone_from(rendered);
                *plain = false;
            }
        }
        Kind::Sequence(items) => items.iter_mut().for_each(|item| substitute(item, texts)),
        Kind::Mapping(entries) => entries.iter_mut().for_each(|(_, node)| substitute(node, texts)),
    }
}
