//! Where commits come from and reports go to: checked addresses, and how to reach them. No network here.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spec::id::shown;

/// Many times the whole history of any repository that configures hosts, in bytes; `git.max-size` of the settings.
const MAX_SIZE: u64 = 512 << 20;

/// A file that is larger, in bytes, is not taken over, not even one that was removed again. None of half that is deployed, but somebody
/// may once have committed it.
pub(super) const MAX_OBJECT: usize = 40 << 20;

/// What one conversation may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Bytes on the wire: a hostile server never ends its pack.
    pub bytes: u64,
    /// Objects in one pack: gix keeps some 100 bytes for each while it makes the index.
    pub objects: usize,
    /// Bytes that the objects unpack to: a pack of kilobytes can unpack to terabytes. This bounds time; for memory
    /// see [`Bounds::memory`].
    pub unpacked: u64,
}

impl Bounds {
    /// What a whole repository may take, whose pack has so many bytes at most.
    fn whole(bytes: u64) -> Bounds {
        let objects = usize::try_from(bytes / 2048).unwrap_or(usize::MAX);
        Bounds { bytes, objects, unpacked: bytes.saturating_mul(32) }
    }

    /// What may come on top of it at once, where it is here already: some thousand commits.
    fn growth(self) -> Bounds {
        Bounds { bytes: self.bytes / 16, objects: self.objects / 4, unpacked: self.unpacked / 4 }
    }

    /// Returns how many bytes one thing in it may take in memory: a file with what it builds on, or the list of its objects.
    pub(super) fn largest(self) -> usize {
        (2 * MAX_OBJECT + (16 << 20)).max(self.objects.saturating_mul(80))
    }

    /// Returns how many bytes of memory taking it in may take: two of the largest files and what they differ by, or many small ones.
    pub(super) fn memory(self) -> u64 {
        (MAX_OBJECT as u64 * 2 + (16 << 20)).saturating_add(self.bytes / 32)
    }

    /// Returns how many bytes it may take on this disk, where each object is compressed on its own: without deltas it is more.
    pub(super) fn stored(self) -> u64 {
        self.bytes.saturating_mul(2)
    }
}

/// Whether `file://` addresses are accepted: a repository on this machine is as trusted as whoever can write to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// Refuse them; the default of the settings.
    Refused,
    /// Accept them.
    Allowed,
}

/// Why an address or a branch name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(String);

/// The parts of an address that its transport needs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Address {
    /// `https://` and `http://`, without credentials.
    Http { url: String },
    /// `git://`.
    Git { host: String, port: u16, path: String },
    /// `ssh://` and `user@host:path`.
    Ssh { user: Option<String>, host: String, port: Option<u16>, path: String },
    /// `file://`.
    File { path: String },
}

/// The address of a repository, checked; `Display` and `Debug` never show a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Url {
    address: Address,
    credentials: Option<(String, String)>,
    display: String,
}

impl Url {
    /// Checks `text`: `https://`, `http://`, `ssh://`, `git://`, `user@host:path`, and `file://` where `files` allows it.
    ///
    /// Everything that git or ssh could take for an option, a helper or a command is refused here, before it can reach
    /// a command line (CVE-2017-1000117, CVE-2018-17456, RUSTSEC-2023-0064).
    ///
    /// # Errors
    /// Says which rule `text` breaks; a password in `text` is not repeated.
    pub fn parse(text: &str, files: Files) -> Result<Url, UrlError> {
        if text.is_empty() {
            return refuse("the repository's address is empty".to_owned());
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return refuse("the repository's address holds a space or a control character".to_owned());
        }
        if text.starts_with('-') {
            return refuse(format!("`{}` begins with `-` and could be taken for an option", shown(text)));
        }
        match text.split_once("://") {
            Some((scheme, rest)) => Self::with_scheme(scheme, rest, files),
            None => Self::scp_like(text),
        }
    }

    /// Returns an address as people may see it, whether it is sound or not: without its password.
    pub fn shown(text: &str) -> String {
        Url::parse(text, Files::Allowed).map_or_else(|_| "an address that is refused".to_owned(), |url| url.display)
    }

    /// Returns the server and its port, when it is reached over ssh.
    pub fn ssh_server(&self) -> Option<(&str, Option<u16>)> {
        match &self.address {
            Address::Ssh { host, port, .. } => Some((host, *port)),
            Address::Http { .. } | Address::Git { .. } | Address::File { .. } => None,
        }
    }

    fn with_scheme(scheme: &str, rest: &str, files: Files) -> Result<Url, UrlError> {
        match scheme {
            "https" | "http" => Self::http(scheme, rest),
            "git" | "ssh" => Self::plain(scheme, rest),
            "file" if files == Files::Refused => {
                refuse("`file://` addresses are refused unless the settings allow them: write `allow-file: true`, to try something out".to_owned())
            }
            "file" => {
                let Some(path) = rest.strip_prefix("localhost").unwrap_or(rest).strip_prefix('/') else {
                    return refuse(format!("`file://{rest}` is not absolute: write `file:///path`"));
                };
                let path = plain_path(&format!("/{path}"))?;
                Ok(Url { display: format!("file://{path}"), address: Address::File { path }, credentials: None })
            }
            _ if scheme.contains("::") => refuse_helper(scheme),
            _ => refuse(format!("`{scheme}://` is not supported: use https, ssh, git or `user@host:path`")),
        }
    }

    fn http(scheme: &str, rest: &str) -> Result<Url, UrlError> {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (userinfo, host_port) = split_userinfo(authority);
        let (host, port) = split_port(host_port)?;
        check_host(&host)?;
        if path.is_empty() {
            return refuse(format!(
                "`{scheme}://{host_port}` names a host but no repository: write its path behind it"
            ));
        }
        if path.contains(['?', '#', '\\', '"', '<', '>']) {
            return refuse(format!(
                "the path of `{scheme}://{host_port}/…` holds a character that needs percent-encoding"
            ));
        }
        let credentials = userinfo.map(|info| match info.split_once(':') {
            Some((user, password)) => (percent_decoded(user), percent_decoded(password)),
            None => (percent_decoded(info), String::new()),
        });
        if scheme == "http" && credentials.is_some() {
            return refuse(format!("`http://…@{host_port}` would send its credentials in clear text: use https"));
        }
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let url = format!("{scheme}://{host}{port}/{path}");
        let display = match &credentials {
            Some((user, _)) => format!("{scheme}://{}:***@{host}{port}/{path}", shown(user)),
            None => url.clone(),
        };
        Ok(Url { address: Address::Http { url }, credentials, display })
    }

    fn plain(scheme: &str, rest: &str) -> Result<Url, UrlError> {
        let Some((authority, path)) = rest.split_once('/') else {
            return refuse(format!("`{scheme}://…` names a host but no repository: write its path behind it"));
        };
        let (userinfo, host_port) = split_userinfo(authority);
        let (host, port) = split_port(host_port)?;
        check_host(&host)?;
        let path = plain_path(&format!("/{path}"))?;
        let shown_port = port.map(|port| format!(":{port}")).unwrap_or_default();
        if scheme == "git" {
            if userinfo.is_some() {
                return refuse("`git://` has no users: remove the part before `@`".to_owned());
            }
            let display = format!("git://{host}{shown_port}{path}");
            let address = Address::Git { host, port: port.unwrap_or(9418), path };
            return Ok(Url { address, credentials: None, display });
        }
        let user = userinfo.map(checked_user).transpose()?;
        let at = user.as_deref().map(|user| format!("{user}@")).unwrap_or_default();
        let display = format!("ssh://{at}{host}{shown_port}{path}");
        // `ssh://host/~user/x` means the home of `user`, as in git.
        let path = if path.starts_with("/~") { path[1..].to_owned() } else { path };
        Ok(Url { address: Address::Ssh { user, host, port, path }, credentials: None, display })
    }

    fn scp_like(text: &str) -> Result<Url, UrlError> {
        let colon = match text.find(']') {
            Some(bracket) => text[bracket..].find(':').map(|at| bracket + at),
            None => text.find(':'),
        };
        let Some(colon) = colon else {
            return refuse(format!(
                "`{}` is no address: write `https://…`, `ssh://…` or `user@host:path`",
                shown(text)
            ));
        };
        let (authority, path) = (&text[..colon], &text[colon + 1..]);
        if path.starts_with(':') || authority.contains('/') {
            return refuse_helper(authority);
        }
        let (userinfo, host) = split_userinfo(authority);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        check_host(&host)?;
        let path = plain_path(path)?;
        let user = userinfo.map(checked_user).transpose()?;
        let display = text.to_owned();
        Ok(Url { address: Address::Ssh { user, host, port: None, path }, credentials: None, display })
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn credentials(&self) -> Option<&(String, String)> {
        self.credentials.as_ref()
    }

    /// Says whether it is an address of https.
    pub fn is_https(&self) -> bool {
        matches!(&self.address, Address::Http { url } if url.starts_with("https:"))
    }

    /// Says whether what is received could be read and changed on its way: only signatures protect it then.
    pub fn is_insecure(&self) -> bool {
        match &self.address {
            Address::Http { url } => url.starts_with("http:"),
            Address::Git { .. } => true,
            Address::Ssh { .. } | Address::File { .. } => false,
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.display)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({})", self.display)
    }
}

fn refuse<T>(why: String) -> Result<T, UrlError> {
    Err(UrlError(why))
}

fn refuse_helper<T>(scheme: &str) -> Result<T, UrlError> {
    let name = scheme.split("::").next().unwrap_or_default();
    refuse(format!("`{}::…` would run a remote helper, which is never done", shown(name)))
}

fn split_userinfo(authority: &str) -> (Option<&str>, &str) {
    match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    }
}

fn split_port(text: &str) -> Result<(String, Option<u16>), UrlError> {
    let after_bracket = text.rfind(']').map_or(0, |at| at + 1);
    let Some(colon) = text[after_bracket..].find(':').map(|at| at + after_bracket) else {
        return Ok((text.to_owned(), None));
    };
    match text[colon + 1..].parse::<u16>() {
        Ok(port) if port > 0 => Ok((text[..colon].to_owned(), Some(port))),
        _ => refuse(format!(
            "`{}` is not a port: write ssh://HOST/PATH, or USER@HOST:PATH without ssh://",
            shown(&text[colon + 1..])
        )),
    }
}

fn check_host(host: &str) -> Result<(), UrlError> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let fine = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None if host.contains(':') => host.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) && !host.starts_with(['-', '.']),
    };
    if host.is_empty() || !fine {
        return refuse(format!("`{}` is not the name or address of a host", shown(host)));
    }
    Ok(())
}

fn checked_user(user: &str) -> Result<String, UrlError> {
    if user.contains(':') {
        return refuse("ssh takes no password from an address: use a key".to_owned());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._+".contains(c);
    if user.is_empty() || user.starts_with('-') || !user.chars().all(plain) {
        return refuse(format!("`{}` is not a user name", shown(user)));
    }
    Ok(user.to_owned())
}

fn plain_path(path: &str) -> Result<String, UrlError> {
    if path.is_empty() || path == "/" {
        return refuse("the address names a host but no repository: write its path behind it".to_owned());
    }
    if path.starts_with('-') || path.starts_with("/-") {
        return refuse(format!("the path `{}` begins with `-` and could be taken for an option", shown(path)));
    }
    if path.contains('%') {
        return refuse(format!("the path `{}` is percent-encoded: only http addresses are", shown(path)));
    }
    Ok(path.to_owned())
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = (*first == b'%').then(|| tail.get(..2)).flatten();
        let decoded =
            hex.and_then(|hex| std::str::from_utf8(hex).ok()).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A branch, without `refs/heads/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchName(String);

impl BranchName {
    /// Checks `text` by git's rules for ref names (git-check-ref-format(1)).
    ///
    /// # Errors
    /// Says that `text` is no branch name.
    pub fn parse(text: &str) -> Result<BranchName, UrlError> {
        let full = format!("refs/heads/{text}");
        let valid = gix::validate::reference::name(full.as_str().into()).is_ok();
        if !valid || text.starts_with('-') || text.contains(['*', '+', '^']) {
            return refuse(format!("`{}` is not a branch name: write it as `git branch` shows it", shown(text)));
        }
        Ok(BranchName(text.to_owned()))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn full(&self) -> String {
        format!("refs/heads/{}", self.0)
    }
}

impl fmt::Display for BranchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// How `ssh` is called; without a setting, the files of the user that the agent runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ssh {
    /// The private keys; no other key and no key agent is tried where there is one.
    pub keys: Vec<PathBuf>,
    /// The only files that host keys are looked up in, where there are any. An unknown host is refused in any case.
    pub known_hosts: Vec<PathBuf>,
    /// An ssh configuration file, for jump hosts and the like; without it none is read, not even the system's.
    pub config: Option<PathBuf>,
}

/// A repository and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its address.
    pub url: Url,
    /// The branch that is followed.
    pub branch: BranchName,
    /// For `ssh://`.
    pub ssh: Ssh,
    /// For `https://`: a PEM file of the only certificate authorities to trust; without it, the system's.
    pub ca_file: Option<PathBuf>,
    /// For `https://`: who knows the token; asked again for each connection, so it can be rotated.
    pub token: Option<Token>,
    /// For `https://` and `http://`: variables that name proxies, in place of those of this process.
    pub proxies: Option<Vec<(String, String)>>,
    /// What one conversation may bring, where nothing of it is here yet.
    pub whole: Bounds,
    /// And where something is.
    pub growth: Bounds,
    /// When so many bytes have come, what nobody needs any more is looked for.
    pub slack: u64,
}

impl Remote {
    /// Describes `branch` of the repository at `url`, with nothing but defaults.
    pub fn new(url: Url, branch: BranchName) -> Remote {
        Remote {
            url,
            branch,
            ssh: Ssh::default(),
            ca_file: None,
            token: None,
            proxies: None,
            whole: Bounds::whole(MAX_SIZE),
            growth: Bounds::whole(MAX_SIZE).growth(),
            slack: Bounds::whole(MAX_SIZE).growth().bytes,
        }
    }

    /// Bounds its size, in bytes on the wire, and with it everything else that it may bring.
    #[must_use]
    pub fn of_at_most(self, bytes: u64) -> Remote {
        let whole = Bounds::whole(bytes);
        Remote { whole, growth: whole.growth(), slack: whole.growth().bytes, ..self }
    }

    /// The same for who has so many bytes of it: a server has nothing to send that is many times as large, whoever asks anew.
    #[must_use]
    pub(super) fn known_to_have(&self, bytes: u64) -> Remote {
        let bytes = self.whole.bytes.min(bytes.saturating_mul(2).saturating_add(self.growth.bytes));
        Remote { whole: Bounds { bytes, ..self.whole }, ..self.clone() }
    }

    /// The same, with these bounds whatever is here.
    #[must_use]
    pub(super) fn within(self, bounds: Bounds) -> Remote {
        Remote { whole: bounds, growth: bounds, slack: bounds.bytes, ..self }
    }
}

/// Who knows the token for `https://`.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// A file that holds `token` or `user:token`.
    File(PathBuf),
    /// Somebody else asked who knows it, and says what to do where it is not accepted.
    Told {
        /// The user.
        user: String,
        /// The token.
        token: String,
        /// What to do.
        hint: String,
    },
    /// A program and its arguments, which is asked as git asks its credential helpers (gitcredentials(7)).
    Program(Vec<String>),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::File(path) => f.debug_tuple("File").field(path).finish(),
            Token::Told { user, .. } => f.debug_struct("Told").field("user", user).finish_non_exhaustive(),
            Token::Program(words) => f.debug_tuple("Program").field(words).finish(),
        }
    }
}

/// How long a conversation with a remote may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadlines {
    /// Until there is a connection, name resolution and TLS included.
    pub connect: Duration,
    /// Without a byte in either direction, or with so few that their sender is as good as silent (less than 512 a second).
    pub stall: Duration,
    /// For everything, indexing what was received included.
    pub total: Duration,
}

impl Deadlines {
    /// Returns deadlines that leave a server `patience` for a connection, and for its work before it answers: one to which a thousand
    /// hosts report at once needs long for both, and who gives up makes more of it.
    #[must_use]
    pub fn patient(&self, patience: Duration) -> Deadlines {
        Deadlines { connect: self.connect.max(patience), stall: self.stall.max(patience), ..*self }
    }
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines { connect: Duration::from_secs(10), stall: Duration::from_secs(30), total: Duration::from_secs(600) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let actual = match Url::parse(text, Files::Allowed) {
            Ok(url) => url.to_string(),
            Err(error) => format!("refused: {error}"),
        };
        assert_eq!(actual, expected, "{text:?}");
    }

    #[test]
    fn addresses_that_are_accepted_print_without_their_password() {
        check("https://git.example/fleet.git", "https://git.example/fleet.git");
        check("https://git.example:8443/a/fleet.git", "https://git.example:8443/a/fleet.git");
        check("https://robot:s3cr%40t@git.example/fleet", "https://robot:***@git.example/fleet");
        check("https://t0ken@git.example/fleet", "https://t0ken:***@git.example/fleet");
        check("http://[2001:db8::1]:3000/fleet", "http://[2001:db8::1]:3000/fleet");
        check("git://git.example/fleet.git", "git://git.example/fleet.git");
        check("ssh://git@git.example:2222/~ops/fleet", "ssh://git@git.example:2222/~ops/fleet");
        check("git@git.example:ops/fleet.git", "git@git.example:ops/fleet.git");
        check("git@[2001:db8::1]:ops/fleet.git", "git@[2001:db8::1]:ops/fleet.git");
        check("file:///srv/fleet.git", "file:///srv/fleet.git");
    }

    #[test]
    fn addresses_that_could_run_something_are_refused() {
        for bad in [
            "",
            "-oProxyCommand=x",
            "--upload-pack=x",
            "ext::sh -c x",
            "ext::sh",
            "fd::17",
            "ftp://a/b",
            "rsync://a/b",
            "ssh://-oProxyCommand=x/y",
            "ssh://-x@host/y",
            "-x@host:path",
            "git@-host:path",
            "git@host:-path",
            "ssh://host/-path",
            "https://host",
            "https://host/",
            "https:///path",
            "http://u:p@host/x",
            "git://u@host/x",
            "https://ho st/x",
            "https://host/a\nb",
            "https://host/\u{1b}[31m",
            "https://host/x?y",
            "https://host/x#y",
            "https://host:0/x",
            "https://host:99999/x",
            "ssh://git:pw@host/x",
            "ssh://host/a%20b",
            "file://relative",
            "/srv/fleet.git",
            "fleet.git",
            "../x:y",
            "ssh://host",
            "https://$(id)/x",
            "http::https://host/x",
        ] {
            assert!(Url::parse(bad, Files::Allowed).is_err(), "{bad:?}");
        }
        assert!(Url::parse("file:///srv/fleet.git", Files::Refused).is_err());
    }

    #[test]
    fn a_refusal_does_not_repeat_a_password() {
        for bad in
            ["http://u:hunter2@host/x", "ssh://git:hunter2@host/x", "https://u:hunter2@host", "ftp://u:hunter2@h/x"]
        {
            let error = Url::parse(bad, Files::Refused).expect_err("refused");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        let url = Url::parse("https://u:hunter2@host/x", Files::Refused).expect("accepted");
        assert!(!format!("{url:?}{url}").contains("hunter2"));
        assert_eq!(url.credentials().map(|pair| pair.1.as_str()), Some("hunter2"));
    }

    #[test]
    fn branches_follow_the_rules_of_git() {
        assert!(BranchName::parse("main").is_ok() && BranchName::parse("release/2.x").is_ok());
        for bad in ["", "-x", "a..b", "a b", "a:b", "a*", "+main", "^main", "x.lock", "a//b", "@{u}", "a\u{7f}"] {
            assert!(BranchName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
