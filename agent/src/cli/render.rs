//! `mainstay render`: what a host would get, as it would get it, without a host.

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::{Value, json};
use spec::container::{MountSource, Networking, Protocol};
use spec::desired::{Desired, DesiredApp, DesiredContainer, DesiredFile, DesiredUnit, FileKind, UnitGoal};
use spec::diagnostic::{Diagnostic, Severity};
use spec::id::{AppName, HostPath, shown};
use spec::manifest;
use spec::resolve;

use super::{Common, Ended};
use crate::draw;
use crate::folder;
use crate::upstream::LIMITS;

const EXAMPLES: &str = "\
Examples:
  mainstay render --dir ./fleet --host attic
  mainstay render --dir ./fleet --host attic web";

/// Show what a host would get, after overlays and templates
///
/// Renders a configuration repository for one host (`--host`): every file with its owner, mode and text, units and
/// containers, after overlays and templates. Needs no host and no network, and touches nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The repository's folder
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Only these applications
    #[arg(value_name = "APP", value_parser = AppName::parse)]
    apps: Vec<AppName>,
}

/// Renders.
///
/// # Errors
/// The folder cannot be read, or the host or an application is not in it.
pub fn run(common: &Common, args: &Args) -> anyhow::Result<Ended> {
    let host = common.settings()?.host()?;
    let tree = folder::read(&args.dir, &LIMITS).with_context(|| format!("failed to read {}", args.dir.display()))?;
    let parsed = manifest::parse(&tree, None);
    let Some(fleet) = parsed.fleet else {
        print_mistakes(common, &parsed.diagnostics, &tree);
        return Ok(Ended::Mistaken);
    };
    let mut desired = resolve::resolve(&fleet, &host)?;
    for app in &args.apps {
        if !fleet.apps.contains_key(app) {
            anyhow::bail!("there is no application `{app}` in {}", args.dir.display());
        }
        if !desired.apps.contains_key(app) {
            anyhow::bail!("`{app}` is not placed on host `{host}`");
        }
    }
    if !args.apps.is_empty() {
        desired.apps.retain(|app, _| args.apps.contains(app));
        desired.published.clear();
    }
    let text = if common.json { format!("{:#}\n", as_json(&desired)) } else { as_text(&desired, common.colour()) };
    match io::stdout().write_all(text.as_bytes()) {
        // Who looks at the first page only has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Ended::Well),
        printed => printed.map(|()| Ended::Well).context("failed to print"),
    }
}

fn print_mistakes(common: &Common, diagnostics: &[Diagnostic], tree: &spec::tree::Tree) {
    if common.json {
        println!("{:#}", draw::json(diagnostics));
        return;
    }
    let errors: Vec<Diagnostic> = diagnostics.iter().filter(|it| it.severity == Severity::Error).cloned().collect();
    eprint!("{}", draw::render(&errors, tree, common.colour()));
}

/// Prints what a host gets, application by application. Whatever a terminal would act upon is escaped.
fn as_text(desired: &Desired, colour: bool) -> String {
    let bold = |text: &str| if colour { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() };
    let mut lines = Vec::new();
    for (name, app) in &desired.apps {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.push(bold(&format!("{name} on {}, release {}", desired.host, app.digest.short())));
        for (name, unit) in &app.units {
            lines.push(format!("  unit {name}: {}", state(unit)));
        }
        for (name, container) in &app.containers {
            lines.push(format!("  container {name}: {}", container.settings.image));
            lines
                .extend(details(container).into_iter().map(|(label, value)| format!("    {label}: {}", shown(&value))));
        }
        for (path, file) in &app.files {
            lines.extend(file_lines(path, file, &bold));
        }
    }
    for (path, file) in &desired.published {
        lines.push(String::new());
        lines.push(bold(&format!("{}, for units to read", desired.host)));
        lines.extend(file_lines(path, file, &bold));
    }
    if lines.is_empty() {
        lines.push(format!("no application is placed on host {}", desired.host));
    }
    lines.join("\n") + "\n"
}

fn file_lines(path: &HostPath, file: &DesiredFile, bold: &dyn Fn(&str) -> String) -> Vec<String> {
    let access = format!("{} {}:{}", file.mode, file.owner, file.group);
    match &file.kind {
        FileKind::Directory => vec![format!("  {}  directory {access}", bold(&format!("{path}/")))],
        FileKind::Symlink { target } => vec![format!("  {}  link to {}", bold(path.as_str()), shown(target))],
        FileKind::Archive { origin, .. } => vec![
            format!("  {}  directory {access}", bold(&format!("{path}/"))),
            format!("    (unpacked from {}, sha256 {})", shown(&origin.url), origin.sha256),
        ],
        FileKind::Artifact { origin, .. } => vec![
            format!("  {}  {access}", bold(path.as_str())),
            format!("    (fetched from {}, sha256 {})", shown(&origin.url), origin.sha256),
        ],
        FileKind::Regular { content, .. } => {
            let mut lines = vec![format!("  {}  {access}", bold(path.as_str()))];
            match text(content) {
                Some(text) => lines.extend(text.lines().map(|line| format!("    | {}", visible(line)))),
                None => lines.push(format!("    ({} bytes that are not text)", content.len())),
            }
            lines
        }
    }
}

/// Returns the content as text, unless it is none.
fn text(content: &[u8]) -> Option<&str> {
    std::str::from_utf8(content).ok().filter(|text| !text.contains('\0'))
}

/// Escapes what a terminal would act upon, and leaves tabs.
fn visible(line: &str) -> String {
    line.split('\t').map(shown).collect::<Vec<_>>().join("\t")
}

fn state(unit: &DesiredUnit) -> String {
    let state = match unit.state {
        Some(UnitGoal::Running) => "running",
        Some(UnitGoal::Stopped) => "stopped",
        None => "left to what triggers it",
    };
    let enabled = match unit.enabled {
        Some(true) => ", enabled",
        Some(false) => ", not enabled",
        None => "",
    };
    let watched = [("restarts on", &unit.restart_on), ("reloads on", &unit.reload_on), ("ignores", &unit.ignore)];
    let watched = watched.into_iter().filter(|(_, paths)| !paths.is_empty()).map(|(label, paths)| {
        let paths: Vec<&str> = paths.iter().map(HostPath::as_str).collect();
        format!(", {label} {}", paths.join(" "))
    });
    format!("{state}{enabled}{}", watched.collect::<String>())
}

/// Lists what is set of a container, as label and value.
fn details(container: &DesiredContainer) -> Vec<(&'static str, String)> {
    let settings = &container.settings;
    let mut details = Vec::new();
    for (label, words) in [("entrypoint", &settings.entrypoint), ("command", &settings.command)] {
        if !words.is_empty() {
            details.push((label, words.join(" ")));
        }
    }
    details.extend(settings.env.iter().map(|(name, value)| ("env", format!("{name}={value}"))));
    details.extend(settings.ports.iter().map(|port| {
        let address = port.address.as_ref().map(|address| format!("{address}:")).unwrap_or_default();
        let protocol =
            if port.protocol == Protocol::Tcp { String::new() } else { format!("/{}", port.protocol.as_str()) };
        ("port", format!("{address}{}:{}{protocol}", port.host, port.container))
    }));
    details.extend(settings.mounts.iter().map(|mount| {
        let only = if mount.read_only { ":ro" } else { "" };
        let source = match &mount.source {
            MountSource::Bind { path, .. } => path.as_str(),
            MountSource::Volume { name, .. } => name.as_str(),
            MountSource::Tmpfs { .. } => "tmpfs",
        };
        ("volume", format!("{source}:{}{only}", mount.target))
    }));
    details.extend(settings.user.iter().map(|user| ("user", user.clone())));
    match &settings.networking {
        Networking::Default => {}
        Networking::Mode(mode) => details.push(("network", mode.clone())),
        Networking::Container(name) => details.push(("network", format!("container:{name}"))),
        Networking::Networks(all) => details.extend(all.keys().map(|name| ("network", name.to_string()))),
    }
    details.extend(settings.labels.iter().map(|(name, value)| ("label", format!("{name}={value}"))));
    details
}

fn as_json(desired: &Desired) -> Value {
    let apps: serde_json::Map<String, Value> =
        desired.apps.iter().map(|(name, app)| (name.to_string(), app_json(app))).collect();
    let published: Vec<Value> = desired.published.iter().map(|(path, file)| file_json(path, file)).collect();
    json!({ "fleet": desired.fleet, "host": desired.host.as_str(), "apps": apps, "published": published })
}

fn app_json(app: &DesiredApp) -> Value {
    let units = app.units.iter().map(|(name, unit)| {
        json!({
            "unit": name.to_string(),
            "state": unit.state.map(|goal| if goal == UnitGoal::Running { "running" } else { "stopped" }),
            "enabled": unit.enabled,
        })
    });
    let containers = app.containers.iter().map(|(name, container)| {
        let details = details(container).into_iter().map(|(label, value)| json!({ label: value }));
        json!({ "container": name.as_str(), "image": container.settings.image, "settings": details.collect::<Vec<_>>() })
    });
    json!({
        "release": app.digest.to_string(),
        "files": app.files.iter().map(|(path, file)| file_json(path, file)).collect::<Vec<_>>(),
        "units": units.collect::<Vec<_>>(),
        "containers": containers.collect::<Vec<_>>(),
    })
}

fn file_json(path: &HostPath, file: &DesiredFile) -> Value {
    let mut value = json!({
        "path": path.as_str(), "mode": file.mode.to_string(), "owner": file.owner, "group": file.group,
    });
    match &file.kind {
        FileKind::Directory => value["kind"] = "directory".into(),
        FileKind::Symlink { target } => {
            value["kind"] = "symlink".into();
            value["target"] = target.as_str().into();
        }
        FileKind::Archive { origin, .. } => {
            value["kind"] = "archive".into();
            value["sha256"] = origin.sha256.to_string().into();
            value["url"] = origin.url.as_str().into();
        }
        FileKind::Artifact { digest, origin } => {
            value["kind"] = "artifact".into();
            value["sha256"] = digest.to_string().into();
            value["url"] = origin.url.as_str().into();
        }
        FileKind::Regular { content, digest } => {
            value["kind"] = "file".into();
            value["sha256"] = digest.to_string().into();
            value["text"] = text(content).map_or(Value::Null, Value::from);
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use spec::id::HostName;
    use spec::tree::Tree;

    use super::*;

    #[test]
    fn what_a_host_gets_reads_from_top_to_bottom() {
        let mut tree = Tree::default();
        tree.insert("fleet.yaml", b"fleet: home\nhosts: { barn: { vars: { level: 3 } } }\n");
        let app = "endpoints: { web: { port: 80 } }\nfiles: { /srv/web: { kind: directory }, /srv/now: { kind: symlink, target: web } }\n\
                   containers: { box: { image: \"box:1\", command: [\"-l\", \"{{ vars.level }}\"], ports: [\"53:53/udp\"], volumes: [\"d:/d:ro\"] } }\n";
        tree.insert("apps/web/app.yaml", app.as_bytes());
        tree.insert(
            "apps/web/web.service.j2",
            b"[Service]\nExecStart=/bin/web {{ endpoints.web }}\n[Install]\nWantedBy=multi-user.target\n",
        );
        tree.insert("apps/web/files/etc/blob", b"a\0b");
        tree.insert("apps/web/files/etc/odd", b"\ta\x1b[31m\n");
        let fleet = manifest::parse(&tree, None).fleet.expect("a sound repository");
        let desired = resolve::resolve(&fleet, &HostName::parse("barn").expect("a name")).expect("a host of the fleet");
        let release = desired.apps.values().map(|app| app.digest.short()).collect::<String>();
        expect![[r#"
            web on barn, release RELEASE
              unit web.service: running, enabled
              container box: box:1
                command: -l 3
                port: 53:53/udp
                volume: d:/d:ro
              /etc/blob  0644 root:root
                (3 bytes that are not text)
              /etc/odd  0644 root:root
                | 	a\u{1b}[31m
              /etc/systemd/system/web.service  0644 root:root
                | [Service]
                | ExecStart=/bin/web tcp://barn:80
                | [Install]
                | WantedBy=multi-user.target
              /srv/now  link to web
              /srv/web/  directory 0755 root:root

            barn, for units to read
              /run/mainstay/endpoints.env  0644 root:root
                | # The endpoints of this host's environment; written by mainstay.
                | WEB_URL=tcp://barn:80
                | WEB_HOST=barn
                | WEB_PORT=80
                | WEB_ALL=tcp://barn:80
        "#]]
        .assert_eq(&as_text(&desired, false).replace(&release, "RELEASE"));
        let json = as_json(&desired);
        assert_eq!(json["apps"]["web"]["files"][1]["text"], "\ta\u{1b}[31m\n");
        assert_eq!(json["apps"]["web"]["files"][0]["text"], Value::Null);
        assert_eq!(json["published"][0]["path"], "/run/mainstay/endpoints.env");
    }
}
