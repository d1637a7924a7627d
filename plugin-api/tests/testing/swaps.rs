//! Another version takes over, with what the one before has known.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plugin_api::testing::TestHost;
use plugin_api::*;

/// Counts the messages of each connection, and of all.
struct Counting<const VERSION: u32> {
    host: Host,
    all: AtomicU64,
}

#[handler]
impl<const VERSION: u32> Handler for Counting<VERSION> {
    type Connection = u64;

    const ON_SWAP: SwapRule = if VERSION == 3 { SwapRule::Disconnect } else { SwapRule::Fresh };

    fn init(host: Host, config: &str) -> Result<Self, Error> {
        if config == "wrong" { Err("no".into()) } else { Ok(Self { host, all: AtomicU64::new(0) }) }
    }
    fn new_connection(&self, _: &ConnectionInfo<'_>) -> u64 {
        0
    }
    fn handle_publish(&self, count: &mut u64, _: &Publish<'_>) -> Result<PublishVerdict, Error> {
        *count += 1;
        let all = self.all.fetch_add(1, Ordering::Relaxed) + 1;
        self.host.info(format_args!("version {VERSION}: {count} of {all}"));
        Ok(PublishVerdict::Forward)
    }
    fn export_state(&self, count: &mut u64) -> State {
        State::new(VERSION, count.to_le_bytes())
    }
    fn import_state(&self, swapped: &Swapped<'_>, state: StateView<'_>) -> Result<u64, Error> {
        if VERSION == 3 || swapped.client_id() == "unlucky" {
            return Err("another format".into());
        }
        Ok(u64::from_le_bytes(state.bytes().try_into()?))
    }
    fn handle_swapped(&self, _: &mut u64, swapped: &Swapped<'_>) {
        self.host.info(format_args!("fresh: {}", swapped.client_id()));
    }
    fn export_plugin_state(&self) -> State {
        State::new(VERSION, self.all.load(Ordering::Relaxed).to_le_bytes())
    }
    fn import_plugin_state(&self, state: StateView<'_>) -> Result<(), Error> {
        if state.version() > VERSION {
            return Err("from a later version".into());
        }
        self.all.store(u64::from_le_bytes(state.bytes().try_into()?), Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn connections_go_over_with_their_state_or_without_or_end() {
    let host = TestHost::new::<Counting<1>>("{}").expect("it starts");
    let (lucky, unlucky) = (host.connect("lucky").expect("let in"), host.connect("unlucky").expect("let in"));
    lucky.publish("a", "");
    unlucky.publish("a", "");
    assert_eq!(host.export_plugin_state().expect("exported"), State::new(1, 2_u64.to_le_bytes()));
    assert!(host.swap::<Counting<2>>("wrong").is_err_and(|error| error.to_string() == "no"));
    lucky.publish("a", "");
    let _ = host.take_logs();

    host.swap::<Counting<2>>("{}").expect("it is taken over");
    lucky.publish("a", "");
    unlucky.publish("a", "");
    let texts: Vec<String> = host.take_logs().into_iter().map(|line| line.text).collect();
    let refused = "import_state returned an error: another format";
    assert_eq!(texts, [refused, "fresh: unlucky", "version 2: 3 of 4", "version 2: 1 of 5"]);

    let error = host.swap::<Counting<1>>("{}").expect_err("it cannot read what the later one has written");
    assert!(error.to_string().contains("from a later version"), "{error}");
    host.import_plugin_state(&State::new(2, 100_u64.to_le_bytes())).expect("imported");
    lucky.publish("a", "");
    assert_eq!(host.take_logs().pop().expect("a line").text, "version 2: 4 of 101");

    host.swap::<Counting<3>>("{}").expect("it is taken over");
    let ended = lucky.ended().expect("its state could not be handed over");
    assert_eq!((ended.kind, ended.reason_code), (DisconnectKind::ServerDisconnect, ReasonCode::ADMINISTRATIVE_ACTION));
}

/// Begins with a timer, and with a message to itself.
struct Beating(Host);

#[handler]
impl Handler for Beating {
    type Connection = ();

    fn init(host: Host, config: &str) -> Result<Self, Error> {
        host.send_info_every(InfoTarget::Plugin, "beat", config.as_bytes(), Duration::from_secs(1))?;
        host.send_info(InfoTarget::Plugin, "begun", b"", None)?;
        if config == "9" { Err("no".into()) } else { Ok(Self(host)) }
    }
    fn new_connection(&self, _: &ConnectionInfo<'_>) {}
    fn handle_event(&self, event: &Info<'_>) {
        self.0.info(event.kind());
    }
}

#[test]
fn a_version_takes_over_the_timers_with_which_it_begins() {
    let host = TestHost::new::<Beating>("1").expect("it starts");
    let texts = || host.take_logs().into_iter().map(|line| line.text).collect::<Vec<_>>();
    host.advance(Duration::from_secs(2));
    assert_eq!(texts(), ["begun", "beat", "beat"]);
    host.swap::<Beating>("1").expect("it is taken over");
    assert!(host.swap::<Beating>("9").is_err());
    assert_eq!(host.timers().len(), 1);
    host.advance(Duration::from_secs(2));
    assert_eq!(texts(), ["begun", "beat", "beat"]);
    host.swap::<Beating>("2").expect("it is taken over");
    assert_eq!(host.timers().len(), 2, "with other data it is another one");
}
