//! How a connection comes to the host, and what is known of its peer besides the address: what the `extension` of
//! [`RawConnectionInfo`] and [`RawConnect`] points to.
//!
//! Structs that begin with their `size` are prefix types: a later version appends fields, and who knows of them asks whether
//! `size` reaches as far. The others are closed, as all views are.

use std::ffi::c_void;

use abi_stable::StableAbi;
use abi_stable::std_types::{RSlice, RStr};

use super::{RawConnect, RawConnectionInfo, RawPeer};

/// How a connection comes to the host, and what is known of the peer besides its address. The `extension` of
/// [`RawConnectionInfo`] and of [`RawConnect`] points to one, or is null: for plain TCP, and in hosts before 1.1.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawTransport<'a> {
    /// Bytes of this struct. What lies behind them is absent.
    pub size: usize,
    /// The number of a [`TransportKind`](crate::TransportKind).
    pub kind: u64,
    /// What TLS has agreed on, if it is TLS.
    pub tls: Option<&'a RawTls<'a>>,
    /// The request that a WebSocket began with. It is there until CONNECT has been answered, not after a swap.
    pub http: Option<&'a RawHttp<'a>>,
    /// Who is behind a Unix domain socket.
    pub unix_peer: Option<&'a RawUnixPeer>,
    /// Where the connection really comes from, if a proxy has told the address of the peer.
    pub proxy: Option<&'a RawPeer>,
}

/// What TLS has agreed on.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawTls<'a> {
    /// Bytes of this struct. What lies behind them is absent.
    pub size: usize,
    /// Such as `TLSv1.3`; empty if that is not known, as when a proxy has ended TLS.
    pub version: RStr<'a>,
    /// The name of the cipher suite in IANA's registry, such as `TLS13_AES_128_GCM_SHA256`; empty if it is not known.
    pub cipher_suite: RStr<'a>,
    /// The server's name that the client has asked for (SNI); empty if it has not.
    pub server_name: RStr<'a>,
    /// The protocol that was agreed on (ALPN); empty if there is none.
    pub alpn: RSlice<'a, u8>,
    /// The client's certificate, if it has shown one. It has been verified.
    pub certificate: Option<&'a RawCertificate<'a>>,
}

/// A client's certificate that has been verified.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawCertificate<'a> {
    /// Bytes of this struct. What lies behind them is absent.
    pub size: usize,
    /// Its subject, as text by RFC 4514: `CN=sensor-7,O=Example`.
    pub subject: RStr<'a>,
    /// The first common name of the subject; empty if there is none.
    pub common_name: RStr<'a>,
    /// Subject alternative names, in their order.
    pub alternative_names: RSlice<'a, RawAlternativeName<'a>>,
    /// SHA-256 of its encoding.
    pub sha256: [u8; 32],
    /// Its serial number, the most significant byte first.
    pub serial: RSlice<'a, u8>,
    /// When it expires, in seconds since 1970, UTC.
    pub not_after: u64,
}

/// A subject alternative name.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawAlternativeName<'a> {
    /// The name; an IP address as text.
    pub name: RStr<'a>,
    /// The number of a [`NameKind`](crate::NameKind).
    pub kind: u64,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

/// The request that a WebSocket began with.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawHttp<'a> {
    /// Bytes of this struct. What lies behind them is absent.
    pub size: usize,
    /// What stood between method and version: path and query.
    pub path: RStr<'a>,
    /// Headers in their order.
    pub headers: RSlice<'a, RawHeader<'a>>,
}

/// A header of an HTTP request.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawHeader<'a> {
    /// Its name as it was sent: capital letters make no difference.
    pub name: RStr<'a>,
    /// Its value, which need not be UTF-8.
    pub value: RSlice<'a, u8>,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

/// Who is behind a Unix domain socket, as the kernel says.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawUnixPeer {
    /// Bytes of this struct. What lies behind them is absent.
    pub size: usize,
    /// User.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Process; 0 for one that the host does not see, as it is in another namespace (a container).
    pub pid: u64,
}

impl<'a> RawConnectionInfo<'a> {
    /// What its `extension` points to.
    pub(crate) fn transport(&self) -> Option<&'a RawTransport<'a>> {
        // SAFETY: whoever makes the view promises that its extension is null, or points to one for as long as the view.
        unsafe { self.extension.cast::<RawTransport<'a>>().as_ref() }
    }
}

impl<'a> RawConnect<'a> {
    /// What its `extension` points to.
    pub(crate) fn transport(&self) -> Option<&'a RawTransport<'a>> {
        // SAFETY: as for `RawConnectionInfo`.
        unsafe { self.extension.cast::<RawTransport<'a>>().as_ref() }
    }
}
