//! Options that name the hosts and the identities that may use a registrar.

use clap::Args;
use rserpool::{AccessRole, AccessRules, AddressRange, RegistrarConfig};

use crate::grants::GrantOption;

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
    #[command(flatten)]
    grants: GrantOption,
}

impl AccessOptions {
    /// Applies the rules. A registrar whose transport authenticates refuses everybody whom it did not
    /// authenticate.
    pub(super) fn apply(&self, config: RegistrarConfig, authenticates: bool) -> RegistrarConfig {
        let given = [
            (AccessRole::Registrar, &self.allow_peer),
            (AccessRole::Element, &self.allow_element),
            (AccessRole::User, &self.allow_user),
        ];
        let given = given.into_iter().filter(|(_, ranges)| !ranges.is_empty());
        let rules = self.grants.apply(AccessRules::default());
        let rules = if authenticates { rules.require_identity() } else { rules };
        config.access(
            given.fold(rules, |rules, (role, ranges)| rules.allow(role, ranges.iter().copied())),
        )
    }
}
