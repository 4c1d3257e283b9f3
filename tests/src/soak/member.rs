//! One client of the soak: what it is there for, and its session.

use std::collections::BTreeMap;

use hikyaku_proto::client::{Client, Options, Will};
use hikyaku_proto::codec::{QoS, SubscribeOptions, Version};

use super::oracle::{GROUPS, Kind};
use crate::line::{Layers, Line};
use crate::random::Random;

/// What a client is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Publishes streams, with this number.
    Publisher(usize),
    /// Keeps a session and gets some durable streams whole.
    Subscriber,
    /// Keeps a session and gets all durable streams whole.
    Collector,
    /// Keeps a session and shares the streams of this group.
    Sharer(usize),
    /// Has no session and gets streams while it is there.
    Passer,
    /// Keeps a session and leaves a will.
    Mortal,
    /// Keeps a session and gets all wills.
    Mourner,
    /// Looks at a retained message.
    Looker,
    /// Comes under a new name each time, subscribes to what nobody publishes.
    Stranger,
    /// Is connected.
    Idler,
}

impl Role {
    /// The role of a member; of twenty, two publish.
    pub(super) fn of(index: usize) -> Role {
        match index % 20 {
            at @ 0..2 => Role::Publisher(index / 20 * 2 + at),
            2..6 => Role::Subscriber,
            6 => Role::Sharer(index / 20 % GROUPS),
            7..12 => Role::Passer,
            12 | 13 => Role::Mortal,
            14 => Role::Looker,
            15 | 16 => Role::Stranger,
            18 if index % 400 == 18 => Role::Mourner,
            19 if index % 400 == 19 => Role::Collector,
            _ => Role::Idler,
        }
    }

    pub(super) fn durable(self) -> bool {
        use Role::{Collector, Mortal, Mourner, Publisher, Sharer, Subscriber};
        matches!(self, Publisher(_) | Subscriber | Collector | Sharer(_) | Mortal | Mourner)
    }

    /// Whether the client's half of the session has to outlive a connection, too.
    pub(super) fn keeps_client(self) -> bool {
        self.durable() && self != Role::Mortal
    }

    /// For how many milliseconds it stays, about.
    fn stay_ms(self) -> u64 {
        match self {
            Role::Publisher(_) => 60_000,
            Role::Subscriber | Role::Sharer(_) | Role::Collector | Role::Mourner => 30_000,
            Role::Passer => 20_000,
            Role::Mortal => 15_000,
            Role::Looker => 5_000,
            Role::Stranger => 10_000,
            Role::Idler => 120_000,
        }
    }
}

pub(super) struct Member {
    pub(super) index: usize,
    pub(super) role: Role,
    pub(super) layers: Layers,
    pub(super) version: Version,
    pub(super) client: Client,
    pub(super) line: Option<Line>,
    /// The life of the broker in which the line was opened.
    pub(super) life: u32,
    /// When it does something next, in milliseconds.
    pub(super) at_ms: u64,
    /// For how many milliseconds it stays, about.
    pub(super) stay: u64,
    pub(super) let_in: bool,
    pub(super) subscribed: bool,
    /// There is a session.
    pub(super) known: bool,
    /// How many connections it has had.
    pub(super) connections: usize,
    /// The last number of each stream: of the session, or of the connection where there is none.
    pub(super) last: BTreeMap<(Kind, usize), u64>,
    /// The streams a subscriber has.
    pub(super) streams: Vec<(Kind, usize)>,
    /// The QoS it subscribes with.
    pub(super) qos: u8,
    /// The retained value to see at least.
    pub(super) due: Option<(u64, u64)>,
    /// Messages of a publisher without acknowledgement: by ticket.
    pub(super) open: BTreeMap<u64, (Kind, u64)>,
}

impl Member {
    pub(super) fn new(index: usize, publishers: usize, pace: u64, random: &mut Random) -> Self {
        let role = Role::of(index);
        let layers = Layers { tls: random.one_in(4), websocket: random.one_in(4) };
        let version = if random.one_in(2) { Version::V3_1_1 } else { Version::V5 };
        let mut streams: Vec<(Kind, usize)> = Vec::new();
        let mut some = |kind| (kind, random.below(publishers as u64) as usize);
        match role {
            Role::Subscriber => streams.extend([some(Kind::Durable), some(Kind::Durable)]),
            Role::Passer => streams.extend([some(Kind::Durable), some(Kind::Fast)]),
            Role::Looker => streams.push(some(Kind::Retained)),
            Role::Collector => streams.extend((0..publishers).map(|publisher| (Kind::Durable, publisher))),
            _ => {}
        }
        streams.sort_unstable();
        streams.dedup();
        let qos = if role.durable() { 2 } else { random.below(3) as u8 };
        let client = Client::new(Options::new(version, ""));
        Self {
            index,
            role,
            layers,
            version,
            client,
            line: None,
            life: 0,
            at_ms: 0,
            stay: (role.stay_ms() / pace).max(300),
            let_in: false,
            subscribed: false,
            known: false,
            connections: 0,
            last: BTreeMap::new(),
            streams,
            qos,
            due: None,
            open: BTreeMap::new(),
        }
    }

    pub(super) fn name(&self) -> String {
        match self.role {
            Role::Stranger => format!("stranger-{}-{}", self.index, self.connections),
            role => format!("{role:?}-{}", self.index).replace(['(', ')'], ""),
        }
    }

    /// Whether it is there, and waits for nothing.
    pub(super) fn idle(&self) -> bool {
        let done = self.filters().is_empty() || self.subscribed;
        self.client.is_connected() && done && self.client.unfinished() == 0
    }

    /// For people.
    pub(super) fn state(&self) -> String {
        let (connected, unfinished) = (self.client.is_connected(), self.client.unfinished());
        format!(
            "{} (connected {connected}, subscribed {}, unfinished {unfinished}: {:?})",
            self.name(),
            self.subscribed,
            self.open,
        )
    }

    /// Makes the client for the next connection, if the one there is does not go on.
    pub(super) fn renew(&mut self) {
        self.let_in = false;
        if !self.role.keeps_client() || self.connections == 0 {
            let mut options = Options::new(self.version, &self.name());
            options.clean_start = !self.role.durable();
            options.session_expiry_s = if self.role.durable() { u32::MAX } else { 0 };
            options.keep_alive_s = if self.index.is_multiple_of(3) { 10 } else { 60 };
            // The machine may be busy with other things.
            options.ping_timeout = std::time::Duration::from_secs(60);
            if self.role == Role::Mortal {
                let payload = (self.connections as u64).to_be_bytes().to_vec();
                let qos = if self.index.is_multiple_of(2) { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
                let topic = format!("v/{}", self.index);
                options.will = Some(Will { topic, payload, qos, ..Will::default() });
            }
            self.client = Client::new(options);
        }
        if !self.role.durable() {
            self.subscribed = false;
            self.last.clear();
        }
        self.connections += 1;
    }

    /// What it subscribes to.
    pub(super) fn filters(&self) -> Vec<String> {
        match self.role {
            Role::Subscriber | Role::Passer | Role::Looker => {
                self.streams.iter().map(|(kind, publisher)| kind.topic(*publisher)).collect()
            }
            Role::Collector => vec!["d/+".to_owned()],
            Role::Sharer(group) => vec![format!("$share/group-{group}/w/{group}/+")],
            Role::Mourner => vec!["v/#".to_owned()],
            Role::Stranger => vec![format!("x/{}/{}/#", self.index, self.connections), "x/+/y".to_owned()],
            Role::Publisher(_) | Role::Mortal | Role::Idler => Vec::new(),
        }
    }

    pub(super) fn subscribe_options(&self) -> SubscribeOptions {
        SubscribeOptions::new(match self.qos {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        })
    }
}
