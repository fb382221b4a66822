//! What commands print. A reader that goes away (`mainstay plan | head -1`) ends the printing and nothing else; long output goes
//! through a pager on a terminal, as with git.
//!
//! The macros below take the place of the standard library's in all of the command line, which panic where nobody reads.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::signal::unix::{SignalKind, signal};

use super::bars;

/// Prints to standard output, or to the pager.
macro_rules! print {
    ($($arg:tt)*) => { $crate::cli::out::write(format_args!($($arg)*)) };
}

/// The same, and ends the line.
macro_rules! println {
    () => { $crate::cli::out::write(format_args!("\n")) };
    ($($arg:tt)*) => { $crate::cli::out::write(format_args!("{}\n", format_args!($($arg)*))) };
}

/// Prints to standard error.
macro_rules! eprint {
    ($($arg:tt)*) => { $crate::cli::out::complain(format_args!($($arg)*)) };
}

/// The same, and ends the line.
macro_rules! eprintln {
    ($($arg:tt)*) => { $crate::cli::out::complain(format_args!("{}\n", format_args!($($arg)*))) };
}

/// Where output goes, and how that fares.
struct Out {
    pager: Option<Child>,
    /// What stands in the way; nothing more is printed then.
    failed: Option<io::Error>,
}

static OUT: Mutex<Out> = Mutex::new(Out { pager: None, failed: None });

fn out() -> MutexGuard<'static, Out> {
    OUT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Prints, unless nobody reads any more.
pub(super) fn write(text: fmt::Arguments<'_>) {
    let mut out = out();
    if out.failed.is_some() {
        return;
    }
    let done = match out.pager.as_mut().and_then(|pager| pager.stdin.as_mut()) {
        Some(pager) => pager.write_fmt(text),
        None => bars::aside(|| io::stdout().lock().write_fmt(text)),
    };
    out.failed = done.err();
}

/// Prints what is not text.
pub(super) fn raw(bytes: &[u8]) {
    let mut out = out();
    if out.failed.is_none() {
        out.failed = bars::aside(|| io::stdout().lock().write_all(bytes)).err();
    }
}

/// Has everything on its way that was printed.
pub(super) fn flush() {
    let mut out = out();
    let flushed = io::stdout().lock().flush();
    if out.failed.is_none() {
        out.failed = flushed.err();
    }
}

/// Prints to standard error. Where that cannot be written, nobody can be told.
pub(super) fn complain(text: fmt::Arguments<'_>) {
    drop(bars::aside(|| io::stderr().lock().write_fmt(text)));
}

/// Standard error for the log, whose lines stand above the bars.
pub struct Log;

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        bars::aside(|| io::stderr().lock().write(text))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

/// Waits until somebody asks for an end: Ctrl-C, the terminal that is closed, or `kill`.
///
/// # Errors
/// Signals cannot be listened to.
pub(super) fn stopped() -> io::Result<impl Future<Output = ()>> {
    let [mut interrupt, mut terminate, mut hangup] =
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// Says whether anybody may still read what is printed.
pub(super) fn is_read() -> bool {
    if out().failed.is_some() {
        return false;
    }
    let stdout = io::stdout();
    let mut asked = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // Without events to wait for, what comes back is that the other end is gone.
    !poll(&mut asked, Some(&now)).is_ok_and(|_| asked[0].revents().intersects(PollFlags::ERR | PollFlags::HUP))
}

/// Sends what is printed from now on through the pager of `PAGER`, else `less`, where standard output is a terminal.
pub(super) fn page() {
    let pager = std::env::var("PAGER").unwrap_or_else(|_| "less".to_owned());
    if !io::stdout().is_terminal() || matches!(pager.trim(), "" | "cat") {
        return;
    }
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &pager]).stdin(Stdio::piped());
    // Only for output that is longer than the screen, with colours, and left on the screen: git's own choice.
    for (name, value) in [("LESS", "FRX"), ("LV", "-c")] {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    // Without a pager the terminal has to do.
    out().pager = command.spawn().ok();
    // ^C is for the pager, as long as it is there.
    tokio::spawn(async { while tokio::signal::ctrl_c().await.is_ok() {} });
}

/// Ends the output: waits for the pager to be left.
///
/// # Errors
/// What was printed could not be written, for another reason than that nobody reads it.
pub(super) fn finish() -> io::Result<()> {
    let mut out = out();
    if let Some(mut pager) = out.pager.take() {
        drop(pager.stdin.take());
        pager.wait()?;
    }
    let flushed = io::stdout().lock().flush();
    match out.failed.take().map_or(flushed, Err) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}
