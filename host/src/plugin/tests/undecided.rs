//! What becomes of what no plugin decides about: it is allowed, unless plugins decide on the rest.

use plugin_api::PropertiesBuf;

use super::*;

/// One handler for each callback, with nothing else in it.
macro_rules! deciding {
    ($($name:ident, $callback:ident, $request:ty => $verdict:ty, $answer:expr;)+) => {$(
        struct $name;

        #[handler]
        impl Handler for $name {
            type Connection = ();

            fn init(_: Host, _: &str) -> Result<Self, Error> {
                Ok(Self)
            }

            fn new_connection(&self, _: &plugin_api::ConnectionInfo<'_>) {}

            fn $callback(&self, _: &mut (), _: $request) -> Result<$verdict, Error> {
                Ok($answer)
            }
        }
    )+};
}

deciding! {
    OnConnections, handle_connect, &Connect<'_> => ConnectVerdict, ConnectVerdict::accept();
    OnMessages, handle_publish, &Publish<'_> => PublishVerdict, PublishVerdict::Forward;
    OnSubscriptions, handle_subscribe, &Subscribe<'_> => SubscribeVerdict, SubscribeVerdict::Grant;
    OnDeliveries, handle_deliver, &Deliver<'_> => DeliverVerdict, DeliverVerdict::Send;
}

/// A chain of a plugin for each letter: `C`onnect, `P`ublish, `S`ubscribe, `D`eliver.
fn chain_of(letters: &str) -> Chain {
    let services = Services::detached();
    let plugin = |letter| match letter {
        'C' => Plugin::from_static::<OnConnections>("c", "1.0.0", "{}", &services),
        'P' => Plugin::from_static::<OnMessages>("p", "1.0.0", "{}", &services),
        'S' => Plugin::from_static::<OnSubscriptions>("s", "1.0.0", "{}", &services),
        _ => Plugin::from_static::<OnDeliveries>("d", "1.0.0", "{}", &services),
    };
    let plugins = letters.chars().map(|letter| plugin(letter).expect("loads"));
    Chain::new(plugins.collect()).expect("a chain")
}

#[test]
fn what_is_left_out_by_who_decides_on_the_rest_is_refused() {
    let table = [
        ("", true, true),
        ("C", true, true),
        ("P", true, true),
        ("S", true, true),
        ("PS", true, true),
        ("CP", true, false),
        ("PC", true, false),
        ("CS", false, true),
        ("CPS", true, true),
        ("CPD", true, true),
        ("CSD", false, true),
        ("CD", true, true),
    ];
    for (letters, may_publish, may_subscribe) in table {
        for refuses in [true, false] {
            let (chain, set) = (chain_of(letters), PluginSet::ALL.refusing_undecided(refuses));
            let is_allowed = |may| may || !refuses;
            let mut handlers = chain.plan().new_connection(set, &INFO).expect("states");
            let (published, _) = publish(&chain, &mut handlers);
            let refused =
                PublishOutcome::Reject { reason_code: ReasonCode::NOT_AUTHORIZED, properties: PropertiesBuf::new() };
            let expected = if is_allowed(may_publish) { PublishOutcome::Forward } else { refused };
            assert_eq!(published, expected, "{letters} {refuses}");
            assert_eq!(
                chain.refuses_undecided(Callback::Publish, set),
                !is_allowed(may_publish),
                "{letters} {refuses}"
            );
            let mut codes = [ReasonCode::GRANTED_QOS_1, ReasonCode::QUOTA_EXCEEDED];
            let options = SubscribeOptions::new(QoS::AtLeastOnce);
            let item = |filter| SubscribeItem { filter, share_name: None, options, again: false };
            let items = [item("a"), item("b")];
            let outcome = chain.subscribe(&mut handlers, "me", &items, &[], &mut codes);
            assert_eq!(outcome, SubscribeOutcome::Done, "{letters} {refuses}");
            let granted =
                if is_allowed(may_subscribe) { ReasonCode::GRANTED_QOS_1 } else { ReasonCode::NOT_AUTHORIZED };
            assert_eq!(codes, [granted, ReasonCode::QUOTA_EXCEEDED], "{letters} {refuses}");
        }
    }
}
