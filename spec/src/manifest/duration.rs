//! Reads a length of time with its unit, within bounds: one bad value must not stop a host for a century.

use std::time::Duration;

use super::page::Page;
use super::yaml::Node;
use crate::id::shown;
use crate::length::{parse, text as text_of};

/// Reads a duration such as `30s` or `1h30m` between `least` and `most`.
pub(super) fn read(page: &mut Page<'_>, node: &Node, what: &str, least: Duration, most: Duration) -> Option<Duration> {
    let text = page.as_written(node, what)?;
    let Some(length) = parse(text) else {
        let message = format!("{what} is a length of time with its unit, not `{}`", shown(text));
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        page.error("duration", node.extent, message).help(match digits {
            true => format!("add the unit: {text}s for seconds, {text}m for minutes"),
            false => "write it such as 500ms, 30s, 5m or 1h30m".to_owned(),
        });
        return None;
    };
    if !(least..=most).contains(&length) {
        let message = format!("{what} is between {} and {}, not `{}`", text_of(least), text_of(most), shown(text));
        page.error("duration", node.extent, message).help("choose a length of time between the two");
        return None;
    }
    Some(length)
}
