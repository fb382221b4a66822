//! The words of suggestions: what was most likely meant, and lists that read well.

use crate::id::shown;

/// Finds what was most likely meant by `wrong`.
pub(super) fn nearest<'k>(wrong: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if wrong.len() > 300 {
        return None;
    }
    let wrong = wrong.to_lowercase();
    let most = match wrong.chars().count() {
        0..=1 => 0,
        2..=4 => 1,
        5..=7 => 2,
        _ => 3,
    };
    let near = |word: &'k str| (strsim::damerau_levenshtein(&wrong, &word.to_lowercase()), word);
    // In a fleet of thousands a suggestion is not worth comparing with every name.
    const MOST_COMPARED: usize = 2000;
    let candidates =
        known.into_iter().take(MOST_COMPARED).filter(|word| word.len().abs_diff(wrong.len()) <= 4).map(near);
    candidates.filter(|(distance, _)| *distance <= most).min().map(|(_, word)| word)
}

/// Words a suggestion.
pub(super) fn did_you_mean(near: &str) -> String {
    format!("did you mean `{}`?", shown(near))
}

/// Words a list: "`a`, `b` and `c`".
pub(super) fn list(words: &[&str]) -> String {
    joined(words, "and")
}

/// Words a choice: "`a`, `b` or `c`".
pub(super) fn one_of(words: &[&str]) -> String {
    joined(words, "or")
}

/// Words the beginning of a list that goes on: "`a`, `b`".
pub(super) fn one_after_another(words: &[&str]) -> String {
    quoted(words).join(", ")
}

fn quoted(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| format!("`{}`", shown(word))).collect()
}

fn joined(words: &[&str], last: &str) -> String {
    match quoted(words).split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.clone(),
        Some((end, rest)) => format!("{} {last} {end}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_near_or_absent() {
        let known = ["state", "enabled", "reload-on", "m"];
        assert_eq!(nearest("enbled", known), Some("enabled"));
        assert_eq!(nearest("reload_on", known), Some("reload-on"));
        assert_eq!(nearest("reloadOn", known), Some("reload-on"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("x", known), None);
    }

    #[test]
    fn lists_read_well() {
        assert_eq!(list(&["a"]), "`a`");
        assert_eq!(one_of(&["a", "b", "c"]), "`a`, `b` or `c`");
    }
}
