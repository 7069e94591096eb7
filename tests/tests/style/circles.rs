//! Circles of imports between the files of a crate.

use crate::source::Source;
use std::collections::{BTreeMap, BTreeSet};

/// Modules whose files may use each other: the parts of one machine, or of the simulated world. From outside,
/// each is one thing.
const INSIDE: [&str; 7] = [
    "libdc/src/proto/agent/",
    "libdc/src/proto/server/",
    "libdc/src/client/lock/",
    "libdc/src/service",
    "dc-daemon/src/drivers/agent",
    "dc-daemon/src/drivers/server",
    "tests/src/simulation/",
];

/// Which files each file uses, by their place in `sources`.
struct Imports<'s> {
    sources: &'s [Source],
    /// A module's path, with the folder of its crate in front.
    modules: BTreeMap<Vec<&'s str>, usize>,
}

impl<'s> Imports<'s> {
    fn new(sources: &'s [Source]) -> Self {
        let modules = sources.iter().enumerate().filter(|(_, source)| !source.code.is_empty());
        let modules = modules.filter_map(|(at, source)| Some((module(&source.path)?, at))).collect();
        Self { sources, modules }
    }

    /// The files that the file at `at` uses. Modules that only wire are ignored, since they name all of their
    /// items.
    fn of(&self, at: usize) -> BTreeSet<usize> {
        let source = &self.sources[at];
        let Some(own) = module(&source.path) else { return BTreeSet::new() };
        let paths = source.paths();
        paths.iter().filter_map(|path| self.target(&own, path)).filter(|to| *to != at).collect()
    }

    fn target(&self, own: &[&'s str], path: &str) -> Option<usize> {
        let mut parts = path.split("::").peekable();
        let mut full: Vec<&str> = match *parts.peek()? {
            "crate" => {
                parts.next();
                own[..1].to_vec()
            }
            "self" => {
                parts.next();
                own.to_vec()
            }
            "super" => {
                let mut base = own.to_vec();
                while parts.next_if(|part| *part == "super").is_some() {
                    base.pop();
                }
                // The word of `pub(super)` alone names nothing.
                parts.peek()?;
                base
            }
            first => {
                let child: Vec<&str> = own.iter().copied().chain([first]).collect();
                self.modules.contains_key(&child).then(|| own.to_vec())?
            }
        };
        full.extend(parts);
        let found = (1..=full.len()).rev().find_map(|length| {
            let at = self.modules.get(&full[..length])?;
            Some((*at, full.get(length).copied()))
        });
        let (at, item) = found?;
        let source = &self.sources[at];
        if !wires(&source.path) {
            return Some(at);
        }
        // A re-export leads on to the file that has the item.
        let base = module(&source.path)?;
        let exported =
            source.paths().into_iter().find(|path| item.is_some_and(|item| ends_with_item(path, item)))?;
        let inside = exported.trim_start_matches("self::");
        let file: Vec<&str> = base.iter().copied().chain(inside.split("::")).collect();
        let to = (1..file.len()).rev().find_map(|length| self.modules.get(&file[..length]))?;
        (!wires(&self.sources[*to].path)).then_some(*to)
    }
}

fn ends_with_item(path: &str, item: &str) -> bool {
    path.strip_suffix(item).is_some_and(|rest| rest.ends_with("::"))
}

fn wires(path: &str) -> bool {
    ["/mod.rs", "/lib.rs", "/main.rs"].iter().any(|name| path.ends_with(name))
}

/// The path of the module at `path`, with the folder of its crate in front; `None` if it is in no crate's
/// sources.
fn module(path: &str) -> Option<Vec<&str>> {
    let (krate, inside) = path.split_once("/src/")?;
    let mut parts: Vec<&str> = inside.trim_end_matches(".rs").split('/').collect();
    if matches!(parts.last(), Some(&"mod" | &"lib" | &"main")) {
        parts.pop();
    }
    Some([krate].into_iter().chain(parts).collect())
}

/// The circles of `sources`: in each line the files of one.
pub(crate) fn circles(sources: &[Source]) -> Vec<String> {
    let imports = Imports::new(sources);
    let edges: Vec<BTreeSet<usize>> = (0..sources.len()).map(|at| imports.of(at)).collect();
    let reach: Vec<BTreeSet<usize>> = (0..sources.len()).map(|at| reachable(&edges, at)).collect();
    let mut found = BTreeSet::new();
    for at in 0..sources.len() {
        let mut circle: Vec<&str> = (0..sources.len())
            .filter(|other| reach[at].contains(other) && reach[*other].contains(&at))
            .map(|other| sources[other].path.as_str())
            .collect();
        circle.sort_unstable();
        let is_inside = INSIDE.iter().any(|module| circle.iter().all(|path| path.starts_with(module)));
        if circle.len() > 1 && !is_inside {
            found.insert(circle.join(", "));
        }
    }
    found.into_iter().collect()
}

fn reachable(edges: &[BTreeSet<usize>], from: usize) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(at) = open.pop() {
        open.extend(edges[at].iter().filter(|to| reached.insert(**to)));
    }
    reached
}

#[test]
fn circle_of_imports_is_a_violation() {
    let sources = [
        Source::new("a/src/lib.rs", "mod one; mod two; mod three;"),
        Source::new("a/src/one.rs", "use crate::two::B;"),
        Source::new("a/src/two.rs", "use super::three;"),
        Source::new("a/src/three/mod.rs", "mod four; pub use four::D;"),
        Source::new("a/src/five.rs", "mod six; use self::six::E;"),
        Source::new("a/src/five/six.rs", "pub(super) struct E;"),
        Source::new("a/src/three/four.rs", "fn f() { crate::one::g() }"),
        Source::new("b/src/one.rs", "use crate::two::B;"),
        Source::new("b/src/two.rs", "fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::one;\n}"),
    ];
    assert_eq!(circles(&sources), [""; 0]);
    let mut sources = sources.into_iter().collect::<Vec<_>>();
    sources[2] = Source::new("a/src/two.rs", "use super::three::D;");
    assert_eq!(circles(&sources), ["a/src/one.rs, a/src/three/four.rs, a/src/two.rs"]);
    let inside = |other: &str| {
        circles(&[
            Source::new("libdc/src/proto/server/frames.rs", "use crate::proto::server::lines;"),
            Source::new("libdc/src/proto/server/lines.rs", &format!("use crate::{other};")),
            Source::new("libdc/src/proto/outbox.rs", "use crate::proto::server::frames;"),
        ])
    };
    assert_eq!(inside("proto::server::frames"), [""; 0]);
    assert_eq!(inside("proto::outbox").len(), 1, "a circle that leads outside");
}
