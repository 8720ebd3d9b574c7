//! Options that name the hosts that may use a registrar.

use clap::Args;
use rserpool::{AccessRole, AccessRules, AddressRange, RegistrarConfig};

/// The hosts that may use the registrar, as addresses or ranges such as 10.0.0.0/8. Others are
/// refused.
#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub(super) struct AccessOptions {
    /// Hosts that may be registrars beside this one; may be repeated [default: all]
    #[arg(long, value_name = "RANGE")]
    allow_peer: Vec<AddressRange>,
    /// Hosts that may register servers; may be repeated [default: all]
    #[arg(long, value_name = "RANGE")]
    allow_element: Vec<AddressRange>,
    /// Hosts that may ask for servers; may be repeated [default: all]
    #[arg(long, value_name = "RANGE")]
    allow_user: Vec<AddressRange>,
}

impl AccessOptions {
    pub(super) fn apply(&self, config: RegistrarConfig) -> RegistrarConfig {
        let given = [
            (AccessRole::Registrar, &self.allow_peer),
            (AccessRole::Element, &self.allow_element),
            (AccessRole::User, &self.allow_user),
        ];
        let given = given.into_iter().filter(|(_, ranges)| !ranges.is_empty());
        config.access(given.fold(AccessRules::default(), |rules, (role, ranges)| {
            rules.allow(role, ranges.iter().copied())
        }))
    }
}
