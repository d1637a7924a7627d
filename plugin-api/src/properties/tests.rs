use super::*;

/// One of each property, with a value that is allowed.
fn one_of_each() -> Vec<Property<'static>> {
    use Property::*;
    vec![
        PayloadFormatIndicator(1),
        MessageExpiryInterval(3600),
        ContentType("text/plain"),
        ResponseTopic("answers/7"),
        CorrelationData(&[0, 1, 255]),
        SubscriptionIdentifier(268_435_455),
        SessionExpiryInterval(u32::MAX),
        AssignedClientIdentifier("auto-1"),
        ServerKeepAlive(60),
        AuthenticationMethod("SCRAM"),
        AuthenticationData(&[]),
        RequestProblemInformation(0),
        WillDelayInterval(5),
        RequestResponseInformation(1),
        ResponseInformation("answers/"),
        ServerReference("other:1883"),
        ReasonString("grün"),
        ReceiveMaximum(65_535),
        TopicAliasMaximum(0),
        TopicAlias(1),
        MaximumQos(1),
        RetainAvailable(1),
        UserProperty("name", ""),
        MaximumPacketSize(1),
        WildcardSubscriptionAvailable(0),
        SubscriptionIdentifierAvailable(1),
        SharedSubscriptionAvailable(0),
    ]
}

#[test]
fn each_property_survives_encoding() {
    for property in one_of_each() {
        let list = PropertiesBuf::new().with(property);
        assert_eq!(list.as_bytes()[0], property.id());
        assert_eq!(Properties::parse(list.as_bytes()), Ok(list.as_properties()));
        assert_eq!(list.as_properties().iter().collect::<Vec<_>>(), [property]);
        assert_eq!(Property::name_of(property.id()), Some(property.name()));
        // Cut off anywhere, it is an error and not another property.
        for bytes in 1..list.as_bytes().len() {
            assert_eq!(
                Properties::parse(&list.as_bytes()[..bytes]),
                Err(PropertyError::Truncated { id: property.id() })
            );
        }
    }
}

#[test]
fn there_are_27_identifiers() {
    assert_eq!((0..=255).filter(|&id| Property::name_of(id).is_some()).count(), 27);
    assert_eq!(one_of_each().len(), 27);
}

#[test]
fn getters_find_theirs_among_all() {
    let list = one_of_each().into_iter().fold(PropertiesBuf::new(), PropertiesBuf::with);
    let list = list.user("name", "again").with(Property::SubscriptionIdentifier(1));
    let list = list.as_properties();
    assert_eq!(list.payload_format_indicator(), Some(1));
    assert_eq!(list.message_expiry_interval(), Some(3600));
    assert_eq!(list.correlation_data(), Some(&[0, 1, 255][..]));
    assert_eq!(list.authentication_data(), Some(&[][..]));
    assert_eq!(list.reason_string(), Some("grün"));
    assert_eq!(list.topic_alias(), Some(1));
    assert_eq!(list.shared_subscription_available(), Some(0));
    assert_eq!(list.user_properties().collect::<Vec<_>>(), [("name", ""), ("name", "again")]);
    assert_eq!(list.subscription_identifiers().collect::<Vec<_>>(), [268_435_455, 1]);
    assert_eq!(Properties::EMPTY.topic_alias(), None);
}

#[test]
fn malformed_lists() {
    use PropertyError::*;
    for (bytes, expected) in [
        (&b"\x00"[..], UnknownIdentifier { id: 0 }),
        (b"\x04\x00", UnknownIdentifier { id: 4 }),
        (b"\x81\x00\x01", UnknownIdentifier { id: 0x81 }), // [MQTT-1.5.5-1]
        (b"\x01\x02", OutOfRange { id: 0x01, value: 2 }),
        (b"\x24\x02", OutOfRange { id: 0x24, value: 2 }),
        (b"\x21\x00\x00", OutOfRange { id: 0x21, value: 0 }),
        (b"\x23\x00\x00", OutOfRange { id: 0x23, value: 0 }), // [MQTT-3.3.2-8]
        (b"\x27\x00\x00\x00\x00", OutOfRange { id: 0x27, value: 0 }),
        (b"\x0B\x00", OutOfRange { id: 0x0B, value: 0 }),
        (b"\x0B\x81\x00", BadVariableByteInteger { id: 0x0B }), // [MQTT-1.5.5-1]
        (b"\x0B\x80\x80\x80\x80\x01", BadVariableByteInteger { id: 0x0B }),
        (b"\x1F\x00\x02\xC3\x28", NotUtf8 { id: 0x1F }), // [MQTT-1.5.4-1]
        (b"\x1F\x00\x03\xED\xA0\x80", NotUtf8 { id: 0x1F }), // [MQTT-1.5.4-1] a surrogate
        (b"\x1F\x00\x01\x00", NullCharacter { id: 0x1F }), // [MQTT-1.5.4-2]
        (b"\x26\x00\x01a\x00\x01\x00", NullCharacter { id: 0x26 }), // [MQTT-1.5.7-1]
    ] {
        assert_eq!(Properties::parse(bytes), Err(expected), "{bytes:02X?}");
    }
}

#[test]
fn what_cannot_be_sent_is_refused_and_leaves_the_list_as_it_was() {
    let long = "x".repeat(65_536);
    let mut list = PropertiesBuf::new().user("a", "b");
    let before = list.clone();
    for property in [
        Property::ReasonString(&long),
        Property::UserProperty("name", &long),
        Property::UserProperty("name", "a\0b"),
        Property::SubscriptionIdentifier(0),
        Property::SubscriptionIdentifier(268_435_456),
        Property::MaximumQos(2),
        Property::TopicAlias(0),
    ] {
        assert!(list.push(property).is_err());
        assert_eq!(list.clone().with(property), before);
        assert_eq!(list, before);
    }
}

#[test]
fn untrusted_bytes_give_missing_properties() {
    // A good property, then rubbish: the iterator ends instead of guessing.
    let list = Properties::from_trusted(b"\x01\x01\x04\xFF\x02\x00\x00\x00\x01");
    assert_eq!(list.iter().collect::<Vec<_>>(), [Property::PayloadFormatIndicator(1)]);
    assert_eq!(list.message_expiry_interval(), None);
}

#[test]
fn errors_say_what_was_got_and_expected() {
    for (bytes, text) in [
        (&b"\x21\x00\x00"[..], "Receive Maximum is 0, expected 1 to 65,535"),
        (b"\x19\x07", "Request Response Information is 7, expected 0 or 1"),
        (b"\x04\x07", "0x04 is not the identifier of a property"),
        (b"\x02\x07", "Message Expiry Interval is cut off: the Property Length ends inside it"),
    ] {
        assert_eq!(Properties::parse(bytes).map_err(|error| error.to_string()), Err(text.to_owned()));
    }
}

#[test]
fn any_bytes_are_parsed_or_refused() {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    // Miri takes seconds for what takes microseconds.
    for _ in 0..if cfg!(miri) { 500 } else { 100_000 } {
        let mut bytes = [0; 12];
        for byte in &mut bytes {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = (state >> 32) as u8 & 0x2F;
        }
        if let Ok(list) = Properties::parse(&bytes) {
            let again = list.iter().fold(PropertiesBuf::new(), PropertiesBuf::with);
            assert_eq!(again.as_bytes(), bytes);
        }
    }
}
