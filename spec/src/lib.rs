//! What mainstay decides: everything that can be computed without touching the world.
//!
//! Nothing in this crate reads a file, the clock, the environment or a network, and nothing in it is random. The order
//! of the modules below is the order of reading and of dependency: a module names only modules above it.

#![forbid(unsafe_code)]

pub mod digest;
pub mod id;
pub mod length;
pub mod tree;
pub mod diagnostic;
pub mod check;
pub mod container;
pub mod authority;
pub mod artifact;
pub mod sealed;
pub mod calendar;
pub mod trust;
pub mod settings;
pub mod manifest;
pub mod schema;
pub mod desired;
pub mod unpack;
pub mod observed;
pub mod pause;
pub mod memory;
pub mod inputs;
pub mod images;
pub mod resolve;
pub mod plan;
pub mod course;
pub mod handover;
pub mod pins;
pub mod journal;
pub mod record;
pub mod rollout;
pub mod lookout;
pub mod forecast;
pub mod schedule;
