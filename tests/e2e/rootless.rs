//! Quadlets of a user: nothing but files and an account to begin with, then lingering, her images, a change, a bad change,
//! drift, a manager that is away or was stopped, and the way out; beside a service of root's that has the same name. And
//! checks of containers, hers and root's, on a host whose engine is Docker.

use lab::Host;

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const FOLDER: &str = "/root/fleet";
const APP: &str = "user: { name: alice, uid: 1500 }\nchecks:\n  - { unit: web.service, within: 20s }\n";
const AWAY: &str = "apps/root/web.service";

/// Runs a command as alice, where her manager and her Podman are found.
fn alice(host: &Host, command: &str) -> Result<String, anyhow::Error> {
    let environment = "HOME=/home/alice XDG_RUNTIME_DIR=/run/user/1500";
    host.sh(&format!("cd / && setpriv --reuid 1500 --regid 1500 --init-groups env {environment} {command}"))
}

fn web(image: &str, more: &str) -> String {
    format!(
        "[Container]\nImage={image}\nPublishPort=8081:8080\nVolume=/srv/shop:/www:ro\nVolume=data.volume:/data\n{more}\
         [Service]\nTimeoutStopSec=1\n[Install]\nWantedBy=default.target\n"
    )
}

fn files(image: &str) -> Vec<(&'static str, String)> {
    let service = "[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";
    vec![
        ("fleet.yaml", FLEET.to_owned()),
        ("apps/shop/app.yaml", APP.to_owned()),
        ("apps/shop/web.container", web(image, "")),
        ("apps/shop/web.container.d/level.conf", "[Container]\nEnvironment=LEVEL=1\n".to_owned()),
        ("apps/shop/data.volume", "[Volume]\n".to_owned()),
        ("apps/shop/files/srv/shop/index.html", "page one\n".to_owned()),
        (AWAY, service.to_owned()),
    ]
}

fn set(files: &mut [(&'static str, String)], path: &str, text: &str) {
    files.iter_mut().find(|(it, _)| *it == path).unwrap().1 = text.to_owned();
}

fn write(host: &Host, files: &[(&'static str, String)]) {
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    agent::write_folder(host, FOLDER, &files);
}

/// What a host needs on which rootless containers run; the lab's has a root that no other file system can be stacked on.
fn prepare(host: &Host) {
    host.sh(
        "chmod 666 /dev/net/tun; systemctl start network-online.target; useradd --create-home --uid 1600 alice
         mkdir -p /home/alice/.config/containers
         printf '[storage]\\ndriver = \"vfs\"\\n' > /home/alice/.config/containers/storage.conf
         printf '[Unit]\\n[Service]\\nType=oneshot\\nWatchdogSec=0\\nRestart=no\\nExecStart=\\nExecStart=/usr/bin/mainstay once --dir /root/fleet\\n' > /tmp/once.conf
         mkdir -p /etc/systemd/system/mainstay.service.d /etc/mainstay; cp /tmp/once.conf /etc/systemd/system/mainstay.service.d/; touch /etc/mainstay/agent.yaml",
    )
    .unwrap();
    lab::product::bring_units(host).unwrap();
}

#[test]
fn quadlets_of_a_user_from_the_first_start_to_their_end() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    let (one, two) = (forge.image("web", "1", "one").unwrap(), forge.image("web", "2", "two").unwrap());
    agent::install(&host);
    prepare(&host);
    let get = || host.wait_for(agent::SOON, "curl -sf http://127.0.0.1:8081").unwrap();
    let runs = || {
        let hers = alice(&host, "systemctl --user show -P InvocationID web").unwrap();
        (hers.trim().to_owned(), agent::invocation(&host, "web"))
    };

    // An account of another number is somebody else's, whose Podman would take the quadlets.
    let mut files = files(&one.reference);
    write(&host, &files);
    let (code, said) = agent::once(&host, FOLDER);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("`alice` has the number 1600 on this host, and app.yaml says 1500"), "{said}");
    host.sh("! test -e /etc/containers/systemd/users; systemctl is-active web").unwrap();
    host.sh("userdel alice; chown -R 1500:1500 /home/alice").unwrap();
    let (_, said) = agent::once(&host, FOLDER);
    assert!(said.contains("useradd --uid 1500 --create-home alice"), "{said}");
    host.sh("useradd --uid 1500 alice").unwrap();

    // The first start, inside the agent's own sandbox: her manager is there from now on, and her Podman fetches the image.
    let steps = agent::steps(&agent::plan(&host, FOLDER));
    let pull = format!("pull image {} for alice", one.reference);
    let at =
        |wanted: &str| steps.iter().position(|step| step == wanted).unwrap_or_else(|| panic!("{wanted}: {steps:?}"));
    let order = ["enable lingering of alice", "start manager of alice", &pull, "reload systemd of alice"];
    let order: Vec<usize> = order.iter().copied().chain(["start web.service of alice"]).map(at).collect();
    assert!(order.is_sorted(), "{steps:?}");
    host.sh("systemctl start mainstay || { journalctl -u mainstay --no-pager >&2; exit 1; }").unwrap();
    assert_eq!(get().trim(), "page one");
    assert_eq!(alice(&host, "podman exec systemd-web sh -c 'echo $LEVEL'").unwrap().trim(), "1");
    let ledger = host.sh("cat /var/lib/mainstay/ledger*").unwrap();
    assert!(ledger.contains(&one.digest) && ledger.contains("web.service of alice:1500"), "{ledger}");
    host.sh("podman ps -q | wc -l | grep -qx 0; ls /var/lib/systemd/linger/alice").unwrap();
    let settled = runs();
    assert!(agent::converge(&host, FOLDER).contains("nothing to do"));
    assert_eq!(runs(), settled);

    // A file that her container mounts restarts it, and not root's service of that name; so does its drop-in.
    set(&mut files, "apps/shop/files/srv/shop/index.html", "page two\n");
    set(&mut files, "apps/shop/web.container.d/level.conf", "[Container]\nEnvironment=LEVEL=2\n");
    write(&host, &files);
    agent::converge(&host, FOLDER);
    let changed = runs();
    assert!(changed.0 != settled.0 && changed.1 == settled.1, "{settled:?} {changed:?}");
    assert_eq!(get().trim(), "page two");
    assert_eq!(alice(&host, "podman exec systemd-web sh -c 'echo $LEVEL'").unwrap().trim(), "2");

    // What Podman's generator refuses changes nothing.
    let good = files.clone();
    set(&mut files, "apps/shop/web.container", &web(&one.reference, "Volume=nobodys.volume:/x\n"));
    write(&host, &files);
    let (code, said) = agent::once(&host, FOLDER);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("apps/shop/web.container:6: Podman makes no service of"), "{said}");
    assert_eq!(runs(), changed);

    // One that does not stay up says why in its own words, and goes back. Not at once: the journal asks the kernel whose unit
    // a process is of, and cannot once that has ended.
    let broken = "Exec=sh -c 'echo no such page >&2; sleep 0.3; exit 3'\n";
    set(&mut files, "apps/shop/web.container", &web(&two.reference, broken));
    write(&host, &files);
    let (_, said) = agent::once(&host, FOLDER);
    assert!(said.contains("web.service of alice") && said.contains("no such page"), "{said}");
    host.sh("mainstay logs shop | grep 'web.service.* no such page' && ! mainstay logs root | grep 'no such page'")
        .unwrap();
    agent::once(&host, FOLDER);
    assert_eq!(agent::status(&host).1["apps"]["shop"]["state"], "rolled-back");
    assert_eq!(get().trim(), "page two");

    // Drift: stopped by hand, taken away, edited.
    files = good;
    write(&host, &files);
    agent::converge(&host, FOLDER);
    alice(&host, "systemctl --user stop web").unwrap();
    assert!(agent::converge(&host, FOLDER).contains("start    web.service of alice"));
    assert_eq!(get().trim(), "page two");
    host.sh("rm /etc/containers/systemd/users/1500/web.container").unwrap();
    alice(&host, "systemctl --user daemon-reload").unwrap();
    agent::converge(&host, FOLDER);
    assert_eq!(get().trim(), "page two");
    let settled = runs();
    let images = || alice(&host, "podman images --format '{{.Tag}}'").unwrap();
    assert_eq!(images(), "1\n", "the image that failed is not needed any more");

    // A manager that gives no answer, or that somebody else answers for: nothing of hers is touched, root's goes on.
    set(&mut files, "apps/shop/web.container.d/level.conf", "[Container]\nEnvironment=LEVEL=3\n");
    set(&mut files, AWAY, "[Service]\nExecStart=/usr/bin/sleep 1d\n[Install]\nWantedBy=multi-user.target\n");
    write(&host, &files);
    host.sh("kill -STOP $(systemctl show -P MainPID user@1500)").unwrap();
    let (code, said) = agent::once(&host, FOLDER);
    host.sh("kill -CONT $(systemctl show -P MainPID user@1500)").unwrap();
    assert!(code != 0 && said.contains("the manager of alice cannot be asked"), "{code} {said}");
    let others = runs();
    assert!(others.0 == settled.0 && others.1 != settled.1, "{settled:?} {others:?}");
    host.sh("cd /run/user/1500/systemd; mv private hers; ln -s /run/systemd/private private").unwrap();
    let (code, said) = agent::once(&host, FOLDER);
    host.sh("cd /run/user/1500/systemd; mv hers private").unwrap();
    assert!(code != 0 && said.contains("leads to a process of user 0, not of alice"), "{code} {said}");
    assert_eq!(runs(), others);
    agent::converge(&host, FOLDER);
    assert_eq!(alice(&host, "podman exec systemd-web sh -c 'echo $LEVEL'").unwrap().trim(), "3");

    // A manager that was stopped begins with what it finds: what is changed then is not taken for started with.
    set(&mut files, "apps/shop/web.container.d/level.conf", "[Container]\nEnvironment=LEVEL=4\n");
    write(&host, &files);
    host.sh("systemctl stop user@1500").unwrap();
    agent::converge(&host, FOLDER);
    assert_eq!(alice(&host, "podman exec systemd-web sh -c 'echo $LEVEL'").unwrap().trim(), "4");
    assert!(agent::converge(&host, FOLDER).contains("nothing to do"));

    // Gone from the repository: her service and her quadlets go; her volume, her lingering and root's service stay.
    let root = agent::invocation(&host, "web");
    files.retain(|(path, _)| !path.starts_with("apps/shop/") || path.contains("/files/"));
    set(&mut files, "fleet.yaml", FLEET);
    write(&host, &files);
    let key = agent::plan(&host, FOLDER)["held"]["acknowledge"].as_str().map(str::to_owned);
    if let Some(key) = key {
        let fleet = format!("{FLEET}acknowledge:\n  - {{ prune: \"{key}\", reason: \"end of the shop\" }}\n");
        set(&mut files, "fleet.yaml", &fleet);
        write(&host, &files);
    }
    let said = agent::converge(&host, FOLDER);
    assert!(said.contains("stop     web.service of alice"), "{said}");
    host.sh("test -z \"$(find /etc/containers/systemd -type f)\"; ls /var/lib/systemd/linger/alice").unwrap();
    alice(
        &host,
        "sh -c '! systemctl --user is-active web && podman volume exists systemd-data && test -z \"$(podman ps -aq)\"'",
    )
    .unwrap();
    assert_eq!((agent::invocation(&host, "web"), images()), (root, String::new()));
    assert_eq!(alice(&host, "systemctl --user list-units --failed --no-legend").unwrap(), "");
    assert_eq!(host.failed_units().unwrap(), Vec::<String>::new());
    assert!(agent::converge(&host, FOLDER).contains("nothing to do"));
}

const WELL: &str = "/srv/well";

/// A quadlet whose container is healthy while there is a file on the host.
fn checked(image: &str, name: &str, health: &str) -> String {
    format!(
        "[Container]\nImage={image}\nContainerName={name}\nNetwork=none\nVolume={WELL}:/well:ro\nHealthCmd=test -e /well/{health}\n\
         HealthInterval=1s\nHealthRetries=1\nEnvironment=HEALTH={health}\n[Service]\nTimeoutStopSec=1\n"
    )
}

#[test]
fn a_container_check_asks_the_podman_that_runs_the_container() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    let image = forge.image("web", "1", "one").unwrap().reference;
    host.start_docker().unwrap();
    forge.authorize(&host).unwrap();
    host.sh(&format!(
        "chmod 666 /dev/net/tun; systemctl start network-online.target; useradd --create-home --uid 1500 alice
         mkdir -p /home/alice/.config/containers {WELL}; touch {WELL}/hers {WELL}/roots
         printf '[storage]\\ndriver = \"vfs\"\\n' > /home/alice/.config/containers/storage.conf; chown -R 1500:1500 /home/alice"
    ))
    .unwrap();
    let check = |name: &str| format!("checks: [ {{ container: {name}, interval: 1s, within: 20s }} ]\n");
    let app = format!("user: {{ name: alice, uid: 1500 }}\n{}", check("web"));
    let files = [
        ("fleet.yaml", FLEET),
        ("apps/hers/app.yaml", &app),
        ("apps/hers/web.container", &checked(&image, "web", "hers")),
        ("apps/roots/app.yaml", &check("systemd-web")),
        ("apps/roots/web.container", &checked(&image, "systemd-%N", "roots")),
    ];
    let repo = forge.repo("fleet").unwrap();
    let first = repo.commit(&files, "good").unwrap();
    agent::follow(&host, &repo.ssh_url(), "");
    agent::await_converged(&host, &first);
    let state = |app: &str| agent::status(&host).1["apps"][app]["state"].as_str().unwrap_or_default().to_owned();
    let sockets = "systemctl is-active podman.socket docker.socket";
    assert_eq!(host.sh(sockets).unwrap(), "active\nactive\n");
    assert_eq!(alice(&host, "systemctl --user is-active podman.socket").unwrap(), "active\n");

    // What does not pass any more is told, for each by itself, until it passes again.
    for (gone, other) in [("hers", "roots"), ("roots", "hers")] {
        host.sh(&format!("rm {WELL}/{gone}")).unwrap();
        agent::await_status(&host, "1 of 2 applications unhealthy");
        assert_eq!((state(gone), state(other)), ("unhealthy".to_owned(), "converged".to_owned()));
        host.sh(&format!("touch {WELL}/{gone}")).unwrap();
        agent::await_converged(&host, &first);
    }

    // A release that does not become healthy goes back.
    let commit = repo
        .change()
        .write("apps/hers/web.container", checked(&image, "web", "never"))
        .write("apps/roots/web.container", checked(&image, "systemd-%N", "never"))
        .write("apps/hers/app.yaml", app.replace("20s", "2s"))
        .write("apps/roots/app.yaml", check("systemd-web").replace("20s", "2s"))
        .commit("bad")
        .unwrap();
    agent::await_status(&host, &format!("^on {}, 2 of 2 applications rolled back", &commit[..10]));
    let failure = |app: &str| agent::status(&host).1["apps"][app]["failure"].as_str().unwrap_or_default().to_owned();
    assert!(failure("hers").contains("check of container web of alice did not pass within 2s"), "{}", failure("hers"));
    assert!(failure("roots").contains("check of container systemd-web did not pass"), "{}", failure("roots"));
    assert_eq!(alice(&host, "podman exec web sh -c 'echo $HEALTH'").unwrap(), "hers\n");
    assert_eq!(host.sh("podman exec systemd-web sh -c 'echo $HEALTH'").unwrap(), "roots\n");

    // Where there is no socket to start, the program is asked.
    let fixed = repo.commit(&files, "good again").unwrap();
    agent::await_converged(&host, &fixed);
    alice(&host, "sh -c 'systemctl --user stop podman.socket podman.service; systemctl --user mask podman.socket'")
        .unwrap();
    host.sh(&format!("systemctl mask --now podman.socket; rm {WELL}/hers {WELL}/roots")).unwrap();
    agent::await_status(&host, "2 of 2 applications unhealthy");
    host.sh(&format!("touch {WELL}/hers {WELL}/roots")).unwrap();
    agent::await_converged(&host, &fixed);
    assert_eq!(host.failed_units().unwrap(), Vec::<String>::new());
}
