//! Images that mainstay fetched and nothing needs any more go; what others have, name or use stays.

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const FOLDER: &str = "/root/fleet";

#[test]
fn images_go_when_nothing_needs_them() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    host.start_docker().unwrap();
    agent::install(&host);
    host.write("/etc/mainstay/agent.yaml", "settle: 2s\n").unwrap();
    let web = |version: &str| forge.image("web", version, version).unwrap().reference;
    let (shared, theirs) =
        (forge.image("shared", "1", "shared").unwrap(), forge.image("theirs", "1", "theirs").unwrap());
    host.sh(&format!("docker pull -q {}; docker pull -q {}", shared.reference, theirs.reference)).unwrap();
    let write = |image: &str, command: &str| {
        let app = format!(
            "containers: {{ web: {{ image: \"{image}\"{command} }}, box: {{ image: \"{}\" }} }}\n",
            shared.reference
        );
        agent::write_folder(&host, FOLDER, &[("fleet.yaml", FLEET), ("apps/web/app.yaml", &app)]);
    };
    let images = || {
        let listed = host.sh("docker images --format '{{.Repository}}:{{.Tag}}' | sed 's,.*/,,' | sort").unwrap();
        listed.lines().map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    write(&web("1"), "");
    agent::converge(&host, FOLDER);
    assert_eq!(images(), "shared:1 theirs:1 web:1");

    // The release before the last good one is not gone back to.
    write(&web("2"), "");
    agent::converge(&host, FOLDER);
    assert_eq!(images(), "shared:1 theirs:1 web:2");

    // A release that failed goes back without a registry; its own image stays while the commit wants it.
    write(&web("3"), ", command: [\"/bin/false\"]");
    let (code, said) = agent::once(&host, FOLDER);
    assert!(code == 4 && said.contains("held back: web") || said.contains("failed in web"), "{said}");
    assert_eq!(host.sh("docker exec web cat /marker").unwrap(), "2");
    assert_eq!(images(), "shared:1 theirs:1 web:2 web:3");

    // What somebody uses stays until they are done with it, what somebody named is theirs.
    host.sh(&format!("docker run -d --name mine {} /bin/sleep 1000", web("2"))).unwrap();
    write(&web("4"), "");
    agent::converge(&host, FOLDER);
    assert_eq!(images(), "shared:1 theirs:1 web:2 web:4");
    host.sh(&format!("docker rm -f mine; docker tag {} mine:4", web("4"))).unwrap();
    write(&web("5"), "");
    agent::converge(&host, FOLDER);
    assert_eq!(images(), "mine:4 shared:1 theirs:1 web:4 web:5");
    assert!(agent::converge(&host, FOLDER).contains("nothing to do"));

    // Nothing at all is wanted of it any more: what was there before mainstay stays.
    let rest =
        |fleet: &str| agent::write_folder(&host, FOLDER, &[("fleet.yaml", fleet), ("apps/a/files/etc/a.conf", "x")]);
    rest(FLEET);
    let (code, said) = agent::once(&host, FOLDER);
    if let Some(at) = said.find("prune: \"") {
        rest(&format!("{FLEET}acknowledge: [ {{ prune: \"{}\", reason: \"all of it\" }} ]\n", &said[at + 8..at + 20]));
        agent::converge(&host, FOLDER);
    } else {
        assert_eq!(code, 0, "{said}");
    }
    assert_eq!(images(), "mine:4 shared:1 theirs:1 web:4");
}

#[test]
fn images_of_quadlets_go_when_nothing_needs_them() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    agent::install(&host);
    host.write("/etc/mainstay/agent.yaml", "settle: 2s\n").unwrap();
    let web = |version: &str| forge.image("web", version, version).unwrap().reference;
    let theirs = forge.image("theirs", "1", "theirs").unwrap().reference;
    host.sh(&format!("podman pull -q {theirs}")).unwrap();
    let container = |image: &str, more: &str| {
        format!("[Container]\nImage={image}\nNetwork=none\n{more}[Service]\nTimeoutStopSec=1\nRestart=no\n")
    };
    let write = |image: &str, more: &str, others: &[(&str, &str)]| {
        let others = others.iter().map(|(name, image)| (format!("apps/web/{name}.container"), container(image, "")));
        let others: Vec<(String, String)> = others.collect();
        let has_idle = others.iter().any(|(path, _)| path.contains("idle"));
        let app = if has_idle { "units: { idle.service: { state: stopped } }\n" } else { "" };
        let web = container(image, more);
        let mut folder =
            vec![("fleet.yaml", FLEET), ("apps/web/app.yaml", app), ("apps/web/web.container", web.as_str())];
        folder.extend(others.iter().map(|(path, text)| (path.as_str(), text.as_str())));
        agent::write_folder(&host, FOLDER, &folder);
    };
    let images = || {
        let listed = host.sh("podman images --format '{{.Repository}}:{{.Tag}}' | sed 's,.*/,,' | sort").unwrap();
        listed.lines().map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    write(&web("1"), "", &[("box", &theirs)]);
    agent::converge(&host, FOLDER);
    assert_eq!(images(), "theirs:1 web:1");
    write(&web("2"), "", &[("box", &theirs)]);
    agent::converge(&host, FOLDER);
    assert_eq!(images(), "theirs:1 web:2");

    // A release that failed goes back without a registry; its own image stays while the commit wants it.
    write(&web("3"), "Exec=/bin/false\n", &[("box", &theirs)]);
    let (code, said) = agent::once(&host, FOLDER);
    assert_eq!(code, 4, "{said}");
    assert_eq!(host.sh("podman exec systemd-web cat /marker").unwrap(), "2");
    assert_eq!(images(), "theirs:1 web:2 web:3");

    // What was there before stays, needed or not. A quadlet that does not run needs its image too, and has no container that
    // says so.
    write(&web("4"), "", &[("idle", &web("2"))]);
    agent::converge(&host, FOLDER);
    assert_eq!(images(), "theirs:1 web:2 web:4");

    // What somebody uses stays until they are done with it, what somebody named is theirs.
    host.sh(&format!("podman run -d --name mine --network none {} /bin/sleep 1000", web("2"))).unwrap();
    write(&web("5"), "", &[]);
    agent::converge(&host, FOLDER);
    assert_eq!(images(), "theirs:1 web:2 web:5");
    host.sh(&format!("podman rm -f -t 0 mine; podman tag {} mine:5", web("5"))).unwrap();
    write(&web("6"), "", &[]);
    agent::converge(&host, FOLDER);
    assert_eq!(images(), "mine:5 theirs:1 web:5 web:6");
    assert!(agent::converge(&host, FOLDER).contains("nothing to do"));
    assert_eq!(host.sh("systemctl list-units --all --no-legend 'mainstay-*'").unwrap(), "");
}
