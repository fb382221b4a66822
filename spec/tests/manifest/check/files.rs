//! What can be wrong in `files:`.

use expect_test::expect;

use crate::support::check_app;

#[test]
fn file_exceptions() {
    check_app(
        r#"files:
  /etc/web/web.conf: { mode: "0640", owner: 1000, group: www-data }
  /srv/web: { kind: directory, mode: "0750", owner: www-data }
  /etc/web/current: { kind: symlink, target: web.conf }
"#,
        expect![[""]],
    );
}

#[test]
fn file_modes() {
    check_app(
        r#"files:
  /etc/web/web.conf: { mode: 0755 }
  /srv/a: { kind: directory, mode: 755 }
  /srv/b: { kind: directory, mode: "rwx" }
  /srv/c: { kind: directory, mode: 0o640 }
"#,
        expect![[r#"
            error[file-mode] apps/a/app.yaml:2:30: mode 0755 is a number in YAML, and readers differ on whether it is octal
              = put quotes around it: "0755"
            error[file-mode] apps/a/app.yaml:3:36: mode 755 is a number in YAML, and readers differ on whether it is octal
              = put quotes around it: "0755"
            error[file-mode] apps/a/app.yaml:4:36: `rwx` is not a mode of three or four octal digits, such as "0640"
              = write the octal digits that chmod takes, in quotes
            error[file-mode] apps/a/app.yaml:5:36: mode 0o640 is a number in YAML, and readers differ on whether it is octal
              = put quotes around it: "0640"
        "#]],
    );
}

#[test]
fn file_entries() {
    check_app(
        r#"files:
  /etc/web/wbe.conf: { mode: "0640" }
  /opt/web.conf: { mode: "0640" }
  /srv/x: { mode: "0640" }
  /srv/l: { kind: symlink }
  /srv/m: { kind: symlink, target: /a, mode: "0777" }
  /srv/d: { kind: directory, target: /a }
  /srv/k: { kind: folder }
  /etc/web/web.conf: { kind: directory }
  srv/rel: { kind: directory }
  /srv/../etc: { kind: directory }
  /srv/o: { kind: directory, owner: "a b", group: 007 }
  /bin/x: { kind: symlink, target: /a }
  /etc/systemd/system/web.service: { mode: "0600" }
  /etc/systemd/system/x.service: { kind: symlink, target: /dev/null }
"#,
        expect![[r#"
            error[file-missing] apps/a/app.yaml:2:3: nothing in this folder brings `/etc/web/wbe.conf`
              = did you mean `/etc/web/web.conf`?
            error[file-missing] apps/a/app.yaml:3:3: nothing in this folder brings `/opt/web.conf`
              = did you mean `/etc/web/web.conf`?
            error[file-missing] apps/a/app.yaml:4:3: nothing in this folder brings `/srv/x`
              = add the file below files/, or write kind: directory or kind: symlink for `/srv/x`
            error[file-entry] apps/a/app.yaml:5:3: this symbolic link has no target
              = add target: /where/it/leads
            error[file-entry] apps/a/app.yaml:6:40: a symbolic link has no mode
              = remove it
            error[file-entry] apps/a/app.yaml:7:30: only a symbolic link has a target
              = add kind: symlink, or remove the target
            error[unknown-value] apps/a/app.yaml:8:19: `kind` is `file`, `directory` or `symlink`, not `folder`
              = did you mean `directory`?
            error[conflict] apps/a/app.yaml:9:3: `/etc/web/web.conf` is a directory here, but a file below files/
              = keep one of the two
              - apps/a/files/etc/web/web.conf: the file
            error[path] apps/a/app.yaml:10:3: this path cannot be managed: `srv/rel` is not absolute: paths begin with `/`
              = write the absolute path on the host, such as /etc/motd
            error[path] apps/a/app.yaml:11:3: this path cannot be managed: `/srv/../etc` has a `..` component: write the path itself
              = write the absolute path on the host, such as /etc/motd
            error[file-owner] apps/a/app.yaml:12:37: `owner` is a name or a number, not `a b`
              = write it as `id` shows it on the host, such as www-data or 1000
            error[file-owner] apps/a/app.yaml:12:51: `group` is a name or a number, not `007`
              = write it as `id` shows it on the host, such as www-data or 1000
            error[path-alias] apps/a/app.yaml:13:3: `/bin/x` leads through a symbolic link on today's distributions
              = write /usr/bin/x
            error[unit-in-files] apps/a/app.yaml:14:3: `/etc/systemd/system` is not filled through `files`
              = remove this entry: units and drop-ins are installed with mode 0644 as root, which systemd wants
            error[unit-in-files] apps/a/app.yaml:15:3: `/etc/systemd/system` is not filled through `files`
              = put the unit into the application's folder, and enable it with `units:`
        "#]],
    );
}

#[test]
fn denied_paths() {
    check_app(
        r"files:
  /etc/sudoers.d/web: { kind: symlink, target: /x }
  /etc/shadow: { kind: symlink, target: /x, allow-critical: true }
  /proc/x: { kind: directory, allow-critical: true }
  /var/lib/mainstay/x: { kind: directory, allow-critical: true }
  /etc: { kind: directory }
",
        expect![[r#"
            error[critical-path] apps/a/app.yaml:2:3: `/etc/sudoers.d/web` is guarded: it decides who becomes root
              = if you mean it, write files: { /etc/sudoers.d/web: { allow-critical: true } } in app.yaml
            error[forbidden-path] apps/a/app.yaml:4:3: `/proc/x` cannot be managed: the kernel provides it
              = remove it; `allow-critical` does not help here
            error[forbidden-path] apps/a/app.yaml:5:3: `/var/lib/mainstay/x` cannot be managed: it belongs to mainstay itself
              = remove it; `allow-critical` does not help here
            error[critical-path] apps/a/app.yaml:6:3: `/etc` is guarded: everything else on the host lies in it
              = if you mean it, write files: { /etc: { allow-critical: true } } in app.yaml
        "#]],
    );
}

#[test]
fn files_are_not_folders() {
    check_app(
        r"files:
  /etc/web/web.conf/sub: { kind: directory }
",
        expect![[r#"
            error[conflict] apps/a/app.yaml:2:3: `/etc/web/web.conf/sub` needs `/etc/web/web.conf` to be a folder, but it is wanted as a file or link
              = move one of the two
              - apps/a/files/etc/web/web.conf: wanted as a file or link here
        "#]],
    );
}
