//! The name server's parsers and state: the stories of tests/names_fuzz.rs, as a fuzzer makes them up.

#![no_main]

#[path = "../../tests/names_fuzz/drive.rs"]
mod drive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    drive::drive(bytes);
});
