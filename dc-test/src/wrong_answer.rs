//! The message about a wrong answer: what was asked, what was expected, what came.

use crate::content;
use crate::model::PendingSessionOp;
use libdc::wire::frame::Operation;
use libdc::wire::session::SessionAnswer;
use std::fmt;

/// An answer that no server may give.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct WrongAnswer {
    asked: String,
    expected: String,
    got: String,
}

impl WrongAnswer {
    pub(crate) fn new(question: &PendingSessionOp, expected: String, answer: SessionAnswer<'_>) -> Box<Self> {
        let id: String = content::id(question.id).iter().map(|byte| format!("{byte:02x}")).collect();
        let mut asked = format!("{} of {id}", Operation::Session(question.operation).name());
        if let Some(content) = &question.content {
            asked += &format!(" with {} bytes for {} ms", content.len, content.timeout_ms);
        }
        let got = match answer {
            SessionAnswer::Status(status) => status.name().to_owned(),
            SessionAnswer::Session(bytes) => {
                let begin: String = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
                format!("{} bytes that begin with {begin} and were not stored, or not last", bytes.len())
            }
        };
        Self::from_texts(asked, expected, got)
    }

    /// What was asked, what was expected, what came, in words.
    pub(crate) fn from_texts(asked: String, expected: String, got: String) -> Box<Self> {
        Box::new(Self { asked, expected, got })
    }
}

impl fmt::Display for WrongAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, expected, got } = self;
        write!(f, "wrong answer to {asked}: expected {expected}; got {got}")
    }
}
