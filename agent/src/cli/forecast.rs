//! `mainstay plan --all-hosts`: what one commit changes on every host, for whoever writes or reviews it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;
use spec::forecast::{Change, Forecast, Kind, Verb, forecast, left_out};
use spec::id::{CommitId, HostName};
use spec::manifest::{self, Fleet};
use spec::tree::Tree;

use super::{Common, Ended};
use crate::draw;
use crate::folder;
use crate::git::Mirror;
use crate::upstream::LIMITS;

/// More hosts than this are counted, not named.
const MOST_HOSTS: usize = 5;
/// More files than this of a change are counted, not named: what restarts is what a reviewer looks for.
const MOST_FILES: usize = 10;

const FITS: &str = "writing to a string does not fail";

/// What is compared.
#[derive(Debug, clap::Args)]
pub(super) struct Sides {
    /// Compare two commits, for every host, in the clone at --dir [default: .]
    #[arg(long, conflicts_with_all = ["offline", "no_diff"])]
    pub(super) all_hosts: bool,
    /// The commit to begin at [default: HEAD]
    #[arg(long, value_name = "COMMIT", requires = "all_hosts")]
    from: Option<String>,
    /// The commit to end at [default: the folder as it is]
    #[arg(long, value_name = "COMMIT", requires = "all_hosts")]
    to: Option<String>,
    /// Write Markdown, for a pull request
    #[arg(long, requires = "all_hosts", conflicts_with = "json")]
    markdown: bool,
}

/// One side of the comparison.
struct Side {
    name: String,
    tree: Tree,
    commit: Option<CommitId>,
}

/// Compares, and prints.
///
/// # Errors
/// The clone or a commit cannot be read.
pub(super) fn run(common: &Common, dir: Option<&Path>, args: &Sides) -> anyhow::Result<Ended> {
    let dir = dir.unwrap_or(Path::new("."));
    let clone = Mirror::of_clone(dir)?;
    let from = at_commit(&clone, args.from.as_deref().unwrap_or("HEAD"))?;
    let to = match &args.to {
        Some(name) => at_commit(&clone, name)?,
        None => in_hand(clone.folder())?,
    };
    // What is being written is what somebody can mend; what it is compared with is told as that.
    let (Some(old), Some(new)) = (read(common, &from), read(common, &to)) else { return Ok(Ended::Mistaken) };
    let changes = forecast(&old, &new);
    let gone = left_out(&old, &new);
    if common.json {
        println!("{:#}", as_json(&from, &to, &changes, &gone));
    } else if args.markdown {
        print!("{}", as_markdown(&from, &to, &changes, &gone, new.hosts.len()));
    } else {
        print!("{}", as_text(&from, &to, &changes, &gone, new.hosts.len()));
    }
    Ok(Ended::Well)
}

fn at_commit(clone: &Mirror, name: &str) -> anyhow::Result<Side> {
    let commit = clone.named(name)?;
    let tree = clone.tree(&commit, &LIMITS)?;
    Ok(Side { name: commit.short().to_owned(), tree, commit: Some(commit) })
}

fn in_hand(top: &Path) -> anyhow::Result<Side> {
    let tree = folder::read(top, &LIMITS).with_context(|| format!("failed to read {}", top.display()))?;
    Ok(Side { name: "the folder".to_owned(), tree, commit: None })
}

/// Reads a repository; its mistakes are told where there are any.
fn read(common: &Common, side: &Side) -> Option<Fleet> {
    let parsed = manifest::parse(&side.tree, side.commit.as_ref());
    if parsed.fleet.is_none() {
        let colour = common.colour();
        eprintln!("{} has mistakes:", side.name);
        eprint!("{}", draw::render(&parsed.diagnostics, &side.tree, colour));
    }
    parsed.fleet
}

fn named(hosts: &BTreeSet<HostName>) -> String {
    let first: Vec<&str> = hosts.iter().take(MOST_HOSTS).map(HostName::as_str).collect();
    match hosts.len().saturating_sub(MOST_HOSTS) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Added => "comes to",
        Kind::Changed => "changes on",
        Kind::Removed => "leaves",
    }
}

/// Writes each verb with its objects; many files are counted.
fn effects(change: &Change) -> Vec<(Verb, Vec<&str>, usize)> {
    let mut rows: Vec<(Verb, Vec<&str>, usize)> = Vec::new();
    for effect in &change.effects {
        if rows.last().is_none_or(|(verb, ..)| *verb != effect.verb) {
            rows.push((effect.verb, Vec::new(), 0));
        }
        if let Some((verb, objects, more)) = rows.last_mut() {
            match matches!(verb, Verb::Write | Verb::Remove) && objects.len() >= MOST_FILES {
                true => *more += 1,
                false => objects.push(&effect.object),
            }
        }
    }
    rows
}

fn summary(changes: &Forecast, hosts: usize) -> String {
    let touched: BTreeSet<&HostName> = changes.values().flat_map(|it| it.values().flatten()).collect();
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    match touched.len() {
        0 => "nothing changes on any host".to_owned(),
        some => {
            format!("{} application{} on {some} of {hosts} host{}", changes.len(), plural(changes.len()), plural(hosts))
        }
    }
}

fn as_text(from: &Side, to: &Side, changes: &Forecast, gone: &[&HostName], hosts: usize) -> String {
    let mut text = format!("{} .. {}: {}\n", from.name, to.name, summary(changes, hosts));
    for (app, variants) in changes {
        for (change, hosts) in variants {
            writeln!(text, "\n{app} {} {}", word(change.kind), named(hosts)).expect(FITS);
            for (verb, objects, more) in effects(change) {
                for object in objects {
                    writeln!(text, "  {:<18} {object}", verb.as_str()).expect(FITS);
                }
                if more > 0 {
                    writeln!(text, "  {:<18} {more} more", verb.as_str()).expect(FITS);
                }
            }
            if change.effects.is_empty() {
                text.push_str("  nothing is touched: only what is looked at changes\n");
            }
        }
    }
    for host in gone {
        writeln!(text, "\n{host} is left out: it keeps what it has until `mainstay uninstall` there").expect(FITS);
    }
    text
}

fn as_markdown(from: &Side, to: &Side, changes: &Forecast, gone: &[&HostName], hosts: usize) -> String {
    let mut text = format!("**mainstay**: `{}` .. `{}`: {}\n", from.name, to.name, summary(changes, hosts));
    if !changes.is_empty() {
        text.push_str("\n| application | hosts | what happens |\n| --- | --- | --- |\n");
    }
    for (app, variants) in changes {
        for (change, hosts) in variants {
            let cells = effects(change).into_iter().map(|(verb, objects, more)| {
                let mut objects: Vec<String> =
                    objects.iter().map(|object| format!("`{}`", object.replace('|', "\\|"))).collect();
                objects.extend((more > 0).then(|| format!("{more} more")));
                format!("{} {}", verb.as_str(), objects.join(", "))
            });
            let mut cells: Vec<String> = cells.collect();
            if cells.is_empty() {
                cells.push("nothing is touched".to_owned());
            }
            writeln!(text, "| {app} | {} {} | {} |", word(change.kind), named(hosts), cells.join("<br>")).expect(FITS);
        }
    }
    for host in gone {
        writeln!(text, "\n`{host}` is left out: it keeps what it has.").expect(FITS);
    }
    text
}

fn as_json(from: &Side, to: &Side, changes: &Forecast, gone: &[&HostName]) -> serde_json::Value {
    let all = changes.iter().flat_map(|(app, variants)| {
        variants.iter().map(move |(change, hosts)| {
            json!({ "app": app, "hosts": hosts, "kind": change.kind, "effects": change.effects })
        })
    });
    let side = |side: &Side| side.commit.as_ref().map(|commit| commit.as_str().to_owned());
    json!({
        "from": side(from),
        "to": side(to),
        "changes": all.collect::<Vec<_>>(),
        "left-out": gone,
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const FLEET: &str =
        "fleet: home\nhosts:\n  attic: { labels: { role: web } }\n  barn: { labels: { role: web } }\n  cellar: {}\n";

    fn side(name: &str, files: &[(&str, &str)]) -> (Side, Fleet) {
        let mut tree = Tree::default();
        files.iter().for_each(|(path, text)| tree.insert(path, text.as_bytes()));
        let parsed = manifest::parse(&tree, None);
        let fleet = parsed.fleet.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
        (Side { name: name.to_owned(), tree, commit: None }, fleet)
    }

    #[test]
    fn a_change_is_told_once_for_all_hosts_that_it_is_the_same_on() {
        let web =
            |text: &str| format!("[Service]\nExecStart=/usr/bin/web --config /etc/web.conf\nEnvironment=X={text}\n");
        let (one, two) = (web("1"), web("2"));
        let (from, old) = side(
            "1111111111",
            &[
                ("fleet.yaml", &format!("{FLEET}  shed: {{}}\n")),
                ("apps/web/app.yaml", "place: { role: web }\n"),
                ("apps/web/web.service", &one),
                ("apps/web/files/etc/web.conf", "a\n"),
                ("apps/old/old.service", "[Service]\nExecStart=/usr/bin/old\n"),
                ("apps/old/app.yaml", "place: { host: cellar }\n"),
            ],
        );
        let (to, new) = side(
            "the folder",
            &[
                ("fleet.yaml", FLEET),
                ("apps/web/app.yaml", "place: { role: web }\nunits: { web.service: { reload-on: [/etc/web.conf] } }\n"),
                ("apps/web/web.service", &two),
                ("apps/web/files/etc/web.conf", "b\n"),
                ("apps/web/@barn/files/etc/extra.conf", "c\n"),
                ("apps/new/new.service", "[Service]\nExecStart=/usr/bin/new\n[Install]\nWantedBy=multi-user.target\n"),
                ("apps/new/app.yaml", "place: { host: cellar }\n"),
            ],
        );
        let (changes, gone) = (forecast(&old, &new), left_out(&old, &new));
        expect![[r#"
            1111111111 .. the folder: 3 applications on 3 of 3 hosts

            new comes to cellar
              start              new.service
              write              /etc/systemd/system/new.service

            old leaves cellar
              stop               old.service
              remove             /etc/systemd/system/old.service

            web changes on barn
              restart if running web.service
              write              /etc/extra.conf
              write              /etc/systemd/system/web.service
              write              /etc/web.conf

            web changes on attic
              restart if running web.service
              write              /etc/systemd/system/web.service
              write              /etc/web.conf

            shed is left out: it keeps what it has until `mainstay uninstall` there
        "#]]
        .assert_eq(&as_text(&from, &to, &changes, &gone, new.hosts.len()));
        expect![[r#"
            **mainstay**: `1111111111` .. `the folder`: 3 applications on 3 of 3 hosts

            | application | hosts | what happens |
            | --- | --- | --- |
            | new | comes to cellar | start `new.service`<br>write `/etc/systemd/system/new.service` |
            | old | leaves cellar | stop `old.service`<br>remove `/etc/systemd/system/old.service` |
            | web | changes on barn | restart if running `web.service`<br>write `/etc/extra.conf`, `/etc/systemd/system/web.service`, `/etc/web.conf` |
            | web | changes on attic | restart if running `web.service`<br>write `/etc/systemd/system/web.service`, `/etc/web.conf` |

            `shed` is left out: it keeps what it has.
        "#]].assert_eq(&as_markdown(&from, &to, &changes, &gone, new.hosts.len()));
        expect![[r#"
            the folder .. the folder: nothing changes on any host
        "#]]
        .assert_eq(&as_text(&to, &to, &forecast(&new, &new), &[], new.hosts.len()));
    }
}
