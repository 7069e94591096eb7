//! The options of a program from its words and variables to its struct, or to what it says instead.

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
mod sample;
#[cfg(test)]
mod usage;
