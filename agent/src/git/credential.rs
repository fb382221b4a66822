//! What https servers are shown: a token from a file, or what a program knows that keeps credentials, in the form of gitcredentials(7)
//! and git-credential(1). Nothing of it is kept between conversations, so that it can be changed at any time.

use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use spec::id::shown;

use super::command::{Running, bare};
use super::error::{Verdict, because};
use super::remote::{Address, Remote, Token};
use super::wire::Watch;

/// The most that a program may say.
const MOST_SAID: u64 = 64 << 10;
/// How often is looked whether whoever waits for a program wants to stop.
const SLICE: Duration = Duration::from_millis(100);

/// A user name and a token, and who gave them.
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) token: String,
    from: From,
}

enum From {
    Address,
    File,
    /// The program, and what it was asked for.
    Program(Vec<String>, String),
    /// Somebody who is told that it is not accepted, and says what to do then.
    Somebody(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Finds what to show to `remote`.
    ///
    /// # Errors
    /// The file or the program does not tell, or the connection would send the token in clear text.
    pub(super) fn find(remote: &Remote, watch: &Watch<'_>) -> Result<Option<Credentials>, Verdict> {
        let config = |why: String| Verdict::Config(because(why));
        let Some(token) = &remote.token else {
            let known = remote.url.credentials().cloned();
            return Ok(known.map(|(user, token)| Credentials { user, token, from: From::Address }));
        };
        if remote.url.is_insecure() {
            return Err(config("a token is never sent over http://: use https".to_owned()));
        }
        match token {
            Token::File(path) => of_file(path).map(Some).map_err(config),
            Token::Told { user, token, hint } => {
                Ok(Some(Credentials { user: user.clone(), token: token.clone(), from: From::Somebody(hint.clone()) }))
            }
            Token::Program(words) => of_program(words, remote, watch).map(Some),
        }
    }

    /// Says what to do about a server that does not accept it.
    pub(super) fn hint(&self) -> String {
        match &self.from {
            From::Somebody(hint) => hint.clone(),
            From::Address => {
                "the token in the address: name a file that holds one that is valid with `git.token`".to_owned()
            }
            From::File => {
                "the token: write one that is valid and may read the repository into the file of `git.token`".to_owned()
            }
            From::Program(words, _) => {
                format!(
                    "what `{}`, which `git.helper` names, knows: see what it says for this server",
                    shown(&words[0])
                )
            }
        }
    }

    /// Tells the program that gave it that the server does not accept it, as git does: it may have kept an old one.
    pub(super) fn reject(&self, watch: &Watch<'_>) {
        watch.refused.set(true);
        let From::Program(words, about) = &self.from else { return };
        let about = format!("{about}username={}\npassword={}\n", self.user, self.token);
        if let Err(why) = ask(words, "erase", &about, watch) {
            tracing::warn!(program = words[0], why, "failed to tell that a token is not accepted");
        }
    }
}

fn of_file(path: &Path) -> Result<Credentials, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("failed to read {}, which `git.token` names: {error}", path.display()))?;
    let token = text.trim();
    if token.is_empty() || token.contains(char::is_control) {
        return Err(format!(
            "{}, which `git.token` names, does not hold one line with a token: write TOKEN or USER:TOKEN into it, and nothing else",
            path.display()
        ));
    }
    // Forges take any user name beside a token.
    let (user, token) = token.split_once(':').unwrap_or(("mainstay", token));
    Ok(Credentials { user: user.to_owned(), token: token.to_owned(), from: From::File })
}

fn of_program(words: &[String], remote: &Remote, watch: &Watch<'_>) -> Result<Credentials, Verdict> {
    let Address::Http { url } = remote.url.address() else {
        return Err(Verdict::Config(because("only https wants a token")));
    };
    let url = reqwest::Url::parse(url).map_err(|error| Verdict::Config(Box::new(error)))?;
    let host = match (url.host_str().unwrap_or_default(), url.port()) {
        (host, Some(port)) => format!("{host}:{port}"),
        (host, None) => host.to_owned(),
    };
    let about = format!("protocol={}\nhost={host}\npath={}\n", url.scheme(), url.path().trim_start_matches('/'));
    if !Path::new(&words[0]).is_file() {
        let why =
            format!("`{}`, which `git.helper` names, is not there: install it, or name another one", shown(&words[0]));
        return Err(Verdict::Config(because(why)));
    }
    // It may have to ask a server itself: that it fails now says nothing of the next time.
    let said = ask(words, "get", &about, watch).map_err(|why| {
        Verdict::Unreachable(None, because(format!("`{}`, which `git.helper` names, {why}", shown(&words[0]))))
    })?;
    let value = |name: &str| {
        let mut lines = said.lines().rev();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).filter(|value| !value.is_empty())
    };
    let Some(token) = value("password").filter(|it| !it.contains(char::is_control)) else {
        let why = format!(
            "`{}`, which `git.helper` names, knows no token for {host}: it should print password=TOKEN, and username=… where one is wanted",
            shown(&words[0])
        );
        return Err(Verdict::Config(because(why)));
    };
    let user = value("username").filter(|it| !it.contains(char::is_control)).unwrap_or("mainstay").to_owned();
    Ok(Credentials { user, token: token.to_owned(), from: From::Program(words.to_vec(), about) })
}

/// Builds a command that systemd runs with what any service of the host has: this process may have no network, which a program that
/// knows tokens may need (systemd-run(1)).
fn by_systemd(program: &str, within: Duration) -> Command {
    let mut command = bare("systemd-run");
    command.args(["--quiet", "--pipe", "--wait", "--collect", "--service-type=exec", "--property=User=root"]);
    // What is killed here is the one that waits for it.
    command.arg(format!("--property=RuntimeMaxSec={}", within.as_secs().max(1) + 1));
    command.arg("--description=Ask who knows the token for mainstay").arg("--").arg(program);
    command
}

/// Has a program do something, and returns what it says.
fn ask(words: &[String], operation: &str, about: &str, watch: &Watch<'_>) -> Result<String, String> {
    let mut command =
        if watch.outside.get() { by_systemd(&words[0], watch.deadlines.connect) } else { bare(&words[0]) };
    command.args(&words[1..]).arg(operation).stdin(Stdio::piped()).stdout(Stdio::piped());
    // Where it keeps what it knows.
    if let Some(home) = std::env::var_os("HOME") {
        command.env("HOME", home);
    }
    let mut running = Running::start(command).map_err(|error| format!("cannot be started: {error}"))?;
    let (input, output) = (running.child.stdin.take(), running.child.stdout.take());
    let about = about.to_owned();
    let (sender, said) = mpsc::channel();
    // A program that does not read what it is asked, or never ends, keeps this thread until it is killed, below.
    let exchange = move || {
        // One that knows what it is for without being told may end before.
        drop(input.map(|mut input| input.write_all(about.as_bytes())));
        // An empty line ends what it says: something that it left running may hold on to its output.
        let lines = output.map(|output| BufReader::new(output.take(MOST_SAID)).lines());
        let said: std::io::Result<Vec<String>> = lines
            .into_iter()
            .flatten()
            .take_while(|line| line.as_ref().map_or(true, |line| !line.is_empty()))
            .collect();
        drop(sender.send(said.map(|lines| lines.join("\n"))));
    };
    std::thread::Builder::new()
        .name("git-credential".to_owned())
        .spawn(exchange)
        .map_err(|error| format!("cannot be heard: {error}"))?;
    let ends = Instant::now() + watch.deadlines.connect;
    let text = loop {
        match said.recv_timeout(SLICE.min(ends.saturating_duration_since(Instant::now()))) {
            Ok(text) => break text.map_err(|error| format!("said what is no text: {error}"))?,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err("said nothing".to_owned()),
            Err(mpsc::RecvTimeoutError::Timeout) if watch.cancel.load(Ordering::Relaxed) => {
                return Err("was not waited for".to_owned());
            }
            Err(mpsc::RecvTimeoutError::Timeout) if Instant::now() < ends => {}
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return Err(format!("did not end within {} s", watch.deadlines.connect.as_secs_f32()));
            }
        }
    };
    let status = running.ended(ends).ok_or("did not end")?;
    match status.success() {
        true => Ok(text),
        false => Err(format!("failed ({status}): {}", running.complaints(Duration::from_millis(500)))),
    }
}

impl Token {
    /// Takes the program and its arguments apart.
    pub fn program(text: &str) -> Option<Token> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        (!words.is_empty()).then_some(Token::Program(words))
    }

    /// Names the file of a credential that systemd gave to the service, if it did (systemd.exec(5), `LoadCredential=`). Who runs beside
    /// it finds it there as well.
    pub fn of_systemd(name: &str) -> Option<Token> {
        let given = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let places = given.into_iter().chain([PathBuf::from("/run/credentials/mainstay.service")]);
        places.map(|folder| folder.join(name)).find(|path| path.is_file()).map(Token::File)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::git::{BranchName, Deadlines, Files, Url};

    fn remote(token: Token) -> Remote {
        let url = Url::parse("https://git.example:8443/ops/fleet.git", Files::Refused).expect("an address");
        Remote { token: Some(token), ..Remote::new(url, BranchName::parse("main").expect("a branch")) }
    }

    fn helper(script: &str) -> (tempfile::TempDir, Token) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("helper");
        fs::write(&path, script.replace("HERE", folder.path().to_str().expect("a path"))).expect("written");
        let token = Token::program(&format!("/bin/sh {} --fleet", path.display())).expect("a program");
        (folder, token)
    }

    fn quick() -> Deadlines {
        Deadlines { connect: Duration::from_secs(2), ..Deadlines::default() }
    }

    #[test]
    fn a_program_is_asked_as_git_asks_and_told_what_is_not_accepted() {
        let (folder, token) = helper(
            "echo \"$@\" >>HERE/asked; env >>HERE/env; cat >>HERE/asked\n[ \"$2\" = get ] && printf 'username=bot\\npassword=s3cret\\n'\ntrue",
        );
        let (deadlines, cancel) = (quick(), AtomicBool::new(false));
        let watch = Watch::new(&deadlines, remote(token.clone()).growth, &cancel);
        let found = Credentials::find(&remote(token), &watch).expect("it answers").expect("a token");
        assert_eq!((found.user.as_str(), found.token.as_str()), ("bot", "s3cret"));
        assert!(!format!("{found:?}").contains("s3cret"));
        found.reject(&watch);
        let about = "protocol=https\nhost=git.example:8443\npath=ops/fleet.git\n";
        let asked = fs::read_to_string(folder.path().join("asked")).expect("asked");
        assert_eq!(asked, format!("--fleet get\n{about}--fleet erase\n{about}username=bot\npassword=s3cret\n"));
        let names = fs::read_to_string(folder.path().join("env")).expect("an environment");
        assert!(!names.contains("CARGO"), "{names}");
    }

    #[test]
    fn a_program_that_does_not_tell_costs_its_deadline() {
        let why = |script: &str| {
            let (_folder, token) = helper(script);
            let (deadlines, cancel) = (quick(), AtomicBool::new(false));
            let watch = Watch::new(&deadlines, remote(token.clone()).growth, &cancel);
            match Credentials::find(&remote(token), &watch) {
                Err(Verdict::Unreachable(_, why)) => format!("later: {why}"),
                Err(Verdict::Config(why)) => format!("never: {why}"),
                other => panic!("{script}: {}", other.is_ok()),
            }
        };
        for (script, expected) in [
            ("exec sleep 1000", "later: `/bin/sh`, which `git.helper` names, did not end within 2 s"),
            ("echo password=x; exec sleep 1000 >&-", "later: `/bin/sh`, which `git.helper` names, did not end"),
            (
                "echo no luck >&2; exit 3",
                "later: `/bin/sh`, which `git.helper` names, failed (exit status: 3): no luck",
            ),
            ("echo username=bot", "never: `/bin/sh`, which `git.helper` names, knows no token for git.example:8443"),
            ("printf 'password=a\\033b\\n'", "never: `/bin/sh`, which `git.helper` names, knows no token"),
            ("exec yes password", "later: `/bin/sh`, which `git.helper` names, "),
        ] {
            let said = why(script);
            assert!(said.starts_with(expected), "{script}: {said}");
        }
    }

    #[test]
    fn what_systemd_gave_is_found_by_its_name() {
        assert_eq!(Token::of_systemd("no-such-credential"), None);
        assert_eq!(Token::program("  "), None);
    }
}
