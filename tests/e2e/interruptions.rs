//! The bus, systemd or the engine goes away in the middle of a pass: it ends converged, with nothing done twice or lost.

use std::time::Duration;

use lab::Host;

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const FOLDER: &str = "/root/fleet";
const COUNT: usize = 6;

/// A service that counts its starts and takes a while with them.
fn slow(number: usize) -> String {
    format!(
        "[Service]\nType=notify\nNotifyAccess=all\nEnvironmentFile=/etc/slow/{number}\n\
         ExecStart=sh -c 'echo $VALUE >> /srv/started-{number}; sleep 2; systemd-notify --ready; exec sleep infinity'\n\
         [Install]\nWantedBy=multi-user.target\n"
    )
}

fn write(host: &Host, value: &str) {
    let mut files = vec![("fleet.yaml".to_owned(), FLEET.to_owned())];
    for number in 0..COUNT {
        files.push((format!("apps/slow/slow-{number}.service"), slow(number)));
        files.push((format!("apps/slow/files/etc/slow/{number}"), format!("VALUE={value}\n")));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    agent::write_folder(host, FOLDER, &files);
}

/// Runs `mainstay once`, does something while its starts are under way, and returns what it said at its end.
fn interrupted(host: &Host, value: &str, fault: &str) -> String {
    write(host, value);
    let run = format!("mainstay once --dir {FOLDER} > /root/said 2>&1; echo code $? >> /root/said");
    let _running = host.spawn(&["bash", "-c", &run]).unwrap();
    let begun = format!("grep -q '^{value}$' /srv/started-0");
    host.wait_for(Duration::from_secs(20), &begun).unwrap();
    host.sh(fault).unwrap();
    host.wait_for(Duration::from_secs(100), "grep '^code ' /root/said; cat /root/said").unwrap()
}

#[test]
fn the_bus_and_systemd_go_away_in_the_middle() {
    let Some(lab) = start() else { return };
    let host = lab.boot("attic").unwrap();
    agent::install(&host);
    let faults = [
        ("bus-restart", "systemctl restart dbus"),
        (
            "bus-kill",
            "kill -9 $(pidof dbus-daemon); systemctl reset-failed dbus.service; systemctl restart dbus.socket dbus.service",
        ),
        ("reexec", "systemctl daemon-reexec"),
        ("reload", "systemctl daemon-reload"),
    ];
    let mut expected = Vec::new();
    for (value, fault) in faults {
        let said = interrupted(&host, value, fault);
        // The same pass, or the next one.
        let (code, next) = agent::once(&host, FOLDER);
        assert_eq!(code, 0, "{value}\n{said}\n{next}");
        expected.push(value);
        for number in 0..COUNT {
            let starts = host.read(&format!("/srv/started-{number}")).unwrap();
            assert_eq!(starts.lines().collect::<Vec<_>>(), expected, "slow-{number} after {value}\n{said}\n{next}");
        }
        assert!(agent::converge(&host, FOLDER).contains("nothing to do"), "{value}");
        assert_eq!(host.failed_units().unwrap(), Vec::<String>::new());
    }

    // The agent is killed in the middle: what was begun is neither done twice nor forgotten.
    let said = interrupted(&host, "agent-kill", "kill -9 $(pidof mainstay)");
    assert!(said.contains("code 137"), "{said}");
    agent::converge(&host, FOLDER);
    expected.push("agent-kill");
    for number in 0..COUNT {
        let starts = host.read(&format!("/srv/started-{number}")).unwrap();
        assert_eq!(starts.lines().collect::<Vec<_>>(), expected, "slow-{number} after a kill\n{said}");
    }
}

#[test]
fn the_engine_goes_away_in_the_middle() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    let one = forge.image("web", "1", "one").unwrap();
    let two = forge.image("web", "2", "two").unwrap();
    host.start_docker().unwrap();
    agent::install(&host);
    let folder = |image: &str| {
        let boxes = (1..=5).fold(String::from("containers:\n"), |all, number| {
            all + &format!("  box{number}: {{ image: \"{image}\", volumes: [\"data{number}:/data\"] }}\n")
        });
        agent::write_folder(&host, FOLDER, &[("fleet.yaml", FLEET), ("apps/boxes/app.yaml", &boxes)]);
    };
    folder(&one.reference);
    agent::converge(&host, FOLDER);
    host.sh("for number in 1 2 3 4 5; do docker exec box$number /bin/sh -c \"echo kept > /data/kept\"; done").unwrap();
    folder(&two.reference);
    let run = format!("mainstay once --dir {FOLDER} > /root/said 2>&1; echo code $? >> /root/said");
    let _running = host.spawn(&["bash", "-c", &run]).unwrap();
    // The second is being replaced when the engine dies; systemd starts it again.
    let replaced = format!("docker ps -a --format '{{{{.Names}}}} {{{{.Image}}}}' | grep 'box1 {}'", two.reference);
    host.wait_for(Duration::from_secs(30), &replaced).unwrap();
    host.sh("systemctl kill -s KILL --kill-whom=main docker.service").unwrap();
    let said = host.wait_for(Duration::from_secs(100), "grep '^code ' /root/said; cat /root/said").unwrap();
    host.wait_for(Duration::from_secs(30), "docker ps").unwrap();
    let (code, next) = agent::once(&host, FOLDER);
    let (again, last) = agent::once(&host, FOLDER);
    assert!(again == 0 && last.contains("nothing to do") || code == 0, "{said}\n{next}\n{last}");
    let list = host.sh("docker ps -a --format '{{.Names}} {{.Image}} {{.State}}' | sort").unwrap();
    let expected: String = (1..=5).map(|number| format!("box{number} {} running\n", two.reference)).collect();
    assert_eq!(list, expected, "{said}\n{next}");
    for number in 1..=5 {
        assert_eq!(
            host.sh(&format!("docker exec box{number} /bin/sh -c 'read it < /data/kept; echo $it'")).unwrap(),
            "kept\n"
        );
    }
    assert!(agent::converge(&host, FOLDER).contains("nothing to do"));
}
