//! Capture files of any kind are read to their end or to an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rserpool_cli::decode::{Decoded, capture};

fuzz_target!(|data: &[u8]| {
    let _ = capture::read(data, &mut |found| {
        if let Ok((ppid, bytes)) = found.content {
            let _ = Decoded::new(ppid, &bytes);
        }
    });
});
