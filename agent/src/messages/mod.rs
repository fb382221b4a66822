//! The hundred most likely mistakes, each made for real, with the exact words that a person reads then.
//!
//! They are the files of `tests/messages/`: a folder for each place in which mistakes are made, a file for each mistake. A file is
//! its title, the files that hold the mistake, and behind `== … ==` what mainstay says to it. To add one, write the first two and
//! run this with `UPDATE_EXPECT=1`; then read what it wrote as somebody would who has never seen the code. What a host makes wrong is
//! made on real ones, by the end-to-end test `messages`; here it is only held to the same rules.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

mod repository;
mod settings;
mod credentials;

/// Where mistakes are made.
const PLACES: [&str; 4] = ["repository", "settings", "credentials", "host"];

/// A mistake as it is written down.
struct Case {
    /// The name of its file, without the ending.
    name: String,
    /// All that stands before the words of mainstay.
    given: String,
    /// The files, each with its header and its text.
    files: Vec<(String, String)>,
    /// Where it is written down.
    path: PathBuf,
}

fn folder(place: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/messages").join(place)
}

/// Reads all mistakes of a place, in the order of their names.
fn cases(place: &str) -> Vec<Case> {
    let entries = fs::read_dir(folder(place)).expect("the folder of a place");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| Case::read(&path)).collect()
}

impl Case {
    fn read(path: &Path) -> Case {
        let text = fs::read_to_string(path).expect("a file");
        let given = text.split_inclusive('\n').take_while(|line| !line.starts_with("== ")).collect::<String>();
        let mut files: Vec<(String, String)> = Vec::new();
        for line in given.split_inclusive('\n') {
            match line.trim_end().strip_prefix("-- ").and_then(|rest| rest.strip_suffix(" --")) {
                Some(header) => files.push((header.to_owned(), String::new())),
                None => files.last_mut().into_iter().for_each(|(_, text)| text.push_str(line)),
            }
        }
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        Case { name, given, files, path: path.to_owned() }
    }

    /// Compares what is said, by `command`, with what is written down.
    fn says(&self, command: &str, said: &str) {
        let mut text = format!("{}== {command} ==\n", self.given);
        for line in said.lines() {
            writeln!(text, "{}", line.trim_end()).expect("a text can be written to");
        }
        let path = self.path.to_str().expect("a path is UTF-8");
        expect_test::expect_file![path].assert_eq(&text);
    }
}

#[test]
fn there_are_a_hundred_each_with_a_title_and_words() {
    let mut titles = BTreeSet::new();
    for place in PLACES {
        let cases = cases(place);
        println!("{place}: {}", cases.len());
        for case in cases {
            let title = case.given.lines().next().unwrap_or_default().to_owned();
            assert!(
                title.ends_with('.') && case.given.lines().nth(1) == Some(""),
                "{}: `{title}`",
                case.path.display()
            );
            assert!(titles.insert(title), "{}: another one has this title", case.path.display());
            let words = fs::read_to_string(&case.path).expect("a file");
            let words = words.split_once("\n== ").map(|(_, words)| words.to_lowercase()).unwrap_or_default();
            assert!(words.lines().count() > 1, "{}: nothing is said", case.path.display());
            // What a library or the kernel says to programmers, and what says a thing twice.
            for foreign in ["os error", "os {", "invalid type", "at line", "panicked", "unwrap", "serde", "minijinja"] {
                assert!(!words.contains(foreign), "{}: `{foreign}` is no word for people", case.path.display());
            }
        }
    }
    println!("altogether: {}", titles.len());
    assert!(titles.len() >= 100, "{} mistakes", titles.len());
}
