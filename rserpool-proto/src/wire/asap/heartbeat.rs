//! The heartbeat of sessions, which is not from the RFCs.

use super::{DecodeError, FLAG, Format, Reader, Writer, placeholder};

/// ASAP_SESSION_HEARTBEAT: asks whether the program at the other end of a session responds, or
/// answers such a request.
///
/// RFC 5354 section 4 leaves the message type 0x3d unassigned. The type's high bits tell other
/// implementations to skip the message without a report.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct SessionHeartbeat {
    /// True for an answer, false for a request.
    pub reply: bool,
}

placeholder!(SessionHeartbeat { reply });

impl Format for SessionHeartbeat {
    const TYPE: u8 = 0x3d;
    const NAME: &'static str = "ASAP_SESSION_HEARTBEAT";
    const FLAGS: u8 = FLAG;

    fn flags(&self) -> u8 {
        u8::from(self.reply)
    }

    fn decode(&mut self, flags: u8, _: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.reply = flags & FLAG != 0;
        Ok(())
    }

    fn encode(&self, _: &mut Writer<'_>) {}
}
