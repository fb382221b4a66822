//! What can be wrong with templates, and for whom.

use expect_test::expect;

use crate::support::{check, parse, tree};

const FLEET: &str = "-- fleet.yaml --
fleet: home
defaults: { environment: prod }
environments: { prod: { vars: { port: 80, level: warn, none: null, names: [a, b], tls: { key: x } } }, test: {} }
hosts:
  attic: { labels: { role: broker }, address: 192.0.2.10 }
  barn: { environment: test, vars: { port: 81, evil: \"a\\nExecStart=/bin/sh\" } }
  cabin: {}
";

fn check_file(path: &str, text: &str, expected: expect_test::Expect) {
    check(&format!("{FLEET}-- apps/a/files/etc/x --\nx\n-- apps/a/{path} --\n{text}"), expected);
}

#[test]
fn undefined_names_say_what_there_is() {
    check_file(
        "files/etc/a.conf.j2",
        "ok {{ vars.port }}
a {{ vars.prot }}
b {{ vra.port }}
c {{ host.adress }}
d {{ vars.tls.kei }} {{ vars['level'] }}
",
        expect![[r#"
            error[template-undefined] apps/a/files/etc/a.conf.j2:2:6: `vars` has no `prot`
              = did you mean `vars.port`?
              ~ for host `attic` and 2 more
            error[template-undefined] apps/a/files/etc/a.conf.j2:3:6: `vra` is not defined
              = templates know `app`, `commit`, `endpoints`, `fleet`, `host` and `vars`
              ~ for host `attic` and 2 more
            error[template-undefined] apps/a/files/etc/a.conf.j2:4:6: `host` has no `adress`
              = did you mean `host.address`?
              ~ for host `attic` and 2 more
            error[template-undefined] apps/a/files/etc/a.conf.j2:5:10: `vars.tls` has no `kei`
              = did you mean `vars.tls.key`?
              ~ for host `attic` and 2 more
            error[template-undefined] apps/a/files/etc/a.conf.j2:5:25: `vars` has no `level`
              = did you mean `vars.evil`?
              ~ for host `barn`
        "#]],
    );
    check_file(
        "files/etc/b.conf.j2",
        "{{ vars.tls.kei }}\n",
        expect![[r#"
        error[template-undefined] apps/a/files/etc/b.conf.j2:1:8: `vars.tls` has no `kei`
          = did you mean `vars.tls.key`?
          ~ for host `attic` and 2 more
    "#]],
    );
    check_file(
        "files/etc/c.conf.j2",
        "x\n  {{ vra.port | lower }}\n",
        expect![[r#"
            error[template-undefined] apps/a/files/etc/c.conf.j2:2:6: `vra` is not defined
              = templates know `app`, `commit`, `endpoints`, `fleet`, `host` and `vars`
              ~ for host `attic` and 2 more
        "#]],
    );
    check_file(
        "files/etc/d.conf.j2",
        "{% if host.adress %}x{% endif %}\n",
        expect![[r#"
        error[template-undefined] apps/a/files/etc/d.conf.j2:1:7: `host` has no `adress`
          = did you mean `host.address`?
          ~ for host `attic` and 2 more
    "#]],
    );
    check_file(
        "files/etc/e.conf.j2",
        "{{ host.address }}\n",
        expect![[r#"
        error[template-value] apps/a/files/etc/e.conf.j2:1:4: this has no value
          = give it one, or say what stands in: `| default("…", true)`
          ~ for host `barn` and 1 more
    "#]],
    );
    check_file(
        "files/etc/f.conf.j2",
        "{% for name in vars.names %}{{ nam }}{% endfor %}\n",
        expect![[r#"
            error[template-undefined] apps/a/files/etc/f.conf.j2:1:16: `vars` has no `names`
              = `vars` has `evil` and `port`
              ~ for host `barn`
            error[template-undefined] apps/a/files/etc/f.conf.j2:1:32: `nam` is not defined
              = templates know `app`, `commit`, `endpoints`, `fleet`, `host` and `vars`
              ~ for host `attic` and 1 more
        "#]],
    );
    check_file(
        "files/etc/g.conf.j2",
        "{{ nothing_like_it }}\n",
        expect![[r#"
            error[template-undefined] apps/a/files/etc/g.conf.j2:1:4: `nothing_like_it` is not defined
              = templates know `app`, `commit`, `endpoints`, `fleet`, `host` and `vars`
              ~ for host `attic` and 2 more
        "#]],
    );
}

#[test]
fn syntax_has_its_place() {
    check_file(
        "files/etc/a.conf.j2",
        "a\nb {{ vars.port \nc\n",
        expect![[r#"
            error[template-syntax] apps/a/files/etc/a.conf.j2:3:1: this is not a template: unexpected identifier, expected end of variable block
              = each `{{` ends with `}}`, each `{%` with `%}`, and each `{% if %}` and `{% for %}` with its `{% end… %}`
        "#]],
    );
    check_file(
        "files/etc/b.conf.j2",
        "{% if vars.port %}\nx\n",
        expect![[r#"
            error[template-syntax] apps/a/files/etc/b.conf.j2:2:1: this is not a template: unexpected end of input, expected end of block
              = each `{{` ends with `}}`, each `{%` with `%}`, and each `{% if %}` and `{% for %}` with its `{% end… %}`
        "#]],
    );
    check_file(
        "files/etc/c.conf.j2",
        "x\n{% include \"/etc/passwd\" %}\n",
        expect![[r#"
        error[template-syntax] apps/a/files/etc/c.conf.j2:2:4: `include` is no part of these templates
          = each template stands alone: write the text here, or keep what differs in `vars`
    "#]],
    );
    check_file(
        "files/etc/d.conf.j2",
        "{% extends \"base\" %}\n{% macro x() %}{% endmacro %}\n",
        expect![[r#"
        error[template-syntax] apps/a/files/etc/d.conf.j2:1:4: `extends` is no part of these templates
          = each template stands alone: write the text here, or keep what differs in `vars`
    "#]],
    );
    check_file(
        "files/etc/e.conf.j2",
        "{{ vars.port | shell }}\n",
        expect![[r#"
            error[template-unknown] apps/a/files/etc/e.conf.j2:1:16: there is no filter `shell`
              = a template computes with the values it is given; it reaches no file, command or environment
              ~ for host `attic` and 2 more
        "#]],
    );
    check_file(
        "files/etc/f.conf.j2",
        "{{ lookup('env', 'HOME') }}\n",
        expect![[r#"
            error[template-unknown] apps/a/files/etc/f.conf.j2:1:4: there is no function `lookup`
              = a template computes with the values it is given; it reaches no file, command or environment
              ~ for host `attic` and 2 more
        "#]],
    );
    check_file(
        "files/etc/g.conf.j2",
        "{{ vars.port.foo() }}\n",
        expect![[r#"
        error[template-unknown] apps/a/files/etc/g.conf.j2:1:13: number has no method named foo
          = a template computes with the values it is given; it reaches no file, command or environment
          ~ for host `attic` and 2 more
    "#]],
    );
    check_file(
        "files/etc/h.conf.j2",
        "{{ 'a' + 1 }}\n",
        expect![[r#"
            error[template-value] apps/a/files/etc/h.conf.j2:1:4: invalid operation: tried to use + operator on unsupported types string and number
              = `mainstay render --host NAME` shows what each host is given; `| default(…)` stands in for what is missing
              ~ for host `attic` and 2 more
        "#]],
    );
}

#[test]
fn values_are_printed_as_somebody_means_them() {
    check_file(
        "files/etc/a.conf.j2",
        "{{ vars.names | default([1]) }}\n",
        expect![[r#"
        error[template-value] apps/a/files/etc/a.conf.j2:1:17: this is a list
          = say how to write it: a loop, `| join(", ")` or `| tojson`
          ~ for host `attic` and 2 more
    "#]],
    );
    check_file(
        "files/etc/b.conf.j2",
        "{{ vars.tls | default({}) }}\n",
        expect![[r#"
        error[template-value] apps/a/files/etc/b.conf.j2:1:15: this is a map
          = name what is meant in it, or write `| tojson`
          ~ for host `attic` and 2 more
    "#]],
    );
    check_file(
        "files/etc/c.conf.j2",
        "{{ none }}\n",
        expect![[r#"
        error[template-value] apps/a/files/etc/c.conf.j2:1:4: this has no value
          = give it one, or say what stands in: `| default("…", true)`
          ~ for host `attic` and 2 more
    "#]],
    );
}

#[test]
fn no_value_leaves_its_line() {
    const UNIT: &str = "[Service]\nEnvironment=NAME={{ vars.evil | default(\"x\") }}\nExecStart=/usr/bin/true\n";
    check_file(
        "a.service.j2",
        UNIT,
        expect![[r#"
        error[template-line] apps/a/a.service.j2:2:33: this value would leave its line: it holds a line break, or ends with a backslash
          = write one value per line, with a loop if need be: what is rendered here adds no line by itself
          ~ for host `barn`
    "#]],
    );
    check_file(
        "files/etc/a.env.j2",
        "NAME={{ vars.evil | default(\"x\\\\\") }}\n",
        expect![[r#"
        error[template-line] apps/a/files/etc/a.env.j2:1:21: this value would leave its line: it holds a line break, or ends with a backslash
          = write one value per line, with a loop if need be: what is rendered here adds no line by itself
          ~ for host `attic` and 2 more
    "#]],
    );
    check_file(
        "files/etc/default/a.j2",
        "NAME={{ vars.evil | default(\"x\") }}\n",
        expect![[r#"
        error[template-line] apps/a/files/etc/default/a.j2:1:21: this value would leave its line: it holds a line break, or ends with a backslash
          = write one value per line, with a loop if need be: what is rendered here adds no line by itself
          ~ for host `barn`
    "#]],
    );
    check_file("files/etc/a.conf.j2", "NAME={{ vars.evil | default(\"x\") }}\n", expect![[""]]);
}

#[test]
fn mistakes_in_rendered_text_are_those_of_the_template() {
    check_file(
        "a.service.j2",
        "[Unit]
Description={{ host.name }}
{% for port in [1, 2] %}
# {{ port }}
{% endfor %}
[Service]
ExecStrt=/usr/bin/true
ExecStart=/usr/bin/true
Restart={{ vars.level | default('nver') }}
",
        expect![[r#"
            error[unit-directive] apps/a/a.service.j2:7:1: systemd knows no `ExecStrt=` in [Service]
              = did you mean `ExecStart=`?
            error[unit-value] apps/a/a.service.j2:9:1: `Restart=` does not take `warn`
              = it takes `no`, `on-success`, `on-failure`, `on-abnormal`, `on-watchdog`, `on-abort` or `always`
              ~ rendered for host `attic` and 2 more: `Restart=warn`
        "#]],
    );
    check_file(
        "app.yaml",
        "place: all
containers:
  web: { image: \"registry.lan/web:{{ vars.level }}\", ports: [\"{{ vars.port }}:{{ vars.level }}\"] }
",
        expect![[r#"
            error[template-undefined] apps/a/app.yaml:3:17: `vars` has no `level`
              = did you mean `vars.evil`?
              ~ for host `barn`
            error[container-port] apps/a/app.yaml:3:62: `80:warn` is not a published port: `warn` is not a port from 1 to 65535
              = write "HOST:CONTAINER", "ADDRESS:HOST:CONTAINER" or "HOST:CONTAINER/udp", such as "8080:80"
              ~ rendered for host `attic` and 1 more: `80:warn`
            error[template-undefined] apps/a/app.yaml:3:62: `vars` has no `level`
              = did you mean `vars.evil`?
              ~ for host `barn`
        "#]],
    );
}

#[test]
fn names_of_templates() {
    check(
        &format!(
            "{FLEET}-- apps/a/files/etc/x --
x
-- apps/a/files/etc/x.j2 --
x
-- apps/a/@prod/files/etc/x.j2 --
x
-- apps/a/app.yaml.j2 --
place: all
-- apps/a/files/etc/.j2 --
x
-- apps/a/app.yaml --
containers:
  \"{{{{ host.name }}}}\": {{ image: \"x:1\", env: {{ A: {{{{ host.name }}}} }} }}
"
        ),
        expect![[r#"
            error[container-name] apps/a/app.yaml:2:3: `{{ host.name }}` is not a container name: letters, digits, `_`, `.` and `-`, beginning with a letter or digit
              = rename it, for instance to `host-name`
            error[template-key] apps/a/app.yaml:2:3: keys are not rendered, only values are
              = write the name itself; what differs among hosts belongs into an overlay's app.yaml
            error[wrong-type] apps/a/app.yaml:2:48: variable `A` must be a text, number or boolean, but a map stands here
              = write a text, number or boolean
            error[yaml-key] apps/a/app.yaml:2:49: a value that begins with `{{` needs quotes
              = put quotes around all of it: "{{ … }}"
            error[template-app] apps/a/app.yaml.j2: app.yaml itself is not a template
              = rename it to app.yaml: the texts in it may hold `{{ … }}`, its structure may not depend on a host
            error[template-name] apps/a/files/etc/.j2: this name says nothing of what the template renders to
              = write one `.j2` behind the name that the file has on the host
            error[template-twice] apps/a/files/etc/x.j2: `files/etc/x` is here twice, as a file and as a template
              = keep one of the two
              - apps/a/files/etc/x: the other one
        "#]],
    );
}

#[test]
fn many_hosts_make_one_mistake() {
    let hosts: String = (0..500).map(|n| format!("  h{n}: {{}}\n")).collect();
    check(
        &format!(
            "-- fleet.yaml --\nfleet: home\nhosts:\n{hosts}-- apps/a/files/etc/a.j2 --\n{{{{ vars.x }}}}\n\
             -- apps/b/b.service.j2 --\n[Service]\nExecStart=/bin/true\nUser={{{{ host.name }}}}\n\
             Restart={{{{ host.name }}}}\n"
        ),
        expect![[r#"
            error[template-undefined] apps/a/files/etc/a.j2:1:4: `vars` has no `x`
              = give it a value in `vars:` of app.yaml, of an environment or of the host
              ~ for host `h0` and 499 more
            error[unit-value] apps/b/b.service.j2:4:1: `Restart=` does not take `h0`
              = it takes `no`, `on-success`, `on-failure`, `on-abnormal`, `on-watchdog`, `on-abort` or `always`
              ~ rendered for host `h0` and 499 more: `Restart=h0`
        "#]],
    );
}

#[test]
fn nothing_is_rendered_with_half_of_the_values() {
    check(
        "-- fleet.yaml --
fleet: home
hosts:
  attic: { vras: { port: 80 } }
-- apps/a/files/etc/a.j2 --
{{ vars.port }} {{ }}
-- apps/a/b.service --
[Service]
ExecStrt=/usr/bin/true
",
        expect![[r#"
            error[unit-directive] apps/a/b.service:2:1: systemd knows no `ExecStrt=` in [Service]
              = did you mean `ExecStart=`?
            error[template-syntax] apps/a/files/etc/a.j2:1:20: this is not a template: unexpected end of variable block
              = each `{{` ends with `}}`, each `{%` with `%}`, and each `{% if %}` and `{% for %}` with its `{% end… %}`
            error[unknown-key] fleet.yaml:3:12: a host has no key `vras`
              = did you mean `vars`?
        "#]],
    );
}

#[test]
fn an_endless_template_ends() {
    check_file(
        "files/etc/a.j2",
        "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
        expect![[r#"
            error[template-too-large] apps/a/files/etc/a.j2:1:1: rendering takes too many steps
              = look for a loop that repeats itself
              ~ for host `attic` and 2 more
        "#]],
    );
    check_file(
        "files/etc/b.j2",
        "{% for a in range(9999) %}{{ 'x' * 1000 }}{% endfor %}",
        expect![[r#"
        error[template-too-large] apps/a/files/etc/b.j2:1:1: the template renders to more than 1 MiB
          = look for a loop that repeats itself, or bring the file as it is
          ~ for host `attic` and 2 more
    "#]],
    );
    check_file(
        "files/etc/c.j2",
        "{{ 'x' * 99999999999 }}",
        expect![[r#"
            error[template-value] apps/a/files/etc/c.j2:1:4: invalid operation: repeated string is too large
              = `mainstay render --host NAME` shows what each host is given; `| default(…)` stands in for what is missing
              ~ for host `attic` and 2 more
        "#]],
    );
    let nested = format!("{}x{}", "{% if true %}".repeat(5000), "{% endif %}".repeat(5000));
    let parsed = parse(&tree(&format!("{FLEET}-- apps/a/files/etc/a.j2 --\n{nested}")));
    assert!(parsed.fleet.is_none());
}

#[test]
fn a_template_that_is_broken_hides_no_mistake_elsewhere() {
    check(
        &format!(
            "{FLEET}-- apps/a/app.yaml --\n\
             place: {{ role: broker }}\nneeds: [gone]\nchecks: [{{ tpc: \"127.0.0.1:1\" }}]\n\
             units: {{ web.service: {{ state: runing }}, wbe.service: {{ state: running }} }}\n\
             containers: {{ x: {{ imag: \"a:1\" }}, y: {{ image: \"{{{{ vars.tag }}}}\" }} }}\n\
             files: {{ /etc/x: {{ mode: 644 }} }}\ncolour: red\n\
             -- apps/a/web.service.j2 --\n[Service]\nExecStart={{{{ oops\n\
             -- apps/a/db.service --\n[Service]\nExecStrat=/usr/bin/db\n\
             -- apps/b/app.yaml --\nplace: all\nendpoints: {{ db: {{ prot: 1 }} }}\n\
             -- apps/b/files/etc/b.j2 --\n{{{{ vars.prot }}}} {{{{ endpoints.db.url }}}}\n\
             -- apps/c/app.yaml --\nvars: [x]\n-- apps/c/files/etc/c.j2 --\n{{{{ vars.own }}}}\n"
        ),
        expect![[r#"
            error[needs] apps/a/app.yaml:2:9: `a` needs `gone`, and there is no such application
              = add apps/gone/, or remove it
            error[unknown-key] apps/a/app.yaml:3:12: a check has no key `tpc`
              = did you mean `tcp`?
            error[unknown-value] apps/a/app.yaml:4:32: `state` is `running` or `stopped`, not `runing`
              = did you mean `running`?
            error[unknown-key] apps/a/app.yaml:5:20: a container has no key `imag`
              = did you mean `image`?
            error[template-undefined] apps/a/app.yaml:5:47: `vars` has no `tag`
              = `vars` has `level`, `names`, `none`, `port` and `tls`
              ~ for host `attic`
            error[file-missing] apps/a/app.yaml:6:10: nothing in this folder brings `/etc/x`
              = add the file below files/, or write kind: directory or kind: symlink for `/etc/x`
            error[file-mode] apps/a/app.yaml:6:26: mode 644 is a number in YAML, and readers differ on whether it is octal
              = put quotes around it: "0644"
            error[unknown-key] apps/a/app.yaml:7:1: app.yaml has no key `colour`
              = it knows `place`, `drift`, `adopt`, `vars`, `endpoints`, `user`, `units`, `files`, `artifacts`, `compose`, `containers`, `rollout`, `needs` and `checks`
            error[unit-directive] apps/a/db.service:2:1: systemd knows no `ExecStrat=` in [Service]
              = did you mean `ExecStart=`?
            error[template-syntax] apps/a/web.service.j2:2:14: this is not a template: unexpected end of input, expected end of variable block
              = each `{{` ends with `}}`, each `{%` with `%}`, and each `{% if %}` and `{% for %}` with its `{% end… %}`
            error[endpoint] apps/b/app.yaml:2:14: this endpoint names no port
              = write { port: 1883, scheme: mqtt }, with path: /… if need be
            error[unknown-key] apps/b/app.yaml:2:20: an endpoint has no key `prot`
              = did you mean `port`?
            error[template-undefined] apps/b/files/etc/b.j2:1:4: `vars` has no `prot`
              = did you mean `vars.port`?
              ~ for host `attic` and 2 more
            error[wrong-type] apps/c/app.yaml:1:7: `vars` must be a map, but a list stands here
              = write a map such as { name: … }
        "#]],
    );
}
