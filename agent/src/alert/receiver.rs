//! Whoever is told: where, in which form, and how it is proven that it was us.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use spec::manifest::{self, Alert};

use super::Message;
use crate::settings;
use crate::web::{self, Asked, Manner, Web};

/// How long one delivery may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// More than this in a file is no secret of one.
const LONGEST: u64 = 4096;
/// The header of the signature, as forges have theirs: `sha256=` and the HMAC of the body in hex digits.
const SIGNATURE: &str = "X-Mainstay-Signature-256";

/// The forms in which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Webhook,
    Slack,
    Alertmanager,
    Ntfy,
}

/// Who is told.
pub struct Receiver {
    form: Form,
    /// What names it among those of the repository; `None` for one of the settings.
    id: Option<String>,
    url: reqwest::Url,
    secret: Option<String>,
    web: Web,
}

/// Why something was not delivered; the address, which may be a secret, is not in it.
#[derive(Debug, thiserror::Error)]
pub enum Undelivered {
    /// Nobody answered.
    #[error("{0}")]
    Silent(String),
    /// The answer was no.
    #[error("it answered {0}")]
    Refused(reqwest::StatusCode),
}

impl Receiver {
    /// Reads from the settings who is told.
    ///
    /// # Errors
    /// A file that they name cannot be read or holds no address.
    pub(super) fn all(settings: &settings::Alerts) -> anyhow::Result<Vec<Receiver>> {
        let slack = settings.slack.as_deref().map(secret).transpose()?;
        let wanted = [
            (Form::Webhook, settings.webhook.as_deref(), settings.webhook_secret.as_deref()),
            (Form::Slack, slack.as_deref(), None),
            (Form::Alertmanager, settings.alertmanager.as_deref(), settings.alertmanager_token.as_deref()),
            (Form::Ntfy, settings.ntfy.as_deref(), settings.ntfy_token.as_deref()),
        ];
        let mut receivers = Vec::new();
        for (form, url, file) in wanted {
            let Some(url) = url else { continue };
            // The text is not repeated: of Slack's, all of it is a secret.
            let url = reqwest::Url::parse(url).with_context(|| format!("alerts.{} names no address", form.name()))?;
            let secret = file.map(secret).transpose()?;
            receivers.push(Receiver { form, id: None, url, secret, web: web() });
        }
        Ok(receivers)
    }

    /// Takes somebody whom the repository names.
    ///
    /// # Errors
    /// A client cannot be built.
    pub fn of(alert: &Alert) -> anyhow::Result<Receiver> {
        let form = match alert.receiver {
            manifest::Receiver::Webhook => Form::Webhook,
            manifest::Receiver::Alertmanager => Form::Alertmanager,
            manifest::Receiver::Ntfy => Form::Ntfy,
        };
        let url = reqwest::Url::parse(&alert.url).with_context(|| format!("its {} names no address", form.name()))?;
        Ok(Receiver { form, id: Some(alert.id()), url, secret: None, web: web() })
    }

    /// Returns what names it among those of the repository.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns what names it in files.
    pub(super) fn key(&self) -> String {
        self.id.as_ref().map_or_else(|| self.name().to_owned(), |id| format!("fleet-{id}"))
    }

    /// Says whether the repository names it, and not the settings.
    pub fn is_of_the_fleet(&self) -> bool {
        self.id.is_some()
    }

    /// Returns the word for it in settings, logs and files.
    pub fn name(&self) -> &'static str {
        self.form.name()
    }

    /// Returns the server that is asked.
    pub fn server(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// Says whether it forgets what is not repeated.
    pub(super) fn forgets(&self) -> bool {
        self.form == Form::Alertmanager
    }

    /// Delivers a message, or finds that it cannot be delivered now.
    ///
    /// # Errors
    /// Nobody answered in time, or the answer was no.
    pub async fn deliver(&self, message: &Message) -> Result<(), Undelivered> {
        let answer = tokio::time::timeout(PATIENCE, self.web.send(self.request(message)?)).await;
        let answer = answer
            .map_err(|_| Undelivered::Silent(format!("no answer within {}", humantime::format_duration(PATIENCE))))?;
        let answer = answer.map_err(|error| Undelivered::Silent(error.to_string()))?;
        match reqwest::StatusCode::from_u16(answer.status()).unwrap_or(reqwest::StatusCode::INTERNAL_SERVER_ERROR) {
            status if status.is_success() => Ok(()),
            status => Err(Undelivered::Refused(status)),
        }
    }

    fn request(&self, message: &Message) -> Result<Asked, Undelivered> {
        let mut url = self.url.clone();
        let body = match self.form {
            Form::Webhook => message.generic().to_string(),
            Form::Slack => message.slack().to_string(),
            Form::Alertmanager => {
                url.set_path(&format!("{}/api/v2/alerts", url.path().trim_end_matches('/')));
                message.alertmanager().to_string()
            }
            Form::Ntfy => message.text(),
        };
        let mut asked = Asked::post(url.as_str(), body.clone());
        match (self.form, &self.secret) {
            (Form::Webhook, Some(secret)) => {
                let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
                    .map_err(|_| Undelivered::Silent("the secret cannot be used".to_owned()))?;
                mac.update(body.as_bytes());
                asked = asked.with(SIGNATURE, &format!("sha256={}", hex::encode(mac.finalize().into_bytes())));
            }
            (Form::Alertmanager | Form::Ntfy, Some(token)) => {
                asked = asked.with("Authorization", &format!("Bearer {token}"));
            }
            _ => {}
        }
        if self.form != Form::Ntfy {
            return Ok(asked.with("Content-Type", "application/json"));
        }
        let title: String = message.title().chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect();
        let asked = asked.with("Title", &title);
        let asked = asked.with("Priority", if message.is_urgent() { "high" } else { "default" });
        Ok(asked.with("Tags", if message.is_recovery() { "white_check_mark" } else { "warning" }))
    }
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Form::Webhook => "webhook",
            Form::Slack => "slack",
            Form::Alertmanager => "alertmanager",
            Form::Ntfy => "ntfy",
        }
    }
}

fn web() -> Web {
    Web::new(Manner::Alert, web::fetcher())
}

/// Reads a secret from its file.
fn secret(path: &Path) -> anyhow::Result<String> {
    let doing = || format!("failed to read {}, which the settings name for alerts", path.display());
    let seen = fs::metadata(path).with_context(doing)?;
    anyhow::ensure!(seen.is_file() && seen.len() <= LONGEST, "{}: it is no file of one line", doing());
    let text = fs::read_to_string(path).with_context(doing)?;
    let text = text.trim();
    anyhow::ensure!(!text.is_empty() && !text.contains('\n'), "{}: it is no file of one line", doing());
    Ok(text.to_owned())
}
