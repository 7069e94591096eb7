//! The options of a program from its words and variables to its struct, or to what it says instead.

mod arguments;
mod environment;
mod mistake;
mod process;
mod sample;
mod usage;
