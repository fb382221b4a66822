//! How plans and their differences are printed, for people and for programs.

use jiff::Timestamp;
use serde_json::{Value, json};
use spec::memory::AppState;
use spec::plan::Plan;

use super::width::{self, folded};
use crate::difference::Difference;
use crate::snapshot::PlanView;

/// Puts a colour around a text.
pub(super) fn painted(text: &str, code: &str, colour: bool) -> String {
    if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const CYAN: &str = "36";

/// Returns the colour of a state.
pub(super) fn colour_of(state: AppState) -> &'static str {
    match state {
        AppState::Baking | AppState::Converged | AppState::Repaired => GREEN,
        AppState::Failed | AppState::Unhealthy => RED,
        AppState::Waiting | AppState::Applying | AppState::RolledBack | AppState::Drifted => YELLOW,
    }
}

/// Prints a plan.
pub(super) fn plan(plan: &Plan, colour: bool) {
    print!("{}", folded(&plan_text(plan, colour), width::of_output()));
}

/// Puts a plan into words: the first of each line says how much it matters.
pub(super) fn plan_text(plan: &Plan, colour: bool) -> String {
    let mut text = String::new();
    for line in plan.to_string().lines() {
        let (word, rest) = line.split_at(line.find(' ').unwrap_or(line.len()));
        let code = match word {
            "" => None,
            "create" | "start" | "enable" | "pull" | "fetch" => Some(GREEN),
            "remove" | "stop" | "disable" | "conflict" | "stopped:" => Some(RED),
            "paused:" | "waits:" | "waiting:" | "held:" | "held" | "left" | "drift," => Some(YELLOW),
            "write" | "set" | "replace" | "restart" | "reload" => Some(CYAN),
            _ => None,
        };
        let word = code.map_or_else(|| word.to_owned(), |code| painted(word, code, colour));
        text.extend([&word, rest, "\n"]);
    }
    text
}

/// Prints differences below a plan.
pub(super) fn differences(differences: &[Difference], colour: bool) {
    for difference in differences {
        println!();
        if !difference.text.starts_with("---") {
            print!("{}: {}", difference.path, difference.text);
            continue;
        }
        for line in difference.text.lines() {
            let code = match line.as_bytes() {
                [b'-', b'-', b'-', ..] | [b'+', b'+', b'+', ..] => "1",
                [b'-', ..] => "31",
                [b'+', ..] => "32",
                [b'@', ..] => "36",
                _ => "0",
            };
            if colour { println!("\u{1b}[{code}m{line}\u{1b}[0m") } else { println!("{line}") }
        }
    }
}

/// Returns a plan as JSON.
pub(super) fn plan_as_json(plan: &Plan, differences: &[Difference]) -> Value {
    json!(PlanView::of(plan).with(differences.iter().cloned()))
}

/// How a table says when something was: with the time of the day where there is room for it.
#[derive(Clone, Copy)]
pub(super) enum Since {
    /// The time, and how long ago that is.
    Whole,
    /// How long ago.
    Short,
}

impl Since {
    /// Chooses by what else stands in a line, and how wide the terminal is, if it is one.
    pub(super) fn beside(rest: usize, width: Option<usize>) -> Since {
        if width.is_none_or(|width| rest + Since::Whole.width() <= width) { Since::Whole } else { Since::Short }
    }

    /// Returns how wide the column is.
    pub(super) fn width(self) -> usize {
        match self {
            Since::Whole => "2026-11-22 04:23:38Z (59 min ago)".len(),
            Since::Short => "59 min ago".len(),
        }
    }

    /// Says when it was.
    pub(super) fn say(self, then: Timestamp, now: Timestamp) -> String {
        match self {
            Since::Whole => format!("{} ({})", then.strftime("%Y-%m-%d %H:%M:%SZ"), ago(then, now)),
            Since::Short => ago(then, now),
        }
    }
}

/// Says how long ago something was, in its largest unit.
pub(super) fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs();
    match seconds {
        i64::MIN..=-1 => "in the future".to_owned(),
        0..=59 => format!("{seconds} s ago"),
        60..=3599 => format!("{} min ago", seconds / 60),
        3600..=86_399 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_use_their_largest_unit() {
        let now = Timestamp::from_second(1_000_000).expect("a time");
        let check = |seconds: i64, expected: &str| {
            let then = Timestamp::from_second(1_000_000 - seconds).expect("a time");
            assert_eq!(ago(then, now), expected);
        };
        check(5, "5 s ago");
        check(60, "1 min ago");
        check(7200, "2 h ago");
        check(200_000, "2 d ago");
        check(-5, "in the future");
    }
}
