//! Reliable Server Pooling (RSerPool, RFC 5351 to 5356): the framework for services that must
//! not stop.
//!
//! Servers join a **pool** under a **pool handle** as **pool elements**. **Registrars** keep the
//! **handlespace**. **Pool users** resolve a handle, are given elements by the pool's
//! **selection policy**, and hold **sessions** that fail over to another element when one dies,
//! with the state handed over in a **cookie**.
//!
//! A server:
//!
//! ```no_run
//! use rserpool::driver::{ElementEvent, Network, PoolElement};
//!
//! # async fn server(network: Network) -> Result<(), Box<dyn std::error::Error>> {
//! # let registrar = rserpool::wire::TransportAddress::tcp("127.0.0.1:3863".parse()?);
//! let mut element = PoolElement::builder(&network, "EchoPool".parse()?, [registrar]).start()?;
//! loop {
//!     let mut session = element.accept().await?;
//!     network.runtime().spawn(Box::pin(async move {
//!         while let Ok(Some(event)) = session.recv().await {
//!             if let ElementEvent::Message(message) = event {
//!                 let _ = session.send(message.ppid, message.payload).await;
//!             }
//!         }
//!     }));
//! }
//! # }
//! ```
//!
//! And its client:
//!
//! ```no_run
//! use rserpool::driver::{Network, PoolUser};
//! use rserpool::protocol::session::Event;
//! use rserpool::wire::Ppid;
//!
//! # async fn client(network: Network) -> Result<(), Box<dyn std::error::Error>> {
//! # let registrar = rserpool::wire::TransportAddress::tcp("127.0.0.1:3863".parse()?);
//! let user = PoolUser::new(&network, [registrar])?;
//! let mut session = user.open("EchoPool".parse()?).await?;
//! session.send(Ppid::NONE, "hello").await?;
//! loop {
//!     match session.recv().await? {
//!         Event::Message(reply) => break println!("{:?}", reply.payload),
//!         // The server died before it answered: ask the next one.
//!         Event::FailoverCompleted { .. } => session.send(Ppid::NONE, "hello").await?,
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A [`Network`](driver::Network) is a runtime and a transport. The runtimes are in the crates
//! `rserpool-tokio` and `rserpool-smol`; [`runtime::Runtime`] says what one of your own needs.
//!
//! | module | what is in it |
//! |---|---|
//! | [`driver`] | what programs use: registrar, pool element, pool user, session |
//! | [`cookie`] | cookies that clients carry and cannot read or change |
//! | [`policy`] | selection policies, and how to write one |
//! | [`protocol`] | the state machines, without any I/O |
//! | [`handlespace`] | pools and elements |
//! | [`wire`] | messages and bytes |
//! | [`transport`], [`runtime`] | what carries and runs it all |

// Elsewhere this crate's enums are non-exhaustive, and a wildcard is what one has to write.
#![warn(clippy::wildcard_enum_match_arm)]

#[cfg(feature = "contract")]
pub mod contract;
pub mod cookie;
pub mod driver;
pub mod handlespace;
mod log;
pub mod policy;
pub mod protocol;
pub mod runtime;
#[cfg(target_os = "linux")]
mod sys;
pub mod transport;
pub mod wire;
