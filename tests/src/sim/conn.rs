//! One connection, with what each side knows of it.

use super::pipe::Pipe;
use super::wire::Splitter;
use hikyaku_proto::broker::ConnId;

/// How far the broker is with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Its CONNECT has not come, so it has no home.
    Waiting,
    Open,
    /// Closed by either side, as the broker sees it.
    Gone,
}

#[derive(Debug)]
pub(crate) struct Conn {
    pub actor: usize,
    pub run: u32,
    pub shard: usize,
    pub id: ConnId,
    pub door: Door,
    /// What has arrived and was not taken.
    pub inbox: Vec<u8>,
    pub paused: bool,
    /// Whether its CONNECT was handed in.
    pub greeted: bool,
    /// Whether a read stands in the shard's inbox.
    pub listed: bool,
    /// Whether the transport refused bytes.
    pub full: bool,
    /// How many bytes of the outbox the oracle has seen.
    pub tapped: usize,
    pub up: Pipe,
    pub down: Pipe,
    /// What has arrived at the client and was not read.
    pub unread: Vec<u8>,
    /// Whether the client still has it.
    pub client_has_it: bool,
    /// Whether the broker closed it: the client sees that when it has read all.
    pub ends: bool,
    pub frozen_until: u64,
    pub stalled_until: u64,
    pub from_client: Splitter,
    pub from_broker: Splitter,
}

impl Conn {
    pub fn new(actor: usize, run: u32, index: u32, v5: bool) -> Conn {
        Conn {
            actor,
            run,
            shard: 0,
            id: ConnId { index, generation: 0 },
            door: Door::Waiting,
            inbox: Vec::new(),
            paused: false,
            greeted: false,
            listed: false,
            full: false,
            tapped: 0,
            up: Pipe::default(),
            down: Pipe::default(),
            unread: Vec::new(),
            client_has_it: true,
            ends: false,
            frozen_until: 0,
            stalled_until: 0,
            from_client: Splitter::new(v5),
            from_broker: Splitter::new(v5),
        }
    }
}
