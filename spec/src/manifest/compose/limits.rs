//! What a service may use: limits in the short keys and below `deploy`.

use crate::container::{Limits, Restart};
use crate::manifest::decode::Table;
use crate::manifest::page::Page;
use crate::manifest::yaml::{Kind, Node};

use super::amounts::{bytes, cpus, number, switch, text};

const ANY: (i64, i64) = (-1, i64::MAX);

/// Reads the short keys.
pub(super) fn read(page: &mut Page<'_>, table: &mut Table<'_>) -> Limits {
    let mut limits = Limits::default();
    let mut amount =
        |page: &mut Page<'_>, key| table.take(key).and_then(|(_, node)| bytes(page, node, &format!("`{key}`")));
    limits.memory = amount(page, "mem_limit");
    limits.memory_reservation = amount(page, "mem_reservation");
    limits.shm = amount(page, "shm_size");
    limits.memory_swap =
        table.take("memswap_limit").and_then(|(_, node)| match page.as_written(node, "`memswap_limit`")? {
            "-1" => Some(-1),
            _ => bytes(page, node, "`memswap_limit`"),
        });
    limits.nano_cpus = table.take("cpus").and_then(|(_, node)| cpus(page, node, "`cpus`"));
    let mut count = |page: &mut Page<'_>, key, range| {
        table.take(key).and_then(|(_, node)| number(page, node, &format!("`{key}`"), range))
    };
    limits.swappiness = count(page, "mem_swappiness", (0, 100));
    limits.cpu_shares = count(page, "cpu_shares", ANY);
    limits.cpu_quota = count(page, "cpu_quota", ANY);
    limits.cpu_period = count(page, "cpu_period", ANY);
    limits.pids = count(page, "pids_limit", ANY);
    limits.oom_score_adj = count(page, "oom_score_adj", (-1000, 1000));
    limits.cpuset = table.take("cpuset").and_then(|(_, node)| text(page, node, "`cpuset`"));
    let spared = table.take("oom_kill_disable").and_then(|(_, node)| switch(page, node, "`oom_kill_disable`"));
    limits.oom_kill_disable = spared.unwrap_or(false);
    if let Some((_, node)) = table.take("ulimits") {
        for (key, node) in page.entries(node, "`ulimits`").unwrap_or_default() {
            if let Some(both) = ulimit(page, node) {
                limits.ulimits.insert(key.text.clone(), both);
            }
        }
    }
    limits
}

fn ulimit(page: &mut Page<'_>, node: &Node) -> Option<(i64, i64)> {
    let Kind::Mapping(_) = &node.kind else {
        let both = number(page, node, "a limit", ANY)?;
        return Some((both, both));
    };
    let mut table = page.table(node, "a limit")?;
    let soft = table.take("soft").and_then(|(_, node)| number(page, node, "`soft`", ANY));
    let hard = table.take("hard").and_then(|(_, node)| number(page, node, "`hard`", ANY));
    table.finish(page, "a limit");
    Some((soft.or(hard)?, hard.or(soft)?))
}

/// Keys below `deploy` that are for a cluster: no engine of one host acts on them.
const CLUSTER: [(&str, &str); 5] = [
    ("endpoint_mode", "remove it: it is for a cluster"),
    ("labels", "move them to `labels` of the service: these would be a cluster's, and no container would have them"),
    ("placement", "remove it: which hosts have an application is said by `place` in app.yaml"),
    ("rollback_config", "remove it: an application that fails goes back by itself"),
    ("update_config", "remove it: it is for a cluster"),
];

const RESERVED: [(&str, &str); 3] = [
    ("cpus", "remove it: an engine of one host reserves no CPUs; `cpu_shares` gives weight"),
    ("devices", "remove it: mainstay gives no GPUs to containers yet"),
    ("generic_resources", "remove it: it is for a cluster"),
];

const PAUSES: [(&str, &str); 2] = [
    ("delay", "remove it: an engine of one host waits longer with each restart, by itself"),
    ("window", "remove it: an engine of one host looks for ten seconds, by itself"),
];

/// Complains about keys that are not acted on, and says what to do instead.
pub(super) fn refuse(page: &mut Page<'_>, table: &mut Table<'_>, keys: &[(&'static str, &'static str)]) {
    for (word, remedy) in keys {
        if let Some((key, _)) = table.take(word) {
            page.error("not-supported", key.extent, format!("`{word}` in a compose file is not supported"))
                .help(*remedy);
        }
    }
}

/// What `deploy` says beside limits.
#[derive(Default)]
pub(super) struct Deploy {
    /// How many of it there are.
    pub(super) replicas: Option<i64>,
    /// What the engine does when it ends.
    pub(super) restart: Option<Restart>,
}

/// Reads `deploy` over the short keys.
pub(super) fn deploy(page: &mut Page<'_>, node: &Node, limits: &mut Limits) -> Deploy {
    let mut deploy = Deploy::default();
    let Some(mut table) = page.table(node, "`deploy`") else { return deploy };
    if let Some((_, node)) = table.take("mode") {
        page.choice(node, "`mode` (there is one host)", &[("replicated", ())]);
    }
    deploy.replicas = table.take("replicas").and_then(|(_, node)| number(page, node, "`replicas`", (0, 100)));
    if let Some((_, node)) = table.take("restart_policy") {
        deploy.restart = policy(page, node);
    }
    if let Some(mut resources) = table.take("resources").and_then(|(_, node)| page.table(node, "`resources`")) {
        if let Some(mut most) = resources.take("limits").and_then(|(_, node)| page.table(node, "`limits`")) {
            let memory = most.take("memory").and_then(|(_, node)| bytes(page, node, "`memory`"));
            let cpu = most.take("cpus").and_then(|(_, node)| cpus(page, node, "`cpus`"));
            let pids = most.take("pids").and_then(|(_, node)| number(page, node, "`pids`", ANY));
            limits.memory = memory.or(limits.memory);
            limits.nano_cpus = cpu.or(limits.nano_cpus);
            limits.pids = pids.or(limits.pids);
            most.finish(page, "`limits`");
        }
        if let Some(mut least) = resources.take("reservations").and_then(|(_, node)| page.table(node, "`reservations`"))
        {
            let memory = least.take("memory").and_then(|(_, node)| bytes(page, node, "`memory`"));
            limits.memory_reservation = memory.or(limits.memory_reservation);
            refuse(page, &mut least, &RESERVED);
            least.finish(page, "`reservations`");
        }
        resources.finish(page, "`resources`");
    }
    refuse(page, &mut table, &CLUSTER);
    table.finish(page, "`deploy`");
    deploy
}

fn policy(page: &mut Page<'_>, node: &Node) -> Option<Restart> {
    #[derive(Clone, Copy)]
    enum When {
        Never,
        Failed,
        Always,
        UnlessStopped,
    }
    let mut table = page.table(node, "`restart_policy`")?;
    let words = [
        ("none", When::Never),
        ("no", When::Never),
        ("on-failure", When::Failed),
        ("any", When::Always),
        ("always", When::Always),
        ("unless-stopped", When::UnlessStopped),
    ];
    let when = table.take("condition").and_then(|(_, node)| page.choice(node, "`condition`", &words));
    let most = table.take("max_attempts").and_then(|(_, node)| number(page, node, "`max_attempts`", (0, 1_000_000)));
    refuse(page, &mut table, &PAUSES);
    table.finish(page, "`restart_policy`");
    Some(match when.unwrap_or(When::Always) {
        When::Never => Restart::No,
        When::Failed => Restart::OnFailure(most.and_then(|most| u32::try_from(most).ok())),
        When::Always => Restart::Always,
        When::UnlessStopped => Restart::UnlessStopped,
    })
}
