//! The HTTP request that a WebSocket connection begins with.

use std::borrow::Cow;

use crate::core::peer::{HttpDetails, HttpHeader};

/// Headers that a request may have.
pub const HEADERS_MAX: usize = 100;

/// What a client has asked for, as it has sent it. It may have secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request(pub HttpDetails);

/// What makes a request one that is not even looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is no HTTP request.
    NotHttp,
    /// Another version of HTTP.
    Version,
    /// Another method than GET.
    Method,
    /// More than [`HEADERS_MAX`].
    TooManyHeaders,
}

impl Request {
    /// Reads a request that is whole.
    pub(super) fn parse(head: &[u8]) -> Result<Self, Unreadable> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(head) {
            Ok(httparse::Status::Complete(bytes)) if bytes == head.len() => {}
            // A header that ends in a line feed alone could hide the end of the request from one who reads it differently.
            Ok(_) => return Err(Unreadable::NotHttp),
            Err(httparse::Error::Version) => return Err(Unreadable::Version),
            Err(httparse::Error::TooManyHeaders) => return Err(Unreadable::TooManyHeaders),
            Err(_) => return Err(Unreadable::NotHttp),
        }
        if parsed.version != Some(1) {
            return Err(Unreadable::Version);
        }
        if parsed.method != Some("GET") {
            return Err(Unreadable::Method);
        }
        let path = origin_form(parsed.path.unwrap_or_default()).into();
        let header =
            |header: &httparse::Header<'_>| HttpHeader { name: header.name.into(), value: header.value.into() };
        Ok(Self(HttpDetails { path, headers: parsed.headers.iter().map(header).collect() }))
    }

    /// The path that was asked for, without the query.
    pub fn path(&self) -> &str {
        self.0.path.split(['?', '#']).next().unwrap_or_default()
    }

    /// The values of a header, in the order in which they came. One that is no text means nothing that we know.
    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let own = self.0.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        own.map(|header| std::str::from_utf8(&header.value).unwrap_or("\u{fffd}"))
    }

    /// The elements of a header whose value is a list.
    pub(super) fn elements<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.values(name).flat_map(|value| value.split(',')).map(str::trim).filter(|element| !element.is_empty())
    }

    /// All values of a header as one, which means the same (RFC 9110, section 5.3). `None` if there is none.
    pub(super) fn joined<'a>(&'a self, name: &'a str) -> Option<Cow<'a, str>> {
        self.values(name).map(Cow::Borrowed).reduce(|all, more| Cow::Owned(format!("{all}, {more}")))
    }
}

/// `/mqtt` of `http://example.com/mqtt`: the whole of it may be asked for as well.
fn origin_form(target: &str) -> Cow<'_, str> {
    let Some((_, rest)) = target.split_once("://").filter(|_| !target.starts_with('/')) else {
        return Cow::Borrowed(target);
    };
    match rest.find(['/', '?']) {
        Some(at) if rest[at..].starts_with('/') => Cow::Borrowed(&rest[at..]),
        Some(at) => Cow::Owned(format!("/{}", &rest[at..])),
        None => Cow::Borrowed("/"),
    }
}
