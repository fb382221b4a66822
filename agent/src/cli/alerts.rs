//! `mainstay alerts`: who is told when a person is needed, and whether that works.

use spec::id::shown;

use super::{Common, Ended};
use crate::alert::{Alerts, Message};

const EXAMPLES: &str = "\
Examples:
  mainstay alerts --test";

/// Show who is told when a person is needed, and try it
///
/// Shows whom the settings name under `alerts:`. With --test, sends each a message and says what came back.
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
    let mut ended = Ended::Well;
    let mut told = Vec::new();
    for receiver in alerts.receivers() {
        let said = match args.test {
            false => None,
            true => {
                Some(receiver.deliver(&Message::test(settings.host()?.as_str())).await.map_err(|it| it.to_string()))
            }
        };
        if matches!(said, Some(Err(_))) {
            ended = Ended::Impossible;
        }
        told.push((receiver.name(), receiver.server(), said));
    }
    if common.json {
        let all = told.iter().map(|(name, server, said)| {
            serde_json::json!({
                "receiver": name, "server": server,
                "delivered": said.as_ref().map(Result::is_ok), "error": said.as_ref().and_then(|said| said.as_ref().err()),
            })
        });
        println!("{:#}", serde_json::Value::from_iter(all));
        return Ok(ended);
    }
    if told.is_empty() {
        println!("nobody is told: name somebody under `alerts:` in the settings (see `mainstay settings --example`)");
    }
    for (name, server, said) in told {
        let said = match said {
            None => String::new(),
            Some(Ok(())) => ": delivered".to_owned(),
            Some(Err(why)) => format!(": not delivered, {}", shown(&why)),
        };
        println!("{name} at {server}{said}");
    }
    Ok(ended)
}
