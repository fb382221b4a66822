//! The agent under test: built once, put onto hosts, and asked questions as a person would.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use lab::{Host, product};
use serde_json::Value;

/// Returns the program under test: the one that `MAINSTAY_BIN` names, else one built now.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(program) = std::env::var_os("MAINSTAY_BIN") {
            return PathBuf::from(program);
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo).args(["build", "--package", "mainstay"]).status().expect("cargo runs");
        assert!(built.success(), "the agent does not build");
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/mainstay");
        // Line tables are of no use on a host, and every host gets a copy.
        let stripped = target.with_file_name(format!("mainstay-stripped-{}", std::process::id()));
        let done = Command::new("strip").arg("-o").arg(&stripped).arg(&target).status().expect("strip runs");
        assert!(done.success(), "the agent cannot be stripped");
        stripped
    })
}

/// Puts the program onto a host.
pub(crate) fn install(host: &Host) {
    host.copy_in(program(), "/usr/bin/mainstay").unwrap();
    host.sh("chmod 0755 /usr/bin/mainstay").unwrap();
}

/// Writes a folder of desired state onto a host, in place of what is there: `(path, content)`.
pub(crate) fn write_folder(host: &Host, folder: &str, files: &[(&str, &str)]) {
    host.sh(&format!("rm -rf {folder}; mkdir -p {folder}")).unwrap();
    for (path, content) in files {
        let path = format!("{folder}/{path}");
        host.sh(&format!("mkdir -p \"$(dirname '{path}')\"")).unwrap();
        host.write(&path, content).unwrap();
    }
}

/// One run of `mainstay once --dir`: its exit code and everything it printed.
pub(crate) fn once(host: &Host, folder: &str) -> (i32, String) {
    let output = host.try_sh(&format!("mainstay once --dir {folder} 2>&1")).unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Converges and insists on it.
pub(crate) fn converge(host: &Host, folder: &str) -> String {
    let (code, said) = once(host, folder);
    assert_eq!(code, 0, "{said}");
    said
}

/// The plan as JSON.
pub(crate) fn plan(host: &Host, folder: &str) -> Value {
    let output = host.try_sh(&format!("mainstay --json plan --dir {folder}")).unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    })
}

/// The steps of a plan as `verb object`, in order.
pub(crate) fn steps(plan: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    plan["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| format!("{} {}", text(&it["verb"]), text(&it["object"])))
        .collect()
}

/// The invocation of a unit, which changes with every start.
pub(crate) fn invocation(host: &Host, unit: &str) -> String {
    host.sh(&format!("systemctl show -P InvocationID {unit}")).unwrap().trim().to_owned()
}

/// When a file's content was last written, at the latest: the kernel stamps files by a clock that is behind by up to a tick.
pub(crate) fn written(host: &Host, path: &str) -> jiff::Timestamp {
    let at = host.sh(&format!("date --utc --reference={path} +%FT%T.%NZ")).unwrap();
    at.trim().parse::<jiff::Timestamp>().unwrap() + Duration::from_millis(10)
}

/// How long the daemon may take for anything on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// What the daemon of a test is told beside its repository: look every second, so that no test waits for long, and
/// believe what the lab signed.
const QUICK: &str = "host: attic\npoll: 1s\nobserve: 1s\nsettle: 1s\ntrust: { signers: /usr/share/lab/signers }\n";

/// Starts the agent as its package would: the unit in `systemd/`, with settings that hold `repository` and `more`.
pub(crate) fn follow(host: &Host, repository: &str, more: &str) {
    install(host);
    product::bring_units(host).unwrap();
    let logs = "[Service]\nEnvironment=RUST_LOG=mainstay=debug\n";
    host.write("/etc/systemd/system/mainstay.service.d/lab.conf", logs).unwrap();
    set(host, repository, more);
    host.sh("systemctl daemon-reload; systemctl enable --quiet mainstay; systemctl restart mainstay").unwrap();
}

/// Writes the agent's settings; it reads them when it starts.
pub(crate) fn set(host: &Host, repository: &str, more: &str) {
    let quick: String =
        QUICK.lines().filter(|line| !overrides(more, line)).fold(String::new(), |all, line| all + line + "\n");
    host.write("/etc/mainstay/agent.yaml", format!("repository: {repository}\n{quick}{more}")).unwrap();
}

fn overrides(more: &str, line: &str) -> bool {
    let key = line.split(':').next().unwrap_or_default();
    more.lines().any(|other| other.split(':').next() == Some(key))
}

/// Waits until the daemon says that the host is converged on a commit.
pub(crate) fn await_converged(host: &Host, commit: &str) {
    await_status(host, &format!("^converged on {}", &commit[..10]));
}

/// Waits until the daemon's status text matches an extended regular expression; an error tells what it logged.
pub(crate) fn await_status(host: &Host, pattern: &str) {
    let script = format!("systemctl show -P StatusText mainstay | grep -E '{pattern}'");
    if let Err(error) = host.wait_for(SOON, &script) {
        let status = host.sh("systemctl show -P StatusText mainstay").unwrap();
        panic!("{error:#}\nstatus: {status}\n{}", log(host));
    }
}

/// What the daemon logged, without its debugging.
pub(crate) fn log(host: &Host) -> String {
    // The fields of a message are no part of its text.
    const PRINT: &str = r#"journalctl -u mainstay -p 5 -n 60 -o json --no-pager --output-fields=MESSAGE,F_OBJECT,F_WHY,F_ERROR |
        sed -E 's/"_[^,}]*,?//g'"#;
    host.sh(PRINT).unwrap()
}

/// Waits until the daemon has looked at the host, from beginning to end, at least once more.
pub(crate) fn await_pass(host: &Host) {
    await_passes(host, 1);
}

/// Waits until the daemon has looked at the host, from beginning to end, `count` times more.
pub(crate) fn await_passes(host: &Host, count: usize) {
    // One may be under way, and the last of these has only begun when it is counted.
    await_looks(host, count + 2);
}

/// Waits until what the daemon does at this moment has ended: it looks again after that.
pub(crate) fn await_rest(host: &Host) {
    await_looks(host, 1);
}

fn await_looks(host: &Host, count: usize) {
    const COUNT: &str = "journalctl -u mainstay F_WAKE=Drift -o cat --no-pager | wc -l";
    let before: usize = host.sh(COUNT).unwrap().trim().parse().unwrap();
    host.wait_for(SOON, &format!("test $({COUNT}) -ge {}", before + count)).unwrap();
}

/// `mainstay status` for programs, with its exit code.
pub(crate) fn status(host: &Host) -> (i32, Value) {
    let output = host.try_sh("mainstay --json status").unwrap();
    let status = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap_or(-1), status)
}

/// What can be seen of a host: by file, unit and container, everything that a needless change would change.
pub(crate) fn snapshot(host: &Host, files: &[&str], units: &[&str]) -> BTreeMap<String, String> {
    let script = format!(
        r#"find {} -printf 'file %p|%i %T@ %C@ %m %U:%G %l\n'
        for unit in {}; do
            echo "unit $unit|$(systemctl show -p InvocationID -p ActiveState -p UnitFileState $unit | tr '\n' ' ')"
        done
        if systemctl -q is-active docker; then
            docker ps -aq | xargs -r docker inspect -f 'container {{{{.Name}}}}|{{{{.Id}}}} {{{{.State.StartedAt}}}} {{{{.State.Status}}}}'
            echo "events|$(docker events --since 1 --until "$(date +%s)" | grep -v exec | tail -n 1)"
        fi
        test ! -d /var/lib/mainstay || find /var/lib/mainstay -maxdepth 1 -type f -printf 'state %p|%i %T@\n'
        echo "jobs|$(systemctl show -P NInstalledJobs)"
        echo "reloads|$(journalctl _PID=1 -o cat --no-pager | grep -c -e '^Reloading' || true)""#,
        files.join(" "),
        units.join(" "),
    );
    let said = host.sh(&script).unwrap();
    said.lines()
        .filter_map(|line| line.split_once('|'))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The names of what differs between two snapshots.
pub(crate) fn changes(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    keys.into_iter().filter(|key| before.get(*key) != after.get(*key)).cloned().collect()
}
