//! Tests the policies from end to end: users have to select elements in the proportions of RFC 5356
//! from the registrar's answers.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "tests")]

use rserpool_proto::testing::proportions::{AUDIENCES, CASES, chi_squared};

/// Limit of the chi-squared statistic with two degrees of freedom. Right proportions exceed it with
/// a probability of 0.1 %.
const LIMIT: f64 = 13.82;

#[test]
fn users_choose_as_the_policies_say() {
    for case in CASES {
        for audience in AUDIENCES {
            for seed in 1..=3 {
                let counts = case.count(audience, seed);
                let found = chi_squared(&counts, &case.expected());
                assert!(found < LIMIT, "{case:?}, {audience:?}, seed {seed}: {counts:?}");
            }
        }
    }
}
