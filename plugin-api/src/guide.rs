#![doc = include_str!("../guide/README.md")]

#[doc = include_str!("../guide/hooks.md")]
pub mod hooks {}

/// Makes a module of each page, so that its example is compiled.
macro_rules! pages {
    ($($name:ident)+) => {
        #[doc = include_str!("../guide/callbacks/README.md")]
        pub mod callbacks {
            $(
                #[doc = include_str!(concat!("../guide/callbacks/", stringify!($name), ".md"))]
                pub mod $name {}
            )+
        }
    };
}

pages! {
    init
    new_connection
    handle_connect
    handle_auth
    handle_connected
    handle_publish
    handle_subscribe
    handle_unsubscribe
    handle_deliver
    handle_puback
    handle_info
    handle_disconnect
    handle_session_expired
    handle_message_dropped
    handle_message_acknowledged
    handle_message_expired
    handle_retained
    handle_event
    handle_config
    health
    export_state
    import_state
    handle_swapped
    export_plugin_state
    import_plugin_state
    stop
}
