//! What the server holds, in pages: connections, sessions, subscriptions, retained messages.

use std::net::SocketAddr;
use std::time::Duration;

use crate::abi::{AnswerKey, RawQuery, RawSubscription};
use crate::ask::{Asking, Pieces};
use crate::{ConnectionId, Host, InfoTarget, Properties, PropertiesBuf, QoS, RetainHandling, topic};

/// Which rows a page has, and where it begins.
///
/// ```
/// # use plugin_api::{InfoTarget, Query};
/// let all = Query::all().limit(500);
/// let of_one = Query::of(InfoTarget::Client("press-7"));
/// let below = Query::all().filter("plant/+/state"); // retained messages
/// ```
#[derive(Debug, Clone)]
pub struct Query<'a> {
    target: InfoTarget<'a>,
    filter: &'a str,
    limit: u32,
    after: Cursor,
}

/// Where a page begins. It may be kept, and used on any thread.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    number: u64,
    bytes: Vec<u8>,
}

impl<'a> Query<'a> {
    /// Rows of a page, if [`limit`](Query::limit) does not say otherwise.
    pub const LIMIT: u32 = 100;

    /// Everybody's.
    #[must_use]
    pub fn all() -> Self {
        Self::of(InfoTarget::All)
    }

    /// One connection's or one client's. (Retained messages are nobody's.)
    #[must_use]
    pub fn of(target: InfoTarget<'a>) -> Self {
        Self { target, filter: "", limit: Self::LIMIT, after: Cursor::default() }
    }

    /// Only retained messages whose topic matches this Topic Filter, or only subscriptions to this very filter, as the client
    /// wrote it.
    #[must_use]
    pub fn filter(self, filter: &'a str) -> Self {
        Self { filter, ..self }
    }

    /// Rows of a page at most; the host gives 1,000 at most, and ends a page that has become larger than 1 MiB.
    #[must_use]
    pub fn limit(self, rows: u32) -> Self {
        Self { limit: rows, ..self }
    }

    /// Begins where another page has ended: with its [`Page::next`].
    #[must_use]
    pub fn after(self, cursor: Cursor) -> Self {
        Self { after: cursor, ..self }
    }
}

/// Some rows.
///
/// Pages that follow one another list everything that is there throughout, and nothing twice, whatever comes and goes
/// meanwhile. (What takes the place of something that has gone is something else: a client that connects again has another
/// connection.) What comes later than the first page may be missing.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Page<R> {
    /// The rows. There may be fewer than asked for, or none, though another page follows.
    pub rows: Vec<R>,
    /// Where the next page begins; `None` if this is the last one.
    pub next: Option<Cursor>,
}

/// A Network Connection whose client has been let in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionRow {
    /// The connection.
    pub connection: ConnectionId,
    /// Client Identifier.
    pub client_id: String,
    /// Who connected; `None` if this version of `plugin-api` cannot read it.
    pub peer: Option<SocketAddr>,
    /// Name of the listener.
    pub listener: String,
    /// 3, 4 or 5.
    pub protocol_version: u8,
    /// Keep Alive in force, in seconds; 0 for none.
    pub keep_alive_secs: u16,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionRow {
    /// Client Identifier.
    pub client_id: String,
    /// Its Network Connection, if it has one.
    pub connection: Option<ConnectionId>,
    /// Session Expiry Interval in seconds; `u32::MAX`: it does not expire.
    pub session_expiry_secs: u32,
    /// Time until it ends, while it has no connection and expires.
    pub expires_in: Option<Duration>,
    /// Topic Filters that it has subscribed to.
    pub subscriptions: u64,
    /// Messages that wait in its queue.
    pub queued: u64,
    /// Messages that were sent and not acknowledged completely.
    pub in_flight: u64,
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionRow {
    /// Client Identifier of the session that has it.
    pub client_id: String,
    /// Topic Filter as the client wrote it, `$share/…` included.
    pub filter: String,
    /// ShareName of a Shared Subscription.
    pub share_name: Option<String>,
    /// The QoS that was granted.
    pub qos: QoS,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Retain Handling.
    pub retain_handling: RetainHandling,
    /// Subscription Identifier.
    pub identifier: Option<u32>,
}

/// A retained message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetainedRow {
    /// Topic Name.
    pub topic: String,
    /// Application payload.
    pub payload: Vec<u8>,
    /// Properties that travel with it.
    pub properties: PropertiesBuf,
    /// The QoS that it was published with.
    pub qos: QoS,
    /// Time until it expires, if it does.
    pub expires_in: Option<Duration>,
}

impl SubscriptionRow {
    /// The levels of the Topic Filter, without `$share/{ShareName}/`.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        let filter = match topic::split_share(&self.filter) {
            topic::Share::Group { filter, .. } => filter,
            _ => &self.filter,
        };
        topic::levels(filter)
    }
}

impl Host {
    /// Network Connections whose client has been let in.
    ///
    /// ```no_run
    /// # use plugin_api::{Host, HostError, Query};
    /// /// Everybody who is connected. On a thread of the plugin's own: `wait` is refused inside a callback.
    /// fn everybody(host: &Host) -> Result<Vec<String>, HostError> {
    ///     let (mut all, mut query) = (Vec::new(), Query::all());
    ///     loop {
    ///         let page = host.connections(query).wait()?;
    ///         all.extend(page.rows.into_iter().map(|row| row.client_id));
    ///         let Some(next) = page.next else { return Ok(all) };
    ///         query = Query::all().after(next);
    ///     }
    /// }
    /// ```
    pub fn connections<'a>(&'a self, query: Query<'a>) -> Asking<'a, Page<ConnectionRow>> {
        self.list(query)
    }

    /// Sessions, connected or not.
    pub fn sessions<'a>(&'a self, query: Query<'a>) -> Asking<'a, Page<SessionRow>> {
        self.list(query)
    }

    /// Subscriptions, session by session.
    ///
    /// ```no_run
    /// # use plugin_api::{Host, HostError, InfoTarget, Query};
    /// // Inside a callback: the answer comes later.
    /// fn log_subscriptions(host: &Host, client_id: &str) -> Result<(), HostError> {
    ///     let log = host.clone();
    ///     host.subscriptions(Query::of(InfoTarget::Client(client_id))).then(move |page| match page {
    ///         Ok(page) => log.info(format_args!("{:?}", page.rows)),
    ///         Err(error) => log.warn(error),
    ///     })
    /// }
    /// ```
    pub fn subscriptions<'a>(&'a self, query: Query<'a>) -> Asking<'a, Page<SubscriptionRow>> {
        self.list(query)
    }

    /// Retained messages, of all topics or of those that match [`Query::filter`].
    pub fn retained<'a>(&'a self, query: Query<'a>) -> Asking<'a, Page<RetainedRow>> {
        self.list(query)
    }

    fn list<'a, R: Row>(&'a self, query: Query<'a>) -> Asking<'a, Page<R>> {
        let request = move |reply| {
            let Query { target, filter, limit, after } = &query;
            let raw = RawQuery {
                target: target.raw(),
                filter: filter.as_bytes().into(),
                cursor: after.bytes.as_slice().into(),
                cursor_number: after.number,
                limit: *limit,
                kind: R::KIND,
                extension: std::ptr::null(),
            };
            self.raw.query(&raw, reply)
        };
        Asking::new(request, page)
    }
}

fn page<R: Row>(answer: Pieces<'_>) -> Page<R> {
    // It stands at the end, behind the pieces of the last row.
    let next = answer.find(AnswerKey::CURSOR);
    let next = next.map(|piece| Cursor { number: piece.number, bytes: piece.bytes.as_slice().to_vec() });
    Page { rows: answer.rows().map(R::read).collect(), next }
}

/// A kind of row.
trait Row: Send + 'static {
    const KIND: u8;

    fn read(row: Pieces<'_>) -> Self;
}

impl Row for ConnectionRow {
    const KIND: u8 = RawQuery::CONNECTIONS;

    fn read(row: Pieces<'_>) -> Self {
        Self {
            connection: ConnectionId(row.number(AnswerKey::CONNECTION)),
            client_id: row.text(AnswerKey::CLIENT_ID),
            peer: row.text(AnswerKey::PEER).parse().ok(),
            listener: row.text(AnswerKey::LISTENER),
            protocol_version: row.small(AnswerKey::PROTOCOL_VERSION),
            keep_alive_secs: row.small(AnswerKey::KEEP_ALIVE),
        }
    }
}

impl Row for SessionRow {
    const KIND: u8 = RawQuery::SESSIONS;

    fn read(row: Pieces<'_>) -> Self {
        Self {
            client_id: row.text(AnswerKey::CLIENT_ID),
            connection: row.find(AnswerKey::CONNECTION).map(|piece| ConnectionId(piece.number)),
            session_expiry_secs: row.small(AnswerKey::SESSION_EXPIRY),
            expires_in: expires_in(row),
            subscriptions: row.number(AnswerKey::SUBSCRIPTIONS),
            queued: row.number(AnswerKey::QUEUED),
            in_flight: row.number(AnswerKey::IN_FLIGHT),
        }
    }
}

impl Row for SubscriptionRow {
    const KIND: u8 = RawQuery::SUBSCRIPTIONS;

    fn read(row: Pieces<'_>) -> Self {
        let flags = row.number(AnswerKey::FLAGS);
        let has = |flag: u8| flags & u64::from(flag) != 0;
        Self {
            client_id: row.text(AnswerKey::CLIENT_ID),
            filter: row.text(AnswerKey::FILTER),
            share_name: has(RawSubscription::SHARED).then(|| row.text(AnswerKey::SHARE_NAME)),
            qos: qos(row),
            no_local: has(RawSubscription::NO_LOCAL),
            retain_as_published: has(RawSubscription::RETAIN_AS_PUBLISHED),
            retain_handling: match flags >> 8 & 3 {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                _ => RetainHandling::DoNotSend,
            },
            identifier: row.find(AnswerKey::IDENTIFIER).and_then(|piece| u32::try_from(piece.number).ok()),
        }
    }
}

impl Row for RetainedRow {
    const KIND: u8 = RawQuery::RETAINED;

    fn read(row: Pieces<'_>) -> Self {
        Self {
            topic: row.text(AnswerKey::TOPIC),
            payload: row.bytes(AnswerKey::PAYLOAD).to_vec(),
            properties: Properties::from_trusted(row.bytes(AnswerKey::PROPERTIES)).into(),
            qos: qos(row),
            expires_in: expires_in(row),
        }
    }
}

fn qos(row: Pieces<'_>) -> QoS {
    QoS::from_u8(row.small(AnswerKey::QOS)).unwrap_or(QoS::AtMostOnce)
}

fn expires_in(row: Pieces<'_>) -> Option<Duration> {
    row.find(AnswerKey::MILLISECONDS).map(|piece| Duration::from_millis(piece.number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::RawPiece;

    fn piece(key: AnswerKey, number: u64, bytes: &[u8]) -> RawPiece<'_> {
        RawPiece { bytes: bytes.into(), number, key }
    }

    #[test]
    fn pages_are_read_row_by_row() {
        let pieces = [
            piece(AnswerKey::ROW, 1, b""),
            piece(AnswerKey::CLIENT_ID, 0, b"a"),
            piece(AnswerKey::CONNECTION, 7, b""),
            piece(AnswerKey::ROW, 1, b""),
            piece(AnswerKey::CLIENT_ID, 0, b"b"),
            piece(AnswerKey::MILLISECONDS, 1500, b""),
            piece(AnswerKey(200), 3, b"of a later version"),
            piece(AnswerKey::CURSOR, 9, b"there"),
        ];
        let read: Page<SessionRow> = page(Pieces(&pieces));
        assert_eq!(read.next, Some(Cursor { number: 9, bytes: b"there".to_vec() }));
        let [a, b] = &read.rows[..] else { panic!("{read:?}") };
        assert_eq!((&*a.client_id, a.connection, a.expires_in), ("a", Some(ConnectionId(7)), None));
        assert_eq!((&*b.client_id, b.connection, b.expires_in), ("b", None, Some(Duration::from_millis(1500))));
        let none: Page<ConnectionRow> = page(Pieces(&[]));
        assert_eq!((none.rows.len(), none.next), (0, None));
    }
}
