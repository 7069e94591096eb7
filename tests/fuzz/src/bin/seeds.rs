//! Writes the first corpora of the targets `frame` and `line`: each step of the vectors, as sent and as
//! answered.
//!
//! To be run in `tests/fuzz`: `cargo run --bin seeds`.

use serde_json::Value;
use std::{error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    frames(root)?;
    lines(root)
}

fn frames(root: &Path) -> Result<(), Box<dyn Error>> {
    let corpus = root.join("corpus/frame");
    fs::create_dir_all(&corpus)?;
    let text = fs::read_to_string(root.join("../vectors/session.json"))?;
    let cases: Vec<Value> = serde_json::from_str(&text)?;
    for case in &cases {
        let name = case["name"].as_str().ok_or("a case without a name")?;
        let steps = case["steps"].as_array().ok_or("a case without steps")?;
        for (number, step) in steps.iter().enumerate() {
            // The reader's kind and no cuts, then the stream.
            for (field, kind) in [("send", 1), ("reply", 2)] {
                if let Some(hex) = step[field].as_str() {
                    let mut seed = vec![kind, 0];
                    for place in (0..hex.len()).step_by(2) {
                        seed.push(u8::from_str_radix(&hex[place..place + 2], 16)?);
                    }
                    fs::write(corpus.join(format!("{name}-{number}-{field}")), seed)?;
                }
            }
        }
    }
    Ok(())
}

fn lines(root: &Path) -> Result<(), Box<dyn Error>> {
    let corpus = root.join("corpus/line");
    fs::create_dir_all(&corpus)?;
    let text = fs::read_to_string(root.join("../vectors/lock.json"))?;
    let cases: Vec<Value> = serde_json::from_str(&text)?;
    for case in &cases {
        let name = case["name"].as_str().ok_or("a case without a name")?;
        let steps = case["steps"].as_array().ok_or("a case without steps")?;
        for (number, step) in steps.iter().enumerate() {
            for (field, end) in [("send", ""), ("reply", "\n")] {
                if let Some(said) = step[field].as_str() {
                    let token = "0123456789abcdef0123456789abcdef";
                    let said = said.replace("<T1>", token).replace("<T2>", token);
                    // No cuts, then the stream.
                    let seed = format!("\0{said}{end}");
                    fs::write(corpus.join(format!("{name}-{number}-{field}")), seed)?;
                }
            }
        }
    }
    Ok(())
}
