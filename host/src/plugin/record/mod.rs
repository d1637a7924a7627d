//! What plugins are asked and what they answer: written down, and put to a candidate.
//!
//! While somebody listens to an instance of a plugin, each of its calls leaves a [`Note`](notes::Note), a copy of what it was
//! shown and of what it has answered and asked of the host meanwhile. Notes wait in a bounded queue for a thread that makes a
//! file of them ([`Recorder`]), or that puts them to a candidate ([`dry_run`]); [`replay`] puts a file to one. Where nobody
//! listens, a call costs nothing for it: that somebody does is one of the reasons for which a call is not simply made.
//!
//! # The file
//! One JSON object a line. A host that begins to write says so with the first one below; then each plugin says what it is,
//! and then there is a line for each call:
//!
//! ```text
//! {"recording":1,"host":"0.1.0","pid":4711,"started":1763900000,"secrets":false,"continues":false}
//! {"at":0.001,"plugin":"acl","loaded":"1.0.0","api_version":"1.2.0","callbacks":["handle_connect","handle_publish"],
//!  "config":{"redacted":120}}
//! {"at":2.5,"plugin":"acl","connection":1,"call":"new_connection","input":{"peer":"127.0.0.1:40000","listener":"tcp"}}
//! {"at":2.6,"plugin":"acl","connection":1,"client":"c1","call":"handle_connect","input":{…},"answer":{"accept":{}}}
//! {"at":2.7,"plugin":"acl","connection":1,"client":"c1","call":"handle_publish","input":{"topic":"a","payload":"21"},
//!  "answer":{"later":7},"effects":[{"publish":{…}}]}
//! {"at":2.8,"plugin":"acl","connection":1,"client":"c1","later":7,"answer":{"forward":{}}}
//! {"at":9.9,"plugin":"acl","connection":1,"client":"c1","call":"end"}
//! {"at":9.9,"lost":12}
//! {"at":11.2,"plugin":"acl","call":"handle_config","input":{"config":{"redacted":135}},"answer":{"done":{}}}
//! {"at":12.5,"plugin":"acl","loaded":"1.1.0","api_version":"1.2.0","callbacks":["handle_connect"],"config":{"redacted":135}}
//! ```
//!
//! `at` is in seconds since the host began to write. A value that is `{"redacted": bytes}` was left out. Bytes are a text where
//! they are UTF-8, and in base64 otherwise, with `_base64` behind the key. Numbers are those of `plugin-api`'s ABI. `lost` says
//! how many calls are missing there: there were more than could be written, or the file could not be written. A second `loaded`
//! of a plugin is a swap, or its candidate. A host that goes on after an upgrade writes a first line with `continues`: its
//! connections are those of the host before. Each line is whole, but for the last one of a host that was killed.

mod answer;
mod candidate;
pub(super) mod effects;
mod file;
mod json;
mod notes;
mod peer;
mod replay;
mod report;
mod request;
mod shadow;
mod trial;

pub(super) use self::candidate::Captured;
pub use self::file::{Recorder, Recording};
pub(super) use self::notes::Taps;
pub use self::replay::{Replay, ReplayError, replay};
pub use self::shadow::DryRun;
pub(super) use self::shadow::Shadow;
pub(crate) use self::shadow::dry_run;
pub(crate) use self::trial::Configs;

/// The version of the file's form.
const VERSION: u64 = 1;
