//! What workers tell each other, and the outside tells them.

use crate::auth::Security;
use crate::lobby::Guest;
use crate::transport::Transport;
use crossbeam_channel::Sender;
use hikyaku_proto::broker::peer::PeerMessage;
use hikyaku_proto::broker::store::Loaded;
use hikyaku_proto::broker::{Config, ConnId, Revoked, ShardId, Verdict};
use std::sync::Arc;

#[derive(Debug)]
pub(crate) enum Letter {
    /// One shard to another: what it said in one drain of its outputs, or a part of it.
    Peer { from: ShardId, messages: Vec<PeerMessage> },
    /// A connection whose home is with you, with what it has sent so far.
    Arrival { transport: Transport, guest: Box<Guest> },
    /// What came of asking who a client is, and by what it was judged.
    Authenticated { conn: ConnId, verdict: Verdict, by: Arc<Security> },
    /// What holds from now on, and who has to go.
    Configured { config: Arc<Config>, security: Arc<Security>, revoked: Arc<[Arc<Revoked>]> },
    /// A connection that is to do its TLS handshake with you.
    Guest { transport: Transport, guest: Box<Guest> },
    /// Answer, to show that you turn.
    Roll(Sender<()>),
    /// All changes up to this number are kept.
    Stored { upto: u64 },
    /// The store takes nothing for now, or does again.
    StoreFailed(bool),
    /// Messages that the shard asked the store for.
    Loaded(Box<Loaded>),
    /// Say goodbye and end.
    Shutdown,
}
