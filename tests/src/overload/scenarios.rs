//! The attacks.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::bystander::Plain;
use super::horde::{Horde, Member};
use super::packets::{
    DISCONNECT, PINGREQ, Session, connect, publish, publish_1, publish_retained, subscribe,
};
use super::{Attack, Plan};

type Told = (String, Vec<String>);

/// How long something may take that has to come.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many clients a horde brings in at a time, where that is not the attack.
const WAVE: usize = 500;

fn seconds(begin: Instant) -> String {
    format!("{:.2} s", begin.elapsed().as_secs_f64())
}

fn attack_time(plan: &Plan) -> Duration {
    Duration::from_millis((5_000 / plan.scale as u64).max(200))
}

/// A client of a blocking socket that subscribed to a filter.
fn subscriber(to: SocketAddr, id: &str, filter: &str, qos: u8) -> TcpStream {
    let mut stream = TcpStream::connect(to).expect("the broker accepts");
    let hello = [connect(id, Session::Clean, None), subscribe(1, [filter], qos)].concat();
    stream.write_all(&hello).expect("the broker reads");
    let mut answers = [0; 9];
    stream.read_exact(&mut answers).expect("CONNACK and SUBACK");
    stream
}

/// Publishes as fast as it can: how many.
fn blast(to: SocketAddr, topic: &str, payload: &[u8], time: Duration) -> u64 {
    let mut stream = TcpStream::connect(to).expect("the broker accepts");
    stream.write_all(&connect("blaster", Session::Clean, None)).expect("the broker reads");
    stream.read_exact(&mut [0; 4]).expect("CONNACK");
    let burst = publish(topic, payload).repeat(50);
    let (begin, mut count) = (Instant::now(), 0);
    stream.set_write_timeout(Some(PATIENCE)).expect("a time that is not 0");
    while begin.elapsed() < time && stream.write_all(&burst).is_ok() {
        count += 50;
    }
    // What was sent has been handled then.
    let _ = stream.write_all(&PINGREQ);
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let _ = stream.read_exact(&mut [0; 2]);
    count
}

pub(super) fn flood(plan: &Plan) -> Told {
    let mut attack = Attack::new(plan, "flood", "", None);
    let to = attack.target.address;
    let mut slow = subscriber(to, "slow", "flood", 0);
    let time = attack_time(plan);
    attack.begin();
    let reader = thread::spawn(move || {
        // About 1 MB a second.
        let (begin, mut read) = (Instant::now(), 0);
        let mut buffer = [0; 20_000];
        while begin.elapsed() < time {
            read += slow.read(&mut buffer).unwrap_or(0);
            thread::sleep(Duration::from_millis(20));
        }
        (slow, read)
    });
    let count = blast(to, "flood", &[7; 1000], time);
    let (slow, read) = reader.join().expect("no panic");
    attack.say(&format!("{count} messages of 1,000 bytes, about {} read", read / 1009));
    let dropped = attack.target.report().get("publish/messages/dropped").copied().unwrap_or(0);
    attack.check(dropped > 0, "nothing was counted as dropped");
    drop(slow);
    attack.end(64 << 10)
}

pub(super) fn queue(plan: &Plan) -> Told {
    let mut attack = Attack::new(plan, "queue", "", None);
    let to = attack.target.address;
    let mut horde = Horde::new(to);
    // It reads, and acknowledges nothing.
    let rude = horde.open(&[connect("rude", Session::Kept, None), subscribe(1, ["queue"], 1)].concat());
    horde.members[rude].rude = true;
    attack.check(horde.wait(PATIENCE, |members| members[rude].came[9] == 1), "no SUBACK");
    let publisher = horde.open(&connect("publisher", Session::Clean, None));
    attack.check(horde.wait(PATIENCE, |members| members[publisher].is_in()), "no CONNACK");
    let count = 100_000 / plan.scale as u32;
    attack.begin();
    let (begin, mut sent) = (Instant::now(), 0);
    while sent < count && begin.elapsed() < PATIENCE {
        let mut burst = Vec::new();
        for _ in 0..500.min(count - sent) {
            sent += 1;
            burst.extend(publish_1((sent % 60_000 + 1) as u16, "queue", &[7; 1000]));
        }
        horde.send(publisher, &burst);
        horde.wait(PATIENCE, |members| members[publisher].came[4] + 500 >= sent);
    }
    let all = horde.wait(PATIENCE, |members| members[publisher].came[4] == sent);
    attack.check(all, "not all was acknowledged");
    let got = horde.members[rude].publishes();
    attack.say(&format!("{sent} messages of 1,000 bytes in {}, {got} on the wire", seconds(begin)));
    let dropped = attack.target.report().get("publish/messages/dropped").copied().unwrap_or(0);
    attack.check(dropped + 1_100 >= u64::from(sent), "more waits than may");
    attack.end(64 << 10)
}

pub(super) fn stalled(plan: &Plan) -> Told {
    let mut attack = Attack::new(plan, "stalled", "", None);
    let to = attack.target.address;
    let _stalled: Vec<_> =
        (0..10).map(|i| subscriber(to, &format!("stalled-{i}"), "feed", i as u8 % 2)).collect();
    let mut healthy = Plain::connect(to, "healthy").expect("the broker lets in");
    healthy.subscribe("feed", 0).expect("SUBACK");
    let count = 5_000 / plan.scale;
    attack.begin();
    let reader = thread::spawn(move || {
        let got = (0..count).take_while(|_| healthy.packet().is_ok()).count();
        (healthy, got)
    });
    let mut publisher = Plain::connect(to, "publisher").expect("the broker lets in");
    let (begin, message) = (Instant::now(), publish("feed", &[7; 4000]));
    for sent in 0..count {
        publisher.send(&message).expect("the broker reads");
        // A thousand a second.
        let ahead = Duration::from_millis(sent as u64).saturating_sub(begin.elapsed());
        thread::sleep(ahead);
    }
    let (_healthy, got) = reader.join().expect("no panic");
    attack.check(got == count, &format!("{got} of {count} messages came to who reads"));
    attack.say(&format!("{count} messages of 4,000 bytes in {}, {got} of them to who reads", seconds(begin)));
    attack.end(128 << 10)
}

/// Brings clients in, a wave at a time, and has each answered so many packets of a type.
fn bring(horde: &mut Horde, count: usize, kind: usize, hello: impl Fn(usize) -> Vec<u8>) -> bool {
    let first = horde.members.len();
    while horde.members.len() < first + count {
        let from = horde.members.len();
        for at in from..(from + WAVE).min(first + count) {
            horde.open(&hello(at - first));
        }
        let answered = |member: &Member| member.came[kind] > 0 || member.closed;
        if !horde.wait(PATIENCE, |members| members[from..].iter().all(answered)) {
            return false;
        }
    }
    horde.members[first..].iter().all(|member| !member.closed)
}

pub(super) fn fanout(plan: &Plan) -> Told {
    let (online, offline) = (18_000 / plan.scale, 82_000 / plan.scale);
    let mut attack = Attack::new(plan, "fanout", "", None);
    let mut horde = Horde::new(attack.target.address);
    let hello = |id: String, session| [connect(&id, session, None), subscribe(1, ["fan/out"], 1)].concat();
    let mut there = 0;
    while there < offline {
        let wave = (10 * WAVE).min(offline - there);
        let mut passing = Horde::new(attack.target.address);
        let kept = |at: usize| {
            [hello(format!("offline-{}", there + at), Session::Kept), DISCONNECT.to_vec()].concat()
        };
        // The SUBACK may be overtaken by the end: who was let in has subscribed.
        bring(&mut passing, wave, 2, kept);
        passing.wait(PATIENCE, |members| members.iter().all(|member| member.closed));
        there += wave;
    }
    let all = bring(&mut horde, online, 9, |at| hello(format!("online-{at}"), Session::Clean));
    attack.check(all, "not all clients were let in");
    let resident = attack.target.resident();
    attack.say(&format!("{} MiB with {offline} sessions away and {online} here", resident >> 10));
    let mut publisher = Plain::connect(attack.target.address, "publisher").expect("the broker lets in");
    attack.begin();
    let mut total = 0;
    for (qos, count) in [(0, 3), (1, 3)] {
        let begin = Instant::now();
        for id in 1..=count {
            let bytes =
                if qos == 0 { publish("fan/out", &[7; 100]) } else { publish_1(id, "fan/out", &[7; 100]) };
            publisher.send(&bytes).expect("the broker reads");
        }
        total += u32::from(count);
        let all = horde.wait(PATIENCE, |members| members.iter().all(|m| m.closed || m.publishes() == total));
        attack.check(all, "not all messages came");
        attack.say(&format!("{count} messages of QoS {qos} in {}", seconds(begin)));
    }
    let here = horde.count(|member| !member.closed && member.publishes() == total);
    attack.check(here == online, &format!("{} connections were lost", online - here));
    attack.end(512 << 10)
}

pub(super) fn replay(plan: &Plan) -> Told {
    let count = 1_000_000 / plan.scale;
    let mut attack = Attack::new(plan, "replay", "", None);
    let to = attack.target.address;
    let mut publisher = Plain::connect(to, "publisher").expect("the broker lets in");
    let mut burst = Vec::new();
    for at in 0..count {
        burst.extend(publish_retained(&format!("replay/{}/{}", at / 1000, at % 1000), b"0123456789abcdef"));
        if burst.len() > 1 << 16 || at + 1 == count {
            publisher.send(&burst).expect("the broker reads");
            burst.clear();
        }
    }
    publisher.send(&PINGREQ).expect("the broker reads");
    attack.check(publisher.packet().is_ok(), "no PINGRESP");
    attack.say(&format!("{} MiB with {count} retained", attack.target.resident() >> 10));
    let mut horde = Horde::new(to);
    attack.begin();
    let begin = Instant::now();
    let reader =
        horde.open(&[connect("reader", Session::Clean, None), subscribe(1, ["replay/#"], 0)].concat());
    let all = horde
        .wait(PATIENCE, |members| members[reader].publishes() as usize >= count || members[reader].closed);
    let got = horde.members[reader].publishes();
    attack.check(all && got as usize == count, "not all retained messages came");
    attack.say(&format!("{got} came in {}", seconds(begin)));
    attack.end(768 << 10)
}

/// How long a client takes that comes now: to be let in.
fn newcomer(to: SocketAddr) -> Option<Duration> {
    let begin = Instant::now();
    Plain::connect(to, "newcomer").ok().map(|_| begin.elapsed())
}

pub(super) fn silent(plan: &Plan) -> Told {
    let count = 19_000 / plan.scale;
    let mut attack = Attack::new(plan, "silent", "", None);
    let to = attack.target.address;
    let mut horde = Horde::new(to);
    attack.begin();
    let begin = Instant::now();
    for _ in 0..count {
        horde.open(&[]);
    }
    let came = newcomer(to);
    attack.check(came.is_some(), "who sends a CONNECT does not get in");
    // Those who say nothing are closed, 10 s after they came at the latest.
    let all = horde.wait(Duration::from_secs(60), |members| members.iter().all(|member| member.closed));
    let left = horde.count(|member| !member.closed);
    attack.check(all, &format!("{left} that say nothing are still there after a minute"));
    let came = came.map_or("never".to_owned(), |time| format!("after {:.0} ms", time.as_secs_f64() * 1000.0));
    attack.say(&format!(
        "{count} connections, all but {left} closed after {}, a newcomer let in {came}",
        seconds(begin)
    ));
    attack.end(128 << 10)
}

pub(super) fn storm(plan: &Plan) -> Told {
    let count = 19_000 / plan.scale;
    let mut attack = Attack::new(plan, "storm", "", None);
    let mut horde = Horde::new(attack.target.address);
    attack.begin();
    let begin = Instant::now();
    for at in 0..count {
        horde.open(&connect(&format!("storm-{at}"), Session::Clean, None));
    }
    let all = horde.wait(PATIENCE, |members| members.iter().all(|member| member.is_in() || member.closed));
    let there = horde.count(Member::is_in);
    attack.check(all && there == count, &format!("{there} of {count} got in"));
    attack.say(&format!("{there} of {count} were let in after {}", seconds(begin)));
    attack.end(128 << 10)
}

pub(super) fn takeover(plan: &Plan) -> Told {
    let count = 1_000 / plan.scale.min(20);
    let mut attack = Attack::new(plan, "takeover", "", None);
    let to = attack.target.address;
    attack.begin();
    let mut horde = Horde::new(to);
    let begin = Instant::now();
    for at in 0..count {
        let member = horde.open(&connect("wanted", Session::Kept, None));
        let next = horde.wait(PATIENCE, |members| members[member].is_in());
        attack.check(next, &format!("connection {at} was not let in"));
    }
    attack.say(&format!("{count} in turn in {}", seconds(begin)));
    let begin = Instant::now();
    for _ in 0..count {
        horde.open(&connect("wanted", Session::Kept, None));
    }
    // The others may all be closed before the last one's CONNACK is there.
    let left = |members: &[Member]| members.iter().filter(|member| !member.closed).count();
    let one = horde.wait(PATIENCE, |members| left(members) == 1 && members.iter().any(Member::is_in));
    attack.check(one, &format!("{} connections are left", horde.count(|member| !member.closed)));
    attack.say(&format!("{count} at once in {}, {} left", seconds(begin), horde.count(Member::is_in)));
    attack.end(64 << 10)
}

/// A client that subscribes to so many filters, a hundred at a time.
fn subscribe_filters(client: usize, filters: usize) -> Vec<u8> {
    let mut bytes = connect(&format!("subscriber-{client}"), Session::Clean, None);
    for batch in 0..filters.div_ceil(100) {
        let names = (batch * 100..((batch + 1) * 100).min(filters)).map(|at| match at % 10 {
            0 => format!("site/{client}/+/{at}"),
            1 => format!("site/{client}/{at}/#"),
            _ => format!("site/{client}/device/{at}"),
        });
        bytes.extend(subscribe(batch as u16 + 1, names, 0));
    }
    bytes
}

pub(super) fn subscribe_storm(plan: &Plan) -> Told {
    let (clients, filters) = (1_000 / plan.scale.min(20), 1_000 / plan.scale.min(10));
    let mut attack = Attack::new(plan, "subscribe", "", None);
    let mut horde = Horde::new(attack.target.address);
    let resident = attack.target.resident();
    attack.begin();
    let begin = Instant::now();
    for client in 0..clients {
        horde.open(&subscribe_filters(client, filters));
    }
    let packets = filters.div_ceil(100) as u32;
    let all = horde.wait(PATIENCE, |members| members.iter().all(|m| m.came[9] == packets || m.closed));
    let there = horde.count(|member| member.came[9] == packets);
    attack.check(all && there == clients, &format!("{there} of {clients} have subscribed"));
    let each = (attack.target.resident() - resident) * 1024 / (clients * filters) as u64;
    attack.say(&format!("{} filters in {}, {each} bytes each", clients * filters, seconds(begin)));
    let begin = Instant::now();
    (0..clients).for_each(|client| horde.close(client));
    // All are gone when nobody gets anything: one more connection after them is let in, and served.
    let gone = newcomer(attack.target.address);
    attack.check(gone.is_some(), "nobody gets in after them");
    attack.say(&format!("gone, and a newcomer let in, after {}", seconds(begin)));
    attack.end(512 << 10)
}

pub(super) fn wills(plan: &Plan) -> Told {
    let count = 10_000 / plan.scale;
    let mut attack = Attack::new(plan, "wills", "", None);
    let to = attack.target.address;
    let mut watcher = Horde::new(to);
    watcher.open(&[connect("watcher", Session::Clean, None), subscribe(1, ["will/#"], 0)].concat());
    attack.check(watcher.wait(PATIENCE, |members| members[0].came[9] == 1), "no SUBACK");
    let mut horde = Horde::new(to);
    let hello = |at: usize| connect(&format!("mortal-{at}"), Session::Clean, Some(&format!("will/{at}")));
    attack.check(bring(&mut horde, count, 2, hello), "not all clients were let in");
    attack.begin();
    let begin = Instant::now();
    drop(horde);
    let all = watcher.wait(PATIENCE, |members| members[0].publishes() as usize >= count);
    let got = watcher.members[0].publishes();
    attack.check(all && got as usize == count, &format!("{got} of {count} wills came"));
    attack.say(&format!("{got} of {count} wills came within {}", seconds(begin)));
    attack.end(128 << 10)
}

pub(super) fn files(plan: &Plan) -> Told {
    let mut attack = Attack::new(plan, "files", "", Some(200));
    let to = attack.target.address;
    attack.begin();
    let mut horde = Horde::new(to);
    let begin = Instant::now();
    for at in 0..400 {
        horde.open(&connect(&format!("file-{at}"), Session::Clean, None));
    }
    let time = if plan.scale > 1 { 1 } else { 5 };
    horde.wait(Duration::from_secs(time), |_| false);
    let there = horde.count(Member::is_in);
    attack.check(there > 100, &format!("only {there} of 400 were let in with 200 files"));
    let cpu = attack.target.cpu();
    horde.wait(Duration::from_secs(time), |_| false);
    let busy = (attack.target.cpu() - cpu) / time as f64 * 100.0;
    attack.say(&format!("{there} of 400 let in with 200 files, {busy:.0} % CPU meanwhile"));
    (0..400)
        .filter(|index| horde.members[*index].is_in())
        .collect::<Vec<_>>()
        .into_iter()
        .for_each(|i| horde.close(i));
    // Those who waited in the queue of the system come in now.
    let after = horde.wait(PATIENCE, |members| members.iter().filter(|member| member.is_in()).count() > 100);
    let next = horde.count(Member::is_in);
    attack.check(after, &format!("only {next} of those who waited were let in when files were free"));
    attack.say(&format!("{next} more when these are gone"));
    (0..400).for_each(|index| horde.close(index));
    let freed = Instant::now();
    let mut came = None;
    while came.is_none() && freed.elapsed() < Duration::from_secs(30) {
        came = newcomer(to);
    }
    attack.check(came.is_some(), "nobody gets in when there are files again");
    attack.say(&format!("a newcomer {} after files were free ({} in all)", seconds(freed), seconds(begin)));
    attack.end(64 << 10)
}
