//! Input that nobody writes by accident: it is refused, quickly, and never panics.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "how long hostile input takes is the question")]

use std::time::{Duration, Instant};

use proptest::prelude::*;
use spec::diagnostic::Diagnostic;
use spec::tree::Tree;

use crate::support::{FLEET, UNIT, lines, parse, tree};

/// What a hostile file may take: a second, and four in a build without optimisation.
const LIMIT: Duration = Duration::from_secs(if cfg!(debug_assertions) { 4 } else { 1 });

fn refuse(fleet: &str, rule: &str) {
    let mut repository = tree(&format!("-- apps/a/a.service --\n{UNIT}"));
    repository.insert("fleet.yaml", fleet.as_bytes());
    let start = Instant::now();
    let parsed = parse(&repository);
    let took = start.elapsed();
    assert!(took < LIMIT, "{rule} took {took:?}");
    let shown = lines(&parsed);
    assert!(shown.contains(&format!("error[{rule}]")), "{shown}");
}

#[test]
fn alias_bombs() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = level - 1;
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{below}"); 10].join(", ")));
    }
    refuse(&bomb, "yaml-too-large");
    let mut wide = format!("a: &a \"{}\"\nb: [", "x".repeat(100_000));
    wide.push_str(&vec!["*a"; 1000].join(", "));
    wide.push_str("]\n");
    refuse(&wide, "yaml-too-large");
    refuse("a: &a [*a]\n", "yaml-alias");
}

/// Refuses a compose file, with other files beside it.
fn refuse_project(compose: &str, beside: &[(&str, &str)], rule: &str) {
    let mut repository = tree(&format!("-- fleet.yaml --\n{FLEET}"));
    repository.insert("apps/a/compose.yaml", compose.as_bytes());
    beside.iter().for_each(|(path, text)| repository.insert(&format!("apps/a/{path}"), text.as_bytes()));
    let start = Instant::now();
    let parsed = parse(&repository);
    let took = start.elapsed();
    assert!(took < LIMIT, "{rule} took {took:?}");
    let shown = lines(&parsed);
    assert!(shown.contains(&format!("error[{rule}]")), "{}", &shown[..shown.len().min(2000)]);
}

#[test]
fn projects_that_grow() {
    // Each service has what the one before has, and more.
    let items: String = (0..20).map(|at| format!("N{at}=x, ")).collect();
    let chain: String =
        (1..60).map(|at| format!("  s{at}: {{ extends: s{}, environment: [{items}] }}\n", at - 1)).collect();
    let many: String = (0..3000).map(|at| format!("  t{at}: {{ extends: s59 }}\n")).collect();
    refuse_project(&format!("services:\n  s0: {{ image: \"a:1\" }}\n{chain}{many}"), &[], "yaml-too-large");
    for (length, rule) in [(40, "compose-circle"), (3000, "yaml-too-deep")] {
        let round: String = (0..length).map(|at| format!("  s{at}: {{ extends: s{} }}\n", (at + 1) % length)).collect();
        refuse_project(&format!("services:\n{round}"), &[], rule);
    }
    // One large file, named many times.
    let large = format!("services: {{ x: {{ image: \"a:1\", labels: {{ a: \"{}\" }} }} }}\n", "x".repeat(900_000));
    let users: String =
        (0..3000).map(|at| format!("  s{at}: {{ extends: {{ file: large.yaml, service: x }} }}\n")).collect();
    refuse_project(&format!("services:\n{users}"), &[("large.yaml", &large)], "yaml-too-large");
    // Variables of variables.
    let doubled: String = (1..60).map(|at| format!("V{at}=${{V{0}}}${{V{0}}}\n", at - 1)).collect();
    let env = format!("V0=0123456789\n{doubled}");
    refuse_project("services: { a: { image: \"a:1\", labels: [\"x=$V59\"] } }\n", &[(".env", &env)], "env-file");
    let each: String = (0..20_000).map(|_| "\"$V\", ").collect();
    let env = format!("V={}\n", "x".repeat(100_000));
    refuse_project(
        &format!("services: {{ a: {{ image: \"a:1\", command: [{each}] }} }}\n"),
        &[(".env", &env)],
        "compose-variable",
    );
    refuse_project(
        "services: { a: { image: \"a:1\", ports: [\"1-65535:1-65535\"], scale: 99999 } }\n",
        &[],
        "container-port",
    );
    let includes: String = (0..3000).map(|_| "x.yaml, ").collect();
    let included = [("x.yaml", "services: { a: { image: \"a:1\" } }\n")];
    refuse_project(&format!("include: [{includes}]\n"), &included, "conflict");
}

#[test]
fn depth() {
    refuse(&"[".repeat(100_000), "yaml-too-deep");
    refuse(&format!("a: {}{}", "[".repeat(100), "]".repeat(100)), "yaml-too-deep");
    refuse(&"- ".repeat(100_000), "yaml-too-deep");
    let block: String = (0..200).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    refuse(&block, "yaml-too-deep");
    let mut chain = format!("a0: &a0 {}{}\n", "[".repeat(50), "]".repeat(50));
    for level in 1..40 {
        chain.push_str(&format!("a{level}: &a{level} {}*a{}{}\n", "[".repeat(50), level - 1, "]".repeat(50)));
    }
    refuse(&chain, "yaml-too-deep");
}

#[test]
fn size() {
    refuse(&format!("fleet: {}\n", "x".repeat(10 << 20)), "yaml-too-large");
    refuse(&format!("fleet: [{}]\n", vec!["1"; 60_000].join(",")), "yaml-too-large");
    let keys: String = (0..20_000).map(|n| format!("k{n}: 1\n")).collect();
    refuse(&keys, "too-many");
    let one_line = format!("{{{}}}", (0..20_000).map(|n| format!("k{n}: 1")).collect::<Vec<_>>().join(", "));
    refuse(&one_line, "too-many");
}

#[test]
fn large_units() {
    let mut repository = tree(&format!("-- fleet.yaml --\n{FLEET}"));
    let directives: String = (0..60_000).map(|n| format!("Exec{n}=1\n")).collect();
    repository.insert("apps/a/a.service", format!("[Service]\n{directives}").as_bytes());
    let start = Instant::now();
    assert!(lines(&parse(&repository)).contains("error[too-many]"));
    assert!(start.elapsed() < LIMIT, "took {:?}", start.elapsed());
}

fn is_printable(diagnostic: &Diagnostic) -> bool {
    !format!("{diagnostic}").contains(char::is_control)
}

#[test]
fn names_carry_no_terminal_escapes_into_messages() {
    let bad = "\u{1b}[2J";
    for path in [
        "apps/?/a.service",
        "apps/a/?.service",
        "apps/a/?",
        "apps/a/?/x",
        "apps/a/x/?",
        "apps/a/@?/x",
        "apps/a/files/etc/?",
        "apps/?",
        "apps/a/files/etc/systemd/system/?.service",
        "apps/?/files/etc/systemd/system/a.service",
        "apps/a/files/bin/?",
        "apps/a/files/?/.gitkeep",
        "apps/a/?.service.d/x",
        "apps/?/files/bin/x",
        "hosts/?",
        "hosts/?.yaml",
        "hosts/?.yml",
        "?",
        "fleet.yaml?",
        "apps/a/app.yaml?",
    ] {
        let mut repository = tree(&format!("-- fleet.yaml --\n{FLEET}"));
        repository.insert(&path.replace('?', bad), b"x: [\n");
        let diagnostics = parse(&repository).diagnostics;
        assert!(path == "?" || !diagnostics.is_empty(), "{path}");
        assert!(diagnostics.iter().all(is_printable), "{path}: {diagnostics:?}");
    }
}

/// A repository that exercises most of the format.
const SOUND: &str = "fleet: home
defaults: { environment: prod, drift: repair }
environments: { prod: { vars: { a: [1, two] } } }
hosts:
  attic: { labels: { site: home }, address: 192.0.2.10, vars: { x: { y: 1 } } }
  barn:
";
const SOUND_APP: &str = "place: [{ site: home }, { not: { host: attic } }]
drift: report
units:
  web.service: { state: running, enabled: true, reload-on: [/etc/web/web.conf] }
files:
  /etc/web/web.conf: { mode: \"0640\", owner: root, group: www-data }
  /srv/web: { kind: directory }
containers:
  shop: { image: \"shop:1.4\", command: [a, b], env: { A: 1 }, ports: [\"80:80\"], volumes: [\"/etc/web:/etc/web:ro\"] }
";
const SOUND_UNIT: &str = "[Unit]\nDescription=Web\n\n[Service]\nExecStart=/usr/bin/web \\\n  --port 80\nExecReload=/bin/kill -HUP $MAINPID\n\n[Install]\nWantedBy=multi-user.target\n";

fn repository(fleet: &[u8], app: &[u8], unit: &[u8]) -> Tree {
    let mut tree = Tree::default();
    tree.insert("fleet.yaml", fleet);
    tree.insert("apps/web/app.yaml", app);
    tree.insert("apps/web/web.service", unit);
    tree.insert("apps/web/files/etc/web/web.conf", b"x");
    tree
}

/// Replaces, removes and repeats runs of bytes.
fn mutated(text: &str, edits: &[(usize, usize, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for (at, length, with) in edits {
        let start = at % (bytes.len() + 1);
        let end = (start + length).min(bytes.len());
        bytes.splice(start..end, with.iter().copied());
    }
    bytes
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..4),
        "[\\[\\]{}:,&*!|>'\"%@`#?\\- \n\t\\\\=]{0,3}".prop_map(String::into_bytes),
        prop::sample::select(vec![
            "{{", "null", "true", "*a", "&a ", "- ", "? ", "---\n", "\u{feff}", "ä", "\r\n", "\0", "[X]", "\\\n"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ]
}

fn edits() -> impl Strategy<Value = Vec<(usize, usize, Vec<u8>)>> {
    prop::collection::vec((0..2000usize, 0..6usize, piece()), 0..6)
}

/// A project that exercises most of the format, in two files.
const SOUND_PROJECT: &str = "name: p
x-c: &c { image: \"a:${T:-1}\", logging: { driver: none } }
services:
  a:
    <<: *c
    extends: { file: sub/b.yaml, service: b }
    ports: [\"80:80\", { target: 1, published: 2 }]
    volumes: [\"./x:/x:ro\", \"v:/v\", { type: tmpfs, target: /t }]
    depends_on: { d: { condition: service_healthy } }
    secrets: [s]
    deploy: { resources: { limits: { memory: 1m } } }
  d: { <<: *c, command: a 'b c', healthcheck: { test: t, interval: 1s }, networks: { n: { aliases: [z] } } }
networks: { n: { ipam: { config: [{ subnet: 10.0.0.0/24 }] } } }
volumes: { v: }
secrets: { s: { environment: T } }
";
const SOUND_BASE: &str =
    "services: { b: { environment: [A=1], env_file: e.env, ports: [\"81:81\"], labels: { l: 1 } } }\n";
const SOUND_ENV: &str = "T=1\nA=\"x\\n$T\" # c\nB='y'\nexport C=${A:-z}\n";

fn project(compose: &[u8], base: &[u8], env: &[u8]) -> Tree {
    let mut tree = Tree::default();
    tree.insert("fleet.yaml", FLEET.as_bytes());
    tree.insert("apps/web/compose.yaml", compose);
    tree.insert("apps/web/sub/b.yaml", base);
    tree.insert("apps/web/sub/e.env", env);
    tree.insert("apps/web/.env", env);
    tree
}

#[test]
fn the_sound_project_is_sound() {
    let project = project(SOUND_PROJECT.as_bytes(), SOUND_BASE.as_bytes(), SOUND_ENV.as_bytes());
    assert_eq!(lines(&parse(&project)), "");
}

#[test]
fn the_sound_repository_is_sound() {
    let parsed = parse(&repository(SOUND.as_bytes(), SOUND_APP.as_bytes(), SOUND_UNIT.as_bytes()));
    assert_eq!(lines(&parsed), "");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        fleet in prop::collection::vec(any::<u8>(), 0..200),
        app in prop::collection::vec(any::<u8>(), 0..200),
        unit in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        lines(&parse(&repository(&fleet, &app, &unit)));
        lines(&parse(&repository(SOUND.as_bytes(), &app, &unit)));
    }

    #[test]
    fn mutations_never_panic(fleet in edits(), app in edits(), unit in edits()) {
        let (fleet, app, unit) = (mutated(SOUND, &fleet), mutated(SOUND_APP, &app), mutated(SOUND_UNIT, &unit));
        lines(&parse(&repository(&fleet, SOUND_APP.as_bytes(), &unit)));
        lines(&parse(&repository(SOUND.as_bytes(), &app, SOUND_UNIT.as_bytes())));
        lines(&parse(&repository(&fleet, &app, &unit)));
    }

    #[test]
    fn mutated_projects_are_read_or_told_what_is_wrong(compose in edits(), base in edits(), env in edits()) {
        let (compose, base) = (mutated(SOUND_PROJECT, &compose), mutated(SOUND_BASE, &base));
        let tree = project(&compose, &base, &mutated(SOUND_ENV, &env));
        let parsed = parse(&tree);
        lines(&parsed);
        for it in parsed.diagnostics {
            prop_assert!(is_printable(&it), "{it:?}");
            let Some(span) = it.location.span else { continue };
            let Some(spec::tree::Entry::File { bytes, .. }) = tree.entries.get(&it.location.file) else { continue };
            let text = std::str::from_utf8(bytes).unwrap_or_default();
            let meant = text.get(span.start..span.end);
            prop_assert!(text.is_empty() || meant.is_some_and(|meant| !meant.contains('\n')), "{it:?}");
        }
    }

    #[test]
    fn spans_lie_on_one_line_of_the_file(fleet in edits(), app in edits(), unit in edits()) {
        let tree = repository(&mutated(SOUND, &fleet), &mutated(SOUND_APP, &app), &mutated(SOUND_UNIT, &unit));
        for it in parse(&tree).diagnostics {
            prop_assert!(is_printable(&it), "{it:?}");
            let Some(span) = it.location.span else { continue };
            let Some(spec::tree::Entry::File { bytes, .. }) = tree.entries.get(&it.location.file) else {
                // A missing app.yaml still gets a page; only its whole can be meant.
                panic!("{it:?} points into a file that is not there");
            };
            let text = std::str::from_utf8(bytes).expect("only text is read");
            let meant = text.get(span.start..span.end);
            prop_assert!(meant.is_some_and(|meant| !meant.contains('\n')), "{it:?}");
            prop_assert_eq!(text[..span.start].matches('\n').count() + 1, span.line);
        }
    }
}
