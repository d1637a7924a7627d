//! Statements of MQTT 5.0 that the scenarios by theme leave open, by section of the specification. `CONFORMANCE.md` says
//! where each statement has its test.

mod connect;
mod publish;

use super::net::connect_packet;
use super::*;
