//! What a person asks of the agent from the command line: a file in the state folder, taken up with the next pass.
//!
//! A file and no signal: it survives a restart of the agent, and nobody who merely holds the ledger is interrupted by it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use spec::id::AppName;

const RETRY: &str = "retry";
/// More than this was not written by us.
const LONGEST: u64 = 1 << 20;

/// Returns where a person asks for another attempt.
pub fn retry(state: &Path) -> PathBuf {
    state.join(RETRY)
}

/// Asks that the releases of these applications are tried again. What was asked before and is not taken up yet stays.
///
/// # Errors
/// The state folder cannot be written.
pub fn ask_retry(state: &Path, apps: &BTreeSet<AppName>) -> io::Result<()> {
    let mut all = pending(state);
    all.extend(apps.iter().cloned());
    let text: String = all.iter().map(|app| format!("{app}\n")).collect();
    let new = state.join("retry.new");
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, retry(state))
}

/// Returns the applications that are to be tried again; mostly none.
pub fn pending(state: &Path) -> BTreeSet<AppName> {
    let path = retry(state);
    match fs::metadata(&path) {
        Ok(seen) if seen.is_file() && seen.len() <= LONGEST => {}
        _ => return BTreeSet::new(),
    }
    let text = fs::read_to_string(&path).unwrap_or_default();
    text.lines().filter_map(|line| AppName::parse(line).ok()).collect()
}

/// Forgets what was asked, once it is in the ledger.
///
/// # Errors
/// The state folder cannot be written.
pub fn taken_up(state: &Path) -> io::Result<()> {
    fs::remove_file(retry(state))
}
