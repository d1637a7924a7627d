"""Run by paho.rs with a port, a protocol version (3, 4 or 5), a transport, and where there is TLS the file of the authority to
trust; with paho-mqtt 1 or 2 in PYTHONPATH.

The transport is tcp or websockets, as the library calls them.

Prints a line for each case, `<case> ok` or `<case> FAILED`; what went wrong goes to stderr.
"""

import queue
import sys
import traceback

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE = 60
PORT, VERSION, TRANSPORT = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
AUTHORITY = sys.argv[4] if len(sys.argv) > 4 else None
API_2 = hasattr(mqtt, "CallbackAPIVersion")
V5 = VERSION == mqtt.MQTTv5
EVENTS = ["connected", "subscribed", "unsubscribed", "message", "disconnected"]


def properties(packet, **values):
    made = Properties(packet)
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Client:
    """One connection; the two APIs differ in what callbacks get."""

    def __init__(self, name, persistent=False, will=None):
        client_id = f"paho-{VERSION}-{name}"
        self.persistent = persistent
        # One queue for each kind, so that messages keep their order whatever is waited for.
        self.events = {kind: queue.Queue() for kind in EVENTS}
        options = {"client_id": client_id, "protocol": VERSION, "transport": TRANSPORT}
        if not V5:
            options["clean_session"] = not persistent
        if API_2:
            options["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION2
        self.mqtt = mqtt.Client(**options)
        if AUTHORITY:
            self.mqtt.tls_set(ca_certs=AUTHORITY)
        self.mqtt.on_connect = lambda c, u, flags, code, *rest: self.put("connected", flags, code)
        if API_2:
            self.mqtt.on_subscribe = lambda c, u, mid, codes, p: self.put("subscribed", codes)
        else:
            self.mqtt.on_subscribe = lambda c, u, mid, codes, *rest: self.put("subscribed", codes)
        self.mqtt.on_unsubscribe = lambda *args: self.put("unsubscribed")
        self.mqtt.on_message = lambda c, u, message: self.put("message", message)
        self.mqtt.on_disconnect = lambda *args: self.put("disconnected")
        if will:
            self.mqtt.will_set(*will)
        connect = {"keepalive": 60}
        if V5:
            connect["clean_start"] = not persistent
            expiry = 100 if persistent else 0
            connect["properties"] = properties(PacketTypes.CONNECT, SessionExpiryInterval=expiry)
        self.mqtt.connect("127.0.0.1", PORT, **connect)
        self.mqtt.loop_start()
        flags, code = self.wait("connected")
        assert code == 0, code
        self.session_present = flags.session_present if API_2 else bool(flags["session present"])

    def put(self, kind, *what):
        self.events[kind].put(what)

    def wait(self, kind):
        return self.events[kind].get(timeout=PATIENCE)

    def subscribe(self, topic, qos):
        self.mqtt.subscribe(topic, qos)
        (codes,) = self.wait("subscribed")
        assert [getattr(code, "value", code) for code in codes] == [qos], codes

    def publish(self, topic, payload, qos=0, retain=False, **options):
        info = self.mqtt.publish(topic, payload, qos, retain, **options)
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


def qos(published):
    subscriber, publisher = Client("subscriber"), Client("publisher")
    for granted in range(3):
        subscriber.subscribe("paho/+", granted)
        for number in range(20):
            publisher.publish("paho/x", f"{granted} {number}", published)
        for number in range(20):
            message = subscriber.message()
            assert message.payload.decode() == f"{granted} {number}", message.payload
            assert message.qos == min(granted, published), message.qos
            assert not message.retain
    subscriber.mqtt.unsubscribe("paho/+")
    subscriber.wait("unsubscribed")
    subscriber.disconnect()
    publisher.disconnect()


def retain():
    publisher, subscriber = Client("publisher"), Client("subscriber")
    for number in range(3):
        publisher.publish("retain/x", f"{number}", number, retain=True)
        publisher.publish("retain/x", f"{number}!", 1, retain=True)
        subscriber.subscribe("retain/#", 2)
        message = subscriber.message()
        assert (message.retain, message.payload) == (True, f"{number}!".encode()), message.payload
        subscriber.mqtt.unsubscribe("retain/#")
        subscriber.wait("unsubscribed")
    publisher.publish("retain/x", "", 1, retain=True)
    subscriber.subscribe("retain/#", 2)
    publisher.publish("retain/y", "live", 1)
    assert subscriber.texts(1) == ["live"]
    publisher.disconnect()
    subscriber.disconnect()


def will():
    observer = Client("observer")
    observer.subscribe("will/+", 2)
    for number in range(3):
        Client("mortal", will=("will/x", f"gone {number}", number, False)).die()
        message = observer.message()
        assert (message.payload, message.qos) == (f"gone {number}".encode(), number), message.payload
    Client("mortal", will=("will/x", "not to be seen", 1, False)).disconnect()
    observer.publish("will/end", "end", 1)
    assert observer.texts(1) == ["end"]
    observer.disconnect()


def resume():
    keeper, publisher = Client("keeper", persistent=True), Client("publisher")
    assert not keeper.session_present
    keeper.subscribe("kept/+", 2)
    keeper.disconnect()
    expected = [f"{number}" for number in range(200)]
    for number in range(200):
        publisher.publish("kept/x", f"{number}", 1 + number % 2)
    keeper = Client("keeper", persistent=True)
    # MQTT 3.1 has no Session Present.
    assert keeper.session_present or VERSION == mqtt.MQTTv31
    texts = keeper.texts(200)
    # Order is kept for each QoS.
    for parity in range(2):
        assert [text for text in texts if int(text) % 2 == parity] == expected[parity::2], texts
    keeper.disconnect()
    publisher.disconnect()
    Client("keeper").disconnect()


def shared():
    members = [Client("first"), Client("second")]
    for member in members:
        member.subscribe("$share/group/shared/+", 1)
        member.subscribe("end", 1)
    publisher = Client("publisher")
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


def request_response():
    responder, requester = Client("responder"), Client("requester")
    responder.subscribe("request/+", 1)
    requester.subscribe("response/+", 1)
    for number in range(5):
        options = {}
        if V5:
            options["properties"] = properties(
                PacketTypes.PUBLISH, ResponseTopic="response/me", CorrelationData=bytes([0, number])
            )
        requester.publish("request/double", f"{number}", 1, **options)
        request = responder.message()
        answer, topic = str(2 * int(request.payload)), "response/me"
        options = {}
        if V5:
            topic = request.properties.ResponseTopic
            correlation = request.properties.CorrelationData
            options["properties"] = properties(PacketTypes.PUBLISH, CorrelationData=correlation)
        responder.publish(topic, answer, 1, **options)
        response = requester.message()
        assert response.payload.decode() == f"{2 * number}", response.payload
        assert not V5 or response.properties.CorrelationData == bytes([0, number])
    responder.disconnect()
    requester.disconnect()


def large():
    client = Client("large")
    client.subscribe("large", 2)
    payload = bytes(number % 251 for number in range(1 << 20))
    for number in range(3):
        client.publish("large", payload, number)
        assert client.message().payload == payload
    client.disconnect()


def user_properties():
    client = Client("properties")
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


def topic_alias():
    publisher, subscriber = Client("publisher"), Client("subscriber")
    subscriber.subscribe("alias/#", 1)
    for topic in ["alias/one", "", "alias/two", ""]:
        alias = properties(PacketTypes.PUBLISH, TopicAlias=1)
        publisher.publish(topic, "x", 1, properties=alias)
    topics = [subscriber.message().topic for _ in range(4)]
    assert topics == ["alias/one", "alias/one", "alias/two", "alias/two"], topics
    publisher.disconnect()
    subscriber.disconnect()


CASES = [
    ("qos_0", lambda: qos(0)),
    ("qos_1", lambda: qos(1)),
    ("qos_2", lambda: qos(2)),
    ("retain", retain),
    ("will", will),
    ("resume", resume),
    ("shared", shared),
    ("request_response", request_response),
    ("large", large),
]
if V5:
    CASES += [("user_properties", user_properties), ("topic_alias", topic_alias)]
for name, case in CASES:
    try:
        case()
        print(name, "ok")
    except Exception:
        traceback.print_exc()
        print(name, "FAILED")
