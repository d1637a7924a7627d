//! Which Reason Codes a server may put into which packet: the tables of the packets, by packet.

use plugin_api::ReasonCode;

use super::{PacketType, ack, auth, connack, disconnect, suback};

/// The Reason Codes that a server may send in a packet of MQTT 5.0, in ascending order; none where a packet has no Reason
/// Code, or where only a client sends it [MQTT-3.2.2-8] [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.9.3-2] [MQTT-3.11.3-2]
/// [MQTT-3.14.2-1].
pub fn reason_codes_from_server(packet: PacketType) -> impl Iterator<Item = ReasonCode> {
    let table = match packet {
        PacketType::Connack => connack::REASON_CODES,
        PacketType::Puback | PacketType::Pubrec => ack::PUBLISH_REASON_CODES,
        PacketType::Pubrel | PacketType::Pubcomp => ack::RELEASE_REASON_CODES,
        PacketType::Suback => suback::SUBACK_REASON_CODES,
        PacketType::Unsuback => suback::UNSUBACK_REASON_CODES,
        PacketType::Disconnect => disconnect::REASON_CODES,
        PacketType::Auth => auth::REASON_CODES,
        PacketType::Connect
        | PacketType::Publish
        | PacketType::Subscribe
        | PacketType::Unsubscribe
        | PacketType::Pingreq
        | PacketType::Pingresp => &[],
    };
    let client_only = move |code: ReasonCode| {
        matches!(
            (packet, code),
            (PacketType::Disconnect, ReasonCode::DISCONNECT_WITH_WILL)
                | (PacketType::Auth, ReasonCode::RE_AUTHENTICATE)
        )
    };
    table.iter().map(|code| ReasonCode(*code)).filter(move |code| !client_only(*code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unspecified_error_may_stand_wherever_a_refusal_may() {
        for packet in [
            PacketType::Connack,
            PacketType::Puback,
            PacketType::Pubrec,
            PacketType::Suback,
            PacketType::Unsuback,
            PacketType::Disconnect,
        ] {
            let codes: Vec<ReasonCode> = reason_codes_from_server(packet).collect();
            assert!(codes.contains(&ReasonCode::UNSPECIFIED_ERROR), "{packet}");
            assert!(codes.is_sorted_by_key(|code| code.0), "{packet}");
        }
    }

    #[test]
    fn codes_of_other_packets_and_of_clients_are_left_out() {
        let may = |packet, code| reason_codes_from_server(packet).any(|allowed| allowed == ReasonCode(code));
        let table = [
            (PacketType::Connack, 0x86, true),
            (PacketType::Connack, 0x8d, false),
            (PacketType::Puback, 0x96, false),
            (PacketType::Pubrec, 0x97, true),
            (PacketType::Suback, 0x97, true),
            (PacketType::Suback, 0x11, false),
            (PacketType::Unsuback, 0x97, false),
            (PacketType::Disconnect, 0x86, false),
            (PacketType::Disconnect, 0x04, false),
            (PacketType::Disconnect, 0x98, true),
            (PacketType::Auth, 0x19, false),
            (PacketType::Publish, 0x00, false),
        ];
        for (packet, code, expected) in table {
            assert_eq!(may(packet, code), expected, "{packet} {code:#04x}");
        }
    }
}
