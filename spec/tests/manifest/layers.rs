//! What each host sees of an application: the layers of its folder on top of each other.

use expect_test::{Expect, expect};
use spec::desired::{DesiredApp, FileKind};
use spec::id::HostName;
use spec::manifest::{Fleet, parse};
use spec::resolve::resolve;
use spec::tree::Tree;

use crate::support::{lines, tree};

fn fleet(tree: &Tree) -> Fleet {
    let parsed = parse(tree);
    let said = lines(&parsed);
    parsed.fleet.unwrap_or_else(|| panic!("a sound repository, but:\n{said}"))
}

fn files(app: &DesiredApp) -> String {
    let text = |kind: &FileKind| match kind {
        FileKind::Regular { content, .. } => String::from_utf8_lossy(content).trim_end().to_owned(),
        other => format!("{other:?}"),
    };
    app.files.iter().map(|(path, file)| format!("  {path} {}: {}\n", file.mode, text(&file.kind))).collect()
}

/// Prints the files of every host.
fn check(repository: &str, expected: Expect) {
    let fleet = fleet(&tree(repository));
    let mut text = String::new();
    for host in fleet.hosts.keys() {
        text.push_str(&format!("{host}\n"));
        for (name, app) in resolve(&fleet, host).expect("a host of the fleet").apps {
            text.push_str(&format!(" {name}\n{}", files(&app)));
        }
    }
    expected.assert_eq(&text);
}

const FLEET: &str = "-- fleet.yaml --
fleet: home
defaults: { environment: prod }
environments: { prod: { vars: { level: warn } }, test: {} }
hosts:
  attic: { labels: { role: broker }, address: 192.0.2.10 }
  barn: { environment: test, vars: { level: debug } }
  cabin: { labels: { site: lake } }
";

#[test]
fn a_file_of_a_later_layer_replaces_that_of_an_earlier_one() {
    check(
        &format!(
            "{FLEET}-- apps/a/files/etc/one --
base
-- apps/a/files/etc/two --
base
-- apps/a/files/etc/three --
base
-- apps/a/@prod/files/etc/two --
prod
-- apps/a/@prod/files/etc/three (x) --
prod
-- apps/a/@prod/files/etc/four --
prod
-- apps/a/@attic/files/etc/three --
attic
-- apps/a/@barn/files/etc/one --
barn
"
        ),
        expect![[r#"
            attic
             a
              /etc/four 0644: prod
              /etc/one 0644: base
              /etc/three 0644: attic
              /etc/two 0644: prod
            barn
             a
              /etc/one 0644: barn
              /etc/three 0644: base
              /etc/two 0644: base
            cabin
             a
              /etc/four 0644: prod
              /etc/one 0644: base
              /etc/three 0755: prod
              /etc/two 0644: prod
        "#]],
    );
}

#[test]
fn a_layered_app_yaml_replaces_the_whole_of_it_and_places() {
    check(
        &format!(
            "{FLEET}-- apps/a/app.yaml --
place: {{ role: broker }}
files: {{ /etc/one: {{ mode: \"0600\" }} }}
-- apps/a/files/etc/one --
base
-- apps/a/@test/app.yaml --
place: all
-- apps/a/@cabin/app.yaml --
place: {{ site: lake }}
files: {{ /etc/one: {{ mode: \"0640\" }} }}
"
        ),
        expect![[r#"
            attic
             a
              /etc/one 0600: base
            barn
             a
              /etc/one 0644: base
            cabin
             a
              /etc/one 0640: base
        "#]],
    );
}

#[test]
fn a_form_that_nobody_has_may_be_incomplete() {
    check(
        &format!(
            "{FLEET}-- apps/a/app.yaml --
place: {{ environment: test }}
files: {{ /etc/one: {{ mode: \"0600\" }} }}
-- apps/a/@test/files/etc/one --
test
"
        ),
        expect![[r#"
            attic
            barn
             a
              /etc/one 0600: test
            cabin
        "#]],
    );
}

#[test]
fn hosts_that_see_the_same_share_one_form() {
    let mut repository = tree("-- apps/a/files/etc/a --\na\n-- apps/a/@test/files/etc/a --\nb\n");
    let hosts: String =
        (0..1000).map(|n| format!("  h{n}: {{ environment: {} }}\n", ["prod", "test"][n % 2])).collect();
    repository.insert("fleet.yaml", format!("fleet: home\nhosts:\n{hosts}").as_bytes());
    let fleet = fleet(&repository);
    let forms: Vec<usize> = fleet.apps.values().map(|application| application.variants.len()).collect();
    assert_eq!((forms, fleet.apps.values().map(|it| it.hosts.len()).sum::<usize>()), (vec![2], 1000));
    let desired = resolve(&fleet, &HostName::parse("h7").expect("a name")).expect("a host of the fleet");
    assert_eq!(
        desired.apps.values().map(files).collect::<String>(),
        "  /etc/a 0644: b
"
    );
}
