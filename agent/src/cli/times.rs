//! Times as people write them: of the day, of this host, or anywhere.

use std::time::Duration;

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _, Zoned};

/// Reads a time that is to come: a time of the day is the next one.
pub(super) fn next(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let next = |today: DateTime| if today > now.datetime() { Ok(today) } else { today.checked_add(1.day()) };
    read(text, now, next, "06:30, 2026-11-22T06:30 or 2026-11-22T05:30Z")
}

/// Reads a time that has been: a time of the day is the last one, and a length is so long ago.
pub(super) fn last(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let ago = humantime::parse_duration(text).ok().and_then(|ago| before(now.timestamp(), ago));
    if let Some(at) = ago {
        return Ok(at);
    }
    let last = |today: DateTime| if today <= now.datetime() { Ok(today) } else { today.checked_sub(1.day()) };
    read(text, now, last, "10m, 06:30, 2026-11-22T06:30 or 2026-11-22T05:30Z")
}

fn before(now: Timestamp, ago: Duration) -> Option<Timestamp> {
    now.checked_sub(SignedDuration::try_from(ago).ok()?).ok()
}

fn read(
    text: &str,
    now: &Zoned,
    which: impl Fn(DateTime) -> Result<DateTime, jiff::Error>,
    examples: &str,
) -> Result<Timestamp, String> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(timestamp);
    }
    let zone = |at: DateTime, zone: TimeZone| at.to_zoned(zone).map(|at| at.timestamp());
    // A time alone is read from a text with a date as well: the date comes first.
    let read = match (text.parse::<DateTime>(), text.parse::<Time>()) {
        (Ok(at), _) => zone(at, now.time_zone().clone()),
        (_, Ok(time)) => which(now.date().to_datetime(time)).and_then(|at| zone(at, now.time_zone().clone())),
        (_, Err(error)) => Err(error),
    };
    read.map_err(|_| format!("`{text}` is no time: write it like {examples}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let now: Zoned = "2026-11-21T22:30:00+01:00[Europe/Berlin]".parse().expect("a time");
        let read = |text: &str| next(text, &now).map(|at| at.to_string());
        assert_eq!(read("23:00").as_deref(), Ok("2026-11-21T22:00:00Z"));
        assert_eq!(read("06:30").as_deref(), Ok("2026-11-22T05:30:00Z"), "the next one");
        assert_eq!(read("2026-11-25T08:00").as_deref(), Ok("2026-11-25T07:00:00Z"));
        assert_eq!(read("2026-11-25T08:00Z").as_deref(), Ok("2026-11-25T08:00:00Z"));
        assert!(read("tomorrow").is_err_and(|text| text.contains("06:30")));
        let read = |text: &str| last(text, &now).map(|at| at.to_string());
        assert_eq!(read("23:00").as_deref(), Ok("2026-11-20T22:00:00Z"), "the last one");
        assert_eq!(read("06:30").as_deref(), Ok("2026-11-21T05:30:00Z"));
        assert_eq!(read("90m").as_deref(), Ok("2026-11-21T20:00:00Z"));
        assert!(read("999999999999y").is_err());
    }
}
