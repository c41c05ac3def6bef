//! Any bytes for `pipeline_steps::fuzz::convert`, which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pipeline_steps::fuzz::convert(bytes));
