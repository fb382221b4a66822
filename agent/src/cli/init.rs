//! `mainstay init`: a first configuration repository that works.

use std::path::PathBuf;

use serde_json::json;

use super::{Common, Ended};
use crate::scaffold::{self, Signer};
use crate::settings::Settings;

const EXAMPLES: &str = "\
Examples:
  mainstay init ./fleet && mainstay check ./fleet";

/// Write a configuration repository to begin with
///
/// The repository has fleet.yaml with this host in it, and one application with a unit and a file. Makes the folder a git repository, unless it is part of one. Nothing that is there is overwritten.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The folder; made when it is not there
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// Writes it.
///
/// # Errors
/// Something is in the way, or cannot be written.
pub fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    let host = Settings { host: common.host.clone(), ..Settings::default() }.host()?;
    let signer = Signer::find();
    let made = scaffold::write(&args.dir, &host, signer.as_ref())?;
    let dir = args.dir.display();
    if common.json {
        let files: Vec<String> = made.files.iter().map(|path| path.display().to_string()).collect();
        println!(
            "{:#}",
            json!({
                "host": host.as_str(),
                "files": files,
                "git-init": made.is_new_repository,
                "signer": signer.map(|signer| signer.principal),
            })
        );
        return Ok(Ended::Well);
    }
    for path in &made.files {
        println!("wrote {}", path.display());
    }
    if made.is_new_repository {
        println!("made {dir} a git repository, with the branch main");
    }
    match &signer {
        Some(signer) => {
            println!("only commits that {} signs are believed: see trust/allowed_signers", signer.principal);
        }
        None => println!(
            "nobody has to sign commits: no key for ssh was found here; see `trust` in fleet.yaml once you have one"
        ),
    }
    println!("\nNext:");
    println!("  mainstay check {dir}                 is it sound?");
    println!("  mainstay plan --dir {dir}            what would change on {host}?");
    println!("  sudo mainstay once --dir {dir}       change it");
    Ok(Ended::Well)
}
