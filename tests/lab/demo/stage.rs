//! The stage of the demo: three hosts with the agent's package, a git server, and a clone on it to work in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Forge, Host, Lab, Repo, product};

/// What every host is told by hand; everything else comes from the repository. The times are
/// shorter than usual, so that nobody has to wait.
pub(crate) const SETTINGS: &str = "repository: \"ssh://git@forge/srv/git/fleet.git\"\npoll: 2s\nobserve: 2s\n";

/// Where a person at the git server works, and the demo on their behalf.
const CLONE: &str = "/root/fleet";

/// Three hosts and a git server.
pub(crate) struct Stage {
    pub(crate) attic: Host,
    pub(crate) barn: Host,
    pub(crate) shop: Host,
    pub(crate) forge: Forge,
    pub(crate) repo: Repo,
    _lab: Lab,
}

impl Stage {
    /// Boots them, without the agent.
    pub(crate) fn set() -> Result<Stage> {
        let lab = Lab::start()?;
        let hosts: Result<[Host; 3], _> = lab.boot_all(&["attic", "barn", "shop"])?.try_into();
        let [attic, barn, shop] = hosts.ok().context("three hosts were asked for")?;
        let forge = lab.forge()?;
        let repo = forge.repo("fleet")?;
        shop.start_docker()?;
        for host in [&attic, &barn, &shop, &*forge] {
            forge.authorize(host)?;
        }
        // A web server; the page itself comes from the repository.
        forge.image("page", "1", "no page yet")?;
        Ok(Stage { attic, barn, shop, forge, repo, _lab: lab })
    }

    /// The hosts that get the agent.
    pub(crate) fn hosts(&self) -> [&Host; 3] {
        [&self.attic, &self.barn, &self.shop]
    }

    /// Puts the example repository into the clone, file by file.
    pub(crate) fn copy_example(&self) -> Result<Vec<String>> {
        let example = product::root().join("examples/brokers");
        self.on_forge(&format!(
            "git init -q {CLONE} && cd {CLONE} && git remote add origin ssh://git@forge{}",
            self.repo.path()
        ))?;
        let mut files = Vec::new();
        for file in files_in(&example)? {
            let within = file.strip_prefix(&example).context("a file of the example is in the example")?;
            let within = within.to_string_lossy().into_owned();
            self.forge.copy_in(&file, &format!("{CLONE}/{within}"))?;
            files.push(within);
        }
        Ok(files)
    }

    /// Runs a script in the clone.
    pub(crate) fn in_clone(&self, script: &str) -> Result<String> {
        self.on_forge(&format!("cd {CLONE}\n{script}"))
    }

    /// Commits all that changed in the clone and pushes it; returns the commit's id.
    pub(crate) fn push(&self, message: &str) -> Result<String> {
        let push =
            format!("git add --all && git commit -q -m '{message}' && git push -q origin main && git rev-parse HEAD");
        Ok(self.in_clone(&push)?.trim().to_owned())
    }

    fn on_forge(&self, script: &str) -> Result<String> {
        self.forge.sh_within(Duration::from_secs(30), script)
    }
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))? {
        let path = entry.with_context(|| format!("failed to list {}", folder.display()))?.path();
        if path.is_dir() { files.extend(files_in(&path)?) } else { files.push(path) }
    }
    files.sort();
    Ok(files)
}
