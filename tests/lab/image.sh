# Pushes a tiny image into the forge's registry, by its plain http interface: no engine has to run for that.
# usage: image.sh NAME TAG COMMAND_JSON FILES_DIR; prints the digest of the manifest
set -eu -o pipefail
name=$1 tag=$2 command=$3 files=$4
registry=http://127.0.0.1:5000/v2/$name
work=$(mktemp -d)
trap 'rm -rf "$work" "$files"' EXIT

# pack DIR LAYER: the same content has the same digest at any time
pack() {
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$1" -c . >"$2.tar"
    gzip -n -1 <"$2.tar" >"$2.tgz"
    sha256sum <"$2.tar" | cut -d' ' -f1 >"$2.diff"
    rm "$2.tar"
}
digest() { sha256sum <"$1" | cut -d' ' -f1; }
size() { stat -c %s "$1"; }

# upload FILE: unless the repository has it
upload() {
    sum=sha256:$(digest "$1")
    if curl -sf -o /dev/null --head "$registry/blobs/$sum"; then return; fi
    to=$(curl -sSf -o /dev/null -D - -X POST "$registry/blobs/uploads/" | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
    curl -sSf -o /dev/null -X PUT -H 'Content-Type: application/octet-stream' --data-binary "@$1" "$to&digest=$sum"
}

# The layer below all images: busybox under all its names. Made once per forge, by whoever comes first.
base=/var/cache/lab-base
if ! [ -e $base ]; then
    mkdir -p "$work/base/bin" "$work/base/tmp" "$work/base/etc" "$work/made"
    cp /bin/busybox "$work/base/bin/"
    chroot "$work/base" /bin/busybox --install -s /bin
    echo 'root:x:0:0::/:/bin/sh' >"$work/base/etc/passwd"
    # busybox as process 1 ignores TERM, and nobody wants to wait ten seconds at every stop; KILL instead would leave
    # a unit failed. So a shell takes the signal and ends in good order.
    printf '%s\n' '#!/bin/sh' 'trap "kill \$child; exit 0" TERM INT' '"$@" &' 'child=$!' 'wait $child' \
        >"$work/base/bin/run"
    chmod +x "$work/base/bin/run"
    pack "$work/base" "$work/made/base"
    mv -T "$work/made" $base 2>/dev/null || [ -e $base ]
fi
pack "$files" "$work/top"

cat >"$work/config" <<JSON
{"architecture":"$(dpkg --print-architecture)","os":"linux","created":"1970-01-01T00:00:00Z",
"config":{"Env":["PATH=/bin"],"Entrypoint":["/bin/run"],"Cmd":$command},
"rootfs":{"type":"layers","diff_ids":["sha256:$(cat $base/base.diff)","sha256:$(cat "$work/top.diff")"]}}
JSON
layer() {
    printf '{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","size":%s,"digest":"sha256:%s"}' \
        "$(size "$1")" "$(digest "$1")"
}
type=application/vnd.docker.distribution.manifest.v2+json
cat >"$work/manifest" <<JSON
{"schemaVersion":2,"mediaType":"$type",
"config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":$(size "$work/config"),"digest":"sha256:$(digest "$work/config")"},
"layers":[$(layer $base/base.tgz),$(layer "$work/top.tgz")]}
JSON
upload $base/base.tgz
upload "$work/top.tgz"
upload "$work/config"
curl -sSf -o /dev/null -X PUT -H "Content-Type: $type" --data-binary "@$work/manifest" "$registry/manifests/$tag"
echo "sha256:$(digest "$work/manifest")"
