//! Measures echoes over loopback TCP.

use std::future::Future;
use std::time::Instant;

use bytes::Bytes;
use rserpool::{ElementEvent, ElementSession, Network, Session};
use rserpool_proto::session::Event;
use rserpool_proto::wire::Ppid;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{pool, start};

const ECHOES: u32 = 20_000;

/// Echo server: sends back each message of a session.
pub async fn serve(mut session: ElementSession) {
    while let Ok(event) = session.recv().await {
        if let ElementEvent::Message(message) = event
            && session.send(message.ppid, message.payload).await.is_err()
        {
            break;
        }
    }
}

/// Sends one message, and waits for its echo.
pub async fn once(session: &mut Session, ppid: Ppid, payload: Bytes) {
    session.send(ppid, payload).await.unwrap();
    while !matches!(session.recv().await.unwrap(), Event::Message(_)) {}
}

/// Returns the median rates of a session and of a bare connection, in echoes a second. The two are
/// measured in turn. `server` serves the bare connection on a listener, and `client` returns the
/// rate of the bare connection for messages of `size` bytes.
pub async fn compare<S, C>(
    network: &Network,
    rounds: usize,
    size: usize,
    server: impl Fn(std::net::TcpListener) -> S,
    client: impl Fn(u16, usize) -> C,
) -> [f64; 2]
where
    S: Future<Output = ()> + Send + 'static,
    C: Future<Output = f64>,
{
    let (_registrar, mut element, user) = start(network).await;
    let runtime = network.runtime().clone();
    let spawner = runtime.clone();
    runtime.spawn(Box::pin(async move {
        loop {
            let session = element.accept().await.unwrap();
            spawner.spawn(Box::pin(serve(session)));
        }
    }));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    runtime.spawn(Box::pin(server(listener)));

    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        let mut session = user.open(pool()).await.unwrap();
        let payload = Bytes::from(vec![7; size]);
        let begin = Instant::now();
        for _ in 0..ECHOES {
            once(&mut session, Ppid::NONE, payload.clone()).await;
        }
        rates[0].push(f64::from(ECHOES) / begin.elapsed().as_secs_f64());
        session.close().await;
        rates[1].push(client(port, size).await);
    }
    rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    })
}

pub fn print(runtime: &str, size: usize, [session, bare]: [f64; 2]) {
    println!("{runtime:8}{size:>8}{session:>12.0}{bare:>12.0}{:>8.2}", session / bare);
}

macro_rules! bare {
    ($server:ident, $serve:ident, $client:ident, $listener:ty, $stream:ty, $new:expr) => {
        pub async fn $server(listener: std::net::TcpListener) {
            let new: fn(std::net::TcpListener) -> $listener = $new;
            let listener = new(listener);
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                // Serve one connection at a time in this task, as the sessions are served in this
                // thread.
                $serve(stream).await;
            }
        }

        async fn $serve(mut stream: $stream) {
            let mut buffer = vec![0; 1 << 17];
            let (mut begin, mut end) = (0, 0);
            loop {
                while end - begin < 4 || {
                    let length = u32::from_be_bytes(buffer[begin..begin + 4].try_into().unwrap());
                    end - begin < 4 + length as usize
                } {
                    buffer.copy_within(begin..end, 0);
                    (begin, end) = (0, end - begin);
                    match stream.read(&mut buffer[end..]).await {
                        Ok(0) | Err(_) => return,
                        Ok(count) => end += count,
                    }
                }
                let length = u32::from_be_bytes(buffer[begin..begin + 4].try_into().unwrap());
                let message = begin..begin + 4 + length as usize;
                if stream.write_all(&buffer[message.clone()]).await.is_err() {
                    return;
                }
                begin = message.end;
            }
        }

        pub async fn $client(port: u16, size: usize) -> f64 {
            let mut stream = <$stream>::connect(("127.0.0.1", port)).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let length = u32::try_from(size).unwrap().to_be_bytes();
            let message = [&length[..], &vec![7; size]].concat();
            let mut buffer = vec![0; 1 << 17];
            let begin = Instant::now();
            for _ in 0..ECHOES {
                stream.write_all(&message).await.unwrap();
                let mut come = 0;
                while come < message.len() {
                    come += stream.read(&mut buffer[come..]).await.unwrap();
                }
            }
            f64::from(ECHOES) / begin.elapsed().as_secs_f64()
        }
    };
}

mod on_tokio {
    use super::*;
    use tokio::net::{TcpListener, TcpStream};
    bare!(server, serve_bare, client, TcpListener, TcpStream, |listener| {
        TcpListener::from_std(listener).unwrap()
    });
}

mod on_smol {
    use super::*;
    use smol::net::{TcpListener, TcpStream};

    bare!(server, serve_bare, client, TcpListener, TcpStream, |listener| {
        TcpListener::from(smol::Async::new_nonblocking(listener).unwrap())
    });
}

pub use on_smol::{client as smol_client, server as smol_server};
pub use on_tokio::{client as tokio_client, server as tokio_server};
