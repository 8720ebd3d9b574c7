//! Fuzzes the parsers of SCTP notifications, ancillary data and lists of addresses from the kernel:
//! they must not panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rserpool::transport::sctp::parse_what_the_kernel_says;

fuzz_target!(|data: &[u8]| parse_what_the_kernel_says(data));
