//! Owned requests say what the views say.

use std::sync::Arc;

use plugin_api::abi::Verdict;
use plugin_api::{
    AuthStep, AuthVerdict, ConnectVerdict, ConnectionId, ConnectionInfo, Error, Handler, Host, Lent, PublishVerdict,
    QoS, ReasonCode, RetainHandling, SubscribeVerdict, UnsubscribeVerdict, handler, owned,
};

use crate::fake_host::Plugin;

/// Compares each request with what the fake host sends.
struct Compares;

#[handler]
impl Handler for Compares {
    type Connection = ();

    fn init(_: Host, _: &str) -> Result<Self, Error> {
        Ok(Self)
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) {}

    async fn handle_connect(self: Arc<Self>, _: Lent<()>, connect: owned::Connect) -> Result<ConnectVerdict, Error> {
        assert_eq!(connect.client_id(), "me");
        assert_eq!((connect.username(), connect.password()), (Some("user"), Some(&b"secret"[..])));
        assert_eq!((connect.protocol_version(), connect.keep_alive_secs()), (5, 30));
        assert!(connect.clean_start() && !connect.is_client_id_assigned());
        assert_eq!((connect.connection(), connect.listener()), (ConnectionId(7), "tcp"));
        assert_eq!(connect.peer().to_string(), "192.0.2.7:1883");
        assert_eq!(connect.properties().iter().count(), 0);
        let will = connect.will().ok_or("a will")?;
        assert!(will.is_will() && will.retain() && !will.dup());
        assert_eq!((will.topic(), will.payload(), will.packet_id()), ("will/topic", &b"gone"[..], None));
        assert!(!format!("{connect:?}").contains("secret"), "nobody logs a password");
        Ok(ConnectVerdict::accept())
    }

    async fn handle_auth(self: Arc<Self>, _: Lent<()>, auth: owned::Auth) -> Result<AuthVerdict, Error> {
        assert_eq!((auth.method(), auth.data()), ("method", Some(&b"data"[..])));
        assert_eq!((auth.step(), auth.properties().iter().count()), (AuthStep::ReAuthenticate, 0));
        assert!(!format!("{auth:?}").contains("data"), "nobody logs a secret");
        Ok(AuthVerdict::OkWith(b"welcome".to_vec()))
    }

    async fn handle_publish(self: Arc<Self>, _: Lent<()>, publish: owned::Publish) -> Result<PublishVerdict, Error> {
        assert_eq!((publish.topic(), publish.payload(), publish.qos()), ("a/b", &b"p"[..], QoS::AtLeastOnce));
        assert!(publish.levels().eq(["a", "b"]) && publish.matches("a/#"));
        assert!(publish.dup() && !publish.retain() && !publish.is_will() && !publish.again());
        assert_eq!(publish.packet_id(), Some(9));
        assert_eq!(publish.properties().user_properties().next(), Some(("a", "b")));
        Ok(PublishVerdict::reject(ReasonCode::QUOTA_EXCEEDED))
    }

    async fn handle_subscribe(
        self: Arc<Self>,
        _: Lent<()>,
        subscribe: owned::Subscribe,
    ) -> Result<SubscribeVerdict, Error> {
        let mut subscriptions = subscribe.subscriptions();
        assert_eq!(subscriptions.len(), 2);
        let first = subscriptions.next().ok_or("one")?;
        assert_eq!((first.filter(), first.share_name(), first.qos()), ("a/+", Some("group"), QoS::AtLeastOnce));
        assert!(first.levels().eq(["a", "+"]) && first.again() && !first.no_local() && !first.retain_as_published());
        assert_eq!(first.retain_handling(), RetainHandling::DoNotSend);
        assert_eq!(first.reason_code(), ReasonCode::GRANTED_QOS_1);
        let second = subscriptions.next().ok_or("two")?;
        assert!(second.share_name().is_none() && second.no_local() && !second.again());
        assert_eq!(subscribe.properties().iter().count(), 0);
        Ok(SubscribeVerdict::Grant)
    }

    async fn handle_unsubscribe(
        self: Arc<Self>,
        _: Lent<()>,
        unsubscribe: owned::Unsubscribe,
    ) -> Result<UnsubscribeVerdict, Error> {
        assert!(unsubscribe.filters().eq(["a/+"]));
        assert_eq!(unsubscribe.properties().iter().count(), 0);
        Ok(UnsubscribeVerdict::Codes(vec![ReasonCode::NOT_AUTHORIZED]))
    }
}

#[test]
fn owned_requests_say_what_the_views_say() {
    let plugin = Plugin::new::<Compares>("{}");
    let mut state = plugin.connection();
    assert_eq!(plugin.connect(&mut state, "me").verdict, Verdict::OK);
    assert_eq!(plugin.auth(&mut state, "method").verdict, Verdict::OK);
    assert_eq!(plugin.publish(&mut state, "a/b", b"p").verdict, Verdict::REJECT);
    assert_eq!(plugin.subscribe(&mut state, "a/+").verdict, Verdict::OK);
    assert_eq!(plugin.unsubscribe(&mut state, "a/+").verdict, Verdict::CODES);
    assert_eq!(plugin.host.tickets(), 0);
    plugin.drop_connection(state);
}
