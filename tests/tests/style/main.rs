//! The rules of the sources that no lint knows: the layers, the size of files, their names.
//!
//! Each rule takes the sources and says what breaks it, and has a test that shows it something broken.

mod circles;
mod layers;
mod names;
mod source;

use circles::circles;
use layers::{layer_violations, purity_violations};
use names::{bad_test_names, doubled_types, empty_names};
use source::{Source, sources, walk};
use std::path::Path;

/// Most lines of a file without its tests.
const LINES_MAX: usize = 600;

/// Last column of a comment.
const COMMENT_COLUMN_MAX: usize = 110;

fn top() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn is_too_long(source: &Source) -> Vec<String> {
    let lines = source.code.lines().count();
    let is_long = lines > LINES_MAX;
    is_long.then(|| format!("{}: {lines} lines besides its tests", source.path)).into_iter().collect()
}

fn has_code_in_mod(source: &Source) -> Vec<String> {
    let has_code = source.path.ends_with("/mod.rs") && source.paths().contains("fn");
    has_code.then(|| format!("{}: mod.rs only wires", source.path)).into_iter().collect()
}

fn unwraps(source: &Source) -> Vec<String> {
    let unwraps = source.code.contains(".unwrap()");
    unwraps.then(|| format!("{}: unwrap() outside of tests", source.path)).into_iter().collect()
}

fn sleeps(source: &Source) -> Vec<String> {
    // The harness is code of tests, the programs beside it are not.
    let is_harness = source.path.starts_with("tests/src/") && !source.path.starts_with("tests/src/bin/");
    let sleeps = source.test_code.contains("sleep(") || (is_harness && source.code.contains("sleep("));
    sleeps.then(|| format!("{}: a test that sleeps", source.path)).into_iter().collect()
}

/// Comments that are too wide. Tables, fenced blocks, and lines of one long word such as a link stay as they
/// are.
fn wide_comments(path: &str, text: &str) -> Vec<String> {
    let mut is_fenced = false;
    let mut wide = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let words = line.trim_start();
        if !words.starts_with("//") {
            is_fenced = false;
            continue;
        }
        let comment = words.trim_start_matches(['/', '!']).trim_start();
        is_fenced ^= comment.starts_with("```");
        let is_text = !is_fenced && !comment.starts_with('|') && words.split(' ').nth(2).is_some();
        if is_text && line.chars().count() > COMMENT_COLUMN_MAX {
            wide.push(format!("{path}:{}: a comment beyond column {COMMENT_COLUMN_MAX}", number + 1));
        }
    }
    wide
}

/// Relative links of a Markdown file that lead nowhere.
fn dead_links(path: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.filter_map(|target| target.split('#').next());
    let relative =
        files.filter(|file| !file.is_empty() && !file.contains("://") && !file.starts_with("mailto:"));
    let dead = relative.filter(|file| !exists(format!("{folder}/{file}").trim_start_matches('/')));
    dead.map(|file| format!("{path}: there is no {file}")).collect()
}

/// That no source of the repository breaks `rule`.
fn hold(rule: fn(&Source) -> Vec<String>) {
    let sources = sources(top());
    assert!(sources.iter().any(|source| source.path == "libdc/src/wire/frame.rs"), "no sources were found");
    let broken: Vec<String> = sources.iter().flat_map(rule).collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// Whether `rule` has something to say of a file at `path` that holds `text`.
fn is_seen(rule: fn(&Source) -> Vec<String>, path: &str, text: &str) -> bool {
    !rule(&Source::new(path, text)).is_empty()
}

#[test]
fn layers_use_only_what_is_below_them() {
    hold(layer_violations);
}

#[test]
fn pure_modules_do_not_touch_the_system() {
    let crates = workspace_crates();
    assert!(crates.iter().any(|name| name == "tokio"), "{crates:?}");
    let found: Vec<String> = sources(top()).iter().flat_map(|it| purity_violations(it, &crates)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// The crates that the workspace uses, as they are written in paths.
fn workspace_crates() -> Vec<String> {
    let manifest = std::fs::read_to_string(top().join("Cargo.toml")).expect("the manifest is readable");
    let table = manifest.split("[workspace.dependencies]").nth(1).unwrap_or_default();
    let lines = table.lines().take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| Some(line.split_once(" = ")?.0.replace('-', "_"))).collect()
}

#[test]
fn files_import_each_other_in_no_circle() {
    let found = circles(&sources(top()));
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn type_names_mean_one_thing() {
    let found = doubled_types(&sources(top()));
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn test_names_begin_with_the_thing_under_test() {
    hold(bad_test_names);
}

#[test]
fn comment_lines_end_at_column_110() {
    let mut files = Vec::new();
    walk(top(), "", "rs", &mut files);
    let text = |path: &String| std::fs::read_to_string(top().join(path)).expect("the file is readable");
    let found: Vec<String> = files.iter().flat_map(|path| wide_comments(path, &text(path))).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn wide_comment_is_a_violation() {
    let line = |length: usize| format!("    /// {} y\n", "x".repeat(length - 10));
    assert!(wide_comments("a.rs", &line(COMMENT_COLUMN_MAX)).is_empty());
    assert_eq!(wide_comments("a.rs", &line(COMMENT_COLUMN_MAX + 1)), ["a.rs:1: a comment beyond column 110"]);
    assert!(
        wide_comments("a.rs", &format!("/// | {} |\n", "x".repeat(200))).is_empty(),
        "tables stay in one line"
    );
}

#[test]
fn files_are_short() {
    hold(is_too_long);
}

#[test]
fn a_long_file_is_seen() {
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    f();\n".repeat(900));
    let lines = "f();\n".repeat(LINES_MAX);
    assert!(!is_seen(is_too_long, "libdc/src/id.rs", &(lines.clone() + &tests)));
    assert!(is_seen(is_too_long, "libdc/src/id.rs", &(lines.clone() + &tests + "f();\n")));
    assert!(is_seen(is_too_long, "libdc/src/id.rs", &(lines + "// f();\n")), "comments count");
}

#[test]
fn mod_rs_only_wires() {
    hold(has_code_in_mod);
}

#[test]
fn code_in_mod_rs_is_seen() {
    assert!(is_seen(has_code_in_mod, "libdc/src/wire/mod.rs", "pub mod frame;\nfn f() {}"));
    assert!(!is_seen(has_code_in_mod, "libdc/src/wire/mod.rs", "//! No fn f() here.\npub mod frame;"));
    assert!(!is_seen(has_code_in_mod, "libdc/src/wire/frame.rs", "fn f() {}"));
}

#[test]
fn nothing_unwraps_outside_of_tests() {
    hold(unwraps);
}

#[test]
fn an_unwrap_is_seen() {
    assert!(is_seen(unwraps, "dc-server/src/main.rs", "fn f() { g().unwrap(); }"));
    assert!(!is_seen(unwraps, "dc-server/src/main.rs", "#[cfg(test)]\nmod tests {\n    g().unwrap();\n}"));
    let shared = "#[cfg(test)]\npub(crate) mod tests {\n    g().unwrap();\n}";
    assert!(!is_seen(unwraps, "dc-server/src/main.rs", shared));
    assert!(!is_seen(unwraps, "libdc/tests/wire.rs", "fn f() { g().unwrap(); }"));
}

#[test]
fn file_names_say_what_a_thing_is() {
    hold(empty_names);
}

#[test]
fn no_test_sleeps() {
    hold(sleeps);
}

#[test]
fn a_test_that_sleeps_is_seen() {
    let code = "fn f() { std::thread::sleep(g()); }";
    assert!(is_seen(sleeps, "tests/tests/restart.rs", code));
    assert!(is_seen(sleeps, "tests/src/harness.rs", code));
    assert!(is_seen(sleeps, "libdc/src/id.rs", "#[cfg(test)]\nmod tests {\n    sleep(1);\n}"));
    assert!(!is_seen(sleeps, "libdc/src/net/driver.rs", code));
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut documents = Vec::new();
    walk(top(), "", "md", &mut documents);
    let text = |path: &String| std::fs::read_to_string(top().join(path)).expect("the file is readable");
    let dead: Vec<String> = documents
        .iter()
        .flat_map(|path| dead_links(path, &text(path), |target| top().join(target).exists()))
        .collect();
    assert!(dead.is_empty(), "\n{}", dead.join("\n"));
}

#[test]
fn a_link_that_leads_nowhere_is_seen() {
    let text = "[a](b.md) [c](https://host/b.md) [d](#b) [e](f.md#g) [h](mailto:i@j)";
    assert_eq!(dead_links("README.md", text, |path| path == "b.md"), ["README.md: there is no f.md"]);
    assert!(dead_links("tests/fuzz/README.md", "[a](../b)", |path| path == "tests/fuzz/../b").is_empty());
}
