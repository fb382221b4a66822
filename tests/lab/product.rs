//! The agent's binary and its Debian package, built once: the one place here that knows what the lab is for.
//!
//! Whoever runs many tests builds first and says where things are (see [`variables`]); a test that is run alone finds no
//! such word and builds by itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::host::Host;
use crate::shell;

/// Where a built binary is.
const BINARY: &str = "MAINSTAY_BIN";
/// Where a built package is.
const PACKAGE: &str = "MAINSTAY_DEB";

/// The cargo profile of what runs on the lab's hosts; see `Cargo.toml` for why it is one of its own.
pub const PROFILE: &str = "lab";

/// The root of the source tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is a folder of the workspace").to_owned()
}

/// The agent's binary; built first unless `MAINSTAY_BIN` names one.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY) {
        return Ok(PathBuf::from(path));
    }
    let mut build = cargo();
    build.args(["build", "--quiet", "--profile", PROFILE, "--package", "mainstay", "--bin", "mainstay"]);
    build.arg("--message-format=json");
    let output = build.stderr(Stdio::inherit()).output().context("failed to start cargo")?;
    let messages = messages(&String::from_utf8_lossy(&output.stdout));
    if !output.status.success() {
        bail!("failed to build the agent\n{}", errors(&messages).join("\n"));
    }
    executable(&messages).context("cargo built the agent but did not say where it is")
}

/// Brings the units to a host without the package, as `mainstay install` would, and the users that they run as. The socket of the
/// endpoint is not among them: the agent makes it where there is no package.
pub fn bring_units(host: &Host) -> Result<()> {
    for folder in ["systemd", "packaging"] {
        for entry in std::fs::read_dir(root().join(folder))? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match folder {
                "systemd" if name == "mainstay.socket" => {}
                "systemd" => host.copy_in(&path, &format!("/usr/lib/systemd/system/{name}"))?,
                _ if name == "sysusers.conf" => host.copy_in(&path, "/usr/lib/sysusers.d/mainstay.conf")?,
                _ => {}
            }
        }
    }
    host.sh("systemd-sysusers mainstay.conf; systemctl daemon-reload")?;
    Ok(())
}

/// The agent's Debian package; built first unless `MAINSTAY_DEB` names one.
pub fn package() -> Result<PathBuf> {
    match std::env::var_os(PACKAGE) {
        Some(path) => Ok(PathBuf::from(path)),
        None => packaged("packaging/deb"),
    }
}

/// The package for distributions that use rpm, built now.
pub fn rpm_package() -> Result<PathBuf> {
    packaged("packaging/rpm")
}

fn packaged(script: &str) -> Result<PathBuf> {
    let binary = binary()?;
    let folder = binary.parent().context("a binary is in a folder")?;
    // Beside its final place and renamed, since tests that run alone together may do this at the same time.
    let scratch = tempfile::tempdir_in(folder).context("failed to make a folder for the package")?;
    let mut build = shell::command("sh");
    build.arg(root().join(script)).arg(&binary).arg(scratch.path());
    let printed =
        shell::check(&mut build, std::time::Duration::from_secs(120)).context("failed to build the package")?;
    let built = Path::new(printed.trim());
    let package = folder.join(built.file_name().with_context(|| format!("{script} printed no path"))?);
    std::fs::rename(built, &package).with_context(|| format!("failed to move the package to {}", package.display()))?;
    Ok(package)
}

/// What tells a test run where the binary and the package are.
pub fn variables() -> Result<[(&'static str, PathBuf); 2]> {
    Ok([(BINARY, binary()?), (PACKAGE, package()?)])
}

/// Cargo as the caller's shell would start it. `cargo run` leaves words of its own in the environment, and some build
/// scripts start over when these change.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let left = |name: &str| {
        let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];
        prefixes.iter().any(|prefix| name.starts_with(prefix)) || matches!(name, "CARGO" | "LD_LIBRARY_PATH")
    };
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(left) {
            command.env_remove(name);
        }
    }
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// What cargo reports as JSON, one message a line.
fn messages(text: &str) -> Vec<serde_json::Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The path of the binary.
fn executable(messages: &[serde_json::Value]) -> Option<PathBuf> {
    let mut paths = messages.iter().filter_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)));
    paths.next_back()
}

/// Why it could not be built; what the compiler only remarks belongs into another place than a test's output.
fn errors(messages: &[serde_json::Value]) -> Vec<String> {
    let diagnostics = messages.iter().filter_map(|message| message.get("message"));
    let errors = diagnostics.filter(|diagnostic| diagnostic.get("level").is_some_and(|level| level == "error"));
    errors.filter_map(|error| error.get("rendered")?.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_where_cargo_says() {
        let said = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
                    {\"reason\":\"compiler-artifact\",\"executable\":\"/t/lab/mainstay\"}\n{\"reason\":\"build-finished\"}\n";
        assert_eq!(executable(&messages(said)), Some(PathBuf::from("/t/lab/mainstay")));
        assert_eq!(executable(&messages("")), None);
    }
}
