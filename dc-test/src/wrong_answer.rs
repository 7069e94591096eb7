//! The error for a wrong answer: request, expectation and actual answer.

use std::fmt;

/// An answer that no server may give.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct WrongAnswer {
    asked: String,
    expected: String,
    got: String,
}

impl WrongAnswer {
    /// Request, expectation and actual answer, in words.
    pub(crate) fn new(asked: String, expected: String, got: String) -> Box<Self> {
        Box::new(Self { asked, expected, got })
    }
}

impl fmt::Display for WrongAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, expected, got } = self;
        write!(f, "wrong answer to {asked}: expected {expected}; got {got}")
    }
}
