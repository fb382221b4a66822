//! What can be wrong with YAML itself.

use expect_test::expect;

use crate::support::check_fleet;

#[test]
fn yaml_tab() {
    check_fleet(
        r"fleet: home
hosts:
	a: {}
",
        expect![[r#"
            error[yaml-syntax] fleet.yaml:3:1: a tab indents this line
              = YAML indents with spaces only: replace the tab by spaces
        "#]],
    );
}

#[test]
fn yaml_second_colon() {
    check_fleet(
        r"fleet: home: sweet
",
        expect![[r#"
            error[yaml-syntax] fleet.yaml:1:12: a second `:` on this line is not expected here
              = put quotes around a text that holds `: `, or begin a new line
        "#]],
    );
}

#[test]
fn yaml_unclosed_quote() {
    check_fleet(
        r#"fleet: "home
hosts: { a: }
"#,
        expect![[r#"
            error[yaml-syntax] fleet.yaml:2:1: a quoted text above goes on in this line
              = add the missing quote at the end of its first line, or indent this line
        "#]],
    );
}

#[test]
fn yaml_unclosed_bracket() {
    check_fleet(
        r"fleet: home
hosts: { a: { labels: { x: y }
",
        expect![[r#"
            error[yaml-syntax] fleet.yaml:2:13: this `{` is never closed
              = add the missing bracket
        "#]],
    );
}

#[test]
fn yaml_indentation() {
    check_fleet(
        r"fleet: home
hosts:
  a: {}
 b: {}
",
        expect![[r#"
            error[yaml-syntax] fleet.yaml:4:2: this line does not fit the ones above it
              = entries of one map or list begin in the same column, and each key ends with `: `
        "#]],
    );
}

#[test]
fn yaml_odd_character() {
    check_fleet(
        r"fleet: @home
",
        expect![[r#"
            error[yaml-syntax] fleet.yaml:1:8: a value cannot begin with `@`
              = put quotes around the text
        "#]],
    );
}

#[test]
fn yaml_two_documents() {
    check_fleet(
        r"fleet: home
hosts: { a: }
---
fleet: other
",
        expect![[r#"
            error[yaml-documents] fleet.yaml:3:1: a second YAML document begins here
              = keep one document in a file: remove this `---` and everything below it
        "#]],
    );
}

#[test]
fn yaml_tags() {
    check_fleet(
        r"fleet: !!str home
hosts: { a: !custom { labels: { x: y } } }
",
        expect![[r#"
            error[yaml-tag] fleet.yaml:1:14: a YAML tag (`!…`) is written here
              = remove the tag: mainstay gives no meaning to any
            error[yaml-tag] fleet.yaml:2:21: a YAML tag (`!…`) is written here
              = remove the tag: mainstay gives no meaning to any
        "#]],
    );
}

#[test]
fn yaml_unknown_alias() {
    check_fleet(
        r"fleet: *home
",
        expect![[r#"
            error[yaml-syntax] fleet.yaml:1:8: this alias names no anchor above it
              = a text that begins with `*` needs quotes
        "#]],
    );
}

#[test]
fn yaml_template_as_key() {
    check_fleet(
        r"fleet: {{ name }}
hosts: { a: }
",
        expect![[r#"
            error[wrong-type] fleet.yaml:1:8: `fleet` must be a text, but a map stands here
              = write a text
            error[yaml-key] fleet.yaml:1:9: a value that begins with `{{` needs quotes
              = put quotes around all of it: "{{ … }}"
        "#]],
    );
}

#[test]
fn yaml_merge_keys() {
    check_fleet(
        r"fleet: home
hosts:
  a: &a { address: 192.0.2.1 }
  b: { <<: *a }
",
        expect![[r#"
            error[unknown-key] fleet.yaml:4:8: a host has no key `<<`
              = merge keys are no part of YAML 1.2: write the entries out
        "#]],
    );
}

#[test]
fn yaml_anchors_work() {
    check_fleet(
        r"fleet: home
hosts:
  a: { labels: &l { x: y } }
  b: { labels: *l }
",
        expect![[""]],
    );
}
