//! Options that limit the resources that one host may use.

use clap::Args;
use rserpool::{Limits, RegistrarConfig};

/// Limits on the resources that one host may use, and on those of all hosts. 0 is no limit.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitOptions {
    /// Connections of one host
    #[arg(long, value_name = "N", default_value_t = 32_768)]
    max_connections: usize,
    /// Pool elements of one host
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    max_elements: usize,
    /// Pool elements of all hosts
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    max_elements_in_all: usize,
    /// Bytes of the pool elements of one host
    #[arg(long, value_name = "BYTES", default_value_t = 128 << 20)]
    max_bytes: usize,
    /// Bytes of the pool elements of all hosts
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 20)]
    max_bytes_in_all: usize,
    /// Pools whose changes one host may subscribe to
    #[arg(long, value_name = "N", default_value_t = 16_384)]
    max_subscriptions: usize,
    /// Handles that one host may resolve each second
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    max_resolutions: u32,
    /// Elements that one host may report as unreachable each second
    #[arg(long, value_name = "N", default_value_t = 100)]
    max_reports: u32,
    /// Hosts that may report an element as unreachable; if more do, it has only a second to answer
    #[arg(long, value_name = "N", default_value_t = 3)]
    max_bad_pe_reports: usize,
    /// Registrations of one host each second
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    max_registrations: u32,
    /// Pages of the handlespace that one host may ask for each second
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    max_pages: u32,
    /// Addresses that are dialled each second because one host named them
    #[arg(long, value_name = "N", default_value_t = 100)]
    max_dials: u32,
}

impl LimitOptions {
    pub(super) fn apply(&self, config: RegistrarConfig) -> RegistrarConfig {
        let number = |number: usize| if number == 0 { usize::MAX } else { number };
        let rate = |rate: u32| if rate == 0 { u32::MAX } else { rate };
        let limits = Limits::default()
            .connections_per_host(number(self.max_connections))
            .elements_per_host(number(self.max_elements))
            .elements(number(self.max_elements_in_all))
            .bytes_per_host(number(self.max_bytes))
            .bytes(number(self.max_bytes_in_all))
            .subscriptions_per_host(number(self.max_subscriptions))
            .resolutions(rate(self.max_resolutions))
            .reports(rate(self.max_reports))
            .registrations(rate(self.max_registrations))
            .pages(rate(self.max_pages))
            .dials(rate(self.max_dials));
        config.limits(limits).max_bad_pe_reports(self.max_bad_pe_reports)
    }
}
