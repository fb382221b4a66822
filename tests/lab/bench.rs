//! `cargo lab bench`: what mainstay costs on one host, beside what the same work costs when nothing but its calls is made.
//!
//! Agent and floor take turns on the same host in the same minutes, so their ratio holds on a busy machine too. Times that
//! the agent reports of itself are told apart from those that systemd, the engine and the kernel report of it.

mod crowd;
mod dbus;
mod drift;
mod floor;
mod scene;
mod subject;
mod table;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::product;

pub(crate) use floor::{Arguments as FloorArguments, serve as serve_floor};

use floor::{Parts, Program};
use scene::{Scene, Unit};
use subject::{Event, Pace, Subject};
use table::{Row, Samples, Unit as Shown};

/// The settle window of the default settings, in microseconds: what was started has to last so long.
const SETTLE: u64 = 2_000_000;
/// The secret of the webhooks.
const HOOK: &str = "the-bench-tells-of-its-own-changes";

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many services, each with a file that it reads.
    #[arg(long, default_value_t = 100)]
    units: usize,
    /// The agent's binary [default: one built now, in the profile of the lab]
    #[arg(long)]
    program: Option<PathBuf>,
    /// How often the host is emptied and brought to the commit, by each.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many passes that find nothing to do.
    #[arg(long, default_value_t = 100)]
    passes: usize,
    /// How many commits that change one line.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=(scene::CHANGES / 2) as i64))]
    changes: u16,
    /// For how many seconds the agent is left alone, as it is installed.
    #[arg(long, default_value_t = 70)]
    idle: u64,
}

/// Measures all, prints what could be measured, and fails if anything could not.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.units < scene::CHANGES {
        bail!("at least {} units are needed to change one after the other", scene::CHANGES);
    }
    let program = arguments.program.clone().map_or_else(product::binary, Ok)?;
    let before = machine()?;
    let scene = Scene::set()?;
    let units = scene::units(arguments.units);
    scene.commit_little()?;
    let url = scene.repo.git_url();
    let floor = Program::start(&scene.host, arguments.units, &url, &scene.image)?;
    let subject = Subject::install(&scene.host, &program, url)?;
    let mut bench = Bench { scene: &scene, units, floor, subject, rows: Vec::new(), notes: Vec::new() };
    let measured = bench.measure(arguments, &program);
    println!();
    table::print(&bench.rows);
    println!("\n{before}\nload after: {}", load()?);
    println!("{} services with a file each, 5 containers, git://; {}", arguments.units, program.display());
    for note in &bench.notes {
        println!("- {note}");
    }
    measured.with_context(|| format!("the agent said last:\n{}", bench.subject.last_words()))
}

struct Bench<'a> {
    scene: &'a Scene,
    units: Vec<Unit>,
    floor: Program,
    subject: Subject<'a>,
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Bench<'_> {
    fn measure(&mut self, arguments: &Arguments, program: &Path) -> Result<()> {
        self.convergence(arguments.rounds).context("the first convergence could not be measured")?;
        self.changes(usize::from(arguments.changes)).context("the one-line change could not be measured")?;
        self.passes(arguments.passes).context("the pass without work could not be measured")?;
        self.polled(usize::from(arguments.changes)).context("the polled change could not be measured")?;
        self.hooked(usize::from(arguments.changes))
            .context("the change that a webhook tells of could not be measured")?;
        self.drift(usize::from(arguments.changes)).context("the repair of drift could not be measured")?;
        self.crowd(arguments.rounds).context("the repair of drift among many connections could not be measured")?;
        self.idle(arguments.idle).context("the idle agent could not be measured")?;
        let size = std::fs::metadata(program).with_context(|| format!("no {}", program.display()))?.len();
        self.row("binary", Shown::Memory, Samples::from_iter([size / 1024]), None, "15 MB");
        Ok(())
    }

    /// From an empty host to everything running, by each in turn.
    fn convergence(&mut self, rounds: usize) -> Result<()> {
        let (mut floors, mut ups, mut ends, mut reads) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut parts = Parts::new();
        for round in 1..=rounds {
            eprintln!("bench: first convergence, {round} of {rounds}");
            self.scene.clear()?;
            parts = self.floor.ask("converge")?;
            floors.push(wall(&parts)?);
            self.scene.clear()?;
            self.scene.commit_little()?;
            self.subject.start(&Pace::Poked)?;
            self.subject.wait_for("believed", |event| event.message.starts_with("believed"))?;
            self.subject.wait_for("pass done", is_pass)?;
            self.scene.commit_all(&self.units)?;
            let poked = self.poke()?;
            let believed = self.subject.wait_for("believed", |event| event.message.starts_with("believed"))?;
            let done = self.subject.wait_for("pass done", worked)?;
            ups.push(self.scene.all_up()?.saturating_sub(poked));
            ends.push(done.at.saturating_sub(poked));
            reads.push(believed.at.saturating_sub(poked));
        }
        let floor: Samples = floors.into_iter().collect();
        let last = spelled(&parts);
        self.row("first convergence: all runs", Shown::Time, ups.into_iter().collect(), Some(floor.clone()), "1.3 x");
        let floor = floor.plus(SETTLE);
        self.row("  settled and on record", Shown::Time, ends.into_iter().collect(), Some(floor), "1.3 x");
        self.row("  of it: fetch and read", Shown::Time, reads.into_iter().collect(), None, "");
        self.notes.push(
            "first convergence: from the signal to ask the repository until systemd and the engine call the last service and \
             container up, and until the pass has ended. The second includes the settle window of 2 s, and so does its floor. \
             The image is on the host already"
                .to_owned(),
        );
        self.notes.push(format!("the raw calls of the last first convergence, one after another: {last}"));
        self.memory("  memory after it")
    }

    /// One line changes, and the agent is told to look.
    fn changes(&mut self, changes: usize) -> Result<()> {
        self.floor.ask("prepare")?;
        let (mut floors, mut ups, mut parts) = (Vec::new(), Vec::new(), Parts::new());
        for number in 0..changes {
            eprintln!("bench: one-line change, {} of {changes}", number + 1);
            let known = self.scene.repo.tip("main")?.context("the repository has a branch")?;
            self.scene.commit_line(&self.units[number], "changed")?;
            parts = self.floor.ask(&format!("change {number} {known}"))?;
            floors.push(wall(&parts)?);
            let poked = self.poke()?;
            self.subject.wait_for("pass done", worked)?;
            ups.push(self.scene.up_since(&self.units[number])?.saturating_sub(poked));
        }
        let floor = Some(floors.into_iter().collect());
        self.row("one-line change: restarted", Shown::Time, ups.into_iter().collect(), floor, "");
        self.notes.push(format!("the raw calls of the last one-line change: {}", spelled(&parts)));
        Ok(())
    }

    /// The same, found by asking every second.
    fn polled(&mut self, changes: usize) -> Result<()> {
        let mut ups = Vec::new();
        for unit in self.units.iter().skip(scene::CHANGES / 2).take(changes) {
            self.scene.commit_line(unit, "polled")?;
            let pushed = self.scene.pushed_at()?;
            self.subject.wait_for("pass done", worked)?;
            ups.push(self.scene.up_since(unit)?.saturating_sub(pushed));
        }
        self.row("  with a poll every second", Shown::Time, ups.into_iter().collect(), None, "1.1 s");
        Ok(())
    }

    /// The same, told by a webhook: from the start of the client that sends it.
    fn hooked(&mut self, changes: usize) -> Result<()> {
        eprintln!("bench: {changes} changes that a webhook tells of");
        self.scene.host.write("/etc/mainstay/hook", format!("{HOOK}\n"))?;
        self.subject.start(&Pace::Told)?;
        self.subject.wait_for("pass done", is_pass)?;
        let send = format!(
            "date +%s%6N; curl --silent --fail --retry 5 --retry-connrefused --output /dev/null --max-time 10 --request POST \
             --header 'Authorization: Bearer {HOOK}' http://{}/v1/hook/generic",
            subject::ENDPOINT
        );
        let mut ups = Vec::new();
        for unit in self.units.iter().skip(scene::CHANGES / 2).take(changes) {
            self.scene.commit_line(unit, "told")?;
            let begun = self.scene.host.sh(&send)?.trim().parse::<u64>().context("`date` prints a number")?;
            self.subject.wait_for("pass done", worked)?;
            ups.push(self.scene.up_since(unit)?.saturating_sub(begun));
        }
        self.row("  told by a webhook", Shown::Time, ups.into_iter().collect(), None, "150 ms");
        Ok(())
    }

    /// Passes that find nothing to do; after each, the floor looks once.
    fn passes(&mut self, passes: usize) -> Result<()> {
        eprintln!("bench: {passes} passes that find nothing to do");
        self.subject.start(&Pace::Busy)?;
        // The first ones read every file.
        for _ in 0..5 {
            self.subject.wait_for("pass done", is_pass)?;
        }
        let (began, computed) = (scene::now()?, self.subject.cpu()?);
        let (mut looks, mut asks, mut floors) = (Vec::new(), Vec::new(), Vec::new());
        while looks.len() < passes || asks.is_empty() {
            let said = |event: &Event| is_pass(event) || event.message == "asked the repository";
            let event = self.subject.wait_for("pass done", said)?;
            let spent = (number(&event, "wall_us")?, number(&event, "cpu_us")?);
            if is_pass(&event) {
                looks.push(spent);
                floors.push(self.floor.ask("look")?);
            } else {
                asks.push(spent);
            }
        }
        let computed = self.subject.cpu()?.saturating_sub(computed);
        let took = scene::now()?.saturating_sub(began);
        self.pass_rows(&looks, &asks, &floors)?;
        let count = u64::try_from(looks.len()).context("a count fits")?;
        self.notes.push(format!(
            "the service manager counted {:.2} ms of computing for each of these passes, logging and {} questions to the \
             repository included ({} passes in {:.1} s)",
            Duration::from_micros(computed / count).as_secs_f64() * 1000.0,
            asks.len(),
            looks.len(),
            Duration::from_micros(took).as_secs_f64()
        ));
        self.memory("  memory after them")
    }

    fn pass_rows(&mut self, looks: &[(u64, u64)], asks: &[(u64, u64)], floors: &[Parts]) -> Result<()> {
        let of = |spent: &[(u64, u64)], pick: fn(&(u64, u64)) -> u64| -> Samples { spent.iter().map(pick).collect() };
        let (ask_wall, ask_cpu) = (of(asks, |it| it.0), of(asks, |it| it.1));
        let part = |name: &str| -> Samples { floors.iter().filter_map(|parts| parts.get(name).copied()).collect() };
        let whole = |spent: Samples, asked: &Samples| spent.plus(asked.median().unwrap_or(0));
        let wall = whole(of(looks, |it| it.0), &ask_wall);
        let cpu = whole(of(looks, |it| it.1), &ask_cpu);
        self.row("pass without work: time", Shown::Time, wall, Some(part("wall")), "1.5 x");
        self.row("  computing", Shown::Time, cpu, Some(part("cpu")), "10 ms");
        let floor = Some(part("ask the repository"));
        self.row("  of it asking the repository: time", Shown::Time, ask_wall, floor, "");
        self.row("  of it asking the repository: computing", Shown::Time, ask_cpu, None, "");
        let last = floors.last().context("the floor looked at least once")?;
        self.notes.push(format!("the raw calls of the last pass: {}", spelled(last)));
        self.notes.push(
            "a pass without work is the agent's own pass plus the median of its question to the repository, which runs beside \
             it; time and computing as the agent measures them; the floor's program is not optimised, its computing is \
             nearly all the kernel's"
                .to_owned(),
        );
        Ok(())
    }

    /// The agent left alone, as it is installed.
    fn idle(&mut self, seconds: u64) -> Result<()> {
        eprintln!("bench: {seconds} seconds as installed");
        self.subject.start(&Pace::Usual)?;
        // What a start costs is over with the second look at the host, ten seconds later; there is nothing to be seen of
        // that in the log of an agent that is as installed.
        std::thread::sleep(Duration::from_secs(12));
        let (before, woken) = (self.subject.cpu()?, self.subject.wakes()?);
        std::thread::sleep(Duration::from_secs(seconds));
        let spent = self.subject.cpu()?.saturating_sub(before);
        let woken = self.subject.wakes()?.saturating_sub(woken);
        let hourly = table::hourly(spent, Duration::from_secs(seconds));
        self.row("computing when idle, defaults", Shown::Hourly, Samples::from_iter([hourly]), None, "0.5 s/h");
        let rate = woken.saturating_mul(1000) / seconds.max(1);
        self.row("  wake-ups", Shown::PerSecond, Samples::from_iter([rate]), None, "1 /s");
        self.memory("  memory then")
    }

    fn memory(&mut self, what: &str) -> Result<()> {
        let memory = self.subject.memory()?;
        let of = |name: &str| Samples::from_iter(memory.get(name).copied());
        self.row(&format!("{what}: RSS"), Shown::Memory, of("Rss"), None, "12 MB");
        self.row(&format!("{what}: PSS"), Shown::Memory, of("Pss"), None, "");
        self.row(&format!("{what}: anonymous"), Shown::Memory, of("Anonymous"), None, "");
        Ok(())
    }

    /// Tells the agent to ask the repository; returns when.
    fn poke(&mut self) -> Result<u64> {
        let process = self.subject.process()?;
        let answer = self.floor.ask(&format!("poke {process}"))?;
        answer.get("at").copied().context("the floor says when it signalled")
    }

    fn row(&mut self, what: &str, unit: Shown, measured: Samples, floor: Option<Samples>, aim: &'static str) {
        self.rows.push(Row { what: what.to_owned(), unit, measured, floor, aim });
    }
}

fn is_pass(event: &Event) -> bool {
    event.message == "pass done"
}

fn worked(event: &Event) -> bool {
    is_pass(event) && event.number("steps").is_some_and(|steps| steps > 0)
}

fn number(event: &Event, field: &str) -> Result<u64> {
    event.number(field).with_context(|| format!("`{}` has no {field}", event.message))
}

fn wall(parts: &Parts) -> Result<u64> {
    parts.get("wall").copied().context("the floor says how long it took")
}

fn spelled(parts: &Parts) -> String {
    let shown = |(name, micros): (&String, &u64)| {
        let time = Duration::from_micros(*micros).as_secs_f64() * 1000.0;
        format!("{name} {time:.1} ms")
    };
    let parts: Vec<String> =
        parts.iter().filter(|(name, _)| !matches!(name.as_str(), "wall" | "cpu")).map(shown).collect();
    parts.join(", ")
}

fn load() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg").context("failed to read the machine's load")?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

fn machine() -> Result<String> {
    let information = std::fs::read_to_string("/proc/cpuinfo").context("failed to read about the processor")?;
    let model = information.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel =
        std::fs::read_to_string("/proc/sys/kernel/osrelease").context("failed to read the kernel's version")?;
    Ok(format!("machine: {cores} x {model}, Linux {}, load before: {}", kernel.trim(), load()?))
}
