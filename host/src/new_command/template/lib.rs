//! What {{name}} decides: clients publish below their own Client Identifier and to what all of them
//! share, and read everything.

use plugin_api::{
    Connect, ConnectVerdict, ConnectionInfo, Error, Handler, Host, Publish, PublishVerdict,
    ReasonCode, State, StateView, Subscribe, SubscribeVerdict, Swapped, handler,
};

/// What the operator may say. Other keys and values are refused, with their place.
#[plugin_api::config]
struct Config {
    /// Topic Filters under which everybody may publish. Left out: none.
    #[serde(default)]
    shared: Vec<String>,
}

/// One value for all connections, which are served by several threads.
pub struct {{Handler}} {
    host: Host,
    config: Config,
}

#[handler]
impl Handler for {{Handler}} {
    /// What is remembered of each connection: its Client Identifier.
    type Connection = String;

    fn init(host: Host, config: Config) -> Result<Self, Error> {
        Ok(Self { host, config })
    }

    fn new_connection(&self, _info: &ConnectionInfo<'_>) -> String {
        String::new()
    }

    fn handle_connect(
        &self,
        client_id: &mut String,
        connect: &Connect<'_>,
    ) -> Result<ConnectVerdict, Error> {
        connect.client_id().clone_into(client_id);
        self.host.info(format_args!("welcome, {client_id}"));
        Ok(ConnectVerdict::accept())
    }

    fn handle_publish(
        &self,
        client_id: &mut String,
        publish: &Publish<'_>,
    ) -> Result<PublishVerdict, Error> {
        let shared = &self.config.shared;
        let is_shared = shared.iter().any(|filter| publish.matches(filter));
        if owns(client_id, publish.topic()) || is_shared {
            Ok(PublishVerdict::Forward)
        } else {
            Ok(PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED))
        }
    }

    fn handle_subscribe(
        &self,
        _: &mut String,
        _subscribe: &Subscribe<'_>,
    ) -> Result<SubscribeVerdict, Error> {
        Ok(SubscribeVerdict::Grant)
    }

    /// What the next version gets when it takes this one's place while clients are connected...
    fn export_state(&self, client_id: &mut String) -> State {
        State::new(1, client_id.as_bytes())
    }

    /// ... and how it reads that.
    fn import_state(&self, _: &Swapped<'_>, state: StateView<'_>) -> Result<String, Error> {
        match state.version() {
            1 => Ok(String::from_utf8(state.bytes().to_vec())?),
            other => Err(format!("a state of schema {other}: expected 1").into()),
        }
    }
}

plugin_api::export!({{Handler}});

/// Whether the first level of the topic is the client's own.
fn owns(client_id: &str, topic: &str) -> bool {
    topic.split('/').next() == Some(client_id)
}

#[cfg(test)]
mod tests {
    use plugin_api::testing::TestHost;

    use super::*;

    #[test]
    fn clients_publish_below_their_own_client_identifier() -> Result<(), Error> {
        let host = TestHost::new::<{{Handler}}>(r#"{"shared": ["weather/#"]}"#)?;
        let client = host.connect("pump-7")?;
        let publish = |topic| client.publish(topic, "3.1");
        assert_eq!(publish("pump-7/pressure"), PublishVerdict::Forward);
        assert_eq!(publish("weather/rain"), PublishVerdict::Forward);
        let refused = PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED);
        assert_eq!(publish("pump-70/pressure"), refused);
        Ok(())
    }

    #[test]
    fn a_configuration_that_is_wrong_is_refused_with_its_place() {
        let error = TestHost::new::<{{Handler}}>(r#"{"shared": ["weather/#", 7]}"#).unwrap_err();
        assert!(error.to_string().contains("`shared[1]`"), "{error}");
    }
}
