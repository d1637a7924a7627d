//! A version that decides on deliveries, in the place of one that does not, or before it.

use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plugin_api::{
    AuthVerdict, Connected, ConnectionInfo, Deliver, DeliverVerdict, Error, Handler, Host, HostError, Publish,
    PublishVerdict, ReasonCode, State, Ticket, handler,
};

use super::net::{connect_packet, lock};
use super::*;
use crate::clock::Clock;
use crate::plugin::{CallbackStats, Flip, Plugin, Services};

/// All connections at once, with a budget of a hundred errors for an hour.
const ON_PROBATION: Flip = Flip { per_mille: None, probation: Duration::from_secs(3600), budget: 100 };

/// What a test writes down for one instance.
#[derive(Default)]
struct Orders {
    /// It panics when it is asked about a delivery, rather than drop it.
    panics: bool,
    /// It takes a ticket for each publish.
    defers: bool,
    tickets: Vec<Ticket<PublishVerdict>>,
    asked: usize,
}

thread_local! {
    /// The orders of the instance that is initialised next on this thread.
    static NEXT: RefCell<Option<Arc<Mutex<Orders>>>> = const { RefCell::new(None) };
}

struct Wary {
    orders: Arc<Mutex<Orders>>,
    host: Host,
}

#[handler]
impl Handler for Wary {
    type Connection = ();

    fn init(host: Host, _: &str) -> Result<Self, Error> {
        let orders = NEXT.take().ok_or("no orders")?;
        Ok(Self { orders, host })
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) {}

    fn handle_publish(&self, _: &mut (), _: &Publish<'_>) -> Result<PublishVerdict, Error> {
        let mut orders = lock(&self.orders);
        if !orders.defers {
            return Ok(PublishVerdict::Forward);
        }
        let (ticket, later) = self.host.ticket()?;
        orders.tickets.push(ticket);
        Ok(PublishVerdict::Later(later))
    }

    fn handle_deliver(&self, _: &mut (), _: &Deliver<'_>) -> Result<DeliverVerdict, Error> {
        let mut orders = lock(&self.orders);
        orders.asked += 1;
        let panics = orders.panics;
        drop(orders);
        assert!(!panics, "as asked");
        Ok(DeliverVerdict::Drop)
    }

    fn export_state(&self, _: &mut ()) -> State {
        State::new(1, "0 ") // As the scripted one's.
    }
}

/// An instance in the place of the scripted one.
fn flip(net: &Net, how: &Flip) -> Arc<Mutex<Orders>> {
    let orders = Arc::<Mutex<Orders>>::default();
    NEXT.set(Some(Arc::clone(&orders)));
    let services = Services::new(net.shared.mailboxes.clone(), Clock::start(), 1 << 20);
    let plugin = Plugin::from_static::<Wary>("puppet", "wary", "{}", &services).expect("it has its orders");
    net.shared.chain.flip(0, &Arc::new(plugin), how).expect("nothing is in the way");
    orders
}

fn of(orders: &Arc<Mutex<Orders>>) -> MutexGuard<'_, Orders> {
    lock(orders)
}

/// A number of `handle_publish`; those of a callback that was never called are not shown.
fn counted(plugin: &Plugin, number: impl FnOnce(&CallbackStats) -> u64) -> u64 {
    plugin.stats().callbacks.iter().find(|one| one.name == "handle_publish").map_or(0, number)
}

/// The version on probation panics about a delivery while it owes an answer about a publish, and its client goes back to
/// the version before.
fn owing(net: &mut Net) -> (usize, Arc<Mutex<Orders>>, [Arc<Plugin>; 2]) {
    let (client, from) = (net.v5("c"), net.v5("from"));
    net.subscribe(client, "s", 0);
    let orders = flip(net, &ON_PROBATION);
    net.settle();
    of(&orders).defers = true;
    net.send(client, "32: <t> 0001 {} 'x'");
    of(&orders).defers = false;
    of(&orders).panics = true;
    net.send(from, "30: <s> {} 'm'");
    net.expect(client, "30: <s> {} 'm'");
    let trial = net.shared.chain.trials().remove(0);
    (client, orders, [trial.plugin, trial.previous])
}

#[test]
fn deadline_is_that_of_who_was_asked() {
    scenario(|net| {
        let (client, orders, [asked, other]) = owing(net);
        net.advance(5_000);
        net.expect(client, "40: 0001 83");
        let counted = [&asked, &other].map(|plugin| counted(plugin, |stats| stats.late));
        assert_eq!(counted, [1, 0]);
        assert_eq!(asked.errors_left(), Some(98), "a panic, and a deadline");
        let ticket = of(&orders).tickets.remove(0);
        assert_eq!(ticket.answer(PublishVerdict::Forward), Err(HostError::Gone), "nobody waits");
        drop((asked, other));
        // The next one is asked of the version that the client has now.
        net.send(client, "32: <t> 0002 {} 'y'");
        net.expect(client, "40: 0002 10");
        assert_eq!(net.script().take("publish").len(), 1);
    });
}

#[test]
fn late_answer_is_that_of_who_was_asked() {
    for fails in [false, true] {
        scenario(|net| {
            let (client, orders, [asked, other]) = owing(net);
            let ticket = of(&orders).tickets.remove(0);
            if fails {
                ticket.fail("some error").expect("it is awaited");
            } else {
                ticket.answer(PublishVerdict::reject(ReasonCode::QUOTA_EXCEEDED)).expect("it is awaited");
            }
            net.settle();
            net.expect(client, if fails { "40: 0001 80" } else { "40: 0001 97" });
            let counted = [&asked, &other].map(|plugin| counted(plugin, |stats| 10 * stats.errors + stats.refusals));
            assert_eq!(counted, [if fails { 10 } else { 1 }, 0]);
            assert_eq!(net.script().take("publish").len(), 0);
        });
    }
}

/// A version that is let go while it owes an answer stays until it has given it, though no connection has it any more.
#[test]
fn who_was_asked_stays_until_it_has_answered() {
    scenario(|net| {
        let (client, orders, plugins) = owing(net);
        drop(plugins);
        net.shared.chain.roll_back(None).expect("it is on probation");
        net.settle();
        assert!(net.shared.chain.retire(), "it owes an answer");
        of(&orders).tickets.remove(0).answer(PublishVerdict::Handled).expect("it is awaited");
        net.settle();
        net.expect(client, "40: 0001");
        assert!(!net.shared.chain.retire());
    });
}

/// The version before has no `handle_auth`, and so no opinion: nobody has let the client stay.
#[test]
fn re_authentication_does_not_fall_back_to_who_has_no_opinion() {
    scenario(|net| {
        net.script().auth = Some(Box::new(|_| Ok(AuthVerdict::Ok)));
        let client = net.open(V5);
        net.send(client, &connect_packet(V5, "02", 0, "15 0001 6D", "c"));
        net.expect(client, "20: 00 00 [{21 0400 27 01000000 22 0040 15 0001 6D}]");
        flip(net, &Flip { probation: Duration::ZERO, ..ON_PROBATION });
        net.settle();
        net.flip("2.0.0", &ON_PROBATION, |script| script.auth = Some(Box::new(|_| panic!("as asked"))));
        net.settle();
        let trial = net.shared.chain.trials().remove(0);
        net.send(client, "F0: 19 [{15 0001 6D}]");
        net.expect_closed(client, "E0: 83");
        assert_eq!(net.script().take("auth").len(), 1);
        assert_eq!(trial.plugin.errors_left(), Some(99));
    });
}

fn refusing(script: &mut super::handler::Script) {
    script.import = Some(Box::new(|_| Err("not this one".into())));
}

/// Two clients with a version that drops each delivery, the second one subscribed to `s`, and what that has been asked.
fn dropping(net: &mut Net) -> (usize, usize, Arc<Mutex<Orders>>) {
    let (from, to) = (net.v5("from"), net.v5("to"));
    net.subscribe(to, "s", 1);
    let orders = flip(net, &Flip { probation: Duration::ZERO, ..ON_PROBATION });
    net.settle();
    (from, to, orders)
}

/// Sends a message of each QoS that the second client would get, and says how many there are.
fn publish_all(net: &mut Net, from: usize) -> usize {
    net.send(from, "30: <s> {} 'a' | 32: <s> 0001 {} 'b'");
    net.expect(from, "40: 0001");
    2
}

/// The new version has no `handle_deliver`, and its `import_state` refuses: the connection stays with the old one, which has
/// to be asked about what it is sent.
#[test]
fn deliveries_to_who_stays_are_still_decided_on() {
    scenario(|net| {
        let (from, to, orders) = dropping(net);
        net.flip("2.0.0", &ON_PROBATION, refusing);
        net.settle();
        let count = publish_all(net, from);
        net.expect(to, "");
        assert_eq!(of(&orders).asked, count);
        // When it has passed, the new one decides about all, and nobody is asked about deliveries.
        net.shared.chain.settle_all();
        net.settle();
        publish_all(net, from);
        net.expect(to, "30: <s> {} 'a' | 32: <s> 0001 {} 'b'");
        assert_eq!(of(&orders).asked, count);
        assert!(!net.cores.iter().any(|core| core.wants(crate::plugin::Callback::Deliver)));
    });
}

/// The next version refuses the connection as well: it stays with the one before the previous one.
#[test]
fn deliveries_to_who_stays_once_more_are_still_decided_on() {
    scenario(|net| {
        let (from, to, orders) = dropping(net);
        net.flip("2.0.0", &ON_PROBATION, refusing);
        net.settle();
        net.flip("3.0.0", &ON_PROBATION, refusing);
        net.settle();
        let count = publish_all(net, from);
        net.expect(to, "");
        assert_eq!(of(&orders).asked, count);
        net.shared.chain.settle_all();
        net.settle();
        publish_all(net, from);
        net.expect(to, "30: <s> {} 'a' | 32: <s> 0001 {} 'b'");
        assert!(!net.cores.iter().any(|core| core.wants(crate::plugin::Callback::Deliver)));
    });
}

/// The same for who cannot go over yet, though the old version will not come back.
#[test]
fn deliveries_to_who_waits_are_still_decided_on() {
    scenario(|net| {
        let (from, to, orders) = dropping(net);
        of(&orders).defers = true;
        net.send(to, "32: <t> 0001 {} 'x'");
        of(&orders).defers = false;
        net.flip("2.0.0", &Flip { probation: Duration::ZERO, ..ON_PROBATION }, |_| {});
        net.settle();
        let count = publish_all(net, from);
        net.expect(to, "");
        assert_eq!(of(&orders).asked, count);
        of(&orders).tickets.remove(0).answer(PublishVerdict::Handled).expect("it is awaited");
        net.settle();
        net.expect(to, "40: 0001");
        net.advance(200);
        publish_all(net, from);
        net.expect(to, "30: <s> {} 'a' | 32: <s> 0001 {} 'b'");
        assert!(!net.cores.iter().any(|core| core.wants(crate::plugin::Callback::Deliver)));
    });
}

/// Tells its plugin on the pool that a client is connected, which takes until the gate is open.
struct Gated(Arc<Gate>);

type Gate = (Mutex<bool>, Condvar);

thread_local! {
    static NEXT_GATE: RefCell<Option<Arc<Gate>>> = const { RefCell::new(None) };
}

#[handler]
impl Handler for Gated {
    type Connection = ();

    fn init(_: Host, _: &str) -> Result<Self, Error> {
        Ok(Self(NEXT_GATE.take().ok_or("no gate")?))
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) {}

    #[blocking]
    fn handle_connected(&self, _: &mut (), _: &Connected<'_>) {
        let mut is_open = lock(&self.0.0);
        while !*is_open {
            is_open = self.0.1.wait(is_open).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A connection arrives at a worker that has moved all of its connections, and its state is with the pool: it goes over
/// when that is back, though its client says nothing.
#[test]
fn connection_that_arrives_behind_the_sweep_goes_over_when_it_can() {
    scenario_in(Mode { workers: 3, bytewise: false }, &Setup::default(), |net| {
        let gate = Arc::<Gate>::default();
        NEXT_GATE.set(Some(Arc::clone(&gate)));
        let services = Services::new(net.shared.mailboxes.clone(), Clock::start(), 1 << 20);
        let gated =
            Arc::new(Plugin::from_static::<Gated>("puppet", "gated", "{}", &services).expect("it has its gate"));
        let for_good = Flip { probation: Duration::ZERO, ..ON_PROBATION };
        net.shared.chain.flip(0, &gated, &for_good).expect("nothing is in the way");
        net.settle();
        for number in 0..6 {
            let client = net.open(V5);
            let (worker, slot) = net.place(client);
            let connect = super::net::bytes(V5, &super::net::connect_packet(V5, "02", 0, "", &format!("c{number}")));
            let now = net.now;
            net.cores[worker].feed(slot, &connect, now);
        }
        net.flip("2.0.0", &for_good, |_| {});
        net.settle();
        assert_eq!((gated.connections(), net.script().live), (6, 0));
        let (workers, epoch) = (net.workers(), net.shared.chain.epoch());
        assert_eq!(net.shared.chain.wait_conformed(workers, epoch, Duration::ZERO), Some(6));
        *lock(&gate.0) = true;
        gate.1.notify_all();
        gated.drain_pool();
        net.advance(100);
        assert_eq!((gated.connections(), net.script().live), (0, 6));
        assert_eq!(net.shared.chain.wait_conformed(workers, epoch, Duration::ZERO), Some(0));
        gated.drain_pool();
        drop(gated);
    });
}
