//! Commands that need little code.

pub(crate) mod certs;
pub(crate) mod dump;
pub(crate) mod keys;
pub(crate) mod manual;
pub(crate) mod ping;
pub(crate) mod registrar;
pub(crate) mod resolve;
pub(crate) mod terminal;
pub(crate) mod watch;
