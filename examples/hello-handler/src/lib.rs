//! The smallest useful handler: it greets who connects, counts what each client publishes, and lets everything through.

use plugin_api::{
    Connect, ConnectVerdict, ConnectionInfo, Error, Handler, Host, Publish, PublishVerdict, Subscribe,
    SubscribeVerdict, handler,
};

/// The handler.
#[derive(Debug)]
pub struct Hello {
    host: Host,
}

#[handler]
impl Handler for Hello {
    /// How many messages the client has published.
    type Connection = u64;

    fn init(host: Host, _config: &str) -> Result<Self, Error> {
        Ok(Self { host })
    }

    fn new_connection(&self, _info: &ConnectionInfo<'_>) -> u64 {
        0
    }

    fn handle_connect(&self, _count: &mut u64, connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        self.host.info(format_args!("hello, {}", connect.client_id()));
        Ok(ConnectVerdict::accept())
    }

    fn handle_publish(&self, count: &mut u64, publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        *count += 1;
        self.host.debug(format_args!("message {count}: {}", publish.topic()));
        Ok(PublishVerdict::Forward)
    }

    /// Who decides on what is published has to say what may be subscribed to as well.
    fn handle_subscribe(&self, _count: &mut u64, _subscribe: &Subscribe<'_>) -> Result<SubscribeVerdict, Error> {
        Ok(SubscribeVerdict::Grant)
    }
}

plugin_api::export!(Hello);

#[cfg(test)]
mod tests {
    use plugin_api::testing::{LogLine, TestHost};

    use super::*;

    #[test]
    fn it_greets_counts_and_lets_everything_through() -> Result<(), Error> {
        let host = TestHost::new::<Hello>("{}")?;
        let client = host.connect("ann")?;
        assert_eq!(client.subscribe("greetings/#"), SubscribeVerdict::Grant);
        for payload in ["hello", "again"] {
            assert_eq!(client.publish("greetings/world", payload), PublishVerdict::Forward);
        }
        let texts: Vec<String> = host.take_logs().into_iter().map(|LogLine { text, .. }| text).collect();
        assert_eq!(texts, ["hello, ann", "message 1: greetings/world", "message 2: greetings/world"]);
        Ok(())
    }
}
