//! What to do about what the kernel, an engine or a registry says, where their words alone leave a person alone.

use std::path::Path;

/// Adds what to do to why a step on `object` failed.
pub(super) fn added(why: &str, object: &str) -> String {
    let folder = Path::new(object).ancestors().skip(1).find(|folder| folder.is_dir());
    let shown = folder.map_or_else(|| "/".to_owned(), |folder| folder.display().to_string());
    let has = |words: &str| why.contains(words);
    let remedy = if has("Read-only file system") {
        format!(
            "`findmnt --target {shown}` shows whether it is mounted so; the service may write below /etc, /usr/local, /srv, \
             /var and /opt: for more, add `ReadWritePaths=` in a drop-in of mainstay.service"
        )
    } else if has("No space left on device") && folder.is_some_and(lacks_inodes) {
        format!("there is space, and no room for another file: `df -i {shown}`; remove small files")
    } else if has("No space left on device") {
        format!("`df -h {shown}` shows what is full; it is tried again")
    } else if has("address already in use") || has("port is already allocated") {
        "`ss -ltunp` shows who has it: stop that, or publish another port".to_owned()
    } else if has("certificate signed by unknown authority") {
        "put the authority's certificate into ca.crt below /etc/containers/certs.d/REGISTRY for Podman, or \
         /etc/docker/certs.d/REGISTRY for Docker"
            .to_owned()
    } else {
        return why.to_owned();
    };
    format!("{why} ({remedy})")
}

/// Says whether a file system has no inodes left. One that counts none makes them as they are needed.
fn lacks_inodes(folder: &Path) -> bool {
    rustix::fs::statvfs(folder).is_ok_and(|seen| seen.f_files > 0 && seen.f_favail == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_told_with_where_to_look() {
        let folder = tempfile::tempdir().expect("a folder");
        let object = folder.path().join("deeper/file").display().to_string();
        let shown = folder.path().display().to_string();
        assert_eq!(
            added("failed to write: No space left on device", &object),
            format!("failed to write: No space left on device (`df -h {shown}` shows what is full; it is tried again)")
        );
        assert!(added("Read-only file system", &object).contains(&format!("`findmnt --target {shown}`")));
        assert_eq!(added("Permission denied", &object), "Permission denied");
        assert!(added("No space left on device", "page").contains("`df -h /`"));
    }
}
