//! `apps/*/app.yaml`.

use serde_json::{Value, json};

use super::fleet::DRIFT;
use super::{
    Key, boolean, choice, duration, either, list, map, or_nothing, place, place_definition, table, table_with, text,
    vars, with, word,
};

const ADOPT: &str = "Takes over what is in the way on the host although mainstay did not make it; it is kept before.";
const CRITICAL: &str = "Allows what would otherwise be refused, since the host or its access depends on it.";

/// The whole file: an empty one is as good as none.
pub(super) fn file() -> Value {
    let user = table_with(
        &["name", "uid"],
        &[("name", text(), "The account's name."), ("uid", word(), "Its number, as `id -u` prints it on the host.")],
    );
    let compose = table(&[
        ("profiles", list(word()), "The profiles of the compose file that are used."),
        ("allow-privileged", list(word()), "The services that may have rights which hand over the host."),
    ]);
    let keys = [
        ("place", place(), PLACE),
        ("drift", choice(&["repair", "report"]), DRIFT),
        ("adopt", boolean(), ADOPT),
        ("vars", vars(), "Values for templates; those of the environment and of the host count more."),
        (
            "endpoints",
            map(offer()),
            "What this application offers to others, by names that templates know as `endpoints.NAME`.",
        ),
        ("user", user, "The account whose own manager runs all quadlets of this application, rootless."),
        ("units", map(unit()), "Exceptions for units of this folder, and units that the host itself provides."),
        ("files", map(file_entry()), "Modes and owners of what lies below files/, directories, and symbolic links."),
        (
            "artifacts",
            map(artifact()),
            "Files that are fetched, by where they go: `/usr/local/bin/tool: { url: …, sha256: … }`.",
        ),
        ("compose", compose, "What is chosen of compose.yaml in this folder."),
        ("containers", map(container()), "Containers by their names, for what needs no compose file."),
        ("rollout", text(), "The policy of fleet.yaml by which its changes spread over the hosts [default: default]."),
        ("needs", list(text()), "Applications that have to be healthy on this host before this one changes."),
        ("checks", list(check()), "What has to pass after a change, and is looked at from then on."),
    ];
    with(or_nothing(table(&keys)), "$defs", json!({ "place": place_definition() }))
}

const PLACE: &str = "The hosts that have it: `all`, labels such as `{ role: [web, proxy] }`, a list of which one has to hold, or \
                     `{ not: … }`. `host` and `environment` are labels too.";

fn offer() -> Value {
    table_with(
        &["port"],
        &[
            ("port", word(), "The port on each host that has this application."),
            ("scheme", text(), "The scheme of the address, such as http or mqtt [default: tcp]."),
            ("path", text(), "What stands behind the port, such as /api."),
        ],
    )
}

fn unit() -> Value {
    table(&[
        ("state", choice(&["running", "stopped"]), "Whether it runs [default: what its [Install] section suggests]."),
        (
            "enabled",
            boolean(),
            "Whether it is started when the host boots [default: when it has an [Install] section].",
        ),
        (
            "restart-on",
            list(word()),
            "Files of this repository that restart it when they change, beside those it names.",
        ),
        ("reload-on", list(word()), "Files that only reload it when they change."),
        ("ignore", list(word()), "Files that do neither, although it names them."),
        ("allow-critical", boolean(), CRITICAL),
        ("adopt", boolean(), ADOPT),
        ("drift", choice(&["repair", "report"]), DRIFT),
    ])
}

fn mode() -> Value {
    with(text(), "examples", json!(["0644", "0640", "0755"]))
}

fn file_entry() -> Value {
    table(&[
        ("kind", choice(&["file", "directory", "symlink"]), "What it is [default: file]."),
        ("mode", mode(), "Octal digits in quotes, such as \"0640\"."),
        ("owner", word(), "The user that it belongs to [default: root]."),
        ("group", word(), "The group that it belongs to [default: root]."),
        ("target", text(), "Where a symbolic link leads."),
        ("allow-critical", boolean(), CRITICAL),
        ("adopt", boolean(), ADOPT),
        ("drift", choice(&["repair", "report"]), DRIFT),
    ])
}

fn artifact() -> Value {
    table_with(
        &["url", "sha256"],
        &[
            ("url", text(), "Where it is fetched: https://…"),
            ("sha256", word(), "The digest of its bytes, as `sha256sum` prints it."),
            ("limit", word(), "The most that is fetched, such as 64MiB."),
            ("mode", mode(), "Octal digits in quotes, such as \"0755\"."),
            ("unpack", choice(&["tar"]), "Unpacks the archive into this directory, compressed or not."),
            ("strip", word(), "How many leading folders of the archive's paths are left out."),
            ("owner", word(), "The user that it belongs to [default: root]."),
            ("group", word(), "The group that it belongs to [default: root]."),
            ("allow-critical", boolean(), CRITICAL),
            ("adopt", boolean(), ADOPT),
            ("drift", choice(&["repair", "report"]), DRIFT),
        ],
    )
}

fn container() -> Value {
    table_with(
        &["image"],
        &[
            ("image", word(), "The image with its tag or digest: registry.example/name:1.4"),
            ("command", list(word()), "Arguments in place of the image's, one each: no shell splits them."),
            ("entrypoint", list(word()), "The program in place of the image's."),
            ("env", map(word()), "Variables of its environment."),
            (
                "ports",
                list(word()),
                "Published ports: \"HOST:CONTAINER\", \"ADDRESS:HOST:CONTAINER\", \"HOST:CONTAINER/udp\".",
            ),
            ("volumes", list(word()), "What is mounted: \"/on/the/host:/inside:ro\", or \"name:/inside\"."),
            ("user", word(), "The user that it runs as, with a group if need be: \"1000:1000\"."),
            ("network", word(), "`host`, `bridge`, `none`, or the name of a network."),
            ("labels", map(word()), "Labels of the container."),
            ("adopt", boolean(), ADOPT),
            ("drift", choice(&["repair", "report"]), DRIFT),
        ],
    )
}

/// A check has one of five kinds, with what that takes.
fn check() -> Value {
    let status = either(word(), list(word()));
    let kinds: [(Key, Vec<Key>); 5] = [
        (("tcp", word(), "Something accepts a connection there: HOST:PORT."), Vec::new()),
        (
            ("http", text(), "This URL answers."),
            vec![
                ("status", status, "The status, or a list of those that are right [default: 200 to 399]."),
                ("body", text(), "What the answer contains."),
            ],
        ),
        (
            ("exec", list(word()), "This program ends with 0: the program and its arguments, without a shell."),
            vec![("user", word(), "The user that it runs as [default: root].")],
        ),
        (("unit", text(), "This unit is active."), Vec::new()),
        (("container", text(), "This container is healthy; it runs, when it has no health check."), Vec::new()),
    ];
    let all = kinds.into_iter().map(|(kind, more)| {
        let required = kind.0;
        let mut keys = vec![
            kind,
            ("name", text(), "What it is called in messages."),
            ("within", duration(), "How long after a change it may take to pass [default: 30s]."),
            ("timeout", duration(), "How long one attempt may take [default: 5s]."),
            ("interval", duration(), "How often it is looked at from then on [default: 30s]."),
        ];
        keys.extend(more);
        table_with(&[required], &keys)
    });
    json!({ "anyOf": Value::from_iter(all) })
}
