//! A picture on the terminal that is drawn over again, and that leaves the terminal as it was.

use std::io::{self, IsTerminal as _};

use super::out;
use super::width::{self, cut};

/// A terminal that is drawn on, in its second screen; the first one is back when this is dropped.
pub(super) struct Screen(());

impl Screen {
    /// Begins to draw; `None` where standard output is no terminal.
    pub(super) fn begin() -> Option<Screen> {
        if !io::stdout().is_terminal() {
            return None;
        }
        // The second screen, without a cursor.
        out::write(format_args!("\u{1b}[?1049h\u{1b}[?25l"));
        out::flush();
        Some(Screen(()))
    }

    /// Draws a text in place of the last one, as much of it as there is room for.
    pub(super) fn draw(&self, text: &str) {
        let (width, height) = width::size(&io::stdout());
        let mut drawn = "\u{1b}[H".to_owned();
        for (index, line) in fitted(text, width, height).iter().enumerate() {
            let end = if index == 0 { "" } else { "\r\n" };
            drawn.extend([end, line, "\u{1b}[0m\u{1b}[K"]);
        }
        out::write(format_args!("{drawn}\u{1b}[J"));
        out::flush();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        out::write(format_args!("\u{1b}[?25h\u{1b}[?1049l"));
        out::flush();
    }
}

/// Cuts a text to what has room.
fn fitted(text: &str, width: usize, height: usize) -> Vec<String> {
    let all: Vec<&str> = text.lines().collect();
    let shown = if all.len() > height { height.saturating_sub(1) } else { all.len() };
    let mut lines: Vec<String> = all.iter().take(shown).map(|line| cut(line, width)).collect();
    if shown < all.len() {
        lines.push(cut(&format!("… {} more lines; `mainstay status` shows them", all.len() - shown), width));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_cut_and_says_so() {
        assert_eq!(fitted("1\n2\n3\n4", 40, 3), ["1", "2", "… 2 more lines; `mainstay status` shows…"]);
        assert_eq!(fitted("1\n2\n3", 40, 3), ["1", "2", "3"]);
    }
}
