//! What can be wrong in `artifacts`.

use expect_test::expect;

use crate::support::{check, check_app};

#[test]
fn a_sound_entry() {
    check_app(
        r#"artifacts:
  /usr/local/bin/bridge:
    url: "https://ci.example/bridge-1.4"
    sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    mode: "0755"
    owner: root
    group: "1000"
    limit: 2GiB
    adopt: true
    drift: report
"#,
        expect![[""]],
    );
}

#[test]
fn mistakes_are_told_all_at_once() {
    check_app(
        r#"artifacts:
  /usr/local/bin/nothing: {}
  /usr/local/bin/empty:
  /usr/local/bin/misspelt: { ulr: "https://ci.example/x", sha265: "00" }
  /usr/local/bin/short: { url: "https://ci.example/x", sha256: "9f86d081" }
  /usr/local/bin/prefixed: { url: "https://ci.example/x", sha256: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" }
  /usr/local/bin/hex: { url: "https://ci.example/x", sha256: "zf86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" }
  /usr/local/bin/access: { url: "https://ci.example/x", sha256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", mode: 755, owner: "a b", limit: 12 }
  /usr/local/bin/huge: { url: "https://ci.example/x", sha256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", limit: 5GiB, target: x }
"#,
        expect![[r#"
            error[artifact] apps/a/app.yaml:2:3: this artifact has no `sha256`
              = add the digest of its bytes, as `sha256sum` prints it
            error[artifact] apps/a/app.yaml:2:3: this artifact has no `url`
              = add url: https://… where it is fetched from
            error[no-value] apps/a/app.yaml:3:3: the entry for `/usr/local/bin/empty` has no value
              = write a map such as { key: value } behind it, or remove it
            error[unknown-key] apps/a/app.yaml:4:30: an entry of `artifacts` has no key `ulr`
              = did you mean `url`?
            error[unknown-key] apps/a/app.yaml:4:59: an entry of `artifacts` has no key `sha265`
              = did you mean `sha256`?
            error[artifact-sha256] apps/a/app.yaml:5:64: `sha256` is not the digest of a file, which has 64 hex digits
              = it has 8 characters: copy all that `sha256sum` prints
            error[artifact-sha256] apps/a/app.yaml:6:67: `sha256` is not the digest of a file, which has 64 hex digits
              = remove `sha256:` from it
            error[artifact-sha256] apps/a/app.yaml:7:62: `sha256` is not the digest of a file, which has 64 hex digits
              = only 0 to 9 and a to f are hex digits
            error[file-mode] apps/a/app.yaml:8:139: mode 755 is a number in YAML, and readers differ on whether it is octal
              = put quotes around it: "0755"
            error[file-owner] apps/a/app.yaml:8:151: `owner` is a name or a number, not `a b`
              = write it as `id` shows it on the host, such as www-data or 1000
            error[size] apps/a/app.yaml:8:165: `limit` is a size with its unit, not `12`
              = write it such as 64MiB or 2GiB
            error[size] apps/a/app.yaml:9:138: `limit` is between 1KiB and 4GiB, not `5GiB`
              = write it such as 64MiB or 2GiB
            error[unknown-key] apps/a/app.yaml:9:144: an entry of `artifacts` has no key `target`
              = it knows `url`, `sha256`, `limit`, `mode`, `unpack`, `strip`, `owner`, `group`, `allow-critical`, `adopt` and `drift`
        "#]],
    );
}

#[test]
fn addresses_that_are_none() {
    let address = |url: &str| {
        format!(
            "  /opt/{}: {{ url: \"{url}\", sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 }}\n",
            url.len()
        )
    };
    let entries: String = [
        "http://ci.example/x",
        "https://me:secret@ci.example/x",
        "ftp://ci.example/bridge",
        "/srv/bridge",
        "https://ci.example/a b/c/d/e",
        "https://ci.example/bridge#top",
        "https:///bridge",
        "oci://registry.example/bridge:1.4",
    ]
    .map(address)
    .concat();
    check_app(
        &format!("artifacts:\n{entries}"),
        expect![[r#"
            error[artifact-url] apps/a/app.yaml:2:19: `http://ci.example/x` is not where an artifact can be fetched: everybody on the way sees what is fetched over http://
              = write https://; http:// is for loopback
            error[artifact-url] apps/a/app.yaml:3:19: `https://me:secret@ci.example/x` is not where an artifact can be fetched: it holds a user or password, which everybody who reads the repository sees
              = remove what is before the `@`
            error[artifact-url] apps/a/app.yaml:4:19: `ftp://ci.example/bridge` is not where an artifact can be fetched: artifacts are fetched over https:// or oci://
              = write the whole address, such as https://ci.example/bridge-1.4
            error[artifact-url] apps/a/app.yaml:5:19: `/srv/bridge` is not where an artifact can be fetched: it does not begin with https://
              = write the whole address, such as https://ci.example/bridge-1.4
            error[artifact-url] apps/a/app.yaml:6:19: `https://ci.example/a b/c/d/e` is not where an artifact can be fetched: it holds a character that URLs escape
              = write it with %-escapes, such as %20 for a space
            error[artifact-url] apps/a/app.yaml:7:19: `https://ci.example/bridge#top` is not where an artifact can be fetched: a server never sees what is behind a `#`
              = remove it
            error[artifact-url] apps/a/app.yaml:8:19: `https:///bridge` is not where an artifact can be fetched: its host or port is none
              = write the whole address, such as https://ci.example/bridge-1.4
        "#]],
    );
}

#[test]
fn paths_are_those_of_files() {
    let entry =
        r#"{ url: "https://ci.example/x", sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 }"#;
    let paths = [
        "/etc/web/web.conf",
        "/etc/sudoers.d/x",
        "/usr/bin/mainstay",
        "/etc/systemd/system/x.service",
        "/etc/containers/systemd/x.container",
        "bin/x",
        "/bin/x",
    ];
    let entries: String = paths.map(|path| format!("  {path}: {entry}\n")).concat();
    check_app(
        &format!("artifacts:\n{entries}"),
        expect![[r#"
            error[conflict] apps/a/app.yaml:2:3: `/etc/web/web.conf` is an artifact here, and a file of this application
              = keep one of the two; mode and owner of an artifact stand in its own entry
              - apps/a/files/etc/web/web.conf: the file
            error[critical-path] apps/a/app.yaml:3:3: `/etc/sudoers.d/x` is guarded: it decides who becomes root
              = if you mean it, write artifacts: { /etc/sudoers.d/x: { allow-critical: true } } in app.yaml
            error[forbidden-path] apps/a/app.yaml:4:3: `/usr/bin/mainstay` cannot be managed: it belongs to mainstay itself
              = remove it; `allow-critical` does not help here
            error[unit-in-files] apps/a/app.yaml:5:3: `/etc/systemd/system` is not filled through `files`
              = put the unit into the application's folder, and enable it with `units:`
            error[unit-in-files] apps/a/app.yaml:6:3: `/etc/containers/systemd` is not filled through `artifacts`
              = put the quadlet into the application's folder: it is checked, and started from there
            error[path] apps/a/app.yaml:7:3: this path cannot be managed: `bin/x` is not absolute: paths begin with `/`
              = write the absolute path on the host, such as /etc/motd
            error[path-alias] apps/a/app.yaml:8:3: `/bin/x` leads through a symbolic link on today's distributions
              = write /usr/bin/x
        "#]],
    );
}

#[test]
fn two_applications_want_one_path() {
    let entry =
        r#"{ url: "https://ci.example/x", sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 }"#;
    check(
        &format!(
            "-- fleet.yaml --\nfleet: home\nhosts: {{ attic: {{}} }}\n-- apps/a/app.yaml --\nartifacts:\n  /opt/x: {entry}\n\
             -- apps/b/app.yaml --\nartifacts:\n  /opt/x: {entry}\n-- apps/c/files/opt/x/y --\nc\n"
        ),
        expect![[r#"
            error[conflict] apps/b/app.yaml:2:3: path `/opt/x` is wanted by `a` and `b` on host `attic`
              = let one application have it, or place the two on different hosts
              - apps/a/app.yaml:2:3: wanted here as well
            error[conflict] apps/c/files/opt/x/y: `/opt/x/y` needs `/opt/x` to be a folder, but it is wanted as a file or link
              = move one of the two, or place the applications on different hosts
              - apps/a/app.yaml:2:3: wanted as a file or link here
        "#]],
    );
}

#[test]
fn archives() {
    let artifact = |more: &str| {
        format!(
            r#"{{ url: "https://ci.example/x", sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08, {more} }}"#
        )
    };
    let entries: String = [
        ("/opt/good", "unpack: tar, strip: 1, owner: www-data"),
        ("/opt/strip", "strip: 1"),
        ("/opt/mode", "unpack: tar, mode: \"0755\""),
        ("/opt/zip", "unpack: zip"),
        ("/opt/minus", "unpack: tar, strip: -1"),
        ("/opt", "unpack: tar"),
        ("/usr/local/bin", "unpack: tar, allow-critical: true"),
        ("/etc/web", "unpack: tar"),
    ]
    .map(|(path, more)| format!("  {path}: {}\n", artifact(more)))
    .concat();
    check_app(
        &format!("artifacts:\n{entries}units: {{ web.service: {{ reload-on: [/opt/good/conf] }} }}\n"),
        expect![[r#"
            error[artifact-unpack] apps/a/app.yaml:3:120: `strip` is for an archive that is unpacked
              = add unpack: tar, or remove it
            error[artifact-unpack] apps/a/app.yaml:4:132: what is unpacked has no mode of its own
              = remove it: directories and what can be executed get 0755, the rest 0644
            error[unknown-value] apps/a/app.yaml:5:126: `unpack` is `tar`, not `zip`
              = write `tar`
            error[artifact-unpack] apps/a/app.yaml:6:140: `strip` is a number up to 20, not `-1`
              = write how many leading folders of the archive's paths are left out, such as 1
            error[artifact-unpack] apps/a/app.yaml:7:3: an archive is not unpacked into `/opt`, which others have to share
              = give it a directory of its own, such as /opt/bridge
            error[critical-path] apps/a/app.yaml:7:3: `/opt` is guarded: everything else on the host lies in it
              = if you mean it, write artifacts: { /opt: { allow-critical: true } } in app.yaml
            error[artifact-unpack] apps/a/app.yaml:8:3: an archive is not unpacked into `/usr/local/bin`, which others have to share
              = give it a directory of its own, such as /opt/bridge
            warning[unit-reload] apps/a/app.yaml:10:10: `web.service` is to be reloaded and does not say how: systemd would refuse it
              = add `ExecReload=` to the unit, such as /bin/kill -HUP $MAINPID, or write restart-on for reload-on
            error[conflict] apps/a/files/etc/web/web.conf: `/etc/web/web.conf` lies in `/etc/web`, where an archive is unpacked
              = move one of the two
              - apps/a/app.yaml:9:3: unpacked here
        "#]],
    );
}
