//! What is kept in the store is what the workers have: whoever applies all journals to nothing gets there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::net::ZERO;
use super::*;
use crate::clock::{Millis, WallMillis};
use crate::core::journal::{Journal, Keeping};
use crate::core::mailbox::Mailboxes;
use crate::core::session::{Awaiting, InFlight, Queued, Session, Subscription, WillBody};
use crate::core::{Core, NONE, Shared, owner_of};
use crate::durable::change::{Change, Changes, Due, Messages, Terms};
use crate::durable::store::Store;
use crate::durable::store::fake::FakeStore;
use crate::message::Message;
use crate::plugin::{Chain, LastStates};
use crate::router::RetainedChange;

impl Net {
    /// Asserts that the journals so far make what there is. There is nothing to do without a store.
    pub(in crate::core) fn check_journals(&mut self) {
        if let Some(store) = &self.store {
            hand_over(&mut self.cores, Some(store));
            check(&self.cores, &self.shared, store, self.zero, self.now);
        }
    }
}

/// Hands the journals of all workers over.
pub(in crate::core) fn hand_over(cores: &mut [Core], store: Option<&FakeStore>) {
    let Some(store) = store else { return };
    for core in cores {
        let worker = core.worker;
        core.hand_over_journal(|journal| store.hand_over(worker, journal));
    }
}

/// Asserts that journals make what there is.
pub(in crate::core) fn check(cores: &[Core], shared: &Shared, store: &FakeStore, zero: WallMillis, now: Millis) {
    let other = restored(shared, &store.journals(), zero, now);
    let mut there: BTreeMap<&str, &Session> =
        other.sessions.iter().map(|(_, session)| (&*session.client_id, session)).collect();
    for (_, session) in cores.iter().flat_map(|core| &core.sessions).filter(|(_, session)| session.number != 0) {
        let (is_away, client_id) = (session.connection == NONE, &*session.client_id);
        let kept = there.remove(client_id).map_or_else(|| "nothing".into(), |kept| shown_session(kept, is_away));
        let session = shown_session(session, is_away);
        assert!(session == kept, "what is kept of {client_id} is\n{kept}\nand there is\n{session}");
    }
    assert!(there.is_empty(), "kept are {:?} as well", there.keys());
    let retained = |shared: &Shared| -> Vec<String> {
        let filters = ["#", "$SYS/#"].iter().flat_map(|filter| shared.retained.matching(filter, now));
        let mut all: Vec<String> = filters.map(|message| shown_message(&message)).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(retained(&other.shared), retained(shared), "retained messages");
}

/// One worker that has what some journals say.
fn restored(shared: &Shared, journals: &[(usize, Vec<u8>)], zero: WallMillis, now: Millis) -> Core {
    let mailboxes = Mailboxes::new(vec![Box::new(|| {})]);
    let shared =
        Arc::new(Shared::new(shared.limits.clone(), Chain::default(), mailboxes).with_store(ZERO, Arc::default()));
    let mut core = Core::new(0, shared, now);
    for (number, (_, journal)) in journals.iter().enumerate() {
        let restored = core.restore(journal, zero, now);
        restored.unwrap_or_else(|error| panic!("{error} in journal {number}: {:?}", shown_journal(journal)));
    }
    core
}

/// What journals come to, as each worker begins with it.
pub(in crate::core) fn pieces(shared: &Shared, store: &FakeStore, now: Millis) -> Vec<(usize, Vec<u8>)> {
    let kept = restored(shared, &store.journals(), ZERO, now);
    let workers = shared.mailboxes.workers();
    let mut pieces = Vec::new();
    let restoring = kept.restoring.as_ref().expect("it has begun");
    for (_, session) in &kept.sessions {
        let mut image = Journal::new(0, Arc::new(Keeping::new(workers, ZERO, Arc::default())));
        put_session(&mut image, session, restoring.was_connected(session.serial));
        pieces.push((owner_of(&session.client_id, workers), image.into_bytes()));
    }
    let mut image = Journal::new(0, Arc::new(Keeping::new(workers, ZERO, Arc::default())));
    for message in ["#", "$SYS/#"].iter().flat_map(|filter| kept.shared.retained.matching(filter, now)) {
        image.put_retained(&RetainedChange::Set(message));
    }
    pieces.push((workers - 1, image.into_bytes()));
    for journal in restoring.in_transit() {
        pieces.extend((0..workers).map(|worker| (worker, journal.clone())));
    }
    pieces
}

fn put_session(image: &mut Journal, session: &Session, was_connected: bool) {
    let (number, wall) =
        (session.number, |at| if at == Millis::NEVER { WallMillis::NEVER } else { WallMillis::of(at, ZERO) });
    let terms = Terms {
        expiry_secs: session.expiry_secs,
        expiry_secs_max: session.expiry_secs_max,
        ends_at: (!was_connected).then(|| wall(session.expires_at)),
        next_packet_id: session.next_packet_id,
    };
    image.put(&Change::Began { session: number, client_id: &session.client_id, terms });
    for (filter, &Subscription { options, identifier }) in &session.subscriptions {
        image.put(&Change::Subscribed { session: number, filter, options, identifier });
    }
    for sent in session.in_flight.shown() {
        match &sent.delivery {
            Some(queued) if sent.awaiting != Awaiting::Pubcomp => image.sent_now(session, sent.packet_id, queued),
            _ => {
                let (first, messages) = (sent.packet_id.get(), Messages::Gone { count: 1 });
                image.put(&Change::SentNow { session: number, first, messages });
            }
        }
    }
    session.queue.iter().for_each(|queued| image.queued(session, &queued));
    for (packet_id, message) in session.received.shown() {
        image.incoming(number, packet_id, message.as_ref());
    }
    if let Some(will) = session.away.as_ref().and_then(|away| away.will.as_ref())
        && let WillBody::Accepted(body) = &will.body
    {
        image.will(number, Due::At(wall(will.at)), body.expiry_secs, &body.message.parts());
        if let Some(known) = will.body.known() {
            let states = &LastStates::encoded(None, Some(known), &[]);
            image.put(&Change::LastStates { session: number, states });
        }
    }
    image.put(&Change::Changed { session: number, terms });
}

fn shown_journal(journal: &[u8]) -> Vec<String> {
    Changes::new(journal).map(|change| format!("{change:?}")).collect()
}

fn shown_message(message: &Message) -> String {
    let (topic, payload, properties) = (message.topic(), message.payload().escape_ascii(), message.properties());
    let (qos, retain, expires_at) = (message.qos() as u8, message.retain(), message.expires_at());
    let (source, token) = (message.source(), message.token());
    format!("{topic} '{payload}' {properties:02X?} {qos} {retain} {expires_at:?} {source:?} {token}")
}

fn shown_queued(session: &Session, queued: &Queued) -> String {
    let Queued { message, qos, retain, origin } = queued;
    let group = origin.group().and_then(|group| session.shared.as_ref()?.written(group)).unwrap_or("");
    format!("{} {} {retain} {group} {:?}", shown_message(message), *qos as u8, origin.identifiers())
}

fn shown_session(session: &Session, is_away: bool) -> String {
    let mut out = format!("expires after {} of {}\n", session.expiry_secs, session.expiry_secs_max);
    for (filter, subscription) in &session.subscriptions {
        let _ = writeln!(out, "subscribed {filter} {subscription:?}");
    }
    for sent in session.in_flight.shown() {
        let InFlight { packet_id, awaiting, delivery } = sent;
        let delivery = delivery.filter(|_| awaiting != Awaiting::Pubcomp);
        let delivery = delivery.map(|queued| shown_queued(session, &queued)).unwrap_or_default();
        let _ = writeln!(out, "in flight {packet_id} {awaiting:?} {delivery}");
    }
    for queued in session.queue.iter().filter(|queued| queued.qos != plugin_api::QoS::AtMostOnce) {
        let _ = writeln!(out, "queued {}", shown_queued(session, &queued));
    }
    for (packet_id, message) in session.received.shown() {
        let _ = writeln!(out, "received {packet_id} {:?}", message.as_deref().map(shown_message));
    }
    if !is_away {
        return out;
    }
    let _ = writeln!(out, "ends at {:?}", session.expires_at);
    if let Some(will) = session.away.as_ref().and_then(|away| away.will.as_ref())
        && let WillBody::Accepted(body) = &will.body
    {
        let (message, known) = (shown_message(&body.message), will.body.known());
        let _ = writeln!(out, "will {:?} {:?} {message} {known:?}", will.at, body.expiry_secs);
    }
    out
}

/// [MQTT-3.3.2-5] It would stay in the store for ever, and be there again if the wall clock went back.
#[test]
fn retained_message_that_expires_while_no_server_runs_is_taken_out_of_the_store() {
    let setup = net::Setup { plugin: false, store: true, ..net::Setup::default() };
    scenario_with(&setup, |net| {
        let from = net.v5("from");
        net.send(from, "31: <short> {02 0000003C} 'x' | 31: <long> {02 00000E10} 'x'");
        let journals = net.store().journals();
        let later = Millis(net.now.0 + 60_000);
        let mut other = restored(&net.shared, &journals, ZERO, later);
        other.end_restoring(later);
        let mut handed_over = Vec::new();
        other.hand_over_journal(|journal| {
            handed_over.append(journal);
            1
        });
        let gone: Vec<_> = Changes::new(&handed_over).skip(1).map(|change| change.expect("it is one").1).collect();
        assert_eq!(gone, [Change::RetainedGone { topic: "short" }]);
        assert_eq!(other.shared.retained.len(), 1);
    });
}

/// Whoever starts next would take them for expired, and their wills for due, or for not due for long.
#[test]
fn sessions_that_wait_are_written_once_more_when_the_wall_clock_is_set() {
    const DAY_MS: u64 = 86_400_000;
    let setup = net::Setup { plugin: false, store: true, ..net::Setup::default() };
    scenario_with(&setup, |net| {
        net.is_safe_at_once = true;
        for number in 0..5 {
            let connect = format!("10: <MQTT> 05 06 0000 {{11 00000E10}} <c{number}> {{18 00000708}} <w> <gone>");
            let client = net.join(V5, &connect, CONNACK);
            net.lose(client);
        }
        net.durable(V5, "here", CONNACK);
        let written = net.store().last();
        for zero in [ZERO.0 + 2_000, ZERO.0 - 2_000] {
            net.set_zero_on_the_wall(WallMillis(zero));
            assert_eq!(net.store().last(), written, "a small step");
        }
        for zero in [ZERO.0 + DAY_MS, ZERO.0 - DAY_MS] {
            net.set_zero_on_the_wall(WallMillis(zero));
            net.check_journals();
            // Nothing is put behind what cannot be written; later it is.
            net.store().set_failing(true);
            net.settle();
            let written = net.store().last();
            net.set_zero_on_the_wall(ZERO);
            assert_eq!(net.store().last(), written);
            net.store().set_failing(false);
            net.settle();
            net.check_journals();
        }
    });
}
