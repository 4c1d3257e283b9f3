//! Messages with more receivers than are served at once: they go out in slices, so that others get their turn in between.
//!
//! A connection is not read while its message goes out, but for what follows with the same receivers: each slice then gets
//! all of it, with one write for each receiver.

use super::conn::Pause;
use super::io::ConnId;
use super::publish::{Route, Source};
use super::store::StoreOp;
use super::{EFFORT, Shard, Work};
use crate::codec::{Frame, PacketType, ReasonCode};
use crate::message::Message;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

/// Up to where in what was read messages share their slices: each receiver of a slice is written as much at once.
pub(super) const SHARED_BYTES: usize = 16 << 10;

/// Messages of one source with the same receivers, more of these than one slice. Each slice gets all of them, with one
/// write.
#[derive(Debug)]
pub(super) struct Fan {
    messages: Vec<(Source, Message)>,
    route: Arc<Route>,
    at: usize,
}

impl Fan {
    pub fn new(source: Source, message: Message, route: Arc<Route>, at: usize) -> Fan {
        Fan { messages: vec![(source, message)], route, at }
    }
}

impl Shard {
    /// Leaves the receivers from `at` on for later. Messages that follow each other share their slices.
    pub(super) fn fan_out(
        &mut self,
        id: ConnId,
        ack: Option<(PacketType, u16)>,
        message: Message,
        route: &Arc<Route>,
        at: usize,
    ) {
        let source = Source::Conn(id, ack);
        // Nobody but this connection has the route.
        let same = self.work.iter_mut().rev().find_map(|work| match work {
            Work::Fan(fan) if fan.at == at && Arc::ptr_eq(&fan.route, route) => Some(fan),
            _ => None,
        });
        match same {
            Some(fan) => fan.messages.push((source, message)),
            None => self.work.push_back(Work::Fan(Fan::new(source, message, Arc::clone(route), at))),
        }
        self.pause(id, Pause::Fan);
    }

    /// Whether a connection whose message is to go on in slices is read on nevertheless: `rest`, what follows that message,
    /// begins with one for the same receivers.
    pub(super) fn shares_fan(&mut self, id: ConnId, frame: Frame<'_>, rest: &[u8]) -> bool {
        let is_calm = self.effort <= EFFORT;
        is_calm
            && self.conn(id).is_some_and(|c| c.paused == Pause::Fan as u16)
            && is_followed_by_like(frame, rest)
    }

    pub(super) fn continue_fan(&mut self, mut fan: Fan) {
        let from = fan.at;
        for (source, message) in &fan.messages {
            let publication = message.as_publication();
            fan.at = self.deliver(&publication, &fan.route, from, None, &mut Some(message.clone()));
            self.after_delivery(*source, message.id());
        }
        if fan.at < fan.route.len() {
            return self.work.push_back(Work::Fan(fan));
        }
        for (source, _) in fan.messages {
            match source {
                Source::Within => {}
                Source::Peer(from) => self.peer_goes_on(from),
                Source::Conn(id, ack) => self.finish_fan(id, ack),
            }
        }
    }

    fn finish_fan(&mut self, id: ConnId, ack: Option<(PacketType, u16)>) {
        let session = self.conn(id).map(|c| c.session);
        if let (Some((PacketType::PubRec, packet_id)), Some(session)) = (ack, session) {
            self.keep_of(session, 1, |id| StoreOp::Received { id, packet_id });
        }
        if let Some((kind, packet_id)) = ack {
            // What went to other shards before this has been waited for long enough.
            let gate = self.gate();
            self.acknowledge(id, gate, kind, packet_id, ReasonCode::Success);
        }
        self.resume(id, Pause::Fan);
    }
}

/// Whether `rest` begins with a whole PUBLISH of the same QoS and to the same topic.
fn is_followed_by_like(frame: Frame<'_>, rest: &[u8]) -> bool {
    let topic = match *frame.body {
        [high, low, ..] => frame.body.get(..2 + usize::from(u16::from_be_bytes([high, low]))),
        _ => None,
    };
    // Where the topic is an alias, it stands elsewhere.
    let Some(topic) = topic.filter(|topic| topic.len() > 2) else { return false };
    let next = Frame::parse(rest, u32::MAX).ok().flatten();
    next.is_some_and(|next| next.first == frame.first && next.body.starts_with(topic))
}
