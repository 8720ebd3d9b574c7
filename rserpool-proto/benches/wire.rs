//! Measures encoding and decoding of the most frequent messages of a registrar.
//!
//!     cargo bench -p rserpool --bench wire [-- --quick]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark"
)]

mod report;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use report::Report;
use rserpool_proto::wire::asap::{HandleResolutionResponse, Message, Registration, Resolved};
use rserpool_proto::wire::{
    Bytes, EncodedElement, PolicyParameters, PolicyType, PoolElement, PoolElementId, PoolHandle,
    RegistrarId, RegistrationLife, TransportAddress,
};

fn element(identifier: u32) -> PoolElement {
    PoolElement {
        identifier: PoolElementId(identifier),
        home_registrar: RegistrarId(0x1234_5678),
        registration_life: RegistrationLife(90_000),
        user_transport: TransportAddress::sctp("10.0.0.1:4711".parse().unwrap()).into(),
        policy: PolicyParameters::least_used(7),
        asap_transport: None,
    }
}

fn handle() -> PoolHandle {
    "EchoPool".parse().unwrap()
}

fn response(count: u32) -> Message {
    let elements: Vec<_> = (1..=count).map(element).collect();
    let policy = elements.first().map(|element| element.policy.clone());
    let result = Resolved::Pool { policy, elements };
    HandleResolutionResponse { subscribed: false, partial: false, pool_handle: handle(), result }
        .into()
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30)
        .configure_from_args();
    let mut report = Report::default();
    let registration = Registration { pool_handle: handle(), pool_element: element(1) };
    let messages = [
        ("registration", registration.into()),
        ("response", response(3)),
        ("response", response(20)),
    ];
    for (name, message) in &messages {
        let message: &Message = message;
        let bytes = message.encode().unwrap();
        let items = match &message.body {
            rserpool_proto::wire::asap::Body::HandleResolutionResponse(
                HandleResolutionResponse { result: Resolved::Pool { elements, .. }, .. },
            ) => elements.len(),
            _ => 1,
        };
        let name = format!("{name} of {items}, {} bytes", bytes.len());
        run(&mut criterion, &mut report, &name, "encode", || message.encode().unwrap().len());
        run(&mut criterion, &mut report, &name, "decode", || decode(&bytes));
        if items > 1 {
            let kept: Vec<_> = (1..=items as u32)
                .map(|id| EncodedElement::new(&handle_once(), &element(id)).unwrap())
                .collect();
            run(&mut criterion, &mut report, &name, "encode, elements kept encoded", || {
                let policy = PolicyType::LEAST_USED;
                HandleResolutionResponse::encode_pool(false, &handle_once(), policy, &kept, 0).len()
            });
        }
    }
    criterion.final_summary();
    report.print();
}

fn handle_once() -> PoolHandle {
    static HANDLE: std::sync::LazyLock<PoolHandle> = std::sync::LazyLock::new(handle);
    HANDLE.clone()
}

fn decode(bytes: &Bytes) -> u8 {
    black_box(&Message::decode(black_box(bytes)).unwrap()).flags()
}

fn run<R>(
    criterion: &mut Criterion,
    report: &mut Report,
    message: &str,
    operation: &str,
    mut body: impl FnMut() -> R,
) {
    let mut group = criterion.benchmark_group(message);
    group.bench_function(operation, |bencher| {
        bencher.iter_custom(|count| {
            let begin = Instant::now();
            for _ in 0..count {
                black_box(body());
            }
            let took = begin.elapsed();
            report.sample("wire", &format!("{message}: {operation}"), 1, took, count);
            took
        });
    });
}
