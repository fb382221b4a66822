//! The endpoint of a real daemon: who may ask what, what it says, and what it never does.

use std::io::Write as _;
use std::process::{Command, Stdio};

use lab::Host;
use serde_json::Value;

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const STAYS: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";
/// A file that is only reported when it differs.
const REPORTED: &str = "files:\n  /etc/web/page: { drift: report }\n";

/// Asks over the Unix socket.
fn ask(host: &Host, path: &str) -> String {
    host.sh(&format!("curl -sS --fail-with-body --unix-socket /run/mainstay/agent.sock http://mainstay{path}")).unwrap()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Asks over TCP, with more words for curl; returns the status and the body.
fn ask_tcp(host: &Host, url: &str, more: &str) -> (String, String) {
    let said = host.sh(&format!("curl -s -w '\\n%{{http_code}}' {more} {url}")).unwrap();
    let (body, status) = said.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

#[test]
fn what_the_daemon_knows_is_told_to_those_who_may_know() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    forge.authorize(&host).unwrap();
    let repo = forge.repo("fleet").unwrap();
    let files = [
        ("fleet.yaml", FLEET),
        ("apps/web/web.service", STAYS),
        ("apps/web/app.yaml", REPORTED),
        ("apps/web/files/etc/web/page", "page\n"),
    ];
    let first = repo.commit(&files, "a page <b>bold</b>").unwrap();
    host.sh("groupadd mainstay; useradd -G mainstay friend; useradd stranger").unwrap();
    let endpoint = "poll: 10m\nendpoint: { listen: [\"127.0.0.1:9105\", \"127.0.0.1:9106\"] }\n";
    // One of the ports is somebody else's: the host is looked after all the same.
    let squatter = host.spawn(&["busybox", "httpd", "-f", "-p", "127.0.0.1:9106", "-h", "/tmp"]).unwrap();
    host.wait_for(agent::SOON, "ss -Hltn | grep 127.0.0.1:9106").unwrap();
    agent::follow(&host, &repo.ssh_url(), endpoint);
    agent::await_converged(&host, &first);
    assert!(agent::log(&host).contains("cannot listen at 127.0.0.1:9106"), "{}", agent::log(&host));
    squatter.end().unwrap();

    assert_eq!(ask(&host, "/healthz"), "ok\n");
    assert_eq!(ask(&host, "/readyz"), "ok\n");
    let status = json(&ask(&host, "/v1/status"));
    assert_eq!((&status["host"], &status["condition"]), (&"attic".into(), &"converged".into()), "{status:#}");
    assert_eq!(status["commit"]["id"], *first);
    assert_eq!(status["commit"]["subject"], "a page <b>bold</b>");
    assert_eq!(status["apps"]["web"]["state"], "converged");
    assert_eq!(json(&ask(&host, "/v1/apps/web"))["commit"]["id"], *first);
    // What the file holds is in the change that brought it.
    assert!(status["changes"][0]["differences"].to_string().contains("+page"), "{status:#}");

    // The group may ask, a stranger may not; over TCP a stranger learns less.
    let by = |user: &str| {
        let asked = "curl -s --unix-socket /run/mainstay/agent.sock http://mainstay/v1/status";
        host.try_sh(&format!("runuser -u {user} -- {asked}")).unwrap().status.success()
    };
    assert_eq!((by("friend"), by("stranger")), (true, false));
    let (code, least) = ask_tcp(&host, "http://127.0.0.1:9105/v1/status", "");
    assert_eq!(code, "200");
    assert!(json(&least)["apps"]["web"]["state"] == "converged" && !least.contains("+page"), "{least}");
    // A page that had its own name point here.
    assert_eq!(ask_tcp(&host, "http://127.0.0.1:9105/v1/status", "-H 'Host: evil.example'").0, "421");
    assert_eq!(ask_tcp(&host, "http://127.0.0.1:9105/v1/sync", "-X POST -H 'Origin: http://evil.example'").0, "403");

    // Reported drift, with what differs.
    host.sh("echo '<script>alert(1)</script>' > /etc/web/page").unwrap();
    let drifted = "curl -s --unix-socket /run/mainstay/agent.sock http://mainstay/v1/plan | grep -F -e '-<script>'";
    host.wait_for(agent::SOON, drifted).unwrap();
    let plan = json(&ask(&host, "/v1/plan"));
    assert_eq!(plan["drift"][0]["object"], "/etc/web/page", "{plan:#}");
    let (_, least) = ask_tcp(&host, "http://127.0.0.1:9105/v1/plan", "");
    assert!(json(&least)["drift"][0]["object"] == "/etc/web/page" && !least.contains("script"), "{least}");

    scraped_by_prometheus(&host);

    // Asked to, the agent asks the repository, which it would do in ten minutes.
    let second = repo.commit(&[("apps/web/files/etc/web/other", "more\n")], "more").unwrap();
    let sync = "curl -sS --fail-with-body -X POST --unix-socket /run/mainstay/agent.sock http://mainstay/v1/sync";
    host.sh(sync).unwrap();
    host.wait_for(agent::SOON, "test -e /etc/web/other").unwrap();
    let third = repo.commit(&[("apps/web/files/etc/web/third", "more\n")], "more").unwrap();
    assert_ne!(second, third);
    assert_eq!(ask_tcp(&host, "http://127.0.0.1:9105/v1/sync", "-X POST -H 'X-Mainstay: 1'").0, "202");
    host.wait_for(agent::SOON, "test -e /etc/web/third").unwrap();

    // A killed agent leaves its socket behind; the next one takes its place.
    host.sh("systemctl kill -s KILL mainstay").unwrap();
    host.wait_for(agent::SOON, "curl -s --unix-socket /run/mainstay/agent.sock http://mainstay/readyz | grep ok")
        .unwrap();
    // By now it has the port that was taken.
    host.wait_for(agent::SOON, "curl -s http://127.0.0.1:9106/readyz | grep ok").unwrap();

    // What would stand open is refused, and says what to do.
    host.write(
        "/tmp/open.yaml",
        format!("repository: {}\nendpoint: {{ listen: [\"0.0.0.0:9105\"] }}\n", repo.ssh_url()),
    )
    .unwrap();
    let refused = host.try_sh("mainstay run --settings /tmp/open.yaml --state /tmp/state 2>&1").unwrap();
    let said = String::from_utf8_lossy(&refused.stdout);
    assert!(refused.status.code() == Some(1) && said.contains("needs a certificate and a token"), "{said}");
}

/// A real Prometheus reads the metrics, and its linter finds nothing to say.
fn scraped_by_prometheus(host: &Host) {
    let tools = lab::tools::prometheus().unwrap();
    for accept in ["text/plain", "application/openmetrics-text"] {
        let text = ask_tcp(host, "http://127.0.0.1:9105/metrics", &format!("-H 'Accept: {accept}'")).1;
        assert!(text.contains("mainstay_app_state{app=\"web\",state=\"drifted\"} 1\n"), "{text}");
        assert!(text.contains("mainstay_app_drift{app=\"web\"} 1\n"), "{text}");
        if accept == "text/plain" {
            let mut lint = Command::new(tools.join("promtool"));
            let mut lint =
                lint.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            lint.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            let linted = lint.wait_with_output().unwrap();
            assert!(linted.status.success() && linted.stdout.is_empty(), "{}", String::from_utf8_lossy(&linted.stdout));
        }
    }
    host.copy_in(&tools.join("prometheus"), "/usr/local/bin/prometheus").unwrap();
    host.sh("chmod 0755 /usr/local/bin/prometheus; mkdir -p /tmp/prometheus").unwrap();
    let config = "global: { scrape_interval: 1s }\nscrape_configs:\n  - job_name: mainstay\n    static_configs: [{ targets: [\"127.0.0.1:9105\"] }]\n";
    host.write("/tmp/prometheus.yml", config).unwrap();
    let prometheus = host
        .spawn(&[
            "/usr/local/bin/prometheus",
            "--config.file=/tmp/prometheus.yml",
            "--storage.tsdb.path=/tmp/prometheus",
            "--web.listen-address=127.0.0.1:9090",
        ])
        .unwrap();
    let query = r#"curl -s -G http://127.0.0.1:9090/api/v1/query --data-urlencode 'query=mainstay_app_state{state="drifted"} == 1' | grep '"app":"web"'"#;
    host.wait_for(agent::SOON, query).unwrap();
    let well = r#"curl -s http://127.0.0.1:9090/api/v1/targets | grep '"health":"up"'"#;
    host.wait_for(agent::SOON, well).unwrap();
    prometheus.end().unwrap();
    host.sh("rm -rf /tmp/prometheus /usr/local/bin/prometheus").unwrap();
}
