//! Locks through the agent: the multiplexer between applications and a server that does as it is told.

mod frames;
mod pieces;
mod resuming;
mod scripted;
mod text;
