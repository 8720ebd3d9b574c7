//! Runs the contract suite on tokio.

use std::future::Future;

use rserpool::Network;
use rserpool::contract::tls_over as tls;
use rserpool::transport::{Memory, Tcp, Tls, Transport};
use rserpool_tokio::TokioRuntime;

fn multi_thread(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime").block_on(test);
}

fn tls_over(inner: impl Transport) -> Tls {
    tls(inner, rustls::crypto::ring::default_provider())
}

fn current_thread(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime").block_on(test);
}

mod tcp {
    use super::*;
    rserpool::contract_suite!(multi_thread, Network::new(TokioRuntime::current(), Tcp::new()));
}

mod memory {
    use super::*;
    rserpool::contract_suite!(multi_thread, Network::new(TokioRuntime::current(), Memory::new()));
}

mod tls {
    use super::*;
    rserpool::contract_suite!(
        multi_thread,
        Network::new(TokioRuntime::current(), tls_over(Tcp::new()))
    );
    rserpool::contract_suite! {
        cases: [] multi_thread, Network::new(TokioRuntime::current(), tls_over(Tcp::new())),
        both_ends_are_identified,
        handshakes_fail_alone,
        a_crowd_of_clients_is_accepted,
    }
}

/// TLS over a transport that keeps message boundaries, as over SCTP.
mod tls_over_messages {
    use super::*;
    rserpool::contract_suite!(
        tls: [] current_thread,
        Network::new(TokioRuntime::current(), tls_over(Memory::new()))
    );
}

mod tcp_on_one_thread {
    use super::*;
    rserpool::contract_suite!(current_thread, Network::new(TokioRuntime::current(), Tcp::new()));
}

#[cfg(target_os = "linux")]
mod sctp {
    use super::*;
    use rserpool::transport::Sctp;
    rserpool::contract_suite!(
        [#[ignore = "needs a kernel with SCTP, see tests/interop"]]
        multi_thread,
        Network::new(TokioRuntime::current(), Sctp::new())
    );
    rserpool::contract_suite!(
        paths: [#[ignore = "needs a kernel with SCTP, see tests/interop"]]
        multi_thread,
        Network::new(TokioRuntime::current(), Sctp::new())
    );
}

#[cfg(target_os = "linux")]
mod authenticated_sctp {
    use super::*;
    use rserpool::contract::with_keys;
    use rserpool::transport::Sctp;
    rserpool::contract_suite!(
        sctp_auth: [#[ignore = "needs a kernel with SCTP, see tests/interop"]]
        multi_thread,
        Network::new(TokioRuntime::current(), Sctp::new())
    );
    rserpool::contract_suite!(
        paths: [#[ignore = "needs a kernel with SCTP, see tests/interop"]]
        multi_thread,
        Network::new(TokioRuntime::current(), with_keys(&[1]))
    );
    rserpool::contract_suite! {
        cases: [#[ignore = "needs a kernel with SCTP, see tests/interop"]]
        multi_thread, Network::new(TokioRuntime::current(), with_keys(&[1])),
        nobody_there_is_lost_at_once,
        an_end_in_good_order_is_told_from_a_broken_connection,
        a_session_outlives_its_element,
        requests_are_answered_once_whoever_dies,
        a_registrar_restart_is_survived,
    }
}

#[cfg(target_os = "linux")]
mod tls_over_sctp {
    use super::*;
    use rserpool::transport::Sctp;
    rserpool::contract_suite!(
        tls: [#[ignore = "needs a kernel with SCTP, see tests/interop"]]
        multi_thread,
        Network::new(TokioRuntime::current(), tls_over(Sctp::new()))
    );
}
