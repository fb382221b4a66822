//! Reads the text of a Podman quadlet (podman-systemd.unit(5)): what Podman would refuse is an error here, with its line.
//!
//! Podman turns each quadlet into a service when systemd reads its units; which name that service has is worked out here.

use super::directives;
use super::model::Port;
use super::page::{Extent, Page};
use super::ports::{self, Written};
use super::unit::{self, Traits};
use super::unit_rules::Assignment;
use super::words::{did_you_mean, list};
use crate::diagnostic::Location;
use crate::id::{QUADLET_DIRECTORY, UnitName, shown};

/// The kinds of quadlet: the suffix of the file, its own section, and what is put behind the service's name.
const KINDS: [(&str, &str, &str); 7] = [
    ("container", "Container", ""),
    ("volume", "Volume", "-volume"),
    ("network", "Network", "-network"),
    ("pod", "Pod", "-pod"),
    ("kube", "Kube", ""),
    ("build", "Build", "-build"),
    ("image", "Image", "-image"),
];

/// What people write who know the options of `podman run` or compose, and the key for it.
const MEANT: [(&str, &str); 11] = [
    ("Port", "PublishPort"),
    ("Ports", "PublishPort"),
    ("Publish", "PublishPort"),
    ("Env", "Environment"),
    ("EnvFile", "EnvironmentFile"),
    ("Volumes", "Volume"),
    ("Networks", "Network"),
    ("Command", "Exec"),
    ("Cmd", "Exec"),
    ("Args", "Exec"),
    ("Name", "ContainerName"),
];

/// What the rest of the manifest wants to know about a quadlet beside its service's traits.
#[derive(Clone, Debug)]
pub(super) struct Quadlet {
    /// The suffix of its file.
    pub(super) kind: &'static str,
    /// What its text refers to by the name of another quadlet's file.
    pub(super) references: Vec<(String, Location)>,
    /// The pod that a container is in.
    pub(super) pod: Option<String>,
    /// A container that is not started with its pod.
    pub(super) apart: bool,
    /// What Podman calls what it makes: no two may have one name.
    pub(super) resource: Option<String>,
    /// The ports of the host that it publishes, as far as the text says them.
    pub(super) ports: Vec<Port>,
}

impl Quadlet {
    /// Says whether its service is something that should run, rather than a step on the way to one. A build is run once for each
    /// change of what it reads: Podman would build only when a container is started.
    pub(super) fn runs(&self) -> bool {
        matches!(self.kind, "container" | "pod" | "kube" | "build") && !self.apart
    }
}

/// Returns the kind of quadlet that a file of this name is.
pub(super) fn kind_of(name: &str) -> Option<&'static str> {
    let (_, suffix) = name.rsplit_once('.')?;
    KINDS.iter().map(|(kind, ..)| *kind).find(|kind| *kind == suffix)
}

/// A quadlet's text, understood.
pub(super) struct Read {
    /// The service that Podman makes of it.
    pub(super) service: UnitName,
    pub(super) traits: Traits,
    pub(super) quadlet: Quadlet,
}

/// Reads the page as the text of the quadlet `name`.
pub(super) fn read(page: &mut Page<'_>, name: &str) -> Option<Read> {
    let (stem, suffix) = name.rsplit_once('.')?;
    let (kind, section, extra) = *KINDS.iter().find(|(kind, ..)| *kind == suffix)?;
    let assignments = checked(page, kind, section)?;
    let last = |section: &str, key: &str| last(&assignments, section, key);
    let named = last(section, "ServiceName").map(|it| it.value.as_str());
    let service = match service(stem, named, extra) {
        Ok(service) => service,
        Err(why) => {
            let at = last(section, "ServiceName").map_or(Extent::new(0, 0), |it| it.value_extent);
            page.error("quadlet-name", at, format!("Podman cannot make a service of this: {why}"))
                .help("letters, digits and :-_. make a name; a template's ends with `@`");
            return None;
        }
    };
    if page.errors() == 0 {
        check_complete(page, kind, &assignments);
    }
    let references = references(page, kind, section, &assignments);
    let hooks = ["WantedBy", "RequiredBy", "UpheldBy", "Alias"];
    let aliases = assignments.iter().filter(|it| it.section == "Install" && it.key == "Alias");
    let traits = Traits {
        installs: hooks.into_iter().any(|key| last("Install", key).is_some()),
        aliases: aliases
            .flat_map(|it| it.value.split_whitespace().map(|name| (name.to_owned(), it.value_extent)))
            .collect(),
        ..Traits::default()
    };
    let is_false = |it: &Assignment<'_>| matches!(it.value.as_str(), "false" | "no" | "0" | "off");
    let quadlet = Quadlet {
        kind,
        references,
        pod: last(section, "Pod").filter(|_| kind == "container").map(|it| it.value.clone()),
        apart: kind == "container" && last(section, "StartWithPod").is_some_and(is_false),
        resource: resource(kind, section, &service, stem, &assignments),
        ports: ports(page, kind, section, &assignments),
    };
    Some(Read { service, traits, quadlet })
}

/// Reads the page as a drop-in for a quadlet of this kind.
pub(super) fn read_drop_in(page: &mut Page<'_>, kind: &'static str) {
    let Some((kind, section, _)) = KINDS.iter().find(|(it, ..)| *it == kind) else { return };
    if !page.text.trim().is_empty()
        && let Some(assignments) = checked(page, kind, section)
    {
        references(page, kind, section, &assignments);
        if let Some(it) = last(&assignments, section, "ServiceName") {
            page.error("quadlet-name", it.key_extent, "a drop-in must not change the name of the service")
                .help("write `ServiceName=` into the quadlet itself");
        }
    }
}

/// Splits the text into assignments and complains about what Podman or systemd would not know.
fn checked<'a>(page: &mut Page<'a>, kind: &str, section: &'static str) -> Option<Vec<Assignment<'a>>> {
    if !unit::is_plain(page) {
        return None;
    }
    if page.text.trim().is_empty() {
        page.error("unit-empty", Extent::new(0, 0), "this quadlet is empty").help("write its text, or remove the file");
        return None;
    }
    let allowed = ["Unit", section, "Quadlet", "Service", "Install"];
    let assignments = unit::assignments(page, section, &|page, name, extent| {
        allowed.contains(&name) || {
            let message = format!("a .{kind} quadlet has no section [{}]", shown(name));
            let help = match page.near(name, allowed) {
                Some(near) => format!("did you mean [{near}]?"),
                None => format!("it knows {}; what begins with `X-` is ignored", list(&allowed)),
            };
            page.error("unit-section", extent, message).help(help);
            false
        }
    });
    for it in &assignments {
        check_key(page, kind, section, it);
    }
    Some(assignments)
}

fn check_key(page: &mut Page<'_>, kind: &str, own: &'static str, it: &Assignment<'_>) {
    let is_own = it.section == own || it.section == "Quadlet";
    let defaults = it.section == "Install" && it.key == "DefaultInstance";
    let known =
        if is_own { directives::is_quadlet_key(it.section, it.key) } else { directives::is_known(it.section, it.key) };
    if known || defaults || it.key.starts_with("X-") {
        if it.section == "Service" && matches!(it.key, "User" | "Group" | "DynamicUser") {
            page.warning(
                "quadlet-user",
                it.key_extent,
                format!("`{}=` in [Service] is not what runs the container as a user", it.key),
            )
            .help(format!("write `User=` in [{own}] for the user inside"));
        }
        return;
    }
    let message = match is_own {
        true => format!("Podman knows no `{}=` in [{}]", shown(it.key), it.section),
        false => format!("systemd knows no `{}=` in [{}]", shown(it.key), it.section),
    };
    let near = match is_own {
        true => page.near(it.key, directives::quadlet_keys(it.section)),
        false => page.near(it.key, directives::of(it.section)),
    };
    let help = if !is_own && directives::is_quadlet_key(own, it.key) {
        format!("move it to [{own}]")
    } else if let Some((_, meant)) = MEANT.iter().find(|(said, _)| is_own && it.key.eq_ignore_ascii_case(said)) {
        did_you_mean(&format!("{meant}="))
    } else if let Some(near) = near {
        did_you_mean(&format!("{near}="))
    } else if let (true, Some(home)) = (is_own, directives::home(it.key, &["Unit", "Service", "Install"])) {
        format!("move it to [{home}]")
    } else {
        format!("remove it; what `podman` takes and .{kind} files do not can go through `PodmanArgs=`")
    };
    page.error("quadlet-key", it.key_extent, message).help(help);
}

fn last<'s, 'a>(assignments: &'s [Assignment<'a>], section: &str, key: &str) -> Option<&'s Assignment<'a>> {
    assignments.iter().rev().find(|it| it.section == section && it.key == key).filter(|it| !it.value.is_empty())
}

/// Works out the name of the service, as Podman does.
fn service(stem: &str, named: Option<&str>, extra: &str) -> Result<UnitName, String> {
    let (base, at) = stem.strip_suffix('@').map_or((stem, ""), |base| (base, "@"));
    let name = match named {
        Some(named) if !at.is_empty() && !named.ends_with('@') => {
            return Err(format!("`{}` is no template, as its file is", shown(named)));
        }
        Some(named) => named.to_owned(),
        None => format!("{base}{extra}{at}"),
    };
    if stem.contains('@') && at.is_empty() {
        return Err("an instance is named in `units:`, and its template is the file `NAME@.container`".to_owned());
    }
    UnitName::parse(&format!("{name}.service"))
}

/// Complains about what Podman cannot do without.
fn check_complete(page: &mut Page<'_>, kind: &str, assignments: &[Assignment<'_>]) {
    let has = |section: &str, key: &str| last(assignments, section, key).is_some();
    let problem = match kind {
        "container" if has("Container", "Image") && has("Container", "Rootfs") => {
            Some(("has both an `Image=` and a `Rootfs=`", "keep one of the two"))
        }
        "container" if !has("Container", "Image") && !has("Container", "Rootfs") => {
            Some(("has no `Image=`", "add `Image=` with the image to run to [Container]"))
        }
        "kube" if !has("Kube", "Yaml") => {
            Some(("has no `Yaml=`", "add `Yaml=` with the path of the manifest to [Kube]"))
        }
        "image" if !has("Image", "Image") => {
            Some(("has no `Image=`", "add `Image=` with the image to pull to [Image]"))
        }
        "build" if !has("Build", "ImageTag") => {
            Some(("has no `ImageTag=`", "add the name of what is built to [Build]"))
        }
        "build" if !has("Build", "File") && !has("Build", "SetWorkingDirectory") => {
            Some(("says neither `File=` nor `SetWorkingDirectory=`", "add the path of the Containerfile to [Build]"))
        }
        _ => None,
    };
    if let Some((message, help)) = problem {
        let first_line = Extent::new(0, page.text.lines().next().unwrap_or_default().len());
        page.error("quadlet-incomplete", first_line, format!("this .{kind} {message}")).help(help);
    }
}

/// Returns the paths of the host that a quadlet mounts into its container.
pub(super) fn mounted(text: &str) -> Vec<String> {
    let mut page = Page::new("", text);
    let all = unit::assignments(&mut page, "Container", &|_, _, _| true);
    let source = |it: &Assignment<'_>| match it.key {
        "Volume" => it.value.split(':').next().map(str::to_owned),
        "Mount" => {
            let mut parts = it.value.split(',').map(str::trim);
            parts.find_map(|part| part.strip_prefix("source=").or(part.strip_prefix("src="))).map(str::to_owned)
        }
        _ => None,
    };
    let podmans = all.iter().filter(|it| matches!(it.section, "Container" | "Pod"));
    podmans.filter_map(source).filter(|path| path.starts_with('/')).collect()
}

/// Returns the quadlets that the text names, and complains about paths that mean another file on every host.
fn references(page: &mut Page<'_>, kind: &str, own: &str, assignments: &[Assignment<'_>]) -> Vec<(String, Location)> {
    let mut found = Vec::new();
    for it in assignments.iter().filter(|it| it.section == own && !it.value.is_empty()) {
        if let Some(path) = local_file(kind, it.key, &it.value).filter(|path| !stands_alone(path, kind, assignments)) {
            let message = format!("`{}` is looked for beside the quadlet, in {QUADLET_DIRECTORY}", shown(path));
            page.error("quadlet-relative", it.value_extent, message)
                .help("bring the file below files/, and write its absolute path on the host");
        }
        let name = match it.key {
            "Image" | "Pod" => Some(it.value.as_str()),
            "Network" | "Volume" => it.value.split(':').next(),
            "Mount" => it.value.split(',').find_map(|part| part.strip_prefix("source=").or(part.strip_prefix("src="))),
            _ => None,
        };
        let wants: &[&str] = match it.key {
            "Image" => &["image", "build"],
            "Pod" => &["pod"],
            "Network" => &["network", "container"],
            "Volume" => &["volume"],
            _ => &["volume", "image", "build"],
        };
        let is_one = |name: &str| kind_of(name).is_some_and(|kind| wants.contains(&kind)) && !name.contains(['/', '%']);
        match name {
            Some(name) if is_one(name) => found.push((name.to_owned(), page.at(it.value_extent))),
            Some(name) if it.key == "Pod" => {
                page.error(
                    "quadlet-reference",
                    it.value_extent,
                    format!("`{}` is not the name of a .pod file", shown(name)),
                )
                .help("name the file, such as web.pod; another pod is joined with `PodmanArgs=--pod=…`");
            }
            _ => {}
        }
    }
    found
}

/// Returns the file of the host that a value names, where Podman reads one.
fn local_file<'v>(kind: &str, key: &str, value: &'v str) -> Option<&'v str> {
    match (kind, key) {
        (_, "EnvironmentFile") | ("kube", "Yaml" | "ConfigMap") | ("build", "File" | "IgnoreFile") => Some(value),
        (_, "Volume") => value.split(':').next().filter(|source| source.starts_with('.')),
        _ => None,
    }
}

/// Says whether a path means the same wherever the quadlet lies.
fn stands_alone(path: &str, kind: &str, assignments: &[Assignment<'_>]) -> bool {
    let based = kind == "build"
        && last(assignments, "Build", "SetWorkingDirectory").is_some_and(|it| it.value.starts_with('/'));
    path.starts_with(['/', '%']) || path.contains("://") || based
}

/// Returns the ports of the host that are published. Podman draws the others, and makes nothing of them on the host's own
/// network; what a specifier or an instance stands for is not known from here.
fn ports(page: &Page<'_>, kind: &str, own: &str, assignments: &[Assignment<'_>]) -> Vec<Port> {
    let of = |key: &'static str| assignments.iter().filter(move |it| it.section == own && it.key == key);
    let networks = of("Network").map(|it| it.value.as_str());
    if !matches!(kind, "container" | "pod" | "kube") || networks.clone().any(|it| matches!(it, "host" | "none")) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for it in of("PublishPort") {
        if it.value.is_empty() {
            // systemd's way to begin a list anew.
            found.clear();
        }
        let Ok(written) = ports::short(&it.value) else { continue };
        let Written { address, protocol, .. } = written;
        let pairs = (written.host.0..=written.host.1).zip(written.container.0..=written.container.1);
        let location = page.at(it.value_extent);
        found.extend(pairs.map(|(host, container)| Port {
            host,
            container,
            protocol,
            address,
            location: location.clone(),
        }));
    }
    found
}

/// Returns what Podman will call the container, volume, network or pod; `None` where that is not known from here.
fn resource(
    kind: &str,
    section: &str,
    service: &UnitName,
    stem: &str,
    assignments: &[Assignment<'_>],
) -> Option<String> {
    let key = match kind {
        "container" => "ContainerName",
        "volume" => "VolumeName",
        "network" => "NetworkName",
        "pod" => "PodName",
        _ => return None,
    };
    let written = last(assignments, section, key).map(|it| it.value.clone());
    let name = match kind {
        "container" => written.unwrap_or_else(|| format!("systemd-{}", service.stem())),
        _ => written.unwrap_or_else(|| format!("systemd-{stem}")),
    };
    (!name.contains(['%', '@'])).then_some(name)
}
