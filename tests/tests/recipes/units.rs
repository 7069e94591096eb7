//! Checks the units and drop-ins of the documents with systemd-analyze.

use crate::blocks::{Block, Mark, top};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

pub(crate) fn can_verify() -> bool {
    Command::new("systemd-analyze").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// The complaints about the unit in `block`, or about the package's unit with `block` as its drop-in.
pub(crate) fn defects(block: &Block) -> Option<String> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let directory = directory.path();
    let text = with_programs_at(directory, &block.text);
    let unit = match &block.mark {
        Mark::DropIn(unit) => {
            copy_package(directory);
            let folder = directory.join(format!("{unit}.d"));
            fs::create_dir(&folder).expect("a folder of ours");
            fs::write(folder.join("override.conf"), text).expect("a file of ours");
            unit
        }
        Mark::Unit(unit) => {
            fs::write(directory.join(unit), text).expect("a file of ours");
            unit
        }
        _ => return Some("neither a unit nor a drop-in".to_owned()),
    };
    let mut verify = Command::new("systemd-analyze");
    verify.current_dir(directory).arg("verify").arg(format!("./{unit}"));
    let output = verify.output().expect("systemd-analyze");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let is_well = output.status.success() && said.trim().is_empty();
    (!is_well).then(|| format!("{}: {said}", output.status))
}

/// The units of the package, without their pages, and with programs that are there.
fn copy_package(directory: &Path) {
    for entry in fs::read_dir(top().join("packaging/systemd")).expect("the units of the package") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a unit of the package");
        let lines = text.lines().filter(|line| !line.starts_with("Documentation="));
        let text: String = lines.flat_map(|line| [line, "\n"]).collect();
        let copy = directory.join(path.file_name().expect("a name"));
        fs::write(copy, with_programs_at(directory, &text)).expect("a file of ours");
    }
}

/// `text` with the programs that a unit names in `directory`, where each is `/bin/true`.
fn with_programs_at(directory: &Path, text: &str) -> String {
    let mut text = text.to_owned();
    for prefix in ["/usr/bin/dc_", "/usr/local/bin/"] {
        while let Some(at) = text.find(prefix) {
            let end = text[at..].find(char::is_whitespace).map_or(text.len(), |length| at + length);
            let name = text[at..end].rsplit('/').next().unwrap_or_default().to_owned();
            let program = directory.join(name);
            if !program.exists() {
                symlink("/bin/true", &program).expect("a link of ours");
            }
            text.replace_range(at..end, &program.display().to_string());
        }
    }
    text
}
