//! `-filter`: selects the traffic to show.
//!
//! A filter is a list of terms with commas between them:
//!
//! | term | shows |
//! |---|---|
//! | `op=NAME` | requests of this operation or command, and their answers: ADD, GET, REMOVE, HAVE, ACQUIRE …, lock, enqueue … |
//! | `conn=N` | the traffic of connection N |
//! | `id=HEX` | messages about a session whose id begins like this, and their answers |
//! | `key=PREFIX` | requests about a lock whose key begins like this, and the answers |
//! | `status=NAME` | answers with this status: OK, NOTOK, DISCONNECTED …, timeout, `error_max_locks` … |
//! | `failed` | negative answers, timeouts, errors, unexpected answers, malformed input |
//!
//! Terms of one kind are alternatives; terms of different kinds must all match: `op=GET,op=HAVE,failed` is "a
//! GET or HAVE that failed". Of several filters one must match. Case is ignored except in a key; so `op=wait`
//! selects both the line command and the operation.

use dc_snoop::decode::MessageKind;
use libdc::wire::link::Claim;
use libdc::wire::lock::LockStatus;
use libdc::wire::session::SessionStatus;
use std::str::FromStr;
use thiserror::Error;

/// The filters of a run; none shows everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters(Vec<Filter>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    operations: Vec<&'static str>,
    connections: Vec<u64>,
    ids: Vec<IdPrefix>,
    keys: Vec<String>,
    statuses: Vec<&'static str>,
    failed: bool,
}

/// The fields that a filter examines.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FilterInput<'a> {
    pub(crate) connection: u64,
    pub(crate) topic: Option<MessageKind>,
    pub(crate) id: Option<&'a [u8]>,
    pub(crate) key: Option<&'a str>,
    /// The data of a CLAIM, which is about many keys.
    pub(crate) claims: &'a [u8],
    pub(crate) status: Option<&'static str>,
    pub(crate) failed: bool,
}

impl FilterInput<'_> {
    fn has_key(&self, prefix: &str) -> bool {
        let mut claims = Claim::parse_all(self.claims).filter_map(|claim| claim.ok().flatten());
        self.key.is_some_and(|key| key.starts_with(prefix))
            || claims.any(|claim| claim.key.as_str().starts_with(prefix))
    }
}

impl Filters {
    pub(crate) const fn new(filters: Vec<Filter>) -> Self {
        Self(filters)
    }

    pub(crate) fn accept(&self, subject: &FilterInput<'_>) -> bool {
        self.0.is_empty() || self.0.iter().any(|filter| filter.accepts(subject))
    }

    /// Whether requests may be hidden whose answers are shown.
    pub(crate) fn hide_requests(&self) -> bool {
        self.0.iter().any(|filter| filter.failed || !filter.statuses.is_empty())
    }
}

impl Filter {
    fn accepts(&self, subject: &FilterInput<'_>) -> bool {
        among(&self.operations, |name| subject.topic.is_some_and(|topic| is_same(topic.name(), name)))
            && among(&self.connections, |connection| subject.connection == *connection)
            && among(&self.ids, |prefix| subject.id.is_some_and(|id| prefix.begins(id)))
            && among(&self.keys, |prefix| subject.has_key(prefix))
            && among(&self.statuses, |name| subject.status.is_some_and(|status| is_same(status, name)))
            && (!self.failed || subject.failed)
    }
}

const fn is_same(name: &str, other: &str) -> bool {
    name.eq_ignore_ascii_case(other)
}

/// Without alternatives everything matches.
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
            "key" if value.is_empty() => return Err(FilterError::Key),
            "key" => self.keys.push(value.to_owned()),
            "status" => self.statuses.push(status(value).ok_or(FilterError::Status)?),
            _ => return Err(FilterError::Term),
        }
        Ok(())
    }
}

fn operation(name: &str) -> Option<&'static str> {
    MessageKind::all().map(MessageKind::name).find(|known| is_same(known, name))
}

fn status(name: &str) -> Option<&'static str> {
    let of_sessions = (0..=u8::MAX).filter_map(SessionStatus::from_wire).map(SessionStatus::name);
    let of_locks = LockStatus::ALL.into_iter().map(LockStatus::name);
    of_sessions.chain(of_locks).find(|known| is_same(known, name))
}

/// Why a text is no filter.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum FilterError {
    #[error(
        "a filter is made of op=NAME, conn=N, id=HEX, key=PREFIX, status=NAME and failed, with commas between them"
    )]
    Term,
    /// No operation has this name.
    #[error(
        "op= takes ADD, GET, REMOVE, HAVE, the name of a lock or link operation, or lock, enqueue, wait, release, renew, auth, stats, ping"
    )]
    Operation,
    /// Not the number of a connection.
    #[error("conn= takes the number of a connection")]
    Connection,
    /// Not the beginning of an id.
    #[error("id= takes the beginning of an id in hexadecimal digits")]
    Id,
    /// An empty prefix is rejected.
    #[error("key= takes the beginning of a key")]
    Key,
    /// No status has this name.
    #[error(
        "status= takes OK, NOTOK, DISCONNECTED, CORRUPT, MATCHING_SESSION, TIMEOUT_RANGE, ID_RANGE, DATA_RANGE, or the name of an answer about locks"
    )]
    Status,
}

#[cfg(test)]
mod tests {
    use super::*;
    use libdc::id::{LockKey, Token};
    use libdc::wire::frame::{LinkOperation, LockOperation, Operation, SessionOperation};
    use libdc::wire::line::LineCommand;

    const GET: Option<MessageKind> = Some(MessageKind::Operation(Operation::Session(SessionOperation::Get)));
    const ADD: Option<MessageKind> = Some(MessageKind::Operation(Operation::Session(SessionOperation::Add)));

    fn accepts(filters: &[&str], subject: FilterInput<'_>) -> bool {
        Filters::new(filters.iter().map(|text| text.parse().unwrap()).collect()).accept(&subject)
    }

    #[test]
    fn no_filter_accepts_everything() {
        assert!(accepts(&[], FilterInput::default()));
    }

    #[test]
    fn kinds_are_and_values_and_filters_are_or() {
        let get = FilterInput { connection: 3, topic: GET, ..FilterInput::default() };
        let failed = FilterInput { failed: true, ..get };
        assert!(accepts(&["op=get"], get));
        assert!(!accepts(&["op=ADD"], get));
        assert!(accepts(&["op=ADD,op=GET"], get));
        assert!(!accepts(&["op=GET,failed"], get));
        assert!(accepts(&["op=GET,failed"], failed));
        assert!(accepts(&["conn=4", "OP=Get, CONN=#3"], get));
        assert!(!accepts(&["op=GET,conn=4", "op=ADD,conn=3"], get));
    }

    #[test]
    fn a_command_and_an_operation_may_have_one_name() {
        let operation = Some(MessageKind::Operation(Operation::Lock(LockOperation::Renew)));
        let command = Some(MessageKind::Command(LineCommand::Renew));
        for topic in [operation, command] {
            assert!(accepts(&["op=renew"], FilterInput { topic, ..FilterInput::default() }));
            assert!(!accepts(&["op=lock"], FilterInput { topic, ..FilterInput::default() }));
        }
        let lock =
            FilterInput { topic: Some(MessageKind::Command(LineCommand::Lock)), ..FilterInput::default() };
        assert!(accepts(&["op=Lock"], lock) && !accepts(&["op=ACQUIRE"], lock));
        let hello = Some(MessageKind::Operation(Operation::Link(LinkOperation::Hello)));
        assert!(accepts(&["op=hello"], FilterInput { topic: hello, ..FilterInput::default() }));
    }

    #[test]
    fn a_key_is_compared_from_its_beginning() {
        let about = |key| FilterInput { key: Some(key), ..FilterInput::default() };
        assert!(accepts(&["key=night"], about("nightly")));
        assert!(accepts(&["key=a,key=nightly"], about("nightly")));
        assert!(!accepts(&["key=Night"], about("nightly")));
        assert!(!accepts(&["key=nightly2"], about("nightly")));
        assert!(!accepts(&["key=n"], FilterInput::default()));
        let mut claims = Vec::new();
        for key in ["a", "nightly"] {
            let key = LockKey::new(key).unwrap();
            Claim { owner: 1, token: Token::new(1, 2), key }.write(&mut claims);
        }
        let claim = FilterInput { claims: &claims, ..FilterInput::default() };
        assert!(accepts(&["key=night"], claim) && !accepts(&["key=b"], claim));
    }

    #[test]
    fn an_id_is_compared_digit_by_digit() {
        let about = |id| FilterInput { id: Some(id), topic: ADD, ..FilterInput::default() };
        assert!(accepts(&["id=5f0"], about(&[0x5f, 0x0a])));
        assert!(accepts(&["id=5F0A"], about(&[0x5f, 0x0a])));
        assert!(!accepts(&["id=5f1"], about(&[0x5f, 0x0a])));
        assert!(!accepts(&["id=5f0a0"], about(&[0x5f, 0x0a])));
        assert!(!accepts(&["id=5"], FilterInput::default()));
    }

    #[test]
    fn a_status_is_one_of_the_names() {
        let missed =
            FilterInput { status: Some(SessionStatus::NotOk.name()), failed: true, ..FilterInput::default() };
        assert!(accepts(&["status=notok"], missed));
        assert!(!accepts(&["status=DISCONNECTED"], missed));
        assert!(!accepts(&["status=OK"], FilterInput::default()));
        let full = FilterInput { status: Some(LockStatus::ErrorMaxLocks.name()), ..FilterInput::default() };
        assert!(accepts(&["status=timeout,status=error_max_locks"], full));
        assert!(!accepts(&["status=error"], full));
    }

    #[test]
    fn a_wrong_filter_says_what_it_takes() {
        let cases = [
            ("", FilterError::Term),
            ("op", FilterError::Term),
            ("failed,", FilterError::Term),
            ("lock=a", FilterError::Term),
            ("key=", FilterError::Key),
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
