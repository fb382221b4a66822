//! Names of units, and of the users whose manager they belong to: root's and each user's may have the same names.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{HostPath, QUADLET_DIRECTORY, UNIT_DIRECTORY, shown};

/// Unit types that an application may bring or refer to.
pub const UNIT_SUFFIXES: [&str; 7] = ["service", "socket", "timer", "path", "mount", "target", "slice"];

/// Where an administrator's units of every user live (systemd.unit(5), "Unit File Load Path").
const EVERY_USERS: &str = "/etc/systemd/user";

/// A systemd unit with its suffix, by the grammar of systemd.unit(5), of the host's manager or of a user's.
///
/// The host's come first in order, and are written as ever: `web.service`. A user's is `web.service of alice` to people,
/// and in what is stored the number is with it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UnitName {
    user: Option<User>,
    name: String,
}

/// An account of the host whose own manager runs units. Name and number are one identity: the number says where things
/// are, and that it is still this name's is looked up on the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct User {
    name: String,
    uid: u32,
}

impl User {
    /// Checks a name and a number for an account whose manager may run units.
    ///
    /// # Errors
    /// Says which rule they break. Root has the host's manager.
    pub fn new(name: &str, uid: u32) -> Result<User, String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.".contains(c);
        let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        if !begins || name.len() > 31 || !name.chars().all(plain) {
            return Err(format!(
                "`{}` is not a user's name: at most 31 of a-z 0-9 _ - ., beginning with a letter or `_`",
                shown(name)
            ));
        }
        match uid {
            0 => Err("0 is root's number".to_owned()),
            _ if name == "root" => Err("`root` is the host itself".to_owned()),
            65534 | 65535 | u32::MAX => Err(format!("{uid} is nobody's number")),
            _ => Ok(User { name: name.to_owned(), uid }),
        }
    }

    /// Returns the name of the account.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the number of the account.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Returns the folder from which Podman's generator makes this user's services, which belongs to root.
    pub fn quadlet_directory(&self) -> String {
        format!("{QUADLET_DIRECTORY}/users/{}", self.uid)
    }

    /// Returns the unit of the host that is this user's manager.
    pub fn manager(&self) -> UnitName {
        UnitName { user: None, name: format!("user@{}.service", self.uid) }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

impl TryFrom<String> for User {
    type Error = String;
    fn try_from(text: String) -> Result<User, String> {
        let parts = text.split_once(':').and_then(|(name, uid)| Some((name, uid.parse().ok()?)));
        let (name, uid) = parts.ok_or_else(|| format!("`{}` names no user and number", shown(&text)))?;
        User::new(name, uid)
    }
}

impl From<User> for String {
    fn from(user: User) -> String {
        format!("{}:{}", user.name, user.uid)
    }
}

impl UnitName {
    /// Checks `text` against the grammar of units' names; the unit is the host's.
    ///
    /// # Errors
    /// Says which rule `text` breaks, without a full stop, ready for a diagnostic.
    pub fn parse(text: &str) -> Result<UnitName, String> {
        check(text)?;
        Ok(UnitName { user: None, name: text.to_owned() })
    }

    /// Returns the unit of this name in another manager: a user's, or the host's.
    pub fn of(&self, user: Option<&User>) -> UnitName {
        UnitName { user: user.cloned(), name: self.name.clone() }
    }

    /// Returns the user whose manager has it; `None` for the host's.
    pub fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// Returns the name as its manager knows it, which does not tell whose it is.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Returns the suffix without its dot: `service`, `timer`, ….
    pub fn suffix(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    /// Returns the name without its suffix.
    pub fn stem(&self) -> &str {
        self.name.rsplit_once('.').map_or(&self.name, |(stem, _)| stem)
    }

    /// Says whether this is a template (`name@.service`), which is installed but never started itself.
    pub fn is_template(&self) -> bool {
        self.stem().ends_with('@')
    }

    /// Returns the template of an instance: `name@.service` for `name@blue.service`.
    pub fn template(&self) -> Option<UnitName> {
        let (prefix, instance) = self.stem().split_once('@')?;
        (!instance.is_empty()).then(|| self.beside(format!("{prefix}@.{}", self.suffix())))
    }

    /// Returns the unit of the same stem with another suffix: the service of a timer, for instance.
    pub fn with_suffix(&self, suffix: &str) -> UnitName {
        self.beside(format!("{}.{suffix}", self.stem()))
    }

    fn beside(&self, name: String) -> UnitName {
        UnitName { user: self.user.clone(), name }
    }

    /// Returns where this unit's text goes when an application brings it. A text for the units of users is every user's, so
    /// that no application brings one; it would take the place of what Podman makes of a quadlet.
    pub fn path(&self) -> HostPath {
        HostPath(format!("{}/{}", self.directory(), self.name))
    }

    /// Returns the folder of drop-ins for this unit.
    pub fn drop_in_folder(&self) -> HostPath {
        HostPath(format!("{}/{}.d", self.directory(), self.name))
    }

    fn directory(&self) -> &'static str {
        if self.user.is_some() { EVERY_USERS } else { UNIT_DIRECTORY }
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            None => f.pad(&self.name),
            Some(user) => f.pad(&format!("{} of {user}", self.name)),
        }
    }
}

impl TryFrom<String> for UnitName {
    type Error = String;
    fn try_from(text: String) -> Result<UnitName, String> {
        // No name of a unit holds a space.
        match text.split_once(" of ") {
            Some((name, user)) => Ok(UnitName::parse(name)?.of(Some(&User::try_from(user.to_owned())?))),
            None => UnitName::parse(&text),
        }
    }
}

impl From<UnitName> for String {
    fn from(unit: UnitName) -> String {
        match unit.user {
            None => unit.name,
            Some(user) => format!("{} of {}", unit.name, String::from(user)),
        }
    }
}

fn check(text: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let Some((stem, suffix)) = text.rsplit_once('.') else {
        return Err(format!("`{}` has no suffix such as `.service`", shown(text)));
    };
    if stem.is_empty() || stem == "@" || stem.starts_with('.') {
        return Err(format!("`{}` has no name before its suffix", shown(text)));
    }
    if text.len() > 255 {
        return Err(format!(
            "a unit name is longer than 255 characters: `{}…`",
            &shown(text)[..20.min(shown(text).len())]
        ));
    }
    if !text.chars().all(plain) {
        return Err(format!(
            "`{}` holds a character that unit names may not: only A-Z a-z 0-9 : - _ . \\ @",
            shown(text)
        ));
    }
    if stem.matches('@').count() > 1 {
        return Err(format!("`{}` has more than one `@`", shown(text)));
    }
    if !UNIT_SUFFIXES.contains(&suffix) {
        return Err(format!("`{}` is not a unit type mainstay manages: {}", shown(text), UNIT_SUFFIXES.join(", ")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_unit_is_another_than_the_hosts_of_its_name() {
        let alice = User::new("alice", 1500).expect("a user");
        let host = UnitName::parse("worker@one.service").expect("a unit");
        let hers = host.of(Some(&alice));
        assert_ne!(host, hers);
        assert_eq!(hers.template().map(String::from).as_deref(), Some("worker@.service of alice:1500"));
        assert_eq!((hers.to_string().as_str(), hers.as_str()), ("worker@one.service of alice", "worker@one.service"));
        assert_ne!(hers.path(), host.path());
        for unit in [host, hers] {
            assert_eq!(UnitName::try_from(String::from(unit.clone())), Ok(unit));
        }
        // What a person writes is never taken for another manager's.
        assert!(UnitName::parse("web.service of alice:1500").is_err());
    }

    #[test]
    fn users_are_accounts_that_may_have_a_manager() {
        for (name, uid) in [("root", 0), ("root", 7), ("alice", 0), ("alice", 65534), ("al ice", 7), ("-a", 7), ("", 7)]
        {
            assert!(User::new(name, uid).is_err(), "{name} {uid}");
        }
        let alice = User::new("alice", 1500).expect("a user");
        assert_eq!(alice.manager().as_str(), "user@1500.service");
        let path = HostPath::parse(&format!("{}/web.container", alice.quadlet_directory())).expect("a path");
        assert_eq!((path.quadlet(), path.quadlet_uid()), (Some("web.container"), Some(1500)));
        let drop_in = HostPath::parse(&format!("{path}.d/a.conf")).expect("a path");
        assert_eq!((drop_in.quadlet_drop_in(), drop_in.quadlet_uid()), (Some("web.container"), Some(1500)));
        let of_all = HostPath::parse("/etc/containers/systemd/users/web.container").expect("a path");
        assert_eq!((of_all.quadlet(), of_all.quadlet_uid()), (None, None));
    }
}
