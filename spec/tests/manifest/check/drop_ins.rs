//! What can be wrong with drop-ins.

use expect_test::expect;

use crate::support::{FLEET, check};

fn check_folder(files: &str, expected: expect_test::Expect) {
    check(&format!("-- fleet.yaml --\n{FLEET}{files}"), expected);
}

#[test]
fn drop_ins_of_one_s_own_units_and_of_the_host_s() {
    check_folder(
        r"-- apps/a/web.service --
[Service]
ExecStart=/usr/bin/web
-- apps/a/web.service.d/limits.conf --
[Unit]
After=db.service
[Service]
ExecStart=
ExecStart=/usr/bin/web --more
MemoryMax=1G
-- apps/a/web.service.d/README.md --
why
-- apps/a/cron.service.d/10-nice.conf --
[Service]
Nice=5
-- apps/a/fstrim.timer.d/daily.conf --
[Timer]
OnCalendar=
OnCalendar=daily
-- apps/a/nginx.service.d/masked.conf --
-- apps/a/postgresql@15-main.service.d/limits.conf --
[Service]
LimitNOFILE=65536
",
        expect![[""]],
    );
}

#[test]
fn names_that_systemd_would_skip_or_take_for_every_unit() {
    check_folder(
        r"-- apps/a/service.d/all.conf --
[Service]
Nice=5
-- apps/a/web-.service.d/all.conf --
[Service]
Nice=5
-- apps/a/web.service.d/limits.txt --
[Service]
Nice=5
-- apps/a/web.service.d/.conf --
-- apps/a/web.service.d/.limits.conf --
[Service]
Nice=5
-- apps/a/web.service.d/deep/limits.conf --
[Service]
Nice=5
-- apps/a/web.service.d/../../x.conf --
[Service]
Nice=5
-- apps/a/a b.service.d/limits.conf --
[Service]
Nice=5
-- apps/a/web.servce.d/limits.conf --
[Service]
Nice=5
-- apps/a/files/etc/systemd/system/web.service.d/limits.conf --
[Service]
Nice=5
",
        expect![[r#"
            error[drop-in] apps/a/a b.service.d/limits.conf: this is not the drop-in folder of a unit: `a b.service` holds a character that unit names may not: only A-Z a-z 0-9 : - _ . \ @
              = rename the folder to NAME.service.d
            error[unit-in-files] apps/a/files/etc/systemd/system/web.service.d/limits.conf: `/etc/systemd/system` is not filled through files/
              = move it to apps/a/web.service.d/limits.conf: drop-ins are read from there
            error[drop-in] apps/a/service.d/all.conf: `service.d/` would add to every service of the host
              = name the unit, such as web.service.d/
            error[drop-in] apps/a/web-.service.d/all.conf: `web-.service.d/` would add to every unit whose name begins with `web-`
              = name the unit, and repeat the drop-in for others
            error[unknown-folder] apps/a/web.servce.d: `web.servce.d/` is not a folder that mainstay reads
              = did you mean `web.service.d/limits.conf`?
            error[drop-in] apps/a/web.service.d/../../x.conf: systemd reads no folder within `web.service.d/`
              = move the file up into web.service.d/
            error[drop-in] apps/a/web.service.d/.conf: systemd reads no drop-in of such a name
              = rename it to, for instance, limits.conf
            error[drop-in] apps/a/web.service.d/.limits.conf: systemd reads no drop-in of such a name
              = rename it to, for instance, limits.conf
            error[drop-in] apps/a/web.service.d/deep/limits.conf: systemd reads no folder within `web.service.d/`
              = move the file up into web.service.d/
            error[drop-in] apps/a/web.service.d/limits.txt: systemd reads no drop-in whose name does not end with `.conf`
              = rename it to, for instance, limits.conf
        "#]],
    );
}

#[test]
fn texts() {
    check_folder(
        r"-- apps/a/web.service --
[Service]
ExecStart=/usr/bin/web
-- apps/a/web.service.d/a.conf --
[Service]
ExecStart=/usr/bin/other
MemroyMax=1G
ProtectSystem=maybe
[Install]
WantedBy=multi-user.target
-- apps/a/web.service.d/b.conf --
Nice=5
[Timer]
OnCalendar=daily
-- apps/a/job.service --
[Service]
Type=oneshot
ExecStart=/usr/bin/one
-- apps/a/job.service.d/b.conf --
[Service]
ExecStart=/usr/bin/two
",
        expect![[r#"
            error[drop-in] apps/a/web.service.d/a.conf:2:1: `web.service` has an `ExecStart=` already, and only a oneshot may have two
              = write an empty `ExecStart=` before this one to replace it
            error[unit-directive] apps/a/web.service.d/a.conf:3:1: systemd knows no `MemroyMax=` in [Service]
              = did you mean `MemoryMax=`?
            error[unit-value] apps/a/web.service.d/a.conf:4:15: `ProtectSystem=` does not take `maybe`
              = it takes `yes`, `full`, `strict` or `no`
            error[drop-in-install] apps/a/web.service.d/a.conf:6:1: systemd does not read [Install] in a drop-in
              = put it into the unit itself; a unit of the host is enabled with units: { NAME: { enabled: true } } in app.yaml
            error[unit-syntax] apps/a/web.service.d/b.conf:1:1: this line stands before the first section
              = put it below a header such as [Service]
            error[unit-section] apps/a/web.service.d/b.conf:2:1: a .service unit has no section [Timer]
              = move it into a unit whose name ends with .timer
        "#]],
    );
}

#[test]
fn units_that_are_guarded_misspelt_or_never_named() {
    check_folder(
        r"-- apps/a/app.yaml --
units:
  ssh.service: { allow-critical: true }
  blue@1.service: {}
-- apps/a/web.service --
[Service]
ExecStart=/usr/bin/web
-- apps/a/wbe.service.d/a.conf --
[Service]
Nice=5
-- apps/a/ssh.service.d/a.conf --
[Service]
Nice=5
-- apps/a/dbus.service.d/a.conf --
[Service]
Nice=5
-- apps/a/mainstay.service.d/a.conf --
[Service]
Nice=5
-- apps/a/blue@.service.d/a.conf --
[Service]
Nice=5
-- apps/a/green@.service.d/a.conf --
[Service]
Nice=5
",
        expect![[r#"
            error[critical-unit] apps/a/dbus.service.d/a.conf: unit `dbus.service` is guarded: the host, or the way into it, depends on it
              = if you mean it, write units: { dbus.service: { allow-critical: true } } in app.yaml
            warning[drop-in-unit] apps/a/green@.service.d/a.conf: no instance of `green@.service` is restarted when this changes, because `units:` names none
              = write units: { green@blue.service: {} } for each instance in app.yaml
            error[forbidden-unit] apps/a/mainstay.service.d/a.conf: unit `mainstay.service` cannot be managed: it is mainstay's own
              = remove it; `allow-critical` does not help here
            warning[drop-in-unit] apps/a/wbe.service.d/a.conf: no unit `wbe.service` is in this folder, so the host must provide it
              = did you mean `web.service.d`?
        "#]],
    );
}

#[test]
fn two_applications_may_add_to_one_unit_but_not_under_one_name() {
    check_folder(
        r"-- apps/a/cron.service.d/a.conf --
[Service]
Nice=5
-- apps/b/cron.service.d/b.conf --
[Service]
Nice=5
-- apps/c/cron.service.d/b.conf --
[Service]
Nice=6
",
        expect![[r#"
            error[conflict] apps/c/cron.service.d/b.conf: path `/etc/systemd/system/cron.service.d/b.conf` is wanted by `b` and `c` on host `attic` and 1 more
              = let one application have it, or place the two on different hosts
              - apps/b/cron.service.d/b.conf: wanted here as well
        "#]],
    );
}
