//! Exit statuses, by which scripts tell the reasons of a failure.

use rserpool::{DumpError, JoinError, ResolveError, SessionError};

/// Description of the exit statuses for the help.
pub(crate) const HELP: &str = "\
Exit status: 0 success; 1 another failure; 2 wrong arguments or settings; 3 no such pool or element; 4 no
registrar, or no server of the pool, can be reached; 5 a registrar refused";

/// The arguments or settings are wrong.
pub(crate) const USAGE: u8 = 2;

const FAILURE: u8 = 1;
const NO_POOL: u8 = 3;
const UNREACHABLE: u8 = 4;
const REFUSED: u8 = 5;

/// An error of the library, with what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Explained {
    text: String,
    status: u8,
}

/// Adds advice to an error. The exit status is still that of the error.
pub(crate) fn explain(
    error: impl std::error::Error + Send + Sync + 'static,
    advice: &str,
) -> anyhow::Error {
    let text = format!("{error}: {advice}");
    Explained { text, status: of(&error.into()) }.into()
}

/// Marks an error as one of the arguments or settings.
pub(crate) fn wrong(error: anyhow::Error) -> anyhow::Error {
    Explained { text: format!("{error:#}"), status: USAGE }.into()
}

/// Creates an error with the exit status for a registrar that cannot be reached.
pub(crate) fn unreachable(text: String) -> anyhow::Error {
    Explained { text, status: UNREACHABLE }.into()
}

/// Creates an error with the exit status for a pool or element that does not exist.
pub(crate) fn no_pool(text: String) -> anyhow::Error {
    Explained { text, status: NO_POOL }.into()
}

/// Creates an error with the exit status for what a registrar refused.
pub(crate) fn refused(text: String) -> anyhow::Error {
    Explained { text, status: REFUSED }.into()
}

/// Returns the exit status for an error.
pub(crate) fn of(error: &anyhow::Error) -> u8 {
    error.chain().find_map(of_one).unwrap_or(FAILURE)
}

fn of_one(error: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(explained) = error.downcast_ref::<Explained>() {
        return Some(explained.status);
    }
    if let Some(error) = error.downcast_ref::<SessionError>() {
        return match error {
            SessionError::Resolve(error) => of_one(error),
            SessionError::NoElement | SessionError::NotReached(_) => Some(UNREACHABLE),
            _ => None,
        };
    }
    let status = match error.downcast_ref::<ResolveError>() {
        Some(ResolveError::UnknownPool(_)) => NO_POOL,
        Some(ResolveError::NoRegistrar(_)) => UNREACHABLE,
        Some(ResolveError::Refused(_)) => REFUSED,
        _ => match (error.downcast_ref::<JoinError>(), error.downcast_ref::<DumpError>()) {
            (Some(JoinError::Rejected(_)), _) | (_, Some(DumpError::Rejected(_))) => REFUSED,
            (
                _,
                Some(DumpError::Unreachable(..) | DumpError::Timeout(_) | DumpError::Malformed(..)),
            ) => UNREACHABLE,
            _ => return None,
        },
    };
    Some(status)
}
