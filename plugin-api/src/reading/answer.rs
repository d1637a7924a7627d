//! Reading what a plugin has written into its sink.
#![allow(unsafe_code)] // The function that plugins call gets a pointer back that has to become a reference.

use std::ops::Range;

use abi_stable::std_types::RSlice;

use super::outcome::{ConnackOverrides, InfoAction, OwnedMessage};
use super::rules::{self, Place};
use crate::abi::{ACTION_DISCONNECT, ACTION_PUBLISH, ACTION_STOP, AnswerKey, Opaque, RawPiece, Sink, Verdict};
use crate::{Properties, PropertiesBuf, QoS, ReasonCode};

/// Bytes of a text of a plugin's that the log takes.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Bytes that one answer may have: as many as the largest packet. What becomes a packet has the server's own bound.
const ANSWER_BYTES_MAX: usize = 268_435_455;

/// Pieces that one answer may have.
const ANSWER_PIECES_MAX: usize = 65_536;

/// An answer that cannot be read; says why, in a half sentence.
pub type Unreadable = String;

/// The pieces of one answer. An empty one allocates nothing.
#[derive(Clone, Default)]
pub struct Answer {
    /// One word while there are none, as an answer is made and dropped for each question.
    contents: Option<Box<Contents>>,
    /// The ticket that stands for the answer, if the plugin gives it later.
    pub ticket: u64,
}

#[derive(Clone, Default)]
struct Contents {
    pieces: Vec<Piece>,
    bytes: Vec<u8>,
    too_large: bool,
    /// A piece came with a length and without bytes.
    has_null: bool,
}

static NO_CONTENTS: Contents = Contents { pieces: Vec::new(), bytes: Vec::new(), too_large: false, has_null: false };

#[derive(Clone)]
struct Piece {
    key: AnswerKey,
    number: u64,
    bytes: Range<usize>,
}

/// A message from a plugin, checked.
#[derive(Debug)]
pub struct MessageView<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub properties: Properties<'a>,
    pub qos: QoS,
    pub retain: bool,
    pub token: u64,
}

impl MessageView<'_> {
    /// Whether it is the very message.
    pub fn equals(&self, message: &OwnedMessage) -> bool {
        self.topic == message.topic
            && self.payload == message.payload
            && self.properties.as_bytes() == message.properties
            && self.qos == message.qos
            && self.retain == message.retain
    }

    /// Copies it into buffers that are there already.
    pub fn copy_to(&self, message: &mut OwnedMessage) {
        message.topic.clear();
        message.topic.push_str(self.topic);
        message.payload.clear();
        message.payload.extend_from_slice(self.payload);
        message.properties.clear();
        message.properties.extend_from_slice(self.properties.as_bytes());
        message.qos = self.qos;
        message.retain = self.retain;
        message.token = self.token;
    }
}

impl Answer {
    /// The ticket of an answer that does not come later.
    pub const NO_TICKET: u64 = 0;

    /// The sink that fills this answer.
    #[inline]
    pub fn sink(&mut self) -> Sink<'_> {
        // SAFETY: `put` gets this answer back, which is borrowed mutably for as long as the sink exists. A plugin uses it
        // on the thread that it was called on, and during that call: that is the contract of `Sink`.
        unsafe { Sink::new((&raw mut *self).cast(), put) }
    }

    fn push(&mut self, key: AnswerKey, number: u64, bytes: &[u8]) {
        let contents = self.contents.get_or_insert_default();
        if contents.pieces.len() >= ANSWER_PIECES_MAX || contents.bytes.len() + bytes.len() > ANSWER_BYTES_MAX {
            contents.too_large = true;
            return;
        }
        let start = contents.bytes.len();
        contents.bytes.extend_from_slice(bytes);
        contents.pieces.push(Piece { key, number, bytes: start..contents.bytes.len() });
    }

    fn contents(&self) -> &Contents {
        self.contents.as_deref().unwrap_or(&NO_CONTENTS)
    }

    /// The bytes of a piece.
    fn bytes_of(&self, piece: &Piece) -> &[u8] {
        &self.contents().bytes[piece.bytes.clone()]
    }

    /// Whether nothing has been written into it.
    #[inline]
    pub fn is_untouched(&self) -> bool {
        self.contents.is_none()
    }

    /// Writes a refusal, as a plugin would have.
    pub fn refuse(&mut self, reason_code: ReasonCode) -> Verdict {
        self.push(AnswerKey::REASON_CODE, reason_code.0.into(), &[]);
        Verdict::REJECT
    }

    /// Writes one Reason Code for each of so many Topic Filters, as a plugin would have.
    pub fn refuse_each(&mut self, filters: usize, reason_code: ReasonCode) -> Verdict {
        self.push(AnswerKey::CODES, 0, &vec![reason_code.0; filters]);
        Verdict::CODES
    }

    /// Whether it is the refusal that says that an Authentication Method is another plugin's.
    pub fn is_not_my_method(&self) -> bool {
        let is = |piece: &Piece| piece.number == u64::from(ReasonCode::BAD_AUTHENTICATION_METHOD.0);
        self.contents().pieces.iter().any(|piece| piece.key == AnswerKey::REASON_CODE && is(piece))
    }

    /// Whether one of its Reason Codes for Topic Filters is an error.
    pub fn refuses_one(&self) -> bool {
        let codes = self.contents().pieces.iter().filter(|piece| piece.key == AnswerKey::CODES);
        codes.flat_map(|piece| self.bytes_of(piece)).any(|code| ReasonCode(*code).is_error())
    }

    /// An answer that was handed over as a whole.
    pub fn of(pieces: &[RawPiece<'_>]) -> Self {
        let mut answer = Self::default();
        pieces.iter().for_each(|piece| answer.push(piece.key, piece.number, piece.bytes.as_slice()));
        answer
    }

    /// What its contents take, in bytes.
    pub fn bytes(&self) -> usize {
        let contents = self.contents();
        contents.pieces.capacity() * size_of::<Piece>() + contents.bytes.capacity()
    }

    /// All pieces, as key, number and bytes.
    fn pieces(&self) -> Result<impl Iterator<Item = (AnswerKey, u64, &[u8])>, Unreadable> {
        let contents = self.contents();
        if contents.has_null {
            return Err("a piece has a length, and no bytes".to_owned());
        }
        if contents.too_large {
            return Err(format!("the answer has more than {ANSWER_PIECES_MAX} pieces or {ANSWER_BYTES_MAX} bytes"));
        }
        Ok(contents.pieces.iter().map(|piece| (piece.key, piece.number, self.bytes_of(piece))))
    }

    /// The text of an error or a panic, as much of it as the log takes, and the number beside it. Never fails.
    pub fn text(&self) -> Option<(u64, String)> {
        // The last one: what was written before may be an answer that a panic has cut off.
        let piece = self.contents().pieces.iter().rfind(|piece| piece.key == AnswerKey::TEXT)?;
        let bytes = self.bytes_of(piece);
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(TEXT_BYTES_MAX)]).into_owned();
        Some((piece.number, text))
    }

    /// The text of an answer that is one, all of it.
    pub fn whole_text(&self) -> Option<String> {
        let mut pieces = self.pieces().ok()?;
        let (_, _, bytes) = pieces.find(|(key, ..)| *key == AnswerKey::TEXT)?;
        String::from_utf8(bytes.to_vec()).ok()
    }

    /// Checks that there is no piece.
    pub fn nothing(&self) -> Result<(), Unreadable> {
        self.pieces()?.next().map_or(Ok(()), |(key, ..)| Err(unexpected(key)))
    }

    /// A refusal: Reason Code and properties.
    pub fn refusal(&self, place: Place) -> Result<(ReasonCode, PropertiesBuf), Unreadable> {
        self.reason(rules::refusal, place)
    }

    /// A disconnection: Reason Code and properties.
    pub fn disconnection(&self) -> Result<(ReasonCode, PropertiesBuf), Unreadable> {
        self.reason(rules::disconnection, Place::Farewell)
    }

    fn reason(
        &self,
        check: impl Fn(u64) -> Result<ReasonCode, Unreadable>,
        place: Place,
    ) -> Result<(ReasonCode, PropertiesBuf), Unreadable> {
        let (mut code, mut properties) = (None, PropertiesBuf::new());
        for (key, number, bytes) in self.pieces()? {
            match key {
                AnswerKey::REASON_CODE => code = Some(check(number)?),
                AnswerKey::PROPERTIES => properties = rules::properties(place, bytes)?.into(),
                _ => return Err(unexpected(key)),
            }
        }
        Ok((code.ok_or("it has no reason code")?, properties))
    }

    /// A state that was exported: the version of its schema, and its bytes.
    pub fn state(&self) -> Result<(u32, &[u8]), Unreadable> {
        let mut state = None;
        for (key, number, bytes) in self.pieces()? {
            if key != AnswerKey::STATE || state.is_some() {
                return Err(unexpected(key));
            }
            state = Some((u32::try_from(number).map_err(|_| format!("{number} is no schema version"))?, bytes));
        }
        state.ok_or_else(|| "it has no state".to_owned())
    }

    /// What a plugin changes of a CONNECT.
    pub fn overrides(&self) -> Result<ConnackOverrides, Unreadable> {
        let mut overrides = ConnackOverrides::default();
        for (key, number, bytes) in self.pieces()? {
            match key {
                AnswerKey::CLIENT_ID => overrides.client_id = Some(client_id(bytes)?.to_owned()),
                AnswerKey::KEEP_ALIVE => {
                    let secs = u16::try_from(number);
                    overrides.keep_alive =
                        Some(secs.map_err(|_| format!("a keep alive of {number} s, more than 65,535"))?);
                }
                AnswerKey::SESSION_EXPIRY => {
                    let secs = u32::try_from(number);
                    overrides.session_expiry =
                        Some(secs.map_err(|_| format!("a session expiry of {number} s, more than 32 bits"))?);
                }
                AnswerKey::PROPERTIES => {
                    overrides.properties = rules::properties(Place::Accept, bytes)?.into();
                }
                _ => return Err(unexpected(key)),
            }
        }
        Ok(overrides)
    }

    /// Authentication Data.
    pub fn auth_data(&self) -> Result<Option<Vec<u8>>, Unreadable> {
        let mut data = None;
        for (key, _, bytes) in self.pieces()? {
            match key {
                AnswerKey::AUTH_DATA if bytes.len() <= usize::from(u16::MAX) => data = Some(bytes.to_vec()),
                AnswerKey::AUTH_DATA => {
                    return Err(format!("authentication data of {} bytes, more than 65,535", bytes.len()));
                }
                _ => return Err(unexpected(key)),
            }
        }
        Ok(data)
    }

    /// One Reason Code for each of `count` Topic Filters.
    pub fn codes(&self, count: usize) -> Result<&[u8], Unreadable> {
        let mut codes: &[u8] = &[];
        for (key, _, bytes) in self.pieces()? {
            match key {
                AnswerKey::CODES => codes = bytes,
                _ => return Err(unexpected(key)),
            }
        }
        if codes.len() == count {
            Ok(codes)
        } else {
            Err(format!("{} reason codes for {count} topic filters", codes.len()))
        }
    }

    /// A message to be forwarded, in a packet of at most `packet_bytes_max`.
    pub fn message(&self, packet_bytes_max: usize) -> Result<MessageView<'_>, Unreadable> {
        let mut parts = Parts::default();
        for (key, number, bytes) in self.pieces()? {
            parts.add(key, number, bytes)?;
        }
        parts.message(packet_bytes_max)
    }

    /// The actions of `handle_info`, with messages in packets of at most `packet_bytes_max`.
    pub fn actions(&self, packet_bytes_max: usize) -> Result<Vec<InfoAction>, Unreadable> {
        let (mut actions, mut current) = (Vec::new(), None::<(u64, Parts<'_>)>);
        for (key, number, bytes) in self.pieces()? {
            match (&mut current, key) {
                (_, AnswerKey::ACTION) => {
                    if let Some((kind, parts)) = current.replace((number, Parts::default())) {
                        actions.push(parts.action(kind, packet_bytes_max)?);
                    }
                }
                (Some((_, parts)), _) => parts.add(key, number, bytes)?,
                (None, _) => return Err(unexpected(key)),
            }
        }
        if let Some((kind, parts)) = current {
            actions.push(parts.action(kind, packet_bytes_max)?);
        }
        Ok(actions)
    }
}

/// What may belong to a message or an action.
#[derive(Default)]
struct Parts<'a> {
    topic: Option<&'a [u8]>,
    payload: &'a [u8],
    properties: &'a [u8],
    qos: u64,
    retain: u64,
    token: u64,
    reason_code: Option<u64>,
    text: &'a [u8],
}

impl<'a> Parts<'a> {
    fn add(&mut self, key: AnswerKey, number: u64, bytes: &'a [u8]) -> Result<(), Unreadable> {
        match key {
            AnswerKey::TOPIC => self.topic = Some(bytes),
            AnswerKey::PAYLOAD => self.payload = bytes,
            AnswerKey::PROPERTIES => self.properties = bytes,
            AnswerKey::QOS => self.qos = number,
            AnswerKey::RETAIN => self.retain = number,
            AnswerKey::TOKEN => self.token = number,
            AnswerKey::REASON_CODE => self.reason_code = Some(number),
            AnswerKey::TEXT => self.text = bytes,
            _ => return Err(unexpected(key)),
        }
        Ok(())
    }

    fn message(self, packet_bytes_max: usize) -> Result<MessageView<'a>, Unreadable> {
        let topic = rules::topic_name(self.topic.ok_or("a message without a topic")?)?;
        let qos = u8::try_from(self.qos).ok().and_then(QoS::from_u8);
        let qos = qos.ok_or_else(|| format!("QoS is 0, 1 or 2, not {}", self.qos))?;
        rules::message_size(topic.as_bytes(), self.payload, self.properties, qos, packet_bytes_max)?;
        let retain = match self.retain {
            0 => false,
            1 => true,
            other => return Err(format!("RETAIN is 0 or 1, not {other}")),
        };
        Ok(MessageView {
            topic,
            payload: self.payload,
            properties: rules::properties(Place::Message, self.properties)?,
            qos,
            retain,
            token: self.token,
        })
    }

    fn action(self, kind: u64, packet_bytes_max: usize) -> Result<InfoAction, Unreadable> {
        match kind {
            ACTION_PUBLISH => {
                let mut message = OwnedMessage::default();
                self.message(packet_bytes_max)?.copy_to(&mut message);
                Ok(InfoAction::Publish(message))
            }
            ACTION_DISCONNECT => Ok(InfoAction::Disconnect {
                reason_code: rules::disconnection(self.reason_code.ok_or("it has no reason code")?)?,
                properties: rules::properties(Place::Farewell, self.properties)?.into(),
            }),
            ACTION_STOP => Ok(InfoAction::Stop { reason: String::from_utf8_lossy(self.text).into_owned() }),
            other => Err(format!("an action of the unknown kind {other}")),
        }
    }
}

/// A verdict that the callback does not have.
pub fn unknown(verdict: Verdict) -> Unreadable {
    match verdict {
        Verdict::AWAY => "the state is still with an earlier callback, which was cancelled".to_owned(),
        Verdict(number) => format!("the verdict {number} is not one of this callback"),
    }
}

fn unexpected(key: AnswerKey) -> Unreadable {
    format!("it has a piece {} that does not belong there", key.0)
}

fn client_id(bytes: &[u8]) -> Result<&str, Unreadable> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("the client id is not UTF-8: {error}"))?;
    match text.len() {
        1..=65_535 if !text.contains('\0') => Ok(text),
        length => Err(format!("a client id has 1 to 65,535 bytes and no U+0000; this one has {length} bytes")),
    }
}

/// A slice that may be looked at: no pointer is fine where there is no length.
#[must_use]
pub fn checked<T>(slice: RSlice<'_, T>) -> Option<RSlice<'_, T>> {
    let bytes = slice.len().checked_mul(size_of::<T>()).filter(|bytes| isize::try_from(*bytes).is_ok());
    match (slice.as_ptr().is_null(), slice.len(), bytes) {
        (_, 0, _) => Some(RSlice::EMPTY),
        (false, _, Some(_)) if slice.as_ptr().is_aligned() => Some(slice),
        _ => None,
    }
}

/// What plugins call. It must not unwind; nothing in it panics.
unsafe extern "C" fn put(context: Opaque, key: AnswerKey, number: u64, bytes: RSlice<'_, u8>) {
    // SAFETY: `Answer::sink` made the pointer from a mutable borrow that still lasts, and the plugin calls on the thread
    // that the borrow is on.
    let answer = unsafe { &mut *context.cast::<Answer>() };
    match checked(bytes) {
        Some(bytes) => answer.push(key, number, bytes.as_slice()),
        None => answer.contents.get_or_insert_default().has_null = true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(pieces: &[(AnswerKey, u64, &[u8])]) -> Answer {
        let mut answer = Answer::default();
        for (key, number, bytes) in pieces {
            answer.sink().put(*key, *number, bytes);
        }
        answer
    }

    fn check<T: std::fmt::Debug>(got: Result<T, Unreadable>, expected: &str) {
        match got {
            Ok(value) if expected.is_empty() => drop(value),
            Err(text) if !expected.is_empty() && text.contains(expected) => {}
            got => panic!("got {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn messages_are_checked() {
        type Pieces<'a> = &'a [(AnswerKey, u64, &'a [u8])];
        let rows: [(Pieces<'_>, &str); 13] = [
            (&[(AnswerKey::TOPIC, 0, b"a/b")], ""),
            (&[(AnswerKey::TOPIC, 0, b"a"), (AnswerKey::PROPERTIES, 0, b"\x01\x01")], ""),
            (&[], "without a topic"),
            (&[(AnswerKey::TOPIC, 0, b"a/+")], "not a Topic Name"),
            (&[(AnswerKey::TOPIC, 0, b"")], "not a Topic Name"),
            (&[(AnswerKey::TOPIC, 0, b"\xff")], "not UTF-8"),
            (&[(AnswerKey::TOPIC, 0, b"a"), (AnswerKey::QOS, 3, b"")], "QoS is 0, 1 or 2, not 3"),
            (&[(AnswerKey::TOPIC, 0, b"a"), (AnswerKey::RETAIN, 2, b"")], "RETAIN"),
            (&[(AnswerKey::TOPIC, 0, b"a"), (AnswerKey::PROPERTIES, 0, b"\x23\x00\x01")], "Topic Alias"),
            (&[(AnswerKey::TOPIC, 0, b"a"), (AnswerKey::PROPERTIES, 0, b"\x01\x01\x01\x01")], "twice"),
            (&[(AnswerKey::CLIENT_ID, 0, b"a")], "does not belong"),
            // A packet of 1000 bytes: 3 of header, 3 of Topic Name.
            (&[(AnswerKey::TOPIC, 0, b"a"), (AnswerKey::PAYLOAD, 0, &[0; 994])], ""),
            (
                &[(AnswerKey::TOPIC, 0, b"a"), (AnswerKey::PAYLOAD, 0, &[0; 995])],
                "1001 bytes, and the server takes 1000",
            ),
        ];
        for (pieces, expected) in rows {
            check(answer(pieces).message(1000).map(|message| message.topic.to_owned()), expected);
        }
    }

    #[test]
    fn other_answers_are_checked() {
        let code = |number| answer(&[(AnswerKey::REASON_CODE, number, b"")]);
        check(code(0x87).refusal(Place::Farewell), "");
        check(code(0).refusal(Place::Farewell), "0x80");
        check(code(300).disconnection(), "0x12c");
        check(code(0x04).disconnection(), "0x04");
        check(answer(&[]).refusal(Place::Farewell), "no reason code");
        check(answer(&[(AnswerKey::CODES, 0, b"\0")]).codes(2).map(<[u8]>::to_vec), "1 reason codes for 2");
        check(answer(&[(AnswerKey::CLIENT_ID, 0, b"")]).overrides(), "client id");
        check(answer(&[(AnswerKey::KEEP_ALIVE, 70_000, b"")]).overrides(), "keep alive");
        check(answer(&[(AnswerKey(99), 0, b"")]).nothing(), "piece 99");
        check(answer(&[(AnswerKey::ACTION, 9, b"")]).actions(1000), "unknown kind 9");
        check(answer(&[(AnswerKey::TOPIC, 0, b"a")]).actions(1000), "does not belong");
        check(answer(&[(AnswerKey::AUTH_DATA, 0, &[0; 65_536])]).auth_data(), "65536 bytes");
    }

    #[test]
    fn an_answer_has_a_bound() {
        let mut many = Answer::default();
        for _ in 0..=ANSWER_PIECES_MAX {
            many.sink().put(AnswerKey::QOS, 0, b"");
        }
        check(many.nothing(), "more than 65536 pieces");
    }
}
