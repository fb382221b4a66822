//! What people see: a repository with more than twenty different mistakes, drawn in one run.

#![allow(
    clippy::format_push_string,
    clippy::too_many_lines,
    clippy::needless_pass_by_value,
    reason = "a test tells a story"
)]

use std::collections::BTreeSet;

use expect_test::{Expect, expect};
use spec::diagnostic::{Diagnostic, Location, Span};
use spec::manifest::parse;
use spec::tree::Tree;

use super::{json, render};

/// Builds a tree from `-- path --` headers, each followed by the file's text.
fn tree(text: &str) -> Tree {
    let mut tree = Tree::default();
    for file in text.split("\n-- ").map(|file| file.trim_start_matches("-- ")) {
        let (path, body) = file.split_once(" --\n").expect("a header and a body");
        tree.insert(path, format!("{}\n", body.trim_end_matches('\n')).as_bytes());
    }
    tree
}

const MISTAKES: &str = r#"-- fleet.yaml --
fleet: home
defaults: { environment: prd, drift: repare }
environments:
  prod: { vars: { retention: 14d } }
hosts:
  attic: { labels: { site: home, role: broker, rack: 12 }, adress: 192.0.2.10 }
  Barn: { labels: { site: farm } }
  attic: { labels: { site: farm } }
rollouts: { default: { bake: 10m } }
acknowledge:
  - { prune: "1f2e3d4c5b6a" }
-- hosts/farm.yaml --
shed:
	labels: { site: farm }
-- hosts/lab.yaml --
bench: { labels: { site: lab }, key: "ssh-rsa AAAAB3NzaC1yc2E" }
-- apps/mqtt/app.yaml --
place: { role: broker }
units:
  mosquitto.service: { state: started, enabled: yes, reload-on: [/etc/mosquitto/mosquito.conf] }
  worker@.service: { state: running }
  systemd-resolved.service: { state: stopped }
files:
  /etc/mosquitto/mosquitto.conf: { mode: 0640, owner: mosquitto }
  /etc/mosquitto/mosqitto.conf: { group: mosquitto }
  /etc/sudoers.d/mqtt: { kind: symlink, target: /srv/sudoers }
containers:
  exporter:
    image: "registry.lan/Exporter:1.4"
    command: serve --port 9234
    ports: ["9234"]
    volumes: ["/var/run/docker.sock:/docker.sock"]
    env: { BROKER: "{{ endpoints.mqtt }}" }
-- apps/mqtt/mosquitto.service --
[Unit]
Description=MQTT broker
[Servce]
ExecStart=/usr/sbin/mosquitto
-- apps/mqtt/worker@.service --
[Service]
ExecStart=/usr/bin/worker %i
ProtectSystem=maybe
ExecReload /bin/kill -HUP $MAINPID
RestartSecs=5
-- apps/mqtt/nightly.timer --
[Timer]
Persistent=true
-- apps/mqtt/mosquitto.conf --
listener 1883
-- apps/mqtt/files/etc/mosquitto/mosquitto.conf --
listener 1883
-- apps/mqtt/files/etc/mosquitto/acl.j2 --
user {{ vars.user }}
-- apps/mqtt/files/etc/motd --
broker
-- apps/motd/files/etc/motd --
welcome
-- apps/motd/app.yaml --
place: all
-- apps/empty/README.md --
Nothing here yet.
"#;

#[test]
fn every_mistake_of_a_repository_is_drawn_in_one_run() {
    let tree = tree(MISTAKES);
    let diagnostics = parse(&tree, None).diagnostics;
    let rules: BTreeSet<&str> = diagnostics.iter().map(|it| it.rule).collect();
    let files: BTreeSet<&str> = diagnostics.iter().map(|it| it.location.file.as_str()).collect();
    assert!(rules.len() >= 20 && files.len() >= 6, "{} rules in {} files", rules.len(), files.len());
    expect![[r#"
        error[empty-app]: application `empty` brings nothing: no unit, no file and no container
        --> apps/empty
         = help: add what it consists of, or remove the folder; an empty folder never means that something is removed

        warning[unit-reload]: `mosquitto.service` is to be reloaded and does not say how: systemd would refuse it
         --> apps/mqtt/app.yaml:3:3
          |
        3 |   mosquitto.service: { state: started, enabled: yes, reload-on: [/etc/mosquitto/mosquito.conf] }
          |   ^^^^^^^^^^^^^^^^^
          |
          = help: add `ExecReload=` to the unit, such as /bin/kill -HUP $MAINPID, or write restart-on for reload-on

        error[unknown-value]: `state` is `running` or `stopped`, not `started`
         --> apps/mqtt/app.yaml:3:31
          |
        3 |   mosquitto.service: { state: started, enabled: yes, reload-on: [/etc/mosquitto/mosquito.conf] }
          |                               ^^^^^^^
          |
          = help: did you mean `running`?

        error[wrong-type]: `enabled` is `true` or `false`, not `yes`
         --> apps/mqtt/app.yaml:3:49
          |
        3 |   mosquitto.service: { state: started, enabled: yes, reload-on: [/etc/mosquitto/mosquito.conf] }
          |                                                 ^^^
          |
          = help: write true, without quotes

        warning[watch-unmanaged]: no application brings `/etc/mosquitto/mosquito.conf`, so its changes are never seen
         --> apps/mqtt/app.yaml:3:66
          |
        3 |   mosquitto.service: { state: started, enabled: yes, reload-on: [/etc/mosquitto/mosquito.conf] }
          |                                                                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          |
          = help: did you mean `/etc/mosquitto/mosquitto.conf`?

        error[unit-template]: `worker@.service` is a template, which is never started itself
         --> apps/mqtt/app.yaml:4:3
          |
        4 |   worker@.service: { state: running }
          |   ^^^^^^^^^^^^^^^
          |
          = help: name an instance, such as worker@blue.service

        error[critical-unit]: unit `systemd-resolved.service` is guarded: the host, or the way into it, depends on it
         --> apps/mqtt/app.yaml:5:3
          |
        5 |   systemd-resolved.service: { state: stopped }
          |   ^^^^^^^^^^^^^^^^^^^^^^^^
          |
          = help: if you mean it, write units: { systemd-resolved.service: { allow-critical: true } } in app.yaml

        error[file-mode]: mode 0640 is a number in YAML, and readers differ on whether it is octal
         --> apps/mqtt/app.yaml:7:42
          |
        7 |   /etc/mosquitto/mosquitto.conf: { mode: 0640, owner: mosquitto }
          |                                          ^^^^
          |
          = help: put quotes around it: "0640"

        error[file-missing]: nothing in this folder brings `/etc/mosquitto/mosqitto.conf`
         --> apps/mqtt/app.yaml:8:3
          |
        8 |   /etc/mosquitto/mosqitto.conf: { group: mosquitto }
          |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          |
          = help: did you mean `/etc/mosquitto/mosquitto.conf`?

        error[critical-path]: `/etc/sudoers.d/mqtt` is guarded: it decides who becomes root
         --> apps/mqtt/app.yaml:9:3
          |
        9 |   /etc/sudoers.d/mqtt: { kind: symlink, target: /srv/sudoers }
          |   ^^^^^^^^^^^^^^^^^^^
          |
          = help: if you mean it, write files: { /etc/sudoers.d/mqtt: { allow-critical: true } } in app.yaml

        error[container-image]: `registry.lan/Exporter:1.4` is not an image reference: the name of a repository is lower-case
          --> apps/mqtt/app.yaml:12:12
           |
        12 |     image: "registry.lan/Exporter:1.4"
           |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^
           |
           = help: write registry.lan/exporter:1.4

        error[container-command]: `command` is one text; no shell splits it into arguments
          --> apps/mqtt/app.yaml:13:14
           |
        13 |     command: serve --port 9234
           |              ^^^^^^^^^^^^^^^^^
           |
           = help: write a list: command: ["serve", "--port", "9234"]

        error[container-port]: `9234` is not a published port: it names only one port, and mainstay publishes no random ones
          --> apps/mqtt/app.yaml:14:13
           |
        14 |     ports: ["9234"]
           |             ^^^^^^
           |
           = help: write "9234:9234" to publish it under the same number

        error[container-mount]: a container may not mount `/var/run/docker.sock`: whoever reaches the engine's socket is root on the host
          --> apps/mqtt/app.yaml:15:15
           |
        15 |     volumes: ["/var/run/docker.sock:/docker.sock"]
           |               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
           |
           = help: mount only the files or folders that it needs

        error[conflict]: path `/etc/motd` is wanted by `motd` and `mqtt` on host `attic`
        --> apps/mqtt/files/etc/motd
         = help: let one application have it, or place the two on different hosts
        note: wanted here as well
        --> apps/motd/files/etc/motd

        error[unknown-file]: mainstay does not know what `mosquitto.conf` is for
        --> apps/mqtt/mosquitto.conf
         = help: put it under files/, at the path that it has on the host (files/etc/…), or move it out of apps/

        error[unit-section]: a .service unit has no section [Servce]
         --> apps/mqtt/mosquitto.service:3:1
          |
        3 | [Servce]
          | ^^^^^^^^
          |
          = help: did you mean [Service]?

        warning[unit-trigger]: `nightly.timer` starts `nightly.service`, which is not in this folder
        --> apps/mqtt/nightly.timer
         = help: bring `nightly.service`, or name another unit; that is fine when the host or another application has it

        error[unit-incomplete]: this .timer does not say when it elapses
         --> apps/mqtt/nightly.timer:1:1
          |
        1 | [Timer]
          | ^^^^^^^
          |
          = help: add `OnCalendar=`, `OnBootSec=`, `OnStartupSec=` or `OnActiveSec=`, for instance

        error[unit-value]: `ProtectSystem=` does not take `maybe`
         --> apps/mqtt/worker@.service:3:15
          |
        3 | ProtectSystem=maybe
          |               ^^^^^
          |
          = help: it takes `yes`, `full`, `strict` or `no`

        error[unit-syntax]: this line is neither `Key=value` nor `[Section]` nor a comment: `ExecReload /bin/kill -HUP $MAINPID`
         --> apps/mqtt/worker@.service:4:1
          |
        4 | ExecReload /bin/kill -HUP $MAINPID
          | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          |
          = help: begin comments with `#`; end a line with `\` when the value goes on in the next one

        error[unit-directive]: systemd knows no `RestartSecs=` in [Service]
         --> apps/mqtt/worker@.service:5:1
          |
        5 | RestartSecs=5
          | ^^^^^^^^^^^
          |
          = help: did you mean `RestartSec=`?

        error[unknown-environment]: there is no environment `prd`
         --> fleet.yaml:2:26
          |
        2 | defaults: { environment: prd, drift: repare }
          |                          ^^^
          |
          = help: did you mean `prod`?

        error[unknown-value]: `drift` is `repair` or `report`, not `repare`
         --> fleet.yaml:2:38
          |
        2 | defaults: { environment: prd, drift: repare }
          |                                      ^^^^^^
          |
          = help: did you mean `repair`?

        error[wrong-type]: label `rack` is a text, but `12` is a number in YAML
         --> fleet.yaml:6:54
          |
        6 |   attic: { labels: { site: home, role: broker, rack: 12 }, adress: 192.0.2.10 }
          |                                                      ^^
          |
          = help: put quotes around it: "12"

        error[unknown-key]: a host has no key `adress`
         --> fleet.yaml:6:60
          |
        6 |   attic: { labels: { site: home, role: broker, rack: 12 }, adress: 192.0.2.10 }
          |                                                            ^^^^^^
          |
          = help: did you mean `address`?

        error[host-name]: this is not a host name: `Barn` may hold only lower-case letters, digits and `-`
         --> fleet.yaml:7:3
          |
        7 |   Barn: { labels: { site: farm } }
          |   ^^^^
          |
          = help: rename it, for instance to `barn`

        error[duplicate-key]: `attic` is written twice
         --> fleet.yaml:8:3
          |
        8 |   attic: { labels: { site: farm } }
          |   ^^^^^
          |
          = help: keep one of the two
        note: first written here
         --> fleet.yaml:6:3
          |
        6 |   attic: { labels: { site: home, role: broker, rack: 12 }, adress: 192.0.2.10 }
          |   ^^^^^

        error[acknowledge]: this acknowledgement gives no reason
          --> fleet.yaml:11:5
           |
        11 |   - { prune: "1f2e3d4c5b6a" }
           |     ^^^^^^^^^^^^^^^^^^^^^^^^^
           |
           = help: copy the line that the prune guard printed, and say why: { prune: "1f2e3d4c5b6a", reason: "…" }

        error[yaml-syntax]: a tab indents this line
         --> hosts/farm.yaml:2:1
          |
        2 |     labels: { site: farm }
          | ^
          |
          = help: YAML indents with spaces only: replace the tab by spaces

        error[host-key]: the key is not of type ssh-ed25519
         --> hosts/lab.yaml:1:38
          |
        1 | bench: { labels: { site: lab }, key: "ssh-rsa AAAAB3NzaC1yc2E" }
          |                                      ^^^^^^^^^^^^^^^^^^^^^^^^^
          |
          = help: write the line of the host's .pub file: ssh-ed25519 AAAA…

        28 errors, 3 warnings in 10 files
    "#]].assert_eq(&render(&diagnostics, &tree, false));
}

fn check(text: &str, diagnostic: Diagnostic, expected: Expect) {
    let mut tree = Tree::default();
    tree.insert(&diagnostic.location.file, text.as_bytes());
    expected.assert_eq(&render(&[diagnostic], &tree, false));
}

fn at(file: &str, start: usize, end: usize) -> Location {
    Location::at(file, Span { start, end, line: 1, column: start + 1 })
}

#[test]
fn nothing_is_drawn_for_nothing() {
    assert_eq!(render(&[], &Tree::default(), true), "");
    assert_eq!(json(&[]), serde_json::json!([]));
}

#[test]
fn control_characters_never_reach_the_terminal() {
    let text = "a:\t\u{1b}[31mred\u{202e}\u{7f}\u{9b}\r\n";
    let mut diagnostic = Diagnostic::error("rule", at("x\u{1b}.yaml", 3, 9), "say \u{1b}]0;title\u{7}\nmore");
    diagnostic.help("\u{1b}[2J").related(at("x\u{1b}.yaml", 0, 1), "\u{1b}");
    let mut tree = Tree::default();
    tree.insert("x\u{1b}.yaml", text.as_bytes());
    let drawn = render(&[diagnostic.clone()], &tree, false);
    assert!(!drawn.contains(|c: char| c != '\n' && (c.is_control() || c == '\u{202e}')), "{drawn:?}");
    check(
        "a: 1\n",
        Diagnostic { location: at("x.yaml", 3, 4), related: None, ..diagnostic },
        expect![[r#"
        error[rule]: say ␛]0;title␇␊more
         --> x.yaml:1:4
          |
        1 | a: 1
          |    ^
          |
          = help: ␛[2J

        1 error in 1 file
    "#]],
    );
}

#[test]
fn places_that_cannot_be_shown_are_only_named() {
    let long = format!("{}: 1\n", "x".repeat(5000));
    check(
        &long,
        Diagnostic::warning("rule", at("x.yaml", 10, 12), "far in a long line"),
        expect![[r#"
        warning[rule]: far in a long line
        --> x.yaml:1:11

        1 warning in 1 file
    "#]],
    );
    check(
        "ab\n",
        Diagnostic::error("rule", at("x.yaml", 90, 95), "behind the end"),
        expect![[r#"
        error[rule]: behind the end
        --> x.yaml:1:91

        1 error in 1 file
    "#]],
    );
    check(
        "ab\n",
        Diagnostic::error("rule", Location::whole("x.yaml"), "the file as a whole"),
        expect![[r#"
        error[rule]: the file as a whole
        --> x.yaml

        1 error in 1 file
    "#]],
    );
}

#[test]
fn the_list_for_machines_names_the_same_places() {
    let mut diagnostic = Diagnostic::error("rule", at("x.yaml", 3, 9), "wrong");
    diagnostic.help("right").related(Location::whole("y.yaml"), "here");
    expect![[r#"
        [
          {
            "column": 4,
            "end": 9,
            "file": "x.yaml",
            "help": "right",
            "line": 1,
            "message": "wrong",
            "related": {
              "file": "y.yaml",
              "message": "here"
            },
            "rule": "rule",
            "severity": "error",
            "start": 3
          }
        ]"#]]
    .assert_eq(&serde_json::to_string_pretty(&json(&[diagnostic])).expect("JSON of texts and numbers"));
}
