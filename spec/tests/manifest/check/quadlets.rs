//! What can be wrong with Podman quadlets.

use expect_test::{Expect, expect};
use spec::id::HostName;
use spec::{manifest, resolve};

use crate::support::{FLEET, check, tree};

fn check_folder(files: &str, expected: Expect) {
    check(&format!("-- fleet.yaml --\n{FLEET}{files}"), expected);
}

const STACK: &str = r"-- apps/shop/app.yaml --
units:
  worker@one.service: {}
  worker@two.service: { state: stopped }
-- apps/shop/shop.pod --
[Pod]
PublishPort=8080:80
Network=shop.network
[Install]
WantedBy=multi-user.target
-- apps/shop/web.container --
[Unit]
After=db.service
[Container]
Image=registry.lan/web:1
Pod=shop.pod
Volume=/etc/shop:/etc/shop:ro
EnvironmentFile=/etc/shop/web.env
[Service]
Restart=always
TimeoutStartSec=900
[Install]
WantedBy=multi-user.target
-- apps/shop/web.container.d/limits.conf --
[Container]
Memory=256m
-- apps/shop/db.container --
[Container]
Image=registry.lan/db:1
Volume=data.volume:/var/lib/db
Network=shop.network:ip=10.0.0.2
ServiceName=database
-- apps/shop/worker@.container --
[Container]
Image=worker.image
Exec=work %i
[Install]
WantedBy=multi-user.target
DefaultInstance=one
-- apps/shop/worker.image --
[Image]
Image=registry.lan/worker:1
-- apps/shop/data.volume --
[Volume]
-- apps/shop/shop.network --
[Network]
Subnet=10.0.0.0/24
-- apps/shop/play.kube --
[Kube]
Yaml=/etc/shop/play.yaml
-- apps/shop/nightly.container --
[Container]
Image=registry.lan/job:1
[Service]
Type=oneshot
-- apps/shop/nightly.timer --
[Timer]
OnCalendar=daily
[Install]
WantedBy=timers.target
-- apps/shop/files/etc/shop/web.env --
A=1
";

#[test]
fn a_stack_becomes_services() {
    check_folder(STACK, expect![[""]]);
    let parsed = manifest::parse(&tree(&format!("-- fleet.yaml --\n{FLEET}{STACK}")), None);
    let host = HostName::parse("attic").unwrap();
    let desired = resolve::resolve(&parsed.fleet.unwrap(), &host).unwrap();
    let units = desired.units().map(|(_, name, unit)| format!("{name} {:?} {:?}\n", unit.state, unit.enabled));
    expect![[r#"
        data-volume.service None None
        database.service Some(Running) None
        nightly.service None None
        nightly.timer Some(Running) Some(true)
        play.service Some(Running) None
        shop-network.service None None
        shop-pod.service Some(Running) None
        web.service Some(Running) None
        worker-image.service None None
        worker@one.service Some(Running) None
        worker@two.service Some(Stopped) None
    "#]]
    .assert_eq(&units.collect::<String>());
    let files: String = desired.files().map(|(_, path, file)| format!("{path} {}\n", file.mode)).collect();
    expect![[r#"
        /etc/containers/systemd/data.volume 0644
        /etc/containers/systemd/db.container 0644
        /etc/containers/systemd/nightly.container 0644
        /etc/containers/systemd/play.kube 0644
        /etc/containers/systemd/shop.network 0644
        /etc/containers/systemd/shop.pod 0644
        /etc/containers/systemd/web.container 0644
        /etc/containers/systemd/web.container.d/limits.conf 0644
        /etc/containers/systemd/worker.image 0644
        /etc/containers/systemd/worker@.container 0644
        /etc/shop/web.env 0644
        /etc/systemd/system/nightly.timer 0644
    "#]]
    .assert_eq(&files);
}

#[test]
fn texts() {
    check_folder(
        r"-- apps/a/web.container --
[Container]
Imgae=registry.lan/web:1
Restart=always
Volume=./data:/data
EnvironmentFile=web.env
[Servce]
Restart=always
[Service]
Image=x
User=web
PublishPort=80:80
-- apps/a/both.container --
[Container]
Image=x
Rootfs=/srv/x
-- apps/a/none.container --
[Container]
Exec=run
-- apps/a/play.kube --
[Kube]
Network=host
-- apps/a/i.image --
[Image]
Arch=arm64
-- apps/a/b.build --
[Build]
ImageTag=localhost/b
-- apps/a/c.build --
[Build]
File=Containerfile
ImageTag=localhost/c
-- apps/a/pod.container --
[Container]
Image=x
Pod=shop
-- apps/a/empty.volume --
-- apps/a/x.artifact --
[Artifact]
Artifact=x
-- apps/a/files/etc/containers/systemd/y.container --
[Container]
Image=x
",
        expect![[r#"
            error[quadlet-incomplete] apps/a/b.build:1:1: this .build says neither `File=` nor `SetWorkingDirectory=`
              = add the path of the Containerfile to [Build]
            error[quadlet-incomplete] apps/a/both.container:1:1: this .container has both an `Image=` and a `Rootfs=`
              = keep one of the two
            error[quadlet-relative] apps/a/c.build:2:6: `Containerfile` is looked for beside the quadlet, in /etc/containers/systemd
              = bring the file below files/, and write its absolute path on the host
            error[unit-empty] apps/a/empty.volume:1:1: this quadlet is empty
              = write its text, or remove the file
            error[unit-in-files] apps/a/files/etc/containers/systemd/y.container: `/etc/containers/systemd` is not filled through files/
              = move it to apps/a/y.container: quadlets are read from there
            error[quadlet-incomplete] apps/a/i.image:1:1: this .image has no `Image=`
              = add `Image=` with the image to pull to [Image]
            error[quadlet-incomplete] apps/a/none.container:1:1: this .container has no `Image=`
              = add `Image=` with the image to run to [Container]
            error[quadlet-incomplete] apps/a/play.kube:1:1: this .kube has no `Yaml=`
              = add `Yaml=` with the path of the manifest to [Kube]
            error[quadlet-reference] apps/a/pod.container:3:5: `shop` is not the name of a .pod file
              = name the file, such as web.pod; another pod is joined with `PodmanArgs=--pod=…`
            error[quadlet-key] apps/a/web.container:2:1: Podman knows no `Imgae=` in [Container]
              = did you mean `Image=`?
            error[quadlet-key] apps/a/web.container:3:1: Podman knows no `Restart=` in [Container]
              = move it to [Service]
            error[quadlet-relative] apps/a/web.container:4:8: `./data` is looked for beside the quadlet, in /etc/containers/systemd
              = bring the file below files/, and write its absolute path on the host
            error[quadlet-relative] apps/a/web.container:5:17: `web.env` is looked for beside the quadlet, in /etc/containers/systemd
              = bring the file below files/, and write its absolute path on the host
            error[unit-section] apps/a/web.container:6:1: a .container quadlet has no section [Servce]
              = did you mean [Service]?
            error[quadlet-key] apps/a/web.container:9:1: systemd knows no `Image=` in [Service]
              = move it to [Container]
            warning[quadlet-user] apps/a/web.container:10:1: `User=` in [Service] is not what runs the container as a user
              = write `User=` in [Container] for the user inside
            error[quadlet-key] apps/a/web.container:11:1: systemd knows no `PublishPort=` in [Service]
              = move it to [Container]
            error[not-supported] apps/a/x.artifact: an .artifact quadlet is not supported by this version of mainstay
              = remove it; podman artifact pull in a unit of its own does the same
        "#]],
    );
}

#[test]
fn names_and_references() {
    check_folder(
        r"-- apps/a/web.container --
[Container]
Image=x
Volume=dta.volume:/data
Network=far.network
Mount=type=volume,source=other.volume,target=/x
-- apps/a/web.service --
[Service]
ExecStart=/usr/bin/web
-- apps/a/data.volume --
[Volume]
-- apps/a/job@.container --
[Container]
Image=x
ServiceName=job
-- apps/a/job@one.container --
[Container]
Image=x
-- apps/a/api.container --
[Container]
Image=x
ContainerName=api
-- apps/a/container.d/all.conf --
[Container]
-- apps/a/api.container.d/deep/x.conf --
[Container]
-- apps/a/api.container.d/x.conf --
[Container]
ServiceName=other
Colour=red
-- apps/a/ghost.container.d/x.conf --
[Container]
Memory=1g
-- apps/b/app.yaml --
place: { site: farm }
-- apps/b/other.volume --
[Volume]
-- apps/b/api2.container --
[Container]
Image=x
ContainerName=api
-- apps/b/data.volume --
[Volume]
",
        expect![[r#"
            error[drop-in] apps/a/api.container.d/deep/x.conf: Podman adds `deep/x.conf` to no quadlet in particular, or does not read it
              = call it NAME.container.d/SOMETHING.conf
            error[quadlet-name] apps/a/api.container.d/x.conf:2:1: a drop-in must not change the name of the service
              = write `ServiceName=` into the quadlet itself
            error[quadlet-key] apps/a/api.container.d/x.conf:3:1: Podman knows no `Colour=` in [Container]
              = remove it; what `podman` takes and .container files do not can go through `PodmanArgs=`
            error[drop-in] apps/a/container.d/all.conf: `container.d/` would add to every .container of the host
              = name the quadlet, such as web.container.d/
            warning[drop-in-unit] apps/a/ghost.container.d/x.conf: no quadlet `ghost.container` is in this folder, so that nothing is restarted for this
              = move it to the application that brings the quadlet
            error[quadlet-name] apps/a/job@.container:3:13: Podman cannot make a service of this: `job` is no template, as its file is
              = letters, digits and :-_. make a name; a template's ends with `@`
            error[quadlet-name] apps/a/job@one.container:1:1: Podman cannot make a service of this: an instance is named in `units:`, and its template is the file `NAME@.container`
              = letters, digits and :-_. make a name; a template's ends with `@`
            error[quadlet-reference] apps/a/web.container:3:8: no application brings the quadlet `dta.volume`, so the host must have it
              = did you mean `data.volume`?
            warning[quadlet-reference] apps/a/web.container:4:9: no application brings the quadlet `far.network`, so the host must have it
              = put `far.network` into the application's folder
            warning[quadlet-reference] apps/a/web.container:5:7: `other.volume` is brought by `b`, which is not on host `attic`
              = put `other.volume` into the application's folder
            error[conflict] apps/a/web.service: unit `web.service` is brought twice: a quadlet becomes a service of that name
              = rename one of the two, or give the quadlet a `ServiceName=`
              - apps/a/web.container: brought here as well
            error[conflict] apps/b/api2.container: Podman's container `api` is wanted by `a` and `b` on host `barn`
              = let one application have it, or place the two on different hosts
              - apps/a/api.container: wanted here as well
            error[conflict] apps/b/data.volume: Podman's volume `systemd-data` is wanted by `a` and `b` on host `barn`
              = let one application have it, or place the two on different hosts
              - apps/a/data.volume: wanted here as well
            error[conflict] apps/b/data.volume: unit `data-volume.service` is wanted by `a` and `b` on host `barn`
              = let one application have it, or place the two on different hosts
              - apps/a/data.volume: wanted here as well
        "#]],
    );
}

#[test]
fn entries_of_units() {
    check_folder(
        r"-- apps/a/app.yaml --
units:
  web.container: { state: stopped }
  web.service: { enabled: false }
  plain.service: { enabled: true }
  shop-pod.service: { state: stopped }
-- apps/a/web.container --
[Container]
Image=x
[Install]
WantedBy=multi-user.target
-- apps/a/plain.container --
[Container]
Image=x
-- apps/a/shop.pod --
[Pod]
-- apps/a/ssh.container --
[Container]
Image=x
",
        expect![[r#"
            error[unit-name] apps/a/app.yaml:2:3: this is not a unit's name: `web.container` is not a unit type mainstay manages: service, socket, timer, path, mount, target, slice
              = name the service that Podman makes of it, web.service
            error[quadlet-enabled] apps/a/app.yaml:3:18: Podman enables `web.service` as its quadlet says, and nothing else can
              = remove [Install] from the quadlet, and this entry
            error[unit-not-installable] apps/a/app.yaml:4:20: `plain.service` cannot be enabled: its text has no [Install] section
              = add [Install] with WantedBy=multi-user.target to the unit, or write only `state: running`
            error[critical-unit] apps/a/ssh.container: unit `ssh.service` is guarded: the host, or the way into it, depends on it
              = if you mean it, write units: { ssh.service: { allow-critical: true } } in app.yaml
        "#]],
    );
}

#[test]
fn a_drop_in_of_an_instance_is_read_by_nobody() {
    check_folder(
        r"-- apps/a/worker@.container --
[Container]
Image=a:1
-- apps/a/worker@b.container.d/more.conf --
[Container]
Memory=1g
-- apps/a/worker@b.service.d/more.conf --
[Service]
Nice=5
-- apps/a/other@b.container.d/more.conf --
[Container]
Memory=1g
-- apps/a/app.yaml --
units: { worker@b.service: { state: running } }
",
        expect![[r#"
            warning[drop-in-unit] apps/a/other@b.container.d/more.conf: no quadlet `other@b.container` is in this folder, so that nothing is restarted for this
              = move it to the application that brings the quadlet
            error[drop-in] apps/a/worker@b.container.d/more.conf: Podman reads `worker@b.container.d/` only for a file `worker@b.container`, and `worker@.container` is not called so
              = move it to worker@.container.d/ for every instance, or what it says for systemd to worker@b.service.d/ for this one
        "#]],
    );
}
