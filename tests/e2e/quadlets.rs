//! Podman quadlets: a stack as people write it, what a change of each of its files restarts, drift, complaints of Podman's
//! generator, a registry that is away, and the way out.

use lab::Host;

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const FOLDER: &str = "/root/fleet";
const INSTALL: &str = "[Install]\nWantedBy=multi-user.target\n";

/// A stack: a pod with a container that mounts a managed file and a volume, a container of another service name in a
/// network, and two instances of a template.
fn stack(web: &str, pause: &str) -> Vec<(&'static str, String)> {
    let file = |path, text: &str| (path, text.to_owned());
    vec![
        file("fleet.yaml", FLEET),
        file(
            "apps/shop/app.yaml",
            "units:\n  worker@one.service: {}\n  worker@two.service: {}\n  idle.service: { state: stopped }\n",
        ),
        ("apps/shop/shop.pod", format!("[Pod]\nPublishPort=81:8080\nPodmanArgs=--infra-image={pause}\n{INSTALL}")),
        (
            "apps/shop/web.container",
            format!(
                "[Container]\nImage={web}\nPod=shop.pod\nVolume=/srv/shop:/www:ro\nVolume=data.volume:/data\n\
                 [Service]\nTimeoutStopSec=1\n{INSTALL}"
            ),
        ),
        file("apps/shop/files/srv/shop/index.html", "page one\n"),
        file("apps/shop/data.volume", "[Volume]\n"),
        file("apps/shop/back.network", "[Network]\nDisableDNS=true\n"),
        (
            "apps/shop/api.container",
            format!(
                "[Container]\nImage={web}\nServiceName=backend\nNetwork=back.network\nPublishPort=82:8080\n\
                 EnvironmentFile=/etc/shop/api.env\n[Service]\nTimeoutStopSec=1\n{INSTALL}"
            ),
        ),
        file("apps/shop/api.container.d/limits.conf", "[Container]\nEnvironment=FROM=drop-in\n"),
        file("apps/shop/files/etc/shop/api.env", "LEVEL=1\n"),
        (
            "apps/shop/worker@.container",
            format!("[Container]\nImage={pause}\nEnvironment=NAME=%i\n[Service]\nTimeoutStopSec=1\n"),
        ),
        ("apps/shop/idle.container", format!("[Container]\nImage={pause}\n")),
        file(
            "apps/other/other.service",
            "[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n",
        ),
    ]
}

fn write(host: &Host, files: &[(&'static str, String)]) {
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    agent::write_folder(host, FOLDER, &files);
}

fn set(files: &mut [(&'static str, String)], path: &str, text: &str) {
    files.iter_mut().find(|(it, _)| *it == path).unwrap().1 = text.to_owned();
}

const SERVICES: [&str; 7] = ["shop-pod", "web", "backend", "worker@one", "worker@two", "data-volume", "back-network"];

fn runs(host: &Host) -> Vec<String> {
    SERVICES.iter().map(|unit| agent::invocation(host, unit)).collect()
}

/// The services that began anew between two looks.
fn began(before: &[String], after: &[String]) -> Vec<&'static str> {
    let pairs = SERVICES.iter().zip(before.iter().zip(after));
    pairs.filter(|(_, (before, after))| before != after).map(|(name, _)| *name).collect()
}

#[test]
fn a_stack_of_quadlets_from_the_first_start_to_its_end() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    let (one, two) = (forge.image("web", "1", "one").unwrap(), forge.image("web", "2", "two").unwrap());
    let pause = forge.image_with("pause", "1", &[("marker", "pause")], &["/bin/sleep", "infinity"]).unwrap();
    agent::install(&host);
    let get = |port: u16| host.wait_for(agent::SOON, &format!("curl -sf http://127.0.0.1:{port}")).unwrap();

    // The first start: images first, then everything; what is only needed by others is started by them.
    let mut files = stack(&one.reference, &pause.reference);
    write(&host, &files);
    let steps = agent::steps(&agent::plan(&host, FOLDER));
    assert!(steps.contains(&format!("pull image {}", one.reference)), "{steps:?}");
    assert!(!steps.iter().any(|step| step.contains("data-volume") || step.contains("enable web")), "{steps:?}");
    agent::converge(&host, FOLDER);
    assert_eq!((get(81).trim(), get(82).trim()), ("page one", "one"));
    host.sh("systemctl is-active web backend shop-pod worker@one worker@two; ! systemctl is-active idle").unwrap();
    assert_eq!(
        host.sh(
            "podman exec systemd-worker_two sh -c 'echo $NAME' || podman exec systemd-worker@two sh -c 'echo $NAME'"
        )
        .unwrap(),
        "two\n"
    );
    assert_eq!(host.sh("podman exec systemd-backend sh -c 'echo $LEVEL $FROM'").unwrap(), "1 drop-in\n");
    let ledger = host.sh("cat /var/lib/mainstay/ledger*").unwrap();
    assert!(ledger.contains(&one.digest), "the image's digest is remembered");
    let settled = runs(&host);
    assert!(agent::converge(&host, FOLDER).contains("nothing to do"));
    assert_eq!(began(&settled, &runs(&host)), Vec::<&str>::new());

    // Each file restarts exactly what names it.
    set(&mut files, "apps/shop/files/etc/shop/api.env", "LEVEL=2\n");
    write(&host, &files);
    agent::converge(&host, FOLDER);
    let now = runs(&host);
    assert_eq!(began(&settled, &now), ["backend"]);
    assert_eq!(host.sh("podman exec systemd-backend sh -c 'echo $LEVEL'").unwrap(), "2\n");
    set(&mut files, "apps/shop/api.container.d/limits.conf", "[Container]\nEnvironment=FROM=elsewhere\n");
    set(&mut files, "apps/shop/files/srv/shop/index.html", "page two\n");
    write(&host, &files);
    agent::converge(&host, FOLDER);
    let settled = runs(&host);
    // The pod ends with its last container, so it begins anew with it.
    assert_eq!(began(&now, &settled), ["shop-pod", "web", "backend"]);
    assert_eq!(get(81).trim(), "page two");

    // Drift: stopped, killed with its container, edited behind our back.
    host.sh("systemctl stop backend; podman rm -f systemd-web >/dev/null").unwrap();
    // What is still ending is left to end; the look after that repairs it.
    host.wait_for(agent::SOON, "! systemctl is-active web shop-pod | grep -qx deactivating; ! systemctl is-active web")
        .unwrap();
    agent::once(&host, FOLDER);
    agent::converge(&host, FOLDER);
    assert_eq!((get(81).trim(), get(82).trim()), ("page two", "one"));
    host.sh("sed -i s/FROM=elsewhere/FROM=nowhere/ /etc/containers/systemd/api.container.d/limits.conf; systemctl daemon-reload; systemctl restart backend").unwrap();
    agent::converge(&host, FOLDER);
    assert_eq!(host.sh("podman exec systemd-backend sh -c 'echo $FROM'").unwrap(), "elsewhere\n");

    // What Podman's generator refuses changes nothing of the application, and the others go on.
    let before = host.sh("cat /etc/containers/systemd/*.container | sha256sum").unwrap();
    let settled = runs(&host);
    let mut bad = files.clone();
    let web = files.iter().find(|(path, _)| *path == "apps/shop/web.container").unwrap().1.clone();
    set(&mut bad, "apps/shop/web.container", &web.replace("Pod=shop.pod", "Pod=shop.pod\nVolume=nobodys.volume:/x"));
    set(&mut bad, "apps/other/other.service", "[Service]\nExecStart=/usr/bin/sleep 1d\n");
    write(&host, &bad);
    let (code, said) = agent::once(&host, FOLDER);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("apps/shop/web.container:4: Podman makes no service of"), "{said}");
    assert_eq!(
        host.sh("cat /etc/containers/systemd/*.container | sha256sum; grep -c 1d /etc/systemd/system/other.service")
            .unwrap(),
        format!("{before}1\n")
    );
    assert_eq!(began(&settled, &runs(&host)), Vec::<&str>::new());

    // A registry that is away: the old container serves on; it is back: the new one does.
    forge.stop_registry().unwrap();
    let api = files.iter().find(|(path, _)| *path == "apps/shop/api.container").unwrap().1.clone();
    set(&mut files, "apps/shop/api.container", &api.replace(&one.reference, &two.reference));
    write(&host, &files);
    let (code, said) = agent::once(&host, FOLDER);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains(&format!("failed to pull image {}: ", two.reference)) && said.contains("refused"), "{said}");
    assert_eq!((get(82).trim(), began(&settled, &runs(&host))), ("one", Vec::new()));
    forge.start_registry().unwrap();
    agent::converge(&host, FOLDER);
    assert_eq!(get(82).trim(), "two");

    // Gone from the repository: services, quadlets and containers go, volumes stay.
    host.sh("podman volume exists systemd-data").unwrap();
    files
        .retain(|(path, _)| !path.starts_with("apps/shop/") || path.ends_with("/index.html") || path.ends_with(".env"));
    let key = |host: &Host| agent::plan(host, FOLDER)["held"]["acknowledge"].as_str().map(str::to_owned);
    write(&host, &files);
    let key = key(&host).expect("so many removals are held");
    set(
        &mut files,
        "fleet.yaml",
        &format!("{FLEET}acknowledge:\n  - {{ prune: \"{key}\", reason: \"end of the shop\" }}\n"),
    );
    write(&host, &files);
    agent::converge(&host, FOLDER);
    host.sh("test -z \"$(find /etc/containers/systemd -type f)\"; podman volume exists systemd-data; ! systemctl is-active web backend shop-pod worker@one").unwrap();
    assert_eq!(host.sh("podman ps -aq; podman pod ps -q").unwrap(), "");
    assert_eq!(host.failed_units().unwrap(), Vec::<String>::new());
    assert!(agent::converge(&host, FOLDER).contains("nothing to do"));

    hand_made(&host, &pause.reference);
    built(&host, &pause.reference);

    // Without Podman there is no service to be made, and it is said what to do.
    host.sh("mv /usr/lib/systemd/system-generators/podman-system-generator /root/").unwrap();
    write(
        &host,
        &[
            ("fleet.yaml", FLEET.to_owned()),
            ("apps/a/x.container", format!("[Container]\nImage={}\n", one.reference)),
            ("apps/shop/files/srv/shop/index.html", "x\n".to_owned()),
            ("apps/shop/files/etc/shop/api.env", "x\n".to_owned()),
        ],
    );
    let (code, said) = agent::once(&host, FOLDER);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("this host has no Podman") && said.contains("apt install podman"), "{said}");
}

/// What somebody made by hand keeps its name in Podman, and no quadlet is in place that would take it at the next boot.
fn hand_made(host: &Host, pause: &str) {
    let container = |more: &str| format!("[Container]\nImage={pause}\n{more}[Service]\nTimeoutStopSec=1\n{INSTALL}");
    let manifest = |level: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{ name: kp }}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  \
             - {{ name: web, image: {pause}, env: [{{ name: LEVEL, value: \"{level}\" }}] }}\n"
        )
    };
    let mut files = vec![
        ("fleet.yaml", FLEET.to_owned()),
        ("apps/shop/files/srv/shop/index.html", "x\n".to_owned()),
        ("apps/shop/files/etc/shop/api.env", "x\n".to_owned()),
        ("apps/names/hm.container", container("ContainerName=handmade\n")),
        ("apps/names/hp.pod", format!("[Pod]\nPodName=handpod\n{INSTALL}")),
        ("apps/names/in.container", container("Pod=hp.pod\n")),
        ("apps/names/k.kube", format!("[Kube]\nYaml=/etc/names/kp.yaml\n{INSTALL}")),
        ("apps/names/files/etc/names/kp.yaml", manifest("1")),
    ];
    host.sh(&format!(
        "mkdir -p /etc/containers/containers.conf.d
         printf '[engine]\\ninfra_image=\"{pause}\"\\n' > /etc/containers/containers.conf.d/infra.conf
         podman run -d --name handmade {pause}; podman exec handmade sh -c 'echo precious >/precious'
         podman pod create --name handpod; podman run -d --pod handpod --name inpod {pause}
         podman pod create --name kp; podman run -d --pod kp --name inkp {pause}"
    ))
    .unwrap();
    let theirs = || host.sh("podman ps -aq --no-trunc | sort; podman exec handmade cat /precious").unwrap();
    let before = theirs();
    write(host, &files);
    for _ in 0..2 {
        let (code, said) = agent::once(host, FOLDER);
        assert_eq!(code, 4, "{said}");
        for conflict in [
            "file /etc/containers/systemd/hm.container: Podman has a container `handmade` that somebody made by hand, and hm.service would remove it",
            "hp.pod: Podman has a pod `handpod` that somebody made by hand, and hp-pod.service would remove it",
            "in.container: waits for /etc/containers/systemd/hp.pod",
            "k.kube: Podman has a pod `kp` that somebody made by hand, and k.service would remove it",
        ] {
            assert!(said.contains(conflict), "{conflict}: {said}");
        }
        assert_eq!(theirs(), before);
        host.sh("test -z \"$(find /etc/containers/systemd -type f)\"").unwrap();
    }

    // The names are free; from then on what has them is ours, whatever is changed.
    host.sh("podman rename handmade mine; podman pod rm -f -t 1 handpod kp").unwrap();
    agent::converge(host, FOLDER);
    assert_eq!(
        host.sh("podman exec mine cat /precious; podman exec kp-web sh -c 'echo $LEVEL'").unwrap(),
        "precious\n1\n"
    );
    assert!(agent::converge(host, FOLDER).contains("nothing to do"));
    set(&mut files, "apps/names/hm.container", &container("ContainerName=handmade\nEnvironment=LEVEL=2\n"));
    set(&mut files, "apps/names/in.container", &container("Pod=hp.pod\nEnvironment=LEVEL=2\n"));
    set(&mut files, "apps/names/files/etc/names/kp.yaml", &manifest("2"));
    write(host, &files);
    agent::converge(host, FOLDER);
    let levels = "for name in handmade systemd-in kp-web; do podman exec $name sh -c 'echo $LEVEL'; done";
    assert_eq!(host.sh(levels).unwrap(), "2\n2\n2\n");

    // Somebody took the name while the service was down.
    host.sh(&format!("systemctl stop hm; podman run -d --name handmade {pause}")).unwrap();
    let (code, said) = agent::once(host, FOLDER);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("Podman has a container `handmade` that somebody made by hand"), "{said}");
    host.sh("! systemctl is-active hm; podman rm -f -t 1 handmade mine").unwrap();
    agent::converge(host, FOLDER);
    host.sh("systemctl is-active hm").unwrap();
}

/// An image that is built follows what it is built of; a unit file that becomes a quadlet leaves no link behind.
fn built(host: &Host, pause: &str) {
    let container = |image: &str| format!("[Container]\nImage={image}\n[Service]\nTimeoutStopSec=1\n{INSTALL}");
    let containerfile = |level: u8| format!("FROM {pause}\nCOPY level /level\nENV LEVEL={level}\n");
    let mut files = vec![
        ("fleet.yaml", FLEET.to_owned()),
        ("apps/shop/files/srv/shop/index.html", "x\n".to_owned()),
        ("apps/shop/files/etc/shop/api.env", "x\n".to_owned()),
        ("apps/names/bl.build", "[Build]\nImageTag=localhost/bl:1\nSetWorkingDirectory=/etc/bl\n".to_owned()),
        ("apps/names/bl.container", container("bl.build")),
        ("apps/names/files/etc/bl/Containerfile", containerfile(1)),
        ("apps/names/files/etc/bl/level", "1\n".to_owned()),
        ("apps/names/mvs.service", format!("[Service]\nExecStart=/usr/bin/sleep infinity\n{INSTALL}")),
        ("apps/names/net.network", "[Network]\nDisableDNS=true\n".to_owned()),
        (
            "apps/names/on.container",
            format!("[Container]\nNetwork=net.network\nImage={pause}\n[Service]\nTimeoutStopSec=1\n{INSTALL}"),
        ),
    ];
    let converge = |files: &[(&'static str, String)]| {
        write(host, files);
        agent::converge(host, FOLDER)
    };
    let levels = || host.sh("podman exec systemd-bl sh -c 'echo $(cat /level) $LEVEL'").unwrap();
    let mut first = files.clone();
    let key = {
        write(host, &files);
        agent::plan(host, FOLDER)["held"]["acknowledge"].as_str().map(str::to_owned)
    };
    if let Some(key) = key {
        let acknowledged = format!("{FLEET}acknowledge:\n  - {{ prune: \"{key}\", reason: \"next\" }}\n");
        set(&mut first, "fleet.yaml", &acknowledged);
    }
    converge(&first);
    assert_eq!(levels(), "1 1\n");
    host.sh("systemctl is-enabled mvs").unwrap();
    assert!(converge(&files).contains("nothing to do"));

    set(&mut files, "apps/names/files/etc/bl/level", "2\n");
    set(&mut files, "apps/names/net.network", "[Network]\nDisableDNS=true\nInternal=true\n");
    files.retain(|(path, _)| *path != "apps/names/mvs.service");
    files.push(("apps/names/mvs.container", container(pause)));
    let said = converge(&files);
    assert!(said.contains("until you remove it: `podman network rm systemd-net`"), "{said}");
    assert_eq!(levels(), "2 1\n");
    host.sh("podman exec systemd-mvs true; ! find /etc/systemd/system -name mvs.service | grep .").unwrap();
    set(&mut files, "apps/names/files/etc/bl/Containerfile", &containerfile(2));
    converge(&files);
    assert_eq!(levels(), "2 2\n");
    set(
        &mut files,
        "apps/names/bl.build",
        "[Build]\nImageTag=localhost/bl:1\nFile=/etc/bl/Containerfile\nSetWorkingDirectory=file\nEnvironment=A=b\n",
    );
    let settled = agent::invocation(host, "bl");
    converge(&files);
    assert_ne!(agent::invocation(host, "bl"), settled);

    // What cannot be built fails the release, and what was there before is back.
    let mut bad = files.clone();
    set(&mut bad, "apps/names/files/etc/bl/Containerfile", &format!("FROM {pause}\nCOPY nothing /level\n"));
    write(host, &bad);
    let (code, said) = agent::once(host, FOLDER);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("bl-build.service"), "{said}");
    assert_eq!(levels(), "2 2\n");
    assert_eq!(host.sh("cat /etc/bl/Containerfile").unwrap(), containerfile(2));
    // What was held to the image of before follows its build again.
    converge(&files);
    assert_eq!(levels(), "2 2\n");
    assert!(converge(&files).contains("nothing to do"));
}
