//! How the demo speaks: chapters, sentences, commands, and one line for each thing that was seen or not.
//!
//! Plain text when nobody watches: the same words, without colours. It counts what failed; what to do about that is up to
//! the caller.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Column in which what was seen begins, behind what was expected.
const SEEN: usize = 46;

/// A story in the telling.
pub(crate) struct Story {
    began: Instant,
    chapters: usize,
    seen: usize,
    failed: usize,
    is_coloured: bool,
}

impl Story {
    /// Begins with a title.
    pub(crate) fn begin(title: &str) -> Story {
        let is_coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let story = Story { began: Instant::now(), chapters: 0, seen: 0, failed: 0, is_coloured };
        println!("{}", story.paint(BOLD, title));
        story
    }

    /// Begins a chapter.
    pub(crate) fn chapter(&mut self, title: &str) {
        self.chapters += 1;
        println!("\n{}\n", self.paint(BOLD, &format!("{}. {title}", self.chapters)));
    }

    /// Says a sentence or a few.
    pub(crate) fn say(&self, text: &str) {
        text.lines().for_each(|line| println!("   {line}"));
    }

    /// Shows a command that a person could type.
    pub(crate) fn command(&self, command: &str) {
        println!("   {}", self.paint(CYAN, &format!("$ {command}")));
    }

    /// Shows what a program printed or a file holds.
    pub(crate) fn quote(&self, text: &str) {
        text.trim_end().lines().for_each(|line| println!("   {} {line}", self.paint(DIM, "|")));
    }

    /// Shows a difference, as git prints it.
    pub(crate) fn diff(&self, text: &str) {
        for line in text.lines() {
            let style = match line.chars().next() {
                Some('+') => GREEN,
                Some('-') => RED,
                _ => DIM,
            };
            println!("   {} {}", self.paint(DIM, "|"), self.paint(style, line));
        }
    }

    /// Leaves a line empty.
    pub(crate) fn pause(&self) {
        println!();
    }

    /// Tells whether something that had to be so was seen to be so; returns it as well.
    pub(crate) fn check(&mut self, what: &str, outcome: Result<String>) -> bool {
        match outcome {
            Ok(seen) => {
                self.seen += 1;
                let gap = SEEN.saturating_sub(what.chars().count()).max(2);
                println!("   {}  {what}{:gap$}{}", self.paint(GREEN, "ok"), "", self.paint(DIM, seen.trim()));
                true
            }
            Err(error) => {
                self.failed += 1;
                println!("   {}  {what}", self.paint(RED, "FAILED"));
                self.quote(&format!("{error:#}"));
                false
            }
        }
    }

    /// As [`Story::check`], for what the rest of the story cannot do without.
    pub(crate) fn need(&mut self, what: &str, outcome: Result<String>) -> Result<()> {
        if !self.check(what, outcome) {
            bail!("without this the demo cannot go on: {what}");
        }
        Ok(())
    }

    /// Tells how it went.
    pub(crate) fn end(&self) -> Result<()> {
        let (all, time) = (self.seen + self.failed, seconds(self.began.elapsed()));
        if self.failed > 0 {
            bail!("{} of {all} expectations were not met; what was seen instead is above", self.failed);
        }
        println!("\n{}", self.paint(BOLD, &format!("All {all} expectations were met, in {time}.")));
        Ok(())
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.is_coloured { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const CYAN: &str = "36";

/// A time as a person says it.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
