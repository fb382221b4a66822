//! `fleet.yaml` and `hosts/*.yaml`.

use serde_json::Value;

use super::{choice, either, list, map, or_nothing, table, table_with, text, vars, word};

/// The whole file.
pub(super) fn file() -> Value {
    let defaults = table(&[
        ("environment", text(), "The environment of hosts that name none."),
        ("drift", choice(&["repair", "report"]), DRIFT),
    ]);
    let acknowledgement = table_with(
        &["prune", "reason"],
        &[
            ("prune", word(), "The digest that `mainstay status` prints for the removals that wait."),
            ("reason", text(), "Why that may all be removed."),
        ],
    );
    table_with(
        &["fleet"],
        &[
            ("fleet", text(), "The name of the fleet: it marks on each host what belongs to this repository."),
            ("defaults", defaults, "What holds where nothing else is said."),
            (
                "hosts",
                hosts(),
                "The hosts by their names, which are their machines' names unless their settings say otherwise.",
            ),
            ("environments", map(or_nothing(environment())), "Environments by their names, such as prod and test."),
            (
                "acknowledge",
                list(acknowledgement),
                "Lets many things be removed at once, which waits otherwise: `mainstay status` prints the line to write.",
            ),
        ],
    )
}

/// What becomes of drift.
pub(super) const DRIFT: &str =
    "What happens when the host departs from the commit: `repair` puts it back, `report` only says so.";

/// A map of hosts.
pub(super) fn hosts() -> Value {
    map(or_nothing(host()))
}

fn host() -> Value {
    table(&[
        ("labels", map(text()), "Words of your own, such as `role: web`, that `place:` in app.yaml selects hosts by."),
        ("address", text(), "Where others reach it: an IP address or a DNS name, for endpoints."),
        ("key", text(), "The public key that it signs its records with: ssh-ed25519 AAAA…"),
        ("environment", text(), "The environment that it is in."),
        ("vars", vars(), "Values for templates, which count more than those of the environment and of applications."),
    ])
}

fn environment() -> Value {
    let endpoint = table_with(&["url"], &[("url", text(), "Where it is.")]);
    table(&[
        ("vars", vars(), "Values for templates, which count more than those of applications."),
        (
            "endpoints",
            map(either(text(), endpoint)),
            "Services outside the fleet, by their names in templates, such as `billing: https://billing.example`.",
        ),
    ])
}
