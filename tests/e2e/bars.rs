//! Bars for what is fetched: on a terminal, and there only; nothing of them is left when it is here.

use lab::{Forge, Host};

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const FOLDER: &str = "/root/fleet";

/// Writes a repository with a container, a quadlet and an artifact that were never fetched; returns what these are called.
fn write_release(forge: &Forge, host: &Host, version: &str) -> [String; 3] {
    let image = |name: &str| {
        let files = [("marker", version)];
        forge.image_with(name, version, &files, &["/bin/sleep", "infinity"]).unwrap().reference
    };
    let (boxed, podded) = (image("boxed"), image("podded"));
    let url = forge.publish(&format!("bridge-{version}"), version.repeat(3 << 20)).unwrap();
    let url = url.replace("http://", "https://");
    let digest = forge.sh(&format!("sha256sum </srv/www/bridge-{version} | cut -d' ' -f1")).unwrap();
    let app = format!(
        "containers: {{ box1: {{ image: \"{boxed}\" }} }}\n\
         artifacts: {{ /srv/bridge: {{ url: \"{url}\", sha256: \"{}\" }} }}\n",
        digest.trim()
    );
    let quadlet = format!("[Container]\nImage={podded}\nNetwork=none\n[Service]\nTimeoutStopSec=1\n");
    agent::write_folder(
        host,
        FOLDER,
        &[("fleet.yaml", FLEET), ("apps/web/app.yaml", &app), ("apps/web/podded.container", &quadlet)],
    );
    [boxed, podded, url]
}

#[test]
fn a_terminal_shows_what_is_fetched_and_nobody_else() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    forge.trust_https(&host).unwrap();
    host.start_docker().unwrap();
    agent::install(&host);
    host.sh("mkdir -p /etc/mainstay; echo 'settle: 100ms' >/etc/mainstay/agent.yaml").unwrap();
    let typed = |environment: &str, command: &str| {
        let command = format!("stty cols 100 rows 24; {environment} mainstay {command} --dir {FOLDER}");
        host.sh(&format!("script -qec '{command}' /tmp/typed >/dev/null 2>&1 </dev/null")).unwrap();
        host.read("/tmp/typed").unwrap()
    };
    // What stands on the terminal in the end.
    let left = |typed: &str| {
        let mut terminal = vt100::Parser::new(2000, 100, 0);
        let text = typed.split_once('\n').map_or("", |(_, said)| said);
        terminal.process(text.split("\nScript done").next().unwrap_or(text).as_bytes());
        terminal.screen().contents()
    };

    // Each gets a bar: with numbers where there are any. The log goes on above, line by line, and no bar is left.
    let [boxed, podded, url] = write_release(&forge, &host, "1");
    let seen = typed("TERM=xterm", "once -v");
    assert!(seen.contains(&format!("| image {podded} ")), "{seen:?}");
    for (name, unit) in [(format!("image {boxed}"), "iB"), (url, "3.0 MiB")] {
        let lines = seen.split(['\r', '\n']).filter(|line| line.contains(&name));
        let bars: Vec<&str> = lines.filter(|line| line.contains(" [") && line.contains(unit)).collect();
        assert!(!bars.is_empty(), "{name}: {seen:?}");
    }
    let left_over = left(&seen);
    assert!(left_over.trim_end().ends_with("attic is as wanted now, after 8 steps"), "{left_over}");
    assert!(left_over.contains("fetch") && !left_over.contains("iB") && !left_over.contains("| image"), "{left_over}");

    // What nobody reads as it comes has none: neither in a file, nor as JSON, nor where the terminal cannot move.
    write_release(&forge, &host, "2");
    let said = agent::converge(&host, FOLDER);
    assert!(said.contains("as wanted now") && !said.contains('\u{1b}') && !said.contains('\r'), "{said:?}");
    write_release(&forge, &host, "3");
    let seen = typed("TERM=dumb", "once");
    assert!(seen.contains("as wanted now") && !seen.contains("\u{1b}[2K"), "{seen:?}");
    write_release(&forge, &host, "4");
    let seen = typed("TERM=xterm", "once --json");
    assert!(seen.contains("\"converged\": true") && !seen.contains('\u{1b}'), "{seen:?}");
}
