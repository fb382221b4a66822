//! Amounts as compose writes them: durations, bytes, CPUs, and lines that a shell would split.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use crate::id::shown;
use crate::manifest::page::{Extent, Page};
use crate::manifest::yaml::{Key, Kind, Meaning, Node};

/// Reads a duration such as `1m30s`, in milliseconds.
pub(super) fn millis(page: &mut Page<'_>, node: &Node, what: &str) -> Option<u64> {
    let text = page.as_written(node, what)?;
    let duration = text.parse::<SignedDuration>().ok().and_then(|it| u64::try_from(it.as_millis()).ok());
    let duration = duration.filter(|_| text.ends_with(|c: char| c.is_ascii_alphabetic()) || text == "0");
    if duration.is_none() {
        page.error("compose-value", node.extent, format!("`{}` is not a duration", shown(text)))
            .help("write a number with its unit, such as 30s or 1m30s");
    }
    duration
}

/// Reads a number of bytes such as `512m`; a bare number is bytes.
pub(super) fn bytes(page: &mut Page<'_>, node: &Node, what: &str) -> Option<i64> {
    let text = page.as_written(node, what)?;
    let parsed = parse_bytes(text);
    if parsed.is_none() {
        page.error("compose-value", node.extent, format!("`{}` is not a number of bytes", shown(text)))
            .help("write a number with its unit, such as 512m or 2g");
    }
    parsed
}

fn parse_bytes(text: &str) -> Option<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
    let shift = match lower[digits.len()..].trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    let factor = 1_i64 << shift;
    match digits.split_once('.') {
        None if plain => digits.parse::<i64>().ok()?.checked_mul(factor),
        Some((whole, fraction)) if plain && fraction.len() <= 9 => {
            let scale = 10_i64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
            let part = fraction.parse::<i64>().ok()?.checked_mul(factor)? / scale;
            whole.parse::<i64>().ok()?.checked_mul(factor)?.checked_add(part)
        }
        _ => None,
    }
}

/// Reads a number of CPUs such as `0.5`, in billionths.
pub(super) fn cpus(page: &mut Page<'_>, node: &Node, what: &str) -> Option<i64> {
    let text = page.as_written(node, what)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    let good = !text.is_empty() && digits(whole) && digits(fraction) && fraction.len() <= 9 && text != ".";
    let parsed = good.then(|| format!("{whole}{fraction:0<9}").parse::<i64>().ok()).flatten();
    if parsed.is_none() {
        page.error("compose-value", node.extent, format!("`{}` is not a number of CPUs", shown(text)))
            .help("write a decimal number, such as 0.5 or 2");
    }
    parsed
}

/// Reads a whole number between two bounds.
pub(super) fn number(page: &mut Page<'_>, node: &Node, what: &str, (least, most): (i64, i64)) -> Option<i64> {
    let text = page.as_written(node, what)?;
    let parsed = text.parse::<i64>().ok().filter(|number| (least..=most).contains(number));
    if parsed.is_none() {
        page.error("compose-value", node.extent, format!("{what} is a whole number, not `{}`", shown(text)))
            .help(format!("write a number from {least} to {most}"));
    }
    parsed
}

/// Reads `true` or `false`, with or without quotes: what a variable stands for has none.
pub(super) fn switch(page: &mut Page<'_>, node: &Node, what: &str) -> Option<bool> {
    match &node.kind {
        Kind::Scalar { text, .. } if text == "true" => Some(true),
        Kind::Scalar { text, .. } if text == "false" => Some(false),
        _ => page.boolean(node, what),
    }
}

/// Reads text that ends up in the engine.
pub(super) fn text(page: &mut Page<'_>, node: &Node, what: &str) -> Option<String> {
    let text = page.as_written(node, what)?;
    if text.contains('\0') {
        page.error("compose-value", node.extent, format!("{what} holds a NUL character")).help("remove the `\\0`");
        return None;
    }
    Some(text.to_owned())
}

/// Reads a list of texts.
pub(super) fn texts(page: &mut Page<'_>, node: &Node, what: &str) -> Vec<String> {
    page.words(node, what).into_iter().map(|(word, _)| word).collect()
}

/// Reads one text or a list of texts.
pub(super) fn one_or_more(page: &mut Page<'_>, node: &Node, what: &str) -> Vec<String> {
    match &node.kind {
        Kind::Sequence(_) => texts(page, node, what),
        _ => text(page, node, what).into_iter().collect(),
    }
}

/// Reads a command: a list of arguments, or one line that is split as a shell splits it, and no more than that.
pub(super) fn command(page: &mut Page<'_>, node: &Node, what: &str) -> Vec<String> {
    if node.is_null() {
        return Vec::new();
    }
    let words = match &node.kind {
        Kind::Scalar { text, .. } => match shlex::split(text) {
            Some(words) => words,
            None => {
                page.error("compose-value", node.extent, format!("{what} has a quote that is never closed"))
                    .help("add the missing quote, or write a list of arguments");
                return Vec::new();
            }
        },
        _ => texts(page, node, what),
    };
    if words.is_empty() {
        page.error("compose-value", node.extent, format!("{what} is empty"))
            .help("remove it to have the image's own; an engine cannot be told to use none");
    }
    words
}

/// Reads a map, or a list of `KEY=value`; what has no value is `None`.
pub(super) fn pairs(page: &mut Page<'_>, node: &Node, what: &str) -> Vec<(String, Option<String>, Extent)> {
    let Kind::Sequence(_) = &node.kind else {
        let entries = page.entries(node, what).unwrap_or_default();
        return entries.iter().filter_map(|(key, node)| pair(page, key, node)).collect();
    };
    let words = page.words(node, what).into_iter();
    let split = words.map(|(word, extent)| match word.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned()), extent),
        None => (word, None, extent),
    });
    split.collect()
}

fn pair(page: &mut Page<'_>, key: &Key, node: &Node) -> Option<(String, Option<String>, Extent)> {
    if node.is_null() {
        return Some((key.text.clone(), None, key.extent));
    }
    let value = text(page, node, &format!("`{}`", shown(&key.text)))?;
    if is_ambiguous(node, &value) {
        page.error(
            "compose-value",
            node.extent,
            format!("compose would not read `{}` as it is written", shown(&value)),
        )
        .help(format!("put quotes around it: \"{}\"", shown(&value)));
    }
    Some((key.text.clone(), Some(value), key.extent))
}

/// Says whether this is a number or boolean that compose would print in another way: `1.10` becomes 1.1, and `0755` 493.
fn is_ambiguous(node: &Node, text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    match node.meaning() {
        Meaning::Boolean => !matches!(text, "true" | "false"),
        Meaning::Number => match unsigned.split_once('.') {
            None => unsigned != "0" && (unsigned.starts_with('0') || !unsigned.bytes().all(|b| b.is_ascii_digit())),
            Some((whole, fraction)) => {
                let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                !digits(whole)
                    || !digits(fraction)
                    || fraction.ends_with('0')
                    || (whole.len() > 1 && whole.starts_with('0'))
            }
        },
        Meaning::Null | Meaning::Text => false,
    }
}

/// Reads a map of texts, or a list of `KEY=value`; no value is an empty one.
pub(super) fn map(page: &mut Page<'_>, node: &Node, what: &str) -> BTreeMap<String, String> {
    pairs(page, node, what).into_iter().map(|(key, value, _)| (key, value.unwrap_or_default())).collect()
}

/// Reads labels, of which those that mainstay sets itself are taken.
pub(super) fn labels(page: &mut Page<'_>, node: &Node) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (key, value, extent) in pairs(page, node, "`labels`") {
        if key.starts_with("io.mainstay.") || key.starts_with("com.docker.compose.") {
            page.error("container-label", extent, format!("label `{}` is set by mainstay", shown(&key)))
                .help("use another prefix");
            continue;
        }
        labels.insert(key, value.unwrap_or_default());
    }
    labels
}

/// Reads permission bits: octal digits, as everybody writes them, with or without quotes.
pub(super) fn mode_of(page: &mut Page<'_>, node: &Node) -> Option<u32> {
    let text = page.as_written(node, "`mode`")?;
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o7777 && digits.len() >= 3);
    if mode.is_none() {
        page.error("file-mode", node.extent, format!("`{}` is not a mode of octal digits", shown(text)))
            .help("write it as chmod takes it, such as \"0440\"");
    }
    mode
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units_of_1024() {
        for (text, expected) in [
            ("1k", Some(1024)),
            ("1.5g", Some(1_610_612_736)),
            ("64MB", Some(67_108_864)),
            ("12", Some(12)),
            ("1x", None),
            ("", None),
            ("-1", None),
        ] {
            assert_eq!(parse_bytes(text), expected, "{text}");
        }
    }
}
