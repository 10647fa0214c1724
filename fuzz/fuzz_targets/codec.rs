#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringbridge_fuzz_targets::codec(bytes));
