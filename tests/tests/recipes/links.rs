//! Links between documents that name a heading.

use std::collections::BTreeSet;

/// The links of the document at `path` to an absent heading. `read` returns a document of the repository.
pub(crate) fn dead_anchors(path: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let text = read(path).unwrap_or_default();
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let anchors =
        targets.filter_map(|target| target.split_once('#')).filter(|(file, _)| !file.contains("://"));
    let is_dead = |(file, anchor): &(&str, &str)| {
        let target = if file.is_empty() { path.to_owned() } else { join(folder, file) };
        !read(&target).is_some_and(|text| headings(&text).contains(*anchor))
    };
    anchors.filter(is_dead).map(|(file, anchor)| format!("{path}: there is no {file}#{anchor}")).collect()
}

/// `file`, seen from `folder`, as a path from the top of the repository.
fn join(folder: &str, file: &str) -> String {
    let mut parts: Vec<_> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in file.split('/') {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

/// The anchors that Markdown makes of the headings of `text`.
fn headings(text: &str) -> BTreeSet<String> {
    let mut is_code = false;
    let mut anchors = BTreeSet::new();
    for line in text.lines() {
        is_code ^= line.trim_start().starts_with("```");
        if let Some(title) = line.strip_prefix('#').filter(|_| !is_code) {
            let title = title.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
            anchors.insert(title.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect());
        }
    }
    anchors
}

#[test]
fn link_to_an_absent_heading_is_dead() {
    let read = |path: &str| match path {
        "docs/a.md" => {
            Some("# A, and `b`\n```sh\n# code\n```\n[b](#a-and-b) [c](../d.md#e) [f](g.md#h)\n".to_owned())
        }
        "d.md" => Some("## E\n".to_owned()),
        _ => None,
    };
    assert_eq!(dead_anchors("docs/a.md", read), ["docs/a.md: there is no g.md#h"]);
    let read = |_: &str| Some("```sh\n# code\n```\n[x](#code)\n".to_owned());
    assert_eq!(dead_anchors("x.md", read), ["x.md: there is no #code"]);
}
