//! Tests that requests which arrive together are all answered, whatever comes after them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rserpool::transport::Tcp;
use rserpool::{Bytes, Network, Registrar, RegistrarConfig};
use rserpool_proto::wire::asap::{Body, HandleResolution, Message};
use rserpool_tokio::TokioRuntime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Returns the number of resolution responses in `bytes`.
fn answers(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some(length) = bytes.get(2..4) {
        let length = usize::from(u16::from_be_bytes([length[0], length[1]])).next_multiple_of(4);
        let Some((message, rest)) = bytes.split_at_checked(length) else { break };
        let message = Message::decode(&Bytes::copy_from_slice(message)).unwrap();
        count += usize::from(matches!(message.body, Body::HandleResolutionResponse(_)));
        bytes = rest;
    }
    count
}

#[tokio::test]
async fn requests_that_arrive_together_are_all_answered() {
    let network = Network::new(TokioRuntime::current(), Tcp::new());
    let config = RegistrarConfig::default().ready_after(Duration::ZERO);
    let registrar = Registrar::start(&network, ["127.0.0.1:0"], config).unwrap();
    registrar.ready().await.unwrap();
    let address = registrar.local_address().socket_addresses().next().unwrap();
    let pool_handle = "Pool".parse().unwrap();
    let request = HandleResolution { subscribe: false, pool_handle, items: None };
    let request = Message::from(request).encode().unwrap();
    let half = request.slice(..request.len() / 2);
    // One, a few, many, more than are read at once; and then nothing, half a request, rubbish, or the
    // end.
    for number in [1, 2, 5, 33, 3000] {
        for then in [&[][..], &half, &[0xff; 64]] {
            for ends in [false, true] {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let bytes = [&request.repeat(number), then].concat();
                let (mut reader, mut writer) = stream.split();
                let mut answered = Vec::new();
                let write = async {
                    writer.write_all(&bytes).await.unwrap();
                    if ends {
                        writer.shutdown().await.unwrap();
                    }
                };
                let read = async {
                    let mut buffer = [0; 4096];
                    while answers(&answered) < number {
                        match reader.read(&mut buffer).await {
                            Ok(read) if read > 0 => answered.extend_from_slice(&buffer[..read]),
                            _ => break,
                        }
                    }
                };
                let both =
                    network.timeout(Duration::from_secs(20), async { tokio::join!(write, read) });
                both.await.unwrap();
                assert_eq!(answers(&answered), number, "then {} bytes, end: {ends}", then.len());
            }
        }
    }
}
