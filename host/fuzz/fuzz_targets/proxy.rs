//! PROXY protocol headers: whatever comes, in whatever pieces, the verdict on it is the same.

#![no_main]

use host::proxy::{HEADER_BYTES_MAX, ProxyError, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let verdict = parse(input);
    if let Ok(Some(header)) = &verdict {
        assert!(header.bytes <= input.len().min(HEADER_BYTES_MAX));
        assert_eq!(parse(&input[..header.bytes]), verdict);
        let tls = header.tls.unwrap_or_default();
        assert!(tls.verified || tls.common_name.is_none() && tls.certificate.is_none());
    }
    if let Err(error) = &verdict {
        assert!(!error.to_string().is_empty());
    }
    // Nobody is waited for who has sent as much as is read.
    assert!(verdict != Ok(None) || input.len() < HEADER_BYTES_MAX);
    for length in 0..input.len().min(300) {
        match parse(&input[..length]) {
            Ok(None) => {}
            // The first bytes are shown, and there may be fewer than later.
            Err(ProxyError::NoHeader { .. }) => assert!(matches!(verdict, Err(ProxyError::NoHeader { .. }))),
            early => assert_eq!(early, verdict),
        }
    }
});
