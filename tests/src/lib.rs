//! Helpers for the tests of the whole.
//!
//! [`process`] starts the broker binary and other programs and reads what they write, [`wire`] speaks raw
//! bytes of MQTT to it, [`matrix!`] repeats a list of cases for each protocol version and number of workers.
//! [`document`] reads what a document tells its reader to do, [`desk`] does it.
//! [`sim`] is a whole broker in one thread, with faults from a seed.
//! Nothing here sleeps for a time: everything waits for a condition, for at most [`PATIENCE`].

use std::time::Duration;

pub mod desk;
pub mod document;
pub mod line;
pub mod matrix;
pub mod overload;
pub mod process;
pub mod random;
pub mod scale;
pub mod sim;
pub mod soak;
pub mod wire;

/// How long a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(10);
