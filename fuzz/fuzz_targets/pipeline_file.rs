//! Any bytes for `pipeline_steps::fuzz::pipeline_file`, which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pipeline_steps::fuzz::pipeline_file(bytes));
