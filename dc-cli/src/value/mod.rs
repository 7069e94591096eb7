//! Value parsers, one file per kind. Each is a clap `value_parser` and describes its values in its
//! [`ValueError`](crate::ValueError).

pub mod account;
pub mod address;
pub mod count;
pub mod duration;
mod number;
pub mod path;
pub mod permissions;
pub mod size;
