//! Writes the key of a host into the text of fleet.yaml, where its author would have written it, and leaves all else as it is.

use std::ops::Range;

use serde_json::{Map, Value};

use super::page::{Extent, Page};
use super::yaml::{self, Key, Kind, Node};
use crate::id::HostName;

/// Returns fleet.yaml with the key of a host in it, or `None` where it names that one already.
///
/// # Errors
/// It has mistakes, or is written in a way in which no line can be added: a person has to.
pub fn enrolled(text: &str, host: &HostName, key: &str) -> Result<Option<String>, String> {
    let before = read(text).ok_or("it has mistakes")?;
    let mut wanted = value(&before);
    if !wanted.is_object() {
        return Err("it is no map".to_owned());
    }
    if wanted["hosts"][host.as_str()]["key"] == key {
        return Ok(None);
    }
    let entry = format!("{{ key: {} }}", Value::from(key));
    let (place, new) = edit(text, &before, host, key, &entry).ok_or("its hosts are written in an unusual form")?;
    let mut after = text.to_owned();
    after.replace_range(place, &new);
    for at in ["hosts", host.as_str()] {
        let within = if at == "hosts" { &mut wanted } else { &mut wanted["hosts"] };
        if !within[at].is_object() {
            within[at] = Value::Object(Map::new());
        }
    }
    wanted["hosts"][host.as_str()]["key"] = key.into();
    // Whatever the form: what comes out says what it said, and this.
    match read(&after).map(|after| value(&after)) {
        Some(found) if found == wanted => Ok(Some(after)),
        _ => Err("its hosts are written in a form to which no line can be added".to_owned()),
    }
}

fn read(text: &str) -> Option<Node> {
    let mut page = Page::new("fleet.yaml", text);
    yaml::read(&mut page).filter(|_| page.errors() == 0)
}

/// Takes what is said, without where.
fn value(node: &Node) -> Value {
    match &node.kind {
        _ if node.is_null() => Value::Null,
        Kind::Scalar { text, .. } => Value::from(text.as_str()),
        Kind::Sequence(items) => items.iter().map(value).collect(),
        Kind::Mapping(entries) => {
            Value::Object(entries.iter().map(|(key, node)| (key.text.clone(), value(node))).collect())
        }
    }
}

fn entries(node: &Node) -> &[(Key, Node)] {
    match &node.kind {
        Kind::Mapping(entries) => entries,
        _ => &[],
    }
}

fn find<'n>(node: &'n Node, name: &str) -> Option<&'n (Key, Node)> {
    entries(node).iter().find(|(key, _)| key.text == name)
}

/// Says what takes the place of what.
fn edit(text: &str, root: &Node, host: &HostName, key: &str, entry: &str) -> Option<(Range<usize>, String)> {
    let Some(hosts) = find(root, "hosts") else {
        // A file in one line has no lines to add one to.
        let is_block = !text[root.extent.start..].starts_with('{');
        let gap = if text.ends_with('\n') { "" } else { "\n" };
        return is_block.then(|| (text.len()..text.len(), format!("{gap}hosts:\n  {host}: {entry}\n")));
    };
    let Some((name, known)) = find(&hosts.1, host.as_str()) else {
        return among(text, hosts, &format!("{host}: {entry}"), |entry| format!("\n  {entry}"));
    };
    match find(known, "key") {
        Some((_, old)) => Some((range(old.extent), Value::from(key).to_string())),
        None => {
            let line = format!("key: {}", Value::from(key));
            among(text, &(name.clone(), known.clone()), &line, |entry| format!(" {{ {entry} }}"))
        }
    }
}

/// Adds an entry to the map behind a key, or makes a `first` one.
fn among(
    text: &str,
    (key, node): &(Key, Node),
    entry: &str,
    first: impl Fn(&str) -> String,
) -> Option<(Range<usize>, String)> {
    let start = node.extent.start;
    if node.is_null() {
        let behind = key.extent.end + text[key.extent.end..].find(':')? + 1;
        // `~` or `null`, or nothing.
        let end = if start >= behind { node.extent.end } else { behind };
        return Some((behind..end, first(entry)));
    }
    let all = entries(node);
    if text[start..].starts_with('{') {
        let gap = if text[start + 1..].starts_with(' ') { "" } else { " " };
        return Some(match all.is_empty() {
            true => (start..node.extent.end, format!("{{ {entry} }}")),
            false => (start + 1..start + 1, format!(" {entry},{gap}")),
        });
    }
    let margin = " ".repeat(column(text, &all.first()?.0));
    let end = all.iter().map(|(key, node)| last(key, node)).max()?;
    let line_end = text[end..].find('\n').map_or(text.len(), |at| end + at);
    Some((line_end..line_end, format!("\n{margin}{entry}")))
}

/// Returns where the last of what is written at and below a key ends.
fn last(key: &Key, node: &Node) -> usize {
    match &node.kind {
        _ if node.is_null() => key.extent.end.max(node.extent.end),
        Kind::Mapping(entries) if !entries.is_empty() => {
            let within = entries.iter().map(|(key, node)| last(key, node)).max().unwrap_or_default();
            // Of a map in braces, these; of one in lines, what is in them: what follows may be said of what comes after.
            within.max(if entries[0].0.extent.start > node.extent.start { node.extent.end } else { within })
        }
        _ => node.extent.end,
    }
}

fn column(text: &str, key: &Key) -> usize {
    let before = &text[..key.extent.start];
    before.len() - before.rfind('\n').map_or(0, |at| at + 1)
}

fn range(extent: Extent) -> Range<usize> {
    extent.start..extent.end
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const KEY: &str = "ssh-ed25519 AAAA";

    fn check(text: &str, expected: &Expect) {
        let host = HostName::parse("attic").expect("a name");
        let said = match enrolled(text, &host, KEY) {
            Ok(Some(text)) => text,
            Ok(None) => "as it is".to_owned(),
            Err(why) => format!("error: {why}"),
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn a_key_stands_where_its_author_would_have_written_it() {
        check(
            "# ours\nfleet: home\nhosts:\n  attic: {} # up there\n  barn:\n    labels: { role: web }\n# people\nrecipients: []\n",
            &expect![[r##"
                # ours
                fleet: home
                hosts:
                  attic: { key: "ssh-ed25519 AAAA" } # up there
                  barn:
                    labels: { role: web }
                # people
                recipients: []
            "##]],
        );
        check(
            "fleet: home\nhosts:\n  barn: {}\n\n# people\nrecipients: []\n",
            &expect![[r#"
            fleet: home
            hosts:
              barn: {}
              attic: { key: "ssh-ed25519 AAAA" }

            # people
            recipients: []
        "#]],
        );
        check(
            "fleet: home\nhosts:\n    barn:\n        labels: { role: web }   # the web\nrecipients: []",
            &expect![[r#"
                fleet: home
                hosts:
                    barn:
                        labels: { role: web }   # the web
                    attic: { key: "ssh-ed25519 AAAA" }
                recipients: []"#]],
        );
        check(
            "fleet: home\nhosts: { attic: {}, barn: {} }\n",
            &expect![[r#"
            fleet: home
            hosts: { attic: { key: "ssh-ed25519 AAAA" }, barn: {} }
        "#]],
        );
        check(
            "fleet: home\nhosts: { barn: {} }\n",
            &expect![[r#"
            fleet: home
            hosts: { attic: { key: "ssh-ed25519 AAAA" }, barn: {} }
        "#]],
        );
        check(
            "fleet: home\nhosts: {}\n",
            &expect![[r#"
            fleet: home
            hosts: { attic: { key: "ssh-ed25519 AAAA" } }
        "#]],
        );
    }

    #[test]
    fn a_key_stands_beside_what_is_said_of_its_host() {
        check(
            "fleet: home\nhosts:\n  attic:\n  barn:\n",
            &expect![[r#"
            fleet: home
            hosts:
              attic: { key: "ssh-ed25519 AAAA" }
              barn:
        "#]],
        );
        check(
            "fleet: home\nhosts:\n  attic: ~\n",
            &expect![[r#"
            fleet: home
            hosts:
              attic: { key: "ssh-ed25519 AAAA" }
        "#]],
        );
        check(
            "fleet: home\nhosts:\n  attic:\n    address: a.example\n    labels:\n      role: web\n  barn: {}\n",
            &expect![[r#"
                fleet: home
                hosts:
                  attic:
                    address: a.example
                    labels:
                      role: web
                    key: "ssh-ed25519 AAAA"
                  barn: {}
            "#]],
        );
        check(
            "fleet: home\nhosts:\n  attic: { labels: { role: web } }\n",
            &expect![[r#"
            fleet: home
            hosts:
              attic: { key: "ssh-ed25519 AAAA", labels: { role: web } }
        "#]],
        );
        check(
            "fleet: home\nhosts:\n  attic: { key: \"ssh-ed25519 BBBB\" }\n",
            &expect![[r#"
            fleet: home
            hosts:
              attic: { key: "ssh-ed25519 AAAA" }
        "#]],
        );
        check(
            "fleet: home\nhosts:\n  attic:\n    key: ssh-ed25519 BBBB # the old one\n",
            &expect![[r#"
            fleet: home
            hosts:
              attic:
                key: "ssh-ed25519 AAAA" # the old one
        "#]],
        );
        check("fleet: home\nhosts:\n  attic: { key: \"ssh-ed25519 AAAA\" }\n", &expect!["as it is"]);
        check(
            "fleet: home",
            &expect![[r#"
            fleet: home
            hosts:
              attic: { key: "ssh-ed25519 AAAA" }
        "#]],
        );
        check(
            "fleet: home\nhosts:\n",
            &expect![[r#"
            fleet: home
            hosts:
              attic: { key: "ssh-ed25519 AAAA" }
        "#]],
        );
    }

    #[test]
    fn what_cannot_be_added_to_is_left_alone() {
        check("{ fleet: home }", &expect!["error: its hosts are written in an unusual form"]);
        check("- home\n", &expect!["error: it is no map"]);
        check("fleet: [\n", &expect!["error: it has mistakes"]);
        check("fleet: home\nhosts: [attic]\n", &expect!["error: its hosts are written in an unusual form"]);
        check(
            "fleet: home\nx: &x { barn: {} }\nhosts: *x\n",
            &expect!["error: its hosts are written in a form to which no line can be added"],
        );
    }
}
