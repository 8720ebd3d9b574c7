//! Echo service.

use rserpool::{ElementEvent, ElementSession};

use super::Broken;

/// Sends each message back unchanged. There is no state to hand over.
pub(crate) async fn serve(mut session: ElementSession) -> Result<(), Broken> {
    loop {
        if let ElementEvent::Message(message) = session.recv().await? {
            session.send(message.ppid, message.payload).await?;
        }
    }
}
