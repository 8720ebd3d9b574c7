//! Test support: state machines in virtual time, and a simulator that inflicts faults on them.
//!
//! | module | contents |
//! |---|---|
//! | [`world`] | machines on hosts, with messages delivered in order and a clock that tests move |
//! | [`by_hand`] | single messages, sent and read by a test |
//! | [`echo_pool`] | a registrar, elements and users of one pool |
//! | [`simulation`] | a cluster with a random plan of faults, and the rules that must hold |
//! | [`adversary`] | hosts that speak ASAP or ENRP and do what they like |
//! | [`proportions`] | what each policy should give each server, and what it does give |

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
