//! What `ssh`, `git` and TLS complain about, in the words of somebody who can do something about it.

use spec::id::shown;

use super::error::{Verdict, because};

/// Reads from what `ssh` or `git` said whether to retry, to retry slowly or to ask a person, and says what the person should do.
///
/// The lines come joined by `; `.
pub(super) fn classify(said: &str) -> Verdict {
    let has = |phrases: &[&str]| phrases.iter().any(|phrase| said.contains(phrase));
    if let Some(what) = host_key(said).or_else(|| private_key(said)) {
        return Verdict::Config(because(what));
    }
    if has(&["Host key verification failed", "Bad configuration"]) {
        return Verdict::Config(because(said));
    }
    if has(&["Permission denied", "Too many authentication failures"]) {
        let said = said.trim_end_matches('.');
        return Verdict::Denied(because(format!(
            "{said}: let the server know a public key of this host (that of `git.key`, else root's own), and see whether the user \
             in `repository` is right"
        )));
    }
    let hidden = [
        "does not appear to be a git repository",
        "epository not found",
        "could not be found",
        "Access denied",
        "access denied",
        "No such file or directory",
        "not a git repository",
    ];
    if has(&hidden) {
        return Verdict::Denied(because(format!(
            "{said}: check the path in `repository`, and whether this host may read it"
        )));
    }
    let remedy = if has(&["Could not resolve hostname"]) {
        ": check the host in `repository`, and this host's DNS"
    } else if has(&["Connection refused"]) {
        ": check the port in `repository`, and whether the server runs"
    } else if has(&["Connection timed out", "No route to host", "Network is unreachable"]) {
        ": check the host in `repository`, and whether a firewall lets this host through"
    } else {
        ""
    };
    Verdict::Unreachable(None, because(format!("{said}{remedy}")))
}

/// Explains that the server's key is not known, or is another one.
fn host_key(said: &str) -> Option<String> {
    if said.contains("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        let host = between(said, "Host key for ", " has changed").unwrap_or("the server");
        let fingerprint = between(said, "SHA256:", ";").map(|it| it.trim_end_matches('.')).unwrap_or("unknown");
        let place = said.split_once("Offending ").and_then(|(_, rest)| between(rest, " key in ", ";"));
        let place = place.unwrap_or("known_hosts");
        let file = place.rsplit_once(':').map_or(place, |(file, _)| file);
        return Some(format!(
            "the key of {host} is not the one in {place}, so that somebody may stand in between; it shows SHA256:{fingerprint}. \
             Ask whoever runs the server; if the key is right: ssh-keygen -f {file} -R {host}, then ssh-keyscan {host} >>{file}"
        ));
    }
    let host = between(said, " host key is known for ", " and you have requested")?;
    Some(format!(
        "the key of {host} is not known to this host: ssh-keyscan {host} >>/root/.ssh/known_hosts, or >> the file of \
         `git.known-hosts`, and compare it with what whoever runs the server says"
    ))
}

/// Explains why ssh does not take the private key.
fn private_key(said: &str) -> Option<String> {
    if said.contains("UNPROTECTED PRIVATE KEY FILE") {
        let path = between(said, " for '", "'").unwrap_or("the key");
        let mode = between(said, "Permissions ", " for").unwrap_or("too wide");
        return Some(unprotected(path, mode));
    }
    let path = between(said, "Load key \"", "\"")?;
    let why = between(said, &format!("Load key \"{path}\": "), ";").unwrap_or("it cannot be read");
    Some(format!(
        "the ssh key {path} cannot be used: {why}. It has to be a private key as ssh-keygen writes it, without a passphrase"
    ))
}

/// Says that others can read a private key.
pub(super) fn unprotected(path: &str, mode: &str) -> String {
    format!("others can read the ssh key {path} (mode {mode}), and ssh does not take it then: chmod 0600 {path}")
}

fn between<'s>(text: &'s str, start: &str, end: &str) -> Option<&'s str> {
    let (_, rest) = text.split_once(start)?;
    Some(rest.split_once(end).map_or(rest, |(within, _)| within))
}

/// Explains why the server's certificate is not trusted; expired ones are renewed, and clocks set.
pub(super) fn certificate(said: &str) -> Option<String> {
    let why = said.split_once("invalid peer certificate: ").map(|(_, why)| why)?;
    let date = |before: &str| {
        let (_, rest) = why.split_once(before)?;
        let seconds = rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
        jiff::Timestamp::from_second(seconds).ok()
    };
    if why.starts_with("UnknownIssuer") {
        return Some(
            "the server's certificate is signed by nobody whom this host trusts: name the file of its authority with `git.ca`, or \
             install that into the system"
                .to_owned(),
        );
    }
    if let Some(end) = date("not valid after ") {
        return Some(format!(
            "the server's certificate was valid until {end}: renew it; where it is still valid, this host's clock is wrong, see \
             `timedatectl`"
        ));
    }
    if let Some(begin) = date("not valid before ") {
        return Some(format!(
            "the server's certificate is valid only from {begin} on: this host's clock is most likely wrong, see `timedatectl`"
        ));
    }
    let names: Vec<&str> = why.split('"').skip(1).step_by(2).collect();
    match &names[..] {
        [wanted, others @ ..] if why.contains("not valid for name") && !others.is_empty() => Some(format!(
            "the server's certificate is for {} and not for {wanted}: write the name that it is for into `repository`",
            others.join(", ")
        )),
        _ => Some(format!("the server's certificate is not valid: {why}: see what `openssl s_client` says about it")),
    }
}

/// What reqwest and hyper say on the way to the reason, and nobody needs to read.
const FRAMES: [&str; 5] =
    ["client error (Connect)", "client error (SendRequest)", "tcp connect error", "dns error", "connection error"];

/// Prints an error with its sources: reqwest's own `Display` names only the outermost, and the address with it.
pub(super) fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        let line = shown(&source.to_string());
        let is_frame = FRAMES.contains(&line.as_str()) && source.source().is_some();
        if !is_frame && !text.ends_with(&line) {
            text = if text.is_empty() { line } else { format!("{text}: {line}") };
        }
        next = source.source();
    }
    if text.is_empty() { "the request failed".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_says_decides_the_reaction() {
        let kind = |said: &str| match classify(said) {
            Verdict::Config(_) => "config",
            Verdict::Denied(_) => "denied",
            _ => "retry",
        };
        assert_eq!(kind("No ED25519 host key is known for h; Host key verification failed."), "config");
        assert_eq!(kind("git@h: Permission denied (publickey)."), "denied");
        assert_eq!(kind("fatal: '/x' does not appear to be a git repository"), "denied");
        assert_eq!(kind("ERROR: Repository not found."), "denied");
        assert_eq!(kind("ssh: connect to host h port 22: Connection refused"), "retry");
        assert_eq!(kind("ssh: Could not resolve hostname h: Temporary failure in name resolution"), "retry");
    }
}
