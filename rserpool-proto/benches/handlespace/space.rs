//! A handlespace full of elements.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rserpool_proto::handlespace::{ElementKey, Handlespace};
use rserpool_proto::policy::{Policies, RandomSource, Wanted};
use rserpool_proto::wire::{
    PolicyParameters, PoolElement, PoolElementId, PoolHandle, RegistrarId, RegistrationLife,
    TransportAddress,
};

pub const LIFETIME: Duration = Duration::from_secs(100);

/// The fields in which elements differ. All other fields are equal, and are those of a message that
/// was just decoded.
#[derive(Clone, Copy)]
pub struct Name {
    pool: u32,
    identifier: PoolElementId,
    words: [u32; 2],
}

/// A request for an element, with the pool handle as a message would carry it.
pub struct Request {
    handle: PoolHandle,
    name: Name,
}

impl From<Name> for Request {
    fn from(name: Name) -> Self {
        let (mut text, mut rest) = (*b"Pool-00000000", name.pool);
        for digit in text.iter_mut().rev().take(8) {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
        Self { handle: PoolHandle::new(text).unwrap(), name }
    }
}

pub struct Space {
    pub space: Handlespace<()>,
    /// The elements in the handlespace.
    pub members: Vec<Name>,
    pub rng: StdRng,
    source: RandomSource,
    pub now: Instant,
    policy: &'static str,
    pools: usize,
    value: PoolElement,
    identifiers: u32,
}

impl Space {
    pub fn new(policy: &'static str, size: usize, pools: usize) -> Self {
        let mut space = Self {
            space: Handlespace::new(Policies::default(), usize::MAX),
            members: Vec::with_capacity(size),
            rng: StdRng::seed_from_u64(1),
            source: RandomSource::from_seed(1),
            now: Instant::now(),
            policy,
            pools,
            value: value(policy),
            identifiers: 0,
        };
        for number in 0..size {
            let name = Name { pool: (number % pools) as u32, ..space.fresh() };
            space.register(&name.into());
            space.members.push(name);
        }
        space
    }

    /// Returns a new identifier. Identifiers are scattered over their range, and none is returned
    /// twice.
    fn new_identifier(&mut self) -> PoolElementId {
        self.identifiers = self.identifiers.wrapping_add(1);
        PoolElementId(self.identifiers.wrapping_mul(0x9e37_79b1))
    }

    /// Returns policy parameters for an element, random for each call.
    fn words(&mut self) -> [u32; 2] {
        match self.policy {
            "LeastUsed" | "LeastUsedDegradation" => [self.rng.random(), 1 << 20],
            _ => [self.rng.random_range(1..=1000), 0],
        }
    }

    /// A new element for any pool.
    pub fn fresh(&mut self) -> Name {
        let pool = self.rng.random_range(0..self.pools) as u32;
        Name { pool, identifier: self.new_identifier(), words: self.words() }
    }

    /// Returns a random element of the handlespace, with another load if its policy has one.
    pub fn pick(&mut self) -> Name {
        let name = self.members[self.rng.random_range(0..self.members.len())];
        let words = if self.policy.starts_with("LeastUsed") { self.words() } else { name.words };
        Name { words, ..name }
    }

    fn say(&mut self, name: &Name) {
        self.value.identifier = name.identifier;
        let count = self.value.policy.words().len();
        if count > 0 {
            let policy_type = self.value.policy.policy_type();
            self.value.policy = PolicyParameters::new(policy_type, &name.words[..count]);
        }
    }

    pub fn register(&mut self, request: &Request) {
        self.say(&request.name);
        let key = self.space.insert(&request.handle, &self.value, ()).unwrap();
        self.space.set_lifetime(key, self.now, Some(LIFETIME));
    }

    pub fn reregister(&mut self, request: &Request) {
        self.say(&request.name);
        let key = self.find(request);
        self.space.update(key, &self.value).unwrap();
        self.now += Duration::from_micros(1);
        self.space.set_lifetime(key, self.now, Some(LIFETIME));
    }

    pub fn deregister(&mut self, request: &Request) {
        let key = self.find(request);
        self.space.remove(key).unwrap();
    }

    fn find(&self, request: &Request) -> ElementKey {
        self.space.find(&request.handle, request.name.identifier).unwrap()
    }

    /// Selects elements of a pool, and reads a field of each selected one.
    pub fn resolve(&mut self, request: &Request, items: usize) -> u32 {
        let selection = self.space.select(&request.handle, Wanted::items(items), &mut self.source);
        let selection = selection.unwrap();
        selection.elements().fold(0, |sum, (_, element)| sum ^ element.identifier().0)
    }

    /// Returns another handlespace of this size, whose elements have all renewed their
    /// registrations.
    pub fn another(&self) -> Self {
        let mut other = Self::new(self.policy, self.members.len(), self.pools);
        for name in other.members.clone() {
            other.reregister(&name.into());
        }
        other
    }
}

fn value(policy: &str) -> PoolElement {
    PoolElement {
        identifier: PoolElementId(0),
        home_registrar: RegistrarId(1),
        registration_life: RegistrationLife(90),
        user_transport: TransportAddress::sctp(([10, 0, 0, 1], 4711).into()).into(),
        policy: policy.parse().unwrap(),
        asap_transport: Some(TransportAddress::sctp(([10, 0, 0, 1], 4712).into())),
    }
}
