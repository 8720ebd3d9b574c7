//! Fuzzes the reader of capture files: it reads any file to its end or returns an error.
#![no_main]

// Modules of the command, which has no library.
#[allow(dead_code)]
#[path = "../../rserpool-cli/src/decode/capture.rs"]
mod capture;
#[path = "../../rserpool-cli/src/decode/link.rs"]
mod link;
#[path = "../../rserpool-cli/src/decode/sctp.rs"]
mod sctp;
#[path = "../../rserpool-cli/src/decode/tcp.rs"]
mod tcp;

use libfuzzer_sys::fuzz_target;
use rserpool::Ppid;
use rserpool::proto::wire::{asap, enrp};

fuzz_target!(|data: &[u8]| {
    let _ = capture::read(data, &mut |found| match found.content {
        Ok((Ppid::ASAP, bytes)) => drop(asap::Message::decode(&bytes)),
        Ok((Ppid::ENRP, bytes)) => drop(enrp::Message::decode(&bytes)),
        _ => {}
    });
});
