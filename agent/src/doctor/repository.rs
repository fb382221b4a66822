//! The repository, and what it takes to reach it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::programs::ask;
use super::{Distribution, Finding, Package, Verdict};
use crate::git::{Files, Url};
use crate::install::server;
use crate::settings::Settings;
use crate::upstream::{Done, Question, Upstream};

/// The longest wait for the repository, whatever the settings allow.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks at git, ssh, and the repository.
pub(super) async fn examine(settings: &Settings, distribution: Distribution) -> Vec<Finding> {
    let what = "repository";
    let mut findings = vec![git(distribution).await];
    let Some(address) = &settings.repository else {
        findings.push(Finding::off(what, Verdict::Missing, "none is set", "mainstay install --repo URL"));
        return findings;
    };
    let files = if settings.allow_file { Files::Allowed } else { Files::Refused };
    let url = match Url::parse(address, files) {
        Ok(url) => url,
        Err(error) => {
            let remedy = format!("correct `repository` in {}", crate::settings::DEFAULT_PATH);
            findings.push(Finding::off(what, Verdict::Missing, crate::chain(&error), remedy));
            return findings;
        }
    };
    if let Some((host, port)) = url.ssh_server() {
        findings.extend(ssh(settings, host, port, distribution).await);
    }
    findings.push(reach(settings, address).await);
    findings
}

async fn git(distribution: Distribution) -> Finding {
    match ask("git", &["--version"]).await {
        Ok(said) if said.starts_with("git version ") => Finding::fine("git", said["git version ".len()..].trim()),
        Ok(_) | Err(_) => Finding::off(
            "git",
            Verdict::Warning,
            "there is none: the mirror is never packed, and grows",
            Package("git", "git-core").on(distribution),
        ),
    }
}

async fn ssh(settings: &Settings, host: &str, port: Option<u16>, distribution: Distribution) -> Vec<Finding> {
    let mut findings = Vec::new();
    let install = Package("openssh-client", "openssh-clients").on(distribution);
    // It tells its version on standard error, so that there is only whether it runs.
    findings.push(match ask("ssh", &["-V"]).await {
        Ok(_) => Finding::fine("ssh", "it is there"),
        Err(why) => Finding::off("ssh", Verdict::Missing, why, install),
    });
    if let Some(key) = &settings.git.key {
        findings.push(private_key(key));
    }
    findings.push(match (&settings.git.known_hosts, server::knows(host, port).await) {
        (Some(file), _) if file.exists() => Finding::fine("server's key", format!("in {}", file.display())),
        (None, Ok(Some(_))) => Finding::fine("server's key", format!("{host} is known")),
        (Some(file), _) => Finding::off(
            "server's key",
            Verdict::Missing,
            format!("{} is not there", file.display()),
            format!("ssh-keyscan {host} >{}, and compare it", file.display()),
        ),
        (None, _) => Finding::off(
            "server's key",
            Verdict::Missing,
            format!("{host} is not known to this host"),
            format!("ssh-keyscan {host} >>/root/.ssh/known_hosts, and compare it"),
        ),
    });
    findings
}

fn private_key(key: &Path) -> Finding {
    let what = "key for ssh";
    match fs::metadata(key) {
        Err(error) => Finding::off(
            what,
            Verdict::Missing,
            format!("{}: {}", key.display(), crate::chain(&error)),
            format!("ssh-keygen -t ed25519 -N '' -f {}", key.display()),
        ),
        Ok(seen) if seen.permissions().mode() & 0o077 != 0 => Finding::off(
            what,
            Verdict::Missing,
            format!("{} can be read by others, and ssh does not take it then", key.display()),
            format!("chmod 0600 {}", key.display()),
        ),
        Ok(_) => Finding::fine(what, key.display().to_string()),
    }
}

/// Asks the repository for its newest commit, into a mirror that is thrown away: that of the agent is its own.
async fn reach(settings: &Settings, address: &str) -> Finding {
    let what = "repository";
    let shown = Url::shown(address);
    let off = |why: String| {
        let remedy = format!("let this host reach and read {shown}; `mainstay install` shows its key");
        Finding::off(what, Verdict::Missing, format!("{shown}: {why}"), remedy)
    };
    let scratch = match tempfile::tempdir() {
        Ok(scratch) => scratch,
        Err(error) => return off(format!("no folder to read it into: {}", crate::chain(&error))),
    };
    let mut settings = Settings { state: scratch.path().to_owned(), ..settings.clone() };
    settings.git.total = settings.git.total.min(PATIENCE);
    let mut upstream = match Upstream::open(&settings) {
        Ok(upstream) => upstream,
        Err(error) => return off(crate::chain(&error)),
    };
    upstream.fetch(Question::default());
    match upstream.done().await {
        Done::Fetched(Ok(fetched)) => {
            Finding::fine(what, format!("{shown}, {} at {}", settings.branch, fetched.tip.short()))
        }
        Done::Fetched(Err(error)) => off(crate::chain(&error)),
        Done::Pushed(_) => off("it was not read".to_owned()),
    }
}
