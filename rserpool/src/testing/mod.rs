//! A pool in one process, for tests: its servers can be killed, paused and cut off.
//!
//! Everything runs over the [`Memory`] transport, so that no port is taken. On a runtime whose clock can
//! be paused, such as tokio's, timeouts take no time.
//!
//! ```
//! use std::time::Duration;
//!
//! use rserpool::testing::TestPool;
//! use rserpool::{ElementEvent, Ppid, SessionEvent};
//! use rserpool_tokio::TokioRuntime;
//!
//! # fn main() {
//! #     let mut builder = tokio::runtime::Builder::new_current_thread();
//! #     builder.enable_all().start_paused(true).build().expect("a runtime").block_on(test());
//! # }
//! #
//! // With #[tokio::test(start_paused = true)]
//! async fn test() {
//!     let pool = TestPool::start(TokioRuntime::current(), "EchoPool");
//!     let mut servers = Vec::new();
//!     for _ in 0..3 {
//!         let server = pool.server(|mut element| async move {
//!             while let Ok(mut session) = element.accept().await {
//!                 while let Ok(event) = session.recv().await {
//!                     if let ElementEvent::Message(message) = event {
//!                         let _ = session.send(message.ppid, message.payload).await;
//!                     }
//!                 }
//!             }
//!         });
//!         servers.push(server.await);
//!     }
//!     let user = pool.user();
//!     let mut session = user.open("EchoPool").await.expect("three serve");
//!     let serving = servers.iter().position(|it| Some(it.identifier()) == session.element());
//!     servers[serving.expect("one of them")].pause();
//!     session.send(Ppid::NONE, "hello").await.expect("it lives");
//!     loop {
//!         match session.recv().await.expect("two serve") {
//!             SessionEvent::Message(reply) => break assert_eq!(reply.payload, "hello"),
//!             SessionEvent::FailoverCompleted { .. } => {
//!                 session.send(Ppid::NONE, "hello").await.expect("it lives");
//!             }
//!             _ => {}
//!         }
//!     }
//! }
//! ```

mod gate;
mod transport;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rserpool_proto::element::ElementConfig;
use rserpool_proto::registrar::RegistrarConfig;
use rserpool_proto::wire::{InvalidPoolHandle, PoolElementId, PoolHandle};

use crate::runtime::Runtime;
use crate::transport::Memory;
use crate::{IntoPoolHandle, Network, PoolElement, PoolUser, Registrar};
use gate::{Gate, GatedRuntime};
use transport::GatedTransport;

/// A pool with a registrar of its own. When it is dropped, the registrar stops.
#[derive(Debug)]
pub struct TestPool {
    network: Network,
    memory: Arc<Memory>,
    registrar: Registrar,
    handle: PoolHandle,
}

/// A server of a [`TestPool`]. The server is killed when this handle is dropped.
#[derive(Debug)]
pub struct TestServer {
    gate: Arc<Gate>,
    identifier: PoolElementId,
}

impl TestPool {
    /// Starts a registrar, whose pool has no servers yet.
    ///
    /// # Panics
    ///
    /// Panics if `pool` is not a valid handle.
    #[must_use]
    #[allow(clippy::expect_used, reason = "for tests")]
    pub fn start(runtime: impl Runtime, pool: impl IntoPoolHandle) -> Self {
        let memory = Arc::new(Memory::new());
        let network = Network::shared(Arc::new(runtime), Arc::clone(&memory) as _);
        let config = RegistrarConfig::default().ready_after(Duration::ZERO);
        let registrar = Registrar::start(&network, ["192.0.2.1:3863"], config);
        let registrar = registrar.expect("the address is free in a network of its own");
        let handle: Result<_, InvalidPoolHandle> = pool.try_into().map_err(Into::into);
        Self { network, memory, registrar, handle: handle.expect("a valid pool handle") }
    }

    /// Returns the network in which the registrar and the pool users are.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Returns the registrar.
    #[must_use]
    pub fn registrar(&self) -> &Registrar {
        &self.registrar
    }

    /// Returns a new pool user.
    ///
    /// # Panics
    ///
    /// Does not panic.
    #[must_use]
    #[allow(clippy::expect_used, reason = "for tests")]
    pub fn user(&self) -> PoolUser {
        PoolUser::new(&self.network, self.registrar.local_addresses()).expect("its own addresses")
    }

    /// Starts a server, and waits until it is registered. `serve` runs on a host of its own: all that
    /// it spawns with the element's network is killed, paused and cut off with it.
    ///
    /// # Panics
    ///
    /// Panics if the registrar refuses the server.
    pub async fn server<F>(&self, serve: impl FnOnce(PoolElement) -> F) -> TestServer
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        self.server_with(|config| config, serve).await
    }

    /// Starts a server as [`Self::server`] does, with another configuration.
    ///
    /// # Panics
    ///
    /// Panics if the registrar refuses the server.
    #[allow(clippy::expect_used, reason = "for tests")]
    pub async fn server_with<F>(
        &self,
        configure: impl FnOnce(ElementConfig) -> ElementConfig,
        serve: impl FnOnce(PoolElement) -> F,
    ) -> TestServer
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let gate = Arc::new(Gate::default());
        let runtime = GatedRuntime::new(Arc::clone(self.network.runtime()), Arc::clone(&gate));
        let transport = GatedTransport::new(Arc::clone(&self.memory), Arc::clone(&gate));
        let network = Network::new(runtime, transport);
        let element =
            PoolElement::builder(&network, &self.handle, self.registrar.local_addresses())
                .configure(configure)
                .start()
                .expect("an address that is free");
        let identifier = element.registered().await.expect("the registrar takes it");
        let serving = serve(element);
        network.runtime().spawn(Box::pin(async move {
            serving.await;
        }));
        TestServer { gate, identifier }
    }
}

impl TestServer {
    /// Returns the server's identifier in the pool.
    #[must_use]
    pub fn identifier(&self) -> PoolElementId {
        self.identifier
    }

    /// Kills the server: its tasks are dropped at their current await points, and its connections
    /// break.
    pub fn kill(&self) {
        self.gate.kill();
    }

    /// Stops all tasks of the server, as SIGSTOP does: its connections remain, and nobody answers.
    pub fn pause(&self) {
        self.gate.pause();
    }

    /// Lets a paused server continue.
    pub fn resume(&self) {
        self.gate.resume();
    }

    /// Cuts the server off, as a network does that loses all packets: nothing is delivered to it or
    /// from it, and no connection breaks. What it sends meanwhile is delivered later.
    pub fn cut_off(&self) {
        self.gate.cut_off();
    }

    /// Ends [`Self::cut_off`].
    pub fn reconnect(&self) {
        self.gate.reconnect();
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.kill();
    }
}
