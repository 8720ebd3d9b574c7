//! The option that grants roles to identities.

use clap::Args;
use rserpool::{AccessRules, Grant, Pattern};

/// Grants of roles to the names in certificates.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct GrantOption {
    /// Role of the programs that have a certificate with a name that matches NAME, as in
    /// `spiffe://example.org/calc/* element:Calc*`; may be repeated. The roles are registrar,
    /// element:POOL and user:POOL, where * stands for any characters [default: the roles that each
    /// certificate names, or all roles if it names none]
    #[arg(long, value_name = "NAME ROLE", value_parser = parse, requires = "tls_ca")]
    grant: Vec<NamedGrant>,
}

#[derive(Debug, Clone)]
struct NamedGrant(Pattern, Grant);

impl GrantOption {
    /// Adds the grants to rules.
    pub(crate) fn apply(&self, rules: AccessRules) -> AccessRules {
        let grants = self.grant.iter().cloned();
        grants.fold(rules, |rules, NamedGrant(name, grant)| rules.grant(name, grant))
    }
}

fn parse(text: &str) -> Result<NamedGrant, String> {
    let (name, role) = text
        .trim()
        .rsplit_once(char::is_whitespace)
        .ok_or("write a pattern for names, a space and a role")?;
    let name = name.trim().parse().map_err(|error| format!("{error}"))?;
    let role = role.parse().map_err(|error| format!("{error}"))?;
    Ok(NamedGrant(name, role))
}
