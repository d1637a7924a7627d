//! MQTT 3.1.1 statement by statement, and what is different in 3.1.
//!
//! Statements of 3.1.1 are numbered differently from those of 5.0: their tags end in `@3.1.1`.

mod connect;
mod deliver;
mod mqisdp;
mod publish;
mod refused;
mod retained;
mod session;
mod subscribe;
mod wills;

use super::net::{connect_packet, resumed};
use super::*;

/// Both versions, for what they have in common.
const OLD: [ProtocolVersion; 2] = [V3_1, V3_1_1];
