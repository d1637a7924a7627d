//! What an asynchronous callback costs that is ready at once.
#![allow(unsafe_code)] // The allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use plugin_api::abi::Verdict;
use plugin_api::{ConnectionInfo, Error, Handler, Host, Lent, PublishVerdict, handler, owned};

use crate::fake_host::Plugin;

/// Counts allocations of each thread.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is done by the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Ready;

#[handler]
impl Handler for Ready {
    type Connection = u64;

    fn init(_: Host, _: &str) -> Result<Self, Error> {
        Ok(Self)
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) -> u64 {
        0
    }

    async fn handle_publish(
        self: Arc<Self>,
        mut connection: Lent<u64>,
        publish: owned::Publish,
    ) -> Result<PublishVerdict, Error> {
        *connection += publish.payload().len() as u64;
        std::future::ready(()).await;
        Ok(PublishVerdict::Forward)
    }
}

#[test]
fn what_is_ready_at_once_allocates_the_request_and_nothing_else() {
    let plugin = Plugin::new::<Ready>("{}");
    let mut state = plugin.connection();
    plugin.publish(&mut state, "topic", b"payload"); // makes the runtime, and the memory of the future
    let before = COUNT.get();
    for _ in 0..100 {
        assert_eq!(plugin.publish(&mut state, "topic", b"payload").verdict, Verdict::OK);
    }
    // Topic, payload and properties.
    assert_eq!(COUNT.get() - before, 300);
    plugin.drop_connection(state);
}
