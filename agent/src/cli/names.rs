//! Names that people give on the command line: what is there, and what was most likely meant.

use std::collections::BTreeSet;

use spec::id::{AppName, shown};
use spec::manifest;

use crate::pass::Host;

/// Refuses applications that are neither on this host nor wanted on it.
pub(super) fn known(host: &Host, apps: &BTreeSet<AppName>) -> anyhow::Result<()> {
    let wanted = host.belief.iter().flat_map(|belief| belief.desired.apps.keys());
    let memory = &host.ledger.memory;
    let here: BTreeSet<&AppName> =
        memory.apps.keys().chain(memory.owned.values().map(|owned| &owned.app)).chain(wanted).collect();
    let Some(wrong) = apps.iter().find(|app| !here.contains(app)) else { return Ok(()) };
    anyhow::bail!(
        "there is no application `{wrong}` on this host{}",
        hint(wrong.as_str(), here.iter().map(|app| app.as_str()))
    )
}

/// Says what was most likely meant, else what there is.
pub(super) fn hint<'k>(wrong: &str, known: impl Iterator<Item = &'k str> + Clone) -> String {
    const MOST_LISTED: usize = 20;
    if let Some(near) = manifest::nearest(wrong, known.clone()) {
        return format!(": did you mean `{}`?", shown(near));
    }
    let all = known.clone().count();
    let listed: Vec<&str> = known.take(MOST_LISTED).collect();
    match (all, all.saturating_sub(MOST_LISTED)) {
        (0, _) => ", which has none".to_owned(),
        (_, 0) => format!(", which has {}", listed.join(", ")),
        (_, more) => format!(", which has {} and {more} more", listed.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_told_apart_from_a_name_that_nobody_knows() {
        let known = ["page", "web-shop"];
        assert_eq!(hint("wbe-shop", known.into_iter()), ": did you mean `web-shop`?");
        assert_eq!(hint("database", known.into_iter()), ", which has page, web-shop");
        assert_eq!(hint("web", [].into_iter()), ", which has none");
        let many: Vec<String> = (0..30).map(|index| format!("app-{index}")).collect();
        assert!(hint("database", many.iter().map(String::as_str)).ends_with(" and 10 more"));
    }
}
