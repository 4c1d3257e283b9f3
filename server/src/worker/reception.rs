//! How connections come in: accepted at a door, read until their CONNECT is there, brought to their home.

use super::Worker;
use crate::connection::{Connection, Places};
use crate::letter::Letter;
use crate::listener::Accepted;
use crate::lobby::Guest;
use crate::refusal::Refusal;
use crate::transport::{Detected, Transport};
use hikyaku_proto::broker::{ConnId, Home, Input, ShardId};
use hikyaku_proto::time::Instant;
use mio::Token;
use std::fmt::Display;

const ACCEPTS_PER_TURN: usize = 64;

impl Worker {
    pub(super) fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(accepted) = self.doors.accept(now, &mut self.refusals) else { return };
            self.admit(now, accepted);
            // Who comes into a full lobby drives the oldest out. One a turn: each guest has then had
            // a turn in which its CONNECT, if there, was read.
            if self.lobby.is_full() {
                return;
            }
        }
    }

    /// Shows someone who came in to the lobby.
    fn admit(&mut self, now: Instant, accepted: Accepted) {
        let entropy = match self.chance.draw() {
            Ok(entropy) => entropy,
            Err(e) => return log::error!("A connection is refused, there are no random numbers: {e}."),
        };
        let Accepted { transport, peer, listener } = accepted;
        let received = Vec::new();
        let guest = Guest { listener, peer, identity: None, entropy, received, since: now, held: 0 };
        self.take_guest(transport, Box::new(guest));
    }

    /// Takes someone in whose home is not known.
    pub(super) fn take_guest(&mut self, transport: Transport, mut guest: Box<Guest>) {
        if self.ending.is_some() {
            return;
        }
        let since = guest.since;
        guest.held = transport.held();
        let held = guest.held;
        let Some(conn) = self.watch(transport, guest) else { return };
        let connections = &self.connections;
        self.lobby.enter(since, conn, |conn| is_guest(connections, conn));
        self.lobby.hold(held, 0);
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if matches!(connection.transport, Transport::Layered(_)) {
            // What was read before waits inside.
            connection.readable = true;
            connection.until_empty = true;
            self.list(conn);
        }
    }

    fn watch(&mut self, transport: Transport, guest: Box<Guest>) -> Option<ConnId> {
        let conn = self.connections.insert(Connection::new(transport, guest));
        let connection = self.connections.get_mut(conn)?;
        let token = Token(conn.index as usize);
        if let Err(e) = connection.transport.register(self.poll.registry(), token) {
            log::warn!("A connection is refused, it cannot be watched: {e}.");
            self.connections.remove(conn);
            return None;
        }
        Some(conn)
    }

    /// A guest sent the first `bytes` of the buffer, its first: what does it speak? False if not MQTT.
    fn detect(&mut self, now: Instant, conn: ConnId, bytes: usize) -> bool {
        let Some(connection) = self.connections.get_mut(conn) else { return false };
        let Some(guest) = &mut connection.guest else { return false };
        if !matches!(connection.transport, Transport::Plain(..)) || !guest.received.is_empty() {
            return true;
        }
        let Some(gate) = self.gates.at(guest.listener) else { return true };
        let detected = gate.detect(&self.buffer[..bytes]);
        if detected == Detected::Mqtt {
            return true;
        }
        if let Detected::Refused(why) = detected {
            self.refuse(now, conn, Refusal::Speech, &why);
            self.remove(conn);
            return false;
        }
        let Some(Connection { mut transport, guest: Some(guest), .. }) = self.remove(conn) else {
            return false;
        };
        let workers = self.letterboxes.len() as ShardId;
        let to = if detected == Detected::Tls { self.next_handshake % workers } else { self.id };
        self.next_handshake = to + 1;
        let wrapped = match transport.deregister(self.poll.registry()) {
            Ok(()) => transport.wrap(gate, detected, &self.buffer[..bytes]),
            Err(e) => Err(e),
        };
        match wrapped {
            Ok(transport) if to == self.id => self.take_guest(transport, guest),
            Ok(transport) => self.post(to, Letter::Guest { transport, guest }),
            Err(e) => log::warn!("A connection is closed, it cannot be handled: {e}."),
        }
        false
    }

    /// A guest sent the first `bytes` of the buffer: find its home, if the CONNECT is complete.
    pub(super) fn on_guest_bytes(&mut self, now: Instant, conn: ConnId, bytes: usize) {
        if !self.detect(now, conn, bytes) {
            return;
        }
        let Some(connection) = self.connections.get_mut(conn) else { return };
        let Some(guest) = &mut connection.guest else { return };
        if guest.received.is_empty() {
            match connection.transport.identity() {
                Ok(identity) => guest.identity = identity,
                Err(why) => {
                    self.refuse(now, conn, Refusal::Tls, &why);
                    self.remove(conn);
                    return;
                }
            }
        }
        let length = bytes;
        let bytes = &self.buffer[..length];
        let held = guest.received.len();
        if held > 0 {
            guest.received.extend_from_slice(bytes);
        }
        let all = if held > 0 { &guest.received[..] } else { bytes };
        let identity = guest.identity.as_deref();
        let home = self.config.home(&self.placement, guest.listener, identity, &guest.entropy, all);
        let home = match home {
            Home::Incomplete if all.len() < self.config.connect_bytes_max as usize => {
                if held == 0 {
                    guest.received = bytes.to_vec();
                }
                self.lobby.hold(guest.held + length, guest.held);
                guest.held += length;
                return;
            }
            Home::At(home) if usize::from(home) < self.letterboxes.len() => home,
            // Too long, or no CONNECT at all: any shard knows what to say to that.
            Home::At(_) | Home::Any | Home::Incomplete => self.id,
        };
        self.lobby.leave(guest.held);
        if home != self.id {
            if held == 0 {
                guest.received = bytes.to_vec();
            }
            return self.hand_over(conn, home);
        }
        let Some(mut guest) = connection.guest.take() else { return };
        let received = std::mem::take(&mut guest.received);
        self.open(now, conn, &guest);
        if held == 0 {
            self.on_bytes(now, conn, length);
        } else {
            self.on_carried(now, conn, received);
        }
    }

    fn open(&mut self, now: Instant, conn: ConnId, guest: &Guest) {
        let identity = guest.identity.as_deref();
        let &Guest { listener, peer, entropy, .. } = guest;
        self.shard.handle(now, Input::Opened { conn, listener, peer, identity, entropy });
    }

    fn on_carried(&mut self, now: Instant, conn: ConnId, bytes: Vec<u8>) {
        if let Some(connection) = self.connections.get_mut(conn) {
            connection.kept = bytes.into();
            self.hand_in_kept(now, conn);
        }
    }

    /// Moves a connection, which has left the lobby, to the worker where it belongs.
    fn hand_over(&mut self, conn: ConnId, home: ShardId) {
        let Some(connection) = self.connections.remove(conn) else { return };
        let Connection { mut transport, guest: Some(guest), .. } = connection else { return };
        match transport.deregister(self.poll.registry()) {
            Ok(()) => self.post(home, Letter::Arrival { transport, guest }),
            Err(e) => log::warn!("A connection is closed, it cannot be handed over: {e}."),
        }
    }

    /// Takes over a connection whose home is here.
    pub(super) fn take_in(&mut self, now: Instant, transport: Transport, mut guest: Box<Guest>) {
        if self.ending.is_some() {
            return;
        }
        let received = std::mem::take(&mut guest.received);
        let Some(conn) = self.watch(transport, guest) else { return };
        let Some(connection) = self.connections.get_mut(conn) else { return };
        // Events for what has arrived may have been spent where it came from.
        connection.readable = true;
        connection.until_empty = true;
        if let Some(guest) = connection.guest.take() {
            self.open(now, conn, &guest);
        }
        self.on_carried(now, conn, received);
        self.read(now, conn);
    }

    /// Says why a guest is turned away.
    pub(super) fn refuse(&mut self, now: Instant, conn: ConnId, kind: Refusal, why: &dyn Display) {
        let Some(guest) = self.connections.get(conn).and_then(|c| c.guest.as_ref()) else { return };
        let gate = self.gates.at(guest.listener);
        self.refusals.say(now, kind, guest.peer, gate.as_ref().map(|gate| &*gate.name), why);
    }
}

pub(super) fn is_guest(connections: &Places<Connection>, conn: ConnId) -> bool {
    connections.get(conn).is_some_and(|c| c.guest.is_some())
}

/// Who has not sent a CONNECT gets a share of the descriptors, not all, where nothing else is said.
pub(super) fn guests_max(configured: Option<u32>) -> usize {
    if let Some(most) = configured {
        return most as usize;
    }
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    files.map_or(usize::MAX, |n| usize::try_from(n / 4).unwrap_or(usize::MAX)).clamp(16, 16_384)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Resource, getrlimit};

    #[test]
    fn who_has_not_sent_a_connect_has_a_share_of_the_descriptors() {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let most = guests_max(None) as u64;
        assert!((16..=16_384).contains(&most) && (most <= files / 4 || most == 16), "{most} of {files}");
        assert_eq!(guests_max(Some(3)), 3);
    }
}
