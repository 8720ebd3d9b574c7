//! gRPC calls whose requests are streams, to the servers of a pool.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use rserpool::transport::Tcp;
use rserpool::{Network, PoolElement, PoolUser, Registrar, RegistrarConfig, TransportAddress};
use rserpool_tokio::TokioRuntime;
use rserpool_tower::PoolHttp;
use tokio::net::TcpListener;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{ClientStreamingService, NamedService, StreamingService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

const POOL: &str = "StreamPool";

/// Messages of bytes, so that no generated code is needed.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Service with the methods `Join`, which joins the messages of a stream, and `Upper`, which
/// responds to each message of a stream as it arrives.
#[derive(Debug, Clone, Copy)]
struct Words;

impl NamedService for Words {
    const NAME: &'static str = "test.Words";
}

impl tower::Service<http::Request<tonic::body::Body>> for Words {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move {
            let mut server = tonic::server::Grpc::new(Raw);
            Ok(match request.uri().path() {
                "/test.Words/Join" => server.client_streaming(Self, request).await,
                _ => server.streaming(Self, request).await,
            })
        })
    }
}

impl ClientStreamingService<Bytes> for Words {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        Box::pin(async move {
            let (mut words, mut joined) = (request.into_inner(), Vec::new());
            while let Some(word) = words.message().await? {
                joined.extend_from_slice(&word);
            }
            Ok(Response::new(joined.into()))
        })
    }
}

impl StreamingService<Bytes> for Words {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        Box::pin(async move {
            let upper = request.into_inner().map(|word| Ok(word?.to_ascii_uppercase().into()));
            Ok(Response::new(upper.boxed()))
        })
    }
}

/// Registers a server at the address of a listener.
async fn join(network: &Network, registrar: &Registrar, listener: &TcpListener) -> PoolElement {
    let address = TransportAddress::tcp(listener.local_addr().unwrap());
    let builder = PoolElement::builder(network, POOL, registrar.local_addresses());
    let element = builder.serving_at(address).start().unwrap();
    element.registered().await.unwrap();
    element
}

#[tokio::test]
async fn streams_of_requests_go_to_the_servers_in_turn_and_past_one_that_refuses() {
    let network = Network::new(TokioRuntime::current(), Tcp::new());
    let registrar =
        Registrar::start(&network, ["127.0.0.1:0"], RegistrarConfig::default()).unwrap();
    let mut elements = Vec::new();
    for serves in [true, false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        elements.push(join(&network, &registrar, &listener).await);
        if serves {
            let server = Server::builder().add_service(Words);
            tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        }
    }
    let user = PoolUser::new(&network, registrar.local_addresses()).unwrap();
    let client = PoolHttp::new(user, POOL.parse().unwrap()).http2();
    for _ in 0..6 {
        let mut client = tonic::client::Grpc::new(client.clone());
        client.ready().await.unwrap();
        let words = stream::iter(["one ", "two ", "three"].map(Bytes::from));
        let path = "/test.Words/Join".parse().unwrap();
        let joined = client.client_streaming(Request::new(words), path, Raw).await.unwrap();
        assert_eq!(joined.into_inner(), "one two three");

        // The next request is sent after the response to the one before.
        let (mut send, words) = futures::channel::mpsc::channel(1);
        send.try_send(Bytes::from_static(b"one")).unwrap();
        client.ready().await.unwrap();
        let path = "/test.Words/Upper".parse().unwrap();
        let upper = client.streaming(Request::new(words), path, Raw).await.unwrap();
        let mut upper = upper.into_inner();
        assert_eq!(upper.message().await.unwrap().unwrap(), "ONE");
        send.try_send(Bytes::from_static(b"two")).unwrap();
        assert_eq!(upper.message().await.unwrap().unwrap(), "TWO");
        drop(send);
        assert_eq!(upper.message().await.unwrap(), None);
    }
}
