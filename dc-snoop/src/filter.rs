//! `-filter`: which of what passes is shown.
//!
//! A filter is a list of terms with commas between them:
//!
//! | term | shows |
//! |---|---|
//! | `op=NAME` | messages of this operation: ADD, GET, REMOVE, HAVE, ACQUIRE … |
//! | `conn=N` | what passes on connection N |
//! | `id=HEX` | messages about a session whose id begins so, and their answers |
//! | `status=NAME` | answers with this status: OK, NOTOK, DISCONNECTED … |
//! | `failed` | answers that are neither OK nor a session, answers nobody asked for, and malformed bytes |
//!
//! Terms of one kind are alternatives, different kinds must all hold: `op=GET,op=HAVE,failed` is "a GET or
//! HAVE that failed". Of several filters one is enough. Capitals and small letters are the same.

use libdc::wire::frame::Operation;
use libdc::wire::session::Status;
use std::str::FromStr;
use thiserror::Error;

/// The filters of a run; none shows everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters(Vec<Filter>);

/// One `-filter`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    operations: Vec<Operation>,
    connections: Vec<u64>,
    ids: Vec<IdPrefix>,
    statuses: Vec<Status>,
    failed: bool,
}

/// What a filter looks at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Subject<'a> {
    pub(crate) connection: u64,
    pub(crate) operation: Option<Operation>,
    pub(crate) id: Option<&'a [u8]>,
    pub(crate) status: Option<Status>,
    pub(crate) failed: bool,
}

impl Filters {
    pub(crate) const fn new(filters: Vec<Filter>) -> Self {
        Self(filters)
    }

    pub(crate) fn accept(&self, subject: &Subject<'_>) -> bool {
        self.0.is_empty() || self.0.iter().any(|filter| filter.accepts(subject))
    }

    /// Whether requests may be hidden whose answers are shown.
    pub(crate) fn hide_requests(&self) -> bool {
        self.0.iter().any(|filter| filter.failed || !filter.statuses.is_empty())
    }
}

impl Filter {
    fn accepts(&self, subject: &Subject<'_>) -> bool {
        among(&self.operations, |operation| subject.operation == Some(*operation))
            && among(&self.connections, |connection| subject.connection == *connection)
            && among(&self.ids, |prefix| subject.id.is_some_and(|id| prefix.begins(id)))
            && among(&self.statuses, |status| subject.status == Some(*status))
            && (!self.failed || subject.failed)
    }
}

/// No alternatives: nothing is asked.
fn among<T>(alternatives: &[T], holds: impl Fn(&T) -> bool) -> bool {
    alternatives.is_empty() || alternatives.iter().any(holds)
}

/// The beginning of an id in hexadecimal digits, an odd number of them too.
#[derive(Clone, Debug, PartialEq, Eq)]
struct IdPrefix(Vec<u8>);

impl IdPrefix {
    fn begins(&self, id: &[u8]) -> bool {
        let mut digits = id.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        self.0.iter().all(|digit| digits.next() == Some(*digit))
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        for term in text.split(',').map(str::trim) {
            filter.add(term)?;
        }
        Ok(filter)
    }
}

impl Filter {
    fn add(&mut self, term: &str) -> Result<(), FilterError> {
        if term.eq_ignore_ascii_case("failed") {
            self.failed = true;
            return Ok(());
        }
        let (kind, value) = term.split_once('=').ok_or(FilterError::Term)?;
        match kind.to_ascii_lowercase().as_str() {
            "op" => self.operations.push(operation(value).ok_or(FilterError::Operation)?),
            "conn" => {
                let number = value.strip_prefix('#').unwrap_or(value);
                self.connections.push(number.parse().map_err(|_| FilterError::Connection)?);
            }
            "id" => {
                let digits = value.chars().map(|c| c.to_digit(16).map(|digit| digit as u8));
                let digits = digits.collect::<Option<Vec<u8>>>().filter(|digits| !digits.is_empty());
                self.ids.push(IdPrefix(digits.ok_or(FilterError::Id)?));
            }
            "status" => self.statuses.push(status(value).ok_or(FilterError::Status)?),
            _ => return Err(FilterError::Term),
        }
        Ok(())
    }
}

fn operation(name: &str) -> Option<Operation> {
    let mut all = (0..=2).flat_map(|class| (0..=u8::MAX).map_while(move |n| Operation::from_wire(class, n)));
    all.find(|operation| operation.name().eq_ignore_ascii_case(name))
}

fn status(name: &str) -> Option<Status> {
    let mut all = (0..=u8::MAX).filter_map(Status::from_wire);
    all.find(|status| status.name().eq_ignore_ascii_case(name))
}

/// Why a text is no filter.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum FilterError {
    /// A term that is none.
    #[error("a filter is made of op=NAME, conn=N, id=HEX, status=NAME and failed, with commas between them")]
    Term,
    /// No operation has this name.
    #[error("op= takes ADD, GET, REMOVE, HAVE, or the name of a lock or link operation")]
    Operation,
    /// Not the number of a connection.
    #[error("conn= takes the number of a connection")]
    Connection,
    /// Not the beginning of an id.
    #[error("id= takes the beginning of an id in hexadecimal digits")]
    Id,
    /// No status has this name.
    #[error(
        "status= takes OK, NOTOK, DISCONNECTED, CORRUPT, MATCHING_SESSION, TIMEOUT_RANGE, ID_RANGE or DATA_RANGE"
    )]
    Status,
}

#[cfg(test)]
mod tests {
    use super::*;
    use libdc::wire::frame::{LockOperation, SessionOperation};

    const GET: Option<Operation> = Some(Operation::Session(SessionOperation::Get));
    const ADD: Option<Operation> = Some(Operation::Session(SessionOperation::Add));

    fn accepts(filters: &[&str], subject: Subject<'_>) -> bool {
        Filters::new(filters.iter().map(|text| text.parse().unwrap()).collect()).accept(&subject)
    }

    #[test]
    fn no_filter_accepts_everything() {
        assert!(accepts(&[], Subject::default()));
    }

    #[test]
    fn kinds_are_and_values_and_filters_are_or() {
        let get = Subject { connection: 3, operation: GET, ..Subject::default() };
        let failed = Subject { failed: true, ..get };
        assert!(accepts(&["op=get"], get));
        assert!(!accepts(&["op=ADD"], get));
        assert!(accepts(&["op=ADD,op=GET"], get));
        assert!(!accepts(&["op=GET,failed"], get));
        assert!(accepts(&["op=GET,failed"], failed));
        assert!(accepts(&["conn=4", "OP=Get, CONN=#3"], get));
        assert!(!accepts(&["op=GET,conn=4", "op=ADD,conn=3"], get));
        let lock = Some(Operation::Lock(LockOperation::Renew));
        assert!(accepts(&["op=renew"], Subject { operation: lock, ..Subject::default() }));
    }

    #[test]
    fn an_id_is_compared_digit_by_digit() {
        let about = |id| Subject { id: Some(id), operation: ADD, ..Subject::default() };
        assert!(accepts(&["id=5f0"], about(&[0x5f, 0x0a])));
        assert!(accepts(&["id=5F0A"], about(&[0x5f, 0x0a])));
        assert!(!accepts(&["id=5f1"], about(&[0x5f, 0x0a])));
        assert!(!accepts(&["id=5f0a0"], about(&[0x5f, 0x0a])));
        assert!(!accepts(&["id=5"], Subject::default()));
    }

    #[test]
    fn a_status_is_one_of_the_names() {
        let missed = Subject { status: Some(Status::NotOk), failed: true, ..Subject::default() };
        assert!(accepts(&["status=notok"], missed));
        assert!(!accepts(&["status=DISCONNECTED"], missed));
        assert!(!accepts(&["status=OK"], Subject::default()));
    }

    #[test]
    fn a_wrong_filter_says_what_it_takes() {
        let cases = [
            ("", FilterError::Term),
            ("op", FilterError::Term),
            ("failed,", FilterError::Term),
            ("key=a", FilterError::Term),
            ("op=PUT", FilterError::Operation),
            ("conn=-1", FilterError::Connection),
            ("id=", FilterError::Id),
            ("id=5g", FilterError::Id),
            ("status=200", FilterError::Status),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Filter>(), Err(error), "{text}");
        }
    }
}
