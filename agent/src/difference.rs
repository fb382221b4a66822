//! What a plan changes in files, as people read it: unified diffs, never of what not everybody may read.

use std::time::Duration;

use similar::TextDiff;
use spec::desired::{Desired, FileKind};
use spec::id::{HostPath, shown};
use spec::observed::FileState;
use spec::plan::{Action, Plan, Step};

use crate::disk::Disk;

/// Files larger than this are not compared line by line.
const LARGEST: u64 = 256 << 10;
/// Texts that have nothing in common are not compared to the end: the daemon waits for it.
const PATIENCE: Duration = Duration::from_millis(20);
/// A longer diff is cut.
const LINES: usize = 120;

/// The difference that one step makes to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The file.
    pub path: HostPath,
    /// A unified diff, or a line that says why there is none.
    pub text: String,
}

/// Works out the differences of every write in a plan, reported drift included.
pub fn of_plan(plan: &Plan, desired: &Desired) -> Vec<Difference> {
    of_steps(&plan.steps, desired).chain(of_steps(&plan.drift, desired)).collect()
}

/// Works out the differences of every write among some steps, one after another: each reads a file.
pub fn of_steps<'a>(steps: &'a [Step], desired: &'a Desired) -> impl Iterator<Item = Difference> + 'a {
    let writes = steps.iter().filter_map(|step| match &step.action {
        Action::WriteFile(path, state) => Some((path, state)),
        _ => None,
    });
    writes.filter_map(|(path, state)| {
        let file = desired.file(path)?;
        let FileKind::Regular { content, .. } = &file.kind else { return None };
        let open = |bits: u32| bits & 0o004 != 0;
        let private = !open(file.mode.bits())
            || is_behind(path, desired)
            || matches!(state, FileState::Regular { access, .. } if !open(access.mode.bits()));
        let text = match (private, state) {
            (true, _) => format!("not shown: not everybody may read it (mode {})\n", file.mode),
            (false, FileState::Regular { .. }) => compare(path, Disk::read(path, LARGEST).as_deref(), content),
            (false, _) => compare(path, Some(b""), content),
        };
        Some(Difference { path: path.clone(), text })
    })
}

/// Says whether a folder that is wanted lets not everybody through to the path.
fn is_behind(path: &HostPath, desired: &Desired) -> bool {
    let above = std::iter::successors(path.parent(), HostPath::parent);
    let mut wanted = above.filter_map(|folder| desired.file(&folder));
    wanted.any(|file| file.kind == FileKind::Directory && file.mode.bits() & 0o001 == 0)
}

/// Compares what is there with what is wanted.
fn compare(path: &HostPath, before: Option<&[u8]>, after: &[u8]) -> String {
    let texts = before.and_then(|before| Some((std::str::from_utf8(before).ok()?, std::str::from_utf8(after).ok()?)));
    let Some((before, after)) = texts.filter(|_| after.len() as u64 <= LARGEST) else {
        return "not shown: it is large, or not text\n".to_owned();
    };
    let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(before, after);
    let whole = diff.unified_diff().context_radius(2).header(path.as_str(), path.as_str()).to_string();
    let mut lines: Vec<String> = whole.lines().map(shown).collect();
    if lines.len() > LINES {
        let more = lines.len() - LINES;
        lines.truncate(LINES);
        lines.push(format!("… {more} more lines"));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn check(before: &[u8], after: &[u8], expected: &expect_test::Expect) {
        let path = HostPath::parse("/etc/web.conf").expect("a path");
        expected.assert_eq(&compare(&path, Some(before), after));
    }

    #[test]
    fn differences_read_as_unified_diffs() {
        check(
            b"a\nb\nc\n",
            b"a\nB\nc\n",
            &expect![[r"
            --- /etc/web.conf
            +++ /etc/web.conf
            @@ -1,3 +1,3 @@
             a
            -b
            +B
             c
        "]],
        );
        check(
            b"",
            b"new\n",
            &expect![[r"
            --- /etc/web.conf
            +++ /etc/web.conf
            @@ -0,0 +1 @@
            +new
        "]],
        );
        check(
            b"a\n",
            b"\xff",
            &expect![[r"
            not shown: it is large, or not text
        "]],
        );
        check(
            b"",
            b"\x1b[31m\n",
            &expect![[r"
            --- /etc/web.conf
            +++ /etc/web.conf
            @@ -0,0 +1 @@
            +\u{1b}[31m
        "]],
        );
    }
}
