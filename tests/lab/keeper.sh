# Keeps one lab alive and cleans up after it. It reads an input that only the lab's process holds open: however that
# process ends, the input ends, the first process of the lab's own process namespace ends, and the kernel takes all
# the rest with it: processes, then mounts and interfaces, since both live in namespaces of the lab.
# usage: keeper.sh ID STATE_DIR CGROUP_ROOT…
id=$1 state=$2
shift 2

unshare --mount --propagation private --net --ipc --pid --fork --mount-proc sh -euc '
    mount -t tmpfs -o mode=755 lab /run
    mkdir /run/lab
    ip link set lo up
    ip link add br0 type bridge
    ip link set br0 up
    echo ready
    exec cat >/dev/null'

for root; do
    find "$root/$id" -depth -type d -exec rmdir {} + 2>/dev/null
done
rm -rf "$state"
