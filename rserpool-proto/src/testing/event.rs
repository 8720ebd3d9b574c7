//! What state machines tell, whichever they are.

use crate::{element, registrar, user};

/// What a machine told its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Event {
    Registrar(registrar::Event),
    Element(element::Event),
    User(user::Event),
}
