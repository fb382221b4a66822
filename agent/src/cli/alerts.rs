//! `mainstay alerts`: who is told when a person is needed, and whether that works.

use spec::id::shown;
use spec::manifest::{self, Alert};

use super::{Common, Ended};
use crate::alert::{Alerts, Message, Receiver};
use crate::ledger::Ledger;
use crate::settings::Settings;
use crate::upstream::{self, LIMITS};

const EXAMPLES: &str = "\
Examples:
  mainstay alerts --test";

/// Show who is told when a person is needed, and try it
///
/// Shows whom the settings name under `alerts:`, and whom fleet.yaml does, as this host believed it last. With --test, sends each a
/// message and says what came back.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Send a test
    #[arg(long)]
    test: bool,
}

/// Shows who is told.
///
/// # Errors
/// The settings cannot be read, or name a file that cannot.
pub async fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    let settings = common.settings()?;
    let alerts = Alerts::of(&settings)?;
    let of_the_fleet = believed(&settings)?.iter().map(Receiver::of).collect::<anyhow::Result<Vec<Receiver>>>()?;
    let mut ended = Ended::Well;
    let mut told = Vec::new();
    for receiver in alerts.receivers().iter().chain(&of_the_fleet) {
        let said = match args.test {
            false => None,
            true => {
                Some(receiver.deliver(&Message::test(settings.host()?.as_str())).await.map_err(|it| it.to_string()))
            }
        };
        if matches!(said, Some(Err(_))) {
            ended = Ended::Impossible;
        }
        let by = if receiver.is_of_the_fleet() { "fleet.yaml" } else { "settings" };
        told.push((receiver.name(), receiver.server(), by, said));
    }
    if common.json {
        let all = told.iter().map(|(name, server, by, said)| {
            serde_json::json!({
                "receiver": name, "server": server, "named-by": by,
                "delivered": said.as_ref().map(Result::is_ok), "error": said.as_ref().and_then(|said| said.as_ref().err()),
            })
        });
        println!("{:#}", serde_json::Value::from_iter(all));
        return Ok(ended);
    }
    if told.is_empty() {
        println!(
            "nobody is told: name somebody under `alerts:` in the settings (see `mainstay settings --example`) or in fleet.yaml"
        );
    }
    for (name, server, by, said) in told {
        let said = match said {
            None => String::new(),
            Some(Ok(())) => ": delivered".to_owned(),
            Some(Err(why)) => format!(": not delivered, {}", shown(&why)),
        };
        let by = if by == "fleet.yaml" { " (fleet.yaml)" } else { "" };
        println!("{name} at {server}{by}{said}");
    }
    Ok(ended)
}

/// Reads whom the repository names, at the commit that this host believes.
fn believed(settings: &Settings) -> anyhow::Result<Vec<Alert>> {
    let Some(commit) = Ledger::peek(&settings.state)?.memory.believed else { return Ok(Vec::new()) };
    let tree = upstream::peek(&settings.state)?.tree(&commit, &LIMITS)?;
    Ok(manifest::parse(&tree, Some(&commit)).fleet.map(|fleet| fleet.alerts).unwrap_or_default())
}
