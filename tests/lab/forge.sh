# Turns the root directory $1 of a host that has not booted yet into a lab's forge at address $2: git over ssh, http,
# https and git://, files over http, and a container registry. All of it runs as the user `git`, for one owner of all.
set -eu
root=$1 address=$2
etc=$root/etc/forge

# `*` is no password; `!` would lock the account, and sshd then refuses keys too.
echo 'git:x:990:990::/home/git:/usr/bin/git-shell' >>"$root/etc/passwd"
echo 'git:x:990:' >>"$root/etc/group"
echo 'git:*:20000::::::' >>"$root/etc/shadow"
mkdir -p "$etc" "$root/home/git/.ssh" "$root/srv/git" "$root/srv/www" "$root/srv/registry"
touch "$root/home/git/.ssh/authorized_keys"
chmod 700 "$root/home/git/.ssh"

cat >"$root/etc/gitconfig" <<'CONF'
[user]
	name = Lab
	email = lab@example.org
[init]
	defaultBranch = main
[safe]
	directory = *
[http]
	receivepack = true
[gpg]
	format = ssh
# Tests look into repositories while these are in use: nothing is to be repacked under their hands.
[gc]
	auto = 0
[receive]
	autogc = false
CONF

cat >"$etc/lighttpd.conf" <<'CONF'
server.modules = ("mod_alias", "mod_cgi", "mod_setenv", "mod_openssl")
server.document-root = "/srv/www"
server.upload-dirs = ("/tmp")
server.port = 80
alias.url = ("/git" => "/usr/lib/git-core/git-http-backend")
$HTTP["url"] =~ "^/git" {
    cgi.assign = ("git-http-backend" => "")
    setenv.set-environment = ("GIT_PROJECT_ROOT" => "/srv/git", "GIT_HTTP_EXPORT_ALL" => "1")
}
$SERVER["socket"] == ":443" {
    ssl.engine = "enable"
    ssl.pemfile = "/etc/forge/forge.pem"
}
CONF
cat >"$etc/registry.yml" <<'CONF'
version: 0.1
log: { level: warn, accesslog: { disabled: true } }
storage:
  filesystem: { rootdirectory: /srv/registry }
  delete: { enabled: true }
http: { addr: ":5000" }
CONF

# unit NAME COMMAND: a service that runs as the user `git` from the first boot on
unit() {
    cat >"$root/etc/systemd/system/$1.service" <<UNIT
[Unit]
Description=$1 of the lab
After=network.target

[Service]
User=git
AmbientCapabilities=CAP_NET_BIND_SERVICE
ExecStart=$2

[Install]
WantedBy=multi-user.target
UNIT
    ln -s "/etc/systemd/system/$1.service" "$root/etc/systemd/system/multi-user.target.wants/"
}
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
unit forge-http "/usr/sbin/lighttpd -D -f /etc/forge/lighttpd.conf"
unit forge-git "/usr/bin/git daemon --reuseaddr --export-all --enable=receive-pack --base-path=/srv/git /srv/git"
unit forge-registry "/usr/bin/docker-registry serve /etc/forge/registry.yml"

# A root certificate that nobody trusts until told to, and one for the web server signed with it.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj '/CN=Lab Root' \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign \
    -keyout "$etc/ca.key" -out "$etc/ca.crt" 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=forge' \
    -keyout "$etc/forge.key" -out "$etc/forge.csr" 2>/dev/null
printf 'subjectAltName=DNS:forge,IP:%s\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n' "$address" >"$etc/forge.ext"
openssl x509 -req -in "$etc/forge.csr" -CA "$etc/ca.crt" -CAkey "$etc/ca.key" -CAcreateserial -days 3650 \
    -extfile "$etc/forge.ext" -out "$etc/forge.crt" 2>/dev/null
cat "$etc/forge.key" "$etc/forge.crt" >"$etc/forge.pem"

chown -R 990:990 "$etc" "$root/home/git" "$root/srv/git" "$root/srv/www" "$root/srv/registry"
