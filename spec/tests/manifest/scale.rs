//! A fleet of a thousand hosts is read in the time that a person waits for, templated or not.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "how long a large fleet takes is the question")]

use std::time::{Duration, Instant};

use spec::tree::Tree;

use crate::support::{lines, parse};

const HOSTS: usize = 1000;
const APPS: usize = 30;

/// Builds a fleet whose applications have a unit, a file and an app.yaml each; `suffix` makes the first two templates.
fn large(suffix: &str, value: &str) -> Tree {
    let mut tree = Tree::default();
    let hosts: String =
        (0..HOSTS).map(|n| format!("  h{n}: {{ labels: {{ role: r{} }}, vars: {{ n: {n} }} }}\n", n % 7)).collect();
    tree.insert("fleet.yaml", format!("fleet: home\nhosts:\n{hosts}").as_bytes());
    for app in 0..APPS {
        let unit = format!(
            "[Unit]\nDescription=Web\n[Service]\nExecStart=/usr/bin/web --config /etc/{app}.conf\nRestart=always\n\
             Environment=N={value}\n[Install]\nWantedBy=multi-user.target\n"
        );
        let conf: String = (0..50).map(|line| format!("key{line} = {value}\n")).collect();
        tree.insert(&format!("apps/a{app}/a{app}.service{suffix}"), unit.as_bytes());
        tree.insert(&format!("apps/a{app}/files/etc/{app}.conf{suffix}"), conf.as_bytes());
        let units = format!("units: {{ a{app}.service: {{ reload-on: [/etc/{app}.conf] }} }}\n");
        tree.insert(&format!("apps/a{app}/app.yaml"), units.as_bytes());
    }
    tree
}

fn check(tree: &Tree, limit: Duration, forms: usize) {
    let start = Instant::now();
    let parsed = parse(tree);
    let took = start.elapsed();
    println!("read in {took:?}");
    let said = lines(&parsed);
    let fleet = parsed.fleet.unwrap_or_else(|| panic!("a sound repository, but:\n{said}"));
    assert_eq!(fleet.apps.values().map(|application| application.variants.len()).sum::<usize>(), forms);
    assert!(took < limit, "it took {took:?}");
}

/// What an optimised build may take; tests are built with less.
const SLOWER: u32 = if cfg!(debug_assertions) { 6 } else { 1 };

#[test]
fn a_thousand_hosts_with_the_same_applications() {
    check(&large("", "1"), Duration::from_millis(500) * SLOWER, APPS);
}

#[test]
fn a_thousand_hosts_with_applications_of_their_own() {
    check(&large(".j2", "{{ vars.n }}"), Duration::from_secs(10) * SLOWER, APPS * HOSTS);
}

#[test]
fn a_thousand_hosts_with_templates_that_come_out_equal() {
    check(&large(".j2", "{{ host.labels.role }}"), Duration::from_secs(5) * SLOWER, APPS * 7);
}
