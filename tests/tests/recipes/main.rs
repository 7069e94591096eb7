//! Runs the recipes of README.md and docs/: every command, program and unit, read from the document itself.
//!
//! Each fenced block has a mark in the comment above it (`blocks` lists the marks); an unmarked block is a
//! failure. Commands run as root in separate namespaces (`namespace`). Parts that are made from the code are
//! compared with the code, and `UPDATE_DOCS=1` rewrites them: snippets of examples, the table of options, the
//! output of commands.
//!
//! A test that lacks a component prints a line and passes; with `DISTCACHE_TESTS_REQUIRE=1` it fails.

mod blocks;
mod links;
mod namespace;
mod options_table;
mod output;
mod units;
mod update;

use blocks::{Block, Document, Mark, top};
use dc_tests::harness::programs::program;
use namespace::{Ran, Step};
use std::env;
use std::fs;
use std::path::PathBuf;

/// The programs that recipes start.
const PROGRAMS: [&str; 6] = ["dc_server", "dc_client", "dc_lock", "dc_master", "dc_snoop", "dc_test"];
/// The examples that documents show.
const EXAMPLES: [&str; 3] = ["good_child", "locks", "sessions"];

/// Makes a test of each document that has something to run.
macro_rules! recipes_run {
    ($($name:ident: $path:literal,)*) => {
        $(#[test] fn $name() { run_recipes($path); })*
        const RUN: &[&str] = &[$($path),*];
    };
}

recipes_run! {
    readme_recipes_run: "README.md",
    configuration_recipes_run: "docs/configuration.md",
    failure_modes_recipes_run: "docs/failure-modes.md",
    locks_recipes_run: "docs/locks.md",
    migrating_from_dflockd_recipes_run: "docs/migrating-from-dflockd.md",
    migrating_from_distcache_recipes_run: "docs/migrating-from-distcache.md",
    migrating_from_socketmaster_recipes_run: "docs/migrating-from-socketmaster-and-einhorn.md",
    quick_start_recipes_run: "docs/quick-start.md",
    restarts_recipes_run: "docs/restarts.md",
    tls_recipes_run: "docs/tls.md",
    upgrading_recipes_run: "docs/upgrading.md",
}

/// Reports that a component is missing. Panics under `DISTCACHE_TESTS_REQUIRE=1`.
fn skip(test: &str, missing: &str) {
    assert!(env::var_os("DISTCACHE_TESTS_REQUIRE").is_none_or(|value| value != "1"), "{test}: {missing}");
    eprintln!("{test}: skipped: {missing}");
}

/// README.md and the pages of docs/.
fn paths() -> Vec<String> {
    let entries = fs::read_dir(top().join("docs")).expect("docs/ is readable");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut pages: Vec<_> =
        names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    pages.sort_unstable();
    pages.insert(0, "README.md".to_owned());
    pages
}

fn document(path: &str) -> Document {
    Document::read(path).unwrap_or_else(|defects| panic!("{}", defects.join("\n")))
}

/// The output that a document shows for a command.
struct Shown {
    /// The number of its block.
    block: usize,
    lines: Vec<String>,
}

/// The steps of a document, in its order, each with the output that the document shows for it.
fn steps(document: &Document) -> Vec<(Step, Option<Shown>)> {
    let mut steps = Vec::new();
    for (number, block) in document.blocks.iter().enumerate() {
        let step =
            |commands: &str| Step { line: block.line, commands: commands.to_owned(), ..Step::default() };
        match &block.mark {
            Mark::Run if block.language == "console" => {
                let commands = output::commands(&block.text);
                let shown = |lines| Some(Shown { block: number, lines });
                steps.extend(commands.into_iter().map(|(command, lines)| (step(&command), shown(lines))));
            }
            Mark::Setup | Mark::Run => steps.push((step(&block.text), None)),
            Mark::Background => steps.push((Step { in_background: true, ..step(&block.text) }, None)),
            Mark::File(path) => steps.push((Step { file: Some(path.clone()), ..step(&block.text) }, None)),
            Mark::Crontab => steps.push((step(command_of_crontab(&block.text)), None)),
            // good_child takes its sockets from the dc_master of the recipe around it.
            Mark::Example(name) if name != "good_child" => steps.push((step(name), None)),
            Mark::Example(_) | Mark::DropIn(_) | Mark::Unit(_) | Mark::UnderSystemd(_) | Mark::NotRun => {}
        }
    }
    steps
}

/// The command of a line of /etc/crontab: behind five fields of time and the user.
fn command_of_crontab(line: &str) -> &str {
    let mut rest = line;
    for _ in 0..6 {
        rest = rest.trim_start();
        rest = rest.find(' ').map_or("", |end| &rest[end..]);
    }
    rest.trim_start()
}

fn run_recipes(path: &str) {
    let document = document(path);
    let (steps, shown): (Vec<_>, Vec<_>) = steps(&document).into_iter().unzip();
    let missing = namespace::missing(&steps);
    if !missing.is_empty() {
        return skip(path, &missing.join(", "));
    }
    let programs: Vec<PathBuf> = PROGRAMS.iter().chain(&EXAMPLES).map(|name| program(name)).collect();
    let printed = match namespace::run(&steps, &programs) {
        Ran::All(printed) => printed,
        Ran::Failed(why) => panic!("{path}: {why}"),
    };
    let mut differences = Vec::new();
    for ((step, shown), printed) in steps.iter().zip(&shown).zip(&printed) {
        let Some(Shown { block, lines: shown }) = shown else { continue };
        let lines: Vec<_> = printed.lines().map(str::to_owned).collect();
        if output::is_shown(shown, &lines) {
            continue;
        }
        let old = format!("$ {}{}", step.commands, joined(shown));
        let new = format!("$ {}{}", step.commands, joined(&lines));
        if !update::replace(path, &document.blocks[*block], &old, &new) {
            differences.push(format!("{path}:{}: shown is\n{old}and printed was\n{new}", step.line));
        }
    }
    assert!(differences.is_empty(), "{}\nUPDATE_DOCS=1 writes what was printed", differences.join("\n"));
}

fn joined(lines: &[String]) -> String {
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

#[test]
fn every_block_of_the_documents_is_marked() {
    let defects: Vec<_> = paths().iter().filter_map(|path| Document::read(path).err()).flatten().collect();
    assert!(defects.is_empty(), "\n{}", defects.join("\n"));
}

#[test]
fn links_to_headings_lead_somewhere() {
    let read = |path: &str| fs::read_to_string(top().join(path)).ok();
    let dead: Vec<_> = paths().iter().flat_map(|path| links::dead_anchors(path, read)).collect();
    assert!(dead.is_empty(), "\n{}", dead.join("\n"));
}

#[test]
fn every_document_with_recipes_has_its_test() {
    let is_run = |path: &&String| !steps(&document(path)).is_empty();
    let paths = paths();
    let mut run: Vec<_> = paths.iter().filter(is_run).map(String::as_str).collect();
    let mut tested = RUN.to_vec();
    run.sort_unstable();
    tested.sort_unstable();
    assert_eq!(run, tested);
}

#[test]
fn readme_has_at_most_150_lines_and_names_every_document() {
    let readme = fs::read_to_string(top().join("README.md")).expect("README.md");
    assert!(readme.lines().count() <= 150);
    for path in paths().iter().skip(1) {
        assert!(readme.contains(&format!("]({path})")), "README.md has no link to {path}");
    }
    assert!(["cargo demo", "cargo test --workspace"].iter().all(|command| readme.contains(command)));
}

#[test]
fn architecture_names_files_that_exist() {
    let text = fs::read_to_string(top().join("docs/architecture.md")).expect("a document");
    let absent = absent_files(&text, |path| top().join(path).exists());
    assert!(absent.is_empty(), "docs/architecture.md names {absent:?}");
}

/// The paths in code spans of `text` that do not exist. A path begins with a folder of the repository.
fn absent_files(text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with("```"));
    let spans = lines.flat_map(|line| line.split('`').skip(1).step_by(2));
    let is_path = |span: &&str| {
        let top = span.split_once('/').map_or("", |(top, _)| top);
        matches!(top, "libdc" | "tests" | "packaging" | "docs" | "man") || top.starts_with("dc-")
    };
    spans.filter(is_path).filter(|path| !exists(path)).map(str::to_owned).collect()
}

#[test]
fn path_of_no_file_is_absent() {
    let text = "`libdc/src/a.rs`, `dc-lock/src/b.rs` and `tests`;\n```text\n`proto/c`, `cargo x/y`, `/run/z`";
    assert_eq!(absent_files(text, |path| path.ends_with("a.rs")), ["dc-lock/src/b.rs"]);
}

#[test]
fn snippets_are_parts_of_the_examples() {
    let mut differences = Vec::new();
    for path in paths() {
        for block in &document(&path).blocks {
            let Mark::Example(name) = &block.mark else { continue };
            let part = part_of(&example(name), name);
            if block.text != part && !update::replace(&path, block, &block.text, &part) {
                differences.push(format!("{path}:{}: examples/{name}.rs has\n{part}", block.line));
            }
        }
    }
    assert!(differences.is_empty(), "\n{}\nUPDATE_DOCS=1 copies it", differences.join("\n"));
}

/// The source of an example of any crate.
fn example(name: &str) -> String {
    let crates = fs::read_dir(top()).expect("the repository").map(|entry| entry.expect("an entry").path());
    let mut paths = crates.map(|path| path.join("examples").join(format!("{name}.rs")));
    let path = paths.find(|path| path.exists()).unwrap_or_else(|| panic!("there is no example {name}"));
    fs::read_to_string(path).expect("an example")
}

/// The marked part of an example, without its indentation.
fn part_of(source: &str, name: &str) -> String {
    let lines = source.lines().skip_while(|line| line.trim() != "// docs: begin").skip(1);
    let lines: Vec<_> = lines.take_while(|line| line.trim() != "// docs: end").collect();
    assert!(!lines.is_empty(), "the example {name} has no part between `// docs: begin` and `// docs: end`");
    let indentation = |line: &&str| line.len() - line.trim_start().len();
    let cut = lines.iter().filter(|line| !line.trim().is_empty()).map(indentation).min().unwrap_or(0);
    lines.iter().flat_map(|line| [line.get(cut..).unwrap_or(""), "\n"]).collect()
}

#[test]
fn units_are_accepted_by_systemd_analyze() {
    let mut found = Vec::new();
    for path in paths() {
        let blocks = document(&path).blocks;
        let units = blocks.into_iter().filter(|block| matches!(block.mark, Mark::DropIn(_) | Mark::Unit(_)));
        found.extend(units.map(|block| (path.clone(), block)));
    }
    assert!(!found.is_empty(), "no document has a unit");
    if !units::can_verify() {
        return skip("units", "systemd-analyze is not installed");
    }
    let wrong: Vec<_> =
        found.iter().filter_map(|(path, block)| Some((path, units::defects(block)?))).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unit_with_an_unknown_setting_is_a_defect() {
    if !units::can_verify() {
        return skip("units", "systemd-analyze is not installed");
    }
    let block = |mark, text: &str| Block { line: 1, mark, language: "ini".to_owned(), text: text.to_owned() };
    let drop_in = block(Mark::DropIn("dc_server.socket".to_owned()), "[Socket]\nListenSteam=1\n");
    assert!(units::defects(&drop_in).expect("a defect").contains("ListenSteam"));
    let unit = block(Mark::Unit("x.service".to_owned()), "[Service]\nExecStart=/bin/true\nTyp=notify\n");
    assert!(units::defects(&unit).expect("a defect").contains("Typ"));
}

#[test]
fn table_of_options_is_that_of_the_programs() {
    let pages = options_table::DAEMONS.map(|name| {
        let help = std::process::Command::new(program(name)).arg("-help").output().expect("a program");
        String::from_utf8(help.stdout).expect("UTF-8")
    });
    let table = options_table::table(&pages);
    let path = "docs/configuration.md";
    let text = fs::read_to_string(top().join(path)).expect("a document");
    let stated = options_table::stated(&text).expect("the marks of the table");
    let with_end = |table: &str| format!("-->\n{table}{}", options_table::END);
    let is_equal = stated == table || update::replace_text(path, &with_end(stated), &with_end(&table));
    assert!(is_equal, "{path}: the table of options should be\n{table}\nUPDATE_DOCS=1 writes it");
}

#[test]
fn blocks_for_systemd_are_run_by_the_check_of_the_package() {
    let check = fs::read_to_string(top().join("packaging/check/under-systemd")).expect("a check");
    let blocks: Vec<_> = paths().iter().flat_map(|path| document(path).blocks).collect();
    let names = blocks.iter().filter_map(|block| match &block.mark {
        Mark::UnderSystemd(name) => Some(format!("run under systemd: {name}")),
        _ => None,
    });
    let left: Vec<_> = names.filter(|name| !check.contains(name)).collect();
    assert!(left.is_empty(), "packaging/check/under-systemd does not run {left:?}");
}

#[test]
fn failing_and_silent_steps_are_reported() {
    let step = |commands: &str| Step { line: 7, commands: commands.to_owned(), ..Step::default() };
    let steps = [step("echo one\n"), step("echo two; false\necho three\n"), step("echo four\n")];
    let missing = namespace::missing(&steps);
    if !missing.is_empty() {
        return skip("namespaces", &missing.join(", "));
    }
    let Ran::Failed(why) = namespace::run(&steps, &[]) else { panic!("a failing step was not seen") };
    assert!(why.contains("line 7 failed") && why.contains("two\n") && !why.contains("four"), "{why}");
    let Ran::All(printed) =
        namespace::run(&[step("test ! -e /tmp/x; touch /tmp/x\n"), step("ls /tmp\n")], &[])
    else {
        panic!("a step failed")
    };
    assert_eq!(printed, ["", "x\n"]);
}

#[test]
fn crontab_line_yields_its_command() {
    assert_eq!(command_of_crontab("30 2 * * *  root  dc_lock -n a -- b\n"), "dc_lock -n a -- b\n");
    assert_eq!(command_of_crontab("30 2 * *\n"), "");
}

#[test]
fn part_of_an_example_loses_its_indentation() {
    let source = "fn main() {\n    // docs: begin\n    a();\n\n        b();\n    // docs: end\n    c();\n}\n";
    assert_eq!(part_of(source, "x"), "a();\n\n    b();\n");
}
