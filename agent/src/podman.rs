//! Podman, as far as quadlets need it: its generator, which is asked what it thinks of a quadlet before one is installed, and
//! the commands that fetch and remove images and tell who has a name. The only place that builds these commands.
//!
//! The generator reads files and writes to its output, so it is a child of the agent. Fetching writes into Podman's store,
//! which the agent's sandbox forbids: systemd runs that command (`systemd/transient`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use spec::digest::Digest;
use spec::id::{ContainerName, UnitName, shown};
use spec::images::{self, Told};
use spec::inputs::Pull;
use spec::observed::{Holder, HolderKind};
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
/// Begins each line in which our own commands tell something.
const TELLS: &str = "mainstay: ";
/// Says something at once: whose unit it is that speaks, the journal cannot find out when the command has ended.
const BEGIN: &str = "echo 'mainstay: begins'\n";
/// Has an image if there is none of this name: the image, then what `podman pull` takes.
const IF_MISSING: &str = "if podman image exists -- \"$0\"; then had=all; else ";
/// Fetches it, and knows which were there before.
const FETCH: &str = "had=$(podman images --all --quiet --no-trunc) || had=all
podman pull --quiet \"$@\" -- \"$0\" || exit 1
";
/// Tells what the image is called, and, last, whether it is new here.
const TELL: &str = "said=$(podman image inspect --format '\
    {{range .RepoDigests}}{{println \"mainstay: digest\" .}}{{end}}\
    {{range .RepoTags}}{{println \"mainstay: name\" .}}{{end}}{{.Id}}' -- \"$0\") || exit 1
id=${said##*[!0-9a-f]}
printf '%s\\n' \"${said%\"$id\"}\"
case $had in all|*\"$id\"*) echo \"mainstay: there $id\" ;; *) echo \"mainstay: new $id\" ;; esac
";
/// Removes images, of each its id and the names that are ours, in words. By its id, and without force: Podman refuses when a
/// container uses it, or when it has more than one name; so all but one go first, unless it is used. Parents without a name
/// may be somebody's. `$0` tells this run from those before.
const REMOVE: &str = "set -f
while [ $# -gt 1 ]; do
    id=$1 ours=\" $2 \" theirs= last=
    shift 2
    podman image exists -- \"$id\"
    case $? in 0) ;; 1) echo \"mainstay: $0 gone $id\"; continue ;; *) continue ;; esac
    names=$(podman image inspect --format '{{range .RepoTags}}{{println .}}{{end}}' -- \"$id\") || continue
    for name in $names; do
        case $ours in *\" $name \"*) ;; *) theirs=$name ;; esac
    done
    if [ -n \"$theirs\" ]; then echo \"mainstay: $0 named $id\"; continue; fi
    used=
    [ \"$names\" = \"${names%%[[:space:]]*}\" ] || used=$(podman ps --all --quiet --filter \"ancestor=$id\") || continue
    [ -z \"$used\" ] || continue
    for name in $names; do
        [ -z \"$last\" ] || podman untag \"$id\" \"$last\"
        last=$name
    done
    podman rmi --no-prune -- \"$id\" && echo \"mainstay: $0 gone $id\"
done
exit 0";

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

/// Tells which images names lead to. `$0` tells this run from those before.
const IMAGES: &str = "for name in \"$@\"; do
    podman image exists -- \"$name\"
    case $? in
        0) id=$(podman image inspect --format '{{.Id}}' -- \"$name\") && echo \"mainstay: $0 image $name $id\" || exit 1 ;;
        1) echo \"mainstay: $0 image $name -\" ;;
        *) exit 1 ;;
    esac
done";
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

/// Names the unit that fetches an image: two that want the same wait for one.
pub fn pull_unit(pull: &Pull) -> UnitName {
    let digest = Digest::of(format!("{pull:?}").as_bytes()).short();
    UnitName::parse(&format!("mainstay-pull-{digest}.service")).expect("letters, digits and dashes make a unit's name")
}

/// Builds the command that fetches an image and tells what it is called.
pub fn pull_command(pull: &Pull) -> Vec<String> {
    let script =
        if pull.if_missing { format!("{BEGIN}{IF_MISSING}{FETCH}fi\n{TELL}") } else { format!("{BEGIN}{FETCH}{TELL}") };
    let command = ["/bin/sh", "-c", &script, &pull.image].map(str::to_owned);
    command.into_iter().chain(pull.options.iter().cloned()).collect()
}

/// Reads what that command printed, the last time that it ran.
pub fn told(printed: &str) -> Option<Told> {
    let lines: Vec<(&str, &str)> = tells(printed).collect();
    let ends = |line: &(&str, &str)| matches!(line.0, "new" | "there");
    let end = lines.iter().rposition(ends)?;
    let (state, id) = lines[end];
    let begin = lines[..end].iter().rposition(ends).map_or(0, |before| before + 1);
    let of =
        |kind: &str| lines[begin..end].iter().filter(|line| line.0 == kind).map(|line| line.1.to_owned()).collect();
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| Told { id: id.to_owned(), is_new: state == "new", names: of("name"), digests: of("digest") })
}

/// Iterates over what our own commands told: a word, and the rest.
fn tells(printed: &str) -> impl Iterator<Item = (&str, &str)> {
    printed.lines().filter_map(|line| line.trim().strip_prefix(TELLS)?.split_once(' '))
}

/// Picks the digest under the name that was asked for.
pub fn digest_of(pull: &Pull, told: &Told) -> Option<String> {
    let name = images::full_name(&pull.image);
    let named = told.digests.iter().find(|digest| images::full_name(digest) == name);
    named.or_else(|| told.digests.first()).cloned()
}

/// Names the unit that removes images.
pub fn removal_unit() -> UnitName {
    UnitName::parse("mainstay-remove-images.service").expect("letters and dashes make a unit's name")
}

/// Builds the command that removes images, each with the names that are ours; `run` is found in what it tells.
pub fn removal_command<'i>(run: &str, images: impl Iterator<Item = (&'i str, &'i BTreeSet<String>)>) -> Vec<String> {
    let command = ["/bin/sh", "-c", &format!("{BEGIN}{REMOVE}"), run].map(str::to_owned);
    let images = images.flat_map(|(id, names)| {
        let names: Vec<String> = names.iter().map(|name| images::full_reference(name)).collect();
        [id.to_owned(), names.join(" ")]
    });
    command.into_iter().chain(images).collect()
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
    // Podman takes what it is given for an expression.
    let filters = names.iter().map(|name| format!("--filter=name=^{}$", name.as_str().replace('.', "[.]")));
    command.into_iter().chain(filters).collect()
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

/// Names the unit that asks which images names lead to.
pub fn images_unit() -> UnitName {
    UnitName::parse("mainstay-list-images.service").expect("letters and dashes make a unit's name")
}

/// Builds the command that tells which images these names lead to; `run` is found in what it tells.
pub fn images_command(run: &str, names: &BTreeSet<String>) -> Vec<String> {
    let command = ["/bin/sh", "-c", &format!("{BEGIN}{IMAGES}"), run].map(str::to_owned);
    command.into_iter().chain(names.iter().cloned()).collect()
}

/// Reads what that command told: by name the image's id, or that there is none.
pub fn image_ids(run: &str, printed: &str) -> BTreeMap<String, Option<String>> {
    let told = tells(printed).filter(|(of, _)| *of == run).filter_map(|(_, rest)| rest.strip_prefix("image "));
    let ids = told.filter_map(|rest| {
        let (name, id) = rest.rsplit_once(' ')?;
        Some((name.to_owned(), (id != "-").then(|| id.to_owned())))
    });
    ids.collect()
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

/// What became of an image that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is not there any more.
    Gone,
    /// Somebody has given it a name: it is theirs from now on.
    Named,
}

/// Reads what that command told: images that are not named are in use, or could not be asked about.
pub fn fates(run: &str, printed: &str) -> BTreeMap<String, Fate> {
    let told = tells(printed).filter(|(of, _)| *of == run).filter_map(|(_, rest)| rest.split_once(' '));
    let fates = told.filter_map(|(fate, id)| match fate {
        "gone" => Some((id.to_owned(), Fate::Gone)),
        "named" => Some((id.to_owned(), Fate::Named)),
        _ => None,
    });
    fates.collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

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
    fn names_lead_to_images_or_to_none() {
        let names = BTreeSet::from(["r.lan:5000/web:1".to_owned(), "db".to_owned()]);
        let answers = "*exists*db) return 1;; *inspect*) echo 0f1e;; *) true;;";
        let (told, asked) = run_with(answers, &images_command("7-2", &names));
        let expected =
            BTreeMap::from([("db".to_owned(), None), ("r.lan:5000/web:1".to_owned(), Some("0f1e".to_owned()))]);
        assert_eq!(image_ids("7-2", &told), expected, "{asked}");
        assert_eq!(image_ids("7-1", &told), BTreeMap::new());
    }

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

    #[test]
    fn what_the_last_run_told_of_an_image_counts() {
        let pull = Pull { image: "b:5000/web:2".to_owned(), if_missing: true, options: Vec::new() };
        let (one, two) = ("1".repeat(64), "2".repeat(64));
        let printed = format!(
            "mainstay: digest b:5000/web@sha256:0\nmainstay: new {one}\nTrying to pull b:5000/web:2...\n{two}\n\
             mainstay: digest a/web@sha256:1\nmainstay: digest b:5000/web@sha256:2\nmainstay: name b:5000/web:2\n\n\
             mainstay: there {two}\nFinished Fetch b:5000/web:2 for mainstay.\n"
        );
        let last = told(&printed).expect("it was told");
        assert_eq!((last.id.as_str(), last.is_new, last.names.len(), last.digests.len()), (two.as_str(), false, 1, 2));
        assert_eq!(digest_of(&pull, &last).as_deref(), Some("b:5000/web@sha256:2"));
        let hub = Pull { image: "web".to_owned(), ..pull };
        let first = told(&format!("mainstay: digest docker.io/library/web@sha256:3\nmainstay: new {one}\n"));
        assert_eq!(digest_of(&hub, &first.expect("told")).as_deref(), Some("docker.io/library/web@sha256:3"));
        for nothing in ["nothing", "mainstay: new ", "mainstay: new 12", "mainstay: new ../etc"] {
            assert_eq!(told(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn only_what_this_run_removed_is_gone() {
        let printed = "mainstay: 7-1 gone a\nmainstay: 7-2 gone b\nError: image used by c\nmainstay: 7-2 named d\n";
        assert_eq!(fates("7-2", printed), BTreeMap::from([("b".into(), Fate::Gone), ("d".into(), Fate::Named)]));
        let names = BTreeSet::from(["web:1".to_owned(), "r.lan/web:2".to_owned()]);
        let command = removal_command("7-3", [("a", &names), ("b", &BTreeSet::new())].into_iter());
        assert_eq!(command[3..], ["7-3", "a", "r.lan/web:2 docker.io/library/web:1", "b", ""]);
    }

    /// Runs a command with a `podman` that does what `answers` says, and returns what it told and what it asked.
    fn run_with(answers: &str, command: &[String]) -> (String, String) {
        let podman = format!("podman() {{ echo \"$*\" >&2; case \"$*\" in {answers} esac; }}\n{}", command[2]);
        let command = [&command[..2], &[podman], &command[3..]].concat();
        let ran = std::process::Command::new(&command[0]).args(&command[1..]).output().expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (text(ran.stdout), text(ran.stderr))
    }

    #[test]
    fn fetching_tells_whose_an_image_is() {
        let pull = |if_missing| Pull {
            image: "r.lan/web:1".to_owned(),
            if_missing,
            options: vec!["--tls-verify=false".to_owned()],
        };
        let (id, other) = ("a".repeat(64), "b".repeat(64));
        let answers = |is_there: bool, before: &str| {
            let code = if is_there { 0 } else { 1 };
            format!(
                "'image exists'*) return {code};; images*) {before};; pull*) echo {id};;\n\
                 'image inspect'*) echo 'mainstay: name r.lan/web:1'; echo {id};;"
            )
        };
        let of =
            |is_there, before: &str, if_missing| run_with(&answers(is_there, before), &pull_command(&pull(if_missing)));
        let is_new = |(said, _): (String, String)| told(&said).expect("it was told").is_new;
        assert!(is_new(of(false, &format!("echo sha256:{other}"), true)));
        assert!(is_new(of(true, "true", false)), "a newer one is wanted, and came");
        assert!(!is_new(of(true, "echo never asked", true)));
        assert!(!is_new(of(false, &format!("echo sha256:{other}; echo sha256:{id}"), true)), "by another name");
        assert!(!is_new(of(false, "return 125", false)), "who cannot know takes nothing for its own");

        let (said, asked) = of(false, "true", true);
        assert_eq!(said, format!("mainstay: begins\n{id}\nmainstay: name r.lan/web:1\n\nmainstay: new {id}\n"));
        expect![[r#"
            image exists -- r.lan/web:1
            images --all --quiet --no-trunc
            pull --quiet --tls-verify=false -- r.lan/web:1
            image inspect --format {{range .RepoDigests}}{{println "mainstay: digest" .}}{{end}}{{range .RepoTags}}{{println "mainstay: name" .}}{{end}}{{.Id}} -- r.lan/web:1
        "#]]
        .assert_eq(&asked);
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

    #[test]
    fn removing_spares_what_somebody_named_or_uses() {
        let ours = BTreeSet::from(["r.lan/web:1".to_owned(), "r.lan/web:2".to_owned()]);
        let answers = "'image exists -- lost') return 1;; 'image exists -- mute') return 125;;
            'image inspect'*named) echo r.lan/web:1; echo mine:1;; 'image inspect'*busy) echo r.lan/web:1;;
            'image inspect'*used|'image inspect'*free) echo r.lan/web:1; echo r.lan/web:2;;
            ps*used) echo c0ffee;; rmi*busy) return 2;;";
        let images = ["lost", "mute", "named", "busy", "used", "free", "bare"].map(|id| (id, &ours));
        let (said, asked) = run_with(answers, &removal_command("7-1", images.into_iter()));
        let fates: Vec<(String, Fate)> = fates("7-1", &said).into_iter().collect();
        let expected = [("bare", Fate::Gone), ("free", Fate::Gone), ("lost", Fate::Gone), ("named", Fate::Named)];
        assert_eq!(fates, expected.map(|(id, fate)| (id.to_owned(), fate)));
        expect![[r#"
            image exists -- lost
            image exists -- mute
            image exists -- named
            image inspect --format {{range .RepoTags}}{{println .}}{{end}} -- named
            image exists -- busy
            image inspect --format {{range .RepoTags}}{{println .}}{{end}} -- busy
            rmi --no-prune -- busy
            image exists -- used
            image inspect --format {{range .RepoTags}}{{println .}}{{end}} -- used
            ps --all --quiet --filter ancestor=used
            image exists -- free
            image inspect --format {{range .RepoTags}}{{println .}}{{end}} -- free
            ps --all --quiet --filter ancestor=free
            untag free r.lan/web:1
            rmi --no-prune -- free
            image exists -- bare
            image inspect --format {{range .RepoTags}}{{println .}}{{end}} -- bare
            rmi --no-prune -- bare
        "#]]
        .assert_eq(&asked);
    }
}
