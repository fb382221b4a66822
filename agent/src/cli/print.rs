//! How plans and their differences are printed, for people and for programs.

use jiff::Timestamp;
use serde_json::{Value, json};
use spec::desired::Hold;
use spec::plan::{Plan, Step};

use crate::difference::Difference;

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
    let held = plan.held.as_ref().map(|held| {
        json!({
            "acknowledge": held.digest,
            "removals": held.removals.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "owned": held.owned,
        })
    });
    json!({
        "steps": plan.steps.iter().map(step).collect::<Vec<_>>(),
        "drift": plan.drift.iter().map(step).collect::<Vec<_>>(),
        "conflicts": plan.conflicts.iter().map(|it| json!({
            "app": it.app.as_str(), "resource": it.resource.to_string(), "why": it.why,
        })).collect::<Vec<_>>(),
        "contested": plan.contested.iter().map(|(id, app)| json!({ "app": app.as_str(), "resource": id.to_string() }))
            .collect::<Vec<_>>(),
        "unknown": plan.unknown.iter().map(|it| json!({
            "app": it.app.as_str(), "resource": it.resource.to_string(), "why": it.why,
        })).collect::<Vec<_>>(),
        "waiting": plan.waiting.iter().map(|(app, until)| json!({ "app": app.as_str(), "until": until.to_string() }))
            .collect::<Vec<_>>(),
        "held-back": plan.held_back.iter().map(|(app, held)| json!({
            "app": app.as_str(),
            "why": match &held.why {
                Hold::Bad => "failed",
                Hold::Stuck(_) => "stuck",
                Hold::Waits(_) => "waits",
            },
            "for": match &held.why {
                Hold::Waits(why) | Hold::Stuck(why) => Some(why),
                Hold::Bad => None,
            },
            "at": held.commit.as_ref().map(spec::id::CommitId::as_str),
        })).collect::<Vec<_>>(),
        "held": held,
        "kept": plan.keeps.iter().map(|(path, keep)| json!({ "path": path.as_str(), "why": keep.as_str() }))
            .collect::<Vec<_>>(),
        "notes": plan.notes.iter().map(|it| json!({
            "app": it.app.as_str(), "resource": it.resource.to_string(), "text": it.text,
        })).collect::<Vec<_>>(),
        "differences": differences.iter().map(|it| json!({ "path": it.path.as_str(), "text": it.text })).collect::<Vec<_>>(),
    })
}

fn step(step: &Step) -> Value {
    json!({
        "app": step.app.as_ref().map(spec::id::AppName::as_str),
        "verb": step.action.verb(),
        "object": step.action.object(),
        "why": step.why.to_string(),
    })
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
