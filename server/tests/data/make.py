#!/usr/bin/env python3
"""Makes a mosquitto.db with a mosquitto of any version: make.py MOSQUITTO OUT.db

What it does is in README.md. It needs nothing but Python.
"""

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

FOREVER = 0xFFFFFFFF


def text(s):
    b = s.encode() if isinstance(s, str) else s
    return struct.pack("!H", len(b)) + b


def varint(n):
    out = b""
    while True:
        n, low = divmod(n, 128)
        out += bytes([low | (0x80 if n else 0)])
        if not n:
            return out


class Client:
    def __init__(self, port, client_id, clean=False, user=None, v5=False, expiry=0):
        self.v5, self.buffer = v5, b""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        flags = (0x02 if clean else 0) | (0x80 if user else 0)
        properties = b""
        if v5:
            p = (b"\x11" + struct.pack("!I", expiry)) if expiry else b""
            properties = varint(len(p)) + p
        body = text("MQTT") + bytes([5 if v5 else 4, flags]) + struct.pack("!H", 600) + properties + text(client_id)
        self.send(0x10, body + (text(user) if user else b""))
        self.wait(0x20)

    def send(self, first, body):
        self.socket.sendall(bytes([first]) + varint(len(body)) + body)

    def packet(self):
        while True:
            if len(self.buffer) >= 2:
                n, shift, at = 0, 0, 1
                while at < len(self.buffer):
                    n |= (self.buffer[at] & 127) << shift
                    shift, at = shift + 7, at + 1
                    if not self.buffer[at - 1] & 128:
                        if len(self.buffer) >= at + n:
                            first, body = self.buffer[0], self.buffer[at:at + n]
                            self.buffer = self.buffer[at + n:]
                            return first, body
                        break
            more = self.socket.recv(65536)
            if not more:
                raise EOFError("the broker closed the connection")
            self.buffer += more

    def wait(self, kind):
        """The next packet of a kind; what else comes is left without an answer."""
        while True:
            first, body = self.packet()
            if first & 0xF0 == kind & 0xF0:
                return first, body

    def message(self):
        """Packet id and topic of the next PUBLISH with one."""
        first, body = self.wait(0x30)
        n = struct.unpack("!H", body[:2])[0]
        return struct.unpack("!H", body[2 + n:4 + n])[0], body[2:2 + n].decode()

    def subscribe(self, topic, options, identifier=None):
        properties = b""
        if self.v5:
            p = b"\x0b" + varint(identifier) if identifier else b""
            properties = varint(len(p)) + p
        self.send(0x82, struct.pack("!H", 1) + properties + text(topic) + bytes([options]))
        self.wait(0x90)

    def publish(self, topic, payload, qos, retain=False, packet_id=1, properties=b"", finish=True):
        body = text(topic) + (struct.pack("!H", packet_id) if qos else b"")
        if self.v5:
            body += varint(len(properties)) + properties
        self.send(0x30 | qos << 1 | int(retain), body + payload)
        if qos == 1:
            self.wait(0x40)
        if qos == 2:
            self.wait(0x50)
            if finish:
                self.send(0x62, struct.pack("!H", packet_id))
                self.wait(0x70)
        if qos == 0:
            self.send(0xC0, b"")
            self.wait(0xD0)

    def drop(self):
        self.socket.close()


def scenario(port, v5):
    post = Client(port, "post", clean=True)
    post.publish("home/kitchen", b"21.5", 1, retain=True)
    post.publish("home/hall", b"18", 0, retain=True)
    post.publish("home/hall", b"19", 2, retain=True)
    post.publish("home/attic", b"gone", 1, retain=True)
    post.publish("home/attic", b"", 1, retain=True)

    # Three in flight: of the first only PUBCOMP is missing, of the second PUBREC, of the third PUBACK.
    meter = Client(port, "meter", user="ann")
    meter.subscribe("alarm/#", 2)
    meter.subscribe("note/+", 1)
    post.publish("alarm/1", b"released", 2)
    post.publish("alarm/2", b"unreceived", 2)
    post.publish("note/3", b"unacknowledged", 1)
    ids = dict(reversed(meter.message()) for _ in range(3))
    meter.send(0x50, struct.pack("!H", ids["alarm/1"]))
    meter.wait(0x60)
    meter.drop()
    time.sleep(0.3)
    for n in range(4, 104):
        post.publish(f"alarm/{n}" if n % 2 else f"note/{n}", b"%d" % n, 2 if n % 2 else 1)

    # Two QoS 2 messages that mosquitto has received and nobody has got yet.
    watch = Client(port, "watch")
    watch.subscribe("tank/#", 2)
    watch.subscribe("zero", 0)
    watch.drop()
    pump = Client(port, "pump")
    pump.publish("tank/level", b"42", 2, packet_id=7, finish=False)
    pump.publish("tank/state", b"full", 2, retain=True, packet_id=8, finish=False)
    pump.drop()
    time.sleep(0.3)
    post.publish("zero", b"0", 0)

    shared = Client(port, "worker")
    shared.subscribe("$share/g/job/+", 1)
    shared.drop()
    time.sleep(0.3)
    post.publish("job/1", b"dig", 1)

    if v5:
        five = Client(port, "five", v5=True, user="bob", expiry=FOREVER)
        five.subscribe("v5/#", 2 | 4 | 8, identifier=300)
        five.drop()
        brief = Client(port, "brief", v5=True, expiry=1)
        brief.subscribe("v5/#", 1)
        brief.drop()
        time.sleep(0.3)
        post5 = Client(port, "post5", clean=True, v5=True)
        user = b"\x26" + text("key") + text("värde")
        properties = b"\x01\x01\x03" + text("text/plain") + b"\x08" + text("answer/here") + b"\x09" + text(b"\0\xff") + user
        post5.publish("v5/all", b"everything", 1, retain=True, properties=properties)
        post5.publish("v5/long", b"for 136 years", 2, properties=b"\x02" + struct.pack("!I", FOREVER - 10))
        post5.publish("v5/brief", b"for a moment", 1, properties=b"\x02" + struct.pack("!I", 5))

    # Nothing is kept for this one, though mosquitto writes its message down.
    clean = Client(port, "clean", clean=True)
    clean.subscribe("clean", 1)
    post.publish("clean", b"nobody's", 1)
    clean.message()
    return [post, clean]


def main(mosquitto, out):
    version = subprocess.run([mosquitto, "-h"], capture_output=True, text=True).stdout.split()[2]
    major, minor = (int(n) for n in version.split(".")[:2])
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    directory = tempfile.mkdtemp()
    os.chmod(directory, 0o777)
    conf = os.path.join(directory, "m.conf")
    listener = f"listener {port} 127.0.0.1" if major >= 2 else f"port {port}\nbind_address 127.0.0.1"
    with open(conf, "w") as f:
        f.write(
            f"{listener}\nallow_anonymous true\npersistence true\npersistence_location {directory}/\n"
            "autosave_interval 0\nmax_inflight_messages 3\nmax_queued_messages 1000\nqueue_qos0_messages true\n"
        )
    broker = subprocess.Popen([mosquitto, "-c", conf])
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        clients = scenario(port, (major, minor) >= (1, 6))
        broker.send_signal(signal.SIGTERM)
        broker.wait(10)
        del clients
        shutil.copy(os.path.join(directory, "mosquitto.db"), out)
        print(f"{out}: mosquitto {version}, {os.path.getsize(out)} bytes")
    finally:
        broker.kill()
        shutil.rmtree(directory)


main(sys.argv[1], sys.argv[2])
