//! Runs programs with a deadline and keeps what they printed; every other file here starts programs through this one.
//!
//! Output goes into anonymous files, not pipes: a program that leaves something running in the background would hold
//! a pipe open, and whoever reads it would wait for ever.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

/// Where programs are looked for, on the machine and on a host alike; the caller's own `PATH` may be anything.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command with a fixed environment, nothing on its input and a process group of its own.
pub(crate) fn command(program: &str) -> Command {
    let mut command = foreground(program);
    command.stdin(Stdio::null()).process_group(0);
    command
}

/// A command with a fixed environment that shares the caller's terminal.
pub(crate) fn foreground(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", PATH).env("HOME", "/root").env("LANG", "C.UTF-8").current_dir("/");
    command
}

/// Runs to the end; an exit status other than zero is not an error here.
pub(crate) fn output(command: &mut Command, deadline: Duration) -> Result<Output> {
    let stdout = scratch()?;
    let stderr = scratch()?;
    let mut child = command
        .stdout(stdout.try_clone().context("failed to share an output file")?)
        .stderr(stderr.try_clone().context("failed to share an output file")?)
        .spawn()
        .with_context(|| format!("failed to start {:?}", command.get_program()))?;
    let ended = wait(&mut child, deadline)?;
    let (stdout, stderr) = (contents(stdout)?, contents(stderr)?);
    match ended {
        Some(status) => Ok(Output { status, stdout, stderr }),
        None => {
            kill_group(&mut child)?;
            bail!("no end within {deadline:?}: {}\n{}", spell(command), both(&stdout, &stderr))
        }
    }
}

/// Runs to the end and returns standard output; any exit status but zero is an error with all that was printed.
pub(crate) fn check(command: &mut Command, deadline: Duration) -> Result<String> {
    let output = output(command, deadline)?;
    if !output.status.success() {
        bail!("{}: {}\n{}", output.status, spell(command), said(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a program printed on both outputs, for an error message.
pub(crate) fn said(output: &Output) -> String {
    both(&output.stdout, &output.stderr)
}

/// Waits until the program ends or the time is over (`None`).
pub(crate) fn wait(child: &mut Child, deadline: Duration) -> Result<Option<std::process::ExitStatus>> {
    let end = Instant::now() + deadline;
    // A child that was waited for before has no process to watch any more.
    if let Some(status) = child.try_wait().context("failed to wait for a process")? {
        return Ok(Some(status));
    }
    let pidfd = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty())
        .context("failed to watch a process")?;
    loop {
        if let Some(status) = child.try_wait().context("failed to wait for a process")? {
            return Ok(Some(status));
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let left = Timespec::try_from(left).context("the deadline is too far away")?;
        match rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("failed to wait for a process"),
        }
    }
}

/// Ends a child started by [`command`] together with its process group: the program entered behind `nsenter` is in
/// the same group, though in another process namespace.
pub(crate) fn kill_group(child: &mut Child) -> Result<()> {
    if child.try_wait().context("failed to wait for a process")?.is_some() {
        return Ok(());
    }
    match rustix::process::kill_process_group(Pid::from_child(child), Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(error).context("failed to kill a process group"),
    }
    child.wait().context("failed to wait for a killed process")?;
    Ok(())
}

/// Asks again and again until there is an answer or the time is over (`None`). The pause is short against what is
/// waited for, never a guess at how long that takes.
pub fn poll<T>(deadline: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = ask()? {
            return Ok(Some(answer));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An input for a command.
pub(crate) fn input(bytes: &[u8]) -> Result<File> {
    let mut file = scratch()?;
    file.write_all(bytes).context("failed to keep a program's input")?;
    file.rewind().context("failed to keep a program's input")?;
    Ok(file)
}

fn scratch() -> Result<File> {
    let fd = rustix::fs::memfd_create("output", rustix::fs::MemfdFlags::CLOEXEC)
        .context("failed to create an output file in memory")?;
    Ok(File::from(fd))
}

fn contents(mut file: File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind().context("failed to read a program's output")?;
    std::io::copy(&mut file, &mut bytes).context("failed to read a program's output")?;
    Ok(bytes)
}

fn both(stdout: &[u8], stderr: &[u8]) -> String {
    format!("{}{}", String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr))
}

fn spell(command: &Command) -> String {
    let words = command.get_args().map(|word| word.to_string_lossy());
    let program = command.get_program().to_string_lossy();
    std::iter::once(program).chain(words).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_left_in_the_background_is_not_waited_for() {
        let said = check(command("sh").args(["-c", "sleep 30 & echo $!"]), Duration::from_secs(5)).unwrap();
        let left: i32 = said.trim().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(left).unwrap(), Signal::KILL).unwrap();
    }

    #[test]
    fn a_deadline_ends_the_whole_group_and_tells_what_was_said() {
        let error = check(command("sh").args(["-c", "echo before; sleep 30; echo after"]), Duration::from_millis(200))
            .unwrap_err()
            .to_string();
        assert!(error.contains("before") && error.contains("no end within"), "{error}");
    }

    #[test]
    fn a_failure_tells_both_outputs() {
        let error = check(command("sh").args(["-c", "echo one; echo two >&2; exit 3"]), Duration::from_secs(5))
            .unwrap_err()
            .to_string();
        assert!(error.contains("one\ntwo\n") && error.contains("exit status: 3"), "{error}");
    }
}
