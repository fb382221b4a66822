//! What can be wrong with what is encrypted.

use expect_test::{Expect, expect};
use spec::desired::FileKind;
use spec::id::{AppName, HostName};
use spec::resolve::resolve;
use spec::sealed::mark;

use crate::support::{UNIT, lines, parse, tree};

const ATTIC: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMainstayMainstayMainstayMainstayMainstayMai";
const BARN: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBarnBarnBarnBarnBarnBarnBarnBarnBarnBarnBar";

/// What age makes for some keys of ssh, and for others without a name; of it nothing but the header is read.
fn sealed(keys: &[&str], unnamed: usize) -> String {
    let named = keys.iter().map(|key| format!("-> ssh-ed25519 {} epk\nbody\n", mark(key).expect("a key")));
    let others = (0..unnamed).map(|_| "-> X25519 epk\nbody\n-> x7-grease y\n\n".to_owned());
    let stanzas: String = named.chain(others).collect();
    format!("age-encryption.org/v1\n{stanzas}--- mac\npayload")
}

fn armoured(keys: &[&str]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(sealed(keys, 0));
    format!("-----BEGIN AGE ENCRYPTED FILE-----\n{text}\n-----END AGE ENCRYPTED FILE-----\n")
}

fn fleet(barn: &str) -> String {
    format!(
        "-- fleet.yaml --\nfleet: home\nhosts:\n  attic: {{ key: \"{ATTIC}\" }}\n  barn: {barn}\ntrust: {{ signers: trust/people, branch: main }}\n\
         -- trust/people --\nann@example.com {ATTIC}\n-- apps/a/a.service --\n{UNIT}"
    )
}

fn check(files: &[(&str, &str)], expected: Expect) {
    let repository = fleet(&format!("{{ key: \"{BARN}\" }}"));
    let mut tree = tree(&repository);
    files.iter().for_each(|(path, text)| tree.insert(path, text.as_bytes()));
    expected.assert_eq(&lines(&parse(&tree)));
}

fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |all, line| all + "    " + line + "\n")
}

#[test]
fn what_every_host_can_read_is_sound() {
    let both = sealed(&[ATTIC, BARN], 1);
    let value = indented(&armoured(&[ATTIC, BARN]));
    check(
        &[
            ("apps/a/files/etc/a/passwd.age", &both),
            ("apps/a/files/etc/a/armoured.age", &armoured(&[BARN, ATTIC])),
            ("secrets/README.md", "# ours\n"),
            ("secrets/shop.yaml", &format!("db: |\n{value}mail:\n  user: |\n{}", indented(&value))),
            ("apps/a/files/etc/a.env.j2", "DB={{ secret(\"db\") }}\nUSER={{ secret('mail.user') | base64 }}\n"),
        ],
        expect![[""]],
    );
}

#[test]
fn who_cannot_read_what_it_needs_is_named() {
    let value = indented(&armoured(&[BARN]));
    check(
        &[
            ("apps/a/files/etc/a/passwd.age", &sealed(&[ATTIC], 2)),
            ("secrets/shop.yaml", &format!("db: |\n{value}unused: |\n{value}")),
            ("apps/a/files/etc/a.conf.j2", "{% if host.name == 'attic' %}\n{{ secret('db') }}\n{% endif %}\n"),
        ],
        expect![[r#"
            error[secret-unreadable] apps/a/files/etc/a/passwd.age: host `barn` cannot read this file: it is not encrypted for that key
              = `mainstay secret rekey` encrypts it for all hosts that need it
            error[secret-unreadable] secrets/shop.yaml:1:1: host `attic` cannot read secret `db`, which `a` needs: it is not encrypted for that key
              = `mainstay secret rekey` encrypts it for all hosts that need it
        "#]],
    );
}

#[test]
fn what_is_not_encrypted_or_damaged_is_told() {
    check(
        &[
            ("apps/a/files/etc/plain.age", "hunter2\n"),
            ("apps/a/files/etc/cut.age", "age-encryption.org/v1\n-> X25519 a\n"),
            ("apps/a/files/etc/nobody.age", "age-encryption.org/v1\n--- mac\n"),
            (
                "apps/a/files/etc/armour.age",
                "-----BEGIN AGE ENCRYPTED FILE-----\n!!\n-----END AGE ENCRYPTED FILE-----\n",
            ),
            ("apps/a/files/etc/twice.age", &sealed(&[ATTIC, BARN], 0)),
            ("apps/a/files/etc/twice", "x\n"),
            ("apps/a/web.env.age", &sealed(&[ATTIC, BARN], 0)),
            ("secrets/a.yaml", "plain: hunter2\nlist: [a]\nempty: ''\n"),
            ("secrets/b.yaml", "x: ENC[AES256_GCM,data:a]\nsops: { age: [] }\n"),
            ("secrets/c.yaml", "x: ENC[AES256_GCM,data:a]\ny: hunter2\nsops: { mac: m, pgp: [{ fp: A }] }\n"),
            ("secrets/d.txt", "x"),
            ("secrets/deep/e.yaml", "x: y\n"),
        ],
        expect![[r#"
            error[secret] apps/a/files/etc/armour.age: nobody can open this file: it is damaged: what stands between its first and last line is not base64
              = take it from an older commit, or encrypt it again
            error[secret] apps/a/files/etc/cut.age: nobody can open this file: it is damaged: its header has no end
              = take it from an older commit, or encrypt it again
            error[secret] apps/a/files/etc/nobody.age: nobody can open this file: it is damaged: it is for nobody
              = take it from an older commit, or encrypt it again
            error[secret-plain] apps/a/files/etc/plain.age: this file is not encrypted
              = replace what it holds where it is used: whoever has the repository has it, as an older commit too; then `mainstay secret encrypt`
            error[conflict] apps/a/files/etc/twice.age: `/etc/twice` is brought twice, encrypted and as it is
              = keep one of the two
              - apps/a/files/etc/twice: brought here as well
            error[sealed-place] apps/a/web.env.age: only what goes to a host's own path can be encrypted: everybody on a host can read its units
              = move what is secret to files/PATH.age, and let the unit name it: EnvironmentFile=, LoadCredential= or a mount
            error[secret-plain] secrets/a.yaml:1:1: `plain` is not encrypted
              = replace it where it is used: whoever has the repository has it, as an older commit too; then `mainstay secret encrypt`
            error[secret] secrets/a.yaml:2:7: a list has no names by which a template could ask for its values
              = write NAME: VALUE for each, or all of it as one text
            error[secret-plain] secrets/a.yaml:3:1: `empty` is not encrypted
              = replace it where it is used: whoever has the repository has it, as an older commit too; then `mainstay secret encrypt`
            error[secret] secrets/b.yaml:2:7: it has no `mac` over all of it, so that nobody can tell whether somebody changed it
              = encrypt it with SOPS as it comes, without `mac_only_encrypted` or a tool that leaves it out
            error[secret-twice] secrets/c.yaml:1:1: there are two secrets `x`
              = rename one of the two
              - secrets/b.yaml:1:1: the other one
            error[secret-plain] secrets/c.yaml:2:1: `y` is not encrypted
              = replace it where it is used: whoever has the repository has it, as an older commit too; then `mainstay secret encrypt`
            error[secret] secrets/c.yaml:3:7: SOPS did not encrypt it with age, and hosts have no other keys
              = name the hosts' keys as `age` recipients in .sops.yaml
            error[unknown-file] secrets/d.txt: secrets/ holds only *.yaml files, not `d.txt`
              = name it secrets/NAME.yaml; an encrypted file of a host goes to apps/NAME/files/…, as PATH.age
            error[unknown-file] secrets/deep/e.yaml: secrets/ holds only *.yaml files, not `deep/e.yaml`
              = name it secrets/NAME.yaml; an encrypted file of a host goes to apps/NAME/files/…, as PATH.age
        "#]],
    );
}

#[test]
fn secrets_are_printed_where_they_belong_and_nothing_else() {
    let value = indented(&armoured(&[ATTIC, BARN]));
    let secrets = ("secrets/shop.yaml", &*format!("db: |\n{value}"));
    check(
        &[
            secrets,
            ("apps/a/files/etc/1.conf.j2", "{{ secret('bd') }}\n"),
            ("apps/a/files/etc/2.conf.j2", "{{ secret('db') | upper }}\n"),
            ("apps/a/files/etc/3.conf.j2", "{% if secret('db') == 'x' %}y{% endif %}\n{{ secret('db') ~ 'x' }}\n"),
            ("apps/a/files/etc/4.conf.j2", "{{ secret() }}\u{F0000}\n"),
            ("apps/a/files/etc/5.conf.j2", "{{ [1] | base64 }}\n"),
            ("apps/a/b.service.j2", "[Service]\nExecStart=/usr/bin/b\nEnvironment=DB={{ secret('db') }}\n"),
            (
                "apps/a/app.yaml",
                "containers: { c: { image: \"r.example/c:1\", env: { DB: \"{{ secret('db') }}\" } } }\n",
            ),
        ],
        expect![[r#"
            error[sealed-place] apps/a/app.yaml:1:55: a secret would stand where everybody on the host can read it
              = print it in a file below files/, and let this one name that: EnvironmentFile=, LoadCredential= or a mount
              ~ for host `attic` and 1 more
            error[sealed-place] apps/a/b.service.j2:3:19: a secret would stand where everybody on the host can read it
              = print it in a file below files/, and let this one name that: EnvironmentFile=, LoadCredential= or a mount
              ~ for host `attic` and 1 more
            error[secret-unknown] apps/a/files/etc/1.conf.j2:1:4: there is no secret `bd`
              = did you mean `db`?
              ~ for host `attic` and 1 more
            error[secret-handled] apps/a/files/etc/2.conf.j2:1:19: a secret cannot be compared or changed here: it is known on its host only
              = print it as it is, or in base64: {{ secret("name") }}, {{ secret("name") | base64 }}
              ~ for host `attic` and 1 more
            error[secret-handled] apps/a/files/etc/3.conf.j2:1:7: a secret cannot be compared or changed here: it is known on its host only
              = print it as it is, or in base64: {{ secret("name") }}, {{ secret("name") | base64 }}
            error[template-character] apps/a/files/etc/4.conf.j2:1:15: the characters U+F0000 and U+F0001 cannot stand in a template
              = remove it: no font shows it
            error[template-value] apps/a/files/etc/5.conf.j2:1:10: invalid operation: only a text is written in base64
              = `mainstay render --host NAME` shows what each host is given; `| default(…)` stands in for what is missing
              ~ for host `attic` and 1 more
        "#]],
    );
}

#[test]
fn hosts_without_a_key_and_branches_that_anybody_writes_are_told() {
    let text = fleet("{}").replace("trust: { signers: trust/people, branch: main }\n", "");
    let mut tree = tree(&text);
    tree.insert("apps/a/files/etc/a/passwd.age", sealed(&[ATTIC], 0).as_bytes());
    expect![[r#"
        error[secret-no-key] apps/a/files/etc/a/passwd.age: host `barn` cannot read this file: fleet.yaml names no key
          = add the line that `mainstay install` prints on the host, then `mainstay secret rekey`
        warning[secret-unsigned] apps/a/files/etc/a/passwd.age: nobody has to sign commits here: whoever can push can put another secret in the place of this one
          = say in fleet.yaml whose commits are believed: trust: { signers: trust/allowed_signers }
    "#]].assert_eq(&lines(&parse(&tree)));
}

#[test]
fn a_secret_is_a_link_to_memory_and_its_release_tells_nothing_of_it() {
    let of = |sealed: &str, mode: &str| {
        let mut tree = tree(&fleet(&format!("{{ key: \"{BARN}\" }}")));
        tree.insert("apps/a/files/etc/a/passwd.age", sealed.as_bytes());
        tree.insert(
            "apps/a/app.yaml",
            format!("files: {{ /etc/a/passwd: {{ owner: a, mode: \"{mode}\" }} }}\n").as_bytes(),
        );
        let fleet = parse(&tree).fleet.expect("a sound repository");
        resolve(&fleet, &HostName::parse("attic").expect("a name")).expect("a host")
    };
    let (one, other) = (sealed(&[ATTIC, BARN], 0), sealed(&[ATTIC, BARN], 1));
    let desired = of(&one, "0400");
    let app = &desired.apps[&AppName::parse("a").expect("a name")];
    let (path, secret) = app.secrets.first_key_value().expect("a secret");
    assert_eq!(path.as_str(), "/run/mainstay/secrets/a/etc/a/passwd");
    assert_eq!((secret.file.mode.to_string(), &*secret.file.owner), ("0400".to_owned(), "a"));
    let link = app.files.values().find_map(|file| match &file.kind {
        FileKind::Symlink { target } => Some(target.as_str()),
        _ => None,
    });
    assert_eq!(link, Some(path.as_str()));
    let digest = |desired: &spec::desired::Desired| desired.apps.values().next().expect("an application").digest;
    assert_eq!(digest(&desired), digest(&of(&one, "0400")));
    assert_ne!(digest(&desired), digest(&of(&other, "0400")));
    assert_ne!(digest(&desired), digest(&of(&one, "0600")));
}

#[test]
fn a_link_in_a_folder_that_is_mounted_leads_nowhere() {
    let both = sealed(&[ATTIC, BARN], 0);
    check(
        &[
            ("apps/a/files/etc/a/key.age", &both),
            (
                "apps/a/compose.yaml",
                "services:\n  web: { image: \"r.example/web:1\", volumes: [\"/etc/a:/a:ro\", \"/etc/a/key:/key:ro\"] }\n",
            ),
            ("apps/b/b.container", "[Container]\nImage=r.example/web:1\nVolume=/etc/a:/conf:ro\n"),
            (
                "apps/b/c.container",
                "[Container]\nImage=r.example/web:1\nVolume=/etc/a/key:/key:ro\nVolume=data:/etc/a\n",
            ),
        ],
        expect![[r#"
            warning[secret-mount] apps/a/compose.yaml:2:3: `/etc/a` is mounted as a folder, and `/etc/a/key` in it is a link to a secret, which leads nowhere in a container
              = mount `/etc/a/key` itself, beside the folder or in its place
            warning[secret-mount] apps/b/b.container: `/etc/a` is mounted as a folder, and `/etc/a/key` in it is a link to a secret, which leads nowhere in a container
              = mount `/etc/a/key` itself, beside the folder or in its place
        "#]],
    );
}

#[test]
fn a_secret_of_a_compose_file_may_be_encrypted_beside_it() {
    let both = sealed(&[ATTIC, BARN], 1);
    let compose = |file: &str, more: &str| {
        format!(
            "services:\n  web:\n    image: r.example/web:1\n    secrets: [{{ source: db, uid: \"7\", mode: 0400 }}]\n{more}\
             secrets: {{ db: {{ file: {file} }} }}\n"
        )
    };
    check(
        &[("apps/shop/compose.yaml", &compose("./conf/db.txt", "")), ("apps/shop/conf/db.txt.age", &both)],
        expect![[""]],
    );
    let mut tree = tree(&fleet(&format!("{{ key: \"{BARN}\" }}")));
    tree.insert("apps/shop/compose.yaml", compose("./conf/db.txt", "").as_bytes());
    tree.insert("apps/shop/conf/db.txt.age", both.as_bytes());
    let parsed = parse(&tree);
    assert!(parsed.sealed.files.contains_key("apps/shop/conf/db.txt.age"));
    let fleet = parsed.fleet.expect("a fleet");
    let desired = resolve(&fleet, &HostName::parse("attic").expect("a name")).expect("resolved");
    let app = &desired.apps[&AppName::parse("shop").expect("a name")];
    let (path, secret) = app.secrets.first_key_value().expect("it is there");
    assert_eq!(path.as_str(), "/run/mainstay/secrets/shop/srv/compose/shop/.secrets/db@7.0.0400");
    assert_eq!((secret.file.owner.as_str(), secret.file.mode.bits()), ("7", 0o400));

    check(
        &[
            (
                "apps/shop/compose.yaml",
                &compose(
                    "./db.txt",
                    "    configs: [page]\n    env_file: web.env\nconfigs: { page: { file: ./page.html } }\n",
                ),
            ),
            ("apps/shop/db.txt.age", &both),
            ("apps/shop/db.txt", "hunter2"),
            ("apps/shop/page.html.age", &both),
            ("apps/shop/web.env.age", &both),
            ("apps/shop/plain.txt.age", "hunter2"),
        ],
        expect![[r#"
            error[sealed-place] apps/shop/compose.yaml:5:15: config `page` is encrypted, which secrets are
              = declare it in `secrets`, and name it in those of the service
            error[sealed-place] apps/shop/compose.yaml:6:15: `web.env` is encrypted, and whoever may ask the engine reads an environment
              = declare it in `secrets`, and let the service read /run/secrets/NAME
            error[secret-plain] apps/shop/compose.yaml:8:24: `db.txt` is there twice: encrypted, and in the clear
              = remove the one in the clear, and replace what it holds
            error[secret-plain] apps/shop/plain.txt.age: this file is not encrypted
              = replace what it holds where it is used: whoever has the repository has it, as an older commit too; then `mainstay secret encrypt`
        "#]],
    );
    check(
        &[
            ("apps/shop/compose.yaml", &compose("./db.txt", "")),
            ("apps/shop/db.txt.age", &both),
            ("apps/shop/old.txt.age", &both),
        ],
        expect![[r#"
            error[sealed-place] apps/shop/old.txt.age: it is encrypted, and nothing opens it: only secrets of the compose file, and what goes to a host's own path, can be
              = name it as one, without `.age`: secrets: { NAME: { file: ./old.txt } }, or move it to files/PATH.age
        "#]],
    );
}

#[test]
fn a_rollout_that_anybody_can_speak_in_is_told() {
    let rollouts = "rollouts: { default: { waves: [ { share: 100% } ] } }\n";
    let text = |barn: &str| fleet(barn).replacen("-- trust/people --", &format!("{rollouts}-- trust/people --"), 1);
    expect![[""]].assert_eq(&lines(&parse(&tree(&text(&format!("{{ key: \"{BARN}\" }}"))))));
    expect![[r#"
        warning[host-key] fleet.yaml:4:3: `barn` has no `key`: whoever can push can say in its name that it is well, or failed, and rollouts go by that
          = add what `mainstay install` prints for the host: key: "ssh-ed25519 AAAA…"
    "#]].assert_eq(&lines(&parse(&tree(&text("{}")))));
    // Where nobody has to sign anything, that is the least of it.
    let open = text("{}").replace("trust: { signers: trust/people, branch: main }\n", "");
    assert!(!lines(&parse(&tree(&open))).contains("host-key"));
}
