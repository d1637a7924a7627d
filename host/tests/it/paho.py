"""Run by clients.rs with a port and a protocol version (3, 4 or 5): prints `ok`, or fails."""

import queue
import sys

import paho.mqtt.client as mqtt

PATIENCE = 20
PORT, VERSION = int(sys.argv[1]), int(sys.argv[2])


class Client:
    def __init__(self, client_id, persistent=False):
        self.events = queue.Queue()
        options = {} if VERSION == 5 else {"clean_session": not persistent}
        self.mqtt = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=VERSION, **options
        )
        self.mqtt.on_connect = lambda c, u, flags, code, p: self.put("connected", flags, code)
        self.mqtt.on_subscribe = lambda c, u, mid, codes, p: self.put("subscribed", codes)
        self.mqtt.on_unsubscribe = lambda c, u, mid, codes, p: self.put("unsubscribed")
        self.mqtt.on_publish = lambda c, u, mid, code, p: self.put("published", mid)
        self.mqtt.on_message = lambda c, u, message: self.put("message", message)
        self.mqtt.on_disconnect = lambda c, u, flags, code, p: self.put("disconnected", code)
        self.persistent = persistent

    def put(self, kind, *what):
        self.events.put((kind, what))

    def wait(self, kind):
        kept = []
        while True:
            event = self.events.get(timeout=PATIENCE)
            if event[0] == kind:
                break
            kept.append(event)
        for other in kept:
            self.events.put(other)
        return event[1]

    def connect(self):
        options = {}
        if VERSION == 5:
            options["clean_start"] = not self.persistent
            properties = mqtt.Properties(mqtt.PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 100 if self.persistent else 0
            options["properties"] = properties
        self.mqtt.connect("127.0.0.1", PORT, keepalive=30, **options)
        self.mqtt.loop_start()
        flags, code = self.wait("connected")
        assert code == 0, code
        return flags

    def subscribe(self, topic, qos):
        self.mqtt.subscribe(topic, qos)
        (codes,) = self.wait("subscribed")
        assert [code.value for code in codes] == [qos], codes

    def publish(self, topic, payload, qos=0, retain=False, **options):
        info = self.mqtt.publish(topic, payload, qos, retain, **options)
        info.wait_for_publish(PATIENCE)
        assert info.is_published()

    def message(self):
        (message,) = self.wait("message")
        return message

    def disconnect(self):
        self.mqtt.disconnect()
        self.wait("disconnected")
        self.mqtt.loop_stop()


def every_qos():
    subscriber, publisher = Client(f"subscriber-{VERSION}"), Client(f"publisher-{VERSION}")
    subscriber.connect()
    publisher.connect()
    for granted in range(3):
        subscriber.subscribe("paho/+", granted)
        for qos in range(3):
            for number in range(20):
                publisher.publish("paho/x", f"{granted} {qos} {number}", qos)
            for number in range(20):
                message = subscriber.message()
                assert message.payload == f"{granted} {qos} {number}".encode(), message.payload
                assert message.qos == min(granted, qos), message.qos
    subscriber.mqtt.unsubscribe("paho/+")
    subscriber.wait("unsubscribed")
    subscriber.disconnect()
    publisher.disconnect()


def session_and_retained():
    keeper, publisher = Client(f"keeper-{VERSION}", persistent=True), Client(f"other-{VERSION}")
    publisher.connect()
    assert not keeper.connect().session_present
    keeper.subscribe("kept", 1)
    keeper.disconnect()
    publisher.publish("kept", "while away", 1)
    keeper = Client(f"keeper-{VERSION}", persistent=True)
    keeper.connect()
    assert keeper.message().payload == b"while away"
    publisher.publish("retained", "still here", 1, retain=True)
    keeper.subscribe("retained", 1)
    message = keeper.message()
    assert message.retain and message.payload == b"still here"
    publisher.publish("retained", "", 1, retain=True)
    keeper.disconnect()
    publisher.disconnect()


def properties():
    client = Client("properties")
    client.connect()
    client.subscribe("properties", 2)
    sent = mqtt.Properties(mqtt.PacketTypes.PUBLISH)
    sent.UserProperty = [("a", "1"), ("a", "2")]
    sent.ResponseTopic = "answer"
    sent.CorrelationData = b"\x00\x01"
    client.publish("properties", "x", 2, properties=sent)
    got = client.message().properties
    assert got.UserProperty == sent.UserProperty, got
    assert (got.ResponseTopic, got.CorrelationData) == ("answer", b"\x00\x01"), got
    client.disconnect()


every_qos()
session_and_retained()
if VERSION == 5:
    properties()
print("ok")
