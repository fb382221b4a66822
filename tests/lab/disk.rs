//! A host's disk: an overlay of the shared root tree on the lab's tmpfs, with what a host must own alone.

use std::path::Path;

use anyhow::{Context, Result};

use crate::host::MOMENT;
use crate::{Host, shell};

impl Host {
    pub(crate) fn make_disk(&self) -> Result<()> {
        const MAKE: &str = r#"mkdir -p "$1/up" "$1/wk" "$1/mnt"
            mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/up,workdir=$1/wk" "$1/mnt"
            ssh-keygen -q -t ed25519 -N '' -C "root@$3" -f "$1/mnt/etc/ssh/ssh_host_ed25519_key"
            tr -d - </proc/sys/kernel/random/uuid >"$1/mnt/etc/machine-id""#;
        let mut make = self.network.command("sh");
        make.args(["-euc", MAKE, "make-disk"]).arg(self.disk()).arg(&self.tree).arg(&self.name);
        shell::check(&mut make, MOMENT).with_context(|| format!("failed to make a disk for host `{}`", self.name))?;
        let files = [
            ("/etc/hostname", format!("{}\n", self.name)),
            ("/etc/lab-network", format!("ADDRESS={}\n", self.address())),
        ];
        for (path, text) in files {
            let path = self.path_on_machine(path);
            std::fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
        }
        self.introduce()
    }

    /// Tells every host of the lab the names of all.
    fn introduce(&self) -> Result<()> {
        let text = self.network.hosts_file();
        for name in self.network.host_names() {
            let root = self.network.seen_from_machine(&Path::new("/run/lab").join(name).join("mnt/etc"));
            // The disk of a host that boots at this moment may not be there yet; it introduces itself to all then.
            if root.exists() {
                std::fs::write(root.join("hosts"), &text).context("failed to write /etc/hosts")?;
            }
        }
        Ok(())
    }

    pub(crate) fn remove_disk(&self) -> Result<()> {
        const REMOVE: &str = r#"if mountpoint -q "$1/mnt"; then umount "$1/mnt"; fi; rm -rf "$1""#;
        let mut remove = self.network.command("sh");
        remove.args(["-euc", REMOVE, "remove-disk"]).arg(self.disk());
        shell::check(&mut remove, MOMENT)
            .with_context(|| format!("failed to remove the disk of host `{}`", self.name))?;
        Ok(())
    }
}
