//! Tests of handles that outlive their runtime, or are made outside of one.

use std::time::Duration;

use futures::FutureExt;
use rserpool::transport::Tcp;
use rserpool::{
    Network, PoolElement, PoolHandle, PoolUser, Ppid, Registrar, RegistrarConfig, RegistrarId,
    ResolveOptions, Session, SessionConfig, Stopped, TransportAddress,
};
use rserpool_tokio::TokioRuntime;
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn pool() -> PoolHandle {
    "DroppedPool".parse().expect("a handle")
}

/// Starts a registrar, and an element that does not serve sessions yet.
async fn start(network: &Network) -> (Registrar, PoolElement) {
    let any = TransportAddress::tcp(([127, 0, 0, 1], 0).into());
    let config = RegistrarConfig::default().identifier(RegistrarId(1));
    let registrar = Registrar::start(network, [&any], config).expect("a free port");
    let at = registrar.local_address().clone();
    let builder = PoolElement::builder(network, pool(), [at]);
    let element = builder.listen(([127, 0, 0, 1], 0).into()).start().expect("a free port");
    element.registered().await.expect("it is taken");
    (registrar, element)
}

async fn open(user: &PoolUser) -> Session {
    let soon = SessionConfig::default().give_up_after(Duration::from_millis(300));
    user.open_with(pool(), soon).await.expect("it is there")
}

#[test]
fn handles_that_outlive_their_runtime_say_so_and_do_not_panic() {
    let (gone, other) = (runtime(), runtime());
    let network = Network::new(TokioRuntime::new(gone.handle().clone()), Tcp::new());
    let (registrar, mut element, user, mut session) = gone.block_on(async {
        let (registrar, element) = start(&network).await;
        let user = PoolUser::new(&network, [registrar.local_address().clone()]).expect("a dialler");
        let session = open(&user).await;
        (registrar, element, user, session)
    });
    drop(gone);
    other.block_on(async {
        assert!(user.resolve(pool(), ResolveOptions::default()).await.is_err());
        assert!(user.open(pool()).await.is_err());
        assert!(element.registered().await.is_err());
        // These futures must not panic. They may stay pending.
        let _ = session.recv().now_or_never();
        let _ = session.send(Ppid::NONE, "hello").now_or_never();
        let _ = element.accept().now_or_never();
        let _ = session.close().now_or_never();
        assert_eq!(element.leave().await, rserpool::Departure::Unconfirmed);
        assert_eq!(registrar.shutdown().await, Err(Stopped));
    });
}

#[test]
fn all_works_from_outside_of_the_runtimes_context() {
    let tokio = runtime();
    let network = Network::new(TokioRuntime::new(tokio.handle().clone()), Tcp::new());
    futures::executor::block_on(async {
        let (registrar, _element) = start(&network).await;
        let user = PoolUser::new(&network, [registrar.local_address().clone()]).expect("a dialler");
        let session = open(&user).await;
        session.close().await;
    });
}

#[test]
fn a_session_notices_that_the_runtime_of_its_server_is_gone() {
    let (servers, clients) = (runtime(), runtime());
    let network = Network::new(TokioRuntime::new(servers.handle().clone()), Tcp::new());
    let (registrar, mut element) = servers.block_on(start(&network));
    let at = registrar.local_address().clone();
    servers.spawn(async move {
        let _session = element.accept().await.unwrap();
        std::future::pending::<()>().await
    });
    let network = Network::new(TokioRuntime::new(clients.handle().clone()), Tcp::new());
    clients.block_on(async {
        let user = PoolUser::new(&network, [at]).expect("a dialler");
        let mut session = open(&user).await;
        assert!(session.recv().await.is_ok());
        servers.shutdown_background();
        // The failover starts, and finds no element.
        while session.recv().await.is_ok() {}
    });
}
