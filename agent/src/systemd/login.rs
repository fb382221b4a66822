//! Whether a user's manager runs without a login, and how it is made to.

use std::path::Path;
use std::time::Duration;

use spec::id::User;

use super::{Error, Systemd, classify};

/// Where logind notes who lingers: a file for each, called by the name.
const LINGERING: &str = "/var/lib/systemd/linger";
/// How long logind may take to have somebody linger: it waits for nothing.
const LINGER: Duration = Duration::from_secs(20);

/// Says whether a user's manager is started with the host and stays without a login.
pub fn lingers(user: &User) -> bool {
    Path::new(LINGERING).join(user.name()).exists()
}

impl Systemd {
    /// Has logind keep a user's manager running, from now on and after each boot. To be asked of the host's manager.
    ///
    /// # Errors
    /// Refused, unreachable or timed out.
    pub async fn linger(&mut self, user: &User) -> Result<(), Error> {
        const DOING: &str = "have a user linger";
        let connection = self.connection(DOING).await?;
        let body = (user.uid(), true, false);
        let call = connection.call_method(
            Some("org.freedesktop.login1"),
            "/org/freedesktop/login1",
            Some("org.freedesktop.login1.Manager"),
            "SetUserLinger",
            &body,
        );
        let answer = tokio::time::timeout(LINGER, call).await;
        let answer = answer.map_err(|_| Error::TimedOut { doing: DOING, after: LINGER })?;
        answer.map(drop).map_err(|error| classify(DOING, error))
    }
}
