//! What must hold for any database of mosquitto: the body of a fuzz target.

use super::translate::{Database, Terms};
use hikyaku_proto::broker::Placement;
use hikyaku_proto::broker::store::{StoreOp, record};
use hikyaku_proto::time::Instant;
use hikyaku_proto::topic::{TopicFilter, TopicName};
use std::collections::BTreeSet;
use std::convert::Infallible;

/// Reads `data` as a database and translates it. Panics when that does, or when a store would get what no broker puts there.
pub fn check_import(data: &[u8]) {
    let Ok(database) = Database::read(data) else { return };
    let placement = Placement::new(7, 1);
    let terms = Terms {
        placement: &placement,
        run: 1,
        clock: record::Clock { now: Instant::from_secs(1), wall_us: 1_700_000_000_000_000 },
        ports: &[Some(1883)],
        expiry_s_max: u32::MAX,
        retained: true,
        separators_max: 200,
    };
    let mut sessions = BTreeSet::new();
    let mut places = BTreeSet::new();
    let mut ops = 0;
    let translated = database.translate(&terms, &mut |op| {
        ops += 1;
        match op {
            StoreOp::Session { id, state } => {
                assert!(!state.client_id.chars().any(char::is_control));
                sessions.insert(id);
            }
            StoreOp::Subscribe { id, filter, .. } => {
                assert!(sessions.contains(&id) && TopicFilter::parse(&filter).is_ok());
            }
            StoreOp::Enqueue { id, delivery } => {
                assert!(
                    sessions.contains(&id) && places.insert((id, delivery.seq)),
                    "two messages in one place"
                );
                assert!(TopicName::parse(delivery.message.topic()).is_ok());
            }
            StoreOp::Retain { message, .. } => {
                assert!(TopicName::parse(message.topic()).is_ok() && !message.payload().is_empty());
            }
            _ => {}
        }
        Ok::<(), Infallible>(())
    });
    let summary = translated.unwrap_or_else(|never| match never {});
    assert_eq!(summary.sessions, sessions.len() as u64);
    assert!(ops <= data.len(), "more than there is in the file");
}
