//! `mainstay install`: from a program on a host to an agent that follows a repository.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde_json::{Value, json};
use spec::diagnostic::Diagnostic;
use spec::id::{CommitId, HostName, shown};
use spec::manifest::{self, Said};
use spec::memory::Memory;
use spec::tree::{Entry, Tree};
use spec::trust::Require;

use super::{Common, Ended, settings_path};
use crate::belief::{self, Refusal};
use crate::draw;
use crate::git::{BranchName, Files, Mirror, Url};
use crate::identity::Identity;
use crate::install::{self, First, server};
use crate::ledger::Ledger;
use crate::settings::Settings;
use crate::trust::{Before, Floor, Judge};
use crate::upstream::{Done, LIMITS, Question, Upstream};

const EXAMPLES: &str = "\
Examples:
  mainstay install --repo ssh://git@git.example/fleet.git
  mainstay install --repo https://git.example/fleet.git --host attic
  mainstay install --enrol                  also where it is installed already";

/// Follow a repository from now on: settings, key, and service
///
/// Writes /etc/mainstay/agent.yaml, makes a key where the repository is reached over ssh, reads the repository once, and enables and
/// starts the service. Settings that are there stay as they are. Where something is missing, it says what, and goes on from there
/// when it is called again.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "switches of the command line, independent of each other")]
pub struct Args {
    /// The repository to follow: ssh://, user@host:path, https://, git:// or http://
    #[arg(long, value_name = "URL")]
    repo: Option<String>,
    /// The branch to follow [default: main]
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,
    /// A private key for ssh [default: one that is made now]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// A file with the server's keys for ssh, as in known_hosts
    #[arg(long, value_name = "FILE", conflicts_with = "trust_server")]
    known_hosts: Option<PathBuf>,
    /// Take the key that the server shows now for its own: whoever stands between could be it
    #[arg(long)]
    trust_server: bool,
    /// A file with those who sign the commits, in the form of git's allowedSignersFile
    #[arg(long, value_name = "FILE", conflicts_with = "trust_signers")]
    signers: Option<PathBuf>,
    /// Believe at first those whom the repository names now: whoever stands between could have named them
    #[arg(long)]
    trust_signers: bool,
    /// Push this host's line for fleet.yaml as a branch, enrol/HOST, for somebody to take over
    #[arg(long)]
    enrol: bool,
}

/// Installs the agent.
///
/// # Errors
/// Something is missing or in the way; it says what, and what to do.
pub async fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    let mut report = Report { json: common.json, said: Vec::new() };
    let installed = install(common, args, &mut report).await?;
    if common.json {
        println!("{:#}", json!({ "installed": installed, "said": report.said }));
    }
    Ok(if installed { Ended::Well } else { Ended::Impossible })
}

/// Installs it, and says whether it is: else a person has to do something first.
async fn install(common: &Common, args: &Args, report: &mut Report) -> anyhow::Result<bool> {
    if !rustix::process::geteuid().is_root() {
        bail!("installing writes to /etc and starts a service: run it as root");
    }
    let path = settings_path(common);
    let mut public = None;
    if path.exists() {
        let settings = common.settings()?;
        agrees(args, &settings, &path)?;
        report.say("settings", &format!("{} is there and stays as it is", path.display()));
        if let Some(signers) = args.signers.as_ref().filter(|_| settings.trust.signers.is_none()) {
            let text =
                std::fs::read_to_string(signers).with_context(|| format!("failed to read {}", signers.display()))?;
            let file = install::write_signers(&path, &text)?;
            report
                .say("trust", &format!("those in {} are believed, and stand in {}", signers.display(), file.display()));
        }
    } else {
        let Some(repository) = &args.repo else { bail!("say which repository to follow: mainstay install --repo URL") };
        let url = Url::parse(repository, Files::Refused)?;
        if let Some(branch) = &args.branch {
            BranchName::parse(branch)?;
        }
        let (key, known_hosts) = match url.ssh_server() {
            None => (args.key.clone(), args.known_hosts.clone()),
            Some((host, port)) => {
                let Some(known) = known(args, host, port, repository, report).await? else { return Ok(false) };
                let key = own_key(common, args, report).await?;
                public = key.as_ref().map(|key| key.public.clone());
                (args.key.clone().or(key.map(|key| key.path)), known)
            }
        };
        let signers = args.signers.as_ref().map(std::path::absolute).transpose()?;
        let first = First {
            repository,
            branch: args.branch.as_deref(),
            host: common.host.as_ref(),
            key: key.as_deref(),
            known_hosts: known_hosts.as_deref(),
            signers: signers.as_deref(),
        };
        install::write_settings(&path, &first)?;
        report.say("settings", &format!("wrote {}", path.display()));
    }
    let settings = common.settings()?;
    let host = settings.host()?;
    let first = Told { path: &path, takes_signers: args.trust_signers, enrols: args.enrol, public: public.as_deref() };
    if !reads(&settings, &host, &first, report).await? {
        return Ok(false);
    }
    for path in install::bring()? {
        report.say("program", &format!("wrote {}", path.display()));
    }
    install::start().await?;
    report.say(
        "service",
        "enabled and started: `mainstay status` says how it fares, `journalctl -fu mainstay` what it does",
    );
    Ok(true)
}

/// What is said of an installation: to people at once, to programs at its end.
struct Report {
    json: bool,
    said: Vec<Value>,
}

impl Report {
    fn say(&mut self, what: &str, text: &str) {
        match self.json {
            true => self.said.push(json!({ "what": what, "text": text })),
            false => println!("{what:<11} {text}"),
        }
    }

    /// Adds lines to what was said last.
    fn add(&mut self, lines: &str) {
        if !self.json {
            lines.lines().for_each(|line| println!("            {}", shown(line)));
        } else if let Some(last) = self.said.last_mut() {
            last["lines"] = lines.lines().collect();
        }
    }

    /// Says what a person has to do now.
    fn ask(&mut self, text: &str) {
        match self.json {
            true => self.said.push(json!({ "what": "next", "text": text })),
            false => println!("{text}"),
        }
    }
}

/// Refuses to take another repository for the one that the settings name.
fn agrees(args: &Args, settings: &Settings, path: &Path) -> anyhow::Result<()> {
    let differs =
        |asked: &Option<String>, said: Option<&str>| asked.as_deref().is_some_and(|asked| Some(asked) != said);
    if differs(&args.repo, settings.repository.as_deref()) {
        let said = settings.repository.as_deref().map_or_else(|| "none".to_owned(), Url::shown);
        bail!("{} follows {said}: edit it, or remove it and install again", path.display());
    }
    if differs(&args.branch, Some(&settings.branch)) {
        bail!("{} follows the branch {}: edit it, or remove it and install again", path.display(), settings.branch);
    }
    Ok(())
}

/// Makes sure that the server's key is known. `None` after saying what a person has to decide.
async fn known(
    args: &Args,
    host: &str,
    port: Option<u16>,
    repository: &str,
    report: &mut Report,
) -> anyhow::Result<Option<Option<PathBuf>>> {
    if let Some(file) = &args.known_hosts {
        return Ok(Some(Some(std::path::absolute(file)?)));
    }
    if let Some(file) = server::knows(host, port).await? {
        return Ok(Some(file));
    }
    let keys = server::ask(host, port).await?;
    let prints = server::fingerprints(&keys).await?;
    if args.trust_server {
        let path = server::trust(&keys)?;
        report.say("server", &format!("{host} is trusted with these keys, now in {}:", path.display()));
        report.add(&prints);
        return Ok(Some(Some(path)));
    }
    report
        .say("server", &format!("{host} is not known to this host. It shows these keys, and so could somebody else:"));
    report.add(&prints);
    report.ask(&format!(
        "Compare them with what the server's owner publishes. Then either\n  \
         mainstay install --repo {} --trust-server\n\
         or name a file that holds the right ones with --known-hosts. Nothing was changed.",
        shown(repository)
    ));
    Ok(None)
}

/// Returns the key that is made for this host, unless another one is named.
async fn own_key(common: &Common, args: &Args, report: &mut Report) -> anyhow::Result<Option<server::Key>> {
    if args.key.is_some() {
        return Ok(None);
    }
    let host = Settings { host: common.host.clone(), ..Settings::default() }.host()?;
    let key = server::key(&format!("mainstay@{host}")).await?;
    let verb = if key.is_new { "made" } else { "found" };
    report.say("key", &format!("{verb} {}", key.path.display()));
    Ok(Some(key))
}

/// Reads the repository once, as the service will, and says what this host is in it. A host that is not named yet is no mistake: the
/// agent waits for the commit that names it.
async fn reads(settings: &Settings, host: &HostName, told: &Told<'_>, report: &mut Report) -> anyhow::Result<bool> {
    install::make_folder(&settings.state, 0o700)?;
    let mut upstream = Upstream::open(settings)?;
    // What is there already stays.
    let believed = Ledger::peek(&settings.state).ok().and_then(|ledger| ledger.memory.believed.clone());
    upstream.fetch(Question { keep: believed.into_iter().collect(), ..Question::default() });
    let tip = match upstream.done().await {
        Done::Fetched(Ok(fetched)) => fetched.tip,
        Done::Fetched(Err(error)) => {
            let shown_url = settings.repository.as_deref().map(Url::shown).unwrap_or_default();
            report.say("repository", &format!("{shown_url} cannot be read: {}", crate::chain(&error)));
            if let Some(public) = told.public {
                report.ask(&format!(
                    "Let this key read it, and write refs/notes/mainstay/* and refs/mainstay/* for the records:\n  {public}"
                ));
            }
            report.ask("Then call `mainstay install` again. The service was not started.");
            return Ok(false);
        }
        Done::Pushed(_) => bail!("the repository was not read"),
    };
    report.say("repository", &format!("{} {}", tip.short(), upstream.subject(&tip)));
    let source = upstream.source().context("the mirror is busy")?;
    let tree = source.mirror().tree(&tip, &LIMITS).with_context(|| format!("failed to read commit {}", tip.short()))?;
    if !believes(settings, source.mirror(), (&tip, &tree), told, report)? {
        return Ok(false);
    }
    let key = match belief::believe(&tree, Some(tip.clone()), host, &Memory::default(), None) {
        Ok((belief, _)) => {
            let apps: Vec<&str> = belief.desired.apps.keys().map(spec::id::AppName::as_str).collect();
            let named = if apps.is_empty() { "no application is placed here".to_owned() } else { apps.join(", ") };
            report.say("host", &format!("{host} of {}: {named}", belief.desired.fleet));
            belief.keys.get(host).cloned()
        }
        Err(Refusal::Mistakes(mistakes)) => {
            let text = draw::render(&mistakes, &tree, false);
            report.say("host", &waits(&tip, &format!("it has mistakes:\n\n{text}")));
            None
        }
        Err(refusal) => {
            report.say("host", &waits(&tip, &refusal.to_string()));
            None
        }
    };
    if let Some(identity) = enrol(settings, host, key.as_deref(), report).await
        && told.enrols
    {
        propose(&mut upstream, host, &identity, (&tip, &tree), report).await;
    }
    Ok(true)
}

/// Says how others come to believe what this host says: by its key in fleet.yaml, where `named` is the one that it has now. Returns the
/// key where fleet.yaml does not name it yet.
async fn enrol(settings: &Settings, host: &HostName, named: Option<&str>, report: &mut Report) -> Option<Identity> {
    let identity = match own_identity(settings, host).await {
        Ok(identity) => identity,
        // It works all the same; others take it by its word until it can sign.
        Err(error) => {
            report.say("identity", &format!("there is no key that it could sign its records with: {error:#}"));
            return None;
        }
    };
    if named.is_some_and(|key| identity.is(key)) {
        report.say("identity", "fleet.yaml names this host's key: what it says is believed");
        return None;
    }
    let why = match named {
        Some(_) => "fleet.yaml names another key for this host, so that what it says is left out. It is:",
        None => "nobody else can speak for this host once fleet.yaml names its key, below `hosts`:",
    };
    report.say("identity", why);
    report.add(&format!("{host}: {{ key: \"{}\" }}", identity.public()));
    Some(identity)
}

/// Pushes the host's line for fleet.yaml as a branch; where that cannot be done, a person writes the line.
async fn propose(
    upstream: &mut Upstream,
    host: &HostName,
    identity: &Identity,
    (tip, tree): (&CommitId, &Tree),
    report: &mut Report,
) {
    let text = match tree.entries.get("fleet.yaml") {
        Some(Entry::File { bytes, .. }) => std::str::from_utf8(bytes).unwrap_or_default(),
        _ => "",
    };
    let content = match manifest::enrolled(text, host, identity.public()) {
        Ok(Some(content)) => content,
        Ok(None) => return,
        Err(why) => {
            return report.say("enrol", &format!("fleet.yaml was left as it is, write the line yourself: {why}"));
        }
    };
    // It may be named elsewhere, in hosts/*.yaml.
    let mistakes =
        |tree: &Tree| manifest::parse(tree, None).diagnostics.into_iter().filter(Diagnostic::is_error).count();
    let mut with = tree.clone();
    with.insert("fleet.yaml", content.as_bytes());
    if mistakes(&with) > mistakes(tree) {
        return report.say(
            "enrol",
            "fleet.yaml was left as it is, write the line yourself: with it the repository would have mistakes",
        );
    }
    match upstream.propose(host.clone(), tip.clone(), content).await {
        Some(Ok((branch, commit))) => {
            report.say("enrol", &format!("pushed {} as the branch {branch}, which nobody follows. Compare the key, and take it over as a commit of your own:", commit.short()));
            report.add(&format!("git fetch origin {branch} && git cherry-pick -S FETCH_HEAD"));
        }
        Some(Err(error)) => {
            report.say(
                "enrol",
                &format!("the branch could not be pushed, write the line yourself: {}", crate::chain(&error)),
            );
        }
        None => report.say("enrol", "the branch was not pushed: the mirror is busy"),
    }
}

async fn own_identity(settings: &Settings, host: &HostName) -> anyhow::Result<Identity> {
    Ok(match Identity::find(settings)? {
        Some(identity) => identity,
        None => Identity::open(&server::identity(&format!("mainstay@{host}")).await?)?,
    })
}

/// What is known of an installation beside the settings.
struct Told<'a> {
    /// Where the settings are.
    path: &'a Path,
    /// Whom the repository names is believed.
    takes_signers: bool,
    /// The host's line for fleet.yaml is to be pushed as a branch.
    enrols: bool,
    /// The public key that was made for this host.
    public: Option<&'a str>,
}

/// Loud, as it is root that is given away.
const NOBODY: &str =
    "nobody has to sign commits here: whoever can push to the branch is root on this host; see `trust` in README";

/// Says whom this host believes. `false` after saying what a person has to decide.
fn believes(
    settings: &Settings,
    mirror: &Mirror,
    (tip, tree): (&CommitId, &Tree),
    told: &Told<'_>,
    report: &mut Report,
) -> anyhow::Result<bool> {
    let text = |path: &str| match tree.entries.get(path) {
        Some(Entry::File { bytes, .. }) => std::str::from_utf8(bytes).ok().map(str::to_owned),
        _ => None,
    };
    let fleet = text("fleet.yaml").unwrap_or_default();
    let said = manifest::said_of_trust(&fleet, text);
    let is_told = settings.trust.signers.is_some() || Floor::open(&settings.trust.floor).commit()?.is_some();
    let mut first = settings.trust.clone();
    match said {
        Said::Trust(trust) if trust.require != Require::None && !is_told => {
            let people: String =
                trust.signers.iter().map(|signer| format!("{} {}\n", signer.principals, signer.key)).collect();
            report.say(
                "trust",
                "The repository says that its commits are signed with these keys, and so could somebody else:",
            );
            report.add(&people);
            if !told.takes_signers {
                report.ask(
                    "Compare them with the people they are of. Then call `mainstay install` again, with --trust-signers, or with \
                     --signers and a file that holds the right ones. The service was not started.",
                );
                return Ok(false);
            }
            let files: Vec<String> = manifest::files_of_signers(&fleet).iter().filter_map(|path| text(path)).collect();
            let file = install::write_signers(told.path, &files.join("\n"))?;
            report.say("trust", &format!("they are believed, and stand in {}", file.display()));
            first.signers = Some(file);
        }
        Said::Nothing if settings.trust.signers.is_none() => report.say("trust", NOBODY),
        Said::Trust(trust) if trust.require == Require::None => report.say("trust", NOBODY),
        _ => {}
    }
    let judged = Judge::new(mirror, &first)
        .and_then(|judge| judge.believe(Before::default(), tip, &settings.branch, Timestamp::now()));
    if let Err(refusal) = judged {
        report.say("trust", &waits(tip, &refusal.to_string()));
    }
    Ok(true)
}

fn waits(tip: &CommitId, why: &str) -> String {
    format!("the agent changes nothing until a commit after {} can be believed: {}", tip.short(), why.trim_end())
}
