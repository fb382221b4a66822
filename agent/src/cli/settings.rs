//! `mainstay settings`: what the agent goes by, and which file each value comes from.

use serde_json::{Map, Value, json};
use spec::settings::{KEYS, Key, Origin, Settings, example};

use super::width::{self, folded, padded, room};
use super::{Common, Ended};
use crate::git::Url;

const EXAMPLES: &str = "\
Examples:
  mainstay settings            what counts, and why
  mainstay settings --example  every key, explained";

/// Show the agent's settings, and where each value comes from
///
/// Shows every setting with its value and where that comes from: the default, a file and its line, or the command line. Files are
/// /etc/mainstay/agent.yaml and /etc/mainstay/agent.d/*.yaml; the last one that says something counts. All mistakes in them are
/// shown at once.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Print a file that documents every setting, to begin with
    #[arg(long)]
    example: bool,
}

/// Shows the settings.
///
/// # Errors
/// A file cannot be read, or has mistakes.
pub fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    if args.example {
        print!("{}", example());
        return Ok(Ended::Well);
    }
    let said = common.said()?;
    if common.json {
        let all: Map<String, Value> = KEYS.iter().map(|key| (key.path.to_owned(), as_json(key, &said))).collect();
        println!("{:#}", Value::Object(all));
    } else {
        print!("{}", table(&said, common.colour(), width::of_output()));
    }
    Ok(Ended::Well)
}

/// Returns a value as people may see it: an address without its password.
fn spelled(key: &Key, said: &Settings) -> Option<String> {
    let (value, _) = said.get(key.path)?;
    let text = key.spell(value);
    Some(if key.path.ends_with("repository") { Url::shown(&text) } else { spec::id::shown(&text) })
}

fn from(origin: &Origin) -> String {
    match origin {
        Origin::Default => "default".to_owned(),
        Origin::File(place) => place.to_string(),
        Origin::CommandLine => "command line".to_owned(),
    }
}

fn as_json(key: &Key, said: &Settings) -> Value {
    json!({
        "value": spelled(key, said),
        "from": said.get(key.path).map_or_else(|| "not set".to_owned(), |(_, origin)| from(origin)),
        "default": (!key.default.is_empty()).then_some(key.default),
        "about": key.about,
    })
}

fn table(said: &Settings, colour: bool, width: Option<usize>) -> String {
    let rows: Vec<[String; 3]> = KEYS.iter().map(|key| row(key, said)).collect();
    let widest = |column: usize| rows.iter().map(|row| room(&row[column])).max().unwrap_or(0);
    let (first, second) = (widest(0), widest(1));
    // Where there is no room for a third column, what would stand there follows the value.
    let has_room = width.is_none_or(|width| first + second + widest(2) + 4 <= width);
    let second = if has_room { second } else { 0 };
    let lines = rows.iter().map(|[key, value, origin]| {
        let line = format!("{}  {}  {origin}\n", padded(key, first), padded(value, second));
        let line = folded(&line, width);
        match origin.as_str() {
            "default" | "not set" if colour => format!("\u{1b}[2m{line}\u{1b}[0m"),
            _ => line,
        }
    });
    lines.collect()
}

fn row(key: &Key, said: &Settings) -> [String; 3] {
    let origin = said.get(key.path).map_or_else(|| "not set".to_owned(), |(_, origin)| from(origin));
    [key.path.to_owned(), spelled(key, said).unwrap_or_else(|| "-".to_owned()), origin]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use spec::manifest;

    use super::*;

    #[test]
    fn each_value_says_where_it_comes_from_and_no_password_is_shown() {
        let first = "repository: https://me:s3cret@git.example/fleet.git\nbackups: { bytes: 1GiB }\n";
        let files = [("/etc/mainstay/agent.yaml", first), ("/etc/mainstay/agent.d/10-poll.yaml", "poll: 15s\n")];
        let said = manifest::settings(files).expect("settings");
        expect![[r#"
            repository                 https://me:***@git.example/fleet.git  /etc/mainstay/agent.yaml:1:1
            branch                     main                                  default
            host                       -                                     not set
            state                      /var/lib/mainstay                     default
            poll                       15s                                   /etc/mainstay/agent.d/10-poll.yaml:1:1
            observe                    5m                                    default
            settle                     2s                                    default
            job                        90s                                   default
            pull                       10m                                   default
            engine                     -                                     not set
            registries                 -                                     not set
            allow-file                 false                                 default
            identity                   -                                     not set
            git.connect                10s                                   default
            git.stall                  20s                                   default
            git.total                  5m                                    default
            git.max-size               512MiB                                default
            git.key                    -                                     not set
            git.known-hosts            -                                     not set
            git.ca                     -                                     not set
            git.token                  -                                     not set
            git.helper                 -                                     not set
            trust.signers              -                                     not set
            trust.since                -                                     not set
            trust.floor                /etc/mainstay/floor                   default
            report.push                true                                  default
            report.repository          -                                     not set
            report.heartbeat           1h                                    default
            backups.count              1000                                  default
            backups.bytes              1GiB                                  /etc/mainstay/agent.yaml:2:12
            backups.age                90d                                   default
            endpoint.socket            /run/mainstay/agent.sock              default
            endpoint.listen            -                                     not set
            endpoint.names             -                                     not set
            endpoint.cert              -                                     not set
            endpoint.key               -                                     not set
            endpoint.token             -                                     not set
            endpoint.hooks             -                                     not set
            alerts.on                  -                                     not set
            alerts.webhook             -                                     not set
            alerts.webhook-secret      -                                     not set
            alerts.slack               -                                     not set
            alerts.alertmanager        -                                     not set
            alerts.alertmanager-token  -                                     not set
            alerts.ntfy                -                                     not set
            alerts.ntfy-token          -                                     not set
        "#]]
        .assert_eq(&table(&said, false, None));
        expect![[r#"
            repository
                https://me:***@git.example/fleet.git
                /etc/mainstay/agent.yaml:1:1
            branch                     main  default
            host                       -  not set
            state                      /var/lib/mainstay  default
            poll                       15s
                /etc/mainstay/agent.d/10-poll.yaml:1:1
            observe                    5m  default
            settle                     2s  default
            job                        90s  default
            pull                       10m  default"#]]
        .assert_eq(&table(&said, false, Some(60)).lines().take(12).collect::<Vec<_>>().join("\n"));
        assert!(!format!("{:?}", KEYS.iter().map(|key| as_json(key, &said)).collect::<Vec<_>>()).contains("s3cret"));
    }
}
