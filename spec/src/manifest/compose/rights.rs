//! What hands the host to a container: refused until app.yaml says that a service may have it.

use crate::container::{MountSource, Namespace, Settings};
use crate::id::shown;
use crate::manifest::critical;

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

/// Names what would hand the host over: the key, and what it does.
pub(super) fn dangers(settings: &Settings) -> Vec<(&'static str, String)> {
    let rights = &settings.rights;
    let mut found = Vec::new();
    if rights.privileged {
        found.push(("privileged", "`privileged: true` makes it root on the host".to_owned()));
    }
    for capability in &rights.cap_add {
        let bare = capability.strip_prefix("CAP_").unwrap_or(capability);
        if !HARMLESS.contains(&bare) {
            found.push(("cap_add", format!("capability `{}` reaches beyond the container", shown(capability))));
        }
    }
    for option in &rights.security_opt {
        if !option.starts_with("no-new-privileges") {
            found.push(("security_opt", format!("`{}` weakens what confines it", shown(option))));
        }
    }
    for device in rights.devices.iter().chain(&rights.device_rules) {
        found.push(("devices", format!("`{}` opens a device of the host", shown(device))));
    }
    for (key, namespace) in [("pid", &rights.pid), ("ipc", &rights.ipc)] {
        if matches!(namespace, Some(Namespace::Mode(mode)) if mode == "host") {
            found.push((key, format!("`{key}: host` shows it what runs on the host")));
        }
    }
    for (key, mode) in [("userns_mode", &rights.userns), ("uts", &rights.uts), ("cgroup", &rights.cgroup)] {
        if mode.as_deref() == Some("host") {
            found.push((key, format!("`{key}: host` takes it out of its own namespace")));
        }
    }
    for mount in &settings.mounts {
        if let MountSource::Bind { path, .. } = &mount.source
            && let Some(why) = critical::mount(path)
        {
            found.push(("volumes", format!("it mounts `{}`: {why}", shown(path))));
        }
    }
    found
}
