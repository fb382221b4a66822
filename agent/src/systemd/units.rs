//! What systemd says of units, as it is. Nothing here changes a unit, though asking after one that is not loaded loads it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use futures_util::FutureExt;
use jiff::Timestamp;
use spec::id::UnitName;
use spec::observed::{ActiveState, InvocationId, LoadState, UnitState};
use zbus::Connection;
use zbus::wire::ObjectPath;

use super::{CALL, Error, Systemd, UNIT, manager};

/// A row of `ListUnitsByNames`: id, description, load, active, sub, following, path, job, its type, its path.
type Row<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str, &'a str, ObjectPath<'a>, u32, &'a str, ObjectPath<'a>);

/// The most that is read of one unit text; real ones have some hundred bytes.
const TEXT_LIMIT: u64 = 256 * 1024;

impl Systemd {
    /// Returns the state of each of `names`, in one call. Enablement, need of a reload, invocation and text are left
    /// out: each has a call of its own, for the pass that needs it.
    ///
    /// A template (`name@.service`) is no unit to systemd and comes back as not found.
    ///
    /// # Errors
    /// Unreachable or timed out: then nothing is known of units.
    pub async fn units(&mut self, names: &[UnitName]) -> Result<BTreeMap<UnitName, UnitState>, Error> {
        let seen = self.rows(names, state).await?;
        let mut found: BTreeMap<UnitName, UnitState> =
            names.iter().map(|name| (name.clone(), UnitState::not_found())).collect();
        found.extend(seen);
        Ok(found)
    }

    /// Returns those of `names` for which a start or restart is queued or under way, whoever asked for it.
    ///
    /// # Errors
    /// Unreachable or timed out.
    pub async fn starting(&mut self, names: &[UnitName]) -> Result<BTreeSet<UnitName>, Error> {
        let jobs = self.rows(names, |row| matches!(row.8, "start" | "restart")).await?;
        Ok(jobs.into_iter().filter_map(|(name, starts)| starts.then_some(name)).collect())
    }

    /// Asks for the rows of `names` in one call and reads each with `read`.
    async fn rows<T>(&mut self, names: &[UnitName], read: impl Fn(&Row<'_>) -> T) -> Result<Vec<(UnitName, T)>, Error> {
        let asked: Vec<&UnitName> = names.iter().filter(|name| !is_template(name)).collect();
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let body: Vec<&str> = asked.iter().map(|name| name.as_str()).collect();
        let answer = self.ask("list units", "ListUnitsByNames", &(body,), CALL).await?.body();
        let rows: Vec<Row<'_>> = answer
            .deserialize()
            .map_err(|error| Error::Unreachable { doing: "read the list of units", source: Box::new(error) })?;
        Ok(pair(&asked, &rows).into_iter().map(|(name, row)| (name.clone(), read(row))).collect())
    }

    /// Returns those of `names` whose files on disk are newer than what systemd has loaded.
    ///
    /// # Errors
    /// Unreachable or timed out.
    pub async fn need_reload(&mut self, names: &[UnitName]) -> Result<BTreeSet<UnitName>, Error> {
        let needs = self.properties::<bool>("read which units need a reload", UNIT, "NeedDaemonReload", names).await?;
        Ok(needs.into_iter().filter_map(|(name, need)| need.then_some(name)).collect())
    }

    /// Returns the current or last run of each of `names` that systemd remembers one of.
    ///
    /// # Errors
    /// Unreachable or timed out.
    pub async fn invocations(&mut self, names: &[UnitName]) -> Result<BTreeMap<UnitName, InvocationId>, Error> {
        let ids = self.properties::<Vec<u8>>("read the invocations of units", UNIT, "InvocationID", names).await?;
        Ok(ids.into_iter().filter(|(_, id)| !id.is_empty()).map(|(name, id)| (name, hex::encode(id))).collect())
    }

    /// Returns the current or last run of each of `names`, and when it left the inactive state for it.
    ///
    /// # Errors
    /// Unreachable or timed out.
    pub async fn runs(
        &mut self,
        names: &[UnitName],
    ) -> Result<BTreeMap<UnitName, (InvocationId, Option<Timestamp>)>, Error> {
        const DOING: &str = "read when units were started";
        let began = self.properties::<u64>(DOING, UNIT, "InactiveExitTimestamp", names).await?;
        let invocations = self.invocations(names).await?;
        let runs = invocations.into_iter().map(|(name, invocation)| {
            let micros = began.get(&name).and_then(|micros| i64::try_from(*micros).ok()).filter(|micros| *micros > 0);
            (name, (invocation, micros.and_then(|micros| Timestamp::from_microsecond(micros).ok())))
        });
        Ok(runs.collect())
    }

    /// Returns for each of `names` whether it starts at boot; `None` where nothing could be enabled.
    ///
    /// # Errors
    /// Unreachable or timed out.
    pub async fn enablement(&mut self, names: &[UnitName]) -> Result<BTreeMap<UnitName, Option<bool>>, Error> {
        let read = |connection: Connection, name: UnitName| {
            async move {
                let answer = manager(&connection, "GetUnitFileState", &(name.as_str(),)).await;
                let word = answer.and_then(|answer| answer.body().deserialize::<String>());
                (name, word.map(|word| enabled(&word)))
            }
            .boxed()
        };
        let states = self.each("read which units are enabled", names, &read).await?;
        // systemd refuses to answer for a unit without a file; such a unit is neither enabled nor disabled.
        Ok(names.iter().map(|name| (name.clone(), states.get(name).copied().flatten())).collect())
    }

    /// Returns the text of each of `names` that has one: its file and then its drop-ins, as on disk, not as loaded; without
    /// the drop-ins that `except` says are known otherwise.
    ///
    /// # Errors
    /// Unreachable or timed out. A file that cannot be read is left out and logged: it may have gone meanwhile.
    pub async fn texts(
        &mut self,
        names: &[UnitName],
        except: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<BTreeMap<UnitName, String>, Error> {
        const DOING: &str = "find the files of units";
        let fragments = self.properties::<String>(DOING, UNIT, "FragmentPath", names).await?;
        let mut dropins = self.properties::<Vec<String>>(DOING, UNIT, "DropInPaths", names).await?;
        let mut texts = BTreeMap::new();
        for (name, fragment) in fragments {
            let added = dropins.remove(&name).unwrap_or_default().into_iter().filter(|path| !except(path));
            let paths = std::iter::once(fragment).chain(added);
            let text: String =
                paths.filter(|path| !path.is_empty()).filter_map(|path| read_text(&name, &path)).collect();
            if !text.is_empty() {
                texts.insert(name, text);
            }
        }
        Ok(texts)
    }
}

fn is_template(name: &UnitName) -> bool {
    name.stem().ends_with('@')
}

/// Pairs what was asked for with its row. systemd answers in the order of the question, one row for each name, and
/// under the unit's own name where an alias was asked for; should that ever not hold, only equal names are paired.
fn pair<'r, 'a>(asked: &[&'r UnitName], rows: &'r [Row<'a>]) -> Vec<(&'r UnitName, &'r Row<'a>)> {
    if asked.len() == rows.len() {
        return asked.iter().copied().zip(rows).collect();
    }
    asked.iter().filter_map(|name| Some((*name, rows.iter().find(|row| row.0 == name.as_str())?))).collect()
}

fn state(row: &Row<'_>) -> UnitState {
    UnitState {
        load: load(row.2),
        active: active(row.3),
        sub: row.4.to_owned(),
        enabled: None,
        need_reload: false,
        invocation: None,
        since: None,
        text: None,
    }
}

fn load(word: &str) -> LoadState {
    match word {
        "loaded" | "stub" | "merged" => LoadState::Loaded,
        "not-found" => LoadState::NotFound,
        "masked" => LoadState::Masked,
        // `bad-setting`, `error`, and whatever a later systemd may say.
        _ => LoadState::Broken,
    }
}

fn active(word: &str) -> ActiveState {
    match word {
        "active" => ActiveState::Active,
        "reloading" | "refreshing" => ActiveState::Reloading,
        "activating" => ActiveState::Activating,
        "inactive" => ActiveState::Inactive,
        "failed" => ActiveState::Failed,
        // `deactivating`, `maintenance`, and what we do not know: neither up nor down.
        _ => ActiveState::Deactivating,
    }
}

/// Reads a word of `GetUnitFileState`. The question is whether it starts at the next boot, so what is enabled in /run
/// only does not count, and for an alias the unit itself must be asked.
fn enabled(word: &str) -> Option<bool> {
    match word {
        "enabled" => Some(true),
        "disabled" | "enabled-runtime" | "linked" | "linked-runtime" | "masked" | "masked-runtime" => Some(false),
        // `static`, `generated`, `transient`, `indirect`, `alias`, `bad`: there is nothing to enable.
        _ => None,
    }
}

fn read_text(name: &UnitName, path: &str) -> Option<String> {
    let read = std::fs::File::open(path).and_then(|file| {
        let mut bytes = Vec::new();
        file.take(TEXT_LIMIT).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    match read {
        // A masked unit's file is /dev/null.
        Ok(bytes) if bytes.is_empty() => None,
        Ok(bytes) => {
            let mut text = String::from_utf8_lossy(&bytes).into_owned();
            if !text.ends_with('\n') {
                text.push('\n');
            }
            Some(text)
        }
        Err(error) => {
            tracing::warn!(%name, path, %error, "cannot read a file of a unit");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_systemd_are_sorted_and_unknown_ones_are_never_up() {
        assert_eq!(load("stub"), LoadState::Loaded);
        assert_eq!(load("bad-setting"), LoadState::Broken);
        assert_eq!(active("refreshing"), ActiveState::Reloading);
        assert_eq!(active("something-new"), ActiveState::Deactivating);
        assert_eq!(
            [enabled("enabled"), enabled("enabled-runtime"), enabled("static")],
            [Some(true), Some(false), None]
        );
    }

    #[test]
    fn an_alias_is_answered_under_the_name_that_was_asked() {
        let path = || ObjectPath::from_static_str("/").expect("a path");
        let row = |id| (id, "", "loaded", "active", "running", "", path(), 0, "", path());
        let names = ["sshd.service", "b.service"].map(|name| UnitName::parse(name).expect("a name"));
        let asked: Vec<&UnitName> = names.iter().collect();
        let rows = [row("ssh.service"), row("b.service")];
        assert_eq!(
            pair(&asked, &rows).iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["sshd.service", "b.service"]
        );
        assert_eq!(pair(&asked, &rows[1..]).len(), 1);
    }
}
