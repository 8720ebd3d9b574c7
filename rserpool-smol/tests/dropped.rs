//! Tests of handles that outlive their executor.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use rserpool::transport::Tcp;
use rserpool::{
    Network, PoolElement, PoolHandle, PoolUser, Ppid, Registrar, RegistrarConfig, RegistrarId,
    ResolveOptions, SessionConfig, TransportAddress,
};
use rserpool_smol::SmolRuntime;
use smol::Executor;

fn pool() -> PoolHandle {
    "DroppedPool".parse().expect("a handle")
}

#[test]
fn handles_that_outlive_their_executor_say_so_and_do_not_panic() {
    let executor = Arc::new(Executor::new());
    let network = Network::new(SmolRuntime::with_executor(Arc::clone(&executor)), Tcp::new());
    let (registrar, mut element, user, mut session) = smol::block_on(executor.run(async {
        let any = TransportAddress::tcp(([127, 0, 0, 1], 0).into());
        let config = RegistrarConfig::default().identifier(RegistrarId(1));
        let registrar = Registrar::start(&network, [&any], config).expect("a free port");
        let at = registrar.local_address().clone();
        let builder = PoolElement::builder(&network, pool(), [at.clone()]);
        let element = builder.listen(([127, 0, 0, 1], 0).into()).start().expect("a free port");
        element.registered().await.expect("it is taken");
        let user = PoolUser::new(&network, [at]).expect("a dialler");
        let soon = SessionConfig::default().give_up_after(Duration::from_millis(300));
        let session = user.open_with(pool(), soon).await.expect("it is there");
        (registrar, element, user, session)
    }));
    // The handles keep the executor alive, but no thread runs it any more.
    drop(executor);
    smol::block_on(async {
        assert!(user.resolve(pool(), ResolveOptions::default()).now_or_never().is_none());
        assert!(user.open(pool()).now_or_never().is_none());
        let _ = session.recv().now_or_never();
        let _ = session.send(Ppid::NONE, "hello").now_or_never();
        let _ = element.accept().now_or_never();
        let _ = session.close().now_or_never();
        let _ = element.leave().now_or_never();
        let _ = registrar.shutdown().now_or_never();
    });
    drop((network, user));
}

#[test]
fn two_executors_in_one_process_share_a_pool() {
    let (servers, clients) = (Arc::new(Executor::new()), Arc::new(Executor::new()));
    let server = Network::new(SmolRuntime::with_executor(Arc::clone(&servers)), Tcp::new());
    let client = Network::new(SmolRuntime::with_executor(Arc::clone(&clients)), Tcp::new());
    let (stop, stopped) = futures::channel::oneshot::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        smol::block_on(servers.run(async {
            let any = TransportAddress::tcp(([127, 0, 0, 1], 0).into());
            let config = RegistrarConfig::default().identifier(RegistrarId(1));
            let registrar = Registrar::start(&server, [&any], config).expect("a free port");
            let at = registrar.local_address().clone();
            let builder = PoolElement::builder(&server, pool(), [at.clone()]);
            let element = builder.listen(([127, 0, 0, 1], 0).into()).start().expect("a free port");
            element.registered().await.expect("it is taken");
            tell.send(at).expect("it waits");
            let _ = stopped.await;
            assert_eq!(element.leave().await, rserpool::Departure::Confirmed);
            registrar.shutdown().await.unwrap();
        }));
    });
    let at = told.recv().expect("it is told");
    smol::block_on(clients.run(async {
        let user = PoolUser::new(&client, [at]).expect("a dialler");
        user.open(pool()).await.expect("it is there");
    }));
    stop.send(()).expect("it waits");
    thread.join().expect("no panic");
}
