//! What is logged, by thread: tests run side by side.

use std::cell::RefCell;

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// What this thread has logged since the last call, for operators. The first call begins it.
pub fn lines() -> Vec<String> {
    let _ = log::set_logger(&Logger);
    log::set_max_level(log::LevelFilter::Info);
    LINES.take()
}

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LINES.with_borrow_mut(|lines| lines.push(format!("{} {}", record.level(), record.args())));
    }

    fn flush(&self) {}
}
