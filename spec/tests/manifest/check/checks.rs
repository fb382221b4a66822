//! `checks:` and `needs:` of app.yaml.

use expect_test::expect;

use crate::support::{FLEET, UNIT, check, check_app};

#[test]
fn checks_in_their_short_and_long_forms() {
    check_app(
        r#"checks:
  - tcp: 127.0.0.1:1883
  - { tcp: "[::1]:80", name: web, within: 1m, timeout: 500ms, interval: 1h30m }
  - { http: "http://127.0.0.1:9234/healthz?full", status: 200, within: 30s }
  - { http: "https://web.example/", status: [200, 204], body: fine }
  - { exec: [/usr/local/bin/smoke, --fast, "1"], user: nobody, timeout: 20s }
  - unit: web.service
  - container: web
"#,
        expect![[""]],
    );
}

#[test]
fn checks_that_look_at_nothing_or_at_too_much() {
    check_app(
        r#"checks:
  - {}
  - { tpc: 127.0.0.1:1 }
  - { tcp: 127.0.0.1:1, unit: web.service }
  - { tcp: 127.0.0.1:1, status: 200 }
  - { tcp: 127.0.0.1:1, retries: 3 }
  - tcp: 127.0.0.1:2
  - tcp: 127.0.0.1:2
  - 127.0.0.1:1
"#,
        expect![[r#"
            error[check] apps/a/app.yaml:2:5: this check looks at nothing
              = add `tcp`, `http`, `exec`, `unit` or `container`, such as { tcp: 127.0.0.1:1883 }
            error[unknown-key] apps/a/app.yaml:3:7: a check has no key `tpc`
              = did you mean `tcp`?
            error[check] apps/a/app.yaml:4:25: a check looks at one thing
              = make an item of its own for each
            error[unknown-key] apps/a/app.yaml:5:25: a check has no key `status`
              = it knows `tcp`, `http`, `exec`, `unit`, `container`, `name`, `within`, `timeout` and `interval`
            error[check] apps/a/app.yaml:6:5: this check of tcp 127.0.0.1:1 is there already
              = remove one of the two
            error[unknown-key] apps/a/app.yaml:6:25: a check has no key `retries`
              = it knows `tcp`, `http`, `exec`, `unit`, `container`, `name`, `within`, `timeout` and `interval`
            error[check] apps/a/app.yaml:8:5: this check of tcp 127.0.0.1:2 is there already
              = remove one of the two
            error[wrong-type] apps/a/app.yaml:9:5: a check must be a map, but a text stands here
              = write a map such as { key: value }
        "#]],
    );
}

#[test]
fn checks_that_cannot_be_meant() {
    check_app(
        r#"checks:
  - tcp: 1883
  - tcp: "::1:80"
  - tcp: localhost:99999
  - http: localhost/healthz
  - http: http://me:secret@web/
  - http: "http://web/a b"
  - http: http://:80/
  - { http: http://web/, status: [99, ok, "2xx"] }
  - exec: /usr/local/bin/smoke --fast
  - exec: [smoke]
  - exec: []
  - { exec: [/bin/true], user: -x }
  - unit: web
  - unit: web@.service
  - container: /web
"#,
        expect![[r#"
            error[check] apps/a/app.yaml:2:10: `tcp` is HOST:PORT, not `1883`
              = write it such as 127.0.0.1:1883 or "[::1]:1883"
            error[check] apps/a/app.yaml:3:10: `tcp` is HOST:PORT, not `::1:80`
              = write it such as 127.0.0.1:1883 or "[::1]:1883"
            error[check] apps/a/app.yaml:4:10: `tcp` is HOST:PORT, not `localhost:99999`
              = write it such as 127.0.0.1:1883 or "[::1]:1883"
            error[check] apps/a/app.yaml:5:11: `localhost/healthz` is not a URL to check: it begins with neither http:// nor https://
              = write the whole URL, such as http://127.0.0.1:9234/healthz
            error[check] apps/a/app.yaml:6:11: `http://me:secret@web/` is not a URL to check: it holds a user or password, which everybody who reads the repository sees
              = remove what is before the `@`
            error[check] apps/a/app.yaml:7:11: `http://web/a b` is not a URL to check: it holds a character that URLs escape
              = write it with %-escapes, such as %20 for a space
            error[check] apps/a/app.yaml:8:11: `http://:80/` is not a URL to check: its host or port is none
              = write the whole URL, such as http://127.0.0.1:9234/healthz
            error[check] apps/a/app.yaml:9:35: `99` is no status code
              = write a number from 100 to 599, or a list of them; without `status`, 200 to 399 count
            error[check] apps/a/app.yaml:9:39: `ok` is no status code
              = write a number from 100 to 599, or a list of them; without `status`, 200 to 399 count
            error[check] apps/a/app.yaml:9:43: `2xx` is no status code
              = write a number from 100 to 599, or a list of them; without `status`, 200 to 399 count
            error[check] apps/a/app.yaml:10:11: `exec` is a list, the program and its arguments: no shell takes it apart
              = write ["/usr/local/bin/smoke", "--fast"]
            error[check] apps/a/app.yaml:11:12: `smoke` is not the absolute path of a program
              = write where it is, such as /usr/bin/curl: a check has no PATH to search
            error[check] apps/a/app.yaml:12:11: `exec` names no program
              = write ["/usr/local/bin/smoke"]
            error[check] apps/a/app.yaml:13:32: `-x` is not a user
              = write a name or a number
            error[unit-name] apps/a/app.yaml:14:11: this is not a unit's name: `web` has no suffix such as `.service`
              = write the whole name, such as web.service
            error[check] apps/a/app.yaml:15:11: `web@.service` is a template, which is never active
              = name an instance of it
            error[container-name] apps/a/app.yaml:16:16: `/web` is not a container name: letters, digits, `_`, `.` and `-`, beginning with a letter or digit
              = rename it, for instance to `web`
        "#]],
    );
}

#[test]
fn lengths_of_time() {
    check_app(
        r#"checks:
  - { tcp: "h:1", within: 30 }
  - { tcp: "h:2", within: 0s }
  - { tcp: "h:3", within: 9223372036854775807s }
  - { tcp: "h:4", timeout: -1s }
  - { tcp: "h:5", timeout: 1e9s }
  - { tcp: "h:6", interval: 2d }
  - { tcp: "h:7", interval: }
"#,
        expect![[r#"
            error[duration] apps/a/app.yaml:2:27: `within` is a length of time with its unit, not `30`
              = add the unit: 30s for seconds, 30m for minutes
            error[duration] apps/a/app.yaml:3:27: `within` is between 1s and 10m, not `0s`
              = choose a length of time between the two
            error[duration] apps/a/app.yaml:4:27: `within` is a length of time with its unit, not `9223372036854775807s`
              = write it such as 500ms, 30s, 5m or 1h30m
            error[duration] apps/a/app.yaml:5:28: `timeout` is a length of time with its unit, not `-1s`
              = write it such as 500ms, 30s, 5m or 1h30m
            error[duration] apps/a/app.yaml:6:28: `timeout` is a length of time with its unit, not `1e9s`
              = write it such as 500ms, 30s, 5m or 1h30m
            error[duration] apps/a/app.yaml:7:29: `interval` is between 1s and 1d, not `2d`
              = choose a length of time between the two
            error[no-value] apps/a/app.yaml:8:19: `interval` has no value
              = write a text, number or boolean behind it, or remove it
        "#]],
    );
}

fn needs(apps: &[(&str, &str)]) -> String {
    let app = |(name, needs): &(&str, &str)| {
        format!("-- apps/{name}/app.yaml --\nneeds: {needs}\n-- apps/{name}/{name}.service --\n{UNIT}")
    };
    format!("-- fleet.yaml --\n{FLEET}{}", apps.iter().map(app).collect::<String>())
}

#[test]
fn needs_name_applications_that_exist() {
    check(&needs(&[("web", "[store]"), ("store", "[]")]), expect![[""]]);
    check(
        &needs(&[("web", "[stroe, nothing-like-it, store, store, Not_A_Name]"), ("store", "store")]),
        expect![[r#"
        error[wrong-type] apps/store/app.yaml:1:8: `needs` must be a list, but a text stands here
          = write a list such as [one, two]
        error[needs] apps/web/app.yaml:1:9: `web` needs `stroe`, and there is no such application
          = did you mean `store`?
        error[needs] apps/web/app.yaml:1:16: `web` needs `nothing-like-it`, and there is no such application
          = add apps/nothing-like-it/, or remove it
        error[needs] apps/web/app.yaml:1:40: `store` is needed twice
          = keep one of the two
        error[app-name] apps/web/app.yaml:1:47: this is not an application's name: `Not_A_Name` may hold only lower-case letters, digits and `-`
          = rename it, for instance to `not-a-name`
    "#]],
    );
}

#[test]
fn needs_go_in_no_circle() {
    check(
        &needs(&[("web", "[web]")]),
        expect![[r#"
        error[needs-cycle] apps/web/app.yaml:1:9: `web` needs itself
          = remove one `needs` of the round: the first one to start must need none of the others
    "#]],
    );
    check(
        &needs(&[("a", "[b]"), ("b", "[c]"), ("c", "[a]"), ("d", "[a]")]),
        expect![[r#"
        error[needs-cycle] apps/a/app.yaml:1:9: these applications wait for each other: a -> b -> c -> a
          = remove one `needs` of the round: the first one to start must need none of the others
    "#]],
    );
}
