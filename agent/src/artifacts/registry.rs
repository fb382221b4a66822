//! Fetches one layer of an image or artifact from a registry: a manifest, and the blob that it names.
//!
//! The pull of the OCI Distribution Specification 1.1 ("Pulling manifests", "Pulling blobs"), and the token of the registry
//! that speaks Docker's protocol for it ("Token Authentication Specification"). Own code, since the client crates bring a
//! second HTTP stack and read whole layers into memory. What is asked for is a layer by its digest; the tag has to hold it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use spec::artifact::Image;
use spec::authority::is_loopback;
use spec::digest::Digest;
use spec::id::shown;

use super::{Fetcher, Why, status};
use crate::engine::credentials::{self, Found};
use crate::web::{Answer, Asked};

/// The largest manifest; registries accept none beyond 4 MiB.
const MANIFEST: usize = 4 << 20;
/// The largest answer with a token.
const TOKEN: usize = 1 << 20;
/// So many layers are told when none is the wanted one.
const TOLD: usize = 5;
/// What is understood of manifests. Lists are asked for to be able to say that it is one.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, \
                         application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// How a registry lets us in. Never printed.
#[derive(Clone)]
enum Pass {
    Nobody,
    Basic { user: String, password: String },
    Bearer(String),
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
    #[serde(default)]
    manifests: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Layer {
    digest: String,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// Asks for the layer `sha256` of an image; its bytes are in the answer's body.
pub(super) async fn layer(fetcher: &Fetcher, image: &Image<'_>, sha256: Digest) -> Result<Answer, Why> {
    let base = base(image);
    let address = format!("{base}/manifests/{}", image.reference);
    let mut pass = Pass::Nobody;
    let mut answer = ask(fetcher, &address, &pass).await?;
    if status(&answer) == StatusCode::UNAUTHORIZED {
        pass = let_in(fetcher, image, &answer).await?;
        answer = ask(fetcher, &address, &pass).await?;
    }
    let answer = accepted(fetcher, image, answer)?;
    let bytes = fetcher.body(answer, MANIFEST).await?;
    let is_named = image.reference.strip_prefix("sha256:").is_some_and(|name| Digest::of(&bytes).to_string() != name);
    if is_named {
        return Err(Why::Registry("the manifest that came has another digest than its name".to_owned()));
    }
    let manifest: Manifest = serde_json::from_slice(&bytes)
        .map_err(|error| Why::Registry(format!("what the registry has there is no manifest: {error}")))?;
    let wanted = format!("sha256:{sha256}");
    if manifest.layers.iter().any(|layer| layer.digest == wanted) {
        let answer = ask(fetcher, &format!("{base}/blobs/{wanted}"), &pass).await?;
        return accepted(fetcher, image, answer);
    }
    let layers: Vec<String> = manifest.layers.iter().take(TOLD).map(|layer| shown(&layer.digest)).collect();
    Err(Why::Registry(match (layers.is_empty(), manifest.manifests.is_some()) {
        (true, true) => "it is a list of images for several platforms: name one of them, by `@sha256:…`".to_owned(),
        (true, false) => "it has no layers".to_owned(),
        (false, _) => format!("it has no layer {wanted}, but {}", layers.join(", ")),
    }))
}

/// Returns the address of a repository at its registry; Docker Hub's API has a name of its own.
fn base(image: &Image<'_>) -> String {
    let (registry, repository) = match image.registry {
        "docker.io" if !image.repository.contains('/') => {
            ("registry-1.docker.io", format!("library/{}", image.repository))
        }
        "docker.io" => ("registry-1.docker.io", image.repository.to_owned()),
        registry => (registry, image.repository.to_owned()),
    };
    let scheme = if is_loopback(registry) { "http" } else { "https" };
    format!("{scheme}://{registry}/v2/{repository}")
}

async fn ask(fetcher: &Fetcher, address: &str, pass: &Pass) -> Result<Answer, Why> {
    fetcher.send(signed(Asked::get(address).with("Accept", MANIFESTS), pass)).await
}

/// Adds what lets us in (RFC 7617, RFC 6750).
fn signed(asked: Asked, pass: &Pass) -> Asked {
    match pass {
        Pass::Nobody => asked,
        Pass::Basic { user, password } => {
            let both = BASE64_STANDARD.encode(format!("{user}:{password}"));
            asked.with("Authorization", &format!("Basic {both}"))
        }
        Pass::Bearer(token) => asked.with("Authorization", &format!("Bearer {token}")),
    }
}

/// Explains any answer but a good one.
fn accepted(fetcher: &Fetcher, image: &Image<'_>, answer: Answer) -> Result<Answer, Why> {
    let status = status(&answer);
    match status {
        StatusCode::OK => Ok(answer),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let hint = match credentials::find(&fetcher.logins, &image.name()) {
                Found::Login(_) => "the credentials of this host are not accepted".to_owned(),
                Found::Nothing => "this host has no credentials for it".to_owned(),
                Found::Unusable(why) => why,
            };
            Err(Why::Registry(format!("the registry answered {status}: {hint}")))
        }
        status if status.is_redirection() => Err(super::refused(&answer)),
        status => Err(Why::Answered(status)),
    }
}

/// Finds out how the registry wants to be asked, and gets what it takes.
async fn let_in(fetcher: &Fetcher, image: &Image<'_>, answer: &Answer) -> Result<Pass, Why> {
    let login = match credentials::find(&fetcher.logins, &image.name()) {
        Found::Login(login) => Some(login),
        Found::Nothing | Found::Unusable(_) => None,
    };
    let (mut user, mut refresh) = (Pass::Nobody, None);
    if let Some(login) = login {
        refresh = login.identitytoken;
        if let (Some(name), Some(password)) = (login.username, login.password) {
            user = Pass::Basic { user: name, password };
        }
    }
    let Some(bearer) = answer.headers("www-authenticate").find_map(Bearer::parse) else { return Ok(user) };
    let realm = Url::parse(&bearer.realm).map_err(|_| bad_realm(&bearer.realm))?;
    let is_safe = realm.scheme() == "https" || is_loopback(image.registry);
    if !is_safe || !realm.username().is_empty() {
        return Err(bad_realm(&bearer.realm));
    }
    let scope = format!("repository:{}:pull", base(image).split_once("/v2/").map_or("", |(_, name)| name));
    let answer = fetcher.send(token_request(realm, &bearer, &scope, (&user, refresh))).await?;
    if !status(&answer).is_success() {
        return accepted(fetcher, image, answer).map(|_| Pass::Nobody);
    }
    let bytes = fetcher.body(answer, TOKEN).await?;
    let token = serde_json::from_slice::<Token>(&bytes).ok().and_then(|token| token.token.or(token.access_token));
    token.map(Pass::Bearer).ok_or_else(|| Why::Registry("the registry's token service gave no token".to_owned()))
}

fn bad_realm(realm: &str) -> Why {
    Why::Registry(format!("the registry sends us for a token to `{}`, which is not an https address", shown(realm)))
}

/// Builds the request for a token: with a password it is a GET, with a token of `docker login` a POST (OAuth 2).
fn token_request(mut realm: Url, bearer: &Bearer, scope: &str, (user, refresh): (&Pass, Option<String>)) -> Asked {
    let mut pairs = vec![("scope", scope)];
    pairs.extend(bearer.service.as_deref().map(|service| ("service", service)));
    let Some(refresh) = &refresh else {
        realm.query_pairs_mut().extend_pairs(pairs);
        return signed(Asked::get(realm.as_str()), user);
    };
    pairs.extend([("grant_type", "refresh_token"), ("client_id", "mainstay"), ("refresh_token", refresh)]);
    let mut form = realm.clone();
    form.query_pairs_mut().clear().extend_pairs(pairs);
    let body = form.query().unwrap_or_default().to_owned();
    let kind = "application/x-www-form-urlencoded";
    Asked::post(realm.as_str(), body).with("Content-Type", kind)
}

/// A challenge that wants a token (RFC 6750, "The WWW-Authenticate Response Header Field").
#[derive(Debug, PartialEq, Eq)]
struct Bearer {
    realm: String,
    service: Option<String>,
}

impl Bearer {
    fn parse(challenge: &str) -> Option<Bearer> {
        let (scheme, mut rest) = challenge.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service) = (None, None);
        while let Some((key, behind)) = rest.split_once("=\"") {
            let (value, behind) = behind.split_once('"')?;
            match key.trim_matches([' ', ',']).to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value.to_owned()),
                "service" => service = Some(value.to_owned()),
                _ => {}
            }
            rest = behind;
        }
        Some(Bearer { realm: realm?, service })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
        };
        let docker =
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull""#;
        assert_eq!(Bearer::parse(docker), bearer("https://auth.example/token", Some("registry.example")));
        assert_eq!(Bearer::parse(r#"bearer realm="https://a", error="x""#), bearer("https://a", None));
        for other in [r#"Basic realm="x""#, "Bearer", r#"Bearer service="x""#, r#"Bearer realm="x"#] {
            assert_eq!(Bearer::parse(other), None, "{other}");
        }
    }
}
