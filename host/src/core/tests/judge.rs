//! Handlers that decide on deliveries and hear of everything: linked in, behind the scripted one, as many as a test asks for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use plugin_api::{
    Ack, Connected, ConnectionInfo, Deliver, DeliverVerdict, Error, Handler, Host, Info, InfoAction, Message,
    MessageNotice, Retained, State, StateView, handler,
};

use super::net::lock;
use crate::plugin::{Plugin, Services};

/// A delivery, as a judge is asked about it.
#[derive(Debug, Clone)]
pub(in crate::core) struct Seen {
    pub(in crate::core) client: String,
    pub(in crate::core) message: Message,
}

/// What a test answers in the place of a callback.
type Act<A, V> = Option<Box<dyn FnMut(A) -> V + Send>>;
type Answer<V> = Option<Box<dyn FnMut(&Seen) -> V + Send>>;

/// What one judge answers, and what it was asked and told: one line each.
#[derive(Default)]
pub(in crate::core) struct Docket {
    pub(in crate::core) deliver: Answer<Result<DeliverVerdict, Error>>,
    pub(in crate::core) connected: Act<(), ()>,
    pub(in crate::core) retained: Act<Host, ()>,
    pub(in crate::core) info: Act<(), Vec<InfoAction>>,
    /// It panics when it is asked for the state of a connection.
    pub(in crate::core) export_panics: bool,
    pub(in crate::core) lines: Vec<String>,
    pub(in crate::core) host: Option<Host>,
}

impl Docket {
    /// The lines since this was asked last that begin with this word; all others are forgotten.
    pub(in crate::core) fn take(&mut self, word: &str) -> Vec<String> {
        let lines = std::mem::take(&mut self.lines);
        lines.into_iter().filter(|line| line.split(' ').next() == Some(word)).collect()
    }

    /// The services of the host.
    pub(in crate::core) fn host(&self) -> Host {
        self.host.clone().expect("it was initialised")
    }
}

static DOCKETS: Mutex<Vec<(u64, Arc<Mutex<Docket>>)>> = Mutex::new(Vec::new());
static NEXT: AtomicU64 = AtomicU64::new(1);

const NAMES: [&str; 2] = ["first", "second"];

/// A test's end of some judges.
#[derive(Default)]
pub(super) struct Judges(Vec<Arc<Mutex<Docket>>>);

impl Judges {
    /// So many judges, and the plugins that they are.
    pub(super) fn appoint(count: usize, services: &Services) -> (Self, Vec<Plugin>) {
        let judge = |name: &&'static str| {
            let (docket, number) = (Arc::<Mutex<Docket>>::default(), NEXT.fetch_add(1, Ordering::Relaxed));
            lock(&DOCKETS).push((number, Arc::clone(&docket)));
            let plugin = Plugin::from_static::<Judge>(name, "1.0.0", &number.to_string(), services);
            (docket, plugin.expect("it accepts its configuration"))
        };
        let (dockets, plugins) = NAMES[..count].iter().map(judge).unzip();
        (Self(dockets), plugins)
    }

    pub(super) fn of(&self, place: usize) -> MutexGuard<'_, Docket> {
        lock(&self.0[place])
    }
}

struct Judge(Arc<Mutex<Docket>>);

impl Judge {
    fn note(&self, line: String) {
        lock(&self.0).lines.push(line);
    }

    fn notice(&self, what: &str, message: &MessageNotice<'_>, end: &str) {
        self.note(format!(
            "{what} {} {} '{}' q{} id={} token={}{end}",
            message.client_id(),
            message.topic(),
            message.payload().escape_ascii(),
            message.qos() as u8,
            message.packet_id().unwrap_or(0),
            message.token().unwrap_or(0),
        ));
    }
}

#[handler]
impl Handler for Judge {
    /// How many deliveries it was asked about.
    type Connection = u32;

    fn init(host: Host, config: &str) -> Result<Self, Error> {
        let number: u64 = config.parse()?;
        let mut dockets = lock(&DOCKETS);
        let place = dockets.iter().position(|(other, _)| *other == number).ok_or("no such docket")?;
        let (_, docket) = dockets.swap_remove(place);
        lock(&docket).host = Some(host);
        Ok(Self(docket))
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) -> u32 {
        0
    }

    fn handle_connected(&self, _: &mut u32, connected: &Connected<'_>) {
        self.note(format!(
            "connected {} present={} took_over={} expiry={} keep_alive={}",
            connected.client_id(),
            connected.session_present(),
            connected.took_over(),
            connected.session_expiry_secs(),
            connected.keep_alive_secs(),
        ));
        if let Some(connected) = &mut lock(&self.0).connected {
            connected(());
        }
    }

    fn handle_deliver(&self, asked: &mut u32, deliver: &Deliver<'_>) -> Result<DeliverVerdict, Error> {
        *asked += 1;
        let line = format!(
            "deliver {} {} '{}' q{} retain={} shared={} ids={:?} {:?} {:?}{}",
            deliver.client_id(),
            deliver.topic(),
            deliver.payload().escape_ascii(),
            deliver.qos() as u8,
            u8::from(deliver.retain()),
            u8::from(deliver.shared()),
            deliver.identifiers(),
            deliver.origin(),
            deliver.cause(),
            deliver.token().map_or_else(String::new, |token| format!(" token={token}")),
        );
        let seen = Seen { client: deliver.client_id().to_owned(), message: Message::from(deliver) };
        let mut docket = lock(&self.0);
        docket.lines.push(line);
        docket.deliver.as_mut().map_or(Ok(DeliverVerdict::Send), |answer| answer(&seen))
    }

    fn handle_puback(&self, _: &mut u32, ack: &Ack<'_>) {
        let token = ack.token().unwrap_or(0);
        self.note(format!("puback {:?} {} {:02X} token={token}", ack.kind(), ack.packet_id(), ack.reason_code().0));
    }

    fn handle_info(&self, _: &mut u32, _: &Info<'_>) -> Result<Vec<InfoAction>, Error> {
        Ok(lock(&self.0).info.as_mut().map_or_else(Vec::new, |answer| answer(())))
    }

    fn handle_message_dropped(&self, message: &MessageNotice<'_>) {
        self.notice("dropped", message, &format!(" {:?}", message.drop_reason()));
    }

    fn handle_message_acknowledged(&self, message: &MessageNotice<'_>) {
        self.notice("acknowledged", message, &format!(" {:02X}", message.reason_code().0));
    }

    fn handle_message_expired(&self, message: &MessageNotice<'_>) {
        self.notice("expired", message, "");
    }

    fn handle_retained(&self, retained: &Retained<'_>) {
        let payload = retained.payload().escape_ascii();
        self.note(format!("retained {} '{payload}' {:?}", retained.topic(), retained.change()));
        let mut docket = lock(&self.0);
        if let Some(host) = docket.host.clone()
            && let Some(act) = &mut docket.retained
        {
            act(host);
        }
    }

    fn export_state(&self, asked: &mut u32) -> State {
        assert!(!lock(&self.0).export_panics, "as asked");
        State::new(7, asked.to_string())
    }

    fn handle_session_expired(&self, client_id: &str, state: Option<StateView<'_>>) {
        let state = state.map(|state| format!(" v{} '{}'", state.version(), state.bytes().escape_ascii()));
        self.note(format!("session_expired {client_id}{}", state.unwrap_or_default()));
    }
}
