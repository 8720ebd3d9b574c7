//! PingPong, compatible with rsplib: numbers, in network byte order.
//!
//! A ping is `1, flags, length (16 bits), message number (64 bits), data`, its pong
//! `2, 0, length, message number, reply number (64 bits), data`. Replies are numbered from 1
//! on through all failovers: the cookie after each pong is `<PP-TD1>` and the next number.

use rserpool::proto::wire::Bytes;
use rserpool::{ElementEvent, ElementSession, Ppid};

use super::Broken;

/// The payload protocol identifier.
pub(crate) const PING_PONG: Ppid = Ppid(33);
const PING: u8 = 1;
const PONG: u8 = 2;
const HEADER: usize = 12;
const COOKIE_MARK: &[u8; 8] = b"<PP-TD1>";

/// Answers pings until the client closes the session.
pub(crate) async fn serve(mut session: ElementSession) -> Result<(), Broken> {
    let mut reply = 1;
    loop {
        match session.recv().await? {
            ElementEvent::CookieEcho(cookie) => {
                reply = read_cookie(&cookie).ok_or(Broken::Protocol("invalid cookie"))?;
            }
            ElementEvent::Message(message) if message.ppid == PING_PONG => {
                if let Some(pong) = pong(&message.payload, reply) {
                    reply = reply.checked_add(1).ok_or(Broken::Protocol("no more numbers"))?;
                    session.send(PING_PONG, pong).await?;
                    session.send_cookie(make_cookie(reply)).await?;
                }
            }
            _ => {}
        }
    }
}

fn read_cookie(cookie: &[u8]) -> Option<u64> {
    let number = cookie.strip_prefix(COOKIE_MARK)?;
    Some(u64::from_be_bytes(number.try_into().ok()?))
}

fn make_cookie(next: u64) -> Bytes {
    [&COOKIE_MARK[..], &next.to_be_bytes()].concat().into()
}

/// Returns the answer to a ping; `None` if the message is not a ping or is too long.
fn pong(ping: &[u8], reply: u64) -> Option<Bytes> {
    let (header, data) = ping.split_at_checked(HEADER)?;
    let length = u16::from_be_bytes([header[2], header[3]]);
    if header[0] != PING || usize::from(length) != ping.len() {
        return None;
    }
    let length = length.checked_add(8)?.to_be_bytes();
    Some([&[PONG, 0], &length, &header[4..], &reply.to_be_bytes(), data].concat().into())
}

/// Makes a ping.
pub(crate) fn make_ping(number: u64, data: &[u8]) -> Bytes {
    let length = u16::try_from(HEADER + data.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[PING, 0], &length[..], &number.to_be_bytes(), data].concat().into()
}

/// The fields of a pong that a client checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pong {
    pub(crate) number: u64,
    pub(crate) reply: u64,
}

impl Pong {
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (reply, _) = rest.split_first_chunk()?;
        let number = u64::from_be_bytes(*number);
        (header[0] == PONG).then_some(Self { number, reply: u64::from_be_bytes(*reply) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pong_is_a_ping_with_a_number() {
        let ping = [&[1, 0, 0, 15, 0, 0, 0, 0, 0, 0, 0, 7][..], b"abc"].concat();
        let expected = [&[2, 0, 0, 23, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9][..], b"abc"];
        let answer = pong(&ping, 9).unwrap();
        assert_eq!(answer, expected.concat());
        assert_eq!(make_ping(7, b"abc"), ping);
        assert_eq!(Pong::decode(&answer), Some(Pong { number: 7, reply: 9 }));
        assert_eq!(pong(&ping[..14], 9), None);
        assert_eq!(pong(b"", 9), None);
        assert_eq!(read_cookie(&make_cookie(5)), Some(5));
        assert_eq!(read_cookie(b"<PP-TD1>"), None);
    }
}
