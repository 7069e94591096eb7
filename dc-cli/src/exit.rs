//! What a program does instead of running.

use std::io::Write;

/// Exit status of a mistake on the command line: `EX_USAGE` of `sysexits.h`.
pub const STATUS_MISTAKE: i32 = 64;
/// Exit status of a program that could not print what it was asked for.
const STATUS_UNPRINTED: i32 = 1;

/// What a program prints, and with which status it exits, instead of running.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Exit {
    /// The answer to `-help`, `-version` or `-completions`, for stdout; status 0.
    Answer(String),
    /// A mistake, one line for stderr; status 64.
    Mistake(String),
}

impl Exit {
    /// The text to print, with its newline.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Answer(text) | Self::Mistake(text) => text,
        }
    }

    /// The exit status.
    #[must_use]
    pub const fn status(&self) -> i32 {
        match self {
            Self::Answer(_) => 0,
            Self::Mistake(_) => STATUS_MISTAKE,
        }
    }

    /// Prints the text and ends the process. An answer that stdout does not take ends it with status 1;
    /// a mistake that stderr does not take still ends it with 64.
    pub fn exit(&self) -> ! {
        std::process::exit(self.print(std::io::stdout(), std::io::stderr()))
    }

    /// Prints the text to where it belongs and says with which status to exit.
    fn print(&self, stdout: impl Write, stderr: impl Write) -> i32 {
        let printed = match self {
            Self::Answer(text) => write(stdout, text),
            Self::Mistake(text) => write(stderr, text),
        };
        match (self, printed) {
            (Self::Answer(_), Err(_)) => STATUS_UNPRINTED,
            _ => self.status(),
        }
    }
}

fn write(mut to: impl Write, text: &str) -> std::io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::empty;

    #[test]
    fn an_answer_goes_to_stdout_and_a_mistake_to_stderr() {
        let mut out = Vec::new();
        assert_eq!(Exit::Answer("page\n".to_owned()).print(&mut out, empty()), 0);
        assert_eq!(out, b"page\n");
        let mut err = Vec::new();
        assert_eq!(Exit::Mistake("no\n".to_owned()).print(empty(), &mut err), 64);
        assert_eq!(err, b"no\n");
    }

    #[test]
    fn what_cannot_be_printed_still_has_a_status() {
        let full: &mut [u8] = &mut [];
        assert_eq!(Exit::Answer("page\n".to_owned()).print(full, empty()), 1);
        let full: &mut [u8] = &mut [];
        assert_eq!(Exit::Mistake("no\n".to_owned()).print(empty(), full), 64);
    }
}
