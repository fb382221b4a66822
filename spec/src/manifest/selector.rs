//! Selectors of hosts, by their labels.

use std::collections::BTreeSet;

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
