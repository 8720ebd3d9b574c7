//! The policies from end to end: the registrar's selection as the user receives it (RFC 5356).
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "tests")]

use rserpool_proto::testing::proportions::{AUDIENCES, CASES, chi_squared};

/// Value that the statistic of a right selection exceeds with a probability of 0.1 %, with two
/// degrees of freedom.
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
