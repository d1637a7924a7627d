//! A handler, linked in and called through the real boundary, whose answers a test writes down.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use plugin_api::{
    Ack, Auth, AuthVerdict, Callback, Connect, ConnectVerdict, ConnectionInfo, DisconnectReason, Error, Handler, Host,
    Info, InfoAction, Publish, PublishVerdict, State, StateView, Subscribe, SubscribeVerdict, Swapped, Transport,
    TransportKind, Unsubscribe, UnsubscribeVerdict, handler,
};

use super::judge::Judges;
use super::net::lock;
use crate::clock::Clock;
use crate::core::mailbox::Mailboxes;
use crate::limits::Limits;
use crate::plugin::{Chain, Plugin, Services, Watch};

/// What a callback is asked, as text, and as far as a script may want to copy it.
#[derive(Debug, Clone)]
pub(in crate::core) struct Asked {
    /// Whose connection `handle_connect` asks about.
    pub(in crate::core) connection: Option<u64>,
    /// The line in [`Script::calls`].
    pub(in crate::core) line: String,
    /// The message of `handle_publish`, as `Message::from` copies it.
    pub(in crate::core) message: Option<plugin_api::Message>,
    /// Authentication Data, or the bytes for `handle_info`.
    pub(in crate::core) data: Option<Vec<u8>>,
    /// Services of the instance that is asked; after a swap there may be two.
    pub(in crate::core) host: Host,
}

/// Answers of one callback. One that panics is how a test has a plugin fail.
type Answer<V> = Option<Box<dyn FnMut(&Asked) -> V + Send>>;

/// What the handlers answer, and what they were asked. A callback that is not scripted lets everything pass.
#[derive(Default)]
pub(in crate::core) struct Script {
    pub(in crate::core) new_connection: Answer<()>,
    pub(in crate::core) connect: Answer<Result<ConnectVerdict, Error>>,
    pub(in crate::core) auth: Answer<Result<AuthVerdict, Error>>,
    pub(in crate::core) publish: Answer<Result<PublishVerdict, Error>>,
    pub(in crate::core) subscribe: Answer<Result<SubscribeVerdict, Error>>,
    pub(in crate::core) unsubscribe: Answer<Result<UnsubscribeVerdict, Error>>,
    pub(in crate::core) puback: Answer<()>,
    pub(in crate::core) info: Answer<Result<Vec<InfoAction>, Error>>,
    pub(in crate::core) export: Answer<()>,
    /// What is exported in the place of the state.
    pub(in crate::core) export_text: Option<String>,
    pub(in crate::core) import: Answer<Result<(), Error>>,
    pub(in crate::core) event: Answer<()>,
    /// What was asked and told, one line each.
    pub(in crate::core) calls: Vec<String>,
    /// States of connections that exist.
    pub(in crate::core) live: usize,
    /// The plugin is made without `handle_puback`: acknowledgements need not be looked at one by one.
    pub(in crate::core) hears_no_acknowledgements: bool,
    pub(in crate::core) host: Option<Host>,
    /// What it does in `init`.
    pub(in crate::core) begins: Option<fn(&Host)>,
}

impl Script {
    /// The calls of the callback with this name since this was asked last; others are forgotten.
    pub(in crate::core) fn take(&mut self, callback: &str) -> Vec<String> {
        let calls = std::mem::take(&mut self.calls);
        let words = |line: &String| line.split(' ').next().map(str::to_owned);
        calls.into_iter().filter(|line| words(line).as_deref() == Some(callback)).collect()
    }

    /// Forgets all answers.
    pub(in crate::core) fn answer_nothing(&mut self) {
        let (live, host) = (self.live, self.host.take());
        *self = Self { live, host, ..Self::default() };
    }

    /// The services of the host.
    pub(in crate::core) fn host(&self) -> Host {
        self.host.clone().expect("the plugin was initialised")
    }
}

/// Scripts of plugins that are being initialised: the way from a test to its plugin leads through the configuration.
static SCRIPTS: Mutex<Vec<(u64, Arc<Mutex<Script>>)>> = Mutex::new(Vec::new());
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A test's end of a [`Script`].
#[derive(Default)]
pub(super) struct Scripted(Arc<Mutex<Script>>);

impl Scripted {
    pub(super) fn script(&self) -> MutexGuard<'_, Script> {
        lock(&self.0)
    }

    /// A chain with the scripted plugin, or without it, and so many judges behind it.
    pub(super) fn chain(
        scripted: Option<&Self>,
        (judges, slow): (usize, bool),
        mailboxes: &Mailboxes,
        limits: &Limits,
    ) -> (Chain, Judges) {
        let services = Services::new(mailboxes.clone(), Clock::start(), 1 << 20);
        let (judges, mut others) = Judges::appoint(judges, &services);
        others.extend(slow.then(|| super::deliver::slow(&services)));
        let puppet = scripted.map(|scripted| scripted.plugin("1.0.0", mailboxes, limits));
        let chain = Chain::new(puppet.into_iter().chain(others).collect());
        (chain.expect("plugins with different names"), judges)
    }

    /// The scripted plugin.
    pub(super) fn plugin(&self, version: &'static str, mailboxes: &Mailboxes, limits: &Limits) -> Plugin {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        lock(&SCRIPTS).push((number, Arc::clone(&self.0)));
        let services = Services::new(mailboxes.clone(), Clock::start(), 1 << 20)
            .with_tickets_max(limits.tickets_max)
            .bounded_by(limits)
            .watched_by(Watch::new(0, limits), limits);
        let plugin = Plugin::from_static::<Puppet>("puppet", version, &number.to_string(), &services);
        let plugin = plugin.expect("it accepts its configuration");
        if self.script().hears_no_acknowledgements { plugin.without(Callback::Puback) } else { plugin }
    }
}

struct Puppet {
    script: Arc<Mutex<Script>>,
    host: Host,
}

/// The state of a connection; it knows whose it is.
struct Strings {
    script: Arc<Mutex<Script>>,
    client: String,
    /// How often it was asked about a message; goes over to the next version.
    published: u32,
}

impl Drop for Strings {
    fn drop(&mut self) {
        lock(&self.script).live -= 1;
    }
}

impl Puppet {
    fn asked(&self, line: String) -> Asked {
        Asked { connection: None, line, message: None, data: None, host: self.host.clone() }
    }

    /// Notes what is known of a peer besides its address, if anything is.
    fn note_transport(&self, when: &str, transport: &Transport<'_>) {
        if transport.kind() != TransportKind::Tcp {
            let agent = transport.http().and_then(|http| http.header("user-agent")).map(String::from_utf8_lossy);
            let names = transport.certificate().map(|certificate| certificate.alternative_names().collect::<Vec<_>>());
            let (names, agent) = (names.unwrap_or_default(), agent.unwrap_or_default());
            lock(&self.script).calls.push(format!("{when} {transport:?} {names:?} {agent}"));
        }
    }

    /// Notes a call, and answers it as it is scripted.
    fn answer<V>(
        &self,
        line: String,
        detail: impl FnOnce(&mut Asked),
        scripted: impl FnOnce(&mut Script) -> &mut Answer<V>,
    ) -> Option<V> {
        let mut asked = self.asked(line);
        detail(&mut asked);
        let mut script = lock(&self.script);
        script.calls.push(asked.line.clone());
        scripted(&mut script).as_mut().map(|answer| answer(&asked))
    }
}

#[handler]
impl Handler for Puppet {
    type Connection = Strings;

    fn init(host: Host, config: &str) -> Result<Self, Error> {
        let number: u64 = config.parse()?;
        let mut scripts = lock(&SCRIPTS);
        let place = scripts.iter().position(|(other, _)| *other == number).ok_or("no such script")?;
        let (_, script) = scripts.swap_remove(place);
        lock(&script).host = Some(host.clone());
        if let Some(begins) = lock(&script).begins {
            begins(&host);
        }
        Ok(Self { script, host })
    }

    fn new_connection(&self, info: &ConnectionInfo<'_>) -> Strings {
        let asked = self.asked(info.listener().to_owned());
        self.note_transport("new", &info.transport());
        let mut script = lock(&self.script);
        if let Some(answer) = &mut script.new_connection {
            answer(&asked);
        }
        script.live += 1;
        Strings { script: Arc::clone(&self.script), client: String::new(), published: 0 }
    }

    fn handle_connect(&self, state: &mut Strings, connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        state.client = connect.client_id().to_owned();
        self.note_transport("asked", &connect.transport());
        let line = format!(
            "connect {} v{} keep_alive={} clean={} user={:?} password={:?} will={}",
            state.client,
            connect.protocol_version(),
            connect.keep_alive_secs(),
            connect.clean_start(),
            connect.username(),
            connect.password().map(|password| String::from_utf8_lossy(password).into_owned()),
            connect.will().map_or_else(String::new, |will| will.topic().to_owned()),
        );
        let answer =
            self.answer(line, |asked| asked.connection = Some(connect.connection().0), |script| &mut script.connect);
        answer.unwrap_or_else(|| Ok(ConnectVerdict::accept()))
    }

    fn handle_auth(&self, state: &mut Strings, auth: &Auth<'_>) -> Result<AuthVerdict, Error> {
        let line = format!("auth {} {} {:?}", state.client, auth.method(), auth.step());
        let data = auth.data().map(<[u8]>::to_vec);
        let answer = self.answer(line, |asked| asked.data = data, |script| &mut script.auth);
        answer.unwrap_or_else(|| Ok(AuthVerdict::error(plugin_api::ReasonCode::BAD_AUTHENTICATION_METHOD)))
    }

    fn handle_publish(&self, state: &mut Strings, publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        state.published += 1;
        let line = format!(
            "publish {} {} q{} retain={} dup={} id={:?} will={}",
            state.client,
            publish.topic(),
            publish.qos() as u8,
            publish.retain(),
            publish.dup(),
            publish.packet_id(),
            publish.is_will(),
        );
        let message = |asked: &mut Asked| asked.message = Some(publish.into());
        self.answer(line, message, |script| &mut script.publish).unwrap_or(Ok(PublishVerdict::Forward))
    }

    fn handle_subscribe(&self, state: &mut Strings, subscribe: &Subscribe<'_>) -> Result<SubscribeVerdict, Error> {
        let filters = subscribe.subscriptions().map(|one| {
            let again = if one.again() { "!" } else { "" };
            format!("{}={}:{:02X}{again}", one.share_name().unwrap_or(""), one.filter(), one.reason_code().0)
        });
        let line = format!("subscribe {} {}", state.client, filters.collect::<Vec<_>>().join(" "));
        self.answer(line, |_| {}, |script| &mut script.subscribe).unwrap_or(Ok(SubscribeVerdict::Grant))
    }

    fn handle_unsubscribe(
        &self,
        state: &mut Strings,
        unsubscribe: &Unsubscribe<'_>,
    ) -> Result<UnsubscribeVerdict, Error> {
        let line = format!("unsubscribe {} {}", state.client, unsubscribe.filters().collect::<Vec<_>>().join(" "));
        self.answer(line, |_| {}, |script| &mut script.unsubscribe).unwrap_or(Ok(UnsubscribeVerdict::Allow))
    }

    fn handle_puback(&self, state: &mut Strings, ack: &Ack<'_>) {
        let line = format!("puback {} {:?} {} {:02X}", state.client, ack.kind(), ack.packet_id(), ack.reason_code().0);
        self.answer(line, |_| {}, |script| &mut script.puback);
    }

    fn handle_info(&self, state: &mut Strings, info: &Info<'_>) -> Result<Vec<InfoAction>, Error> {
        let line = format!("info {} {} {:?}", state.client, info.kind(), info.sender());
        let data = Some(info.data().to_vec());
        self.answer(line, |asked| asked.data = data, |script| &mut script.info).unwrap_or_else(|| Ok(Vec::new()))
    }

    fn handle_event(&self, event: &Info<'_>) {
        let line = format!("event {} {:?}", event.kind(), event.sender());
        let data = Some(event.data().to_vec());
        self.answer(line, |asked| asked.data = data, |script| &mut script.event);
    }

    fn handle_disconnect(&self, state: &mut Strings, reason: &DisconnectReason<'_>) {
        let line =
            format!("disconnect {} {:?} {:02X} {}", state.client, reason.kind(), reason.reason_code().0, reason.text());
        lock(&self.script).calls.push(line.trim_end().to_owned());
    }

    fn export_state(&self, state: &mut Strings) -> State {
        let asked = self.asked(state.client.clone());
        let mut script = lock(&self.script);
        if let Some(answer) = &mut script.export {
            answer(&asked);
        }
        let text = script.export_text.clone();
        State::new(1, text.unwrap_or_else(|| format!("{} {}", state.published, state.client)))
    }

    fn import_state(&self, swapped: &Swapped<'_>, exported: StateView<'_>) -> Result<Strings, Error> {
        let text = std::str::from_utf8(exported.bytes())?;
        let (published, client) = text.split_once(' ').ok_or("no state of ours")?;
        assert!(swapped.client_id().ends_with(client), "{swapped:?}: {client}");
        let (from, back) = (swapped.from_version(), if swapped.is_rollback() { " back" } else { "" });
        self.note_transport("swapped", &swapped.info().transport());
        let line = format!("import {client} {published} from {from}{back}");
        self.answer(line, |_| {}, |script| &mut script.import).transpose()?;
        lock(&self.script).live += 1;
        let published = published.parse()?;
        Ok(Strings { script: Arc::clone(&self.script), client: client.to_owned(), published })
    }

    fn handle_session_expired(&self, client_id: &str, _state: Option<plugin_api::StateView<'_>>) {
        lock(&self.script).calls.push(format!("expired {client_id}"));
    }
}
