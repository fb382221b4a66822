//! `fleet.yaml` and `hosts/*.yaml`.

use serde_json::{Value, json};

use super::{
    choice, duration, either, list, map, or_nothing, place, place_definition, table, table_with, text, vars, with, word,
};
use crate::manifest::{RULES, events};

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
    let whole = table_with(
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
            (
                "rollouts",
                map(rollout()),
                "How changes spread over the hosts, by names that `rollout:` in app.yaml gives; `default` is that of all others.",
            ),
            ("freezes", list(freeze()), "Times in which no change begins."),
            ("holds", list(held()), "Applications of which nothing new is deployed until the line is removed."),
            ("overrides", list(exception()), "Rules that one commit may break, for a while and for a reason."),
            ("alerts", list(alert()), "Who is told of what happens on every host, and to the fleet as a whole."),
            ("trust", trust(), "Whose commits are believed."),
            (
                "recipients",
                list(text()),
                "The people for whom everything is encrypted, beside the hosts that need it: age1… or ssh-ed25519 AAAA….",
            ),
        ],
    );
    with(whole, "$defs", json!({ "place": place_definition() }))
}

fn rollout() -> Value {
    let selector = table_with(&["where"], &[("where", place(), "The hosts of this wave, by their labels.")]);
    let share = with(text(), "pattern", "^[0-9]+%$".into());
    let share = table_with(
        &["share"],
        &[("share", share, "As much of the hosts that match no selector, such as 10%, with the shares before.")],
    );
    table(&[
        (
            "waves",
            list(either(selector, share)),
            "Who changes when: selectors first, then growing shares of all others.",
        ),
        ("bake", duration(), "How long a host has to be healthy before the next wave begins [default: 0s]."),
        ("max-unavailable", word(), "How many hosts may be changing at a time, such as 1 or 10% [default: 25%]."),
        ("failures", word(), "How many hosts may fail before nobody else changes, such as 1 or 5% [default: 0]."),
        ("silent-after", duration(), "How long a host is waited for that says nothing [default: 15m]."),
        (
            "progress-deadline",
            duration(),
            "How long a host is waited for, beyond twice the bake, that says it is on its way [default: four times \
             `silent-after`, 10m at least].",
        ),
        ("on-failure", choice(&["rollback", "stop"]), "What a host does where the change failed [default: rollback]."),
        (
            "windows",
            list(with(text(), "examples", json!(["Mon..Thu 09:00-16:00 Europe/Berlin"]))),
            "When changes may begin: days, times and a time zone.",
        ),
    ])
}

const REASON: &str = "Why, in one line: it is shown wherever something waits because of this.";

fn freeze() -> Value {
    table_with(
        &["from", "to", "reason"],
        &[
            ("from", word(), "The first day, such as 2026-12-20, or a time, such as 2026-12-20T18:00."),
            ("to", word(), "The last day, which is part of it, or a time."),
            ("zone", text(), "The time zone of days and times, such as Europe/Berlin [default: UTC]."),
            ("where", place(), "The hosts that it is for [default: all]."),
            ("apps", with(list(text()), "minItems", 1.into()), "The applications that it is for [default: all]."),
            ("reason", text(), REASON),
        ],
    )
}

fn held() -> Value {
    table_with(
        &["app", "reason"],
        &[
            ("app", text(), "The application, or `all`."),
            ("where", place(), "The hosts that it is for [default: all]."),
            ("reason", text(), REASON),
        ],
    )
}

fn exception() -> Value {
    let rules = RULES.map(|(rule, _)| rule);
    table_with(
        &["commit", "app", "ignore", "reason", "until"],
        &[
            ("commit", word(), "The commit that it is for: at least 7 of its digits."),
            ("app", text(), "The application, or `all`."),
            ("ignore", with(list(choice(&rules)), "minItems", 1.into()), "The rules that do not hold."),
            ("reason", text(), REASON),
            (
                "until",
                word(),
                "When they hold again: a day, at the end of which, or a time such as 2026-12-24T18:00:00Z.",
            ),
        ],
    )
}

fn alert() -> Value {
    let events: Vec<&str> = events().collect();
    let on = with(list(choice(&events)), "minItems", 1.into());
    let alert = table(&[
        ("webhook", url(), "An address that gets each alert as JSON."),
        ("alertmanager", url(), "The address of an Alertmanager."),
        ("ntfy", url(), "The address of a topic of ntfy."),
        ("on", on, "What is told there; `halted` and `silent` by one host for all [default: all]."),
    ]);
    let one = ["webhook", "alertmanager", "ntfy"].map(|receiver| json!({ "required": [receiver] }));
    with(alert, "oneOf", one.to_vec().into())
}

fn trust() -> Value {
    table(&[
        (
            "signers",
            either(text(), list(text())),
            "The file that names who may sign, or several: in the form of git's allowedSignersFile, or certificates for OpenPGP.",
        ),
        (
            "require",
            choice(&["every-commit", "tip", "none"]),
            "Which commits have to be signed: each, only the newest of those that arrive together, or none [default: every-commit].",
        ),
        (
            "approvals",
            word(),
            "How many people have to agree to a change of this section or of the signers [default: 1].",
        ),
        ("branch", text(), "The only branch for which this is meant."),
        ("replaces", list(text()), "Commits by their whole names that this history replaces, and does not go on from."),
        (
            "max-age",
            duration(),
            "The newest commit is never older than this, such as 30d; where it is, newer ones may be withheld, and hosts say so.",
        ),
    ])
}

fn url() -> Value {
    with(text(), "pattern", "^https?://".into())
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
        ("key", text(), "The public key that it signs its records with, and opens secrets: ssh-ed25519 AAAA…"),
        ("recipient", text(), "For which key its secrets are encrypted instead: age1…"),
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
