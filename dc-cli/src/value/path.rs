//! Paths of files that are opened later, after a daemon has changed its directory.

use crate::error::ValueError;
use clap::builder::{PathBufValueParser, TypedValueParser};
use std::path::PathBuf;

/// A path, made absolute in the directory where the program was started.
#[must_use]
pub fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| {
        std::path::absolute(path).map_err(|error| ValueError {
            wrong: format!("cannot be made absolute: {error}").into(),
            takes: None,
        })
    })
}
