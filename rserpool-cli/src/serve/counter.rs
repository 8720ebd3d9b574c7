//! A service with state: it counts the requests of each session.
//!
//! A request is its own number, from 1 on, and its reply is the count after it; both are 64
//! bits in network byte order. The count is in the cookie, which goes out before the reply: so
//! the client never has seen a count that the next server does not know. A request that comes
//! again, since its reply got lost with a server, is answered again and not counted again.

use rserpool::driver::{ElementEvent, ElementSession};
use rserpool::wire::Ppid;

use super::Broken;

/// The payload protocol identifier: the service is nobody else's.
pub(crate) const REQUEST: Ppid = Ppid::NONE;

/// Counts until the session ends.
pub(crate) async fn serve(mut session: ElementSession) -> Result<(), Broken> {
    let mut count = 0;
    while let Some(event) = session.recv().await? {
        match event {
            ElementEvent::CookieEcho(cookie) => {
                count = read_count(&cookie).ok_or(Broken::Protocol("not our cookie"))?;
            }
            ElementEvent::Message(message) => {
                let number = read_count(&message.payload);
                let number = number.ok_or(Broken::Protocol("a request is a number"))?;
                if number != count {
                    count = count.checked_add(1).ok_or(Broken::Protocol("no more numbers"))?;
                }
                let bytes = count.to_be_bytes().to_vec();
                session.send_cookie(bytes.clone()).await?;
                session.send(REQUEST, bytes).await?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// A number of 64 bits.
pub(crate) fn read_count(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}
