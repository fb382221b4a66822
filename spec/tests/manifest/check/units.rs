//! What can be wrong in `units:`.

use expect_test::expect;

use crate::support::{FLEET, check, check_app};

#[test]
fn units_of_the_folder() {
    check_app(
        r"units:
  web.service: { state: running, enabled: true, reload-on: [/etc/web/web.conf], restart-on: [/etc/web] }
",
        expect![[r#"
            warning[unit-reload] apps/a/app.yaml:2:3: `web.service` is to be reloaded and does not say how: systemd would refuse it
              = add `ExecReload=` to the unit, such as /bin/kill -HUP $MAINPID, or write restart-on for reload-on
        "#]],
    );
}

#[test]
fn unit_entries() {
    check_app(
        r"units:
  web.service: { state: started, enabled: yes, enbled: true, reload-on: /etc/x, restart-on: [etc/x, /etc/web/wbe.conf] }
",
        expect![[r#"
            error[unknown-value] apps/a/app.yaml:2:25: `state` is `running` or `stopped`, not `started`
              = did you mean `running`?
            error[wrong-type] apps/a/app.yaml:2:43: `enabled` is `true` or `false`, not `yes`
              = write true, without quotes
            error[unknown-key] apps/a/app.yaml:2:48: an entry of `units` has no key `enbled`
              = did you mean `enabled`?
            error[wrong-type] apps/a/app.yaml:2:73: `reload-on` must be a list, but a text stands here
              = write a list such as [one, two]
            error[unit-watch] apps/a/app.yaml:2:94: this is not a path on the host: `etc/x` is not absolute: paths begin with `/`
              = write the absolute path of a file that an application brings
            warning[watch-unmanaged] apps/a/app.yaml:2:101: no application brings `/etc/web/wbe.conf`, so its changes are never seen
              = did you mean `/etc/web/web.conf`?
        "#]],
    );
}

#[test]
fn unit_names() {
    check_app(
        r"units:
  web: { state: running }
  ../web.service: { state: running }
  wbe.service: { state: running }
  nginx.service: {}
  chrony.service: { state: running }
",
        expect![[r#"
            error[unit-name] apps/a/app.yaml:2:3: this is not a unit's name: `web` has no suffix such as `.service`
              = write the whole name, such as web.service
            error[unit-name] apps/a/app.yaml:3:3: this is not a unit's name: `../web.service` has no name before its suffix
              = write the whole name, such as web.service
            warning[unit-misspelt] apps/a/app.yaml:4:3: no unit `wbe.service` is in this folder, so the host must provide it
              = did you mean `web.service`?
            warning[unit-asks-nothing] apps/a/app.yaml:5:3: this entry asks nothing of the host's unit `nginx.service`
              = add `state:` or `enabled:`, or remove it
        "#]],
    );
}

#[test]
fn units_watch_one_way() {
    check_app(
        r"units:
  web.service: { restart-on: [/etc/web/web.conf], ignore: [/etc/web/web.conf] }
",
        expect![[r#"
            error[unit-watch] apps/a/app.yaml:2:51: `/etc/web/web.conf` is ignored, and restarts or reloads the unit
              = keep it in one of the lists
        "#]],
    );
    check_app(
        r"units:
  web.service: { reload-on: [/etc/web/web.conf], restart-on: [/etc/web/web.conf] }
",
        expect![[r#"
            warning[unit-reload] apps/a/app.yaml:2:3: `web.service` is to be reloaded and does not say how: systemd would refuse it
              = add `ExecReload=` to the unit, such as /bin/kill -HUP $MAINPID, or write restart-on for reload-on
            error[unit-watch] apps/a/app.yaml:2:18: `/etc/web/web.conf` both reloads and restarts the unit
              = keep it in one of the two lists
        "#]],
    );
}

#[test]
fn reserved_units() {
    check_app(
        r"units:
  init.scope: { state: stopped }
  ssh.service: { state: running }
  systemd-resolved.service: { state: stopped, allow-critical: true }
  mainstay.service: { state: stopped, allow-critical: true }
",
        expect![[r#"
            error[unit-name] apps/a/app.yaml:2:3: this is not a unit's name: `init.scope` is not a unit type mainstay manages: service, socket, timer, path, mount, target, slice
              = remove it: the host depends on it
            error[critical-unit] apps/a/app.yaml:3:3: unit `ssh.service` is guarded: the host, or the way into it, depends on it
              = if you mean it, write units: { ssh.service: { allow-critical: true } } in app.yaml
            error[forbidden-unit] apps/a/app.yaml:5:3: unit `mainstay.service` cannot be managed: it is mainstay's own
              = remove it; `allow-critical` does not help here
        "#]],
    );
}

#[test]
fn states_by_habit() {
    check_app(
        r#"units: { web.service: { state: absent, enabled: "true" } }
"#,
        expect![[r#"
            error[unknown-value] apps/a/app.yaml:1:32: `state` is `running` or `stopped`, not `absent`
              = write `running` or `stopped`
            error[wrong-type] apps/a/app.yaml:1:49: `enabled` is `true` or `false`, but quotes make this a text
              = write true, without quotes
        "#]],
    );
}

#[test]
fn templates() {
    check(
        r"-- fleet.yaml --
fleet: home
hosts:
  attic: { labels: { site: home, role: broker } }
  barn: { labels: { site: farm, role: broker } }
-- apps/a/app.yaml --
units:
  web@.service: { state: running }
  web@blue.service: { state: running, enabled: true }
  web@green.service: { state: stopped }
-- apps/a/web@.service --
[Service]
ExecStart=/usr/bin/web %i
",
        expect![[r#"
            error[unit-template] apps/a/app.yaml:2:3: `web@.service` is a template, which is never started itself
              = name an instance, such as web@blue.service
            error[unit-not-installable] apps/a/app.yaml:3:39: `web@blue.service` cannot be enabled: its text has no [Install] section
              = add [Install] with WantedBy=multi-user.target to the unit, or write only `state: running`
        "#]],
    );
}

#[test]
fn triggers_in_the_folder() {
    check(
        r"-- fleet.yaml --
fleet: home
hosts:
  attic: { labels: { site: home, role: broker } }
  barn: { labels: { site: farm, role: broker } }
-- apps/a/backup.timer --
[Timer]
OnCalendar=daily
[Install]
WantedBy=timers.target
-- apps/a/bakcup.service --
[Service]
ExecStart=/usr/bin/backup
",
        expect![[r#"
            warning[unit-trigger] apps/a/backup.timer: `backup.timer` starts `backup.service`, which is not in this folder
              = did you mean `bakcup.service`?
        "#]],
    );
}

#[test]
fn aliases_of_reserved_units() {
    check(
        r"-- fleet.yaml --
fleet: home
hosts:
  attic: { labels: { site: home, role: broker } }
  barn: { labels: { site: farm, role: broker } }
-- apps/a/log.service --
[Service]
ExecStart=/usr/bin/log
[Install]
Alias=dbus.service
WantedBy=multi-user.target
-- apps/b/systemd-networkd.service --
[Service]
ExecStart=/usr/bin/true
",
        expect![[r#"
            error[critical-unit] apps/a/log.service: unit `log.service` takes the name `dbus.service`, on which the host depends
              = remove the `Alias=`, or write units: { log.service: { allow-critical: true } } in app.yaml
            error[critical-unit] apps/b/systemd-networkd.service: unit `systemd-networkd.service` is guarded: the host, or the way into it, depends on it
              = if you mean it, write units: { systemd-networkd.service: { allow-critical: true } } in app.yaml
        "#]],
    );
}

#[test]
fn what_sockets_start() {
    check(
        &format!(
            "-- fleet.yaml --\n{FLEET}{}",
            r"-- apps/a/echo.socket --
[Socket]
ListenStream=7
Accept=yes
[Install]
WantedBy=sockets.target
-- apps/a/echo@.service --
[Service]
ExecStart=/usr/bin/cat
StandardInput=socket
-- apps/a/caddy.socket --
[Socket]
ListenStream=80
[Install]
WantedBy=sockets.target
-- apps/a/finger.socket --
[Socket]
ListenStream=79
Accept=true
-- apps/a/known.socket --
[Socket]
ListenStream=78
-- apps/a/changed.path --
[Path]
PathChanged=/etc/x
-- apps/a/changed.service.d/nice.conf --
[Service]
Nice=5
-- apps/a/app.yaml --
units: { known.service: { enabled: false } }
",
        ),
        expect![[r#"
            warning[unit-trigger] apps/a/caddy.socket: `caddy.socket` starts `caddy.service`, which is not in this folder
              = bring `caddy.service`, or name another unit; that is fine when the host or another application has it
            warning[unit-trigger] apps/a/finger.socket: `finger.socket` starts `finger@.service`, which is not in this folder
              = bring `finger@.service`, or name another unit; that is fine when the host or another application has it
        "#]],
    );
}
