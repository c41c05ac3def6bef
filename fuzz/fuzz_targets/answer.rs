//! Any bytes for `pipeline_providers::fuzz::answer`, which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pipeline_providers::fuzz::answer(bytes));
