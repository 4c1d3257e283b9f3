//! What two ends of a connection keep: the part that outlives it and the part that dies with it.
//!
//! [`window`] is durable: messages on their way out with their packet ids, and the QoS 2 ids on their way
//! in. It does not know whether it is in a client or a broker. [`link`] is volatile: version, aliases,
//! the order of acknowledgements, the partial packet and the bytes to write.

pub mod link;
pub mod window;

pub use link::{AckGate, Link, OutgoingPublish, Payload, Sent};
pub use window::{Acked, Delivery, Incoming, Outgoing, Rest, SubscriptionIds, ToSend, Window};
