//! What must hold for any record: the body of a fuzz target.

use super::record::{self, Clock, Record};
use crate::time::Instant;
use alloc::vec::Vec;

const CLOCK: Clock = Clock { now: Instant::from_secs(1000), wall_us: 1 << 50 };

/// Takes `data` as the length of a key, the key and the value of a record. Panics when reading does, or when what was read
/// is not what is read again after it was written.
pub fn check_record(data: &[u8]) {
    let Some((&key_len, rest)) = data.split_first() else { return };
    let (key, value) = rest.split_at(usize::from(key_len).min(rest.len()));
    let Ok(found) = record::read(key, value, CLOCK) else { return };
    let (key_again, value_again) = write(&found);
    assert_eq!(key_again, key, "a record has one key");
    assert_eq!(record::read(&key_again, &value_again, CLOCK), Ok(found), "the record survives");
}

fn write(found: &Record) -> (Vec<u8>, Vec<u8>) {
    let mut value = Vec::new();
    let key = match found {
        Record::Body(id, message) => {
            record::put_body(message, CLOCK, &mut value);
            record::body_key(*id).into()
        }
        Record::Retained { slot, topic, body } => {
            record::put_retained(*body, &mut value);
            record::retained_key(*slot, topic)
        }
        Record::Forward(link, number, body, share) => {
            record::put_forward(*body, share.as_deref(), &mut value);
            record::forward_key(*link, *number).into()
        }
        Record::Mark(link, number) => {
            record::put_mark(*number, &mut value);
            record::mark_key(*link).into()
        }
        Record::Session(id, state) => {
            record::put_state(state, CLOCK, &mut value);
            record::state_key(*id)
        }
        Record::Subscription(id, filter, subscription) => {
            record::put_subscription(subscription, &mut value);
            record::subscription_key(*id, filter)
        }
        Record::Received(id, packet_id) => record::received_key(*id, *packet_id),
        Record::InFlight(id, seq, packet_id) => {
            record::put_in_flight(*packet_id, &mut value);
            record::in_flight_key(*id, *seq)
        }
        Record::Queued(id, seq, queued) => {
            record::put_queued(queued, &mut value);
            record::queued_key(*id, *seq)
        }
    };
    (key, value)
}
