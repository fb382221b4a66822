//! How wide a text is on a terminal, and how it is made to fit.

use std::os::fd::AsFd;

use rustix::termios::tcgetwinsize;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// What a terminal has that does not tell.
const USUAL: (usize, usize) = (80, 24);

/// Returns the width of a terminal.
pub(super) fn of(terminal: &impl AsFd) -> usize {
    size(terminal).0
}

/// Returns the width and the height of a terminal.
pub(super) fn size(terminal: &impl AsFd) -> (usize, usize) {
    match tcgetwinsize(terminal) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        Ok(_) | Err(_) => USUAL,
    }
}

/// Cuts a line to a width, with a sign that it was cut. Colours take no room.
pub(super) fn cut(line: &str, width: usize) -> String {
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

/// Cuts a name to a width from its front: what tells two of them apart is mostly at the end.
pub(super) fn cut_front(name: &str, width: usize) -> String {
    if name.width() <= width {
        return name.to_owned();
    }
    let (mut begin, mut used) = (name.len(), 1);
    for (index, c) in name.char_indices().rev() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        begin = index;
    }
    format!("…{}", &name[begin..])
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
        assert_eq!(cut_front("registry:5000/web:1", 19), "registry:5000/web:1");
        assert_eq!(cut_front("registry:5000/web:1", 6), "…web:1");
        assert_eq!(cut_front("日本語", 5), "…本語");
        assert_eq!(cut_front("日本語", 4), "…語");
    }
}
