//! The settings of TCP.

use std::net::SocketAddr;
use std::time::Duration;

/// How a listener's sockets behave. Nothing of it concerns Unix sockets, but the backlog.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpConfig {
    /// Connections that the kernel keeps for us until we accept them, unless the system allows fewer
    /// (`net.core.somaxconn`). Default: 4096.
    pub backlog: u32,
    /// Whether, and when, the kernel asks peers that are silent whether they are still there. Default: `None`, as MQTT has a
    /// Keep Alive of its own, and as it wakes devices that sleep.
    pub keep_alive: Option<TcpKeepAlive>,
    /// Whether other processes of the same user may listen at the same address (`SO_REUSEPORT`): connections are shared out
    /// between them, so that a new version can be started before the old one is stopped. Default: `false`.
    pub reuse_port: bool,
    /// Whether a listener at `[::]` takes IPv4 connections as well; nobody else can listen at `0.0.0.0` with the same port
    /// then. Default: `false`: `0.0.0.0` and `[::]` are two listeners.
    pub dual_stack: bool,
}

impl TcpConfig {
    /// Connections that wait to be accepted, if nothing else was said.
    pub const BACKLOG: u32 = 4096;

    /// What is wrong with it for a listener at this address; `None` for a Unix socket.
    pub(crate) fn check(&self, addr: Option<SocketAddr>) -> Result<(), String> {
        if !(1..=65_535).contains(&self.backlog) {
            return Err(format!("its backlog is {}: expected a number from 1 to 65535", self.backlog));
        }
        let takes_both = |addr: SocketAddr| addr.is_ipv6() && addr.ip().is_unspecified();
        if let Some(addr) = addr.filter(|addr| self.dual_stack && !takes_both(*addr)) {
            return Err(format!("dual_stack is for listeners at [::]: take [::]:{}, or leave it out", addr.port()));
        }
        self.keep_alive.as_ref().map_or(Ok(()), TcpKeepAlive::check)
    }
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self { backlog: Self::BACKLOG, keep_alive: None, reuse_port: false, dual_stack: false }
    }
}

/// When the kernel asks a silent peer, and when it gives up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpKeepAlive {
    /// Silence before it asks for the first time, in whole seconds from 1 s to 32767 s.
    pub idle: Duration,
    /// Time until it asks once more, in whole seconds from 1 s to 32767 s.
    pub interval: Duration,
    /// Questions without an answer after which the connection is lost, from 1 to 127.
    pub probes: u32,
}

impl TcpKeepAlive {
    /// Time between two questions, if nothing else was said.
    pub const INTERVAL: Duration = Duration::from_secs(15);

    /// Questions without an answer, if nothing else was said.
    pub const PROBES: u32 = 4;

    /// Asks after this silence, and then every 15 seconds, four times.
    #[must_use]
    pub fn after(idle: Duration) -> Self {
        Self { idle, interval: Self::INTERVAL, probes: Self::PROBES }
    }

    fn check(&self) -> Result<(), String> {
        for (what, time) in [("idle time", self.idle), ("interval", self.interval)] {
            // The kernel counts in seconds.
            if time.subsec_nanos() != 0 || !(1..=32_767).contains(&time.as_secs()) {
                return Err(format!(
                    "the {what} of its TCP keep-alive is {time:?}: expected whole seconds from 1s to 32767s"
                ));
            }
        }
        if !(1..=127).contains(&self.probes) {
            return Err(format!(
                "the probes of its TCP keep-alive are {}: expected a number from 1 to 127",
                self.probes
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_explained() {
        let secs = Duration::from_secs;
        let with = |keep_alive| TcpConfig { keep_alive: Some(keep_alive), ..TcpConfig::default() };
        let dual_stack = TcpConfig { dual_stack: true, ..TcpConfig::default() };
        let table = [
            (TcpConfig::default(), "127.0.0.1:1", None),
            (dual_stack.clone(), "[::]:1", None),
            (dual_stack.clone(), "[::1]:1", Some("take [::]:1, or leave it out")),
            (dual_stack, "0.0.0.0:1", Some("dual_stack is for listeners at [::]")),
            (
                TcpConfig { backlog: 0, ..TcpConfig::default() },
                "[::]:1",
                Some("backlog is 0: expected a number from 1"),
            ),
            (
                TcpConfig { backlog: 65_536, ..TcpConfig::default() },
                "[::]:1",
                Some("expected a number from 1 to 65535"),
            ),
            (with(TcpKeepAlive::after(secs(60))), "[::]:1", None),
            (
                with(TcpKeepAlive::after(secs(0))),
                "[::]:1",
                Some("idle time of its TCP keep-alive is 0ns: expected whole"),
            ),
            (with(TcpKeepAlive::after(secs(32_768))), "[::]:1", Some("from 1s to 32767s")),
            (with(TcpKeepAlive::after(Duration::from_millis(1500))), "[::]:1", Some("is 1.5s: expected whole seconds")),
            (
                with(TcpKeepAlive { interval: secs(0), ..TcpKeepAlive::after(secs(1)) }),
                "[::]:1",
                Some("the interval of"),
            ),
            (with(TcpKeepAlive { probes: 128, ..TcpKeepAlive::after(secs(1)) }), "[::]:1", Some("from 1 to 127")),
        ];
        for (config, addr, expected) in table {
            let error = config.check(Some(addr.parse().expect(addr))).err();
            let as_expected = match (&error, expected) {
                (Some(error), Some(expected)) => error.contains(expected),
                (error, expected) => error.is_none() && expected.is_none(),
            };
            assert!(as_expected, "{config:?} at {addr}: {error:?}, expected {expected:?}");
        }
    }
}
