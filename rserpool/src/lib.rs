//! Reliable Server Pooling (RSerPool, RFC 5351 to 5356): a framework for highly available services.
//!
//! Servers join a **pool** under a **pool handle** as **pool elements**. **Registrars** keep the
//! **handlespace**. **Pool users** resolve a handle to elements, which the pool's **selection
//! policy** chooses, and open **sessions** with them. When an element crashes, its sessions fail
//! over to another one, and the state moves with them in a **cookie**.
//!
//! A server:
//!
//! ```no_run
//! use rserpool::{ElementEvent, Network, PoolElement};
//!
//! # async fn server(network: Network) -> Result<(), Box<dyn std::error::Error>> {
//! # let registrar = rserpool::TransportAddress::tcp("127.0.0.1:3863".parse()?);
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
//! A client for it:
//!
//! ```no_run
//! use rserpool::{Network, PoolUser, Ppid, SessionEvent};
//!
//! # async fn client(network: Network) -> Result<(), Box<dyn std::error::Error>> {
//! # let registrar = rserpool::TransportAddress::tcp("127.0.0.1:3863".parse()?);
//! let user = PoolUser::new(&network, [registrar])?;
//! let mut session = user.open("EchoPool".parse()?).await?;
//! session.send(Ppid::NONE, "hello").await?;
//! loop {
//!     match session.recv().await? {
//!         SessionEvent::Message(reply) => break println!("{:?}", reply.payload),
//!         // The server died before it answered: ask the next one.
//!         SessionEvent::FailoverCompleted { .. } => session.send(Ppid::NONE, "hello").await?,
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A [`Network`] combines a runtime and a transport. The runtimes are in the crates
//! `rserpool-tokio` and `rserpool-smol`; [`runtime::Runtime`] documents how to implement another
//! one.
//!
//! | handle | what it is |
//! |---|---|
//! | [`Registrar`] | a registrar that runs in the background |
//! | [`PoolElement`] | a member of a pool, registered as long as it lives; accepts sessions |
//! | [`PoolUser`] | resolves pool handles, opens sessions |
//! | [`Subscription`] | the changes of a pool, as they happen |
//! | [`Session`] | a pool user's session, which fails over |
//! | [`ElementSession`] | the same session as the element that serves it sees it |
//! | [`Messenger`] | messages to a pool without a session |
//! | [`RequestSession`] | a session of requests and replies, each answered exactly once |
//! | [`Service`] | what answers them |
//!
//! | module | contents |
//! |---|---|
//! | [`cookie`] | cookies that clients carry and cannot read or change |
//! | [`proto`] | the crate `rserpool-proto`: messages, policies, the handlespace and the state machines |
//! | [`transport`], [`runtime`] | what carries and runs it all |

// Other crates have to use a wildcard for this crate's non-exhaustive enums; inside, a missing
// variant is to be noticed.
#![warn(clippy::wildcard_enum_match_arm)]

mod acceptor;
mod address;
mod connections;
#[cfg(feature = "contract")]
pub mod contract;
mod dump;
mod element;
mod element_session;
mod log;
mod messenger;
mod network;
mod registrar;
pub mod runtime;
mod service;
mod session;
mod subscription;
#[cfg(target_os = "linux")]
mod sys;
mod task;
mod timer;
pub mod transport;
mod turns;
mod user;
mod user_task;
mod wake_filter;

pub use address::{IntoAddress, IntoPoolHandle};
pub use dump::{Dump, DumpError, dump};
pub use element::{ElementControl, JoinError, PoolElement, PoolElementBuilder};
pub use element_session::{ElementEvent, ElementSession};
pub use messenger::{Correspondent, Messenger, MessengerError, SentToAll};
pub use network::{ListenError, Network, StartError, Stopped};
pub use registrar::Registrar;
#[doc(no_inline)]
pub use rserpool_proto as proto;
#[doc(inline)]
pub use rserpool_proto::element::ElementConfig;
#[doc(inline)]
pub use rserpool_proto::registrar::{Limits, RegistrarConfig};
#[doc(inline)]
pub use rserpool_proto::replay::{RefusalReason, RequestNumber};
#[doc(inline)]
pub use rserpool_proto::session::{Event as SessionEvent, SessionConfig, SessionError};
#[doc(inline)]
pub use rserpool_proto::user::{ResolveError, ResolveOptions, UserConfig};
#[doc(inline)]
pub use rserpool_proto::wire::{
    Bytes, InvalidPoolHandle, InvalidText, PolicyParameters, PolicyType, PoolElementId, PoolHandle,
    Ppid, RegistrarId, Reliability, TransportAddress, TransportProtocol, UserMessage,
};
#[doc(inline)]
pub use rserpool_proto::{Compatibility, HuntConfig};
pub use service::cookie;
pub use service::requests::{NoRoom, RequestConfig, RequestError, RequestEvent, RequestSession};
pub use service::serve::Stopping;
pub use service::{InvalidState, Service, ServiceConfig};
pub use session::{Session, SessionClosed};
pub use subscription::{PoolChange, Subscription};
pub use user::PoolUser;

pub(crate) use network::{ASAP, random_seed};
