//! A file in the clear while somebody edits it: in memory, for its owner alone, and gone afterwards.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use rustix::fs::statfs;
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use crate::seal::Opened;

/// File systems in memory (statfs(2)): tmpfs and ramfs.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// A folder in memory with the file that is edited.
pub(super) struct Desk {
    file: PathBuf,
    /// Removed with all that an editor left there.
    folder: tempfile::TempDir,
}

impl Desk {
    /// Makes room for a file of the repository.
    ///
    /// # Errors
    /// No folder of this machine is in memory.
    pub(super) fn new(file: &str) -> anyhow::Result<Desk> {
        let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let places = own.into_iter().chain(["/dev/shm", "/run", "/tmp"].map(PathBuf::from));
        let is_in_memory = |place: &PathBuf| {
            statfs(place).is_ok_and(|it| u64::try_from(it.f_type).is_ok_and(|kind| IN_MEMORY.contains(&kind)))
        };
        let folder = places
            .filter(is_in_memory)
            .find_map(|place| tempfile::Builder::new().prefix("mainstay-").tempdir_in(place).ok())
            .context("no folder of this machine is in memory (XDG_RUNTIME_DIR, /dev/shm): what is opened is written to no disk")?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700))
            .context("failed to close the folder to others")?;
        // An editor tells by the name what it is.
        let name = Path::new(file.trim_end_matches(".age")).file_name().unwrap_or_default();
        Ok(Desk { file: folder.path().join(name), folder })
    }

    /// Leaves what was edited where it is, and says where that is.
    pub(super) fn keep(self) -> PathBuf {
        let _folder = self.folder.keep();
        self.file
    }

    /// Has a text edited, and returns what became of it.
    ///
    /// # Errors
    /// There is no editor, or it failed: then nothing is to be done.
    pub(super) fn edit(&self, text: &[u8]) -> anyhow::Result<Opened> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&self.file).context("failed to open the file to edit")?;
        file.write_all(text).context("failed to write the file to edit")?;
        drop(file);
        // Who types Ctrl-C means the editor; this program would leave the file behind. What replaces its handler once does so for good.
        for kind in [SignalKind::interrupt(), SignalKind::quit(), SignalKind::terminate(), SignalKind::hangup()] {
            drop(signal(kind).context("failed to wait for the editor")?);
        }
        let of = |name| std::env::var_os(name).filter(|it| !it.is_empty());
        let editor = of("VISUAL").or_else(|| of("EDITOR")).unwrap_or_else(|| OsString::from("vi"));
        // As git does: it may have options of its own.
        let mut script = editor.clone();
        script.push(" \"$@\"");
        let status = Command::new("sh").arg("-c").arg(script).arg(&editor).arg(&self.file).status();
        let status = status.context("failed to start a shell for the editor")?;
        if !status.success() {
            anyhow::bail!("the editor `{}` failed ({status}); nothing was changed", editor.to_string_lossy());
        }
        fs::read(&self.file).map(Zeroizing::new).context("failed to read what was edited")
    }
}

/// What a new file begins with.
pub(super) fn blank(file: &str) -> Opened {
    let text = match file.ends_with(".age") {
        true => "",
        false => "# One value to a line; templates print it by its name: {{ secret(\"name\") }}\n# name: value\n",
    };
    Zeroizing::new(text.as_bytes().to_vec())
}

/// Says whether there is somebody to ask.
pub(super) fn asks_again() -> bool {
    io::stdin().is_terminal()
}

/// Asks whether to edit once more what has mistakes.
///
/// # Errors
/// Nobody can answer.
pub(super) fn wants_again() -> io::Result<bool> {
    eprint!("edit it again? [Y/n] ");
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer)?;
    Ok(read > 0 && !answer.trim().eq_ignore_ascii_case("n"))
}
