//! The control socket: what tests/sockets_fuzz.rs says, as a fuzzer makes it up.

#![no_main]

#[path = "../../tests/sockets_fuzz/drive.rs"]
#[allow(dead_code)] // the other socket's
mod drive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    drive::ask_control(bytes);
});
