//! A damaged database file.
#![no_main]

// The engine panics on some damage, which is caught; one that is not ends the process all the same.
libfuzzer_sys::fuzz_target!(
    init: std::panic::set_hook(Box::new(|_| ())),
    |data: &[u8]| hikyaku::check::check_base(data)
);
