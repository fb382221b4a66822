//! What is read when Podman builds an image for a .build quadlet, and so by the containers that run it.

use std::collections::BTreeSet;

use super::{Managed, archive_of, last, named, quadlet_drop_ins, quadlet_text};
use crate::desired::FileKind;
use crate::id::{HostPath, UnitName};

/// Says whether a path is that of a .build quadlet, whose service runs to its end: Podman writes so, not the quadlet.
pub(super) fn is_build(path: &HostPath) -> bool {
    path.quadlet().is_some_and(|file| file.ends_with(".build"))
}

/// Returns the managed paths that a build reads, for its own quadlet and for one that runs its image: these begin again when
/// there is another image.
pub(super) fn reads(path: &HostPath, text: &str, managed: &Managed<'_>) -> BTreeSet<HostPath> {
    match path.quadlet() {
        Some(_) if is_build(path) => of_build(path, text, managed),
        Some(file) if file.ends_with(".container") => built(path, text, managed).into_iter().flatten().collect(),
        _ => BTreeSet::new(),
    }
}

/// Reads the quadlet of the image that a container runs, if that is built.
fn built(path: &HostPath, text: &str, managed: &Managed<'_>) -> Option<BTreeSet<HostPath>> {
    let image = last(text, "Container", "Image")?;
    let build = HostPath::parse(&format!("{}/{image}", path.parent()?)).ok().filter(is_build)?;
    let FileKind::Regular { content, .. } = &managed.get(&build)?.kind else { return None };
    let text = std::str::from_utf8(content).ok()?;
    let mut reads = of_build(&build, &quadlet_text(&build, text, managed), managed);
    reads.extend(quadlet_drop_ins(&build, managed).into_iter().map(|(path, _)| path.clone()));
    reads.insert(build);
    Some(reads)
}

fn of_build(path: &HostPath, text: &str, managed: &Managed<'_>) -> BTreeSet<HostPath> {
    let stem = path.quadlet().and_then(|file| file.strip_suffix(".build")).unwrap_or_default();
    let Ok(service) = UnitName::parse(&format!("{stem}-build.service")) else { return BTreeSet::new() };
    let mut reads = named(&service, text, managed);
    let last = |key: &str| last(text, "Build", key);
    // The folder of the file is what the file copies from.
    let folder = last("SetWorkingDirectory").filter(|value| value == "file").and_then(|_| last("File"));
    if let Some(folder) = folder.and_then(|file| HostPath::parse(&file).ok()?.parent()) {
        reads.extend(managed.keys().filter(|path| path.is_below(folder.as_str())).map(|path| (*path).clone()));
        reads.extend(archive_of(&folder, managed));
    }
    reads
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::desired::DesiredFile;
    use crate::digest::Digest;
    use crate::id::Mode;

    #[test]
    fn a_build_reads_its_folder_and_so_does_what_runs_it() {
        const FOLDER: &str = "/etc/containers/systemd";
        let path = |name: &str| HostPath::parse(name).expect("a path");
        let text = "[Build]\nImageTag=x\nFile=/etc/bl/Containerfile\nSetWorkingDirectory=file\n";
        let beside = |name: &str, text: &str| (path(name), text.to_owned());
        let texts = [
            beside(&format!("{FOLDER}/bl.build"), text),
            beside(&format!("{FOLDER}/bl.build.d/x.conf"), "[Build]\nIgnoreFile=/srv/ignore\n"),
            beside("/etc/bl/Containerfile", ""),
            beside("/etc/bl/d/level", ""),
            beside("/etc/other", ""),
            beside("/srv/ignore", ""),
        ];
        let files: BTreeMap<HostPath, DesiredFile> = texts
            .into_iter()
            .map(|(path, text)| {
                let kind = FileKind::Regular { digest: Digest::of(text.as_bytes()), content: text.into_bytes().into() };
                let (owner, group) = ("root".to_owned(), "root".to_owned());
                (path, DesiredFile { kind, mode: Mode::from_bits(0o644), owner, group })
            })
            .collect();
        let managed = files.iter().collect();
        let of = |quadlet: &str, text: &str| {
            let reads = reads(&path(&format!("{FOLDER}/{quadlet}")), text, &managed);
            reads.iter().map(|path| path.file_name().to_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("bl.build", text), "Containerfile level");
        assert_eq!(of("bl.build", "[Build]\nSetWorkingDirectory=/etc/bl/d\n"), "level");
        let all = "Containerfile level bl.build x.conf ignore";
        assert_eq!(of("web.container", "[Container]\nImage=bl.build\n"), all);
        assert_eq!(of("web.container", "[Container]\nImage=r.lan/web:1\n"), "");
    }
}
