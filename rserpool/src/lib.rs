//! Reliable Server Pooling (RSerPool, RFC 5351 to 5356): the framework for services that must
//! not stop.
//!
//! Servers join a **pool** under a **pool handle** as **pool elements**. **Registrars** keep the
//! **handlespace**. **Pool users** resolve a handle, receive elements in the order of the pool's
//! **selection policy**, and hold **sessions** that fail over to another element when one crashes,
//! with the state handed over in a **cookie**.
//!
//! # A first program
//!
//! A registrar, a pool with one echo server, and a client, all in one process. The dependencies are
//! `rserpool`, `rserpool-tokio`, and `tokio` with the features `macros` and `rt-multi-thread`:
//!
//! ```
//! use rserpool::transport::Tcp;
//! use rserpool::{
//!     ElementEvent, Network, PoolElement, PoolUser, Ppid, Registrar, RegistrarConfig, SessionEvent,
//! };
//! use rserpool_tokio::TokioRuntime;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let network = Network::new(TokioRuntime::current(), Tcp::new());
//!     let registrar = Registrar::start(&network, ["127.0.0.1:0"], RegistrarConfig::default())?;
//!     let registrars = registrar.local_addresses();
//!
//!     let mut element = PoolElement::start(&network, "EchoPool", registrars)?;
//!     element.registered().await?;
//!     tokio::spawn(async move {
//!         // Each client has a session of its own.
//!         while let Ok(mut session) = element.accept().await {
//!             tokio::spawn(async move {
//!                 while let Ok(event) = session.recv().await {
//!                     if let ElementEvent::Message(message) = event {
//!                         let _ = session.send(message.ppid, message.payload).await;
//!                     }
//!                 }
//!             });
//!         }
//!     });
//!
//!     let user = PoolUser::new(&network, registrars)?;
//!     let mut session = user.open("EchoPool").await?;
//!     session.send(Ppid::NONE, "hello").await?;
//!     loop {
//!         match session.recv().await? {
//!             SessionEvent::Message(reply) => break assert_eq!(reply.payload, "hello"),
//!             // The server crashed before it answered: ask the next one.
//!             SessionEvent::FailoverCompleted { .. } => session.send(Ppid::NONE, "hello").await?,
//!             // The session is connected, and other events.
//!             _ => {}
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! A message is anything that converts into [`Bytes`]: a string literal, a `String` or a `Vec<u8>`.
//!
//! The parts usually run as separate processes on several hosts. Each needs only the addresses of
//! the registrars, which the command `rserpool registrar` runs.
//!
//! Sessions carry plain messages, and leave the repetition of requests to the program. A
//! [`Service`] is a type that handles requests, one level above sessions. Its state moves with the
//! session. As far as that state and the replies are concerned, each request is executed exactly
//! once. The [`guide`] has an example as two programs.
//!
//! # Handles
//!
//! A [`Network`] is a runtime and a transport, with which all handles are started. The crates
//! `rserpool-tokio` and `rserpool-smol` have the runtimes.
//!
//! | handle | purpose |
//! |---|---|
//! | [`Registrar`] | runs a registrar in the background |
//! | [`PoolElement`] | keeps a server registered, and accepts its sessions |
//! | [`ElementSession`] | the element's end of a session |
//! | [`PoolUser`] | resolves pool handles, and opens sessions |
//! | [`Session`] | the pool user's end of a session, which fails over |
//! | [`RequestSession`] | a session of requests and replies with a pool of [`Service`]s |
//! | [`RequestClient`] | the same, shared by many tasks |
//! | [`Subscription`] | a stream of the changes of a pool |
//! | [`Messenger`] | sends single messages to a pool |
//!
//! # Modules
//!
//! | module | contents |
//! |---|---|
//! | [`guide`] | from the concepts to a tested service, chapter by chapter |
//! | [`cookie`] | cookies that clients carry and cannot read or change |
//! | [`transport`], [`runtime`] | the transports, the interface to runtimes, and the traits to write others |
//! | [`proto`] | the crate `rserpool-proto`: messages, policies, the handlespace and the state machines |
//!
//! # Glossary
//!
//! | word | meaning |
//! |---|---|
//! | pool | the servers that offer one service |
//! | session | an exchange of messages between a pool user and a pool: with one element at a time, and with another one when that fails |
//! | pool handle | the name of a pool: bytes, usually text |
//! | pool element | a server, as a member of a pool |
//! | pool user | a client that uses pools |
//! | registrar | a server that knows the pools; several replicate the handlespace among themselves. The RFCs also say ENRP server |
//! | handlespace | all pools and their elements |
//! | home registrar | the registrar at which an element registered; it monitors the element |
//! | policy | the rule by which elements are selected: round robin, least used and others |
//! | checkpoint | a cookie of a [`Service`]: its state, and the replies that may not have arrived |
//! | cookie | the state of a session, which an element gives to its pool user, and which the pool user hands to the next element |
//! | business card | a list of the elements that may take over a session |
//! | ASAP, ENRP | the protocols between elements or users and registrars, and among registrars |
//! | PPID | payload protocol identifier: a number that tells the kinds of a session's messages apart, as in SCTP |
//! | failover | the move of a session from an element that failed to another |
//! | takeover | the move of the elements of a registrar that failed to another |
//!
//! # Features
//!
//! | feature | default | contents |
//! |---|---|---|
//! | `registrar` | yes | [`Registrar`], and [`dump`] |
//! | `service` | yes | [`Service`], [`RequestSession`], [`RequestClient`] and [`cookie`] |
//! | `sctp` | yes | the transport `transport::Sctp`, on Linux |
//! | `multicast` | yes | announcements of registrars by IPv4 multicast |
//! | `json`, `postcard` | no | `TypedService` and `TypedClient` with the codecs `Json` and `Postcard` |
//! | `typed` | no | `TypedService` and `TypedClient` with a `Codec` of the program |
//! | `tls` | no | the transport `transport::Tls`, by rustls with the cryptography that the program chooses |
//! | `testing` | no | the `testing` module: a pool in one process, whose servers can be killed, paused and cut off |
//! | `serde` | no | `serde::Serialize` for the types of [`proto::wire`] |
//! | `contract` | no | the `contract` module: tests for runtimes and transports of other crates |

// Other crates have to use a wildcard for this crate's non-exhaustive enums. Within this crate, the
// lint reports wildcards, so that the compiler reports a match that lacks a new variant.
#![warn(clippy::wildcard_enum_match_arm)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod acceptor;
mod address;
mod connections;
#[cfg(feature = "contract")]
pub mod contract;
#[cfg(feature = "registrar")]
mod dump;
mod element;
mod element_session;
mod element_state;
#[cfg(any(doc, doctest))]
pub mod guide;
mod keeper;
#[cfg(any(feature = "service", all(target_os = "linux", feature = "sctp")))]
mod key_file;
mod log;
mod messenger;
mod network;
#[cfg(any(feature = "service", feature = "tls", all(target_os = "linux", feature = "sctp")))]
mod private_file;
#[cfg(feature = "registrar")]
mod registrar;
pub mod runtime;
#[cfg(feature = "service")]
mod service;
mod session;
mod session_error;
mod split;
mod subscription;
#[cfg(all(target_os = "linux", feature = "sctp"))]
mod sys;
mod task;
#[cfg(feature = "testing")]
pub mod testing;
mod timer;
pub mod transport;
mod turns;
mod user;
mod user_task;
mod verify;
mod wake_filter;
mod watch;

pub use address::{IntoAddress, IntoPoolHandle};
#[cfg(feature = "registrar")]
pub use dump::{Dump, DumpError, dump};
pub use element::{ElementControl, JoinError, PoolElement, PoolElementBuilder};
pub use element_session::{ElementEvent, ElementSession};
pub use element_state::{ElementState, ElementWatch};
#[cfg(any(feature = "service", all(target_os = "linux", feature = "sctp")))]
pub use key_file::KeyFileError;
pub use messenger::{Correspondent, Messenger, MessengerError, MessengerEvent, SentToAll};
pub use network::{Elapsed, ListenError, Network, StartError, Stopped};
#[cfg(feature = "registrar")]
pub use registrar::{
    OrderError, PoolSnapshot, Registrar, RegistrarEvent, RegistrarEvents, RegistrarSnapshot,
};
#[doc(no_inline)]
pub use rserpool_proto as proto;
#[doc(inline)]
pub use rserpool_proto::access::{AccessRole, AccessRules, AddressRange, Grant, Identity, Pattern};
#[doc(inline)]
pub use rserpool_proto::element::{Departure, ElementConfig};
#[cfg(feature = "registrar")]
#[doc(inline)]
pub use rserpool_proto::registrar::{
    ElementStatus, Limits, PeerCondition, PeerStatus, PoolStatus, RegistrarConfig,
    RegistrarCounters, RegistrarStatus,
};
#[doc(inline)]
pub use rserpool_proto::replay::{RefusalReason, RequestFailure, RequestNumber, RequestOptions};
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
#[cfg(feature = "json")]
pub use service::typed::Json;
#[cfg(feature = "postcard")]
pub use service::typed::Postcard;
#[cfg(feature = "typed")]
pub use service::typed::{Codec, CodecError, Typed, TypedClient, TypedError, TypedService};
#[cfg(feature = "service")]
pub use service::{
    InvalidState, Service, ServiceConfig,
    boxed::{BoxService, DynService},
    checkpoint::{Checkpoint, InvalidCheckpoint},
    client::RequestClient,
    cookie,
    requests::{RequestConfig, RequestError, RequestEvent, RequestSession, SubmitError},
    serve::{ServeOutcome, Stopping},
};
pub use session::Session;
pub use session_error::{SessionClosed, SessionSendError, TrySendError};
pub use split::{SessionReceiver, SessionSender};
pub use subscription::{PoolChange, Subscription};
pub use user::PoolUser;

pub(crate) use network::{ASAP, random_seed};
