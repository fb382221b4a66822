//! What can be wrong with endpoints.

use expect_test::expect;

use crate::support::check;

#[test]
fn endpoints_as_written() {
    check(
        "-- fleet.yaml --
fleet: home
defaults: { environment: prod }
environments:
  prod:
    endpoints:
      billing: https://billing.example
      Tax-Office: https://tax.example
      broken: billing.example
      spaced: \"https://billing.example/a b\"
      empty: {}
      mapped: { url: mqtt://192.0.2.7:0, port: 1 }
      number: 80
hosts: { attic: {} }
-- apps/a/app.yaml --
endpoints:
  mqtt: { port: 1883, scheme: mqtt }
  web: { port: 0 }
  2nd: { port: 80 }
  log: { scheme: Syslog, port: 514 }
  path: { port: 80, path: admin }
  none:
  typo: { prot: 80 }
-- apps/a/files/etc/a --
a
",
        expect![[r#"
            error[endpoint] apps/a/app.yaml:3:16: `0` is not a port from 1 to 65535
              = write the number, such as 1883
            error[endpoint-name] apps/a/app.yaml:4:3: `2nd` is not an endpoint's name
              = call it nd: lower-case letters, digits and `_`, beginning with a letter
            error[endpoint] apps/a/app.yaml:5:18: `Syslog` is not a URL's scheme
              = write lower-case letters and digits, such as mqtt or https
            error[endpoint] apps/a/app.yaml:6:27: `admin` is not the path of a URL
              = begin it with `/`, without spaces and quotes
            error[no-value] apps/a/app.yaml:7:3: endpoint `none` has no value
              = write a map such as { key: value } behind it, or remove it
            error[endpoint] apps/a/app.yaml:8:3: this endpoint names no port
              = write { port: 1883, scheme: mqtt }, with path: /… if need be
            error[unknown-key] apps/a/app.yaml:8:11: an endpoint has no key `prot`
              = did you mean `port`?
            error[endpoint-name] fleet.yaml:7:7: `Tax-Office` is not an endpoint's name
              = call it tax_office: lower-case letters, digits and `_`, beginning with a letter
            error[endpoint] fleet.yaml:8:15: `billing.example` is not a URL
              = write a URL, such as https://billing.example or mqtt://192.0.2.7:1883
            error[endpoint] fleet.yaml:9:15: `https://billing.example/a b` is not a URL
              = write a URL, such as https://billing.example or mqtt://192.0.2.7:1883
            error[endpoint] fleet.yaml:10:7: this endpoint has no `url`
              = write a URL, such as https://billing.example or mqtt://192.0.2.7:1883
            error[endpoint] fleet.yaml:11:22: `mqtt://192.0.2.7:0` is not a URL
              = write a URL, such as https://billing.example or mqtt://192.0.2.7:1883
            error[unknown-key] fleet.yaml:11:42: an endpoint has no key `port`
              = it knows `url`
            error[wrong-type] fleet.yaml:12:15: an endpoint is a text, but `80` is a number in YAML
              = put quotes around it: "80"
        "#]],
    );
}

#[test]
fn a_name_leads_to_one_thing() {
    check(
        "-- fleet.yaml --
fleet: home
environments: { prod: { endpoints: { db: postgres://192.0.2.9:5432/x } }, test: {} }
hosts: { attic: { environment: prod }, barn: { environment: test }, cabin: { environment: test } }
-- apps/a/app.yaml --
endpoints: { mqtt: { port: 1883 }, db: { port: 5432 } }
-- apps/a/files/etc/a --
a
-- apps/b/app.yaml --
place: { environment: test }
endpoints: { mqtt: { port: 1884 } }
-- apps/b/files/etc/b --
b
",
        expect![[r#"
            error[endpoint-twice] apps/a/app.yaml:1:36: endpoint `db` is offered by `a`, and lies outside the fleet as well
              = rename one of the two: whoever asks for it could not tell which one is meant
              - fleet.yaml:2:38: written here
            error[endpoint-twice] apps/b/app.yaml:2:14: endpoint `mqtt` is offered by `a` and `b` in one environment
              = rename one of the two: whoever asks for it could not tell which one is meant
              - apps/a/app.yaml:1:14: offered here
        "#]],
    );
}

#[test]
fn endpoints_that_are_not_there() {
    check(
        "-- fleet.yaml --
fleet: home
environments: { prod: { endpoints: { billing: https://billing.example } }, test: {} }
hosts: { attic: { environment: prod }, barn: { environment: test }, cabin: {} }
-- apps/broker/app.yaml --
place: { environment: prod }
endpoints: { mqtt: { port: 1883, scheme: mqtt } }
-- apps/broker/files/etc/a --
a
-- apps/user/files/etc/b.j2 --
{{ endpoints.mqtt }}
{{ endpoints.mqqt }}
{{ endpoints.billing }}
{{ endpoints.mqtt.adress }}
{{ endpoints.billing.port }}
",
        expect![[r#"
            error[endpoint-nowhere] apps/user/files/etc/b.j2:1:4: endpoint `mqtt` leads nowhere: `broker` offers it, and is placed on no host of environment `test`
              = place it there, or write where it lies outside under `endpoints:` of the environment
              ~ for host `barn` and 1 more
            error[template-undefined] apps/user/files/etc/b.j2:2:4: `endpoints` has no `mqqt`
              = did you mean `endpoints.mqtt`?
              ~ for host `attic` and 2 more
            error[template-undefined] apps/user/files/etc/b.j2:3:4: `endpoints` has no `billing`
              = offer it with `endpoints:` in the app.yaml of an application, or of an environment
              ~ for host `barn` and 1 more
            error[endpoint-nowhere] apps/user/files/etc/b.j2:4:13: endpoint `mqtt` leads nowhere: `broker` offers it, and is placed on no host of environment `test`
              = place it there, or write where it lies outside under `endpoints:` of the environment
              ~ for host `barn` and 1 more
            error[template-undefined] apps/user/files/etc/b.j2:4:13: `endpoints.mqtt` has no `adress`
              = `endpoints.mqtt` has `url`, `host`, `port`, `scheme` and `all`
              ~ for host `attic`
            error[template-undefined] apps/user/files/etc/b.j2:5:13: `endpoints` has no `billing`
              = offer it with `endpoints:` in the app.yaml of an application, or of an environment
              ~ for host `barn` and 1 more
            error[template-value] apps/user/files/etc/b.j2:5:13: this has no value
              = give it one, or say what stands in: `| default("…", true)`
              ~ for host `attic`
        "#]],
    );
}

#[test]
fn nobody_is_blamed_for_an_endpoint_that_is_only_mistaken() {
    check(
        "-- fleet.yaml --
fleet: home
hosts: { attic: {} }
-- apps/broker/app.yaml --
endpoints: { mqtt: { port: none } }
-- apps/broker/files/etc/a --
a
-- apps/user/files/etc/b.j2 --
{{ endpoints.mqtt }}
",
        expect![[r#"
            error[endpoint] apps/broker/app.yaml:1:28: `none` is not a port from 1 to 65535
              = write the number, such as 1883
        "#]],
    );
}
