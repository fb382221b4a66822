//! Figures: many samples of one thing as a median with its range, and rows of them beside their floors.

use std::time::Duration;

/// Several samples of the same thing, in microseconds or kilobytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(Vec<u64>);

impl FromIterator<u64> for Samples {
    fn from_iter<T: IntoIterator<Item = u64>>(samples: T) -> Samples {
        let mut samples: Vec<u64> = samples.into_iter().collect();
        samples.sort_unstable();
        Samples(samples)
    }
}

impl Samples {
    /// The one in the middle; nothing of nothing.
    pub(super) fn median(&self) -> Option<u64> {
        self.0.get(self.0.len() / 2).copied()
    }

    fn range(&self) -> Option<(u64, u64)> {
        Some((*self.0.first()?, *self.0.last()?))
    }

    /// Each moved by the same.
    pub(super) fn plus(&self, more: u64) -> Samples {
        self.0.iter().map(|sample| sample + more).collect()
    }

    fn text(&self, unit: Unit) -> String {
        match (self.median(), self.range()) {
            (Some(median), Some((least, most))) if self.0.len() > 1 => {
                format!("{} ({}-{})", unit.text(median), unit.number(least), unit.number(most))
            }
            (Some(median), _) => unit.text(median),
            (None, _) => "not measured".to_owned(),
        }
    }
}

/// How a figure is shown.
#[derive(Clone, Copy)]
pub(super) enum Unit {
    /// Microseconds, shown as milliseconds.
    Time,
    /// Kilobytes, shown as megabytes.
    Memory,
    /// Milliseconds of computing an hour, shown as seconds.
    Hourly,
    /// Thousandths of something a second.
    PerSecond,
}

impl Unit {
    #[allow(clippy::cast_precision_loss, reason = "figures for people, far below 2^52")]
    fn number(self, value: u64) -> String {
        let thousandths = value as f64 / 1000.0;
        match self {
            Unit::Time if thousandths >= 100.0 => format!("{thousandths:.0}"),
            Unit::PerSecond => format!("{thousandths:.2}"),
            Unit::Time | Unit::Hourly => format!("{thousandths:.1}"),
            Unit::Memory => format!("{:.1}", value as f64 / 1024.0),
        }
    }

    fn text(self, value: u64) -> String {
        let unit = match self {
            Unit::Time => "ms",
            Unit::Memory => "MB",
            Unit::Hourly => "s/h",
            Unit::PerSecond => "/s",
        };
        format!("{} {unit}", self.number(value))
    }
}

/// One line of the table.
pub(super) struct Row {
    pub(super) what: String,
    pub(super) unit: Unit,
    pub(super) measured: Samples,
    pub(super) floor: Option<Samples>,
    pub(super) aim: &'static str,
}

/// Prints the rows, aligned.
pub(super) fn print(rows: &[Row]) {
    let heads = ["what", "measured", "floor", "ratio", "aim"].map(str::to_owned);
    let lines: Vec<[String; 5]> = std::iter::once(heads).chain(rows.iter().map(line)).collect();
    let mut widths = [0; 5];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.len().max(*width);
        }
    }
    for (number, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        println!("| {} |", cells.collect::<Vec<_>>().join(" | "));
        if number == 0 {
            let rule = widths.map(|width| "-".repeat(width));
            println!("| {} |", rule.join(" | "));
        }
    }
}

fn line(row: &Row) -> [String; 5] {
    let floor = row.floor.as_ref();
    let medians = row.measured.median().zip(floor.and_then(Samples::median)).filter(|(_, floor)| *floor > 0);
    let measured = row.measured.text(row.unit);
    let floor = floor.map_or_else(|| "-".to_owned(), |floor| floor.text(row.unit));
    let ratio = medians.map_or_else(|| "-".to_owned(), |(measured, floor)| ratio(measured, floor));
    [row.what.clone(), measured, floor, ratio, row.aim.to_owned()]
}

#[allow(clippy::cast_precision_loss, reason = "figures for people, far below 2^52")]
fn ratio(measured: u64, floor: u64) -> String {
    format!("{:.2}", measured as f64 / floor as f64)
}

/// What was computed within a time, made an hour: in milliseconds.
pub(super) fn hourly(cpu_micros: u64, within: Duration) -> u64 {
    let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX).max(1);
    cpu_micros * 3600 / within
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_medians_with_their_range() {
        let samples: Samples = [3_000, 1_000, 250_000].into_iter().collect();
        assert_eq!(samples.text(Unit::Time), "3.0 ms (1.0-250)");
        assert_eq!(samples.plus(1_000).median(), Some(4_000));
        assert_eq!(Samples::default().text(Unit::Memory), "not measured");
        assert_eq!(Unit::Hourly.text(hourly(70_000, Duration::from_secs(70))), "3.6 s/h");
        assert_eq!(ratio(3, 2), "1.50");
    }
}
