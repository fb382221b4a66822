//! A picture on the terminal that is drawn over again, and that leaves the terminal as it was.

use std::io::{self, IsTerminal as _};

use rustix::termios::tcgetwinsize;
use unicode_width::UnicodeWidthChar as _;

use super::out;

/// What a terminal has that does not tell.
const USUAL: (usize, usize) = (80, 24);

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
        let (width, height) = size();
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

fn size() -> (usize, usize) {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        Ok(_) | Err(_) => USUAL,
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

/// Cuts a line to a width, with a sign that it was cut. Colours take no room.
fn cut(line: &str, width: usize) -> String {
    let total: usize = visible(line).map(|(_, room)| room).sum();
    if total <= width {
        return line.to_owned();
    }
    let (mut kept, mut used) = (String::new(), 0);
    for (c, room) in visible(line) {
        // The sign takes the last place.
        if used + room + 1 > width && room > 0 {
            kept.push('…');
            break;
        }
        used += room;
        kept.push(c);
    }
    kept
}

/// Iterates over what a line consists of, each with the room that it takes: none within the sequences of colours.
fn visible(line: &str) -> impl Iterator<Item = (char, usize)> {
    let mut in_sequence = false;
    line.chars().map(move |c| {
        let is_part = in_sequence || c == '\u{1b}';
        in_sequence = is_part && c != 'm';
        (c, if is_part { 0 } else { c.width().unwrap_or(0) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_cut_and_says_so() {
        assert_eq!(cut("web  converged", 14), "web  converged");
        assert_eq!(cut("web  converged", 10), "web  conv…");
        assert_eq!(cut("\u{1b}[32mconverged\u{1b}[0m", 9), "\u{1b}[32mconverged\u{1b}[0m");
        assert_eq!(cut("\u{1b}[32mconverged\u{1b}[0m now", 5), "\u{1b}[32mconv…");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("abc", 0), "…");
        assert_eq!(fitted("1\n2\n3\n4", 40, 3), ["1", "2", "… 2 more lines; `mainstay status` shows…"]);
        assert_eq!(fitted("1\n2\n3", 40, 3), ["1", "2", "3"]);
    }
}
