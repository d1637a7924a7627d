//! What plugins are shown of a transport: [`PeerDetails`] as they cross.
#![allow(unsafe_code)] // What was shown is found again behind the pointer that plugins got.

use std::ffi::c_void;
use std::fmt;

use plugin_api::abi::{
    RawAlternativeName, RawCertificate, RawConnect, RawHeader, RawHttp, RawPeer, RawTls, RawTransport, RawUnixPeer,
};

use super::request::{NO_EXTENSION, slice, text};
use crate::core::peer::{ClientCertificate, HttpDetails, PeerDetails, TlsDetails};

/// What is shown of one connection's transport, for the length of a call; nothing for plain TCP.
#[derive(Clone, Copy)]
pub struct Transport<'a>(Option<&'a Shown<'a>>);

/// What plugins see, and behind it what it was made of.
#[repr(C)]
struct Shown<'a> {
    raw: RawTransport<'a>,
    details: &'a PeerDetails,
}

/// Has a transport shown.
pub fn show<T>(details: Option<&PeerDetails>, see: impl FnOnce(Transport<'_>) -> T) -> T {
    match details {
        None => see(Transport::PLAIN),
        Some(details) => show_details(details, see),
    }
}

#[cold]
fn show_details<T>(details: &PeerDetails, see: impl FnOnce(Transport<'_>) -> T) -> T {
    let certificate = details.certificate();
    let names: Vec<RawAlternativeName<'_>> = certificate.map_or_else(Vec::new, raw_names);
    let certificate = certificate.map(|certificate| raw_certificate(certificate, &names));
    let tls = details.tls.as_ref().map(|tls| raw_tls(tls, certificate.as_ref()));
    let headers: Vec<RawHeader<'_>> = details.http.as_ref().map_or_else(Vec::new, |http| raw_headers(http));
    let http = details.http.as_ref().map(|http| RawHttp {
        size: size_of::<RawHttp<'_>>(),
        path: text(&http.path),
        headers: slice(&headers),
    });
    let unix = details.unix.map(|unix| RawUnixPeer {
        size: size_of::<RawUnixPeer>(),
        uid: unix.uid.into(),
        gid: unix.gid.into(),
        pid: unix.pid.into(),
    });
    let proxy = details.proxy.map(RawPeer::from);
    let raw = RawTransport {
        size: size_of::<RawTransport<'_>>(),
        kind: details.transport as u64,
        tls: tls.as_ref(),
        http: http.as_ref(),
        unix_peer: unix.as_ref(),
        proxy: proxy.as_ref(),
    };
    see(Transport(Some(&Shown { raw, details })))
}

fn raw_tls<'a>(tls: &'a TlsDetails, certificate: Option<&'a RawCertificate<'a>>) -> RawTls<'a> {
    RawTls {
        size: size_of::<RawTls<'_>>(),
        version: text(&tls.version),
        cipher_suite: text(&tls.cipher_suite),
        server_name: text(tls.server_name.as_deref().unwrap_or_default()),
        alpn: slice(tls.alpn.as_deref().unwrap_or_default()),
        certificate,
    }
}

fn raw_certificate<'a>(certificate: &'a ClientCertificate, names: &'a [RawAlternativeName<'a>]) -> RawCertificate<'a> {
    RawCertificate {
        size: size_of::<RawCertificate<'_>>(),
        subject: text(&certificate.subject),
        common_name: text(certificate.common_name.as_deref().unwrap_or_default()),
        alternative_names: slice(names),
        sha256: certificate.sha256,
        serial: slice(&certificate.serial),
        not_after: certificate.not_after_secs,
    }
}

fn raw_names(certificate: &ClientCertificate) -> Vec<RawAlternativeName<'_>> {
    let names = certificate.alternative_names.iter();
    names
        .map(|name| RawAlternativeName { name: text(&name.name), kind: name.kind as u64, extension: NO_EXTENSION })
        .collect()
}

fn raw_headers(http: &HttpDetails) -> Vec<RawHeader<'_>> {
    let headers = http.headers.iter();
    headers
        .map(|header| RawHeader { name: text(&header.name), value: slice(&header.value), extension: NO_EXTENSION })
        .collect()
}

impl<'a> Transport<'a> {
    /// Plain TCP, or what is not told.
    pub const PLAIN: Self = Self(None);

    /// The extension of a view.
    pub(super) fn extension(self) -> *const c_void {
        self.0.map_or(NO_EXTENSION, |shown| std::ptr::from_ref(shown).cast())
    }

    /// What a view has been made with.
    pub(super) fn of(view: &RawConnect<'a>) -> Self {
        // SAFETY: views are made here from requests, whose extension is what `extension` returns: null, or a pointer to what
        // is shown for as long as the view.
        Self(unsafe { view.extension.cast::<Shown<'a>>().as_ref() })
    }

    /// A copy of what is shown, for calls on other threads.
    pub(super) fn to_details(self) -> Option<Box<PeerDetails>> {
        self.0.map(|shown| Box::new(shown.details.clone()))
    }
}

impl fmt::Debug for Transport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map(|shown| shown.details.transport).fmt(f)
    }
}
