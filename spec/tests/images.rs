//! Which images the quadlets of an application need, as authors write them.

use std::collections::BTreeSet;

use spec::id::HostName;
use spec::images;
use spec::tree::Tree;
use spec::{manifest, resolve};

#[test]
fn every_image_that_a_quadlet_speaks_of_is_needed() {
    let mut tree = Tree::default();
    tree.insert("fleet.yaml", b"fleet: home\nhosts: { attic: {} }\n");
    for (path, text) in [
        ("app.yaml", "units: { worker@one.service: {} }\n"),
        ("web.container", "[Container]\nImage=r.lan/old:1\nMount=type=image,source=r.lan/theme:2,destination=/theme\n"),
        ("web.container.d/newer.conf", "[Container]\nImage=r.lan/web:1\n"),
        // What is never pulled must not go: nobody would fetch it again.
        ("seed.container", "[Container]\nImage=r.lan/seed:3\nPull=never\n"),
        ("worker@.container", "[Container]\nImage=r.lan/%i:4\n"),
        ("tool.image", "[Image]\nImage=r.lan/tool:5\n"),
        ("tool.container", "[Container]\nImage=tool.image\n"),
        ("shop.pod", "[Pod]\nPodmanArgs=--infra-image=r.lan/pause:6\n"),
        ("kube.kube", "[Kube]\nYaml=/etc/kube.yaml\n"),
        ("files/etc/kube.yaml", "spec:\n  containers:\n    - image: r.lan/kube:7\n"),
        ("plain.service", "[Service]\nExecStart=/usr/bin/true\n"),
    ] {
        tree.insert(&format!("apps/web/{path}"), text.as_bytes());
    }
    let parsed = manifest::parse(&tree, None);
    let fleet = parsed.fleet.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
    let desired = resolve::resolve(&fleet, &HostName::parse("attic").expect("a name")).expect("resolved");
    let app = desired.apps.values().next().expect("an application");
    let names = ["kube:7", "old:1", "one:4", "pause:6", "seed:3", "theme:2", "tool:5", "web:1"];
    assert_eq!(images::of_app(app), names.iter().map(|name| format!("r.lan/{name}")).collect::<BTreeSet<_>>());
}
