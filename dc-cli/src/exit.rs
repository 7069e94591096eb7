//! The output and exit status of a program that does not run.

use std::io::Write;

/// The exit status of a usage error: `EX_USAGE` of `sysexits.h`.
pub const STATUS_MISTAKE: i32 = 64;
/// The exit status if an answer cannot be printed.
const STATUS_UNPRINTED: i32 = 1;

/// Text to print, and the exit status, in place of running the program.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Exit {
    /// The answer to `-help`, `-version` or `-completions`, for stdout; status 0.
    Answer(String),
    /// A usage error, one line for stderr; status 64.
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

    /// 0 for an answer, 64 for a usage error.
    #[must_use]
    pub const fn status(&self) -> i32 {
        match self {
            Self::Answer(_) => 0,
            Self::Mistake(_) => STATUS_MISTAKE,
        }
    }

    /// Prints the text and exits. The status is 1 if an answer cannot be written to stdout; a usage error
    /// that cannot be written to stderr still has status 64.
    pub fn exit(&self) -> ! {
        std::process::exit(self.print(std::io::stdout(), std::io::stderr()))
    }

    /// Prints the text and returns the exit status.
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
    fn answer_goes_to_stdout_and_usage_error_to_stderr() {
        let mut out = Vec::new();
        assert_eq!(Exit::Answer("page\n".to_owned()).print(&mut out, empty()), 0);
        assert_eq!(out, b"page\n");
        let mut err = Vec::new();
        assert_eq!(Exit::Mistake("no\n".to_owned()).print(empty(), &mut err), 64);
        assert_eq!(err, b"no\n");
    }

    #[test]
    fn unprintable_text_still_has_an_exit_status() {
        let full: &mut [u8] = &mut [];
        assert_eq!(Exit::Answer("page\n".to_owned()).print(full, empty()), 1);
        let full: &mut [u8] = &mut [];
        assert_eq!(Exit::Mistake("no\n".to_owned()).print(empty(), full), 64);
    }
}
