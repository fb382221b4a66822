//! What changes on the host is noticed by what systemd, the engine and the kernel say: here the agent looks by itself only every
//! ten minutes, so whatever is put back sooner was heard.

use lab::Host;

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const STAYS: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";

/// What somebody does, and what must hold again.
const CASES: &[(&str, &str)] = &[
    ("systemctl stop web", "systemctl is-active web"),
    ("systemctl kill -s KILL web", "systemctl is-active web"),
    ("systemctl disable --quiet web", "systemctl is-enabled web"),
    ("echo changed > /etc/web/page", "test \"$(cat /etc/web/page)\" = page"),
    ("rm /etc/web/page", "test \"$(cat /etc/web/page)\" = page"),
    ("chmod 0600 /etc/web/page", "test \"$(stat -c %a /etc/web/page)\" = 644"),
    ("echo new > /etc/web/new; mv /etc/web/new /etc/web/page", "test \"$(cat /etc/web/page)\" = page"),
    ("mv /etc/web /etc/aside", "test \"$(cat /etc/web/page)\" = page"),
    // The folder is another one now.
    ("echo again > /etc/web/page", "test \"$(cat /etc/web/page)\" = page"),
    ("mv /srv/deep /srv/aside", "test \"$(cat /srv/deep/er/page)\" = page"),
    ("docker rm -f box1", "test $(docker inspect -f '{{.State.Status}}' box1) = running"),
    ("docker stop -t 0 box1", "test $(docker inspect -f '{{.State.Status}}' box1) = running"),
    ("docker pause box1", "test $(docker inspect -f '{{.State.Status}}' box1) = running"),
];

#[test]
fn what_drifts_is_put_back_when_it_happens() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    let image = forge.image("web", "1", "one").unwrap();
    host.start_docker().unwrap();
    forge.authorize(&host).unwrap();
    let repo = forge.repo("fleet").unwrap();
    let boxes = format!("containers: {{ box1: {{ image: \"{}\" }} }}\n", image.reference);
    let files = [
        ("fleet.yaml", FLEET),
        ("apps/web/web.service", STAYS),
        ("apps/web/files/etc/web/page", "page\n"),
        ("apps/web/files/srv/deep/er/page", "page\n"),
        ("apps/boxes/app.yaml", &boxes),
    ];
    let tip = repo.commit(&files, "all").unwrap();
    agent::follow(&host, &repo.ssh_url(), "observe: 10m\npoll: 10m\nsettle: 300ms\n");
    agent::await_converged(&host, &tip);
    for (number, (done, holds)) in CASES.iter().enumerate() {
        if number % 4 == 3 {
            // The same things drift so often here that the agent would take it for a fight.
            host.sh("systemctl kill -s HUP mainstay").unwrap();
        }
        let before = changes(&host);
        host.sh(done).unwrap();
        if let Err(error) = host.wait_for(agent::SOON, holds) {
            panic!("{done}: {error:#}\n{}", agent::log(&host));
        }
        // What the agent did for it is heard as well, and by then nobody watches whether it stays up.
        host.wait_for(agent::SOON, &format!("test $({CHANGES}) -ge {}", before + 2)).unwrap();
    }

    // What a person asks for is heard, too.
    host.sh("echo web > /var/lib/mainstay/retry").unwrap();
    host.wait_for(agent::SOON, "! test -e /var/lib/mainstay/retry").unwrap();

    // The bus and the engine come back, and are listened to again.
    host.sh("systemctl restart dbus docker").unwrap();
    for whom in ["systemd", "the engine"] {
        host.wait_for(agent::SOON, &format!("journalctl -u mainstay F_WHOM='{whom}' -o cat --no-pager | grep again"))
            .unwrap();
    }
    host.sh("systemctl stop web").unwrap();
    host.wait_for(agent::SOON, "systemctl is-active web").unwrap();
    host.sh("docker rm -f box1").unwrap();
    host.wait_for(agent::SOON, "docker inspect box1").unwrap();
    let (_, status) = agent::status(&host);
    assert_eq!(status["apps"]["web"]["state"], "repaired", "{}", agent::log(&host));
}

/// Counts how often the agent heard of something.
const CHANGES: &str = "journalctl -u mainstay F_WAKE=Change -o cat --no-pager | wc -l";

fn changes(host: &Host) -> usize {
    host.sh(CHANGES).unwrap().trim().parse().unwrap()
}
