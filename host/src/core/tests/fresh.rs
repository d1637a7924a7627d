//! Versions to which no state is handed over: a connection gets a fresh one, or is disconnected, as the author says.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plugin_api::{
    Connect, ConnectVerdict, Connected, ConnectionInfo, DisconnectReason, Error, Handler, Host, Publish,
    PublishVerdict, ReasonCode, SwapRule, Swapped, handler,
};

use super::net::{connect_packet, lock};
use super::*;
use crate::clock::Clock;
use crate::plugin::{Flip, Plugin, Services};

const ON_PROBATION: Flip = Flip { per_mille: None, probation: Duration::from_secs(3600), budget: 100 };

const FOR_GOOD: Flip = Flip { per_mille: None, probation: Duration::ZERO, budget: 0 };

const PUBLISH: &str = "32: <t> 0001 [{}] 'x'";
const FORWARDED: &str = "40: 0001 10";
const REFUSED: &str = "40: 0001 87";

/// What an instance was told, and how it is to behave.
#[derive(Default)]
struct Notes {
    lines: Vec<String>,
    /// It panics in `handle_swapped`.
    panics: bool,
    live: usize,
}

thread_local! {
    /// The notes of the instance that is initialised next on this thread.
    static NEXT: RefCell<Option<Arc<Mutex<Notes>>>> = const { RefCell::new(None) };
}

/// How many messages it was asked about.
struct State(Arc<Mutex<Notes>>, u32);

impl Drop for State {
    fn drop(&mut self) {
        lock(&self.0).live -= 1;
    }
}

/// A version without `import_state` and `handle_connect` that refuses each message.
macro_rules! version {
    ($name:ident, $rule:expr) => {
        struct $name(Arc<Mutex<Notes>>);

        #[handler]
        impl Handler for $name {
            type Connection = State;

            const ON_SWAP: SwapRule = $rule;

            fn init(_: Host, _: &str) -> Result<Self, Error> {
                Ok(Self(NEXT.take().ok_or("no notes")?))
            }

            fn new_connection(&self, _: &ConnectionInfo<'_>) -> State {
                lock(&self.0).live += 1;
                State(Arc::clone(&self.0), 0)
            }

            fn handle_publish(&self, state: &mut State, _: &Publish<'_>) -> Result<PublishVerdict, Error> {
                state.1 += 1;
                lock(&self.0).lines.push(format!("publish {}", state.1));
                Ok(PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED))
            }

            fn handle_swapped(&self, state: &mut State, swapped: &Swapped<'_>) {
                let mut notes = lock(&self.0);
                let (who, version, back) = (swapped.client_id(), swapped.protocol_version(), swapped.is_rollback());
                let line = format!("swapped {who} {version} {} {} {back}", swapped.from_version(), state.1);
                notes.lines.push(line);
                let panics = notes.panics;
                drop(notes);
                assert!(!panics, "as asked");
            }

            fn handle_disconnect(&self, _: &mut State, _: &DisconnectReason<'_>) {
                lock(&self.0).lines.push("disconnect".to_owned());
            }

            fn stop(&self) {
                lock(&self.0).lines.push("stop".to_owned());
            }
        }
    };
}

version!(Fresh, SwapRule::Fresh);
version!(Leaves, SwapRule::Disconnect);

/// A version in the place of the scripted one.
fn flip<H: Handler>(net: &Net, how: &Flip) -> Arc<Mutex<Notes>> {
    let notes = Arc::<Mutex<Notes>>::default();
    NEXT.set(Some(Arc::clone(&notes)));
    put(net, Plugin::from_static::<H>("puppet", "2.0.0", "{}", &services(net)), how);
    notes
}

fn services(net: &Net) -> Services {
    Services::new(net.shared.mailboxes.clone(), Clock::start(), 1 << 20)
}

fn put(net: &Net, plugin: Result<Plugin, crate::plugin::LoadError>, how: &Flip) {
    net.shared.chain.flip(0, &Arc::new(plugin.expect("it has its notes")), how).expect("nothing is in the way");
}

/// States of the scripted one that exist.
fn live(net: &Net) -> usize {
    net.script().live
}

fn lines(notes: &Arc<Mutex<Notes>>) -> Vec<String> {
    std::mem::take(&mut lock(notes).lines)
}

#[test]
fn connections_get_a_fresh_state_and_the_plugin_hears_of_it() {
    scenario(|net| {
        let (busy, idle) = (net.v5("busy"), net.open(V3_1_1));
        net.send(idle, &connect_packet(V3_1_1, "02", 0, "", "idle"));
        net.expect(idle, "20: 00 00");
        let notes = flip::<Fresh>(net, &FOR_GOOD);
        net.send(busy, PUBLISH);
        net.expect(busy, REFUSED);
        net.settle();
        let mut told = lines(&notes);
        told.sort();
        assert_eq!(told, ["publish 1", "swapped busy 5 1.0.0 0 false", "swapped idle 4 1.0.0 0 false"]);
        assert_eq!((lock(&notes).live, net.script().live), (2, 0));
        assert_eq!(net.script().take("disconnect"), [""; 0]);
        assert!(!net.shared.chain.retire(), "nobody has the old one any more");
        // It is told when it is let go itself.
        net.flip("3.0.0", &FOR_GOOD, |_| {});
        net.settle();
        assert_eq!((lines(&notes), lock(&notes).live), (vec![], 0));
        assert!(!net.shared.chain.retire());
        assert_eq!(lines(&notes), ["stop"]);
    });
}

/// A swap of one plugin beside a canary of another one is for all connections, those of the canary too.
#[test]
fn plugins_are_swapped_beside_a_canary_of_another_one() {
    scenario_with(&Setup { judges: 1, ..Setup::default() }, |net| {
        let all = Flip { per_mille: Some(1000), ..ON_PROBATION };
        let canary = flip::<Fresh>(net, &all);
        let client = net.v5("c");
        let other = Arc::<Mutex<Notes>>::default();
        NEXT.set(Some(Arc::clone(&other)));
        let plugin = Plugin::from_static::<Leaves>("first", "2.0.0", "{}", &services(net)).expect("it has its notes");
        net.shared.chain.flip(1, &Arc::new(plugin), &FOR_GOOD).expect("it is another one's canary");
        net.settle();
        net.expect_closed(client, "E0: 98");
        net.v5("d");
        assert_eq!((lock(&canary).live, lock(&other).live), (1, 1));
        assert_eq!(net.shared.chain.trials().len(), 1);
    });
}

/// A state that is larger than one may be is not handed over.
#[test]
fn a_state_has_a_bound() {
    scenario(|net| {
        let client = net.v5("c");
        // It could be read, as any other one.
        let large = format!("{}1 c", "0".repeat(1 << 20));
        net.script().export_text = Some(large);
        net.flip("2.0.0", &FOR_GOOD, |_| {});
        net.settle();
        assert_eq!(net.script().take("import"), [""; 0]);
        assert_eq!(live(net), 1, "it gets a fresh one");
        net.send(client, PUBLISH);
        net.expect(client, FORWARDED);
    });
}

#[test]
fn a_rollback_finds_the_state_that_was_there_before() {
    scenario(|net| {
        let client = net.v5("c");
        net.send(client, PUBLISH);
        net.expect(client, FORWARDED);
        let notes = flip::<Fresh>(net, &ON_PROBATION);
        net.send(client, PUBLISH);
        net.expect(client, REFUSED);
        net.shared.chain.roll_back(None).expect("it is on probation");
        net.send(client, PUBLISH);
        net.expect(client, FORWARDED);
        assert_eq!((lock(&notes).live, net.script().live), (0, 1));
        // The next version hears how often it was asked: once before, and once after.
        net.flip("3.0.0", &FOR_GOOD, |_| {});
        net.settle();
        assert_eq!(net.script().take("import"), ["import c 2 from 1.0.0"]);
    });
}

#[test]
fn connections_are_disconnected_where_the_author_says_so() {
    scenario(|net| {
        let (busy, idle) = (net.v5("busy"), net.v5("idle"));
        let notes = flip::<Leaves>(net, &FOR_GOOD);
        // What it sends is nobody's to decide any more.
        net.send(busy, PUBLISH);
        net.expect_closed(busy, "E0: 98");
        net.settle();
        net.expect_closed(idle, "E0: 98");
        let told = net.script().calls.iter().filter(|line| line.starts_with("disconnect ")).count();
        assert_eq!((told, net.script().live), (2, 0), "who had them hears of the end");
        assert_eq!(net.script().take("publish"), [""; 0]);
        assert_eq!(lines(&notes), [""; 0]);
        // They come back to the new version.
        let client = net.v5("busy");
        net.send(client, PUBLISH);
        net.expect(client, REFUSED);
    });
}

#[test]
fn who_panics_when_it_hears_of_a_connection_does_not_get_it() {
    for how in [ON_PROBATION, FOR_GOOD] {
        scenario(|net| {
            let client = net.v5("c");
            let notes = flip::<Fresh>(net, &how);
            lock(&notes).panics = true;
            net.send(client, PUBLISH);
            if how.probation.is_zero() {
                net.expect_closed(client, "E0: 83");
                assert_eq!(net.script().take("publish"), [""; 0]);
            } else {
                // The one before still decides.
                net.expect(client, FORWARDED);
                assert_eq!(net.shared.chain.trials()[0].plugin.errors_left(), Some(99));
            }
            assert_eq!((lines(&notes).len(), lock(&notes).live), (1, 0));
        });
    }
}

/// Panics on the pool: when it is told of a client that is connected, or about who connects.
struct Fainting;

#[handler]
impl Handler for Fainting {
    type Connection = ();

    fn init(_: Host, _: &str) -> Result<Self, Error> {
        Ok(Self)
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) {}

    #[blocking]
    fn handle_connect(&self, _: &mut (), connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        assert!(connect.client_id() != "refused", "as asked");
        Ok(ConnectVerdict::accept())
    }

    #[blocking]
    fn handle_connected(&self, _: &mut (), _: &Connected<'_>) {
        panic!("as asked");
    }
}

/// Sends CONNECT, and waits until the plugin on the pool has done what there is to do.
fn connect_on_pool(net: &mut Net, client_id: &str) -> usize {
    let client = net.open(V5);
    net.send(client, &connect_packet(V5, "02", 0, "", client_id));
    // It is made, asked, and told, each after the other has come back.
    for _ in 0..3 {
        net.shared.chain.plugins()[0].drain_pool();
        net.settle();
    }
    client
}

/// A connection that the old version has panicked about, which nobody has noticed yet, is not revived by a fresh state.
#[test]
fn a_failed_connection_gets_no_fresh_state() {
    scenario(|net| {
        put(net, Plugin::from_static::<Fainting>("puppet", "2.0.0", "{}", &services(net)), &FOR_GOOD);
        let client = connect_on_pool(net, "c");
        net.expect(client, CONNACK);
        let notes = flip::<Fresh>(net, &FOR_GOOD);
        net.settle();
        net.expect_closed(client, "E0: 83");
        assert_eq!(lock(&notes).live, 0);
    });
}

/// Panics about who connects.
struct Doorkeeper;

#[handler]
impl Handler for Doorkeeper {
    type Connection = ();

    fn init(_: Host, _: &str) -> Result<Self, Error> {
        Ok(Self)
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) {}

    fn handle_connect(&self, _: &mut (), _: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        panic!("as asked");
    }
}

/// The new version is asked who may connect, and panics, at once or on the pool. The one before has no opinion on that, which
/// is no consent: though everybody may connect here where no plugin decides, nobody is let in who was to be decided on.
#[test]
fn nobody_is_let_in_by_who_has_no_opinion() {
    scenario(|net| {
        flip::<Fresh>(net, &FOR_GOOD);
        net.v5("before");
        put(net, Plugin::from_static::<Doorkeeper>("puppet", "3.0.0", "{}", &services(net)), &ON_PROBATION);
        let client = net.open(V5);
        net.send(client, &connect_packet(V5, "02", 0, "", "refused"));
        net.expect_closed(client, "20: 00 80 [{}]");
        net.shared.chain.roll_back(None).expect("it is on probation");
        put(net, Plugin::from_static::<Fainting>("puppet", "4.0.0", "{}", &services(net)), &ON_PROBATION);
        let client = connect_on_pool(net, "refused");
        net.expect_closed(client, "20: 00 80 [{}]");
    });
}
