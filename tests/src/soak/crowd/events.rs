//! What comes to the clients, and whether it is right.

use hikyaku_proto::client::{By, Event, Received};
use hikyaku_proto::codec::Properties;

use super::super::member::Role;
use super::super::oracle::{Kind, Will};
use super::Crowd;

impl Crowd<'_> {
    pub(super) fn take_events(&mut self, index: usize) {
        while let Some(event) = self.members[index].client.poll_event() {
            match event {
                Event::Connected(connected) => self.let_in(index, connected.session_present),
                Event::Message(received) => self.received(index, &received),
                Event::Published { ticket, reason } => {
                    let open = self.members[index].open.remove(&ticket.number());
                    match open {
                        Some(_) if reason.is_error() => {
                            let name = self.members[index].name();
                            self.oracle.wrong(format!("{name}: a message was refused with {reason:?}"));
                        }
                        Some((kind, n)) => {
                            self.oracle.acknowledged += 1;
                            if let (Kind::Retained, Role::Publisher(at)) = (kind, self.members[index].role) {
                                self.oracle.retained[at] = n;
                            }
                        }
                        None => self.oracle.wrong("an acknowledgement of nothing".to_owned()),
                    }
                }
                Event::Subscribed { codes, .. } => {
                    if codes.iter().any(|code| code.is_error()) {
                        let name = self.members[index].name();
                        self.oracle.wrong(format!("{name} may not subscribe: {codes:?}"));
                    }
                    self.members[index].subscribed = true;
                }
                Event::Dropped { ticket, why } => {
                    if self.members[index].open.contains_key(&ticket.number()) {
                        let name = self.members[index].name();
                        self.oracle.wrong(format!("{name}: a message was dropped: {why:?}"));
                    }
                }
                Event::SessionLost => {
                    let name = self.members[index].name();
                    self.oracle.wrong(format!("the session of {name} is lost"));
                }
                Event::Refused { reason, .. } => {
                    let member = &self.members[index];
                    if member.life == self.house.life && self.house.up() {
                        let name = member.name();
                        self.oracle.wrong(format!("{name} is refused: {reason:?}"));
                    }
                }
                Event::Disconnected { by: By::Us | By::Transport, .. } => {}
                Event::Disconnected { by, .. } => {
                    let member = &self.members[index];
                    if member.life == self.house.life && self.house.up() {
                        let name = member.name();
                        self.oracle.wrong(format!("a connection of {name} ended: {by:?}"));
                    }
                    // The broker has the last word on what becomes of the will.
                    self.mortal_ends(index, Will::Either);
                }
                Event::Unsubscribed { .. } | Event::Auth { .. } => {}
            }
        }
    }

    fn let_in(&mut self, index: usize, session_present: bool) {
        let now = self.now();
        let member = &mut self.members[index];
        self.outcome.connections += 1;
        member.let_in = true;
        let expected = member.role.durable() && member.known;
        if expected && !session_present {
            let name = member.name();
            self.oracle.wrong(format!("the session of {name} is not there"));
        } else if !member.role.durable() && session_present {
            let name = member.name();
            self.oracle.wrong(format!("{name} has a session it never had"));
        }
        let member = &mut self.members[index];
        member.known = true;
        if let (Role::Mortal, Some(wills)) = (member.role, self.oracle.wills.get_mut(&index))
            && let Some(will) = wills.last_mut()
            && *will == Will::Connecting
        {
            *will = Will::Standing;
        }
        let filters = member.filters();
        if member.subscribed || filters.is_empty() {
            return;
        }
        let options = member.subscribe_options();
        let filters: Vec<_> = filters.iter().map(|filter| (filter.as_str(), options)).collect();
        if let (Role::Looker, [(_, publisher)]) = (member.role, &member.streams[..]) {
            let acknowledged = self.oracle.retained[*publisher];
            member.due = (acknowledged > 0).then_some((acknowledged, now.micros()));
        }
        // If the broker ended the connection right after, an event is about to say so.
        let _ = member.client.subscribe(now, &filters, Properties::EMPTY);
    }

    fn received(&mut self, index: usize, received: &Received) {
        let member = &mut self.members[index];
        let payload = received.payload();
        let Some(n) = payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)) else {
            let (name, topic) = (member.name(), received.topic());
            return self.oracle.wrong(format!("{name} got {payload:x?} of {topic}"));
        };
        let qos = received.qos() as u8;
        if payload[8..].iter().any(|byte| *byte != n as u8) {
            self.oracle.wrong(format!("the payload of {n} of {} is not what was sent", received.topic()));
        }
        let member = &mut self.members[index];
        if let Some(mortal) = received.topic().strip_prefix("v/") {
            let mortal = mortal.parse().unwrap_or(usize::MAX);
            return self.oracle.will_came(index, mortal, n as usize, qos);
        }
        let Some(stream) = Kind::of(received.topic()) else {
            return self.oracle.wrong(format!("a message of {}", received.topic()));
        };
        let (name, expected) = (member.name(), stream.0.qos(stream.1).min(member.qos));
        if qos != expected {
            self.oracle.wrong(format!("{name} got {n} of {stream:?} with QoS {qos}"));
        }
        match stream.0 {
            Kind::Shared => self.oracle.shared_came(&name, stream.1, n),
            Kind::Retained => {
                if let Some((due, _)) = member.due.take()
                    && n < due
                {
                    self.oracle.wrong(format!("{name} sees {n} of {stream:?}, but {due} was acknowledged"));
                }
            }
            Kind::Durable if qos > 0 => {
                let last = member.last.get(&stream).copied();
                // Who has no session begins anywhere.
                let before = if member.role.durable() { last.unwrap_or(0) } else { last.unwrap_or(n - 1) };
                member.last.insert(stream, before.max(n));
                self.oracle.in_order(&name, stream, before, n);
            }
            Kind::Durable | Kind::Fast => {
                let last = member.last.insert(stream, n).unwrap_or(0);
                if n <= last && Kind::qos(stream.0, stream.1) != 1 {
                    self.oracle.wrong(format!("{name} got {n} of {stream:?} with QoS 0 after {last}"));
                }
            }
        }
        if qos > 0 {
            self.oracle.delivered += 1;
        } else {
            self.oracle.fast_delivered += 1;
        }
    }
}
