//! What forges say when somebody pushes. It only ever means that the repository is asked now: nothing that a sender writes is
//! fetched from, run or shown, and what proves who sent it comes before anything of it is read.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{EXPECT, HeaderMap};
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::json;
use sha2::Sha256;
use spec::id::shown;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::answer::{self, Answer, JSON};
use super::guard::{bearer, digest, same};
use super::route::Forge;

/// The largest body: forges send a few kilobytes with a push, and more with one of thousands of commits, which is found at the
/// next poll.
const LARGEST: usize = 1 << 20;
/// The most that is thrown away of what follows.
const DRAINED: usize = 16 << 20;
/// And for how long.
const DRAIN: Duration = Duration::from_secs(2);
/// So many bodies are read at once.
const AT_ONCE: usize = 4;
/// How long a body may take.
const BODY: Duration = Duration::from_secs(5);
/// So many hooks are heard at once, and one more with each interval.
const MOST: u32 = 60;
const INTERVAL: Duration = Duration::from_secs(1);

/// What hooks are held against.
pub(super) struct Hooks {
    secret: String,
    branch: String,
    /// The last part of the repository's address. The rest of it may be another for the forge than for this host.
    repository: String,
    rate: Rate,
    room: Semaphore,
}

/// Why a hook is not heard.
#[derive(Debug, PartialEq, Eq)]
enum Deaf {
    /// It does not prove who sent it.
    Unproven(&'static str),
    /// It is not what the forge sends.
    Malformed(String),
}

/// What a hook means.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// The repository is to be asked.
    Fetch,
    /// Nothing, and why.
    Nothing(String),
}

/// The part of a push that matters.
#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    reference: Option<String>,
    repository: Option<Named>,
    project: Option<Named>,
}

/// A repository as a forge calls it.
#[derive(Deserialize)]
struct Named {
    /// GitLab's word.
    path_with_namespace: Option<String>,
    /// GitHub's, Gitea's and Forgejo's.
    full_name: Option<String>,
}

impl Hooks {
    /// Holds hooks against a secret, a branch and the address of a repository.
    pub(super) fn new(secret: String, branch: &str, address: &str) -> Hooks {
        let (rate, room) = (Rate::new(MOST, INTERVAL), Semaphore::new(AT_ONCE));
        Hooks { secret, branch: branch.to_owned(), repository: last_part(address).to_owned(), rate, room }
    }

    /// Listens to a hook, and asks for a fetch when it means one.
    pub(super) async fn hear(&self, forge: Forge, request: Request<Incoming>, ask: impl FnOnce()) -> Answer {
        if let Err(wait) = self.rate.take() {
            let mut answer = answer::refusal(StatusCode::TOO_MANY_REQUESTS, "there were too many hooks");
            let seconds = wait.as_secs() + 1;
            answer.headers_mut().insert(hyper::header::RETRY_AFTER, seconds.into());
            return answer;
        }
        if request.body().size_hint().lower() > LARGEST as u64 {
            // Who asks first sends nothing now.
            if !request.headers().contains_key(EXPECT) {
                drain(request.into_body()).await;
            }
            return too_large();
        }
        // Who sends nothing that could prove it is not listened to any further.
        if !proves_something(forge, request.headers()) {
            return unproven(missing(forge));
        }
        let (head, body) = request.into_parts();
        let body = match timeout(BODY, self.read(body)).await {
            Ok(Ok(body)) => body,
            Ok(Err(answer)) => return *answer,
            Err(_) => return answer::refusal(StatusCode::REQUEST_TIMEOUT, "the body took too long"),
        };
        match self.judge(forge, &head.headers, &body) {
            Ok(Heard::Fetch) => {
                ask();
                debug!(?forge, "a hook asks for a fetch");
                said(StatusCode::ACCEPTED, "the repository is asked now")
            }
            Ok(Heard::Nothing(why)) => said(StatusCode::OK, &format!("ignored: {why}")),
            Err(Deaf::Unproven(why)) => {
                warn!(?forge, "a hook was refused: {why}");
                unproven(why)
            }
            Err(Deaf::Malformed(why)) => answer::refusal(StatusCode::BAD_REQUEST, &why),
        }
    }

    async fn read(&self, mut body: Incoming) -> Result<Bytes, Box<Answer>> {
        let room = self.room.acquire().await.expect("nobody closes it");
        match Limited::new(&mut body, LARGEST).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                drop(room);
                drain(body).await;
                Err(Box::new(too_large()))
            }
            Err(_) => Err(Box::new(answer::refusal(StatusCode::BAD_REQUEST, "the body ended too early"))),
        }
    }

    /// Says what a hook means.
    fn judge(&self, forge: Forge, headers: &HeaderMap, body: &[u8]) -> Result<Heard, Deaf> {
        if !self.is_proven(forge, headers, body) {
            return Err(Deaf::Unproven("what it proves itself with does not go with `endpoint.hooks` of the settings"));
        }
        let event = event(forge, headers);
        if let Some(event) = event.filter(|event| !is_push(event)) {
            return Ok(Heard::Nothing(format!("`{}` is no push", shown(event))));
        }
        if forge == Forge::Generic && body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Heard::Fetch);
        }
        let push: Push = serde_json::from_slice(body).map_err(|error| {
            Deaf::Malformed(format!("the body is no JSON of a push ({error}); let the forge send application/json"))
        })?;
        if forge != Forge::Generic && push.reference.is_none() {
            return Err(Deaf::Malformed("the body names no `ref`, as a push does".to_owned()));
        }
        let ours = format!("refs/heads/{}", self.branch);
        if let Some(other) = push.reference.filter(|other| *other != ours && *other != self.branch) {
            return Ok(Heard::Nothing(format!("it is about {}, and this host follows {ours}", shown(&other))));
        }
        let named =
            push.project.into_iter().chain(push.repository).find_map(|it| it.path_with_namespace.or(it.full_name));
        if let Some(other) = named.filter(|other| !last_part(other).eq_ignore_ascii_case(&self.repository)) {
            let words = format!("it is about {}, and this host follows {}", shown(&other), self.repository);
            return Ok(Heard::Nothing(words));
        }
        Ok(Heard::Fetch)
    }

    fn is_proven(&self, forge: Forge, headers: &HeaderMap, body: &[u8]) -> bool {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let signed = |name: &str| text(name).is_some_and(|signature| self.signs(signature, body));
        match forge {
            Forge::Github => signed("x-hub-signature-256"),
            Forge::Gitlab => text("x-gitlab-token").is_some_and(|token| self.is_secret(token)),
            Forge::Gitea | Forge::Forgejo => {
                signed("x-forgejo-signature") || signed("x-gitea-signature") || signed("x-hub-signature-256")
            }
            Forge::Generic => {
                bearer(headers).is_some_and(|token| self.is_secret(token)) || signed("x-hub-signature-256")
            }
        }
    }

    fn is_secret(&self, sent: &str) -> bool {
        same(&digest(sent), &digest(&self.secret))
    }

    /// Says whether `signature`, in hex digits, is that of the body; comparing takes as long whatever it is.
    fn signs(&self, signature: &str, body: &[u8]) -> bool {
        let digits = signature.strip_prefix("sha256=").unwrap_or(signature);
        let Ok(signature) = hex::decode(digits) else { return false };
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).expect("a key may have any length");
        mac.update(body);
        mac.verify_slice(&signature).is_ok()
    }
}

/// Returns what a forge says happened.
fn event(forge: Forge, headers: &HeaderMap) -> Option<&str> {
    let names: &[&str] = match forge {
        Forge::Github => &["x-github-event"],
        Forge::Gitlab => &["x-gitlab-event"],
        Forge::Gitea | Forge::Forgejo => &["x-forgejo-event", "x-gitea-event", "x-github-event"],
        Forge::Generic => &[],
    };
    names.iter().find_map(|name| headers.get(*name)?.to_str().ok())
}

fn is_push(event: &str) -> bool {
    // GitLab's system hooks are about everything; only pushes among them have a `ref`.
    matches!(event, "push" | "Push Hook" | "System Hook")
}

fn proves_something(forge: Forge, headers: &HeaderMap) -> bool {
    let names: &[&str] = match forge {
        Forge::Github => &["x-hub-signature-256"],
        Forge::Gitlab => &["x-gitlab-token"],
        Forge::Gitea | Forge::Forgejo => &["x-forgejo-signature", "x-gitea-signature", "x-hub-signature-256"],
        Forge::Generic => &["authorization", "x-hub-signature-256"],
    };
    names.iter().any(|name| headers.contains_key(*name))
}

fn missing(forge: Forge) -> &'static str {
    match forge {
        Forge::Github => "it has no X-Hub-Signature-256: give the webhook the secret of this host's settings",
        Forge::Gitlab => "it has no X-Gitlab-Token: give the webhook the secret of this host's settings",
        Forge::Gitea | Forge::Forgejo => "it is not signed: give the webhook the secret of this host's settings",
        Forge::Generic => {
            "send the secret as `Authorization: Bearer`, or the body's HMAC as `X-Hub-Signature-256: sha256=…`"
        }
    }
}

fn unproven(why: &str) -> Answer {
    answer::refusal(StatusCode::UNAUTHORIZED, why)
}

/// Throws away what a client goes on sending, so much and no longer: a connection that is closed in the middle of it takes our
/// answer with it (RFC 9112, section 9.6).
async fn drain(mut body: Incoming) {
    let rest = async {
        let mut left = DRAINED;
        while left > 0
            && let Some(Ok(frame)) = body.frame().await
        {
            left = left.saturating_sub(frame.data_ref().map_or(1, Bytes::len));
        }
    };
    // Who is slower than that goes without the answer.
    drop(timeout(DRAIN, rest).await);
}

fn too_large() -> Answer {
    answer::refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 1 MiB; the push is found at the next poll")
}

fn said(status: StatusCode, words: &str) -> Answer {
    answer::whole(status, JSON, json!({ "result": words }).to_string())
}

/// Returns what a repository is called, without where it is.
fn last_part(address: &str) -> &str {
    let path = address.trim_end_matches('/');
    let last = path.rsplit(['/', ':']).next().unwrap_or_default();
    last.strip_suffix(".git").unwrap_or(last)
}

/// Something that happens at a bounded rate: so many at once, and one more with each interval.
#[derive(Debug)]
pub(super) struct Rate {
    most: u32,
    interval: Duration,
    /// When everything that was used up is there again.
    full_at: Mutex<Instant>,
}

impl Rate {
    /// Allows `most` at once, and one more with each `interval`.
    pub(super) fn new(most: u32, interval: Duration) -> Rate {
        Rate { most, interval, full_at: Mutex::new(Instant::now()) }
    }

    /// Uses one up; says how long to wait when there is none.
    pub(super) fn take(&self) -> Result<(), Duration> {
        let now = Instant::now();
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let next = (*full_at).max(now) + self.interval;
        let over = (next - now).checked_sub(self.interval * self.most).filter(|over| !over.is_zero());
        match over {
            Some(over) => Err(over),
            None => {
                *full_at = next;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "It's a Secret to Everybody";
    const PUSH: &str = r#"{"ref":"refs/heads/main","repository":{"full_name":"me/fleet"},"commits":[{"id":"x"}]}"#;

    fn hooks() -> Hooks {
        Hooks::new(SECRET.to_owned(), "main", "ssh://git@forge/srv/fleet.git")
    }

    fn judge(forge: Forge, headers: &[(&'static str, &str)], body: &str) -> Result<Heard, Deaf> {
        let headers = headers
            .iter()
            .map(|(name, value)| (hyper::header::HeaderName::from_static(name), value.parse().expect("a value")));
        hooks().judge(forge, &headers.collect(), body.as_bytes())
    }

    fn signature(body: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key");
        mac.update(body.as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }

    #[test]
    fn signatures_are_those_that_github_documents() {
        let known = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert!(hooks().signs(&format!("sha256={known}"), b"Hello, World!"));
        assert!(!hooks().signs(&format!("sha256={known}"), b"Hello, World"));
        for wrong in ["", "sha256=", "sha1=00", &known[1..], "zz"] {
            assert!(!hooks().signs(wrong, b"Hello, World!"), "{wrong}");
        }
    }

    #[test]
    fn each_forge_proves_itself_in_its_own_way() {
        let plain = signature(PUSH);
        let prefixed = format!("sha256={plain}");
        let bearer = format!("Bearer {SECRET}");
        for (forge, name, value) in [
            (Forge::Github, "x-hub-signature-256", prefixed.as_str()),
            (Forge::Gitlab, "x-gitlab-token", SECRET),
            (Forge::Gitea, "x-gitea-signature", &plain),
            (Forge::Forgejo, "x-forgejo-signature", &plain),
            (Forge::Forgejo, "x-gitea-signature", &plain),
            (Forge::Generic, "authorization", &bearer),
            (Forge::Generic, "x-hub-signature-256", &prefixed),
        ] {
            assert_eq!(judge(forge, &[(name, value)], PUSH), Ok(Heard::Fetch), "{forge:?} {name}");
            let spoilt = if forge == Forge::Gitlab { "It's a secret" } else { &value[..value.len() - 2] };
            assert!(matches!(judge(forge, &[(name, spoilt)], PUSH), Err(Deaf::Unproven(_))), "{forge:?} {name}");
            assert!(matches!(judge(forge, &[], PUSH), Err(Deaf::Unproven(_))), "{forge:?}");
        }
        // One forge's proof is not another's.
        assert!(matches!(judge(Forge::Github, &[("x-gitlab-token", SECRET)], PUSH), Err(Deaf::Unproven(_))));
    }

    #[test]
    fn what_is_about_something_else_means_nothing() {
        let about = |body: &str| judge(Forge::Gitlab, &[("x-gitlab-token", SECRET)], body);
        let nothing = |body: &str| matches!(about(body), Ok(Heard::Nothing(_)));
        assert!(nothing(r#"{"ref":"refs/heads/dev","repository":{"full_name":"me/fleet"}}"#));
        assert!(nothing(r#"{"ref":"refs/tags/main"}"#));
        assert!(nothing(r#"{"ref":"refs/heads/main","repository":{"full_name":"me/other"}}"#));
        assert!(nothing(r#"{"ref":"refs/heads/main","project":{"path_with_namespace":"group/sub/other"}}"#));
        assert_eq!(
            about(r#"{"ref":"refs/heads/main","project":{"path_with_namespace":"a/b/Fleet"}}"#),
            Ok(Heard::Fetch)
        );
        assert_eq!(about(r#"{"ref":"refs/heads/main"}"#), Ok(Heard::Fetch));
        let ping = [("x-hub-signature-256", &*format!("sha256={}", signature("{}"))), ("x-github-event", "ping")];
        assert!(matches!(judge(Forge::Github, &ping, "{}"), Ok(Heard::Nothing(_))));
    }

    #[test]
    fn what_no_forge_sends_is_malformed() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for body in ["", "{", "null", "[]", "{}", "payload=%7B%7D", r#"{"ref":7}"#, "\u{0}", &deep] {
            let said = judge(Forge::Gitlab, &[("x-gitlab-token", SECRET)], body);
            assert!(matches!(said, Err(Deaf::Malformed(_))), "{body:.20}: {said:?}");
        }
        let generic = |body: &str| judge(Forge::Generic, &[("authorization", &*format!("Bearer {SECRET}"))], body);
        assert_eq!(generic(""), Ok(Heard::Fetch));
        assert_eq!(generic("{}"), Ok(Heard::Fetch));
        assert!(matches!(generic("hello"), Err(Deaf::Malformed(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_and_no_more_are_heard() {
        let rate = Rate::new(3, Duration::from_secs(10));
        for _ in 0..3 {
            assert_eq!(rate.take(), Ok(()));
        }
        assert_eq!(rate.take(), Err(Duration::from_secs(10)));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(rate.take(), Ok(()));
        assert!(rate.take().is_err());
    }

    #[test]
    fn repositories_are_known_by_the_end_of_their_address() {
        for address in
            ["ssh://git@forge/srv/fleet.git", "git@forge:fleet", "me/fleet", "https://h/x/fleet.git/", "fleet"]
        {
            assert_eq!(last_part(address), "fleet", "{address}");
        }
    }
}
