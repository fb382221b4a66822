//! Paths and units that a host cannot do without: refused unless the author says so, and mainstay's own never.

use crate::id::{HostPath, QUADLET_DIRECTORY, UNIT_DIRECTORY};

/// How carefully a path or unit is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// Anybody may manage it.
    Open,
    /// Only with `allow-critical: true`; the reason.
    Critical(&'static str),
    /// Never; the reason.
    Never(&'static str),
}

/// Kernel and runtime folders, and what is mainstay's own.
const NEVER: [(&str, &str); 10] = [
    ("/proc", "the kernel provides it"),
    ("/sys", "the kernel provides it"),
    ("/dev", "the kernel provides it"),
    ("/run/mainstay", "it belongs to mainstay itself"),
    ("/etc/mainstay", "it belongs to mainstay itself"),
    ("/var/lib/mainstay", "it belongs to mainstay itself"),
    ("/usr/bin/mainstay", "it belongs to mainstay itself"),
    ("/usr/sbin/mainstay", "it belongs to mainstay itself"),
    ("/usr/local/bin/mainstay", "it belongs to mainstay itself"),
    ("/usr/lib/mainstay", "it belongs to mainstay itself"),
];

/// Each of these and everything below it.
const CRITICAL: [(&str, &str); 26] = [
    ("/etc/passwd", "it decides who can log in"),
    ("/etc/group", "it decides who can log in"),
    ("/etc/shadow", "it decides who can log in"),
    ("/etc/gshadow", "it decides who can log in"),
    ("/etc/subuid", "it decides who may act as whom"),
    ("/etc/subgid", "it decides who may act as whom"),
    ("/etc/sudoers", "it decides who becomes root"),
    ("/etc/sudoers.d", "it decides who becomes root"),
    ("/etc/doas.conf", "it decides who becomes root"),
    ("/etc/polkit-1", "it decides who becomes root"),
    ("/usr/share/polkit-1", "it decides who becomes root"),
    ("/etc/pam.d", "it decides who can log in"),
    ("/etc/security", "it decides who can log in"),
    ("/etc/nsswitch.conf", "a mistake in it locks everybody out"),
    ("/etc/ssh/sshd_config", "a mistake in it locks everybody out"),
    ("/etc/ssh/sshd_config.d", "a mistake in it locks everybody out"),
    ("/root/.ssh", "it decides who can log in as root"),
    ("/etc/ld.so.preload", "it changes every program on the host"),
    ("/etc/ld.so.conf", "it changes every program on the host"),
    ("/etc/ld.so.conf.d", "it changes every program on the host"),
    ("/etc/fstab", "a mistake in it keeps the host from booting"),
    ("/etc/crypttab", "a mistake in it keeps the host from booting"),
    ("/boot", "a mistake in it keeps the host from booting"),
    ("/efi", "a mistake in it keeps the host from booting"),
    ("/usr/lib/systemd", "distribution packages own it, and overwrite it"),
    ("/run/systemd", "systemd writes it"),
];

/// Folders that everything else lives in; only they themselves, not what is below.
const FOUNDATIONS: [&str; 21] = [
    "/etc/ssh",
    "/etc/systemd",
    "/etc/systemd/system",
    "/run/systemd",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/local/sbin",
    "/usr/sbin",
    "/usr/share",
    "/var/cache",
    "/var/lib",
    "/var/log",
    "/var/spool",
    "/var/tmp",
    "/usr/libexec",
    "/usr/lib/systemd",
    "/usr/include",
];

/// Symbolic links that distributions have at the root, and where they lead.
const ALIASES: [(&str, &str); 7] = [
    ("/bin", "/usr/bin"),
    ("/sbin", "/usr/sbin"),
    ("/lib", "/usr/lib"),
    ("/lib32", "/usr/lib32"),
    ("/lib64", "/usr/lib64"),
    ("/var/run", "/run"),
    ("/var/lock", "/run/lock"),
];

/// Units that keep the host, or a person's way into it, alive.
const UNITS: [&str; 24] = [
    "init.scope",
    "-.mount",
    "-.slice",
    "system.slice",
    "user.slice",
    "machine.slice",
    "boot.mount",
    "boot-efi.mount",
    "dbus.service",
    "dbus.socket",
    "dbus-broker.service",
    "ssh.service",
    "ssh.socket",
    "sshd.service",
    "sshd.socket",
    "emergency.service",
    "rescue.service",
    "polkit.service",
    "NetworkManager.service",
    "networking.service",
    "default.target",
    "ctrl-alt-del.target",
    "initrd.target",
    "console-getty.service",
];

/// Targets of systemd itself (systemd.special(7)) that an application has no business to replace.
const TARGETS: [&str; 18] = [
    "basic",
    "emergency",
    "exit",
    "graphical",
    "halt",
    "hibernate",
    "kexec",
    "local-fs",
    "local-fs-pre",
    "multi-user",
    "network",
    "poweroff",
    "reboot",
    "rescue",
    "shutdown",
    "sockets",
    "sysinit",
    "suspend",
];

/// Returns the path that is meant when `path` begins with a link that every merged host has.
pub(super) fn unaliased(path: &str) -> Option<String> {
    ALIASES.iter().find_map(|(alias, target)| {
        let rest = path.strip_prefix(alias)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| format!("{target}{rest}"))
    })
}

/// Says whether anybody may manage a path, and as a plain file: it is neither guarded nor systemd's to read.
pub fn is_open(path: &HostPath) -> bool {
    self::path(path) == Guard::Open && !path.is_below(UNIT_DIRECTORY) && !path.is_below(QUADLET_DIRECTORY)
}

/// Says how carefully a path is guarded.
pub(super) fn path(path: &HostPath) -> Guard {
    let text = path.as_str();
    let covers = |folder: &str| text == folder || path.is_below(folder);
    if let Some((_, why)) = NEVER.iter().find(|(folder, _)| covers(folder)) {
        return Guard::Never(why);
    }
    let own_unit = ["/usr/lib/systemd/system", "/etc/systemd/system"].into_iter().any(|folder| {
        text.strip_prefix(folder).is_some_and(|rest| rest.starts_with("/mainstay.") || rest.starts_with("/mainstay@"))
    });
    if own_unit {
        return Guard::Never("it belongs to mainstay itself");
    }
    if path.parent().is_none() || FOUNDATIONS.contains(&text) {
        return Guard::Critical("everything else on the host lies in it");
    }
    if let Some((_, why)) = CRITICAL.iter().find(|(folder, _)| covers(folder)) {
        return Guard::Critical(why);
    }
    if text.contains("/.ssh/authorized_keys") {
        return Guard::Critical("it decides who can log in");
    }
    if path.is_below("/etc/ssh") && path.file_name().starts_with("ssh_host_") {
        return Guard::Critical("it proves to people that they reached this host");
    }
    Guard::Open
}

/// Says how carefully a unit is guarded, by its name as written: reserved names need not fit our grammar.
pub(super) fn unit(name: &str) -> Guard {
    let (stem, suffix) = name.rsplit_once('.').unwrap_or((name, ""));
    if stem == "mainstay" || stem.starts_with("mainstay@") {
        return Guard::Never("it is mainstay's own");
    }
    let getty = ["getty@", "serial-getty@", "autovt@", "console-getty", "container-getty@", "user@", "sshd@", "ssh@"];
    let systemd = name.starts_with("systemd-") || name.starts_with("dbus-org.");
    let target = suffix == "target" && TARGETS.contains(&stem);
    if UNITS.contains(&name) || systemd || target || getty.iter().any(|prefix| name.starts_with(prefix)) {
        return Guard::Critical("the host, or the way into it, depends on it");
    }
    Guard::Open
}

/// Says why a container may not mount `source`, an absolute path.
pub(super) fn mount(source: &str) -> Option<&'static str> {
    let real = unaliased(source).unwrap_or_else(|| source.to_owned());
    let covers = |folder: &str| real == folder || real.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    if real == "/" {
        return Some("a container that sees the whole host is root on it");
    }
    if ["/proc", "/sys", "/dev"].into_iter().any(covers) {
        return Some("it opens the kernel to the container");
    }
    if real.ends_with("/docker.sock") || real.ends_with("/podman.sock") || real.ends_with("/containerd.sock") {
        return Some("whoever reaches the engine's socket is root on the host");
    }
    if ["/run", "/run/podman", "/run/docker", "/run/containerd", "/var"].contains(&real.as_str()) {
        return Some("the engine's socket or store lies in it, and whoever reaches that is root on the host");
    }
    if ["/run/mainstay", "/etc/mainstay", "/var/lib/mainstay"].into_iter().any(covers) {
        return Some("it belongs to mainstay itself");
    }
    let engine = ["/var/lib/docker", "/var/lib/containers", "/var/lib/containerd"].into_iter().any(covers);
    if engine || ["/etc", "/usr", "/boot", "/root", "/var/lib", "/home"].contains(&real.as_str()) {
        return Some("with it the container can take over the host");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_path(text: &str) -> Guard {
        path(&HostPath::parse(text).expect("a path"))
    }

    #[test]
    fn guards_cover_what_is_below_and_nothing_beside() {
        assert!(matches!(of_path("/proc/sys/net"), Guard::Never(_)));
        assert!(matches!(of_path("/var/lib/mainstay/ledger"), Guard::Never(_)));
        assert!(matches!(of_path("/etc/sudoers.d/ops"), Guard::Critical(_)));
        assert!(matches!(of_path("/etc"), Guard::Critical(_)));
        assert!(matches!(of_path("/home/ann/.ssh/authorized_keys"), Guard::Critical(_)));
        for open in
            ["/etc/mainstay.d/x", "/etc/ssh/ssh_config", "/etc/passwd-notes", "/usr/local/bin/bridge", "/procs/x"]
        {
            assert_eq!(of_path(open), Guard::Open, "{open}");
        }
    }

    #[test]
    fn reserved_units() {
        for name in
            ["init.scope", "-.mount", "dbus.socket", "systemd-resolved.service", "getty@tty1.service", "rescue.target"]
        {
            assert!(matches!(unit(name), Guard::Critical(_)), "{name}");
        }
        assert!(matches!(unit("mainstay.service"), Guard::Never(_)));
        for name in ["docker.service", "mainstay-demo.service", "sshd-exporter.service", "my.target"] {
            assert_eq!(unit(name), Guard::Open, "{name}");
        }
    }

    #[test]
    fn mounts_see_through_links() {
        assert!(mount("/var/run/docker.sock").is_some() && mount("/var/run").is_some() && mount("/etc").is_some());
        assert!(mount("/srv/data").is_none() && mount("/etc/localtime").is_none() && mount("/home/ann/x").is_none());
    }
}
