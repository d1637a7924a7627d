//! The functions that plugins call: timers, questions, subscriptions on behalf of clients, values by key, metrics.
#![allow(unsafe_code)] // They get a pointer that has to become a reference.

use abi_stable::std_types::RSlice;
use plugin_api::QoS;
use plugin_api::abi::{
    AnswerKey, Opaque, RawInfoRequest, RawQuery, RawSubscribeRequest, RawSubscription, RawTarget, Reply, Sink, Status,
};
use plugin_api::topic::{self, Share};

use super::super::record::effects;
use super::functions::service;
use super::inside::{connection, is_inside};
use super::metrics::Metric;
use super::{Asker, INFO_BYTES_MAX, PluginServices, Services};
use crate::codec::{RetainHandling, SubscribeOptions};
use crate::core::mail::{InfoMail, InfoTarget, Mail, SubscribeMail};
use crate::core::{Cursor, Poll, Query, Wanted, owner_of};

/// The largest Subscription Identifier, section 3.8.2.1.2.
const IDENTIFIER_MAX: u32 = 268_435_455;

/// Whom a request is about. `Err`: it cannot be read.
fn target(raw: &RawTarget<'_>) -> Result<InfoTarget, Status> {
    Ok(match raw.kind {
        RawTarget::CONNECTION => InfoTarget::Connection(raw.connection),
        RawTarget::CLIENT => InfoTarget::Client(text(raw.client_id)?.into()),
        RawTarget::ALL => InfoTarget::All,
        RawTarget::PLUGIN => InfoTarget::Plugin,
        _ => return Err(Status::INVALID),
    })
}

fn text(bytes: RSlice<'_, u8>) -> Result<&str, Status> {
    // What is longer than a string of MQTT may be names nothing.
    let bytes = Some(bytes.as_slice()).filter(|bytes| bytes.len() <= usize::from(u16::MAX)).ok_or(Status::TOO_LARGE)?;
    std::str::from_utf8(bytes).map_err(|_| Status::INVALID)
}

fn status(result: Result<(), Status>) -> Status {
    result.err().unwrap_or(Status::OK)
}

/// A request that is answered: `post` gets who waits for the answer. If it is refused there is no answer.
fn ask(
    host: &'static PluginServices,
    reply: Reply,
    post: impl FnOnce(&Services, Asker) -> Result<(), Status>,
) -> Result<(), Status> {
    if reply.flags & Reply::WAITS != 0 && is_inside() {
        return Err(Status::NOT_HERE); // It would wait for what is done when it has returned.
    }
    let taken = host.with(|services| post(services, Asker::new(host, reply)));
    if taken == Status::OK { Ok(()) } else { Err(taken) }
}

pub(super) unsafe extern "C" fn send_info(context: Opaque, request: &RawInfoRequest<'_>, timer: &mut u64) -> Status {
    *timer = 0;
    service(context, Status::FULL, |host| {
        let (kind, data) = (request.kind, request.data);
        if kind.len() + data.len() > INFO_BYTES_MAX {
            return Status::TOO_LARGE;
        }
        let (kind, target) = match (text(kind), target(&request.target)) {
            (Ok(kind), Ok(target)) => (kind, target),
            (Err(why), _) | (_, Err(why)) => return why,
        };
        let taken = host.take_info(InfoMail {
            target,
            plugin: 0, // Where it is by then.
            kind: kind.into(),
            data: data.as_slice().into(),
            delay_ms: if request.delay_ms == 0 { request.interval_ms } else { request.delay_ms },
            interval_ms: request.interval_ms,
            timer: 0,
            from_connection: connection(),
            room: None,
            begins: 0,
        });
        let taken = taken.map(|number| *timer = number);
        effects::note(status(taken), || effects::send_info(request, *timer))
    })
}

pub(super) unsafe extern "C" fn cancel_timer(context: Opaque, timer: u64) -> Status {
    service(context, Status::FULL, |host| {
        if timer == 0 || host.early.cancel(timer) {
            return Status::OK;
        }
        match host.chain_place() {
            Ok(plugin) => {
                let mail = || Mail::CancelTimer { plugin, timer };
                let taken = host.with(|services| services.post(0..services.mailboxes.workers(), &mail));
                effects::note(taken, || effects::cancel_timer(timer))
            }
            Err(why) => why,
        }
    })
}

pub(super) unsafe extern "C" fn query(context: Opaque, query: &RawQuery<'_>, reply: Reply) -> Status {
    service(context, Status::FULL, |host| {
        status((|| {
            let (target, filter) = (target(&query.target)?, text(query.filter)?);
            let wanted = match query.kind {
                RawQuery::CONNECTIONS => Wanted::Connections,
                RawQuery::SESSIONS => Wanted::Sessions,
                RawQuery::SUBSCRIPTIONS => Wanted::Subscriptions,
                RawQuery::RETAINED => Wanted::Retained,
                _ => return Err(Status::NOT_SUPPORTED),
            };
            if wanted == Wanted::Retained && !filter.is_empty() && !topic::is_valid_filter(filter)
                || target == InfoTarget::Plugin
            {
                return Err(Status::INVALID);
            }
            let cursor = Cursor::read(query.cursor_number, query.cursor.as_slice()).ok_or(Status::INVALID)?;
            ask(host, reply, |services, asker| {
                let query = Query::new(wanted, target, filter, query.limit, cursor, asker);
                let worker = query.worker(services.mailboxes.workers());
                services.post_one(worker, Mail::Query(Box::new(query)))
            })
        })())
    })
}

pub(super) unsafe extern "C" fn subscribe(context: Opaque, request: &RawSubscribeRequest<'_>, reply: Reply) -> Status {
    service(context, Status::FULL, |host| {
        status((|| {
            let (is_shared, filter) = filter(request)?;
            let qos = QoS::from_u8(request.qos).ok_or(Status::INVALID)?;
            let retain_handling = match request.retain_handling {
                0 => RetainHandling::SendAtSubscribe,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                _ => return Err(Status::INVALID),
            };
            let no_local = request.flags & RawSubscription::NO_LOCAL != 0;
            // [MQTT-3.8.3-4]
            if no_local && is_shared || request.identifier > IDENTIFIER_MAX {
                return Err(Status::INVALID);
            }
            let retain_as_published = request.flags & RawSubscription::RETAIN_AS_PUBLISHED != 0;
            let options = SubscribeOptions { qos, no_local, retain_as_published, retain_handling };
            change_subscription(host, request, filter, Some((options, request.identifier)), reply)?;
            effects::note(Status::OK, || effects::subscribe(request));
            Ok(())
        })())
    })
}

pub(super) unsafe extern "C" fn unsubscribe(
    context: Opaque,
    request: &RawSubscribeRequest<'_>,
    reply: Reply,
) -> Status {
    service(context, Status::FULL, |host| {
        let taken =
            status(filter(request).and_then(|(_, filter)| change_subscription(host, request, filter, None, reply)));
        effects::note(taken, || effects::unsubscribe(request))
    })
}

/// The Topic Filter of a request, and whether it is a shared one.
fn filter<'a>(request: &RawSubscribeRequest<'a>) -> Result<(bool, &'a str), Status> {
    let written = std::str::from_utf8(request.filter.as_slice()).map_err(|_| Status::INVALID)?;
    let (is_shared, plain) = match topic::split_share(written) {
        Share::None => (false, written),
        Share::Group { filter, .. } => (true, filter),
        Share::Malformed => return Err(Status::INVALID),
    };
    if topic::is_valid_filter(plain) { Ok((is_shared, written)) } else { Err(Status::INVALID) }
}

fn change_subscription(
    host: &'static PluginServices,
    request: &RawSubscribeRequest<'_>,
    filter: &str,
    subscription: Option<(SubscribeOptions, u32)>,
    reply: Reply,
) -> Result<(), Status> {
    let target = target(&request.target)?;
    if matches!(target, InfoTarget::All | InfoTarget::Plugin) {
        return Err(Status::INVALID);
    }
    ask_workers(host, target, reply, |target, poll| {
        Mail::Subscribe(Box::new(SubscribeMail { target, filter: filter.into(), subscription, poll }))
    })
}

pub(super) unsafe extern "C" fn reauthorise(context: Opaque, raw: &RawTarget<'_>, reply: Reply) -> Status {
    service(context, Status::FULL, |host| {
        status((|| {
            let target = target(raw)?;
            if target == InfoTarget::Plugin {
                return Err(Status::INVALID);
            }
            ask_workers(host, target, reply, |target, poll| Mail::Reauthorise { target, poll })?;
            effects::note(Status::OK, || effects::reauthorise(raw));
            Ok(())
        })())
    })
}

/// Sends a request to all workers that may have what it is about; one answer comes of it.
fn ask_workers(
    host: &'static PluginServices,
    target: InfoTarget,
    reply: Reply,
    mail: impl Fn(InfoTarget, Poll) -> Mail,
) -> Result<(), Status> {
    ask(host, reply, |services, asker| {
        let workers = services.mailboxes.workers();
        let to = match &target {
            InfoTarget::Client(client_id) => {
                let owner = owner_of(client_id, workers);
                owner..owner + 1
            }
            _ => 0..workers,
        };
        let poll = Poll::new(asker, to.len(), target == InfoTarget::All);
        let taken = services.post(to, &|| mail(target.clone(), poll.clone()));
        if taken.is_err() {
            poll.forget();
        }
        taken
    })
}

pub(super) unsafe extern "C" fn kv_get(context: Opaque, key: RSlice<'_, u8>, sink: Sink<'_>) -> Status {
    service(context, Status::FULL, |host| {
        host.with_holdings(|holdings, _| {
            // The sink is the plugin's code, which must not run under the lock.
            let value = holdings.store().get(key.as_slice());
            value.map_or(Status::NOT_FOUND, |value| {
                sink.put(AnswerKey::VALUE, 0, &value);
                Status::OK
            })
        })
    })
}

pub(super) unsafe extern "C" fn kv_put(context: Opaque, key: RSlice<'_, u8>, value: RSlice<'_, u8>) -> Status {
    service(context, Status::FULL, |host| {
        host.change_holdings(|holdings, all| {
            status(all.put(&host.plugin, &mut holdings.store(), key.as_slice(), value.as_slice()))
        })
    })
}

pub(super) unsafe extern "C" fn kv_delete(context: Opaque, key: RSlice<'_, u8>) -> Status {
    service(context, Status::FULL, |host| {
        host.change_holdings(|holdings, all| {
            let is_deleted = all.delete(&host.plugin, &mut holdings.store(), key.as_slice());
            if is_deleted { Status::OK } else { Status::NOT_FOUND }
        })
    })
}

pub(super) unsafe extern "C" fn kv_list(
    context: Opaque,
    prefix: RSlice<'_, u8>,
    after: RSlice<'_, u8>,
    limit: u32,
    sink: Sink<'_>,
) -> Status {
    service(context, Status::FULL, |host| {
        host.with_holdings(|holdings, _| {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let keys = holdings.store().list(prefix.as_slice(), after.as_slice(), limit);
            keys.iter().for_each(|key| sink.put(AnswerKey::KEY, 0, key));
            Status::OK
        })
    })
}

pub(super) unsafe extern "C" fn metric(
    context: Opaque,
    kind: u8,
    name: RSlice<'_, u8>,
    help: RSlice<'_, u8>,
) -> Opaque {
    service(context, std::ptr::null_mut(), |host| {
        let mut found = std::ptr::null_mut();
        host.with_holdings(|holdings, all| {
            match holdings.metrics().get(kind, name.as_slice(), help.as_slice(), all.metrics_max) {
                Ok(metric) => found = std::ptr::from_ref(metric).cast_mut().cast(),
                Err(why) => {
                    let name = String::from_utf8_lossy(name.as_slice());
                    tracing::warn!(plugin = host.plugin, %name, ?why, "a plugin does not get the metric that it asked for");
                }
            }
            Status::OK
        });
        found
    })
}

pub(super) unsafe extern "C" fn metric_record(metric: Opaque, value: f64) {
    // SAFETY: `metric` gave the pointer out, it points to a `Metric`, which is `Sync`, and that is never freed.
    let metric: &Metric = unsafe { &*metric.cast::<Metric>() };
    // It cannot panic: relaxed atomics and arithmetic on floats.
    metric.record(value);
}
