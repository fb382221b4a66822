//! Who is told when a person is needed: a real Alertmanager, and a web server that keeps what it is sent.

use lab::Host;
use serde_json::Value;

use crate::fleet_story::Fleet;
use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const CANARY: &str = "hunter2";
const SETTINGS: &str = "alerts:
  webhook: http://127.0.0.1:8081/hook/generic
  webhook-secret: /etc/mainstay/webhook.secret
  slack: /etc/mainstay/slack.url
  ntfy: http://127.0.0.1:8081/hook/ntfy
  ntfy-token: /etc/mainstay/ntfy.token
  alertmanager: http://127.0.0.1:9093
";
/// Keeps each request that it gets: its headers and its body.
const SINK: &str = r#"#!/bin/sh
kept=$(mktemp /tmp/kept/XXXXXX)
{ echo "path: $PATH_INFO"; echo "signature: $HTTP_X_MAINSTAY_SIGNATURE_256"; echo "token: $HTTP_AUTHORIZATION"
  echo "title: $HTTP_TITLE"; echo; head -c "$CONTENT_LENGTH"; } >"$kept"
mv "$kept" "$kept.whole"
printf 'Content-Type: text/plain\r\n\r\nthanks\n'
"#;

fn service(says: &str) -> String {
    format!("[Service]\nExecStart=/bin/sh -c '{says}'\n[Install]\nWantedBy=multi-user.target\n")
}

/// Starts the web server that is told.
fn start_sink(host: &Host, address: &str) {
    host.write("/srv/sink/hook", SINK).unwrap();
    let config = format!(
        "server.modules = (\"mod_cgi\", \"mod_alias\")\nserver.document-root = \"/srv/sink\"\n\
         server.port = 8081\nserver.bind = \"{address}\"\ncgi.assign = (\"hook\" => \"\")\n"
    );
    host.write("/etc/sink.conf", config).unwrap();
    host.sh("mkdir -p /tmp/kept; chmod 0755 /srv/sink/hook; systemd-run -q -u sink lighttpd -D -f /etc/sink.conf")
        .unwrap();
    host.wait_for(agent::SOON, &format!("ss -Hltn | grep {address}:8081")).unwrap();
}

/// What the web server was sent at a path, the oldest first.
fn sent(host: &Host, path: &str) -> Vec<String> {
    let said = host.sh(&format!("cd /tmp/kept; for f in $(ls -tr *.whole 2>/dev/null); do grep -q '^path: {path}$' $f && cat $f && echo; printf '\\f'; done")).unwrap();
    said.split('\u{c}').map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect()
}

fn alerts(host: &Host) -> Vec<Value> {
    let said = host.sh("curl -sS --fail http://127.0.0.1:9093/api/v2/alerts").unwrap();
    serde_json::from_str::<Vec<Value>>(&said).unwrap()
}

#[test]
fn a_failure_and_its_end_are_told_once_to_everybody() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    forge.authorize(&host).unwrap();
    let repo = forge.repo("fleet").unwrap();
    let programs = lab::tools::alertmanager().unwrap();
    host.copy_in(&programs.join("prometheus-alertmanager"), "/usr/local/bin/alertmanager").unwrap();
    for template in ["default.tmpl", "email.tmpl"] {
        let path = format!("share/prometheus/alertmanager/{template}");
        host.copy_in(&programs.join("..").join(&path), &format!("/usr/{path}")).unwrap();
    }
    host.write("/etc/alertmanager.yml", "route: { receiver: nobody }\nreceivers: [{ name: nobody }]\n").unwrap();
    host.sh("chmod 0755 /usr/local/bin/alertmanager; systemd-run -q -u alertmanager /usr/local/bin/alertmanager \
        --config.file=/etc/alertmanager.yml --storage.path=/tmp/alertmanager --cluster.listen-address= --web.listen-address=127.0.0.1:9093")
        .unwrap();
    host.wait_for(agent::SOON, "curl -sf http://127.0.0.1:9093/-/ready").unwrap();
    start_sink(&host, "127.0.0.1");
    host.sh("mkdir -p /etc/mainstay; cd /etc/mainstay; echo key > webhook.secret; echo tk_1 > ntfy.token
        echo http://127.0.0.1:8081/hook/slack/T0/s3cret > slack.url; chmod 600 *")
        .unwrap();
    let good = service("exec sleep infinity");
    let first = repo.commit(&[("fleet.yaml", FLEET), ("apps/web/web.service", &good)], "good").unwrap();
    agent::follow(&host, &repo.ssh_url(), SETTINGS);
    agent::await_converged(&host, &first);
    let said = host.sh("mainstay alerts --test").unwrap();
    assert_eq!(said.matches(": delivered").count(), 4, "{said}");
    host.wait_for(agent::SOON, "test $(ls /tmp/kept/*.whole | wc -l) = 3").unwrap();
    host.sh("rm /tmp/kept/*").unwrap();

    // It fails and goes back; what it printed is nobody's business.
    let bad = service(&format!("echo {CANARY}; exit 3"));
    repo.commit(&[("apps/web/web.service", &bad)], "bad").unwrap();
    host.wait_for(agent::SOON, "grep -ls '\"event\":\"rolled-back\"' /tmp/kept/*.whole").unwrap();
    host.wait_for(agent::SOON, "curl -sS http://127.0.0.1:9093/api/v2/alerts | grep MainstayRolledBack").unwrap();
    let generic = sent(&host, "/generic");
    let last = generic.last().unwrap();
    let (head, body) = last.split_once("\n\n").unwrap();
    let event: Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        (&event["app"], &event["host"], &event["fleet"]),
        (&"web".into(), &"attic".into(), &"home".into()),
        "{last}"
    );
    let signed = host.sh(&format!("printf %s '{body}' | openssl dgst -sha256 -hmac key -r | cut -d' ' -f1")).unwrap();
    assert!(head.contains(&format!("signature: sha256={}", signed.trim())), "{last}\n{signed}");
    host.wait_for(
        agent::SOON,
        "grep -ls '^path: /ntfy' /tmp/kept/*.whole && grep -ls '^path: /slack' /tmp/kept/*.whole",
    )
    .unwrap();
    let ntfy = sent(&host, "/ntfy");
    assert!(
        ntfy.iter().any(|it| it.contains("title: web on attic: rolled back") && it.contains("token: Bearer tk_1")),
        "{ntfy:?}"
    );
    let count = sent(&host, "/generic").len();
    agent::await_passes(&host, 3);
    // The agent starts again, and knows what it told.
    host.sh("systemctl restart mainstay").unwrap();
    agent::await_passes(&host, 3);
    assert_eq!(sent(&host, "/generic").len(), count, "nothing is told twice");

    // While nobody listens, the host is looked after all the same; the end of it is told later.
    host.sh("systemctl stop sink").unwrap();
    let third = repo.commit(&[("apps/web/web.service", &service("exec sleep 1d"))], "good again").unwrap();
    agent::await_converged(&host, &third);
    host.wait_for(agent::SOON, "journalctl -u mainstay -o cat --no-pager | grep 'could not be delivered'").unwrap();
    host.wait_for(
        agent::SOON,
        "! curl -sS 'http://127.0.0.1:9093/api/v2/alerts?active=true' | grep MainstayRolledBack",
    )
    .unwrap();
    start_sink(&host, "127.0.0.1");
    host.wait_for(agent::SOON * 2, "grep -ls '\"event\":\"recovered\"' /tmp/kept/*.whole").unwrap();
    let left = alerts(&host);
    assert!(left.iter().all(|alert| alert["labels"]["app"] == "test"), "{left:#?}");
    for secret in [CANARY, "s3cret", "tk_1"] {
        let found = host.sh(&format!("journalctl -u mainstay --no-pager -o json | grep -c {secret} || true")).unwrap();
        // What the service printed is in the log of its failure, where the operator looks for it; nothing else of it is.
        assert!(secret == CANARY || found.trim() == "0", "{secret} is in the log");
        let told = host
            .sh(&format!(
                "grep -l '{secret}' /tmp/kept/* | xargs -r grep -L '^path: /slack/T0/s3cret\\|^token: Bearer' || true"
            ))
            .unwrap();
        assert_eq!(told, "", "{secret} is told");
    }
}

const FLEET_OF_THREE: &str = "fleet: home
hosts:
  attic: { labels: { ring: canary } }
  barn: {}
  shop: {}
rollouts:
  default: { waves: [ { where: { ring: canary } }, { share: 100% } ], bake: 1s, max-unavailable: 2, failures: 0, silent-after: 40s }
alerts:
  - { webhook: \"http://ear:8081/hook/fleet\", on: [rolled-back, halted, silent, recovered] }
";

/// What the web server was told of the fleet: of whom, what, and what was before.
fn events(ear: &Host) -> Vec<String> {
    let bodies =
        sent(ear, "/fleet").into_iter().filter_map(|it| it.split_once("\n\n").map(|(_, body)| body.to_owned()));
    let told = bodies.map(|body| {
        let it: Value = serde_json::from_str(&body).unwrap();
        let word = |key: &str| it[key].as_str().unwrap_or("-").to_owned();
        format!("{} {} {} {}", word("host"), word("app"), word("event"), word("before"))
    });
    let mut told: Vec<String> = told.collect();
    told.sort();
    told
}

/// Waits until just this was told.
fn await_events(fleet: &Fleet, ear: &Host, expected: &[&str]) {
    let all = || Ok((events(ear).len() >= expected.len()).then_some(()));
    let is_there = lab::poll(3 * agent::SOON, all).unwrap().is_some();
    let logs = || fleet.hosts.iter().filter(|host| host.is_running()).map(agent::log).collect::<String>();
    assert!(is_there && events(ear) == expected, "{:#?}\n{}", sent(ear, "/fleet"), logs());
}

/// A rollout is halted: one host tells it for all, and another one that it is over, when the first is off by then; so it is with a
/// host that is silent.
#[test]
fn what_concerns_the_fleet_is_told_once_whoever_is_off() {
    let Some(lab) = start() else { return };
    let ear = lab.boot("ear").unwrap();
    ear.sh("mkdir -p /tmp/kept").unwrap();
    start_sink(&ear, "0.0.0.0");
    let names = ["attic", "barn", "shop"];
    let good = |number: u32| service(&format!("exec sleep {number}d"));
    let files = [("fleet.yaml", FLEET_OF_THREE), ("apps/web/web.service", &good(1))];
    let (fleet, first) = Fleet::start_with(&lab, &names, &files, "report: { heartbeat: 8s }\n");
    fleet.await_state(&names, "web", &first, "converged");
    let said = fleet.hosts[0].sh("mainstay alerts --test").unwrap();
    assert_eq!(said, "webhook at ear (fleet.yaml): delivered\n");
    ear.wait_for(agent::SOON, "ls /tmp/kept/*.whole").unwrap();
    ear.sh("rm /tmp/kept/*").unwrap();

    let bad = fleet.repo.commit(&[("apps/web/web.service", &service("exit 3"))], "bad").unwrap();
    fleet.await_state(&["barn", "shop"], "web", &bad, "waiting");
    let mut told = vec!["- web halted -", "attic web rolled-back -"];
    await_events(&fleet, &ear, &told);
    let all = sent(&ear, "/fleet");
    let teller =
        |name: &&&str| all.iter().any(|it| it.contains("halted") && it.contains(&format!("\"by\":\"{name}\"")));
    let teller = *names.iter().find(teller).unwrap();
    assert_ne!(teller, "attic", "who failed does not wait: {all:#?}");

    // Whoever told it is off, once its record says that it did: what it told then is told, and that it is silent tells another one.
    let sign = format!("refs/mainstay/seen/{teller}");
    let says_so = || {
        Ok(fleet.repo.git(&["log", "-1", "--format=%B", &sign])?.contains("\"subject\":\"halted web\"").then_some(()))
    };
    assert!(lab::poll(agent::SOON, says_so).unwrap().is_some(), "{}", agent::log(fleet.host(teller)));
    fleet.host(teller).kill().unwrap();
    let silent = format!("{teller} - silent -");
    told.push(&silent);
    told.sort_unstable();
    await_events(&fleet, &ear, &told);

    // A fix: it is over everywhere but there, and that is told for it.
    let fix = fleet.repo.commit(&[("apps/web/web.service", &good(2))], "a fix").unwrap();
    let rest: Vec<&str> = names.into_iter().filter(|name| *name != teller).collect();
    fleet.await_state(&rest, "web", &fix, "converged");
    told.extend(["- web recovered halted", "attic web recovered rolled-back"]);
    told.sort_unstable();
    await_events(&fleet, &ear, &told);

    // It is back, and repeats nothing of what it told before.
    fleet.host(teller).start().unwrap();
    fleet.await_state(&names, "web", &fix, "converged");
    let back = format!("{teller} - recovered silent");
    told.push(&back);
    told.sort_unstable();
    await_events(&fleet, &ear, &told);
    for host in &fleet.hosts {
        agent::await_passes(host, 3);
    }
    assert_eq!(events(&ear), told);
}
