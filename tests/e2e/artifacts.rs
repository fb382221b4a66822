//! Artifacts: fetched over https before anything changes, proven by their digest, kept for drift and for the way back.

use lab::{Forge, Host, Lab};

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const FOLDER: &str = "/root/fleet";
const BRIDGE: &str = "/usr/local/bin/bridge";

/// Boots the host under test, which trusts the forge.
fn boot(lab: &Lab) -> (Forge, Host) {
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    forge.trust_https(&host).unwrap();
    agent::install(&host);
    host.write("/etc/mainstay/agent.yaml", "settle: 100ms\npull: 3s\n").unwrap();
    (forge, host)
}

/// Serves a program that prints what it is and then does `then`; returns its URL and digest.
fn publish(forge: &Forge, version: &str, then: &str) -> (String, String) {
    let url = forge.publish(&format!("bridge-{version}"), format!("#!/bin/sh\necho bridge {version}\n{then}\n"));
    let digest = forge.sh(&format!("sha256sum </srv/www/bridge-{version} | cut -d' ' -f1")).unwrap();
    (url.unwrap().replace("http://", "https://"), digest.trim().to_owned())
}

fn entry(url: &str, digest: &str) -> String {
    format!("{{ url: \"{url}\", sha256: \"{digest}\", mode: \"0755\" }}")
}

/// Writes a repository in which `bridge` is as `entry` says, beside what never changes.
fn write_folder(host: &Host, entry: &str) {
    let service = |command: &str| format!("[Service]\nExecStart={command}\n[Install]\nWantedBy=multi-user.target\n");
    let app = format!("artifacts:\n  {BRIDGE}: {entry}\n");
    let files = [
        ("fleet.yaml", FLEET),
        ("apps/bridge/app.yaml", &*app),
        ("apps/bridge/bridge.service", &service(BRIDGE)),
        ("apps/bridge/beside.service", &service("sleep infinity")),
        ("apps/other/files/etc/other.conf", entry),
    ];
    agent::write_folder(host, FOLDER, &files);
}

/// The program on the host, the services that run, and what is kept.
fn facts(host: &Host) -> String {
    host.sh(&format!(
        "stat -c '%i %a %U:%G %Y' {BRIDGE}; sha256sum {BRIDGE}; ls -A /usr/local/bin; \
         systemctl show -P InvocationID -P ActiveState bridge beside; find /var/lib/mainstay/artifacts -type f"
    ))
    .unwrap()
}

#[test]
fn a_program_comes_over_https_and_goes_back_from_what_is_kept() {
    let Some(lab) = start() else { return };
    let (forge, host) = boot(&lab);
    let (url, digest) = publish(&forge, "1", "exec sleep infinity");
    write_folder(&host, &entry(&url, &digest));
    let steps = agent::steps(&agent::plan(&host, FOLDER));
    assert_eq!(steps[0], format!("fetch {url}"), "{steps:?}");
    host.sh("test ! -e /var/lib/mainstay/artifacts").unwrap();
    agent::converge(&host, FOLDER);
    assert_eq!(
        host.sh(&format!("stat -c '%a %U:%G' {BRIDGE}; {BRIDGE} & kill $!")).unwrap().lines().next(),
        Some("755 root:root")
    );
    let first = facts(&host);
    assert!(first.contains(&digest), "{first}");

    // Nothing to do: nothing is asked of anybody, whether the server is there or not; drift comes out of the store.
    forge.stop_git().unwrap();
    assert!(agent::converge(&host, FOLDER).contains("nothing to do"));
    assert_eq!(facts(&host), first);
    host.sh(&format!("echo edited >>{BRIDGE}")).unwrap();
    let said = agent::converge(&host, FOLDER);
    assert!(said.contains("kept before") && !said.contains("fetch"), "{said}");
    host.sh(&format!("rm {BRIDGE}")).unwrap();
    agent::converge(&host, FOLDER);
    assert_eq!(host.sh(&format!("sha256sum <{BRIDGE}")).unwrap(), format!("{digest}  -\n"));
    let runs = || ["bridge", "beside"].map(|unit| agent::invocation(&host, unit));
    let before = runs();

    // A server that is away changes nothing of the application; the others go on.
    let (away, unserved) = (url.replace("bridge-1", "bridge-2"), "0".repeat(64));
    let quiet = facts(&host);
    write_folder(&host, &entry(&away, &unserved));
    let (code, said) = agent::once(&host, FOLDER);
    assert!(code == 4 && said.contains(&format!("failed to fetch {away}: ")) && said.contains("refused"), "{said}");
    assert_eq!((facts(&host), host.read("/etc/other.conf").unwrap()), (quiet, entry(&away, &unserved)));
    forge.start_git().unwrap();

    // Another version restarts what names it, and nothing else.
    let (second_url, second) = publish(&forge, "2", "exec sleep infinity");
    write_folder(&host, &entry(&second_url, &second));
    agent::converge(&host, FOLDER);
    let after = runs();
    assert!(before[0] != after[0] && before[1] == after[1], "{before:?} {after:?}");
    let kept = facts(&host);
    assert!(kept.contains(&second) && !kept.contains(&digest), "what nothing needs goes: {kept}");

    // One that does not stay up goes back, byte for byte, though nobody serves what it goes back to.
    let (bad_url, bad) = publish(&forge, "3", "exit 3");
    forge.sh("rm /srv/www/bridge-2").unwrap();
    write_folder(&host, &entry(&bad_url, &bad));
    let (code, said) = agent::once(&host, FOLDER);
    assert!(code == 4 && said.contains("failed in bridge: "), "{said}");
    assert_eq!(host.sh(&format!("sha256sum <{BRIDGE}")).unwrap(), format!("{second}  -\n"), "{said}");
    assert_eq!(agent::status(&host).1["apps"]["bridge"]["state"], "rolled-back");
    host.sh("systemctl is-active bridge beside").unwrap();

    // What no application wants goes, from its place and from the store.
    agent::write_folder(&host, FOLDER, &[("fleet.yaml", FLEET), ("apps/other/files/etc/other.conf", "x")]);
    agent::converge(&host, FOLDER);
    host.sh(&format!("test ! -e {BRIDGE}; test -z \"$(ls -A /var/lib/mainstay/artifacts)\"")).unwrap();
}

#[test]
fn what_is_not_as_wanted_changes_nothing() {
    let Some(lab) = start() else { return };
    let (forge, host) = boot(&lab);
    let (url, digest) = publish(&forge, "1", "exec sleep infinity");
    write_folder(&host, &entry(&url, &digest));
    agent::converge(&host, FOLDER);
    let before = facts(&host);
    let (other, wrong) = (publish(&forge, "2", "exec sleep infinity"), "0".repeat(64));
    // A server that takes connections and never says a word.
    host.sh("systemd-run --quiet --unit silent --socket-property=ListenStream=127.0.0.1:81 sleep infinity").unwrap();
    let refused = |entry: &str, expected: &str| {
        write_folder(&host, entry);
        let (code, said) = agent::once(&host, FOLDER);
        assert!(code == 4 && said.contains(expected), "{entry}: {code} {said}");
        assert_eq!(facts(&host), before, "{entry}: {said}");
        assert_eq!(host.read("/etc/other.conf").unwrap(), entry, "the other application goes on");
    };
    refused(&entry(&other.0, &wrong), &format!("the sha256 of what came is {}, and {wrong} is wanted", other.1));
    refused(&entry(&url.replace("bridge-1", "absent"), &wrong), "the server answered 404 Not Found");
    refused(&entry("http://127.0.0.1:81/bridge", &wrong), "it was not here within 3s");
    host.sh("rm /etc/ssl/certs/ca-certificates.crt").unwrap();
    refused(&entry(&other.0, &wrong), "certificate");
    forge.trust_https(&host).unwrap();

    // Larger than its limit, than the disk of the store, and than the disk where it belongs.
    forge.sh("head -c 3M /dev/urandom >/srv/www/large").unwrap();
    let large = forge.sh("sha256sum </srv/www/large | cut -d' ' -f1").unwrap().trim().to_owned();
    let address = url.replace("bridge-1", "large");
    refused(
        &format!("{{ url: \"{address}\", sha256: {large}, limit: 2MiB, mode: \"0755\" }}"),
        "it has more than 2097152 bytes",
    );
    let kept = "/var/lib/mainstay/artifacts";
    host.sh(&format!(
        "mv {kept} /var/tmp/kept; mkdir {kept}; mount -t tmpfs -o size=1M none {kept}; cp /var/tmp/kept/* {kept}"
    ))
    .unwrap();
    refused(&entry(&address, &large), "it could not be kept: No space left on device");
    host.sh(&format!("umount {kept}; rmdir {kept}; mv /var/tmp/kept {kept}")).unwrap();
    host.sh("mkdir /srv/small; mount -t tmpfs -o size=1M none /srv/small").unwrap();
    let app = format!("artifacts: {{ /srv/small/large: {} }}\n", entry(&address, &large));
    host.sh(&format!("mkdir {FOLDER}/apps/small")).unwrap();
    host.write(&format!("{FOLDER}/apps/small/app.yaml"), app).unwrap();
    let (code, said) = agent::once(&host, FOLDER);
    assert!(code == 4 && said.contains("failed to write its content: No space left on device"), "{said}");
    assert_eq!(host.sh("ls -A /srv/small").unwrap(), "", "no half file is left");
}

/// `operator` with the password `open sesame`, as `htpasswd -B` writes it.
const USERS: &str = "operator:$2b$05$dS/ix8aL.8.tvfmmmBhU6.rLkqfgI8I41VKLNxNAT8wpsun68uJdG\n";

#[test]
fn a_registry_is_asked_with_the_credentials_of_the_host() {
    let Some(lab) = start() else { return };
    let (forge, host) = boot(&lab);
    forge.write("/etc/forge/users", USERS).unwrap();
    let settings = "version: 0.1\nlog: { level: warn }\nstorage: { filesystem: { rootdirectory: /srv/registry } }\n\
                    http: { addr: \":5001\", tls: { certificate: /etc/forge/forge.crt, key: /etc/forge/forge.key } }\n\
                    auth: { htpasswd: { realm: lab, path: /etc/forge/users } }\n";
    forge.write("/etc/forge/private.yml", settings).unwrap();
    forge
        .sh("systemd-run --quiet --unit private-registry --uid git /usr/bin/docker-registry serve /etc/forge/private.yml")
        .unwrap();
    forge.wait_for(agent::SOON, ": </dev/tcp/127.0.0.1/5001").unwrap();
    // As `oras push` leaves it: an empty configuration, and the file as the one layer.
    let push = r#"
        printf '#!/bin/sh\nexec sleep infinity\n' >/run/bridge; printf '{}' >/run/config
        put() {
            location=$(curl -sfi -X POST http://127.0.0.1:5000/v2/team/bridge/blobs/uploads/ | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
            digest=$(sha256sum <$1 | cut -d' ' -f1)
            curl -sf -X PUT -H 'Content-Type: application/octet-stream' --data-binary @$1 "$location&digest=sha256:$digest" >&2
            echo $digest
        }
        layer=$(put /run/bridge) config=$(put /run/config)
        printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:%s","size":2},"layers":[{"mediaType":"application/octet-stream","digest":"sha256:%s","size":%s}]}' \
            $config $layer $(stat -c %s /run/bridge) >/run/manifest
        curl -sf -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' --data-binary @/run/manifest \
            http://127.0.0.1:5000/v2/team/bridge/manifests/1.4 >&2
        echo $layer"#;
    let digest = forge.sh(push).unwrap().trim().to_owned();
    let registry = format!("{}:5001", forge.address());
    let url = format!("oci://{registry}/team/bridge:1.4");
    write_folder(&host, &entry(&url, &digest));
    let (code, said) = agent::once(&host, FOLDER);
    let expected =
        format!("failed to fetch {url}: the registry answered 401 Unauthorized: this host has no credentials for it");
    assert!(code == 4 && said.contains(&expected), "{said}");
    host.sh(&format!("test ! -e {BRIDGE}")).unwrap();

    let login =
        format!("{{\"auths\": {{\"{registry}\": {{\"auth\": \"$(printf 'operator:open sesame' | base64)\"}}}}}}");
    host.sh(&format!("mkdir -p /root/.docker; cat >/root/.docker/config.json <<EOF\n{login}\nEOF")).unwrap();
    let said = agent::converge(&host, FOLDER);
    assert!(!said.contains("sesame"), "{said}");
    host.sh("systemctl is-active bridge").unwrap();

    let other = "0".repeat(64);
    write_folder(&host, &entry(&url, &other));
    let (code, said) = agent::once(&host, FOLDER);
    assert!(code == 4 && said.contains(&format!("it has no layer sha256:{other}, but sha256:{digest}")), "{said}");
    host.sh("systemctl is-active bridge").unwrap();
}

/// Packs what `script` makes in a folder `app-VERSION` on the forge; returns the entry that unpacks it.
fn pack(forge: &Forge, version: &str, script: &str) -> String {
    let pack = format!(
        "mkdir -p /run/app-{version}/bin; cd /run/app-{version}; {script}\n\
         cd ..; tar -czf /srv/www/app-{version}.tgz app-{version}; sha256sum </srv/www/app-{version}.tgz | cut -d' ' -f1"
    );
    let digest = forge.sh(&pack).unwrap().trim().to_owned();
    let url = format!("https://{}/app-{version}.tgz", forge.address());
    format!("{{ url: \"{url}\", sha256: {digest}, unpack: tar, strip: 1, owner: daemon }}")
}

/// Everything below the directory: kind, mode, owner, link, and content.
fn tree(host: &Host) -> String {
    host.sh("cd /opt/app; find . -printf '%y %m %u %p %l\\n' | sort -k4; find . -type f | sort | xargs sha256sum")
        .unwrap()
}

#[test]
fn an_archive_is_unpacked_kept_as_it_is_and_replaced() {
    let Some(lab) = start() else { return };
    let (forge, host) = boot(&lab);
    let write = |entry: &str| {
        let unit = |command: &str| format!("[Service]\nExecStart={command}\n[Install]\nWantedBy=multi-user.target\n");
        let app = format!("artifacts:\n  /opt/app: {entry}\n");
        let files = [
            ("fleet.yaml", FLEET),
            ("apps/app/app.yaml", &*app),
            ("apps/app/app.service", &unit("/opt/app/bin/run")),
            ("apps/app/beside.service", &unit("sleep infinity")),
            ("apps/other/files/etc/other.conf", entry),
        ];
        agent::write_folder(&host, FOLDER, &files);
    };
    let program = "printf '#!/bin/sh\\ngrep good \"$(dirname $0)/../conf\" || exit 3\\nexec sleep infinity\\n' >bin/run; chmod 700 bin/run;";
    let first = pack(
        &forge,
        "1",
        &format!("{program} echo good one >conf; echo 1 >lib-1; ln -s lib-1 lib; mkdir -m 777 empty"),
    );
    write(&first);
    agent::converge(&host, FOLDER);
    let one = tree(&host);
    for line in [
        "d 755 daemon .",
        "f 755 daemon ./bin/run",
        "f 644 daemon ./conf",
        "l 777 daemon ./lib lib-1",
        "d 755 daemon ./empty",
    ] {
        assert!(one.contains(line), "{line}: {one}");
    }

    // Without a server: nothing to do, and drift of single files is put back; what others put there stays theirs.
    forge.stop_git().unwrap();
    assert!(agent::converge(&host, FOLDER).contains("nothing to do"));
    let runs = || ["app", "beside"].map(|unit| agent::invocation(&host, unit));
    let before = runs();
    host.sh("cd /opt/app; echo bad >conf; rm -r lib-1 empty; chmod 600 bin/run").unwrap();
    let said = agent::converge(&host, FOLDER);
    assert!(said.contains("/opt/app/conf: it was edited on this host"), "{said}");
    assert_eq!((tree(&host), runs()), (one.clone(), before.clone()), "{said}");
    host.sh("echo theirs >/opt/app/data; mkdir /opt/app/log; echo theirs >/opt/app/log/1").unwrap();
    assert!(agent::converge(&host, FOLDER).contains("nothing to do"));
    forge.start_git().unwrap();

    // Another version: what it leaves out goes, what it brings comes, what runs from it restarts, and nothing else.
    let second = pack(
        &forge,
        "2",
        &format!(
            "{program} echo good two >conf; echo 2 >lib-2; ln -s lib-2 lib; mkdir share; seq 300 | xargs -I% cp conf share/%"
        ),
    );
    write(&second);
    agent::converge(&host, FOLDER);
    let after = runs();
    assert!(before[0] != after[0] && before[1] == after[1], "{before:?} {after:?}");
    let two = tree(&host);
    assert!(two.contains("./lib lib-2") && !two.contains("lib-1") && !two.contains("./empty"), "{two}");
    assert_eq!(host.sh("cat /opt/app/data /opt/app/log/1").unwrap(), "theirs\ntheirs\n");

    // One that does not run goes back to the byte, though nobody serves what it goes back to.
    let bad = pack(&forge, "3", &format!("{program} echo bad three >conf; echo 3 >lib-3; ln -s conf bin/conf"));
    forge.sh("rm /srv/www/app-2.tgz").unwrap();
    write(&bad);
    let (code, said) = agent::once(&host, FOLDER);
    assert!(code == 4 && said.contains("failed in app: "), "{said}");
    assert_eq!(tree(&host), two, "{said}");
    assert_eq!(agent::status(&host).1["apps"]["app"]["state"], "rolled-back");

    // Traps, and what would be in the way of something else, change nothing.
    let evil = forge.sh("cd /run/app-2; tar -cPf /srv/www/evil.tar --transform 's,conf,app/../../../etc/evil,' conf; sha256sum </srv/www/evil.tar | cut -d' ' -f1");
    let trap = format!(
        "{{ url: \"https://{}/evil.tar\", sha256: {}, unpack: tar, strip: 1 }}",
        forge.address(),
        evil.unwrap().trim()
    );
    write(&trap);
    let (code, said) = agent::once(&host, FOLDER);
    assert!(code == 4 && said.contains("the archive is refused: `app/../../../etc/evil` in it has a path"), "{said}");
    assert_eq!((tree(&host), host.read("/etc/other.conf").unwrap()), (two.clone(), trap));
    host.sh("test ! -e /etc/evil").unwrap();
    let clash = pack(&forge, "4", &format!("{program} echo good four >conf; echo ours >data"));
    write(&clash);
    let (code, said) = agent::once(&host, FOLDER);
    assert!(code == 4 && said.contains("conflict in app: file /opt/app/data: a file is there already"), "{said}");
    assert_eq!(host.read("/opt/app/data").unwrap(), "theirs\n");

    // What goes leaves what others put there.
    let rest = |fleet: &str| {
        agent::write_folder(&host, FOLDER, &[("fleet.yaml", fleet), ("apps/other/files/etc/other.conf", "x")]);
    };
    rest(FLEET);
    let (_, said) = agent::once(&host, FOLDER);
    let at = said.find("prune: \"").expect("many things go at once");
    rest(&format!("{FLEET}acknowledge: [ {{ prune: \"{}\", reason: \"all of it\" }} ]\n", &said[at + 8..at + 20]));
    agent::converge(&host, FOLDER);
    assert_eq!(host.sh("cd /opt/app; find . | sort").unwrap(), ".\n./data\n./log\n./log/1\n");
    host.sh("test -z \"$(ls -A /var/lib/mainstay/artifacts)\"").unwrap();
}
