//! Discard service.

use rserpool::ElementSession;

use super::Broken;

/// Receives messages and ignores them.
pub(crate) async fn serve(mut session: ElementSession) -> Result<(), Broken> {
    loop {
        session.recv().await?;
    }
}
