//! A ledger, as a service with typed requests.

use std::collections::BTreeMap;

use rserpool::{Json, TypedService};
use serde::{Deserialize, Serialize};

/// The accounts, and the number of transfers of each clerk.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs, reason = "the client reads all of it")]
pub struct Ledger {
    /// The balance of each account.
    pub balances: BTreeMap<String, i64>,
    /// The number of transfers of each clerk.
    pub transfers: BTreeMap<u32, u32>,
}

/// A request to the ledger.
#[derive(Debug, Serialize, Deserialize)]
#[allow(clippy::exhaustive_enums, reason = "the client makes them")]
pub enum Request {
    /// Transfers an amount from one account to another, for a clerk.
    Transfer {
        /// The clerk.
        clerk: u32,
        /// The account that pays.
        from: String,
        /// The account that is paid.
        to: String,
        /// The amount.
        amount: i64,
    },
    /// Asks for the whole ledger.
    Show,
}

/// Error of a transfer.
#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
#[error("the amount of a transfer is {0}, and not positive")]
pub struct NotPositive(i64);

impl TypedService for Ledger {
    type Request = Request;
    type Reply = Self;
    type Error = NotPositive;
    type Codec = Json;

    async fn handle(&mut self, request: Request) -> Result<Self, NotPositive> {
        if let Request::Transfer { clerk, from, to, amount } = request {
            if amount <= 0 {
                return Err(NotPositive(amount));
            }
            *self.balances.entry(from).or_default() -= amount;
            *self.balances.entry(to).or_default() += amount;
            *self.transfers.entry(clerk).or_default() += 1;
        }
        Ok(self.clone())
    }
}
