//! Which images the services of quadlets fetch and run, as far as their texts tell (podman-systemd.unit(5)).

use super::{Managed, assignments, last, quadlet_text, specifiers};
use crate::desired::{DesiredUnit, FileKind, UnitOrigin};
use crate::id::{HostPath, UnitName};

/// Keys of .image quadlets that `podman pull` has an option for.
const PULL_OPTIONS: [(&str, &str, &str); 7] = [
    ("Image", "AuthFile", "--authfile"),
    ("Image", "CertDir", "--cert-dir"),
    ("Image", "Creds", "--creds"),
    ("Image", "TLSVerify", "--tls-verify"),
    ("Image", "Arch", "--arch"),
    ("Image", "OS", "--os"),
    ("Image", "Variant", "--variant"),
];

/// An image that Podman is to have before a service of a quadlet is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// The image, as the quadlet writes it.
    pub image: String,
    /// It is enough that Podman has one of this name.
    pub if_missing: bool,
    /// What the quadlet says about how to pull it, as `podman pull` takes it.
    pub options: Vec<String>,
}

/// Returns the image that the service of a quadlet fetches, unless the quadlet says never to pull it.
pub fn pull(name: &UnitName, unit: &DesiredUnit, managed: &Managed<'_>) -> Option<Pull> {
    let UnitOrigin::Application { path, text } = &unit.origin else { return None };
    let section = match path.quadlet()?.rsplit('.').next() {
        Some("container") => "Container",
        Some("image") => "Image",
        _ => return None,
    };
    let text = quadlet_text(path, text, managed);
    // A container is content with what is there; `podman pull`, which the service of an image runs, always asks.
    let mut pull = Pull { image: String::new(), if_missing: section == "Container", options: Vec::new() };
    let mut never = false;
    for (_, key, value) in assignments(&text).into_iter().filter(|(of, ..)| of == section) {
        match key.as_str() {
            "Image" => pull.image = specifiers(name, &value),
            "Pull" | "Policy" => {
                never = value == "never";
                pull.if_missing = !is_asked_for(&value);
            }
            _ => {
                let option = PULL_OPTIONS.iter().find(|(of, it, _)| *of == section && *it == key);
                pull.options.extend(option.map(|(.., option)| format!("{option}={value}")));
            }
        }
    }
    let elsewhere = pull.image.ends_with(".image") || pull.image.ends_with(".build") || pull.image.contains('%');
    (!pull.image.is_empty() && !elsewhere && !never).then_some(pull)
}

/// Says whether a policy has Podman ask the registry although it has an image of the name.
fn is_asked_for(policy: &str) -> bool {
    matches!(policy, "always" | "newer")
}

/// The image that the container of a quadlet is started from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs {
    /// What its text calls it, or that of the .image or .build quadlet that it names.
    pub image: String,
    /// A start may give this name to another image first: it is pulled or built then.
    pub moves: bool,
}

/// Returns the image that the service of a .container quadlet runs, whoever fetches or builds it; `None` where no text tells.
pub fn runs(name: &UnitName, unit: &DesiredUnit, managed: &Managed<'_>) -> Option<Runs> {
    let UnitOrigin::Application { path, text } = &unit.origin else { return None };
    path.quadlet().filter(|file| file.ends_with(".container"))?;
    let text = quadlet_text(path, text, managed);
    let image = last(&text, "Container", "Image")?;
    let moves = last(&text, "Container", "Pull").is_some_and(|policy| is_asked_for(&policy));
    let runs = match image.rsplit_once('.').map(|(_, kind)| kind) {
        Some("image") => {
            let text = beside(path, &image, managed)?;
            let is_left = |policy: &str| matches!(policy, "missing" | "never");
            let asks = !last(&text, "Image", "Policy").is_some_and(|policy| is_left(&policy));
            let image = last(&text, "Image", "ImageTag").or_else(|| last(&text, "Image", "Image"))?;
            Runs { image, moves: moves || asks }
        }
        Some("build") => Runs { image: last(&beside(path, &image, managed)?, "Build", "ImageTag")?, moves: true },
        _ => Runs { image: specifiers(name, &image), moves },
    };
    (!runs.image.is_empty() && !runs.image.contains('%')).then_some(runs)
}

/// Reads the quadlet that another one names.
fn beside(path: &HostPath, name: &str, managed: &Managed<'_>) -> Option<String> {
    let path = HostPath::parse(&format!("{}/{name}", path.parent()?)).ok()?;
    let FileKind::Regular { content, .. } = &managed.get(&path)?.kind else { return None };
    Some(quadlet_text(&path, std::str::from_utf8(content).ok()?, managed).into_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use super::*;
    use crate::desired::DesiredFile;
    use crate::digest::Digest;
    use crate::id::Mode;

    const FOLDER: &str = "/etc/containers/systemd";

    fn path(name: &str) -> HostPath {
        HostPath::parse(&format!("{FOLDER}/{name}")).expect("a path")
    }

    /// Says of a quadlet beside others what its service fetches, and what its container runs.
    fn says(name: &str, text: &str, beside: &[(&str, &str)]) -> String {
        let files: BTreeMap<HostPath, DesiredFile> = beside
            .iter()
            .map(|(name, text)| {
                let content = text.as_bytes();
                let kind = FileKind::Regular { digest: Digest::of(content), content: content.into() };
                let (owner, group) = ("root".to_owned(), "root".to_owned());
                (path(name), DesiredFile { kind, mode: Mode::from_bits(0o644), owner, group })
            })
            .collect();
        let unit = DesiredUnit {
            origin: UnitOrigin::Application { path: path(name), text: Arc::from(text) },
            state: None,
            enabled: None,
            restart_on: BTreeSet::new(),
            reload_on: BTreeSet::new(),
            ignore: BTreeSet::new(),
        };
        let (managed, service) = (files.iter().collect(), UnitName::parse("web@a.service").expect("a name"));
        let when = |asks| if asks { "always" } else { "if missing" };
        let pulled = pull(&service, &unit, &managed);
        let pulled = pulled.map(|it| format!("{} {} {}", it.image, when(!it.if_missing), it.options.join(" ")));
        let run =
            runs(&service, &unit, &managed).map(|it| format!("{}{}", it.image, if it.moves { " moves" } else { "" }));
        [pulled, run].map(|said| said.unwrap_or_else(|| "-".to_owned()).trim().to_owned()).join(", ")
    }

    #[test]
    fn what_is_fetched_and_what_is_run_follow_from_the_texts() {
        let container = |lines: &str| format!("[Container]\n{lines}");
        let of = |lines: &str| says("web.container", &container(lines), &[]);
        assert_eq!(of("Image=web:1\n"), "web:1 if missing, web:1");
        assert_eq!(of("Image=web:%i\n"), "web:a if missing, web:a");
        assert_eq!(of("Image=web:%H\n"), "-, -", "the host's name is systemd's to tell");
        assert_eq!(of("Image=web:1\nPull=always\n"), "web:1 always, web:1 moves");
        assert_eq!(of("Image=web:1\nPull=never\n"), "-, web:1");
        assert_eq!(of("Image=gone.image\n"), "-, -");
        assert_eq!(of("Rootfs=/srv/web\n"), "-, -");

        let image = |lines: &str| says("web.image", &format!("[Image]\n{lines}"), &[]);
        assert_eq!(image("Image=web:1\nTLSVerify=false\n"), "web:1 always --tls-verify=false, -");
        assert_eq!(image("Image=web:1\nPolicy=missing\n"), "web:1 if missing, -");

        let by = |kind: &str, text: &str| {
            let name = format!("web.{kind}");
            says("web.container", &container(&format!("Image={name}\n")), &[(&name, text)])
        };
        assert_eq!(by("image", "[Image]\nImage=web:1\n"), "-, web:1 moves");
        assert_eq!(by("image", "[Image]\nImage=web:1\nPolicy=missing\n"), "-, web:1");
        assert_eq!(by("image", "[Image]\nImage=oci:/x\nImageTag=web:2\nPolicy=never\n"), "-, web:2");
        assert_eq!(by("build", "[Build]\nImageTag=localhost/web\n"), "-, localhost/web moves");
        let beside = [("web.image", "[Image]\nImage=web:1\n"), ("web.image.d/x.conf", "[Image]\nPolicy=missing\n")];
        assert_eq!(says("web.container", "[Container]\nImage=web.image\n", &beside), "-, web:1");
    }
}
