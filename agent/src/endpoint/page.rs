//! The pages, of a host and of a fleet: a few files that need nothing from anywhere else. What they show, they ask for as anybody would.

use hyper::StatusCode;

use super::answer::{self, Answer};

/// A file of the page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    kind: &'static str,
    text: &'static str,
}

pub(super) static INDEX: File = File { kind: "text/html; charset=utf-8", text: include_str!("page/index.html") };
pub(super) static STYLE: File = File { kind: "text/css; charset=utf-8", text: include_str!("page/style.css") };
pub(super) static ICON: File = File { kind: "image/svg+xml", text: include_str!("page/icon.svg") };
pub(super) static SCRIPT: File = File { kind: "text/javascript; charset=utf-8", text: include_str!("page/script.js") };

pub(super) static FLEET: File = File { kind: "text/html; charset=utf-8", text: include_str!("page/fleet.html") };
pub(super) static FLEET_SCRIPT: File =
    File { kind: "text/javascript; charset=utf-8", text: include_str!("page/fleet.js") };

/// Answers with a file.
pub(super) fn answer(file: &'static File) -> Answer {
    answer::whole(StatusCode::OK, file.kind, file.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_nobody_else_and_never_makes_markup_of_what_it_is_told() {
        for (file, name) in [
            (&INDEX, "index.html"),
            (&STYLE, "style.css"),
            (&SCRIPT, "script.js"),
            (&ICON, "icon.svg"),
            (&FLEET, "fleet.html"),
            (&FLEET_SCRIPT, "fleet.js"),
        ] {
            for word in [
                "http://",
                "https://",
                "//cdn",
                "@import",
                "url(",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "style=\"",
                "onclick",
            ] {
                let text = file.text.replace("http://www.w3.org/2000/svg", "");
                assert!(!text.contains(word), "{name}: {word}");
            }
        }
        let is_inline = |page: &File| page.text.contains("<script>") || page.text.contains("<style");
        assert!(!is_inline(&INDEX) && !is_inline(&FLEET), "nothing is inline");
    }
}
