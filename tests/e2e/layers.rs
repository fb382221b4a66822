//! Layers, templates and endpoints: two hosts of one environment that differ in what they see, and find each other.

use lab::Host;

use crate::{agent, start};

const FOLDER: &str = "/root/fleet";
const INSTALL: &str = "[Install]\nWantedBy=multi-user.target\n";

/// The fleet with what differs between the commits of this story.
fn fleet(hosts: [&Host; 2], level: &str, more_endpoints: &str) -> Vec<(String, String)> {
    let [attic, barn] = hosts.map(Host::address);
    let service = |lines: &str| format!("[Service]\n{lines}\nExecStart=/usr/bin/sleep infinity\n{INSTALL}");
    [
        (
            "fleet.yaml",
            format!(
                "fleet: home\ndefaults: {{ environment: prod }}\nenvironments:\n  prod:\n    vars: {{ retention: 14d, level: warn }}\n    \
                 endpoints: {{ billing: \"https://billing.example\"{more_endpoints} }}\nhosts:\n  \
                 attic: {{ labels: {{ role: broker }}, address: {attic} }}\n  \
                 barn: {{ address: {barn}, vars: {{ level: {level} }} }}\n"
            ),
        ),
        (
            "apps/broker/app.yaml",
            "place: { role: broker }\nendpoints: { mqtt: { port: 1883, scheme: mqtt } }\nvars: { retention: 7d }\n".to_owned(),
        ),
        (
            "apps/broker/broker.service.j2",
            format!("[Service]\nExecStart=/usr/bin/busybox httpd -f -p {{{{ endpoints.mqtt.port }}}} -h /srv/broker\n{INSTALL}"),
        ),
        ("apps/broker/files/srv/broker/index.html.j2", "{{ host.name }} keeps {{ vars.retention }}\n".to_owned()),
        ("apps/user/user.service", service("EnvironmentFile=/etc/user/user.env")),
        ("apps/user/files/etc/user/user.env.j2", "BROKER={{ endpoints.mqtt.host }}:{{ endpoints.mqtt.port }}\nLEVEL={{ vars.level }}\n".to_owned()),
        ("apps/user/files/etc/user/kind", "base\n".to_owned()),
        ("apps/user/@prod/files/etc/user/kind", "prod\n".to_owned()),
        ("apps/user/@barn/files/etc/user/kind.j2", "{{ host.name }}\n".to_owned()),
        ("apps/user/@barn/idle.service", service("Nice=5")),
        ("apps/reader/reader.service", service("EnvironmentFile=-/run/mainstay/endpoints.env")),
        ("apps/other/other.service", service("Nice=1")),
    ]
    .map(|(path, text)| (path.to_owned(), text))
    .into()
}

fn converge(hosts: [&Host; 2], files: &[(String, String)]) -> [String; 2] {
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    hosts.map(|host| {
        agent::write_folder(host, FOLDER, &files);
        agent::converge(host, FOLDER)
    })
}

const UNITS: [&str; 3] = ["user", "reader", "other"];

/// Names the units that were started since `before`, by host.
fn restarted(hosts: [&Host; 2], before: &mut [[String; 3]; 2]) -> Vec<String> {
    let mut names = Vec::new();
    for (host, before) in hosts.iter().zip(before) {
        let now = UNITS.map(|unit| agent::invocation(host, unit));
        let moved = UNITS.iter().zip(now.iter().zip(before.iter())).filter(|(_, (now, before))| now != before);
        names.extend(moved.map(|(unit, _)| format!("{unit} on {}", host.name())));
        *before = now;
    }
    names
}

#[test]
fn hosts_differ_by_their_layers_and_find_each_other() {
    let Some(lab) = start() else { return };
    let hosts = lab.boot_all(&["attic", "barn"]).unwrap();
    let [attic, barn] = [&hosts[0], &hosts[1]];
    let both = [attic, barn];
    both.iter().for_each(|host| agent::install(host));

    converge(both, &fleet(both, "debug", ""));
    assert_eq!(both.map(|host| host.sh("cat /etc/user/kind").unwrap()), ["prod\n", "barn\n"]);
    assert_eq!(both.map(|host| host.sh("systemctl is-active idle || true").unwrap()), ["inactive\n", "active\n"]);
    // The other host's endpoint leads there, and what is served is rendered with the environment's value.
    let asked = barn.wait_for(agent::SOON, ". /etc/user/user.env; curl -sf http://$BROKER/").unwrap();
    assert_eq!(asked, "attic keeps 14d\n");
    assert_eq!(both.map(|host| host.sh("grep LEVEL /etc/user/user.env").unwrap()), ["LEVEL=warn\n", "LEVEL=debug\n"]);
    let file = "/run/mainstay/endpoints.env";
    let url = format!("MQTT_URL=mqtt://{}:1883", attic.address());
    for host in both {
        host.sh(&format!("grep -qx '{url}' {file}; test \"$(stat -c '%a %U' {file})\" = '644 root'")).unwrap();
        let environment = host.sh("tr '\\0' '\\n' < /proc/$(systemctl show -P MainPID reader)/environ").unwrap();
        assert!(environment.lines().any(|line| line == url), "{environment}");
    }

    // A changed variable of one host restarts what reads the rendered file there, and nothing else anywhere.
    let mut runs = both.map(|host| UNITS.map(|unit| agent::invocation(host, unit)));
    converge(both, &fleet(both, "trace", ""));
    assert_eq!(restarted(both, &mut runs), ["user on barn"]);
    // One more endpoint restarts what reads the file of all of them.
    let more = fleet(both, "trace", ", tax: \"https://tax.example\"");
    converge(both, &more);
    assert_eq!(restarted(both, &mut runs), ["reader on attic", "reader on barn"]);

    // As after a boot: the file is back, without a word and without a restart.
    barn.sh("rm -r /run/mainstay").unwrap();
    assert!(agent::converge(barn, FOLDER).contains("nothing to do"));
    barn.sh(&format!("grep -qx '{url}' {file}")).unwrap();
    assert_eq!(restarted(both, &mut runs), Vec::<String>::new());
    // Where it cannot be written, what reads it waits instead of starting without; everything else goes on.
    barn.sh(&format!("rm {file}; mkdir {file}")).unwrap();
    let (code, said) = agent::once(barn, FOLDER);
    assert!(code == 4 && said.contains("reader.service") && said.contains("waits for"), "{code}: {said}");
    barn.sh(&format!("rmdir {file}")).unwrap();
    agent::converge(barn, FOLDER);
    assert_eq!(restarted(both, &mut runs), Vec::<String>::new());

    // A name that one host lacks is a mistake for all of them, and changes nothing.
    let mut broken = more.clone();
    broken.push((
        "apps/user/files/etc/user/extra.j2".to_owned(),
        "{{ vars.levle }}\n{{ host.labels.role }}\n".to_owned(),
    ));
    let files: Vec<(&str, &str)> = broken.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    agent::write_folder(attic, FOLDER, &files);
    let (code, said) = agent::once(attic, FOLDER);
    assert_eq!(code, 3, "{said}");
    for words in
        ["`vars` has no `levle`", "did you mean `vars.level`?", "for host `attic` and 1 more", "for host `barn`"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    attic.sh("test ! -e /etc/user/extra").unwrap();

    // The service itself, in its sandbox: it writes the file before it is ready, so that others can be ordered after it.
    agent::write_folder(
        attic,
        FOLDER,
        &more.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect::<Vec<_>>(),
    );
    attic
        .sh(&format!(
            "cd {FOLDER} && git init -q -b main && git add -A && git -c user.name=x -c user.email=x@x -c gpg.format=ssh -c user.signingKey=/usr/share/lab/signer commit -q -S -m x"
        ))
        .unwrap();
    agent::follow(attic, &format!("file://{FOLDER}"), "allow-file: true\n");
    agent::await_status(attic, "^converged on");
    attic
        .sh(&format!(
            "systemctl stop mainstay; grep -qx '{url}' {file}; rm {file}; systemctl start mainstay; cat {file}"
        ))
        .unwrap();
    agent::await_status(attic, "^converged on");
    assert_eq!(restarted(both, &mut runs), Vec::<String>::new());
}
