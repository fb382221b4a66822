//! What a commit changes on every host: repositories in, effects out.

use expect_test::{Expect, expect};
use spec::forecast::{forecast, left_out};
use spec::id::HostName;
use spec::manifest::{self, Fleet};
use spec::tree::Tree;

const HOSTS: &str = "fleet: home\nhosts:\n  attic: {}\n  barn: {}\n";
const RUNS: &str = "[Install]\nWantedBy=multi-user.target\n";

fn fleet(files: &[(&str, &str)]) -> Fleet {
    let mut tree = Tree::default();
    tree.insert("fleet.yaml", HOSTS.as_bytes());
    files.iter().for_each(|(path, text)| tree.insert(path, text.as_bytes()));
    let parsed = manifest::parse(&tree, None);
    parsed.fleet.unwrap_or_else(|| panic!("{:#?}", parsed.diagnostics))
}

#[allow(clippy::needless_pass_by_value, reason = "the macro hands over a value")]
fn check(from: &[(&str, &str)], to: &[(&str, &str)], expected: Expect) {
    let mut lines = Vec::new();
    for (app, variants) in forecast(&fleet(from), &fleet(to)) {
        for (change, hosts) in variants {
            let hosts: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
            lines.push(format!("{app} {:?} on {}", change.kind, hosts.join(" ")));
            lines.extend(change.effects.iter().map(|it| format!("  {} {}", it.verb.as_str(), it.object)));
        }
    }
    lines.push(String::new());
    expected.assert_eq(&lines.join("\n"));
}

fn web(more: &str) -> String {
    format!("[Service]\nExecStart=/usr/bin/web --config /etc/web.conf\n{more}{RUNS}")
}

#[test]
fn what_a_unit_reads_restarts_it_and_nothing_else_does() {
    let web = web("");
    let other = format!("[Service]\nExecStart=/usr/bin/other\n{RUNS}");
    let with = |conf| {
        [("apps/web/web.service", &*web), ("apps/web/files/etc/web.conf", conf), ("apps/web/other.service", &*other)]
    };
    check(
        &with("a\n"),
        &with("b\n"),
        expect![[r#"
        web Changed on attic barn
          restart web.service
          write /etc/web.conf
    "#]],
    );
    check(&with("a\n"), &with("a\n"), expect![[""]]);
}

#[test]
fn a_file_of_another_application_restarts_who_reads_it() {
    let web = web("");
    let with = |conf| [("apps/web/web.service", &*web), ("apps/conf/files/etc/web.conf", conf)];
    check(
        &with("a\n"),
        &with("b\n"),
        expect![[r#"
        conf Changed on attic barn
          write /etc/web.conf
        web Changed on attic barn
          restart web.service
    "#]],
    );
}

#[test]
fn applications_come_and_go_and_hand_over_what_they_have() {
    let (one, two) = (web(""), web("Environment=A=1\n"));
    check(
        &[("apps/web/web.service", &one), ("apps/web/files/etc/web.conf", "a\n")],
        &[("apps/site/site.service", &two), ("apps/site/files/etc/web.conf", "a\n")],
        expect![[r#"
            site Added on attic barn
              start site.service
              write /etc/systemd/system/site.service
            web Removed on attic barn
              stop web.service
              remove /etc/systemd/system/web.service
        "#]],
    );
}

#[test]
fn what_changes_hands_goes_on() {
    let one = web("");
    check(
        &[("apps/web/web.service", &one), ("apps/web/files/etc/web.conf", "a\n")],
        &[("apps/site/web.service", &one), ("apps/site/files/etc/web.conf", "b\n")],
        expect![[r#"
            site Added on attic barn
              restart web.service
              write /etc/web.conf
            web Removed on attic barn
        "#]],
    );
}

#[test]
fn containers_and_what_they_stand_on() {
    let image = |tag: &str| {
        format!(
            "containers: {{ web: {{ image: \"registry.lan/web:{tag}\", volumes: [\"/etc/web.conf:/etc/web.conf\"] }} }}\n"
        )
    };
    let (one, two) = (image("1"), image("2"));
    let with = |app, conf| [("apps/web/app.yaml", app), ("apps/web/files/etc/web.conf", conf)];
    check(
        &with(&*one, "a\n"),
        &with(&*two, "a\n"),
        expect![[r#"
        web Changed on attic barn
          replace container web
    "#]],
    );
    check(
        &with(&*one, "a\n"),
        &with(&*one, "b\n"),
        expect![[r#"
        web Changed on attic barn
          replace container web
          write /etc/web.conf
    "#]],
    );
    check(
        &with(&*one, "a\n"),
        &[("apps/web/files/etc/web.conf", "a\n")],
        expect![[r#"
        web Changed on attic barn
          remove container web
    "#]],
    );
}

#[test]
fn what_is_only_looked_at_touches_nothing() {
    let web = web("");
    let with = |app| [("apps/web/web.service", &*web), ("apps/web/app.yaml", app)];
    check(
        &with("place: all\n"),
        &with("checks: [ { tcp: 127.0.0.1:80 } ]\n"),
        expect![[r#"
        web Changed on attic barn
    "#]],
    );
    check(
        &with("place: all\n"),
        &with("units: { web.service: { state: stopped } }\n"),
        expect![[r#"
        web Changed on attic barn
          stop web.service
    "#]],
    );
    check(
        &with("place: all\n"),
        &with("place: { host: attic }\n"),
        expect![[r#"
        web Removed on barn
          stop web.service
          remove /etc/systemd/system/web.service
    "#]],
    );
}

#[test]
fn a_host_that_is_left_out_keeps_what_it_has() {
    let web = web("");
    let from = fleet(&[("apps/web/web.service", &web)]);
    let mut to = from.clone();
    to.hosts.pop_first();
    assert_eq!(left_out(&from, &to), from.hosts.keys().take(1).collect::<Vec<_>>());
    assert!(forecast(&from, &to).is_empty());
}
