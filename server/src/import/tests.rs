//! Every cut and every flipped byte of real files; what only machines we do not have write.

use super::chunk::{Chunk, Chunks};
use super::translate::{Database, Terms};
use super::*;
use hikyaku_proto::broker::store::StoreOp;
use hikyaku_proto::message::Publisher;
use hikyaku_proto::time::Instant;
use std::convert::Infallible;

const FILES: [&[u8]; 5] = [
    include_bytes!("../../tests/data/mosquitto-1.4.db"),
    include_bytes!("../../tests/data/mosquitto-1.5.db"),
    include_bytes!("../../tests/data/mosquitto-1.6.db"),
    include_bytes!("../../tests/data/mosquitto-2.0.db"),
    include_bytes!("../../tests/data/mosquitto-2.1.db"),
];

/// When the files were made, about.
const MADE_S: u64 = 1_795_459_500;

fn clock(wall_s: u64) -> record::Clock {
    record::Clock { now: Instant::from_secs(1000), wall_us: wall_s * 1_000_000 }
}

/// What comes of a file at a time: the summary and the changes.
fn translate(bytes: &[u8], wall_s: u64, expiry_s_max: u32) -> Result<(Summary, Vec<StoreOp>), Damage> {
    let database = Database::read(bytes)?;
    let placement = Placement::new(7, 1);
    let terms = Terms {
        placement: &placement,
        run: 1,
        clock: clock(wall_s),
        ports: &[Some(1), Some(1883)],
        expiry_s_max,
        retained: true,
        separators_max: 200,
    };
    let mut ops = Vec::new();
    let summary = database.translate(&terms, |op| {
        ops.push(op);
        Ok::<_, Infallible>(())
    });
    Ok((summary.unwrap_or_default(), ops))
}

/// The changes are those that the summary says, and in an order in which they can be made.
fn assert_consistent(summary: &Summary, ops: &[StoreOp]) {
    let (mut sessions, mut subscriptions, mut waiting, mut sent, mut released) = (0, 0, 0, 0, 0);
    let (mut retained, mut session, mut last) = (0, None, 0);
    for op in ops {
        match op {
            StoreOp::Session { id, .. } => (sessions, session, last) = (sessions + 1, Some(*id), 0),
            StoreOp::Subscribe { id, .. } => {
                subscriptions += 1;
                assert_eq!(Some(*id), session);
            }
            StoreOp::Enqueue { id, delivery } => {
                waiting += 1;
                assert!(Some(*id) == session && delivery.seq == last + 1);
                last = delivery.seq;
            }
            StoreOp::Sent { id, seq, packet_id } => {
                sent += 1;
                assert!(Some(*id) == session && *seq == last && *packet_id > 0);
            }
            StoreOp::Released { id, seq, packet_id, .. } => {
                released += 1;
                assert!(Some(*id) == session && *seq == last + 1 && *packet_id > 0);
                last = *seq;
            }
            StoreOp::Retain { .. } => retained += 1,
            StoreOp::Received { .. } | StoreOp::Forward { .. } => {}
            op => panic!("{op:?}"),
        }
    }
    assert_eq!(
        (sessions, subscriptions, retained),
        (summary.sessions, summary.subscriptions, summary.retained)
    );
    assert_eq!(waiting + released, summary.queued + summary.in_flight);
    assert_eq!(sent + released, summary.in_flight);
}

#[test]
fn no_cut_and_no_flipped_byte_does_harm() {
    for bytes in FILES {
        // A file that was cut between two chunks cannot be known.
        let mut ends: Vec<_> = Chunks::new(bytes).unwrap().map(|c| c.unwrap().0).collect();
        ends.remove(0);
        ends.push(bytes.len());
        for cut in 0..=bytes.len() {
            match translate(&bytes[..cut], MADE_S, u32::MAX) {
                Ok((summary, ops)) => {
                    assert!(ends.contains(&cut), "cut at {cut}");
                    assert_consistent(&summary, &ops);
                }
                Err(damage) => assert!(!ends.contains(&cut) && damage.at <= cut, "cut at {cut}: {damage}"),
            }
        }
        let mut bytes = bytes.to_vec();
        for at in 0..bytes.len() {
            let mask = [0x01, 0x80, 0xff][at % 3];
            bytes[at] ^= mask;
            match translate(&bytes, MADE_S, u32::MAX) {
                Ok((summary, ops)) => assert_consistent(&summary, &ops),
                Err(damage) => assert!(damage.at <= bytes.len()),
            }
            bytes[at] ^= mask;
        }
    }
}

#[test]
fn damage_leaves_no_directory_and_a_whole_file_one_commit() {
    let dir = std::env::temp_dir().join(format!("hikyaku-import-unit-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    let mut settings = Settings::without_file(&[]);
    settings.persistence.enabled = true;
    settings.persistence.location = Some(dir.clone());
    let import = |bytes: &[u8]| {
        let db = MosquittoDb { path: "m.db".into(), bytes: bytes.into() };
        db.import_at(&settings, clock(MADE_S))
    };
    for cut in [0, 14, 22, 23, 30, 4000] {
        assert!(import(&FILES[4][..cut]).is_err());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }
    import(FILES[4]).unwrap();
    let files = fs::read_dir(dir.join("hikyaku.store")).unwrap().map(|e| e.unwrap().file_name());
    let mut files: Vec<_> = files.collect();
    files.sort();
    assert_eq!(files, ["attempts", "base.redb", "lock"]);
    assert!(matches!(import(FILES[4]), Err(ImportError::NotEmpty(_))));
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn expiry_counts_on() {
    let states = |wall_s, max| {
        let (_, ops) = translate(FILES[4], wall_s, max).unwrap();
        let states = ops.into_iter().filter_map(|op| match op {
            StoreOp::Session { state, .. } => {
                Some((String::from(state.client_id), state.expiry_s, state.expires_at))
            }
            _ => None,
        });
        states.collect::<Vec<_>>()
    };
    // It was to end one second after its client had gone.
    let brief = (MADE_S - 1000..MADE_S).filter(|s| states(*s, u32::MAX).iter().any(|s| s.0 == "brief")).max();
    let last = brief.unwrap();
    // A clock that is behind costs no more than what the session may last.
    let before = states(last - 9, u32::MAX);
    let brief = before.iter().find(|s| s.0 == "brief").unwrap();
    assert_eq!((brief.1, brief.2), (1, Instant::from_secs(1001)));
    assert!(before.iter().filter(|s| s.0 != "brief").all(|s| (s.1, s.2) == (u32::MAX, Instant::NEVER)));
    // What is configured is the most.
    let capped = states(MADE_S, 60);
    assert!(capped.len() == 5 && capped.iter().all(|s| (s.1, s.2) == (60, Instant::from_secs(1060))));
    // 1.4 says when clients have gone.
    let (summary, _) = translate(FILES[0], MADE_S + 100_000, 3600).unwrap();
    assert_eq!((summary.sessions, summary.skipped[&("session", "expired")]), (0, 4));
    assert_eq!(summary.received, 2, "what the clients had sent is others' business");
}

#[test]
fn names_that_mosquitto_made_up_bind_nobody() {
    let owners = |bytes| {
        let (summary, ops) = translate(bytes, MADE_S, u32::MAX).unwrap();
        let states = ops.into_iter().filter_map(|op| match op {
            StoreOp::Session { state, .. } => {
                Some((String::from(state.client_id), state.username.map(String::from).unwrap_or_default()))
            }
            _ => None,
        });
        (states.collect::<Vec<_>>(), summary.unsure_owners)
    };
    let pairs = [("meter", "ann"), ("watch", ""), ("pump", ""), ("worker", ""), ("five", "bob")];
    let pairs: Vec<_> = pairs.into_iter().map(|(id, user)| (id.to_owned(), user.to_owned())).collect();
    assert_eq!(owners(FILES[3]), (pairs.clone(), 1));
    assert_eq!(owners(FILES[4]), (pairs, 0));
}

#[test]
fn who_published_what_is_retained_is_taken_over() {
    for bytes in FILES {
        let (_, ops) = translate(bytes, MADE_S, u32::MAX).unwrap();
        for op in &ops {
            let StoreOp::Retain { message, .. } = op else { continue };
            let client_id = if message.topic() == "v5/all" { "post5" } else { "post" };
            let publisher = Publisher { listener: 0, client_id, username: None };
            assert_eq!(message.publisher(), Some(publisher), "{message:?}");
        }
    }
    // Of a user, by the second listener.
    let named = chunk(
        2,
        &[&1u64.to_be_bytes(), &[0; 8], &[0, 0, 0, 1, 7, 91, 0, 1, 0, 3, 0, 1, 0, 0], &[1, 1], b"cannax"],
    );
    let file = file(6, &[chunk(1, &[&[0; 8], &[0, 8], &[0; 6]]), named, chunk(4, &[&1u64.to_be_bytes()])]);
    let (_, ops) = translate(&file, MADE_S, u32::MAX).unwrap();
    let [StoreOp::Retain { message, .. }] = &ops[..] else { panic!("{ops:?}") };
    let publisher = Publisher { listener: 1, client_id: "c", username: Some("ann") };
    assert_eq!((message.publisher(), message.topic(), message.payload()), (Some(publisher), "a", &b"x"[..]));
}

/// A chunk of version 5 or 6.
fn chunk(kind: u32, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&kind.to_be_bytes()[..], &(body.len() as u32).to_be_bytes(), &body].concat()
}

/// A chunk of versions before.
fn old_chunk(kind: u16, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&kind.to_be_bytes()[..], &(body.len() as u32).to_be_bytes(), &body].concat()
}

fn file(version: u8, chunks: &[Vec<u8>]) -> Vec<u8> {
    [&b"\0\xb5\0mosquitto db\0\0\0\0\0\0\0"[..], &[version], &chunks.concat()].concat()
}

#[test]
fn version_2_knows_no_times() {
    let file = file(
        2,
        &[
            old_chunk(1, &[&[1, 8], &[0; 8]]),
            old_chunk(2, &[&[9; 8], b"\0\x01p", &[0, 1, 0, 0], b"\0\x01t", &[1, 1], &[0, 0, 0, 2], b"hi"]),
            old_chunk(6, &[b"\0\x01c", &[0, 5]]),
            old_chunk(3, &[b"\0\x01c", &[9; 8], &[0, 5], &[1, 0, 1, 11, 0]]),
            old_chunk(5, &[b"\0\x01c", b"\0\x01t", &[1]]),
            old_chunk(4, &[&[9; 8]]),
        ],
    );
    let (summary, ops) = translate(&file, MADE_S, u32::MAX).unwrap();
    assert_consistent(&summary, &ops);
    assert_eq!((summary.sessions, summary.queued, summary.retained), (1, 1, 1));
    assert!(summary.skipped.is_empty(), "{summary}");
}

#[test]
fn other_machines_write_other_structures() {
    let at = i64::try_from(MADE_S + 50).unwrap();
    for (time, padding) in [(at.to_le_bytes(), 0), (at.to_be_bytes(), 4), (at.to_be_bytes(), 0)] {
        let (interval, rest) = (100u32.to_be_bytes(), [0, 0, 0, 1, 0x07, 0x5b, 0, 2]);
        let file = file(
            6,
            &[
                chunk(1, &[&[0; 8], &[0, 8], &[0; 2]]),
                chunk(6, &[&time, &interval, &rest, &[0; 4][..padding], b"c", b"me"]),
            ],
        );
        let (summary, ops) = translate(&file, MADE_S, u32::MAX).unwrap();
        let [StoreOp::Session { state, .. }] = &ops[..] else { panic!("{ops:?}") };
        assert_eq!((state.expiry_s, state.expires_at), (100, Instant::from_secs(1050)));
        assert_eq!((&*state.client_id, state.username.as_deref()), ("c", Some("me")));
        assert_eq!(state.listener, 1, "the one with port 1883");
        assert!(summary.to_string().contains("wrote this file while it ran"), "{summary}");
    }
}

#[test]
fn a_promised_length_takes_no_memory() {
    let head = chunk(1, &[&[0; 8], &[1, 8], &[0; 6]]);
    let mut message = chunk(2, &[&[0; 16], &0x0fff_ffff_u32.to_be_bytes(), &[0; 10], &[1, 0]]);
    let error = |message: &[u8]| translate(&file(6, &[head.clone(), message.into()]), MADE_S, 0).unwrap_err();
    assert_eq!(error(&message).what, "something is cut off here");
    message[4..8].fill(0xff);
    assert_eq!(error(&message).what, "the file ends within this chunk");
    let twice = [&head[..], &head].concat();
    assert_eq!(error(&twice[head.len()..]).what, "there is another first chunk");
    let alone = file(6, std::slice::from_ref(&head));
    assert!(matches!(Chunks::new(&alone).unwrap().next(), Some(Ok((23, Chunk::Head(_))))));
}

/// A message of version 6.
fn message(id: u64, topic: &str, properties: &[u8]) -> Vec<u8> {
    let lengths = [0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, topic.len() as u8, 0, 0];
    chunk(2, &[&id.to_be_bytes(), &[0; 8], &lengths, &[1, 1], topic.as_bytes(), b"x", properties])
}

#[test]
fn what_is_left_out_is_told() {
    let deep = "/".repeat(201);
    let client =
        |id: &str| chunk(6, &[&[0; 8], &[0xff; 4], &[0, 0, 0, id.len() as u8], &[0; 8], id.as_bytes()]);
    let waits = |client: &str, id: u64, bits: [u8; 4]| {
        chunk(3, &[&id.to_be_bytes(), &[0, 3, 0, client.len() as u8], &bits, client.as_bytes()])
    };
    let subscribes = |client: &str, filter: &str| {
        let lengths = [0, client.len() as u8, 0, filter.len() as u8];
        chunk(5, &[&[0; 4], &lengths, &[1, 4, 0, 0], client.as_bytes(), filter.as_bytes()])
    };
    let file = file(
        6,
        &[
            chunk(1, &[&[0; 8], &[0, 8], &[0; 6]]),
            message(1, "a+", &[]),
            message(2, "a", b"\x07\x26\0\x01\x01\0\x01v"),
            message(3, &deep, &[]),
            message(4, "a", &[]),
            message(5, "a", &[]),
            client("local.x"),
            client("c\n"),
            waits("local.x", 1, [1, 11, 0, 1]),
            waits("local.x", 2, [1, 11, 0, 1]),
            waits("local.x", 3, [1, 11, 0, 1]),
            // Of two with one packet id one was not sent.
            waits("local.x", 4, [1, 3, 0, 1]),
            waits("local.x", 4, [1, 3, 0, 1]),
            waits("local.x", 4, [0, 11, 0, 1]),
            waits("local.x", 9, [2, 11, 0, 1]),
            waits("local.x", 4, [1, 7, 0, 0]),
            waits("c\n", 4, [1, 11, 0, 1]),
            waits("who", 4, [1, 11, 0, 1]),
            subscribes("local.x", "a/#/b"),
            subscribes("local.x", "$share/g/a"),
            subscribes("local.x", &deep),
            subscribes("who", "a"),
            chunk(4, &[&1u64.to_be_bytes()]),
            chunk(4, &[&4u64.to_be_bytes()]),
        ],
    );
    let (summary, ops) = translate(&file, MADE_S, u32::MAX).unwrap();
    assert_consistent(&summary, &ops);
    assert_eq!(
        summary.to_string(),
        "Imported:\n  1 session\n  1 subscription\n  1 queued message\n  1 message in flight\n  \
         0 received QoS 2 messages that mosquitto had not passed on\n  1 retained message\n\
         Not imported:\n  \
         1 message: QoS 0, of which hikyaku keeps none for clients that are away\n  \
         1 message: for nobody whose session mosquitto keeps\n  \
         1 message: not acknowledged to its sender, which sends it again\n  \
         1 message: not in the file (mosquitto leaves some of $SYS out)\n  \
         1 message: of a session that is not in the file\n  \
         1 message: of a session that is not taken\n  \
         1 message: properties not valid\n  \
         2 messages: topic name not valid\n  \
         1 retained message: topic name not valid\n  \
         1 session: client id not valid\n  \
         1 subscription: of a session that is not in the file\n  \
         2 subscriptions: topic filter not valid\n\
         Note: mosquitto wrote this file while it ran. What came later is not in it: end mosquitto first.\n\
         Note: 1 session may be of mosquitto's bridges (local.…): nobody fetches what waits there.\n"
    );
}
