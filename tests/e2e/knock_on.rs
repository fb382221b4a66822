//! What a change brings about beyond what it names: units that go down with others, services of the host that fail when they are
//! restarted for us, containers that a failed fetch leaves alone.

use lab::Host;

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const VENDOR: &str = "[Service]\nExecStart=/bin/sh -c '! grep -q BAD /etc/sv.conf && exec sleep infinity'\nExecReload=/bin/true\n\
                      [Install]\nWantedBy=multi-user.target\n";
const DB: &str = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/touch /run/db-is-up\nExecStop=/bin/rm -f /run/db-is-up\n\
                  [Install]\nWantedBy=multi-user.target\n";
const WEB: &str = "[Unit]\nRequires=db.service\nAfter=db.service\n\
                   [Service]\nExecStart=/bin/sh -c 'test -e /run/db-is-up && exec sleep infinity'\n\
                   [Install]\nWantedBy=multi-user.target\n";

/// A repository in pieces that a test changes one by one.
struct Wanted {
    conf: &'static str,
    reload: &'static str,
    drop_in: Option<&'static str>,
    db: String,
    image: String,
}

impl Wanted {
    fn write(&self, host: &Host) {
        let units = "units:\n  sv.service: { restart-on: [/etc/sv.conf], reload-on: [/etc/sv.again] }\n";
        let boxes = format!("containers: {{ box: {{ image: \"{}\" }} }}\n", self.image);
        let mut files = vec![
            ("fleet.yaml", FLEET),
            ("apps/sv/app.yaml", units),
            ("apps/sv/files/etc/sv.conf", self.conf),
            ("apps/sv/files/etc/sv.again", self.reload),
            ("apps/pair/db.service", &self.db),
            ("apps/pair/web.service", WEB),
            ("apps/boxes/app.yaml", &boxes),
        ];
        files.extend(self.drop_in.map(|text| ("apps/sv/sv.service.d/mainstay.conf", text)));
        agent::write_folder(host, "/root/fleet", &files);
    }

    fn steps(&self, host: &Host) -> Vec<String> {
        self.write(host);
        agent::steps(&agent::plan(host, "/root/fleet"))
    }
}

#[test]
fn what_goes_down_with_a_change_comes_up_again() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    let image = forge.image("web", "1", "one").unwrap().reference;
    host.start_docker().unwrap();
    agent::install(&host);
    host.write("/etc/mainstay/agent.yaml", "settle: 1s\n").unwrap();
    host.write("/usr/lib/systemd/system/sv.service", VENDOR).unwrap();
    host.sh("systemctl daemon-reload; systemctl enable --quiet --now sv").unwrap();
    let running = agent::invocation(&host, "sv");
    let mut wanted = Wanted { conf: "one\n", reload: "1\n", drop_in: None, db: DB.to_owned(), image: image.clone() };
    wanted.write(&host);
    agent::converge(&host, "/root/fleet");
    assert_ne!(agent::invocation(&host, "sv"), running, "what it reads at its start is new");

    // A reload is no restart, whoever started the service.
    let running = agent::invocation(&host, "sv");
    wanted.reload = "2\n";
    assert_eq!(wanted.steps(&host), ["write /etc/sv.again", "reload sv.service"]);
    agent::converge(&host, "/root/fleet");
    assert_eq!(agent::invocation(&host, "sv"), running);

    // systemd takes down what requires a unit with it: the plan says so, and sees that it comes up.
    wanted.db = format!("{DB}# another\n");
    let steps = wanted.steps(&host);
    assert!(steps.contains(&"restart web.service".to_owned()), "{steps:?}");
    let before = agent::invocation(&host, "web");
    let said = agent::converge(&host, "/root/fleet");
    assert!(said.contains("systemd restarts it with db.service, which it requires"), "{said}");
    assert_ne!(agent::invocation(&host, "web"), before);
    wanted.db = DB.replace("/bin/touch /run/db-is-up", "/bin/true");
    wanted.write(&host);
    let (code, said) = agent::once(&host, "/root/fleet");
    assert!(code == 4 && said.contains("failed in pair: "), "{said}");
    host.sh("systemctl is-active db web; ! grep -q /bin/true /etc/systemd/system/db.service").unwrap();

    // A service of the host that fails because of us runs again when it is taken back, be it for a file or for a drop-in.
    wanted.db = format!("{DB}# another\n");
    wanted.conf = "BAD\n";
    wanted.write(&host);
    let (code, said) = agent::once(&host, "/root/fleet");
    assert!(code == 4 && said.contains("failed in sv: "), "{said}");
    host.sh("systemctl is-active sv; grep one /etc/sv.conf").unwrap();
    wanted.conf = "one\n";
    wanted.drop_in = Some("[Service]\nExecStart=\nExecStart=/bin/false\n");
    wanted.write(&host);
    let (code, said) = agent::once(&host, "/root/fleet");
    assert!(code == 4 && said.contains("failed in sv: "), "{said}");
    host.sh("systemctl is-active sv; test ! -e /etc/systemd/system/sv.service.d/mainstay.conf").unwrap();

    // What could not be fetched has disturbed nothing, then or later.
    wanted.drop_in = None;
    wanted.image = image.replace("/web:1", "/web:99");
    wanted.write(&host);
    let id = || host.sh("docker inspect -f '{{.Id}} {{.State.StartedAt}}' box").unwrap();
    let before = id();
    let (code, said) = agent::once(&host, "/root/fleet");
    assert!(code == 4 && said.contains("failed in boxes: "), "{said}");
    wanted.image = image;
    assert_eq!(wanted.steps(&host), Vec::<String>::new());
    agent::converge(&host, "/root/fleet");
    assert_eq!(id(), before);
}
