//! Each change comes back as it was written; what is not one is refused, and never a panic.

use super::*;
use crate::codec::{RetainHandling, SubscribeOptions};

fn message() -> StoredMessage<'static> {
    StoredMessage {
        topic: "a/ä",
        payload: b"payload",
        properties: b"\x01\x01",
        qos: QoS::ExactlyOnce,
        retain: true,
        expires_at: WallMillis(1_700_000_000_123),
        source: Source::Plugin { index: 3, hops: 2 },
        token: u64::MAX - 7,
    }
}

fn plain() -> StoredMessage<'static> {
    StoredMessage {
        topic: "t",
        payload: b"",
        properties: b"",
        qos: QoS::AtMostOnce,
        retain: false,
        expires_at: WallMillis::NEVER,
        source: Source::Client,
        token: 0,
    }
}

fn bodies(origin: Origin<'_>) -> Messages<'_> {
    Messages::Bodies { first: 7, count: 3, delivery: Delivery { qos: QoS::AtLeastOnce, retain: true, origin } }
}

const PACKETS_V5: Packets<'static> = Packets {
    qos: QoS::AtLeastOnce,
    is_v5: true,
    group: Some("$share/g/t"),
    count: 2,
    bytes: b"\x32\x07\x00\x01t\x12\x34\x00x\x32\x08\x00\x01t\x00\x01\x00yz",
};

const PACKETS_V3: Packets<'static> =
    Packets { qos: QoS::ExactlyOnce, is_v5: false, group: None, count: 1, bytes: b"\x34\x07\x00\x02ta\x12\x34x" };

fn all() -> Vec<Change<'static>> {
    let terms = Terms { expiry_secs: 300, expiry_secs_max: u32::MAX, ends_at: None, next_packet_id: 65_535 };
    let away = Terms { ends_at: Some(WallMillis(12)), ..terms };
    let (session, first, count) = (u64::MAX, 65_535, 9);
    let options = SubscribeOptions {
        no_local: true,
        retain_handling: RetainHandling::DoNotSend,
        ..SubscribeOptions::new(QoS::AtLeastOnce)
    };
    let identifiers = Identifiers::List(&[1, 268_435_455]);
    let in_flight = |messages| Change::SentNow { session, first, messages };
    vec![
        Change::Turn { worker: 3, workers: 64 },
        Change::Body { number: 0, message: message() },
        Change::Body { number: u32::MAX, message: plain() },
        Change::Body { number: 1, message: StoredMessage { source: Source::Will, token: 1, ..plain() } },
        Change::Body { number: 2, message: StoredMessage { source: Source::Server, retain: true, ..plain() } },
        Change::Began { session: 1, client_id: "client", terms },
        Change::Changed { session, terms: away },
        Change::Changed { session, terms: Terms { ends_at: Some(WallMillis::NEVER), ..terms } },
        Change::Ended { session },
        Change::Subscribed { session, filter: "$share/g/+/#", options, identifier: 5 },
        Change::Unsubscribed { session, filter: "a" },
        Change::Queued { session, messages: bodies(Origin::Subscriptions(identifiers)) },
        Change::Queued { session, messages: bodies(Origin::Subscriptions(Identifiers::List(&[]))) },
        Change::Queued { session, messages: bodies(Origin::Shared { group: "$share/g/t", identifier: 0 }) },
        Change::Queued { session, messages: Messages::Packets(PACKETS_V5) },
        Change::Sent { session, first, count },
        in_flight(bodies(Origin::Instead { group: "$share/g/t", identifier: 4, published: 10 })),
        in_flight(bodies(Origin::Sent)),
        in_flight(Messages::Gone { count }),
        Change::Received { session, first, count },
        Change::Acknowledged { session, first, count },
        Change::Dropped { session, place: 4, count },
        Change::Incoming { session, first, messages: Messages::Packets(PACKETS_V3) },
        Change::Incoming { session, first, messages: Messages::Gone { count: 1 } },
        Change::Released { session, first, count },
        Change::Will { session, due: Due::AfterSecs(u32::MAX), expiry_secs: None, message: plain() },
        Change::Will { session, due: Due::At(WallMillis(5)), expiry_secs: Some(u32::MAX), message: message() },
        Change::WillGone { session },
        Change::LastStates { session, states: b"\0\xFF" },
        Change::Retained { message: message() },
        Change::RetainedGone { topic: "a/b" },
        Change::KeyValue { plugin: "acl", key: b"\xFF", value: Some(b"") },
        Change::KeyValue { plugin: "acl", key: b"k", value: None },
        Change::Transit { from: 0, to: 63, group: None, body: 5 },
        Change::Transit { from: 1, to: 1, group: Some("$share/g/t"), body: 5 },
        Change::Taken { from: 0, to: 63, count },
    ]
}

fn encoded(change: &Change<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    change.encode(&mut bytes);
    bytes
}

#[test]
fn each_change_comes_back_as_it_was_written() {
    let (all, mut journal, mut places) = (all(), Vec::new(), Vec::new());
    for change in &all {
        places.push(journal.len());
        change.encode(&mut journal);
    }
    let read: Vec<_> = Changes::new(&journal).map(|change| change.expect("it was written like that")).collect();
    assert!(read.iter().map(|(at, _)| *at).eq(places));
    assert!(read.iter().map(|(_, change)| *change).eq(all));
}

/// The form is on disks: it stays.
#[test]
fn the_form_is_the_one_that_was_written_down() {
    let terms = Terms { expiry_secs: 1, expiry_secs_max: 2, ends_at: Some(WallMillis(3)), next_packet_id: 4 };
    for (change, bytes) in [
        (Change::Turn { worker: 1, workers: 2 }, "01 04000000 0100 0200"),
        (
            Change::Began { session: 7, client_id: "c", terms },
            "03 1B000000 0700000000000000 01000000 02000000 0300000000000000 0400 63",
        ),
        (Change::Body { number: 1, message: plain() }, "02 0C000000 01000000 00 0100 74 00000000"),
        (
            Change::Queued { session: 7, messages: Messages::Packets(PACKETS_V3) },
            "08 17000000 0700000000000000 01 02 01000000 3407000274611234 78",
        ),
        (
            Change::SentNow { session: 7, first: 2, messages: bodies(Origin::Subscriptions(Identifiers::List(&[5]))) },
            "0A 18000000 0700000000000000 0200 00 07000000 03000000 05 05000000",
        ),
        (Change::Acknowledged { session: 7, first: 2, count: 32 }, "0C 0E000000 0700000000000000 0200 20000000"),
    ] {
        let hex: String = encoded(&change).iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(hex, bytes.replace(' ', ""), "{change:?}");
    }
}

#[test]
fn what_is_cut_off_is_said() {
    for change in all() {
        let bytes = encoded(&change);
        for end in 1..bytes.len() {
            let error = Changes::new(&bytes[..end]).next().expect("there is something").expect_err("it is cut off");
            let name = format!("{change:?}").split(' ').next().unwrap_or_default().to_owned();
            assert!(error.to_string().contains(&name) && error.to_string().contains("cut off"), "{error}");
        }
        // The same where the length agrees: then some field is too short, or is another one.
        for end in HEAD_BYTES..bytes.len() {
            let mut cut = bytes[..end].to_vec();
            cut[1..HEAD_BYTES].copy_from_slice(&length(end - HEAD_BYTES).to_le_bytes());
            let mut changes = Changes::new(&cut);
            if let Some(Ok((_, other))) = changes.next() {
                assert_eq!(encoded(&other), cut, "what is read is what is there");
            }
        }
    }
}

#[test]
fn what_is_no_change_is_named() {
    let mut journal = encoded(&Change::Ended { session: 1 });
    let at = journal.len();
    for (bytes, said) in [
        (&b"\0\0\0\0\0"[..], "the kind of change 0 is not known, expected 1 to 23"),
        (b"\x18\0\0\0\0", "the kind of change 24 is not known, expected 1 to 23"),
        (b"\x05\x09\0\0\0\x01\0\0\0\0\0\0\0\0", "1 bytes too many are in Ended"),
        (b"\x05\x08\0\0\0\0\0\0\0\0\0\0\0", "the session of Ended is not what it can be"),
        (b"\x05\xFF\xFF\xFF\xFF\0\0\0\0\0\0\0\0", "Ended of 4294967300 bytes is cut off: there are 13 bytes"),
        (b"\x14\x01\0\0\0\xFF", "the Topic Name of RetainedGone is not what it can be"),
        (
            b"\x0C\x0E\0\0\0\x01\0\0\0\0\0\0\0\0\0\x01\0\0\0",
            "the Packet Identifier of Acknowledged is not what it can be",
        ),
        (b"\x0C\x0E\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0", "the count of Acknowledged is not what it can be"),
    ] {
        journal.truncate(at);
        journal.extend_from_slice(bytes);
        let mut changes = Changes::new(&journal);
        assert!(matches!(changes.next(), Some(Ok((0, Change::Ended { session: 1 })))));
        let error = changes.next().expect("there is more").expect_err(said);
        assert_eq!((error.at, error.to_string()), (at, format!("at byte {at}: {said}")));
        assert!(changes.next().is_none(), "nothing comes behind an error");
    }
}

/// Whatever a disk has made of them.
#[test]
fn bytes_that_have_changed_are_no_panic() {
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % below as u64).expect("below a usize")
    };
    for change in all() {
        for _ in 0..200 {
            let mut bytes = encoded(&change);
            for _ in 0..=next(3) {
                let at = next(bytes.len());
                bytes[at] = u8::try_from(next(256)).expect("a byte");
            }
            for change in Changes::new(&bytes).flatten() {
                if let (_, Change::Queued { messages: Messages::Packets(packets), .. }) = change {
                    assert!(packets.each().count() <= packets.bytes.len() + 1);
                }
                let mut again = Vec::new();
                change.1.encode(&mut again);
                assert_eq!(Change::decode(&again).expect("it was just written").0, change.1);
            }
        }
    }
}

#[test]
fn packets_are_taken_apart() {
    let packets: Vec<_> = PACKETS_V5.each().map(|packet| packet.expect("whole")).collect();
    assert!(packets.iter().map(|packet| (packet.topic, packet.payload)).eq([("t", &b"x"[..]), ("t", b"yz")]));
    assert_eq!(packets.iter().map(|packet| packet.bytes.len()).sum::<usize>(), PACKETS_V5.bytes.len());
    let v3: Vec<_> = PACKETS_V3.each().flatten().map(|packet| (packet.topic, packet.payload)).collect();
    assert_eq!(v3, [("ta", &b"x"[..])]);
    for (wrong, sound) in [
        (Packets { count: 3, ..PACKETS_V5 }, 2),
        (Packets { count: 1, ..PACKETS_V5 }, 1),
        (Packets { qos: QoS::ExactlyOnce, ..PACKETS_V5 }, 0),
        (Packets { bytes: &PACKETS_V5.bytes[..12], ..PACKETS_V5 }, 1),
        (Packets { bytes: b"", ..PACKETS_V5 }, 0),
    ] {
        let each: Vec<bool> = wrong.each().map(|packet| packet.is_some()).collect();
        assert_eq!((each.len(), each.iter().filter(|whole| **whole).count()), (sound + 1, sound), "{wrong:?}");
        assert_eq!(each.last(), Some(&false), "{wrong:?}");
    }
}
