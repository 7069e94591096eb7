//! Locks through the agent: the multiplexer between applications and a scripted server.

mod frames;
mod pieces;
mod resuming;
mod scripted;
mod text;
