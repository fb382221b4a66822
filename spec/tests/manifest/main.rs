//! Repositories in, mistakes out: text in and text out, for every rule of the format.

#![allow(
    clippy::format_push_string,
    clippy::too_many_lines,
    clippy::needless_pass_by_value,
    reason = "a test tells a story"
)]

mod support;

mod check;
mod hostile;
mod layers;
mod resolve;
mod scale;
mod schema;
