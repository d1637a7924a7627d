//! Uses what the host does for plugins. A message to `do` is a command of words, which a thread of the plugin's own carries
//! out; what comes of it is published to `done`. A message to `keep/<key>` is put into its store at once. Subscriptions to filters that stand in its store as `no/<filter>` are
//! refused, but only when they are asked about again. A configuration that is a text is a command, carried out in `init`.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use plugin_api::{
    Asking, ConnectionInfo, Counter, Error, Handler, Host, HostError, Info, InfoTarget, Level, Message,
    NewSubscription, Page, Publish, PublishVerdict, QoS, Query, ReasonCode, Subscribe, SubscribeVerdict, handler,
};

struct Steward {
    host: Host,
    commands: Mutex<Sender<String>>,
    commands_total: Counter,
}

#[handler]
impl Handler for Steward {
    type Connection = ();

    fn init(host: Host, config: &str) -> Result<Self, Error> {
        if let Some(command) = config.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            carry_out(&host, &command.split(' ').collect::<Vec<_>>())?;
        }
        let (commands, todo) = channel::<String>();
        let own = host.clone();
        // It ends with the handler, which has the other end.
        std::thread::spawn(move || {
            for command in todo {
                let words: Vec<&str> = command.split(' ').collect();
                let done = carry_out(&own, &words).unwrap_or_else(|error| format!("error: {error:?}"));
                let _ = own.publish(&Message::new("done", done));
            }
        });
        let commands_total = host.counter("commands_total", "Commands that came.")?;
        Ok(Self { host, commands: Mutex::new(commands), commands_total })
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) {}

    fn handle_publish(&self, (): &mut (), publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        if let Some(key) = publish.topic().strip_prefix("keep/") {
            match publish.payload() {
                b"" => drop(self.host.store().delete(key)?),
                value => self.host.store().put(key, value)?,
            }
            return Ok(PublishVerdict::Handled);
        }
        if publish.topic() != "do" {
            return Ok(PublishVerdict::Forward);
        }
        // It would wait for itself here.
        if self.host.sessions(Query::all()).wait() != Err(HostError::NotHere) {
            return Err("waiting was not refused".into());
        }
        self.commands_total.increment();
        let command = std::str::from_utf8(publish.payload())?.to_owned();
        self.host.log_fields(Level::Info, "commands", "a command", &[("command", &command), ("bytes", &command.len())]);
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).send(command)?;
        Ok(PublishVerdict::Handled)
    }

    fn handle_subscribe(&self, (): &mut (), subscribe: &Subscribe<'_>) -> Result<SubscribeVerdict, Error> {
        let code = |one: plugin_api::Subscription<'_>| -> Result<ReasonCode, Error> {
            let refused = one.again() && self.host.store().get(format!("no/{}", one.filter()))?.is_some();
            Ok(if refused { ReasonCode::NOT_AUTHORIZED } else { one.reason_code() })
        };
        Ok(SubscribeVerdict::Codes(subscribe.subscriptions().map(code).collect::<Result<_, _>>()?))
    }

    fn handle_event(&self, event: &Info<'_>) {
        let _ = self.host.publish(&Message::new("done", format!("event {}", event.kind())));
    }
}

fn carry_out(host: &Host, words: &[&str]) -> Result<String, HostError> {
    let store = host.store();
    match *words {
        ["connections"] => all(|query| host.connections(query), |row| row.client_id),
        ["sessions"] => all(|query| host.sessions(query), |row| format!("{}:{}", row.client_id, row.queued)),
        ["subscriptions"] => all(|query| host.subscriptions(query), |row| format!("{}:{}", row.client_id, row.filter)),
        ["retained"] => all(|query| host.retained(query), |row| row.topic),
        ["subscribe", client, filter] => {
            let subscription = NewSubscription::new(filter, QoS::AtLeastOnce);
            let granted = host.subscribe(InfoTarget::Client(client), subscription).wait()?;
            Ok(format!("granted {}", granted as u8))
        }
        ["unsubscribe", client, filter] => {
            host.unsubscribe(InfoTarget::Client(client), filter).wait()?;
            Ok("unsubscribed".into())
        }
        ["reauthorise", client] => {
            let target = if client == "*" { InfoTarget::All } else { InfoTarget::Client(client) };
            let done = host.reauthorise(target).wait()?;
            Ok(format!("removed {} dropped {} later {}", done.removed, done.dropped, done.later))
        }
        ["put", key, value] => store.put(key, value).map(|()| "put".into()),
        ["get", key] => Ok(store.get(key)?.map_or("none".into(), |value| String::from_utf8_lossy(&value).into_owned())),
        ["delete", key] => Ok(format!("deleted {}", store.delete(key)?)),
        ["keys", prefix] => {
            let keys = store.keys(prefix, "", 100)?;
            Ok(keys.iter().map(|key| String::from_utf8_lossy(key)).collect::<Vec<_>>().join(" "))
        }
        ["every", ms, kind] => {
            let interval = Duration::from_millis(ms.parse().unwrap_or(1));
            let timer = host.send_info_every(InfoTarget::Plugin, kind, b"", interval)?;
            Ok(format!("timer {}", timer.0))
        }
        ["cancel", timer] => {
            host.cancel_timer(plugin_api::TimerId(timer.parse().unwrap_or(0)))?;
            Ok("cancelled".into())
        }
        _ => Ok("what?".into()),
    }
}

/// All rows, in pages of two, in order.
fn all<'a, R: Send + 'static>(
    ask: impl Fn(Query<'a>) -> Asking<'a, Page<R>>,
    show: impl Fn(R) -> String,
) -> Result<String, HostError> {
    let (mut shown, mut query) = (Vec::new(), Query::all().limit(2));
    loop {
        let page = ask(query).wait()?;
        shown.extend(page.rows.into_iter().map(&show));
        let Some(next) = page.next else { break };
        query = Query::all().limit(2).after(next);
    }
    shown.sort();
    Ok(shown.join(" "))
}

plugin_api::export!(Steward, "steward");
