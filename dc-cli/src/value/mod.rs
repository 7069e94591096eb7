//! The parsers of values, one file a kind. Each is handed to clap as a `value_parser` and says in its
//! [`ValueError`](crate::ValueError) what it takes.

pub mod account;
pub mod address;
pub mod count;
pub mod duration;
mod number;
pub mod path;
pub mod permissions;
pub mod size;
