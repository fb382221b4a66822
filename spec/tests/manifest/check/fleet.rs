//! What can be wrong in fleet.yaml and hosts/*.yaml.

use expect_test::expect;

use crate::support::{check, check_fleet};

#[test]
fn empty_fleet() {
    check_fleet(
        r"# nothing yet
",
        expect![[r#"
            error[fleet-empty] fleet.yaml:1:1: fleet.yaml is empty
              = begin with `fleet: NAME` and `hosts:`; `mainstay init` writes an example
        "#]],
    );
}

#[test]
fn fleet_is_a_list() {
    check_fleet(
        r"- a
- b
",
        expect![[r#"
            error[wrong-type] fleet.yaml:1:1: fleet.yaml must be a map, but a list stands here
              = write a map such as { key: value }
        "#]],
    );
}

#[test]
fn fleet_without_name_or_hosts() {
    check_fleet(
        r"defaults: { drift: repair }
",
        expect![[r#"
            error[no-hosts] fleet.yaml: the repository names no host
              = add hosts: { NAME: { labels: { … } } } to fleet.yaml, or files in hosts/
            error[fleet-name] fleet.yaml:1:1: fleet.yaml does not name the fleet
              = add `fleet: NAME`; the name marks what belongs to this repository on each host
        "#]],
    );
}

#[test]
fn fleet_name_is_checked() {
    check_fleet(
        r"fleet: My Home
hosts: { a: }
",
        expect![[r#"
            error[fleet-name] fleet.yaml:1:8: this is not a fleet's name: `My Home` may hold only lower-case letters, digits and `-`
              = rename it, for instance to `my-home`
        "#]],
    );
}

#[test]
fn misspelt_keys_are_named() {
    check_fleet(
        r"flet: home
hosts:
  a: { labls: { x: y }, colour: red }
",
        expect![[r#"
            error[unknown-key] fleet.yaml:1:1: fleet.yaml has no key `flet`
              = did you mean `fleet`?
            error[unknown-key] fleet.yaml:3:8: a host has no key `labls`
              = did you mean `labels`?
            error[unknown-key] fleet.yaml:3:25: a host has no key `colour`
              = it knows `labels`, `address`, `key`, `recipient`, `environment` and `vars`
        "#]],
    );
}

#[test]
fn signatures_are_asked_of_somebody() {
    check_fleet(
        r"fleet: home
hosts: { a: }
trust: { require: every-commit }
",
        expect![[r#"
            error[trust-signers] fleet.yaml:3:8: `trust` does not say who may sign
              = write trust: { signers: trust/allowed_signers }, a file in the form of git's gpg.ssh.allowedSignersFile, or of certificates as `gpg --export --armor` writes them; or a list of such files
        "#]],
    );
}

#[test]
fn alerts_name_one_receiver_each_and_hold_no_secret() {
    check_fleet(
        r"fleet: home
hosts: { a: }
alerts:
  - { webhook: https://chat.example/hook, on: [failed, hatled, halted] }
  - { webhook: https://chat.example/hook, on: [silent] }
  - { webhook: http://127.0.0.1:8080, ntfy: https://ntfy.example/x }
  - { on: [failed] }
  - { webhok: https://chat.example }
  - { webhook: chat.example/hook }
  - { alertmanager: https://user:hunter2@am.example }
  - { slack: https://hooks.slack.example/T0 }
  - { webhook: https://hooks.slack.com/services/T0/s3cret }
  - { webhook: https://chat.example/x, webhook-secret: abc, on: [] }
  - failed
  - { ntfy: https://ntfy.example/y }
",
        expect![[r#"
            error[unknown-value] fleet.yaml:4:56: an item of `on` is `failed`, `rolled-back`, `unhealthy`, `drifted`, `conflict`, `refused`, `stale`, `recovered`, `halted` or `silent`, not `hatled`
              = did you mean `halted`?
            error[alert] fleet.yaml:6:39: an alert goes to one receiver, and `ntfy` is another
              = write an item of the list for each
            error[alert] fleet.yaml:7:5: this alert goes to nobody
              = write { webhook: "https://chat.example/hook", on: [failed, halted] }; `alertmanager` and `ntfy` are others
            error[unknown-key] fleet.yaml:8:7: an item of `alerts` has no key `webhok`
              = did you mean `webhook`?
            error[alert] fleet.yaml:9:16: `webhook` is no address of http or https, or holds a user or password
              = write it such as https://alerts.example/hook
            error[alert] fleet.yaml:10:21: `alertmanager` is no address of http or https, or holds a user or password
              = write it such as https://alerts.example/hook
            error[not-supported] fleet.yaml:11:7: `slack` holds a secret, which this version of mainstay does not read from a repository
              = name it in the settings of each host, as a file: alerts: { slack: /etc/mainstay/… }
            error[alert] fleet.yaml:12:16: whoever reads the repository could use this address: it is a secret
              = replace it there, and name a file that holds the new one in the settings of each host: alerts: { slack: /etc/mainstay/… }
            error[not-supported] fleet.yaml:13:40: `webhook-secret` names a secret, which this version of mainstay does not read from a repository
              = name it in the settings of each host, as a file: alerts: { webhook-secret: /etc/mainstay/… }
            error[alert] fleet.yaml:13:65: this alert tells of nothing
              = name some of `failed`, `rolled-back`, `unhealthy`, `drifted`, `conflict`, `refused`, `stale`, `recovered`, `halted` and `silent`, or leave `on` out for all of them
            error[alert] fleet.yaml:14:5: `alerts` has at most 10 receivers
              = let one of them pass it on
        "#]],
    );
    check_fleet(
        "fleet: home\nhosts: { a: }\nalerts: { webhook: https://chat.example }\n",
        expect![[r#"
        error[wrong-type] fleet.yaml:3:9: `alerts` must be a list, but a map stands here
          = write a list such as [one, two]
    "#]],
    );
    check_fleet(
        r"fleet: home
hosts: { a: }
alerts:
  - { webhook: http://chat.lan/hook }
  - { alertmanager: http://127.0.0.1:9093, on: [halted, silent, recovered] }
",
        expect![""],
    );
    check_fleet(
        r"fleet: home
hosts: { a: }
alerts:
  - { webhook: http://chat.lan/hook, on: [halted] }
  - { ntfy: http://chat.lan/hook, on: [halted] }
  - { webhook: http://chat.lan/hook, on: [failed] }
",
        expect![[r#"
            error[alert] fleet.yaml:6:16: this receiver is there already: it would be told everything twice
              = write all its words in one `on`
              - fleet.yaml:4:16: first written here
        "#]],
    );
}

#[test]
fn duplicate_keys_show_both_places() {
    check_fleet(
        r"fleet: home
hosts:
  a: { labels: { x: y } }
  b:
  a: { labels: { x: z } }
",
        expect![[r#"
            error[duplicate-key] fleet.yaml:5:3: `a` is written twice
              = keep one of the two
              - fleet.yaml:3:3: first written here
        "#]],
    );
}

#[test]
fn host_names_are_dns_labels() {
    check_fleet(
        r#"fleet: home
hosts:
  Attic: {}
  barn_1: {}
  "": {}
"#,
        expect![[r#"
            error[host-name] fleet.yaml:3:3: this is not a host name: `Attic` may hold only lower-case letters, digits and `-`
              = rename it, for instance to `attic`
            error[host-name] fleet.yaml:4:3: this is not a host name: `barn_1` may hold only lower-case letters, digits and `-`
              = rename it, for instance to `barn-1`
            error[host-name] fleet.yaml:5:3: this is not a host name: a name is empty
              = give it a name
        "#]],
    );
}

#[test]
fn labels_are_texts() {
    check_fleet(
        r#"fleet: home
hosts:
  a: { labels: { rack: 12, up: yes, on: true, host: x, environment: y, "a b": c, list: [1] } }
"#,
        expect![[r#"
            error[wrong-type] fleet.yaml:3:24: label `rack` is a text, but `12` is a number in YAML
              = put quotes around it: "12"
            error[wrong-type] fleet.yaml:3:41: label `on` is a text, but `true` is a boolean in YAML
              = put quotes around it: "true"
            error[host-label] fleet.yaml:3:47: `host` cannot be a label: selectors give it a meaning of its own
              = choose another name
            error[host-label] fleet.yaml:3:56: `environment` cannot be a label: selectors give it a meaning of its own
              = write `environment:` beside `labels:`
            error[host-label] fleet.yaml:3:72: `a b` is not a label's name
              = use letters, digits and `-`
            error[wrong-type] fleet.yaml:3:88: label `list` must be a text, but a list stands here
              = write a text
        "#]],
    );
}

#[test]
fn environments_must_exist() {
    check_fleet(
        r#"fleet: home
defaults: { environment: prd }
environments: { prod: , test: { vars: { a: 1 }, endpoints: { b: "https://b.example" } } }
hosts:
  a: { environment: tset }
  b: { environment: elsewhere }
  c: { environment: test }
"#,
        expect![[r#"
            error[unknown-environment] fleet.yaml:2:26: there is no environment `prd`
              = did you mean `prod`?
            error[unknown-environment] fleet.yaml:5:21: there is no environment `tset`
              = did you mean `test`?
            error[unknown-environment] fleet.yaml:6:21: there is no environment `elsewhere`
              = `environments` names `prod` and `test`
        "#]],
    );
}

#[test]
fn drift_is_a_choice() {
    check_fleet(
        r"fleet: home
defaults: { drift: repare }
hosts: { a: }
",
        expect![[r#"
            error[unknown-value] fleet.yaml:2:20: `drift` is `repair` or `report`, not `repare`
              = did you mean `repair`?
        "#]],
    );
}

#[test]
fn addresses_and_keys() {
    check_fleet(
        r#"fleet: home
hosts:
  a: { address: "http://a.example:80", key: "ssh-rsa AAAAB3" }
  b: { address: 192.0.2.300, key: "ssh-ed25519 AAAA…" }
  c: { address: c.example, key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMainstayMainstayMainstayMainstayMainstayMai root@c" }
  d: { address: "2001:db8::1", key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMainstayMainstayMainstayMainstayMainstayMai" }
  e: { key: "-----BEGIN OPENSSH PRIVATE KEY-----" }
"#,
        expect![[r#"
            error[host-address] fleet.yaml:3:17: `http://a.example:80` is neither an IP address nor a DNS name
              = write it without port, user or scheme, such as 192.0.2.10 or attic.example
            error[host-key] fleet.yaml:3:45: the key is not of type ssh-ed25519
              = write the line of the host's .pub file: ssh-ed25519 AAAA…
            error[host-address] fleet.yaml:4:17: `192.0.2.300` is neither an IP address nor a DNS name
              = write it without port, user or scheme, such as 192.0.2.10 or attic.example
            error[host-key] fleet.yaml:4:35: the key is damaged: an ed25519 key has 68 characters behind its type
              = copy the whole line of the host's .pub file
            error[host-key-shared] fleet.yaml:6:3: hosts `c` and `d` have the same key
              = give each host a key of its own, so that none can speak for another
              - fleet.yaml:5:3: the other host
            error[host-key] fleet.yaml:7:13: this is a private key
              = replace this key everywhere: whoever reads the repository has it; write the public half here
        "#]],
    );
}

#[test]
fn acknowledgements_need_a_reason() {
    check_fleet(
        r#"fleet: home
hosts: { a: }
acknowledge:
  - { prune: "1f2e3d4c5b6a", reason: "the old broker is gone" }
  - { prune: "1f2e3d4c5b6a" }
  - { prune: "1F2E", reason: "" }
  - { reason: "x", why: "y" }
  - 1f2e3d4c5b6a
"#,
        expect![[r#"
            error[acknowledge] fleet.yaml:5:5: this acknowledgement gives no reason
              = copy the line that the prune guard printed, and say why: { prune: "1f2e3d4c5b6a", reason: "…" }
            error[acknowledge] fleet.yaml:6:14: `1F2E` is not a digest of 12 hex digits
              = copy the line that the prune guard printed, and say why: { prune: "1f2e3d4c5b6a", reason: "…" }
            error[acknowledge] fleet.yaml:6:30: the reason is empty
              = copy the line that the prune guard printed, and say why: { prune: "1f2e3d4c5b6a", reason: "…" }
            error[acknowledge] fleet.yaml:7:5: this acknowledgement names no removal
              = copy the line that the prune guard printed, and say why: { prune: "1f2e3d4c5b6a", reason: "…" }
            error[unknown-key] fleet.yaml:7:20: an acknowledgement has no key `why`
              = it knows `prune` and `reason`
            error[wrong-type] fleet.yaml:8:5: an acknowledgement must be a map, but a text stands here
              = write a map such as { key: value }
        "#]],
    );
}

#[test]
fn values_are_not_forgotten() {
    check_fleet(
        r"fleet: home
hosts:
  a: { labels: , address: }
defaults:
",
        expect![[r#"
            error[no-value] fleet.yaml:3:8: `labels` has no value
              = write a map such as { name: … } behind it, or remove it
            error[no-value] fleet.yaml:3:18: `address` has no value
              = write a text behind it, or remove it
            error[no-value] fleet.yaml:4:1: `defaults` has no value
              = write a map such as { key: value } behind it, or remove it
        "#]],
    );
}

#[test]
fn hosts_come_from_more_files() {
    check(
        r"-- fleet.yaml --
fleet: home
hosts:
  a: {}
-- hosts/farm.yaml --
b: { labels: { x: y } }
a: {}
-- hosts/wrapped.yaml --
hosts:
  c: {}
-- hosts/more.yml --
d: {}
-- hosts/README.md --
hi
-- hosts/sub/x.yaml --
e: {}
-- hosts/empty.yaml --
-- apps/a/a.service --
[Service]
ExecStart=/usr/bin/true
",
        expect![[r#"
            error[hosts-empty] hosts/empty.yaml:1:1: this file names no host
              = add one, or remove the file
            error[duplicate-host] hosts/farm.yaml:2:1: host `a` is written twice
              = keep one of the two
              - fleet.yaml:3:3: first written here
            error[unknown-file] hosts/more.yml: hosts/ holds only *.yaml files, not `more.yml`
              = did you mean `hosts/more.yaml`?
            error[unknown-file] hosts/sub/x.yaml: hosts/ holds only *.yaml files, not `sub/x.yaml`
              = move it out of hosts/
            error[hosts-shape] hosts/wrapped.yaml:1:1: files in hosts/ hold the hosts themselves, without `hosts:` around them
              = remove this line and move everything below it two spaces to the left
        "#]],
    );
}

#[test]
fn hosts_with_one_key() {
    check_fleet(
        r#"fleet: home
hosts:
  a: { key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMainstayMainstayMainstayMainstayMainstayMai root@a" }
  b: { key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMainstayMainstayMainstayMainstayMainstayMai" }
"#,
        expect![[r#"
            error[host-key-shared] fleet.yaml:4:3: hosts `a` and `b` have the same key
              = give each host a key of its own, so that none can speak for another
              - fleet.yaml:3:3: the other host
        "#]],
    );
}
