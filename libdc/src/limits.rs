//! Every limit of the system, with compile-time assertions of the relations between them.

/// The size of a frame header in bytes.
pub const FRAME_HEADER_BYTES: usize = 14;
/// The maximum data of one frame, in bytes.
pub const FRAME_DATA_BYTES_MAX: usize = 2048;
/// The maximum number of frames of one session message (class 0).
pub const SESSION_FRAMES_MAX: usize = 16;
/// The maximum number of frames of one lock or link message (classes 1 and 2).
pub const LINK_FRAMES_MAX: usize = 4096;
/// The maximum data of one session message, in bytes.
pub const SESSION_MESSAGE_BYTES_MAX: usize = SESSION_FRAMES_MAX * FRAME_DATA_BYTES_MAX;

/// The maximum length of a session id in bytes; the minimum is 1.
pub const SESSION_ID_BYTES_MAX: usize = 64;
/// The maximum size of a session in bytes.
pub const SESSION_BYTES_MAX: usize = 32_768;
/// Bytes before the id in the data of an ADD: the timeout and the length of the id.
pub const ADD_PREFIX_BYTES: usize = 8;
/// The maximum size of id and session together in an ADD: the rest of a message.
pub const SESSION_ADD_BYTES_MAX: usize = SESSION_MESSAGE_BYTES_MAX - ADD_PREFIX_BYTES;
/// The maximum timeout of a session: seven days, in milliseconds.
pub const SESSION_TIMEOUT_MS_MAX: u32 = 604_800_000;

/// The maximum length of a lock key in bytes.
pub const LOCK_KEY_BYTES_MAX: usize = 256;
/// The maximum length of a line of the line protocol in bytes, without its newline.
pub const LINE_BYTES_MAX: usize = 256;
/// The maximum size of a request of class 1 or 2 other than CLAIM, in bytes. The longest contain a key or an
/// auth token. Longer requests are refused before they are collected.
pub const LINK_REQUEST_BYTES_MAX: usize = FRAME_DATA_BYTES_MAX;
/// The maximum size of a CLAIM that an agent sends, in bytes; further claims go into another one.
pub const CLAIM_BYTES_MAX: usize = 64 << 10;
/// The maximum length of an auth token in bytes.
pub const AUTH_TOKEN_BYTES_MAX: usize = 256;
/// The maximum lease and wait timeout in milliseconds: a hundred years, so that no sum overflows.
pub const LOCK_MS_MAX: u64 = 100 * 366 * 24 * 3_600_000;
/// The maximum number of entries in each list of the lock statistics.
pub const STATS_ENTRIES_MAX: usize = 10_000;
/// The delay before a connection is closed because of a wrong auth token, in milliseconds.
pub const AUTH_FAILURE_DELAY_MS: u64 = 100;

/// The maximum number of requests that one local connection of the agent may have in flight to the server. At
/// the limit the connection is not read until a request is answered.
pub const LOCAL_IN_FLIGHT_MAX: usize = 128;
/// The maximum number of requests in flight to the server, for all local connections together.
pub const LINK_IN_FLIGHT_MAX: usize = 1 << 20;
/// The maximum number of blocked lock requests of one local connection. They do not count as in flight, so
/// that requests behind them are still read; one more is answered `error_max_waiters`.
pub const LOCAL_BLOCKED_MAX: usize = 1024;
/// The maximum number of blocked requests of all local connections together, so that sessions always have
/// capacity beside them.
pub const LINK_BLOCKED_MAX: usize = 1 << 19;
/// A connection is not read while this many bytes wait behind a blocked request of the line protocol.
pub const LOCAL_HELD_BACK_BYTES_MAX: usize = 64 << 10;
/// No local connection is read while this many bytes wait to be written to the server.
pub const LINK_OUTBOX_BYTES_MAX: usize = 4 << 20;
/// A connection is not read while this many bytes of answers wait to be written to it.
pub const OUTBOX_BYTES_MAX: usize = 256 << 10;
/// Bytes per read of a socket, and the maximum handled for one connection before others go first.
pub const READ_BUDGET_BYTES: usize = 128 << 10;
/// The maximum time to complete a message on a local connection of the agent, in milliseconds.
pub const LOCAL_READ_TIMEOUT_MS: u64 = 23_000;
/// The maximum time that answers may stay unread by a local connection of the agent, in milliseconds.
pub const LOCAL_WRITE_TIMEOUT_MS: u64 = 5_000;
/// The interval of pings on an idle link, in milliseconds.
pub const PING_INTERVAL_MS: u64 = 5_000;
/// The lower bound of the ping timeout, in milliseconds. A link is broken if nothing was received for the
/// ping timeout although an answer is due. It equals the agent's `-timeout` within these bounds.
pub const PING_TIMEOUT_MS_MIN: u64 = 1_000;
/// The upper bound of the ping timeout, in milliseconds.
pub const PING_TIMEOUT_MS_MAX: u64 = 2 * PING_INTERVAL_MS;
/// The maximum value of the agent's `-retry`, `-idle` and `-timeout`, in milliseconds.
pub const AGENT_TIME_MS_MAX: u64 = 3_600_000;

/// How long a new connection may still send its first request during a shutdown, in milliseconds. A client
/// that connected just before the shutdown is thus answered, as a later one is by the next process.
pub const DRAIN_GRACE_MS: u64 = 3_000;

/// The maximum number of expired or evicted sessions that one step removes, which bounds its duration.
pub const EXPIRY_BATCH: usize = 64;

const _: () = {
    assert!(
        SESSION_BYTES_MAX == SESSION_MESSAGE_BYTES_MAX,
        "a maximum session fits into the answer to a GET"
    );
    assert!(FRAME_DATA_BYTES_MAX <= u16::MAX as usize, "the length of a frame has two bytes");
    assert!(SESSION_FRAMES_MAX <= LINK_FRAMES_MAX);
    assert!(SESSION_ID_BYTES_MAX <= u8::MAX as usize, "the table stores the length of an id in one byte");
    assert!(OUTBOX_BYTES_MAX > SESSION_MESSAGE_BYTES_MAX + SESSION_FRAMES_MAX * FRAME_HEADER_BYTES);
    assert!(READ_BUDGET_BYTES > SESSION_MESSAGE_BYTES_MAX + SESSION_FRAMES_MAX * FRAME_HEADER_BYTES);
    assert!(LOCK_KEY_BYTES_MAX <= LINE_BYTES_MAX, "a key fits into a line");
    assert!(
        LOCK_KEY_BYTES_MAX + 64 <= LINK_REQUEST_BYTES_MAX
            && AUTH_TOKEN_BYTES_MAX + 64 <= LINK_REQUEST_BYTES_MAX
    );
    assert!(
        LINK_REQUEST_BYTES_MAX.is_multiple_of(FRAME_DATA_BYTES_MAX)
            && CLAIM_BYTES_MAX.is_multiple_of(FRAME_DATA_BYTES_MAX)
    );
    assert!(LOCAL_IN_FLIGHT_MAX < LINK_IN_FLIGHT_MAX);
    assert!(LOCAL_BLOCKED_MAX < LINK_BLOCKED_MAX && LINK_BLOCKED_MAX < LINK_IN_FLIGHT_MAX);
    assert!(LINK_IN_FLIGHT_MAX <= 1 << 24, "a uid on the link has 24 bits of slot and 8 of generation");
    assert!(PING_INTERVAL_MS < PING_TIMEOUT_MS_MAX && PING_TIMEOUT_MS_MIN < PING_INTERVAL_MS);
};
