//! Podman, as far as quadlets need it: its generator, which is asked what it thinks of a quadlet before one is installed, and
//! the commands that fetch and remove images and tell who has a name. The only place that builds these commands.
//!
//! The generator reads files and writes to its output, so it is a child of the agent. Fetching writes into Podman's store,
//! which the agent's sandbox forbids: systemd runs that command (`systemd/transient`).

mod images;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use spec::digest::Digest;
use spec::id::{ContainerName, UnitName, shown};
use spec::observed::{Holder, HolderKind};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

pub use images::{
    Fate, digest_of, fates, image_ids, images_command, images_run, images_unit, pull_command, pull_unit,
    removal_command, removal_unit, run_command, run_unit, told,
};

/// Where systemd finds Podman's generator (systemd.generator(7)).
const GENERATORS: [&str; 2] = [
    "/usr/lib/systemd/system-generators/podman-system-generator",
    "/usr/local/lib/systemd/system-generators/podman-system-generator",
];
/// How long the generator may take; it takes milliseconds.
const GENERATE: Duration = Duration::from_secs(20);
/// The most that is read of its complaints.
const LIMIT: u64 = 64 * 1024;
/// Begins each line in which our own commands tell something.
const TELLS: &str = "mainstay: ";
/// Says something at once: whose unit it is that speaks, the journal cannot find out when the command has ended.
const BEGIN: &str = "echo 'mainstay: begins'\n";
/// Lists who has names: what is given are filters, of which one has to fit. A pod is whose it says, or whose the container is
/// that holds it together: that of a manifest says nothing itself. `$0` tells this run from those before.
const NAMES: &str = "set -f
label='{{with index .Config.Labels \"PODMAN_SYSTEMD_UNIT\"}}{{.}}{{else}}-{{end}}'
ids=$(podman ps --all --quiet --no-trunc \"$@\") || exit 1
pods=$(podman pod ps --quiet --no-trunc \"$@\") || exit 1
[ -z \"$ids\" ] || podman container inspect --format \"mainstay: $0 container {{.Name}} $label\" -- $ids || exit 1
for pod in $pods; do
    set -- $(podman pod inspect --format '{{.Name}} {{with index .Labels \"PODMAN_SYSTEMD_UNIT\"}}{{.}}{{else}}-{{end}} {{.InfraContainerID}}' -- \"$pod\")
    unit=$2
    [ \"$2\" != - ] || [ -z \"$3\" ] || unit=$(podman container inspect --format \"$label\" -- \"$3\") || exit 1
    echo \"mainstay: $0 pod ${1:?} $unit\"
done
echo \"mainstay: $0 all .\"";

/// Tells how a container is. `$0` tells this run from those before.
const LOOK: &str = "podman container exists -- \"$1\"
case $? in
    0) ;;
    1) echo \"mainstay: $0 absent .\"; exit 0 ;;
    *) exit 1 ;;
esac
said=$(podman container inspect --format '{{.State.Running}} {{with .State.Health}}{{.Status}}{{end}}' -- \"$1\") || exit 1
echo \"mainstay: $0 running $said\"";

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

/// Iterates over what our own commands told: a word, and the rest.
fn tells(printed: &str) -> impl Iterator<Item = (&str, &str)> {
    printed.lines().filter_map(|line| line.trim().strip_prefix(TELLS)?.split_once(' '))
}

/// Names one run of a command: the journal also holds what earlier ones told.
pub fn run_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{number}-{}", std::process::id(), jiff::Timestamp::now().as_microsecond())
}

/// Names the unit that asks who has names.
pub fn names_unit() -> UnitName {
    UnitName::parse("mainstay-list-names.service").expect("letters and dashes make a unit's name")
}

/// Builds the command that tells who has these names; `run` is found in what it tells.
pub fn names_command(run: &str, names: &BTreeSet<ContainerName>) -> Vec<String> {
    let command = ["/bin/sh", "-c", &format!("{BEGIN}{NAMES}"), run].map(str::to_owned);
    command.into_iter().chain(names.iter().map(filter)).collect()
}

/// Has a list hold who has this name: Podman takes what it is given for an expression.
fn filter(name: &ContainerName) -> String {
    format!("--filter=name=^{}$", name.as_str().replace('.', "[.]"))
}

/// Reads what that command told; `None` where it does not reach its end.
pub fn holders(run: &str, printed: &str) -> Option<BTreeMap<ContainerName, Holder>> {
    let told = tells(printed).filter(|(of, _)| *of == run).filter_map(|(_, rest)| rest.split_once(' '));
    let told: Vec<(&str, &str)> = told.collect();
    told.last().filter(|(kind, _)| *kind == "all")?;
    let holders = told.iter().filter_map(|(kind, rest)| {
        let (name, unit) = rest.split_once(' ')?;
        let kind = if *kind == "pod" { HolderKind::Pod } else { HolderKind::Container };
        let unit = (unit != "-").then(|| unit.to_owned());
        Some((ContainerName::parse(name).ok()?, Holder { kind, unit }))
    });
    Some(holders.collect())
}

/// Names the unit that listens for Podman's service, in the manager of root and of every user.
pub fn socket_unit() -> UnitName {
    UnitName::parse("podman.socket").expect("letters make a unit's name")
}

/// Names the unit that looks at a container.
pub fn look_unit(container: &ContainerName) -> UnitName {
    let digest = Digest::of(container.as_str().as_bytes()).short();
    UnitName::parse(&format!("mainstay-look-{digest}.service")).expect("letters, digits and dashes make a unit's name")
}

/// Builds the command that looks at a container; `run` is found in what it tells.
pub fn look_command(run: &str, container: &ContainerName) -> Vec<String> {
    ["/bin/sh", "-c", &format!("{BEGIN}{LOOK}"), run, container.as_str()].map(str::to_owned).to_vec()
}

/// Reads what that command told: whether the container runs, and what its health check says, in Podman's word; nothing of one
/// that is not there. `None` where it told nothing.
pub fn looked_at(run: &str, printed: &str) -> Option<Option<(bool, String)>> {
    let told = tells(printed).filter(|(of, _)| *of == run).filter_map(|(_, rest)| rest.split_once(' ')).last()?;
    match told {
        ("absent", _) => Some(None),
        ("running", said) => {
            let (running, health) = said.split_once(' ').unwrap_or((said, ""));
            Some(Some((running == "true", health.to_owned())))
        }
        _ => None,
    }
}

/// Says whether a line is one that our own commands tell something in.
pub fn is_told(line: &str) -> bool {
    line.trim().starts_with(TELLS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_as_this_look_saw_it() {
        let of =
            |line: &str| looked_at("7-2", &format!("mainstay: begins\nmainstay: 7-1 running true healthy\n{line}\n"));
        assert_eq!(of("mainstay: 7-2 running true unhealthy"), Some(Some((true, "unhealthy".to_owned()))));
        assert_eq!(of("mainstay: 7-2 running false"), Some(Some((false, String::new()))));
        assert_eq!(of("mainstay: 7-2 absent ."), Some(None));
        assert_eq!(of("Error: no storage"), None);
        let name = ContainerName::parse("systemd-web").expect("a name");
        let (told, asked) = run_with("*inspect*) echo true starting;; *)", &look_command("7-2", &name));
        assert_eq!(looked_at("7-2", &told), Some(Some((true, "starting".to_owned()))), "{asked}");
        assert_eq!(looked_at("7-2", &run_with("*exists*) return 1;; *)", &look_command("7-2", &name)).0), Some(None));
        assert_eq!(looked_at("7-2", &run_with("*) return 125;;", &look_command("7-2", &name)).0), None);
    }

    /// Runs a command with a `podman` that does what `answers` says, and returns what it told and what it asked.
    pub(super) fn run_with(answers: &str, command: &[String]) -> (String, String) {
        let podman = format!("podman() {{ echo \"$*\" >&2; case \"$*\" in {answers} esac; }}\n{}", command[2]);
        let command = [&command[..2], &[podman], &command[3..]].concat();
        let ran = std::process::Command::new(&command[0]).args(&command[1..]).output().expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (text(ran.stdout), text(ran.stderr))
    }

    #[test]
    fn who_has_names_is_told_whole_or_not_at_all() {
        let names = ["a.b", "kp", "hp", "mine"].map(|name| ContainerName::parse(name).expect("a name")).into();
        let command = names_command("7-1", &names);
        assert_eq!(command[4..6], ["--filter=name=^a[.]b$", "--filter=name=^hp$"]);
        let answers = "ps*) echo c1; echo c2;; 'pod ps'*) echo p1; echo p2; echo p3;;
            'container inspect'*'c1 c2') echo 'mainstay: 7-1 container a.b -'; echo 'mainstay: 7-1 container mine mine.service';;
            'pod inspect'*p1) echo 'hp - ';; 'pod inspect'*p2) echo 'kp - i2';; 'container inspect'*i2) echo k.service;;
            'pod inspect'*p3) echo 'pp p-pod.service i3';;";
        let (said, _) = run_with(answers, &command);
        let held = holders("7-1", &said).expect("all was told");
        let held = held.iter().map(|(name, it)| format!("{name} {:?} {}", it.kind, it.unit.as_deref().unwrap_or("-")));
        let expected = ["a.b Container -", "hp Pod -", "kp Pod k.service", "mine Container mine.service"];
        assert_eq!(held.collect::<Vec<_>>(), [&expected[..], &["pp Pod p-pod.service"]].concat());
        for broken in ["ps*) return 125;;", "'pod ps'*) return 1;;", "'pod ps'*) echo p;; 'pod inspect'*) return 1;;"] {
            let (said, _) = run_with(broken, &command);
            assert_eq!(holders("7-1", &said), None, "{broken}");
        }
        assert_eq!(holders("7-2", &said), None, "that was another run");
    }
}
