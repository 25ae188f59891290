#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| confab_socketio::fuzz::payload(data));
