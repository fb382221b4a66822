//! What can be wrong with quadlets of a user.

use expect_test::{Expect, expect};
use spec::id::HostName;
use spec::{manifest, resolve};

use crate::support::{FLEET, check, tree};

const WEB: &str = "-- apps/a/web.container --\n[Container]\nImage=x\nPod=shop.pod\nVolume=data.volume:/data\n";
const STACK: &str = "-- apps/a/shop.pod --\n[Pod]\n-- apps/a/data.volume --\n[Volume]\n";

fn check_folder(files: &str, expected: Expect) {
    check(&format!("-- fleet.yaml --\n{FLEET}{files}"), expected);
}

#[test]
fn a_users_stack_is_that_users_beside_another_of_the_same_names() {
    let app =
        "user: { name: alice, uid: 1500 }\nunits: { web.service: { adopt: true } }\nchecks: [{ unit: web.service }]\n";
    let drop_in = "-- apps/a/web.container.d/x.conf --\n[Container]\nEnvironment=A=1\n";
    let files = format!("-- fleet.yaml --\n{FLEET}-- apps/a/app.yaml --\n{app}{WEB}{STACK}{drop_in}");
    let others = format!("{WEB}{STACK}").replace("apps/a/", "apps/b/");
    let files = format!("{files}-- apps/b/app.yaml --\nuser: {{ name: bob, uid: 1501 }}\n{others}");
    let files = files + &others.replace("apps/b/", "apps/c/");
    check(&files, expect![[""]]);
    let parsed = manifest::parse(&tree(&files), None);
    let desired = resolve::resolve(&parsed.fleet.unwrap(), &HostName::parse("attic").unwrap()).unwrap();
    let wanted = &desired.apps.values().next().unwrap();
    let all = wanted.resources().map(|id| format!("{id}\n")).collect::<String>();
    let policies = wanted.policies.keys().map(|id| format!("adopts {id}\n"));
    let checks = wanted.checks.iter().map(|check| format!("{check}\n"));
    expect![[r#"
        file /etc/containers/systemd/users/1500/data.volume
        file /etc/containers/systemd/users/1500/shop.pod
        file /etc/containers/systemd/users/1500/web.container
        file /etc/containers/systemd/users/1500/web.container.d/x.conf
        unit data-volume.service of alice
        unit shop-pod.service of alice
        unit web.service of alice
        adopts file /etc/containers/systemd/users/1500/web.container
        adopts unit web.service of alice
        check of unit web.service of alice
    "#]]
    .assert_eq(&(all + &policies.chain(checks).collect::<String>()));
    let units = desired.units().map(|(app, name, _)| format!("{app}: {name}\n"));
    expect![[r#"
        a: data-volume.service of alice
        a: shop-pod.service of alice
        a: web.service of alice
        b: data-volume.service of bob
        b: shop-pod.service of bob
        b: web.service of bob
        c: data-volume.service
        c: shop-pod.service
        c: web.service
    "#]]
    .assert_eq(&units.collect::<String>());
}

#[test]
fn accounts() {
    for (number, user) in [
        "alice",
        "{ name: alice }",
        "{ name: alice, uid: many }",
        "{ name: root, uid: 0 }",
        "{ name: Alice, uid: 1500 }",
        "{ name: alice, uid: 1500, gid: 1500 }",
        "{ nam: alice, uid: 1500 }",
    ]
    .iter()
    .enumerate()
    {
        let expected = [
            expect![[r#"
                error[wrong-type] apps/a/app.yaml:1:7: `user` must be a map, but a text stands here
                  = write a map such as { key: value }
            "#]],
            expect![[r#"
                error[user] apps/a/app.yaml:1:1: `user` needs the name of an account and its number
                  = write both: user: { name: alice, uid: 1500 }
            "#]],
            expect![[r#"
                error[user] apps/a/app.yaml:1:27: `many` is not the number of a user
                  = write what `id -u NAME` prints on the host
            "#]],
            expect![[r#"
                error[user] apps/a/app.yaml:1:15: this is not a user with a manager of its own: 0 is root's number
                  = remove `user:`: without it, quadlets are root's
            "#]],
            expect![[r#"
                error[user] apps/a/app.yaml:1:15: this user cannot have services: `Alice` is not a user's name: at most 31 of a-z 0-9 _ - ., beginning with a letter or `_`
                  = name the account that the quadlets should run as
            "#]],
            expect![[r#"
                error[unknown-key] apps/a/app.yaml:1:33: `user` has no key `gid`
                  = did you mean `uid`?
            "#]],
            expect![[r#"
                error[unknown-key] apps/a/app.yaml:1:9: `user` has no key `nam`
                  = did you mean `name`?
            "#]],
        ];
        let files = format!("-- apps/a/app.yaml --\nuser: {user}\n-- apps/a/x.container --\n[Container]\nImage=x\n");
        check_folder(&files, expected.into_iter().nth(number).expect("one for each"));
    }
}

#[test]
fn what_is_not_one_users_alone() {
    check_folder(
        r"-- apps/a/app.yaml --
user: { name: alice, uid: 1500 }
units:
  podman.socket: { state: running }
-- apps/a/web.container --
[Container]
Image=x
Volume=elsewhere.volume:/x
-- apps/a/web.service.d/x.conf --
[Service]
Nice=5
-- apps/a/nightly.timer --
[Timer]
OnCalendar=daily
Unit=web.service
-- apps/b/elsewhere.volume --
[Volume]
-- apps/c/app.yaml --
user: { name: alice, uid: 1500 }
-- apps/c/files/etc/x --
x
-- apps/d/app.yaml --
user: { name: carol, uid: 1500 }
-- apps/d/web.container --
[Container]
Image=x
",
        expect![[r#"
            error[user-unit] apps/a/app.yaml:3:3: `podman.socket` is no service of a quadlet in this folder, and nothing else of `alice` is managed
              = remove the entry; a unit of the host belongs to an application without `user:`
            error[user-unit] apps/a/nightly.timer: unit `nightly.timer` cannot be `alice`'s alone: systemd has no folder for one user that is root's
              = make a quadlet of it, or move it to an application without `user:` and give it a `User=`
            warning[quadlet-reference] apps/a/web.container:3:8: no application brings the quadlet `elsewhere.volume`, so the host must have it
              = put `elsewhere.volume` into the application's folder
            error[user-unit] apps/a/web.service.d/x.conf: a drop-in for `web.service` would be for this unit of every user
              = write it for the quadlet instead, into NAME.container.d/: it takes [Service] and [Unit] too
            error[user] apps/c/app.yaml:1:1: nothing of this application runs as `alice`: it brings no quadlet
              = remove `user:`, or bring a .container file
            error[conflict] apps/d/web.container: Podman's container `systemd-web of user 1500` is wanted by `a` and `d` on host `attic` and 1 more
              = let one application have it, or place the two on different hosts
              - apps/a/web.container: wanted here as well
            error[conflict] apps/d/web.container: unit `web.service of user 1500` is wanted by `a` and `d` on host `attic` and 1 more
              = let one application have it, or place the two on different hosts
              - apps/a/web.container: wanted here as well
        "#]],
    );
}
