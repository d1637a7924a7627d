//! Refuses to start: `init` returns the text of `reason` in its configuration, or "there is no reason".

use plugin_api::{ConnectionInfo, Error, Handler, Host, handler};
use test_plugins::Config;

struct Refuses;

#[handler]
impl Handler for Refuses {
    type Connection = ();

    fn init(_: Host, config: &str) -> Result<Self, Error> {
        Err(match Config::parse(config)?.text("reason") {
            "" => "there is no reason".into(),
            reason => reason.into(),
        })
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) {}
}

plugin_api::export!(Refuses, "refuses-init");
