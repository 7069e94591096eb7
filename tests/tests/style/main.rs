//! The rules of the sources that no lint knows: the layers, the size of files, their names.
//!
//! Each rule takes the sources and says what breaks it, and has a test that shows it something broken.

mod source;

use source::{Source, sources, walk};
use std::path::Path;

/// Most lines of a file without its tests.
const LINES_MAX: usize = 600;

/// What each module of libdc may use of the others. Those that are not here may use all.
const LAYERS: [(&str, &[&str]); 7] = [
    ("limits", &[]),
    ("id", &["limits"]),
    ("time", &["limits"]),
    ("wire", &["limits", "id", "time"]),
    ("table", &["limits", "id", "time"]),
    ("service", &["limits", "id", "time", "wire", "table"]),
    ("proto", &["limits", "id", "time", "wire", "service"]),
];

/// The decisions of `dc_master`, which are as pure, and know of nothing but the time.
const DECISIONS: &str = "dc-master/src/supervisor";

/// What the pure layers never touch: sockets, clocks, randomness, threads, the terminal.
const WORLD: [&str; 13] = [
    "tokio",
    "tokio_util",
    "tracing",
    "nix",
    "rand",
    "std::net",
    "std::os",
    "std::thread",
    "thread",
    "SystemTime",
    "std::time::SystemTime",
    "std::process",
    "std::fs",
];

/// Names that say how a thing is built instead of what it is.
const FORBIDDEN_NAMES: [&str; 7] = ["utils", "util", "common", "types", "helpers", "helper", "manager"];

fn top() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Whether `path` is `what` or leads into it.
fn leads_to(path: &str, what: &str) -> bool {
    path.strip_prefix(what).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn breaks_layers(source: &Source) -> Vec<String> {
    let Some((layer, allowed)) =
        source.layer().and_then(|layer| LAYERS.into_iter().find(|(name, _)| *name == layer))
    else {
        return Vec::new();
    };
    let at_root = source.path.matches('/').count() == 2 || source.path.ends_with("/mod.rs");
    let mut broken = Vec::new();
    for path in source.paths() {
        let from_root =
            path.strip_prefix("crate::").or_else(|| path.strip_prefix("super::").filter(|_| at_root));
        let module = from_root.and_then(|path| path.split("::").next());
        if path.starts_with("super::super") || module == Some("super") {
            broken.push(format!("{}: {path} is to be written from `crate`", source.path));
        } else if let Some(module) = module
            && module != layer
            && is_module_of_libdc(module)
            && !allowed.contains(&module)
        {
            broken.push(format!("{}: {layer} must not use {module} ({path})", source.path));
        }
    }
    broken
}

fn is_module_of_libdc(name: &str) -> bool {
    LAYERS.iter().any(|(layer, _)| *layer == name) || matches!(name, "net" | "process" | "client")
}

fn touches_the_world(source: &Source) -> Vec<String> {
    let decides = source.path.starts_with(DECISIONS);
    let is_pure =
        source.layer().is_some_and(|layer| LAYERS.iter().any(|(name, _)| *name == layer)) || decides;
    let touches = |path: &String| {
        WORLD.iter().any(|world| leads_to(path, world))
            || decides
                && (path.starts_with("crate::") || path.starts_with("libdc::") && path != "libdc::time::Time")
            || path.ends_with("Instant::now")
            || matches!(path.as_str(), "println" | "eprintln" | "print" | "eprint")
    };
    let paths = source.paths().into_iter().filter(|path| is_pure && touches(path));
    paths.map(|path| format!("{}: a pure layer uses {path}", source.path)).collect()
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

fn has_an_empty_name(source: &Source) -> Vec<String> {
    let names = source.path.trim_end_matches(".rs").split('/');
    let empty = names.filter(|name| FORBIDDEN_NAMES.contains(name));
    empty.map(|name| format!("{}: `{name}` says nothing", source.path)).collect()
}

fn sleeps(source: &Source) -> Vec<String> {
    // The harness is code of tests, the programs beside it are not.
    let is_harness = source.path.starts_with("tests/src/") && !source.path.starts_with("tests/src/bin/");
    let sleeps = source.test_code.contains("sleep(") || (is_harness && source.code.contains("sleep("));
    sleeps.then(|| format!("{}: a test that sleeps", source.path)).into_iter().collect()
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
fn the_layers_use_only_what_is_below_them() {
    hold(breaks_layers);
}

#[test]
fn a_use_of_a_layer_above_is_seen() {
    for text in [
        "use crate::wire::frame;",
        "use crate::{id::SessionId, wire::{frame, message}};",
        "use crate::wire::session::Status as Answer;",
        "use crate::{id::SessionId as Id, wire::frame};",
        "fn f() { crate::service::serve() }",
        "use crate::{\n    limits::EXPIRY_BATCH,\n    net,\n};",
        "use super::super::wire;",
    ] {
        assert!(is_seen(breaks_layers, "libdc/src/table/session.rs", text), "{text}");
    }
    assert!(is_seen(breaks_layers, "libdc/src/table/mod.rs", "use super::wire::frame;"));
    assert!(is_seen(breaks_layers, "libdc/src/id.rs", "use super::time::Time;"));
    assert!(is_seen(breaks_layers, "libdc/src/wire/frame.rs", "use crate::table::session;"));
    assert!(is_seen(breaks_layers, "libdc/src/service.rs", "use crate::proto::server;"));
    assert!(is_seen(breaks_layers, "libdc/src/proto/agent.rs", "use crate::client::blocking;"));
    for text in [
        "use crate::{id::SessionId, limits::EXPIRY_BATCH};",
        "use crate::table::expiry; use super::expiry;",
        "/// As [`crate::wire`] has it.\nfn f() { g(\"crate::wire\") }",
        "fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::wire::frame;\n}",
    ] {
        assert!(!is_seen(breaks_layers, "libdc/src/table/session.rs", text), "{text}");
    }
}

#[test]
fn the_pure_layers_do_not_touch_the_world() {
    hold(touches_the_world);
}

#[test]
fn a_touch_of_the_world_is_seen() {
    for text in [
        "use tokio::sync::mpsc;",
        "use std::{fmt, net::SocketAddr};",
        "use std::os::fd::OwnedFd;",
        "fn f() { std::time::Instant::now(); }",
        "fn f() { Instant::now(); }",
        "use std::time::{Duration, SystemTime};",
        "fn f() { rand::random(); }",
        "fn f() { std::thread::spawn(g); }",
        "fn f() { thread::spawn(g); }",
        "fn f() { println!(\"here\"); }",
    ] {
        for layer in ["wire/frame.rs", "table/session.rs", "proto/agent.rs", "service.rs"] {
            assert!(is_seen(touches_the_world, &format!("libdc/src/{layer}"), text), "{text}");
        }
        assert!(is_seen(touches_the_world, "dc-master/src/supervisor/child.rs", text), "{text}");
        assert!(!is_seen(touches_the_world, "libdc/src/net/driver.rs", text));
    }
    for text in ["use crate::launch::Launcher;", "use libdc::net::clock::Clock;"] {
        assert!(is_seen(touches_the_world, "dc-master/src/supervisor.rs", text), "{text}");
        assert!(!is_seen(touches_the_world, "dc-master/src/master.rs", text), "{text}");
    }
    assert!(!is_seen(touches_the_world, "dc-master/src/supervisor.rs", "use libdc::time::Time;"));
    let pure = "// tokio\nuse std::time::Duration;\nfn f<'a>(operand: &'a str) { write!(operand, \"rand\") }";
    assert!(!is_seen(touches_the_world, "libdc/src/wire/frame.rs", pure));
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
fn names_say_what_a_thing_is() {
    hold(has_an_empty_name);
}

#[test]
fn a_name_that_says_nothing_is_seen() {
    assert!(is_seen(has_an_empty_name, "libdc/src/net/utils.rs", ""));
    assert!(is_seen(has_an_empty_name, "libdc/src/common/address.rs", ""));
    assert!(!is_seen(has_an_empty_name, "libdc/src/net/address.rs", ""));
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
