//! Images on the engine: whether one is there, fetching it, and removing one that nothing uses.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bollard::models::CreateImageInfo;
use bollard::query_parameters::{CreateImageOptions, RemoveImageOptions};
use futures_util::StreamExt;
use serde::Deserialize;
use spec::id::shown;
use spec::images;
use tokio::time::Instant;

use super::credentials::{self, Found};
use super::{Engine, Error, path_escaped};

/// How long a pull may stand still: a registry that throttles still sends something, and so does the engine extracting.
const STALL: Duration = Duration::from_secs(120);

/// What an image on the engine is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// By the engine.
    pub id: String,
    /// By its registry, as `name@sha256:…`.
    pub digest: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(rename = "Id")]
    id: String,
}

#[derive(Debug, Deserialize)]
struct Inspected {
    #[serde(rename = "Id", default)]
    id: String,
    #[serde(rename = "RepoTags", default)]
    repo_tags: Option<Vec<String>>,
    #[serde(rename = "RepoDigests", default)]
    repo_digests: Option<Vec<String>>,
}

impl Engine {
    /// Says whether an image is on the engine.
    ///
    /// # Errors
    /// Unreachable or timed out.
    pub async fn has_image(&self, reference: &str) -> Result<bool, Error> {
        Ok(self.inspect_image(reference).await?.is_some())
    }

    /// Returns what an image on the engine is called by its digest at its registry (`name@sha256:…`), which names these
    /// very bytes wherever the tag moves. `None` when the image is not there, or never came from a registry.
    ///
    /// # Errors
    /// Unreachable or timed out.
    pub async fn image_digest(&self, reference: &str) -> Result<Option<String>, Error> {
        let found = self.inspect_image(reference).await?;
        Ok(found.and_then(|image| repo_digest(reference, image.repo_digests.unwrap_or_default())))
    }

    /// Returns what an image on the engine is called.
    ///
    /// # Errors
    /// Unreachable or timed out.
    pub async fn image(&self, reference: &str) -> Result<Option<Image>, Error> {
        let found = self.inspect_image(reference).await?;
        Ok(found.map(|image| Image {
            id: bare(&image.id).to_owned(),
            digest: repo_digest(reference, image.repo_digests.unwrap_or_default()),
        }))
    }

    /// Names every image on the engine, by its id.
    ///
    /// # Errors
    /// Unreachable or timed out.
    pub async fn image_ids(&self) -> Result<BTreeSet<String>, Error> {
        let listed: Vec<Listed> = self.get("list images", "/images/json").await?;
        Ok(listed.iter().map(|image| bare(&image.id).to_owned()).collect())
    }

    /// Removes an image that has no other name than `reference`, without force: the engine refuses while a container uses
    /// it. Says whether it is gone; it is left alone when somebody has given it another name.
    ///
    /// # Errors
    /// Unreachable, timed out, or in use.
    pub async fn remove_image(&self, id: &str, reference: Option<&str>) -> Result<bool, Error> {
        let Some(image) = self.inspect_image(id).await? else { return Ok(true) };
        let ours = reference.map(images::full_reference);
        let tags = image.repo_tags.unwrap_or_default();
        let is_ours = |tag: &String| tag == "<none>:<none>" || Some(images::full_reference(tag)) == ours;
        if !tags.iter().all(is_ours) {
            return Ok(false);
        }
        let doing = format!("remove image `{}`", shown(id));
        let client = self.client(&doing)?;
        let options = RemoveImageOptions { force: false, noprune: true, ..RemoveImageOptions::default() };
        match client.within(&doing, super::ASK, client.docker.remove_image(id, Some(options), None)).await {
            Ok(_) | Err(Error::Missing { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn inspect_image(&self, reference: &str) -> Result<Option<Inspected>, Error> {
        let path = format!("/images/{}/json", path_escaped(reference));
        match self.get(&format!("look for image `{}`", shown(reference)), &path).await {
            Ok(image) => Ok(Some(image)),
            Err(Error::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches an image from its registry and returns what `image_digest` says of it then. Containers of an older one
    /// are not touched. `progress` is told the bytes that came and, as far as layers are known, the bytes there are.
    ///
    /// # Errors
    /// Refused with the registry's words; timed out, or stalled when nothing came for two minutes.
    pub async fn pull(
        &self,
        reference: &str,
        deadline: Duration,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<Option<String>, Error> {
        let doing = format!("pull image `{}`", shown(reference));
        let client = self.client(&doing)?;
        let until = Instant::now() + deadline;
        let (name, tag) = split(reference);
        let options = CreateImageOptions {
            from_image: Some(name.to_owned()),
            tag: Some(tag.to_owned()),
            ..CreateImageOptions::default()
        };
        let (login, hint) = match credentials::find(&self.logins, reference) {
            Found::Login(login) => (Some(login), None),
            Found::Nothing => (None, None),
            Found::Unusable(why) => (None, Some(why)),
        };
        // Dropping the stream closes the connection, which ends the pull on the engine too.
        let mut steps = std::pin::pin!(client.docker.create_image(Some(options), None, login));
        let mut layers = HashMap::new();
        loop {
            match tokio::time::timeout_at(until.min(Instant::now() + STALL), steps.next()).await {
                Ok(None) => break,
                Ok(Some(Ok(step))) => {
                    if let Some((done, total)) = advanced(&mut layers, step) {
                        progress(done, total);
                    }
                }
                Ok(Some(Err(error))) => return Err(refused(client.classify(&doing, error), hint)),
                Err(_) if Instant::now() >= until => {
                    return Err(Error::TimedOut { doing: doing.into(), after: deadline });
                }
                Err(_) => return Err(Error::Stalled { doing: doing.into(), after: STALL }),
            }
        }
        match self.inspect_image(reference).await? {
            Some(image) => Ok(repo_digest(reference, image.repo_digests.unwrap_or_default())),
            None => Err(Error::Refused { doing: doing.into(), words: "the pull ended without the image".to_owned() }),
        }
    }
}

/// Returns an id without the name of its digest, which not every engine writes.
fn bare(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}

/// An image that the registry does not have is the registry's refusal; there is nothing of ours missing. Credentials that
/// could not be used may be why.
fn refused(error: Error, hint: Option<String>) -> Error {
    match (error, hint) {
        (Error::Missing { doing, words } | Error::Refused { doing, words }, Some(hint)) => {
            Error::Refused { doing, words: format!("{words} (it was asked for without credentials: {hint})") }
        }
        (Error::Missing { doing, words }, None) => Error::Refused { doing, words },
        (error, _) => error,
    }
}

/// Splits a reference into name and tag, or name and digest. Without a tag the engine would fetch every one there is.
fn split(reference: &str) -> (&str, &str) {
    if let Some((name, digest)) = reference.split_once('@') {
        // A tag beside a digest says nothing: the digest decides.
        return (without_tag(name), digest);
    }
    match without_tag(reference) {
        name if name.len() < reference.len() => (name, &reference[name.len() + 1..]),
        name => (name, "latest"),
    }
}

fn without_tag(reference: &str) -> &str {
    match reference.rsplit_once(':') {
        // A colon before the last slash belongs to a registry's port.
        Some((name, tag)) if !tag.contains('/') => name,
        _ => reference,
    }
}

/// Picks the digest under the name that was asked for; an image can be known by several.
fn repo_digest(reference: &str, digests: Vec<String>) -> Option<String> {
    let (name, _) = split(reference);
    let ours = digests.iter().position(|digest| digest.split('@').next() == Some(name));
    digests.into_iter().nth(ours.unwrap_or(0))
}

/// Notes a step of a pull and returns the bytes so far and in all, when it moved bytes.
fn advanced(layers: &mut HashMap<String, (u64, u64)>, step: CreateImageInfo) -> Option<(u64, u64)> {
    let (layer, detail) = (step.id?, step.progress_detail?);
    let bytes = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok());
    // Only fetching counts: extracting goes through the same numbers again.
    if step.status.as_deref() != Some("Downloading") {
        return None;
    }
    layers.insert(layer, (bytes(detail.current)?, bytes(detail.total).unwrap_or(0)));
    Some(layers.values().fold((0, 0), |(done, total), layer| (done + layer.0, total + layer.1.max(layer.0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_split_where_engines_split_them() {
        for (reference, name, tag) in [
            ("nginx", "nginx", "latest"),
            ("nginx:1.27", "nginx", "1.27"),
            ("127.0.0.1:5000/web", "127.0.0.1:5000/web", "latest"),
            ("127.0.0.1:5000/web:2", "127.0.0.1:5000/web", "2"),
            ("r.example/web:2@sha256:ab", "r.example/web", "sha256:ab"),
        ] {
            assert_eq!(split(reference), (name, tag), "{reference}");
        }
    }

    #[test]
    fn the_digest_under_the_asked_name_is_taken() {
        let digests = || vec!["a/web@sha256:1".to_owned(), "b:5000/web@sha256:1".to_owned()];
        assert_eq!(repo_digest("b:5000/web:2", digests()).as_deref(), Some("b:5000/web@sha256:1"));
        assert_eq!(repo_digest("web", digests()).as_deref(), Some("a/web@sha256:1"));
        assert_eq!(repo_digest("web", vec![]), None);
    }

    #[test]
    fn progress_adds_layers_up() {
        let mut layers = HashMap::new();
        let mut step = |text: &str| advanced(&mut layers, serde_json::from_str(text).expect("a step"));
        assert_eq!(step(r#"{"status":"Pulling from web","id":"1"}"#), None);
        let first = r#"{"status":"Downloading","id":"a","progressDetail":{"current":10,"total":100}}"#;
        assert_eq!(step(first), Some((10, 100)));
        let second = r#"{"status":"Downloading","id":"b","progressDetail":{"current":5}}"#;
        assert_eq!(step(second), Some((15, 105)));
        assert_eq!(step(r#"{"status":"Extracting","id":"a","progressDetail":{"current":1,"total":100}}"#), None);
    }
}
