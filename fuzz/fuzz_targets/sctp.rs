//! Notifications, ancillary data and lists of addresses of any kind are parsed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rserpool::transport::sctp::parse_what_the_kernel_says;

fuzz_target!(|data: &[u8]| parse_what_the_kernel_says(data));
