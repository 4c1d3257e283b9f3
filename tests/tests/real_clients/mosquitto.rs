//! `mosquitto_pub` and `mosquitto_sub` as Debian ships them.

use std::process::Command;
use std::{env, fs};

use hikyaku_tests::PATIENCE;
use hikyaku_tests::matrix::{Setup, V5};
use hikyaku_tests::process::{Broker, Process};

macro_rules! run {
    ($case:ident, $setup:expr) => {
        super::super::$case(super::super::Tools::start($setup))
    };
}

hikyaku_tests::matrix!(run {
    qos_0
    qos_1
    qos_2
    qos_is_the_lower_of_both
    retained_set_get_and_clear
    will_when_killed
    no_will_after_disconnect
    wildcard_plus
    wildcard_hash
    dollar_topics_are_hidden_from_wildcards
    session_resumes_with_queued_messages
    clean_session_forgets
    takeover_disconnects_the_first
    payload_of_1_mib
    shared_subscription
    unsubscribe_stops
    ten_thousand_in_order
    keep_alive_pings
} {
    properties_pass_through
    message_expiry_counts_down
    subscription_identifier
    topic_alias_to_the_broker
    retain_as_published
    session_expiry_0_ends_the_session
});

fn qos_0(tools: Tools) {
    round_trip(&tools, 0);
}

fn qos_1(tools: Tools) {
    round_trip(&tools, 1);
}

fn qos_2(tools: Tools) {
    round_trip(&tools, 2);
}

fn round_trip(tools: &Tools, qos: u8) {
    let subscriber = tools.subscribe(&format!("-t t/x -q {qos}"), 3);
    tools.publish(&format!("-t t/x -q {qos} -m one"));
    tools.publish(&format!("-t t/x -q {qos} -n"));
    tools.publish(&format!("-t t/x -q {qos} -m two"));
    assert_eq!(received(subscriber), ["one", "", "two"].map(|text| format!("t/x|{qos}|0|{text}")));
}

fn qos_is_the_lower_of_both(tools: Tools) {
    for granted in 0..3 {
        let subscriber = tools.subscribe(&format!("-t q -q {granted}"), 3);
        for sent in 0..3 {
            tools.publish(&format!("-t q -q {sent} -m {sent}"));
        }
        let expected = (0..3).map(|sent: u8| format!("q|{}|0|{sent}", sent.min(granted)));
        // The order holds for each QoS: QoS 2 is handed out only after PUBREL.
        let mut got = received(subscriber);
        got.sort_by_key(|line| line.bytes().last());
        assert_eq!(got, expected.collect::<Vec<_>>());
    }
}

fn retained_set_get_and_clear(tools: Tools) {
    for qos in 0..3 {
        tools.publish(&format!("-t r/{qos} -q {qos} -r -m kept"));
        assert_eq!(received(tools.subscribe("-t r/# -q 2", 1)), [format!("r/{qos}|{qos}|1|kept")]);
        tools.publish(&format!("-t r/{qos} -q {qos} -r -n"));
        let late = tools.subscribe("-t r/# -q 2", 1);
        tools.publish(&format!("-t r/{qos} -q {qos} -m live"));
        assert_eq!(received(late), [format!("r/{qos}|{qos}|0|live")]);
    }
}

fn will_when_killed(tools: Tools) {
    for qos in 0..3 {
        let watcher = tools.subscribe(&format!("-t will/{qos} -q 2"), 1);
        let will = format!("--will-topic will/{qos} --will-payload gone --will-qos {qos} --will-retain");
        tools.subscribe(&format!("-i victim -t other {will}"), 1).kill();
        assert_eq!(received(watcher), [format!("will/{qos}|{qos}|0|gone")]);
        let late = tools.subscribe(&format!("-t will/{qos} -q 2"), 1);
        assert_eq!(received(late), [format!("will/{qos}|{qos}|1|gone")]);
    }
}

fn no_will_after_disconnect(tools: Tools) {
    let watcher = tools.subscribe("-t will -q 1", 1);
    // -E disconnects after SUBACK.
    tools.run("mosquitto_sub", "-i device -t other -E --will-topic will --will-payload gone --will-qos 1");
    // The same client comes after its own will, if there was one.
    tools.publish("-i device -t will -q 1 -m back");
    assert_eq!(received(watcher), ["will|1|0|back"]);
}

fn wildcard_plus(tools: Tools) {
    let subscriber = tools.subscribe("-t a/+/c -t + -q 1", 4);
    for topic in ["a/b/c", "a/c", "a/b/b/c", "a//c", "/a/b/c", "a/b/d", "a", "/a", "end"] {
        tools.publish(&format!("-t {topic} -q 1 -m x"));
    }
    assert_eq!(received(subscriber), ["a/b/c|1|0|x", "a//c|1|0|x", "a|1|0|x", "end|1|0|x"]);
}

fn wildcard_hash(tools: Tools) {
    let subscriber = tools.subscribe("-t a/# -q 1", 5);
    for topic in ["a", "a/", "a/b", "a/b/c", "b", "ab", "/a", "a/end"] {
        tools.publish(&format!("-t {topic} -q 1 -m x"));
    }
    let topics = ["a", "a/", "a/b", "a/b/c", "a/end"];
    assert_eq!(received(subscriber), topics.map(|topic| format!("{topic}|1|0|x")));
}

fn dollar_topics_are_hidden_from_wildcards(tools: Tools) {
    let subscribers = ["#", "+/x"].map(|filter| tools.subscribe(&format!("-t {filter} -q 1"), 1));
    tools.publish("-t $hidden/x -m hidden");
    tools.publish("-t end/x -q 1 -m end");
    for subscriber in subscribers {
        assert_eq!(received(subscriber), ["end/x|1|0|end"]);
    }
}

fn session_resumes_with_queued_messages(tools: Tools) {
    for qos in [1, 2] {
        let subscribe = format!("-i sleeper-{qos} {} -t s/{qos} -q {qos}", tools.durable());
        tools.run("mosquitto_sub", &format!("{subscribe} -E"));
        let lines: Vec<_> = (0..20).map(|i| format!("{i}")).collect();
        tools.publish_lines(&format!("-t s/{qos} -q {qos}"), &lines);
        let expected: Vec<_> = lines.iter().map(|line| format!("s/{qos}|{qos}|0|{line}")).collect();
        // It may have them all, and end, before its SUBACK.
        assert_eq!(received(tools.spawn_subscriber(&subscribe, 20, PLAIN)), expected);
    }
}

fn clean_session_forgets(tools: Tools) {
    let durable = tools.durable();
    tools.run("mosquitto_sub", &format!("-i sleeper {durable} -t s -q 1 -E"));
    tools.publish("-t s -q 1 -m lost");
    tools.run("mosquitto_sub", "-i sleeper -t other -E");
    let third = tools.subscribe(&format!("-i sleeper {durable} -t end -q 1"), 1);
    tools.publish("-t s -q 1 -m lost");
    tools.publish("-t end -q 1 -m end");
    assert_eq!(received(third), ["end|1|0|end"]);
}

fn takeover_disconnects_the_first(tools: Tools) {
    let first = tools.subscribe("-i same -t t -q 1", 1);
    tools.publish("-i same -t other -q 1 -m x");
    if tools.setup.version == V5 {
        first.wait_stdout("Received DISCONNECT (142)");
        return;
    }
    // Not told why, mosquitto_sub comes back by itself.
    let back = |text: &str| text.matches("Subscribed (mid").count() == 2;
    assert!(first.stdout.wait_until(PATIENCE, back), "the first was not disconnected");
    tools.publish("-t t -q 1 -m again");
    assert_eq!(received(first), ["t|1|0|again"]);
}

fn payload_of_1_mib(tools: Tools) {
    let mut state = 0x9e37_79b9_u32;
    let payload: Vec<u8> = (0..1 << 20)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        })
        .collect();
    let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
    let file = env::temp_dir().join(format!("hikyaku-test-{}-{}", std::process::id(), tools.broker.port));
    fs::write(&file, payload).unwrap();
    for qos in 0..3 {
        // %x is the payload in hexadecimal.
        let subscriber = tools.subscribe_format(&format!("-t big -q {qos}"), 1, "%q|%x");
        tools.publish(&format!("-t big -q {qos} -f {}", file.display()));
        assert!(received(subscriber) == [format!("{qos}|{hex}")], "the payload is not what was sent");
    }
    fs::remove_file(&file).unwrap();
}

fn shared_subscription(tools: Tools) {
    let members = [(); 3].map(|()| tools.subscribe("-t $share/group/work/+ -t end -q 1", u32::MAX >> 1));
    let lines: Vec<_> = (0..60).map(|i| format!("{i}")).collect();
    tools.publish_lines("-t work/x -q 1", &lines);
    tools.publish("-t end -q 1 -m end");
    let mut texts = Vec::new();
    for member in members {
        member.wait_stdout("MSG end|");
        let messages = messages(&member.stdout.text());
        assert!(messages.len() > 1, "a member got nothing");
        let works = messages.iter().filter_map(|line| line.strip_prefix("work/x|1|0|"));
        texts.extend(works.map(|text| text.parse::<u32>().unwrap()));
    }
    texts.sort_unstable();
    assert_eq!(texts, (0..60).collect::<Vec<_>>());
}

fn unsubscribe_stops(tools: Tools) {
    let durable = tools.durable();
    tools.run("mosquitto_sub", &format!("-i unsub {durable} -t u -q 1 -E"));
    let second = tools.subscribe(&format!("-i unsub {durable} -U u -t end -q 1"), 1);
    second.wait_stdout("received UNSUBACK");
    tools.publish("-t u -q 1 -m after");
    tools.publish("-t end -q 1 -m end");
    assert_eq!(received(second), ["end|1|0|end"]);
}

fn ten_thousand_in_order(tools: Tools) {
    let subscriber = tools.subscribe("-t many -q 1", 10_000);
    let lines: Vec<_> = (0..10_000).map(|i| format!("{i}")).collect();
    for batch in lines.chunks(500) {
        tools.publish_lines("-t many -q 1", batch);
        // A broker bounds its queues: never be further ahead than they hold.
        let last = format!("|{}\n", batch[batch.len() - 1]);
        subscriber.wait_stdout(&last);
    }
    assert_eq!(received(subscriber), lines.iter().map(|i| format!("many|1|0|{i}")).collect::<Vec<_>>());
}

fn keep_alive_pings(tools: Tools) {
    // 5 s is the least that mosquitto_sub takes.
    let client = tools.subscribe("-k 5 -t alive -q 1", 1);
    client.wait_stdout("received PINGRESP");
    tools.publish("-t alive -q 1 -m yes");
    assert_eq!(received(client), ["alive|1|0|yes"]);
}

fn properties_pass_through(tools: Tools) {
    let properties = "-D publish content-type text/plain -D publish response-topic answer/to \
        -D publish correlation-data c-1 -D publish payload-format-indicator 1 \
        -D publish user-property b 1 -D publish user-property a 2 -D publish user-property b 3";
    for qos in 0..3 {
        let subscriber = tools.subscribe_format(&format!("-t p -q {qos}"), 1, "%q|%p|%C|%R|%D|%F|%P");
        tools.publish(&format!("-t p -q {qos} -m x {properties}"));
        assert_eq!(received(subscriber), [format!("{qos}|x|text/plain|answer/to|c-1|1|b:1 a:2 b:3")]);
    }
}

fn message_expiry_counts_down(tools: Tools) {
    tools.publish("-t e -q 1 -r -m x -D publish message-expiry-interval 100");
    loop {
        let got = received(tools.subscribe_format("-t e -q 1", 1, "%E"));
        let left: u32 = got[0].parse().unwrap();
        assert!((50..=100).contains(&left), "{left}");
        if left < 100 {
            return;
        }
    }
}

fn subscription_identifier(tools: Tools) {
    let id = "-D subscribe subscription-identifier 268435455";
    let subscriber = tools.subscribe_format(&format!("-t i/# -q 1 {id}"), 1, "%t|%S");
    tools.publish("-t i/x -q 1 -m x");
    assert_eq!(received(subscriber), ["i/x|268435455"]);
}

fn topic_alias_to_the_broker(tools: Tools) {
    let subscriber = tools.subscribe("-t alias/# -q 1", 5);
    tools.publish("-t alias/long/name -q 1 -m x --repeat 5 -D publish topic-alias 2");
    assert_eq!(received(subscriber), ["alias/long/name|1|0|x"; 5]);
}

fn retain_as_published(tools: Tools) {
    let plain = tools.subscribe("-t k -q 1", 1);
    let published = tools.subscribe("-t k -q 1 --retain-as-published", 1);
    tools.publish("-t k -q 1 -r -m x");
    assert_eq!(received(plain), ["k|1|0|x"]);
    assert_eq!(received(published), ["k|1|1|x"]);
}

fn session_expiry_0_ends_the_session(tools: Tools) {
    tools.run("mosquitto_sub", "-i sleeper -c -x 0 -t s -q 1 -E");
    tools.publish("-t s -q 1 -m lost");
    let second = tools.subscribe(&format!("-i sleeper {} -t end -q 1", tools.durable()), 1);
    tools.publish("-t end -q 1 -m end");
    assert_eq!(received(second), ["end|1|0|end"]);
}

#[test]
fn mqtt_3_1() {
    for workers in [1, 2] {
        let tools = Tools::start(Setup { version: 3, workers });
        for qos in 0..3 {
            round_trip(&tools, qos);
        }
        retained_set_get_and_clear(Tools::start(tools.setup));
        session_resumes_with_queued_messages(Tools::start(tools.setup));
        will_when_killed(tools);
    }
}

#[test]
fn versions_talk_to_each_other() {
    for workers in [1, 2] {
        let tools = Tools::start(Setup { version: V5, workers });
        for from in ["mqttv31", "mqttv311", "mqttv5"] {
            let subscribers =
                ["mqttv31", "mqttv311", "mqttv5"].map(|to| tools.subscribe(&format!("-V {to} -t v -q 2"), 3));
            for qos in 0..3 {
                tools.publish(&format!("-V {from} -t v -q {qos} -m {qos}"));
            }
            for subscriber in subscribers {
                let mut got = received(subscriber);
                got.sort();
                assert_eq!(got, ["v|0|0|0", "v|1|0|1", "v|2|0|2"], "from {from}");
            }
        }
    }
}

/// A broker and the way to call the tools for it. Arguments are given as one text, split at white space.
struct Tools {
    broker: Broker,
    setup: Setup,
}

/// Topic, QoS, retain flag and payload.
const PLAIN: &str = "%t|%q|%r|%p";

impl Tools {
    fn start(setup: Setup) -> Self {
        Self { broker: Broker::start(setup.broker_args()), setup }
    }

    /// Starts a subscriber that ends after `count` messages, and waits for its SUBACK.
    fn subscribe(&self, args: &str, count: u32) -> Process {
        self.subscribe_format(args, count, PLAIN)
    }

    fn subscribe_format(&self, args: &str, count: u32, format: &str) -> Process {
        let subscriber = self.spawn_subscriber(args, count, format);
        subscriber.wait_stdout("Subscribed (mid");
        subscriber
    }

    fn spawn_subscriber(&self, args: &str, count: u32, format: &str) -> Process {
        // What -d says tells when it is subscribed; stdbuf brings it out line by line.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "mosquitto_sub"]);
        self.add_args(&mut command, args);
        command.args(["-d", "-C", &count.to_string(), "-F", &format!("MSG {format}")]);
        Process::spawn(&mut command)
    }

    /// Publishes, and waits for all acknowledgements.
    fn publish(&self, args: &str) {
        self.run("mosquitto_pub", args);
    }

    /// Publishes each line as a message.
    fn publish_lines(&self, args: &str, lines: &[String]) {
        let mut command = Command::new("mosquitto_pub");
        self.add_args(&mut command, args);
        let publisher = Process::spawn_with_input(command.arg("-l"), (lines.join("\n") + "\n").into_bytes());
        let end = publisher.wait();
        assert_eq!(end.code, 0, "{end:?}");
    }

    fn run(&self, program: &str, args: &str) {
        let mut command = Command::new(program);
        self.add_args(&mut command, args);
        let end = Process::spawn(&mut command).wait();
        assert_eq!(end.code, 0, "{program} {args}: {end:?}\n{}", self.broker.log());
    }

    fn add_args(&self, command: &mut Command, args: &str) {
        let version = ["mqttv31", "mqttv311", "mqttv5"][usize::from(self.setup.version) - 3];
        // A later -V counts.
        command.args(["-h", "127.0.0.1", "-p", &self.broker.port.to_string(), "-V", version]);
        command.args(args.split_whitespace());
    }

    /// The arguments of a client whose session stays.
    fn durable(&self) -> &'static str {
        if self.setup.version == V5 { "-c -x 1000" } else { "-c" }
    }
}

/// The messages of a subscriber that ends by itself.
fn received(subscriber: Process) -> Vec<String> {
    let end = subscriber.wait();
    assert_eq!(end.code, 0, "{end:?}");
    messages(&end.stdout)
}

fn messages(stdout: &str) -> Vec<String> {
    stdout.lines().filter_map(|line| line.strip_prefix("MSG ")).map(str::to_owned).collect()
}
