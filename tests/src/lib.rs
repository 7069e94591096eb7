//! The harness of the whole-system tests, and what else checks distcache from outside.

pub mod harness;
