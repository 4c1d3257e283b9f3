//! What the broker tells of itself, and what its document says of that.
#![allow(missing_docs)]

use hikyaku::config::{Endpoint, ListenerSettings};
use hikyaku::{Options, Server};
use hikyaku_client::{Client, QoS, Version};
use hikyaku_proto::broker::Config;
use hikyaku_proto::topic::TopicFilter;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The filters of the table in docs/configuration.md.
fn documented() -> Vec<String> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let text = fs::read_to_string(document).unwrap();
    let (_, chapter) = text.split_once("\n## What it tells of itself\n").unwrap();
    let (chapter, _) = chapter.split_once("\n## ").unwrap();
    let rows = chapter.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    rows.flat_map(|topics| topics.split('`').filter(|part| !part.is_empty() && !part.starts_with(", ")))
        .map(|topic| format!("$SYS/broker/{topic}"))
        .collect()
}

#[test]
fn documented_topics_are_those_published() {
    let endpoint = Endpoint::Tcp { addresses: vec![([127, 0, 0, 1], 0).into()] };
    let listeners = vec![ListenerSettings { endpoint, ..Default::default() }];
    let config = Config { sys_interval_s: 1, version: "hikyaku".into(), ..Config::default() };
    let server = Server::start(Options { listeners, config, ..Options::default() }).unwrap();
    let options = hikyaku_client::Options::new(Version::V5, "watcher");
    let client = Client::connect(server.local_addrs()[0], options).unwrap();
    let messages = client.subscribe("$SYS/#", QoS::AtMostOnce).unwrap();
    let mut published = BTreeSet::new();
    // What changes last of all comes once more.
    while !published.contains("$SYS/broker/load/connections/15min") {
        let message = messages.recv(Duration::from_secs(10)).unwrap().expect("there are reports");
        published.insert(message.topic().to_owned());
    }
    let documented = documented();
    let filters: Vec<_> = documented.iter().map(|filter| TopicFilter::parse(filter).unwrap()).collect();
    for topic in &published {
        let count = filters.iter().filter(|filter| filter.matches(topic)).count();
        assert_eq!(count, 1, "{topic} is not in docs/configuration.md, or is there twice");
    }
    for (filter, text) in filters.iter().zip(&documented) {
        assert!(
            published.iter().any(|topic| filter.matches(topic)),
            "{text} is not published: {published:?}"
        );
    }
}
