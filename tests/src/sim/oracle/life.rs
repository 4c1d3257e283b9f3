//! How sessions begin and end, what becomes of wills, and what a crash leaves of both.

use super::debt::OVERHEAD;
use super::message::Handed;
use super::session::{NEVER, Session, Will};
use super::{GRACE, Oracle};
use crate::sim::plan::SECOND;
use crate::sim::wire::ConnAck;

/// A moment so many seconds later.
fn after(now: u64, seconds: u32) -> u64 {
    if seconds == u32::MAX { NEVER } else { now + u64::from(seconds) * SECOND }
}

impl Oracle {
    /// A client was let in.
    pub(super) fn accepted(&mut self, conn: usize, connack: &ConnAck, now: u64) {
        let step = self.step;
        let link = self.link(conn);
        let Some(connect) = link.connect.take() else { panic!("a CONNACK without a CONNECT") };
        link.accepted(&connect, connack);
        let client = link.client;
        let found = self.current.get(&client).copied();
        self.check_present(found, &connect, connack, now);
        if let Some(index) = found {
            self.taken_over(index, connack.present, now);
        }
        let index = match found.filter(|_| connack.present) {
            Some(index) => index,
            None => {
                self.sessions.push(Session::new(client, conn, step));
                let index = self.sessions.len() - 1;
                self.sessions[index].before = found;
                self.current.insert(client, index);
                index
            }
        };
        let expiry_s = connack.expiry_s.unwrap_or(connect.expiry_s);
        let session = &mut self.sessions[index];
        session.expires_before = session.expires;
        session.expiry_before_s = session.expiry_s;
        session.changed = false;
        session.conn = Some(conn);
        session.expiry_s = expiry_s;
        session.expires = (NEVER, NEVER);
        session.accepted_step = step;
        session.connections += 1;
        session.uncertain = false;
        session.max_packet = connect.max_packet;
        let messages = &self.messages;
        session
            .owed
            .retain(|number, _| messages.get(*number).draft.size + OVERHEAD <= connect.max_packet as usize);
        session.will = None;
        if let Some(will) = &connect.will {
            let Some(number) = crate::sim::actor::number_of(&will.payload) else {
                panic!("a will without number")
            };
            session.will = Some(Will { number, delay_s: will.delay_s, due: None });
            let message = self.messages.get_mut(number);
            // Until it is due this is not a time at which it was handed in.
            assert!(
                message.handed.is_empty()
                    && message.draft.qos == will.qos
                    && message.draft.retain == will.retain
            );
            self.will_expiry.insert(number, will.expiry);
        }
        self.link(conn).session = index;
    }

    /// Whether Session Present says the truth [MQTT-3.2.2-2] [MQTT-3.2.2-3].
    fn check_present(
        &self,
        found: Option<usize>,
        connect: &crate::sim::wire::Connect,
        connack: &ConnAck,
        now: u64,
    ) {
        let Some(index) = found else {
            return assert!(!connack.present, "{} has no session to be resumed", connect.client_id);
        };
        let session = &self.sessions[index];
        let open = session.conn.is_some();
        let lives = session.expiry_s > 0 && (open || now < session.expires.0);
        let may_live = session.expiry_s > 0 && (open || now < session.expires.1) || session.uncertain;
        let id = &connect.client_id;
        if connack.present {
            // [MQTT-3.1.2-4]
            assert!(!connect.clean, "{id} asked for a clean session and got another");
            assert!(may_live, "the session of {id} ended at {:?} and is resumed at {now}", session.expires);
        } else {
            let lost = lives && !connect.clean && !session.uncertain;
            assert!(!lost, "the session of {id} is lost: it ends at {:?}, now is {now}", session.expires);
        }
    }

    /// A client is back: what becomes of the connection, the will and the session there were.
    fn taken_over(&mut self, index: usize, survives: bool, now: u64) {
        let step = self.step;
        if let Some(old) = self.sessions[index].conn.take() {
            let link = self.link(old);
            link.ended = true;
            link.may_close = Some("taken over");
            self.end_of_link(index, old);
        }
        if !survives {
            return self.end_session(index, now);
        }
        let Some(will) = self.sessions[index].will.take() else { return };
        match will.due {
            // [MQTT-3.1.3-9]; without a delay it is due.
            None if will.delay_s == 0 => self.will_is_due(will, now),
            None => self.sessions[index].cancelled.push((will.number, step)),
            Some((low, _)) if now < low => self.sessions[index].cancelled.push((will.number, step)),
            // It was due about now, or is not any more.
            Some((low, _)) => {
                self.will_may_come(will.number, low);
                self.messages.get_mut(will.number).maybe = true;
            }
        }
    }

    /// What was owed on one connection only is not owed any more.
    fn end_of_link(&mut self, index: usize, conn: usize) {
        let session = &mut self.sessions[index];
        session.forgive(Some(conn));
        session.detached_step = self.step;
        session.packets_before.push((self.step, session.max_packet));
    }

    /// The session is over: its will is due, nothing is owed to it.
    fn end_session(&mut self, index: usize, now: u64) {
        if let Some(will) = self.sessions[index].will.take() {
            let low = will.due.map_or(now, |(low, _)| low.min(now));
            self.will_is_due(will, low);
        }
        let session = &mut self.sessions[index];
        session.ended_step = Some(self.step);
        session.owed.clear();
        session.forgive(None);
        let client = session.client;
        if self.current.get(&client) == Some(&index) {
            self.current.remove(&client);
        }
        self.leave_groups(index);
    }

    /// A will is published about now, not before `low`.
    fn will_is_due(&mut self, will: Will, low: u64) {
        self.will_may_come(will.number, low);
        self.wills += 1;
        self.owe_will(will.number, low);
    }

    /// A will may be published from a moment on.
    pub(super) fn will_may_come(&mut self, number: u32, at: u64) {
        let last_step = self.step;
        // A run that came to nothing may have published it.
        let crashes = self.crash_times.iter().filter(|(crash, _)| *crash <= at).count() as u32;
        let step = self.step_at(at);
        let expiry_s = self.will_expiry.get(&number).copied().flatten();
        let keeps_all = self.keeps_all;
        let message = self.messages.get_mut(number);
        message.maybe |= message.draft.retain && !keeps_all;
        if message.handed.is_empty() {
            message.crashes = crashes;
        }
        message.transmissions += 1;
        message.last_step = last_step;
        message.handed.push(Handed { step, at, expiry_s, session: 0 });
        if message.draft.retain {
            let topic = message.draft.topic.clone();
            self.retained.write(&topic, number);
            for session in &mut self.sessions {
                session.forgive_topic(&topic);
            }
        }
    }

    /// The client said DISCONNECT.
    pub(super) fn disconnected(&mut self, conn: usize, code: u8, expiry_s: Option<u32>, now: u64) {
        let step = self.step;
        let link = self.link(conn);
        link.ended = true;
        link.may_close = Some("disconnected");
        let index = link.session;
        let session = &mut self.sessions[index];
        if let Some(expiry_s) = expiry_s {
            session.expiry_before_s = session.expiry_s;
            session.expiry_s = expiry_s;
            session.changed = true;
        }
        // [MQTT-3.1.2-10] [MQTT-3.14.4-3]
        if code == 0
            && let Some(will) = session.will.take()
        {
            session.cancelled.push((will.number, step));
        }
        self.detach(index, conn, now);
    }

    /// A session's connection is gone, and no other took its place.
    fn detach(&mut self, index: usize, conn: usize, now: u64) {
        let session = &mut self.sessions[index];
        if session.conn != Some(conn) {
            return;
        }
        session.conn = None;
        let expires = after(now, session.expiry_s);
        session.expires = (expires, expires);
        if let Some(will) = &mut session.will {
            let due = after(now, will.delay_s).min(expires);
            will.due = Some((due, due));
        }
        self.end_of_link(index, conn);
        if self.sessions[index].expiry_s == 0 {
            self.end_session(index, now);
        } else if self.sessions[index].will.is_some_and(|will| will.due.is_some_and(|(low, _)| low <= now)) {
            let will = self.sessions[index].will.take();
            will.into_iter().for_each(|will| self.will_is_due(will, now));
        }
    }

    /// The broker closed a connection.
    pub fn closed_by_broker(&mut self, conn: usize, now: u64, unsaid: bool) {
        self.step += 1;
        let short = self.was_short;
        let link = self.link(conn);
        let (index, running, ended) = (link.session, link.running, link.ended);
        let late = link.heard_at + u64::from(link.keep_alive_s) * 1_500_000 <= now && link.keep_alive_s > 0;
        let (may_close, v5, blocked) = (link.may_close, link.v5, link.blocked_since.is_some());
        let why = match may_close {
            Some(why) => why,
            None if !running => "no CONNECT in time",
            // What would have gone before it promises what is not on the disk.
            None if late && unsaid && self.store_failed => "keep alive",
            None if blocked && unsaid => "takes no output",
            None if v5 => panic!("a 5.0 client is closed without a word"),
            None if late => "keep alive",
            None if blocked => "takes no output",
            None if short => "memory is short",
            None => {
                assert!(self.store_failed, "a client is closed for no reason");
                "the store fails"
            }
        };
        let _ = (why, self.stall);
        self.link(conn).ended = true;
        if running && !ended {
            self.detach(index, conn, now);
        }
    }

    /// A transport broke, as the broker sees it.
    pub fn lost(&mut self, conn: usize, now: u64) {
        self.step += 1;
        let link = self.link(conn);
        let (index, running, ended) = (link.session, link.running, link.ended);
        link.ended = true;
        if running && !ended {
            self.detach(index, conn, now);
        }
    }

    pub fn wall_jumps(&mut self, now: u64, jump: i64) {
        self.jumps.push((now, jump));
    }

    /// How far the wall clock has jumped, forward and back.
    pub(super) fn jumped(&self) -> (u64, u64) {
        let sum = |forward: bool| {
            let all = self.jumps.iter().map(|(_, jump)| *jump).filter(|jump| (*jump > 0) == forward);
            all.map(i64::unsigned_abs).sum()
        };
        (sum(true), sum(false))
    }

    /// What should have ended by now has.
    pub(super) fn age(&mut self, now: u64) {
        for index in self.current.values().copied().collect::<Vec<_>>() {
            let session = &mut self.sessions[index];
            if session.conn.is_some() || session.uncertain {
                continue;
            }
            let over = session.expires.1.saturating_add(GRACE) < now;
            if let Some(will) = session.will
                && !over
                && will.due.is_some_and(|(_, high)| high.saturating_add(GRACE) < now)
            {
                session.will = None;
                let low = will.due.map_or(now, |(low, _)| low);
                self.will_is_due(will, low);
            }
            if over {
                self.step += 1;
                self.end_session(index, now);
            }
        }
    }

    /// The broker died. What happened up to step `durable` is on the disk, if there is one.
    pub fn crashed(&mut self, now: u64, persistent: bool, durable: u64) {
        self.step += 1;
        self.crashes += 1;
        self.crash_times.push((now, durable));
        self.up = false;
        self.crashed_at = now;
        self.links.values_mut().for_each(|link| {
            link.ended = true;
            link.running = true;
        });
        if !persistent {
            for session in self.sessions.iter_mut() {
                session.ended_step.get_or_insert(self.step);
                session.owed.clear();
                session.forgive(None);
                session.will = None;
            }
            self.current.clear();
            self.groups.clear();
            self.retained.clear();
            return;
        }
        // A will whose publication is not on the disk may be cancelled yet.
        let messages = &self.messages;
        for session in &mut self.sessions {
            session.owed.retain(|number, _| {
                let message = messages.get(*number);
                !message.is_will || message.last_step <= durable
            });
        }
        // What is sent when the broker dies is nobody else's, whether or not it was sent.
        let messages = &self.messages;
        for group in self.groups.values_mut() {
            let got = |key: &(u32, bool)| self.sessions.iter().any(|session| session.got.contains_key(key));
            group.copies.retain(|key, _| !key.1 || got(key));
            group.owed.retain(|number, _| messages.get(*number).draft.qos < 2);
        }
        // Who is in no store takes what was chosen for it along; also who has ended, if it is not on the disk that others got it.
        let fleeting = self.sessions.iter().filter(|session| {
            session.keeps_nothing() && session.ended_step.is_none_or(|step| step > durable)
        });
        for shared in fleeting.flat_map(|session| session.subscriptions.iter().filter(|s| s.is_shared())) {
            if let Some(group) = self.groups.get_mut(&shared.filter) {
                group.owed.clear();
            }
        }
        for index in self.current.values().copied().collect::<Vec<_>>() {
            self.session_crashes(index, durable);
        }
        // Those whose end is not on the disk may be back.
        for index in 0..self.sessions.len() {
            let session = &self.sessions[index];
            if session.ended_step.is_none_or(|step| step <= durable || step == self.step) {
                continue;
            }
            // Its goodbye may be forgotten.
            let wills = session.cancelled.iter().filter(|(_, step)| *step > durable);
            let wills: Vec<u32> = wills.map(|(number, _)| *number).collect();
            for number in wills {
                self.messages.get_mut(number).maybe = true;
                self.will_may_come(number, self.crashed_at);
            }
            let session = &self.sessions[index];
            if session.expiry_s.max(session.expiry_before_s) == 0 {
                continue;
            }
            let client = session.client;
            let mut back = session.clone();
            match self.current.get(&client) {
                Some(&other) => self.sessions[other].absorb(&back),
                None => {
                    back.uncertain = true;
                    back.conn = None;
                    back.owed.clear();
                    back.ended_step = None;
                    back.subscriptions.iter_mut().for_each(|s| {
                        s.certain_from = NEVER;
                        s.until = NEVER;
                    });
                    self.sessions.push(back);
                    self.current.insert(client, self.sessions.len() - 1);
                    self.session_crashes(self.sessions.len() - 1, durable);
                }
            }
        }
    }

    fn session_crashes(&mut self, index: usize, durable: u64) {
        let step = self.step;
        let session = &mut self.sessions[index];
        session.crashed = true;
        session.owed.retain(|_, on| on.is_none());
        session.forgive(session.conn);
        session.was_connected = session.conn.take().is_some();
        if session.was_connected {
            session.packets_before.push((step, session.max_packet));
        }
        for subscription in &mut session.subscriptions {
            if subscription.until != NEVER && subscription.until > durable {
                subscription.until = NEVER;
                subscription.certain_from = NEVER;
            }
        }
        session.sent.values_mut().for_each(|sent| sent.loose = true);
        // It was not on the wire before its record was on the disk.
        let got = std::mem::take(&mut session.got);
        session.copies.retain(|key, _| !key.1 || got.contains_key(key));
        session.got = got;
        if session.created_step > durable || session.accepted_step > durable {
            // Whether the client came back, or was there at all.
            session.uncertain |= session.created_step > durable;
            session.expires.0 = 0;
            session.expiry_s = session.expiry_s.max(session.expiry_before_s);
        }
        if session.detached_step > durable {
            session.was_connected = true;
            if session.changed {
                // Or it ends as it would have without the goodbye.
                session.expires.0 = session.expires.0.min(after(self.crashed_at, session.expiry_before_s));
            }
            session.expiry_s = session.expiry_s.max(session.expiry_before_s);
        }
        let uncertain_will = session.accepted_step > durable || session.detached_step > durable;
        let mut maybe: Vec<u32> =
            session.cancelled.iter().filter(|(_, at)| *at > durable).map(|(n, _)| *n).collect();
        if let Some(will) = session.will.filter(|_| uncertain_will) {
            maybe.push(will.number);
            session.will = None;
        }
        let fleeting = session.expiry_s == 0;
        if fleeting {
            session.ended_step = Some(step);
            session.owed.clear();
            let client = session.client;
            let will = session.will.take();
            self.current.remove(&client);
            self.orphans.extend(will);
            self.leave_groups(index);
        }
        for number in maybe {
            self.messages.get_mut(number).maybe = true;
            self.will_may_come(number, self.crashed_at);
        }
    }

    /// The broker is back.
    pub fn restarted(&mut self, now: u64) {
        self.step += 1;
        self.up = true;
        self.crashed_at = now;
        let (forward, back) = self.jumped();
        // A will outlives its session's connection, and the broker.
        for will in std::mem::take(&mut self.orphans) {
            self.will_is_due(will, now);
        }
        for index in self.current.values().copied().collect::<Vec<_>>() {
            let session = &mut self.sessions[index];
            if session.conn.is_some() {
                continue;
            }
            let whole = after(now, session.expiry_s);
            if session.was_connected {
                // Its client's connection ended with the broker, or a little before, which may be on the disk.
                let low = if session.uncertain || session.expires.0 != NEVER {
                    session.expires.0.saturating_sub(forward)
                } else {
                    whole
                };
                session.expires = (low.min(whole), whole);
            } else {
                let (low, high) = session.expires;
                let spread = |at: u64, by: u64| if at == NEVER { NEVER } else { at.saturating_add(by) };
                let low = if low == NEVER { NEVER } else { low.saturating_sub(forward) };
                session.expires = (low, spread(high, back).min(whole.max(high)));
            }
            if let Some(will) = &mut session.will {
                let whole = after(now, will.delay_s);
                will.due = Some(match will.due {
                    None => (whole.min(session.expires.0), whole.min(session.expires.1)),
                    Some((low, high)) => {
                        let high = high.saturating_add(back).max(now);
                        (low.saturating_sub(forward), high)
                    }
                });
            }
            session.was_connected = false;
        }
    }

    /// A client's program knows nothing of what it got before.
    pub fn forgets(&mut self, client: usize) {
        self.heard_of.remove(&client);
        if let Some(&index) = self.current.get(&client) {
            let session = &mut self.sessions[index];
            for sent in session.sent.values().filter(|sent| sent.qos == 2) {
                *session.spare.entry(sent.number).or_default() += 1;
            }
        }
    }
}
