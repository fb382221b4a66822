//! One case for each thing that can be wrong, with what is said about it.

mod artifacts;
mod checks;
mod conflicts;
mod compose;
mod containers;
mod drop_ins;
mod endpoints;
mod files;
mod fleet;
mod overlays;
mod place;
mod policies;
mod quadlets;
mod rollouts;
mod secrets;
mod templates;
mod traces;
mod tree;
mod unit_text;
mod units;
mod users;
mod yaml;
