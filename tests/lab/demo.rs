//! `cargo lab demo`: what mainstay is, shown on three real hosts in a minute.
//!
//! Nothing is staged but the hosts: each line that says `ok` was looked at on the host itself, within a time limit. What the
//! demo cannot see it does not claim.

mod records;
mod seen;
mod stage;
mod story;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Host, product};

use seen::Talk;
use stage::Stage;
use story::{Story, seconds};

/// What the example places where.
const PLACED: [(&str, &[&str]); 3] =
    [("attic", &["mqtt", "mqtt-home"]), ("barn", &["mqtt", "mqtt-farm"]), ("shop", &["page"])];

/// How long hosts may take to get to a commit, and to repair something.
const DEPLOYMENT: Duration = Duration::from_secs(90);
const REPAIR: Duration = Duration::from_secs(45);
/// How long what was started may take to answer.
const ANSWER: Duration = Duration::from_secs(15);

/// Tells the story. Then stays until Ctrl-C, or with `check` ends: well only if everything was seen.
pub(crate) fn run(check: bool) -> Result<()> {
    let mut story = Story::begin("mainstay: three Linux hosts that stay at main");
    let package = build(&mut story)?;
    let stage = boot(&mut story)?;
    let told = tell(&mut story, &stage, &package);
    if check {
        return told.and_then(|()| story.end());
    }
    if let Err(error) = told.and_then(|()| story.end()) {
        eprintln!("error: {error:#}");
    }
    stay(&mut story, &stage)
}

fn tell(story: &mut Story, stage: &Stage, package: &std::path::Path) -> Result<()> {
    install(story, stage, package)?;
    let first = deploy(story, stage)?;
    look_around(story, stage);
    change_one_line(story, stage)?;
    break_things(story, stage);
    read_the_log(story, stage, &first);
    Ok(())
}

fn build(story: &mut Story) -> Result<std::path::PathBuf> {
    story.chapter("One binary, one Debian package");
    story.command(&format!("cargo build --profile {} && packaging/deb target/{0}/mainstay .", product::PROFILE));
    let began = Instant::now();
    let package = product::package();
    let seen = match &package {
        Ok(path) => named(path).map(|name| format!("{name}, {} in {}", size(path), seconds(began.elapsed()))),
        Err(error) => Err(anyhow::anyhow!("{error:#}")),
    };
    story.need("the package is built", seen)?;
    package
}

fn named(path: &std::path::Path) -> Result<String> {
    Ok(path.file_name().context("a package is a file")?.to_string_lossy().into_owned())
}

fn size(path: &std::path::Path) -> String {
    let bytes = std::fs::metadata(path).map_or(0, |data| data.len());
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

fn boot(story: &mut Story) -> Result<Stage> {
    story.chapter("Three hosts and a git server");
    story.say("Real Debian hosts with systemd, booted in namespaces of this machine, which they do not touch.");
    story.pause();
    lab::prepare()?;
    let began = Instant::now();
    let stage = Stage::set()?;
    for (host, what) in stage.hosts().into_iter().zip(["a broker, at home", "a broker, at the farm", "a web page"]) {
        story.check(
            &format!("{:<8} {what}", host.name()),
            host.sh("systemctl is-system-running --wait").map(|state| format!("{:<13} {state}", host.address())),
        );
    }
    let served = stage
        .forge
        .sh("systemctl is-active ssh forge-registry")
        .map(|_| format!("{:<13} up after {}", stage.forge.address(), seconds(began.elapsed())));
    story.check(&format!("{:<8} git over ssh, images", stage.forge.name()), served);
    Ok(stage)
}

fn install(story: &mut Story, stage: &Stage, package: &std::path::Path) -> Result<()> {
    story.chapter("Install the agent");
    story.say("A host is told by hand only where the repository is:");
    story.quote(&format!("# /etc/mainstay/agent.yaml\n{}", stage::SETTINGS));
    story.command(&format!("dpkg --install {}", named(package)?));
    for host in stage.hosts() {
        let outcome = host.install_deb(package).and_then(|_| {
            host.write("/etc/mainstay/agent.yaml", stage::SETTINGS)?;
            host.sh("systemctl start mainstay")?;
            host.wait_for(ANSWER, "systemctl is-active mainstay && systemctl is-enabled mainstay")?;
            Ok(format!("{} runs", host.sh("mainstay --version")?.trim()))
        });
        story.need(host.name(), outcome)?;
    }
    Ok(())
}

fn deploy(story: &mut Story, stage: &Stage) -> Result<String> {
    story.chapter("A push is a deployment");
    let files = stage.copy_example()?;
    story.say(&format!("examples/brokers has {} files: units, configuration and a page as they are, and a few lines of YAML\nthat say where they go. Only the address of the registry is ours:", files.len()));
    stage.in_clone("git add --all && sed -i 's|registry.lan/|forge:5000/|' apps/page/app.yaml")?;
    story.diff(&changed_lines(&stage.in_clone("git diff --unified=0")?));
    story.command("git commit --all --message 'two brokers and a page' && git push");
    let commit = stage.push("two brokers and a page")?;
    story.need("pushed", Ok(format!("main is at {}", short(&commit))))?;
    story.pause();
    story.say("Each host asks for news every two seconds, does what is missing, and says so in a git note:");
    let arrived = records::watch(&stage.repo, &commit, &PLACED, DEPLOYMENT);
    let arrived = arrived.map(|time| format!("{} after the push", seconds(time)));
    if arrived.is_err() {
        stage.hosts().into_iter().for_each(|host| show_journal(story, host));
    }
    story.need("all hosts are at main", arrived)?;
    Ok(commit)
}

/// Looks at the result from outside: as clients do, and as the administrator would.
fn look_around(story: &mut Story, stage: &Stage) {
    story.pause();
    for (broker, from) in [(&stage.attic, &stage.shop), (&stage.barn, &stage.attic)] {
        let name = broker.name();
        let ask = format!(
            "mosquitto_pub -h {name} -t demo/hello -r -q 1 -m 'hello from {name}' && mosquitto_sub -h {name} -t demo/hello -C 1 -W 3"
        );
        let heard = from.wait_for(ANSWER, &ask).map(|heard| format!("\"{}\", heard on {}", heard.trim(), from.name()));
        story.check(&format!("the broker on {name} takes messages"), heard);
    }
    let page = stage.attic.wait_for(ANSWER, "curl -sf http://shop | grep -o '<p>.*</p>'");
    story.check("the page is served from a container", page);
    let timer = "systemctl is-active -q broker-backup.timer && ! systemctl is-active -q broker-backup.service &&
        systemctl show broker-backup.timer --property=NextElapseUSecRealtime --value";
    story.check("the nightly backup is scheduled on barn", stage.barn.wait_for(ANSWER, timer));
    story.pause();
    story.say("On a host, the agent says the same:");
    story.command("cargo lab sh attic mainstay status");
    match stage.attic.sh("mainstay status") {
        Ok(status) => story.quote(&status),
        Err(error) => drop(story.check("mainstay status answers", Err(error))),
    }
}

fn change_one_line(story: &mut Story, stage: &Stage) -> Result<()> {
    story.chapter("Change one line");
    story.say("The broker at home is to keep more for clients that are away. Meanwhile clients go on talking to both brokers.");
    stage.in_clone(
        "sed -i 's/max_queued_messages 1000/max_queued_messages 2000/' apps/mqtt-home/files/etc/broker/broker.conf",
    )?;
    story.diff(&changed_lines(&stage.in_clone("git diff --unified=0")?));

    let before = stage.hosts().map(seen::services);
    let container = seen::container(&stage.shop, "page");
    let home = Talk::start("attic", &stage.shop, &stage.barn)?;
    let farm = Talk::start("barn", &stage.shop, &stage.attic)?;
    story.command("git commit --all --message 'attic: keep more' && git push");
    let commit = stage.push("attic: keep more")?;
    let arrived = records::watch(&stage.repo, &commit, &PLACED, DEPLOYMENT);
    story.check("all hosts are at main", arrived.map(|time| format!("{} after the push", seconds(time))));
    let (home, farm) = (home.end()?, farm.end()?);

    let in_place = stage.attic.sh("grep max_queued_messages /etc/broker/broker.conf");
    story.check(
        "the line is on attic",
        in_place.and_then(|line| {
            ensure!(line.trim().ends_with("2000"), "/etc/broker/broker.conf says: {line}");
            Ok(line)
        }),
    );
    for ((host, before), expected) in stage.hosts().into_iter().zip(before).zip([&["broker.service"][..], &[], &[]]) {
        story.check(&format!("what was started anew on {}", host.name()), only_restarted(host, before, expected));
    }
    let same = container.and_then(|before| {
        let after = seen::container(&stage.shop, "page")?;
        ensure!(before == after, "it was started anew: {before} became {after}");
        Ok("the same, started once".to_owned())
    });
    story.check("the container on shop", same);
    story.check("the broker at the farm never stopped", unbroken(&farm));
    story.say(&format!(
        "The one at home took {} of {} messages: a restart of one broker is not hidden from its clients.",
        home.taken, home.sent
    ));
    Ok(())
}

fn unbroken(talked: &seen::Talked) -> Result<String> {
    let seen::Talked { sent, taken, heard } = talked;
    // One may be under way when the talking is stopped, so that more can be heard than were counted.
    ensure!(taken == sent && heard >= taken, "of {sent} messages it took {taken}, and {heard} were heard");
    Ok(format!("took {taken} of {sent} messages, all were heard"))
}

fn only_restarted(host: &Host, before: Result<seen::Services>, expected: &[&str]) -> Result<String> {
    let before = before?;
    let after = seen::services(host)?;
    let restarted = seen::restarted(&before, &after);
    ensure!(restarted == expected, "expected a restart of {expected:?} only, but it was: {restarted:?}");
    for name in expected {
        ensure!(after.contains_key(*name), "{name} does not run any more");
    }
    let others = before.len() - restarted.len();
    Ok(match expected {
        [] => format!("nothing, {others} services run on"),
        names => format!("{} only, {others} others run on", names.join(", ")),
    })
}

/// Something that a person does by hand, and what shows that it was put back.
struct Breakage {
    command: &'static str,
    is_whole: &'static str,
    what: &'static str,
}

fn break_things(story: &mut Story, stage: &Stage) {
    const STOP: Breakage = Breakage {
        command: "systemctl stop broker",
        is_whole: "mosquitto_pub -h barn -t demo -m up 2>/dev/null",
        what: "the broker takes messages again",
    };
    const EDIT: Breakage = Breakage {
        command: "sh -c 'echo hacked > /srv/page/index.html'",
        is_whole: "curl -sf http://shop | grep -q brokers",
        what: "the page is the old one again",
    };
    const REMOVE: Breakage = Breakage {
        command: "docker rm --force page",
        is_whole: "curl -sf http://shop | grep -q brokers",
        what: "the container is back, and serves",
    };
    story.chapter("Break things by hand");
    story.say("Nobody pushes now. Each agent looks at its host every two seconds here (ten, unless told otherwise) and puts back\nwhat is not as the commit says.");
    for (host, breakage) in [(&stage.barn, STOP), (&stage.shop, EDIT), (&stage.shop, REMOVE)] {
        story.pause();
        if let Err(error) = repair(story, stage, host, &breakage) {
            story.check(breakage.what, Err(error));
        }
    }
}

fn repair(story: &mut Story, stage: &Stage, host: &Host, breakage: &Breakage) -> Result<()> {
    let commit = stage.repo.tip("main")?.context("there is a commit")?;
    let said_before = records::of(&stage.repo, host.name(), &commit)?.headline;
    story.command(&format!("cargo lab sh {} {}", host.name(), breakage.command));
    let began = Instant::now();
    // A repair that was quicker than this question would go unseen, and could not be told from a breakage without effect: a file is
    // back after some hundredths of a second, so one shell does both.
    let both = host.sh(&format!("{}; {} >/dev/null || echo broken", breakage.command, breakage.is_whole))?;
    let is_broken = both.contains("broken");
    story.check("it is broken", if is_broken { Ok("seen".to_owned()) } else { Err(anyhow::anyhow!("it still works")) });
    let repaired = host.wait_for(REPAIR, breakage.is_whole).map(|_| format!("after {}", seconds(began.elapsed())));
    let is_repaired = story.check(breakage.what, repaired);

    let mut said = String::new();
    let told = lab::poll(REPAIR, || {
        said = records::of(&stage.repo, host.name(), &commit)?.headline;
        Ok((said != said_before && said.contains("repaired")).then_some(()))
    })?;
    let told = told.with_context(|| format!("its record does not speak of this repair: {said}"));
    if !story.check(&format!("{} has said so", host.name()), told.map(|()| said)) || !is_repaired {
        show_journal(story, host);
    }
    Ok(())
}

fn read_the_log(story: &mut Story, stage: &Stage, first: &str) {
    const LOG: &str = r"git log --notes='mainstay/*' | grep -vE '^    (\{|$)'";
    story.chapter("Who runs what, since when: ask git");
    story.say("The records are notes on the commits; the lines that are meant for programs are left out here.");
    story.command("git fetch origin 'refs/notes/*:refs/notes/*'");
    story.command(LOG);
    let log = stage.in_clone(&format!("git fetch -q origin 'refs/notes/*:refs/notes/*'; {LOG}"));
    if let Ok(log) = &log {
        story.quote(log);
        story.pause();
    }
    let names = PLACED.map(|(name, _)| name);
    let complete = log.and_then(|log| {
        let commits: Vec<&str> = log.split("\ncommit ").collect();
        ensure!(commits.len() == 2 && log.contains(first), "two commits were pushed, the log has {}", commits.len());
        for commit in &commits {
            let missing: Vec<_> = names.iter().filter(|name| !commit.contains(&format!("    {name} "))).collect();
            ensure!(missing.is_empty(), "nothing from {missing:?} about commit {}", &commit[..12]);
        }
        Ok("on both commits".to_owned())
    });
    story.check("every host has spoken", complete);
}

fn stay(story: &mut Story, stage: &Stage) -> Result<()> {
    story.chapter("Now you");
    story.say("The hosts stay up until Ctrl-C. From another terminal:");
    story.pause();
    story.command("cargo lab sh forge          # then: cd ~/fleet; edit, git commit -a, git push");
    for host in stage.hosts() {
        story.command(&format!("cargo lab sh {:<14} # then: mainstay status; journalctl -u mainstay -f", host.name()));
    }
    // Nothing to do on Ctrl-C: the lab's keeper notices the end of this process and cleans up.
    loop {
        std::thread::park();
    }
}

fn show_journal(story: &Story, host: &Host) {
    story.command(&format!("cargo lab sh {} journalctl -u mainstay", host.name()));
    match host.sh("journalctl -b -u mainstay --no-pager -o cat | tail -n 25") {
        Ok(text) => story.quote(&text),
        Err(error) => story.quote(&format!("{error:#}")),
    }
}

fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

/// Only what changed of a difference, with the file's name.
fn changed_lines(diff: &str) -> String {
    let lines = diff.lines().filter(|line| line.starts_with(['+', '-']) && !line.starts_with("---"));
    let lines = lines.map(|line| line.strip_prefix("+++ b/").map_or(line.to_owned(), |path| format!("  {path}")));
    lines.map(|line| line + "\n").collect()
}
