//! A configuration with a type is checked before the handler gets it.

use std::sync::atomic::{AtomicU32, Ordering};

use plugin_api::testing::TestHost;
use plugin_api::*;

/// What the handler may be told.
#[plugin_api::config]
struct Config {
    limit: u32,
}

struct Limited {
    limit: AtomicU32,
    host: Host,
}

#[handler]
impl Handler for Limited {
    type Connection = ();

    fn init(host: Host, Config { limit }: Config) -> Result<Self, Error> {
        Ok(Self { limit: AtomicU32::new(limit), host })
    }
    fn new_connection(&self, _: &ConnectionInfo<'_>) {}
    fn handle_config(&self, config: Config) -> Result<(), Error> {
        self.host.info("asked");
        self.limit.store(config.limit, Ordering::Relaxed);
        Ok(())
    }
    fn health(&self) -> Result<String, Error> {
        Ok(self.limit.load(Ordering::Relaxed).to_string())
    }
}

#[test]
fn what_does_not_fit_never_reaches_the_handler() {
    let error = TestHost::new::<Limited>(r#"{"limt": 5}"#).expect_err("there is no such key").to_string();
    assert!(error.contains("the configuration is wrong at `limt`: unknown field `limt`, expected `limit`"), "{error}");
    let host = TestHost::new::<Limited>(r#"{"limit": 5}"#).expect("it fits");
    let error = host.configure(r#"{"limit": "many"}"#).expect_err("no number").to_string();
    assert!(error.contains("`limit`: invalid type: string \"many\", expected u32"), "{error}");
    assert_eq!((host.take_logs().len(), host.health().expect("well").as_str()), (0, "5"));
    host.configure(r#"{"limit": 6}"#).expect("it fits");
    assert_eq!((host.take_logs().len(), host.health().expect("well").as_str()), (1, "6"));
    assert!(Limited::config_schema().is_some_and(|schema| schema.contains("What the handler may be told.")));
}
