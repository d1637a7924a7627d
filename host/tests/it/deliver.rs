//! What a handler from a real library decides about deliveries, hears of them, and sends to one client.

use host::ServerHandle;

use crate::mqtt::{Client, Connect, Publish, V5, field};
use crate::plugins::{Record, with_recorder};

fn client(server: &ServerHandle, client_id: &str) -> Client {
    Client::connect(server.local_addr(), V5, client_id)
}

/// One that comes back: its session is kept for an hour.
fn durable(server: &ServerHandle, client_id: &str) -> Client {
    let connect = Connect { properties: vec![0x11, 0, 0, 0x0E, 0x10], clean: false, ..Connect::new(V5, client_id) };
    Client::connect_with(server.local_addr(), &connect).0
}

#[test]
fn deliveries_are_sent_changed_or_dropped() {
    with_recorder("deliver", |server, record| {
        let (mut from, mut to) = (client(server, "from"), client(server, "to"));
        to.subscribe("deliver/#", 1);
        for topic in ["deliver/drop", "deliver/error", "deliver/change", "deliver/same"] {
            for qos in 0..2 {
                from.publish(topic, "text", qos);
            }
        }
        for (topic, payload) in [("deliver/change", "TEXT"), ("deliver/same", "text")] {
            for qos in 0..2 {
                let message = to.receive();
                assert_eq!((message.topic.as_str(), message.text(), message.qos), (topic, payload, qos));
                let delivered = [&[0x26][..], &field("recorder"), &field("delivered")].concat();
                assert_eq!(message.properties, if payload == "TEXT" { delivered } else { Vec::new() });
            }
        }
        record.wait(&["handle_message_dropped client=\"to\" topic=\"deliver/drop\"", "qos=0", "reason=Handler"]);
        record.wait(&["handle_message_dropped client=\"to\" topic=\"deliver/error\"", "qos=1", "reason=Handler"]);
    });
}

#[test]
fn retained_queued_and_shared_deliveries_are_told_apart() {
    with_recorder("deliver-causes", |server, record| {
        let mut from = client(server, "from");
        from.publish_message(Publish::new("r/1", "kept").qos(1, 1).retained());
        record.wait(&["handle_retained topic=\"r/1\" payload=\"kept\" change=Set"]);
        let mut to = durable(server, "to");
        to.subscribe("r/#", 1);
        assert_eq!(to.receive().text(), "kept");
        record.wait(&["handle_deliver client=\"to\" topic=\"r/1\"", "retain=true shared=false", "cause=Retained"]);
        to.subscribe("$share/g/s", 1);
        from.publish("s", "one", 1);
        assert_eq!(to.receive().text(), "one");
        record.wait(&["handle_deliver client=\"to\" topic=\"s\"", "shared=true", "cause=Published"]);
        to.disconnect();
        record.wait(&["handle_disconnect client=\"to\""]);
        from.publish("r/2", "later", 1);
        let mut to = durable(server, "to");
        assert_eq!(to.receive().text(), "later");
        record.wait(&["handle_connected client=\"to\" session_present=true took_over=false"]);
        record.wait(&["handle_deliver client=\"to\" topic=\"r/2\"", "cause=Queued"]);
        let _second = durable(server, "to");
        record.wait(&["handle_connected client=\"to\" session_present=true took_over=true"]);
        from.publish_message(Publish::new("r/1", "").qos(1, 2).retained());
        record.wait(&["handle_retained topic=\"r/1\" payload=\"\" change=Cleared"]);
    });
}

#[test]
fn messages_are_sent_to_one_client_and_their_tokens_come_back() {
    with_recorder("send", |server, record: &Record| {
        let mut from = client(server, "from");
        let mut to = durable(server, "to");
        from.publish("cmd/send/client/to", "1 77 inbox hello", 1);
        let message = to.receive();
        assert_eq!((message.topic.as_str(), message.text(), message.qos), ("inbox", "hello", 1));
        record.wait(&["handle_message_acknowledged client=\"to\" topic=\"inbox\"", "token=Some(77)"]);
        record.wait(&["handle_puback client=\"to\" kind=Puback", "token=Some(77)"]);
        from.publish("cmd/send/me", "2 18446744073709551615 inbox you", 1);
        assert_eq!(from.receive().text(), "you");
        record.wait(&["handle_puback client=\"from\" kind=Pubcomp", "token=Some(18446744073709551615)"]);
        // It waits for a client that is not there.
        to.disconnect();
        record.wait(&["handle_disconnect client=\"to\""]);
        from.publish("cmd/send/client/to", "1 78 inbox later", 1);
        from.publish("cmd/send/client/nobody", "1 79 inbox nowhere", 1);
        record.wait(&["handle_message_dropped client=\"nobody\"", "token=Some(79) reason=SessionEnded"]);
        let mut to = durable(server, "to");
        assert_eq!(to.receive().text(), "later");
        record.wait(&["handle_puback client=\"to\"", "token=Some(78)"]);
        // A plugin is not asked about what it has sent itself.
        assert_eq!(record.count("handle_deliver"), 0, "{:?}", record.lines());
    });
}
