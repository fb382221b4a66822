//! `cargo lab fleet`: how long `mainstay fleet status` takes over the refs of thousands of hosts, from a clone that has them and from a
//! fresh one. The repository is made up: commits, records and heartbeats as agents write them, in one stream for git.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::product;
use ssh_key::private::Ed25519Keypair;
use ssh_key::{HashAlg, LineEnding, PrivateKey};

/// What an answer from a clone that has everything may take.
const AIM: Duration = Duration::from_secs(2);
/// How often a warm clone is asked.
const ROUNDS: usize = 5;
/// The first moment of the made-up history.
const BEGIN: u64 = 1_780_000_000;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many hosts.
    #[arg(long, default_value_t = 10_000)]
    hosts: usize,
    /// How many commits each of them was brought to, with two records for each.
    #[arg(long, default_value_t = 20)]
    deployments: usize,
    /// The hosts have no keys, and sign nothing.
    #[arg(long)]
    unsigned: bool,
    /// The program [default: one built now, in the profile of the lab]
    #[arg(long)]
    program: Option<PathBuf>,
}

/// Measures, prints, and fails where the aim is missed.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let program = arguments.program.clone().map_or_else(product::binary, Ok)?;
    let scratch = tempfile::tempdir().context("failed to make a folder")?;
    let (origin, clone) = (scratch.path().join("origin.git"), scratch.path().join("clone"));
    let who = if arguments.unsigned { "hosts without keys" } else { "hosts that sign what they say" };
    println!("{} {who}, {} deployments each", arguments.hosts, arguments.deployments);
    let begun = Instant::now();
    make_up(&origin, arguments)?;
    println!("made up in {:.0?}; load {}", begun.elapsed(), load()?);
    let (origin_text, clone_text) = (origin.to_string_lossy().into_owned(), clone.to_string_lossy().into_owned());
    git(scratch.path(), &["clone", "--quiet", "--single-branch", &format!("file://{origin_text}"), &clone_text])?;
    let status = |more: &[&str]| ask(&program, &clone, more);
    println!("{:<56} {:>8.2?}", "a fresh clone: everything is fetched, then read", status(&[])?);
    println!("{:<56} {:>8.2?}", "the same clone again: nothing new is fetched, then read", status(&[])?);
    let mut warm = (0..ROUNDS).map(|_| status(&["--no-fetch"])).collect::<Result<Vec<_>>>()?;
    warm.sort();
    let median = warm[ROUNDS / 2];
    println!("{:<56} {:>8.2?}  aim: {AIM:?}", "the same clone, read only (the middle of five)", median);
    if median > AIM {
        bail!("that is more than {AIM:?}");
    }
    Ok(())
}

/// Other work on the machine makes all of it longer.
fn load() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg").context("failed to read the load")?;
    Ok(text.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}

/// Asks once, and says how long the answer took.
fn ask(program: &Path, clone: &Path, more: &[&str]) -> Result<Duration> {
    let begun = Instant::now();
    let mut command = Command::new(program);
    command.args(["fleet", "status", "--dir"]).arg(clone).args(more);
    let output = command.output().context("failed to start the program")?;
    let took = begun.elapsed();
    let said = String::from_utf8_lossy(&output.stdout);
    // 4: not all is well in it.
    if output.status.code() != Some(4) || !said.contains("APPLICATION") {
        bail!("it failed: {said}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(took)
}

fn make_up(origin: &Path, arguments: &Arguments) -> Result<()> {
    let name = origin.to_string_lossy().into_owned();
    git(Path::new("/"), &["init", "--quiet", "--bare", "--initial-branch=main", &name])?;
    let main = import(origin, |stream| commits(stream, arguments))?;
    let main: Vec<String> = main.into_iter().map(|(_, id)| id).collect();
    let told = import(origin, |stream| records(stream, arguments, &main))?;
    let mut refs: Vec<String> = told.into_iter().map(|(name, id)| format!("{id} {name}\n")).collect();
    refs.sort_by(|left, right| left[41..].cmp(&right[41..]));
    let packed = format!("# pack-refs with: peeled fully-peeled sorted \n{}", refs.concat());
    std::fs::write(origin.join("packed-refs"), packed).context("failed to write the refs")?;
    git(origin, &["repack", "-a", "-d", "--quiet"])
}

/// What each mark of a stream stands for: a ref where it is the last of one, else nothing.
type Marks = Vec<String>;

/// Has git read a stream, and returns the refs that it names with the commits that they end in.
fn import(
    repository: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<Marks>,
) -> Result<Vec<(String, String)>> {
    let marks = repository.join("made-up-marks");
    let mut command = Command::new("git");
    command.arg("-C").arg(repository).args(["fast-import", "--quiet", "--force"]);
    command.arg(format!("--export-marks={}", marks.display())).stdin(Stdio::piped());
    let mut child = command.spawn().context("failed to start git")?;
    let mut stream = BufWriter::new(child.stdin.take().context("git has no input")?);
    let names = write(&mut stream).and_then(|names| stream.flush().map(|()| names));
    drop(stream);
    let ended = child.wait().context("git did not end")?;
    if !ended.success() {
        bail!("git does not take what was made up: {ended}");
    }
    let names = names.context("failed to write to git")?;
    let text = std::fs::read_to_string(&marks).context("git wrote no marks")?;
    let mut found = Vec::new();
    for line in text.lines() {
        let (mark, id) = line.split_once(' ').context("a mark is off")?;
        let number: usize = mark.trim_start_matches(':').parse().context("a mark is off")?;
        found.push((number, id.to_owned()));
    }
    found.sort();
    let named = found.into_iter().map(|(number, id)| (names.get(number - 1).cloned().unwrap_or_default(), id));
    Ok(named.filter(|(name, _)| !name.is_empty()).collect())
}

fn commits(stream: &mut dyn Write, arguments: &Arguments) -> std::io::Result<Marks> {
    let hosts: String = (0..arguments.hosts).map(|number| entry(number, arguments)).collect::<std::io::Result<_>>()?;
    for number in 0..arguments.deployments {
        let at = BEGIN + 3600 * number as u64;
        writeln!(stream, "commit refs/heads/main\nmark :{}\ncommitter Ada <ada@example.org> {at} +0000", number + 1)?;
        data(stream, &format!("change {number}"))?;
        if number == 0 {
            writeln!(stream, "M 100644 inline fleet.yaml")?;
            data(stream, &format!("fleet: home\nhosts:\n{hosts}"))?;
        }
        for app in ["web", "broker", "agentd"] {
            writeln!(stream, "M 100644 inline apps/{app}/{app}.service")?;
            data(stream, &format!("[Service]\nExecStart=/usr/bin/{app}\nEnvironment=N={number}\n"))?;
        }
    }
    Ok((0..arguments.deployments).map(|number| format!("commit {number}")).collect())
}

/// A host in fleet.yaml.
fn entry(number: usize, arguments: &Arguments) -> std::io::Result<String> {
    let public = key(number).public_key().to_openssh().map_err(std::io::Error::other)?;
    Ok(match arguments.unsigned {
        true => format!("  h{number:05}: {{}}\n"),
        false => format!("  h{number:05}: {{ key: \"{}\" }}\n", public.trim()),
    })
}

/// The key of a host: always the same.
fn key(number: usize) -> PrivateKey {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
    PrivateKey::from(Ed25519Keypair::from_seed(&seed))
}

/// Puts a host's signature behind what it says, as the agent does.
fn signed(number: usize, namespace: &str, text: String, arguments: &Arguments) -> std::io::Result<String> {
    if arguments.unsigned {
        return Ok(text);
    }
    let signature = key(number).sign(namespace, HashAlg::Sha512, format!("home\n{text}").as_bytes());
    let armoured = signature.and_then(|it| it.to_pem(LineEnding::LF)).map_err(std::io::Error::other)?;
    Ok(format!("{text}{}\n", armoured.trim_end()))
}

/// Writes all records of all hosts: `applying` and `converged` for each commit, and a heartbeat with the last of them. One in a thousand
/// went back.
fn records(stream: &mut dyn Write, arguments: &Arguments, main: &[String]) -> std::io::Result<Marks> {
    let mut names = Marks::new();
    for number in 0..arguments.hosts {
        let host = format!("h{number:05}");
        let (mut before, mut last) = (None, String::new());
        for (deployment, commit) in main.iter().enumerate() {
            let is_last = deployment + 1 == main.len();
            for (part, state) in ["applying", "converged"].into_iter().enumerate() {
                let state = if is_last && part == 1 && number % 1000 == 7 { "rolled-back" } else { state };
                let at = BEGIN + 3600 * deployment as u64 + 60 * part as u64;
                begin(stream, &host, at, names.len() + 1, before)?;
                data(stream, &format!("mainstay: {host} {state}"))?;
                writeln!(stream, "N inline {commit}")?;
                let text = note(&host, commit, 2 * deployment + part + 1, at, state);
                last = signed(number, "mainstay-record", text, arguments)?;
                data(stream, &last)?;
                names.push(if is_last && part == 1 { format!("refs/notes/mainstay/{host}") } else { String::new() });
                before = Some(names.len());
            }
        }
        let (at, commit) = (BEGIN + 3600 * main.len() as u64, main.last().map_or("", String::as_str));
        begin(stream, &host, at, names.len() + 1, None)?;
        let text = format!("mainstay: {host} seen at {}, at {commit}\n\n{last}", moment(at));
        data(stream, &signed(number, "mainstay-seen", text, arguments)?)?;
        names.push(format!("refs/mainstay/seen/{host}"));
    }
    Ok(names)
}

/// Begins a commit on a branch that all of them share: a ref for each would be a file for each.
fn begin(stream: &mut dyn Write, host: &str, at: u64, mark: usize, before: Option<usize>) -> std::io::Result<()> {
    let from = before.map(|before| format!("from :{before}\n")).unwrap_or_default();
    write!(stream, "reset refs/made-up/scratch\n{from}\ncommit refs/made-up/scratch\nmark :{mark}\n")?;
    writeln!(stream, "committer {host} <mainstay@{host}> {at} +0000")
}

fn note(host: &str, commit: &str, counter: usize, at: u64, state: &str) -> String {
    let at = moment(at);
    let digest = format!("{counter:064x}");
    let apps = ["agentd", "broker", "web"].map(|app| {
        format!(
            "{{\"app\":\"{app}\",\"state\":\"{state}\",\"since\":\"{at}\",\"digest\":\"{digest}\",\"changes\":2}}\n"
        )
    });
    format!(
        "{host} {state}: agentd, broker, web\n\n{{\"mainstay-record\":1,\"fleet\":\"home\",\"host\":\"{host}\",\"commit\":\"{commit}\",\
         \"counter\":{counter},\"at\":\"{at}\"}}\n{}",
        apps.concat()
    )
}

fn moment(at: u64) -> String {
    format!("2026-06-{:02}T{:02}:00:00Z", 1 + at / 86_400 % 28, at / 3600 % 24)
}

fn data(stream: &mut dyn Write, text: &str) -> std::io::Result<()> {
    writeln!(stream, "data {}\n{text}", text.len())
}

fn git(folder: &Path, arguments: &[&str]) -> Result<()> {
    let status = Command::new("git").arg("-C").arg(folder).args(arguments).status().context("failed to start git")?;
    if !status.success() {
        bail!("git {}: {status}", arguments.join(" "));
    }
    Ok(())
}
