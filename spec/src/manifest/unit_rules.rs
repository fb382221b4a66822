//! What must hold in a unit beyond its grammar: words that systemd would refuse, and parts that it cannot do without.

use super::page::{Extent, Page};
use super::words::{did_you_mean, one_of};
use crate::id::{UnitName, shown};

/// One assignment.
pub(super) struct Assignment<'a> {
    pub(super) section: &'a str,
    pub(super) key: &'a str,
    pub(super) key_extent: Extent,
    pub(super) value: String,
    pub(super) value_extent: Extent,
}

/// Directives that take one of a few words; `yes` stands for every boolean.
const WORDS: [(&str, &[&str]); 36] = [
    ("Type", &["simple", "exec", "forking", "oneshot", "dbus", "notify", "notify-reload", "idle"]),
    ("Restart", &["no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort", "always"]),
    ("RestartMode", &["normal", "direct", "debug"]),
    ("ExitType", &["main", "cgroup"]),
    ("NotifyAccess", &["none", "main", "exec", "all"]),
    ("KillMode", &["control-group", "process", "mixed", "none"]),
    ("OOMPolicy", &["continue", "stop", "kill"]),
    ("ProtectSystem", &["yes", "full", "strict"]),
    ("ProtectHome", &["yes", "read-only", "tmpfs"]),
    ("ProtectProc", &["noaccess", "invisible", "ptraceable", "default"]),
    ("ProcSubset", &["all", "pid"]),
    ("PrivateTmp", &["yes", "disconnected"]),
    ("KeyringMode", &["inherit", "private", "shared"]),
    ("DevicePolicy", &["auto", "closed", "strict"]),
    ("CollectMode", &["inactive", "inactive-or-failed"]),
    ("NoNewPrivileges", &["yes"]),
    ("PrivateDevices", &["yes"]),
    ("PrivateNetwork", &["yes"]),
    ("DynamicUser", &["yes"]),
    ("RemainAfterExit", &["yes"]),
    ("Persistent", &["yes"]),
    ("MemoryDenyWriteExecute", &["yes"]),
    ("LockPersonality", &["yes"]),
    ("PrivateIPC", &["yes"]),
    ("PrivateMounts", &["yes"]),
    ("PrivateUsers", &["yes", "self", "identity", "full", "managed"]),
    ("ProtectClock", &["yes"]),
    ("ProtectControlGroups", &["yes", "private", "strict"]),
    ("ProtectKernelLogs", &["yes"]),
    ("ProtectKernelModules", &["yes"]),
    ("ProtectKernelTunables", &["yes"]),
    ("RemoveIPC", &["yes"]),
    ("RestrictRealtime", &["yes"]),
    ("RestrictSUIDSGID", &["yes"]),
    ("RefuseManualStart", &["yes"]),
    ("DefaultDependencies", &["yes"]),
];

/// Directives of which a unit of the type needs at least one.
const NEEDED: [(&str, &str, &[&str]); 3] = [
    (
        "timer",
        "when it elapses",
        &[
            "OnCalendar",
            "OnBootSec",
            "OnStartupSec",
            "OnActiveSec",
            "OnUnitActiveSec",
            "OnUnitInactiveSec",
            "OnClockChange",
            "OnTimezoneChange",
        ],
    ),
    (
        "socket",
        "what it listens on",
        &[
            "ListenStream",
            "ListenDatagram",
            "ListenSequentialPacket",
            "ListenFIFO",
            "ListenNetlink",
            "ListenSpecial",
            "ListenMessageQueue",
            "ListenUSBFunction",
        ],
    ),
    (
        "path",
        "which path it watches",
        &["PathExists", "PathExistsGlob", "PathChanged", "PathModified", "DirectoryNotEmpty"],
    ),
];

/// Checks the value of one assignment.
pub(super) fn check_value(page: &mut Page<'_>, assignment: &Assignment<'_>) {
    let mount_type = assignment.section == "Mount" && assignment.key == "Type";
    let value = assignment.value.as_str();
    if value.is_empty() || value.contains('%') || mount_type {
        return;
    }
    let Some((key, words)) = WORDS.iter().find(|(key, _)| *key == assignment.key) else { return };
    let boolean = words.contains(&"yes");
    if words.contains(&value) || (boolean && is_boolean(value)) {
        return;
    }
    let mut known: Vec<&str> = words.to_vec();
    if boolean {
        known.push("no");
    }
    let help = match page.near(value, known.iter().copied()) {
        Some(near) => did_you_mean(near),
        None => format!("it takes {}", one_of(&known)),
    };
    let message = format!("`{key}=` does not take `{}`", shown(value));
    page.error("unit-value", assignment.value_extent, message).help(help);
}

fn is_boolean(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    matches!(value.as_str(), "1" | "yes" | "y" | "true" | "t" | "on" | "0" | "no" | "n" | "false" | "f" | "off")
}

/// Checks what contradicts itself within the unit.
pub(super) fn check_whole(page: &mut Page<'_>, unit: &UnitName, assignments: &[Assignment<'_>]) {
    match unit.suffix() {
        "service" => check_service(page, assignments),
        "mount" => check_mount_name(page, unit, assignments),
        _ => {}
    }
}

/// Checks that nothing is missing without which systemd refuses the unit, or the unit does nothing.
pub(super) fn check_complete(page: &mut Page<'_>, unit: &UnitName, assignments: &[Assignment<'_>]) {
    let has = |key: &str| last(assignments, key).is_some();
    let (message, help) = match unit.suffix() {
        "service" if !can_start(assignments) => (
            "this service has no `ExecStart=`, so systemd would refuse it".to_owned(),
            "add `ExecStart=` with the command to run to [Service]".to_owned(),
        ),
        "service" if last(assignments, "Type").is_some_and(|it| it.value == "dbus") && !has("BusName") => (
            "a service of `Type=dbus` needs a `BusName=`".to_owned(),
            "add the name that it takes on the bus".to_owned(),
        ),
        "mount" if !has("What") => {
            ("this mount does not say what it mounts".to_owned(), "add `What=` to [Mount]".to_owned())
        }
        "mount" if !has("Where") => {
            ("this mount does not say where it is mounted".to_owned(), "add `Where=` to [Mount]".to_owned())
        }
        suffix => {
            let Some((_, what, keys)) = NEEDED.iter().find(|(kind, ..)| *kind == suffix) else { return };
            if keys.iter().any(|key| has(key)) {
                return;
            }
            let usual: Vec<String> = keys.iter().take(4).map(|key| format!("{key}=")).collect();
            let usual: Vec<&str> = usual.iter().map(String::as_str).collect();
            (format!("this .{suffix} does not say {what}"), format!("add {}, for instance", one_of(&usual)))
        }
    };
    let first_line = Extent::new(0, page.text.lines().next().unwrap_or_default().len());
    page.error("unit-incomplete", first_line, message).help(help);
}

/// Returns the last value of a directive that is not empty; an empty one takes the earlier ones back.
fn last<'s>(assignments: &'s [Assignment<'_>], key: &str) -> Option<&'s Assignment<'s>> {
    assignments.iter().rev().find(|it| it.key == key).filter(|it| !it.value.is_empty())
}

/// Says whether systemd would load a service with these commands (systemd.service(5), "ExecStart=").
fn can_start(assignments: &[Assignment<'_>]) -> bool {
    let has = |key: &str| last(assignments, key).is_some();
    let remains = last(assignments, "RemainAfterExit")
        .is_some_and(|it| matches!(it.value.to_ascii_lowercase().as_str(), "1" | "yes" | "y" | "true" | "t" | "on"));
    has("ExecStart") || has("SuccessAction") || (has("ExecStop") && remains)
}

fn check_service(page: &mut Page<'_>, assignments: &[Assignment<'_>]) {
    let kind = last(assignments, "Type").map(|it| it.value.as_str());
    let starts: Vec<&Assignment<'_>> = assignments.iter().filter(|it| it.key == "ExecStart").collect();
    let since_reset = starts.iter().rposition(|it| it.value.is_empty()).map_or(0, |at| at + 1);
    if let [_, second, ..] = &starts[since_reset..]
        && kind != Some("oneshot")
    {
        page.error(
            "unit-value",
            second.key_extent,
            "only a service of `Type=oneshot` may have more than one `ExecStart=`",
        )
        .help("write `ExecStartPre=` or `ExecStartPost=`, or an empty `ExecStart=` before it to replace the first");
    }
    if kind == Some("oneshot")
        && let Some(restart) =
            last(assignments, "Restart").filter(|it| matches!(it.value.as_str(), "always" | "on-success"))
    {
        let message = format!("a service of `Type=oneshot` cannot have `Restart={}`", restart.value);
        page.error("unit-value", restart.value_extent, message).help("use `on-failure`, or a timer to run it again");
    }
}

fn check_mount_name(page: &mut Page<'_>, unit: &UnitName, assignments: &[Assignment<'_>]) {
    let Some(place) = last(assignments, "Where") else { return };
    let name = escaped(&place.value);
    if !place.value.contains('%') && name != unit.stem() {
        let message = format!("a mount at `{}` must be called `{}.mount`", shown(&place.value), shown(&name));
        page.error("unit-mount-name", place.value_extent, message)
            .help("rename the file; systemd refuses a mount whose name and `Where=` differ");
    }
}

/// Escapes a path as `systemd-escape --path` does.
fn escaped(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return "-".to_owned();
    }
    let mut name = String::new();
    for (index, byte) in parts.join("/").bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if index == 0 => name.push_str("\\x2e"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => name.push(char::from(byte)),
            _ => name.extend(format!("\\x{byte:02x}").chars()),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped_as_systemd_does() {
        assert_eq!(escaped("/srv/my-data"), "srv-my\\x2ddata");
        assert_eq!(escaped("/"), "-");
        assert_eq!(escaped("/.hidden//x/"), "\\x2ehidden-x");
    }
}
