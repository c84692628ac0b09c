//! Records of the ring, of any octets.

#![no_main]

use collector_user::drain::decode::flow_event;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    // News, or nothing, or an error with a sentence.
    if let Err(error) = flow_event(octets) {
        assert!(!error.to_string().is_empty());
    }
});
