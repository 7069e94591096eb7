//! The documents among themselves: whatever they say a program is started with, its page has.
//!
//! That each page has what its program takes is a test of the program. So what is compared here is text alone.

use libdc::limits;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The options of each program, as its page has them.
type Programs = BTreeMap<String, BTreeSet<String>>;

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The pages, by file name.
fn pages() -> BTreeMap<String, String> {
    let entries = fs::read_dir(top().join("man")).expect("man").map(|entry| entry.expect("an entry").path());
    let read = |path: PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, fs::read_to_string(&path).expect("a page"))
    };
    entries.map(read).collect()
}

fn programs(pages: &BTreeMap<String, String>) -> Programs {
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

/// What is wrong with the words of a command, if it starts one of the programs.
fn wrong_command(command: &str, programs: &Programs) -> Vec<String> {
    let mut words = command.split_whitespace().skip_while(|word| word.contains('='));
    let Some(first) = words.next() else { return Vec::new() };
    let program = first.rsplit('/').next().unwrap_or(first);
    let Some(options) = programs.get(program) else { return Vec::new() };
    let given = words.filter_map(|word| word.strip_prefix('-')).filter(|name| !name.is_empty());
    let names = given.map(|name| name.trim_start_matches('-').split('=').next().unwrap_or_default());
    let names = names.map(|name| name.trim_end_matches([',', '.', ';', ':']));
    let unknown = names.filter(|name| !options.contains(*name));
    unknown.map(|name| format!("{program} has no -{name}, as in: {command}")).collect()
}

/// The commands in shell code: a line that ends with a backslash goes on, and a pipe begins another command.
fn commands(code: &str) -> Vec<String> {
    let lines = code.replace("\\e\n", " ").replace("\\\n", " ");
    lines
        .lines()
        .flat_map(|line| line.split(['|', '&', ';', '(', ')']))
        .map(|it| it.trim().to_owned())
        .collect()
}

/// The commands of a page: in its displays, and behind `Ic`.
fn commands_of_page(page: &str) -> Vec<String> {
    let displays = page.split(".Bd -literal").skip(1).filter_map(|rest| rest.split(".Ed").next());
    let inline = page.lines().filter_map(|line| line.strip_prefix(".Ic "));
    let inline = inline.map(|command| command.split(" Ns ").next().unwrap_or(command).to_owned());
    displays.flat_map(commands).chain(inline).collect()
}

/// The commands of a Markdown file: in its blocks of code, and in code within text.
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

/// The commands of all documents that name an option which their program does not have.
#[test]
fn no_document_names_an_option_that_does_not_exist() {
    let pages = pages();
    let programs = programs(&pages);
    for program in ["dc_server", "dc_client", "dc_snoop", "dc_test"] {
        assert!(programs.get(program).is_some_and(|options| options.len() > 5), "{program} has no page");
    }
    let mut all: Vec<(String, Vec<String>)> =
        pages.iter().map(|(name, page)| (name.clone(), commands_of_page(page))).collect();
    for name in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        let text = fs::read_to_string(top().join(name)).expect("a document");
        all.push((name.to_owned(), commands_of_markdown(&text)));
    }
    let wrong = |(name, commands): &(String, Vec<String>)| {
        let wrong = commands.iter().flat_map(|command| wrong_command(command, &programs));
        wrong.map(|wrong| format!("{name}: {wrong}")).collect::<Vec<_>>()
    };
    let wrong: Vec<String> = all.iter().flat_map(wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_option_that_does_not_exist_is_seen() {
    let programs = Programs::from([("dc_it".to_owned(), BTreeSet::from(["retry".to_owned()]))]);
    let page = ".Ic dc_it -retry Ns = Ns Ar 5\n.Bd -literal\nX=1 ls -l | target/dc_it -retry 5 \\e\n    --redo=6\n.Ed\n";
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
fn the_pages_refer_to_pages_that_exist() {
    let pages = pages();
    for (name, page) in &pages {
        let references = page.lines().filter_map(|line| line.strip_prefix(".Xr "));
        for reference in references {
            let words: Vec<&str> = reference.split(' ').collect();
            let is_ours = words[0].starts_with("dc_") || words[0] == "distcache";
            let file = format!("{}.{}", words[0], words.get(1).unwrap_or(&""));
            assert!(!is_ours || pages.contains_key(&file), "{name} refers to {file}");
        }
    }
}

#[test]
fn the_pages_give_the_limits_as_they_are() {
    let pages = pages();
    let text = |name: &str| pages.get(name).expect("a page").replace('\n', " ");
    let (system, agent) = (text("distcache.8"), text("dc_client.1"));
    let seconds = |ms: u64| ms / 1000;
    let expected = [
        (&system, format!(".It {} bytes an id", limits::SESSION_ID_BYTES_MAX)),
        (&system, format!(".It {} bytes a session", limits::SESSION_ADD_BYTES_MAX)),
        (&system, format!("both together at most {} bytes", limits::SESSION_ADD_BYTES_MAX)),
        (&system, format!(".It {} days", limits::SESSION_TIMEOUT_MS_MAX / 86_400_000)),
        (&system, format!(".It {} requests under way for a connection", limits::LOCAL_IN_FLIGHT_MAX)),
        (&system, format!(".It {} requests under way on a link", limits::LINK_IN_FLIGHT_MAX)),
        (&system, format!(".It {} KiB answers", limits::OUTBOX_BYTES_MAX >> 10)),
        (&system, format!(".It {} MiB requests", limits::LINK_OUTBOX_BYTES_MAX >> 20)),
        (&agent, format!("may have {} requests under way", limits::LOCAL_IN_FLIGHT_MAX)),
        (&agent, format!("unfinished for {} seconds", seconds(limits::LOCAL_READ_TIMEOUT_MS))),
        (&agent, format!("unread for {} seconds", seconds(limits::LOCAL_WRITE_TIMEOUT_MS))),
        (&agent, format!("no less than {} and", seconds(limits::LINK_SILENCE_MS_MIN))),
        (&agent, format!("no more than {} seconds", seconds(limits::LINK_SILENCE_MS_MAX))),
        (&agent, format!("nothing was heard for {} seconds", seconds(limits::PING_INTERVAL_MS))),
    ];
    for (page, part) in expected {
        assert!(page.contains(&part), "no page says: {part}");
    }
}
