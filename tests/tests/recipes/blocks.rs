//! The fenced blocks of a document, each with the mark in the comment above it.
//!
//! | mark | meaning |
//! |---|---|
//! | `run` | the commands must succeed; a `console` block also shows their output |
//! | `run in the background` | a command that stays in the foreground |
//! | `file PATH` | is written to this path |
//! | `crontab` | one line of a crontab; its command must succeed |
//! | `part of the example NAME` | the marked part of `examples/NAME.rs`, which is built and run |
//! | `drop-in of UNIT`, `unit NAME` | systemd-analyze must accept it |
//! | `run under systemd: NAME` | `packaging/check/under-systemd` runs the block of this name |
//! | `not run: REASON` | is not checked |
//! | `setup` | no block: the comment's further lines are commands |
//!
//! A mark is written `<!-- recipe: MARK -->`. Setup commands prepare what the document takes for granted, or
//! check the effect of the step before. A block of the language `text` needs no mark.

use std::fs;
use std::path::{Path, PathBuf};

/// The treatment of a block; see the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Setup,
    Run,
    Background,
    File(String),
    Crontab,
    Example(String),
    DropIn(String),
    Unit(String),
    UnderSystemd(String),
    NotRun,
}

/// A fenced block with its mark, or the commands of a setup comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Line of the fence or of the comment, from 1.
    pub(crate) line: usize,
    pub(crate) mark: Mark,
    /// The first word behind the fence; empty for a setup.
    pub(crate) language: String,
    /// Its lines, each with its end.
    pub(crate) text: String,
}

/// A document of the repository.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) blocks: Vec<Block>,
}

pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Document {
    /// The document at `path`, or every defect of its marks.
    pub(crate) fn read(path: &str) -> Result<Self, Vec<String>> {
        let text = fs::read_to_string(top().join(path)).expect("a document of the repository");
        Self::parse(path, &text)
    }

    pub(crate) fn parse(path: &str, text: &str) -> Result<Self, Vec<String>> {
        let (mut blocks, mut defects) = (Vec::new(), Vec::new());
        let mut mark = None;
        let mut lines = text.lines().zip(1..);
        while let Some((line, number)) = lines.next() {
            let at = |defect: &str| format!("{path}:{number}: {defect}");
            if let Some(rest) = line.strip_prefix("<!-- recipe: ") {
                let block = |text| Block { line: number, mark: Mark::Setup, language: String::new(), text };
                match rest.strip_suffix(" -->") {
                    Some(words) => match parse_mark(words) {
                        Some(parsed) => mark = Some(parsed),
                        None => defects.push(at(&format!("unknown mark: {words}"))),
                    },
                    None if rest == "setup" => blocks.push(block(until(&mut lines, |line| line == "-->"))),
                    None => defects.push(at(&format!("unfinished mark: {rest}"))),
                }
            } else if let Some(language) = line.trim_start().strip_prefix("```") {
                let text = until(&mut lines, |line| line.trim() == "```");
                let language = language.to_owned();
                match mark.take() {
                    Some(mark) => blocks.push(Block { line: number, mark, language, text }),
                    None if language == "text" => {}
                    None => defects.push(at(&format!("a block of `{language}` without a mark"))),
                }
            } else if mark.take().is_some() {
                defects.push(at("a mark must be followed by a fenced block"));
            }
        }
        if defects.is_empty() { Ok(Self { blocks }) } else { Err(defects) }
    }
}

/// Takes the lines up to the end of a block; the last one is consumed and not returned.
fn until<'t>(lines: &mut impl Iterator<Item = (&'t str, usize)>, is_end: impl Fn(&str) -> bool) -> String {
    lines.map(|(line, _)| line).take_while(|line| !is_end(line)).flat_map(|line| [line, "\n"]).collect()
}

fn parse_mark(words: &str) -> Option<Mark> {
    let named = |prefix: &str| words.strip_prefix(prefix).filter(|name| !name.trim().is_empty());
    match words {
        "run" => return Some(Mark::Run),
        "run in the background" => return Some(Mark::Background),
        "crontab" => return Some(Mark::Crontab),
        _ => {}
    }
    if let Some(path) = named("file ") {
        Some(Mark::File(path.to_owned()))
    } else if let Some(name) = named("part of the example ") {
        Some(Mark::Example(name.to_owned()))
    } else if let Some(unit) = named("drop-in of ") {
        Some(Mark::DropIn(unit.to_owned()))
    } else if let Some(unit) = named("unit ") {
        Some(Mark::Unit(unit.to_owned()))
    } else if let Some(name) = named("run under systemd: ") {
        Some(Mark::UnderSystemd(name.to_owned()))
    } else {
        named("not run: ").map(|_| Mark::NotRun)
    }
}

#[test]
fn unmarked_block_is_a_defect() {
    let defects = |text| Document::parse("d.md", text).unwrap_err();
    assert_eq!(defects("\n```sh\nls\n```\n"), ["d.md:2: a block of `sh` without a mark"]);
    assert_eq!(defects("```\nls\n```\n"), ["d.md:1: a block of `` without a mark"]);
    assert_eq!(
        defects("<!-- recipe: run -->\n\n```sh\nls\n```\n"),
        ["d.md:2: a mark must be followed by a fenced block", "d.md:3: a block of `sh` without a mark"]
    );
}

#[test]
fn unknown_mark_is_a_defect() {
    let defects = |text| Document::parse("d.md", text).unwrap_err();
    assert!(defects("<!-- recipe: rum -->\n```text\n```\n")[0].contains("unknown mark: rum"));
    assert!(defects("<!-- recipe: not run: -->\n```text\n```\n")[0].contains("unknown mark"));
    assert!(defects("<!-- recipe: file -->\n```text\n```\n")[0].contains("unknown mark"));
}

#[test]
fn marked_blocks_keep_their_order_and_text() {
    let text = "<!-- recipe: setup\na\nb\n-->\n<!-- recipe: file /x -->\n```sh\nc\n```\n```text\nd\n```\n";
    let blocks = Document::parse("d.md", text).unwrap().blocks;
    assert_eq!(blocks.len(), 2);
    assert_eq!((blocks[0].line, &blocks[0].mark, blocks[0].text.as_str()), (1, &Mark::Setup, "a\nb\n"));
    let file = Block {
        line: 6,
        mark: Mark::File("/x".to_owned()),
        language: "sh".to_owned(),
        text: "c\n".to_owned(),
    };
    assert_eq!(blocks[1], file);
}
