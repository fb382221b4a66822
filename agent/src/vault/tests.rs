//! A vault over real folders, with keys that were made up: what is written, what is not, and for whom.

use expect_test::expect;

use super::*;
use crate::seal::tests::made_up;

const FILE: &str = "secrets/shop.yaml";

/// A repository whose host `attic` needs `db` and has a key of ssh, and ann, who writes it.
struct Scene {
    folder: tempfile::TempDir,
    ann: PathBuf,
}

impl Scene {
    fn new() -> Scene {
        let folder = tempfile::tempdir().expect("a folder");
        let (ann, public) = made_up(folder.path(), "ann");
        let scene = Scene { folder, ann };
        let attic = crate::identity::made_up(1).public().to_owned();
        scene.write(
            "fleet.yaml",
            &format!("fleet: home\nhosts:\n  attic: {{ key: \"{attic}\" }}\nrecipients: [{public}]\n"),
        );
        scene.write(
            "apps/shop/shop.service",
            "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n",
        );
        scene.write("apps/shop/files/etc/shop.env.j2", "DB={{ secret(\"db\") }}\n");
        scene
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.dir().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.dir().join(path)).expect("read")
    }

    fn vault(&self) -> Vault {
        Vault::open(&self.dir(), Opener::any(std::slice::from_ref(&self.ann))).expect("a repository")
    }

    fn shown(&self, what: &str) -> String {
        String::from_utf8(self.vault().show(what).expect("opened").to_vec()).expect("text")
    }

    fn draft(&self) -> String {
        String::from_utf8(self.vault().draft(FILE).expect("opened").to_vec()).expect("text")
    }
}

#[test]
fn what_is_edited_is_what_was_written_and_all_of_it_is_encrypted() {
    let scene = Scene::new();
    let text = "# of the shop\ndb: hunter2 # the old one\nmail:\n  user: smith\n\n  key: |\n    one\n    two\n";
    let sealing = scene.vault().store(FILE, text.as_bytes()).expect("stored");
    assert_eq!((sealing.sealed, sealing.readers.len(), sealing.lost_readers), (3, 2, false));
    let stored = scene.text(FILE);
    for secret in ["hunter2", "smith", "one\n    two"] {
        assert!(!stored.contains(secret), "{stored}");
    }
    expect![[r#"
        # of the shop
        db: "hunter2" # the old one
        mail:
          user: "smith"

          key: |
            one
            two
    "#]]
    .assert_eq(&scene.draft());
    assert_eq!((scene.shown("db"), scene.shown("mail.key")), ("hunter2".to_owned(), "one\ntwo\n".to_owned()));
    assert!(matches!(scene.vault().show("mail"), Err(VaultError::Unknown(_))));
    // Only what was changed is encrypted anew.
    let changed = scene.draft().replace("smith", "jones");
    assert_eq!(scene.vault().store(FILE, changed.as_bytes()).expect("stored").sealed, 1);
    let value = |text: &str| text.split_once("mail:").expect("it is there").0.to_owned();
    assert_eq!(value(&scene.text(FILE)), value(&stored));
    assert_eq!(scene.shown("mail.user"), "jones");
}

#[test]
fn every_text_comes_back_as_it_was() {
    let scene = Scene::new();
    for text in [
        "x", "", " x", "x\n", "x\n\n", "\n", "a: b", "- x", "\"x\"", "true", "x # y", "\tx\n", "ü\u{7}", "  x\ny\n",
        "|\n", "x \ny\n",
    ] {
        let location = spec::diagnostic::Location::whole(FILE);
        let (path, text_before, comment) = (Vec::new(), String::new(), String::new());
        let place = SecretValue { path, text: text_before, place: 0..0, comment, indent: 2, location };
        let page = format!("a:\n  b:{}\nc: d\ndb: x\n", literal(text, &place));
        let values = manifest::written(FILE, &page).unwrap_or_else(|mistakes| panic!("{page}: {mistakes:?}"));
        assert_eq!((values[0].text.as_str(), values[1].text.as_str()), (text, "d"), "{page}");
        scene.vault().store(FILE, page.as_bytes()).expect("stored");
        assert_eq!(scene.shown("a.b"), text);
    }
}

#[test]
fn a_file_takes_the_place_of_one_in_the_clear() {
    let scene = Scene::new();
    let (plain, sealed) = ("apps/shop/files/etc/shop/key", "apps/shop/files/etc/shop/key.age");
    scene.write(plain, "-key-");
    scene.vault().store(FILE, b"db: x\n").expect("stored");
    let sealing = scene.vault().encrypt(plain).expect("encrypted");
    assert_eq!((sealing.readers.len(), sealing.replaced.as_deref()), (2, Some(plain)));
    assert!(!scene.dir().join(plain).exists() && !scene.text(sealed).contains("-key-"));
    assert_eq!(scene.shown(sealed), "-key-");
    assert_eq!(scene.vault().encrypt(sealed).expect("it is").sealed, 0);
    let vault = scene.vault();
    assert_eq!(vault.named(&scene.dir().join(sealed)).expect("one"), sealed);
    for none in ["fleet.yaml", "apps/shop/shop.service", "secrets/../fleet.yaml", "/etc/shadow", "secrets/a/b.yaml"] {
        assert!(matches!(vault.named(Path::new(none)), Err(VaultError::NotOne(_))), "{none}");
    }
}

#[test]
fn keys_that_come_and_go_are_told_apart() {
    let scene = Scene::new();
    scene.vault().store(FILE, b"db: hunter2\nother: x\n").expect("stored");
    assert_eq!(scene.vault().rekey(FILE, false).expect("nothing to do").sealed, 0);
    assert_eq!(scene.vault().rekey(FILE, true).expect("all").sealed, 2);
    // A host comes.
    let barn = crate::identity::made_up(2).public().to_owned();
    let fleet = scene.text("fleet.yaml");
    scene.write("fleet.yaml", &fleet.replace("recipients", &format!("  barn: {{ key: \"{barn}\" }}\nrecipients")));
    assert!(scene.vault().parsed().diagnostics.iter().any(|it| it.rule == "secret-unreadable"));
    let sealing = scene.vault().rekey(FILE, false).expect("encrypted");
    assert_eq!((sealing.sealed, sealing.readers.len(), sealing.lost_readers), (2, 3, false));
    assert!(scene.vault().strangers().is_empty());
    // And goes.
    scene.write("fleet.yaml", &fleet);
    assert_eq!(scene.vault().strangers().len(), 2);
    let sealing = scene.vault().rekey(FILE, false).expect("encrypted");
    assert_eq!((sealing.sealed, sealing.lost_readers), (2, true));
    // Who has no key changes nothing.
    let before = scene.text(FILE);
    let (eve, _) = made_up(scene.folder.path(), "eve");
    let mut vault = Vault::open(&scene.dir(), Opener::any(&[eve])).expect("a repository");
    assert!(matches!(vault.rekey(FILE, true), Err(VaultError::Closed { .. })));
    assert!(matches!(vault.draft(FILE), Err(VaultError::Closed { .. })));
    assert_eq!(scene.text(FILE), before);
}

#[test]
fn what_would_be_lost_or_read_otherwise_is_not_written() {
    let scene = Scene::new();
    let refused = |text: &str, is: fn(&VaultError) -> bool| {
        let error = scene.vault().store(FILE, text.as_bytes()).expect_err("refused");
        assert!(is(&error) && !scene.dir().join(FILE).exists(), "{text}: {error:?}");
        error
    };
    // A value that a line of an .env file cannot hold, aliases, and what is damaged.
    let mistake = refused("db: |\n  one\n  two\n", |it| matches!(it, VaultError::Mistakes { .. }));
    let VaultError::Mistakes { mistakes, .. } = mistake else { panic!("{mistake:?}") };
    assert_eq!(mistakes[0].message, "`db` has a line break, and `apps/shop/files/etc/shop.env.j2` has it in a line");
    assert_eq!(mistakes[0].location.span.as_ref().map(|span| span.line), Some(1));
    refused("db: &x one\nother: *x\n", |it| matches!(it, VaultError::Mistakes { .. }));
    refused("mail: &x\n  user: one\nother: *x\ndb: two\n", |it| matches!(it, VaultError::Mistakes { .. }));
    refused("db: |\n  -----BEGIN AGE ENCRYPTED FILE-----\n  !!\n  -----END AGE ENCRYPTED FILE-----\n", |it| {
        matches!(it, VaultError::Closed { why: Unopened::Damaged(_), .. })
    });
    // A mistake elsewhere, behind which hosts may be hidden; mended, it is written.
    let fleet = scene.text("fleet.yaml");
    scene.write("fleet.yaml", &fleet.replace("fleet: home", "fleet: home\nunheard: of"));
    refused("db: one\n", |it| matches!(it, VaultError::Unsound { mistakes, .. } if !mistakes.is_empty()));
    scene.write("fleet.yaml", &fleet);
    let mut vault = scene.vault();
    scene.vault().store(FILE, b"db: one\n").expect("stored");
    // Somebody else was faster.
    let before = scene.text(FILE);
    assert!(matches!(vault.store(FILE, b"db: two\n"), Err(VaultError::Changed(_))));
    assert_eq!(scene.text(FILE), before);
    // What is there already is not overwritten, and a template is not encrypted.
    scene.write("apps/shop/files/etc/key", "new");
    scene.write("apps/shop/files/etc/key.age", "old");
    assert!(matches!(scene.vault().encrypt("apps/shop/files/etc/key"), Err(VaultError::Exists(_))));
    assert_eq!(scene.text("apps/shop/files/etc/key.age"), "old");
    assert!(matches!(scene.vault().encrypt("apps/shop/files/etc/shop.env.j2"), Err(VaultError::Template(_))));
}

#[test]
fn a_secret_of_a_compose_file_is_encrypted_beside_it() {
    let scene = Scene::new();
    let sealed = "apps/blog/db.txt.age";
    let refused = scene.vault().named(Path::new(sealed));
    assert!(matches!(refused, Err(VaultError::NotOne(_))), "nobody reads it there");
    let compose =
        "services: { web: { image: \"r.example/web:1\", secrets: [db] } }\nsecrets: { db: { file: ./db.txt } }\n";
    scene.write("apps/blog/compose.yaml", compose);
    scene.write("apps/blog/db.txt", "-key-");
    scene.vault().store(FILE, b"db: x\n").expect("stored");
    assert_eq!(scene.vault().named(Path::new(sealed)).expect("one"), sealed);
    let sealing = scene.vault().encrypt("apps/blog/db.txt").expect("encrypted");
    assert_eq!((sealing.readers.len(), sealing.replaced.as_deref()), (2, Some("apps/blog/db.txt")));
    assert_eq!(scene.shown(sealed), "-key-");
    assert!(scene.vault().files().contains(&sealed.to_owned()));
    // What nobody reads there is not encrypted for anybody.
    scene.write("apps/blog/notes.txt", "-key-");
    assert!(matches!(scene.vault().encrypt("apps/blog/notes.txt"), Err(VaultError::Unsound { .. })));
    assert!(scene.dir().join("apps/blog/notes.txt").exists());
}

#[test]
fn what_is_for_some_hosts_only_is_a_file_as_any() {
    for whole in ["apps/web/files/etc/a.age", "apps/web/@attic/files/etc/a.age"] {
        assert!(is_placed(whole), "{whole}");
    }
    for other in ["apps/web/a.age", "apps/web/@attic/a.age", "secrets/a.age", "apps/web/files/a"] {
        assert!(!is_placed(other), "{other}");
    }
}

#[test]
fn what_nobody_could_read_or_has_mistakes_is_not_written() {
    let scene = Scene::new();
    let keyless =
        scene.text("fleet.yaml").lines().filter(|line| !line.contains("recipients")).collect::<Vec<_>>().join("\n");
    scene.write("fleet.yaml", &keyless);
    // Without `db` its template has a mistake, behind which the hosts that need something are hidden.
    assert!(matches!(scene.vault().store(FILE, b"unused: x\n"), Err(VaultError::Unsound { .. })));
    let more = "secrets/more.yaml";
    scene.vault().store(FILE, b"db: x\n").expect("attic needs it");
    assert!(matches!(scene.vault().store(more, b"unused: x\n"), Err(VaultError::ForNobody(_))));
    assert_eq!(scene.vault().store(FILE, b"db: x\n").expect("attic needs it").readers.len(), 1);
    for faulty in ["db: [x]\n", "{db: x}\n", "db: x\ndb: y\n", "db: \"x\n", "sops: {}\n"] {
        let before = scene.text(FILE);
        assert!(matches!(scene.vault().store(FILE, faulty.as_bytes()), Err(VaultError::Mistakes { .. })), "{faulty}");
        assert_eq!(scene.text(FILE), before);
    }
}

#[test]
fn nobody_is_locked_out_by_a_mistake_in_a_template() {
    let scene = Scene::new();
    scene.write("apps/shop/files/etc/shop.env.j2", "DB={{ secret(\"db\") }}\nMAIL={{ secret(\"mail\") }}\n");
    scene.vault().store(FILE, b"db: one\nmail: two\n").expect("stored");
    let before = scene.text(FILE);
    // `mail` gets another name before the template knows: who needs `db` cannot be told.
    let renamed = scene.draft().replace("mail:", "smtp:");
    assert!(matches!(scene.vault().store(FILE, renamed.as_bytes()), Err(VaultError::Unsound { .. })));
    assert_eq!(scene.text(FILE), before);
    // What another file has in the clear hides nobody, and may be encrypted in any order.
    scene.write("secrets/more.yaml", "more: three\n");
    scene.write("apps/shop/files/etc/more.env.j2", "MORE={{ secret(\"more\") }}\n");
    assert_eq!(scene.vault().rekey(FILE, true).expect("encrypted").readers.len(), 2);
    assert_eq!(scene.vault().encrypt("secrets/more.yaml").expect("encrypted").readers.len(), 2);
    assert!(scene.vault().parsed().diagnostics.iter().all(|it| !it.is_error()));
}
