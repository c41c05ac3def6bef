//! Any bytes for `pipeline_core::fuzz::expression`, which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pipeline_core::fuzz::expression(bytes));
