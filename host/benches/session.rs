//! What connections and sessions cost without the kernel: `cargo bench -p host --bench session`.
//!
//! Bytes that a client has sent go in, and what is outbound comes out; copying that out, which `send` does otherwise, is
//! part of the time.

use std::cell::RefCell;

use divan::Bencher;
use divan::counter::ItemsCount;
use host::codec::ProtocolVersion::V3_1_1;
use plugin_api::QoS::{self, AtLeastOnce, AtMostOnce, ExactlyOnce};

use broker::{Broker, OFF};

mod broker;

const TOPIC: &str = "devices/7/temperature";

/// Messages that come in one read.
const BATCH: u16 = 32;

/// A broker in the middle of traffic.
struct Traffic {
    broker: Broker,
    publisher: u32,
    packets: Vec<u8>,
}

impl Traffic {
    fn new(qos: QoS, subscribers: usize, payload_bytes: usize) -> Self {
        let mut broker = Broker::new();
        let publisher = broker.client(V3_1_1, "publisher");
        for number in 0..subscribers {
            broker.subscriber(V3_1_1, &format!("subscriber-{number}"), TOPIC, qos);
        }
        let packets = broker::publishes(V3_1_1, TOPIC, qos, &vec![b'x'; payload_bytes], 1..=BATCH);
        Self { broker, publisher, packets }
    }

    /// Messages come, and go out.
    fn publish(&mut self) {
        self.broker.feed(&OFF, self.publisher, &self.packets);
        self.broker.flush(&OFF);
    }

    /// What clients send back for what they have received.
    fn answers(&mut self) -> Vec<(u32, Vec<u8>)> {
        let received = self.broker.take_received();
        received.into_iter().map(|(slot, bytes)| (slot, broker::answers(&bytes).0)).collect()
    }

    /// All that is under way is acknowledged.
    fn settle(&mut self) {
        while {
            let answers = self.answers();
            self.acknowledge(&answers);
            !answers.is_empty()
        } {}
    }

    fn acknowledge(&mut self, answers: &[(u32, Vec<u8>)]) {
        for (slot, bytes) in answers {
            self.broker.feed(&OFF, *slot, bytes);
        }
        self.broker.flush(&OFF);
    }
}

/// From the publisher's bytes to those of the subscribers; for QoS 2 with PUBREC, but without what follows it.
fn published(bencher: Bencher<'_, '_>, qos: QoS, subscribers: usize, payload_bytes: usize) {
    let traffic = RefCell::new(Traffic::new(qos, subscribers, payload_bytes));
    bencher
        .counter(ItemsCount::new(usize::from(BATCH) * subscribers))
        .with_inputs(|| traffic.borrow_mut().settle())
        .bench_local_values(|()| traffic.borrow_mut().publish());
}

#[divan::bench(args = [1, 100], sample_size = 1, sample_count = 1000)]
fn publish_qos0(bencher: Bencher<'_, '_>, subscribers: usize) {
    published(bencher, AtMostOnce, subscribers, 16);
}

#[divan::bench(args = [1, 100], sample_size = 1, sample_count = 1000)]
fn publish_qos0_1k(bencher: Bencher<'_, '_>, subscribers: usize) {
    published(bencher, AtMostOnce, subscribers, 1024);
}

#[divan::bench(args = [1, 100], sample_size = 1, sample_count = 1000)]
fn publish_qos1(bencher: Bencher<'_, '_>, subscribers: usize) {
    published(bencher, AtLeastOnce, subscribers, 16);
}

/// PUBACK packets of the subscribers.
#[divan::bench(args = [1, 100], sample_size = 1, sample_count = 1000)]
fn acknowledge_qos1(bencher: Bencher<'_, '_>, subscribers: usize) {
    let traffic = RefCell::new(Traffic::new(AtLeastOnce, subscribers, 16));
    bencher
        .counter(ItemsCount::new(usize::from(BATCH) * subscribers))
        .with_inputs(|| {
            let mut traffic = traffic.borrow_mut();
            traffic.publish();
            traffic.answers()
        })
        .bench_local_values(|answers| traffic.borrow_mut().acknowledge(&answers));
}

/// All four packets, on both sides.
#[divan::bench(sample_size = 1, sample_count = 1000)]
fn exchange_qos2(bencher: Bencher<'_, '_>) {
    let mut traffic = Traffic::new(ExactlyOnce, 1, 16);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        traffic.publish();
        traffic.settle();
    });
}

/// CONNECT, CONNACK, and the end.
#[divan::bench]
fn client_comes_and_goes(bencher: Bencher<'_, '_>) {
    let mut broker = Broker::new();
    bencher.bench_local(|| {
        let slot = broker.client(V3_1_1, "client");
        broker.lose(&OFF, slot);
    });
}

#[divan::bench]
fn subscribe_and_unsubscribe(bencher: Bencher<'_, '_>) {
    let mut broker = Broker::new();
    let slot = broker.client(V3_1_1, "client");
    let packets = [broker::subscribe(V3_1_1, &[TOPIC], AtLeastOnce), broker::unsubscribe(V3_1_1, &[TOPIC])].concat();
    bencher.bench_local(|| {
        broker.feed(&OFF, slot, &packets);
        broker.flush(&OFF);
        broker.take_received()
    });
}

#[divan::bench]
fn pingreq(bencher: Bencher<'_, '_>) {
    let mut broker = Broker::new();
    let slot = broker.client(V3_1_1, "client");
    bencher.bench_local(|| {
        broker.feed(&OFF, slot, &[0xC0, 0]);
        broker.flush(&OFF);
        broker.take_received()
    });
}

fn main() {
    divan::main();
}
