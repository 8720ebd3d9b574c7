//! Test support: state machines in virtual time, and a simulator that inflicts faults on them.
//!
//! | module | contents |
//! |---|---|
//! | [`world`] | state machines on hosts, with ordered delivery and a clock that tests advance |
//! | [`by_hand`] | single messages, sent and read by a test |
//! | [`echo_pool`] | a registrar, elements and users of one pool |
//! | [`simulation`] | a cluster with a random plan of faults, and the rules that must hold |
//! | [`adversary`] | hosts that send arbitrary ASAP or ENRP messages |
//! | [`proportions`] | the expected and the measured share of each server under each policy |

#![allow(clippy::exhaustive_structs, reason = "tests are released with the crate")]
#![allow(clippy::wildcard_enum_match_arm, reason = "tests look at single variants")]

pub mod adversary;
pub mod by_hand;
pub mod echo_pool;
pub mod event;
pub mod proportions;
pub mod role;
pub mod simulation;
pub mod world;
