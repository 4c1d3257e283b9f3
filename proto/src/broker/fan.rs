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
    source: Source,
    messages: Vec<Message>,
    /// What their publisher is told when all have gone out, also of messages that were refused meanwhile.
    answers: Vec<Answer>,
    /// Its session: place and serial.
    publisher: Option<(u32, u32)>,
    route: Arc<Route>,
    at: usize,
}

/// An acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub kind: PacketType,
    pub packet_id: u16,
    pub reason: ReasonCode,
    /// The message is taken in by it: its id is kept with what came of it.
    pub is_new: bool,
}

impl Fan {
    pub fn new(source: Source, message: Message, route: Arc<Route>, at: usize) -> Fan {
        Fan { source, messages: vec![message], answers: Vec::new(), publisher: None, route, at }
    }

    fn is_of(&self, id: ConnId) -> bool {
        matches!(self.source, Source::Conn(conn) if conn == id)
    }
}

impl Shard {
    /// Leaves the receivers from `at` on for later. Messages that follow each other share their slices.
    pub(super) fn fan_out(
        &mut self,
        id: ConnId,
        answer: Option<Answer>,
        message: Message,
        route: &Arc<Route>,
        at: usize,
    ) {
        let index = self.conn(id).map(|conn| conn.session);
        let publisher = index.and_then(|index| Some((index, self.sessions.get(index)?.serial)));
        match self.fan_of(id) {
            Some(fan) if fan.at == at && Arc::ptr_eq(&fan.route, route) => {
                fan.messages.push(message);
                fan.answers.extend(answer);
            }
            _ => {
                let fan = Fan::new(Source::Conn(id), message, Arc::clone(route), at);
                let fan = Fan { answers: answer.into_iter().collect(), publisher, ..fan };
                self.work.push_back(Work::Fan(fan));
            }
        }
        self.pause(id, Pause::Fan);
    }

    /// Leaves an answer for when those before it have left [MQTT-4.6.0-2] [MQTT-4.6.0-3]. False if there are none.
    pub(super) fn answer_after_fan(&mut self, id: ConnId, answer: Answer) -> bool {
        let fan = self.fan_of(id);
        fan.map(|fan| fan.answers.push(answer)).is_some()
    }

    fn fan_of(&mut self, id: ConnId) -> Option<&mut Fan> {
        self.work.iter_mut().rev().find_map(|work| match work {
            Work::Fan(fan) if fan.is_of(id) => Some(fan),
            _ => None,
        })
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
        for message in &fan.messages {
            let publication = message.as_publication();
            fan.at = self.deliver(&publication, &fan.route, from, None, &mut Some(message.clone()));
            self.after_delivery(fan.source, message.id());
        }
        if fan.at < fan.route.len() {
            return self.work.push_back(Work::Fan(fan));
        }
        match fan.source {
            Source::Within => {}
            Source::Peer(from) => self.peer_goes_on(from),
            Source::Conn(id) => {
                self.resume(id, Pause::Fan);
                self.answer_fan(id, &fan);
            }
        }
    }

    fn answer_fan(&mut self, id: ConnId, fan: &Fan) {
        // It may have lost its connection.
        let publisher = fan.publisher.filter(|&(index, serial)| {
            self.sessions.get(index).is_some_and(|session| session.serial == serial)
        });
        for &Answer { kind, packet_id, reason, is_new } in &fan.answers {
            if let (PacketType::PubRec, true, Some((session, _))) = (kind, is_new, publisher) {
                self.keep_of(session, 1, |id| StoreOp::Received { id, packet_id });
            }
            // What went to other shards before this has been waited for long enough.
            let gate = self.gate();
            self.acknowledge(id, gate, kind, packet_id, reason);
        }
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
