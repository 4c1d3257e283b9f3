//! Every message there ever was: what it was meant to be, when the broker got it, and what it promised.

use crate::sim::wire::Publish;
use hikyaku_proto::codec::ReasonCode;

/// A message before it has a number.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
    pub size: usize,
}

/// One time the broker got a message that it had not, or no longer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handed {
    pub step: u64,
    pub at: u64,
    pub expiry_s: Option<u32>,
    /// The publisher's session.
    pub session: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub number: u32,
    pub publisher: usize,
    pub draft: Draft,
    pub is_will: bool,
    /// The times it was handed in to be routed.
    pub handed: Vec<Handed>,
    /// How often it was handed in altogether, and when that was last.
    pub transmissions: u32,
    pub last_step: u64,
    /// When the last of these was answered.
    pub last_answer: Option<u64>,
    /// The moment at which it certainly is where it has to go, if it has QoS 0: no answer says so.
    pub lands_at: Option<u64>,
    /// When the broker promised to deliver it.
    pub promised: Option<u64>,
    /// How many crashes there had been when it came first.
    pub crashes: u32,
    /// A will that nobody can say of whether it is due, or a message of which nobody can say if it was taken.
    pub maybe: bool,
    /// Whether the publisher's application was told that it arrived, or did not.
    answered: bool,
}

impl Message {
    pub fn first_step(&self) -> Option<u64> {
        self.handed.first().map(|handed| handed.step)
    }

    /// How often it may have been routed, if nothing crashed: at QoS 2 once for each session of its publisher.
    pub fn routed(&self) -> u32 {
        let mut sessions: Vec<usize> = self.handed.iter().map(|handed| handed.session).collect();
        if self.draft.qos != 1 {
            sessions.dedup();
        }
        sessions.len() as u32
    }

    /// Whether it may end before it is delivered.
    pub fn expires(&self) -> bool {
        self.handed.iter().any(|handed| handed.expiry_s.is_some())
    }

    /// The latest moment at which it is worth delivering; `None` for ever.
    pub fn ends_at(&self) -> Option<u64> {
        let ends = self.handed.iter().map(|h| h.expiry_s.map(|s| h.at + u64::from(s) * 1_000_000));
        ends.collect::<Option<Vec<u64>>>()?.into_iter().max()
    }

    /// Whether a PUBLISH says what was meant.
    pub fn check(&self, publish: &Publish) {
        let Draft { topic, size, .. } = &self.draft;
        assert_eq!(publish.topic, *topic, "message {} has another topic", self.number);
        let payload = crate::sim::actor::payload(self.number, *size);
        assert!(publish.payload == payload, "the payload of message {} is another", self.number);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Messages(Vec<Message>);

impl Messages {
    /// Somebody is going to publish something.
    pub fn announce(&mut self, publisher: usize, draft: Draft, is_will: bool) -> u32 {
        let number = self.0.len() as u32 + 1;
        self.0.push(Message {
            number,
            publisher,
            draft,
            is_will,
            handed: Vec::new(),
            transmissions: 0,
            last_step: 0,
            last_answer: None,
            lands_at: None,
            promised: None,
            crashes: 0,
            maybe: false,
            answered: false,
        });
        number
    }

    pub fn get(&self, number: u32) -> &Message {
        match self.0.get((number as usize).wrapping_sub(1)) {
            Some(message) => message,
            None => panic!("message {number} was never published"),
        }
    }

    pub fn get_mut(&mut self, number: u32) -> &mut Message {
        match self.0.get_mut((number as usize).wrapping_sub(1)) {
            Some(message) => message,
            None => panic!("message {number} was never published"),
        }
    }

    pub fn all(&self) -> impl Iterator<Item = &Message> {
        self.0.iter()
    }

    /// What has no answer may have been refused.
    pub fn doubt_unanswered(&mut self) {
        for message in self.0.iter_mut().filter(|m| m.draft.qos > 0 && m.promised.is_none()) {
            message.maybe = true;
        }
    }

    /// The publisher's application is told what became of it.
    pub fn published(&mut self, number: u32, reason: ReasonCode) {
        if number == 0 {
            return;
        }
        let message = self.get_mut(number);
        assert!(!message.answered, "message {number} is answered twice");
        message.answered = true;
        if !reason.is_error() {
            assert!(message.promised.is_some(), "message {number} is acknowledged and was not promised");
        }
    }
}
