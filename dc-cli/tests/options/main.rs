//! The options of a program, from words and variables to its struct or to an exit.

#[cfg(test)]
mod arguments;
#[cfg(test)]
mod completions;
#[cfg(test)]
mod environment;
#[cfg(test)]
mod mistake;
#[cfg(test)]
mod process;
#[cfg(test)]
#[path = "../../../tests/src/harness/require.rs"]
#[allow(unreachable_pub, reason = "public in the harness, where the file stands")]
mod require;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod usage;
