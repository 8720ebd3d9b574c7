//! Daytime service.

use rserpool::{ElementSession, Ppid};

use super::Broken;

/// Sends the local time, in the format of rsplib's service, and closes the session.
pub(crate) async fn serve(mut session: ElementSession) -> Result<(), Broken> {
    let now = chrono::Local::now().format("%A, %d-%B-%Y %H:%M:%S%.6f\n");
    session.send(Ppid::NONE, now.to_string()).await?;
    session.close().await;
    Ok(())
}
