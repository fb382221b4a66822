//! `mainstay plan --all-hosts`: what one commit changes on every host, and when it can at the earliest, for whoever writes or reviews
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use jiff::{Timestamp, Zoned};
use serde_json::json;
use spec::digest::Digest;
use spec::forecast::{Change, Forecast, Kind, Verb, forecast, left_out};
use spec::id::{AppName, CommitId, HostName};
use spec::manifest::{self, Fleet};
use spec::resolve;
use spec::schedule::{Moment, Schedule, Start, Turn, schedule};
use spec::tree::Tree;

use super::{Common, Ended, times, width};
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
    /// When the commit is there, for the earliest times: 18:00, 2026-11-22T18:00 or 2026-11-22T17:00Z [default: now]
    #[arg(long, value_name = "TIME", requires = "all_hosts")]
    at: Option<String>,
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

/// What came of it.
struct Comparison {
    from: Side,
    to: Side,
    changes: Forecast,
    gone: Vec<HostName>,
    /// How many hosts there are.
    hosts: usize,
    schedule: Schedule,
    /// When the commit is there.
    at: Timestamp,
}

/// Compares, and prints.
///
/// # Errors
/// The clone or a commit cannot be read.
pub(super) fn run(common: &Common, dir: Option<&Path>, args: &Sides) -> anyhow::Result<Ended> {
    let now = Zoned::now();
    let at = match &args.at {
        Some(text) => times::next(text, &now).map_err(anyhow::Error::msg)?,
        None => now.timestamp(),
    };
    let dir = dir.unwrap_or(Path::new("."));
    let clone = Mirror::of_clone(dir)?;
    let from = at_commit(&clone, args.from.as_deref().unwrap_or("HEAD"))?;
    let to = match &args.to {
        Some(name) => at_commit(&clone, name)?,
        None => in_hand(clone.folder())?,
    };
    // What is being written is what somebody can mend; what it is compared with is told as that.
    let (Some(old), Some(new)) = (read(common, &from), read(common, &to)) else { return Ok(Ended::Mistaken) };
    let mut past = Past { clone: &clone, fleets: BTreeMap::new() };
    let comparison = compare((from, &old), (to, &new), at, |digits, host| past.digests(digits, host));
    if common.json {
        println!("{:#}", as_json(&comparison));
    } else if args.markdown {
        print!("{}", as_markdown(&comparison));
    } else {
        print!("{}", width::folded(&as_text(&comparison), width::of_output()));
    }
    Ok(Ended::Well)
}

fn compare(
    (from, old): (Side, &Fleet),
    (to, new): (Side, &Fleet),
    at: Timestamp,
    digests: impl FnMut(&str, &HostName) -> Option<BTreeMap<AppName, Digest>>,
) -> Comparison {
    let at = Timestamp::from_second(at.as_second()).unwrap_or(at);
    let changes = forecast(old, new);
    // An override can name no commit that is not made yet.
    let unmade = CommitId::parse(&"0".repeat(40)).expect("a commit's id");
    let schedule = schedule(new, &changes, &Moment { commit: to.commit.as_ref().unwrap_or(&unmade), at }, digests);
    let gone = left_out(old, new).into_iter().cloned().collect();
    Comparison { from, to, changes, gone, hosts: new.hosts.len(), schedule, at }
}

/// The commits that overrides name.
struct Past<'c> {
    clone: &'c Mirror,
    /// What they said; `None` where they cannot be read.
    fleets: BTreeMap<String, Option<Fleet>>,
}

impl Past<'_> {
    fn digests(&mut self, digits: &str, host: &HostName) -> Option<BTreeMap<AppName, Digest>> {
        let read = || {
            let side = at_commit(self.clone, digits).ok()?;
            manifest::parse(&side.tree, side.commit.as_ref()).fleet
        };
        let fleet = self.fleets.entry(digits.to_owned()).or_insert_with(read).as_ref()?;
        let desired = resolve::resolve(fleet, host).ok()?;
        Some(desired.apps.into_iter().map(|(name, app)| (name, app.digest)).collect())
    }
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

fn summary(all: &Comparison) -> String {
    let touched: BTreeSet<&HostName> = all.changes.values().flat_map(|it| it.values().flatten()).collect();
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let (apps, hosts) = (all.changes.len(), all.hosts);
    match touched.len() {
        0 => "nothing changes on any host".to_owned(),
        some => format!("{apps} application{} on {some} of {hosts} host{}", plural(apps), plural(hosts)),
    }
}

/// Groups the hosts of a change by when they have their turn; nothing where all have it at once.
fn turns<'c>(all: &'c Comparison, app: &AppName, hosts: &BTreeSet<HostName>) -> BTreeMap<&'c Turn, BTreeSet<HostName>> {
    let mut turns: BTreeMap<&Turn, BTreeSet<HostName>> = BTreeMap::new();
    for host in hosts {
        if let Some(turn) = all.schedule.get(app).and_then(|turns| turns.get(host)) {
            turns.entry(turn).or_default().insert(host.clone());
        }
    }
    turns.retain(|turn, _| !turn.is_at_once(all.at));
    turns
}

fn start(all: &Comparison, turn: &Turn) -> String {
    match &turn.start {
        Start::Earliest { at, because: None } if *at == all.at => "at once".to_owned(),
        start => start.to_string(),
    }
}

/// Says what the times mean, where there are any.
fn about_times(all: &Comparison) -> Option<String> {
    let mut turns = all.schedule.values().flat_map(BTreeMap::values);
    let at = all.at.strftime("%Y-%m-%d %H:%M:%SZ");
    turns.any(|turn| !turn.is_at_once(all.at)).then(|| {
        format!(
            "Times are the earliest for a commit of {at}: hosts that take long, are silent or fail make them later."
        )
    })
}

fn as_text(all: &Comparison) -> String {
    let mut text = format!("{} .. {}: {}\n", all.from.name, all.to.name, summary(all));
    for (app, variants) in &all.changes {
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
            for (turn, hosts) in turns(all, app, hosts) {
                let wave = format!("wave {} of {}", turn.wave, turn.waves);
                writeln!(text, "  {wave:<18} {}: {} {}", turn.who, named(&hosts), start(all, turn)).expect(FITS);
            }
        }
    }
    for host in &all.gone {
        writeln!(text, "\n{host} is left out: it keeps what it has until `mainstay uninstall` there").expect(FITS);
    }
    about_times(all).iter().for_each(|it| writeln!(text, "\n{it}").expect(FITS));
    text
}

fn as_markdown(all: &Comparison) -> String {
    let mut text = format!("**mainstay**: `{}` .. `{}`: {}\n", all.from.name, all.to.name, summary(all));
    let note = about_times(all);
    let when = if note.is_some() { (" when |", " --- |") } else { ("", "") };
    if !all.changes.is_empty() {
        write!(text, "\n| application | hosts | what happens |{}\n| --- | --- | --- |{}\n", when.0, when.1)
            .expect(FITS);
    }
    let cell = |text: &str| text.replace('|', "\\|");
    for (app, variants) in &all.changes {
        for (change, hosts) in variants {
            let cells = effects(change).into_iter().map(|(verb, objects, more)| {
                let mut objects: Vec<String> = objects.iter().map(|object| format!("`{}`", cell(object))).collect();
                objects.extend((more > 0).then(|| format!("{more} more")));
                format!("{} {}", verb.as_str(), objects.join(", "))
            });
            let mut cells: Vec<String> = cells.collect();
            if cells.is_empty() {
                cells.push("nothing is touched".to_owned());
            }
            write!(text, "| {app} | {} {} | {} |", word(change.kind), named(hosts), cells.join("<br>")).expect(FITS);
            if note.is_some() {
                let turns = turns(all, app, hosts).into_iter().map(|(turn, hosts)| {
                    let who = cell(&turn.who);
                    let start = cell(&start(all, turn));
                    format!("wave {} of {} (`{who}`): {} {start}", turn.wave, turn.waves, named(&hosts))
                });
                let turns: Vec<String> = turns.collect();
                write!(text, " {} |", if turns.is_empty() { "at once".to_owned() } else { turns.join("<br>") })
                    .expect(FITS);
            }
            text.push('\n');
        }
    }
    for host in &all.gone {
        writeln!(text, "\n`{host}` is left out: it keeps what it has.").expect(FITS);
    }
    note.iter().for_each(|note| writeln!(text, "\n{note}").expect(FITS));
    text
}

fn as_json(all: &Comparison) -> serde_json::Value {
    let changes = all.changes.iter().flat_map(|(app, variants)| {
        variants.iter().map(move |(change, hosts)| {
            let turns = all.schedule.get(app).into_iter().flatten().filter(|(host, _)| hosts.contains(*host));
            let turns: BTreeMap<&HostName, &Turn> = turns.collect();
            json!({ "app": app, "hosts": hosts, "kind": change.kind, "effects": change.effects, "turns": turns })
        })
    });
    let side = |side: &Side| side.commit.as_ref().map(|commit| commit.as_str().to_owned());
    json!({
        "from": side(&all.from),
        "to": side(&all.to),
        "at": all.at,
        "changes": changes.collect::<Vec<_>>(),
        "left-out": all.gone,
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
        (empty(name), fleet)
    }

    fn empty(name: &str) -> Side {
        Side { name: name.to_owned(), tree: Tree::default(), commit: None }
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
        let at: Timestamp = "2026-11-23T08:30:00Z".parse().expect("a time");
        let all = compare((from, &old), (to, &new), at, |_, _| None);
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
        .assert_eq(&as_text(&all));
        expect![[r#"
            **mainstay**: `1111111111` .. `the folder`: 3 applications on 3 of 3 hosts

            | application | hosts | what happens |
            | --- | --- | --- |
            | new | comes to cellar | start `new.service`<br>write `/etc/systemd/system/new.service` |
            | old | leaves cellar | stop `old.service`<br>remove `/etc/systemd/system/old.service` |
            | web | changes on barn | restart if running `web.service`<br>write `/etc/extra.conf`, `/etc/systemd/system/web.service`, `/etc/web.conf` |
            | web | changes on attic | restart if running `web.service`<br>write `/etc/systemd/system/web.service`, `/etc/web.conf` |

            `shed` is left out: it keeps what it has.
        "#]].assert_eq(&as_markdown(&all));
        expect![[r#"
            the folder .. the folder: nothing changes on any host
        "#]]
        .assert_eq(&as_text(&compare((empty("the folder"), &new), (empty("the folder"), &new), at, |_, _| None)));
    }

    #[test]
    fn waves_windows_and_holds_say_when() {
        let web = |text: &str| format!("[Service]\nExecStart=/usr/bin/web\nEnvironment=X={text}\n");
        let rules = "rollouts:\n  default:\n    waves: [ { where: { role: web } }, { share: 100% } ]\n    bake: 10m\n    \
                     windows: [\"Mon..Thu 09:00-16:00 UTC\"]\nholds: [ { app: web, where: { host: barn }, reason: a | b } ]\n";
        let (fleet, one, two) = (format!("{FLEET}{rules}"), web("1"), web("2"));
        let (from, old) = side("1111111111", &[("fleet.yaml", FLEET), ("apps/web/web.service", &one)]);
        let (to, new) = side("the folder", &[("fleet.yaml", &fleet), ("apps/web/web.service", &two)]);
        let at: Timestamp = "2026-11-23T08:30:00Z".parse().expect("a time");
        let all = compare((from, &old), (to, &new), at, |_, _| None);
        expect![[r#"
            1111111111 .. the folder: 1 application on 3 of 3 hosts

            web changes on attic, barn, cellar
              restart if running web.service
              write              /etc/systemd/system/web.service
              wave 1 of 2        { role: web }: attic from 2026-11-23 09:00:00Z, outside its windows (Mon,Tue,Wed,Thu 09:00-16:00 UTC)
              wave 1 of 2        { role: web }: barn held: a | b
              wave 2 of 2        all others: cellar from 2026-11-23 09:10:00Z

            Times are the earliest for a commit of 2026-11-23 08:30:00Z: hosts that take long, are silent or fail make them later.
        "#]].assert_eq(&as_text(&all));
        expect![[r#"
            1111111111 .. the folder: 1 application on 3 of 3 hosts

            web changes on attic, barn, cellar
              restart if running web.service
              write              /etc/systemd/system/web.service
              wave 1 of 2        { role: web }: attic from 2026-11-23
                                 09:00:00Z, outside its windows
                                 (Mon,Tue,Wed,Thu 09:00-16:00 UTC)
              wave 1 of 2        { role: web }: barn held: a | b
              wave 2 of 2        all others: cellar from 2026-11-23
                                 09:10:00Z

            Times are the earliest for a commit of 2026-11-23 08:30:00Z:
                hosts that take long, are silent or fail make them
                later.
        "#]]
        .assert_eq(&width::folded(&as_text(&all), Some(60)));
        expect![[r#"
            **mainstay**: `1111111111` .. `the folder`: 1 application on 3 of 3 hosts

            | application | hosts | what happens | when |
            | --- | --- | --- | --- |
            | web | changes on attic, barn, cellar | restart if running `web.service`<br>write `/etc/systemd/system/web.service` | wave 1 of 2 (`{ role: web }`): attic from 2026-11-23 09:00:00Z, outside its windows (Mon,Tue,Wed,Thu 09:00-16:00 UTC)<br>wave 1 of 2 (`{ role: web }`): barn held: a \| b<br>wave 2 of 2 (`all others`): cellar from 2026-11-23 09:10:00Z |

            Times are the earliest for a commit of 2026-11-23 08:30:00Z: hosts that take long, are silent or fail make them later.
        "#]].assert_eq(&as_markdown(&all));
        expect![[r#"
            {
              "attic": {
                "earliest": {
                  "at": "2026-11-23T09:00:00Z",
                  "because": "outside its windows (Mon,Tue,Wed,Thu 09:00-16:00 UTC)"
                },
                "rollout": "default",
                "wave": 1,
                "waves": 2,
                "who": "{ role: web }"
              },
              "barn": {
                "held": {
                  "because": "a | b"
                },
                "rollout": "default",
                "wave": 1,
                "waves": 2,
                "who": "{ role: web }"
              },
              "cellar": {
                "earliest": {
                  "at": "2026-11-23T09:10:00Z"
                },
                "rollout": "default",
                "wave": 2,
                "waves": 2,
                "who": "all others"
              }
            }"#]]
        .assert_eq(&format!("{:#}", as_json(&all)["changes"][0]["turns"]));
    }
}
