//! What can be wrong with overlays.

use expect_test::expect;

use crate::support::check;

const FLEET: &str = "-- fleet.yaml --
fleet: home
defaults: { environment: prod }
environments: { prod: {}, test: {}, spare: {} }
hosts:
  attic: { labels: { role: broker } }
  barn: { environment: test }
";

#[test]
fn overlays_are_for_hosts_and_environments() {
    check(
        &format!(
            "{FLEET}-- apps/a/files/etc/a --
a
-- apps/a/@prdo/files/etc/a --
b
-- apps/a/@atic/files/etc/a --
b
-- apps/a/@nothing-like-it/files/etc/a --
b
-- apps/a/@prod/@attic/files/etc/a --
b
-- apps/a/@test --
b
"
        ),
        expect![[r#"
            error[overlay-unknown] apps/a/@atic: there is no host and no environment `atic`
              = did you mean `@attic`?
            error[overlay-unknown] apps/a/@nothing-like-it: there is no host and no environment `nothing-like-it`
              = fleet.yaml knows the environments `prod`, `spare` and `test`; an overlay can be for a host, too
            error[overlay-unknown] apps/a/@prdo: there is no host and no environment `prdo`
              = did you mean `@prod`?
            error[overlay] apps/a/@prod/@attic: the overlay `@attic` lies within another one
              = move it to apps/a/@attic
            error[overlay] apps/a/@test: `@test` is a file, but overlays are folders
              = make it a folder that is laid out like the application's, or rename it
        "#]],
    );
}

#[test]
fn a_name_for_two_is_for_nobody() {
    check(
        "-- fleet.yaml --
fleet: home
environments: { attic: {} }
hosts:
  attic: { environment: attic }
-- apps/a/files/etc/a --
a
-- apps/a/@attic/files/etc/a --
b
",
        expect![[r#"
            error[overlay-ambiguous] apps/a/@attic: `attic` is both a host and an environment
              = rename one of the two in fleet.yaml: nobody could tell for whom this overlay is
        "#]],
    );
}

#[test]
fn nothing_is_called_unknown_while_the_hosts_have_mistakes() {
    check(
        "-- fleet.yaml --
fleet: home
hosts:
  attic: { lables: {} }
-- apps/a/files/etc/a --
a
-- apps/a/@barn/files/etc/a --
b
",
        expect![[r#"
            error[unknown-key] fleet.yaml:3:12: a host has no key `lables`
              = did you mean `labels`?
        "#]],
    );
}

#[test]
fn mistakes_are_found_in_every_layer_and_told_once() {
    check(
        &format!(
            "{FLEET}-- apps/a/app.yaml --
files: {{ /etc/b: {{ mode: 0644 }} }}
-- apps/a/files/etc/b --
b
-- apps/a/@prod/files/etc/.gitkeep --
-- apps/a/@prod/scripts/x --
-- apps/a/@barn/a.service --
[Service]
ExecStrt=/usr/bin/true
-- apps/a/@spare/a.service --
[Servce]
ExecStart=/usr/bin/true
"
        ),
        expect![[r#"
            error[unit-directive] apps/a/@barn/a.service:2:1: systemd knows no `ExecStrt=` in [Service]
              = did you mean `ExecStart=`?
            error[gitkeep] apps/a/@prod/files/etc/.gitkeep: `.gitkeep` would be installed on the host
              = remove it; to make the folder, write files: { /etc: { kind: directory } } in app.yaml
            error[unknown-folder] apps/a/@prod/scripts: mainstay does not know what the folder `scripts/` is for
              = put what the host needs (such as `x`) under files/, at its path there, and the rest outside apps/
            warning[overlay-unused] apps/a/@spare: no host is in environment `spare`, so this overlay is never used
              = put a host into it, or remove the overlay
            error[unit-section] apps/a/@spare/a.service:1:1: a .service unit has no section [Servce]
              = did you mean [Service]?
            error[file-mode] apps/a/app.yaml:1:26: mode 0644 is a number in YAML, and readers differ on whether it is octal
              = put quotes around it: "0644"
        "#]],
    );
}

#[test]
fn an_overlay_where_the_application_is_not() {
    check(
        &format!(
            "{FLEET}-- apps/a/app.yaml --
place: {{ environment: prod }}
-- apps/a/files/etc/a --
a
-- apps/a/@barn/files/etc/a --
b
"
        ),
        expect![[r#"
            warning[overlay-unused] apps/a/@barn: the application is placed on no host that `@barn` is for, so this overlay is never used
              = correct `place:`, or remove the overlay
        "#]],
    );
}

#[test]
fn conflicts_are_those_of_each_host() {
    check(
        &format!(
            "{FLEET}-- apps/a/files/etc/a --
a
-- apps/a/@barn/files/etc/shared --
a
-- apps/a/@attic/app.yaml --
containers: {{ a: {{ image: a, ports: [\"80:80\"] }} }}
-- apps/b/files/etc/b --
b
-- apps/b/@test/files/etc/shared --
b
-- apps/b/@prod/files/etc/a/below --
b
-- apps/b/@barn/app.yaml --
containers: {{ b: {{ image: b, ports: [\"80:80\"] }} }}
-- apps/c/@attic/files/etc/shared --
c
-- apps/c/@attic/app.yaml --
containers: {{ b: {{ image: b, ports: [\"80:80\"] }} }}
-- apps/c/files/etc/c --
c
"
        ),
        expect![[r#"
            warning[image-not-pinned] apps/a/@attic/app.yaml:1:27: image `a` has no tag
              = name a version, as in a:1.4, or a digest: otherwise a commit does not say what runs
            warning[image-not-pinned] apps/b/@barn/app.yaml:1:27: image `b` has no tag
              = name a version, as in b:1.4, or a digest: otherwise a commit does not say what runs
            error[conflict] apps/b/@prod/files/etc/a/below: `/etc/a/below` needs `/etc/a` to be a folder, but it is wanted as a file or link
              = move one of the two, or place the applications on different hosts
              - apps/a/files/etc/a: wanted as a file or link here
            error[conflict] apps/b/@test/files/etc/shared: path `/etc/shared` is wanted by `a` and `b` on host `barn`
              = let one application have it, or place the two on different hosts
              - apps/a/@barn/files/etc/shared: wanted here as well
            warning[image-not-pinned] apps/c/@attic/app.yaml:1:27: image `b` has no tag
              = name a version, as in b:1.4, or a digest: otherwise a commit does not say what runs
            error[conflict] apps/c/@attic/app.yaml:1:38: host port 80/tcp is wanted by `a` and `c` on host `attic`
              = let one application have it, or place the two on different hosts
              - apps/a/@attic/app.yaml:1:38: wanted here as well
        "#]],
    );
}
