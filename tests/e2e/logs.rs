//! `mainstay logs`: what units, quadlets and containers said, on one line of time, for people, programs and readers that go away.

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
/// Says a line at once, in colours and with what must not reach a terminal, and another one for each line that a file gets.
const SAYS: &str = "[Service]\nExecStart=/bin/sh -c 'printf \"unit one\\\\033[31m red\\\\033[0m \\\\033[2J end\\\\n\"; touch /run/say; exec tail -f /run/say'\n[Install]\nWantedBy=multi-user.target\n";

#[test]
fn what_an_application_says_stands_on_one_line_of_time() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    let command = ["/bin/sh", "-c", "echo container one >&2; touch /say; exec tail -f /say"];
    let image = forge.image_with("talker", "1", &[("marker", "talker")], &command).unwrap().reference;
    host.start_docker().unwrap();
    agent::install(&host);
    host.sh("mkdir -p /etc/mainstay; echo 'settle: 300ms' >/etc/mainstay/agent.yaml").unwrap();
    let boxes = format!("containers: {{ box1: {{ image: \"{image}\" }} }}\n");
    let quadlet = format!("[Container]\nImage={image}\nNetwork=none\n[Service]\nTimeoutStopSec=1\n");
    agent::write_folder(
        &host,
        "/root/fleet",
        &[
            ("fleet.yaml", FLEET),
            ("apps/web/app.yaml", &boxes),
            ("apps/web/web.service", SAYS),
            ("apps/web/podded.container", &quadlet),
            ("apps/other/other.service", SAYS),
            ("apps/quiet/files/etc/quiet", "x\n"),
        ],
    );
    agent::converge(&host, "/root/fleet");
    let logs = |args: &str| {
        let output = host.try_sh(&format!("mainstay logs {args} 2>&1")).unwrap();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
    };

    // Everything of one application, in the order in which it was said, whoever said it.
    host.sh("sleep 0.01; echo unit two >>/run/say; docker exec box1 sh -c 'echo container two >>/say'").unwrap();
    host.wait_for(
        agent::SOON,
        "mainstay logs web | grep 'unit two' && mainstay logs web | grep 'box1 .*container two'",
    )
    .unwrap();
    let (code, said) = logs("web");
    assert_eq!(code, 0, "{said}");
    for words in [
        "web.service     unit one red \\u{1b}[2J end",
        "web.service     unit two",
        "box1            container one",
        "podded.service  container one",
        "Started web.service",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!said.contains("other.service") && !said.contains('\u{1b}'), "{said}");
    let times: Vec<&str> = said.lines().map(|line| &line[..20]).collect();
    assert!(times.is_sorted() && times.iter().all(|time| time.ends_with('Z')), "{said}");
    let of_podman = host.sh("mainstay logs web podded | grep -c 'container one'").unwrap();
    assert_eq!(of_podman.trim(), "1");

    // Some of it.
    let (_, said) = logs("web box1 -n 1");
    assert!(said.lines().count() == 1 && said.ends_with("container two\n"), "{said}");
    let (_, said) = logs("web --since 2030-01-01T00:00Z");
    assert_eq!(said, "");
    let (_, said) = logs("web web --since 1h --json");
    let lines: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["source"] == "web.service"), "{said}");
    assert!(lines.iter().any(|line| line["text"] == "unit two" && line["by-systemd"] == false), "{said}");

    // What is off.
    for (args, words) in [
        ("wbe", "there is no application `wbe` on this host: did you mean `web`?"),
        ("web boks1", "there is no unit or container `boks1` in web: did you mean `box1`?"),
        ("quiet", "quiet has neither units nor containers on this host"),
        ("web --since never", "`never` is no time"),
        ("web -n 1000000", "is not in 0..=20000"),
    ] {
        let (code, said) = logs(args);
        assert!(code != 0 && said.contains(words), "{args}: {said}");
    }
    assert_eq!(
        host.sh("mainstay logs web | head -1 | wc -l; test ${PIPESTATUS[0]} = 0 && echo well").unwrap(),
        "1\nwell\n"
    );

    // What is being said, by the container that takes the place of another one as well; until nobody reads any more, or Ctrl-C.
    host.sh("(timeout -k 5 120 mainstay logs web -f; echo $? >/tmp/code) >/tmp/heard 2>/tmp/errors & echo $! >/tmp/follower").unwrap();
    host.wait_for(agent::SOON, "grep 'unit two' /tmp/heard").unwrap();
    host.sh("echo unit three >>/run/say; docker rm -f box1 >/dev/null").unwrap();
    host.wait_for(agent::SOON, "grep 'unit three' /tmp/heard").unwrap();
    agent::converge(&host, "/root/fleet");
    host.wait_for(agent::SOON, "test $(grep -c 'box1 .*container one' /tmp/heard) = 2").unwrap();
    assert_eq!(host.sh("grep -c 'unit two' /tmp/heard").unwrap(), "1\n", "nothing is told twice");
    host.sh("kill -INT $(pidof mainstay)").unwrap();
    host.wait_for(agent::SOON, "test -s /tmp/code && ! pidof mainstay && ! pidof journalctl").unwrap();
    host.sh("timeout 60 sh -c 'mainstay logs web -f | head -1'").unwrap();
    host.wait_for(agent::SOON, "! pidof mainstay && ! pidof journalctl").unwrap();
}
