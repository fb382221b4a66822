//! The forge serves git over every transport, and images that both engines run.

use std::time::{Duration, Instant};

use crate::start;

#[test]
fn git_over_every_transport() {
    let Some(lab) = start() else { return };
    let forge = lab.forge().unwrap();
    let host = lab.boot("attic").unwrap();
    forge.authorize(&host).unwrap();
    let repo = forge.repo("fleet").unwrap();

    let began = Instant::now();
    let first =
        repo.commit(&[("fleet.yaml", "fleet: home\n"), ("apps/web/app.yaml", "place: all\n")], "begin").unwrap();
    eprintln!("a commit takes {:?}", began.elapsed());
    assert_eq!(repo.tip("main").unwrap(), Some(first.clone()));

    let error = host.sh(&format!("git ls-remote {}", repo.https_url())).unwrap_err();
    assert!(format!("{error:#}").contains("certificate"), "{error:#}");
    forge.trust_https(&host).unwrap();

    let urls = [repo.ssh_url(), repo.http_url(), repo.https_url(), repo.git_url()];
    for (number, url) in urls.iter().enumerate() {
        let began = Instant::now();
        let clone = format!("git clone -q {url} /srv/{number} && cd /srv/{number} && git rev-parse HEAD~{number}");
        assert_eq!(host.sh(&clone).unwrap().trim(), first, "{url}");
        // Larger than one request, so that the web server has to take it in pieces.
        host.sh(&format!(
            "cd /srv/{number} && head -c 3000000 /dev/urandom > {number} && git add . &&
             git -c user.name=a -c user.email=a@b commit -qm {number} && git push -q origin main"
        ))
        .unwrap();
        eprintln!("clone and push by {url} take {:?}", began.elapsed());
    }

    forge.stop_git().unwrap();
    for url in &urls {
        host.sh(&format!("git ls-remote {url}")).unwrap_err();
    }
    forge.start_git().unwrap();
    for url in &urls {
        host.sh(&format!("git ls-remote {url}")).unwrap();
    }
}

#[test]
fn commits_of_every_kind() {
    let Some(lab) = start() else { return };
    let forge = lab.forge().unwrap();
    let repo = forge.repo("fleet").unwrap();

    let first = repo.commit(&[("a", "1"), ("dir/b \"b\"", "2")], "first").unwrap();
    let second = repo.remove(&["a"], "second").unwrap();
    assert_eq!(repo.git(&["ls-tree", "-r", "-z", "--name-only", "main"]).unwrap(), "dir/b \"b\"\0");
    repo.set_tree(&[("only", "3")], "third").unwrap();
    assert_eq!(repo.git(&["ls-tree", "-r", "--name-only", "main"]).unwrap(), "only\n");
    assert_eq!(repo.show("main", "only").unwrap(), "3");
    assert_eq!(repo.git(&["rev-list", "main"]).unwrap().lines().nth(1), Some(&second[..]));

    let signer = forge.signer("alice").unwrap();
    let change =
        repo.change().write_executable("run", "#!/bin/sh\n").symlink("link", "run").author("Al <al@example.org>");
    let signed = change.signed_by(&signer).commit("signed\n\nwith a body").unwrap();
    assert_eq!(repo.tip("main").unwrap(), Some(signed.clone()));
    assert_eq!(repo.git(&["ls-tree", "--format=%(objectmode)", "main"]).unwrap(), "120000\n100644\n100755\n");
    forge.write("/etc/allowed", format!("al@example.org {}\n", signer.public_key)).unwrap();
    repo.git(&["-c", "gpg.ssh.allowedSignersFile=/etc/allowed", "verify-commit", &signed]).unwrap();
    assert_eq!(repo.git(&["log", "-1", "--format=%an %B", "main"]).unwrap(), "Al signed\n\nwith a body\n");
    repo.change().branch("new").write("x", "y").signed_by(&signer).commit("on a branch").unwrap();

    repo.git(&["notes", "--ref=mainstay/attic", "add", "-m", "deployed", &first]).unwrap();
    let notes = repo.notes().unwrap();
    assert_eq!(notes.len(), 1);
    assert_eq!((&notes[0].commit, &notes[0].text[..]), (&first, "deployed\n"));
    assert_eq!(notes[0].reference, "refs/notes/mainstay/attic");
    assert!(repo.log_notes().unwrap().contains("deployed"));

    let url = forge.publish("deep/artifact", "bytes").unwrap();
    assert_eq!(forge.sh(&format!("curl -sf {url}")).unwrap(), "bytes");
}

#[test]
fn images_run_in_both_engines() {
    let Some(lab) = start() else { return };
    let forge = lab.forge().unwrap();
    let host = lab.boot("attic").unwrap();
    let began = Instant::now();
    let image = forge.image("web", "1", "one").unwrap();
    eprintln!("the first image takes {:?}", began.elapsed());
    assert_eq!(forge.image("web", "again", "one").unwrap().digest, image.digest);
    let other = forge.image("web", "2", "two").unwrap();
    assert_ne!(other.digest, image.digest);

    host.start_docker().unwrap();
    let began = Instant::now();
    host.sh(&format!("docker run --quiet -d --name web -p 80:8080 {}", image.reference)).unwrap();
    eprintln!("docker run with a pull takes {:?}", began.elapsed());
    assert_eq!(host.wait_for(Duration::from_secs(10), "curl -sf http://127.0.0.1").unwrap(), "one");
    assert_eq!(forge.sh("curl -sf http://attic").unwrap(), "one", "a published port is reached from outside");
    host.sh(&format!("docker run --quiet --rm {} cat /marker", other.pinned)).unwrap();

    let quadlet =
        format!("[Container]\nImage={}\nPublishPort=81:8080\n[Install]\nWantedBy=multi-user.target\n", other.pinned);
    host.write("/etc/containers/systemd/web.container", quadlet).unwrap();
    let began = Instant::now();
    host.sh("systemctl daemon-reload; systemctl start web").unwrap();
    eprintln!("a quadlet with a pull takes {:?}", began.elapsed());
    assert_eq!(host.wait_for(Duration::from_secs(10), "curl -sf http://127.0.0.1:81").unwrap(), "two");
    host.sh("systemctl stop web").unwrap();
    assert_eq!(host.failed_units().unwrap(), Vec::<String>::new());

    // A power cut under running containers, as tests of the agent will do all day.
    host.kill().unwrap();
    host.start().unwrap();
    assert_eq!(host.wait_for(Duration::from_secs(20), "curl -sf http://127.0.0.1:81").unwrap(), "two");
    host.start_docker().unwrap();
    host.sh("docker start web").unwrap();
    assert_eq!(host.wait_for(Duration::from_secs(10), "curl -sf http://127.0.0.1").unwrap(), "one");

    forge.stop_registry().unwrap();
    host.sh(&format!("podman pull -q {}", image.reference)).unwrap_err();
    forge.start_registry().unwrap();
    host.sh(&format!("podman pull -q {}", image.reference)).unwrap();
}
