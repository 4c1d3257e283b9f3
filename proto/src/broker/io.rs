//! What goes into a shard and what comes out of it.

use crate::broker::peer::PeerMessage;
use crate::codec::{ReasonCode, Version};
use crate::message::Message;
use crate::outbox::Outbox;
use crate::unseen::Unseen;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use super::config::Config;
use super::store::{Loaded, StoreOp};

/// The number of a shard, 0 to [`SHARDS_MAX`] - 1.
pub type ShardId = u16;

/// The most shards one broker may have: sets of shards are one `u64`.
pub const SHARDS_MAX: u16 = 64;

/// A connection, named by the driver: an index that the driver keeps dense, and a generation that
/// differs each time the index is used again.
///
/// Inputs that name a connection which is closed are ignored, outputs may name one the driver has
/// just closed: both sides compare the generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// A small number: the shard keeps an array with this many places.
    pub index: u32,
    /// Tells the users of one index apart.
    pub generation: u32,
}

/// What the authentication of a client, or a step of it, came to.
#[derive(Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The client is who it says. `username` replaces the name it gave, where something else (a
    /// certificate, an authentication method) names it. In a re-authentication it has to be the name the client
    /// has already, or `None`: as another user a client is refused.
    Success {
        /// The name to use for rights, if not the one in CONNECT.
        username: Option<Box<str>>,
        /// Authentication data for the CONNACK, or for the AUTH that ends a re-authentication (5.0).
        data: Option<Vec<u8>>,
    },
    /// Enhanced authentication: send this to the client in an AUTH packet; its answer is the next
    /// [`Output::Authenticate`]. Only where there is a method, and no more than [`AUTH_ROUNDS_MAX`] times: the
    /// client is refused otherwise.
    Continue {
        /// The authentication data.
        data: Vec<u8>,
    },
    /// Refuse, with this reason in the CONNACK, or in the DISCONNECT after a re-authentication.
    Failure(ReasonCode),
}

/// How often an exchange may go on with [`Verdict::Continue`].
pub const AUTH_ROUNDS_MAX: u8 = 16;

/// One thing that happened outside. Every variant is handled in bounded time.
pub enum Input<'a> {
    /// A connection was accepted; its first packet has not been handled.
    Opened {
        /// Its name from now on.
        conn: ConnId,
        /// The index into [`Config::listeners`].
        listener: u16,
        /// Where it comes from, `None` for a transport without addresses.
        peer: Option<SocketAddr>,
        /// The name a client certificate gives, where the listener takes that for the user name.
        identity: Option<&'a str>,
        /// Sixteen random bytes of the driver's own source: an assigned client id is made of them.
        entropy: [u8; 16],
    },
    /// Bytes arrived. `handle` returns how many were used; the driver keeps the others and passes
    /// them again after [`Output::ResumeReads`], before any that arrive later.
    Received {
        /// The connection.
        conn: ConnId,
        /// What was read.
        bytes: &'a [u8],
    },
    /// The transport took `bytes` from the outbox after an [`Output::Transmit`] (also 0, when it took none).
    /// If some are left, the driver writes on, unasked, as soon as the transport takes more.
    Written {
        /// The connection.
        conn: ConnId,
        /// How many bytes it took.
        bytes: usize,
    },
    /// The transport is gone: closed by the peer, or broken. Not sent after [`Output::Close`].
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// The answer to an [`Output::Authenticate`].
    Authenticated {
        /// The connection.
        conn: ConnId,
        /// What came of it.
        verdict: Verdict,
    },
    /// Publish a message that no connection brought: a bridge's, or the embedding program's.
    Publish {
        /// What to publish; it is not checked against rights.
        message: Message,
    },
    /// A message of another shard. Messages of one shard are handed over in the order they were sent.
    Peer {
        /// The shard that sent it.
        from: ShardId,
        /// The message.
        message: PeerMessage,
    },
    /// All changes in [`Output::Store`] up to this number are kept: a restart would find them.
    Stored {
        /// The number.
        upto: u64,
    },
    /// The store does not take any more for now (`true`), or does again. Until then nothing is promised that it would
    /// have to keep: QoS 1 and 2 messages for those who would get them later are refused.
    StoreFailed(bool),
    /// The answer to a [`StoreOp::Load`].
    Loaded(Loaded),
    /// What was kept, at a restart, before any connection: all of one session without another between, its
    /// [`StoreOp::Session`] first. Messages that wait stand in the order of their places, each that was sent with its
    /// [`StoreOp::Sent`] behind it; when [`HEAD`](super::store::HEAD) that were not sent have come, one
    /// [`StoreOp::Rest`] stands for the others. A session goes to the shard its client id hashes to, a retained
    /// message to that of its topic.
    Restore(StoreOp),
    /// A [`StoreOp::Forward`] of the run before that is above the last [`StoreOp::Mark`] of its link, after everything
    /// was restored: to all shards, or, with `share`, to the one that filter hashes to. All such records are to
    /// be removed together with what comes of this.
    Redeliver {
        /// The message.
        message: Message,
        /// The shared subscription that it is for.
        share: Option<Box<str>>,
        /// The shard that it was for, as its record says.
        to: ShardId,
        /// How many shards there were.
        shards: u16,
    },
    /// A new configuration, already checked. Connections stay; what they may do is decided anew, for what
    /// is queued as well.
    Configured(Arc<Config>),
    /// What the other shards have now. Needed only where [`Config::max_sessions`], [`Config::max_retained_messages`] or
    /// [`Config::max_retained_bytes`] is a limit.
    Elsewhere(Holdings),
    /// How many bytes of memory this shard may hold ([`Shard::memory`](super::Shard::memory)): what it holds, and what is
    /// left of the broker's budget. Beyond it nothing new is taken in. Without this input there is no limit.
    Memory(u64),
    /// So many connections were closed that this shard has not heard of, because of limits of the driver: they are counted.
    TurnedAway(u64),
    /// Some who were let in would not be any more: close them. After [`Input::Configured`].
    Revoked(Arc<Revoked>),
    /// Say goodbye to every client (5.0: DISCONNECT 0x8B) and close them.
    Shutdown,
    /// The moment named by [`Output::Timeout`] has come, or the driver felt like it.
    Timeout,
}

/// What a shard has of what is limited for all together ([`Shard::holdings`](super::Shard::holdings)), or several have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Sessions, connected or not.
    pub sessions: u64,
    /// Retained messages, but for those below `$SYS/`.
    pub retained: u64,
    /// The bytes these take up.
    pub retained_bytes: u64,
}

/// Whose authentication no longer holds, on one listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// The index into [`Config::listeners`].
    pub listener: u16,
    /// Whether clients without a user name go.
    pub anonymous: bool,
    /// The users who go; `None` for all with a user name. Clients named by a certificate are not meant.
    pub users: Option<BTreeSet<Box<str>>>,
    /// Whether clients named by a certificate go.
    pub certified: bool,
}

/// One thing to be done outside. Poll until [`Output::Timeout`] before waiting.
#[derive(Debug)]
pub enum Output {
    /// Write [`Shard::outbox`](super::Shard::outbox) of this connection to its transport, then say
    /// [`Input::Written`].
    Transmit(ConnId),
    /// Stop handing bytes of this connection in (reading on into a bounded buffer is fine).
    PauseReads(ConnId),
    /// Hand bytes in again, first those that were not used.
    ResumeReads(ConnId),
    /// Write `last` as far as the transport takes it at once, then close. The shard has forgotten the
    /// connection; no [`Input::Closed`] is needed.
    Close {
        /// The connection.
        conn: ConnId,
        /// What is still to be written, the goodbye at its end.
        last: Outbox,
    },
    /// The client has been let in and has no keep alive: only the transport can find out that it is gone. It is to ask
    /// by itself, and to break when nothing was heard for so long (TCP: keepalive and `TCP_USER_TIMEOUT`). Said once,
    /// if [`Config::unreachable_s`] is not 0.
    Watch {
        /// The connection.
        conn: ConnId,
        /// How long the client may be out of reach, in seconds.
        unreachable_s: u16,
    },
    /// Ask who the client is; answer with [`Input::Authenticated`]. A connection has at most one unanswered.
    Authenticate(Box<Authenticate>),
    /// Keep these, in order, and say so by [`Input::Stored`]. Only after [`Shard::keep`](super::Shard::keep_from).
    Store {
        /// The number of the last one; they are counted from 1.
        upto: u64,
        /// The changes, and questions.
        ops: Vec<StoreOp>,
    },
    /// A message for another shard: hand it to that shard as [`Input::Peer`], in order.
    Peer {
        /// The shard it is for.
        to: ShardId,
        /// The message.
        message: PeerMessage,
    },
    /// Nothing else is to be done now. Call again with [`Input::Timeout`] when this moment has come
    /// (`None`: no need), or earlier with any other input.
    Timeout(Option<crate::time::Instant>),
}

/// Which packet asks who the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthStep {
    /// CONNECT. An enhanced authentication begins if there is a method.
    Connect,
    /// AUTH with Continue authentication, after a [`Verdict::Continue`].
    Continue,
    /// AUTH with Re-authenticate: an enhanced authentication begins anew. Until the answer the client does what it
    /// has the right to already.
    Reauthenticate,
}

/// What a client gave to prove who it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Authenticate {
    /// The connection to answer for.
    pub conn: ConnId,
    /// What it gave that with.
    pub step: AuthStep,
    /// The index into [`Config::listeners`].
    pub listener: u16,
    /// The protocol version.
    pub version: Version,
    /// Where it comes from, `None` for a transport without addresses.
    pub peer: Option<SocketAddr>,
    /// The effective client id.
    pub client_id: String,
    /// The user name in CONNECT; in a re-authentication the one that was found out then.
    pub username: Option<String>,
    /// The password in CONNECT: bytes, not text.
    pub password: Option<Vec<u8>>,
    /// The authentication method (5.0), opaque to the core; in all steps the one of CONNECT.
    pub method: Option<String>,
    /// The authentication data (5.0), opaque to the core.
    pub data: Option<Vec<u8>>,
}

impl fmt::Debug for Verdict {
    /// Leaves the authentication data out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Success { username, data } => f
                .debug_struct("Success")
                .field("username", username)
                .field("data", &data.as_deref().map(Unseen))
                .finish(),
            Verdict::Continue { data } => write!(f, "Continue({:?})", Unseen(data)),
            Verdict::Failure(reason) => f.debug_tuple("Failure").field(reason).finish(),
        }
    }
}

impl fmt::Debug for Input<'_> {
    /// Leaves bytes that were received out, which may be those of a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The random numbers are not for others.
            Input::Opened { conn, listener, peer, identity, .. } => {
                write!(f, "Opened({conn:?}, listener {listener}, {peer:?}, {identity:?})")
            }
            Input::Received { conn, bytes } => write!(f, "Received({conn:?}, {:?})", Unseen(bytes)),
            Input::Written { conn, bytes } => write!(f, "Written({conn:?}, {bytes})"),
            Input::Closed { conn } => write!(f, "Closed({conn:?})"),
            Input::Authenticated { conn, verdict } => write!(f, "Authenticated({conn:?}, {verdict:?})"),
            Input::Publish { message } => write!(f, "Publish({message:?})"),
            Input::Peer { from, message } => write!(f, "Peer({from}, {message:?})"),
            Input::Stored { upto } => write!(f, "Stored({upto})"),
            Input::StoreFailed(failed) => write!(f, "StoreFailed({failed})"),
            Input::Loaded(loaded) => write!(f, "Loaded({loaded:?})"),
            Input::Restore(op) => write!(f, "Restore({op:?})"),
            Input::Redeliver { message, share, to, shards } => {
                write!(f, "Redeliver({message:?}, {share:?}, to {to} of {shards})")
            }
            Input::Configured(_) => f.write_str("Configured"),
            Input::Elsewhere(holdings) => write!(f, "Elsewhere({holdings:?})"),
            Input::Memory(bytes) => write!(f, "Memory({bytes})"),
            Input::TurnedAway(connections) => write!(f, "TurnedAway({connections})"),
            Input::Revoked(revoked) => write!(f, "Revoked({revoked:?})"),
            Input::Shutdown => f.write_str("Shutdown"),
            Input::Timeout => f.write_str("Timeout"),
        }
    }
}

impl fmt::Debug for Authenticate {
    /// Leaves the password and the authentication data out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticate")
            .field("conn", &self.conn)
            .field("step", &self.step)
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}
