//! The endpoint of a real daemon: who may ask what, what it says, and what it never does.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

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

    // A socket that the service manager holds is answered on, wherever it is.
    host.sh("systemctl stop mainstay; rm /run/mainstay/agent.sock").unwrap();
    let passed =
        host.spawn(&["systemd-socket-activate", "-l", "/run/passed.sock", "/usr/bin/mainstay", "run"]).unwrap();
    host.wait_for(agent::SOON, "curl -s --unix-socket /run/passed.sock http://mainstay/readyz | grep ok").unwrap();
    host.wait_for(agent::SOON, "curl -s --unix-socket /run/mainstay/agent.sock http://mainstay/readyz | grep ok")
        .unwrap();
    passed.end().unwrap();

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
    seen_by_prometheus(host, "mainstay_app_state{state=\"drifted\"} == 1");
}

/// Has a real Prometheus scrape the endpoint until it says of the application `web` what is asked.
pub(crate) fn seen_by_prometheus(host: &Host, query: &str) {
    let tools = lab::tools::prometheus().unwrap();
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
    let ask = "curl -s -G http://127.0.0.1:9090/api/v1/query --data-urlencode";
    host.wait_for(agent::SOON, &format!("{ask} 'query={query}' | grep '\"app\":\"web\"'")).unwrap();
    let well = r#"curl -s http://127.0.0.1:9090/api/v1/targets | grep '"health":"up"'"#;
    host.wait_for(agent::SOON, well).unwrap();
    prometheus.end().unwrap();
    host.sh("rm -rf /tmp/prometheus /usr/local/bin/prometheus").unwrap();
}

/// The secret of the webhooks.
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// What a forge sends with a push, as far as anybody looks, and some of what nobody does.
pub(crate) fn payload(forge: &str, branch: &str, repository: &str, commit: &str) -> String {
    let path = format!("lab/{repository}");
    let commits = serde_json::json!([{ "id": commit, "message": "count", "author": { "name": "Lab" }, "modified": ["apps/web"] }]);
    let reference = format!("refs/heads/{branch}");
    let body = match forge {
        "gitlab" => serde_json::json!({
            "object_kind": "push", "event_name": "push", "ref": reference, "after": commit, "user_name": "Lab", "commits": commits,
            "project": { "name": "Fleet", "path_with_namespace": path, "default_branch": "main" },
            "repository": { "name": "Fleet", "url": "git@forge.example:lab/fleet.git" },
        }),
        _ => serde_json::json!({
            "ref": reference, "before": "0".repeat(40), "after": commit, "commits": commits, "pusher": { "name": "Lab" },
            "repository": { "id": 1, "name": repository, "full_name": path, "private": true },
        }),
    };
    body.to_string()
}

/// Microseconds since the machine booted.
pub(crate) fn clock(host: &Host) -> u64 {
    let uptime = host.sh("cat /proc/uptime").unwrap();
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    Duration::from_secs_f64(seconds).as_micros().try_into().unwrap()
}

/// A forge's webhook, from another host, over TLS; returns the status and the body.
fn hook(forge: &lab::Forge, name: &str, body: &str, secret: &str) -> (String, String) {
    forge.write("/tmp/body", body).unwrap();
    let headers = match name {
        "github" => "-H 'X-GitHub-Event: push' -H \"X-Hub-Signature-256: sha256=$signature\"".to_owned(),
        "gitlab" => format!("-H 'X-Gitlab-Event: Push Hook' -H 'X-Gitlab-Token: {secret}'"),
        "gitea" => "-H 'X-Gitea-Event: push' -H \"X-Gitea-Signature: $signature\"".to_owned(),
        "forgejo" => "-H 'X-Forgejo-Event: push' -H \"X-Forgejo-Signature: $signature\"".to_owned(),
        _ => format!("-H 'Authorization: Bearer {secret}'"),
    };
    let said = forge
        .sh(&format!(
            "signature=$(openssl dgst -sha256 -hmac '{secret}' -r /tmp/body | cut -d' ' -f1)
            curl -s --cacert /tmp/attic.crt -w '\n%{{http_code}}' -H 'Content-Type: application/json' {headers} \
                --data-binary @/tmp/body https://attic:9443/v1/hook/{name}"
        ))
        .unwrap();
    let (body, status) = said.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

#[test]
fn a_push_that_a_forge_tells_of_is_deployed_at_once() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    forge.authorize(&host).unwrap();
    let repo = forge.repo("fleet").unwrap();
    let service = "[Service]\nExecStart=/usr/bin/sleep infinity\nEnvironmentFile=/etc/web/count\n[Install]\nWantedBy=multi-user.target\n";
    let files = [("fleet.yaml", FLEET), ("apps/web/web.service", service), ("apps/web/files/etc/web/count", "N=0\n")];
    let first = repo.commit(&files, "begin").unwrap();
    host.sh(&format!(
        "mkdir -p /etc/mainstay
        echo {SECRET} > /etc/mainstay/hook; echo {SECRET}{SECRET} > /etc/mainstay/token
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=attic \
            -addext subjectAltName=DNS:attic -keyout /etc/mainstay/tls.key -out /etc/mainstay/tls.crt 2>/dev/null"
    ))
    .unwrap();
    forge.write("/tmp/attic.crt", host.read("/etc/mainstay/tls.crt").unwrap()).unwrap();
    let endpoint = "endpoint: { listen: [\"0.0.0.0:9443\"], cert: /etc/mainstay/tls.crt, key: /etc/mainstay/tls.key, \
                    token: /etc/mainstay/token, hooks: /etc/mainstay/hook }\n";
    agent::follow(&host, &repo.ssh_url(), &format!("poll: 10m\n{endpoint}"));
    agent::await_converged(&host, &first);

    for (number, name) in ["github", "gitlab", "gitea", "forgejo", "generic"].into_iter().enumerate() {
        let text = format!("N={}\n", number + 1);
        let commit = repo.commit(&[("apps/web/files/etc/web/count", text.as_str())], "count").unwrap();
        let before = agent::invocation(&host, "web");
        // What is about something else, or does not prove who sent it, changes nothing.
        assert_eq!(hook(&forge, name, &payload(name, "dev", "fleet", &commit), SECRET).0, "200", "{name}");
        let (status, said) = hook(&forge, name, &payload(name, "main", "other", &commit), SECRET);
        assert!(status == "200" && said.contains("ignored: it is about lab/other"), "{name}: {said}");
        assert_eq!(hook(&forge, name, &payload(name, "main", "fleet", &commit), "another secret").0, "401", "{name}");
        assert_eq!(agent::invocation(&host, "web"), before, "{name}");
        // One clock for both hosts. What is signed and written for the question counts as well.
        let asked = clock(&forge);
        let (status, said) = hook(&forge, name, &payload(name, "main", "fleet", &commit), SECRET);
        assert_eq!(status, "202", "{name}: {said}");
        agent::await_converged(&host, &commit);
        assert_ne!(agent::invocation(&host, "web"), before, "{name}");
        let started: u64 =
            host.sh("systemctl show -P ActiveEnterTimestampMonotonic web").unwrap().trim().parse().unwrap();
        eprintln!("{name}: restarted {} ms after curl was begun", started.saturating_sub(asked) / 1000);
    }

    // Malformed and huge bodies are refused, in words.
    for (body, expected) in [("{", "400"), ("payload=%7B%7D", "400"), ("[[[[", "400")] {
        let (status, said) = hook(&forge, "github", body, SECRET);
        assert!(status == expected && said.contains("application/json"), "{status} {said}");
    }
    let huge = "x".repeat(2 << 20);
    assert_eq!(hook(&forge, "gitlab", &huge, SECRET).0, "413");
    // Also to whoever does not say how much it is, and goes on sending.
    let chunked = "head -c 9000000 /dev/zero > /tmp/body
        curl -s -o /dev/null -w '%{http_code}' --cacert /tmp/attic.crt -T /tmp/body -X POST \
            -H 'Transfer-Encoding: chunked' -H 'X-Gitlab-Token: x' https://attic:9443/v1/hook/gitlab";
    assert_eq!(forge.sh(chunked).unwrap(), "413");

    // Plain http finds nobody there, and without the token nothing is told.
    let ask = |more: &str| {
        forge.sh(&format!("curl -s -o /dev/null -w '%{{http_code}}' --cacert /tmp/attic.crt {more} || true")).unwrap()
    };
    assert_eq!(ask("https://attic:9443/v1/status"), "401");
    assert_eq!(ask(&format!("-H 'Authorization: Bearer {SECRET}{SECRET}' https://attic:9443/v1/status")), "200");
    assert_eq!(ask("http://attic:9443/v1/status"), "000");
    assert_eq!(ask("https://attic:9443/healthz"), "200");

    // The history tells all of it, over the endpoint and on the command line.
    let history = json(&ask_history(&host));
    let entries = history["history"].as_array().unwrap();
    assert_eq!(entries.iter().filter(|it| it["state"] == "converged").count(), 6, "{history:#}");
    assert_eq!(entries[0]["commit"]["subject"], "count", "{history:#}");
    let (said, same) =
        (host.sh("mainstay history web").unwrap(), json(&host.sh("mainstay --json history web").unwrap()));
    assert_eq!(same, history);
    assert_eq!(said.lines().filter(|line| line.contains(" converged  ")).count(), 6, "{said}");
    assert!(said.lines().nth(1).unwrap().contains(&repo.tip("main").unwrap().unwrap()[..10]), "{said}");

    heard_during_a_pass(&forge, &repo, &host);
    renewed(&forge, &host);
}

/// Who tells of a push while something takes its time is answered at once, and the commit is fetched beside it.
fn heard_during_a_pass(forge: &lab::Forge, repo: &lab::Repo, host: &Host) {
    let slow = "[Service]\nExecStartPre=/bin/sh -c 'until test -e /run/go; do sleep 0.1; done'\nExecStart=/usr/bin/sleep infinity\n\
                [Install]\nWantedBy=multi-user.target\n";
    let first = repo.commit(&[("apps/slow/slow.service", slow)], "slow").unwrap();
    assert_eq!(hook(forge, "generic", &payload("generic", "main", "fleet", &first), SECRET).0, "202");
    let starts = "systemctl show -P ActiveState slow | grep -x activating";
    host.wait_for(agent::SOON, starts).unwrap();
    let second = repo.commit(&[("apps/web/files/etc/web/count", "N=8\n")], "count").unwrap();
    assert_eq!(hook(forge, "generic", &payload("generic", "main", "fleet", &second), SECRET).0, "202");
    let fetched = |commit: &str| format!("git -C /var/lib/mainstay/mirror.git cat-file -e {commit}");
    host.wait_for(agent::SOON, &fetched(&second)).unwrap();
    // The third comes when what the second said waits for the end of the pass. It is not lost either.
    let third = repo.commit(&[("apps/web/files/etc/web/count", "N=9\n")], "count").unwrap();
    let sync = "curl -sS -o /dev/null -w '%{http_code}' -X POST --unix-socket /run/mainstay/agent.sock http://mainstay/v1/sync";
    assert_eq!(host.sh(sync).unwrap(), "202");
    host.sh(starts).unwrap();
    assert_eq!(host.read("/etc/web/count").unwrap(), "N=5\n");
    host.sh("touch /run/go").unwrap();
    agent::await_converged(host, &third);
    assert_eq!(host.read("/etc/web/count").unwrap(), "N=9\n");
}

/// A renewed certificate is shown without a restart; one that cannot be used is not, and that is told.
fn renewed(forge: &lab::Forge, host: &Host) {
    let process = host.sh("systemctl show -P MainPID mainstay").unwrap();
    host.sh("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=attic \
            -addext subjectAltName=DNS:attic -keyout /root/new.key -out /root/new.crt 2>/dev/null")
        .unwrap();
    forge.write("/tmp/new.crt", host.read("/root/new.crt").unwrap()).unwrap();
    let trusts = |name: &str| {
        let ask = format!("curl -s --max-time 20 --cacert /tmp/{name}.crt https://attic:9443/healthz");
        forge.try_sh(&ask).unwrap().stdout == b"ok\n"
    };
    let doctor = || {
        let said = host.try_sh("mainstay doctor").unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        said.lines().find(|line| line.contains("endpoint's TLS")).unwrap_or(&said).to_owned()
    };
    assert!(doctor().starts_with("ok "), "{}", doctor());
    // The certificate comes first, and does not belong to the key that is still there.
    host.sh("cp /root/new.crt /etc/mainstay/tls.crt").unwrap();
    assert_eq!([trusts("attic"), trusts("attic"), trusts("new")], [true, true, false]);
    let told = agent::log(host).matches("goes on showing the certificate that it has").count();
    assert_eq!(told, 1, "{}", agent::log(host));
    assert!(doctor().starts_with("missing ") && doctor().contains("do not go together"), "{}", doctor());
    host.sh("cp /root/new.key /etc/mainstay/tls.key").unwrap();
    assert_eq!([trusts("attic"), trusts("new")], [false, true]);
    // What is broken later is not shown either.
    host.sh("echo broken > /etc/mainstay/tls.key").unwrap();
    assert_eq!([trusts("attic"), trusts("new")], [false, true]);
    assert_eq!(host.sh("systemctl show -P MainPID mainstay").unwrap(), process);
}

fn ask_history(host: &Host) -> String {
    // The record of the last deployment is written right after it.
    host.wait_for(agent::SOON, "mainstay --json history | grep -c '\"converged\"' | grep 6").unwrap();
    let annotations = ask(host, "/v1/annotations?limit=1");
    assert!(
        annotations.starts_with("[{\"time\":") && annotations.contains("\"tags\":[\"mainstay\",\"converged\""),
        "{annotations}"
    );
    ask(host, "/v1/history?app=web")
}

#[test]
fn a_crowd_at_the_door_disturbs_nobody() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    forge.authorize(&host).unwrap();
    let repo = forge.repo("fleet").unwrap();
    let files = [("fleet.yaml", FLEET), ("apps/web/web.service", STAYS), ("apps/web/files/etc/web/page", "page\n")];
    let tip = repo.commit(&files, "begin").unwrap();
    agent::follow(&host, &repo.ssh_url(), "poll: 10m\nendpoint: { listen: [\"127.0.0.1:9105\"] }\n");
    agent::await_converged(&host, &tip);
    let number = |name: &str| -> f64 {
        let metrics = ask(&host, "/metrics");
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let memory = || number("process_resident_memory_bytes");
    let before = memory();
    let began = std::time::Instant::now();
    let crowd = lab::Crowd::gather(&host, 9105, 10_000).unwrap();
    assert!(crowd.len() > crowd.asked() / 2, "{} of {}", crowd.len(), crowd.asked());
    let during = memory();
    let (held, asked) = (crowd.len(), crowd.asked());
    eprintln!("{held} of {asked} connections within {:.1?}: {before} bytes before, {during} during", began.elapsed());
    assert!(during < before + f64::from(4 << 20), "{before} {during}");
    // The host is looked after meanwhile, and who has something to ask is answered, at either door.
    let passes = number("mainstay_passes_total");
    host.sh("echo changed > /etc/web/page").unwrap();
    host.wait_for(agent::SOON, "test \"$(cat /etc/web/page)\" = page").unwrap();
    assert!(number("mainstay_passes_total") > passes);
    assert_eq!(ask(&host, "/healthz"), "ok\n");
    assert_eq!(ask_tcp(&host, "http://127.0.0.1:9105/healthz", "").0, "200");
    // What comes at once and is too much is not held either.
    let huge = "head -c 300000000 /dev/zero | curl -s -o /dev/null -T - -X POST -H 'X-Mainstay: 1' http://127.0.0.1:9105/v1/sync || true";
    host.sh(huge).unwrap();
    assert!(memory() < before + f64::from(4 << 20));
    drop(crowd);
}
