//! A connection observed from outside: which message answers which, without taking part.

mod half;
mod observer;
mod unanswered;

pub use observer::*;
pub use unanswered::MatchedRequest;
