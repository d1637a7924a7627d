//! How the program's allocator treats large blocks.

#![allow(unsafe_code)] // A function of the C library is called.

/// Memory that is free is given back to the system where a thread has more than this of it at the end, in bytes.
const KEPT_BYTES: i32 = 16 << 20;

/// Blocks from this size on come from the system one by one, in bytes.
const OWN_MAPPING_BYTES: i32 = 8 << 20;

/// Has the allocator keep what messages of up to some MiB need from one to the next.
///
/// By default glibc gives memory back as soon as a thread has 128 KiB to spare. A message of 200 KB lives in three blocks, one
/// after the other, so that each one made the kernel clear 150 pages: `pairs --payload 200000` cost 68 µs of CPU for each
/// message and costs 29 µs now, with 1 MB 565 µs and 194 µs. Who has set the allocator up by its own environment variables is
/// left alone.
#[cfg(target_env = "gnu")]
pub(crate) fn keep_large_blocks() {
    use std::ffi::c_int;

    const M_TRIM_THRESHOLD: c_int = -1;
    const M_MMAP_THRESHOLD: c_int = -3;
    unsafe extern "C" {
        fn mallopt(parameter: c_int, value: c_int) -> c_int;
    }

    let variables = ["GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"];
    if variables.iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    for (parameter, bytes) in [(M_TRIM_THRESHOLD, KEPT_BYTES), (M_MMAP_THRESHOLD, OWN_MAPPING_BYTES)] {
        // SAFETY: this is glibc's function, declared as its manual does, and it takes any numbers. It may be called before
        // there is another thread, which is now. An allocator in its place (a sanitizer's, a preloaded one) that does not
        // know the parameter says 0 and changes nothing.
        let _ = unsafe { mallopt(parameter, bytes) };
    }
}

/// Other allocators have no such setting.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn keep_large_blocks() {}
