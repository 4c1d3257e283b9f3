//! MQTT 3.1, 3.1.1 and 5.0 as pure state machines: packets, topics, sessions, a client and a broker.
//!
//! Four rules hold everywhere in this crate:
//!
//! 1. Nothing here does IO, reads a clock, spawns, sleeps or draws randomness; time is an argument,
//!    a seed comes in once.
//! 2. Bad input is an output (close with a reason), never a panic. A panic is our bug.
//! 3. Every queue has a bound, every call a bounded amount of work.
//! 4. The same seed and inputs give the same outputs, byte for byte.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod broker;
pub mod client;
pub mod codec;
pub mod message;
pub mod outbox;
pub mod session;
pub mod table;
pub mod time;
pub mod topic;
mod unseen;
