//! The commands that fetch and remove images, and tell which ones names lead to and containers run.

use std::collections::{BTreeMap, BTreeSet};

use spec::digest::Digest;
use spec::id::{ContainerName, UnitName};
use spec::images::{self, Told};
use spec::inputs::Pull;

use super::{BEGIN, tells};

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

/// Tells which images names lead to. `$0` tells this run from those before.
const IMAGES: &str = "for name in \"$@\"; do
    podman image exists -- \"$name\"
    case $? in
        0) id=$(podman image inspect --format '{{.Id}}' -- \"$name\") && echo \"mainstay: $0 image $name $id\" || exit 1 ;;
        1) echo \"mainstay: $0 image $name -\" ;;
        *) exit 1 ;;
    esac
done";
/// Tells which images containers run, and what registries call these: what is given are filters, of which one has to fit.
/// `$0` tells this run from those before. Podman reads `.Id` as the field `ID` only where it stands alone.
const RUN: &str = r#"set -f
ids=$(podman ps --all --no-trunc --format '{{.ImageID}}' "$@") || exit 1
if [ -n "$ids" ]; then
    told="{{\$id := .ID}}{{range .RepoDigests}}{{println \"mainstay: $0 digest\" \$id .}}{{end}}"
    podman image inspect --format "$told" -- $ids || exit 1
fi
podman ps --all --no-trunc --format "mainstay: $0 runs {{.Names}} {{.ImageID}}" "$@""#;

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

/// Picks the digest under the name that was asked for.
pub fn digest_of<'d>(image: &str, digests: impl IntoIterator<Item = &'d String>) -> Option<String> {
    let name = images::full_name(image);
    let digests: Vec<&String> = digests.into_iter().collect();
    let named = digests.iter().find(|digest| images::full_name(digest) == name);
    named.or_else(|| digests.first()).map(|digest| (*digest).clone())
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

/// Names the unit that asks which images containers run.
pub fn run_unit() -> UnitName {
    UnitName::parse("mainstay-list-run.service").expect("letters and dashes make a unit's name")
}

/// Builds the command that tells which images these containers run; `run` is found in what it tells.
pub fn run_command(run: &str, names: &BTreeSet<ContainerName>) -> Vec<String> {
    let command = ["/bin/sh", "-c", &format!("{BEGIN}{RUN}"), run].map(str::to_owned);
    command.into_iter().chain(names.iter().map(super::filter)).collect()
}

/// Reads what that command told: by container the image's id, and what registries call it. Containers that are gone by now
/// are left out.
pub fn images_run(run: &str, printed: &str) -> BTreeMap<ContainerName, (String, Vec<String>)> {
    let told: Vec<(&str, &str, &str)> = tells(printed)
        .filter(|(of, _)| *of == run)
        .filter_map(|(_, rest)| rest.split_once(' '))
        .filter_map(|(kind, rest)| rest.split_once(' ').map(|(one, other)| (kind, one, other)))
        .collect();
    let digests = |id: &str| {
        let its = told.iter().filter(|(kind, of, _)| *kind == "digest" && *of == id);
        its.map(|(.., digest)| (*digest).to_owned()).collect()
    };
    let containers = told.iter().filter(|(kind, ..)| *kind == "runs");
    containers
        .filter_map(|(_, name, id)| Some((ContainerName::parse(name).ok()?, (id.to_string(), digests(id)))))
        .collect()
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

    use super::super::tests::run_with;
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
    fn containers_run_what_podman_says_not_what_their_names_lead_to() {
        let names = ["web", "db"].map(|name| ContainerName::parse(name).expect("a name"));
        let answers = "*runs*) echo 'mainstay: 7-2 runs web 0f1e'; echo 'mainstay: 7-2 runs db 2d3c';;
            ps*) echo 0f1e; echo 2d3c;; 'image inspect'*'-- 0f1e 2d3c') echo 'mainstay: 7-2 digest 0f1e r.lan/web@sha256:a'; echo;;";
        let command = run_command("7-2", &BTreeSet::from(names.clone()));
        let (told, asked) = run_with(answers, &command);
        let [web, db] = names;
        let (of_web, of_db) = (("0f1e".to_owned(), vec!["r.lan/web@sha256:a".to_owned()]), ("2d3c".to_owned(), vec![]));
        assert_eq!(images_run("7-2", &told), BTreeMap::from([(web, of_web), (db, of_db)]), "{told}{asked}");
        assert_eq!(images_run("7-1", &told), BTreeMap::new(), "that was another run");
        expect![[r#"
            ps --all --no-trunc --format {{.ImageID}} --filter=name=^db$ --filter=name=^web$
            image inspect --format {{$id := .ID}}{{range .RepoDigests}}{{println "mainstay: 7-2 digest" $id .}}{{end}} -- 0f1e 2d3c
            ps --all --no-trunc --format mainstay: 7-2 runs {{.Names}} {{.ImageID}} --filter=name=^db$ --filter=name=^web$
        "#]]
        .assert_eq(&asked);
        let (nobody, _) = run_with("*) true;;", &command);
        assert_eq!(images_run("7-2", &nobody), BTreeMap::new());
    }

    #[test]
    fn what_the_last_run_told_of_an_image_counts() {
        let (one, two) = ("1".repeat(64), "2".repeat(64));
        let printed = format!(
            "mainstay: digest b:5000/web@sha256:0\nmainstay: new {one}\nTrying to pull b:5000/web:2...\n{two}\n\
             mainstay: digest a/web@sha256:1\nmainstay: digest b:5000/web@sha256:2\nmainstay: name b:5000/web:2\n\n\
             mainstay: there {two}\nFinished Fetch b:5000/web:2 for mainstay.\n"
        );
        let last = told(&printed).expect("it was told");
        assert_eq!((last.id.as_str(), last.is_new, last.names.len(), last.digests.len()), (two.as_str(), false, 1, 2));
        assert_eq!(digest_of("b:5000/web:2", &last.digests).as_deref(), Some("b:5000/web@sha256:2"));
        let first = told(&format!("mainstay: digest docker.io/library/web@sha256:3\nmainstay: new {one}\n"));
        let digests = first.expect("told").digests;
        assert_eq!(digest_of("web", &digests).as_deref(), Some("docker.io/library/web@sha256:3"));
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
