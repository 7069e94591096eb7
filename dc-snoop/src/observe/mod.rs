//! Passive observation of a connection: pairs answers with requests.

mod endpoint;
mod half;
mod observer;
mod unanswered;

pub use endpoint::Endpoint;
pub use half::sender_of_text;
pub use observer::*;
pub use unanswered::MatchedRequest;
