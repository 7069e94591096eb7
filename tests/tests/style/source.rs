//! A source file prepared for the rules: code without comments and strings, its paths, and its tests
//! separately.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// One file of Rust, split into product and test code.
pub(crate) struct Source {
    /// The path relative to the repository, with `/`.
    pub(crate) path: String,
    /// The code outside test modules, without comments and with empty strings.
    pub(crate) code: String,
    /// The code of its test modules; all code of a test file.
    pub(crate) test_code: String,
    /// Paths of the modules declared by `#[cfg(test)] mod name;`.
    test_files: Vec<String>,
}

impl Source {
    /// Prepares the file at `path` with the content `text`.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = without_comments(text);
        let mut source = Self {
            path: path.to_owned(),
            code: String::new(),
            test_code: String::new(),
            test_files: Vec::new(),
        };
        let is_test_file = ["/tests/", "/benches/", "/fuzz/"].iter().any(|part| path.contains(part));
        if is_test_file {
            source.test_code = code;
        } else {
            source.split_tests(&code);
        }
        source
    }

    /// Splits off the modules marked `#[cfg(test)]`.
    fn split_tests(&mut self, code: &str) {
        let mut lines = code.lines().peekable();
        while let Some(line) = lines.next() {
            let module = lines.peek().and_then(|next| module_of(next));
            let Some(module) =
                module.filter(|_| line.starts_with("#[cfg(test)") || line.starts_with("#[cfg(all(test,"))
            else {
                self.code.push_str(line);
                self.code.push('\n');
                continue;
            };
            if let Some(name) = module.strip_suffix(';') {
                let (folder, file) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
                let stem = file.trim_end_matches(".rs");
                let own = if matches!(stem, "mod" | "lib" | "main") { "" } else { stem };
                let base = format!("{folder}/{own}/{name}").replace("//", "/");
                self.test_files.extend([format!("{base}.rs"), format!("{base}/")]);
                lines.next();
            } else {
                for line in lines.by_ref() {
                    self.test_code.push_str(line);
                    self.test_code.push('\n');
                    if line == "}" {
                        break;
                    }
                }
            }
        }
    }

    /// Every path in the code outside tests. Imports are expanded: `use a::{b, c::d}` is `a::b` and
    /// `a::c::d`.
    pub(crate) fn paths(&self) -> BTreeSet<String> {
        let mut paths = BTreeSet::new();
        let mut rest = self.code.as_str();
        while let Some(start) = rest.find(is_word) {
            let begin = &rest[start..];
            let end = begin.find(|c| !is_word(c) && c != ':').unwrap_or(begin.len());
            let word = &begin[..end];
            rest = &begin[end..];
            if word == "use" {
                let tree = rest.split(';').next().unwrap_or_default();
                expand("", &without_aliases(tree), &mut paths);
                rest = &rest[tree.len()..];
            } else {
                paths.insert(word.trim_end_matches(':').to_owned());
            }
        }
        paths
    }
}

/// Reads the sources below `top`.
pub(crate) fn sources(top: &Path) -> Vec<Source> {
    let mut files = Vec::new();
    walk(top, "", "rs", &mut files);
    // The measuring tools are not part of the product, and they sleep.
    files.retain(|path| !path.starts_with("tests/bench/"));
    let mut sources: Vec<Source> = files
        .iter()
        .map(|path| Source::new(path, &fs::read_to_string(top.join(path)).expect("the file is readable")))
        .collect();
    let test_files: Vec<String> = sources.iter().flat_map(|source| source.test_files.clone()).collect();
    for source in &mut sources {
        if test_files.iter().any(|test| source.path == *test || source.path.starts_with(test)) {
            source.test_code.push_str(&std::mem::take(&mut source.code));
        }
    }
    sources
}

/// Collects the paths of the files with `extension` below `folder` of `top`, except hidden and built ones.
pub(crate) fn walk(top: &Path, folder: &str, extension: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(top.join(folder)).expect("the folder is readable") {
        let entry = entry.expect("the folder is readable");
        let name = entry.file_name().into_string().expect("names are UTF-8");
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let is_skipped = name.starts_with('.') || matches!(name.as_str(), "target" | "corpus" | "artifacts");
        if entry.file_type().expect("the kind of an entry").is_dir() {
            if !is_skipped {
                walk(top, &path, extension, found);
            }
        } else if Path::new(&name).extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
}

/// The text after `mod`, if a module begins on `line`.
fn module_of(line: &str) -> Option<&str> {
    let item =
        line.strip_prefix("pub").map_or(line, |rest| rest.trim_start_matches(|c| c != ' ').trim_start());
    item.strip_prefix("mod ")
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The tree of a `use` without `as name` and without spaces.
fn without_aliases(tree: &str) -> String {
    let mut parts = tree.split(" as ");
    let first = parts.next().unwrap_or_default();
    let others = parts.map(|part| part.trim_start_matches(is_word));
    std::iter::once(first).chain(others).flat_map(str::split_whitespace).collect()
}

/// Adds all paths of the tree of a `use`, which contains no spaces.
fn expand(prefix: &str, tree: &str, paths: &mut BTreeSet<String>) {
    let Some((head, group)) = tree.split_once('{') else {
        paths.insert(format!("{prefix}{tree}"));
        return;
    };
    let group = group.rsplit_once('}').map_or(group, |(inside, _)| inside);
    let (mut depth, mut start) = (0_usize, 0);
    for (index, c) in group.char_indices().chain([(group.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                expand(&format!("{prefix}{head}"), &group[start..index], paths);
                start = index + 1;
            }
            _ => {}
        }
    }
}

/// Removes comments from `text` and empties its strings. Line breaks stay.
fn without_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => quoted(rest),
            'r' if !code.ends_with(is_word) => raw(rest),
            '\'' => character(rest),
            _ => 0,
        };
        code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
        if skipped == 0 {
            code.push(c);
        }
        rest = &rest[skipped.max(if skipped == 0 { c.len_utf8() } else { 0 })..];
    }
    code
}

/// The length in bytes of the string that `rest` begins with.
fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (index, c) in rest.char_indices().skip(1) {
        match c {
            '"' if !escaped => return index + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    rest.len()
}

/// The length in bytes of the raw string that `rest` begins with, or 0.
fn raw(rest: &str) -> usize {
    let hashes = rest[1..].bytes().take_while(|byte| *byte == b'#').count();
    if !rest[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    rest[2 + hashes..].find(&end).map_or(rest.len(), |index| 2 + hashes + index + end.len())
}

/// The length in bytes of the character literal that `rest` begins with, or 0 for a lifetime.
fn character(rest: &str) -> usize {
    let mut inside = rest.char_indices().skip(1);
    match (inside.next(), inside.next()) {
        (Some((_, '\\')), _) => rest[3..].find('\'').map_or(0, |end| 3 + end + 1),
        (_, Some((index, '\''))) => index + 1,
        _ => 0,
    }
}
