//! The result of a selection.

use slab::Slab;

use super::pool::Pool;
use super::{Element, ElementKey};
use crate::policy::Member;
use crate::wire::PolicyType;

/// Elements of a pool that its policy selected.
#[derive(Debug)]
pub struct Selection<'s, T> {
    pub(super) pool: &'s Pool,
    pub(super) elements: &'s Slab<Element<T>>,
    pub(super) selected: &'s [Member],
    pub(super) offered: usize,
}

impl<'s, T> Selection<'s, T> {
    /// Returns the policy of the pool.
    #[must_use]
    pub fn policy_type(&self) -> PolicyType {
        self.pool.kind().policy_type()
    }

    /// Returns the number of elements among which was selected.
    #[must_use]
    pub fn offered(&self) -> usize {
        self.offered
    }

    /// Returns the selected elements, in the order in which to try them.
    pub fn elements(
        &self,
    ) -> impl ExactSizeIterator<Item = (ElementKey, &'s Element<T>)> + use<'_, 's, T> {
        self.selected.iter().map(|member| {
            let key = self.pool.key(*member);
            (key, &self.elements[key.index()])
        })
    }
}
