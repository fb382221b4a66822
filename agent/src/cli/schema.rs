//! `mainstay schema`: what editors need to complete and explain what authors write.

use std::path::PathBuf;

use serde_json::json;
use spec::schema::{self, Subject};

use super::{Common, Ended};
use crate::scaffold;

const EXAMPLES: &str = "\
Examples:
  mainstay schema app              print the one of app.yaml
  mainstay schema --write ./fleet  write all of them into a repository";

/// Print what editors need to complete fleet.yaml and app.yaml
///
/// Prints the JSON Schema of a file, for editors that complete YAML: keys are offered, explained, and underlined when they are
/// wrong. `mainstay schema --write .` puts those of a repository into its folder .mainstay/schema, where they work offline; then
/// `# yaml-language-server: $schema=.mainstay/schema/fleet.json` as the first line of fleet.yaml is all that most editors need.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which file: fleet (fleet.yaml), hosts (hosts/*.yaml), app (apps/*/app.yaml) or settings (agent.yaml)
    #[arg(value_name = "FILE", value_parser = subject, required_unless_present = "write")]
    subject: Option<Subject>,
    /// Write those of a configuration repository into this folder of it, over what is there
    #[arg(long, value_name = "REPOSITORY", conflicts_with = "subject", num_args = 0..=1, default_missing_value = ".")]
    write: Option<PathBuf>,
}

fn subject(text: &str) -> Result<Subject, String> {
    Subject::parse(text).ok_or_else(|| {
        let all: Vec<&str> = Subject::ALL.into_iter().map(Subject::as_str).collect();
        format!("there is no such file; choose among {}", all.join(", "))
    })
}

/// Prints or writes it.
///
/// # Errors
/// The folder is no repository, or cannot be written.
pub fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    if let Some(subject) = args.subject {
        println!("{:#}", schema::of(subject));
    }
    let Some(folder) = &args.write else { return Ok(Ended::Well) };
    if !folder.join("fleet.yaml").exists() {
        anyhow::bail!(
            "{} is no configuration repository: it has no fleet.yaml; `mainstay init` writes one",
            folder.display()
        );
    }
    let files = scaffold::write_schemas(folder)?;
    if common.json {
        let files: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
        println!("{:#}", json!({ "files": files }));
        return Ok(Ended::Well);
    }
    for path in &files {
        println!("wrote {}", path.display());
    }
    println!("\nEditors find them by the first line of a file:");
    for (file, schema) in scaffold::SCHEMAS {
        println!("  {:<17} # yaml-language-server: $schema={schema}", file.files());
    }
    Ok(Ended::Well)
}
