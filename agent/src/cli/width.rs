//! How wide a text is on a terminal, and how it is made to fit.

use std::io::{self, IsTerminal as _};
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
    if room(line) <= width {
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

/// Returns the width of what is printed to, where that is a terminal.
pub(super) fn of_output() -> Option<usize> {
    let stdout = io::stdout();
    stdout.is_terminal().then(|| of(&stdout))
}

/// A line whose last column has less room than this goes on further left.
const COLUMN: usize = 30;

/// Breaks the lines of a text between words where they are wider than a terminal. The rest stands below the last column, where
/// that leaves it room, else below the line's begin and a little to the right. A word that is wider stays in one piece, so that
/// it can be copied; without a width nothing is broken.
pub(super) fn folded(text: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return text.to_owned() };
    text.split_inclusive('\n').map(|line| fold(line, width)).collect()
}

fn fold(line: &str, width: usize) -> String {
    let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
    if room(line) <= width {
        return format!("{line}{end}");
    }
    let hang = hang(line, width);
    let (mut folded, mut used) = (String::new(), 0);
    let (mut is_begun, mut is_rest) = (false, false);
    for piece in line.split_inclusive(' ') {
        let (word, all) = (room(piece.trim_end_matches(' ')), room(piece));
        if used + word > width && is_begun {
            folded.truncate(folded.trim_end_matches(' ').len());
            folded.push('\n');
            folded.push_str(&" ".repeat(hang));
            (used, is_begun, is_rest) = (hang, false, true);
        }
        // A gap between two columns ends with its line.
        if is_rest && !is_begun && word == 0 {
            continue;
        }
        folded.push_str(piece);
        used += all;
        is_begun |= word > 0;
    }
    folded.truncate(folded.trim_end_matches(' ').len());
    folded + end
}

/// Says where the rest of a line stands.
fn hang(line: &str, width: usize) -> usize {
    let (mut column, mut at, mut gap, mut begin) = (0, 0, 0, None);
    for (c, room) in visible(line) {
        match c {
            ' ' => gap += 1,
            _ if room > 0 => {
                if begin.is_none() {
                    begin = Some(at);
                } else if gap >= 2 {
                    column = at;
                }
                gap = 0;
            }
            _ => {}
        }
        at += room;
    }
    match column {
        1.. if column + COLUMN <= width => column,
        _ => begin.unwrap_or(0) + 4,
    }
}

/// Returns how wide a line is. Colours take no room.
pub(super) fn room(line: &str) -> usize {
    visible(line).map(|(_, room)| room).sum()
}

/// Fills a cell of a table up to a width.
pub(super) fn padded(cell: &str, width: usize) -> String {
    format!("{cell}{}", " ".repeat(width.saturating_sub(room(cell))))
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

    #[test]
    fn what_is_too_wide_goes_on_below_its_column() {
        let check = |text: &str, width: usize, expected: &str| assert_eq!(folded(text, Some(width)), expected);
        let finding = "warning  clock              it is not synchronised: certificates and times may be off\n";
        check(finding, 100, finding);
        check(
            finding,
            60,
            "warning  clock              it is not synchronised:\n                            certificates and times may be\n                            off\n",
        );
        check(
            finding,
            40,
            "warning  clock              it is not\n    synchronised: certificates and times\n    may be off\n",
        );
        check(
            "    failed 3 times; tried again in 5 s\nnext\n",
            24,
            "    failed 3 times;\n        tried again in 5\n        s\nnext\n",
        );
        check("see /a/path/that/is/wide here", 10, "see\n    /a/path/that/is/wide\n    here");
        check("\u{1b}[31mno room\u{1b}[0m at all", 7, "\u{1b}[31mno room\u{1b}[0m\n    at\n    all");
        check("key  value      default", 12, "key  value\n    default");
        check("日本語 日本語", 8, "日本語\n    日本語");
        assert_eq!(folded(finding, None), finding);
    }
}
