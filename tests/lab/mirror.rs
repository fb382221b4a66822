//! Finds the Debian mirror that this machine already uses, so that no host name is written down anywhere in the lab.
//!
//! Both forms of apt sources are read: one-line (`*.list`) and deb822 (`*.sources`).

use std::path::Path;

use anyhow::{Context, Result, bail};

/// The address of the first Debian archive among the machine's apt sources.
pub(crate) fn of_this_machine() -> Result<String> {
    let apt = Path::new("/etc/apt");
    let mut files = vec![apt.join("sources.list")];
    let parts = apt.join("sources.list.d");
    if parts.is_dir() {
        let entries = std::fs::read_dir(&parts).with_context(|| format!("failed to list {}", parts.display()))?;
        for entry in entries {
            files.push(entry.context("failed to list the apt sources")?.path());
        }
    }
    files.sort();
    for file in files.iter().filter(|file| file.is_file()) {
        let text = std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
        let addresses = match file.extension().and_then(|end| end.to_str()) {
            Some("sources") => deb822(&text),
            Some("list") => one_line(&text),
            _ => Vec::new(),
        };
        if let Some(address) = addresses.into_iter().find(|address| is_debian(address)) {
            return Ok(address);
        }
    }
    bail!(
        "no Debian mirror among /etc/apt/sources.list and /etc/apt/sources.list.d; add one, or point MAINSTAY_LAB_CACHE at a folder with a root tree that another machine built"
    )
}

/// A Debian archive by the shape of its path; `debian-security` holds updates only.
fn is_debian(address: &str) -> bool {
    address.trim_end_matches('/').ends_with("/debian")
}

fn one_line(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("deb "));
    lines
        .filter_map(|rest| {
            // `[ signed-by=… arch=… ]` may stand before the address.
            let rest = match rest.trim_start().strip_prefix('[') {
                Some(options) => options.split_once(']')?.1,
                None => rest,
            };
            rest.split_whitespace().next().map(str::to_owned)
        })
        .collect()
}

fn deb822(text: &str) -> Vec<String> {
    let mut addresses = Vec::new();
    for stanza in text.split("\n\n") {
        let mut binary = false;
        let mut found = Vec::new();
        let mut field = String::new();
        for line in stanza.lines().filter(|line| !line.starts_with('#')) {
            let value = if line.starts_with([' ', '\t']) {
                line
            } else {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                field = name.to_ascii_lowercase();
                value
            };
            match field.as_str() {
                "types" => binary |= value.split_whitespace().any(|kind| kind == "deb"),
                "uris" => found.extend(value.split_whitespace().map(str::to_owned)),
                "enabled" if value.trim() == "no" => found.clear(),
                _ => {}
            }
        }
        if binary {
            addresses.extend(found);
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_sources() {
        let text = "# deb http://old/debian x main\ndeb [arch=amd64 signed-by=/k] http://m.example/debian/ bookworm main\n\
                    deb-src http://m.example/debian bookworm main\ndeb http://s.example/debian-security x main\n";
        assert_eq!(one_line(text), ["http://m.example/debian/", "http://s.example/debian-security"]);
        assert!(is_debian("http://m.example/debian/") && !is_debian("http://s.example/debian-security"));
    }

    #[test]
    fn deb822_sources() {
        let text = "Types: deb deb-src\n# URIs: http://old/debian\nURIs: http://m.example/debian\n http://n.example/debian\n\
                    Suites: x\n\nTypes: deb-src\nURIs: http://src.example/debian\n";
        assert_eq!(deb822(text), ["http://m.example/debian", "http://n.example/debian"]);
    }
}
