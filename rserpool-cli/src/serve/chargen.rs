//! Character generator service.

use rserpool::proto::wire::Bytes;
use rserpool::{ElementSession, Ppid};

use super::Broken;

/// Length of a message in bytes.
const BLOCK: usize = 1024;

/// Sends printable characters until the client closes the session.
pub(crate) async fn serve(mut session: ElementSession) -> Result<(), Broken> {
    let mut characters = (30..=127_u8).cycle();
    loop {
        let block: Bytes = characters.by_ref().take(BLOCK).collect();
        session.send(Ppid::NONE, block).await?;
        // The content of the client's messages is ignored; only the end of the session counts.
        if let std::task::Poll::Ready(event) = futures::poll!(std::pin::pin!(session.recv())) {
            event?;
        }
    }
}
