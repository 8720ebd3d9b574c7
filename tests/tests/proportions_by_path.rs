//! Tests the policies from end to end with real handles: in whichever way a program uses a pool, it
//! gets the elements that the policy selects (RFC 5356).
#![allow(clippy::unwrap_used, reason = "tests")]

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rserpool::cookie::{KeyRing, Seal};
use rserpool::transport::Memory;
use rserpool::{
    ElementEvent, InvalidState, MessengerEvent, Network, PoolElement, PoolUser, Registrar,
    RequestConfig, Service, ServiceConfig, SessionConfig,
};
use rserpool_proto::registrar::{Limits, RegistrarConfig};
use rserpool_proto::testing::proportions::{CASES, Case, SESSIONS, chi_squared};
use rserpool_proto::user::ResolveOptions;
use rserpool_proto::wire::{PoolElementId, PoolHandle, Ppid, TransportAddress, UserMessage};
use rserpool_tokio::TokioRuntime;
use rserpool_tower::PoolService;
use tower::{Service as _, ServiceExt, service_fn};

/// Limit of the chi-squared statistic with two degrees of freedom. Right proportions exceed it once
/// in a million times. The handles cannot be given seeds: programs shall not be able to foresee their
/// identifiers and choices.
const LIMIT: f64 = 27.63;

/// The ways to use a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Resolve { max_age: Duration },
    Session { max_age: Duration },
    Messenger,
    Requests { max_age: Duration },
    Tower { max_age: Duration },
}

const PATHS: [Path; 9] = [
    Path::Resolve { max_age: Duration::ZERO },
    Path::Resolve { max_age: Duration::MAX },
    Path::Session { max_age: Duration::ZERO },
    Path::Session { max_age: Duration::MAX },
    Path::Messenger,
    Path::Requests { max_age: Duration::ZERO },
    Path::Requests { max_age: Duration::MAX },
    Path::Tower { max_age: Duration::ZERO },
    Path::Tower { max_age: Duration::MAX },
];

struct Echo;

impl Service for Echo {
    async fn handle(&mut self, body: Bytes) -> Bytes {
        body
    }

    fn save(&self) -> Result<Vec<u8>, InvalidState> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _: &[u8]) -> Result<(), InvalidState> {
        Ok(())
    }
}

/// Sends back the messages that it receives over the element's sessions.
async fn echo(mut element: PoolElement) {
    while let Ok(mut session) = element.accept().await {
        tokio::spawn(async move {
            while let Ok(event) = session.recv().await {
                if let ElementEvent::Message(message) = event {
                    let _ = session.send(message.ppid, message.payload).await;
                }
            }
        });
    }
}

/// Starts three elements with the values of `case`. Their identifiers are 1, 2 and 3, and so are
/// their ports for [`Path::Tower`].
async fn start(
    network: &Network,
    at: &TransportAddress,
    pool: &PoolHandle,
    case: Case,
    path: Path,
) {
    for (number, values) in (1..).zip(case.servers) {
        let mut builder = PoolElement::builder(network, pool.clone(), [at.clone()])
            .configure(|config| {
                config.identifier(PoolElementId(number)).policy(values.parse().unwrap())
            })
            .listen(([127, 0, 0, 1], 0).into());
        if matches!(path, Path::Tower { .. }) {
            let port = u16::try_from(number).unwrap();
            builder = builder.serving_at(TransportAddress::tcp(([127, 0, 0, 1], port).into()));
        }
        let element = builder.start().unwrap();
        element.registered().await.unwrap();
        if matches!(path, Path::Requests { .. }) {
            let config = ServiceConfig::new(Seal::new(pool.clone(), KeyRing::generate()));
            tokio::spawn(element.serve(config, || Echo, pending::<()>(), Duration::ZERO));
        } else {
            tokio::spawn(echo(element));
        }
    }
}

/// Counts for each element of the pool how often a user reaches it in the way `path`, in `times`
/// attempts.
async fn count(user: &PoolUser, pool: &PoolHandle, path: Path, times: u32, counts: &mut [u32; 3]) {
    let mut met = |PoolElementId(element)| counts[element as usize - 1] += 1;
    let mut messenger = user.messenger(pool.clone()).unwrap();
    let address = |address: SocketAddr| async move {
        let port = u32::from(address.port());
        Ok::<_, Infallible>(service_fn(move |()| async move {
            Ok::<_, Infallible>(PoolElementId(port))
        }))
    };
    let mut tower = PoolService::new(user.clone(), pool.clone(), service_fn(address));
    for _ in 0..times {
        match path {
            Path::Resolve { max_age } => {
                let options = ResolveOptions::default().max_age(max_age);
                met(user.resolve(pool.clone(), options).await.unwrap()[0].identifier);
            }
            Path::Session { max_age } => {
                let config = SessionConfig::default().max_age(max_age);
                let session = user.open_with(pool.clone(), config).await.unwrap();
                met(session.element().unwrap());
                session.close().await;
            }
            Path::Messenger => {
                let message = UserMessage::new(Ppid(7), b"there".as_slice());
                met(messenger.send(message).await.unwrap());
                let (_, answer) = messenger.recv().await;
                assert!(matches!(answer, MessengerEvent::Message(it) if it.payload == "there"));
            }
            Path::Requests { max_age } => {
                let config = SessionConfig::default().max_age(max_age);
                let config = RequestConfig::default().session(config);
                let mut session = user.open_requests(pool.clone(), config).await.unwrap();
                assert_eq!(session.request(b"there".as_slice()).await.unwrap(), "there");
                met(session.element().unwrap());
                session.close().await;
            }
            Path::Tower { max_age } => {
                tower = tower.max_age(max_age);
                met(tower.ready().await.unwrap().call(()).await.unwrap());
            }
        }
    }
}

#[tokio::test]
async fn programs_meet_the_elements_that_the_policy_selects() {
    let network = Network::new(TokioRuntime::current(), Memory::new());
    let any = TransportAddress::new(network.protocol(), ([127, 0, 0, 1], 0).into());
    let limits = Limits::default()
        .registrations(100_000)
        .resolutions(1_000_000)
        .connections_per_host(100_000);
    let config = RegistrarConfig::default().limits(limits);
    let registrar = Registrar::start(&network, [&any], config.ready_after(Duration::ZERO)).unwrap();
    let at = registrar.local_address();
    for case in CASES {
        for (number, path) in PATHS.into_iter().enumerate() {
            let pool: PoolHandle = format!("{}-{number}", case.policy()).parse().unwrap();
            start(&network, at, &pool, case, path).await;
            for users in [1, 30] {
                let mut counts = [0; 3];
                for user in 0..users {
                    let times = SESSIONS / users + u32::from(user < SESSIONS % users);
                    let user = PoolUser::new(&network, [at.clone()]).unwrap();
                    count(&user, &pool, path, times, &mut counts).await;
                }
                let found = chi_squared(&counts, &case.expected());
                assert!(found < LIMIT, "{case:?}, {path:?}, {users} users: {counts:?}");
            }
        }
    }
}
