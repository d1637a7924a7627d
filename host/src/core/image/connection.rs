//! A Network Connection.

use std::net::{IpAddr, SocketAddr};

use plugin_api::{DisconnectKind, QoS, ReasonCode, TransportKind};

use super::message::read_qos;
use super::{ProfileOf, stopping};
use crate::clock::Millis;
use crate::codec::ProtocolVersion;
use crate::core::aliases::OutboundAliases;
use crate::core::connection::{Auth, Closing, Connection, Extra, NONE, Phase, Will};
use crate::core::kept::KeptBytes;
use crate::core::mount::MOUNTED;
use crate::core::peer::{AlternativeName, ClientCertificate, NameKind, PeerDetails, TlsDetails, UnixCredentials};
use crate::core::rates::ClientRates;
use crate::core::replay::Replays;
use crate::core::{Core, ListenerProfile};
use crate::packed::{Reader, Unreadable, Write};
use crate::plugin::{self, Conformed, ConnectionInfo, Handlers, SwapRequest};

impl Core {
    pub(super) fn connection_image(&mut self, slot: u32, out: &mut Vec<u8>) {
        let Self { connections, sessions, shared, .. } = self;
        let connection = &mut connections[slot as usize];
        out.put_u64(connection.id);
        write_addr(connection.peer.addr(), out);
        out.put_text(&connection.listener.profile.name);
        out.put_u8(connection.version as u8);
        out.put_flag(connection.asked_no_expiry);
        out.put_flag(connection.problem_information);
        out.put_u8(connection.aliases_max);
        out.put_u32(connection.packet_bytes_max);
        out.put_u16(connection.in_flight_max);
        out.put_u16(connection.received_before);
        out.put_u16(connection.keep_alive_secs);
        out.put_u64(connection.heard_at.0);
        out.put_u64(connection.out_largest as u64);
        out.put_bytes(&connection.out[connection.out_sent..]);
        out.put_option(connection.partial.as_deref(), |out, partial| {
            out.put_flag(partial.has_secrets());
            out.put_bytes(partial);
        });
        let extra = connection.extra.as_deref();
        out.put_option(extra.and_then(|extra| extra.details.as_deref()), |out, details| write_details(details, out));
        out.put_option(extra.and_then(|extra| extra.will.as_ref()), |out, will| will.write(out));
        out.put_option(connection.auth(), |out, auth| {
            out.put_text(&auth.method);
            out.put_option(auth.owner, |out, owner| out.put_count(owner));
        });
        let aliases = extra.map_or(&[][..], |extra| &extra.aliases);
        out.put_count(aliases.len());
        for topic in aliases {
            out.put_option(topic.as_deref(), |out, topic| out.put_text(topic));
        }
        out.put_option(extra.and_then(|extra| extra.outbound_aliases.as_ref()), |out, aliases| {
            let topics: Vec<&str> = aliases.topics().collect();
            out.put_count(topics.len());
            topics.into_iter().for_each(|topic| out.put_text(topic));
        });
        let rates = extra.map_or([0; 2], |extra| extra.rates.to_numbers());
        rates.into_iter().for_each(|number| out.put_u64(number));
        out.put_option(extra.map(|extra| &extra.replays), |out, replays| replays.write(&shared.retained, out));
        let who = sessions.get(connection.session as usize).map_or("", |session| &session.client_id);
        out.put_option(connection.handlers.as_mut(), |out, handlers| handlers.bequeath(who, out));
    }

    /// Makes a connection of an image, with its session or [`NONE`]. Returns its slot.
    pub(super) fn inherit_connection(
        &mut self,
        session: u32,
        profile_of: &ProfileOf<'_>,
        reader: &mut Reader<'_>,
    ) -> Result<u32, Unreadable> {
        let (id, peer, name) = (reader.u64()?, read_addr(reader)?, reader.text()?);
        let found = profile_of(name).filter(|profile| profile.goes_over);
        let is_welcome = found.is_some();
        let profile = found.unwrap_or_else(|| ListenerProfile::new(name, self.shared.limits.clone()).into());
        let listener = self.listeners.of(&profile);
        let mut connection = Connection::new(id, peer, listener, self.now);
        connection.version = match reader.u8()? {
            3 => ProtocolVersion::V3_1,
            4 => ProtocolVersion::V3_1_1,
            5 => ProtocolVersion::V5,
            other => return Err(Unreadable(format!("a version of MQTT is {other}: expected 3 to 5"))),
        };
        connection.asked_no_expiry = reader.flag()?;
        connection.problem_information = reader.flag()?;
        let aliases_max = reader.u8()?;
        // Another part of the topics than the one that its packets are about.
        let is_elsewhere = (aliases_max == MOUNTED) != profile.mount.is_some();
        connection.aliases_max = aliases_max;
        connection.packet_bytes_max = reader.u32()?;
        connection.in_flight_max = reader.u16()?;
        connection.received_before = reader.u16()?;
        connection.keep_alive_secs = reader.u16()?;
        connection.heard_at = Millis(reader.u64()?);
        let largest = usize::try_from(reader.u64()?).unwrap_or(usize::MAX);
        let unsent = reader.bytes()?;
        let partial = reader.option(|reader| {
            let has_secrets = reader.flag()?;
            Ok(KeptBytes::new(reader.bytes()?, has_secrets))
        })?;
        let extra = self.read_extra(reader)?;
        connection.extra = Some(Box::new(extra));
        connection.drop_empty_extra();
        let handlers = match reader.flag()? {
            true => Some(self.inherit_handlers(&connection, session, reader)?),
            false => None,
        };
        let slot = self.insert_inherited(connection, session, partial);
        if !unsent.is_empty() {
            self.write(slot, |out| out.extend_from_slice(unsent));
        }
        self.connections[slot as usize].out_largest = largest;
        let end = match handlers.transpose() {
            Ok(handlers) => {
                self.connections[slot as usize].handlers = handlers;
                None
            }
            Err(Conformed::Disconnect) => {
                Some(Closing::telling(DisconnectKind::ServerDisconnect, ReasonCode::ADMINISTRATIVE_ACTION))
            }
            Err(_) => Some(Closing::failed()),
        };
        if let Some(closing) = end.or_else(|| (!is_welcome || is_elsewhere).then(stopping)) {
            self.closing_soon.push((slot, id, closing));
        }
        Ok(slot)
    }

    /// Puts it into its slot, and its session to it.
    fn insert_inherited(&mut self, connection: Connection, session: u32, partial: Option<KeptBytes>) -> u32 {
        let (peer, profile) = (connection.peer.addr(), std::sync::Arc::clone(&connection.listener.profile));
        // It is here already, whatever the bounds are now.
        self.shared.admission.enter_over_bounds(peer, &profile);
        let slot = self.insert_connection(connection);
        self.count_extra(slot);
        if session != NONE {
            let connection = &mut self.connections[slot as usize];
            (connection.session, connection.phase) = (session, Phase::Connected);
            self.sessions[session as usize].connection = slot;
        }
        if let Some(partial) = partial {
            self.keep_partial(slot, partial);
        }
        if let Some(due_at) = self.due_at(slot) {
            self.arm_connection(slot, due_at);
        }
        slot
    }

    fn read_extra(&self, reader: &mut Reader<'_>) -> Result<Extra, Unreadable> {
        let mut extra = Extra {
            details: reader.option(read_details)?.map(Box::new),
            will: reader.option(Will::read)?,
            ..Extra::default()
        };
        extra.auth = reader.option(|reader| {
            let (method, owner) = (reader.text()?.into(), reader.option(Reader::count)?);
            Ok(Auth { method, owner, again_until: None })
        })?;
        extra.aliases = reader.list(|reader| Ok(reader.option(Reader::text)?.map(Box::from)))?;
        extra.alias_bytes = extra.aliases.iter().flatten().map(|topic| topic.len()).sum();
        extra.outbound_aliases =
            reader.option(|reader| Ok(Box::new(OutboundAliases::of_topics(reader.list(Reader::text)?))))?;
        extra.rates = ClientRates::of_numbers([reader.u64()?, reader.u64()?]);
        let replays = reader.option(|reader| Replays::read(&self.shared.retained, reader))?;
        extra.replays = replays.unwrap_or_default();
        Ok(extra)
    }

    /// Has the plugins take in what those before knew; or says how the connection has to end.
    fn inherit_handlers(
        &mut self,
        connection: &Connection,
        session: u32,
        reader: &mut Reader<'_>,
    ) -> Result<Result<Handlers, Conformed>, Unreadable> {
        let client_id = self.sessions.get(session as usize).map_or("", |session| &session.client_id);
        let profile = &connection.listener.profile;
        plugin::show(connection.details(), |transport| {
            let info = ConnectionInfo {
                connection: connection.id,
                peer: connection.peer.addr(),
                listener: &profile.name,
                transport,
            };
            let request = SwapRequest {
                info,
                client_id,
                keep_alive: connection.keep_alive_secs,
                version: connection.version as u8,
            };
            Handlers::inherit(&self.plan, profile.plugins, &request, reader)
        })
    }
}

impl Will {
    fn write(&self, out: &mut Vec<u8>) {
        out.put_text(&self.topic);
        out.put_bytes(&self.payload);
        out.put_bytes(&self.properties);
        out.put_u8(self.qos as u8);
        out.put_flag(self.retain);
        out.put_u32(self.delay_secs);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Unreadable> {
        let (topic, payload, properties) = (reader.text()?.into(), reader.bytes()?.into(), reader.bytes()?.into());
        let qos: QoS = read_qos(reader)?;
        Ok(Self { topic, payload, properties, qos, retain: reader.flag()?, delay_secs: reader.u32()? })
    }
}

pub(in crate::core) fn write_addr(addr: SocketAddr, out: &mut Vec<u8>) {
    match addr.ip() {
        IpAddr::V4(ip) => out.put_bytes(&ip.octets()),
        IpAddr::V6(ip) => out.put_bytes(&ip.octets()),
    }
    out.put_u16(addr.port());
}

pub(in crate::core) fn read_addr(reader: &mut Reader<'_>) -> Result<SocketAddr, Unreadable> {
    let octets = reader.bytes()?;
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    let ip = v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from));
    let ip = ip.map_err(|_| Unreadable(format!("an address has {} bytes: expected 4 or 16", octets.len())))?;
    Ok(SocketAddr::new(ip, reader.u16()?))
}

/// What is known of a peer whose bytes are those of MQTT: nothing of TLS and HTTP.
pub(in crate::core) fn write_details(details: &PeerDetails, out: &mut Vec<u8>) {
    out.put_flag(details.transport == TransportKind::Unix);
    out.put_option(details.unix, |out, UnixCredentials { uid, gid, pid }| {
        [uid, gid, pid].into_iter().for_each(|number| out.put_u32(number));
    });
    out.put_option(details.proxy, |out, proxy| write_addr(proxy, out));
}

pub(in crate::core) fn read_details(reader: &mut Reader<'_>) -> Result<PeerDetails, Unreadable> {
    let transport = if reader.flag()? { TransportKind::Unix } else { TransportKind::Tcp };
    let unix =
        reader.option(|reader| Ok(UnixCredentials { uid: reader.u32()?, gid: reader.u32()?, pid: reader.u32()? }))?;
    let proxy = reader.option(read_addr)?;
    Ok(PeerDetails { transport, unix, proxy, ..PeerDetails::default() })
}

/// What is known of TLS; only where its connection does not go over.
pub(in crate::core) fn write_tls(tls: &TlsDetails, out: &mut Vec<u8>) {
    out.put_text(&tls.version);
    out.put_text(&tls.cipher_suite);
    out.put_option(tls.server_name.as_deref(), Vec::put_text);
    out.put_option(tls.alpn.as_deref(), Vec::put_bytes);
    out.put_option(tls.certificate.as_deref(), |out, certificate| {
        out.put_text(&certificate.subject);
        out.put_option(certificate.common_name.as_deref(), Vec::put_text);
        out.put_count(certificate.alternative_names.len());
        for AlternativeName { kind, name } in &certificate.alternative_names {
            out.put_u8(*kind as u8);
            out.put_text(name);
        }
        out.put_bytes(&certificate.sha256);
        out.put_bytes(&certificate.serial);
        out.put_u64(certificate.not_after_secs);
    });
}

pub(in crate::core) fn read_tls(reader: &mut Reader<'_>) -> Result<TlsDetails, Unreadable> {
    let text = |reader: &mut Reader<'_>| reader.text().map(Box::from);
    Ok(TlsDetails {
        version: text(reader)?,
        cipher_suite: text(reader)?,
        server_name: reader.option(text)?,
        alpn: reader.option(|reader| reader.bytes().map(Box::from))?,
        certificate: reader.option(read_certificate)?.map(Box::new),
    })
}

fn read_certificate(reader: &mut Reader<'_>) -> Result<ClientCertificate, Unreadable> {
    let text = |reader: &mut Reader<'_>| reader.text().map(Box::from);
    let name = |reader: &mut Reader<'_>| {
        let kind = match reader.u8()? {
            1 => NameKind::Dns,
            2 => NameKind::Email,
            3 => NameKind::Uri,
            4 => NameKind::Ip,
            _ => NameKind::Other,
        };
        Ok(AlternativeName { kind, name: reader.text()?.into() })
    };
    let (subject, common_name) = (text(reader)?, reader.option(text)?);
    let (alternative_names, sha256) = (reader.list(name)?.into(), reader.bytes()?);
    let wrong = |_| Unreadable(format!("a SHA-256 has {} bytes: expected 32", sha256.len()));
    let (sha256, serial) = (sha256.try_into().map_err(wrong)?, reader.bytes()?.into());
    Ok(ClientCertificate { subject, common_name, alternative_names, sha256, serial, not_after_secs: reader.u64()? })
}
