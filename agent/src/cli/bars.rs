//! What is being fetched, as bars below what is printed. They vanish when it is there: what is said then says it.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, IsTerminal as _};
use std::sync::OnceLock;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use spec::id::shown;

use super::width::{self, cut_front};
use crate::transfer::{Look, Onlooker};

/// How often what tells nothing shows that it goes on.
const TURN: Duration = Duration::from_millis(120);
/// What `1023.9/1023.9 MiB` takes.
const NUMBERS: usize = 17;

/// The bars of this process, once there may be any.
static SHOWN: OnceLock<MultiProgress> = OnceLock::new();

/// Prints something without tearing the bars apart.
pub(super) fn aside<T>(print: impl FnOnce() -> T) -> T {
    match SHOWN.get() {
        Some(all) => all.suspend(print),
        None => print(),
    }
}

/// Shows what is fetched at the bottom of a terminal.
pub(super) struct Bars {
    all: MultiProgress,
    width: usize,
    /// How often they turn by themselves.
    turn: Option<Duration>,
}

impl Bars {
    /// Makes them for standard error; `None` where that is no terminal, or one that cannot write over itself.
    pub(super) fn on_terminal() -> Option<Bars> {
        let stderr = io::stderr();
        if !stderr.is_terminal() || !moves(std::env::var_os("TERM").as_deref()) {
            return None;
        }
        let all = SHOWN.get_or_init(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr())).clone();
        Some(Bars { all, width: width::of(&stderr), turn: Some(TURN) })
    }
}

/// Says whether a terminal of this kind can move its cursor.
fn moves(term: Option<&OsStr>) -> bool {
    term.is_some_and(|term| !term.is_empty() && term != "dumb")
}

impl Onlooker for Bars {
    fn begin(&self, what: &str) -> Box<dyn Look> {
        let shape = Shape::Unknown;
        let bar = self.all.add(ProgressBar::no_length());
        bar.set_style(shape.style(self.width));
        bar.set_message(cut_front(&shown(what), room(self.width)));
        if let Some(turn) = self.turn {
            bar.enable_steady_tick(turn);
        }
        Box::new(Bar { bar, width: self.width, shape })
    }
}

/// What is known of how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Nothing.
    Unknown,
    /// How much came.
    Counted,
    /// How much came, and how much there is.
    Measured,
}

impl Shape {
    fn style(self, width: usize) -> ProgressStyle {
        let template = match (self, bar(width)) {
            (Shape::Unknown, _) => "{spinner} {msg}".to_owned(),
            (Shape::Counted, _) => "{spinner} {msg} {amount}".to_owned(),
            (Shape::Measured, 0) => "{spinner} {msg} {percent:>3}%".to_owned(),
            (Shape::Measured, bar) => format!("{{spinner}} {{msg:{}}} [{{bar:{bar}}}] {{amount}}", room(width)),
        };
        let style = ProgressStyle::with_template(&template).expect("the templates above are sound");
        let amount = |state: &ProgressState, text: &mut dyn fmt::Write| {
            text.write_str(&amount(state.pos(), state.len())).expect("writing to a string does not fail");
        };
        // Letters that the console of a server has as well.
        style.with_key("amount", amount).tick_chars("|/-\\ ").progress_chars("=> ")
    }
}

/// Returns how long a bar is on a terminal of this width; there is none on a narrow one.
fn bar(width: usize) -> usize {
    match width {
        0..50 => 0,
        50..80 => 10,
        _ => 20,
    }
}

/// Returns how much room a name has.
fn room(width: usize) -> usize {
    let taken = match bar(width) {
        0 => "|  1023.9 MiB".len(),
        bar => "|  [] ".len() + bar + NUMBERS,
    };
    // The last column stays free: some terminals go to the next line when it is written.
    width.saturating_sub(taken + 1)
}

/// Writes how much came, in the unit of how much there is.
fn amount(done: u64, total: Option<u64>) -> String {
    let (shift, unit) = match total.unwrap_or(done) {
        0..1024 => return total.map_or(format!("{done} B"), |total| format!("{done}/{total} B")),
        1024..1_048_576 => (10, "KiB"),
        1_048_576..1_073_741_824 => (20, "MiB"),
        _ => (30, "GiB"),
    };
    let tenths = |bytes: u64| {
        let tenths = (u128::from(bytes) * 10) >> shift;
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    match total {
        Some(total) => format!("{}/{} {unit}", tenths(done), tenths(total)),
        None => format!("{} {unit}", tenths(done)),
    }
}

/// One of them.
struct Bar {
    bar: ProgressBar,
    width: usize,
    shape: Shape,
}

impl Look for Bar {
    fn moved(&mut self, done: u64, total: Option<u64>) {
        let shape = if total.is_some() { Shape::Measured } else { Shape::Counted };
        if let Some(total) = total {
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
        if self.shape != shape {
            self.shape = shape;
            self.bar.set_style(shape.style(self.width));
            // At once: what is small is here before the bar turns next.
            self.bar.force_draw();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use indicatif::{InMemoryTerm, TermLike as _};

    use super::*;

    fn on(width: u16) -> (InMemoryTerm, Bars) {
        let term = InMemoryTerm::new(10, width);
        // Each change is drawn, however soon it follows another.
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(term.clone()), 255);
        (term, Bars { all: MultiProgress::with_draw_target(target), width: width.into(), turn: None })
    }

    fn check(width: u16, expected: &Expect) {
        let (term, bars) = on(width);
        let mut image = bars.begin("image registry.example:5000/team/bridge:1.27");
        let mut artifact = bars.begin("https://downloads.example/a/rather/long/way/to/bridge-1.27.tar.gz\u{1b}[2J");
        let mut stream = bars.begin("https://downloads.example/stream");
        let _quadlet = bars.begin("image quay.example/box:3");
        image.moved(13_002_342, Some(41_943_040));
        artifact.moved(1, Some(1000));
        stream.moved(4096, None);
        bars.all.suspend(|| term.write_line("WARN a line of the log").expect("room"));
        expected.assert_eq(&(term.contents() + "\n"));
        drop((image, artifact, stream, _quadlet));
        assert_eq!(term.contents(), "WARN a line of the log");
    }

    #[test]
    fn bars_fit_the_terminal_and_vanish() {
        check(
            120,
            &expect![[r#"
            WARN a line of the log
            / image registry.example:5000/team/bridge:1.27                                 [======>             ] 12.3/40.0 MiB
            / https://downloads.example/a/rather/long/way/to/bridge-1.27.tar.gz\u{1b}[2J   [>                   ] 1/1000 B
            / https://downloads.example/stream 4.0 KiB
            | image quay.example/box:3
        "#]],
        );
        check(
            60,
            &expect![[r#"
            WARN a line of the log
            / …ple:5000/team/bridge:1.27 [===>      ] 12.3/40.0 MiB
            / …idge-1.27.tar.gz\u{1b}[2J [>         ] 1/1000 B
            / …/downloads.example/stream 4.0 KiB
            | image quay.example/box:3
        "#]],
        );
        check(
            30,
            &expect![[r#"
            WARN a line of the log
            / …eam/bridge:1.27  31%
            / …tar.gz\u{1b}[2J   0%
            / ….example/stream 4.0 KiB
            | …y.example/box:3
        "#]],
        );
    }

    #[test]
    fn amounts_are_in_the_unit_of_the_whole() {
        assert_eq!(amount(0, None), "0 B");
        assert_eq!(amount(5, Some(1000)), "5/1000 B");
        assert_eq!(amount(512, Some(1 << 20)), "0.0/1.0 MiB");
        assert_eq!(amount(3 << 29, Some(4 << 30)), "1.5/4.0 GiB");
        assert_eq!(amount(1_048_575, None), "1023.9 KiB");
        assert_eq!(amount(u64::MAX, Some(u64::MAX)), "17179869183.9/17179869183.9 GiB");
    }

    #[test]
    fn a_terminal_that_cannot_move_gets_no_bars() {
        assert!(moves(Some(OsStr::new("xterm-256color"))));
        assert!(!moves(Some(OsStr::new("dumb"))) && !moves(Some(OsStr::new(""))) && !moves(None));
    }
}
