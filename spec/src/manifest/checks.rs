//! Reads `checks:` of app.yaml: a list of places to look at, each with what must be found there.

use std::collections::BTreeSet;
use std::time::Duration;

use super::decode::Table;
use super::duration;
use super::page::{Extent, Page};
use super::words::one_of;
use super::yaml::{Kind, Node};
use crate::authority::{is_authority, is_host, is_port};
use crate::check::{Check, INTERVAL, Probe, TIMEOUT, WITHIN};
use crate::id::{ContainerName, UnitName, shown};

/// The kinds, of which each check has one.
const KINDS: [&str; 5] = ["tcp", "http", "exec", "unit", "container"];
/// More checks than this of one application are a mistake.
const MOST: usize = 50;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// Reads the list.
pub(super) fn read(page: &mut Page<'_>, node: &Node) -> Vec<Check> {
    let mut checks = Vec::new();
    let items = page.list(node, "`checks`").unwrap_or_default();
    if let Some(first) = items.get(MOST) {
        page.error("check", first.extent, format!("an application has at most {MOST} checks"))
            .help("let one program look at many things: { exec: [/usr/local/bin/smoke] }");
    }
    for node in items.iter().take(MOST) {
        if let Some(check) = check(page, node) {
            if checks.contains(&check) {
                page.error("check", node.extent, format!("this {check} is there already"))
                    .help("remove one of the two");
            }
            checks.push(check);
        }
    }
    checks
}

fn check(page: &mut Page<'_>, node: &Node) -> Option<Check> {
    let mut table = page.table(node, "a check")?;
    let mut probes: Vec<(Extent, Option<Probe>)> = Vec::new();
    for kind in KINDS {
        if let Some((key, value)) = table.take(kind) {
            probes.push((key.extent, probe(page, kind, value, &mut table)));
        }
    }
    let name = table.take("name").and_then(|(_, node)| page.text(node, "`name`")).map(str::to_owned);
    let mut time = |key, least, most| {
        let (_, node) = table.take(key)?;
        duration::read(page, node, &format!("`{key}`"), least, most)
    };
    let within = time("within", SECOND, 10 * 60 * SECOND).unwrap_or(WITHIN);
    let timeout = time("timeout", SECOND / 10, 10 * 60 * SECOND).unwrap_or(TIMEOUT);
    let interval = time("interval", SECOND, DAY).unwrap_or(INTERVAL);
    let misspelt = KINDS.iter().any(|kind| table.has_misspelt(kind));
    table.finish(page, "a check");
    let mut probes = probes.into_iter();
    let Some((_, probe)) = probes.next() else {
        if !misspelt {
            page.error("check", node.extent, "this check looks at nothing")
                .help(format!("add {}, such as {{ tcp: 127.0.0.1:1883 }}", one_of(&KINDS)));
        }
        return None;
    };
    if let Some((extent, _)) = probes.next() {
        page.error("check", extent, "a check looks at one thing").help("make an item of its own for each");
        return None;
    }
    Some(Check { name, probe: probe?, within, timeout, interval })
}

fn probe(page: &mut Page<'_>, kind: &'static str, node: &Node, table: &mut Table<'_>) -> Option<Probe> {
    match kind {
        "tcp" => Some(Probe::Tcp { address: tcp(page, node)? }),
        "http" => {
            let status = table.take("status").map(|(_, node)| status(page, node)).unwrap_or_default();
            let body = table.take("body").and_then(|(_, node)| page.text(node, "`body`")).map(str::to_owned);
            Some(Probe::Http { url: url(page, node)?, status, body })
        }
        "exec" => {
            let user = table.take("user").and_then(|(_, node)| user(page, node));
            Some(Probe::Exec { command: command(page, node)?, user })
        }
        "unit" => {
            let text = page.text(node, "`unit`")?;
            let unit = UnitName::parse(text);
            if unit.as_ref().is_ok_and(UnitName::is_template) {
                page.error("check", node.extent, format!("`{}` is a template, which is never active", shown(text)))
                    .help("name an instance of it");
                return None;
            }
            match unit {
                Ok(unit) => Some(Probe::Unit { unit }),
                Err(why) => {
                    page.error("unit-name", node.extent, format!("this is not a unit's name: {why}"))
                        .help("write the whole name, such as web.service");
                    None
                }
            }
        }
        _ => {
            let text = page.text(node, "`container`")?;
            let container = ContainerName::parse(text);
            let container = page.name("container-name", node.extent, "a name", container)?;
            // Whose it is shows when all that the application brings to a host is known.
            Some(Probe::Container { container, service: None })
        }
    }
}

fn tcp(page: &mut Page<'_>, node: &Node) -> Option<String> {
    let text = page.as_written(node, "`tcp`")?;
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let good_host = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_host(host),
    };
    if good_host && is_port(port) {
        return Some(text.to_owned());
    }
    page.error("check", node.extent, format!("`tcp` is HOST:PORT, not `{}`", shown(text)))
        .help("write it such as 127.0.0.1:1883 or \"[::1]:1883\"");
    None
}

fn url(page: &mut Page<'_>, node: &Node) -> Option<String> {
    let text = page.text(node, "`http`")?;
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    let (why, help) = if rest.is_none() {
        ("it begins with neither http:// nor https://", "write the whole URL, such as http://127.0.0.1:9234/healthz")
    } else if authority.contains('@') {
        ("it holds a user or password, which everybody who reads the repository sees", "remove what is before the `@`")
    } else if !is_authority(authority) {
        ("its host or port is none", "write the whole URL, such as http://127.0.0.1:9234/healthz")
    } else if text.chars().any(|c| !c.is_ascii_graphic()) {
        ("it holds a character that URLs escape", "write it with %-escapes, such as %20 for a space")
    } else {
        return Some(text.to_owned());
    };
    page.error("check", node.extent, format!("`{}` is not a URL to check: {why}", shown(text))).help(help);
    None
}

fn status(page: &mut Page<'_>, node: &Node) -> BTreeSet<u16> {
    let nodes = match &node.kind {
        Kind::Sequence(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut codes = BTreeSet::new();
    for node in nodes {
        let Some(text) = page.as_written(node, "`status`") else { continue };
        match text.parse::<u16>().ok().filter(|code| text.len() == 3 && (100..=599).contains(code)) {
            Some(code) => {
                codes.insert(code);
            }
            None => {
                page.error("check", node.extent, format!("`{}` is no status code", shown(text)))
                    .help("write a number from 100 to 599, or a list of them; without `status`, 200 to 399 count");
            }
        }
    }
    codes
}

fn command(page: &mut Page<'_>, node: &Node) -> Option<Vec<String>> {
    if let Kind::Scalar { text, .. } = &node.kind
        && !node.is_null()
    {
        let words: Vec<String> = text.split_whitespace().map(|word| format!("\"{}\"", shown(word))).collect();
        page.error("check", node.extent, "`exec` is a list, the program and its arguments: no shell takes it apart")
            .help(format!("write [{}]", words.join(", ")));
        return None;
    }
    let words = page.words(node, "`exec`");
    let Some((program, extent)) = words.first() else {
        if page.list(node, "`exec`").is_some_and(<[Node]>::is_empty) {
            page.error("check", node.extent, "`exec` names no program").help("write [\"/usr/local/bin/smoke\"]");
        }
        return None;
    };
    if crate::id::HostPath::parse(program).is_err() {
        page.error("check", *extent, format!("`{}` is not the absolute path of a program", shown(program)))
            .help("write where it is, such as /usr/bin/curl: a check has no PATH to search");
        return None;
    }
    if let Some((word, extent)) = words.iter().find(|(word, _)| word.contains('\0')) {
        page.error("check", *extent, format!("`{}` holds a NUL, which no argument can", shown(word))).help("remove it");
        return None;
    }
    Some(words.into_iter().map(|(word, _)| word).collect())
}

fn user(page: &mut Page<'_>, node: &Node) -> Option<String> {
    let text = page.as_written(node, "`user`")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let good = !text.is_empty() && text.len() <= 64 && !text.starts_with(['-', '.']) && text.chars().all(plain);
    if !good {
        page.error("check", node.extent, format!("`{}` is not a user", shown(text))).help("write a name or a number");
    }
    good.then(|| text.to_owned())
}
