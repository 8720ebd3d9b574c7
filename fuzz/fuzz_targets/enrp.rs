//! Fuzzes the decoder of ENRP messages: a message that decodes can be encoded, and decodes again to
//! the same message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rserpool::proto::wire::{Bytes, enrp::Message};

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    match Message::decode(&bytes) {
        Ok(message) => {
            let _ = message.disposition();
            let encoded = message.encode().expect("it came in one message");
            assert_eq!(Message::decode(&encoded).as_ref(), Ok(&message));
        }
        Err(error) => {
            assert!(error.offset() <= data.len());
            let _ = (error.to_string(), error.cause(&bytes));
        }
    }
});
