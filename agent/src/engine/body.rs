//! Writes wanted containers, networks and volumes as the API takes them. Pure: nothing here asks the engine.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, DeviceMapping, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig,
    HostConfigCgroupnsModeEnum, HostConfigLogConfig, Ipam, IpamConfig, Mount, MountBindOptions, MountTmpfsOptions,
    MountType, MountVolumeOptions, NetworkCreateRequest, NetworkingConfig, PortBinding, ResourcesUlimits,
    RestartPolicy, RestartPolicyNameEnum, VolumeCreateRequest,
};
use spec::container::{
    Attachment, Health, MountSource, Namespace, NetworkSettings, Networking, Restart, Settings, VolumeSettings,
};
use spec::id::{NetworkName, VolumeName};

/// Labels that say whose something is.
pub(super) type Marks = [(String, String); 4];

/// Writes a container.
pub(super) fn container(wanted: &Settings, marks: &Marks) -> ContainerCreateBody {
    let ports = bindings(wanted);
    let declared = wanted.expose.iter().cloned().chain(ports.keys().cloned());
    let exposed: std::collections::BTreeSet<String> = declared.collect();
    ContainerCreateBody {
        image: Some(wanted.image.clone()),
        entrypoint: some(&wanted.entrypoint),
        cmd: some(&wanted.command),
        env: Some(wanted.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        exposed_ports: Some(exposed.into_iter().collect()),
        user: wanted.user.clone(),
        working_dir: wanted.working_dir.clone(),
        hostname: wanted.names.hostname.clone(),
        domainname: wanted.names.domainname.clone(),
        tty: wanted.tty.then_some(true),
        open_stdin: wanted.stdin_open.then_some(true),
        healthcheck: wanted.health.as_ref().map(health),
        stop_signal: wanted.stop_signal.clone(),
        stop_timeout: wanted.stop_secs.map(i64::from),
        // Ours last: an author's label cannot pass for a mark.
        labels: Some(labels(&wanted.labels, marks)),
        networking_config: endpoints(&wanted.networking),
        host_config: Some(host_config(wanted, ports)),
        ..ContainerCreateBody::default()
    }
}

/// Writes a network.
pub(super) fn network(name: &NetworkName, wanted: &NetworkSettings, marks: &Marks) -> NetworkCreateRequest {
    let pools = wanted.pools.iter().map(|pool| IpamConfig {
        subnet: pool.subnet.clone(),
        ip_range: pool.range.clone(),
        gateway: pool.gateway.clone(),
        auxiliary_addresses: some_map(&pool.taken),
    });
    let pools: Vec<IpamConfig> = pools.collect();
    let has_ipam = wanted.ipam_driver.is_some() || !wanted.ipam_options.is_empty() || !pools.is_empty();
    NetworkCreateRequest {
        name: name.to_string(),
        driver: wanted.driver.clone(),
        internal: wanted.internal.then_some(true),
        attachable: wanted.attachable.then_some(true),
        enable_ipv6: wanted.ipv6.then_some(true),
        ipam: has_ipam.then(|| Ipam {
            driver: wanted.ipam_driver.clone(),
            config: some(&pools),
            options: some_map(&wanted.ipam_options),
        }),
        options: some_map(&wanted.options),
        labels: Some(labels(&wanted.labels, marks)),
        ..NetworkCreateRequest::default()
    }
}

/// Writes a volume.
pub(super) fn volume(name: &VolumeName, wanted: &VolumeSettings, marks: &Marks) -> VolumeCreateRequest {
    VolumeCreateRequest {
        name: Some(name.to_string()),
        driver: wanted.driver.clone(),
        driver_opts: some_map(&wanted.options),
        labels: Some(labels(&wanted.labels, marks)),
        ..VolumeCreateRequest::default()
    }
}

fn labels(authors: &BTreeMap<String, String>, marks: &Marks) -> HashMap<String, String> {
    authors.clone().into_iter().chain(marks.iter().cloned()).collect()
}

fn some<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn some_map(map: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    (!map.is_empty()).then(|| map.clone().into_iter().collect())
}

fn bindings(wanted: &Settings) -> HashMap<String, Option<Vec<PortBinding>>> {
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &wanted.ports {
        let binding = PortBinding { host_ip: port.address.clone(), host_port: Some(port.host.to_string()) };
        let inside = format!("{}/{}", port.container, port.protocol.as_str());
        bindings.entry(inside).or_default().get_or_insert_default().push(binding);
    }
    bindings
}

fn health(wanted: &Health) -> HealthConfig {
    let nanos =
        |millis: Option<u64>| millis.map(|millis| i64::try_from(millis.saturating_mul(1_000_000)).unwrap_or(i64::MAX));
    HealthConfig {
        test: some(&wanted.test),
        interval: nanos(wanted.interval_ms),
        timeout: nanos(wanted.timeout_ms),
        retries: wanted.retries.map(i64::from),
        start_period: nanos(wanted.start_period_ms),
        start_interval: nanos(wanted.start_interval_ms),
    }
}

fn host_config(wanted: &Settings, ports: HashMap<String, Option<Vec<PortBinding>>>) -> HostConfig {
    let (rights, limits, names) = (&wanted.rights, &wanted.limits, &wanted.names);
    let list = |set: &std::collections::BTreeSet<String>| some(&set.iter().cloned().collect::<Vec<_>>());
    let (binds, mounts) = mounts(wanted);
    HostConfig {
        binds: Some(binds),
        mounts: some(&mounts),
        tmpfs: tmpfs(wanted),
        network_mode: network_mode(&wanted.networking),
        restart_policy: Some(restart(wanted.restart)),
        port_bindings: Some(ports),
        privileged: rights.privileged.then_some(true),
        readonly_rootfs: rights.read_only.then_some(true),
        cap_add: list(&rights.cap_add),
        cap_drop: list(&rights.cap_drop),
        security_opt: some(&rights.security_opt),
        devices: some(&rights.devices.iter().map(|text| device(text)).collect::<Vec<_>>()),
        device_cgroup_rules: some(&rights.device_rules),
        group_add: some(&rights.groups),
        userns_mode: rights.userns.clone(),
        pid_mode: rights.pid.as_ref().map(namespace),
        ipc_mode: rights.ipc.as_ref().map(namespace),
        uts_mode: rights.uts.clone(),
        cgroupns_mode: rights.cgroup.as_deref().map(|mode| match mode {
            "host" => HostConfigCgroupnsModeEnum::HOST,
            _ => HostConfigCgroupnsModeEnum::PRIVATE,
        }),
        cgroup_parent: rights.cgroup_parent.clone(),
        sysctls: some_map(&rights.sysctls),
        memory: limits.memory,
        memory_swap: limits.memory_swap,
        memory_reservation: limits.memory_reservation,
        memory_swappiness: limits.swappiness,
        nano_cpus: limits.nano_cpus,
        cpu_shares: limits.cpu_shares,
        cpu_quota: limits.cpu_quota,
        cpu_period: limits.cpu_period,
        cpuset_cpus: limits.cpuset.clone(),
        pids_limit: limits.pids,
        shm_size: limits.shm,
        ulimits: some(&limits.ulimits.iter().map(ulimit).collect::<Vec<_>>()),
        oom_kill_disable: limits.oom_kill_disable.then_some(true),
        oom_score_adj: limits.oom_score_adj,
        dns: some(&names.dns),
        dns_search: some(&names.dns_search),
        dns_options: some(&names.dns_options),
        extra_hosts: some(&names.hosts),
        init: wanted.init,
        runtime: wanted.runtime.clone(),
        log_config: wanted
            .logging
            .as_ref()
            .map(|logging| HostConfigLogConfig { typ: logging.driver.clone(), config: some_map(&logging.options) }),
        ..HostConfig::default()
    }
}

/// Sorts mounts into the short form, which every engine makes the missing folder of a host path for, and the long one for
/// what the short one cannot say.
fn mounts(wanted: &Settings) -> (Vec<String>, Vec<Mount>) {
    let (mut binds, mut mounts) = (Vec::new(), Vec::new());
    for mount in &wanted.mounts {
        let long = |typ, source: Option<&str>| Mount {
            target: Some(mount.target.clone()),
            source: source.map(str::to_owned),
            typ: Some(typ),
            read_only: mount.read_only.then_some(true),
            ..Mount::default()
        };
        let short = |source: &str, options: Vec<&str>| {
            let access = mount.read_only.then_some("ro");
            let options: Vec<&str> = access.into_iter().chain(options).collect();
            let options = if options.is_empty() { String::new() } else { format!(":{}", options.join(",")) };
            format!("{source}:{}{options}", mount.target)
        };
        match &mount.source {
            MountSource::Bind { path, create: true, propagation, relabel } => {
                let relabel = relabel.map(String::from);
                let options = relabel.as_deref().into_iter().chain(propagation.as_deref());
                binds.push(short(path, options.collect()));
            }
            MountSource::Bind { path, create: false, propagation, relabel: _ } => {
                let propagation = propagation.as_ref().and_then(|word| word.parse().ok());
                let options = MountBindOptions { propagation, ..MountBindOptions::default() };
                mounts.push(Mount { bind_options: Some(options), ..long(MountType::BIND, Some(path)) });
            }
            MountSource::Volume { name, nocopy, subpath: None } => {
                binds.push(short(name.as_str(), nocopy.then_some("nocopy").into_iter().collect()));
            }
            MountSource::Volume { name, nocopy, subpath } => {
                let no_copy = nocopy.then_some(true);
                let options = MountVolumeOptions { no_copy, subpath: subpath.clone(), ..MountVolumeOptions::default() };
                mounts.push(Mount { volume_options: Some(options), ..long(MountType::VOLUME, Some(name.as_str())) });
            }
            MountSource::Tmpfs { options: Some(_), .. } => {}
            MountSource::Tmpfs { size, mode, options: None } => {
                let size_bytes = size.and_then(|size| i64::try_from(size).ok());
                let options = MountTmpfsOptions { size_bytes, mode: mode.map(i64::from), options: None };
                mounts.push(Mount { tmpfs_options: Some(options), ..long(MountType::TMPFS, None) });
            }
        }
    }
    (binds, mounts)
}

/// Returns the file systems in memory that have options as mount(8) takes them.
fn tmpfs(wanted: &Settings) -> Option<HashMap<String, String>> {
    let with_options = wanted.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Tmpfs { options: Some(options), .. } => Some((mount.target.clone(), options.clone())),
        _ => None,
    });
    let all: HashMap<String, String> = with_options.collect();
    (!all.is_empty()).then_some(all)
}

fn network_mode(networking: &Networking) -> Option<String> {
    match networking {
        Networking::Default => None,
        Networking::Mode(mode) => Some(mode.clone()),
        Networking::Container(name) => Some(format!("container:{name}")),
        Networking::Networks(networks) => networks.keys().next().map(ToString::to_string),
    }
}

/// All of them at once: what is connected only after it was created lacks a network when we are killed in between.
fn endpoints(networking: &Networking) -> Option<NetworkingConfig> {
    let Networking::Networks(networks) = networking else { return None };
    let endpoints = networks.iter().map(|(name, attachment)| (name.to_string(), endpoint(attachment)));
    Some(NetworkingConfig { endpoints_config: Some(endpoints.collect()) })
}

fn endpoint(attachment: &Attachment) -> EndpointSettings {
    let fixed = attachment.ipv4.is_some() || attachment.ipv6.is_some();
    EndpointSettings {
        aliases: some(&attachment.aliases.iter().cloned().collect::<Vec<_>>()),
        mac_address: attachment.mac.clone(),
        driver_opts: some_map(&attachment.options),
        ipam_config: fixed.then(|| EndpointIpamConfig {
            ipv4_address: attachment.ipv4.clone(),
            ipv6_address: attachment.ipv6.clone(),
            link_local_ips: None,
        }),
        ..EndpointSettings::default()
    }
}

fn restart(restart: Restart) -> RestartPolicy {
    let (name, maximum_retry_count) = match restart {
        Restart::UnlessStopped => (RestartPolicyNameEnum::UNLESS_STOPPED, None),
        Restart::Always => (RestartPolicyNameEnum::ALWAYS, None),
        Restart::OnFailure(most) => (RestartPolicyNameEnum::ON_FAILURE, most.map(i64::from)),
        Restart::No => (RestartPolicyNameEnum::NO, None),
    };
    RestartPolicy { name: Some(name), maximum_retry_count }
}

fn namespace(namespace: &Namespace) -> String {
    match namespace {
        Namespace::Mode(mode) => mode.clone(),
        Namespace::Container(name) => format!("container:{name}"),
    }
}

fn device(text: &str) -> DeviceMapping {
    let mut parts = text.splitn(3, ':').map(str::to_owned);
    let host = parts.next();
    let inside = parts.next().or_else(|| host.clone());
    let permissions = parts.next().unwrap_or_else(|| "rwm".to_owned());
    DeviceMapping { path_on_host: host, path_in_container: inside, cgroup_permissions: Some(permissions) }
}

fn ulimit((name, (soft, hard)): (&String, &(i64, i64))) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.clone()), soft: Some(*soft), hard: Some(*hard) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use spec::container::{Mount, Port, Protocol, Rights};

    use super::*;

    fn marks() -> Marks {
        ["fleet", "host", "app", "digest"].map(|label| (format!("io.mainstay.{label}"), "ours".to_owned()))
    }

    fn bind(path: &str, create: bool) -> MountSource {
        MountSource::Bind { path: path.to_owned(), create, propagation: None, relabel: None }
    }

    fn mount(target: &str, source: MountSource, read_only: bool) -> Mount {
        Mount { target: target.to_owned(), source, read_only }
    }

    #[test]
    fn a_want_is_written_whole_and_our_labels_win() {
        let port = |address: Option<&str>, host| Port {
            address: address.map(str::to_owned),
            host,
            container: 80,
            protocol: Protocol::Tcp,
        };
        let name = VolumeName::parse("data").expect("a volume");
        let wanted = Settings {
            image: "web:1".to_owned(),
            command: vec!["serve".to_owned()],
            env: BTreeMap::from([("A".to_owned(), "1".to_owned())]),
            ports: vec![port(None, 8080), port(Some("127.0.0.1"), 8081)],
            mounts: vec![mount("/data", MountSource::Volume { name, nocopy: false, subpath: None }, true)],
            user: Some("1000".to_owned()),
            labels: BTreeMap::from([("io.mainstay.fleet".to_owned(), "forged".to_owned())]),
            ..Settings::default()
        };
        let body = serde_json::to_value(container(&wanted, &marks())).expect("JSON");
        assert_eq!(body["Labels"]["io.mainstay.fleet"], "ours");
        assert_eq!(body["ExposedPorts"], json!({"80/tcp": {}}));
        assert_eq!(
            body["HostConfig"],
            json!({
                "Binds": ["data:/data:ro"],
                "PortBindings": {"80/tcp": [{"HostPort": "8080"}, {"HostIp": "127.0.0.1", "HostPort": "8081"}]},
                "RestartPolicy": {"Name": "unless-stopped"},
            })
        );
        assert_eq!((&body["Cmd"], &body["User"]), (&json!(["serve"]), &json!("1000")));
        assert!(body.get("Entrypoint").is_none() && body.get("NetworkingConfig").is_none());
    }

    #[test]
    fn what_the_short_form_of_a_mount_cannot_say_takes_the_long_one() {
        let wanted = Settings {
            mounts: vec![
                mount("/a", bind("/srv/a", true), true),
                mount("/b", bind("/srv/b", false), false),
                mount("/c", MountSource::Tmpfs { size: Some(1024), mode: Some(0o700), options: None }, false),
                mount("/d", MountSource::Tmpfs { size: None, mode: None, options: Some("size=1m".to_owned()) }, false),
            ],
            ..Settings::default()
        };
        let body = serde_json::to_value(container(&wanted, &marks())).expect("JSON");
        let host = &body["HostConfig"];
        assert_eq!((&host["Binds"], &host["Tmpfs"]), (&json!(["/srv/a:/a:ro"]), &json!({"/d": "size=1m"})));
        assert_eq!(
            host["Mounts"],
            json!([
                {"Target": "/b", "Source": "/srv/b", "Type": "bind", "BindOptions": {}},
                {"Target": "/c", "Type": "tmpfs", "TmpfsOptions": {"SizeBytes": 1024, "Mode": 448}},
            ])
        );
    }

    #[test]
    fn networks_and_rights_are_written() {
        let attachment = Attachment { ipv4: Some("10.9.0.5".to_owned()), ..Attachment::default() };
        let networks = ["back", "front"].map(|name| (NetworkName::parse(name).expect("a network"), attachment.clone()));
        let rights = Rights { devices: vec!["/dev/fuse".to_owned()], privileged: true, ..Rights::default() };
        let wanted = Settings {
            networking: Networking::Networks(BTreeMap::from(networks)),
            rights,
            restart: Restart::OnFailure(Some(3)),
            health: Some(Health { interval_ms: Some(1500), ..Health::default() }),
            ..Settings::default()
        };
        let body = serde_json::to_value(container(&wanted, &marks())).expect("JSON");
        let host = &body["HostConfig"];
        assert_eq!(host["NetworkMode"], "back");
        assert_eq!(
            body["NetworkingConfig"]["EndpointsConfig"]["front"],
            json!({"IPAMConfig": {"IPv4Address": "10.9.0.5"}})
        );
        assert_eq!(host["RestartPolicy"], json!({"Name": "on-failure", "MaximumRetryCount": 3}));
        assert_eq!(body["Healthcheck"], json!({"Interval": 1_500_000_000}));
        let device = json!({"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rwm"});
        assert_eq!(host["Devices"], json!([device]));
    }
}
