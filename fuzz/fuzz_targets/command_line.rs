//! Any lines for `args::fuzz::command_line` of the program, which is no library: its modules are this one's.
#![no_main]
#![allow(dead_code, unused_imports, reason = "what a command does with its arguments is not here")]

#[path = "../../pipeline-cli/src"]
mod program {
    pub mod args;
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| program::args::fuzz::command_line(bytes));
