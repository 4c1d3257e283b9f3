//! How much of everything.

use super::Scope::{Global, Listener, ListenerOrDefault};
use super::{Spec, Takes};
use crate::config::settings::Severity;
use hikyaku_proto::codec::QoS;

/// The most bytes a packet can have.
const PACKET_MAX: i64 = 268_435_460;
const PAYLOAD_MAX: i64 = 268_435_455;

/// `n`, where 0 and less mean as many as can be.
fn or_unlimited(n: i64, unlimited: i64) -> i64 {
    if n <= 0 { unlimited } else { n }
}

/// `n`, where 0 and less mean that there is no limit.
fn positive(n: i64) -> Option<u32> {
    u32::try_from(n).ok().filter(|&n| n > 0)
}

pub(super) const OPTIONS: &[Spec] = &[
    Spec::supported(
        "max_packet_size",
        Global,
        Takes::Number {
            least: 20,
            most: i64::MAX,
            message: "'max_packet_size' must be >= 20.",
            set: |draft, n| draft.core.max_packet_size = n.min(PACKET_MAX) as u32,
        },
        "2000000",
        "The largest packet taken, in bytes; told to 5.0 clients.",
    ),
    Spec::supported(
        "message_size_limit",
        Global,
        Takes::Number {
            least: 0,
            most: PAYLOAD_MAX,
            message: "",
            set: |draft, n| {
                draft.say(
                    Severity::Note,
                    "It is recommended to replace 'message_size_limit' with 'max_packet_size'.",
                );
                draft.core.message_size_limit = or_unlimited(n, PAYLOAD_MAX) as u32;
            },
        },
        "0 (none)",
        "The largest payload passed on, in bytes. A larger message is acknowledged (5.0: refused with 0x83) and \
         dropped.",
    ),
    Spec::supported(
        "max_inflight_messages",
        Global,
        Takes::Number {
            least: i64::MIN,
            most: 65535,
            message: "'max_inflight_messages' must be <= 65535.",
            set: |draft, n| draft.core.max_inflight_messages = or_unlimited(n, 65535) as u16,
        },
        "20",
        "How many QoS 1 and 2 messages may be under way to a client, and from it, at once; told to 5.0 clients. 0 is \
         65535.",
    ),
    Spec::supported(
        "max_inflight_bytes",
        Global,
        Takes::Number {
            least: 0,
            most: i64::MAX,
            message: "",
            set: |draft, n| draft.core.max_inflight_bytes = or_unlimited(n, i64::MAX) as u64,
        },
        "0 (any)",
        "QoS 1 and 2 messages go out to a client as long as less than so many bytes of payload are under way to it.",
    ),
    Spec::supported(
        "max_queued_messages",
        Global,
        Takes::Number {
            least: i64::MIN,
            most: u32::MAX as i64,
            message: "",
            set: |draft, n| draft.core.max_queued_messages = or_unlimited(n, i64::from(u32::MAX)) as u32,
        },
        "1000",
        "How many QoS 1 and 2 messages wait for a client beyond those under way; more are dropped. 0 is no limit.",
    ),
    Spec::supported(
        "max_queued_bytes",
        Global,
        Takes::Number {
            least: i64::MIN,
            most: i64::MAX,
            message: "",
            set: |draft, n| draft.max_queued_bytes = Some(or_unlimited(n, i64::MAX) as u64),
        },
        "4194304 in memory, 0 (none) in the store (mosquitto: none)",
        "How many bytes of messages wait for a client; more are dropped. 0 is no limit. The first of both limits \
         counts. What is given holds for all clients; without it a session that `persistence true` keeps, whose queue is on disk, \
         is limited by `max_queued_messages` alone.",
    ),
    Spec::supported(
        "max_keepalive",
        Global,
        Takes::Number {
            least: 0,
            most: 65535,
            message: "",
            set: |draft, n| draft.core.max_keepalive_s = n as u16,
        },
        "0 (any)",
        "The longest keep alive granted, in seconds. 5.0 clients are told to use it. Others \
         with a longer one are refused; those with none are let in.",
    ),
    Spec::own(
        "tcp_user_timeout",
        Global,
        Takes::Number {
            least: 0,
            most: 65535,
            message: "",
            set: |draft, n| draft.core.unreachable_s = n as u16,
        },
        "300",
        "How long a TCP client that asked for no keep alive may be out of reach before its connection is closed, in seconds: \
         the system asks for it (from half that time on) and waits no longer for its acknowledgements (TCP_USER_TIMEOUT on \
         Linux). Of others the keep alive says that they are gone. Without it the system would take ten minutes for one that is \
         sent nothing and a quarter of an hour for one that is, and its messages and will would wait as long; much less would \
         cut clients whose network pauses. 0 is what the system does by itself. Holds for clients that connect from then on.",
    ),
    Spec::supported(
        "max_connections",
        ListenerOrDefault,
        Takes::Number {
            least: i64::MIN,
            most: u32::MAX as i64,
            message: "",
            set: |draft, n| draft.door().settings.max_connections = positive(n),
        },
        "-1 (any number)",
        "How many connections this listener may have at once; those beyond are closed as they come, which is \
         logged. One counts until it is closed, whether or not it has sent a CONNECT. -1 and 0 are no limit. \
         (mosquitto does not reload it.)",
    ),
    Spec::supported(
        "global_max_connections",
        Global,
        Takes::Number {
            least: i64::MIN,
            most: u32::MAX as i64,
            message: "",
            set: |draft, n| draft.max_connections = positive(n),
        },
        "-1 (any number)",
        "How many connections all listeners together may have at once. As `max_connections`.",
    ),
    Spec::own(
        "max_connections_per_address",
        Global,
        Takes::Number {
            least: i64::MIN,
            most: u32::MAX as i64,
            message: "",
            set: |draft, n| draft.limits.connections_per_address = positive(n),
        },
        "0 (any number)",
        "How many connections one IPv4 address, or one IPv6 network of 64 bits, may have at once, at all listeners together; \
         those beyond are closed as they come. Off by default: behind one address there may be a whole site, or a proxy. \
         Connections that came before it was set are not counted.",
    ),
    Spec::own(
        "max_connection_rate",
        Global,
        Takes::Number {
            least: i64::MIN,
            most: 1_000_000,
            message: "",
            set: |draft, n| draft.limits.connection_rate = positive(n),
        },
        "0 (any)",
        "How many connections a second may come from one such address; those beyond are closed as they come. As many as \
         come in a second may come at once. Off by default, for the same reason.",
    ),
    Spec::own(
        "max_pending_connections",
        Global,
        Takes::Number {
            least: i64::MIN,
            most: u32::MAX as i64,
            message: "",
            set: |draft, n| draft.limits.pending_connections = positive(n),
        },
        "0 (a quarter of the descriptors there may be, 16 to 16384)",
        "How many connections each worker has that have not sent a CONNECT. Of more, the oldest is closed: who sends it at \
         once gets in, whatever others do. Read at the start.",
    ),
    Spec::supported(
        "global_max_clients",
        Global,
        Takes::Number {
            least: i64::MIN,
            most: u32::MAX as i64,
            message: "",
            set: |draft, n| draft.core.max_sessions = positive(n).unwrap_or(u32::MAX),
        },
        "-1 (any number)",
        "How many sessions there may be, connected or kept for clients that are not. A client that would need one more \
         is told that the server is busy (5.0: 0x89, others: 3; mosquitto tells only the former). Several workers \
         that let clients in at the same moment may exceed it by a few.",
    ),
    Spec::supported(
        "max_qos",
        ListenerOrDefault,
        Takes::Number {
            least: 0,
            most: 2,
            message: "'max_qos' must be between 0 and 2 inclusive.",
            set: |draft, n| {
                draft.door().core.limits.max_qos =
                    [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][n.clamp(0, 2) as usize];
            },
        },
        "2",
        "The highest QoS clients of this listener may publish with and are granted; told to 5.0 clients.",
    )
    .also("maximum_qos"),
    Spec::supported(
        "max_topic_alias",
        Listener,
        Takes::Number {
            least: 0,
            most: 65535,
            message: "Invalid 'max_topic_alias' value in configuration.",
            set: |draft, n| draft.door().core.limits.max_topic_alias = Some(n as u16),
        },
        "10",
        "How many topic aliases a 5.0 client of this listener may use.",
    ),
    Spec::supported(
        "max_topic_alias_broker",
        Listener,
        Takes::Number {
            least: 0,
            most: 65535,
            message: "Invalid 'max_topic_alias_broker' value in configuration.",
            set: |draft, n| draft.door().core.limits.max_topic_alias_broker = Some(n as u16),
        },
        "10",
        "How many topic aliases the broker uses towards a 5.0 client of this listener that allows them.",
    ),
    Spec::own(
        "max_publish_rate",
        Global,
        Takes::Number {
            least: 0,
            most: 1_000_000,
            message: "",
            set: |draft, n| draft.core.max_publish_rate = n as u32,
        },
        "0 (any)",
        "How many messages a second a client may publish. A second's worth may come at once; a client that sends more is read \
         more slowly, so that nothing is lost. Off by default: what a client may send depends on what it is for.",
    ),
    Spec::own(
        "max_topic_separators",
        Global,
        Takes::Number {
            least: 0,
            most: 65535,
            message: "",
            set: |draft, n| draft.core.max_topic_separators = n as u16,
        },
        "200",
        "The most `/` a topic or filter may have. As in mosquitto by default, where it is fixed.",
    ),
    Spec::own(
        "max_user_properties",
        Global,
        Takes::Number {
            least: 0,
            most: u32::MAX as i64 - 1,
            message: "",
            set: |draft, n| draft.core.max_user_properties = if n == 0 { u32::MAX } else { n as u32 },
        },
        "10000 (mosquitto: any number)",
        "How many user properties a packet, or a will, of a 5.0 client may have; 0 is any number. Bytes are \
         bounded by `max_packet_size`, but five bytes make a property, and receivers mostly keep two texts for each: a packet \
         of 2 MB could have 400,000. A message with more is refused with 0x97, any other packet ends its connection with 0x97.",
    ),
    Spec::own(
        "max_subscriptions",
        Global,
        Takes::Number {
            least: 1,
            most: u32::MAX as i64,
            message: "",
            set: |draft, n| draft.core.max_subscriptions = n as u32,
        },
        "100000",
        "How many subscriptions a client may have: dashboards hold thousands, and each takes memory.",
    ),
    Spec::own(
        "connect_timeout",
        Global,
        Takes::Number {
            least: 1,
            most: 65535,
            message: "",
            set: |draft, n| draft.core.connect_timeout_s = n as u16,
        },
        "10",
        "How long a connection may take until its CONNECT is complete, TLS and WebSocket handshakes included, in \
         seconds: who says nothing shall not take a place.",
    ),
    Spec::own(
        "max_connect_size",
        Global,
        Takes::Number {
            least: 1000,
            most: PACKET_MAX,
            message: "",
            set: |draft, n| draft.core.connect_bytes_max = n as u32,
        },
        "100000",
        "The largest CONNECT taken, in bytes: nobody knows yet who sends it.",
    ),
    Spec::own(
        "output_soft_limit",
        Global,
        Takes::Number {
            least: 1000,
            most: i64::MAX,
            message: "",
            set: |draft, n| draft.core.output_soft_bytes = usize::try_from(n).unwrap_or(usize::MAX),
        },
        "1048576",
        "How many bytes may wait for a slow connection before QoS 0 messages to it are dropped.",
    ),
    Spec::own(
        "slow_publishers",
        Global,
        Takes::Bool(|draft, on| draft.core.slow_publishers = on),
        "false",
        "Whether a publisher of QoS 0 messages waits for clients that read too slowly, instead of their messages being dropped \
         at `output_soft_limit` (beyond `output_hard_limit` they are). One that reads nothing holds it up until \
         `output_stall_timeout`: off by default, so that nobody suffers from others. Not for publishers that do not read while \
         they write.",
    ),
    Spec::own(
        "output_hard_limit",
        Global,
        Takes::Number {
            least: 1000,
            most: i64::MAX,
            message: "",
            set: |draft, n| draft.output_hard_bytes = Some(usize::try_from(n).unwrap_or(usize::MAX)),
        },
        "4194304, at least twice max_packet_size",
        "How many bytes may wait for a slow connection before nothing more is read from it.",
    ),
    Spec::own(
        "output_stall_timeout",
        Global,
        Takes::Number {
            least: 1,
            most: 65535,
            message: "",
            set: |draft, n| draft.core.output_stall_s = n as u16,
        },
        "30",
        "How long a connection may take nothing of what waits for it before it is closed, in seconds.",
    ),
    Spec::supported(
        "memory_limit",
        Global,
        Takes::Number {
            least: 0,
            most: i64::MAX,
            message: "",
            set: |draft, n| draft.limits.memory = Some(or_unlimited(n, i64::MAX) as u64),
        },
        "three quarters of what the machine or the control group has (mosquitto: none)",
        "How many bytes of memory may be held for clients: queues, retained messages, sessions, subscriptions, buffers of \
         connections; 0 is no limit. They are counted about, and those of TLS and of the store are not. When as much is \
         held, what is new is refused, with 0x97 to 5.0 clients: messages of QoS 1 and 2 (clients of 3.x are closed, as an \
         acknowledgement would be a lie), subscriptions, sessions, messages to be retained, packets that are large and not \
         complete. QoS 0 messages are dropped for clients that are slow. What was taken in before is delivered.",
    ),
    Spec::own(
        "max_retained_messages",
        Global,
        Takes::Number {
            least: 0,
            most: i64::MAX,
            message: "",
            set: |draft, n| draft.core.max_retained_messages = or_unlimited(n, i64::MAX) as u64,
        },
        "0 (any number)",
        "How many messages are retained, but for those of `$SYS`. One for a new topic beyond that is delivered and \
         acknowledged, and not retained, which is logged and counted. `memory_limit` holds at any rate. Several workers may \
         exceed it by a few.",
    ),
    Spec::own(
        "max_retained_bytes",
        Global,
        Takes::Number {
            least: 0,
            most: i64::MAX,
            message: "",
            set: |draft, n| draft.core.max_retained_bytes = or_unlimited(n, i64::MAX) as u64,
        },
        "0 (any)",
        "How many bytes retained messages have. As `max_retained_messages`; one that replaces another and does not fit takes \
         that away, as it is no longer what was said last.",
    ),
];
