//! Selectors of hosts, by their labels.

use std::collections::BTreeSet;
use std::fmt;

use crate::id::shown;

/// Which hosts have an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Every one.
    All,
    /// Those that match at least one.
    Any(Vec<Place>),
    /// Those that match each.
    Each(Vec<Place>),
    /// Those that do not match.
    Not(Box<Place>),
    /// Those whose label has one of the values; `host` and `environment` are labels too.
    Label {
        /// The label.
        name: String,
        /// The values.
        values: BTreeSet<String>,
    },
}

impl fmt::Display for Place {
    /// Writes it as authors do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::All => f.write_str("all"),
            Place::Any(places) => write!(f, "[{}]", joined(places)),
            Place::Each(places) => {
                let parts: Vec<String> = places.iter().map(part).collect();
                write!(f, "{{ {} }}", parts.join(", "))
            }
            Place::Not(_) | Place::Label { .. } => write!(f, "{{ {} }}", part(self)),
        }
    }
}

/// Writes what stands between braces.
fn part(place: &Place) -> String {
    match place {
        Place::Not(place) => format!("not: {place}"),
        Place::Label { name, values } => {
            let values: Vec<String> = values.iter().map(|value| shown(value)).collect();
            match values.as_slice() {
                [value] => format!("{}: {value}", shown(name)),
                _ => format!("{}: [{}]", shown(name), values.join(", ")),
            }
        }
        Place::All | Place::Any(_) | Place::Each(_) => place.to_string(),
    }
}

fn joined(places: &[Place]) -> String {
    let places: Vec<String> = places.iter().map(ToString::to_string).collect();
    places.join(", ")
}
