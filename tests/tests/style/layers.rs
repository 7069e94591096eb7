//! The layers of the sources: the modules that each module may use, and the pure modules.
//!
//! A module without a row fails the test, so a new module needs a row first. Rows are looked up by the
//! longest path.

use crate::source::Source;

/// Modules of one layer: paths from the top of the repository without `.rs`, the layers they may use, and
/// whether they are pure.
struct Row {
    module: &'static str,
    /// Other rows, by their module's name within the crate; its own modules are always allowed.
    uses: &'static [&'static str],
    is_pure: bool,
}

const fn pure(module: &'static str, uses: &'static [&'static str]) -> Row {
    Row { module, uses, is_pure: true }
}

const fn any(module: &'static str, uses: &'static [&'static str]) -> Row {
    Row { module, uses, is_pure: false }
}

/// Everything that clients, sockets and the front page of libdc may use.
const ALL: &[&str] = &[
    "limits",
    "id",
    "time",
    "secret",
    "wire",
    "table",
    "service",
    "proto",
    "proto::agent",
    "proto::server",
    "net",
    "client",
    "client::session::exchange",
    "client::lock::machine",
    "client::lock::calls",
    "client::lock::lease",
];
const BELOW_PROTO: &[&str] = &["limits", "id", "time", "secret", "wire"];
const CLIENT_MACHINES: &[&str] = &[
    "limits",
    "id",
    "time",
    "secret",
    "wire",
    "proto",
    "client::lock::machine",
    "client::lock::calls",
    "client::lock::lease",
    // Option and error types of the clients: values.
    "client",
];

const LIBDC: &[Row] = &[
    pure("limits", &[]),
    pure("id", &["limits"]),
    pure("time", &["limits"]),
    pure("secret", &["limits", "id", "time"]),
    pure("wire", &["limits", "id", "time"]),
    pure("table", &["limits", "id", "time"]),
    pure("service", &["limits", "id", "time", "secret", "wire", "table"]),
    pure("proto", BELOW_PROTO),
    pure("proto::agent", &["limits", "id", "time", "secret", "wire", "proto"]),
    pure("proto::server", &["limits", "id", "time", "secret", "wire", "table", "service", "proto"]),
    pure("client::session::exchange", CLIENT_MACHINES),
    pure("client::lock::machine", CLIENT_MACHINES),
    pure("client::lock::calls", CLIENT_MACHINES),
    pure("client::lock::lease", CLIENT_MACHINES),
    any("net", ALL),
    any("client", ALL),
    any("lib", ALL),
];

/// Pure modules of the programs. They use libdc's pure modules and one another.
const PURE_ELSEWHERE: &[&str] = &["dc-master/src/supervisor", "dc-snoop/src/decode", "dc-snoop/src/observe"];

/// The parts of the system that pure modules never touch.
const WORLD: &[&str] = &[
    "std::net",
    "std::os",
    "std::thread",
    "thread",
    "std::process",
    "std::fs",
    "std::env",
    "SystemTime",
    "std::time::SystemTime",
    "Instant",
    "std::time::Instant",
    "RandomState",
    "std::collections::hash_map::RandomState",
    "println",
    "eprintln",
    "print",
    "eprint",
];

/// The crates that pure modules may use.
const PURE_CRATES: &[&str] =
    &["foldhash", "rand_chacha", "serde", "serde_json", "sha2", "subtle", "thiserror", "zeroize", "libdc"];

/// The modules of libdc that pure modules of the programs may use.
const LIBDC_PURE: &[&str] = &["limits", "id", "time", "secret", "wire"];

/// Whether `path` is `what` or leads into it.
fn leads_to(path: &str, what: &str) -> bool {
    path.strip_prefix(what).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The module of libdc that `source` is, as a path within the crate: `proto::agent::local`.
fn libdc_module(source: &Source) -> Option<String> {
    let inside = source.path.strip_prefix("libdc/src/")?.trim_end_matches(".rs");
    Some(inside.trim_end_matches("/mod").replace('/', "::"))
}

/// The row of a module of libdc: the one with the longest path that leads to it.
fn row(module: &str) -> Option<&'static Row> {
    let rows = LIBDC.iter().filter(|row| leads_to(module, row.module));
    rows.max_by_key(|row| row.module.len())
}

/// `path` as it is written from the root of the crate, where it is one of this crate's.
fn from_root(path: &str, module: &str, is_mod: bool) -> Option<String> {
    if let Some(path) = path.strip_prefix("crate::") {
        return Some(path.to_owned());
    }
    let mut base: Vec<&str> = module.split("::").collect();
    if !is_mod {
        base.pop();
    }
    if let Some(path) = path.strip_prefix("self::") {
        return Some([base.join("::").as_str(), path].join("::"));
    }
    let mut rest = path;
    let mut went_up = false;
    while let Some(path) = rest.strip_prefix("super::") {
        // `super` of a file is its folder; of a `mod.rs`, the folder above.
        if went_up || is_mod {
            base.pop();
        }
        went_up = true;
        rest = path;
    }
    went_up.then(|| base.into_iter().chain([rest]).collect::<Vec<_>>().join("::"))
}

/// Uses of a layer that is not below, and modules without a row.
pub(crate) fn layer_violations(source: &Source) -> Vec<String> {
    let Some(module) = libdc_module(source) else { return Vec::new() };
    let Some(own) = row(&module) else {
        return vec![format!("{}: libdc::{module} has no row in the table of layers", source.path)];
    };
    // A module that only wires re-exports what is in it.
    let is_mod = source.path.ends_with("/mod.rs");
    let paths = source.paths();
    let used = paths.iter().filter_map(|path| from_root(path, &module, is_mod));
    let above = used.filter(|path| {
        let Some(target) = row(path) else { return false };
        let wires = is_mod && leads_to(target.module, &module);
        target.module != own.module && !wires && !own.uses.contains(&target.module)
    });
    above.map(|path| format!("{}: {} must not use {path}", source.path, own.module)).collect()
}

fn is_pure(source: &Source) -> bool {
    let elsewhere = |folder: &&str| {
        source.path.strip_prefix(*folder).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
    };
    libdc_module(source).and_then(|module| row(&module)).is_some_and(|row| row.is_pure)
        || PURE_ELSEWHERE.iter().any(elsewhere)
}

/// Uses of the system, of randomness and of other crates in pure modules. `crates` lists the crates that the
/// workspace uses.
pub(crate) fn purity_violations(source: &Source, crates: &[String]) -> Vec<String> {
    if !is_pure(source) {
        return Vec::new();
    }
    let is_of_a_program = !source.path.starts_with("libdc/");
    let paths = source.paths();
    let forbidden = paths.iter().filter(|path| {
        let first = path.split("::").next().unwrap_or_default();
        WORLD.iter().any(|world| leads_to(path, world))
            || (leads_to(path, "std::io") && !is_error_of_io(path))
            || path.ends_with("Instant::now")
            || path.ends_with("hash_map::RandomState")
            || path.ends_with("::RandomState")
            || (path.contains("::")
                && crates.iter().any(|name| name == first)
                && !PURE_CRATES.contains(&first))
            || (is_of_a_program
                && first == "libdc"
                && !path.split("::").nth(1).is_some_and(|it| LIBDC_PURE.contains(&it)))
    });
    let mut found: Vec<String> =
        forbidden.map(|path| format!("{}: a pure module uses {path}", source.path)).collect();
    for (name, parameters) in [("HashMap<", 3), ("HashSet<", 2)] {
        if maps(&source.code, name).any(|count| count < parameters) {
            found.push(format!("{}: {}..> has the default hasher, which is random", source.path, name));
        }
    }
    for made in ["HashMap::new", "HashMap::with_capacity", "HashSet::new", "HashSet::with_capacity"] {
        if paths.iter().any(|path| path.ends_with(made)) {
            found.push(format!("{}: {made} has the default hasher, which is random", source.path));
        }
    }
    found
}

fn is_error_of_io(path: &str) -> bool {
    ["std::io", "std::io::Error", "std::io::ErrorKind", "std::io::self"].contains(&path)
        || path.starts_with("std::io::Error::")
        || path.starts_with("std::io::ErrorKind::")
        // Formatting into a vector.
        || path == "std::io::Write"
}

/// How many parameters each `name` in `code` has: `HashMap<K, V>` has two.
fn maps<'c>(code: &'c str, name: &'c str) -> impl Iterator<Item = usize> + 'c {
    code.match_indices(name).map(|(at, _)| {
        let (mut depth, mut count) = (0_usize, 1);
        for c in code[at + name.len()..].chars() {
            match c {
                '<' | '(' | '[' => depth += 1,
                '>' if depth == 0 => break,
                '>' | ')' | ']' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => count += 1,
                _ => {}
            }
        }
        count
    })
}

#[test]
fn layer_above_is_a_violation() {
    for (path, text) in [
        ("table/session.rs", "use crate::wire::frame;"),
        ("table/session.rs", "use crate::{id::SessionId, wire::{frame, message}};"),
        ("table/session.rs", "use crate::wire::session::Status as Answer;"),
        ("table/session.rs", "use crate::{id::SessionId as Id, wire::frame};"),
        ("table/session.rs", "fn f() { crate::service::serve() }"),
        ("table/session.rs", "use crate::{\n    limits::EXPIRY_BATCH,\n    net,\n};"),
        ("table/session.rs", "use super::super::wire;"),
        ("table/mod.rs", "use super::wire::frame;"),
        ("id.rs", "use super::time::Time;"),
        ("wire/frame.rs", "use crate::table::session;"),
        ("service.rs", "use crate::proto::server;"),
        ("proto/link.rs", "use crate::proto::agent::local;"),
        ("proto/link.rs", "use crate::service::Service;"),
        ("proto/agent/local.rs", "use crate::service::Service;"),
        ("proto/agent/local.rs", "use crate::proto::server::connection;"),
        ("proto/agent/local.rs", "use crate::client::blocking;"),
        ("secret.rs", "use crate::wire::frame;"),
    ] {
        let source = Source::new(&format!("libdc/src/{path}"), text);
        assert!(!layer_violations(&source).is_empty(), "{path}: {text}");
    }
    for (path, text) in [
        ("table/session.rs", "use crate::{id::SessionId, limits::EXPIRY_BATCH};"),
        ("table/session.rs", "use crate::table::expiry; use super::expiry;"),
        ("table/session.rs", "/// As [`crate::wire`] has it.\nfn f() { g(\"crate::wire\") }"),
        ("table/session.rs", "fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::wire::frame;\n}"),
        ("proto/server/frames.rs", "use crate::service::Service; use crate::proto::outbox::Outbox;"),
        ("client/mod.rs", "pub use session::Client; use crate::proto::link::Link;"),
    ] {
        let source = Source::new(&format!("libdc/src/{path}"), text);
        assert_eq!(layer_violations(&source), [""; 0], "{path}: {text}");
    }
}

#[test]
fn module_without_row_is_a_violation() {
    let source = Source::new("libdc/src/gossip.rs", "fn f() {}");
    assert_eq!(
        layer_violations(&source),
        ["libdc/src/gossip.rs: libdc::gossip has no row in the table of layers"]
    );
    assert!(layer_violations(&Source::new("dc-server/src/gossip.rs", "fn f() {}")).is_empty());
}

#[test]
fn touch_of_the_system_is_a_violation() {
    let crates = ["tokio", "getrandom", "libdc", "thiserror"].map(String::from);
    for text in [
        "use tokio::sync::mpsc;",
        "use std::{fmt, net::SocketAddr};",
        "use std::os::fd::OwnedFd;",
        "fn f() { std::time::Instant::now(); }",
        "fn f() { Instant::now(); }",
        "use std::time::{Duration, SystemTime};",
        "fn f() { getrandom::fill(b); }",
        "fn f() { std::thread::spawn(g); }",
        "fn f() { thread::spawn(g); }",
        "fn f() { println!(\"here\"); }",
        "fn f() { std::fs::read(path); }",
        "use std::fs::File;",
        "use std::io::{self, Read};",
        "fn f() { std::env::var(name); }",
        "use foldhash::fast::RandomState;",
        "use std::hash::RandomState;",
        "struct A { b: HashMap<u32, Vec<(u8, u8)>> }",
        "struct A { b: HashSet<u32> }",
        "fn f() { let map = HashMap::new(); }",
        "fn f() { let map = HashSet::with_capacity(3); }",
    ] {
        for path in [
            "libdc/src/wire/frame.rs",
            "libdc/src/proto/agent/local.rs",
            "libdc/src/service.rs",
            "libdc/src/client/lock/lease.rs",
            "dc-master/src/supervisor/child.rs",
            "dc-snoop/src/decode/lock.rs",
        ] {
            assert!(!purity_violations(&Source::new(path, text), &crates).is_empty(), "{path}: {text}");
        }
        assert!(purity_violations(&Source::new("libdc/src/net/connect.rs", text), &crates).is_empty());
    }
    let net = Source::new("dc-master/src/supervisor.rs", "use libdc::net::clock::DriverClock;");
    assert!(!purity_violations(&net, &crates).is_empty());
    for text in [
        "// tokio\nuse std::time::Duration;\nfn f<'a>(operand: &'a str) { write!(operand, \"rand\") }",
        "use std::io; fn f() -> io::Error { io::Error::other(e) }",
        "struct A { b: HashMap<u32, Vec<u8>, FixedState>, c: HashSet<u64, S> }",
        "use libdc::time::Time; use thiserror::Error;",
    ] {
        for path in ["libdc/src/wire/frame.rs", "dc-master/src/supervisor.rs"] {
            assert_eq!(purity_violations(&Source::new(path, text), &crates), [""; 0], "{path}: {text}");
        }
    }
}
