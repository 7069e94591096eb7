//! The harness of the whole-system tests, the simulation, and further checks of distcache from outside.

pub mod harness;
pub mod man_page;
pub mod simulation;
