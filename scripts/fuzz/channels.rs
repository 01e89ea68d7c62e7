//! The channel layer's decoder and state: the stories of tests/channels_fuzz.rs, as a fuzzer makes them up.

#![no_main]

#[path = "../../tests/channels_fuzz/drive.rs"]
mod drive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    drive::drive(bytes);
});
