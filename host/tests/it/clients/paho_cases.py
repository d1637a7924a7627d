"""Run by paho.rs with a list of ways to come to a server as JSON, with paho-mqtt 1 or 2 in PYTHONPATH: goes through all cases by
each of them, at one time.

A way has its `name` (tcp, tls, ws, wss or unix), the protocol `version` (3, 4 or 5), and where the server is: `host` and `port`, or
the `path` of a Unix socket. Where there is TLS it has the file of the `authority` to trust, and those of the `certificate` and the
`private_key` to show, if there is one to be shown.

Prints a line for each case, `<name> <version> <case> ok` or `<name> <version> <case> FAILED`; what went wrong goes to stderr.
"""

import json
import queue
import re
import ssl
import sys
import threading
import traceback

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE = 60
API_2 = hasattr(mqtt, "CallbackAPIVersion")
EVENTS = ["connected", "subscribed", "unsubscribed", "message", "disconnected"]
# What the library calls them.
TRANSPORTS = {"tcp": "tcp", "tls": "tcp", "ws": "websockets", "wss": "websockets", "unix": "unix"}


def properties(packet, **values):
    made = Properties(packet)
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Way:
    """One of those to come by, which nobody else comes by: its clients and its topics have its name."""

    def __init__(self, given):
        self.given = given
        self.version = given["version"]
        self.v5 = self.version == mqtt.MQTTv5
        self.name = f"{given['name']} {self.version}"
        self.prefix = f"{given['name']}-{self.version}/"

    def connect(self, name, **options):
        return Client(self, name, **options)

    def topic(self, topic):
        """The whole name of a topic, unless that is left to an alias, or of a filter."""
        return topic and re.sub(r"^(\$share/group/)?", rf"\g<1>{self.prefix}", topic)

    def run(self):
        for name, case in CASES + (CASES_V5 if self.v5 else []) + (CASES_TLS if "authority" in self.given else []):
            try:
                case(self)
                done = "ok"
            except Exception:
                print(self.name, name, traceback.format_exc(), file=sys.stderr)
                done = "FAILED"
            print(f"{self.name} {name} {done}\n", end="", flush=True)


class Client:
    """One connection; the two APIs differ in what callbacks get."""

    def __init__(self, way, name, persistent=False, will=None, trusts=True):
        self.way = way
        client_id = f"paho-{way.prefix}{name}"
        self.persistent = persistent
        # One queue for each kind, so that messages keep their order whatever is waited for.
        self.events = {kind: queue.Queue() for kind in EVENTS}
        options = {"client_id": client_id, "protocol": way.version, "transport": TRANSPORTS[way.given["name"]]}
        if not way.v5:
            options["clean_session"] = not persistent
        if API_2:
            options["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION2
        self.mqtt = mqtt.Client(**options)
        if "authority" in way.given:
            shown = {"certfile": way.given.get("certificate"), "keyfile": way.given.get("private_key")}
            self.mqtt.tls_set(ca_certs=way.given["authority"] if trusts else None, **shown)
        self.mqtt.on_connect = lambda c, u, flags, code, *rest: self.put("connected", flags, code)
        if API_2:
            self.mqtt.on_subscribe = lambda c, u, mid, codes, p: self.put("subscribed", codes)
        else:
            self.mqtt.on_subscribe = lambda c, u, mid, codes, *rest: self.put("subscribed", codes)
        self.mqtt.on_unsubscribe = lambda *args: self.put("unsubscribed")
        self.mqtt.on_message = lambda c, u, message: self.put("message", message)
        self.mqtt.on_disconnect = lambda *args: self.put("disconnected")
        if will:
            topic, *rest = will
            self.mqtt.will_set(way.topic(topic), *rest)
        connect = {"keepalive": 60}
        if way.v5:
            connect["clean_start"] = not persistent
            expiry = 100 if persistent else 0
            connect["properties"] = properties(PacketTypes.CONNECT, SessionExpiryInterval=expiry)
        if "path" in way.given:
            connect["host"] = way.given["path"]
        else:
            connect.update(host=way.given["host"], port=way.given["port"])
        self.mqtt.connect(**connect)
        self.mqtt.loop_start()
        flags, code = self.wait("connected")
        assert code == 0, code
        self.session_present = flags.session_present if API_2 else bool(flags["session present"])

    def put(self, kind, *what):
        self.events[kind].put(what)

    def wait(self, kind):
        return self.events[kind].get(timeout=PATIENCE)

    def subscribe(self, topic, qos):
        self.mqtt.subscribe(self.way.topic(topic), qos)
        (codes,) = self.wait("subscribed")
        assert [getattr(code, "value", code) for code in codes] == [qos], codes

    def unsubscribe(self, topic):
        self.mqtt.unsubscribe(self.way.topic(topic))
        self.wait("unsubscribed")

    def publish(self, topic, payload, qos=0, retain=False, **options):
        info = self.mqtt.publish(self.way.topic(topic), payload, qos, retain, **options)
        if API_2:
            info.wait_for_publish(PATIENCE)
        else:
            info.wait_for_publish(timeout=PATIENCE)
        assert info.is_published()

    def message(self):
        (message,) = self.wait("message")
        return message

    def texts(self, count):
        return [self.message().payload.decode() for _ in range(count)]

    def disconnect(self):
        self.mqtt.disconnect()
        self.wait("disconnected")
        self.mqtt.loop_stop()

    def die(self):
        """Without DISCONNECT."""
        self.mqtt.loop_stop()
        self.mqtt.socket().close()


def qos(way, published):
    subscriber, publisher = way.connect("subscriber"), way.connect("publisher")
    for granted in range(3):
        subscriber.subscribe("paho/+", granted)
        for number in range(20):
            publisher.publish("paho/x", f"{granted} {number}", published)
        for number in range(20):
            message = subscriber.message()
            assert message.payload.decode() == f"{granted} {number}", message.payload
            assert message.qos == min(granted, published), message.qos
            assert not message.retain
    subscriber.unsubscribe("paho/+")
    subscriber.disconnect()
    publisher.disconnect()


def retain(way):
    publisher, subscriber = way.connect("publisher"), way.connect("subscriber")
    for number in range(3):
        publisher.publish("retain/x", f"{number}", number, retain=True)
        publisher.publish("retain/x", f"{number}!", 1, retain=True)
        subscriber.subscribe("retain/#", 2)
        message = subscriber.message()
        assert (message.retain, message.payload) == (True, f"{number}!".encode()), message.payload
        subscriber.unsubscribe("retain/#")
    publisher.publish("retain/x", "", 1, retain=True)
    subscriber.subscribe("retain/#", 2)
    publisher.publish("retain/y", "live", 1)
    assert subscriber.texts(1) == ["live"]
    publisher.disconnect()
    subscriber.disconnect()


def will(way):
    observer = way.connect("observer")
    observer.subscribe("will/+", 2)
    for number in range(3):
        way.connect("mortal", will=("will/x", f"gone {number}", number, False)).die()
        message = observer.message()
        assert (message.payload, message.qos) == (f"gone {number}".encode(), number), message.payload
    way.connect("mortal", will=("will/x", "not to be seen", 1, False)).disconnect()
    observer.publish("will/end", "end", 1)
    assert observer.texts(1) == ["end"]
    observer.disconnect()


def resume(way):
    keeper, publisher = way.connect("keeper", persistent=True), way.connect("publisher")
    assert not keeper.session_present
    keeper.subscribe("kept/+", 2)
    keeper.disconnect()
    expected = [f"{number}" for number in range(200)]
    for number in range(200):
        publisher.publish("kept/x", f"{number}", 1 + number % 2)
    keeper = way.connect("keeper", persistent=True)
    # MQTT 3.1 has no Session Present.
    assert keeper.session_present or way.version == mqtt.MQTTv31
    texts = keeper.texts(200)
    # Order is kept for each QoS.
    for parity in range(2):
        assert [text for text in texts if int(text) % 2 == parity] == expected[parity::2], texts
    keeper.disconnect()
    publisher.disconnect()
    way.connect("keeper").disconnect()


def shared(way):
    members = [way.connect("first"), way.connect("second")]
    for member in members:
        member.subscribe("$share/group/shared/+", 1)
        member.subscribe("end", 1)
    publisher = way.connect("publisher")
    for number in range(40):
        publisher.publish("shared/x", f"{number}", 1)
    publisher.publish("end", "end", 1)
    numbers = []
    for member in members:
        while (text := member.texts(1)[0]) != "end":
            numbers.append(int(text))
        member.disconnect()
    assert sorted(numbers) == list(range(40)), numbers
    publisher.disconnect()


def request_response(way):
    responder, requester = way.connect("responder"), way.connect("requester")
    responder.subscribe("request/+", 1)
    requester.subscribe("response/+", 1)
    for number in range(5):
        options = {}
        if way.v5:
            options["properties"] = properties(
                PacketTypes.PUBLISH, ResponseTopic="response/me", CorrelationData=bytes([0, number])
            )
        requester.publish("request/double", f"{number}", 1, **options)
        request = responder.message()
        answer, topic = str(2 * int(request.payload)), "response/me"
        options = {}
        if way.v5:
            topic = request.properties.ResponseTopic
            correlation = request.properties.CorrelationData
            options["properties"] = properties(PacketTypes.PUBLISH, CorrelationData=correlation)
        responder.publish(topic, answer, 1, **options)
        response = requester.message()
        assert response.payload.decode() == f"{2 * number}", response.payload
        assert not way.v5 or response.properties.CorrelationData == bytes([0, number])
    responder.disconnect()
    requester.disconnect()


def large(way):
    client = way.connect("large")
    client.subscribe("large", 2)
    payload = bytes(number % 251 for number in range(1 << 20))
    for number in range(3):
        client.publish("large", payload, number)
        assert client.message().payload == payload
    client.disconnect()


def user_properties(way):
    client = way.connect("properties")
    client.subscribe("properties", 2)
    sent = properties(
        PacketTypes.PUBLISH,
        UserProperty=[("b", "1"), ("a", "2"), ("b", "1"), ("", "")],
        ContentType="text/plain",
        PayloadFormatIndicator=1,
        MessageExpiryInterval=1000,
    )
    for number in range(3):
        client.publish("properties", "x", number, properties=sent)
        got = client.message().properties
        assert got.UserProperty == sent.UserProperty, got
        assert (got.ContentType, got.PayloadFormatIndicator) == ("text/plain", 1), got
        assert 900 < got.MessageExpiryInterval <= 1000, got
    client.disconnect()


def topic_alias(way):
    publisher, subscriber = way.connect("publisher"), way.connect("subscriber")
    subscriber.subscribe("alias/#", 1)
    for topic in ["alias/one", "", "alias/two", ""]:
        alias = properties(PacketTypes.PUBLISH, TopicAlias=1)
        publisher.publish(topic, "x", 1, properties=alias)
    topics = [subscriber.message().topic for _ in range(4)]
    assert topics == [way.topic(f"alias/{name}") for name in ["one", "one", "two", "two"]], topics
    publisher.disconnect()
    subscriber.disconnect()


def verified(way):
    """A server whose authority is none of those that this machine trusts is nobody to connect to."""
    try:
        way.connect("distrustful", trusts=False)
    except ssl.SSLCertVerificationError:
        return
    raise AssertionError("any certificate would do")


CASES = [
    ("qos_0", lambda way: qos(way, 0)),
    ("qos_1", lambda way: qos(way, 1)),
    ("qos_2", lambda way: qos(way, 2)),
    ("retain", retain),
    ("will", will),
    ("resume", resume),
    ("shared", shared),
    ("request_response", request_response),
    ("large", large),
]
CASES_V5 = [("user_properties", user_properties), ("topic_alias", topic_alias)]
CASES_TLS = [("verified", verified)]
for given in json.loads(sys.argv[1]):
    threading.Thread(target=Way(given).run).start()
