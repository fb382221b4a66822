//! Rollouts: single decisions, and whole fleets that decide by themselves.

#![allow(
    clippy::format_push_string,
    clippy::needless_pass_by_value,
    clippy::too_many_lines,
    reason = "a test tells a story"
)]

mod decisions;
mod overdue;
mod fleet;
mod simulator;
mod courses;
mod crowds;
mod liars;
