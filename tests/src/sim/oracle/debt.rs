//! What the broker owes to whom.

use super::retained::before;
use super::session::NEVER;
use super::{AUDITOR, Oracle};
use hikyaku_proto::client::Received;

/// What a packet needs besides its payload.
pub(super) const OVERHEAD: usize = 110;

impl Oracle {
    /// A message was promised: all who certainly subscribed since a step before it came have to get it.
    pub(super) fn owe(&mut self, number: u32, since: u64, now: u64) {
        let step = self.step;
        let message = self.messages.get(number);
        if message.expires() || self.bounded || message.draft.size == 0 {
            return;
        }
        let (topic, qos, publisher) = (message.draft.topic.clone(), message.draft.qos, message.publisher);
        let size = message.draft.size + OVERHEAD;
        let indexes: Vec<usize> = self.current.values().copied().collect();
        let mistaken = indexes.iter().any(|&index| self.sessions[index].mistaken);
        // Who got it when it was sent again, after a crash that swallowed the first time, is not among the copies.
        let takers = self.sessions.iter().filter(|session| session.has_got(number));
        // Or it was marked as sent to somebody when the broker died, and is nobody else's when that one ends.
        let marked = qos == 2 && message.crashes < self.crashes;
        let gone = self
            .current
            .values()
            .map(|&index| &self.sessions[index])
            .filter(|s| marked && s.may_be_over(now));
        let taken: Vec<String> = takers
            .chain(gone)
            .flat_map(|session| session.subscriptions.iter().filter(|s| s.is_shared()))
            .map(|subscription| subscription.filter.clone())
            .collect();
        for &index in &indexes {
            let session = &mut self.sessions[index];
            if session.uncertain || session.mistaken || !session.takes_since(since, size) {
                continue;
            }
            let own = session.client == publisher;
            if session.certain_qos(&topic, since, own).is_some_and(|q| q.min(qos) > 0) {
                self.owed += 1;
                if !session.has_got(number) {
                    session.owed.insert(number, None);
                }
            }
            // A mistaken client may take a message for one that it has.
            if qos == 0 || mistaken {
                continue;
            }
            let shared = session.subscriptions.iter().filter(|s| s.is_shared() && s.means(&topic));
            for subscription in shared.filter(|s| s.certain_since(since)) {
                if let Some(group) = self.groups.get_mut(&subscription.filter)
                    && group.copies_of(number) == 0
                    && !taken.contains(&subscription.filter)
                    && group.left_step < since
                {
                    group.owed.insert(number, step);
                }
            }
        }
    }

    /// A QoS 0 message: who is connected and takes all output has to get it on that connection.
    pub(super) fn owe_now(&mut self, number: u32) {
        let message = self.messages.get(number);
        if message.expires() || message.draft.size == 0 {
            return;
        }
        let step = self.step;
        let (topic, publisher) = (message.draft.topic.clone(), message.publisher);
        let size = message.draft.size + OVERHEAD;
        for &index in self.current.values() {
            let session = &mut self.sessions[index];
            let own = session.client == publisher;
            if session.uncertain || session.mistaken || session.max_packet < size as u32 {
                continue;
            }
            let link = session.conn.and_then(|conn| self.links.get(&conn));
            let takes_all = link.is_some_and(|link| !self.drops || link.blocked_since.is_none());
            if takes_all && session.certain_qos(&topic, step, own).is_some() {
                self.owed += 1;
                session.owed.insert(number, session.conn);
            }
        }
    }

    /// A will is due since a moment: who certainly subscribed before.
    pub(super) fn owe_will(&mut self, number: u32, low: u64) {
        let message = self.messages.get(number);
        if message.expires() || self.bounded || !self.up {
            return;
        }
        let (topic, qos, publisher) = (message.draft.topic.clone(), message.draft.qos, message.publisher);
        let size = message.draft.size + OVERHEAD;
        let since = self.step_at(low);
        for &index in self.current.values() {
            let session = &mut self.sessions[index];
            if session.uncertain || session.mistaken || !session.takes_since(since, size) {
                continue;
            }
            let own = session.client == publisher;
            let means = |s: &&super::Subscription| !s.is_shared() && s.means(&topic) && !(own && s.no_local);
            let certain = session.subscriptions.iter().filter(means);
            let certain = certain
                .filter(|s| s.certain_at <= low && s.certain_until == NEVER && s.certain_from != NEVER);
            if certain.map(|s| s.qos.min(qos)).max().is_some_and(|q| q > 0) {
                self.owed += 1;
                if !session.has_got(number) {
                    session.owed.insert(number, None);
                }
            }
        }
    }

    /// Somebody subscribed: of each topic with a retained message something has to come.
    pub(super) fn owe_retained(&mut self, index: usize, filter: &str, asked: u64, max_packet: u32) {
        let size_max = (max_packet as usize).saturating_sub(OVERHEAD);
        if self.sessions[index].client == AUDITOR {
            return;
        }
        for topic in self.retained.topics() {
            if !super::topic::matches(filter, &topic) {
                continue;
            }
            for number in self.retained.promised_since(&topic, asked, &self.messages) {
                self.owe_last(number);
            }
            if self.retained.certain(&topic, asked, &self.messages, self.crashes, size_max) {
                self.owed += 1;
                self.sessions[index].owed_topics.insert(topic);
            }
        }
    }

    /// A message was promised and is retained: who subscribed about when it came has to get it, or one that came later, by
    /// whichever way.
    pub(super) fn owe_last(&mut self, number: u32) {
        let message = self.messages.get(number);
        let Some(first) = message.first_step() else { return };
        if !message.draft.retain || message.draft.size == 0 || message.expires() || message.handed.len() > 1 {
            return;
        }
        let topic = &message.draft.topic;
        for &index in self.current.values() {
            let session = &mut self.sessions[index];
            let own = session.client == message.publisher;
            let asked = session.subscriptions.iter().filter(|s| {
                let stands = s.until == NEVER && s.certain_from != NEVER && s.certain_until == NEVER;
                stands
                    && s.handling == 0
                    && !s.is_shared()
                    && s.means(topic)
                    && s.certain_from >= first
                    && !own
            });
            let Some(asked) = asked.map(|s| s.from).min().filter(|_| session.conn.is_some()) else {
                continue;
            };
            let seen = session.seen.get(topic).into_iter().flatten().any(|(&number, &step)| {
                let other = self.messages.get(number);
                other.last_step >= first || step >= asked && !before(other, message)
            });
            let size_max = (session.max_packet as usize).saturating_sub(OVERHEAD);
            if !seen && self.retained.lasts(message, &self.messages, size_max) {
                self.owed += 1;
                session.owed_last.entry(topic.clone()).or_default().insert(number);
            }
        }
    }

    /// A session gets a message: it, or what it may have replaced, is not owed any more.
    pub(super) fn pay_last(&mut self, index: usize, topic: &str, number: u32) {
        let session = &mut self.sessions[index];
        session.seen.entry(topic.into()).or_default().insert(number, self.step);
        if let Some(owed) = session.owed_last.get_mut(topic) {
            // What came at the same time as another may be the last, too.
            owed.retain(|&owed| owed != number && before(self.messages.get(number), self.messages.get(owed)));
        }
    }

    /// An application got a message.
    pub fn received(&mut self, conn: usize, received: &Received, now: u64) {
        let index = self.link(conn).session;
        let Some(number) = super::super::actor::number_of(received.payload()) else { return };
        let session = &mut self.sessions[index];
        if session.client == AUDITOR {
            self.audit.insert(received.topic().into(), number);
        }
        session.owed.remove(&number);
        let got = session.got.entry((number, received.qos() as u8 == 2)).or_default();
        *got += 1;
        let got = *got;
        for subscription in session.subscriptions.iter().filter(|s| s.is_shared()) {
            if let Some(group) = self.groups.get_mut(&subscription.filter)
                && subscription.means(received.topic())
            {
                group.owed.remove(&number);
            }
        }
        if received.qos() as u8 == 2 {
            let spare = session.spare.get(&number).copied().unwrap_or(0);
            let most = self.copies_max(index, number, 2, now) + spare;
            assert!(
                got <= most,
                "{}",
                self.explain(index, &format!("got message {number} {got} times at QoS 2"))
            );
        }
    }

    /// A member of shared subscriptions is gone.
    pub(super) fn leave_groups(&mut self, index: usize) {
        let filters: Vec<String> = self.sessions[index]
            .subscriptions
            .iter()
            .filter(|s| s.is_shared())
            .map(|s| s.filter.clone())
            .collect();
        for filter in filters {
            // It may have ended some time ago.
            let ended_at = self.sessions[index].expires.0;
            let certain = |other: &&usize| {
                let all = self.sessions[**other].subscriptions.iter().filter(|s| s.filter == filter);
                let mut certain = all.filter(|s| s.certain_since(self.step) && s.certain_at <= ended_at);
                **other != index && certain.next().is_some()
            };
            let any = self.current.values().find(certain).is_some();
            if let Some(group) = self.groups.get_mut(&filter) {
                group.ended += 1;
                group.left_step = self.step;
                // [MQTT-4.8.2-5]
                let session = &self.sessions[index];
                for sent in session.sent.values().filter(|sent| sent.qos == 2) {
                    group.owed.remove(&sent.number);
                }
                let (messages, crashes) = (&self.messages, self.crashes);
                // Nor what was marked as sent when the broker died, whether or not it was.
                group.owed.retain(|number, _| {
                    let message = messages.get(*number);
                    !session.crashed || message.draft.qos < 2 || message.crashes == crashes
                });
                if !any {
                    group.owed.clear();
                }
            }
        }
    }

    /// Nothing moves any more: what is owed has been paid.
    pub fn quiet(&mut self, now: u64) {
        self.step += 1;
        self.age(now);
        for (&client, &index) in &self.current {
            let session = &self.sessions[index];
            if let Some((number, on)) = session.owed.iter().next() {
                let message = self.messages.get(*number);
                panic!("{}", self.explain(index, &format!("client {client} never got {message:?} ({on:?})")));
            }
            if let Some(topic) = session.owed_topics.iter().next() {
                panic!(
                    "{}",
                    self.explain(index, &format!("client {client} never got what is retained for {topic}"))
                );
            }
        }
        for &index in self.current.values() {
            for (topic, owed) in &self.sessions[index].owed_last {
                if let Some(number) = owed.first() {
                    let message = self.messages.get(*number);
                    panic!("{}", self.explain(index, &format!("never got the last of {topic}: {message:?}")));
                }
            }
        }
        for (filter, group) in &self.groups {
            if let Some(number) = group.owed.keys().next() {
                panic!("no member of {filter} ever got {:?}", self.messages.get(*number));
            }
        }
        self.retained.quiet = Some(self.step);
        if self.store_failed || self.was_short {
            self.messages.doubt_unanswered();
        }
        self.store_failed = false;
    }

    /// Somebody looked at all retained messages.
    pub fn audited(&mut self, now: u64, count: u64) {
        let asked = self.step;
        assert_eq!(
            count,
            self.audit.len() as u64,
            "{:?} are retained, and the broker says {count}",
            self.audit
        );
        for topic in self.retained.topics() {
            match self.audit.get(&topic) {
                Some(number) => {
                    let message = self.messages.get(*number);
                    let fine = self.retained.visible(message, asked, &self.messages, self.crashes);
                    assert!(fine, "{topic} has retained what was replaced: {message:?}");
                }
                None => {
                    let certain =
                        self.retained.certain(&topic, asked, &self.messages, self.crashes, usize::MAX);
                    assert!(!certain, "nothing is retained for {topic} at {now}");
                }
            }
        }
    }
}
