//! A message on its way to a client: is there a reason for it, is it the right one, in the right order, not too often.

use super::Oracle;
use super::message::Message;
use super::session::{Came, Sent, Subscription};
use crate::sim::wire::Publish;

impl Oracle {
    pub(super) fn publish_down(&mut self, conn: usize, publish: &Publish, now: u64) {
        let link = self.link(conn);
        let topic = link.check_down(publish);
        let index = link.session;
        self.sessions[index].owed_topics.remove(&topic);
        let Some(number) = super::super::actor::number_of(&publish.payload) else {
            return self.empty_down(conn, publish, &topic);
        };
        self.messages.get(number).check(&Publish { topic: topic.clone(), ..publish.clone() });
        self.expect_will(number, now);
        self.pay_last(index, &topic, number);
        if publish.qos > 0 && self.sent_again(conn, publish, number) {
            return;
        }
        let session = &mut self.sessions[index];
        *session.copies.entry((number, publish.qos == 2)).or_default() += 1;
        let twice = session.copies.get(&(number, true)).copied().unwrap_or(0);
        let copies = if publish.qos == 2 { twice } else { session.copies_of(number) };
        self.check_reason(index, publish, number);
        let most = self.copies_max(index, number, publish.qos, now);
        if copies > most {
            panic!(
                "{}",
                self.explain(index, &format!("message {number} is sent {copies} times, {most} at most"))
            );
        }
        self.check_groups(conn, publish, number, now);
        self.check_order(index, publish, number, now);
        self.check_expiry(index, publish, number, now);
        self.check_replay(index, publish, number);
    }

    /// A message without payload: it ends what was retained.
    fn empty_down(&mut self, conn: usize, publish: &Publish, topic: &str) {
        let index = self.link(conn).session;
        assert!(publish.payload.is_empty(), "a payload that nobody made");
        if publish.qos > 0 {
            self.sent_again(conn, publish, 0);
        }
        let deletes = self.messages.all().filter(|m| m.draft.size == 0 && m.draft.topic == *topic);
        let session = &self.sessions[index];
        let reason = deletes
            .filter_map(Message::first_step)
            .any(|first| session.subscriptions.iter().any(|s| s.means(topic) && s.possible_since(first)));
        assert!(reason, "{}", self.explain(index, &format!("an empty message to {topic} without reason")));
    }

    /// A will that is due by now, though nobody could say for certain.
    fn expect_will(&mut self, number: u32, now: u64) {
        let message = self.messages.get(number);
        if !message.is_will || !message.handed.is_empty() {
            return;
        }
        let pending = self.current.values().copied().find(|&index| {
            let will = self.sessions[index].will;
            will.is_some_and(|will| will.number == number && will.due.is_some_and(|(low, _)| low <= now))
        });
        let Some(index) = pending else { panic!("will {number} is not due at {now}: {message:?}") };
        let will = self.sessions[index].will.take();
        if let Some(will) = will {
            let low = will.due.map_or(now, |(low, _)| low);
            self.will_may_come(number, low);
            self.owe_will(number, low);
            self.wills += 1;
        }
    }

    /// Whether a message was sent before with this packet id; if so, it is looked at here.
    fn sent_again(&mut self, conn: usize, publish: &Publish, number: u32) -> bool {
        let link = self.link(conn);
        let (index, last_serial) = (link.session, link.last_serial);
        let session = &mut self.sessions[index];
        let id = publish.id;
        let known = session.sent.get(&id).copied();
        let again = known.filter(|sent| sent.number == number);
        if let Some(sent) = known {
            if again.is_none() {
                // [MQTT-2.2.1-4]
                assert!(sent.loose, "packet id {id} is that of message {}, which is not done", sent.number);
            } else if !sent.loose {
                assert!(!sent.released, "message {number} is sent again after its PUBREC");
                // [MQTT-3.3.1-1]
                assert!(publish.dup, "message {number} is sent again without DUP");
                assert_eq!(publish.qos, sent.qos, "message {number} is sent again with another QoS");
            }
        }
        if again.is_none() {
            // [MQTT-3.3.1-1]
            let first = session.connections == 1 && !session.crashed;
            assert!(!publish.dup || !first, "message {number} has DUP and was never sent");
        }
        let again =
            again.or(session.sent.values().copied().find(|s| s.loose && publish.dup && s.number == number));
        // After a crash it may be known by records that the oracle thinks done.
        let copied = session.crashed && publish.dup && session.copies_of(number) > 0;
        session.serial += 1;
        let serial = match again {
            Some(sent) if !sent.loose => sent.serial,
            _ => session.serial,
        };
        let sent = Sent { number, qos: publish.qos, serial, released: false, loose: false };
        session.sent.insert(id, sent);
        // [MQTT-4.6.0-1] and what was never sent after that.
        assert!(serial > last_serial, "message {number} is sent again out of order");
        self.link(conn).last_serial = serial;
        again.is_some() || copied
    }

    /// How often a session may get a message with a QoS, not counting what is sent again.
    pub(super) fn copies_max(&self, index: usize, number: u32, qos: u8, now: u64) -> u32 {
        let message = self.messages.get(number);
        let session = &self.sessions[index];
        let routed = message.routed();
        // What was sent and is not known to have been is sent anew.
        let runs = if qos < 2 { 1 + self.crashes - message.crashes } else { 1 };
        let means = |s: &&Subscription| s.means(&message.draft.topic);
        let own = session.subscriptions.iter().filter(means).any(|s| !s.is_shared());
        let shared = session.subscriptions.iter().filter(means).any(|s| s.is_shared());
        let gone = |(filter, group): (&String, &super::Group)| self.gone(group, filter, now);
        let ended: u32 = if shared { self.groups.iter().map(gone).sum() } else { 0 };
        let asked =
            session.subscriptions.iter().filter(means).filter(|s| !s.is_shared() && s.handling < 2).count();
        let replays = if message.draft.retain { asked as u32 } else { 0 };
        runs * (routed * u32::from(own) + replays + if shared { routed * (1 + ended) } else { 0 })
    }

    /// Whether some subscription explains a message, its QoS, its flag and its identifiers.
    fn check_reason(&self, index: usize, publish: &Publish, number: u32) {
        let message = self.messages.get(number);
        let session = &self.sessions[index];
        let topic = &message.draft.topic;
        let Some(first) = message.first_step() else {
            panic!("message {number} is delivered and was never published")
        };
        let own = session.client == message.publisher;
        let wrong = |what: &str| -> ! {
            panic!("{}", self.explain(index, &format!("message {number} ({message:?}) {what}: {publish:?}")))
        };
        let all = || session.subscriptions.iter().filter(|s| s.means(topic) && s.possible_since(first));
        let live: Vec<&Subscription> = all().filter(|s| !(own && s.no_local)).collect();
        // What was asked for comes by the subscription there is, if that was replaced meanwhile.
        let visible = |s: &&Subscription| {
            let asked = session.subscriptions.iter().filter(|a| a.filter == s.filter && a.handling < 2);
            !s.is_shared()
                && asked
                    .map(|a| a.from)
                    .any(|from| self.retained.visible(message, from, &self.messages, self.crashes))
        };
        let replays: Vec<&Subscription> =
            if message.draft.retain && publish.retain { all().filter(visible).collect() } else { Vec::new() };
        if live.is_empty() && replays.is_empty() {
            wrong("is explained by no subscription");
        }
        if publish.qos > message.draft.qos {
            wrong("has a higher QoS than it was published with");
        }
        let highest = live.iter().chain(&replays).map(|s| s.qos).max().unwrap_or(0);
        if publish.qos > highest {
            wrong("has a higher QoS than was granted");
        }
        // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
        let kept = live.iter().any(|s| s.as_published && !s.is_shared());
        if publish.retain && replays.is_empty() && !(message.draft.retain && kept) {
            wrong("has RETAIN");
        }
        if !publish.retain && message.draft.retain && live.iter().all(|s| s.as_published && !s.is_shared()) {
            wrong("has not RETAIN");
        }
        let once = message.handed.len() == 1 && !message.is_will;
        let certain =
            || live.iter().filter(|s| once && !publish.retain && !s.is_shared() && s.certain_since(first));
        if live.iter().all(|s| !s.is_shared()) {
            // [MQTT-3.3.5-1]
            let least = certain().map(|s| s.qos).max().unwrap_or(0).min(message.draft.qos);
            if publish.qos < least {
                wrong("has a lower QoS than was granted");
            }
            // [MQTT-3.3.4-3]
            let v5 = self.links.values().any(|link| link.session == index && link.v5);
            if v5 && certain().any(|s| s.id > 0 && !publish.ids.contains(&s.id)) {
                wrong("lacks a subscription identifier");
            }
        }
        let known = |id: &u32| live.iter().chain(&replays).any(|s| s.id == *id);
        if !publish.ids.iter().all(known) {
            wrong("has an identifier of no subscription");
        }
        let v5 = self.links.values().any(|link| link.session == index && link.v5);
        let told = publish.user.as_ref().is_none_or(|user| *user == number.to_string());
        if v5 && !told {
            wrong("has another user property");
        }
    }

    /// A message of a shared subscription goes to one member.
    fn check_groups(&mut self, conn: usize, publish: &Publish, number: u32, now: u64) {
        let (index, ended) = (self.link(conn).session, self.link(conn).ended);
        let message = self.messages.get(number);
        let routed = message.routed();
        let forgotten =
            if publish.qos < 2 || message.draft.qos < 2 { self.crashes - message.crashes } else { 0 };
        let extra = routed * forgotten;
        let topic = &message.draft.topic;
        let mut filters: Vec<String> = self.sessions[index]
            .subscriptions
            .iter()
            .filter(|s| s.is_shared() && s.means(topic))
            .map(|s| s.filter.clone())
            .collect();
        filters.sort_unstable();
        filters.dedup();
        for filter in filters {
            let gone = self.groups.get(&filter).map_or(0, |group| self.gone(group, &filter, now));
            let Some(group) = self.groups.get_mut(&filter) else { continue };
            *group.copies.entry((number, publish.qos == 2)).or_default() += 1;
            let twice = group.copies.get(&(number, true)).copied().unwrap_or(0);
            let copies = if publish.qos == 2 { twice } else { group.copies_of(number) };
            // A member that ends may leave all that it has of a message, each time it was published, to others.
            let most = routed * (1 + gone) + extra;
            assert!(copies <= most, "message {number} goes to {copies} members of {filter}, {most} at most");
            if ended && publish.qos == 2 {
                // It left before the end that was seen first [MQTT-4.8.2-5].
                group.owed.remove(&number);
            }
        }
    }

    /// Messages of one publisher to one topic with one QoS come in their order [MQTT-4.6.0-5] [MQTT-4.6.0-6].
    fn check_order(&mut self, index: usize, publish: &Publish, number: u32, now: u64) {
        let message = self.messages.get(number);
        let session = &self.sessions[index];
        if message.is_will || publish.retain || session.subscriptions.iter().any(|s| s.is_shared()) {
            return;
        }
        let topic = message.draft.topic.clone();
        let key = (message.publisher, topic, message.draft.qos, publish.qos.min(1));
        let last = session.last.get(&key).copied().unwrap_or_default();
        let first_copy = session.copies_of(number) == 1;
        // It had its packet id and expired before it could leave; that it did is lost with the broker.
        let revived = publish.dup && message.expires() && session.crashed;
        let revived = revived || self.is_revived(message, last);
        if number < last.number && first_copy && message.transmissions == 1 && !revived {
            let later = self.messages.get(last.number);
            let what = format!("{message:?} comes after {later:?}");
            panic!("{}", self.explain(index, &what));
        }
        let session = &mut self.sessions[index];
        if number > last.number {
            session.last.insert(key, Came { number, at: now, step: self.step });
        }
    }

    /// Whether a message had expired when a later one came, and may be back: that it was dropped is lost with the broker, as
    /// that the later one was sent, and the wall clock, which says after a crash what is left of it, was set back.
    fn is_revived(&self, message: &Message, later: Came) -> bool {
        let (Some(first), Some(end)) = (message.handed.first(), message.ends_at()) else { return false };
        let jumps = || self.jumps.iter().filter(|(at, _)| *at >= first.at);
        let set_back = jumps().any(|(_, jump)| *jump < 0);
        // One that was set forward ended it earlier.
        let forward = jumps().filter(|(at, jump)| *at <= later.at && *jump > 0);
        let forward: u64 = forward.map(|(_, jump)| jump.unsigned_abs()).sum();
        let lost =
            self.crash_times.iter().any(|(crash, durable)| *crash >= later.at && *durable <= later.step);
        set_back && lost && end <= later.at + forward
    }

    /// What is retained is not older than what its publisher's client has seen live.
    fn check_replay(&mut self, index: usize, publish: &Publish, number: u32) {
        let message = self.messages.get(number);
        let session = &self.sessions[index];
        let as_published =
            session.subscriptions.iter().any(|s| s.as_published && s.means(&message.draft.topic));
        let sure = message.transmissions == 1 && !message.is_will && message.crashes == self.crashes;
        if !message.draft.retain
            || as_published
            || !sure
            || session.subscriptions.iter().any(|s| s.is_shared())
        {
            return;
        }
        let key = (message.publisher, message.draft.topic.clone(), publish.qos == 0);
        let first = |number| self.messages.get(number).first_step();
        let last = session.live.get(&key).copied().unwrap_or(number);
        if publish.retain && first(last) > first(number) {
            let later = self.messages.get(last);
            panic!("{}", self.explain(index, &format!("{message:?} is retained after {later:?} came live")));
        }
        if !publish.retain {
            let last = if first(last) > first(number) { last } else { number };
            self.sessions[index].live.insert(key, last);
        }
    }

    /// A message is not sent after its end, and says how long it has left [MQTT-3.3.2-5] [MQTT-3.3.2-6].
    fn check_expiry(&self, index: usize, publish: &Publish, number: u32, now: u64) {
        let message = self.messages.get(number);
        let (forward, back) = self.jumped();
        let Some(end) = message.ends_at() else { return };
        // What was begun to be sent before a crash is sent again.
        if message.is_will || publish.dup {
            return;
        }
        let slack = if self.crashes > 0 || self.sessions[index].crashed { back } else { 0 };
        // What is left in the store alone is read by the wall clock.
        let slack = slack.max(back);
        assert!(now <= end + slack, "message {number} ended at {end} and is sent at {now}");
        let v5 = self.links.values().any(|link| link.session == index && link.v5);
        if !v5 {
            return;
        }
        let Some(left) = publish.expiry else { panic!("message {number} has lost its expiry") };
        let exact = end.saturating_sub(now).div_ceil(1_000_000);
        let known = message.handed.len() == 1 && forward == 0 && back == 0;
        let fine = if known {
            u64::from(left) == exact
        } else {
            u64::from(left) <= exact + back.div_ceil(1_000_000)
        };
        assert!(fine, "message {number} has {exact} s left and says {left}");
    }
}
