//! `mainstay secret`: what is encrypted in a repository, for its authors.

mod editor;

use std::path::PathBuf;

use serde_json::{Value, json};
use spec::diagnostic::{Diagnostic, Location};
use spec::id::shown;

use super::{Common, Ended};
use crate::draw;
use crate::seal::Opener;
use crate::vault::{Sealing, Vault, VaultError};

const EXAMPLES: &str = "\
Examples:
  mainstay secret edit secrets/shop.yaml    db: hunter2, in the clear meanwhile
  mainstay secret show db                   what a template gets for it
  mainstay secret encrypt apps/web/files/etc/web/tls.key
  mainstay secret rekey                     after hosts came or went
  mainstay secret check                     in CI";

/// Read and write what is encrypted in a configuration repository
///
/// Values are in secrets/*.yaml, each of them encrypted on its own, and whole files in apps/NAME/files/…, or beside a compose file, as
/// PATH.age. Everything is encrypted for the hosts that need it, by the keys that fleet.yaml names for them, and for its `recipients`: the
/// people who may read it. What is opened is opened with your own key, and stays in memory. What SOPS encrypts (with age) can be shown;
/// SOPS itself edits it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The repository's folder
    #[arg(long, global = true, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Your key, of age or ssh [default: MAINSTAY_IDENTITY, ~/.config/mainstay/identity, SOPS_AGE_KEY_FILE,
    /// ~/.config/sops/age/keys.txt, ~/.ssh/id_ed25519, ~/.ssh/id_rsa]
    #[arg(short, long, global = true, value_name = "FILE")]
    identity: Vec<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List what is encrypted, and who can read it
    List,
    /// Print a secret in the clear
    Show {
        /// A name as templates have it, or a file apps/NAME/files/….age
        #[arg(value_name = "NAME")]
        what: String,
    },
    /// Edit a file in the clear; it is encrypted again when the editor ends
    Edit {
        /// secrets/NAME.yaml, or apps/NAME/files/….age; either may be new
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Encrypt what stands in the clear
    Encrypt {
        /// secrets/NAME.yaml, or a file below apps/NAME/files/, which becomes FILE.age [default: all of secrets/]
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Encrypt anew what is not for those who should read it, and for nobody else
    Rekey {
        /// Which [default: everything]
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Also what is: whether a key of age's own is the right one cannot be told from outside
        #[arg(long)]
        all: bool,
    },
    /// Find hosts that cannot read what they need, and secrets that anybody can read
    Check,
}

/// Obeys.
///
/// # Errors
/// The repository cannot be read, a secret not be opened, or a file not be written.
pub fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    let mut vault = Vault::open(&args.dir, Opener::any(&identities(args)))?;
    let done = match &args.command {
        Command::List => list(common, &vault),
        Command::Show { what } => show(common, &mut vault, what),
        Command::Edit { file } => edit(common, &mut vault, file),
        Command::Encrypt { files } => encrypt(common, &mut vault, files),
        Command::Rekey { files, all } => rekey(common, &mut vault, files, *all),
        Command::Check => Ok(check(common, &vault)),
    };
    match done.map_err(anyhow::Error::downcast::<VaultError>) {
        Ok(ended) => Ok(ended),
        Err(Ok(error @ (VaultError::Mistakes { .. } | VaultError::Unsound { .. }))) => {
            complain(common, &vault, &error);
            eprintln!("nothing was written");
            Ok(Ended::Mistaken)
        }
        Err(Ok(error)) => Err(error.into()),
        Err(Err(error)) => Err(error),
    }
}

/// Says where the caller's keys may be.
fn identities(args: &Args) -> Vec<PathBuf> {
    if !args.identity.is_empty() {
        return args.identity.clone();
    }
    let of = |name| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    let home = of("HOME").unwrap_or_default();
    let config = of("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
    let own = of("MAINSTAY_IDENTITY").unwrap_or_else(|| config.join("mainstay/identity"));
    let sops = of("SOPS_AGE_KEY_FILE").unwrap_or_else(|| config.join("sops/age/keys.txt"));
    vec![own, sops, home.join(".ssh/id_ed25519"), home.join(".ssh/id_rsa")]
}

/// A line of the list.
struct Row {
    /// The value's; empty for a whole file.
    name: String,
    file: String,
    /// Who can read it, in words.
    by: String,
    is_sealed: bool,
}

fn list(common: &Common, vault: &Vault) -> anyhow::Result<Ended> {
    let mut rows = Vec::new();
    for file in vault.files() {
        for piece in vault.pieces(&file)? {
            let by = match &piece.readers {
                None => "NOT ENCRYPTED".to_owned(),
                Some(_) => vault.readers(&file).map_or_else(|_| "unknown".to_owned(), |readers| whom(vault, &readers)),
            };
            let (name, file, is_sealed) = (piece.name.unwrap_or_default(), piece.file, piece.readers.is_some());
            rows.push(Row { name, file, by, is_sealed });
        }
    }
    if common.json {
        let row = |Row { name, file, is_sealed, .. }: &Row| {
            let name = Some(name).filter(|name| !name.is_empty());
            json!({ "name": name, "file": file, "encrypted": is_sealed, "for": vault.readers(file).ok() })
        };
        println!("{:#}", Value::from(rows.iter().map(row).collect::<Vec<_>>()));
        return Ok(Ended::Well);
    }
    if rows.is_empty() {
        println!("there are no secrets; `mainstay secret edit secrets/NAME.yaml` begins with them");
        return Ok(Ended::Well);
    }
    let widest = |title: &str, of: fn(&Row) -> &str| {
        rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0).max(title.len())
    };
    let (first, second) = (widest("NAME", |row| &row.name), widest("FILE", |row| &row.file));
    println!("{:<first$}  {:<second$}  FOR", "NAME", "FILE");
    for Row { name, file, by, .. } in &rows {
        let name = if name.is_empty() { "-" } else { name };
        println!("{:<first$}  {:<second$}  {by}", shown(name), shown(file));
    }
    Ok(Ended::Well)
}

/// Names those who are to read something, by how many there are.
fn whom(vault: &Vault, readers: &[String]) -> String {
    let people = readers.iter().filter(|key| vault.parsed().sealed.recipients.contains(key)).count();
    let count = |count: usize, one: &str, many: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        count => Some(format!("{count} {many}")),
    };
    let parts = [count(readers.len() - people, "host", "hosts"), count(people, "person", "people")];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "nobody".to_owned() } else { parts.join(" and ") }
}

fn show(common: &Common, vault: &mut Vault, what: &str) -> anyhow::Result<Ended> {
    let opened = vault.show(what)?;
    match std::str::from_utf8(&opened) {
        Ok(text) if common.json => println!("{:#}", json!({ "name": what, "value": text })),
        // As it is: it may be what a program reads.
        Ok(text) => print!("{text}"),
        Err(_) if common.json => anyhow::bail!("{what} is not text, which JSON cannot hold"),
        Err(_) => super::out::raw(&opened),
    }
    Ok(Ended::Well)
}

fn edit(common: &Common, vault: &mut Vault, file: &std::path::Path) -> anyhow::Result<Ended> {
    let file = vault.named(file)?;
    let draft = vault.draft(&file)?;
    let is_new = !vault.tree().entries.contains_key(&file);
    let desk = editor::Desk::new(&file)?;
    let mut text = if is_new { editor::blank(&file) } else { draft.clone() };
    let mut is_again = false;
    loop {
        let edited = match desk.edit(&text) {
            Ok(edited) => edited,
            // What was written the first time is not lost with the editor.
            Err(error) if is_again => {
                let place = desk.keep();
                anyhow::bail!(
                    "{error:#}; what you wrote before is in {}, in memory, until you remove it",
                    place.display()
                );
            }
            Err(error) => return Err(error),
        };
        if *edited == *draft || (is_new && *edited == *text) {
            match common.json {
                true => tell(common, vault, &[]),
                false => println!("nothing was changed"),
            }
            return Ok(Ended::Well);
        }
        match vault.store(&file, &edited) {
            Ok(sealing) => {
                tell(common, vault, &[(file, sealing)]);
                return Ok(Ended::Well);
            }
            Err(error) => {
                complain(common, vault, &error);
                if editor::asks_again() && editor::wants_again().unwrap_or(false) {
                    is_again = true;
                    text = edited;
                    continue;
                }
                let place = desk.keep();
                anyhow::bail!(
                    "{file} was left as it is; what you wrote is in {}, in memory, until you remove it",
                    place.display()
                );
            }
        }
    }
}

/// Says what stands in the way.
fn complain(common: &Common, vault: &Vault, error: &VaultError) {
    match error {
        VaultError::Mistakes { mistakes, .. } => eprint!("{}", draw::render(mistakes, vault.tree(), common.colour())),
        VaultError::Unsound { mistakes, .. } => {
            eprint!("{}", draw::render(mistakes, vault.tree(), common.colour()));
            eprintln!("error: {error}");
        }
        _ => eprintln!("error: {}", crate::chain(error)),
    }
}

fn encrypt(common: &Common, vault: &mut Vault, files: &[PathBuf]) -> anyhow::Result<Ended> {
    let all = files.is_empty();
    let files = match all {
        true => vault.files(),
        false => files.iter().map(|file| vault.named(file)).collect::<Result<_, _>>()?,
    };
    let mut done = Vec::new();
    for file in files {
        match vault.encrypt(&file) {
            Ok(sealing) => done.push((file, sealing)),
            // What SOPS encrypts is encrypted.
            Err(VaultError::Mistakes { mistakes, .. }) if all && is_of_sops(&mistakes) => {}
            Err(error) => return Err(error.into()),
        }
    }
    tell(common, vault, &done);
    Ok(Ended::Well)
}

fn rekey(common: &Common, vault: &mut Vault, files: &[PathBuf], everything: bool) -> anyhow::Result<Ended> {
    let all = files.is_empty();
    let files = match all {
        true => vault.files(),
        false => files.iter().map(|file| vault.named(file)).collect::<Result<_, _>>()?,
    };
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for file in files {
        match vault.rekey(&file, everything) {
            Ok(sealing) => done.push((file, sealing)),
            Err(VaultError::Mistakes { mistakes, .. }) if all && is_of_sops(&mistakes) => {
                eprintln!("{file} is left to SOPS: `sops updatekeys {file}`");
            }
            Err(error) => failed.push(error),
        }
    }
    tell(common, vault, &done);
    for error in &failed {
        eprintln!("error: {}", crate::chain(error));
    }
    Ok(if failed.is_empty() { Ended::Well } else { Ended::Impossible })
}

fn is_of_sops(mistakes: &[Diagnostic]) -> bool {
    mistakes.iter().any(|mistake| mistake.rule == "secret-sops")
}

/// Says what was written.
fn tell(common: &Common, vault: &Vault, done: &[(String, Sealing)]) {
    if common.json {
        let row = |(file, sealing): &(String, Sealing)| json!({ "file": file, "encrypted": sealing.sealed, "for": sealing.readers, "rotate": sealing.lost_readers });
        println!("{:#}", Value::from(done.iter().map(row).collect::<Vec<_>>()));
        return;
    }
    for (file, Sealing { sealed, readers, replaced, lost_readers }) in done.iter().filter(|(_, it)| it.sealed > 0) {
        let whom = whom(vault, readers);
        match (replaced, file.ends_with(".age")) {
            (Some(plain), _) => {
                println!(
                    "{plain}.age: encrypted for {whom}; {plain} is gone, but older commits have it if it was in one"
                );
            }
            (None, true) => println!("{file}: encrypted for {whom}"),
            (None, false) => {
                println!("{file}: {sealed} value{} encrypted for {whom}", if *sealed == 1 { "" } else { "s" });
            }
        }
        if *lost_readers {
            println!("  somebody could read it before who cannot now, and may know what it was: change it as well");
        }
        if !readers.iter().any(|key| vault.parsed().sealed.recipients.contains(key)) {
            println!("  no person can read it: fleet.yaml names no `recipients`");
        }
    }
    if done.iter().all(|(_, sealing)| sealing.sealed == 0) {
        println!("nothing had to be encrypted");
    }
}

fn check(common: &Common, vault: &Vault) -> Ended {
    let is_meant = |it: &&Diagnostic| {
        ["secret", "sealed", "recipient"].iter().any(|rule| it.rule.starts_with(rule))
            || it.location.file.starts_with("secrets/")
    };
    let mut found: Vec<Diagnostic> = vault.parsed().diagnostics.iter().filter(is_meant).cloned().collect();
    for (file, who) in vault.strangers() {
        let what = match who {
            Some(name) => format!("`{name}` is encrypted for more than those who should read it"),
            None => "this file is encrypted for more than those who should read it".to_owned(),
        };
        let mut warning = Diagnostic::warning("secret-stranger", Location::whole(&file), what);
        warning.help("`mainstay secret rekey`; then change it, since they may know what it is");
        found.push(warning);
    }
    let is_faulty = found.iter().any(Diagnostic::is_error);
    if common.json {
        println!("{:#}", draw::json(&found));
    } else if found.is_empty() {
        let (files, people) = (vault.files().len(), vault.parsed().sealed.recipients.len());
        println!(
            "{files} file{} with secrets: everybody can read what is theirs ({people} of `recipients`)",
            if files == 1 { "" } else { "s" }
        );
    } else {
        print!("{}", draw::render(&found, vault.tree(), common.colour()));
    }
    if is_faulty { Ended::Mistaken } else { Ended::Well }
}
