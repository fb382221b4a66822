//! What hands the host to a container: refused until app.yaml says that a service may have it.

use crate::container::{MountSource, Namespace, Settings};
use crate::id::shown;
use crate::manifest::critical;
use crate::manifest::page::Extent;
use crate::manifest::yaml::{Kind, Node};

/// Capabilities that the engines give to every container, or that are harmless inside its namespaces.
const HARMLESS: [&str; 15] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The keys that can.
const KEYS: [&str; 11] = [
    "privileged",
    "cap_add",
    "security_opt",
    "devices",
    "device_cgroup_rules",
    "pid",
    "ipc",
    "userns_mode",
    "uts",
    "cgroup",
    "volumes",
];

/// What would hand the host over.
pub(super) struct Danger {
    /// The key that does it.
    pub(super) key: &'static str,
    /// The word of its value that does it; empty when the value is all of it.
    pub(super) word: String,
    /// What it does.
    pub(super) why: String,
}

/// Names what would hand the host over.
pub(super) fn dangers(settings: &Settings) -> Vec<Danger> {
    let danger = |key, word: &str, why| Danger { key, word: word.to_owned(), why };
    let rights = &settings.rights;
    let mut found = Vec::new();
    if rights.privileged {
        found.push(danger("privileged", "", "`privileged: true` makes it root on the host".to_owned()));
    }
    for capability in &rights.cap_add {
        let bare = capability.strip_prefix("CAP_").unwrap_or(capability);
        if !HARMLESS.contains(&bare) {
            let why = format!("capability `{}` reaches beyond the container", shown(capability));
            found.push(danger("cap_add", capability, why));
        }
    }
    for option in &rights.security_opt {
        if !option.starts_with("no-new-privileges") {
            found.push(danger("security_opt", option, format!("`{}` weakens what confines it", shown(option))));
        }
    }
    for (key, devices) in [("devices", &rights.devices), ("device_cgroup_rules", &rights.device_rules)] {
        let opens = |device: &String| format!("`{}` opens a device of the host", shown(device));
        found.extend(devices.iter().map(|device| danger(key, device, opens(device))));
    }
    for (key, namespace) in [("pid", &rights.pid), ("ipc", &rights.ipc)] {
        if matches!(namespace, Some(Namespace::Mode(mode)) if mode == "host") {
            found.push(danger(key, "", format!("`{key}: host` shows it what runs on the host")));
        }
    }
    for (key, mode) in [("userns_mode", &rights.userns), ("uts", &rights.uts), ("cgroup", &rights.cgroup)] {
        if mode.as_deref() == Some("host") {
            found.push(danger(key, "", format!("`{key}: host` takes it out of its own namespace")));
        }
    }
    for mount in &settings.mounts {
        if let MountSource::Bind { path, .. } = &mount.source
            && let Some(why) = critical::mount(path)
        {
            found.push(danger("volumes", path.as_str(), format!("it mounts `{}`: {why}", shown(path))));
        }
    }
    found
}

/// Where the words stand that may hand the host over: each with its key.
pub(super) struct Words(Vec<(String, String, Extent)>);

impl Words {
    /// Collects them from a service.
    pub(super) fn of(service: &Node) -> Words {
        let mut words = Words(Vec::new());
        if let Kind::Mapping(entries) = &service.kind {
            for (key, node) in entries.iter().filter(|(key, _)| KEYS.contains(&key.text.as_str())) {
                words.add(&key.text, node);
            }
        }
        words
    }

    fn add(&mut self, key: &str, node: &Node) {
        match &node.kind {
            Kind::Scalar { text, .. } => self.0.push((key.to_owned(), text.clone(), node.extent)),
            Kind::Sequence(items) => items.iter().for_each(|item| self.add(key, item)),
            Kind::Mapping(entries) => entries.iter().for_each(|(_, node)| self.add(key, node)),
        }
    }

    /// Finds what makes for a danger; else the value of its key.
    pub(super) fn place(&self, danger: &Danger) -> Option<Extent> {
        // One of the two may have parts behind a colon that the other does not have.
        let begins = |text: &str, start: &str| text.strip_prefix(start).is_some_and(|rest| rest.starts_with(':'));
        let is_it = |text: &str| {
            let (text, word) = (text.to_uppercase(), danger.word.to_uppercase());
            text == word || begins(&text, &word) || begins(&word, &text)
        };
        let of_key = || self.0.iter().filter(|(key, ..)| key == danger.key);
        let found = of_key().find(|(_, text, _)| is_it(text)).or_else(|| of_key().next());
        found.map(|(.., extent)| *extent)
    }
}
