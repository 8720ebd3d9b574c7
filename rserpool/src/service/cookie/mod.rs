//! Cookies that clients store but cannot read, change or use elsewhere.
//!
//! A session's state is stored by its client, which is not trusted. A [`Seal`] encrypts and
//! authenticates the state (XChaCha20-Poly1305), and binds it to the pool, to its time of issue and
//! to its lineage (the sequence of cookies of one session). When the cookie comes back, the seal
//! checks that a server of the pool made it, and that it is not too old (RFC 5352 section 3.8
//! leaves the procedure open).
//!
//! ```
//! use std::time::SystemTime;
//! use rserpool::cookie::{KeyRing, Lineage, Seal};
//!
//! let seal = Seal::new("EchoPool".parse()?, KeyRing::generate());
//! let now = SystemTime::now();
//! let mut lineage = Lineage::new();
//! let cookie = seal.seal(now, &mut lineage, b"", b"the state")?;
//!
//! let opened = seal.open(now, &cookie)?;
//! assert_eq!(&opened.state[..], b"the state");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod keys;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use bytes::{BufMut, Bytes, BytesMut};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{Tag, XNonce};
use rand::{Rng, RngExt};
use rserpool_proto::Identity;
use rserpool_proto::wire::PoolHandle;

use crate::element_session::MAX_COOKIE;

pub use keys::KeyRing;

const VERSION: u8 = 1;
/// Length of the header: the version, a zero byte, the length of the clear part, the key's fingerprint,
/// and the time of issue in milliseconds since 1970. The clear part follows.
const HEADER: usize = 16;
const NONCE: usize = 24;
const TAG: usize = 16;
/// Length of a lineage: its name and sequence number.
const LINEAGE: usize = 24;

/// Maximum difference between the clocks of two servers of a pool. Not from the RFCs.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Maximum number of sessions whose latest cookie is recorded. Not from the RFCs. Beyond it, the one
/// whose cookie is the oldest is forgotten, and no cookie of that age or older is accepted for sessions
/// that are not recorded.
const MAX_LINEAGES: usize = 65_536;

/// Seals and opens the cookies of one pool, at one of its servers.
#[derive(Debug)]
pub struct Seal {
    pool: PoolHandle,
    ring: RwLock<KeyRing>,
    max_age: Duration,
    seen: Mutex<Seen>,
}

/// The sequence of cookies of one session: its random name, and the number of cookies so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    name: [u8; 16],
    sequence: u64,
    /// The user to whom the cookies are bound.
    user: Option<Identity>,
}

/// Content of a cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opened {
    /// The sealed state.
    pub state: Bytes,
    /// The part of the cookie in clear, which clients can read.
    pub clear: Bytes,
    /// The lineage for the session's next cookie.
    pub lineage: Lineage,
}

/// Error of [`Seal::seal`]: the cookie is too long to be sent. Nothing was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cookie of {length} bytes is too long: a message has room for {MAX_COOKIE}")]
#[non_exhaustive]
pub struct TooLong {
    /// Length that the cookie would have.
    pub length: usize,
}

/// Error of [`Seal::open`]: the reason why a cookie is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CookieRefused {
    /// The cookie is longer than any sealed one.
    #[error("the cookie is too long: {length} bytes")]
    Oversized {
        /// Length of the cookie.
        length: usize,
    },
    /// The bytes are not a sealed cookie.
    #[error("not a sealed cookie")]
    Malformed,
    /// The cookie is of another pool, or the key that sealed it is not, or no longer, on the key
    /// ring.
    #[error("the cookie is of another pool, or its key is not on the ring")]
    Foreign,
    /// The cookie was made or changed without the key, or is bound to another user.
    #[error("the cookie is forged, or is bound to another user")]
    Forged,
    /// The cookie was issued too long ago, or by a server whose clock is wrong.
    #[error("the cookie has expired")]
    Expired,
    /// A newer cookie of the session was opened before: the client may have kept this one to
    /// restore an earlier state. Also a cookie as old as those of sessions that were forgotten: a
    /// seal records the latest cookies of 65,536 sessions, and of none after a restart.
    #[error("the cookie is replayed: the session has had newer ones")]
    Replayed,
}

/// Numbers of refused cookies by reason, see [`CookieRefused`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the names say it")]
pub struct Refusals {
    pub oversized: u64,
    pub malformed: u64,
    pub foreign: u64,
    pub forged: u64,
    pub expired: u64,
    pub replayed: u64,
}

/// The cookies that a seal has opened and refused.
#[derive(Debug, Default)]
struct Seen {
    /// The sequence number and the time of issue of the last opened cookie of each lineage.
    taken: HashMap<[u8; 16], (u64, u64)>,
    /// The lineages in the order of these times.
    order: BTreeSet<(u64, [u8; 16])>,
    /// The latest time of issue among the lineages that were forgotten.
    floor: Option<u64>,
    refusals: Refusals,
}

impl Lineage {
    /// Creates a lineage (the sequence of cookies of one session) for a new session.
    #[must_use]
    pub fn new() -> Self {
        Self { name: rand::rng().random(), sequence: 0, user: None }
    }

    /// Binds the cookies to a user: only [`Seal::open_for`] with the same identity opens them, apart
    /// from the names that grant roles. With
    /// `None`, for a user whom the transport does not authenticate, they are not bound.
    #[must_use]
    pub fn bind(mut self, user: Option<&Identity>) -> Self {
        self.user = user.map(Identity::party);
        self
    }
}

impl Default for Lineage {
    fn default() -> Self {
        Self::new()
    }
}

impl Seal {
    /// Creates a seal for cookies of `pool`, which uses the first key of `ring`. The cookies expire
    /// after a day.
    #[must_use]
    pub fn new(pool: PoolHandle, ring: KeyRing) -> Self {
        let max_age = Duration::from_secs(24 * 60 * 60);
        Self { pool, ring: RwLock::new(ring), max_age, seen: Mutex::default() }
    }

    /// Sets the maximum age of a cookie. Default: 1 day. Not from the RFCs: bounds how long a
    /// stolen cookie can be used. A session that is idle for longer starts afresh when its server
    /// crashes.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Replaces the keys.
    pub fn set_ring(&self, ring: KeyRing) {
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = ring;
    }

    /// Returns the handle of the pool.
    #[must_use]
    pub fn pool(&self) -> &PoolHandle {
        &self.pool
    }

    /// Returns the numbers of cookies that were refused so far.
    #[must_use]
    pub fn refusals(&self) -> Refusals {
        self.seen().refusals
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the maximum length of a state so that a cookie with `clear` bytes in clear has at most
    /// `limit` bytes.
    pub(crate) fn room(&self, clear: usize, limit: usize) -> usize {
        limit.saturating_sub(self.length(clear, 0))
    }

    /// Returns the length of a cookie with these numbers of bytes in clear and encrypted.
    fn length(&self, clear: usize, state: usize) -> usize {
        HEADER + clear + NONCE + LINEAGE + 2 + self.pool.as_bytes().len() + state + TAG
    }

    /// Seals the next cookie of `lineage`, which identifies the session. `state` is encrypted.
    /// `clear` is readable for everybody, but cannot be changed.
    ///
    /// # Errors
    ///
    /// Returns an error if the cookie would be too long to be sent. The lineage is unchanged.
    pub fn seal(
        &self,
        now: SystemTime,
        lineage: &mut Lineage,
        clear: &[u8],
        state: &[u8],
    ) -> Result<Bytes, TooLong> {
        let handle = self.pool.as_bytes();
        let length = self.length(clear.len(), state.len());
        if length > MAX_COOKIE {
            return Err(TooLong { length });
        }
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        let key = ring.first();
        let mut nonce = [0; NONCE];
        rand::rng().fill_bytes(&mut nonce);
        lineage.sequence += 1;

        let mut cookie = BytesMut::with_capacity(length);
        cookie.put_slice(&[VERSION, 0]);
        cookie.put_u16(u16::try_from(clear.len()).expect("shorter than a message"));
        cookie.put_u32(key.fingerprint);
        cookie.put_u64(milliseconds(now));
        cookie.put_slice(clear);
        cookie.put_slice(&nonce);
        let begin = cookie.len();
        cookie.put_slice(&lineage.name);
        cookie.put_u64(lineage.sequence);
        cookie.put_u16(u16::try_from(handle.len()).expect("shorter than a message"));
        cookie.put_slice(handle);
        cookie.put_slice(state);
        let (open, secret) = cookie.split_at_mut(begin);
        let associated = associated(open, lineage.user.as_ref());
        let tag = key
            .cipher
            .encrypt_inout_detached(&XNonce::from(nonce), &associated, secret.into())
            .expect("far shorter than what one nonce is good for");
        cookie.put_slice(&tag);
        Ok(cookie.freeze())
    }

    /// Opens a cookie that a client returned and that is not bound to a user.
    ///
    /// # Errors
    ///
    /// Returns an error if the cookie was not sealed by a server of the pool, is bound to a user, is
    /// too old, or is not the last of its session as far as this server knows. The refusal is
    /// counted.
    pub fn open(&self, now: SystemTime, cookie: &Bytes) -> Result<Opened, CookieRefused> {
        self.open_for(None, now, cookie)
    }

    /// Opens a cookie that a client returned and that is bound to this user, see [`Lineage::bind`].
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`Self::open`]. A cookie that is bound to another user, or
    /// to none, counts as [`Forged`](CookieRefused::Forged).
    pub fn open_for(
        &self,
        user: Option<&Identity>,
        now: SystemTime,
        cookie: &Bytes,
    ) -> Result<Opened, CookieRefused> {
        let user = user.map(Identity::party);
        let opened = self.unseal(user.as_ref(), now, cookie);
        let mut seen = self.seen();
        let result =
            opened.and_then(|(opened, issued)| seen.take(&opened.lineage, issued).map(|()| opened));
        if let Err(refused) = result {
            *seen.refusals.of(refused) += 1;
        }
        result
    }

    /// Returns the content of a cookie and its time of issue, in milliseconds since 1970.
    fn unseal(
        &self,
        user: Option<&Identity>,
        now: SystemTime,
        cookie: &Bytes,
    ) -> Result<(Opened, u64), CookieRefused> {
        use CookieRefused::{Expired, Foreign, Forged, Malformed, Oversized};
        if cookie.len() > MAX_COOKIE {
            return Err(Oversized { length: cookie.len() });
        }
        let clear = clear_part(cookie).ok_or(Malformed)?;
        let nonce_at = HEADER + clear.len();
        let secret_at = nonce_at + NONCE;
        let tag_at = cookie.len().checked_sub(TAG).filter(|at| *at >= secret_at);
        let tag_at = tag_at.ok_or(Malformed)?;
        let number = |at: usize| {
            u64::from_be_bytes(*cookie[at..].first_chunk().expect("inside of the header"))
        };
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        // The upper half of the number is the key's fingerprint; the lower half belongs to the time
        // of issue.
        let key = ring.get((number(4) >> 32) as u32).ok_or(Foreign)?;
        let nonce: [u8; NONCE] = *cookie[nonce_at..].first_chunk().expect("checked");
        let tag: [u8; TAG] = *cookie[tag_at..].first_chunk().expect("checked");
        let mut secret = BytesMut::from(&cookie[secret_at..tag_at]);
        key.cipher
            .decrypt_inout_detached(
                &XNonce::from(nonce),
                &associated(&cookie[..secret_at], user),
                (&mut secret[..]).into(),
                &Tag::from(tag),
            )
            .map_err(|_| Forged)?;

        let mut state = secret.freeze();
        let (name, rest) = state.split_first_chunk().ok_or(Malformed)?;
        let (sequence, rest) = rest.split_first_chunk().ok_or(Malformed)?;
        let (length, rest) = rest.split_first_chunk().ok_or(Malformed)?;
        let handle = rest.get(..u16::from_be_bytes(*length).into()).ok_or(Malformed)?;
        if handle != self.pool.as_bytes() {
            return Err(Foreign);
        }
        let sequence_number = u64::from_be_bytes(*sequence);
        let lineage = Lineage { name: *name, sequence: sequence_number, user: user.cloned() };
        let begin = name.len() + sequence.len() + length.len() + handle.len();

        let issued = Duration::from_millis(number(8));
        let now = Duration::from_millis(milliseconds(now));
        if now.saturating_sub(issued) > self.max_age || issued > now + CLOCK_SKEW {
            return Err(Expired);
        }
        Ok((Opened { state: state.split_off(begin), clear, lineage }, number(8)))
    }
}

/// Returns the data that a cookie authenticates besides its encrypted part: the bytes before that,
/// and the names of the user to whom the cookie is bound. Each name is preceded by its length, so
/// that different lists of names differ.
fn associated<'a>(open: &'a [u8], user: Option<&Identity>) -> Cow<'a, [u8]> {
    let Some(user) = user else { return open.into() };
    let mut data = open.to_vec();
    for name in user.names() {
        data.put_u64(name.len() as u64);
        data.put_slice(name.as_bytes());
    }
    // Without a certificate, there are no names, but the cookie is not for everybody.
    data.put_u8(1);
    data.into()
}

impl Seen {
    /// Accepts a cookie of this lineage (of one session), unless a newer one was accepted before.
    /// The latest cookie may come again, since the session may have lost only its connection.
    fn take(&mut self, lineage: &Lineage, issued: u64) -> Result<(), CookieRefused> {
        let Lineage { name, sequence, .. } = *lineage;
        match self.taken.get(&name).copied() {
            Some((taken, _)) if sequence < taken => return Err(CookieRefused::Replayed),
            Some((_, before)) => {
                self.order.remove(&(before, name));
            }
            // The session may be one that was forgotten.
            None if self.floor.is_some_and(|floor| issued <= floor) => {
                return Err(CookieRefused::Replayed);
            }
            None => {
                if self.order.len() == MAX_LINEAGES
                    && let Some((oldest, forgotten)) = self.order.pop_first()
                {
                    self.taken.remove(&forgotten);
                    self.floor = self.floor.max(Some(oldest));
                }
            }
        }
        self.order.insert((issued, name));
        self.taken.insert(name, (sequence, issued));
        Ok(())
    }
}

impl Refusals {
    fn of(&mut self, refused: CookieRefused) -> &mut u64 {
        match refused {
            CookieRefused::Oversized { .. } => &mut self.oversized,
            CookieRefused::Malformed => &mut self.malformed,
            CookieRefused::Foreign => &mut self.foreign,
            CookieRefused::Forged => &mut self.forged,
            CookieRefused::Expired => &mut self.expired,
            CookieRefused::Replayed => &mut self.replayed,
        }
    }
}

/// Returns the clear part of a sealed cookie, for the client that carries it. The client has no
/// proof that it is genuine.
#[must_use]
pub fn clear_part(cookie: &Bytes) -> Option<Bytes> {
    let header: &[u8; HEADER] = cookie.first_chunk()?;
    if header[..2] != [VERSION, 0] {
        return None;
    }
    let length: usize = u16::from_be_bytes([header[2], header[3]]).into();
    (cookie.len() >= HEADER + length).then(|| cookie.slice(HEADER..HEADER + length))
}

fn milliseconds(time: SystemTime) -> u64 {
    let age = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn ring(names: &[u32]) -> KeyRing {
        let line = |name: &u32| format!("{name}:{}\n", format!("{name:02x}").repeat(32));
        KeyRing::parse(&names.iter().map(line).collect::<String>()).unwrap()
    }

    fn seal(pool: &str, names: &[u32]) -> Seal {
        Seal::new(pool.parse().unwrap(), ring(names))
    }

    fn cookie(seal: &Seal) -> Bytes {
        seal.seal(now(), &mut Lineage::new(), b"clear", b"state").unwrap()
    }

    #[test]
    fn an_old_cookie_is_refused_even_if_its_session_was_forgotten() {
        let seal = seal("Pool", &[1]);
        let at = |milliseconds| now() + Duration::from_millis(milliseconds);
        let mut lineage = Lineage::new();
        let old = seal.seal(at(0), &mut lineage, b"", b"old").unwrap();
        let latest = seal.seal(at(1), &mut lineage, b"", b"latest").unwrap();
        seal.open(at(2), &latest).unwrap();
        for _ in 0..MAX_LINEAGES {
            seal.seen().take(&Lineage::new(), milliseconds(at(2))).unwrap();
        }
        assert_eq!(seal.open(at(3), &old), Err(CookieRefused::Replayed));
        assert_eq!(seal.open(at(3), &latest), Err(CookieRefused::Replayed));
        // Sessions that were not forgotten go on, and so do new ones.
        let next = seal.seal(at(3), &mut lineage, b"", b"next").unwrap();
        seal.open(at(3), &next).unwrap();
        let seen = seal.seen();
        assert_eq!((seen.order.len(), seen.taken.len()), (MAX_LINEAGES, MAX_LINEAGES));
    }

    #[test]
    fn a_cookie_comes_back_as_it_was() {
        let one = seal("Pool", &[1]);
        let sealed = cookie(&one);
        assert_eq!(&clear_part(&sealed).unwrap()[..], b"clear");
        assert!(!sealed.windows(5).any(|window| window == b"state"));
        let opened = seal("Pool", &[1]).open(now(), &sealed).unwrap();
        assert_eq!((&opened.state[..], &opened.clear[..]), (&b"state"[..], &b"clear"[..]));
        assert_ne!(sealed, cookie(&one), "no two are alike");
    }

    #[test]
    fn a_cookie_that_is_bound_is_opened_for_its_user_only() {
        let seal = seal("Pool", &[1]);
        let users = [
            None,
            Some(Identity::default()),
            Some(Identity::new(["a"])),
            Some(Identity::new(["b"])),
            Some(Identity::new(["a", "b"])),
            Some(Identity::new(["ab"])),
        ];
        for owner in &users {
            let mut lineage = Lineage::new().bind(owner.as_ref());
            let cookie = seal.seal(now(), &mut lineage, b"clear", b"state").unwrap();
            for user in &users {
                let opened = seal.open_for(user.as_ref(), now(), &cookie);
                if user == owner {
                    // The next cookie of the session is bound, too.
                    let mut lineage = opened.unwrap().lineage;
                    let next = seal.seal(now(), &mut lineage, b"", b"next").unwrap();
                    assert!(seal.open_for(user.as_ref(), now(), &next).is_ok());
                } else {
                    assert_eq!(opened, Err(CookieRefused::Forged), "{owner:?} {user:?}");
                }
            }
        }
    }

    #[test]
    fn keys_are_replaced_without_a_gap() {
        let old = cookie(&seal("Pool", &[1]));
        let server = seal("Pool", &[1, 2]);
        assert!(server.open(now(), &old).is_ok());
        server.set_ring(ring(&[2, 1]));
        let new = cookie(&server);
        assert!(server.open(now(), &old).is_ok());
        server.set_ring(ring(&[2]));
        assert_eq!(server.open(now(), &old), Err(CookieRefused::Foreign));
        assert!(server.open(now(), &new).is_ok());
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let seal = seal("Pool", &[1]);
        let good = cookie(&seal);
        for at in 0..good.len() {
            let mut bad = BytesMut::from(&good[..]);
            bad[at] ^= 0x10;
            assert!(seal.open(now(), &bad.freeze()).is_err(), "byte {at}");
            assert!(seal.open(now(), &good.slice(..at)).is_err(), "{at} bytes");
        }
        assert!(seal.open(now(), &good).is_ok());
    }

    #[test]
    fn each_refusal_says_why_and_is_counted() {
        let server = seal("Pool", &[1]).max_age(Duration::from_secs(100));
        let good = cookie(&server);
        let mut forged = BytesMut::from(&good[..]);
        *forged.last_mut().unwrap() ^= 1;
        let later = now() + Duration::from_secs(101);
        let before = now() - Duration::from_secs(61);
        let long = Bytes::from(vec![1; 70_000]);
        for (at, cookie, refused) in [
            (now(), forged.freeze(), CookieRefused::Forged),
            (now(), cookie(&seal("Other", &[1])), CookieRefused::Foreign),
            (now(), cookie(&seal("Pool", &[2])), CookieRefused::Foreign),
            (later, good.clone(), CookieRefused::Expired),
            (before, good.clone(), CookieRefused::Expired),
            (now(), long, CookieRefused::Oversized { length: 70_000 }),
            (now(), Bytes::from_static(b"<PP-TD1>00000002"), CookieRefused::Malformed),
        ] {
            assert_eq!(server.open(at, &cookie), Err(refused));
        }
        let mut lineage = server.open(now(), &good).unwrap().lineage;
        let next = server.seal(now(), &mut lineage, b"", b"").unwrap();
        assert!(server.open(now(), &next).is_ok());
        assert!(server.open(now(), &next).is_ok(), "the last one may come again");
        assert_eq!(server.open(now(), &good), Err(CookieRefused::Replayed));
        let Refusals { oversized, malformed, foreign, forged, expired, replayed } =
            server.refusals();
        assert_eq!([oversized, malformed, foreign, forged, expired, replayed], [1, 1, 2, 1, 2, 1]);
    }

    #[test]
    fn the_longest_state_fits_and_a_longer_one_is_refused() {
        let seal = seal("Pool", &[1]);
        let lineage = &mut Lineage::new();
        let most = MAX_COOKIE - HEADER - NONCE - TAG - 26 - 4;
        let cookie = seal.seal(now(), lineage, b"", &vec![0; most]).unwrap();
        assert_eq!(cookie.len(), MAX_COOKIE);
        assert!(seal.open(now(), &cookie).is_ok());
        let error = seal.seal(now(), lineage, b"", &vec![0; most + 1]).unwrap_err();
        assert_eq!(error, TooLong { length: MAX_COOKIE + 1 });
    }

    #[test]
    fn key_files_are_read_or_the_line_is_named() {
        let file = format!("# keys\n\n{}{}", KeyRing::new_line(7), KeyRing::new_line(8));
        assert_eq!(format!("{:?}", KeyRing::parse(&file).unwrap()), "[7, 8]");
        let error = |text: &str| KeyRing::parse(text).unwrap_err().to_string();
        assert!(error("# nothing\n").contains("no key"));
        assert!(error("1:abc\n").contains("line 1"));
        let twice = format!("{}{}", KeyRing::new_line(3), KeyRing::new_line(3));
        assert!(error(&twice).contains("have the name 3"));
    }
}
