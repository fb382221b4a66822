//! A git server that wants to hurt: it is silent, drips, never ends, lists everything, and sends packs that are huge or wrong. Each costs
//! its deadline and bounded memory and disk; what was believed stays in force, and drift is put back all the while.

use std::time::{Duration, Instant};

use lab::{Forge, Host};

use crate::{agent, start};

/// Serves the forge's repositories at another port, for whoever has the key of a host, and at `/evil`, in the way that `/run/mode` says; one
/// process for each connection or request.
const SERVER: &str = r#"
cat >/usr/local/bin/evil <<'SCRIPT'
#!/bin/bash
exec 2>/dev/null
serve() {
  if [ -n "$GATEWAY_INTERFACE" ]; then GIT_PROJECT_ROOT=$1 GIT_HTTP_EXPORT_ALL=1 git http-backend
  elif [ -n "$SSH_ORIGINAL_COMMAND" ]; then git upload-pack $1/fleet.git
  else git daemon --inetd --export-all --base-path=$1; fi
}
# What comes before git's own words.
[ -z "$GATEWAY_INTERFACE" ] || head='Content-Type: application/x-git-upload-pack-advertisement\r\n\r\n001e# service=git-upload-pack\n0000'
mode=$(cat /run/mode)
case $mode in
good) serve /srv/git ;;
silent) sleep 3600 ;;
closed) exit ;;
garbage) printf "$head"; cat /dev/urandom ;;
zeros) printf "$head"; cat /dev/zero ;;
drip) printf "$head"; while printf 0; do sleep 0.2; done ;;
# A list of what it can do that never ends.
endless) printf "${head}000eversion 2\n"; while printf '0032agent=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n'; do :; done ;;
refs | blob | objects | noise? | flood | deltas) serve /srv/evil/$mode ;;
# What is in the pack is not what its sums say.
flipped) serve /srv/git | perl -e 'while (sysread(STDIN, $b, 65536)) { $b =~ s/(PACK.{10})(.{20})/$1 . ("\xff" x 20)/se; syswrite(STDOUT, $b) }' ;;
# It says that it holds four thousand million objects.
counted) serve /srv/git | perl -e 'while (sysread(STDIN, $b, 65536)) { $b =~ s/(PACK.{4}).{4}/$1\xff\xff\xff\xff/s; syswrite(STDOUT, $b) }' ;;
# It breaks off in the middle of it.
short) serve /srv/git | head -c 700 ;;
esac
SCRIPT
chmod 755 /usr/local/bin/evil
cat >/etc/systemd/system/evil.socket <<'UNIT'
[Socket]
ListenStream=9419
Accept=yes
UNIT
cat >/etc/systemd/system/evil@.service <<'UNIT'
[Service]
User=git
ExecStart=/usr/local/bin/evil
StandardInput=socket
StandardError=null
UNIT
cat >>/etc/forge/lighttpd.conf <<'CONF'
alias.url += ("/evil" => "/usr/local/bin/evil")
$HTTP["url"] =~ "^/evil" { cgi.assign = ("evil" => "") }
server.stream-response-body = 2
CONF
systemctl restart forge-http
usermod -s /bin/bash git
sed -i 's,^ssh-,command="/usr/local/bin/evil" ssh-,' /home/git/.ssh/authorized_keys
echo good >/run/mode
mkdir -p /srv/evil; chown git:git /srv/evil
systemctl daemon-reload; systemctl start evil.socket
"#;

/// Makes what the server has to offer beside the good repository, each of which goes on from its `main`.
const OFFERS: &str = r#"
set -e
cd /srv/evil
for name in refs blob objects; do mkdir $name; git clone -q --bare /srv/git/fleet.git $name/fleet.git; done
main=$(git -C refs/fleet.git rev-parse main)
# All of them begin as what is asked for does.
{ echo '# pack-refs with: peeled fully-peeled sorted '; echo "$main refs/heads/main"; seq -f "$main refs/heads/main%07.0f" 400000; } >refs/fleet.git/packed-refs
cd blob/fleet.git
truncate -s 400M /tmp/zeros
blob=$(git -c core.bigFileThreshold=1m hash-object -w /tmp/zeros)
{ git ls-tree main; printf '100644 blob %s\tzeros\n' $blob; } | git mktree >/tmp/tree
git update-ref refs/heads/main $(git -c user.name=e -c user.email=e@e commit-tree -p main -m evil $(cat /tmp/tree))
# What nothing makes smaller: as much as may come at once, each time something else, and more than that.
for name in noise1 noise2 noise3 noise4 flood; do
  cd /srv/evil; mkdir $name; git clone -q --bare /srv/git/fleet.git $name/fleet.git; cd $name/fleet.git
  size=18M; [ $name = flood ] && size=300M
  git config core.bigFileThreshold 1m; git config core.compression 0
  blob=$(head -c $size /dev/urandom | git hash-object -w --stdin)
  { git ls-tree main; printf '100644 blob %s\tnoise\n' $blob; } | git mktree >/tmp/tree
  git update-ref refs/heads/main $(git -c user.name=e -c user.email=e@e commit-tree -p main -m evil $(cat /tmp/tree))
  git repack -q -a -d
done
# A gigabyte in a few kilobytes: each file builds on the one before, and another one builds on that too, so that who unpacks them in the
# order in which they come holds all of them.
cd /srv/evil; mkdir deltas; git clone -q --bare /srv/git/fleet.git deltas/fleet.git; cd deltas/fleet.git
perl -MCompress::Zlib -MDigest::SHA -e '
  my $size = 39 << 20; my $pack = "PACK" . pack("NN", 2, 25);
  sub head { my ($kind, $left) = @_; my $byte = $kind << 4 | $left & 15; $left >>= 4; my $all = "";
    while ($left) { $all .= chr($byte | 128); $byte = $left & 127; $left >>= 7 } $all . chr($byte) }
  sub length_of { my $left = shift; my $all = ""; while ($left > 127) { $all .= chr($left & 127 | 128); $left >>= 7 } $all . chr($left) }
  # What is copied of the one before, 65536 bytes at most each, and a word of its own.
  sub delta { my $word = shift; my $all = length_of($size) . length_of($size) . chr(length $word) . $word;
    for (my $from = length $word; $from < $size; $from += 65535) { my $many = $size - $from; $many = 65535 if $many > 65535;
      $all .= chr(0xbf) . pack("VS<", $from, $many) } $all }
  sub back { my $left = shift; my $all = chr($left & 127); while ($left >>= 7) { $left--; $all = chr(128 | $left & 127) . $all } $all }
  my $base = length $pack; $pack .= head(3, $size) . compress("\0" x $size);
  for my $level (1..12) { my $before = $base;
    for my $which ("leaf", "next") { my $delta = delta("$which$level"); $base = length $pack;
      $pack .= head(6, length $delta) . back($base - $before) . compress($delta) } }
  print $pack, Digest::SHA::sha1($pack)' | git index-pack --stdin >/tmp/packed
{ git ls-tree main; git show-index <objects/pack/pack-$(cut -f 2 /tmp/packed).idx | awk '{ print "100644 blob " $2 "\tlarge" NR }'; } >/tmp/tree
[ $(grep -c large /tmp/tree) = 25 ]
git update-ref refs/heads/main $(git -c user.name=e -c user.email=e@e commit-tree -p main -m evil $(git mktree </tmp/tree))
cd /srv/evil/objects/fleet.git
perl -e '
  print "blob\nmark :$_\ndata ", length, "\n$_\n" for 1..30000;
  print "commit refs/heads/main\ncommitter e <e\@e> 1800000000 +0000\ndata 4\nevil\nfrom $ARGV[0]\n";
  print "M 100644 :$_ many/$_\n" for 1..30000;' $main | git fast-import --quiet
"#;

fn as_git(forge: &Forge, script: &str) {
    forge.write("/run/script", script).unwrap();
    forge.sh("setpriv --reuid=git --regid=git --clear-groups env HOME=/home/git bash /run/script").unwrap();
}

/// The most memory that the agent itself ever held, in KiB.
fn peak(host: &Host) -> u64 {
    let peak = "grep VmHWM /proc/$(systemctl show -P MainPID mainstay)/status | tr -dc 0-9";
    host.sh(peak).unwrap().trim().parse().unwrap()
}

/// Writes down again and again what who talks to servers held most: it ends with a server that is lost, and begins anew. And what all
/// processes of both units hold at that moment, whatever they have started.
const WATCH: &str = "cd /sys/fs/cgroup/system.slice
    while sleep 0.02; do
        grep -hs VmHWM /proc/$(systemctl show -P MainPID mainstay-fetch)/status >&3
        cat mainstay.service/cgroup.procs mainstay-fetch.service/cgroup.procs 2>/dev/null | sed 's,.*,/proc/&/status,' |
            xargs -r grep -hs VmRSS | awk '{ all += $2 } END { print all }'
    done 3>/run/peaks >/run/sums";

/// The most memory that who talks to servers was seen to have held, in KiB.
fn peak_of_fetchers(host: &Host) -> u64 {
    most(host, "/run/peaks")
}

/// The largest number in a file.
fn most(host: &Host, file: &str) -> u64 {
    host.sh(&format!("tr -dc '0-9\\n' <{file} | sort -n | tail -n 1")).unwrap().trim().parse().unwrap()
}

/// Writes down again and again what the state of both takes on disk.
const WATCH_DISK: &str =
    "while sleep 0.1; do du -skc /var/lib/mainstay /var/lib/mainstay-fetch | tail -n 1; done >/run/disk 2>/dev/null";

/// The most that the state of both was seen to take on disk, in KiB.
fn peak_on_disk(host: &Host) -> u64 {
    host.sh("cut -f 1 /run/disk | sort -n | tail -n 1").unwrap().trim().parse().unwrap()
}

/// What the state of both takes on disk, in KiB.
fn state(host: &Host) -> u64 {
    host.sh("du -skc /var/lib/mainstay /var/lib/mainstay-fetch | tail -n 1 | cut -f 1").unwrap().trim().parse().unwrap()
}

/// What a server can do beside git's own words, and with them.
const MODES: [&str; 18] = [
    "silent", "closed", "garbage", "zeros", "drip", "endless", "refs", "blob", "objects", "flipped", "counted",
    "short", "noise1", "noise2", "noise3", "noise4", "flood", "deltas",
];

#[test]
fn a_hostile_server_costs_its_deadlines_and_nothing_else() {
    endures(&MODES, |forge| format!("git://{}:9419/fleet.git", forge.address()));
}

#[test]
fn nor_does_one_over_ssh() {
    let modes = ["silent", "closed", "garbage", "drip", "endless", "refs", "blob", "noise1", "flood", "deltas"];
    endures(&modes, |forge| format!("ssh://git@{}/fleet.git", forge.address()));
}

#[test]
fn nor_does_one_over_https() {
    let modes = ["silent", "closed", "garbage", "drip", "endless", "refs", "blob", "noise1", "flood", "deltas"];
    endures(&modes, |forge| format!("https://{}/evil/fleet.git", forge.address()));
}

/// Follows the repository of a server that is hostile in one way after the other.
fn endures(modes: &[&str], url: impl Fn(&Forge) -> String) {
    const UNIT: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\n";
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    let repo = forge.repo("fleet").unwrap();
    let files = [
        ("fleet.yaml", "fleet: home\nhosts: { attic: {} }\n"),
        ("apps/web/web.service", UNIT),
        ("apps/web/files/etc/web", "1\n"),
    ];
    let first = repo.commit(&files, "begin").unwrap();
    forge.authorize(&host).unwrap();
    host.write("/etc/lab-ca.pem", forge.root_certificate().unwrap()).unwrap();
    forge.sh(SERVER).unwrap();
    let more = "git: { connect: 2s, stall: 2s, total: 15s, ca: /etc/lab-ca.pem }\nreport: { push: false }\n";
    agent::follow(&host, &url(&forge), more);
    agent::await_converged(&host, &first);
    as_git(&forge, OFFERS);
    let state_before = state(&host);
    let _watch = host.spawn(&["sh", "-c", WATCH]).unwrap();
    let _watch_disk = host.spawn(&["sh", "-c", WATCH_DISK]).unwrap();

    for (number, mode) in modes.iter().enumerate() {
        // It is bad before there is something to fetch, and nobody is still served by what was good.
        forge.sh(&format!("echo {mode} >/run/mode; systemctl stop 'evil@*'; pkill -x evil || true")).unwrap();
        let good = repo.commit(&[("apps/web/files/etc/web", &format!("{mode}\n"))], mode).unwrap();
        let before = host.read("/etc/web").unwrap();
        if number > 0 {
            assert_eq!(before, format!("{}\n", modes[number - 1]));
        }
        host.sh("mainstay sync || true").unwrap();
        let bad = "(mainstay --json status || true) | grep -E '\"(unreachable|refused)\": [\"{]'";
        let began = Instant::now();
        let told = host.wait_for(Duration::from_secs(60), bad);
        let took = began.elapsed();
        // Drift is put back while the server is asked again.
        for drift in ["echo drift >/etc/web", "rm /etc/web"] {
            host.sh(&format!("mainstay sync >/dev/null 2>&1 & {drift}")).unwrap();
            let mended = host.wait_for(Duration::from_secs(10), &format!("grep -qx '{}' /etc/web", before.trim()));
            assert!(mended.is_ok(), "{mode}: {}", agent::log(&host));
        }
        let status = host.sh("mainstay --json status || true").unwrap();
        assert!(told.is_ok(), "{mode}: {status}\n{}", agent::log(&host));
        let why = status.lines().find(|line| line.contains("\"unreachable\": \"")).unwrap_or("refused");
        let (agent, fetcher, disk) = (peak(&host), peak_of_fetchers(&host), state(&host));
        eprintln!("{mode}: {took:?}, {agent} KiB and {fetcher} KiB, {disk} KiB on disk; {}", why.trim());
        // Of each of these it is known what stops it, or the server is not as bad as it is to be.
        let meant = match *mode {
            "endless" | "refs" | "blob" | "flood" | "counted" => "sent more than",
            "objects" | "noise1" | "noise2" | "noise3" | "noise4" => "refused",
            _ => "",
        };
        assert!(why.contains(meant), "{mode}: {why}");
        // It is well again.
        forge.sh("echo good >/run/mode").unwrap();
        host.sh("mainstay sync || true").unwrap();
        agent::await_converged(&host, &good);
    }
    let both = (peak(&host), peak_of_fetchers(&host));
    let together = most(&host, "/run/sums");
    eprintln!("{both:?} KiB, {together} KiB together");
    // 256 MB: what each ever held, and what all processes of both held at one moment.
    assert!(both.0 + both.1 < 250_000, "{both:?} KiB");
    assert!(together > both.0 && together < 250_000, "{together} KiB");
    assert!(both.1 > 10 << 10, "{both:?} KiB: who talked to the server was not seen");
    // What is refused is kept until something else is refused or believed, and no longer.
    let (now, most) = (state(&host), peak_on_disk(&host));
    assert!(now < state_before + (96 << 10), "{now} KiB on disk, {state_before} before");
    assert!(most < state_before + (256 << 10), "{most} KiB on disk at most, {state_before} before");
    eprintln!("{both:?} KiB of memory and {most} KiB on disk at most");
    assert_eq!(host.sh("systemctl show -P NRestarts mainstay").unwrap(), "0\n");
}
