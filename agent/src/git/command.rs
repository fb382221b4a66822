//! The only place that builds and runs a subprocess: `ssh`, and `git` for `file://` remotes, for packing, and in the clones of
//! people who ask.
//!
//! But for those last ones, a child never sees the agent's environment or any user's or the system's git configuration, never reads a terminal,
//! has its own process group, and does not outlive its handle.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use spec::id::shown;

use super::remote::{Deadlines, Ssh};

/// The most of a child's complaints that is kept.
const MAX_STDERR: u64 = 8 << 10;

/// Where programs are looked for, whatever PATH the agent was started with.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Builds a command that inherits nothing.
pub(super) fn bare(program: &str) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    command.env_clear().env("PATH", PATH).env("LC_ALL", "C").current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    command
}

/// Builds a `git` command that reads no configuration but the repository's own.
fn plain_git() -> Command {
    let mut command = bare("git");
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_TERMINAL_PROMPT", "0");
    command.env("GIT_PROTOCOL", "version=2").env("GIT_NO_REPLACE_OBJECTS", "1").env("GIT_OPTIONAL_LOCKS", "0");
    command
}

/// Builds a `git` command for the mirror, which runs nothing that it finds there.
pub(super) fn git() -> Command {
    let mut command = plain_git();
    command.args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "protocol.allow=never"]);
    command
}

/// Builds a `git` command in somebody's own clone, who started us: with their environment, settings and credentials, as far as
/// these work without a question. What would ask is refused at once: nobody looks at a fetch that is made every minute.
pub(super) fn git_of_a_person(folder: &Path) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("git");
    // A hook of git's that starts us names its own repository.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR"] {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").env("GIT_TERMINAL_PROMPT", "0").env("SSH_ASKPASS_REQUIRE", "force");
    if std::env::var_os("SSH_ASKPASS").is_none() {
        command.env("SSH_ASKPASS", "false");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    command.arg("-C").arg(folder);
    command
}

/// Builds `git upload-pack` or `git receive-pack` on a repository of this machine; its own hooks run, as they would on
/// any other server, because they are how it refuses a push.
pub(super) fn git_serve(service: &str, path: &str) -> Command {
    let mut command = plain_git();
    // The settings allowed this very repository; that its owner is another user is no reason to distrust it.
    command.args(["-c", &format!("safe.directory={path}"), service, "--", path]);
    command
}

/// Builds the `ssh` command that runs `service` on the far side.
///
/// # Errors
/// A path that ssh's option grammar cannot carry, or a missing key.
pub(super) fn ssh(
    ssh: &Ssh,
    deadlines: &Deadlines,
    (user, host, port): (Option<&str>, &str, Option<u16>),
    (service, path): (&str, &str),
) -> Result<Command, String> {
    let mut command = bare("ssh");
    // ssh looks for known hosts and default keys by HOME; nothing else of the environment is passed on.
    if let Some(home) = std::env::var_os("HOME") {
        command.env("HOME", home);
    }
    command.env("GIT_PROTOCOL", "version=2");
    command.arg("-F").arg(ssh.config.as_deref().unwrap_or(Path::new("none"))).arg("-T");
    let alive = deadlines.stall.as_secs().clamp(2, 60) / 2;
    let options = [
        "BatchMode=yes".to_owned(),
        "StrictHostKeyChecking=yes".to_owned(),
        "UpdateHostKeys=no".to_owned(),
        "ClearAllForwardings=yes".to_owned(),
        "ForwardAgent=no".to_owned(),
        "PermitLocalCommand=no".to_owned(),
        "ControlMaster=no".to_owned(),
        "ControlPath=none".to_owned(),
        "SendEnv=GIT_PROTOCOL".to_owned(),
        format!("ConnectTimeout={}", deadlines.connect.as_secs().max(1)),
        format!("ServerAliveInterval={alive}"),
        "ServerAliveCountMax=2".to_owned(),
    ];
    for option in options {
        command.arg("-o").arg(option);
    }
    if !ssh.known_hosts.is_empty() {
        let files = ssh.known_hosts.iter().map(|file| option_path(file)).collect::<Result<Vec<_>, _>>()?.join(" ");
        command.arg("-o").arg(format!("UserKnownHostsFile={files}")).args(["-o", "GlobalKnownHostsFile=none"]);
    }
    for key in &ssh.keys {
        std::fs::metadata(key).map_err(|error| no_key(key, &error))?;
        command.arg("-i").arg(option_path(key)?).args(["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"]);
    }
    if let Some(port) = port {
        command.arg("-p").arg(port.to_string());
    }
    if let Some(user) = user {
        command.arg("-l").arg(user);
    }
    let quoted = path.replace('\'', r"'\''");
    command.arg("--").arg(host.trim_matches(['[', ']'])).arg(format!("{service} '{quoted}'"));
    Ok(command)
}

/// Says that there is no private key where the settings say.
pub(super) fn no_key(path: &Path, error: &std::io::Error) -> String {
    let path = path.display();
    format!(
        "the ssh key {path}, which `git.key` names, cannot be used: {error}; to make one: ssh-keygen -t ed25519 -N '' -f {path}"
    )
}

/// Checks that ssh takes `path` as one literal file: its options split at spaces and expand `%` and `~`.
fn option_path(path: &Path) -> Result<&str, String> {
    let text = path.to_str().unwrap_or_default();
    if !text.starts_with('/') || text.contains(['%', '"', '\'', '\\', '$', '=']) || text.contains(char::is_whitespace) {
        return Err(format!("ssh cannot be given the file {}: use a plain absolute path", path.display()));
    }
    Ok(text)
}

/// A running child that is killed, with all it started, when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) child: std::process::Child,
    complaints: mpsc::Receiver<String>,
}

impl Running {
    /// Starts `command`.
    ///
    /// # Errors
    /// What the kernel says, usually that the program is not installed.
    pub(super) fn start(mut command: Command) -> std::io::Result<Running> {
        let mut child = command.spawn()?;
        let (sender, complaints) = mpsc::channel();
        if let Some(stderr) = child.stderr.take() {
            std::thread::Builder::new().name("git-stderr".to_owned()).spawn(move || {
                let text = bounded(stderr);
                if sender.send(text).is_err() {
                    tracing::trace!("nobody wants to know any more what a child complained about");
                }
            })?;
        }
        Ok(Running { child, complaints })
    }

    /// Returns what the child wrote to its standard error, neutralised, waiting for its end at most `patience`.
    pub(super) fn complaints(&self, patience: Duration) -> String {
        self.complaints.recv_timeout(patience).unwrap_or_default()
    }

    /// Returns how the child ended, if it does before this instant.
    pub(super) fn ended(&mut self, by: Instant) -> Option<std::process::ExitStatus> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let left = by.saturating_duration_since(Instant::now());
        wait_for(&pidfd, PollFlags::IN, left).ok().filter(|ended| *ended)?;
        self.child.wait().ok()
    }

    fn kill(&mut self) {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return };
        if let Err(error) = kill_process_group(pid, Signal::KILL)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(%error, pid = self.child.id(), "failed to kill a child process");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        if let Err(error) = self.child.wait() {
            tracing::warn!(%error, "failed to reap a child process");
        }
    }
}

pub(super) fn bounded(mut stderr: impl Read) -> String {
    let mut bytes = Vec::new();
    if stderr.by_ref().take(MAX_STDERR).read_to_end(&mut bytes).is_err() {
        return String::new();
    }
    // The rest is read and dropped, so that the child does not block on it or die of it.
    if let Err(error) = std::io::copy(&mut stderr, &mut std::io::sink()) {
        tracing::debug!(%error, "failed to read on what a child complains about");
    }
    let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
    let lines: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(shown).collect();
    lines.join("; ")
}

/// Runs `command` to its end.
///
/// # Errors
/// It could not be started, failed (with what it said), was cancelled, or did not end before `deadline`.
pub(super) fn run(command: Command, deadline: Duration, cancel: &AtomicBool) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut running = Running::start(command).map_err(|error| format!("failed to start `{name}`: {error}"))?;
    let pid = i32::try_from(running.child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| format!("`{name}` has no process id"))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| format!("failed to watch `{name}`: {error}"))?;
    let ends = Instant::now() + deadline;
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Err(format!("`{name}` was cancelled"));
        }
        let left = ends.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("`{name}` did not end within {} s", deadline.as_secs()));
        }
        match wait_for(&pidfd, PollFlags::IN, left.min(Duration::from_millis(100))) {
            Ok(false) => {}
            Ok(true) => break,
            Err(error) => return Err(format!("failed to wait for `{name}`: {error}")),
        }
    }
    let status = running.child.wait().map_err(|error| format!("failed to wait for `{name}`: {error}"))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("`{name}` failed ({status}): {}", running.complaints(Duration::from_millis(500))))
}

/// Waits until `fd` is ready, at most `patience`; false when it is not.
pub(super) fn wait_for(fd: &impl AsFd, what: PollFlags, patience: Duration) -> rustix::io::Result<bool> {
    let timeout = rustix::event::Timespec {
        tv_sec: patience.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: patience.subsec_nanos().into(),
    };
    match poll(&mut [PollFd::new(fd, what)], Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &Command) -> Vec<String> {
        command.get_args().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn ssh_is_told_everything_and_asks_nothing() {
        let settings = Ssh { known_hosts: vec!["/etc/mainstay/known_hosts".into()], ..Ssh::default() };
        let target = (Some("git"), "[2001:db8::1]", Some(2222));
        let command = ssh(&settings, &Deadlines::default(), target, ("git-upload-pack", "/it's/a fleet"));
        let words = words(&command.expect("a command"));
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "ConnectTimeout=10",
            "ServerAliveInterval=15",
            "ForwardAgent=no",
            "UserKnownHostsFile=/etc/mainstay/known_hosts",
            "GlobalKnownHostsFile=none",
            "ControlPath=none",
        ] {
            assert!(words.contains(&option.to_owned()), "{option}");
        }
        let end = words.iter().position(|word| word == "--").expect("an end of options");
        assert_eq!(words[end + 1..], ["2001:db8::1", r"git-upload-pack '/it'\''s/a fleet'"]);
        assert_eq!(words[..3], ["-F", "none", "-T"]);
    }

    #[test]
    fn files_that_ssh_would_take_for_more_than_one_are_refused() {
        for path in ["/etc/known hosts", "/etc/%h", "known_hosts", "~/x", "/etc/\"x\""] {
            let settings = Ssh { known_hosts: vec![path.into()], ..Ssh::default() };
            let target = (None, "host", None);
            assert!(ssh(&settings, &Deadlines::default(), target, ("git-upload-pack", "/x")).is_err(), "{path}");
        }
        let settings = Ssh { keys: vec!["/nowhere/key".into()], ..Ssh::default() };
        let missing = ssh(&settings, &Deadlines::default(), (None, "host", None), ("git-upload-pack", "/x"));
        assert!(missing.is_err_and(|why| why.contains("/nowhere/key")));
    }

    #[test]
    fn a_child_inherits_nothing_and_ends_in_time() {
        let names: Vec<_> = git().get_envs().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
        assert!(names.contains(&"GIT_CONFIG_NOSYSTEM".to_owned()) && !names.contains(&"HOME".to_owned()));
        let mut sleeper = bare("sleep");
        sleeper.arg("1000");
        let started = Instant::now();
        let late = run(sleeper, Duration::from_millis(50), &AtomicBool::new(false)).expect_err("too long");
        assert!(late.contains("did not end") && started.elapsed() < Duration::from_secs(5), "{late}");
        let mut shell = bare("sh");
        shell.args(["-c", "printf 'env %s\n\\033[31mred\n' \"$HOME\" >&2; exit 3"]);
        let failed = run(shell, Duration::from_secs(10), &AtomicBool::new(false)).expect_err("status 3");
        assert_eq!(failed, r"`sh` failed (exit status: 3): env; \u{1b}[31mred");
        let mut missing = bare("no-such-program-here");
        missing.arg("x");
        assert!(run(missing, Duration::from_secs(1), &AtomicBool::new(false)).is_err());
    }
}
