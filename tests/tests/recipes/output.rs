//! Compares the output of a command with the output that a document shows.

/// The commands of a console block, each with the output that stands below it.
pub(crate) fn commands(console: &str) -> Vec<(String, Vec<String>)> {
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    for line in console.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((format!("{command}\n"), Vec::new())),
            (None, Some((command, output))) if output.is_empty() && command.ends_with("\\\n") => {
                command.push_str(line);
                command.push('\n');
            }
            (None, Some((_, output))) => output.push(line.to_owned()),
            (None, None) => commands.push((String::new(), vec![line.to_owned()])),
        }
    }
    commands
}

/// Whether `shown` describes `printed`. A number equals any number, a token any token, and `…` any text.
pub(crate) fn is_shown(shown: &[String], printed: &[String]) -> bool {
    let line_is_shown = |(shown, printed): (&String, &String)| matches(&without_numbers(shown), printed);
    shown.len() == printed.len() && shown.iter().zip(printed).all(line_is_shown)
}

fn matches(shown: &str, printed: &str) -> bool {
    let printed = without_numbers(printed);
    let mut parts = shown.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = printed.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// `text` with `0` for each number, with its fraction, and for each word of 16 hexadecimal digits or more.
fn without_numbers(text: &str) -> String {
    let mut result = String::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '.') {
        let (word, end) = match word.char_indices().last() {
            Some((at, c)) if !c.is_ascii_alphanumeric() && c != '.' => word.split_at(at),
            _ => (word, ""),
        };
        if word.len() >= 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            result.push('0');
        } else {
            push_without_digits(&mut result, word);
        }
        result.push_str(end);
    }
    result
}

fn push_without_digits(result: &mut String, word: &str) {
    let mut chars = word.chars().peekable();
    while let Some(c) = chars.next() {
        if !c.is_ascii_digit() {
            result.push(c);
            continue;
        }
        result.push('0');
        while chars.next_if(|c| c.is_ascii_digit() || *c == '.').is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn console_block_splits_at_prompts() {
        let console = "$ one \\\n    -more\nout\n$ two\n$ three\na\nb\n";
        let expected = [
            ("one \\\n    -more\n".to_owned(), lines("out")),
            ("two\n".to_owned(), lines("")),
            ("three\n".to_owned(), lines("a\nb")),
        ];
        assert_eq!(commands(console), expected);
    }

    #[test]
    fn numbers_tokens_and_ellipses_match_any() {
        let shown = |shown: &str, printed: &str| is_shown(&lines(shown), &lines(printed));
        assert!(shown("took 0.075 s: 13262 a second", "took 12 s: 9.5 a second"));
        assert!(shown("ok 1a2345678000000192d2c4177e00b5a1 60", "ok 0000000000000007ffd2c4177e00b5a1 33"));
        assert!(shown("dc_lock: …", "dc_lock: the agent is away"));
        assert!(shown("a…c…e", "a b c d e"));
    }

    #[test]
    fn other_output_does_not_match() {
        let shown = |shown: &str, printed: &str| is_shown(&lines(shown), &lines(printed));
        assert!(!shown("status 75", "state 75"));
        assert!(!shown("released: ok", "released: error"));
        assert!(!shown("ok 60", "ok deadbeef"));
        assert!(!shown("one", "one\ntwo"));
        assert!(!shown("one", ""));
        assert!(!shown("a…c", "a b"));
        assert!(!shown("a…b…c", "a c"));
    }
}
