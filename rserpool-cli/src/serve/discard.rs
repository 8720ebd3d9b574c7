//! Discard.

use rserpool::ElementSession;

use super::Broken;

/// Takes each message, and does nothing with it.
pub(crate) async fn serve(mut session: ElementSession) -> Result<(), Broken> {
    while session.recv().await?.is_some() {}
    Ok(())
}
