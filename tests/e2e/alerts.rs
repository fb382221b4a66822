//! Who is told when a person is needed: a real Alertmanager, and a web server that keeps what it is sent.

use lab::Host;
use serde_json::Value;

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
fn start_sink(host: &Host) {
    host.write("/srv/sink/hook", SINK).unwrap();
    let config = "server.modules = (\"mod_cgi\", \"mod_alias\")\nserver.document-root = \"/srv/sink\"\n\
                  server.port = 8081\nserver.bind = \"127.0.0.1\"\ncgi.assign = (\"hook\" => \"\")\n";
    host.write("/etc/sink.conf", config).unwrap();
    host.sh("mkdir -p /tmp/kept; chmod 0755 /srv/sink/hook; systemd-run -q -u sink lighttpd -D -f /etc/sink.conf")
        .unwrap();
    host.wait_for(agent::SOON, "ss -Hltn | grep 127.0.0.1:8081").unwrap();
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
    start_sink(&host);
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
    start_sink(&host);
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
