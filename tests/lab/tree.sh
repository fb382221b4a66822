# Turns a freshly installed root tree ($1) into one that every lab host shares: nothing that a host must own alone
# (keys, machine id), nothing that runs without being asked for, and container engines that fit a nested host.
set -eu
root=$1

rm -f "$root"/etc/ssh/ssh_host_* "$root"/etc/hostname
# Nobody answers, at once; without the file, Podman's name server does not start.
echo 'nameserver 127.0.0.1' >"$root/etc/resolv.conf"
: > "$root/etc/machine-id"
mkdir -p "$root/srv" "$root/root/.ssh"
chmod 700 "$root/root/.ssh"

# Whoever commits signs with this key, and hosts are told so; it opens nothing. Of nobody, since ssh-keygen takes no key of the caller's
# own that others may read.
mkdir -p "$root/usr/share/lab"
chroot "$root" ssh-keygen -q -t ed25519 -N '' -C lab@example.org -f /usr/share/lab/signer
chroot "$root" chown nobody:nogroup /usr/share/lab/signer
chmod 644 "$root/usr/share/lab/signer"
printf 'lab@example.org %s\n' "$(cut -d ' ' -f 1-2 "$root/usr/share/lab/signer.pub")" >"$root/usr/share/lab/signers"

# Installed for tests and for the forge; whoever needs one starts it.
for unit in docker.service docker.socket containerd.service podman.service podman.socket podman-restart.service \
    podman-auto-update.service podman-auto-update.timer podman-clean-transient.service mosquitto.service \
    lighttpd.service docker-registry.service redis-server.service systemd-networkd.service nftables.service; do
    chroot "$root" systemctl disable --quiet "$unit" 2>/dev/null || :
done
# Of no use in a lab host, or impossible there (kernel modules, consoles, file system checks), or run at odd times.
for unit in systemd-modules-load.service console-getty.service getty.target systemd-pstore.service \
    systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-firstboot.service ldconfig.service \
    systemd-journal-catalog-update.service systemd-hwdb-update.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer man-db.timer logrotate.timer \
    systemd-networkd-wait-online.service systemd-udev-trigger.service lvm2-monitor.service modprobe@.service \
    dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
    sys-fs-fuse-connections.mount; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

# One address, set once, kept while the cable is out: a network daemon would drop and re-add it with the carrier.
cat > "$root/etc/systemd/system/lab-network.service" <<'UNIT'
[Unit]
Description=Address of this lab host
DefaultDependencies=no
Before=network.target sysinit.target
Wants=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
EnvironmentFile=/etc/lab-network
ExecStart=ip address replace ${ADDRESS}/24 dev host0
ExecStart=ip link set host0 up

[Install]
WantedBy=sysinit.target
UNIT
chroot "$root" systemctl enable --quiet lab-network.service ssh.service

# Neighbours are asked for ten times a second, not once: a host that is plugged in again is found at once.
echo 'net.ipv4.neigh.host0.retrans_time_ms = 100' >"$root/etc/sysctl.d/lab.conf"

# The pids controller is not delegated to a nested host, and locked memory cannot be raised there.
mkdir -p "$root/etc/containers/containers.conf.d" "$root/etc/containers/registries.conf.d" "$root/etc/docker"
cat > "$root/etc/containers/containers.conf.d/lab.conf" <<'CONF'
[containers]
pids_limit = 0
default_ulimits = ["memlock=65536:65536"]
CONF
# A host's root is an overlay already, and the kernel stacks no writable overlay on one: fuse does.
cat > "$root/etc/containers/storage.conf" <<'CONF'
[storage]
driver = "overlay"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"

[storage.options.overlay]
mount_program = "/usr/bin/fuse-overlayfs"
CONF
# The forge's registry speaks plain http; 192.0.2.2 is where every lab has its forge.
cat > "$root/etc/containers/registries.conf.d/lab.conf" <<'CONF'
[[registry]]
location = "192.0.2.2:5000"
insecure = true

[[registry]]
location = "forge:5000"
insecure = true
CONF
cat > "$root/etc/docker/daemon.json" <<'CONF'
{
  "storage-driver": "fuse-overlayfs",
  "exec-opts": ["native.cgroupdriver=systemd"],
  "insecure-registries": ["192.0.2.0/24", "forge:5000"]
}
CONF
cat > "$root/etc/ssh/sshd_config.d/lab.conf" <<'CONF'
# Logins in a few milliseconds: no session of the service manager, no name lookups.
UsePAM no
UseDNS no
CONF
rm -rf "$root"/var/cache/apt/*.bin "$root"/var/lib/apt/lists/*
