//! Root trees: one Debian installation for each release, built once per recipe and shared read-only by every host of every lab.
//!
//! It is built beside its final name and renamed when complete, under a lock, so that nobody ever boots from half a tree.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::fs::FlockOperation;

use crate::{machine, mirror, shell};

/// A release of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Debian {
    /// The stable one, 13: what hosts and the forge are unless a test says otherwise.
    Trixie,
    /// The one before, 12: older systemd, Docker without the newest API, no Podman that knows quadlets.
    Bookworm,
}

impl Debian {
    fn suite(self) -> &'static str {
        match self {
            Debian::Trixie => "trixie",
            Debian::Bookworm => "bookworm",
        }
    }

    fn packages(self) -> &'static [&'static str] {
        match self {
            Debian::Trixie => PACKAGES,
            Debian::Bookworm => OLDER_PACKAGES,
        }
    }
}

/// What a host may be asked to do in a test: run units, containers with either engine, a broker; be a git server.
const PACKAGES: &[&str] = &[
    "systemd,systemd-sysv,dbus,polkitd,ca-certificates,iproute2,iputils-ping,procps,curl,openssl",
    "git,openssh-server,openssh-client,lighttpd,lighttpd-mod-openssl,age,gpg,gpg-agent",
    "docker.io,docker-cli,docker-compose,podman,catatonit,crun,nftables,passt,netavark,aardvark-dns,fuse-overlayfs,iptables",
    "busybox-static,docker-registry,mosquitto,mosquitto-clients,redis-server,strace",
    "uidmap,dbus-user-session",
];

/// What a host of the release before is asked to do: to install the agent, also as other distributions do, run units, and
/// containers with its Docker.
const OLDER_PACKAGES: &[&str] = &[
    "systemd,systemd-sysv,dbus,polkitd,ca-certificates,iproute2,iputils-ping,procps,curl",
    "git,openssh-server,openssh-client,docker.io,nftables,iptables,fuse-overlayfs,rpm",
];

/// Pages nobody reads in a lab: a third of the files.
const LEFT_OUT: [&str; 4] = ["/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*"];

const FINISH: &str = include_str!("tree.sh");

const BUILD_DEADLINE: Duration = Duration::from_secs(1800);

/// A root tree's folder; built first when this recipe has never been built here.
pub fn ensure(debian: Debian) -> Result<PathBuf> {
    let cache = cache();
    let tree = cache.join(recipe(debian));
    if tree.exists() {
        return Ok(tree);
    }
    std::fs::create_dir_all(&cache).with_context(|| format!("failed to create {}", cache.display()))?;
    let lock = File::create(cache.join("lock")).with_context(|| format!("failed to lock {}", cache.display()))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).context("failed to lock the root tree")?;
    // Another process may have built it while this one waited for the lock.
    if !tree.exists() {
        build(debian, &tree).context("failed to build the root tree of the lab's hosts")?;
    }
    Ok(tree)
}

/// Where root trees are kept between runs.
pub fn cache() -> PathBuf {
    match std::env::var_os("MAINSTAY_LAB_CACHE") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from("/var/cache/mainstay-lab"),
    }
}

/// A name for what goes into the tree. FNV-1a, since the standard library's hash may change between compilers.
fn recipe(debian: Debian) -> String {
    let parts = [debian.suite(), FINISH].into_iter().chain(debian.packages().iter().copied()).chain(LEFT_OUT);
    let hash = parts
        .flat_map(str::bytes)
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}

fn build(debian: Debian, tree: &Path) -> Result<()> {
    machine::ensure_programs()?;
    let half = tree.with_extension("half");
    remove(&half)?;
    let bar = ProgressBar::new_spinner().with_style(
        ProgressStyle::with_template("{spinner} root tree [{elapsed}] {wide_msg}").expect("the template is a constant"),
    );
    bar.enable_steady_tick(Duration::from_millis(200));
    if bar.is_hidden() {
        eprintln!("lab: building the root tree of the lab's {debian:?} hosts (once, about a minute)");
    }
    install(debian, &half, &bar)?;
    bar.set_message("finishing");
    let mut finish = shell::command("sh");
    finish.args(["-euc", FINISH, "tree.sh"]).arg(&half);
    shell::check(&mut finish, Duration::from_secs(120))?;
    std::fs::rename(&half, tree).with_context(|| format!("failed to rename {}", half.display()))?;
    bar.finish_and_clear();
    eprintln!("lab: built the root tree in {:.0?}", bar.elapsed());
    Ok(())
}

fn install(debian: Debian, half: &Path, bar: &ProgressBar) -> Result<()> {
    let mirror = mirror::of_this_machine()?;
    let mut command = shell::command("mmdebstrap");
    command.args(["--mode=root", "--variant=minbase", "--format=directory"]);
    command.args(LEFT_OUT.map(|paths| format!("--dpkgopt=path-exclude={paths}")));
    command.arg(format!("--include={}", debian.packages().join(",")));
    let suite = debian.suite();
    command.arg(suite).arg(half).arg(format!("deb {mirror} {suite} main"));
    // A person may sit behind a proxy, and apt knows it from here.
    command.envs(std::env::vars().filter(|(name, _)| name.to_ascii_lowercase().ends_with("_proxy")));
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("failed to start mmdebstrap")?;
    let stderr = child.stderr.take().expect("standard error is piped");
    let bar = bar.clone();
    let reader = std::thread::spawn(move || {
        let mut log = Vec::new();
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            bar.set_message(line.clone());
            log.push(line);
        }
        log
    });
    let status = shell::wait(&mut child, BUILD_DEADLINE)?;
    shell::kill_group(&mut child)?;
    let log = reader.join().expect("the reader does not panic");
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("mmdebstrap: {status}\n{}", log.join("\n")),
        None => bail!("mmdebstrap did not end within {BUILD_DEADLINE:?}\n{}", log.join("\n")),
    }
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
