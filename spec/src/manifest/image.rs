//! The grammar of image references, as registries and engines share it.

use super::page::Page;
use super::page::not_supported;
use super::yaml::Node;
use crate::id::shown;

/// Reads an image reference; warns when nothing pins it.
pub(super) fn read(page: &mut Page<'_>, node: &Node) -> Option<String> {
    let text = page.text(node, "`image`")?;
    if text.contains("{{") {
        not_supported(page, node.extent, "a template (`{{`) in `image`").help("write the reference itself");
        return None;
    }
    match pin(text) {
        Ok(Pin::Digest | Pin::Tag) => {}
        Ok(pin) => {
            let (what, name) = match pin {
                Pin::Latest => ("has the tag `latest`, which moves", text.trim_end_matches(":latest")),
                _ => ("has no tag", text),
            };
            page.warning("image-not-pinned", node.extent, format!("image `{}` {what}", shown(text))).help(format!(
                "name a version, as in {}:1.4, or a digest: otherwise a commit does not say what runs",
                shown(name)
            ));
        }
        Err((why, help)) => {
            page.error("container-image", node.extent, format!("`{}` is not an image reference: {why}", shown(text)))
                .help(help);
            return None;
        }
    }
    Some(text.to_owned())
}

/// What keeps a reference from meaning something else tomorrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pin {
    Digest,
    Tag,
    Latest,
    Nothing,
}

fn pin(text: &str) -> Result<Pin, (String, String)> {
    let general = || "write registry/name:tag, such as registry.example/shop/web:1.4".to_owned();
    let fail = |why: String| Err((why, general()));
    if text.is_empty() {
        return fail("it is empty".to_owned());
    }
    if text.len() > 512 {
        return fail("it is longer than 512 characters".to_owned());
    }
    if text.contains("://") {
        let bare = text.split_once("://").map_or("", |(_, rest)| rest);
        return Err(("it is a URL".to_owned(), format!("write it without the scheme: {}", shown(bare))));
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return fail("it holds a space or control character".to_owned());
    }
    let (named, digest) = match text.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (text, None),
    };
    if let Some(digest) = digest {
        let good = digest
            .strip_prefix("sha256:")
            .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        if !good {
            return fail("what follows `@` is not sha256: and 64 hex digits".to_owned());
        }
    }
    let path_start = named.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match named[path_start..].split_once(':') {
        Some((last, tag)) => (&named[..path_start + last.len()], Some(tag)),
        None => (named, None),
    };
    if let Some(tag) = tag {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let good = (1..=128).contains(&tag.len()) && tag.chars().all(plain) && !tag.starts_with(['.', '-']);
        if !good {
            return fail(format!("`{}` is not a tag", shown(tag)));
        }
    }
    let rest = &text[name.len()..];
    check_name(name, rest, &general)?;
    Ok(match (digest, tag) {
        (Some(_), _) => Pin::Digest,
        (None, Some("latest")) => Pin::Latest,
        (None, Some(_)) => Pin::Tag,
        (None, None) => Pin::Nothing,
    })
}

fn check_name(name: &str, rest: &str, general: &dyn Fn() -> String) -> Result<(), (String, String)> {
    let mut parts: Vec<&str> = name.split('/').collect();
    if parts.len() > 1 && (parts[0].contains(['.', ':']) || parts[0] == "localhost") {
        let registry = parts.remove(0);
        let (host, port) = registry.rsplit_once(':').unwrap_or((registry, "443"));
        let label = |c: char| c.is_ascii_alphanumeric() || ".-[]:".contains(c);
        if host.is_empty() || !host.chars().all(label) || port.parse::<u16>().is_err() {
            return Err((format!("`{}` is not a registry's host and port", shown(registry)), general()));
        }
    }
    for part in parts {
        if part.chars().any(|c| c.is_ascii_uppercase()) {
            return Err((
                "the name of a repository is lower-case".to_owned(),
                format!("write {}{}", shown(&name.to_lowercase()), shown(rest)),
            ));
        }
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-".contains(c);
        if !edge(part.chars().next()) || !edge(part.chars().last()) || !part.chars().all(plain) {
            return Err((format!("`{}` is not a part of a repository's name", shown(part)), general()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let digest = format!("web@sha256:{}", "a".repeat(64));
        for (text, expected) in [
            ("nginx", Pin::Nothing),
            ("nginx:latest", Pin::Latest),
            ("nginx:1.27", Pin::Tag),
            ("localhost:5000/a/b", Pin::Nothing),
            ("registry.lan:5000/exporter:1.4", Pin::Tag),
            (digest.as_str(), Pin::Digest),
            ("a__b/c-d.e:x", Pin::Tag),
        ] {
            assert_eq!(pin(text), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "a b",
            "Nginx",
            "a//b",
            "a:",
            "a:b c",
            "https://x/y",
            "a@sha256:12",
            "-a",
            "a/",
            "/a",
            "a:x:y",
            "x.y:port/a",
            "ä",
        ] {
            assert!(pin(bad).is_err(), "{bad:?}");
        }
    }
}
