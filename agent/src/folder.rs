//! A local folder as a tree: `mainstay check` and `mainstay once --dir` read what an author has in hand.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use spec::tree::{Entry, Tree};

use crate::git::Limits;

/// Reads every file below `folder`, without following links; `.git` is left out.
///
/// # Errors
/// A folder or file that cannot be read: an unreadable file never means "nothing is wanted".
pub fn read(folder: &Path, limits: &Limits) -> io::Result<Tree> {
    let mut tree = Tree::default();
    let mut total = 0;
    walk(folder, "", limits, &mut total, &mut tree)?;
    Ok(tree)
}

fn walk(folder: &Path, prefix: &str, limits: &Limits, total: &mut u64, tree: &mut Tree) -> io::Result<()> {
    let context = |path: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    for entry in fs::read_dir(folder).map_err(|error| context(folder, error))? {
        let entry = entry.map_err(|error| context(folder, error))?;
        let (path, name) = (entry.path(), entry.file_name());
        let shown = format!("{prefix}{}", name.to_string_lossy());
        if prefix.is_empty() && name == ".git" {
            continue;
        }
        if tree.entries.len() >= limits.max_entries {
            return Err(io::Error::other(format!("{} holds more than {} files", folder.display(), limits.max_entries)));
        }
        let metadata = fs::symlink_metadata(&path).map_err(|error| context(&path, error))?;
        let found = if name.to_str().is_none() {
            Entry::Refused { why: "its name is not UTF-8".to_owned() }
        } else if metadata.is_dir() {
            walk(&path, &format!("{shown}/"), limits, total, tree)?;
            continue;
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path).map_err(|error| context(&path, error))?;
            Entry::Symlink { target: target.to_string_lossy().into_owned() }
        } else if !metadata.is_file() {
            Entry::Refused { why: "it is neither a file nor a folder".to_owned() }
        } else if metadata.len() > limits.max_blob {
            Entry::Refused {
                why: format!(
                    "it has {} MiB, and {} MiB are the most that is read",
                    metadata.len().div_ceil(1 << 20),
                    limits.max_blob >> 20
                ),
            }
        } else {
            *total += metadata.len();
            if *total > limits.max_total {
                return Err(io::Error::other(format!(
                    "{} holds more than {} bytes",
                    folder.display(),
                    limits.max_total
                )));
            }
            let bytes = fs::read(&path).map_err(|error| context(&path, error))?;
            Entry::File { bytes: bytes.into(), executable: metadata.permissions().mode() & 0o100 != 0 }
        };
        tree.entries.insert(shown, found);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_files_links_and_the_executable_bit() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("apps/web/files")).expect("folders");
        fs::create_dir_all(at(".git")).expect("folders");
        fs::write(at(".git/config"), "x").expect("a file");
        fs::write(at("fleet.yaml"), "fleet: home").expect("a file");
        fs::write(at("apps/web/files/run"), "#!").expect("a file");
        fs::set_permissions(at("apps/web/files/run"), fs::Permissions::from_mode(0o755)).expect("a mode");
        std::os::unix::fs::symlink("/etc/shadow", at("apps/web/link")).expect("a link");
        let limits = Limits { max_blob: 10_000, max_entries: 100, max_total: 100_000 };
        let tree = read(folder.path(), &limits).expect("a tree");
        let names: Vec<&str> = tree.entries.keys().map(String::as_str).collect();
        assert_eq!(names, ["apps/web/files/run", "apps/web/link", "fleet.yaml"]);
        assert_eq!(tree.entries["apps/web/files/run"], Entry::File { bytes: (*b"#!").into(), executable: true });
        assert_eq!(tree.entries["apps/web/link"], Entry::Symlink { target: "/etc/shadow".to_owned() });
        assert!(read(folder.path(), &Limits { max_entries: 1, ..limits }).is_err());
        assert!(read(&at("nothing"), &limits).is_err());
    }
}
