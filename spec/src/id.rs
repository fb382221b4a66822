//! Names of things: each is checked once, where it is built, and nobody checks again.

mod unit;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use unit::{UNIT_SUFFIXES, UnitName, User};

/// Declares a newtype over `String` that is only built by its checked `parse`.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks `text` against this name's grammar.
            ///
            /// # Errors
            /// Says which rule `text` breaks, without a full stop, ready for a diagnostic.
            pub fn parse(text: &str) -> Result<Self, String> {
                $check(text)?;
                Ok(Self(text.to_owned()))
            }

            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

name! {
    /// A host as `fleet.yaml` calls it: a DNS label, so that it fits into a git ref and a file name.
    HostName, check_label
}
name! {
    /// An application: the name of its folder under `apps/`, a DNS label.
    AppName, check_label
}
name! {
    /// An absolute, normalised path on the host: no `.`, `..`, doubled or trailing slash, no control character.
    HostPath, check_path
}
name! {
    /// A container's name as Docker and Podman accept it: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at most 128 bytes.
    ContainerName, check_container
}
name! {
    /// A network on the engine, by the same grammar as a container's name.
    NetworkName, check_network
}
name! {
    /// A named volume on the engine, by the same grammar as a container's name.
    VolumeName, check_volume
}
name! {
    /// A git commit: 40 lower-case hex digits (SHA-1).
    CommitId, check_commit
}

impl CommitId {
    /// Returns the first ten digits, as people quote commits.
    pub fn short(&self) -> &str {
        &self.0[..10]
    }
}

impl HostPath {
    /// Returns the last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Returns the folder that holds this path, or `None` for a path directly under `/`.
    pub fn parent(&self) -> Option<HostPath> {
        match self.0.rfind('/') {
            Some(0) | None => None,
            Some(at) => Some(HostPath(self.0[..at].to_owned())),
        }
    }

    /// Says whether this path lies below the folder `folder`.
    pub fn is_below(&self, folder: &str) -> bool {
        self.0.strip_prefix(folder.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Returns the unit whose text this path holds, for a file directly in [`UNIT_DIRECTORY`].
    pub fn unit(&self) -> Option<UnitName> {
        let name = self.0.strip_prefix(UNIT_DIRECTORY)?.strip_prefix('/')?;
        UnitName::parse(name).ok()
    }

    /// Returns the unit that this path adds to, for a `*.conf` directly in a unit's drop-in folder in [`UNIT_DIRECTORY`].
    pub fn drop_in(&self) -> Option<UnitName> {
        let (folder, file) = self.0.strip_prefix(UNIT_DIRECTORY)?.strip_prefix('/')?.split_once('/')?;
        let is_read = file.ends_with(".conf") && !file.starts_with('.') && !file.contains('/');
        is_read.then(|| UnitName::parse(folder.strip_suffix(".d")?).ok())?
    }

    /// Returns the quadlet's file name, for a file directly in a folder of quadlets.
    pub fn quadlet(&self) -> Option<&str> {
        let (_, name) = self.within_quadlets()?;
        (!name.contains('/') && is_quadlet(name)).then_some(name)
    }

    /// Returns the user for whom the quadlets of this path's folder are, by number; `None` for root's and for what is no
    /// quadlet and no drop-in for one.
    pub fn quadlet_uid(&self) -> Option<u32> {
        let is_one = self.quadlet().is_some() || self.quadlet_drop_in().is_some();
        self.within_quadlets().filter(|_| is_one)?.0
    }

    /// Splits a path below [`QUADLET_DIRECTORY`] into the user whose folder it is in, and the rest.
    fn within_quadlets(&self) -> Option<(Option<u32>, &str)> {
        let within = self.0.strip_prefix(QUADLET_DIRECTORY)?.strip_prefix('/')?;
        let of_user = within.strip_prefix("users/").and_then(|rest| rest.split_once('/'));
        match of_user.and_then(|(uid, name)| Some((numbered(uid)?, name))) {
            Some((uid, name)) => Some((Some(uid), name)),
            None => Some((None, within)),
        }
    }

    /// Returns the quadlet that this path adds to, for a `*.conf` directly in its drop-in folder.
    pub fn quadlet_drop_in(&self) -> Option<&str> {
        let (folder, file) = self.within_quadlets()?.1.split_once('/')?;
        let is_read = file.ends_with(".conf") && !file.starts_with('.') && !file.contains('/');
        folder.strip_suffix(".d").filter(|name| is_read && is_quadlet(name))
    }

    /// Says whether this is the drop-in that holds a quadlet to the image which its last good release ran.
    pub fn is_pin(&self) -> bool {
        self.file_name() == PIN && self.quadlet_drop_in().is_some()
    }

    /// Says whether systemd reads this path as a unit's text or a part of it, so that it must be told of a change.
    pub fn is_of_a_unit(&self) -> bool {
        let units = self.unit().is_some() || self.drop_in().is_some();
        units || self.quadlet().is_some() || self.quadlet_drop_in().is_some()
    }
}

/// Where administrators' units live (systemd.unit(5), "Unit File Load Path"); mainstay is this host's administrator.
pub const UNIT_DIRECTORY: &str = "/etc/systemd/system";

/// Where secrets are opened to; below the agent's runtime directory, which is memory, and which a boot empties.
pub const SECRETS_DIRECTORY: &str = "/run/mainstay/secrets";

/// What the agent tells units about endpoints; below its runtime directory, which a boot empties.
pub const ENDPOINTS_FILE: &str = "/run/mainstay/endpoints.env";

/// Where Podman's generator looks for an administrator's quadlets (podman-systemd.unit(5)).
pub const QUADLET_DIRECTORY: &str = "/etc/containers/systemd";
/// What the drop-in is called that holds a quadlet to an image: late, so that it has the last word.
pub const PIN: &str = "90-mainstay-running-digest.conf";

/// Extensions of Podman quadlet files that an application may bring.
pub const QUADLET_SUFFIXES: [&str; 7] = ["container", "volume", "network", "pod", "kube", "build", "image"];

/// Reads the name of a user's folder of quadlets, which is the number as Podman writes it.
fn numbered(name: &str) -> Option<u32> {
    name.parse().ok().filter(|uid: &u32| uid.to_string() == name)
}

fn is_quadlet(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(stem, suffix)| !stem.is_empty() && QUADLET_SUFFIXES.contains(&suffix))
}

fn check_label(text: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match text {
        "" => Err("a name is empty".to_owned()),
        _ if text.len() > 63 => {
            Err(format!("`{}…` is longer than 63 characters", &shown(text)[..20.min(shown(text).len())]))
        }
        _ if text.starts_with('-') || text.ends_with('-') => Err(format!("`{}` begins or ends with `-`", shown(text))),
        _ if !text.chars().all(plain) => {
            Err(format!("`{}` may hold only lower-case letters, digits and `-`", shown(text)))
        }
        _ => Ok(()),
    }
}

fn check_path(text: &str) -> Result<(), String> {
    let Some(rest) = text.strip_prefix('/') else {
        return Err(format!("`{}` is not absolute: paths begin with `/`", shown(text)));
    };
    if text.len() > 4000 {
        return Err("a path is longer than 4000 bytes".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err(format!("`{}` holds a control character", shown(text)));
    }
    if rest.is_empty() {
        return Err("`/` itself cannot be managed".to_owned());
    }
    for part in rest.split('/') {
        match part {
            "" => {
                return Err(format!(
                    "`{}` has an empty component: write it without doubled or trailing `/`",
                    shown(text)
                ));
            }
            "." | ".." => return Err(format!("`{}` has a `{part}` component: write the path itself", shown(text))),
            _ if part.len() > 255 => {
                return Err(format!("a component of `{}…` is longer than 255 bytes", &shown(text)[..20]));
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_container(text: &str) -> Result<(), String> {
    check_engine(text, "a container name")
}

fn check_network(text: &str) -> Result<(), String> {
    check_engine(text, "the name of a network")
}

fn check_volume(text: &str) -> Result<(), String> {
    check_engine(text, "the name of a volume")
}

/// Checks a name as the engines restrict it.
fn check_engine(text: &str, what: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if text.len() > 128 || !text.starts_with(|c: char| c.is_ascii_alphanumeric()) || !text.chars().all(plain) {
        return Err(format!(
            "`{}` is not {what}: letters, digits, `_`, `.` and `-`, beginning with a letter or digit",
            shown(text)
        ));
    }
    Ok(())
}

fn check_commit(text: &str) -> Result<(), String> {
    if text.len() != 40 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(format!("`{}` is not a full commit id of 40 hex digits", shown(text)));
    }
    Ok(())
}

/// Makes untrusted text safe to print: control characters become `\u{…}` escapes (CVE class: terminal escapes).
pub fn shown(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

/// Permission bits of a file, `0o7777` at most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mode(u32);

impl Mode {
    /// Takes the permission bits of `bits`; file type bits are dropped.
    pub const fn from_bits(bits: u32) -> Mode {
        Mode(bits & 0o7777)
    }

    /// Reads three or four octal digits, as `chmod` takes them.
    ///
    /// # Errors
    /// Says what a mode looks like.
    pub fn parse(text: &str) -> Result<Mode, String> {
        let octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
        let bits = if octal { u32::from_str_radix(text, 8).ok() } else { None };
        bits.map(Mode)
            .ok_or_else(|| format!("`{}` is not a mode of three or four octal digits, such as \"0640\"", shown(text)))
    }

    /// Returns the permission bits.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One thing on a host that a plan can name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ResourceId {
    /// A file, symlink or directory; unit texts are files too.
    File(HostPath),
    /// A unit's enablement and running state.
    Unit(UnitName),
    /// A container on the engine.
    Container(ContainerName),
    /// A network on the engine.
    Network(NetworkName),
    /// A named volume on the engine; made when it is missing, and never removed.
    Volume(VolumeName),
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResourceId::File(path) => write!(f, "file {path}"),
            ResourceId::Unit(unit) => write!(f, "unit {unit}"),
            ResourceId::Container(name) => write!(f, "container {name}"),
            ResourceId::Network(name) => write!(f, "network {name}"),
            ResourceId::Volume(name) => write!(f, "volume {name}"),
        }
    }
}

impl From<ResourceId> for String {
    fn from(id: ResourceId) -> String {
        match id {
            // People know a user by the name alone.
            ResourceId::Unit(unit) => format!("unit {}", String::from(unit)),
            other => other.to_string(),
        }
    }
}

impl TryFrom<String> for ResourceId {
    type Error = String;
    fn try_from(text: String) -> Result<ResourceId, String> {
        match text.split_once(' ') {
            Some(("file", path)) => HostPath::parse(path).map(ResourceId::File),
            Some(("unit", unit)) => UnitName::try_from(unit.to_owned()).map(ResourceId::Unit),
            Some(("container", name)) => ContainerName::parse(name).map(ResourceId::Container),
            Some(("network", name)) => NetworkName::parse(name).map(ResourceId::Network),
            Some(("volume", name)) => VolumeName::parse(name).map(ResourceId::Volume),
            _ => Err(format!("`{}` names no resource", shown(&text))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_names_follow_the_grammar_of_systemd() {
        for good in ["a.service", "foo@.service", "foo@a-b.timer", "srv-data.mount", "a\\x2db.mount", "x:y.socket"] {
            assert!(UnitName::parse(good).is_ok(), "{good}");
        }
        let long = format!("{}.service", "a".repeat(250));
        for bad in [
            "../x.service",
            "a/b.service",
            "x@../../y.service",
            "a\n.service",
            "a",
            ".service",
            "ü.service",
            "a.device",
            "a b.service",
            "@.service",
            "a@b@c.service",
            "",
            long.as_str(),
        ] {
            assert!(UnitName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn paths_are_absolute_and_normal() {
        for bad in ["", "/", "etc/x", "/etc/../x", "/etc//x", "/etc/x/", "/a\0b", "/a\nb", "/./a"] {
            assert!(HostPath::parse(bad).is_err(), "{bad:?}");
        }
        let path = HostPath::parse("/etc/systemd/system/web.service").expect("a good path");
        assert_eq!(path.unit().map(String::from), Some("web.service".to_owned()));
        assert_eq!((path.drop_in(), path.is_of_a_unit()), (None, true));
        assert!(path.is_below("/etc/systemd") && path.is_below("/etc/systemd/") && !path.is_below("/etc/sys"));
    }

    #[test]
    fn drop_ins_lie_directly_in_their_unit_s_folder() {
        let unit = |text: &str| HostPath::parse(text).expect("a path").drop_in().map(String::from);
        assert_eq!(unit("/etc/systemd/system/cron.service.d/x.conf").as_deref(), Some("cron.service"));
        for other in ["cron.service.d/x.txt", "cron.service.d/.x.conf", "cron.service.d/a/x.conf", "service.d/x.conf"] {
            assert_eq!(unit(&format!("/etc/systemd/system/{other}")), None, "{other}");
        }
        assert_eq!(unit("/usr/lib/systemd/system/cron.service.d/x.conf"), None);
    }

    #[test]
    fn modes_are_octal_digits() {
        assert_eq!(Mode::parse("0640").map(Mode::bits), Ok(0o640));
        assert_eq!(Mode::parse("755").map(Mode::bits), Ok(0o755));
        for bad in ["", "8", "0o755", "99999", "+644", "rw-r--r--"] {
            assert!(Mode::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn resource_ids_round_trip_through_text() {
        for text in
            ["file /etc/motd", "unit web.service", "container shop_db", "network shop_default", "volume shop_data"]
        {
            let id = ResourceId::try_from(text.to_owned()).expect("a resource");
            assert_eq!(id.to_string(), text);
            assert_eq!(String::from(id), text);
        }
        let id = ResourceId::try_from("unit web.service of alice:1500".to_owned()).expect("a resource");
        assert_eq!(id.to_string(), "unit web.service of alice");
        assert_eq!(String::from(id), "unit web.service of alice:1500");
    }

    #[test]
    fn shown_text_carries_no_terminal_escape() {
        assert_eq!(shown("a\u{1b}[31mb\n"), "a\\u{1b}[31mb\\n");
    }
}
