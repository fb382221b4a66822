//! What can be wrong in app.yaml as a whole, and in selectors.

use expect_test::expect;

use crate::support::check_app;

#[test]
fn app_keys() {
    check_app(
        r"plase: all
needs: [storage]
checks: []
artifacts: {}
rollout: careful
endpoints: {}
unit: {}
",
        expect![[r#"
            error[unknown-key] apps/a/app.yaml:1:1: app.yaml has no key `plase`
              = did you mean `place`?
            error[needs] apps/a/app.yaml:2:9: `a` needs `storage`, and there is no such application
              = add apps/storage/, or remove it
            error[unknown-rollout] apps/a/app.yaml:5:10: there is no rollout `careful`
              = name one of `rollouts` in fleet.yaml, or add `careful:` there
            error[unknown-key] apps/a/app.yaml:7:1: app.yaml has no key `unit`
              = did you mean `units`?
        "#]],
    );
}

#[test]
fn app_is_a_text() {
    check_app(
        r"web
",
        expect![[r#"
            error[wrong-type] apps/a/app.yaml:1:1: app.yaml must be a map, but a text stands here
              = write a map such as { key: value }
        "#]],
    );
}

#[test]
fn places() {
    check_app(
        r"place: { role: broker, site: [home, farm], host: attic }
",
        expect![[""]],
    );
}

#[test]
fn places_in_lists() {
    check_app(
        r"place: [ { site: farm }, { not: { site: farm } } ]
",
        expect![[""]],
    );
}

#[test]
fn place_misspelt() {
    check_app(
        r"place: { rol: broker, site: frm, host: attick, environment: prod }
",
        expect![[r#"
            warning[place-unknown-label] apps/a/app.yaml:1:10: no host has a label `rol`
              = did you mean `role`?
            warning[place-unknown-value] apps/a/app.yaml:1:29: no host has `frm` as its `site`
              = did you mean `farm`?
            warning[place-unknown-value] apps/a/app.yaml:1:40: no host is called `attick`
              = did you mean `attic`?
            warning[place-unknown-label] apps/a/app.yaml:1:48: no host is in an environment
              = set `environment:` for hosts in fleet.yaml, or correct the selector
        "#]],
    );
}

#[test]
fn place_matches_nobody() {
    check_app(
        r"place: { site: farm, host: attic }
",
        expect![[r#"
            warning[place-nobody] apps/a/app.yaml:1:8: this selector matches no host
              = each label may fit some host, but no host has all of them; compare with the labels in fleet.yaml
        "#]],
    );
}

#[test]
fn place_is_a_host() {
    check_app(
        r"place: attic
",
        expect![[r#"
            error[place-selector] apps/a/app.yaml:1:8: `attic` is not a selector
              = to name a host, write { host: attic }
        "#]],
    );
}

#[test]
fn place_forms() {
    check_app(
        r"place: [ {}, [], everywhere, { not: [] }, { site: } ]
",
        expect![[r#"
            error[place-selector] apps/a/app.yaml:1:10: a selector without labels is ambiguous
              = write `all` when every host is meant
            error[place-selector] apps/a/app.yaml:1:14: an empty list selects no host
              = write `all`, labels such as { role: broker }, a list of selectors, or { not: { … } }
            error[place-selector] apps/a/app.yaml:1:18: `everywhere` is not a selector
              = write `all`, labels such as { role: broker }, a list of selectors, or { not: { … } }
            error[place-selector] apps/a/app.yaml:1:37: an empty list selects no host
              = write `all`, labels such as { role: broker }, a list of selectors, or { not: { … } }
            error[no-value] apps/a/app.yaml:1:45: label `site` has no value
              = write a text behind it, or remove it
        "#]],
    );
}
