//! The command line at the hands of a person: a repository to begin with, what the host lacks, the newest commit now, and readers
//! that go away.

use lab::Host;

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";

#[test]
fn from_nothing_to_a_host_that_says_hello() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    agent::install(&host);
    host.sh("mkdir -p /etc/mainstay; echo 'settle: 300ms' >/etc/mainstay/agent.yaml").unwrap();

    // A repository that works as it is, and is never written over.
    let said = host.sh("mainstay init /root/fleet --host attic").unwrap();
    assert!(said.contains("wrote /root/fleet/apps/hello/hello.service") && said.contains("mainstay check"), "{said}");
    let said = host.sh("mainstay check /root/fleet; git -C /root/fleet status --short").unwrap();
    assert!(said.contains("is sound: 1 host, 1 application") && said.contains("?? fleet.yaml"), "{said}");
    agent::converge(&host, "/root/fleet");
    host.wait_for(agent::SOON, "journalctl -u hello -o cat | grep -x 'hello from mainstay'").unwrap();
    let said =
        host.sh("cd /root/fleet; rm -r .mainstay; mainstay schema --write && cat .mainstay/schema/app.json").unwrap();
    assert!(
        said.contains("yaml-language-server: $schema=../../.mainstay/schema/app.json") && said.contains("restart-on"),
        "{said}"
    );
    host.sh("for file in fleet hosts app settings; do mainstay schema $file | grep -q 2020-12 || exit 1; done")
        .unwrap();
    let said = host.sh("mainstay init /root/fleet 2>&1 || true").unwrap();
    assert!(said.contains("/root/fleet/fleet.yaml") && said.contains("nothing was written"), "{said}");

    // A reader that goes away is no error of ours, nor is one that never came.
    for command in ["mainstay render --dir /root/fleet", "mainstay plan --dir /root/fleet", "mainstay completions bash"]
    {
        let script = format!(
            "{{ {command} --host attic; echo $? >/tmp/code; }} 2>/tmp/errors | true; cat /tmp/code /tmp/errors"
        );
        assert_eq!(host.sh(&script).unwrap(), "0\n", "{command}");
    }
    let said = host.sh("mainstay plan --dir /root/fleet --host attic 2>&1 >/dev/full || true").unwrap();
    assert!(said.contains("failed to print"), "{said}");

    // What is missing comes with its remedy.
    let doctor = |expected: i32| {
        let output = host.try_sh("mainstay doctor --json").unwrap();
        assert_eq!(output.status.code(), Some(expected), "{}", String::from_utf8_lossy(&output.stdout));
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        told["findings"].as_array().unwrap().clone()
    };
    let of = |findings: &[serde_json::Value], what: &str| {
        let found = findings.iter().find(|it| it["what"] == what);
        found.unwrap_or_else(|| panic!("{what}: {findings:?}")).clone()
    };
    let findings = doctor(4);
    let repository = of(&findings, "repository");
    assert_eq!(
        (&repository["verdict"], &repository["remedy"]),
        (&"missing".into(), &"mainstay install --repo URL".into())
    );
    forge.authorize(&host).unwrap();
    let repo = forge.repo("fleet").unwrap();
    let tip = repo.commit(&[("fleet.yaml", FLEET), ("apps/page/files/etc/page", "first\n")], "first").unwrap();
    agent::follow(&host, &repo.ssh_url(), "poll: 1h\nengine: /run/nobody.sock\n");
    agent::await_converged(&host, &tip);
    let findings = doctor(0);
    for what in
        ["settings", "systemd", "D-Bus", "ssh", "server's key", "repository", "state folder", "inotify", "service"]
    {
        assert_eq!(of(&findings, what)["verdict"], "ok", "{}", of(&findings, what));
    }
    let git = of(&findings, "git")["found"].as_str().unwrap().to_owned();
    assert!(git.starts_with(|first: char| first.is_ascii_digit()), "{git}");
    let engine = of(&findings, "container engine");
    assert!(engine["verdict"] == "warning" && engine["remedy"].as_str().unwrap().contains("apt install"), "{engine}");

    // Somebody looks on meanwhile: through a pipe, and on a small terminal.
    host.sh("mainstay status --watch >/tmp/watched 2>&1 & \
        script -qfc 'stty cols 40 rows 8; exec mainstay status --watch' /tmp/typed >/dev/null 2>&1 </dev/null &")
        .unwrap();
    host.wait_for(agent::SOON, "grep 'page converged' /tmp/watched && grep converged /tmp/typed").unwrap();

    // The newest commit now, although the next turn is in an hour; the exit code says what came of it.
    let files = [("fleet.yaml", FLEET), ("apps/page/files/etc/page", "page\n")];
    let tip = repo.commit(&files, "a page").unwrap();
    let said = host.sh("mainstay sync --wait").unwrap();
    assert!(said.contains(&tip[..10]) && said.contains("Everything on this host is as the commit says"), "{said}");
    assert_eq!(host.read("/etc/page").unwrap(), "page\n");
    let short = &tip[..10];
    host.wait_for(agent::SOON, &format!("grep 'at {short}: page converged' /tmp/watched && grep {short} /tmp/typed"))
        .unwrap();
    host.sh("kill -INT $(pgrep -f '^mainstay status --[w]atch')").unwrap();
    host.wait_for(agent::SOON, "! pgrep -f '^mainstay status --[w]atch'").unwrap();
    let watched = host.read("/tmp/watched").unwrap();
    assert!(
        !watched.contains('\u{1b}') && watched.lines().all(|line| line[20..].starts_with("  attic at ")),
        "{watched}"
    );
    let typed = host.read("/tmp/typed").unwrap();
    let drawn =
        typed.split_once("\u{1b}[?1049h").and_then(|(_, rest)| rest.rsplit_once("\u{1b}[?1049l")).expect("a screen").0;
    assert!(drawn.contains("APPLICATION") && drawn.contains('…') && drawn.contains("\u{1b}[H"), "{typed:?}");
    repo.commit(&[("fleet.yaml", "fleet: [\n")], "broken").unwrap();
    let output = host.try_sh("mainstay sync --wait").unwrap();
    assert!(output.status.code() == Some(4) && String::from_utf8_lossy(&output.stdout).contains("Refused:"));
    on_a_narrow_terminal(&host);
    for_programs(&host);
    let said = host.sh("mainstay sync 2>&1 || true").unwrap();
    assert!(said.contains("no agent runs on this host"), "{said}");
}

/// On a terminal lines end between words before it does; in a pipe they are as long as they are.
fn on_a_narrow_terminal(host: &Host) {
    for command in ["status", "plan --offline", "history", "doctor", "settings", "restore"] {
        let typed = format!("stty cols 60 rows 24; mainstay {command} --no-pager --color never");
        host.sh(&format!("TERM=xterm script -qec '{typed}' /tmp/narrow >/dev/null 2>&1 </dev/null || true")).unwrap();
        let text = host.read("/tmp/narrow").unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("Script ")).collect();
        let is_torn = |line: &&&str| line.chars().count() > 60 && line.trim().contains(' ');
        assert_eq!(lines.iter().find(is_torn), None, "{command}: {text}");
        assert!(!lines.is_empty(), "{command}: {text}");
    }
    let said = host.sh("mainstay settings").unwrap();
    assert!(said.lines().any(|line| line.chars().count() > 60), "{said}");
}

/// Every command there is prints JSON, in one piece, when it is asked to; in the end the agent is gone.
fn for_programs(host: &Host) {
    let help = host.sh("mainstay help").unwrap();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let mut commands: Vec<&str> =
        listed.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next()).collect();
    commands.sort_by_key(|command| *command == "uninstall");
    assert!(commands.len() > 20, "{help}");
    for command in commands {
        let arguments = match command {
            "plan" => "--offline",
            "init" => "/root/other --host attic",
            "schema" => "app",
            "check" => "/root/fleet",
            "render" => "--dir /root/fleet",
            "pause" => "--reason 'to see'",
            "trust" => "explain",
            "accept-rewrite" => "$(cat /etc/mainstay/floor) $(cat /etc/mainstay/floor)",
            "status" | "history" | "sync" | "doctor" | "install" | "uninstall" | "retry" | "resume" | "alerts"
            | "settings" | "restore" => "",
            "fleet" => {
                of_the_fleet(host);
                continue;
            }
            "secret" => {
                of_secrets(host);
                continue;
            }
            // The daemon logs, and prints nothing.
            "run" => continue,
            // The agent runs, and is the only one; see what is said of bars.
            "once" => continue,
            // A line is a piece; see what is said of logs.
            "logs" => continue,
            // For shells, and for people.
            "completions" | "help" => continue,
            new => panic!("`mainstay {new}` is new: does it print JSON?"),
        };
        let output = host.try_sh(&format!("mainstay {command} --json {arguments}")).unwrap();
        let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let is_one = serde_json::from_str::<serde_json::Value>(&said).is_ok_and(|it| it.is_object() || it.is_array());
        assert!(is_one, "{command}: {said}{errors}");
    }
}

/// So does every question to the fleet, in a clone in which nobody has reported yet.
fn of_the_fleet(host: &Host) {
    let git = "git -c user.name=Lab -c user.email=lab@example.org";
    host.sh(&format!(
        "cp -r /root/fleet /root/first; cd /root/first; rm -rf .git; git init -q -b main; git add -A; {git} commit -q -m first
         git clone -q --bare /root/first /root/origin.git; git clone -q /root/origin.git /root/clone"
    ))
    .unwrap();
    let help = host.sh("mainstay fleet --help").unwrap();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> =
        listed.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() > 7, "{help}");
    for command in commands {
        let arguments = match command {
            "status" | "drift" | "history" => "",
            "where" => "HEAD",
            "diff" => "attic attic",
            "explain" => "attic hello",
            "wait" => "HEAD --timeout 0s",
            // It answers a browser, and prints where; `help` is for people.
            "serve" | "help" => continue,
            new => panic!("`mainstay fleet {new}` is new: does it print JSON?"),
        };
        let output =
            host.try_sh(&format!("cd /root/clone; mainstay fleet {command} --json --no-fetch {arguments}")).unwrap();
        let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let is_one = serde_json::from_str::<serde_json::Value>(&said).is_ok_and(|it| it.is_object() || it.is_array());
        assert!(is_one, "fleet {command}: {said}{errors}");
    }
}

/// And so does everything that is done with secrets.
fn of_secrets(host: &Host) {
    host.sh("mkdir -p /root/safe/secrets; cd /root/safe; age-keygen -o /root/key 2>/dev/null
         printf 'fleet: safe\nhosts: { attic: {} }\nrecipients: [%s]\n' $(age-keygen -y /root/key) >fleet.yaml
         echo 'db: x' >secrets/shop.yaml")
        .unwrap();
    let help = host.sh("mainstay secret --help").unwrap();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let mut commands: Vec<&str> =
        listed.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next()).collect();
    // What stands in the clear is not shown.
    commands.sort_by_key(|command| *command != "encrypt");
    assert!(commands.len() > 6, "{help}");
    for command in commands {
        let arguments = match command {
            "list" | "encrypt" | "rekey" | "check" => "",
            "show" => "db",
            "edit" => "secrets/shop.yaml",
            // It is for people.
            "help" => continue,
            new => panic!("`mainstay secret {new}` is new: does it print JSON?"),
        };
        let command = format!("mainstay secret {command} --json -i /root/key {arguments}");
        let output = host.try_sh(&format!("cd /root/safe; EDITOR='sed -i s/x/y/' {command}")).unwrap();
        let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let is_one = serde_json::from_str::<serde_json::Value>(&said).is_ok_and(|it| it.is_object() || it.is_array());
        assert!(is_one && output.status.success(), "{command}: {said}{errors}");
    }
}
