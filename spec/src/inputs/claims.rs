//! The names that a service of a quadlet takes in Podman when it starts, from whoever has them: what Podman makes of
//! quadlets begins with `--replace`.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{Managed, assignments, quadlet_text, specifiers};
use crate::desired::{DesiredApp, DesiredUnit, FileKind, UnitOrigin};
use crate::id::{ContainerName, HostPath, UnitName};

/// What Podman puts behind the name of a pod of a .pod quadlet, for the container that holds it together.
const INFRA: &str = "-infra";

/// Returns the names of the containers and pods that the service of a quadlet makes, as far as its text tells: not what is put
/// together from what only the host knows, and not what a manifest holds that no application brings.
pub fn claims(name: &UnitName, unit: &DesiredUnit, managed: &Managed<'_>) -> BTreeSet<ContainerName> {
    let UnitOrigin::Application { path, text } = &unit.origin else { return BTreeSet::new() };
    let Some((stem, kind)) = path.quadlet().and_then(|file| file.rsplit_once('.')) else { return BTreeSet::new() };
    let text = quadlet_text(path, text, managed);
    let names: Vec<String> = match kind {
        "container" => {
            let named = last(name, &text, "Container", "ContainerName");
            vec![named.unwrap_or_else(|| format!("systemd-{}", name.stem().replace('@', "_")))]
        }
        "pod" => vec![last(name, &text, "Pod", "PodName").unwrap_or_else(|| format!("systemd-{stem}"))],
        "kube" => {
            let manifests = assignments(&text).into_iter().filter(|(of, key, _)| of == "Kube" && key == "Yaml");
            let manifests = manifests.filter_map(|(.., path)| HostPath::parse(&specifiers(name, &path)).ok());
            manifests.flat_map(|path| of_manifest(&path, managed)).collect()
        }
        _ => Vec::new(),
    };
    names.iter().filter_map(|name| ContainerName::parse(name).ok()).collect()
}

/// Finds the service of a quadlet of `app` that runs the container of this name: one it makes, or the one that holds its pod
/// together.
pub fn runner<'a>(app: &'a DesiredApp, container: &ContainerName) -> Option<&'a UnitName> {
    let managed = app.files.iter().collect();
    let pod = container.as_str().strip_suffix(INFRA).and_then(|pod| ContainerName::parse(pod).ok());
    let mut runners = app.units.iter().filter(|(name, unit)| {
        let claims = claims(name, unit, &managed);
        let is_pod = matches!(&unit.origin, UnitOrigin::Application { path, .. } if path.as_str().ends_with(".pod"));
        claims.contains(container) || is_pod && pod.as_ref().is_some_and(|pod| claims.contains(pod))
    });
    runners.next().map(|(name, _)| name)
}

fn last(name: &UnitName, text: &str, section: &str, key: &str) -> Option<String> {
    super::last(text, section, key).map(|value| specifiers(name, &value)).filter(|value| !value.is_empty())
}

/// One document of a manifest (podman-kube-play(1)), as far as names need it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    kind: String,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    containers: Vec<Metadata>,
    init_containers: Vec<Metadata>,
    template: Option<Template>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Template {
    spec: Box<Spec>,
}

/// Names the pods that Podman makes of a manifest, and their containers. One that cannot be read is for Podman to refuse.
fn of_manifest(path: &HostPath, managed: &Managed<'_>) -> Vec<String> {
    let Some(FileKind::Regular { content, .. }) = managed.get(path).map(|file| &file.kind) else { return Vec::new() };
    let text = std::str::from_utf8(content).unwrap_or_default();
    // Each on its own: one of a kind that has another form must not hide the others.
    let documents = text.split("\n---").filter_map(|text| serde_yaml::from_str::<Document>(text).ok());
    documents.flat_map(|document| names(&document)).collect()
}

fn names(document: &Document) -> Vec<String> {
    let Document { kind, metadata: Metadata { name }, spec } = document;
    let (pod, spec) = match (kind.as_str(), &spec.template) {
        ("Pod", _) => (name.clone(), spec),
        ("Deployment" | "DaemonSet" | "Job", Some(template)) => (format!("{name}-pod"), &*template.spec),
        _ => return Vec::new(),
    };
    if name.is_empty() {
        return Vec::new();
    }
    let containers = spec.containers.iter().chain(&spec.init_containers).filter(|it| !it.name.is_empty());
    containers.map(|it| format!("{pod}-{}", it.name)).chain([pod.clone()]).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::desired::DesiredFile;
    use crate::digest::Digest;
    use crate::id::Mode;

    fn file(text: &str) -> DesiredFile {
        let content: Arc<[u8]> = text.as_bytes().into();
        let kind = FileKind::Regular { digest: Digest::of(&content), content };
        DesiredFile { kind, mode: Mode::from_bits(0o644), owner: "root".into(), group: "root".into() }
    }

    fn check(service: &str, quadlet: &str, text: &str, beside: &[(&str, &str)], expected: &[&str]) {
        let path = |name: &str| HostPath::parse(name).unwrap();
        let files: BTreeMap<HostPath, DesiredFile> =
            beside.iter().map(|(name, text)| (path(name), file(text))).collect();
        let origin = UnitOrigin::Application {
            path: path(&format!("/etc/containers/systemd/{quadlet}")),
            text: text.to_owned().into(),
        };
        let unit = DesiredUnit {
            origin,
            state: None,
            enabled: None,
            restart_on: BTreeSet::new(),
            reload_on: BTreeSet::new(),
            ignore: BTreeSet::new(),
        };
        let claims = claims(&UnitName::parse(service).unwrap(), &unit, &files.iter().collect());
        assert_eq!(claims.iter().map(ContainerName::as_str).collect::<Vec<_>>(), expected, "{quadlet}");
    }

    #[test]
    fn names_are_those_that_podman_gives() {
        check("web.service", "web.container", "[Container]\nImage=x\n", &[], &["systemd-web"]);
        check("back.service", "api.container", "[Container]\nServiceName=back\n", &[], &["systemd-back"]);
        check("w@one.service", "w@.container", "[Container]\nImage=x\n", &[], &["systemd-w_one"]);
        check("w@one.service", "w@.container", "[Container]\nContainerName=%p-%i\n", &[], &["w-one"]);
        check("web.service", "web.container", "[Container]\nContainerName=web-%H\n", &[], &[]);
        let drop_in = ("/etc/containers/systemd/web.container.d/n.conf", "[Container]\nContainerName=there\n");
        check("web.service", "web.container", "[Container]\nContainerName=here\n", &[drop_in], &["there"]);
        check("shop-pod.service", "shop.pod", "[Pod]\n", &[], &["systemd-shop"]);
        check("shop-pod.service", "shop.pod", "[Pod]\nPodName=shop\n", &[], &["shop"]);
        check("data-volume.service", "data.volume", "[Volume]\nVolumeName=data\n", &[], &[]);
    }

    #[test]
    fn a_manifest_names_pods_and_their_containers() {
        let manifest = "# shop\n---\nkind: ConfigMap\nmetadata: { name: c }\nspec: none\n---\n\
            apiVersion: v1\nkind: Pod\nmetadata:\n  name: kp\nspec:\n  containers: [{ name: web, image: x }]\n\
            --- # two\nkind: Deployment\nmetadata: { name: dep }\nspec:\n  template:\n    spec:\n      containers:\n      - name: one\n      initContainers: [{ name: two }]\n";
        let at = ("/etc/shop/pods.yaml", manifest);
        let names = ["dep-pod", "dep-pod-one", "dep-pod-two", "kp", "kp-web"];
        check("k.service", "k.kube", "[Kube]\nYaml=/etc/shop/pods.yaml\n", &[at], &names);
        check("k.service", "k.kube", "[Kube]\nYaml=/etc/other.yaml\n", &[at], &[]);
        check("k.service", "k.kube", "[Kube]\nYaml=/etc/a.yaml\n", &[("/etc/a.yaml", "{{ broken")], &[]);
    }
}
