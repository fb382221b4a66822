//! What only the whole repository shows.

use expect_test::expect;

use crate::support::check;

#[test]
fn two_apps_want_one_thing() {
    check(
        r#"-- fleet.yaml --
fleet: home
hosts:
  attic: { labels: { site: home, role: broker } }
  barn: { labels: { site: farm, role: broker } }
-- apps/a/app.yaml --
containers: { shop: { image: "a:1", ports: ["80:80"] } }
-- apps/a/web.service --
[Service]
ExecStart=/usr/bin/true
-- apps/a/files/etc/motd --
a
-- apps/a/files/srv/tree --
a
-- apps/b/app.yaml --
place: { site: farm }
containers: { shop: { image: "b:1", ports: ["127.0.0.1:80:8080"] } }
units: { web.service: { state: running } }
-- apps/b/files/etc/motd --
b
-- apps/b/files/srv/tree/leaf --
b
"#,
        expect![[r#"
            error[conflict] apps/b/app.yaml:2:15: container `shop` is wanted by `a` and `b` on host `barn`
              = let one application have it, or place the two on different hosts
              - apps/a/app.yaml:1:15: wanted here as well
            error[conflict] apps/b/app.yaml:2:45: host port 80/tcp is wanted by `a` and `b` on host `barn`
              = let one application have it, or place the two on different hosts
              - apps/a/app.yaml:1:45: wanted here as well
            error[conflict] apps/b/app.yaml:3:10: unit `web.service` is wanted by `a` and `b` on host `barn`
              = let one application have it, or place the two on different hosts
              - apps/a/web.service: wanted here as well
            error[conflict] apps/b/files/etc/motd: path `/etc/motd` is wanted by `a` and `b` on host `barn`
              = let one application have it, or place the two on different hosts
              - apps/a/files/etc/motd: wanted here as well
            error[conflict] apps/b/files/srv/tree/leaf: `/srv/tree/leaf` needs `/srv/tree` to be a folder, but it is wanted as a file or link
              = move one of the two, or place the applications on different hosts
              - apps/a/files/srv/tree: wanted as a file or link here
        "#]],
    );
}

#[test]
fn disjoint_hosts_may_share() {
    check(
        r#"-- fleet.yaml --
fleet: home
hosts:
  attic: { labels: { site: home, role: broker } }
  barn: { labels: { site: farm, role: broker } }
-- apps/a/app.yaml --
place: { site: home }
containers: { shop: { image: "a:1", ports: ["80:80"] } }
-- apps/a/files/etc/motd --
a
-- apps/b/app.yaml --
place: { site: farm }
containers: { shop: { image: "b:1", ports: ["80:80"] } }
-- apps/b/files/etc/motd --
b
"#,
        expect![[""]],
    );
}

#[test]
fn ports_within_one_app() {
    check(
        r#"-- fleet.yaml --
fleet: home
hosts:
  attic: { labels: { site: home, role: broker } }
  barn: { labels: { site: farm, role: broker } }
-- apps/a/app.yaml --
containers:
  one: { image: "a:1", ports: ["192.0.2.1:80:80", "53:53/udp"] }
  two: { image: "a:1", ports: ["192.0.2.2:80:80", "53:53"] }
  three: { image: "a:1", ports: ["0.0.0.0:80:80"] }
"#,
        expect![[r#"
            error[conflict] apps/a/app.yaml:3:32: host port 80/tcp is wanted twice by `a`
              = keep one of the two
              - apps/a/app.yaml:4:34: wanted here as well
            error[conflict] apps/a/app.yaml:4:34: host port 80/tcp is wanted twice by `a`
              = keep one of the two
              - apps/a/app.yaml:2:32: wanted here as well
        "#]],
    );
}
