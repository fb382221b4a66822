//! What each host sees of an application: the layers of its folder on top of each other.

use expect_test::{Expect, expect};
use proptest::prelude::*;
use spec::desired::{DesiredApp, FileKind};
use spec::id::{CommitId, HostName};
use spec::manifest::Fleet;
use spec::resolve::resolve;
use spec::tree::Tree;

use crate::support::{lines, parse, tree};

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

#[test]
fn templates_are_given_the_host_and_its_variables() {
    check(
        &format!(
            "{FLEET}-- apps/a/app.yaml --
vars: {{ port: 80, level: info, list: [a, b], deep: {{ x: 1, y: 2 }}, mode: 0644 }}
-- apps/a/files/etc/a.j2 (x) --
{{{{ fleet }}}} {{{{ app }}}} {{{{ host.name }}}} {{{{ host.environment }}}} {{{{ commit }}}}
{{{{ host.address | default(\"nowhere\", true) }}}} {{{{ host.labels.role | default(\"idle\") }}}}
{{{{ vars.port }}}} {{{{ vars.level }}}} {{{{ vars.mode }}}} {{{{ vars.deep | tojson }}}}
{{% for name in vars.list %}}
  - {{{{ name }}}}
{{% endfor %}}
{{% if host.environment == \"test\" %}}
test
{{% endif %}}
{{# nobody sees this #}}
-- apps/a/files/etc/plain --
{{{{ not a template }}}}
-- apps/a/@test/app.yaml --
vars: {{ port: 81, level: info, list: [], deep: {{ x: 1 }}, mode: \"1\" }}
-- apps/a/@cabin/files/etc/a --
plain
-- apps/a/@attic/files/etc/plain.j2 --
{{{{ vars.port }}}}
"
        ),
        expect![[r#"
            attic
             a
              /etc/a 0755: home a attic prod local
            192.0.2.10 broker
            80 warn 0644 {"x": 1, "y": 2}
              - a
              - b
              /etc/plain 0644: 80
            barn
             a
              /etc/a 0755: home a barn test local
            nowhere idle
            81 debug 1 {"x": 1}
            test
              /etc/plain 0644: {{ not a template }}
            cabin
             a
              /etc/a 0644: plain
              /etc/plain 0644: {{ not a template }}
        "#]],
    );
}

#[test]
fn texts_of_app_yaml_are_rendered_after_yaml_was_read() {
    let repository = tree(&format!(
        "{FLEET}-- apps/a/app.yaml --
vars: {{ tag: \"1.4\", evil: \"x: y}}, b: {{ image: z\" }}
containers:
  web:
    image: \"registry.lan/web:{{{{ vars.tag }}}}\"
    command: [\"--name={{{{ host.name }}}}\", \"{{{{ vars.evil }}}}\", \"{{% raw %}}{{{{ x }}}}{{% endraw %}}\"]
    env: {{ LEVEL: \"{{{{ vars.level | default('none') }}}}\" }}
files: {{ /srv/web: {{ kind: symlink, target: \"/srv/{{{{ host.name }}}}\" }} }}
"
    ));
    let fleet = fleet(&repository);
    let containers = |host: &str| {
        let desired = resolve(&fleet, &HostName::parse(host).expect("a name")).expect("a host of the fleet");
        let app = desired.apps.into_values().next().expect("one application");
        let container = app.containers.values().next().expect("one container");
        format!(
            "{} {:?} {:?}\n{}",
            container.settings.image,
            container.settings.command,
            container.settings.env,
            files(&app)
        )
    };
    let text = ["attic", "barn"].map(containers).join("");
    expect![[r#"
        registry.lan/web:1.4 ["--name=attic", "x: y}, b: { image: z", "{{ x }}"] {"LEVEL": "warn"}
          /srv/web 0777: Symlink { target: "/srv/attic" }
        registry.lan/web:1.4 ["--name=barn", "x: y}, b: { image: z", "{{ x }}"] {"LEVEL": "debug"}
          /srv/web 0777: Symlink { target: "/srv/barn" }
    "#]]
    .assert_eq(&text);
}

#[test]
fn the_commit_is_known_to_templates() {
    let mut repository = tree(FLEET);
    repository.insert("apps/a/files/etc/a.j2", b"{{ commit }}");
    let commit = CommitId::parse(&"a".repeat(40)).expect("a commit");
    let fleet = spec::manifest::parse(&repository, Some(&commit)).fleet.expect("a sound repository");
    let desired = resolve(&fleet, &HostName::parse("barn").expect("a name")).expect("a host of the fleet");
    assert_eq!(desired.apps.values().map(files).collect::<String>(), format!("  /etc/a 0644: {commit}\n"));
}

#[test]
fn hosts_that_render_the_same_share_one_form() {
    let mut repository = tree(FLEET);
    repository.insert("apps/a/files/etc/a.j2", b"{{ vars.level | default('none') }}");
    repository.insert("apps/b/files/etc/b.j2", b"{{ host.name }}");
    let forms: Vec<usize> = fleet(&repository).apps.values().map(|application| application.variants.len()).collect();
    assert_eq!(forms, [2, 3], "attic and cabin share `warn`");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// A value that is rendered into a unit or environment file is refused, or is the value of its key and nothing else.
    #[test]
    fn no_value_adds_a_directive(value in hostile_value(), path in prop::sample::select(vec!["a.service", "files/etc/a.env"])) {
        let mut repository = Tree::default();
        let fleet = serde_json::json!({ "fleet": "home", "hosts": { "attic": { "vars": { "value": value } } } });
        repository.insert("fleet.yaml", fleet.to_string().as_bytes());
        let text = "[Service]\nExecStart=/usr/bin/true\nX-Value=a{{ vars.value }}\nX-End=1\n";
        repository.insert(&format!("apps/a/{path}.j2"), text.as_bytes());
        let Some(fleet) = parse(&repository).fleet else { return Ok(()) };
        let desired = resolve(&fleet, &HostName::parse("attic").expect("a name")).expect("a host of the fleet");
        let rendered = files(desired.apps.values().next().expect("one application"));
        let (_, rendered) = rendered.split_once(": ").expect("a path and a text");
        let found: Vec<(String, String)> =
            spec::inputs::assignments(rendered).into_iter().map(|(_, key, value)| (key, value)).collect();
        let expected = [("ExecStart", "/usr/bin/true".to_owned()), ("X-Value", format!("a{value}").trim().to_owned())];
        let expected = expected.into_iter().chain([("X-End", "1".to_owned())]);
        prop_assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value)).collect::<Vec<_>>());
    }

    /// Nothing that is written into a template makes the reader panic.
    #[test]
    fn no_template_panics(text in "(\\{\\{|\\}\\}|\\{%|%\\}|[a-z .|()'0-9~*-]|for |in |if |end|set |\n|ü){0,40}") {
        let mut repository = tree(FLEET);
        repository.insert("apps/a/files/etc/a.j2", text.as_bytes());
        repository.insert("apps/b/b.service.j2", text.as_bytes());
        let quoted = serde_json::Value::from(text);
        repository.insert("apps/c/app.yaml", format!("containers: {{ c: {{ image: \"c:1\", user: {quoted} }} }}").as_bytes());
        lines(&parse(&repository));
    }
}

fn hostile_value() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,12}", "([a-z]|\n|\r|\\\\|=|\\[Service\\]|#|;| |\u{0}|\u{2028}|\u{85}|\"|%){0,12}",]
}

/// Two brokers in one environment, one user of them in each, and something outside.
const BROKERS: &str = "-- fleet.yaml --
fleet: home
defaults: { environment: prod }
environments:
  prod: { endpoints: { billing: https://billing.example/v1 } }
  test: { endpoints: { billing: { url: http://192.0.2.99:8080 } } }
hosts:
  attic: { labels: { role: broker }, address: 192.0.2.10 }
  barn: { labels: { role: broker }, address: \"2001:db8::1\" }
  cabin: {}
  shed: { environment: test, labels: { role: broker } }
-- apps/broker/app.yaml --
place: { role: broker }
endpoints: { mqtt: { port: 1883, scheme: mqtt }, admin: { port: 80, scheme: http, path: /admin } }
-- apps/broker/files/etc/broker --
x
-- apps/broker/@test/app.yaml --
place: { role: broker }
endpoints: { mqtt: { port: 2883, scheme: mqtt } }
";

#[test]
fn endpoints_lead_to_the_hosts_of_the_environment() {
    check(
        &format!(
            "{BROKERS}-- apps/user/files/etc/user.j2 --
{{{{ endpoints.mqtt }}}} {{{{ endpoints.mqtt.all | join(' ') }}}} {{{{ endpoints.billing.host }}}}
{{{{ endpoints.mqtt.scheme }}}} {{{{ endpoints.mqtt.host }}}} {{{{ endpoints.mqtt.port + 1 }}}} {{{{ \"no\" if endpoints.admin is undefined else endpoints.admin.url }}}}
"
        ),
        expect![[r#"
            attic
             broker
              /etc/broker 0644: x
             user
              /etc/user 0644: mqtt://192.0.2.10:1883 mqtt://192.0.2.10:1883 mqtt://[2001:db8::1]:1883 billing.example
            mqtt 192.0.2.10 1884 http://192.0.2.10:80/admin
            barn
             broker
              /etc/broker 0644: x
             user
              /etc/user 0644: mqtt://[2001:db8::1]:1883 mqtt://[2001:db8::1]:1883 mqtt://192.0.2.10:1883 billing.example
            mqtt 2001:db8::1 1884 http://[2001:db8::1]:80/admin
            cabin
             user
              /etc/user 0644: mqtt://192.0.2.10:1883 mqtt://192.0.2.10:1883 mqtt://[2001:db8::1]:1883 billing.example
            mqtt 192.0.2.10 1884 http://192.0.2.10:80/admin
            shed
             broker
              /etc/broker 0644: x
             user
              /etc/user 0644: mqtt://shed:2883 mqtt://shed:2883 192.0.2.99
            mqtt shed 2884 no
        "#]],
    );
}

#[test]
fn units_read_endpoints_from_a_file() {
    let fleet = fleet(&tree(BROKERS));
    let mut text = String::new();
    for host in ["barn", "shed"] {
        let desired = resolve(&fleet, &HostName::parse(host).expect("a name")).expect("a host of the fleet");
        for (path, file) in &desired.published {
            let FileKind::Regular { content, .. } = &file.kind else { panic!("a file") };
            text.push_str(&format!("{host}: {path} {}\n{}", file.mode, String::from_utf8_lossy(content)));
        }
    }
    expect![[r#"
        barn: /run/mainstay/endpoints.env 0644
        # The endpoints of this host's environment; written by mainstay.
        ADMIN_URL=http://[2001:db8::1]:80/admin
        ADMIN_HOST=2001:db8::1
        ADMIN_PORT=80
        ADMIN_ALL=http://[2001:db8::1]:80/admin,http://192.0.2.10:80/admin
        BILLING_URL=https://billing.example/v1
        BILLING_HOST=billing.example
        BILLING_ALL=https://billing.example/v1
        MQTT_URL=mqtt://[2001:db8::1]:1883
        MQTT_HOST=2001:db8::1
        MQTT_PORT=1883
        MQTT_ALL=mqtt://[2001:db8::1]:1883,mqtt://192.0.2.10:1883
        shed: /run/mainstay/endpoints.env 0644
        # The endpoints of this host's environment; written by mainstay.
        BILLING_URL=http://192.0.2.99:8080
        BILLING_HOST=192.0.2.99
        BILLING_PORT=8080
        BILLING_ALL=http://192.0.2.99:8080
        MQTT_URL=mqtt://shed:2883
        MQTT_HOST=shed
        MQTT_PORT=2883
        MQTT_ALL=mqtt://shed:2883
    "#]]
    .assert_eq(&text);
}

#[test]
fn whoever_names_the_file_is_another_release_when_it_changes() {
    let digest = |more: &str, unit: &str| {
        let mut repository = tree(BROKERS);
        repository.insert("apps/user/user.service", unit.as_bytes());
        let fleet_yaml =
            BROKERS.lines().skip(1).take_while(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
        repository.insert("fleet.yaml", fleet_yaml.replace("https://billing.example/v1", more).as_bytes());
        let desired =
            resolve(&fleet(&repository), &HostName::parse("cabin").expect("a name")).expect("a host of the fleet");
        desired.apps.values().next().expect("an application").digest
    };
    let reads = "[Service]\nEnvironmentFile=-/run/mainstay/endpoints.env\nExecStart=/usr/bin/true\n";
    let other = "[Service]\nExecStart=/usr/bin/true\n";
    assert_ne!(digest("https://a.example", reads), digest("https://b.example", reads));
    assert_eq!(digest("https://a.example", other), digest("https://b.example", other));
}
