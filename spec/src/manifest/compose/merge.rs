//! The merge rules of the specification (13-merge.md): what an overriding file or an extending service changes of its base.
//!
//! Works on trees before anybody gives them a meaning, so that the two forms of a key can be mixed.

use crate::manifest::page::{Extent, Page};
use crate::manifest::yaml::{Key, Kind, Node};

/// Puts `over` on top of `base`, which stands at `path` of a compose file.
pub(super) fn merge(page: &mut Page<'_>, base: Node, over: Node, path: &[&str]) -> Node {
    match path {
        ["services", _, "command" | "entrypoint"]
        | ["services", _, "healthcheck", "test"]
        | ["services", _, "ulimits", _] => over,
        ["services", _, "depends_on"] => join(page, named(base, &started), named(over, &started), path),
        ["services", _, "networks"] => join(page, named(base, &nothing), named(over, &nothing), path),
        ["services", _, "environment" | "labels" | "sysctls" | "annotations"]
        | ["services", _, "deploy", "labels"]
        | ["networks" | "volumes", _, "labels"] => join(page, valued(base), valued(over), path),
        ["services", _, "dns" | "dns_opt" | "dns_search" | "env_file" | "tmpfs" | "extra_hosts"] => {
            join(page, listed(base), listed(over), path)
        }
        ["services", _, "logging"] if differ(&base, &over, "driver") => over,
        _ => join(page, base, over, path),
    }
}

/// Merges maps key by key, appends lists, and replaces everything else.
fn join(page: &mut Page<'_>, base: Node, over: Node, path: &[&str]) -> Node {
    if over.is_null() {
        return base;
    }
    if base.is_null() {
        return over;
    }
    let extent = over.extent;
    let kind = match (base.kind, over.kind) {
        (Kind::Mapping(mut entries), Kind::Mapping(more)) => {
            for (key, node) in more {
                let Some(at) = entries.iter().position(|(known, _)| known.text == key.text) else {
                    entries.push((key, node));
                    continue;
                };
                let (_, base) = entries.remove(at);
                let below: Vec<&str> = path.iter().copied().chain([key.text.as_str()]).collect();
                let merged = merge(page, base, node, &below);
                entries.insert(at, (key, merged));
            }
            Kind::Mapping(entries)
        }
        (Kind::Sequence(items), Kind::Sequence(more)) => Kind::Sequence(appended(items, more, path)),
        (Kind::Scalar { .. }, kind @ Kind::Scalar { .. }) => kind,
        (_, kind) => {
            page.error("compose-merge", extent, "this cannot be merged with what it extends, which has another form")
                .help("write both as a list, or both as a map");
            kind
        }
    };
    Node { extent, kind }
}

/// Appends items; one that stands for the same as an earlier one takes its place.
fn appended(mut items: Vec<Node>, more: Vec<Node>, path: &[&str]) -> Vec<Node> {
    for node in more {
        let identity = identity(&node, path);
        let same = items.iter().position(|item| identity.is_some() && self::identity(item, path) == identity);
        match same {
            Some(at) => items[at] = node,
            None => items.push(node),
        }
    }
    items
}

/// Says what an item of a list stands for; nothing where items are only appended.
fn identity(node: &Node, path: &[&str]) -> Option<String> {
    let field = |name: &str| match &node.kind {
        Kind::Mapping(entries) => entries.iter().find(|(key, _)| key.text == name).and_then(|(_, node)| scalar(node)),
        _ => None,
    };
    match (path, scalar(node)) {
        (["services", _, "volumes"], Some(text)) => Some(text.split(':').nth(1).unwrap_or(text).to_owned()),
        (["services", _, "devices"], Some(text)) => Some(text.split(':').nth(1).unwrap_or(text).to_owned()),
        (["services", _, "volumes" | "devices"], None) => field("target").map(str::to_owned),
        (["services", _, "secrets" | "configs"], text) => {
            text.or_else(|| field("target")).or_else(|| field("source")).map(str::to_owned)
        }
        (["services", _, "env_file"], text) => text.or_else(|| field("path")).map(str::to_owned),
        (["services", _, "ports"], None) => {
            let all = ["host_ip", "published", "target", "protocol"].map(|name| field(name).unwrap_or_default());
            Some(all.join(":"))
        }
        (["networks", _, "ipam", "config"], None) => field("subnet").map(str::to_owned),
        (["services", ..], Some(text)) => Some(text.to_owned()),
        _ => None,
    }
}

fn scalar(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Scalar { text, .. } => Some(text),
        Kind::Sequence(_) | Kind::Mapping(_) => None,
    }
}

fn differ(base: &Node, over: &Node, name: &str) -> bool {
    let field = |node: &Node| match &node.kind {
        Kind::Mapping(entries) => {
            entries.iter().find(|(key, _)| key.text == name).and_then(|(_, node)| scalar(node)).map(str::to_owned)
        }
        _ => None,
    };
    field(base).zip(field(over)).is_some_and(|(base, over)| base != over)
}

fn text(text: &str, extent: Extent) -> Node {
    Node { extent, kind: Kind::Scalar { text: text.to_owned(), plain: false } }
}

fn nothing(extent: Extent) -> Node {
    Node { extent, kind: Kind::Scalar { text: String::new(), plain: true } }
}

/// What a dependency means that is only named.
fn started(extent: Extent) -> Node {
    let key = Key { extent, text: "condition".to_owned() };
    Node { extent, kind: Kind::Mapping(vec![(key, text("service_started", extent))]) }
}

/// Turns a list of names into a map.
fn named(node: Node, value: &dyn Fn(Extent) -> Node) -> Node {
    mapped(node, |name, extent| (name, value(extent)))
}

/// Turns a list of `KEY=value` into a map.
fn valued(node: Node) -> Node {
    mapped(node, |item, extent| match item.split_once('=') {
        Some((key, value)) => (key.to_owned(), text(value, extent)),
        None => (item, nothing(extent)),
    })
}

fn mapped(node: Node, entry: impl Fn(String, Extent) -> (String, Node)) -> Node {
    let Kind::Sequence(items) = node.kind else { return node };
    let mut entries: Vec<(Key, Node)> = Vec::new();
    for Node { extent, kind } in items {
        let Kind::Scalar { text, .. } = kind else { continue };
        let (text, value) = entry(text, extent);
        entries.retain(|(key, _)| key.text != text);
        entries.push((Key { extent, text }, value));
    }
    Node { extent: node.extent, kind: Kind::Mapping(entries) }
}

/// Turns one text, or a map, into a list.
fn listed(node: Node) -> Node {
    let extent = node.extent;
    let items = match node.kind {
        Kind::Sequence(items) => items,
        Kind::Mapping(entries) if entries.iter().all(|(_, value)| scalar(value).is_some()) => entries
            .into_iter()
            .map(|(key, value)| text(&format!("{}={}", key.text, scalar(&value).unwrap_or_default()), key.extent))
            .collect(),
        kind => vec![Node { extent, kind }],
    };
    Node { extent, kind: Kind::Sequence(items) }
}
