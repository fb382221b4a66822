//! A host between two versions of its desired state, for tests that kill the agent on its way from one to the other:
//! what each version means on the host is one text, compared as a whole after every recovery.

use lab::Host;

use crate::agent;

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const STILL: &str = "still as ever\n";

/// The two versions; each way from one to the other adds, changes, moves and removes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    A,
    B,
}

impl Version {
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Version::A => "/root/a",
            Version::B => "/root/b",
        }
    }

    pub(crate) fn other(self) -> Version {
        match self {
            Version::A => Version::B,
            Version::B => Version::A,
        }
    }
}

/// Whether containers take part: they cost a second per way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Containers {
    With,
    Without,
}

/// The host and what it knows.
pub(crate) struct World {
    pub host: Host,
    containers: Containers,
    still: String,
}

/// A service that tells with what it was started, and how often.
pub(crate) fn unit(name: &str, conf: &str) -> String {
    format!(
        "[Service]\nExecStart=/bin/sh -c 'cat {conf} >/run/seen/{name}; echo started >>/run/starts/{name}; \
         exec sleep infinity'\n\n[Install]\nWantedBy=multi-user.target\n"
    )
}

/// The same, slow to stop and to start: whoever asks again too early starts it twice.
fn slow(unit: &str) -> String {
    unit.replacen("ExecStart=", "ExecStartPre=/usr/bin/sleep 0.2\nExecStop=/usr/bin/sleep 0.2\nExecStart=", 1)
}

/// The files of a version.
pub(crate) fn files(version: Version, containers: Containers) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = Vec::new();
    let mut put = |path: &str, text: &str| files.push((path.to_owned(), text.to_owned()));
    let (turn, conf, image, mode, enabled) = match version {
        Version::A => ("old", "/etc/old/old.conf", "1", "0600", "true"),
        Version::B => ("new", "/etc/new/deep/new.conf", "2", "0640", "false"),
    };
    let box_ = "entrypoint: [\"/bin/sh\", \"-c\"], command: [\"echo started >>/starts/NAME; trap 'exit 0' TERM; while :; do sleep 1 & wait; done\"], volumes: [\"/run/starts:/starts\"]";
    let container =
        |name: &str, image: &str| format!("  {name}: {{ image: \"box:{image}\", {} }}\n", box_.replace("NAME", name));
    let mut app = format!("files:\n  /etc/web.key: {{ mode: \"{mode}\" }}\n");
    if containers == Containers::With {
        app += "containers:\n";
        app += &container("box", image);
        if version == Version::B {
            app += &container("extra", "1");
        }
    }
    put("fleet.yaml", FLEET);
    put("apps/web/app.yaml", &app);
    put("apps/web/web.service", &slow(&unit("web", "/etc/web.conf")));
    put("apps/web/files/etc/web.conf", &format!("version {version:?}\n"));
    put("apps/web/files/etc/web.key", "key\n");
    put(&format!("apps/turn/{turn}.service"), &unit(turn, conf));
    put(&format!("apps/turn/files{conf}"), &format!("of {version:?}\n"));
    put("apps/toggle/toggle.service", &unit("toggle", "/etc/hostname"));
    put("apps/toggle/app.yaml", &format!("units:\n  toggle.service: {{ state: running, enabled: {enabled} }}\n"));
    put("apps/still/still.service", &unit("still", "/etc/still.conf"));
    put("apps/still/files/etc/still.conf", STILL);
    files
}

/// Prints everything that matters on the host, one line per subject.
const FACTS: &str = r#"
for unit in web old new toggle still foreign; do
    printf '%s: %s %s, started %s times with %s\n' $unit "$(systemctl is-active $unit)" \
        "$(systemctl is-enabled $unit 2>/dev/null)" "$(cat /run/starts/$unit 2>/dev/null | wc -l)" "$(systemctl is-active --quiet $unit && cat /run/seen/$unit)"
done
for path in /etc/web.conf /etc/web.key /etc/old /etc/old/old.conf /etc/new/deep /etc/new/deep/new.conf; do
    test -e $path && stat -c '%n %a %U' $path
done
cat /etc/foreign.conf
find /etc /var/lib/mainstay -xdev -name '.*.mainstay*' -o -name '*.new'
systemctl list-units --state=failed --plain --no-legend
"#;

const CONTAINERS: &str = r#"
docker ps --all --format '{{.Names}} {{.Image}} {{.State}}' | sort
for name in box extra; do echo $name started $(cat /run/starts/$name 2>/dev/null | wc -l) times; done
"#;

/// The same text without how often something was started.
fn uncounted(facts: &str) -> String {
    let words = facts.split_inclusive([' ', '\n']).filter(|word| word.trim().parse::<u32>().is_err());
    words.collect()
}

impl World {
    /// Boots a host and brings it to version A.
    pub(crate) fn new(lab: &lab::Lab, containers: Containers) -> World {
        let host = lab.boot("attic").unwrap();
        agent::install(&host);
        host.write("/etc/mainstay/agent.yaml", "settle: 100ms\n").unwrap();
        host.write("/etc/tmpfiles.d/seen.conf", "d /run/seen\nd /run/starts\n").unwrap();
        host.write("/etc/foreign.conf", "foreign\n").unwrap();
        host.write("/etc/systemd/system/foreign.service", unit("foreign", "/etc/foreign.conf")).unwrap();
        host.sh("systemd-tmpfiles --create seen.conf; systemctl enable --quiet --now foreign").unwrap();
        if containers == Containers::With {
            host.start_docker().unwrap();
            host.sh(
                "systemctl enable --quiet docker; cd /root; mkdir -p image/bin; cp /bin/busybox image/bin/busybox; \
                 for name in sh sleep; do ln -s busybox image/bin/$name; done; tar -C image -c . >image.tar; \
                 docker import image.tar box:1 >/dev/null; \
                 touch image/second; tar -C image -c . | docker import - box:2 >/dev/null",
            )
            .unwrap();
        }
        for version in [Version::A, Version::B] {
            let files = files(version, containers);
            let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
            agent::write_folder(&host, version.folder(), &files);
        }
        agent::converge(&host, Version::A.folder());
        let still = agent::invocation(&host, "still");
        World { host, containers, still }
    }

    /// Forgets which services were started until now.
    pub(crate) fn forget_starts(&self) {
        self.host.sh("rm -f /run/starts/*").unwrap();
    }

    /// What must be true on the host once it has gone to `to`.
    pub(crate) fn expected(&self, to: Version) -> String {
        let mut text = String::new();
        let gone = "inactive not-found, started 0 times with ";
        let (a, b) = (to == Version::A, to == Version::B);
        let enabled = if a { "enabled" } else { "disabled" };
        let lines = [
            format!("web: active enabled, started 1 times with version {to:?}"),
            format!("old: {}", if a { "active enabled, started 1 times with of A" } else { gone }),
            format!("new: {}", if b { "active enabled, started 1 times with of B" } else { gone }),
            format!("toggle: active {enabled}, started 0 times with attic"),
            format!("still: active enabled, started 0 times with {}", STILL.trim_end()),
            "foreign: active enabled, started 0 times with foreign".to_owned(),
            "/etc/web.conf 644 root".to_owned(),
            format!("/etc/web.key {} root", if a { "600" } else { "640" }),
        ];
        for line in lines {
            text += &format!("{line}\n");
        }
        text += match to {
            Version::A => "/etc/old 755 root\n/etc/old/old.conf 644 root\n",
            Version::B => "/etc/new/deep 755 root\n/etc/new/deep/new.conf 644 root\n",
        };
        text += "foreign\n";
        if self.containers == Containers::With {
            text += match to {
                Version::A => "box box:1 running\nbox started 1 times\nextra started 0 times\n",
                Version::B => "box box:2 running\nextra box:1 running\nbox started 1 times\nextra started 1 times\n",
            };
        }
        text
    }

    /// What is true.
    pub(crate) fn facts(&self) -> String {
        let containers = if self.containers == Containers::With { CONTAINERS } else { "" };
        self.host.sh(&format!("set +e +o pipefail\n{FACTS}{containers}true")).unwrap()
    }

    /// One more pass must have brought the host to `to`, exactly; `story` tells how it came here.
    pub(crate) fn recover(&self, to: Version, story: &str) {
        let (code, said) = agent::once(&self.host, to.folder());
        assert_eq!(code, 0, "{story}: recovery failed\n{said}");
        self.check(to, &format!("{story}\nthe recovery said:\n{said}"));
    }

    /// Brings the host to `to` where that is no experiment.
    pub(crate) fn recover_quietly(&self, to: Version) {
        agent::converge(&self.host, to.folder());
    }

    /// The host must be at `to`, with nothing left to do and nothing disturbed.
    pub(crate) fn check(&self, to: Version, story: &str) {
        assert_eq!(self.expected(to), self.facts(), "{story}");
        let plan = agent::plan(&self.host, to.folder());
        assert_eq!(agent::steps(&plan), Vec::<String>::new(), "{story}");
        assert_eq!(agent::invocation(&self.host, "still"), self.still, "{story}");
    }

    /// One more pass must have brought the host to `to`, from wherever it was: how often something was started on the way
    /// is another question.
    pub(crate) fn arrive(&mut self, to: Version, story: &str) {
        let (code, said) = agent::once(&self.host, to.folder());
        assert_eq!(code, 0, "{story}: recovery failed\n{said}");
        assert_eq!(uncounted(&self.expected(to)), uncounted(&self.facts()), "{story}\nthe recovery said:\n{said}");
        let plan = agent::plan(&self.host, to.folder());
        assert_eq!(agent::steps(&plan), Vec::<String>::new(), "{story}\nthe recovery said:\n{said}");
        self.still = agent::invocation(&self.host, "still");
    }
}
