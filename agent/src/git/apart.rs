//! Fetching and pushing through the fetcher: another process talks to the server and reads what it sends. Here nothing of it is
//! believed but that objects are what their names say.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gix::ObjectId;

use super::credential::Credentials;
use super::error::{Cap, Deadline, Failure, FetchError, PushError, Verdict as Failed, because};
use super::link::{Ask, Commands, Handed, HandedToken, Id, Link, MAX_WORD, Named, Reach, Said, Verdict};
use super::mirror::{find, set};
use super::remote::{Address, Remote};
use super::signs::HEARD;
use super::walk::{self, WalkError};
use super::wire::Watch;

/// What is given to the fetcher at most beyond the deadlines that it knows itself, so that it is who says which one was missed.
const GRACE: Duration = Duration::from_secs(10);
/// A file with keys that is larger holds something else.
const MAX_FILE: u64 = 4 << 20;
/// What ssh tries of a user who names no key (ssh_config(5), `IdentityFile`).
const KEYS: [&str; 3] = ["id_rsa", "id_ecdsa", "id_ed25519"];
/// Where the servers' keys are that everybody on a host trusts.
const KNOWN_TO_ALL: &str = "/etc/ssh/ssh_known_hosts";

/// There where systemd runs (sd_booted(3)).
const MANAGED: &str = "/run/systemd/system";
/// What the name of a key's certificate ends with.
pub(super) const CERTIFICATE: &str = "-cert.pub";

/// What a remote's list of refs means to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listing {
    /// What we asked for is not there.
    Missing,
    /// We have it all.
    Same,
    /// There is something to fetch.
    New,
}

/// Does what [`super::pull::pull`] does, through the fetcher at a path.
pub(super) fn pull(
    fetcher: &Path,
    repo: &gix::Repository,
    remote: &Remote,
    specs: &[String],
    watch: &Watch<'_>,
    judge: &mut impl FnMut(&[Named]) -> Listing,
) -> Result<Listing, Failure> {
    let gone = |error: std::io::Error| Failure::Plain(gone(fetcher, remote, watch, &error));
    let asked = reach(remote, watch).map_err(|verdict| Failure::Plain(verdict.into_fetch(remote.url.to_string())));
    let (reach, credentials) = asked?;
    let refused = |failure, is_refused| {
        reject(credentials.as_ref(), is_refused, watch);
        failure
    };
    let mut link = Link::connect(fetcher, ends(watch), watch.cancel).map_err(gone)?;
    link.say(&Ask::Pull(reach, specs.to_vec())).map_err(gone)?;
    let listed = match link.hear_list().map_err(gone)? {
        Said::Listed(listed) => listed,
        Said::NotFetched(why, is_refused) => return Err(refused(why.into_failure(remote), is_refused)),
        _ => return Err(gone(std::io::Error::other("it answered something else"))),
    };
    let listing = judge(&listed);
    if listing != Listing::New {
        // It ends without having been told; that is no failure of anything.
        drop(link.say(&Verdict::Leave));
        return Ok(listing);
    }
    link.say(&Verdict::Take).map_err(gone)?;
    match link.hear_at_most(MAX_WORD).map_err(gone)? {
        Said::Received(bytes) => watch.note(bytes),
        Said::NotFetched(why, is_refused) => return Err(refused(why.into_failure(remote), is_refused)),
        _ => return Err(gone(std::io::Error::other("it answered something else"))),
    }
    // Each name once, whatever was listed: the last one counts, as it would one after the other.
    let targets: BTreeMap<String, ObjectId> = listed
        .iter()
        .filter_map(|Named { name, id }| Some((meant(specs, name)?, id.0)))
        .filter(|(name, _)| gix::validate::reference::name(name.as_str().into()).is_ok())
        .collect();
    let roots = |are_signs: bool| -> Vec<ObjectId> {
        let those = targets.iter().filter(|(name, _)| name.starts_with(HEARD) == are_signs);
        those.map(|(_, id)| *id).collect()
    };
    let taken = walk::take(repo, &mut link, (&roots(false), &roots(true)), watch.bounds);
    let taken = taken.map_err(|error| failed(error, repo, remote, watch))?;
    tracing::debug!(remote = %remote.url, objects = taken.objects, "taken over");
    let local = |source| FetchError::Local { path: repo.path().to_owned(), source };
    for (name, id) in targets {
        if watch.cancel.load(std::sync::atomic::Ordering::Relaxed) || Instant::now() >= ends(watch) {
            return Err(gone(std::io::ErrorKind::TimedOut.into()));
        }
        let is_refused = name.starts_with(HEARD) && taken.refused.contains(&id);
        if !is_refused && find(repo, &name).ok().flatten() != Some(id) {
            set(repo, &name, id).map_err(|source| Failure::Plain(local(source)))?;
        }
    }
    Ok(listing)
}

/// Returns when the fetcher is given up itself.
fn ends(watch: &Watch<'_>) -> Instant {
    watch.ends() + GRACE.min(watch.deadlines.total / 2)
}

/// Returns where refspecs put a ref, if it is meant.
fn meant(specs: &[String], name: &str) -> Option<String> {
    if specs.iter().any(|spec| spec.strip_prefix('^') == Some(name)) {
        return None;
    }
    specs.iter().find_map(|spec| target(spec, name))
}

fn target(spec: &str, name: &str) -> Option<String> {
    let (from, to) = spec.trim_start_matches('+').split_once(':')?;
    match (from.strip_suffix('*'), to.strip_suffix('*')) {
        (Some(from), Some(to)) => Some(format!("{to}{}", name.strip_prefix(from)?)),
        _ => (from == name).then(|| to.to_owned()),
    }
}

fn failed(error: WalkError, repo: &gix::Repository, remote: &Remote, watch: &Watch<'_>) -> Failure {
    let url = remote.url.to_string();
    match error {
        WalkError::TooMany(most) => Failure::Plain(FetchError::TooLarge { url, cap: Cap::Objects(most) }),
        WalkError::TooLarge(most) => Failure::Plain(FetchError::TooLarge { url, cap: Cap::Unpacked(most) }),
        WalkError::File(most) => Failure::Plain(FetchError::TooLarge { url, cap: Cap::File(most) }),
        WalkError::TooMuch(most) => Failure::Plain(FetchError::TooLarge { url, cap: Cap::Stored(most) }),
        WalkError::Local(_) if watch.cancel.load(std::sync::atomic::Ordering::Relaxed) => {
            Failure::Plain(FetchError::Cancelled { url })
        }
        WalkError::Link(error) => Failure::Plain(broken(remote, watch, &error)),
        WalkError::Local(source) => Failure::Plain(FetchError::Local { path: repo.path().to_owned(), source }),
        WalkError::Wrong { .. } => Failure::Odd(error.into()),
    }
}

/// Says that the fetcher is not there.
fn gone(fetcher: &Path, remote: &Remote, watch: &Watch<'_>, error: &std::io::Error) -> FetchError {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    if !matches!(error.kind(), NotFound | ConnectionRefused) {
        return broken(remote, watch, error);
    }
    let why = format!(
        "nobody listens at {}, where servers are talked to in the place of this process: {error}; see `systemctl status \
         mainstay-fetch.socket`",
        fetcher.display()
    );
    FetchError::Unreachable { url: remote.url.to_string(), retry_after: None, source: because(why) }
}

fn broken(remote: &Remote, watch: &Watch<'_>, error: &std::io::Error) -> FetchError {
    let url = remote.url.to_string();
    if watch.cancel.load(std::sync::atomic::Ordering::Relaxed) {
        return FetchError::Cancelled { url };
    }
    if error.kind() == std::io::ErrorKind::TimedOut {
        return FetchError::TimedOut { url, deadline: Deadline::Total };
    }
    let why = format!("the fetcher, which talks to it, broke off: {error}; see `journalctl -u mainstay-fetch`");
    FetchError::Unreachable { url, retry_after: None, source: because(why) }
}

/// A push through the fetcher.
pub(super) struct Pushing<'w> {
    link: Link<'w>,
    fetcher: &'w Path,
    remote: &'w Remote,
    watch: &'w Watch<'w>,
    credentials: Option<Credentials>,
    name: String,
}

impl<'w> Pushing<'w> {
    /// Begins one, for refs with these names.
    pub(super) fn begin(
        fetcher: &'w Path,
        remote: &'w Remote,
        names: &[&str],
        watch: &'w Watch<'w>,
    ) -> Result<Pushing<'w>, PushError> {
        let name = names.first().copied().unwrap_or_default().to_owned();
        let asked = reach(remote, watch).map_err(|verdict| verdict.into_push(remote.url.to_string(), name.clone()));
        let (reach, credentials) = asked?;
        let expected = watch.guess.borrow_mut().expected.take();
        let ask = Ask::Push(reach, names.iter().map(|name| (*name).to_owned()).collect(), expected);
        let said = Link::connect(fetcher, ends(watch), watch.cancel).and_then(|mut link| link.say(&ask).map(|()| link));
        match said {
            Ok(link) => Ok(Pushing { link, fetcher, remote, watch, credentials, name }),
            Err(error) => Err(gone(fetcher, remote, watch, &error).into_push(name)),
        }
    }

    /// Returns the values that the refs have there.
    pub(super) fn values(&mut self) -> Result<Vec<Option<ObjectId>>, PushError> {
        match self.hear()? {
            Said::Values(values) => Ok(values.into_iter().map(|id| id.map(|id| id.0)).collect()),
            other => Err(self.failed(other)),
        }
    }

    /// Sends a pack and the names with their old and new values. Returns why some were refused.
    pub(super) fn send(
        mut self,
        refs: Vec<(String, Id, Id)>,
        pack: &[u8],
    ) -> Result<BTreeMap<String, String>, PushError> {
        let commands = Commands { refs, pack: pack.len() as u64 };
        let sent = self.link.say(&commands).and_then(|()| self.link.write_all(pack));
        sent.map_err(|error| self.gone(&error))?;
        match self.hear()? {
            Said::Refused(refused) => Ok(refused),
            other => Err(self.failed(other)),
        }
    }

    fn hear(&mut self) -> Result<Said, PushError> {
        self.link.hear_at_most(MAX_WORD).map_err(|error| self.gone(&error))
    }

    fn gone(&self, error: &std::io::Error) -> PushError {
        gone(self.fetcher, self.remote, self.watch, error).into_push(self.name.clone())
    }

    fn failed(&self, said: Said) -> PushError {
        match said {
            Said::NotPushed(why, is_refused) => {
                reject(self.credentials.as_ref(), is_refused, self.watch);
                why.into_error(self.remote, &self.name)
            }
            _ => self.gone(&std::io::Error::other("it answered something else")),
        }
    }
}

/// Tells who knows the token that the server does not accept it.
fn reject(credentials: Option<&Credentials>, is_refused: bool, watch: &Watch<'_>) {
    if let Some(credentials) = credentials.filter(|_| is_refused) {
        credentials.reject(watch);
    }
}

/// Puts together what the fetcher needs to reach a remote: it cannot read these files, nor ask these programs.
fn reach(remote: &Remote, watch: &Watch<'_>) -> Result<(Reach, Option<Credentials>), Failed> {
    let config = |why: String| Failed::Config(because(why));
    let (mut keys, mut known_hosts, mut credentials) = (Vec::new(), Vec::new(), None);
    match remote.url.address() {
        Address::Ssh { .. } => (keys, known_hosts) = of_ssh(remote).map_err(config)?,
        Address::Http { .. } => {
            watch.outside.set(Path::new(MANAGED).exists());
            credentials = Credentials::find(remote, watch)?;
        }
        Address::Git { .. } | Address::File { .. } => {}
    }
    let token = credentials.as_ref().map(|known| HandedToken {
        user: known.user.clone(),
        token: known.token.clone(),
        hint: known.hint(),
    });
    let ca = remote.ca_file.as_deref().map(|path| handed(path, "which `git.ca` names")).transpose();
    let ca = ca.map_err(config)?;
    let certificates = keys.iter().map(certificate).collect::<Result<_, _>>().map_err(config)?;
    let reach = Reach {
        url: remote.url.clone(),
        branch: remote.branch.clone(),
        keys,
        certificates,
        known_hosts,
        ca,
        token,
        proxies: remote.proxies.clone().unwrap_or_else(crate::web::proxies),
        bounds: watch.bounds,
        whole: remote.whole,
        slack: remote.slack,
        deadlines: watch.deadlines,
    };
    Ok((reach, credentials))
}

/// Returns the keys that ssh would use, and those of servers that it would accept: without settings, those of this user.
fn of_ssh(remote: &Remote) -> Result<(Vec<Handed>, Vec<Handed>), String> {
    let home = home().join(".ssh");
    let there = |paths: Vec<PathBuf>| -> Result<Vec<Handed>, String> {
        paths.iter().filter(|path| path.exists()).map(|path| handed(path, "which ssh uses")).collect()
    };
    let keys = if remote.ssh.keys.is_empty() {
        there(KEYS.iter().map(|name| home.join(name)).collect())?
    } else {
        remote.ssh.keys.iter().map(|path| private_key(path)).collect::<Result<_, _>>()?
    };
    let known = match remote.ssh.known_hosts.is_empty() {
        true => there(vec![home.join("known_hosts"), home.join("known_hosts2"), KNOWN_TO_ALL.into()])?,
        // One that is not there knows nobody, which ssh explains.
        false => there(remote.ssh.known_hosts.clone())?,
    };
    Ok((keys, known))
}

/// Returns the folder of this process's user, as ssh does.
fn home() -> PathBuf {
    use uzers::os::unix::UserExt as _;
    let user = uzers::get_user_by_uid(uzers::get_effective_uid());
    user.map_or_else(|| PathBuf::from("/root"), |user| user.home_dir().to_owned())
}

/// Reads a private key, which ssh would not take where others can read it.
fn private_key(path: &Path) -> Result<Handed, String> {
    use std::os::unix::fs::MetadataExt as _;
    let shown = path.display();
    let found = std::fs::metadata(path).map_err(|error| super::command::no_key(path, &error))?;
    let mode = found.mode() & 0o777;
    if found.uid() == uzers::get_effective_uid() && mode & 0o077 != 0 {
        return Err(super::complaints::unprotected(&shown.to_string(), &format!("0{mode:o}")));
    }
    handed(path, "which `git.key` names")
}

/// Reads what ssh looks for beside a private key.
fn certificate(key: &Handed) -> Result<Option<Handed>, String> {
    let mut path = key.path.clone().into_os_string();
    path.push(CERTIFICATE);
    let path = PathBuf::from(path);
    path.exists().then(|| handed(&path, "which certifies the ssh key")).transpose()
}

fn handed(path: &Path, which: &str) -> Result<Handed, String> {
    let failed = |why: String| format!("failed to read {}, {which}: {why}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    let read = file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
    if read as u64 > MAX_FILE {
        return Err(failed(format!("it has more than {MAX_FILE} bytes")));
    }
    Ok(Handed { path: path.to_owned(), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refspecs_say_where_a_ref_goes() {
        let seen = "+refs/mainstay/seen/*:refs/mainstay/heard/*";
        assert_eq!(target(seen, "refs/mainstay/seen/attic").as_deref(), Some("refs/mainstay/heard/attic"));
        assert_eq!(target(seen, "refs/heads/main"), None);
        assert_eq!(
            target("+refs/heads/main:refs/mainstay/incoming", "refs/heads/main").as_deref(),
            Some("refs/mainstay/incoming")
        );
        assert_eq!(target("+refs/heads/main:refs/mainstay/incoming", "refs/heads/main2"), None);
    }
}
