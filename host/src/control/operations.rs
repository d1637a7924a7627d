//! From requests to what a server does.

use serde_json::json;

use super::protocol::{Answer, Refusal, Request};
use crate::server::ServerHandle;

/// Carries out a request, on the thread of whoever asks.
pub(super) fn carry_out(server: &ServerHandle, request: Request) -> Answer {
    match request {
        Request::Version => Ok(json!({
            "host": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "listeners": server.local_addrs().iter().map(ToString::to_string).collect::<Vec<_>>(),
        })),
        Request::Plugins => Ok(json!({"plugins": []})),
        other => Err(Refusal::new("request", other.command())),
    }
}
