//! Any bytes for `pipeline_checkpoint::fuzz::journal`, which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pipeline_checkpoint::fuzz::journal(bytes));
