//! What can be wrong in the text of a unit.

use expect_test::expect;

use crate::support::check_unit;

#[test]
fn unit_sections() {
    check_unit(
        "a.service",
        r"Description=early
[Unit]
Description=x
[Servce]
ExecStart=/usr/bin/a
[Container]
Image=x
[Timer]
OnCalendar=daily
[X-Mine]
free text
[Other]
[Service
",
        expect![[r#"
            error[unit-syntax] apps/a/a.service:1:1: this line stands before the first section
              = put it below a header such as [Service]
            error[unit-section] apps/a/a.service:4:1: a .service unit has no section [Servce]
              = did you mean [Service]?
            error[unit-section] apps/a/a.service:6:1: a .service unit has no section [Container]
              = that is a Podman quadlet: rename the file to a.container
            error[unit-section] apps/a/a.service:8:1: a .service unit has no section [Timer]
              = move it into a unit whose name ends with .timer
            error[unit-section] apps/a/a.service:12:1: a .service unit has no section [Other]
              = it knows `Unit`, `Install` and `Service`; systemd ignores only sections that begin with `X-`
            error[unit-syntax] apps/a/a.service:13:1: this section header has no closing `]`
              = write it as [Service], with nothing behind the bracket
        "#]],
    );
}

#[test]
fn unit_lines() {
    check_unit(
        "a.service",
        r#"[Service]
ExecStart=/usr/bin/a \
  # a comment within
  --more \
  --and more
this is no assignment
ExecStop /usr/bin/b
; fine
# fine
Environment="A=b" \
"#,
        expect![[r#"
            error[unit-syntax] apps/a/a.service:6:1: this line is neither `Key=value` nor `[Section]` nor a comment: `this is no assignment`
              = begin comments with `#`; end a line with `\` when the value goes on in the next one
            error[unit-syntax] apps/a/a.service:7:1: this line is neither `Key=value` nor `[Section]` nor a comment: `ExecStop /usr/bin/b`
              = begin comments with `#`; end a line with `\` when the value goes on in the next one
            error[unit-syntax] apps/a/a.service:10:19: the last line ends with `\`, but nothing follows
              = remove the backslash
        "#]],
    );
}

#[test]
fn unit_directives() {
    check_unit(
        "a.service",
        r"[Unit]
Descripton=x
ExecStart=/usr/bin/a
WantedBy=multi-user.target
[Service]
ExecStrat=/usr/bin/a
ExecStart=/usr/bin/a
X-Remark=fine
Colour=red
After=network.target
ProtectSystm=strict
",
        expect![[r#"
            error[unit-directive] apps/a/a.service:2:1: systemd knows no `Descripton=` in [Unit]
              = did you mean `Description=`?
            error[unit-directive] apps/a/a.service:3:1: systemd knows no `ExecStart=` in [Unit]
              = move it to [Service]
            error[unit-directive] apps/a/a.service:4:1: systemd knows no `WantedBy=` in [Unit]
              = move it to [Install]
            error[unit-directive] apps/a/a.service:6:1: systemd knows no `ExecStrat=` in [Service]
              = did you mean `ExecStart=`?
            error[unit-value] apps/a/a.service:7:1: only a service of `Type=oneshot` may have more than one `ExecStart=`
              = write `ExecStartPre=` or `ExecStartPost=`, or an empty `ExecStart=` before it to replace the first
            error[unit-directive] apps/a/a.service:9:1: systemd knows no `Colour=` in [Service]
              = systemd would ignore it; remove it, or begin its name with `X-` to keep it as a remark
            error[unit-directive] apps/a/a.service:10:1: systemd knows no `After=` in [Service]
              = move it to [Unit]
            error[unit-directive] apps/a/a.service:11:1: systemd knows no `ProtectSystm=` in [Service]
              = did you mean `ProtectSystem=`?
        "#]],
    );
}

#[test]
fn unit_values() {
    check_unit(
        "a.service",
        r"[Service]
ExecStart=/usr/bin/a
Type=notfy
Restart=allways
ProtectSystem=maybe
ProtectHome=tmpfs
NoNewPrivileges=sure
PrivateTmp=TRUE
KillMode=
",
        expect![[r#"
            error[unit-value] apps/a/a.service:3:6: `Type=` does not take `notfy`
              = did you mean `notify`?
            error[unit-value] apps/a/a.service:4:9: `Restart=` does not take `allways`
              = did you mean `always`?
            error[unit-value] apps/a/a.service:5:15: `ProtectSystem=` does not take `maybe`
              = it takes `yes`, `full`, `strict` or `no`
            error[unit-value] apps/a/a.service:7:17: `NoNewPrivileges=` does not take `sure`
              = it takes `yes` or `no`
        "#]],
    );
}

#[test]
fn empty_units() {
    check_unit(
        "a.service",
        r"
",
        expect![[r#"
            error[unit-empty] apps/a/a.service:1:1: this unit is empty, and systemd takes an empty unit for a masked one
              = write its text, or remove the file; `state: stopped` and `enabled: false` keep a unit from running
        "#]],
    );
}

#[test]
fn service_without_start() {
    check_unit(
        "a.service",
        r"[Unit]
Description=x
[Service]
Type=oneshot
",
        expect![[r#"
            error[unit-incomplete] apps/a/a.service:1:1: this service has no `ExecStart=`, so systemd would refuse it
              = add `ExecStart=` with the command to run to [Service]
        "#]],
    );
}

#[test]
fn service_with_two_starts() {
    check_unit(
        "a.service",
        r"[Service]
ExecStart=/usr/bin/a
ExecStart=/usr/bin/b
",
        expect![[r#"
            error[unit-value] apps/a/a.service:3:1: only a service of `Type=oneshot` may have more than one `ExecStart=`
              = write `ExecStartPre=` or `ExecStartPost=`, or an empty `ExecStart=` before it to replace the first
        "#]],
    );
}

#[test]
fn service_with_replaced_start() {
    check_unit(
        "a.service",
        r"[Service]
ExecStart=/usr/bin/a
ExecStart=
ExecStart=/usr/bin/b
",
        expect![[""]],
    );
}

#[test]
fn service_of_success_action() {
    check_unit(
        "a.service",
        r"[Unit]
SuccessAction=reboot
[Service]
Type=oneshot
",
        expect![[""]],
    );
}

#[test]
fn oneshot_restarts() {
    check_unit(
        "a.service",
        r"[Service]
Type=oneshot
ExecStart=/usr/bin/a
Restart=always
",
        expect![[r#"
            error[unit-value] apps/a/a.service:4:9: a service of `Type=oneshot` cannot have `Restart=always`
              = use `on-failure`, or a timer to run it again
        "#]],
    );
}

#[test]
fn timer_without_time() {
    check_unit(
        "a.timer",
        r"[Timer]
Unit=b.service
[Install]
WantedBy=timers.target
",
        expect![[r#"
            warning[unit-trigger] apps/a/a.timer: `a.timer` starts `b.service`, which is not in this folder
              = bring `b.service`, or name another unit; that is fine when the host or another application has it
            error[unit-incomplete] apps/a/a.timer:1:1: this .timer does not say when it elapses
              = add `OnCalendar=`, `OnBootSec=`, `OnStartupSec=` or `OnActiveSec=`, for instance
        "#]],
    );
}

#[test]
fn socket_without_listen() {
    check_unit(
        "a.socket",
        r"[Socket]
Accept=yes
",
        expect![[r#"
            warning[unit-trigger] apps/a/a.socket: `a.socket` starts `a@.service`, which is not in this folder
              = bring `a@.service`, or name another unit; that is fine when the host or another application has it
            error[unit-incomplete] apps/a/a.socket:1:1: this .socket does not say what it listens on
              = add `ListenStream=`, `ListenDatagram=`, `ListenSequentialPacket=` or `ListenFIFO=`, for instance
        "#]],
    );
}

#[test]
fn path_without_path() {
    check_unit(
        "a.path",
        r"[Path]
Unit=b.service
",
        expect![[r#"
            warning[unit-trigger] apps/a/a.path: `a.path` starts `b.service`, which is not in this folder
              = bring `b.service`, or name another unit; that is fine when the host or another application has it
            error[unit-incomplete] apps/a/a.path:1:1: this .path does not say which path it watches
              = add `PathExists=`, `PathExistsGlob=`, `PathChanged=` or `PathModified=`, for instance
        "#]],
    );
}

#[test]
fn mount_names() {
    check_unit(
        "data.mount",
        r"[Mount]
What=/dev/sdb1
Where=/srv/my-data
Type=ext4
",
        expect![[r#"
            error[unit-mount-name] apps/a/data.mount:3:7: a mount at `/srv/my-data` must be called `srv-my\x2ddata.mount`
              = rename the file; systemd refuses a mount whose name and `Where=` differ
        "#]],
    );
}

#[test]
fn mount_without_where() {
    check_unit(
        "data.mount",
        r"[Mount]
Type=ext4
",
        expect![[r#"
            error[unit-incomplete] apps/a/data.mount:1:1: this mount does not say what it mounts
              = add `What=` to [Mount]
        "#]],
    );
}

#[test]
fn target_and_slice() {
    check_unit(
        "a.target",
        r"[Unit]
Description=x
[Service]
ExecStart=/usr/bin/a
",
        expect![[r#"
            error[unit-section] apps/a/a.target:3:1: a .target unit has no section [Service]
              = move it into a unit whose name ends with .service
        "#]],
    );
}

#[test]
fn critical_unit_brought() {
    check_unit(
        "sshd.service",
        r"[Service]
ExecStart=/usr/sbin/sshd
",
        expect![[r#"
            error[critical-unit] apps/a/sshd.service: unit `sshd.service` is guarded: the host, or the way into it, depends on it
              = if you mean it, write units: { sshd.service: { allow-critical: true } } in app.yaml
        "#]],
    );
}
