//! What can be wrong with the tree: names, folders, links.

use expect_test::expect;

use crate::support::check;

#[test]
fn apps_without_applications() {
    check(
        r"-- fleet.yaml --
fleet: home
hosts:
  attic: { labels: { site: home, role: broker } }
  barn: { labels: { site: farm, role: broker } }
-- apps/README.md --
soon
",
        expect![[r#"
            error[no-apps] apps: the repository has no application
              = add apps/NAME/ with what should run; an empty tree never means that nothing should
        "#]],
    );
}

#[test]
fn nothing_at_all() {
    check(
        "",
        expect![[r#"
            error[no-apps] apps: the repository has no application
              = add apps/NAME/ with what should run; an empty tree never means that nothing should
            error[no-fleet] fleet.yaml: the repository has no fleet.yaml
              = `mainstay init` writes one; it stands at the repository's root
        "#]],
    );
}

#[test]
fn near_misses_at_the_top() {
    check(
        r"-- fleet.yml --
fleet: home
-- app/a/a.service --
[Service]
ExecStart=/usr/bin/true
-- host/a.yaml --
a: {}
-- docs/x.md --
fine
-- .github/workflows/ci.yaml --
fine
",
        expect![[r#"
            error[unknown-top] app: mainstay does not read `app`
              = did you mean `apps/`?
            error[unknown-top] fleet.yml: mainstay does not read `fleet.yml`
              = did you mean `fleet.yaml`?
            error[unknown-top] host: mainstay does not read `host`
              = did you mean `hosts/`?
        "#]],
    );
}

#[test]
fn links_and_submodules() {
    check(
        r"-- fleet.yaml --
fleet: home
hosts:
  attic: { labels: { site: home, role: broker } }
  barn: { labels: { site: farm, role: broker } }
-- apps/a/a.service --
[Service]
ExecStart=/usr/bin/true
-- apps/a/files/etc/x -> /etc/passwd --
-- apps/lib (submodule) --
-- vendor/lib (submodule) --
-- docs/link -> ../x --
-- apps/b/app.yaml -> ../a/app.yaml --
",
        expect![[r#"
            error[symlink] apps/a/files/etc/x: a symbolic link to `/etc/passwd` stands here, and mainstay follows none
              = put a regular file here; to make a link on the host, write files: { /path: { kind: symlink, target: … } } in app.yaml
            error[symlink] apps/b/app.yaml: a symbolic link to `../a/app.yaml` stands here, and mainstay follows none
              = put a regular file here; to make a link on the host, write files: { /path: { kind: symlink, target: … } } in app.yaml
            error[submodule] apps/lib: a git submodule stands here, and mainstay fetches none
              = commit the files themselves: one commit is one closed tree
            warning[submodule] vendor/lib: this submodule is not fetched
              = that is fine when hosts do not need it
        "#]],
    );
}

#[test]
fn fleet_is_a_link() {
    check(
        r"-- fleet.yaml -> ../other/fleet.yaml --
-- apps/a/a.service --
[Service]
ExecStart=/usr/bin/true
",
        expect![[r#"
            error[symlink] fleet.yaml: a symbolic link to `../other/fleet.yaml` stands here, and mainstay follows none
              = put a regular file here; to make a link on the host, write files: { /path: { kind: symlink, target: … } } in app.yaml
        "#]],
    );
}

#[test]
fn folders_of_applications() {
    check(
        r"-- fleet.yaml --
fleet: home
hosts:
  attic: { labels: { site: home, role: broker } }
  barn: { labels: { site: farm, role: broker } }
-- apps/README.md --
fine
-- apps/web.service --
[Service]
ExecStart=/usr/bin/true
-- apps/Web_1/web.service --
[Service]
ExecStart=/usr/bin/true
-- apps/empty/README.md --
nothing here
-- apps/hollow/app.yaml --
place: all
",
        expect![[r#"
            error[app-name] apps/Web_1: this is not an application's name: `Web_1` may hold only lower-case letters, digits and `-`
              = rename the folder
            error[empty-app] apps/empty: application `empty` brings nothing: no unit, no file and no container
              = add what it consists of, or remove the folder; an empty folder never means that something is removed
            error[empty-app] apps/hollow: application `hollow` brings nothing: no unit, no file and no container
              = add what it consists of, or remove the folder; an empty folder never means that something is removed
            error[unknown-file] apps/web.service: apps/ holds only folders, not the file `web.service`
              = put it into the folder of its application, apps/NAME/
        "#]],
    );
}

#[test]
fn what_lies_in_a_folder() {
    check(
        r"-- fleet.yaml --
fleet: home
hosts:
  attic: { labels: { site: home, role: broker } }
  barn: { labels: { site: farm, role: broker } }
-- apps/a/a.service --
[Service]
ExecStart=/usr/bin/true
-- apps/a/README.md --
fine
-- apps/a/LICENSE --
fine
-- apps/a/.gitkeep --
-- apps/a/app.yml --
x
-- apps/a/nginx.conf --
x
-- apps/a/db.container --
[Container]
-- apps/a/secret.age --
x
-- apps/a/swap.swap --
x
-- apps/a/a.service.d/limits.conf --
x
-- apps/a/@prod/files/etc/x --
x
-- apps/a/file/etc/x --
x
-- apps/a/scripts/deploy.sh --
x
-- apps/a/scripts/other.sh --
x
-- apps/a/files/etc/x.conf.j2 --
x
-- apps/a/files/etc/passwd.age --
x
-- apps/a/files/var/lib/a/.gitkeep --
-- apps/a/files/etc/systemd/system/b.service --
x
-- apps/a/files/etc/systemd/system/a.service.d/x.conf --
x
-- apps/a/files/bin/tool --
x
-- apps/a/files/etc/a\b --
x
-- apps/a/b c.service --
x
",
        expect![[r#"
            error[overlay-unknown] apps/a/@prod: there is no host and no environment `prod`
              = an overlay is called like a host or an environment of fleet.yaml, with an `@` before it
            error[unit-syntax] apps/a/a.service.d/limits.conf:1:1: this line is neither `Key=value` nor `[Section]` nor a comment: `x`
              = begin comments with `#`; end a line with `\` when the value goes on in the next one
            error[unknown-file] apps/a/app.yml: `app.yml` is not a file that mainstay reads
              = did you mean `app.yaml`?
            error[unit-name] apps/a/b c.service: this is not a unit's name: `b c.service` holds a character that unit names may not: only A-Z a-z 0-9 : - _ . \ @
              = rename the file
            error[quadlet-incomplete] apps/a/db.container:1:1: this .container has no `Image=`
              = add `Image=` with the image to run to [Container]
            error[unknown-folder] apps/a/file: `file/` is not a folder that mainstay reads
              = did you mean `files/`?
            error[path-alias] apps/a/files/bin/tool: `/bin/tool` leads through a symbolic link on today's distributions
              = move the file to apps/a/files/usr/bin/tool
            error[path] apps/a/files/etc/a\b: this path cannot be managed: `/etc/a\b` holds a backslash
              = rename the file
            error[secret-plain] apps/a/files/etc/passwd.age: this file is not encrypted
              = replace what it holds where it is used: whoever has the repository has it, as an older commit too; then `mainstay secret encrypt`
            error[unit-in-files] apps/a/files/etc/systemd/system/a.service.d/x.conf: `/etc/systemd/system` is not filled through files/
              = move it to apps/a/a.service.d/x.conf: drop-ins are read from there
            error[unit-in-files] apps/a/files/etc/systemd/system/b.service: `/etc/systemd/system` is not filled through files/
              = move it to apps/a/b.service: units are checked, enabled and started from there
            error[gitkeep] apps/a/files/var/lib/a/.gitkeep: `.gitkeep` would be installed on the host
              = remove it; to make the folder, write files: { /var/lib/a: { kind: directory } } in app.yaml
            error[unknown-file] apps/a/nginx.conf: mainstay does not know what `nginx.conf` is for
              = put it under files/, at the path that it has on the host (files/etc/…), or move it out of apps/
            error[unknown-folder] apps/a/scripts: mainstay does not know what the folder `scripts/` is for
              = put what the host needs (such as `deploy.sh`) under files/, at its path there, and the rest outside apps/
            error[sealed-place] apps/a/secret.age: only what goes to a host's own path can be encrypted: everybody on a host can read its units
              = move what is secret to files/PATH.age, and let the unit name it: EnvironmentFile=, LoadCredential= or a mount
            error[unit-type] apps/a/swap.swap: mainstay does not manage .swap units such as `swap.swap`
              = it manages .service, .socket, .timer, .path, .mount, .target, .slice
        "#]],
    );
}
