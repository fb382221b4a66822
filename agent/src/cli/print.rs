//! How plans and their differences are printed, for people and for programs.

use serde_json::{Value, json};
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
        "unknown": plan.unknown.iter().map(|it| json!({
            "app": it.app.as_str(), "resource": it.resource.to_string(), "why": it.why,
        })).collect::<Vec<_>>(),
        "waiting": plan.waiting.iter().map(|(app, until)| json!({ "app": app.as_str(), "until": until.to_string() }))
            .collect::<Vec<_>>(),
        "held": held,
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
