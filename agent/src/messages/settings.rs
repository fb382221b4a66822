//! Mistakes in the agent's own settings, as `mainstay run` tells them before it begins.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use clap::Parser as _;

use super::cases;
use crate::cli::Cli;

#[tokio::test]
async fn mistakes_in_the_settings() {
    for case in cases("settings") {
        let scratch = tempfile::tempdir().expect("a folder");
        let root = scratch.path().to_str().expect("a path is UTF-8").to_owned();
        let place = |path: &str| format!("{root}{path}");
        for (header, text) in &case.files {
            let (path, mode) = header.split_once(' ').unwrap_or((header, "(0644)"));
            let mode = u32::from_str_radix(mode.trim_matches(['(', ')']), 8).expect("a mode");
            let path = PathBuf::from(place(path));
            fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
            fs::write(&path, text.replace(" /etc/", &format!(" {root}/etc/"))).expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        }
        let (settings, state) = (place("/etc/mainstay/agent.yaml"), place("/var/lib/mainstay"));
        let words = ["mainstay", "--settings", &settings, "--state", &state, "--color", "never", "run"];
        let cli = Cli::try_parse_from(words).expect("a command");
        let error = tokio::time::timeout(std::time::Duration::from_secs(20), Box::pin(cli.run())).await;
        let error = error.expect("it does not begin").expect_err("a mistake");
        case.says("mainstay run", &crate::told(&error).replace(&root, ""));
    }
}
