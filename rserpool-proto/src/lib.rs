//! The protocols of Reliable Server Pooling (RFC 5351 to 5356) without any I/O: messages, selection
//! policies, the handlespace, and the state machines of registrars, pool elements, pool users and
//! sessions.
//!
//! Programs use the crate `rserpool`, which runs these machines on a runtime and a transport. Use
//! this crate to write a driver, to test a policy, or to read and write messages.
//!
//! # State machines
//!
//! Each state machine is a plain struct. Inputs are `handle_*` methods, which take the current
//! time; outputs are read by [`Machine::poll_output`] and [`Machine::poll_timeout`]. Drain the
//! outputs after each input. Nothing in this crate reads a clock, opens a socket or draws
//! randomness that was not seeded: the same seed and the same inputs give the same run.
//!
//! | module | contents |
//! |---|---|
//! | [`access`] | identities, and the rules on who may do what (RFC 5355) |
//! | [`wire`] | messages and bytes (RFC 5352 to 5354) |
//! | [`policy`] | selection policies (RFC 5356), and the traits for one of your own |
//! | [`handlespace`] | pools and their elements |
//! | [`registrar`] | the registrar: ASAP towards elements and users, ENRP towards other registrars |
//! | [`element`], [`user`] | the two kinds of clients of a registrar |
//! | [`session`] | sessions between users and elements, with failover and cookies |
//! | [`replay`] | requests that are answered exactly once |

// In other crates, a `match` on an enum of this crate needs a wildcard, since the enums are
// non-exhaustive. In this crate, a `match` has to name each variant.
#![warn(clippy::wildcard_enum_match_arm)]
#![cfg_attr(
    not(feature = "registrar"),
    allow(dead_code, unused_imports, reason = "the registrar uses what is left over")
)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod access;
mod compatibility;
pub mod element;
#[cfg(feature = "registrar")]
pub mod handlespace;
mod hunt;
mod machine;
mod outbox;
pub mod policy;
mod receive;
#[cfg(feature = "registrar")]
pub mod registrar;
pub mod replay;
pub mod session;
#[cfg(feature = "testing")]
pub mod testing;
mod timers;
pub mod user;
pub mod wire;

pub use access::Identity;
pub use compatibility::{Compatibility, Incompatible, UnknownProfile};
pub use element::Element;
pub use hunt::HuntConfig;
pub use machine::{ConnectionEvent, ConnectionId, Footprint, Machine, Output};
#[cfg(feature = "registrar")]
pub use registrar::Registrar;
pub use session::Session;
pub use user::User;

pub(crate) use hunt::{Hunt, HuntProgress};
pub(crate) use outbox::Outbox;
pub(crate) use receive::{Received, announcement, receive, receive_enrp, receive_from_client};
pub(crate) use timers::Timers;
