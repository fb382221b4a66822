//! Podman, as far as quadlets need it: its generator, which is asked what it thinks of a quadlet before one is installed, and
//! the command that fetches an image. The only place that builds these commands.
//!
//! The generator reads files and writes to its output, so it is a child of the agent. Fetching writes into Podman's store,
//! which the agent's sandbox forbids: systemd runs that command (`systemd/transient`).

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use spec::digest::Digest;
use spec::id::{UnitName, shown};
use spec::inputs::Pull;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// Where systemd finds Podman's generator (systemd.generator(7)).
const GENERATORS: [&str; 2] = [
    "/usr/lib/systemd/system-generators/podman-system-generator",
    "/usr/local/lib/systemd/system-generators/podman-system-generator",
];
/// How long the generator may take; it takes milliseconds.
const GENERATE: Duration = Duration::from_secs(20);
/// The most that is read of its complaints.
const LIMIT: u64 = 64 * 1024;
/// Has an image if there is none of this name: the image, then what `podman pull` takes, then prints what it is called by
/// its digest.
const IF_MISSING: &str = "podman image exists -- \"$0\" || podman pull --quiet \"$@\" -- \"$0\" || exit 1; \
    exec podman image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' -- \"$0\"";
/// The same, where a newer one is wanted.
const ALWAYS: &str = "podman pull --quiet \"$@\" -- \"$0\" || exit 1; \
    exec podman image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' -- \"$0\"";

/// Whose services the generator would make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The host's.
    Host,
    /// Those of some user.
    User,
}

/// Returns Podman's generator, if it is on this host.
pub fn generator() -> Option<&'static str> {
    GENERATORS.into_iter().find(|path| Path::new(path).exists())
}

/// Asks the generator what it thinks of the quadlets in `folder`, and returns its complaints, one a line; none when it
/// would make a service of each.
///
/// # Errors
/// It is not there, cannot be started, or does not end in time.
pub async fn complaints(folder: &Path, reader: Reader) -> Result<Vec<String>, String> {
    let program = generator().ok_or("this host has no Podman")?;
    let asked = tokio::time::timeout(GENERATE, ask(program, folder, reader)).await;
    let (succeeded, said) = asked
        .map_err(|_| format!("Podman's generator gave no answer within {}", humantime::format_duration(GENERATE)))?
        .map_err(|error| format!("Podman's generator cannot be run: {error}"))?;
    if succeeded {
        return Ok(Vec::new());
    }
    let lines = said.lines().map(|line| line.split_once("]: ").map_or(line, |(_, text)| text).trim());
    // It also warns, and says what it reads.
    let is_one = |line: &&str| !line.is_empty() && !line.starts_with("Warning:") && !line.starts_with("Loading ");
    Ok(lines.filter(is_one).map(shown).collect())
}

async fn ask(program: &str, folder: &Path, reader: Reader) -> std::io::Result<(bool, String)> {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin:/usr/local/bin").env("LC_ALL", "C.UTF-8");
    command.env("QUADLET_UNIT_DIRS", folder).arg("-dryrun").current_dir("/");
    if reader == Reader::User {
        command.arg("-user");
    }
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(LIMIT).read_to_end(&mut said).await?;
    }
    Ok((child.wait().await?.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// Names the unit that fetches an image: two that want the same wait for one.
pub fn pull_unit(pull: &Pull) -> UnitName {
    let digest = Digest::of(format!("{pull:?}").as_bytes()).short();
    UnitName::parse(&format!("mainstay-pull-{digest}.service")).expect("letters, digits and dashes make a unit's name")
}

/// Builds the command that fetches an image and prints its digests.
pub fn pull_command(pull: &Pull) -> Vec<String> {
    let script = if pull.if_missing { IF_MISSING } else { ALWAYS };
    let command = ["/bin/sh", "-c", script, &pull.image].map(str::to_owned);
    command.into_iter().chain(pull.options.iter().cloned()).collect()
}

/// Picks the digest under the name that was asked for from what the command printed.
pub fn pulled_digest(pull: &Pull, printed: &str) -> Option<String> {
    let name = pull.image.split('@').next().unwrap_or_default();
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    let digests = || printed.lines().map(str::trim).filter(|line| line.contains("@sha256:"));
    digests().find(|digest| digest.split('@').next() == Some(name)).or_else(|| digests().next()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_an_argument_and_never_a_part_of_the_script() {
        let pull = Pull {
            image: "r.lan/web:1; rm -rf /".to_owned(),
            if_missing: true,
            options: vec!["--tls-verify=false".to_owned()],
        };
        let command = pull_command(&pull);
        assert_eq!(command[..2], ["/bin/sh", "-c"]);
        assert_eq!(command[3..], ["r.lan/web:1; rm -rf /", "--tls-verify=false"]);
        assert!(!command[2].contains("r.lan"));
    }

    #[test]
    fn the_digest_under_the_asked_name_is_taken() {
        let pull = Pull { image: "b:5000/web:2".to_owned(), if_missing: true, options: Vec::new() };
        let printed = "Trying to pull\na/web@sha256:1\nb:5000/web@sha256:2\n";
        assert_eq!(pulled_digest(&pull, printed).as_deref(), Some("b:5000/web@sha256:2"));
        assert_eq!(pulled_digest(&pull, "nothing"), None);
    }
}
