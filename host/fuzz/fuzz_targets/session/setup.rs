//! What is not the same for all inputs: workers, bounds, whether there is a plugin.

use std::time::Duration;

use host::Limits;
use host::limits::{QueueFull, RejectedPublish, SharedStrategy};
use plugin_api::QoS;

use crate::input::Input;

pub(crate) struct Setup {
    pub(crate) workers: usize,
    /// All workers take turns until nothing moves, after everything that happens. Otherwise the program says who does.
    pub(crate) eager: bool,
    /// Whether there is a plugin.
    pub(crate) plugin: bool,
    pub(crate) allow_anonymous: bool,
    pub(crate) peer: &'static str,
    pub(crate) limits: Limits,
}

impl Setup {
    /// The largest packet that is read of who has not been let in.
    pub(crate) fn connect_bytes_max(&self) -> usize {
        self.limits.connect_bytes_max.min(self.limits.packet_bytes_max)
    }

    pub(crate) fn read(input: &mut Input<'_>) -> Self {
        let flags = input.byte();
        let set = |bit: u8| flags & 1 << bit != 0;
        Self {
            workers: 1 + usize::from(flags & 3) % 3,
            eager: set(2),
            plugin: !set(3),
            allow_anonymous: set(4),
            peer: if set(5) { "[2001:db8::1]:50000" } else { "127.0.0.1:50000" },
            limits: limits(input),
        }
    }
}

/// Bounds so low that inputs reach them, or the defaults. New ones go to the end, so that the corpus keeps its meaning.
fn limits(input: &mut Input<'_>) -> Limits {
    let mut limits = Limits::default();
    let mut choices = (0..5).flat_map(|_| {
        let byte = input.byte();
        (0..8).map(move |bit| byte & 1 << bit != 0)
    });
    let mut low = || choices.next().unwrap_or_default();
    let mut choose = |bound: &mut usize, value: usize| {
        if low() {
            *bound = value;
        }
    };
    choose(&mut limits.packet_bytes_max, 200);
    choose(&mut limits.connect_bytes_max, 130);
    choose(&mut limits.connections_max, 4);
    choose(&mut limits.sessions_max, 2);
    choose(&mut limits.client_id_bytes_max, 3);
    choose(&mut limits.queue_messages_max, 2);
    choose(&mut limits.queue_bytes_max, 20);
    choose(&mut limits.outbound_bytes_max, 100);
    choose(&mut limits.filters_a_packet_max, 2);
    choose(&mut limits.subscriptions_max, 3);
    choose(&mut limits.topic_levels_max, 3);
    choose(&mut limits.retained_messages_max, 2);
    choose(&mut limits.retained_bytes_max, 40);
    choose(&mut limits.mailbox_bytes_max, 30);
    choose(&mut limits.topic_bytes_max, 8);
    choose(&mut limits.worker_bytes_max, 4096);
    choose(&mut limits.connections_per_address_max, 3);
    let mut set = |change: &dyn Fn(&mut Limits)| {
        if low() {
            change(&mut limits);
        }
    };
    set(&|limits| limits.in_flight_max = 1);
    set(&|limits| limits.receive_maximum = 1);
    set(&|limits| limits.topic_alias_max = 0);
    set(&|limits| limits.topic_alias_max = 2);
    set(&|limits| limits.maximum_qos = QoS::AtMostOnce);
    set(&|limits| limits.maximum_qos = QoS::AtLeastOnce);
    set(&|limits| limits.rejected_publish = RejectedPublish::Close);
    set(&|limits| limits.keep_alive_secs_max = 10);
    set(&|limits| limits.keep_alive_secs_min = 5);
    set(&|limits| limits.session_expiry_secs_max = 60);
    set(&|limits| limits.persistent_expiry_3x_secs = 30);
    set(&|limits| limits.idle_max = Duration::from_secs(100));
    set(&|limits| limits.connect_rate_max = 2);
    set(&|limits| limits.message_rate_max = 2);
    set(&|limits| limits.byte_rate_max = 100);
    set(&|limits| limits.queue_full = QueueFull::DropOldest);
    set(&|limits| limits.queue_qos0 = true);
    set(&|limits| limits.retain_available = false);
    set(&|limits| limits.wildcard_subscriptions_available = false);
    set(&|limits| limits.subscription_identifiers_available = false);
    set(&|limits| limits.shared_subscriptions_available = false);
    set(&|limits| limits.check_payload_format = true);
    set(&|limits| limits.server_reference = Some("there:1883".into()));
    let others = input.byte();
    limits.shared_strategy =
        [SharedStrategy::RoundRobin, SharedStrategy::Random, SharedStrategy::Sticky, SharedStrategy::LeastInFlight]
            [usize::from(others & 3)];
    limits.outbound_topic_aliases_max = [16, 1, 0, 2][usize::from(others >> 2 & 3)];
    limits
}
