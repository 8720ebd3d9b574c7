//! A guide: from the concepts of server pooling to a tested service.
//!
//! | chapter | subject |
//! |---|---|
//! | [`concepts`] | pools, sessions and registrars; the failures that are handled, and their cost |
//! | [`first_service`] | a service as two programs: server and client |
//! | [`sessions`] | sessions of plain messages, with cookies and failovers by hand |
//! | [`policies`] | the choice of a selection policy, and how to write one |
//! | [`transports`] | TCP, SCTP, several at a time, and how to write one |
//! | [`runtimes`] | tokio, smol, and how to write another |
//! | [`testing`] | tests without a network and without waiting |
//! | [`operation`] | several registrars, settings, limits, logs |
//! | [`warnings`] | each warning in the log, and what to do about it |

#[doc = include_str!("concepts.md")]
pub mod concepts {}

#[doc = include_str!("first_service.md")]
pub mod first_service {}

#[doc = include_str!("sessions.md")]
pub mod sessions {}

#[doc = include_str!("policies.md")]
pub mod policies {}

#[doc = include_str!("transports.md")]
pub mod transports {}

#[doc = include_str!("runtimes.md")]
pub mod runtimes {}

#[doc = include_str!("testing.md")]
#[cfg_attr(feature = "contract", doc = "```no_run")]
#[cfg_attr(not(feature = "contract"), doc = "```ignore")]
#[doc = include_str!("contract.rs")]
#[doc = "```"]
pub mod testing {}

#[doc = include_str!("operation.md")]
pub mod operation {}

#[doc = include_str!("warnings.md")]
pub mod warnings {}
