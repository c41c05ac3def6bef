//! The agent CLI, with a scripted stand-in for its executable.

mod leftovers;
mod matrix;
mod requests;
mod support;
mod verdicts;
