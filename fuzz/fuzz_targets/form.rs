#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| confab_gateway::fuzz::form(data));
