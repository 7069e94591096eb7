//! Names: of files, of types, of tests.

use crate::source::Source;
use std::collections::BTreeMap;

/// Names that describe how a thing is built instead of its purpose.
const FORBIDDEN: [&str; 7] = ["utils", "util", "common", "types", "helpers", "helper", "manager"];

/// Types that share a name because they are one concept: the asynchronous and the blocking client, and the
/// TLS socket with its stand-in in a build without TLS.
const SHARED: [&str; 5] = ["Client", "LockClient", "Guard", "QueuedLock", "TlsSocket"];

/// Words that no test's name begins with.
const FORBIDDEN_STARTS: [&str; 7] = ["who_", "what_", "nobody_", "it_", "one_", "all_", "there_"];

/// Longest name of a test.
const TEST_NAME_MAX: usize = 60;

/// Files and folders with a name that says nothing.
pub(crate) fn empty_names(source: &Source) -> Vec<String> {
    let names = source.path.trim_end_matches(".rs").split('/');
    let empty = names.filter(|name| FORBIDDEN.contains(name));
    empty.map(|name| format!("{}: `{name}` says nothing", source.path)).collect()
}

/// Types whose name another type of the workspace has. Those of test code count only once for each file of
/// tests.
pub(crate) fn doubled_types(sources: &[Source]) -> Vec<String> {
    let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for source in sources {
        for name in type_names(&source.code) {
            places.entry(name).or_default().push(&source.path);
        }
    }
    places.retain(|name, paths| paths.len() > 1 && !SHARED.contains(name));
    places.iter().map(|(name, paths)| format!("{name} means several things: {}", paths.join(", "))).collect()
}

/// The types that are declared in `code`; not the associated ones, which stand inside an `impl`.
fn type_names(code: &str) -> impl Iterator<Item = &str> {
    code.lines().filter_map(|line| {
        let item = line.strip_prefix("pub").map_or(line, |rest| {
            rest.strip_prefix('(')
                .and_then(|rest| rest.split_once(')'))
                .map_or(rest, |(_, rest)| rest)
                .trim_start()
        });
        let name = ["struct ", "enum ", "trait ", "union ", "type "]
            .iter()
            .find_map(|kind| item.strip_prefix(kind))?;
        name.split(|c: char| !c.is_alphanumeric() && c != '_').next()
    })
}

/// Tests with a name that is too long, or begins with a word that names nothing.
pub(crate) fn bad_test_names(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = source.test_code.lines();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if !(line.starts_with("#[test]") || line.starts_with("#[tokio::test")) {
            continue;
        }
        let item = lines.by_ref().map(str::trim).find(|line| !line.starts_with("#["));
        let name = item.and_then(|item| item.split_once("fn ")?.1.split(['(', '<']).next());
        let Some(name) = name else { continue };
        if FORBIDDEN_STARTS.iter().any(|start| name.starts_with(start)) {
            found.push(format!("{}: {name} does not begin with the thing under test", source.path));
        }
        if name.len() > TEST_NAME_MAX {
            found.push(format!("{}: {name} has more than {TEST_NAME_MAX} characters", source.path));
        }
    }
    found
}

#[test]
fn empty_file_name_is_a_violation() {
    let names = |path: &str| empty_names(&Source::new(path, ""));
    assert!(!names("libdc/src/net/utils.rs").is_empty());
    assert!(!names("libdc/src/common/address.rs").is_empty());
    assert!(names("libdc/src/net/address.rs").is_empty());
}

#[test]
fn doubled_type_name_is_a_violation() {
    let sources = [
        Source::new("a/src/one.rs", "pub struct Place(u8);\nimpl A for B {\n    type Output = u8;\n}"),
        Source::new("a/src/two.rs", "impl A for C {\n    type Output = u8;\n}\npub enum Client {}"),
        Source::new("b/src/lib.rs", "pub(crate) enum Client {}"),
        Source::new("b/tests/t.rs", "struct Place;"),
    ];
    assert_eq!(doubled_types(&sources), [""; 0]);
    let mut sources = Vec::from(sources);
    sources.push(Source::new("c/src/lib.rs", "pub(crate) trait Place {}"));
    assert_eq!(doubled_types(&sources), ["Place means several things: a/src/one.rs, c/src/lib.rs"]);
}

#[test]
fn bad_test_name_is_a_violation() {
    let test = |name: &str| Source::new("a/tests/t.rs", &format!("#[test]\n#[ignore]\nfn {name}() {{}}\n"));
    assert!(bad_test_names(&test("expired_lease_grants_next_waiter")).is_empty());
    assert_eq!(bad_test_names(&test("who_waits_has_it")).len(), 1);
    assert_eq!(bad_test_names(&test(&"x".repeat(61))).len(), 1);
    let code = Source::new(
        "a/src/lib.rs",
        "fn who_am_i() {}\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn it_works() {}\n}",
    );
    assert_eq!(bad_test_names(&code).len(), 1);
}
