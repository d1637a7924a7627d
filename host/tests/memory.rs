//! How much memory bytes from a peer take: the decoder none, a connection no more than in proportion to what has come.
//!
//! A test binary of its own: its allocator counts.
#![allow(unsafe_code)] // An allocator has unsafe functions.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use host::Limits;
use host::clock::Millis;
use host::codec::{self, Frame, PACKET_BYTES_MAX, Packet, ProtocolVersion};
use host::core::mailbox::Mailboxes;
use host::core::{Arrival, Core, ListenerProfile, Shared};
use host::plugin::Chain;

struct Counting;

thread_local! {
    /// Bytes asked for by this thread, and bytes that it holds.
    static ASKED: Cell<usize> = const { Cell::new(0) };
    static HELD: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: everything is left to the system's allocator; what is counted are plain numbers that need no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + layout.size());
        HELD.set(HELD.get() + layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.set(HELD.get() - layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that a call asks for.
fn asked<T>(call: impl FnOnce() -> T) -> usize {
    let before = ASKED.get();
    drop(call());
    ASKED.get() - before
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(body);
    bytes
}

/// Packets that have most to be decoded.
fn rich() -> Vec<Vec<u8>> {
    let user_properties = b"\x26\0\x01k\0\x01v".repeat(15);
    let list = [&[105][..], &user_properties].concat();
    let name = b"\0\x04MQTT\x05\xC6\0\x3C";
    vec![
        packet(0x10, &[&name[..], &list, b"\0\x01c", &list, b"\0\x01w\0\x03bye\0\x01u\0\x01p"].concat()),
        packet(0x20, &[&[1, 0][..], &list].concat()),
        packet(0x30, &[b"\0\x03a/b", &list[..], &[7; 100_000]].concat()),
        packet(0x34, &[b"\0\x03a/b\0\x01", &list[..], b"x"].concat()),
        packet(0x40, &[&[0, 1, 0x10][..], &list].concat()),
        packet(0x62, &[&[0, 1, 0x92][..], &list].concat()),
        packet(0x82, &[&[0, 1][..], &list, &b"\0\x03a/#\x01".repeat(1000)].concat()),
        packet(0x90, &[&[0, 1][..], &list, &[1; 1000]].concat()),
        packet(0xA2, &[&[0, 1][..], &list, &b"\0\x03a/#".repeat(1000)].concat()),
        packet(0xB0, &[&[0, 1][..], &list, &[0; 1000]].concat()),
        packet(0xC0, &[]),
        packet(0xE0, &[&[0x80][..], &list].concat()),
        packet(0xF0, &[&[0x18, 109, 0x15, 0, 1, b'M'][..], &user_properties].concat()),
    ]
}

/// Decodes, and looks at everything that is in it.
fn read(version: ProtocolVersion, bytes: &[u8], from_server: bool) -> bool {
    let Ok(Frame::Complete { header_bytes, total_bytes }) = codec::frame(bytes, PACKET_BYTES_MAX) else { return false };
    let decode = if from_server { codec::decode_from_server } else { codec::decode };
    match decode(version, &bytes[..total_bytes], header_bytes) {
        Ok(Packet::Subscribe(packet)) => packet.filters.iter().count() > 0 && packet.properties.iter().count() < 100,
        Ok(Packet::Unsubscribe(packet)) => packet.filters.iter().count() > 0 && packet.properties.iter().count() < 100,
        Ok(Packet::Publish(packet)) => packet.properties.iter().count() < 100,
        Ok(_) => true,
        Err(error) => {
            let _ = codec::connect_refusal(bytes, header_bytes, &error);
            false
        }
    }
}

#[test]
fn the_decoder_allocates_nothing() {
    let versions = [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1, ProtocolVersion::V5];
    let mut accepted = 0;
    for mut bytes in rich() {
        let mut check = |bytes: &[u8]| {
            for version in versions {
                for from_server in [false, true] {
                    let mut is_accepted = false;
                    assert_eq!(asked(|| is_accepted = read(version, bytes, from_server)), 0, "{:02X?}", &bytes[..20]);
                    accepted += usize::from(is_accepted);
                }
            }
        };
        check(&bytes);
        // The same with each of its first bytes changed.
        for place in 1..bytes.len().min(200) {
            let before = bytes[place];
            for value in [0, 1, before ^ 1, before ^ 0x80, 0xFF] {
                bytes[place] = value;
                check(&bytes);
            }
            bytes[place] = before;
        }
    }
    assert!(accepted > 1000, "{accepted}");
}

fn core(limits: Limits) -> Core {
    let mailboxes = Mailboxes::new(vec![Box::new(|| {})]);
    Core::new(0, Arc::new(Shared::new(limits, Chain::default(), mailboxes)), Millis(0))
}

/// Whatever length a packet declares, memory is for what has come of it.
#[test]
fn a_connection_holds_no_more_than_in_proportion_to_what_has_come() {
    const LARGEST: [u8; 5] = [0x30, 0xFB, 0xFF, 0xFF, 0x07]; // 16 MiB, the default bound, in all.
    for step in [1, 7, 1000, 65_536] {
        let mut core = core(Limits::default());
        let profile = Arc::new(ListenerProfile::new("here", Limits::default()));
        let arrival = Arrival { peer: ([127, 0, 0, 1], 9).into(), profile: &profile, details: None };
        let slot = core.accept(arrival, Millis(0)).expect("the first one");
        core.feed(slot, &packet(0x10, b"\0\x04MQTT\x05\x02\0\0\0\0\x01c"), Millis(0));
        let outbound = core.outbound(slot).len();
        core.sent(slot, outbound, Millis(0));
        core.take_dirty(&mut Vec::new());
        let (before, part) = (HELD.get(), vec![b'x'; step]);
        core.feed(slot, &LARGEST, Millis(0));
        let mut came = LARGEST.len();
        for _ in 0..(4 << 20) / step.max(500) {
            core.feed(slot, &part, Millis(0));
            came += step;
            let held = usize::try_from(HELD.get() - before - step as isize).unwrap_or(0);
            // A buffer that grows twofold, and is copied when it does.
            assert!(held <= 2 * came + 1024, "{held} bytes are held for {came}, {step} at a time");
        }
        assert!(!core.is_closing(slot));
    }
}

/// A client that is let in. Returns its slot.
fn join(core: &mut Core, profile: &Arc<ListenerProfile>, connect: &[u8]) -> u32 {
    let arrival = Arrival { peer: ([127, 0, 0, 1], 9).into(), profile, details: None };
    let slot = core.accept(arrival, Millis(0)).expect("within the bounds");
    feed(core, slot, &packet(0x10, connect));
    slot
}

/// Bytes have come, and all that is to be sent is sent.
fn feed(core: &mut Core, slot: u32, bytes: &[u8]) {
    core.feed(slot, bytes, Millis(0));
    let mut dirty = Vec::new();
    core.take_dirty(&mut dirty);
    for slot in dirty {
        let outbound = core.outbound(slot).len();
        if outbound > 0 {
            core.sent(slot, outbound, Millis(0));
        }
    }
}

/// As many as come together and alone: what is for one client only is kept as its packet.
#[test]
fn a_message_that_waits_takes_little_more_than_its_packet() {
    const MESSAGES: usize = 20_000;
    let mut limits = Limits::default();
    limits.queue_messages_max = MESSAGES;
    let profile = Arc::new(ListenerProfile::new("here", limits.clone()));
    for (together, bytes_max) in [(1, 80), (50, 80)] {
        let mut core = core(limits.clone());
        let from = join(&mut core, &profile, b"\0\x04MQTT\x04\x02\0\0\0\x04from");
        let to = join(&mut core, &profile, b"\0\x04MQTT\x04\x00\0\0\0\x02to");
        feed(&mut core, to, &packet(0x82, b"\0\x01\0\x14devices/7/temperatur\x01"));
        core.lost(to, Millis(0));
        core.release(to);
        let publish = packet(0x32, &[&b"\0\x14devices/7/temperatur\0\x07"[..], &[b'x'; 16]].concat());
        let read = publish.repeat(together);
        feed(&mut core, from, &read);
        let before = HELD.get();
        for _ in 1..MESSAGES / together {
            feed(&mut core, from, &read);
        }
        let held = usize::try_from(HELD.get() - before).unwrap_or(0) / (MESSAGES - together);
        assert!(held >= publish.len() && held <= bytes_max, "{held} bytes for each, {together} at a time");
    }
}
