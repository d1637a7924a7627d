use proc_macro2::TokenStream;
use quote::quote;
use syn::{ItemImpl, parse_quote};

use crate::callbacks::CALLBACKS;
use crate::expand::{Features, expand};

/// What a block becomes, with the feature `async`.
fn expanded(block: ItemImpl) -> Result<String, String> {
    expanded_with(&quote!(), block, true)
}

fn expanded_with(arguments: &TokenStream, block: ItemImpl, has_async: bool) -> Result<String, String> {
    expand(arguments, block, Features { asynchronous: has_async, config: has_async })
        .map(|tokens| tokens.to_string())
        .map_err(|error| error.to_string())
}

#[track_caller]
fn is_refused(block: ItemImpl, part: &str) {
    let text = expanded(block).expect_err("a mistake");
    assert!(text.contains(part), "{part:?} in {text:?}");
}

/// The set that a constant of the block is.
#[track_caller]
fn has_set(text: &str, constant: &str, expected: &[&str]) {
    let value = text.split_once(&format!("const {constant} :")).map_or("", |(_, value)| value);
    let value = value.split_once("} ;").map_or(value, |(value, _)| value);
    for (_, variant) in CALLBACKS {
        let is_listed = value.contains(&format!("Callback :: {variant})"));
        assert_eq!(is_listed, expected.contains(&variant), "{variant} of {constant} in {text}");
    }
}

#[test]
fn callbacks_are_the_methods_of_the_block() {
    has_set(&expanded(parse_quote! { impl Handler for A { fn init() {} } }).expect("valid"), "CALLBACKS", &[]);
    let block = parse_quote! { impl Handler for A { fn handle_publish() {} fn stop() {} const X: u8 = 1; } };
    has_set(&expanded(block).expect("valid"), "CALLBACKS", &["Publish", "Stop"]);
}

#[test]
fn a_condition_on_a_callback_is_a_condition_on_its_bit() {
    let text = expanded(parse_quote! { impl Handler for A { #[cfg(test)] fn handle_auth() {} } }).expect("valid");
    assert_eq!(text.matches("cfg (test)").count(), 2, "{text}");
    let block = parse_quote! { impl Handler for A { #[cfg(test)] #[blocking] fn handle_auth() {} } };
    assert_eq!(expanded(block).expect("valid").matches("cfg (test)").count(), 3);
}

#[test]
fn callbacks_that_block_are_marked() {
    let block = parse_quote! { impl Handler for A { #[blocking] fn handle_auth() {} fn handle_publish() {} } };
    let text = expanded(block).expect("valid");
    has_set(&text, "CALLBACKS", &["Auth", "Publish"]);
    has_set(&text, "BLOCKING", &["Auth"]);
    assert!(!text.contains("blocking"), "rustc does not know it: {text}");

    let block = parse_quote! { impl Handler for A { fn handle_auth() {} fn stop() {} fn init() {} } };
    let text = expanded_with(&quote!(blocking), block, false).expect("valid");
    has_set(&text, "BLOCKING", &["Auth", "Stop"]);

    // Without one, the constant is the trait's.
    assert!(!expanded(parse_quote! { impl Handler for A { fn stop() {} } }).expect("valid").contains("BLOCKING"));
}

#[test]
fn mistakes_with_blocking_are_explained() {
    let deliver: ItemImpl = parse_quote! { impl Handler for A { fn handle_deliver() {} } };
    let text = expanded_with(&quote!(blocking), deliver, true).expect_err("a mistake");
    assert!(text.contains("`handle_deliver` cannot block"), "{text}");
    is_refused(parse_quote! { impl Handler for A { #[blocking] fn handle_deliver() {} } }, "cannot block");
    is_refused(parse_quote! { impl Handler for A { #[blocking(1)] fn stop() {} } }, "takes no arguments");
    is_refused(parse_quote! { impl Handler for A { #[blocking] fn init() {} } }, "stands on a callback");
    is_refused(parse_quote! { impl Handler for A { #[blocking] const ON_SWAP: u8 = 0; } }, "stands on a callback");
    is_refused(parse_quote! { impl Handler for A { const BLOCKING: u8 = 0; } }, "#[handler(blocking)]");
    let block = parse_quote! {
        impl Handler for A {
            #[blocking]
            async fn handle_connect(self: Arc<Self>, connection: Lent<()>, connect: owned::Connect) {}
        }
    };
    is_refused(block, "does not block, it waits");
}

#[test]
fn asynchronous_callbacks_get_the_name_of_their_future() {
    let block = parse_quote! {
        impl Handler for A {
            async fn handle_connect(self: Arc<Self>, mut connection: Lent<u8>, _: owned::Connect) {}
            async fn handle_publish(self: std::sync::Arc<Self>, _: plugin_api::Lent<u8>, publish: Publish) {}
            fn handle_subscribe() {}
        }
    };
    let text = expanded_with(&quote!(blocking), block, true).expect("valid");
    has_set(&text, "CALLBACKS", &["Connect", "Publish", "Subscribe"]);
    has_set(&text, "ASYNC", &["Connect", "Publish"]);
    has_set(&text, "BLOCKING", &["Subscribe"]);
    assert!(text.contains("async fn handle_connect_async (self : Arc < Self >"), "{text}");
    assert!(!expanded(parse_quote! { impl Handler for A { fn stop() {} } }).expect("valid").contains("ASYNC"));
}

#[test]
fn mistakes_with_async_are_explained() {
    let block: ItemImpl = parse_quote! { impl Handler for A { async fn handle_publish() {} } };
    let text = expanded_with(&quote!(), block, false).expect_err("a mistake");
    assert!(text.contains(r#"features = ["async"]"#), "{text}");

    for (method, instead) in [
        (quote!(handle_puback), "a task of your own"),
        (quote!(handle_deliver), "a task of your own"),
        (quote!(handle_info), "InfoAction::Later"),
        (quote!(init), "a task of your own"),
        (quote!(new_connection), "a task of your own"),
        (quote!(stop), "a task of your own"),
    ] {
        let block: ItemImpl = parse_quote! { impl Handler for A { async fn #method() {} } };
        is_refused(block.clone(), "cannot be `async`");
        is_refused(block, instead);
    }

    for (arguments, part) in [
        (quote!(&self, connection: Lent<()>, publish: owned::Publish), "shares the handler"),
        (quote!(self, connection: Lent<()>, publish: owned::Publish), "shares the handler"),
        (quote!(self: Box<Self>, connection: Lent<()>, publish: owned::Publish), "shares the handler"),
        (quote!(self: Arc<Self>, connection: &mut (), publish: owned::Publish), "has the state lent"),
        (quote!(self: Arc<Self>, connection: (), publish: owned::Publish), "has the state lent"),
        (quote!(self: Arc<Self>, connection: Lent<()>, publish: &Publish<'_>), "owns its request"),
        (quote!(self: Arc<Self>, connection: Lent<()>, publish: Publish<'_>), "owns its request"),
        (quote!(self: Arc<Self>, publish: owned::Publish), "three arguments"),
        (quote!(), "three arguments"),
    ] {
        let block: ItemImpl = parse_quote! { impl Handler for A { async fn handle_publish(#arguments) {} } };
        is_refused(block.clone(), part);
        is_refused(block, "publish: owned::Publish) -> Result<PublishVerdict, Error>");
    }

    let block = parse_quote! {
        impl Handler for A {
            fn handle_publish() {}
            async fn handle_publish(self: Arc<Self>, connection: Lent<()>, publish: owned::Publish) {}
        }
    };
    is_refused(block, "is there twice");
}

#[test]
fn mistakes_are_explained() {
    is_refused(parse_quote! { impl Handler for A { fn handle_pubish() {} } }, "did you mean `handle_publish`?");
    is_refused(parse_quote! { impl A { fn handle_publish() {} } }, "impl Handler for");
    is_refused(parse_quote! { impl Handler for A { const CALLBACKS: u8 = 0; } }, "writes CALLBACKS itself");
    is_refused(parse_quote! { impl Handler for A { callbacks!(); } }, "cannot see");
    let arguments = expanded_with(&quote!(publish), parse_quote! { impl Handler for A {} }, true);
    assert!(arguments.expect_err("a mistake").contains("no argument but `blocking`"));
}

#[test]
fn a_configuration_with_a_type_is_read_first() {
    let block = parse_quote! {
        impl Handler for A {
            fn init(host: Host, Config { limit }: Config) -> Result<Self, Error> { Ok(A { limit }) }
            fn handle_config(&self, config: Config) -> Result<(), Error> { Ok(()) }
        }
    };
    let text = expanded(block).expect("valid");
    assert_eq!(text.matches(":: plugin_api :: config :: read :: < Config > (__config) ?").count(), 2, "{text}");
    assert!(text.contains("fn init (host : Host , __config : & str)"), "{text}");
    assert!(text.contains("let Config { limit } : Config ="), "{text}");
    assert!(text.contains("fn check_config") && text.contains("config :: schema :: < Config >"), "{text}");

    let plain = parse_quote! {
        impl Handler for A {
            fn init(host: Host, config: &str) -> Result<Self, Error> { Ok(A) }
            fn handle_config(&self, _: &'_ str) -> Result<(), Error> { Ok(()) }
        }
    };
    let text = expanded(plain).expect("valid");
    assert!(!text.contains("check_config") && !text.contains("__config"), "{text}");

    let block: ItemImpl = parse_quote! { impl Handler for A { fn init(host: Host, config: Config) {} } };
    let error = expanded_with(&quote!(), block, false).expect_err("a mistake");
    assert!(error.contains(r#"features = ["config"]"#), "{error}");
    is_refused(parse_quote! { impl Handler for A { fn init(host: Host, config: &Config) {} } }, "or owns it");
}

#[test]
fn types_of_configurations_know_no_other_fields() {
    let expand = |item| crate::config::expand(&quote!(), item).map(|tokens| tokens.to_string());
    let strict = |item| expand(item).expect("valid").contains("deny_unknown_fields");
    assert!(strict(parse_quote! { struct A { a: u8 } }));
    assert!(strict(parse_quote! { enum A { B { #[serde(default)] c: u8 } } }));
    assert!(strict(parse_quote! { struct A { #[serde(flatten)] a: B } }));
    // serde does not have the one together with the other.
    assert!(!strict(parse_quote! { #[serde(transparent)] struct A(u8); }));
    let is_flat = |item| expand(item).expect("valid").contains("config :: Flat for A");
    assert!(is_flat(parse_quote! { struct A { a: u8 } }));
    // Their fields do not stand there, or are not all that there is.
    assert!(!is_flat(parse_quote! { enum A { B } }) && !is_flat(parse_quote! { struct A(u8); }));
    assert!(!is_flat(parse_quote! { struct A { #[serde(flatten)] a: B } }));
    let error = expand(parse_quote! { union A { a: u8 } }).expect_err("a mistake").to_string();
    assert!(error.contains("a struct or an enum"), "{error}");
    let error = crate::config::expand(&quote!(strict), parse_quote! { struct A; }).expect_err("a mistake").to_string();
    assert!(error.contains("takes no arguments"), "{error}");
}
