//! Checks the documents against each other: every option that they show with a program is on the program's
//! man page.
//!
//! Each program has a test that compares its page with its options. So this test compares text alone, and
//! distcache-protocol(7), which belongs to no program, with the code.

use libdc::id::{Grant, LockKey, SessionId, Token};
use libdc::limits;
use libdc::wire::frame::{Direction, LockOperation, Operation, SessionOperation};
use libdc::wire::lock::{LockAction, LockAnswer, LockRequest, LockStatus};
use libdc::wire::message::{Message, MessageReader};
use libdc::wire::session::{AddRequest, SessionAnswer, SessionStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The options of each program, read from its man page.
type ManualPrograms = BTreeMap<String, BTreeSet<String>>;

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The man pages, by file name.
fn pages() -> BTreeMap<String, String> {
    let entries = fs::read_dir(top().join("man")).expect("man").map(|entry| entry.expect("an entry").path());
    let read = |path: PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, fs::read_to_string(&path).expect("a page"))
    };
    entries.map(read).collect()
}

fn programs(pages: &BTreeMap<String, String>) -> ManualPrograms {
    let options = |page: &str| {
        let heads = page.lines().filter_map(|line| line.strip_prefix(".It Fl "));
        let names = heads.flat_map(|head| head.split(" , ")).filter_map(|part| {
            let part = part.strip_prefix("Fl ").unwrap_or(part);
            part.split(' ').next().map(str::to_owned)
        });
        names.chain(["?".to_owned()]).collect()
    };
    let pages = pages.iter().filter_map(|(name, page)| Some((name.strip_suffix(".1")?, page)));
    pages.map(|(program, page)| (program.to_owned(), options(page))).collect()
}

/// Checks a command that starts one of the programs, and returns its unknown options. The options end at `--`
/// and at a quoted word, which is a command for `dc_lock` to run.
fn wrong_command(command: &str, programs: &ManualPrograms) -> Vec<String> {
    let mut words = command.split_whitespace().skip_while(|word| word.contains('='));
    let Some(first) = words.next() else { return Vec::new() };
    let program = first.rsplit('/').next().unwrap_or(first);
    let Some(options) = programs.get(program) else { return Vec::new() };
    let words = words.take_while(|word| *word != "--" && !word.starts_with('\''));
    let given = words.filter_map(|word| word.strip_prefix('-')).filter(|name| !name.is_empty());
    let names = given.map(|name| name.trim_start_matches('-').split('=').next().unwrap_or_default());
    let names = names.map(|name| name.trim_end_matches([',', '.', ';', ':']));
    let unknown = names.filter(|name| !options.contains(*name));
    unknown.map(|name| format!("{program} has no -{name}, as in: {command}")).collect()
}

/// The commands in shell code. A backslash at the end of a line continues the command, and a pipe starts
/// another.
fn commands(code: &str) -> Vec<String> {
    let lines = code.replace("\\e\n", " ").replace("\\\n", " ");
    lines
        .lines()
        .flat_map(|line| line.split(['|', '&', ';', '(', ')']))
        .map(|it| it.trim().to_owned())
        .collect()
}

/// The commands of a page: in its displays, and after `Ic`.
fn commands_of_page(page: &str) -> Vec<String> {
    let displays = page.split(".Bd -literal").skip(1).filter_map(|rest| rest.split(".Ed").next());
    let inline = page.lines().filter_map(|line| line.strip_prefix(".Ic "));
    let inline = inline.map(|command| command.split(" Ns ").next().unwrap_or(command).to_owned());
    displays.flat_map(commands).chain(inline).collect()
}

/// The commands of a Markdown file: in code blocks and code spans.
fn commands_of_markdown(text: &str) -> Vec<String> {
    let mut blocks = text.split("```");
    let mut found = Vec::new();
    while let Some(prose) = blocks.next() {
        let spans = prose.split('`').skip(1).step_by(2);
        found.extend(spans.flat_map(commands));
        found.extend(blocks.next().into_iter().flat_map(commands));
    }
    found
}

/// Commands of documents that use an option which the program does not have.
#[test]
fn documents_use_only_existing_options() {
    let pages = pages();
    let programs = programs(&pages);
    for program in ["dc_server", "dc_client", "dc_snoop", "dc_test"] {
        assert!(programs.get(program).is_some_and(|options| options.len() > 5), "{program} has no page");
    }
    let mut all: Vec<(String, Vec<String>)> =
        pages.iter().map(|(name, page)| (name.clone(), commands_of_page(page))).collect();
    let entries = fs::read_dir(top().join("docs")).expect("docs");
    let docs = entries.map(|entry| entry.expect("an entry").path());
    let documents = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| top().join(name));
    for path in documents.into_iter().chain(docs) {
        let text = fs::read_to_string(&path).expect("a document");
        all.push((path.display().to_string(), commands_of_markdown(&text)));
    }
    let wrong = |(name, commands): &(String, Vec<String>)| {
        let wrong = commands.iter().flat_map(|command| wrong_command(command, &programs));
        wrong.map(|wrong| format!("{name}: {wrong}")).collect::<Vec<_>>()
    };
    let wrong: Vec<String> = all.iter().flat_map(wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unknown_option_in_command_is_found() {
    let programs = ManualPrograms::from([("dc_it".to_owned(), BTreeSet::from(["retry".to_owned()]))]);
    let page = ".Ic dc_it -retry Ns = Ns Ar 5\n.Bd -literal\nX=1 ls -l | target/dc_it -retry 5 \\e\n    --redo=6 -- ls -y\ndc_it -retry 'ls -y\n.Ed\n";
    let wrong: Vec<String> =
        commands_of_page(page).iter().flat_map(|command| wrong_command(command, &programs)).collect();
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].starts_with("dc_it has no -redo"), "{wrong:?}");
    let text =
        "See `dc_it -old`.\n```sh\nsudo ls -l\ndc_it -retry 5 \\\n  -older\n```\n`dc_it -retry`, `x -y`";
    let wrong: Vec<String> =
        commands_of_markdown(text).iter().flat_map(|command| wrong_command(command, &programs)).collect();
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(wrong[0].contains("-old") && wrong[1].contains("-older"), "{wrong:?}");
}

#[test]
fn pages_refer_only_to_existing_pages() {
    let pages = pages();
    for (name, page) in &pages {
        let references = page.lines().filter_map(|line| line.strip_prefix(".Xr "));
        for reference in references {
            let words: Vec<&str> = reference.split(' ').collect();
            let is_ours = words[0].starts_with("dc_") || words[0].starts_with("distcache");
            let file = format!("{}.{}", words[0], words.get(1).unwrap_or(&""));
            assert!(!is_ours || pages.contains_key(&file), "{name} refers to {file}");
        }
    }
}

#[test]
fn pages_state_limits_of_the_code() {
    let pages = pages();
    let text = |name: &str| pages.get(name).expect("a page").replace('\n', " ");
    let (system, agent) = (text("distcache.8"), text("dc_client.1"));
    let protocol = text("distcache-protocol.7");
    let seconds = |ms: u64| ms / 1000;
    let expected = [
        (&system, format!(".It {} bytes an id", limits::SESSION_ID_BYTES_MAX)),
        (&system, format!(".It {} bytes a session", limits::SESSION_ADD_BYTES_MAX)),
        (&system, format!("together at most {} bytes", limits::SESSION_ADD_BYTES_MAX)),
        (&system, format!(".It {} days", limits::SESSION_TIMEOUT_MS_MAX / 86_400_000)),
        (&system, format!(".It {} requests in flight of a connection", limits::LOCAL_IN_FLIGHT_MAX)),
        (&system, format!(".It {} requests in flight on a link", limits::LINK_IN_FLIGHT_MAX)),
        (
            &system,
            format!(".It {} requests of a connection of the agent that wait", limits::LOCAL_BLOCKED_MAX),
        ),
        (&system, format!("in addition; {} on a link", limits::LINK_BLOCKED_MAX)),
        (&system, format!(".It {} bytes the name of a lock", limits::LOCK_KEY_BYTES_MAX)),
        (&agent, format!("{} of its requests may wait for locks", limits::LOCAL_BLOCKED_MAX)),
        (&system, format!(".It {} KiB unread answers", limits::OUTBOX_BYTES_MAX >> 10)),
        (&system, format!(".It {} MiB requests", limits::LINK_OUTBOX_BYTES_MAX >> 20)),
        (&agent, format!("may have {} requests in flight", limits::LOCAL_IN_FLIGHT_MAX)),
        (&agent, format!("unfinished for {} seconds", seconds(limits::LOCAL_READ_TIMEOUT_MS))),
        (&agent, format!("its answers unread for {} seconds", seconds(limits::LOCAL_WRITE_TIMEOUT_MS))),
        (&agent, format!("no less than {} and", seconds(limits::PING_TIMEOUT_MS_MIN))),
        (&agent, format!("no more than {} seconds", seconds(limits::PING_TIMEOUT_MS_MAX))),
        (&agent, format!("nothing has arrived for {} seconds", seconds(limits::PING_INTERVAL_MS))),
        (
            &protocol,
            format!("{} bytes with up to {}", limits::FRAME_HEADER_BYTES, limits::FRAME_DATA_BYTES_MAX),
        ),
        (
            &protocol,
            format!(
                "at most {} frames, {} bytes",
                limits::SESSION_FRAMES_MAX,
                limits::SESSION_MESSAGE_BYTES_MAX
            ),
        ),
        (&protocol, format!("the classes 1 and 2 at most {}.", limits::LINK_FRAMES_MAX)),
        (&protocol, format!("only CLAIM may have more than {} bytes", limits::LINK_REQUEST_BYTES_MAX)),
        (&protocol, format!("agents send CLAIMs of at most {}", limits::CLAIM_BYTES_MAX)),
        (
            &protocol,
            format!("More than {} waiting lock requests of one connection", limits::LOCAL_BLOCKED_MAX),
        ),
        (&protocol, format!("An id has 1 to {} bytes", limits::SESSION_ID_BYTES_MAX)),
        (&protocol, format!("timeout_ms is above {},", limits::SESSION_TIMEOUT_MS_MAX)),
        (&protocol, format!("longer than {} bytes", limits::SESSION_BYTES_MAX)),
        (&protocol, format!("A key is 1 to {} bytes", limits::LOCK_KEY_BYTES_MAX)),
        (&protocol, format!("The auth token has at most {} bytes", limits::AUTH_TOKEN_BYTES_MAX)),
        (&protocol, format!("closed after {} ms", limits::AUTH_FAILURE_DELAY_MS)),
        (&protocol, format!("nothing has arrived for {} seconds", seconds(limits::PING_INTERVAL_MS))),
        (&protocol, format!("A line has at most {} bytes", limits::LINE_BYTES_MAX)),
        (&protocol, format!("byte {} of a line", limits::LINE_BYTES_MAX + 1)),
        (&protocol, format!("a request is incomplete {} seconds", seconds(limits::LOCAL_READ_TIMEOUT_MS))),
        (&protocol, format!("each ends at {} entries", limits::STATS_ENTRIES_MAX)),
        (&protocol, format!("above {} years", limits::LOCK_MS_MAX / (366 * 86_400_000))),
    ];
    for (page, part) in expected {
        assert!(page.contains(&part), "no page says: {part}");
    }
}

/// The text of a section of a page.
fn section<'a>(page: &'a str, name: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("\n.Sh {name}\n")).expect("a section");
    rest.split_once("\n.Sh ").map_or(rest, |(section, _)| section)
}

/// The items of a section that begin with a number.
fn numbered(section: &str) -> Vec<String> {
    let items = section.lines().filter_map(|line| line.strip_prefix(".It "));
    items.filter(|item| item.starts_with(|first: char| first.is_ascii_digit())).map(str::to_owned).collect()
}

#[test]
fn protocol_page_lists_operations_and_statuses() {
    let pages = pages();
    let page = &pages["distcache-protocol.7"];
    let operations = |class: u8| -> Vec<String> {
        let known = (0..=u8::MAX).filter_map(move |number| Operation::from_wire(class, number));
        known.map(|operation| format!("{} {}", operation.to_wire().1, operation.name())).collect()
    };
    assert_eq!(numbered(section(page, "LOCKS IN FRAMES")), operations(1));
    assert_eq!(numbered(section(page, "THE LINK")), operations(2));
    let statuses = (0..=u8::MAX).filter_map(SessionStatus::from_wire);
    let statuses = statuses.map(|status| format!("{} {}", status as u8, status.name()));
    assert_eq!(numbered(section(page, "SESSIONS")), [operations(0), statuses.collect()].concat());
    let table = numbered(section(page, "LOCKS"));
    let heads = table.iter().map(|row| row.rsplit_once(" Ta ").expect("a meaning").0);
    let statuses = LockStatus::ALL.map(|status| format!("{} Ta {}", status as u8, status.name()));
    assert!(heads.eq(statuses.iter()), "{table:#?}");
}

#[test]
fn protocol_page_examples_decode_as_described() {
    let pages = pages();
    let blocks = section(&pages["distcache-protocol.7"], "EXAMPLES").split(".Bd -literal").skip(1);
    let messages = blocks.take(2).flat_map(|block| {
        let (block, _) = block.split_once(".Ed").expect("an end");
        block.lines().skip(1).collect::<Vec<_>>().join(" ").split(".Pp").map(message).collect::<Vec<_>>()
    });
    let [add, stored, acquire, granted] = &messages.collect::<Vec<_>>()[..] else { panic!("four messages") };

    assert_eq!(add.head.operation, Operation::Session(SessionOperation::Add));
    let id = SessionId::new(&[1]).expect("an id");
    assert_eq!(AddRequest::parse(&add.data), Ok(Ok(AddRequest { timeout_ms: 60_000, id, session: &[0x53] })));
    assert_eq!(stored.head, add.head.response());
    assert_eq!(
        SessionAnswer::parse(SessionOperation::Add, &stored.data),
        Ok(SessionAnswer::Status(SessionStatus::Ok))
    );

    let operation = LockOperation::Acquire;
    assert_eq!(acquire.head.operation, Operation::Lock(operation));
    let key = LockKey::new("k").expect("a key");
    let action = LockAction::Acquire { key, limit: 1, timeout_ms: 5000, lease_ms: 0 };
    assert_eq!(LockRequest::parse(operation, &acquire.data), Ok(Ok(LockRequest { owner: 0, action })));
    assert_eq!(granted.head, acquire.head.response());
    let grant = Grant { token: Token::new(7, 0x9d2c_4177_e00b_5a13), lease_ms: 33_000 };
    let answer = LockAnswer::Grant { status: LockStatus::Ok, grant };
    assert_eq!(LockAnswer::parse(operation, &granted.data), Ok(answer));
}

/// Parses a message from its bytes in hexadecimal.
fn message(hex: &str) -> Message {
    let bytes: Vec<u8> =
        hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("a byte")).collect();
    let direction = if bytes[4] == 0 { Direction::Request } else { Direction::Response };
    let mut input = bytes.as_slice();
    let message =
        MessageReader::new(Some(direction)).next(&mut input).expect("a valid frame").map(Message::from);
    assert!(input.is_empty(), "{input:?}");
    message.expect("a whole message")
}
