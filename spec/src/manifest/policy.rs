//! Reads what an entry of `files:`, `units:` or `containers:` says beyond what it wants: whether something that is there already
//! is taken over, and what happens to drift.

use super::decode::Table;
use super::model::{Drift, Policy};
use super::page::Page;

/// The words for drift.
pub(super) const DRIFT: [(&str, Drift); 2] = [("repair", Drift::Repair), ("report", Drift::Report)];

/// Takes `adopt` and `drift` from an entry.
pub(super) fn read(page: &mut Page<'_>, table: &mut Table<'_>) -> Policy {
    let adopt = table.take("adopt").and_then(|(_, node)| page.boolean(node, "`adopt`"));
    let drift = table.take("drift").and_then(|(_, node)| page.choice(node, "`drift`", &DRIFT));
    Policy { adopt, drift }
}
