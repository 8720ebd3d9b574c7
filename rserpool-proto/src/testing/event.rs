//! The events of all kinds of state machines.

use crate::{element, registrar, user};

/// An event of a machine of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Event {
    Registrar(registrar::Event),
    Element(element::Event),
    User(user::Event),
}
