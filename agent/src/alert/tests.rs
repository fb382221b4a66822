//! What is told of a picture, when, and in which form.

use std::collections::BTreeMap;

use expect_test::expect;
use spec::digest::Digest;
use spec::id::{AppName, CommitId, HostName};
use spec::lookout::{Finding, Matter, Subject as OfTheFleet};
use spec::memory::AppState;
use spec::pause::{Pause, Pauses};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::snapshot::{App, Refused, Release, Repository};

const SECRET: &str = "hunter2";

fn picture(apps: &[(&str, AppState, &str)]) -> Snapshot {
    let mut picture =
        Snapshot::first(HostName::parse("attic").unwrap(), Repository { url: None, branch: "main".to_owned() });
    (picture.ready, picture.fleet) = (true, Some("home".to_owned()));
    let at: Timestamp = "2026-11-20T18:40:12Z".parse().unwrap();
    for (name, state, release) in apps {
        let commit = CommitId::parse(&"1f".repeat(20)).unwrap();
        let app = App {
            state: *state,
            since: at,
            commit: Some(Release { subject: Some("web: <new> & shiny".to_owned()), ..Release::nameless(&commit) }),
            from: None,
            digest: Digest::of(release.as_bytes()),
            changes: 1,
            images: BTreeMap::new(),
            trouble: Some(format!("failed to start web.service: it exited\n  | password {SECRET}")),
            failures: 1,
            again_at: None,
            bad: None,
        };
        picture.apps.insert(AppName::parse(name).unwrap(), app);
    }
    picture
}

/// Tells all that is new, and returns the titles.
fn tell(told: &mut Told, picture: &Snapshot) -> Vec<String> {
    let changes = changes(told, picture, &Kind::ALL, false);
    for change in &changes {
        match &change.now {
            Some(now) => drop(told.0.insert(change.subject.to_string(), now.clone())),
            None => drop(told.0.remove(&change.subject.to_string())),
        }
    }
    changes.iter().map(|change| Message::of(picture, change, picture.at).title()).collect()
}

#[test]
fn what_is_paused_is_left_as_it_was_told() {
    let mut told = Told::default();
    let nothing: [&str; 0] = [];
    let at = |web, page, paused: &[&str]| {
        let mut picture = picture(&[("web", web, "1"), ("page", page, "1")]);
        let pause = Pause { reason: "a disk is changed".to_owned(), since: picture.at, until: Timestamp::MAX };
        let apps = paused.iter().map(|app| (AppName::parse(app).unwrap(), pause.clone()));
        picture.plan.paused = Pauses { host: None, apps: apps.collect() };
        picture
    };
    assert_eq!(tell(&mut told, &at(AppState::Unhealthy, AppState::Unhealthy, &["web"])), ["page on attic: unhealthy"]);
    assert_eq!(tell(&mut told, &at(AppState::Unhealthy, AppState::Converged, &["web", "page"])), nothing);
    let after = at(AppState::Unhealthy, AppState::Converged, &[]);
    assert_eq!(tell(&mut told, &after), ["web on attic: unhealthy", "page on attic: recovered (unhealthy before)"]);
}

#[test]
fn what_is_so_is_told_once_until_it_is_something_else() {
    let mut told = Told::default();
    let nothing: [&str; 0] = [];
    assert_eq!(tell(&mut told, &picture(&[("web", AppState::Converged, "1")])), nothing);
    let failed = picture(&[("web", AppState::Failed, "2")]);
    assert_eq!(tell(&mut told, &failed), ["web on attic: failed"]);
    assert_eq!(tell(&mut told, &failed), nothing);
    // It is tried again, and fails again: nobody wants to hear of it.
    assert_eq!(tell(&mut told, &picture(&[("web", AppState::Applying, "2")])), nothing);
    assert_eq!(tell(&mut told, &failed), nothing);
    assert_eq!(tell(&mut told, &picture(&[("web", AppState::RolledBack, "2")])), ["web on attic: rolled back"]);
    assert_eq!(tell(&mut told, &picture(&[("web", AppState::Failed, "3")])), ["web on attic: failed"]);
    assert_eq!(
        tell(&mut told, &picture(&[("web", AppState::Repaired, "3")])),
        ["web on attic: recovered (failed before)"]
    );
    assert_eq!(tell(&mut told, &picture(&[("web", AppState::Repaired, "3")])), nothing);
    // What goes back is told when it is back, or when that takes more than one attempt.
    let mut back = picture(&[("web", AppState::Failed, "4")]);
    let web = back.apps.get_mut(&AppName::parse("web").unwrap()).unwrap();
    web.bad = Some(crate::snapshot::Bad { commit: None, digest: web.digest, since: web.since, stuck: false });
    assert_eq!(tell(&mut told, &back), nothing);
    back.apps.get_mut(&AppName::parse("web").unwrap()).unwrap().failures = 2;
    assert_eq!(tell(&mut told, &back), ["web on attic: failed"]);
    assert_eq!(
        tell(&mut told, &picture(&[("web", AppState::Converged, "3")])),
        ["web on attic: recovered (failed before)"]
    );
    // One that nobody wants here any more is in no trouble.
    assert_eq!(tell(&mut told, &picture(&[("db", AppState::Unhealthy, "1")])), ["db on attic: unhealthy"]);
    assert_eq!(tell(&mut told, &picture(&[])), ["db on attic: recovered (unhealthy before)"]);

    let mut refused = picture(&[]);
    let commit = CommitId::parse(&"2e".repeat(20)).unwrap();
    refused.refused = Some(Refused { commit, why: "it has 1 error".to_owned() });
    assert_eq!(tell(&mut told, &refused), ["attic: refused"]);
    assert_eq!(tell(&mut told, &refused), nothing);
    let again: Told = serde_json::from_str(&serde_json::to_string(&told).unwrap()).unwrap();
    assert_eq!((again.clone(), changes(&again, &refused, &Kind::ALL, false)), (told, Vec::new()));
    assert_eq!(changes(&again, &refused, &Kind::ALL, true).len(), 1, "who forgets is told again");
}

#[test]
fn only_what_was_asked_for_is_told() {
    let picture = picture(&[("db", AppState::Failed, "1"), ("web", AppState::Drifted, "1")]);
    let told = changes(&Told::default(), &picture, &[Kind::Drifted], false);
    assert_eq!(told.iter().map(|change| change.subject.to_string()).collect::<Vec<_>>(), ["web"]);
}

#[test]
fn each_receiver_is_told_in_its_own_form_and_none_what_services_print() {
    let picture = picture(&[("web", AppState::RolledBack, "2")]);
    let at: Timestamp = "2026-11-20T18:50:00Z".parse().unwrap();
    let before = Trouble { kind: Kind::Failed, about: "x".to_owned(), since: at, text: "before".to_owned() };
    let subject = Subject::App(AppName::parse("web").unwrap());
    let now = trouble::of(&picture, &Kind::ALL).0.remove(&subject);
    let change = Change { subject, before: Some(before), now, is_repeated: false };
    let message = Message::of(&picture, &change, at);
    let told =
        format!("{:#}\n{:#}\n{:#}\n{}", message.generic(), message.slack(), message.alertmanager(), message.text());
    assert!(!told.contains(SECRET), "{told}");
    expect![[r#"
        {
          "app": "web",
          "at": "2026-11-20T18:50:00Z",
          "before": "failed",
          "by": "attic",
          "commit": "1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f",
          "event": "rolled-back",
          "fleet": "home",
          "host": "attic",
          "since": "2026-11-20T18:40:12Z",
          "subject": "web: <new> & shiny",
          "text": "failed to start web.service: it exited\nat 1f1f1f1f1f web: <new> & shiny",
          "title": "web on attic: rolled back",
          "version": 1
        }
        {
          "text": "*web on attic: rolled back*\nfailed to start web.service: it exited\nat 1f1f1f1f1f web: &lt;new&gt; &amp; shiny"
        }
        [
          {
            "annotations": {
              "description": "before",
              "summary": "web on attic: rolled back"
            },
            "endsAt": "2026-11-20T18:50:00Z",
            "labels": {
              "alertname": "MainstayFailed",
              "app": "web",
              "fleet": "home",
              "host": "attic",
              "severity": "critical"
            },
            "startsAt": "2026-11-20T18:50:00Z"
          },
          {
            "annotations": {
              "description": "failed to start web.service: it exited",
              "summary": "web on attic: rolled back"
            },
            "endsAt": "2026-11-20T19:50:00Z",
            "labels": {
              "alertname": "MainstayRolledBack",
              "app": "web",
              "fleet": "home",
              "host": "attic",
              "severity": "warning"
            },
            "startsAt": "2026-11-20T18:40:12Z"
          }
        ]
        failed to start web.service: it exited
        at 1f1f1f1f1f web: <new> & shiny"#]].assert_eq(&told);
}

/// Answers so many requests with 200, and returns what each of them told: its event, and its title.
async fn heard(listener: &TcpListener, count: usize) -> Vec<String> {
    let mut told = Vec::new();
    while told.len() < count {
        let (mut stream, _) =
            timeout(Duration::from_secs(20), listener.accept()).await.expect("in time").expect("a connection");
        let (mut request, mut part) = (Vec::new(), [0; 4096]);
        let body = loop {
            let read = stream.read(&mut part).await.expect("a request");
            request.extend_from_slice(&part[..read]);
            let text = String::from_utf8_lossy(&request).into_owned();
            let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
            if let Ok(body) = serde_json::from_str::<serde_json::Value>(&body) {
                break body;
            }
            assert!(read > 0, "the request ends: {text}");
        };
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("an answer");
        let word = |key: &str| body[key].as_str().unwrap_or("-").to_owned();
        told.push(format!("{} {} {} {}: {}", word("event"), word("host"), word("app"), word("title"), word("text")));
    }
    told
}

#[tokio::test]
async fn whom_the_repository_names_is_told_of_the_host_and_for_the_fleet() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    let on = ["failed", "halted", "silent", "recovered"].into_iter().collect();
    let alert = Alert { receiver: spec::manifest::Receiver::Webhook, url, on };
    let state = tempfile::tempdir().expect("a folder");
    fs::write(state.path().join("alerts-fleet-0123456789ab.json"), "{}").expect("written");
    let (told_of, mut passed_on) = mpsc::channel(8);
    let call = |matter, of: &str, is_over| Call {
        to: alert.id(),
        subject: OfTheFleet { matter, of: of.to_owned() },
        finding: Finding { about: "r1".to_owned(), since: Timestamp::UNIX_EPOCH, text: "it is so".to_owned() },
        is_over,
        is_told: false,
    };
    let halted = call(Matter::Halted, "web", false);
    let next = |calls: &[Call]| {
        let mut next = picture(&[("web", AppState::Failed, "1")]);
        (next.alerts, next.calls) = (vec![alert.clone()].into(), calls.into());
        Arc::new(next)
    };
    let (pictures, watched) = watch::channel(next(std::slice::from_ref(&halted)));
    let stranger = Call { to: "somebody else".to_owned(), ..halted.clone() };
    let following = tokio::spawn(follow(state.path().into(), told_of, watched));
    let first = heard(&listener, 2).await;
    let release = "at 1f1f1f1f1f web: <new> & shiny";
    assert_eq!(
        first,
        [
            format!("failed attic web web on attic: failed: failed to start web.service: it exited\n{release}"),
            "halted - web web in home: halted: it is so".to_owned(),
        ]
    );
    assert_eq!(passed_on.recv().await.as_ref(), Some(&halted));
    // Until that is known, it may be asked for again; what was told is only repeated to those who forget.
    pictures.send_replace(next(&[halted.clone(), stranger]));
    let told = Call { is_told: true, ..halted.clone() };
    pictures.send_replace(next(&[told, call(Matter::Silent, "barn", false)]));
    assert_eq!(heard(&listener, 1).await, ["silent barn - barn: silent: it is so"]);
    assert_eq!(passed_on.recv().await.map(|call| call.subject.to_string()).as_deref(), Some("silent barn"));
    pictures.send_replace(next(&[call(Matter::Silent, "*", true)]));
    assert_eq!(heard(&listener, 1).await, ["recovered - - home: recovered (silent before): "]);
    assert!(passed_on.recv().await.is_some_and(|call| call.is_over));
    let kept: Vec<String> = fs::read_dir(state.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(kept, [format!("alerts-fleet-{}.json", alert.id())], "what nobody is told any more is forgotten");
    drop(pictures);
    following.await.expect("it ends");
}
