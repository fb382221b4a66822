//! The floor: the calls that no agent can avoid, made by a program that does nothing else, on the same host as the agent.
//!
//! It runs on the host for as long as the bench does and is asked line by line, so that its connections are kept as the
//! agent's are. Nothing here decides anything.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::Host;
use rustix::process::{Pid, Signal};
use rustix::time::{ClockId, clock_gettime};

use super::dbus::Bus;
use super::scene::{self, Unit};
use super::wire::{Engine, Git};

/// What one answer of the floor says: microseconds by name.
pub(super) type Parts = BTreeMap<String, u64>;

/// Where the floor program is on the host.
const PROGRAM: &str = "/usr/local/bin/lab-floor";

/// What runs on the host.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many units there are.
    units: usize,
    /// The repository, at `git://`.
    repository: String,
    /// The image of the containers.
    image: String,
}

/// Answers one line after the other, until the input ends.
pub(crate) fn serve(arguments: &Arguments) -> Result<()> {
    let mut floor = Floor {
        units: scene::units(arguments.units),
        image: arguments.image.clone(),
        git: Git::at(&arguments.repository)?,
        bus: Bus::connect()?,
        engine: Engine::connect()?,
    };
    for line in std::io::stdin().lock().lines() {
        let line = line.context("failed to read what to do")?;
        let words: Vec<&str> = line.split(' ').collect();
        let parts = match words.as_slice() {
            ["look"] => floor.look()?,
            ["converge"] => floor.converge()?,
            ["prepare"] => floor.prepare()?,
            ["change", number, known] => floor.change(number.parse().context("a unit has a number")?, known)?,
            ["stop", unit] => floor.stop(unit)?,
            ["edit", path] => edit(path)?,
            ["unlink", path] => unlink(path)?,
            ["vanish", container] => floor.vanish(container)?,
            ["repair"] => floor.repair()?,
            ["poke", process] => poke(process.parse().context("a process has a number")?)?,
            _ => bail!("the floor does not know `{line}`"),
        };
        println!("{}", serde_json::to_string(&parts).context("failed to spell the answer")?);
    }
    Ok(())
}

struct Floor {
    units: Vec<Unit>,
    image: String,
    git: Git,
    bus: Bus,
    engine: Engine,
}

impl Floor {
    /// Sees that nothing has changed.
    fn look(&mut self) -> Result<Parts> {
        let mut clock = Clock::begin();
        self.git.tip()?;
        clock.lap("ask the repository");
        let names = self.names();
        self.bus.list_units(&names)?;
        clock.lap("list units");
        self.engine.list()?;
        clock.lap("list containers");
        for unit in &self.units {
            for path in [&unit.config_path, &unit.text_path] {
                std::fs::symlink_metadata(path).with_context(|| format!("failed to look at {path}"))?;
            }
        }
        clock.lap("stat files");
        Ok(clock.end())
    }

    /// Brings an empty host to where the repository wants it, one raw call after another.
    fn converge(&mut self) -> Result<Parts> {
        let mut clock = Clock::begin();
        let files = self.units.iter().flat_map(|unit| {
            let config = (unit.config_path.clone(), scene::config(unit.number, "0"));
            [config, (unit.text_path.clone(), unit.text.clone())]
        });
        write_all(&files.collect::<Vec<_>>())?;
        clock.lap("write files");
        let names = self.names();
        self.bus.enable(&names)?;
        clock.lap("enable units");
        self.bus.reload()?;
        clock.lap("reload systemd");
        self.bus.run_jobs("StartUnit", &names)?;
        clock.lap("start units");
        for name in scene::containers() {
            self.engine.run(&name, &self.image)?;
        }
        clock.lap("create containers");
        Ok(clock.end())
    }

    /// Starts services of its own beside those of the repository, to be restarted later.
    fn prepare(&mut self) -> Result<Parts> {
        let spares: Vec<Unit> = (0..scene::CHANGES).map(scene::spare).collect();
        let files = spares.iter().flat_map(|unit| {
            let config = (unit.config_path.clone(), scene::config(unit.number, "0"));
            [config, (unit.text_path.clone(), unit.text.clone())]
        });
        write_all(&files.collect::<Vec<_>>())?;
        self.bus.reload()?;
        self.bus.run_jobs("StartUnit", &spares.into_iter().map(|unit| unit.name).collect::<Vec<_>>())?;
        Ok(Parts::new())
    }

    /// Takes over a new commit that changes one file, and restarts a unit that reads such a file.
    fn change(&mut self, number: usize, known: &str) -> Result<Parts> {
        let mut clock = Clock::begin();
        self.git.fetch(known)?;
        clock.lap("fetch");
        let unit = scene::spare(number);
        write_all(&[(unit.config_path.clone(), scene::config(number, "floor"))])?;
        clock.lap("write the file");
        self.bus.run_jobs("RestartUnit", std::slice::from_ref(&unit.name))?;
        clock.lap("restart the unit");
        Ok(clock.end())
    }

    /// Stops a unit, as somebody on the host would; returns when it was down, in microseconds since 1970.
    fn stop(&mut self, unit: &str) -> Result<Parts> {
        self.bus.run_jobs("StopUnit", &[unit.to_owned()])?;
        now()
    }

    /// Removes a container; returns when it was gone.
    fn vanish(&mut self, container: &str) -> Result<Parts> {
        self.engine.remove(container)?;
        now()
    }

    /// Does what it takes to put one thing of each kind back.
    fn repair(&mut self) -> Result<Parts> {
        let (unit, container) = (scene::spare(0), "floor");
        self.bus.run_jobs("StopUnit", std::slice::from_ref(&unit.name))?;
        let mut clock = Clock::begin();
        self.bus.run_jobs("StartUnit", std::slice::from_ref(&unit.name))?;
        clock.lap("start a unit");
        write_all(&[(unit.config_path.clone(), scene::config(0, "floor"))])?;
        clock.lap("write a file");
        self.engine.run(container, &self.image)?;
        clock.lap("create and start a container");
        self.engine.remove(container)?;
        Ok(clock.end())
    }

    fn names(&self) -> Vec<String> {
        self.units.iter().map(|unit| unit.name.clone()).collect()
    }
}

/// Writes over a file in place; returns when that was done.
fn edit(path: &str) -> Result<Parts> {
    std::fs::write(path, "by hand\n").with_context(|| format!("failed to write {path}"))?;
    now()
}

/// Deletes a file; returns when it was gone.
fn unlink(path: &str) -> Result<Parts> {
    std::fs::remove_file(path).with_context(|| format!("failed to delete {path}"))?;
    now()
}

/// The answer of a question about when.
fn now() -> Result<Parts> {
    Ok(Parts::from([("at".to_owned(), scene::now()?)]))
}

/// Tells the agent to ask the repository now; returns when, in microseconds since 1970.
fn poke(process: i32) -> Result<Parts> {
    let process = Pid::from_raw(process).context("the agent does not run")?;
    let at = scene::now()?;
    rustix::process::kill_process(process, Signal::HUP).context("failed to signal the agent")?;
    Ok(Parts::from([("at".to_owned(), at)]))
}

/// Writes whole files, durably: all under another name, one sync of the file system, then their names.
fn write_all(files: &[(String, String)]) -> Result<()> {
    let mut last = None;
    for (path, content) in files {
        let folder = Path::new(path).parent().context("a file is in a folder")?;
        std::fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
        let mut file = File::create(format!("{path}.new")).with_context(|| format!("failed to create {path}"))?;
        file.write_all(content.as_bytes()).with_context(|| format!("failed to write {path}"))?;
        last = Some(file);
    }
    match last {
        Some(file) if files.len() == 1 => file.sync_all().context("failed to sync a file")?,
        Some(file) => rustix::fs::syncfs(&file).context("failed to sync a file system")?,
        None => {}
    }
    for (path, _) in files {
        std::fs::rename(format!("{path}.new"), path).with_context(|| format!("failed to rename {path}"))?;
    }
    Ok(())
}

/// Tells what each part took, and what all took together in time and in computing.
struct Clock {
    began: Instant,
    lap: Instant,
    cpu: Duration,
    parts: Parts,
}

impl Clock {
    fn begin() -> Clock {
        let now = Instant::now();
        Clock { began: now, lap: now, cpu: cpu(), parts: Parts::new() }
    }

    fn lap(&mut self, name: &str) {
        self.parts.insert(name.to_owned(), micros(self.lap.elapsed()));
        self.lap = Instant::now();
    }

    fn end(mut self) -> Parts {
        self.parts.insert("wall".to_owned(), micros(self.began.elapsed()));
        self.parts.insert("cpu".to_owned(), micros(cpu().saturating_sub(self.cpu)));
        self.parts
    }
}

fn cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The floor program on a host, as the bench sees it; it ends with its input.
pub(super) struct Program {
    child: Child,
    answers: BufReader<ChildStdout>,
    questions: ChildStdin,
}

impl Program {
    /// Puts this very program onto the host and starts it there.
    pub(super) fn start(host: &Host, units: usize, repository: &str, image: &str) -> Result<Program> {
        let own = std::env::current_exe().context("failed to find this program")?;
        host.copy_in(&own, PROGRAM)?;
        let mut command = host.command(&[PROGRAM, "bench-floor", &units.to_string(), repository, image])?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("failed to start the floor program")?;
        let questions = child.stdin.take().context("the floor program has an input")?;
        let answers = child.stdout.take().context("the floor program has an output")?;
        Ok(Program { child, answers: BufReader::new(answers), questions })
    }

    /// Lets the floor do something, and returns what it took.
    pub(super) fn ask(&mut self, question: &str) -> Result<Parts> {
        writeln!(self.questions, "{question}").context("the floor program ended")?;
        let mut line = String::new();
        self.answers.read_line(&mut line).context("the floor program ended")?;
        if line.is_empty() {
            let status = self.child.wait().context("failed to wait for the floor program")?;
            bail!("the floor program ended at `{question}`: {status}");
        }
        serde_json::from_str(&line).with_context(|| format!("the floor program said {line}"))
    }
}
