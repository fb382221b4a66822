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

#[test]
fn ports_of_quadlets_are_ports_of_the_host() {
    check(
        r#"-- fleet.yaml --
fleet: home
hosts:
  attic: { labels: { site: home, role: broker } }
  barn: { labels: { site: farm, role: broker } }
-- apps/a/one.container --
[Container]
Image=a:1
PublishPort=80:80
-- apps/a/two.container --
[Container]
Image=a:1
PublishPort=192.0.2.1:79-81:8079-8081
PublishPort=[::1]:53:53/udp
-- apps/a/none.container --
[Container]
Image=a:1
PublishPort=80
PublishPort=%i:80
PublishPort=443:443
PublishPort=
-- apps/a/host.container --
[Container]
Image=a:1
Network=host
PublishPort=80:80
-- apps/a/changed.container --
[Container]
Image=a:1
PublishPort=80:80
-- apps/a/changed.container.d/ports.conf --
[Container]
PublishPort=
-- apps/a/spare.container --
[Container]
Image=a:1
PublishPort=80:80
-- apps/a/app.yaml --
units: { spare.service: { state: stopped } }
-- apps/b/compose.yaml --
services: { web: { image: "b:1", ports: ["80:80", "443:443", "53:53"] } }
-- apps/c/shop.pod --
[Pod]
PublishPort=127.0.0.1:443:443
-- apps/c/play.kube --
[Kube]
Yaml=/etc/play.yaml
PublishPort=53:5353/udp
"#,
        expect![[r#"
            error[conflict] apps/a/two.container:3:13: host port 80/tcp is wanted twice by `a`
              = keep one of the two
              - apps/a/one.container:3:13: wanted here as well
            error[conflict] apps/b/compose.yaml:1:42: host port 80/tcp is wanted by `a` and `b` on host `attic` and 1 more
              = let one application have it, or place the two on different hosts
              - apps/a/one.container:3:13: wanted here as well
            error[conflict] apps/c/play.kube:3:13: host port 53/udp is wanted by `a` and `c` on host `attic` and 1 more
              = let one application have it, or place the two on different hosts
              - apps/a/two.container:4:13: wanted here as well
            error[conflict] apps/c/shop.pod:2:13: host port 443/tcp is wanted by `b` and `c` on host `attic` and 1 more
              = let one application have it, or place the two on different hosts
              - apps/b/compose.yaml:1:51: wanted here as well
        "#]],
    );
}
