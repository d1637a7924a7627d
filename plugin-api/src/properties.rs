//! Properties of MQTT 5.0 packets, kept in their encoded form.
//!
//! They cross the broker, and the boundary to handlers, as the bytes that were on the wire: most
//! packets have none, and of those that have some few are looked at.

mod property;
#[cfg(test)]
mod tests;

use core::fmt;

pub use property::{Property, PropertyError};

/// The most bytes that a list of properties can have: its length is sent as a Variable Byte Integer.
const PROPERTIES_BYTES_MAX: usize = 268_435_455;

/// A list of properties in its encoded form, without the length in front of it.
///
/// Which properties may stand in which packet, and how often, is not known here: it is checked
/// where packets are decoded. MQTT 3.x has none: the list is empty.
///
/// ```
/// use plugin_api::{Properties, PropertiesBuf};
/// let properties = PropertiesBuf::new().user("region", "north").reason_string("why not");
/// let properties: Properties<'_> = properties.as_properties();
/// assert_eq!(properties.reason_string(), Some("why not"));
/// assert_eq!(properties.user_properties().next(), Some(("region", "north")));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Properties<'a>(&'a [u8]);

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Properties<'static> = Properties(&[]);

    /// Checks that the bytes are known properties with well-formed values.
    ///
    /// # Errors
    /// An unknown identifier, a value that is cut off or out of its range, a string that is not
    /// UTF-8 or has U+0000 in it.
    pub fn parse(bytes: &'a [u8]) -> Result<Properties<'a>, PropertyError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = Property::decode(rest)?.1;
        }
        Ok(Properties(bytes))
    }

    /// Takes bytes that were checked before, by [`Properties::parse`] or by the decoder of a packet.
    ///
    /// With other bytes, properties are missing: from the first one on that cannot be read.
    #[inline]
    pub const fn from_trusted(bytes: &'a [u8]) -> Properties<'a> {
        Properties(bytes)
    }

    /// The encoded list, without the length in front of it.
    #[inline]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// True if there is not one property.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The properties in the order in which they were sent.
    pub fn iter(self) -> impl Iterator<Item = Property<'a>> + Clone + use<'a> {
        Iter(self.0)
    }

    /// The User Properties (`0x26`), in order; a name may occur more than once.
    pub fn user_properties(self) -> impl Iterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        self.iter().filter_map(|property| match property {
            Property::UserProperty(name, value) => Some((name, value)),
            _ => None,
        })
    }

    /// The Subscription Identifiers (`0x0B`), in order. A PUBLISH to a client has one for each
    /// matching subscription that was made with one; a SUBSCRIBE has at most one.
    pub fn subscription_identifiers(self) -> impl Iterator<Item = u32> + Clone + use<'a> {
        self.iter().filter_map(|property| match property {
            Property::SubscriptionIdentifier(identifier) => Some(identifier),
            _ => None,
        })
    }
}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[derive(Clone)]
struct Iter<'a>(&'a [u8]);

impl<'a> Iterator for Iter<'a> {
    type Item = Property<'a>;

    fn next(&mut self) -> Option<Property<'a>> {
        match Property::decode(self.0) {
            Ok((property, rest)) => {
                self.0 = rest;
                Some(property)
            }
            Err(_) => {
                // The end of the list, or bytes that should not have been trusted: nothing after
                // them can be told apart.
                self.0 = &[];
                None
            }
        }
    }
}

/// A list of properties that is being put together. An empty one allocates nothing.
///
/// [`push`](PropertiesBuf::push) reports a property that cannot be sent; the chainable methods
/// leave such a one out: they are meant for values that are known to be in order, or that are
/// for people to read.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct PropertiesBuf(Vec<u8>);

impl PropertiesBuf {
    /// An empty list.
    pub const fn new() -> PropertiesBuf {
        PropertiesBuf(Vec::new())
    }

    /// Appends a property.
    ///
    /// # Errors
    /// A value out of its range; a string or binary data with more than 65,535 bytes; a string with
    /// U+0000 in it; a list that would get longer than 268,435,455 bytes. The list is unchanged then.
    pub fn push(&mut self, property: Property<'_>) -> Result<(), PropertyError> {
        let bytes_before = self.0.len();
        let result = property.encode(&mut self.0).and_then(|()| {
            if self.0.len() > PROPERTIES_BYTES_MAX {
                return Err(PropertyError::TooLong { id: property.id(), bytes: self.0.len() });
            }
            Ok(())
        });
        if result.is_err() {
            self.0.truncate(bytes_before);
        }
        result
    }

    /// Appends a property, or leaves it out if it cannot be sent.
    #[must_use]
    pub fn with(mut self, property: Property<'_>) -> PropertiesBuf {
        // Documented: whoever has to know calls `push`.
        let _ = self.push(property);
        self
    }

    /// Appends a User Property, or leaves it out if it cannot be sent.
    #[must_use]
    pub fn user(self, name: &str, value: &str) -> PropertiesBuf {
        self.with(Property::UserProperty(name, value))
    }

    /// Appends a Reason String (for people, not for programs), or leaves it out if it cannot be sent.
    #[must_use]
    pub fn reason_string(self, reason: &str) -> PropertiesBuf {
        self.with(Property::ReasonString(reason))
    }

    /// The list as a view.
    #[inline]
    pub fn as_properties(&self) -> Properties<'_> {
        Properties(&self.0)
    }

    /// The encoded list, without the length in front of it.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The encoded list, without the length in front of it.
    #[inline]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// True if there is not one property.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Properties<'_>> for PropertiesBuf {
    fn from(properties: Properties<'_>) -> PropertiesBuf {
        PropertiesBuf(properties.0.to_vec())
    }
}

impl fmt::Debug for PropertiesBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_properties().fmt(f)
    }
}
