//! The operations that are measured.

use std::fmt;
use std::hint::black_box;

use rand::seq::index;

use super::space::{Request, Space};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Reregister,
    Resolve(usize),
    Register,
    Deregister,
}

pub const OPERATIONS: [Operation; 6] = [
    Operation::Reregister,
    Operation::Resolve(1),
    Operation::Resolve(3),
    Operation::Resolve(10),
    Operation::Register,
    Operation::Deregister,
];

pub const POLICIES: [&str; 6] = [
    "RoundRobin",
    "WeightedRoundRobin",
    "Random",
    "WeightedRandom",
    "LeastUsed",
    "LeastUsedDegradation",
];

/// The distribution of elements over pools.
#[derive(Debug, Clone, Copy)]
pub enum Layout {
    OnePool,
    Tens,
}

pub const LAYOUTS: [Layout; 2] = [Layout::OnePool, Layout::Tens];

/// The number of operations in a batch.
pub const BATCH: usize = 1000;

impl Layout {
    /// Returns the number of pools for so many elements.
    pub fn pools(self, elements: usize) -> usize {
        match self {
            Self::OnePool => 1,
            Self::Tens => elements / 10,
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::OnePool => "one pool",
            Self::Tens => "N/10 pools",
        })
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reregister => f.write_str("re-register with its timer"),
            Self::Resolve(items) => write!(f, "resolve {items}"),
            Self::Register => f.write_str("register"),
            Self::Deregister => f.write_str("deregister"),
        }
    }
}

impl Operation {
    /// A batch of requests for elements or pools at random.
    pub fn requests(self, space: &mut Space) -> Vec<Request> {
        match self {
            Self::Deregister => {
                let count = space.members.len();
                let chosen = index::sample(&mut space.rng, count, BATCH.min(count));
                chosen.iter().map(|at| space.members[at].into()).collect()
            }
            Self::Register => (0..BATCH).map(|_| space.fresh().into()).collect(),
            Self::Reregister | Self::Resolve(_) => {
                (0..BATCH).map(|_| space.pick().into()).collect()
            }
        }
    }

    #[inline(never)]
    pub fn run(self, space: &mut Space, requests: &[Request]) {
        match self {
            Self::Reregister => requests.iter().for_each(|request| space.reregister(request)),
            Self::Resolve(items) => {
                for request in requests {
                    black_box(space.resolve(request, items));
                }
            }
            Self::Register => requests.iter().for_each(|request| space.register(request)),
            Self::Deregister => requests.iter().for_each(|request| space.deregister(request)),
        }
    }

    /// Reverts the operation: elements that joined leave, and elements that left join.
    pub fn undo(self, space: &mut Space, requests: &[Request]) {
        match self {
            Self::Register => Self::Deregister.run(space, requests),
            Self::Deregister => Self::Register.run(space, requests),
            Self::Reregister | Self::Resolve(_) => {}
        }
    }
}
