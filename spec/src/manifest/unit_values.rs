//! Values that systemd would not take as they were meant: lengths of time, times of the calendar, commands for a shell.

use super::page::Page;
use super::unit_rules::Assignment;
use crate::id::shown;

/// Directives of one word or list of names, behind whose value people write comments.
const BARE: [&str; 24] = [
    "User",
    "Group",
    "UMask",
    "Nice",
    "Restart",
    "Type",
    "KillMode",
    "KillSignal",
    "Persistent",
    "OnCalendar",
    "MemoryMax",
    "MemoryHigh",
    "CPUQuota",
    "CPUWeight",
    "TasksMax",
    "LimitNOFILE",
    "After",
    "Before",
    "Requires",
    "Wants",
    "BindsTo",
    "PartOf",
    "WantedBy",
    "RequiredBy",
];

/// What only a shell understands.
const SHELL: [&str; 10] = ["&&", "||", "|", ">", ">>", "<", "&", "2>&1", "2>/dev/null", ">/dev/null"];

/// Checks one value; returns whether it was complained about.
pub(super) fn check(page: &mut Page<'_>, it: &Assignment<'_>) -> bool {
    let before = page.errors();
    match it.key {
        // What specifiers stand for is not known here.
        _ if it.value.is_empty() || (it.value.contains('%') && is_time(it.key)) => {}
        key if key.starts_with("Exec") => shell(page, it),
        "Environment" => environment(page, it),
        key if is_time(key) || BARE.contains(&key) => bare(page, it),
        _ => {}
    }
    page.errors() > before
}

fn is_time(key: &str) -> bool {
    key.ends_with("Sec") && !key.ends_with("NSec")
}

fn bare(page: &mut Page<'_>, it: &Assignment<'_>) {
    let value = it.value.as_str();
    let comment = value.find(" #").or_else(|| value.find(" ;")).or_else(|| value.find("\t#"));
    if let Some(at) = comment {
        let message =
            format!("`{}=` takes all of `{}`: systemd knows no comments behind a value", it.key, shown(value));
        page.error("unit-value", it.value_extent, message).help(format!(
            "write {}={}, and the comment on a line of its own",
            it.key,
            shown(value[..at].trim_end())
        ));
    } else if is_time(it.key) && !is_time_span(value) {
        let message = format!("`{}=` does not take `{}`, which is no length of time", it.key, shown(value));
        page.error("unit-value", it.value_extent, message).help("write it such as 90, 30s, 5min, 1h 30min or infinity");
    } else if it.key == "CPUQuota" && !value.ends_with('%') {
        let message = format!("`CPUQuota=` does not take `{}`: it is a percentage of one processor", shown(value));
        page.error("unit-value", it.value_extent, message).help("write it such as 50%, or 200% for two processors");
    } else if it.key == "OnCalendar" {
        calendar(page, it);
    }
}

/// Says whether systemd reads it as a length of time (systemd.time(7)): numbers, each with or without a unit.
fn is_time_span(text: &str) -> bool {
    const UNITS: [&str; 34] = [
        "", "us", "µs", "μs", "usec", "ms", "msec", "s", "sec", "second", "seconds", "m", "min", "minute", "minutes",
        "h", "hr", "hour", "hours", "d", "day", "days", "w", "week", "weeks", "M", "month", "months", "y", "year",
        "years", "ns", "nsec", "μsec",
    ];
    if text == "infinity" {
        return true;
    }
    let mut rest = text.trim();
    while !rest.is_empty() {
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let behind = rest[number..].trim_start();
        let unit = behind.len() - behind.trim_start_matches(char::is_alphabetic).len();
        if number == 0 || !UNITS.contains(&&behind[..unit]) {
            return false;
        }
        rest = behind[unit..].trim_start();
    }
    true
}

/// Complains about what is no time of the calendar: as cron writes it, or in words.
fn calendar(page: &mut Page<'_>, it: &Assignment<'_>) {
    // All that systemd takes, its own misspelling included; those with a hyphen are no plain word and pass anyway.
    const SHORT: [&str; 11] = [
        "minutely",
        "hourly",
        "daily",
        "monthly",
        "weekly",
        "yearly",
        "annually",
        "anually",
        "quarterly",
        "semiannually",
        "biannually",
    ];
    const DAYS: [&str; 14] = [
        "mon",
        "tue",
        "wed",
        "thu",
        "fri",
        "sat",
        "sun",
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
    ];
    let words: Vec<&str> = it.value.split_whitespace().collect();
    let is_cron = |word: &&str| word.chars().all(|c| c.is_ascii_digit() || "*/,-".contains(c)) && !word.contains("*-");
    let first = words.first().copied().unwrap_or_default().to_ascii_lowercase();
    let message = format!("`OnCalendar=` does not take `{}`", shown(&it.value));
    if words.len() == 5 && words.iter().all(is_cron) {
        let help = match (words[0].parse::<u8>(), words[1].parse::<u8>(), &words[2..]) {
            (Ok(minute), Ok(hour), ["*", "*", "*"]) => {
                format!("that is cron's form: write *-*-* {hour:02}:{minute:02}:00")
            }
            _ => "that is cron's form: systemd's is such as Mon..Fri *-*-* 03:00:00 or *:0/15".to_owned(),
        };
        page.error("unit-value", it.value_extent, message).help(help);
    } else if first.chars().all(|c| c.is_ascii_alphabetic())
        && !SHORT.contains(&first.as_str())
        && !DAYS.contains(&first.as_str())
    {
        page.error("unit-value", it.value_extent, message).help(
            "write it such as hourly, daily, Mon..Fri 03:00 or *-*-01 00:00:00; `systemd-analyze calendar` explains it",
        );
    }
}

/// Complains about words that are no assignment, most often the rest of a value with a space.
fn environment(page: &mut Page<'_>, it: &Assignment<'_>) {
    let words = shlex::split(&it.value).unwrap_or_default();
    let Some(wrong) = words.iter().find(|word| !word.contains('=')) else { return };
    let message = format!("systemd ignores `{}` in `Environment=`: it is no NAME=value", shown(wrong));
    page.error("unit-value", it.value_extent, message)
        .help("put quotes around an assignment whose value holds a space: Environment=\"NAME=two words\"");
}

/// Warns about what only a shell understands: no shell reads the line, and the program gets the words.
fn shell(page: &mut Page<'_>, it: &Assignment<'_>) {
    let words = shlex::split(&it.value).unwrap_or_default();
    let Some(sign) = words.iter().find(|word| SHELL.contains(&word.as_str())) else { return };
    let message = format!("no shell reads `{}=`: the program gets `{}` as a word", it.key, shown(sign));
    page.warning("unit-shell", it.value_extent, message)
        .help("write /bin/sh -c '…' around it, or a line for each command");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_as_systemd_does() {
        for good in ["90", "30s", "5min", "1h 30min", "1h30m", "0.5s", "infinity", "2 days", "100 ms", "1y 12month"] {
            assert!(is_time_span(good), "{good}");
        }
        for bad in ["5 sec onds", "soon", "1hour30", "s", "10 minuts", "-5"] {
            assert_eq!(is_time_span(bad), bad == "1hour30", "{bad}");
        }
    }
}
