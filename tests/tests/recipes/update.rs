//! Rewrites parts of documents that are made from the code.

use crate::blocks::{Block, top};
use std::env;
use std::fs;
use std::sync::{Mutex, PoisonError};

/// Tests of several threads may write to one document.
static WRITING: Mutex<()> = Mutex::new(());

/// Replaces `old`, which is in `block` of the document at `path`. Returns false where nothing is to be
/// rewritten.
pub(crate) fn replace(path: &str, block: &Block, old: &str, new: &str) -> bool {
    let fence = format!("```{}\n", block.language);
    let text = block.text.replacen(old, new, 1);
    replace_after_mark(path, &format!("{fence}{}```", block.text), &format!("{fence}{text}```"))
}

/// Replaces `old` in the document at `path`, once. Returns false where nothing is to be rewritten.
pub(crate) fn replace_text(path: &str, old: &str, new: &str) -> bool {
    replace_after_mark(path, old, new)
}

fn replace_after_mark(path: &str, old: &str, new: &str) -> bool {
    if env::var_os("UPDATE_DOCS").is_none_or(|value| value != "1") {
        return false;
    }
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let path = top().join(path);
    let text = fs::read_to_string(&path).expect("a document");
    let updated = text.replacen(old, new, 1);
    let is_found = updated != text;
    if is_found {
        fs::write(&path, updated).expect("a document");
    }
    is_found
}
