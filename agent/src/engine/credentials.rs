//! Credentials for registries, from the files that `docker login` and `podman login` write (containers-auth.json(5)).
//!
//! Read at each pull, so that a token that is renewed there needs no restart of the agent. No credential helper is run:
//! the agent starts no program that a file of the host names. Nothing here is ever printed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde::Deserialize;
use spec::images::full_name;

/// The most that is read of such a file: thousands of registries have room.
const FILE_LIMIT: u64 = 1024 * 1024;
/// What Docker Hub is called in an image's name, and what `docker login` calls it.
const HUB: [&str; 2] = ["docker.io", "https://index.docker.io/v1/"];

/// Where credentials are looked for unless the settings name a file: our own, then root's of either engine.
const USUAL_FILES: [&str; 4] = [
    "/etc/mainstay/registries.json",
    "/root/.docker/config.json",
    "/root/.config/containers/auth.json",
    "/run/containers/0/auth.json",
];

/// Returns the files to look into: the one that the settings name, else the usual ones.
pub fn files(named: Option<PathBuf>) -> Vec<PathBuf> {
    named.map_or_else(|| USUAL_FILES.map(PathBuf::from).to_vec(), |file| vec![file])
}

#[derive(Default, Deserialize)]
struct Logins {
    #[serde(default)]
    auths: HashMap<String, Login>,
    #[serde(default, rename = "credHelpers")]
    helpers: HashMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Default, Deserialize)]
struct Login {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default, rename = "identitytoken")]
    identity_token: Option<String>,
}

/// What the files say of one image; never printed.
#[derive(PartialEq)]
pub enum Found {
    /// With these it is to be asked for.
    Login(DockerCredentials),
    /// Nothing is known of its registry: it is asked for as anybody.
    Nothing,
    /// Something is known that cannot be used; it is asked for as anybody, and a refusal is told with this.
    Unusable(String),
}

/// Finds the credentials for an image; of several files, the first that knows its registry counts.
pub fn find(files: &[PathBuf], image: &str) -> Found {
    let mut unusable = None;
    for file in files {
        match read(file).map(|logins| logins.map_or(Found::Nothing, |logins| pick(&logins, image))) {
            Ok(Found::Nothing) => {}
            Ok(Found::Unusable(why)) | Err(why) => {
                unusable.get_or_insert_with(|| format!("{}: {why}", file.display()));
            }
            Ok(login) => return login,
        }
    }
    unusable.map_or(Found::Nothing, Found::Unusable)
}

fn read(path: &Path) -> Result<Option<Logins>, String> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(FILE_LIMIT + 1).read_to_string(&mut text)) {
        Ok(_) if text.len() as u64 > FILE_LIMIT => Err(format!("it is larger than {FILE_LIMIT} bytes")),
        // Where it breaks is said without what stands there.
        Ok(_) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| format!("it cannot be read at line {}, column {}", error.line(), error.column())),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(format!("it cannot be read: {error}")),
    }
}

/// Picks the most specific entry: `registry/team/image` before `registry/team` before `registry`.
fn pick(logins: &Logins, image: &str) -> Found {
    let name = full_name(image);
    let mut scope = name.as_str();
    loop {
        let aliases: &[&str] = if scope == HUB[0] { &HUB } else { &[scope] };
        for alias in aliases {
            if let Some(login) = known(logins, alias) {
                return usable(login, alias);
            }
            if let Some(helper) = logins.helpers.get(*alias) {
                return Found::Unusable(format!("the credentials for {alias} are kept by the helper `{helper}`"));
            }
        }
        match scope.rsplit_once('/') {
            Some((wider, _)) => scope = wider,
            None => break,
        }
    }
    match &logins.store {
        Some(store) => Found::Unusable(format!("the credentials are kept by the helper `{store}`")),
        None => Found::Nothing,
    }
}

/// Older logins wrote `https://registry/v1/` where newer ones write `registry`.
fn known<'l>(logins: &'l Logins, scope: &str) -> Option<&'l Login> {
    let bare = |key: &str| {
        let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
        key.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2").to_owned()
    };
    let found = logins.auths.get(scope);
    found.or_else(|| logins.auths.iter().find(|(key, _)| bare(key) == scope).map(|(_, login)| login))
}

fn usable(login: &Login, scope: &str) -> Found {
    let server = Some(scope.to_owned());
    if let Some(token) = login.identity_token.clone().filter(|token| !token.is_empty()) {
        return Found::Login(DockerCredentials {
            identitytoken: Some(token),
            serveraddress: server,
            ..DockerCredentials::default()
        });
    }
    let Some(auth) = login.auth.as_deref().filter(|auth| !auth.is_empty()) else {
        // What `docker login` leaves beside a helper.
        return Found::Unusable(format!("the credentials for {scope} are not in the file"));
    };
    let decoded = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((user, password)) => Found::Login(DockerCredentials {
            username: Some(user.to_owned()),
            password: Some(password.trim_end_matches('\0').to_owned()),
            serveraddress: server,
            ..DockerCredentials::default()
        }),
        None => Found::Unusable(format!("the credentials for {scope} are not `user:password` in base64")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str, image: &str) -> String {
        let logins: Logins = serde_json::from_str(text).expect("a file");
        match pick(&logins, image) {
            Found::Login(login) => login.username.or(login.identitytoken).expect("one of them"),
            Found::Nothing => "nobody".to_owned(),
            Found::Unusable(why) => why,
        }
    }

    fn auth(user: &str) -> String {
        format!("{{\"auth\": \"{}\"}}", STANDARD.encode(format!("{user}:pass:word")))
    }

    #[test]
    fn the_most_specific_entry_counts() {
        let text = format!(
            r#"{{"auths": {{"registry.lan:5000": {}, "registry.lan:5000/team": {}, "https://old.lan/v1/": {}}}}}"#,
            auth("all"),
            auth("team"),
            auth("old")
        );
        assert_eq!(user(&text, "registry.lan:5000/web:1"), "all");
        assert_eq!(user(&text, "registry.lan:5000/team/web@sha256:0f"), "team");
        assert_eq!(user(&text, "registry.lan:5000/teamwork/web"), "all");
        assert_eq!(user(&text, "old.lan/web"), "old");
        assert_eq!(user(&text, "registry.lan/web"), "nobody");
        assert_eq!(user(&text, "web"), "nobody");
    }

    #[test]
    fn docker_hub_has_two_names() {
        for key in ["docker.io", "https://index.docker.io/v1/"] {
            let text = format!(r#"{{"auths": {{"{key}": {}}}}}"#, auth("hub"));
            for image in ["redis", "redis:8", "acme/shop:1", "docker.io/library/redis"] {
                assert_eq!(user(&text, image), "hub", "{key} {image}");
            }
        }
    }

    #[test]
    fn passwords_hold_colons_and_tokens_stand_for_them() {
        let login: Login = serde_json::from_str(&auth("me")).expect("a login");
        let Found::Login(login) = usable(&login, "r") else { panic!("it is usable") };
        assert_eq!(login.password.as_deref(), Some("pass:word"));
        assert_eq!(user(r#"{"auths": {"r.lan": {"identitytoken": "token"}}}"#, "r.lan/x"), "token");
    }

    #[test]
    fn what_a_helper_keeps_is_said() {
        assert_eq!(
            user(r#"{"auths": {"r.lan": {}}, "credsStore": "pass"}"#, "r.lan/x"),
            "the credentials for r.lan are not in the file"
        );
        assert_eq!(
            user(r#"{"credHelpers": {"r.lan": "ecr-login"}}"#, "r.lan/x"),
            "the credentials for r.lan are kept by the helper `ecr-login`"
        );
        assert_eq!(
            user(r#"{"auths": {"r.lan": {"auth": "!"}}}"#, "r.lan/x"),
            "the credentials for r.lan are not `user:password` in base64"
        );
    }

    #[test]
    fn a_broken_file_is_named_without_its_secrets() {
        let folder = tempfile::tempdir().expect("a folder");
        let (broken, whole) = (folder.path().join("broken"), folder.path().join("whole"));
        std::fs::write(&broken, "{\"auths\": hunter2").expect("written");
        std::fs::write(&whole, format!(r#"{{"auths": {{"r.lan": {}}}}}"#, auth("me"))).expect("written");
        let Found::Unusable(why) = find(std::slice::from_ref(&broken), "r.lan/x") else { panic!("it is broken") };
        assert!(why.contains("line 1") && !why.contains("hunter"), "{why}");
        assert!(matches!(find(&[broken, whole], "r.lan/x"), Found::Login(_)), "the next file is asked");
        assert!(matches!(find(&[folder.path().join("absent")], "r.lan/x"), Found::Nothing));
    }
}
