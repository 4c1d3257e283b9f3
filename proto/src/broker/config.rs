//! What an operator decides, in the form the core uses.

use super::io::{SHARDS_MAX, ShardId};
use super::limits::ListenerLimits;
use super::rights::Rights;
use crate::codec::{Connect, Frame};
use crate::table::HashKey;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write;

/// Everything a shard needs to know beforehand. One value is shared by all shards of a broker.
#[derive(Clone, Debug)]
pub struct Config {
    /// What differs by listener; [`Input::Opened`](super::Input::Opened) names an index.
    pub listeners: Vec<Listener>,
    /// The largest packet taken, in bytes; announced to 5.0 clients.
    pub max_packet_size: u32,
    /// How many QoS 1 and 2 messages may be in flight to a client, and from it (Receive Maximum). At least 1.
    pub max_inflight_messages: u16,
    /// As long as fewer bytes of payload are in flight to a client, one more QoS 1 or 2 message is sent to it.
    pub max_inflight_bytes: u64,
    /// How many messages a session may have queued beyond those in flight; more are dropped.
    pub max_queued_messages: u32,
    /// How many bytes of messages a session may have queued that is not kept in a store.
    pub max_queued_bytes: u64,
    /// How many bytes of messages a session may have queued in the store.
    pub max_stored_bytes: u64,
    /// Whether messages of QoS 0 are queued for sessions whose clients are away.
    pub queue_qos0_messages: bool,
    /// The longest keep alive granted, in seconds; 0 grants any.
    pub max_keepalive_s: u16,
    /// How long a client without keep alive may be out of reach, in seconds, as [`Output::Watch`](super::Output::Watch) tells
    /// the driver; 0 leaves that to the transport.
    pub unreachable_s: u16,
    /// The largest payload passed on, in bytes.
    pub message_size_limit: u32,
    /// Whether a message is delivered with the QoS of the subscription though its own is lower; no standard
    /// allows that.
    pub upgrade_outgoing_qos: bool,
    /// How many topic aliases a client may use.
    pub max_topic_alias: u16,
    /// How many topic aliases the broker uses towards a client that allows it.
    pub max_topic_alias_broker: u16,
    /// How many messages a second a client may publish; 0 is any. Who publishes more is read more slowly.
    pub max_publish_rate: u32,
    /// The most `/` a topic name or filter may have.
    pub max_topic_separators: u16,
    /// How many user properties a packet, or a will, may have; `u32::MAX` is any number.
    pub max_user_properties: u32,
    /// How many subscriptions a session may have.
    pub max_subscriptions: u32,
    /// How many sessions there may be in all shards; `u32::MAX` is no limit. Shards know of each other's by
    /// [`Input::Elsewhere`](super::Input::Elsewhere).
    pub max_sessions: u32,
    /// How many messages may be retained in all shards; `u64::MAX` is no limit. As above.
    pub max_retained_messages: u64,
    /// How many bytes these may have; `u64::MAX` is no limit. As above.
    pub max_retained_bytes: u64,
    /// The longest session expiry interval granted, in seconds; `u32::MAX` grants any.
    pub max_session_expiry_s: u32,
    /// How long a connection may take until its CONNECT is complete, in seconds.
    pub connect_timeout_s: u16,
    /// How many bytes of unfinished CONNECT are taken.
    pub connect_bytes_max: u32,
    /// Output the transport has refused, in bytes, above which QoS 0 messages are dropped.
    pub output_soft_bytes: usize,
    /// Whether, instead, whoever published them has to wait, up to `output_hard_bytes`.
    pub slow_publishers: bool,
    /// Output the transport has refused, in bytes, above which nothing is read from the client.
    pub output_hard_bytes: usize,
    /// How long a client may refuse all output before it is closed, in seconds.
    pub output_stall_s: u16,
    /// Whether retained messages are kept.
    pub retain_available: bool,
    /// Whether a retained message is only sent while its publisher, who is kept with it, may publish to its topic.
    pub check_retain_source: bool,
    /// How often `$SYS` is published, in seconds; 0 never.
    pub sys_interval_s: u16,
    /// What `$SYS/broker/version` says.
    pub version: String,
    /// What an assigned client id begins with, where the listener does not say.
    pub auto_id_prefix: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listeners: vec![Listener::default()],
            max_packet_size: 2_000_000,
            max_inflight_messages: 20,
            max_inflight_bytes: u64::MAX,
            max_queued_messages: 1_000,
            max_queued_bytes: 4 << 20,
            max_stored_bytes: u64::MAX,
            queue_qos0_messages: false,
            max_keepalive_s: 0,
            unreachable_s: 300,
            message_size_limit: u32::MAX,
            upgrade_outgoing_qos: false,
            max_topic_alias: 10,
            max_topic_alias_broker: 10,
            max_publish_rate: 0,
            max_topic_separators: 200,
            max_user_properties: 10_000,
            max_subscriptions: 100_000,
            max_sessions: u32::MAX,
            max_retained_messages: u64::MAX,
            max_retained_bytes: u64::MAX,
            max_session_expiry_s: u32::MAX,
            connect_timeout_s: 10,
            connect_bytes_max: 100_000,
            output_soft_bytes: 1 << 20,
            slow_publishers: false,
            output_hard_bytes: 4 << 20,
            output_stall_s: 30,
            retain_available: true,
            check_retain_source: true,
            sys_interval_s: 10,
            version: String::from(concat!("hikyaku version ", env!("CARGO_PKG_VERSION"))),
            auto_id_prefix: String::from("auto-"),
        }
    }
}

/// What differs between the doors of a broker.
#[derive(Clone, Debug, Default)]
pub struct Listener {
    /// Where it is, as log lines call it; may be empty.
    pub name: Box<str>,
    /// Whether it is closed: nobody is let in, whoever it is.
    pub closed: bool,
    /// What clients may do here, whoever they are.
    pub limits: ListenerLimits,
    /// Whether clients are asked who they are.
    pub authentication: Authentication,
    /// Who may publish and subscribe to what. Topics are those with the mount point.
    pub rights: Arc<Rights>,
    /// What each client id has to begin with; others are refused.
    pub clientid_prefixes: Option<Box<str>>,
    /// What an assigned client id begins with.
    pub auto_id_prefix: Option<Box<str>>,
    /// Whether the user name, which is then required, replaces the client id.
    pub use_username_as_clientid: bool,
    /// Whether the user name is the one of the certificate: who has none is refused.
    pub identity_required: bool,
    /// What is put before all topics and filters of clients, and taken off again on the way out: a valid
    /// beginning of a topic. It holds from CONNECT to the end of a connection.
    pub mount_point: Option<Arc<str>>,
}

/// Whether clients of a listener are asked who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Authentication {
    /// Everyone is let in, whatever name is given.
    #[default]
    None,
    /// Each CONNECT, unless a certificate names the client, becomes an [`Output::Authenticate`](super::Output::Authenticate).
    Ask,
}

/// How many slots client ids, retained topics and share groups hash to.
pub const SLOTS: usize = 1024;

/// Where things live: names hash to slots, a table maps each slot to a shard.
///
/// All shards of a broker must share one placement.
#[derive(Clone, Debug)]
pub struct Placement {
    key: HashKey,
    shards: Box<[ShardId; SLOTS]>,
}

impl Placement {
    /// Deals the slots out to `shards` shards in turn; `shards` is brought into 1 to [`SHARDS_MAX`].
    pub fn new(seed: u64, shards: u16) -> Self {
        let shards = shards.clamp(1, SHARDS_MAX);
        let mut table = Box::new([0; SLOTS]);
        for (slot, shard) in table.iter_mut().enumerate() {
            *shard = (slot % usize::from(shards)) as ShardId;
        }
        Placement { key: HashKey::new(seed), shards: table }
    }

    /// The slot of a client id, topic or share group.
    pub fn slot(&self, name: &[u8]) -> usize {
        (self.key.hash(name) >> 32) as usize % SLOTS
    }

    /// The shard of a client id, topic or share group.
    pub fn shard(&self, name: &[u8]) -> ShardId {
        self.shards[self.slot(name)]
    }

    /// The shard of a slot.
    pub(super) fn of_slot(&self, slot: u16) -> ShardId {
        self.shards[usize::from(slot) % SLOTS]
    }

    /// The key all shards hash with where they must agree.
    pub(super) fn key(&self) -> HashKey {
        self.key
    }
}

/// Where a connection belongs, as far as the bytes seen tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// The CONNECT is not complete: ask again with more bytes.
    Incomplete,
    /// Any shard may have it: it will be refused.
    Any,
    /// The shard of its client id.
    At(ShardId),
}

impl Config {
    /// Which shard a connection belongs to, from the first bytes received on it. `identity` and `entropy` must be
    /// those that [`Input::Opened`](super::Input::Opened) will carry.
    pub fn home(
        &self,
        placement: &Placement,
        listener: u16,
        identity: Option<&str>,
        entropy: &[u8; 16],
        received: &[u8],
    ) -> Home {
        let limit = self.connect_bytes_max.min(self.max_packet_size);
        match received.first() {
            None => return Home::Incomplete,
            // 3.1 lets a CONNECT have any flags.
            Some(0x10..0x20) => {}
            Some(_) => return Home::Any,
        }
        match Frame::parse(received, limit) {
            Ok(Some(frame)) => match Connect::decode(frame) {
                Ok(connect) => {
                    let id = self.effective_client_id(listener, identity, entropy, &connect);
                    Home::At(placement.shard(id.as_bytes()))
                }
                Err(_) => Home::Any,
            },
            Ok(None) if received.len() < limit as usize => Home::Incomplete,
            _ => Home::Any,
        }
    }

    /// What is configured for a listener.
    pub(super) fn listener(&self, listener: u16) -> Option<&Listener> {
        self.listeners.get(usize::from(listener))
    }

    /// The rights of clients of a listener; where there is none any more, none.
    pub(super) fn rights(&self, listener: u16) -> &Rights {
        static NONE: Rights = Rights::NONE;
        self.listener(listener).map_or(&NONE, |l| &l.rights)
    }

    /// The client id by which a session is known: the user name where the listener says so, the one
    /// given, or a random one (a version 4 UUID).
    pub(super) fn effective_client_id(
        &self,
        listener: u16,
        identity: Option<&str>,
        entropy: &[u8; 16],
        connect: &Connect<'_>,
    ) -> String {
        let listener = self.listener(listener);
        let username = identity.or(connect.username).filter(|name| !name.is_empty());
        let named = username.filter(|_| listener.is_some_and(|l| l.use_username_as_clientid));
        let given = named.unwrap_or(connect.client_id);
        if !given.is_empty() {
            return String::from(given);
        }
        let mut uuid = *entropy;
        uuid[6] = uuid[6] & 0x0f | 0x40;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        let prefix = listener.and_then(|l| l.auto_id_prefix.as_deref());
        let mut id = String::from(prefix.unwrap_or(&self.auto_id_prefix));
        for (i, byte) in uuid.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                id.push('-');
            }
            let _ = write!(id, "{byte:02X}");
        }
        id
    }
}
