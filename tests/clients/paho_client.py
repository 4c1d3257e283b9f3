# The cases that paho-mqtt drives the broker with.
# python paho_client.py PORT VERSION CASE; VERSION is 4 (MQTT 3.1.1) or 5.
# Prints "ok CASE" or "FAIL CASE: why". With the argument --list it prints the names of all cases.
import hashlib
import os
import socket
import sys
import threading
import traceback

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PATIENCE_S = 15
port = version = None
changed = threading.Condition()
both = {}
only5 = {}


def case(where):
    def enter(function):
        where[function.__name__] = function
        return function

    return enter


class Client:
    """A connected client with a queue of what it received."""

    def __init__(self, client_id, clean=True, session_expiry_s=None, will=None, keep_alive_s=60, **connect_properties):
        self.received = []
        self.messages = []
        self.acks = {}
        self.pongs = 0
        self.connack = None
        self.down = None
        five = version == 5
        self.mqtt = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=None if five else clean,
            protocol=paho.MQTTv5 if five else paho.MQTTv311,
            reconnect_on_failure=False,
        )
        self.mqtt.max_inflight_messages_set(20)
        self.mqtt.on_connect = lambda _c, _u, flags, reason, props: self._set("connack", (flags, reason, props))
        self.mqtt.on_disconnect = lambda _c, _u, flags, reason, _p: self._set("down", (flags, reason))
        self.mqtt.on_message = self._on_message
        self.mqtt.on_publish = lambda _c, _u, mid, reason, _p: self._ack(mid, reason)
        self.mqtt.on_subscribe = lambda _c, _u, mid, reasons, _p: self._ack(mid, reasons)
        self.mqtt.on_unsubscribe = lambda _c, _u, mid, reasons, _p: self._ack(mid, reasons)
        self.mqtt.on_log = self._on_log
        if will:
            self.mqtt.will_set(**will)
        more = {}
        if five:
            more["clean_start"] = clean
            more["properties"] = Properties(PacketTypes.CONNECT)
            if session_expiry_s is not None:
                more["properties"].SessionExpiryInterval = session_expiry_s
            for name, value in connect_properties.items():
                setattr(more["properties"], name, value)
        self.mqtt.connect("127.0.0.1", port, keepalive=keep_alive_s, **more)
        self.mqtt.loop_start()
        wait(lambda: self.connack or self.down, "a CONNACK")
        assert self.connack and not self.connack[1].is_failure, (self.connack, self.down)

    @property
    def session_present(self):
        return self.connack[0].session_present

    def subscribe(self, filter, qos, properties=None, **options):
        if version == 5:
            result, mid = self.mqtt.subscribe(filter, options=SubscribeOptions(qos=qos, **options), properties=properties)
        else:
            result, mid = self.mqtt.subscribe(filter, qos)
        assert result == paho.MQTT_ERR_SUCCESS, result
        return self._acked(mid)[0].value

    def unsubscribe(self, filter):
        return self._acked(self.mqtt.unsubscribe(filter)[1])

    def publish_later(self, topic, payload, qos, retain=False, **properties):
        more = {}
        if properties:
            more["properties"] = Properties(PacketTypes.PUBLISH)
            for name, value in properties.items():
                setattr(more["properties"], name, value)
        info = self.mqtt.publish(topic, payload, qos, retain, **more)
        assert info.rc == paho.MQTT_ERR_SUCCESS, info
        return info.mid

    def publish(self, *message, **more):
        """Publishes and waits until the message is sent (QoS 0) or acknowledged."""
        return self._acked(self.publish_later(*message, **more))

    def take(self, count):
        wait(lambda: len(self.messages) >= count, f"{count} messages")
        with changed:
            taken, self.messages = self.messages[:count], self.messages[count:]
        return taken

    def next(self):
        return self.take(1)[0]

    def disconnect(self):
        self.mqtt.disconnect()
        wait(lambda: self.down, "the end")
        self.mqtt.loop_stop()

    def cut(self):
        self.mqtt.socket().shutdown(socket.SHUT_RDWR)
        wait(lambda: self.down, "the end")

    def _acked(self, mid):
        wait(lambda: mid in self.acks, f"the answer to {mid}")
        return self.acks.pop(mid)

    def _ack(self, mid, reasons):
        with changed:
            self.acks[mid] = reasons
            changed.notify_all()

    def _set(self, name, value):
        with changed:
            setattr(self, name, value)
            changed.notify_all()

    def _on_message(self, _client, _userdata, message):
        with changed:
            self.received.append(message)
            self.messages.append(message)
            changed.notify_all()

    def _on_log(self, _client, _userdata, _level, text):
        if text == "Received PINGRESP":
            self._set("pongs", self.pongs + 1)


def wait(holds, what):
    with changed:
        assert changed.wait_for(holds, PATIENCE_S), f"{what} did not come"


def text(message):
    return message.payload.decode()


def durable(client_id):
    return Client(client_id, clean=False, session_expiry_s=1000)


def round_trip(qos):
    subscriber = Client("subscriber")
    assert subscriber.subscribe("t/x", qos) == qos
    publisher = Client("publisher")
    for payload in ["", "one", "двa", "x" * 70000]:
        publisher.publish("t/x", payload, qos)
        m = subscriber.next()
        equal((m.topic, text(m), m.qos, m.retain, m.dup), ("t/x", payload, qos, False, False))


def equal(left, right):
    assert left == right, f"{left!r} is not {right!r}"


@case(both)
def qos_0():
    round_trip(0)


@case(both)
def qos_1():
    round_trip(1)


@case(both)
def qos_2():
    round_trip(2)


@case(both)
def qos_is_the_lower_of_both():
    publisher = Client("publisher")
    for granted in range(3):
        subscriber = Client(f"subscriber-{granted}")
        equal(subscriber.subscribe(f"q/{granted}", granted), granted)
        for sent in range(3):
            publisher.publish(f"q/{granted}", f"{sent}", sent)
            equal(subscriber.next().qos, min(granted, sent))


@case(both)
def retained_set_get_and_clear():
    publisher = Client("publisher")
    for qos in range(3):
        publisher.publish(f"r/{qos}", f"kept {qos}", qos, retain=True)
    seen = Client("before")
    seen.subscribe("r/+", 2)
    kept = sorted((m.qos, m.topic, text(m), m.retain) for m in seen.take(3))
    equal(kept, [(qos, f"r/{qos}", f"kept {qos}", True) for qos in range(3)])
    for qos in range(3):
        publisher.publish(f"r/{qos}", "", qos, retain=True)
        m = seen.next()
        equal((m.topic, text(m), m.retain), (f"r/{qos}", "", False))
    late = Client("after")
    late.subscribe("r/+", 2)
    for qos in range(3):
        publisher.publish(f"r/{qos}", "live", qos)
        m = late.next()
        equal((m.topic, text(m), m.retain), (f"r/{qos}", "live", False))


@case(both)
def will_when_killed():
    for qos in range(3):
        watcher = Client(f"watcher-{qos}")
        watcher.subscribe(f"will/{qos}", 2)
        victim = Client(f"victim-{qos}", will=dict(topic=f"will/{qos}", payload="gone", qos=qos, retain=True))
        victim.cut()
        m = watcher.next()
        equal((text(m), m.qos, m.retain), ("gone", qos, False))
        late = Client(f"late-{qos}")
        late.subscribe(f"will/{qos}", 2)
        m = late.next()
        equal((text(m), m.retain), ("gone", True))


@case(both)
def no_will_after_disconnect():
    watcher = Client("watcher")
    watcher.subscribe("will", 1)
    Client("device", will=dict(topic="will", payload="gone", qos=1)).disconnect()
    # The same client comes after its own will, if there was one.
    Client("device").publish("will", "back", 1)
    equal(text(watcher.next()), "back")


@case(both)
def wildcard_plus():
    subscriber = Client("subscriber")
    subscriber.subscribe("a/+/c", 1)
    subscriber.subscribe("+", 1)
    publisher = Client("publisher")
    for topic in ["a/b/c", "a/c", "a/b/b/c", "a//c", "/a/b/c", "a/b/d", "a", "/a", "end"]:
        publisher.publish(topic, topic, 1)
    wait(lambda: any(m.topic == "end" for m in subscriber.received), "the last message")
    equal(sorted(m.topic for m in subscriber.received), ["a", "a//c", "a/b/c", "end"])


@case(both)
def wildcard_hash():
    subscriber = Client("subscriber")
    subscriber.subscribe("a/#", 1)
    publisher = Client("publisher")
    for topic in ["a", "a/", "a/b", "a/b/c", "b", "ab", "/a", "a/end"]:
        publisher.publish(topic, topic, 1)
    wait(lambda: any(m.topic == "a/end" for m in subscriber.received), "the last message")
    equal(sorted(m.topic for m in subscriber.received), ["a", "a/", "a/b", "a/b/c", "a/end"])


@case(both)
def dollar_topics_are_hidden_from_wildcards():
    subscriber = Client("subscriber")
    subscriber.subscribe("#", 1)
    other = Client("other")
    other.subscribe("+/x", 1)
    publisher = Client("publisher")
    publisher.publish("$hidden/x", "hidden", 0)
    publisher.publish("end/x", "end", 1)
    for client in (subscriber, other):
        equal(client.next().topic, "end/x")


@case(both)
def session_resumes_with_queued_messages():
    first = durable("sleeper")
    assert not first.session_present
    first.subscribe("s/1", 1)
    first.subscribe("s/2", 2)
    first.disconnect()
    publisher = Client("publisher")
    for i in range(50):
        publisher.publish(f"s/{1 + i % 2}", f"{i}", 1 + i % 2)
    second = durable("sleeper")
    assert second.session_present
    # The order holds for each QoS: paho hands out QoS 2 only after PUBREL.
    messages = second.take(50)
    for qos in (1, 2):
        equal([int(text(m)) for m in messages if m.qos == qos], [i for i in range(50) if 1 + i % 2 == qos])
    publisher.publish("s/1", "live", 1)
    equal(text(second.next()), "live")


@case(both)
def clean_session_forgets():
    first = durable("sleeper")
    first.subscribe("s", 1)
    first.disconnect()
    publisher = Client("publisher")
    publisher.publish("s", "lost", 1)
    Client("sleeper", clean=True).disconnect()
    third = durable("sleeper")
    assert not third.session_present
    third.subscribe("end", 1)
    publisher.publish("s", "lost", 1)
    publisher.publish("end", "end", 1)
    equal(text(third.next()), "end")


@case(both)
def takeover_disconnects_the_first():
    first = durable("same")
    first.subscribe("t", 1)
    second = durable("same")
    assert second.session_present
    wait(lambda: first.down, "the end of the first")
    if version == 5:
        # paho 2.1 does not read the reason of a DISCONNECT without properties.
        assert first.down[0].is_disconnect_packet_from_server, first.down
    second.publish("t", "mine", 1)
    equal(text(second.next()), "mine")
    equal(first.received, [])


@case(both)
def payload_of_1_mib():
    payload = os.urandom(1 << 20)
    subscriber = Client("subscriber")
    subscriber.subscribe("big", 2)
    publisher = Client("publisher")
    for qos in range(3):
        publisher.publish("big", payload, qos)
        equal(hashlib.sha256(subscriber.next().payload).hexdigest(), hashlib.sha256(payload).hexdigest())


@case(both)
def shared_subscription():
    members = [Client(f"member-{name}") for name in "ab"]
    for member in members:
        member.subscribe("$share/group/work/+", 1)
    publisher = Client("publisher")
    for i in range(90):
        publisher.publish(f"work/{i % 7}", f"{i}", 1)
    wait(lambda: sum(len(m.received) for m in members) >= 90, "all messages")
    # What came twice would be on its way still: it comes before the answer to this.
    for member in members:
        member.unsubscribe("$share/group/work/+")
    equal(sorted(int(text(m)) for member in members for m in member.received), list(range(90)))
    assert all(member.received for member in members), "a member got nothing"


@case(both)
def unsubscribe_stops():
    subscriber = Client("subscriber")
    subscriber.subscribe("u", 1)
    subscriber.subscribe("end", 1)
    publisher = Client("publisher")
    publisher.publish("u", "before", 1)
    equal(text(subscriber.next()), "before")
    subscriber.unsubscribe("u")
    publisher.publish("u", "after", 1)
    publisher.publish("end", "end", 1)
    equal(text(subscriber.next()), "end")


@case(both)
def ten_thousand_in_order():
    subscriber = Client("subscriber")
    subscriber.subscribe("many", 1)
    publisher = Client("publisher")
    for sent in range(10000):
        publisher.publish_later("many", f"{sent}", 1)
        # A broker bounds its queues: never be further ahead than they hold.
        if sent % 500 == 499:
            wait(lambda: len(subscriber.received) > sent, "the messages so far")
    equal([int(text(m)) for m in subscriber.received], list(range(10000)))


@case(both)
def keep_alive_pings():
    client = Client("pinger", keep_alive_s=1)
    wait(lambda: client.pongs >= 2, "two answers to PINGREQ")
    client.subscribe("alive", 1)
    client.publish("alive", "yes", 1)
    equal(text(client.next()), "yes")


PASSED = ["PayloadFormatIndicator", "ContentType", "ResponseTopic", "CorrelationData", "UserProperty"]


@case(only5)
def properties_pass_through():
    subscriber = Client("subscriber")
    subscriber.subscribe("p", 2)
    publisher = Client("publisher")
    properties = dict(
        PayloadFormatIndicator=1,
        ContentType="text/plain; charset=utf-8",
        ResponseTopic="answer/to/this",
        CorrelationData=b"\x00\x01\xfe\xff",
        UserProperty=[("b", "1"), ("a", "first?"), ("b", "2"), ("ключ", "値"), ("b", "1")],
    )
    for qos in range(3):
        publisher.publish("p", "payload", qos, **properties)
        got = subscriber.next().properties
        equal({name: getattr(got, name) for name in PASSED}, properties)


@case(only5)
def will_properties():
    watcher = Client("watcher")
    watcher.subscribe("will", 1)
    properties = Properties(PacketTypes.WILLMESSAGE)
    properties.ContentType = "text/x-will"
    properties.ResponseTopic = "r"
    properties.CorrelationData = b"c"
    properties.UserProperty = [("k", "2"), ("k", "1")]
    victim = Client("victim", will=dict(topic="will", payload="gone", qos=1, properties=properties))
    victim.cut()
    got = watcher.next().properties
    for name in ["ContentType", "ResponseTopic", "CorrelationData", "UserProperty"]:
        equal(getattr(got, name), getattr(properties, name))


@case(only5)
def message_expiry_counts_down():
    publisher = Client("publisher")
    publisher.publish("e", "soon old", 1, retain=True, MessageExpiryInterval=100)
    subscriber = Client("subscriber")
    left = 100
    while left == 100:
        subscriber.subscribe("e", 1)
        left = subscriber.next().properties.MessageExpiryInterval
        assert 50 < left <= 100, left


@case(only5)
def subscription_identifier():
    subscriber = Client("subscriber")
    identifier = Properties(PacketTypes.SUBSCRIBE)
    identifier.SubscriptionIdentifier = 268435455
    subscriber.subscribe("i/#", 1, properties=identifier)
    publisher = Client("publisher")
    publisher.publish("i/x", "one", 1)
    equal(subscriber.next().properties.SubscriptionIdentifier, [268435455])
    identifier = Properties(PacketTypes.SUBSCRIBE)
    identifier.SubscriptionIdentifier = 7
    subscriber.subscribe("i/+", 1, properties=identifier)
    publisher.publish("i/x", "two", 1)
    # One copy with both, or one copy for each.
    ids = []
    while len(ids) < 2:
        ids += subscriber.next().properties.SubscriptionIdentifier
    equal(sorted(ids), [7, 268435455])


@case(only5)
def topic_alias_to_the_broker():
    subscriber = Client("subscriber")
    subscriber.subscribe("alias/#", 1)
    publisher = Client("publisher")
    assert publisher.connack[2].TopicAliasMaximum >= 2, "the broker takes no aliases"
    publisher.publish("alias/long/name", "1", 1, TopicAlias=1)
    publisher.publish("alias/other", "2", 1, TopicAlias=2)
    publisher.publish("", "3", 1, TopicAlias=1)
    publisher.publish("", "4", 1, TopicAlias=2)
    publisher.publish("alias/new", "5", 1, TopicAlias=1)
    publisher.publish("", "6", 1, TopicAlias=1)
    topics = ["alias/long/name", "alias/other", "alias/long/name", "alias/other", "alias/new", "alias/new"]
    messages = subscriber.take(6)
    equal([(text(m), m.topic) for m in messages], [(f"{i + 1}", topic) for i, topic in enumerate(topics)])
    assert not any(hasattr(m.properties, "TopicAlias") for m in messages)


@case(only5)
def no_local():
    client = Client("both")
    client.subscribe("n", 1, noLocal=True)
    client.subscribe("end", 1)
    client.publish("n", "own", 1)
    client.publish("end", "end", 1)
    equal(text(client.next()), "end")
    Client("other").publish("n", "theirs", 1)
    equal(text(client.next()), "theirs")


@case(only5)
def retain_as_published():
    subscriber = Client("subscriber")
    subscriber.subscribe("k/1", 1, retainAsPublished=True)
    subscriber.subscribe("k/0", 1, retainAsPublished=False)
    publisher = Client("publisher")
    for flag in (1, 0):
        publisher.publish(f"k/{flag}", "x", 1, retain=True)
        equal(subscriber.next().retain, flag == 1)


@case(only5)
def retain_handling():
    publisher = Client("publisher")
    publisher.publish("h", "kept", 1, retain=True)
    subscriber = Client("subscriber")

    def subscribe(handling, expected):
        subscriber.subscribe("h", 1, retainHandling=handling)
        publisher.publish("h", "live", 1)
        equal(sorted(text(m) for m in subscriber.take(len(expected))), expected)

    subscribe(SubscribeOptions.RETAIN_DO_NOT_SEND, ["live"])
    subscribe(SubscribeOptions.RETAIN_SEND_IF_NEW_SUB, ["live"])
    subscribe(SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE, ["kept", "live"])
    subscriber.unsubscribe("h")
    subscribe(SubscribeOptions.RETAIN_SEND_IF_NEW_SUB, ["kept", "live"])


@case(only5)
def assigned_client_id():
    ids = {Client("").connack[2].AssignedClientIdentifier for _ in range(3)}
    equal(len(ids), 3)
    assert all(ids)


@case(only5)
def session_expiry_0_ends_the_session():
    first = Client("sleeper", clean=False, session_expiry_s=0)
    first.subscribe("s", 1)
    first.disconnect()
    assert not durable("sleeper").session_present


@case(only5)
def puback_says_when_nobody_subscribes():
    publisher = Client("publisher")
    equal(publisher.publish("nobody", "x", 1).value, 0x10)
    publisher.subscribe("nobody", 1)
    equal(publisher.publish("nobody", "x", 1).value, 0)


@case(only5)
def unsuback_says_when_nothing_was_subscribed():
    client = Client("client")
    client.subscribe("x", 1)
    equal([reason.value for reason in client.unsubscribe(["x", "y"])], [0, 0x11])


def main():
    global port, version
    if sys.argv[1] == "--list":
        for kind, cases in (("both", both), ("v5", only5)):
            for name in cases:
                print(kind, name)
        return
    port, version, name = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    run = both.get(name) or (only5[name] if version == 5 else None)
    try:
        run()
    except BaseException:
        print(f"FAIL {name}: {traceback.format_exc()}", flush=True)
        os._exit(1)
    print(f"ok {name}", flush=True)
    os._exit(0)


main()
