//! `cargo lab load`: what hosts cost the git server. Real agents, a real server over each transport; counted is what the server's
//! network, its sockets and its processes say.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Forge, Host, Lab, Repo, product};

/// How often each thing is done.
const ROUNDS: usize = 5;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// What the agents are told beside the repository: nothing happens that is not asked for.
const QUIET: &str = "poll: 1h\nobserve: 1h\nreport: { heartbeat: 24h }\n";

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many more hosts the server has refs of, in the second half.
    #[arg(long, default_value_t = 10_000)]
    refs: usize,
    /// How many real hosts take part in the rollout.
    #[arg(long, default_value_t = 6)]
    hosts: usize,
    /// The agent's binary [default: one built now, in the profile of the lab]
    #[arg(long)]
    program: Option<PathBuf>,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let program = arguments.program.clone().map_or_else(product::binary, Ok)?;
    let lab = Lab::start()?;
    let forge = lab.forge()?;
    let names: Vec<String> = (1..=arguments.hosts.max(2)).map(|number| format!("host-{number}")).collect();
    let hosts = lab.boot_all(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
    for host in &hosts {
        forge.authorize(host)?;
        forge.trust_https(host)?;
        host.copy_in(&program, "/usr/bin/mainstay")?;
        product::bring_units(host)?;
        host.sh("chmod 0755 /usr/bin/mainstay")?;
    }
    let scene = Scene { forge: &forge, repo: forge.repo("fleet")?, hosts: &hosts };
    scene.repo.commit(&[("fleet.yaml", &fleet(&names, "")), ("apps/web/files/etc/web", "0\n")], "begin")?;
    println!("                                       connections      to it    from it   its CPU");
    scene.measure("no refs of others")?;
    scene.add_refs(arguments.refs)?;
    scene.measure(&format!("refs of {} more hosts", arguments.refs))
}

struct Scene<'a> {
    forge: &'a Forge,
    repo: Repo,
    hosts: &'a [Host],
}

impl Scene<'_> {
    fn measure(&self, title: &str) -> Result<()> {
        println!("{title}");
        let one = &self.hosts[0];
        // Debian's sshd does not take the word for protocol v2 from its clients; forges do.
        self.forge.sh("rm -f /etc/ssh/sshd_config.d/git.conf; systemctl reload ssh")?;
        self.follow(one, &self.repo.ssh_url(), QUIET)?;
        self.looks(one, "ssh without AcceptEnv")?;
        self.forge.sh("echo 'AcceptEnv GIT_PROTOCOL' >/etc/ssh/sshd_config.d/git.conf; systemctl reload ssh")?;
        for (transport, url) in
            [("ssh", self.repo.ssh_url()), ("https", self.repo.https_url()), ("git", self.repo.git_url())]
        {
            self.follow(one, &url, QUIET)?;
            self.looks(one, transport)?;
            let before = self.counted()?;
            for round in 0..ROUNDS {
                self.change(&format!("{title} {transport} {round}"))?;
                one.sh("mainstay sync --wait")?;
                self.told(one)?;
            }
            self.counted()?.since(&before).over(ROUNDS).print(&format!("{transport}: a commit and its records"));
        }
        one.sh("systemctl stop mainstay")?;
        self.rollout(title)
    }

    fn looks(&self, host: &Host, transport: &str) -> Result<()> {
        self.told(host)?;
        let before = self.counted()?;
        for _ in 0..ROUNDS {
            host.sh("mainstay sync --wait")?;
        }
        self.counted()?.since(&before).over(ROUNDS).print(&format!("{transport}: a look, nothing new"));
        Ok(())
    }

    /// A commit that goes to all hosts, one after the other.
    fn rollout(&self, title: &str) -> Result<()> {
        const RULES: &str = "rollouts: { default: { waves: [ { share: 20% }, { share: 100% } ], bake: 5s, max-unavailable: 1, \
                             silent-after: 5m } }\n";
        let names: Vec<String> = self.hosts.iter().map(|host| host.name().to_owned()).collect();
        self.repo.commit(&[("fleet.yaml", &fleet(&names, RULES))], "a policy")?;
        for host in self.hosts {
            self.follow(host, &self.repo.ssh_url(), "poll: 20s\nobserve: 1h\nreport: { heartbeat: 24h }\n")?;
        }
        self.await_everywhere()?;
        let (before, begun) = (self.counted()?, std::time::Instant::now());
        self.change(&format!("{title} rollout"))?;
        self.await_everywhere()?;
        let took = begun.elapsed();
        let all = self.hosts.len();
        let counted = self.counted()?.since(&before);
        counted.over(all).print(&format!("ssh: a rollout to {all} in {took:.0?}, each"));
        for host in self.hosts {
            host.sh("systemctl stop mainstay")?;
        }
        self.repo.commit(&[("fleet.yaml", &fleet(&names, ""))], "no policy").map(drop)
    }

    fn change(&self, text: &str) -> Result<()> {
        self.repo.commit(&[("apps/web/files/etc/web", &format!("{text}\n"))], text).map(drop)
    }

    fn follow(&self, host: &Host, url: &str, more: &str) -> Result<()> {
        let settings = format!("repository: \"{url}\"\nhost: {}\n{more}", host.name());
        host.write("/etc/mainstay/agent.yaml", settings)?;
        // Where others come first it does not get there at once.
        host.sh("systemctl restart mainstay; mainstay sync --wait || true").map(drop)
    }

    /// Waits until the record of the newest commit that a host believes says that it is there.
    fn told(&self, host: &Host) -> Result<()> {
        let tip = self.repo.tip("main")?.context("there is no commit")?;
        let there = || Ok(self.record(host, &tip).filter(|note| note.contains("converged")));
        lab::poll(PATIENCE, there)?.with_context(|| format!("{} does not tell that it is there", host.name())).map(drop)
    }

    fn record(&self, host: &Host, commit: &str) -> Option<String> {
        let reference = format!("--ref=mainstay/{}", host.name());
        let note = self.repo.git(&["notes", &reference, "show", commit]).ok()?;
        Some(note.lines().next()?.to_owned())
    }

    fn await_everywhere(&self) -> Result<()> {
        self.hosts.iter().try_for_each(|host| self.told(host))
    }

    /// What hosts that are elsewhere would have published.
    fn add_refs(&self, count: usize) -> Result<()> {
        let tip = self.repo.tip("main")?.context("there is no commit")?;
        let text: String = (0..count)
            .flat_map(|number| {
                ["refs/notes/mainstay", "refs/mainstay/seen"].map(|at| format!("create {at}/far-{number:05} {tip}\n"))
            })
            .collect();
        self.repo.git_with(&["update-ref", "--stdin"], text.as_bytes())?;
        self.repo.git(&["pack-refs", "--all"]).map(drop)
    }

    fn counted(&self) -> Result<Counted> {
        Counted::read(self.forge)
    }
}

/// What the server counts.
#[derive(Clone, Copy, Default)]
struct Counted {
    connections: u64,
    received: u64,
    sent: u64,
    cpu_us: u64,
}

impl Counted {
    fn read(forge: &Forge) -> Result<Counted> {
        // What tests and this program run on the forge is in another cgroup. The last process of a conversation may end late.
        const READ: &str = "for _ in $(seq 100); do pgrep -u git 'git-(upload|receive)|sshd' >/dev/null || break; sleep 0.05; done
            awk '/^Tcp:/ && n++ {print $7}' /proc/net/snmp
            for unit in system.slice/ssh.service system.slice/forge-http.service system.slice/forge-git.service user.slice; do
                cat /sys/fs/cgroup/$unit/cpu.stat 2>/dev/null
            done | awk '/^usage_usec/ {s += $2} END {print s}'";
        let text = forge.sh(READ)?;
        let mut numbers = text.lines().map(|line| line.trim().parse::<u64>());
        let mut next = || -> Result<u64> {
            let number = numbers.next().context("the forge counts too little")?;
            number.with_context(|| format!("the forge counts oddly: {text}"))
        };
        let (connections, cpu_us) = (next()?, next()?);
        let (received, sent) = bytes(&forge.sh("cat /proc/net/dev")?).context("the forge counts no bytes")?;
        Ok(Counted { connections, received, sent, cpu_us })
    }

    fn since(self, before: &Counted) -> Counted {
        Counted {
            connections: self.connections - before.connections,
            received: self.received - before.received,
            sent: self.sent - before.sent,
            cpu_us: self.cpu_us - before.cpu_us,
        }
    }

    fn over(self, times: usize) -> Average {
        #[expect(clippy::cast_precision_loss, reason = "these are far below 2^52")]
        let of = |number: u64| number as f64 / times as f64;
        Average {
            connections: of(self.connections),
            received: of(self.received),
            sent: of(self.sent),
            cpu_ms: of(self.cpu_us) / 1000.0,
        }
    }
}

/// Adds up what all interfaces received and sent but the one to itself (proc(5), /proc/net/dev): the first and the ninth number.
fn bytes(devices: &str) -> Option<(u64, u64)> {
    let mut all = (0, 0);
    for (_, counts) in devices.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo") {
        let count = |at| counts.split_whitespace().nth(at).and_then(|count: &str| count.parse::<u64>().ok());
        let (received, sent) = count(0).zip(count(8))?;
        all = (all.0 + received, all.1 + sent);
    }
    Some(all)
}

/// What one of something costs.
struct Average {
    connections: f64,
    received: f64,
    sent: f64,
    cpu_ms: f64,
}

impl Average {
    fn print(&self, what: &str) {
        let Average { connections, received, sent, cpu_ms } = self;
        let (received, sent) = (received / 1000.0, sent / 1000.0);
        println!("  {what:<40} {connections:>7.1} {received:>8.1} kB {sent:>8.1} kB {cpu_ms:>6.1} ms");
    }
}

fn fleet(names: &[String], rules: &str) -> String {
    let hosts: String = names.iter().map(|name| format!("  {name}: {{}}\n")).collect();
    format!("fleet: home\nhosts:\n{hosts}{rules}")
}
