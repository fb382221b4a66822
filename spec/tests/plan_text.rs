//! How plans read: golden text, from a repository as authors write it to the lines that operators get.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::{Expect, expect};
use jiff::Timestamp;
use spec::container::{NetworkSettings, Pool};
use spec::course::{self, Release};
use spec::desired::{Desired, DesiredApp, DesiredFile, FileKind};
use spec::digest::Digest;
use spec::id::{AppName, CommitId, ContainerName, HostName, HostPath, Mode, ResourceId, UnitName, User};
use spec::inputs::fingerprint;
use spec::memory::{AppMemory, AppState, Bad, Memory, Owned, Run, UnitMemory};
use spec::observed::{
    Access, ActiveState, ContainerMark, ContainerRun, ContainerState, FileState, Holder, HolderKind, LoadState,
    Manager, ManagerState, NetworkState, Observed, Reach, UnitState,
};
use spec::pause::Pause;
use spec::plan::{Lesson, Patience, names_in_doubt, plan};
use spec::tree::Tree;
use spec::{inputs, journal, manifest, memory, resolve};

const WEB: &str = "[Service]\nExecStart=/usr/bin/web /etc/web.conf\n\n[Install]\nWantedBy=multi-user.target\n";
const APP: &str = "containers:\n  page: { image: \"registry.lan/page:1\", volumes: [\"/etc/web.conf:/conf:ro\"] }\n";

fn desired() -> Desired {
    desired_of(&[
        ("apps/web/web.service", WEB),
        ("apps/web/app.yaml", APP),
        ("apps/web/files/etc/web.conf", "port = 80\n"),
    ])
}

fn desired_of(files: &[(&str, &str)]) -> Desired {
    let mut tree = Tree::default();
    tree.insert("fleet.yaml", b"fleet: home\nhosts: { attic: {} }\n");
    files.iter().for_each(|(path, text)| tree.insert(path, text.as_bytes()));
    let parsed = manifest::parse(&tree, None);
    let fleet = parsed.fleet.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
    resolve::resolve(&fleet, &HostName::parse("attic").expect("valid")).expect("valid")
}

/// A host on which nothing of ours is.
fn bare() -> Observed {
    let path = |text: &str| HostPath::parse(text).expect("valid");
    Observed {
        files: BTreeMap::from([
            (path("/etc/web.conf"), FileState::Absent),
            (path("/etc/systemd/system/web.service"), FileState::Absent),
        ]),
        units: Reach::Seen(BTreeMap::from([(
            UnitName::parse("web.service").expect("valid"),
            UnitState { enabled: Some(false), ..UnitState::not_found() },
        )])),
        containers: Reach::Seen(BTreeMap::new()),
        images: BTreeSet::new(),
        has_podman: false,
        podman: BTreeMap::new(),
        managers: BTreeMap::new(),
        artifacts: BTreeSet::new(),
        shadowed: BTreeMap::new(),
        networks: Reach::NotAsked,
        volumes: BTreeMap::new(),
        users: BTreeMap::from([("root".to_owned(), Some(0))]),
        groups: BTreeMap::from([("root".to_owned(), Some(0))]),
        unpublished: BTreeMap::new(),
    }
}

fn regular(content: &[u8]) -> FileState {
    let access = Access { mode: Mode::from_bits(0o644), uid: 0, gid: 0 };
    FileState::Regular { digest: Digest::of(content), access, modified: Timestamp::UNIX_EPOCH, mark: None }
}

fn check(observed: &Observed, memory: &Memory, expected: &Expect) {
    expected.assert_eq(&plan(&desired(), observed, memory, Timestamp::UNIX_EPOCH, Patience::Now).to_string());
}

#[test]
fn the_first_convergence() {
    check(
        &bare(),
        &Memory::default(),
        &expect![[r#"
            pull     image registry.lan/page:1        web  new
            create   /etc/systemd/system/web.service  web  new
            create   /etc/web.conf                    web  new
            enable   web.service                      web  it is not enabled
            reload   systemd                               unit files change
            start    web.service                      web  new
            create   container page                   web  new
        "#]],
    );
}

#[test]
fn a_stop_under_way_is_left_to_end_and_then_repaired() {
    let desired = desired();
    let name = UnitName::parse("web.service").unwrap();
    let (_, _, unit) = desired.units().find(|(_, unit, _)| **unit == name).unwrap();
    let with = inputs::of_unit(&name, unit, None, &inputs::managed(&desired)).digests;
    let mut memory = Memory::default();
    let run = Run::Started { with, invocation: None };
    memory.units.insert(name.clone(), UnitMemory { app: AppName::parse("web").unwrap(), ours: true, run });
    let mut observed = bare();
    observed.files.insert(HostPath::parse("/etc/web.conf").unwrap(), regular(b"port = 80\n"));
    observed.files.insert(name.path(), regular(WEB.as_bytes()));
    observed.containers = Reach::Unreachable("away".to_owned());
    let mut look = |active| {
        let state = UnitState { load: LoadState::Loaded, active, enabled: Some(true), ..UnitState::not_found() };
        observed.units = Reach::Seen(BTreeMap::from([(name.clone(), state)]));
        let plan = plan(&desired, &observed, &memory, Timestamp::UNIX_EPOCH, Patience::Now);
        plan.steps.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(look(ActiveState::Active), Vec::<String>::new());
    assert_eq!(look(ActiveState::Deactivating), Vec::<String>::new());
    assert_eq!(look(ActiveState::Inactive), ["start web.service (it is not running)"]);
}

#[test]
fn what_is_somebody_elses_is_named_and_what_needs_it_waits() {
    let mut observed = bare();
    observed.files.insert(HostPath::parse("/etc/web.conf").unwrap(), regular(b"somebody's\n"));
    let page = ContainerState {
        id: "1".to_owned(),
        run: ContainerRun::Running,
        mark: None,
        started: None,
        exit_code: None,
        after: BTreeSet::new(),
    };
    observed.containers = Reach::Seen(BTreeMap::from([("page".to_owned().try_into().unwrap(), page)]));
    check(
        &observed,
        &Memory::default(),
        &expect![[r#"
            create   /etc/systemd/system/web.service  web  new
            reload   systemd                               unit files change
            conflict in web: file /etc/web.conf: a file is there already, mainstay did not put it there, and it differs from what is wanted; move it away, give the application another path, or write `adopt: true` for it: then it is kept and replaced
            conflict in web: unit web.service: waits for /etc/web.conf, which cannot be put in place
            conflict in web: container page: waits for /etc/web.conf, which cannot be put in place
        "#]],
    );
}

#[test]
fn a_network_of_a_compose_project_that_is_taken_over_is_used_as_it_is() {
    let compose =
        ("apps/mig/compose.yaml", "services: { web: { image: web } }\nnetworks: { default: { driver: bridge } }\n");
    let plan = |adopt: &str, edit: &dyn Fn(&mut NetworkSettings)| {
        let desired = desired_of(&[compose, ("apps/mig/app.yaml", adopt)]);
        let (_, name, network) = desired.networks().next().unwrap();
        let mut settings = network.settings.clone().unwrap();
        // What the engine adds.
        settings.ipam_driver = Some("default".to_owned());
        settings.pools.push(Pool { subnet: Some("172.18.0.0/16".to_owned()), ..Pool::default() });
        settings.labels.insert("com.docker.compose.version".to_owned(), "2".to_owned());
        edit(&mut settings);
        let state = NetworkState { id: "1".to_owned(), mark: None, settings, containers: BTreeSet::new() };
        let container = ContainerState {
            id: "2".to_owned(),
            run: ContainerRun::Running,
            mark: None,
            started: None,
            exit_code: None,
            after: BTreeSet::new(),
        };
        let observed = Observed {
            containers: Reach::Seen(BTreeMap::from([("mig-web-1".to_owned().try_into().unwrap(), container)])),
            networks: Reach::Seen(BTreeMap::from([(name.clone(), state)])),
            ..bare()
        };
        plan(&desired, &observed, &Memory::default(), Timestamp::UNIX_EPOCH, Patience::Now).to_string()
    };
    let adopt = "adopt: true\n";
    expect![[r#"
        pull     image web            mig  new
        replace  container mig-web-1  mig  the container that was there is kept under another name
    "#]]
    .assert_eq(&plan(adopt, &|_| {}));
    expect![[r#"
        conflict in mig: network mig_default: a network of that name is there already and mainstay did not create it, but `docker compose` did for this project; write `adopt: true` in app.yaml to take the project over, or say `external: true` to use the network as it is
        conflict in mig: container mig-web-1: waits for network mig_default, which cannot be put in place
    "#]].assert_eq(&plan("", &|_| {}));
    expect![[r#"
        conflict in mig: network mig_default: `docker compose` created it with another driver than the compose file says, so it cannot be taken over; write there what it has, or remove it with `docker compose down`
        conflict in mig: container mig-web-1: waits for network mig_default, which cannot be put in place
    "#]].assert_eq(&plan(adopt, &|is| is.driver = Some("macvlan".to_owned())));
    expect![[r#"
        conflict in mig: network mig_default: a network of that name is there already and mainstay did not create it; remove or rename it, or say `external: true` to use it as it is
        conflict in mig: container mig-web-1: waits for network mig_default, which cannot be put in place
    "#]].assert_eq(&plan(adopt, &|is| {
        is.labels.insert("com.docker.compose.project".to_owned(), "other".to_owned());
    }));
}

#[test]
fn only_what_needs_a_network_waits_for_it() {
    let compose = "services:
  db: { image: db, networks: [back], volumes: [\"data:/data\"] }
  api: { image: api, depends_on: [db] }
  logs: { image: logs, network_mode: \"service:db\" }
  job: { image: job, networks: [back], restart: \"no\" }
  web: { image: web, depends_on: [job] }
networks: { back: { internal: true } }
volumes: { data: }
";
    let desired = desired_of(&[("apps/cx/compose.yaml", compose)]);
    let mark = Some(ContainerMark { app: AppName::parse("cx").unwrap(), digest: Digest::of(b"another") });
    let state = |id: &str| ContainerState {
        id: id.to_owned(),
        run: ContainerRun::Running,
        mark: mark.clone(),
        started: None,
        exit_code: None,
        after: BTreeSet::new(),
    };
    let stranger = ContainerState { mark: None, ..state("stranger") };
    let mut containers = BTreeMap::from([("stranger".to_owned().try_into().unwrap(), stranger)]);
    let there = desired.containers().filter(|(_, name, _)| name.as_str() != "cx-job-1");
    containers.extend(there.map(|(_, name, _)| (name.clone(), state(name.as_str()))));
    let networks = desired.networks().map(|(_, name, wanted)| {
        let is_changed = name.as_str() == "cx_back";
        let own = if is_changed { ["cx-db-1", "stranger"] } else { ["cx-api-1", "cx-web-1"] };
        let containers = own.map(str::to_owned).into();
        let as_wanted = mark.clone().map(|mark| ContainerMark { digest: wanted.digest, ..mark });
        let (id, mark) = (name.to_string(), if is_changed { mark.clone() } else { as_wanted });
        (name.clone(), NetworkState { id, mark, settings: NetworkSettings::default(), containers })
    });
    let observed =
        Observed { networks: Reach::Seen(networks.collect()), containers: Reach::Seen(containers.clone()), ..bare() };
    let plan = plan(&desired, &observed, &Memory::default(), Timestamp::UNIX_EPOCH, Patience::Now);
    expect![[r#"
        pull     image api           cx  new
        replace  container cx-api-1  cx  it was created from another configuration
        conflict in cx: container cx-db-1: waits for network cx_back, which cannot be put in place
        conflict in cx: container cx-job-1: waits for network cx_back, which cannot be put in place
        conflict in cx: container cx-logs-1: waits for network cx_back, which cannot be put in place
        conflict in cx: container cx-web-1: waits for network cx_back, which cannot be put in place
        conflict in cx: network cx_back: it has to be created anew, and container stranger is attached to it and stays; disconnect it, or remove it
    "#]].assert_eq(&plan.to_string());
}

#[test]
fn an_image_of_two_quadlets_is_pulled_once() {
    let text = "[Container]\nImage=registry.lan/web:1\n";
    let desired = desired_of(&[("apps/web/a.container", text), ("apps/web/b.container", text)]);
    let files = desired.files().map(|(_, path, _)| (path.clone(), FileState::Absent)).collect();
    let units = desired.units().map(|(_, name, _)| (name.clone(), UnitState::not_found())).collect();
    let observed = Observed { files, units: Reach::Seen(units), has_podman: true, ..bare() };
    let plan = plan(&desired, &observed, &Memory::default(), Timestamp::UNIX_EPOCH, Patience::Now);
    expect![[r#"
        pull     image registry.lan/web:1             web  new
        create   /etc/containers/systemd/a.container  web  new
        create   /etc/containers/systemd/b.container  web  new
        reload   systemd                                   unit files change
        start    a.service                            web  new
        start    b.service                            web  new
    "#]]
    .assert_eq(&plan.to_string());
}

#[test]
fn a_name_that_somebody_has_in_podman_is_not_taken() {
    let desired = desired_of(&[
        ("apps/web/web.container", "[Container]\nImage=r.lan/web:1\nContainerName=web\n"),
        ("apps/web/back.container", "[Container]\nImage=r.lan/web:1\nPod=shop.pod\n"),
        ("apps/web/shop.pod", "[Pod]\n"),
    ]);
    let mut observed = bare();
    observed.has_podman = true;
    for (_, path, _) in desired.files() {
        observed.files.insert(path.clone(), FileState::Absent);
    }
    let of = |observed: &Observed| plan(&desired, observed, &Memory::default(), Timestamp::UNIX_EPOCH, Patience::Now);
    let asked = names_in_doubt(&of(&observed), &desired, &observed);
    let names = ["systemd-back", "systemd-shop", "web"].map(|name| ContainerName::parse(name).unwrap());
    assert_eq!(asked, BTreeMap::from([(None, BTreeSet::from(names.clone()))]));

    let [_, shop, web] = names;
    let holder = |kind, unit: Option<&str>| Holder { kind, unit: unit.map(str::to_owned) };
    let held = |unit| {
        let shop = (shop.clone(), holder(HolderKind::Pod, None));
        Reach::Seen(BTreeMap::from([shop, (web.clone(), holder(HolderKind::Container, unit))]))
    };
    observed.podman = BTreeMap::from([(None, held(Some("other.service")))]);
    expect![[r#"
        conflict in web: file /etc/containers/systemd/back.container: waits for /etc/containers/systemd/shop.pod, which cannot be put in place
        conflict in web: file /etc/containers/systemd/shop.pod: Podman has a pod `systemd-shop` that somebody made by hand, and shop-pod.service would remove it to take its name: remove it, or write another `PodName=`; `adopt: true` does not take over what Podman has
        conflict in web: file /etc/containers/systemd/web.container: Podman has a container `web` that other.service made, and web.service would remove it to take its name: `podman rename web OTHER` it, remove it, or write another `ContainerName=`; `adopt: true` does not take over what Podman has
        conflict in web: unit back.service: waits for /etc/containers/systemd/back.container, which cannot be put in place
        conflict in web: unit shop-pod.service: waits for /etc/containers/systemd/shop.pod, which cannot be put in place
        conflict in web: unit web.service: waits for /etc/containers/systemd/web.container, which cannot be put in place
    "#]].assert_eq(&of(&observed).to_string());
    // Its own service made it before; a plan that starts nothing asks nothing.
    observed.podman = BTreeMap::from([(None, held(Some("web.service")))]);
    let plan = of(&observed);
    assert!(plan.steps.iter().any(|step| step.to_string().starts_with("start web.service")));
    observed.podman = BTreeMap::from([(None, Reach::Unreachable("Podman is away".to_owned()))]);
    let plan = of(&observed);
    assert!(plan.steps.is_empty() && plan.unknown.iter().any(|it| it.why == "Podman is away"), "{plan}");
    assert_eq!(names_in_doubt(&plan, &desired, &observed), BTreeMap::new());
}

#[test]
fn what_somebody_edited_is_kept_and_what_we_wrote_is_not() {
    let web = AppName::parse("web").unwrap();
    let paths = ["/etc/web.conf", "/etc/systemd/system/web.service", "/etc/old", "/etc/edited"];
    let paths = paths.map(|path| HostPath::parse(path).unwrap());
    let mut observed = bare();
    let mut memory = Memory::default();
    for (path, now) in paths.iter().zip(["edited", "ours before", "ours before", "edited"]) {
        observed.files.insert(path.clone(), regular(now.as_bytes()));
        let owned = Owned { put: Some(Digest::of(b"ours before")), ..Owned::by(&web) };
        memory.owned.insert(ResourceId::File(path.clone()), owned);
    }
    observed.containers = Reach::Unreachable("away".to_owned());
    check(
        &observed,
        &memory,
        &expect![[r#"
            remove   /etc/edited                      web  no longer wanted
            remove   /etc/old                         web  no longer wanted
            write    /etc/systemd/system/web.service  web  its content differs
            write    /etc/web.conf                    web  its content differs
            enable   web.service                      web  it is not enabled
            reload   systemd                               unit files change
            start    web.service                      web  new
            kept before, `mainstay restore` brings it back:
              /etc/edited: it was edited on this host and is no longer wanted
              /etc/web.conf: it was edited on this host
            left alone: away
              container page (web)
        "#]],
    );
    // A ledger of an older version does not know what was written: then it is kept.
    memory.owned.values_mut().for_each(|owned| owned.put = None);
    let plan = plan(&desired(), &observed, &memory, Timestamp::UNIX_EPOCH, Patience::Now);
    assert_eq!(plan.keeps.keys().collect::<BTreeSet<_>>(), paths.iter().collect());
}

/// An editor that puts a copy in the place of a link leaves a secret on a disk: a backup would keep it there.
#[test]
fn what_may_hold_a_secret_is_not_kept() {
    let web = AppName::parse("web").unwrap();
    let path = |text: &str| HostPath::parse(text).unwrap();
    let link = |at: &str| FileKind::Symlink { target: format!("/run/mainstay/secrets/web{at}") };
    let mut desired = desired();
    let app = desired.apps.get_mut(&web).unwrap();
    app.adopt = true;
    let files = &mut app.files;
    let plain = files[&path("/etc/web.conf")].clone();
    for at in ["/etc/web.key", "/etc/theirs.key"] {
        files.insert(path(at), DesiredFile { kind: link(at), ..plain.clone() });
    }
    let (mut observed, mut memory) = (bare(), Memory::default());
    for at in ["/etc/web.key", "/etc/theirs.key", "/etc/old.key"] {
        observed.files.insert(path(at), regular(b"a copy of it"));
        if at != "/etc/theirs.key" {
            let owned = Owned { put: Some(fingerprint(&link(at))), ..Owned::by(&web) };
            memory.owned.insert(ResourceId::File(path(at)), owned);
        }
    }
    let plan = plan(&desired, &observed, &memory, Timestamp::UNIX_EPOCH, Patience::Now);
    let keys = plan
        .to_string()
        .lines()
        .filter(|line| line.contains(".key"))
        .fold(String::new(), |all, line| all + line + "\n");
    expect![[r#"
        remove   /etc/old.key                     web  no longer wanted
        write    /etc/web.key                     web  it is a file instead of a symbolic link; it is not kept, as it may hold a secret
        conflict in web: file /etc/theirs.key: a file is there already, mainstay did not put it there, and a secret belongs there; move it away or remove it: mainstay would keep it on the disk, and it may hold the secret; or give the application another path
    "#]].assert_eq(&keys);
    assert_eq!(plan.keeps, BTreeMap::new());
}

#[test]
fn a_service_that_could_reload_is_restarted_when_a_drop_in_of_it_goes() {
    let with_conf = |text: &str| {
        let settings = "units: { web.service: { reload-on: [/etc/web.conf] } }\n";
        let files =
            [("apps/web/web.service", WEB), ("apps/web/app.yaml", settings), ("apps/web/files/etc/web.conf", text)];
        desired_of(&files)
    };
    let (before, now) = (with_conf("port = 80\n"), with_conf("port = 81\n"));
    let name = UnitName::parse("web.service").unwrap();
    let (app, _, unit) = before.units().next().unwrap();
    // It was started while another application had a drop-in for it, which its digests do not tell.
    let with = inputs::of_unit(&name, unit, None, &inputs::managed(&before)).digests;
    let run = Run::Started { with, invocation: None };
    let mut memory = Memory::default();
    memory.units.insert(name.clone(), UnitMemory { app: app.clone(), ours: true, run });
    let mut observed = bare();
    for (path, text) in [
        (name.path().as_str(), WEB),
        ("/etc/web.conf", "port = 80\n"),
        ("/etc/systemd/system/web.service.d/x.conf", ""),
    ] {
        let path = HostPath::parse(path).unwrap();
        observed.files.insert(path.clone(), regular(text.as_bytes()));
        let owned = Owned { put: Some(Digest::of(text.as_bytes())), ..Owned::by(&AppName::parse("web").unwrap()) };
        memory.owned.insert(ResourceId::File(path), owned);
    }
    let state = UnitState {
        load: LoadState::Loaded,
        active: ActiveState::Active,
        enabled: Some(true),
        ..UnitState::not_found()
    };
    observed.units = Reach::Seen(BTreeMap::from([(name, state)]));
    let plan = plan(&now, &observed, &memory, Timestamp::UNIX_EPOCH, Patience::Now);
    expect![[r#"
        remove   /etc/systemd/system/web.service.d/x.conf  web  no longer wanted
        write    /etc/web.conf                             web  its content differs
        reload   systemd                                        unit files change
        restart  web.service                               web  /etc/systemd/system/web.service.d/x.conf goes
    "#]]
    .assert_eq(&plan.to_string());
}

#[test]
fn what_cannot_be_seen_is_left_alone_and_says_so_once() {
    let mut observed = bare();
    observed.units = Reach::Unreachable("systemd does not answer on the system bus".to_owned());
    observed.containers = Reach::Unreachable("the engine does not answer".to_owned());
    check(
        &observed,
        &Memory::default(),
        &expect![[r#"
            create   /etc/web.conf  web  new
            left alone: systemd does not answer on the system bus
              file /etc/systemd/system/web.service (web)
              unit web.service (web)
            left alone: the engine does not answer
              container page (web)
        "#]],
    );
}

#[test]
fn what_somebody_put_where_we_only_meant_to_write_is_not_removed() {
    let path = HostPath::parse("/etc/old").unwrap();
    let id = ResourceId::File(path.clone());
    let mut observed = bare();
    observed.files.insert(path.clone(), regular(b"somebody's"));
    let removals = |claim| {
        let owned = Owned { claim, ..Owned::by(&AppName::parse("old").unwrap()) };
        let memory = Memory { owned: BTreeMap::from([(id.clone(), owned)]), ..Memory::default() };
        let plan = plan(&desired(), &observed, &memory, Timestamp::UNIX_EPOCH, Patience::Now);
        let steps = plan.steps.iter().filter(|step| step.action.resource().as_ref() == Some(&id)).count();
        (steps, plan.lessons.contains(&Lesson::Gone(id.clone())))
    };
    assert_eq!(removals(Some(Digest::of(b"ours, never written"))), (0, true), "a claim is not yet ownership");
    assert_eq!(removals(Some(Digest::of(b"somebody's"))), (1, false), "what looks as claimed was made by us");
    assert_eq!(removals(None), (1, false), "what we own goes, whatever somebody wrote into it");
}

#[test]
fn a_container_that_may_still_be_coming_is_looked_for_once_more() {
    let id = ResourceId::Container(ContainerName::parse("late").unwrap());
    let owned = Owned::claimed(&AppName::parse("late").unwrap(), memory::coming());
    let mut memory = Memory { owned: BTreeMap::from([(id.clone(), owned)]), ..Memory::default() };
    let look = |memory: &Memory| plan(&desired(), &bare(), memory, Timestamp::UNIX_EPOCH, Patience::Now).lessons;
    let lessons = look(&memory);
    journal::learn(&mut memory, &lessons);
    assert!(memory.owned.contains_key(&id), "the engine may still be creating it: {lessons:?}");
    let lessons = look(&memory);
    journal::learn(&mut memory, &lessons);
    assert!(!memory.owned.contains_key(&id), "it did not come: {lessons:?}");
}

#[test]
fn a_container_whose_removal_was_interrupted_is_replaced_when_it_is_wanted_again() {
    let name = ContainerName::parse("page").unwrap();
    let wanted = desired();
    let (app, _, container) = wanted.containers().next().unwrap();
    let state = ContainerState {
        id: "id1".to_owned(),
        run: ContainerRun::Running,
        mark: Some(ContainerMark { app: app.clone(), digest: container.digest }),
        started: None,
        exit_code: None,
        after: BTreeSet::new(),
    };
    let mut observed = bare();
    observed.containers = Reach::Seen(BTreeMap::from([(name.clone(), state)]));
    let id = ResourceId::Container(name);
    let mut memory = Memory::default();
    memory.owned.insert(id.clone(), Owned::by(app));
    let mut unwanted = wanted.clone();
    unwanted.apps.clear();
    let removal = plan(&unwanted, &observed, &memory, Timestamp::UNIX_EPOCH, Patience::Now);
    let digest = removal.held.expect("the last thing of a host is never removed just so").digest;
    unwanted.acknowledged.insert(digest);
    let removal = plan(&unwanted, &observed, &memory, Timestamp::UNIX_EPOCH, Patience::Now);
    // The agent is killed right after this: the engine may be stopping the container that looks as if it ran.
    journal::begin(&mut memory, &removal, &unwanted);
    let back = plan(&wanted, &observed, &memory, Timestamp::UNIX_EPOCH, Patience::Now).to_string();
    assert!(back.contains("replace  container page"), "{back}");
}

#[test]
fn many_removals_at_once_wait_for_an_acknowledgement() {
    let mut observed = bare();
    let mut memory = Memory::default();
    for index in 0..4 {
        let path = HostPath::parse(&format!("/etc/old{index}")).unwrap();
        observed.files.insert(path.clone(), regular(b"old"));
        let owned = Owned { put: Some(Digest::of(b"old")), ..Owned::by(&AppName::parse("old").unwrap()) };
        memory.owned.insert(ResourceId::File(path), owned);
    }
    check(
        &observed,
        &memory,
        &expect![[r#"
            pull     image registry.lan/page:1        web  new
            create   /etc/systemd/system/web.service  web  new
            create   /etc/web.conf                    web  new
            enable   web.service                      web  it is not enabled
            reload   systemd                               unit files change
            start    web.service                      web  new
            create   container page                   web  new
            held: 4 of 4 owned things would be removed at once:
              file /etc/old0
              file /etc/old1
              file /etc/old2
              file /etc/old3
              to let this happen, commit to fleet.yaml:
                acknowledge:
                  - { prune: "241d456f8c13", reason: "why" }
        "#]],
    );
}

/// Two applications of which one needs the other; `page` is what the first one's file holds.
fn pair(page: &str) -> Desired {
    let mut tree = Tree::default();
    tree.insert("fleet.yaml", b"fleet: home\nhosts: { attic: {} }\n");
    tree.insert("apps/page/app.yaml", b"needs: [web]\n");
    tree.insert("apps/page/files/etc/page.conf", page.as_bytes());
    tree.insert("apps/web/files/etc/web.conf", page.as_bytes());
    let parsed = manifest::parse(&tree, None);
    let fleet = parsed.fleet.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
    resolve::resolve(&fleet, &HostName::parse("attic").expect("valid")).expect("valid")
}

fn known(digest: Digest, state: AppState) -> AppMemory {
    AppMemory {
        state,
        since: Timestamp::UNIX_EPOCH,
        reached: true,
        digest,
        commit: None,
        from: None,
        changes: 0,
        images: BTreeMap::new(),
        repairs: 0,
        next_repair: None,
        going: false,
        baking: None,
        failure: None,
        needs: BTreeSet::new(),
        bad: None,
        unhealthy: None,
    }
}

#[test]
fn what_is_held_back_says_why_and_what_ends_it() {
    let (good, wanted) = (pair("good\n"), pair("bad\n"));
    let commit = CommitId::parse(&"1f".repeat(20)).ok();
    let release = |app: &DesiredApp| Release {
        commit: commit.clone(),
        app: app.clone(),
        reads: BTreeMap::new(),
        published: BTreeMap::new(),
        ran: BTreeMap::new(),
    };
    let releases = good.apps.iter().map(|(name, app)| (name.clone(), release(app))).collect();
    let mut memory = Memory::default();
    let mut plan_now = |told: &str, releases: &BTreeMap<AppName, Release>, change: &dyn Fn(&mut Memory)| {
        change(&mut memory);
        let held = course::held_back(&wanted, &course::holds(&wanted, &memory, Timestamp::UNIX_EPOCH), releases);
        let path = |text: &str| HostPath::parse(text).unwrap();
        let files = ["/etc/page.conf", "/etc/web.conf"].map(|it| (path(it), regular(b"good\n")));
        let observed = Observed { files: BTreeMap::from(files), ..bare() };
        format!("{told}:\n{}", plan(&held, &observed, &memory, Timestamp::UNIX_EPOCH, Patience::Now))
    };
    let (page, web) = (AppName::parse("page").unwrap(), AppName::parse("web").unwrap());
    let bad = |stuck: Option<&str>| Bad {
        digest: wanted.apps[&web].digest,
        commit: None,
        text: "web.service did not stay up".to_owned(),
        since: Timestamp::UNIX_EPOCH,
        stuck: stuck.map(str::to_owned),
    };
    let mut text = plan_now("at first", &BTreeMap::new(), &|memory| memory.apps.clear());
    text += &plan_now("both were good", &releases, &|memory| {
        for (name, app) in &good.apps {
            memory.apps.insert(name.clone(), known(app.digest, AppState::Converged));
            let path = HostPath::parse(&format!("/etc/{name}.conf")).unwrap();
            memory.owned.insert(ResourceId::File(path), Owned { app: name.clone(), claim: None, put: None });
        }
    });
    text += &plan_now("web failed", &releases, &|memory| {
        memory.apps.get_mut(&web).unwrap().bad = Some(bad(None));
    });
    text += &plan_now("web could not go back", &releases, &|memory| {
        memory.apps.get_mut(&web).unwrap().bad = Some(bad(Some("failed to write /etc/web.conf")));
    });
    text += &plan_now("web is there", &releases, &|memory| {
        memory.apps.insert(web.clone(), known(wanted.apps[&web].digest, AppState::Converged));
    });
    text += &plan_now("web is unhealthy, and page has begun", &releases, &|memory| {
        memory.apps.get_mut(&web).unwrap().state = AppState::Unhealthy;
        memory.apps.insert(page.clone(), known(wanted.apps[&page].digest, AppState::Applying));
    });
    expect![[r#"
        at first:
        conflict in page: file /etc/page.conf: a file is there already, mainstay did not put it there, and it differs from what is wanted; move it away, give the application another path, or write `adopt: true` for it: then it is kept and replaced
        conflict in web: file /etc/web.conf: a file is there already, mainstay did not put it there, and it differs from what is wanted; move it away, give the application another path, or write `adopt: true` for it: then it is kept and replaced
        waits: page: it needs web, which is not converged at this commit yet
        both were good:
        write    /etc/web.conf  web  its content differs
        kept before, `mainstay restore` brings it back:
          /etc/web.conf: it was edited on this host
        waits: page stays at the release of 1f1f1f1f1f: it needs web, which is not converged at this commit yet
        web failed:
        waits: page stays at the release of 1f1f1f1f1f: it needs web, whose release failed
        held back: web stays at the release of 1f1f1f1f1f: the commit's failed here and is not tried again until a commit changes it, or `mainstay retry web`
        web could not go back:
        waits: page stays at the release of 1f1f1f1f1f: it needs web, whose release failed
        stopped: web failed and was not taken back: a person is needed, then a commit or `mainstay retry web`: failed to write /etc/web.conf
        web is there:
        write    /etc/page.conf  page  its content differs
        write    /etc/web.conf   web   drift: its content differs
        kept before, `mainstay restore` brings it back:
          /etc/page.conf: it was edited on this host
          /etc/web.conf: it was edited on this host
        web is unhealthy, and page has begun:
        write    /etc/page.conf  page  drift: its content differs
        write    /etc/web.conf   web   drift: its content differs
        kept before, `mainstay restore` brings it back:
          /etc/page.conf: it was edited on this host
          /etc/web.conf: it was edited on this host
    "#]].assert_eq(&text);
}

#[test]
fn a_users_quadlet_from_her_manager_on() {
    let alice = User::new("alice", 1500).unwrap();
    let app = "user: { name: alice, uid: 1500 }\n";
    let desired = desired_of(&[
        ("apps/shop/app.yaml", app),
        ("apps/shop/web.container", "[Container]\nImage=registry.lan/web:1\n"),
    ]);
    let path = HostPath::parse("/etc/containers/systemd/users/1500/web.container").unwrap();
    let name = UnitName::parse("web.service").unwrap().of(Some(&alice));
    let look = |manager: Manager, file: FileState| Observed {
        files: BTreeMap::from([(path.clone(), file)]),
        units: Reach::Seen(BTreeMap::from([(name.clone(), UnitState::not_found())])),
        managers: BTreeMap::from([(alice.clone(), manager)]),
        has_podman: true,
        ..bare()
    };
    let manager = |lingers, state| Manager { stranger: None, lingers, state };
    let plan = |observed: &Observed, memory: &Memory| {
        plan(&desired, observed, memory, Timestamp::UNIX_EPOCH, Patience::Now).to_string()
    };
    let fresh = Memory::default();
    expect![[r#"
        enable   lingering of alice                                shop  its services are to run without a login
        start    manager of alice                                  shop  it is not running
        pull     image registry.lan/web:1 for alice                shop  new
        create   /etc/containers/systemd/users/1500/web.container  shop  new
        reload   systemd of alice                                        unit files change
        start    web.service of alice                              shop  new
    "#]]
    .assert_eq(&plan(&look(manager(false, ManagerState::Down), FileState::Absent), &fresh));
    expect![[r#"
        enable   lingering of alice                                shop  its services are to run without a login
        pull     image registry.lan/web:1 for alice                shop  new
        create   /etc/containers/systemd/users/1500/web.container  shop  new
        reload   systemd of alice                                        unit files change
        start    web.service of alice                              shop  new
    "#]]
    .assert_eq(&plan(&look(manager(false, ManagerState::Up), FileState::Absent), &fresh));
    // What it starts by itself, it starts with the text of before.
    let mut memory = Memory::default();
    let ours = Owned { put: Some(Digest::of(b"older")), ..Owned::by(&AppName::parse("shop").unwrap()) };
    memory.owned.insert(ResourceId::File(path.clone()), ours);
    expect![[r#"
        start    manager of alice                                  shop  it is not running
        pull     image registry.lan/web:1 for alice                shop  new
        write    /etc/containers/systemd/users/1500/web.container  shop  its content differs
        reload   systemd of alice                                        unit files change
        restart  web.service of alice                              shop  new
    "#]]
    .assert_eq(&plan(&look(manager(true, ManagerState::Down), regular(b"older")), &memory));
    // Nothing is known while it is away, and of somebody else's account nothing is wanted.
    let away = manager(true, ManagerState::Away("the manager of alice cannot be asked".to_owned()));
    expect![[r#"
        left alone: the manager of alice cannot be asked
          file /etc/containers/systemd/users/1500/web.container (shop)
          unit web.service of alice (shop)
    "#]]
    .assert_eq(&plan(&look(away, regular(b"older")), &memory));
    let stranger = Manager { stranger: Some("it is another".to_owned()), ..manager(false, ManagerState::Down) };
    expect![[r#"
        conflict in shop: file /etc/containers/systemd/users/1500/web.container: it is another
        conflict in shop: unit web.service of alice: waits for /etc/containers/systemd/users/1500/web.container, which cannot be put in place
    "#]].assert_eq(&plan(&look(stranger, FileState::Absent), &fresh));
}

#[test]
fn what_is_paused_says_until_when_why_and_what_waits() {
    let (good, wanted) = (pair("good\n"), pair("new\n"));
    let commit = CommitId::parse(&"1f".repeat(20)).ok();
    let release = |app: &DesiredApp| Release {
        commit: commit.clone(),
        app: app.clone(),
        reads: BTreeMap::new(),
        published: BTreeMap::new(),
        ran: BTreeMap::new(),
    };
    let releases = good.apps.iter().map(|(name, app)| (name.clone(), release(app))).collect();
    let (page, web) = (AppName::parse("page").unwrap(), AppName::parse("web").unwrap());
    let mut memory = Memory::default();
    for (name, app) in &good.apps {
        memory.apps.insert(name.clone(), known(app.digest, AppState::Converged));
        let path = HostPath::parse(&format!("/etc/{name}.conf")).unwrap();
        memory.owned.insert(ResourceId::File(path), Owned { app: name.clone(), claim: None, put: None });
    }
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let hours = |hours: i64| now + jiff::SignedDuration::from_hours(hours);
    let pause = |reason: &str, until| Pause { reason: reason.to_owned(), since: now, until };
    let plan_at = |told: &str, wanted: &Desired, memory: &Memory, now: Timestamp, page: &[u8]| {
        let held = course::held_back(wanted, &course::holds(wanted, memory, now), &releases);
        let path = |text: &str| HostPath::parse(text).unwrap();
        let files = [(path("/etc/page.conf"), regular(page)), (path("/etc/web.conf"), regular(b"good\n"))];
        let observed = Observed { files: BTreeMap::from(files), ..bare() };
        format!("{told}:\n{}", plan(&held, &observed, memory, now, Patience::Now))
    };
    memory.pauses.begin(&BTreeSet::from([web.clone()]), &pause("the disk is being\u{1b}[2J changed", hours(2)));
    let mut text = plan_at("web, at the same commit", &good, &memory, now, b"good\n");
    text += &plan_at("web, at another commit", &wanted, &memory, now, b"good\n");
    memory.pauses.lift(&BTreeSet::from([web]));
    memory.pauses.begin(&BTreeSet::from([page]), &pause("somebody is at it", hours(1)));
    text += &plan_at("page, and it drifted", &good, &memory, now, b"edited\n");
    memory.pauses.begin(&BTreeSet::new(), &pause("nobody touches this", hours(3)));
    text += &plan_at("everything", &wanted, &memory, now, b"edited\n");
    text += &plan_at("it is over", &wanted, &memory, hours(4), b"good\n");
    expect![[r#"
        web, at the same commit:
        paused: nothing of web is changed until 2027-01-15 10:00:00Z: the disk is being\u{1b}[2J changed
        nothing to do
        web, at another commit:
        paused: nothing of web is changed until 2027-01-15 10:00:00Z: the disk is being\u{1b}[2J changed
        waits: page stays at the release of 1f1f1f1f1f: it needs web, which is not converged at this commit yet
        waits: web stays at the release of 1f1f1f1f1f while it is paused; the commit has another one
        page, and it drifted:
        paused: nothing of page is changed until 2027-01-15 09:00:00Z: somebody is at it
        not done while it is paused, `mainstay resume` ends that:
        write    /etc/page.conf  page  drift: its content differs
        everything:
        paused: nothing on this host is changed until 2027-01-15 11:00:00Z: nobody touches this
        paused: nothing of page is changed until 2027-01-15 09:00:00Z: somebody is at it
        not done while it is paused, `mainstay resume` ends that:
        write    /etc/page.conf  page  drift: its content differs
        waits: page stays at the release of 1f1f1f1f1f: it needs web, which is not converged at this commit yet
        waits: web stays at the release of 1f1f1f1f1f while it is paused; the commit has another one
        it is over:
        write    /etc/web.conf  web  its content differs
        kept before, `mainstay restore` brings it back:
          /etc/web.conf: it was edited on this host
        waits: page stays at the release of 1f1f1f1f1f: it needs web, which is not converged at this commit yet
    "#]]
    .assert_eq(&text);
}
