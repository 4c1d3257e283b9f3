//! A message in the program's hands.

use crate::state::Inner;
use hikyaku_proto::client::{AckToken, Received};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many subscriptions have not acknowledged their copy, and what for.
#[derive(Clone, Debug)]
pub(crate) struct Acks {
    pub token: AckToken,
    pub left: Arc<AtomicUsize>,
}

/// A message from the server, with all that [`Received`] has.
///
/// With [`Acknowledge::Manually`](crate::Acknowledge::Manually) QoS 1 and 2 messages are to be acknowledged by
/// [`Message::ack`]; others have been already. A message that is dropped without stays unacknowledged: it takes
/// one of the [`receive_maximum`](crate::Options::receive_maximum) places of this connection, and comes again
/// after the next one.
///
/// ```no_run
/// use hikyaku_client::{Acknowledge, Client, Error, Options, QoS, Version};
///
/// # fn store(payload: &[u8]) {}
/// # fn main() -> Result<(), Error> {
/// let options = Options { acknowledge: Acknowledge::Manually, ..Options::new(Version::V5, "archive") };
/// let client = Client::connect("localhost", options)?;
/// for message in &client.subscribe("orders", QoS::AtLeastOnce)? {
///     store(message.payload());
///     message.ack();
/// }
/// # Ok(())
/// # }
/// ```
pub struct Message {
    received: Received,
    acks: Option<(Acks, Arc<Inner>)>,
}

impl Message {
    pub(crate) fn new(received: Received, acks: Option<(Acks, Arc<Inner>)>) -> Message {
        Message { received, acks }
    }

    /// Tells the server that this message is done with. When several subscriptions got it, that is when all have
    /// said so. It does not wait, and does nothing where there is nothing to do.
    pub fn ack(mut self) {
        let Some((acks, inner)) = self.acks.take() else { return };
        if acks.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            // A client that is closed acknowledges nothing.
            let _ = inner.command(|state, now| {
                state.client.acknowledge(now, acks.token);
                Ok(())
            });
        }
    }
}

impl Deref for Message {
    type Target = Received;

    fn deref(&self) -> &Received {
        &self.received
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Message").field(&self.received).finish()
    }
}
