//! Options for the selection of elements.

use std::time::Duration;

use clap::Args;
use rserpool::RegistrarConfig;
use rserpool::proto::policy::Policies;

use super::rule::Rule;

/// Options for the elements in answers to pool users.
#[derive(Debug, Args)]
#[command(next_help_heading = "Selection")]
pub(super) struct SelectionOptions {
    /// Number of elements in an answer if the user does not ask for a number
    #[arg(long, value_name = "N", default_value_t = 32)]
    items: u32,
    /// Maximum number of elements in an answer
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_items: u32,
    /// Number of elements in an answer that count as selected, from the first: rsplib's
    /// MaxIncrement [default: 1]
    #[arg(long, value_name = "N")]
    max_increment: Option<usize>,
    /// Granularity of the distances of elements, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 50)]
    distance_step: u64,
    /// Define a policy: NUMBER=order:EXPR selects the elements with the smallest value first,
    /// NUMBER=weight:EXPR draws them in proportion to it. EXPR may use `words[0]`, `words[1]` ...
    /// of the element's policy, `load` (which is `words[0]`), numbers, + - * / ( ), min, max, sqrt,
    /// ln ...; a second expression after a semicolon is what each selection adds to the order or
    /// subtracts from the weight. May be repeated
    #[arg(long, value_name = "NUMBER=KIND:EXPR")]
    pub(super) define_policy: Vec<Rule>,
}

impl SelectionOptions {
    pub(super) fn apply(&self, config: RegistrarConfig) -> anyhow::Result<RegistrarConfig> {
        let mut policies = Policies::default();
        for rule in &self.define_policy {
            policies = rule.add_to(policies);
        }
        anyhow::ensure!(self.items > 0, "--items: an answer has at least one element");
        anyhow::ensure!(self.items <= self.max_items, "--items is more than --max-items");
        Ok(config
            .policies(policies)
            .default_items(self.items)
            .max_items(self.max_items)
            .max_increment(self.max_increment)
            .distance_step(Duration::from_millis(self.distance_step)))
    }
}
