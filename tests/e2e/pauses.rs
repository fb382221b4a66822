//! A person tells the agent to change nothing for a while: it goes on looking, shows what waits, and does it after.

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const STAYS: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";

#[test]
fn what_is_paused_is_left_alone_and_looked_after_again_when_it_ends() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    forge.authorize(&host).unwrap();
    let repo = forge.repo("fleet").unwrap();
    let image = forge.image("box", "1", "one").unwrap().reference;
    host.start_docker().unwrap();
    let boxes = format!("containers: {{ box1: {{ image: \"{image}\" }} }}\n");
    let files = |conf: &'static str| {
        [
            ("fleet.yaml", FLEET),
            ("apps/web/web.service", STAYS),
            ("apps/web/files/etc/web.conf", conf),
            ("apps/page/files/etc/page.conf", conf),
            ("apps/box/app.yaml", &boxes),
        ]
    };
    let tip = repo.commit(&files("one\n"), "one").unwrap();
    agent::follow(&host, &repo.ssh_url(), "");
    agent::await_converged(&host, &tip);

    // What is off is said, and asks for nothing.
    let refused = |command: &str, why: &str| {
        let said = host.sh(&format!("{command} 2>&1 || true")).unwrap();
        assert!(said.contains(why), "{command}: {said}");
    };
    refused("mainstay pause", "--reason <TEXT>");
    refused("mainstay pause wbe --reason x", "there is no application `wbe` on this host: did you mean `web`?");
    refused("mainstay pause --reason x --for 90d", "more than 31 days");
    refused("mainstay pause --reason x --until yesterday", "`yesterday` is no time");
    refused("mainstay resume", "nothing is paused on this host");

    // Some applications, while the others move on.
    let said = host.sh("mainstay pause web box --reason 'the disk is being changed' --for 2h").unwrap();
    assert!(said.contains("nothing of box, web is changed until") && said.contains("obeys from now on"), "{said}");
    agent::await_status(&host, "web is paused until .*: the disk is being changed; ");
    host.sh("docker rm -f box1; systemctl stop web; echo drift >/etc/page.conf").unwrap();
    host.wait_for(agent::SOON, "grep -q one /etc/page.conf").unwrap();
    refused("mainstay resume page", "`page` is not paused; paused are: box, web");
    let tip = repo.commit(&files("two\n"), "two").unwrap();
    host.wait_for(agent::SOON, "grep -q two /etc/page.conf").unwrap();
    assert_eq!(host.read("/etc/web.conf").unwrap(), "one\n");
    let (code, status) = agent::status(&host);
    assert_eq!((code, status["commit"].as_str()), (4, Some(&*tip)), "{status}");
    assert_eq!(status["paused"]["apps"]["web"]["reason"], "the disk is being changed", "{status}");
    let said = host.sh("mainstay status || true").unwrap();
    for words in [
        "PAUSED: nothing of web is changed until",
        "drift: it is not running",
        "waits: web stays at",
        "mainstay resume",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }

    let ask = |path: &str| {
        host.sh(&format!("curl -sS --unix-socket /run/mainstay/agent.sock http://mainstay{path}")).unwrap()
    };
    host.wait_for(
        agent::SOON,
        "curl -sS --unix-socket /run/mainstay/agent.sock http://x/metrics | \
        grep -qx 'mainstay_app_postponed{app=\"box\"} [1-9]'",
    )
    .unwrap();
    let (metrics, picture) = (ask("/metrics"), ask("/v1/status"));
    for line in ["mainstay_paused 0", "mainstay_app_paused{app=\"web\"} 1", "mainstay_app_paused{app=\"page\"} 0"] {
        assert!(metrics.lines().any(|it| it == line), "{line}: {metrics}");
    }
    let picture: serde_json::Value = serde_json::from_str(&picture).unwrap();
    assert_eq!(picture["plan"]["paused"]["apps"]["box"]["reason"], "the disk is being changed", "{picture}");

    // On record it waits: nobody takes it for what the commit says.
    let waits = || Ok(repo.notes()?.into_iter().find(|note| note.commit == tip && note.text.contains("waiting")));
    lab::poll(agent::SOON, waits).unwrap().expect("a record");

    // Everything; it outlives the agent and the host's own start, and `once` obeys it.
    host.sh("mainstay pause --reason 'nobody touches this'").unwrap();
    refused("mainstay resume web", "this whole host is paused until");
    host.sh("systemctl restart mainstay").unwrap();
    agent::await_status(&host, "^paused until .*: nobody touches this; ");
    host.sh("echo drift >/etc/page.conf; systemctl stop mainstay").unwrap();
    host.sh("mainstay once --offline >/tmp/once || test $? = 4").unwrap();
    let said = host.read("/tmp/once").unwrap();
    assert!(said.contains("not done while it is paused") && said.contains("/etc/page.conf"), "{said}");
    assert_eq!(host.read("/etc/page.conf").unwrap(), "drift\n");
    host.sh("! docker inspect box1 2>/dev/null").unwrap();

    // Asked for while no agent runs, it is obeyed by the next one: everything waits no longer.
    let said = host.sh("mainstay resume").unwrap();
    assert!(said.contains("no agent runs at the moment"), "{said}");
    host.sh("systemctl start mainstay").unwrap();
    agent::await_converged(&host, &tip);
    assert_eq!(host.read("/etc/web.conf").unwrap() + &host.read("/etc/page.conf").unwrap(), "two\ntwo\n");
    host.sh("systemctl is-active web; docker ps --format '{{.Names}}' | grep -x box1").unwrap();

    // It ends by itself, without anybody asking.
    host.sh("mainstay pause --reason short --for 3s; rm /etc/web.conf").unwrap();
    host.wait_for(agent::SOON, "test -e /etc/web.conf").unwrap();
    host.wait_for(agent::SOON, "journalctl -u mainstay -o cat | grep 'the pause of this host is over'").unwrap();
    let log = agent::log(&host);
    for words in ["paused: nothing of web is changed until", "resumed: this host is looked after again"] {
        assert!(log.contains(words), "{words}: {log}");
    }
}
