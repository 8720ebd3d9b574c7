//! The spans of a session: `session`, and within it a `failover` for each.

use rserpool_proto::session::Event;
use rserpool_proto::wire::PoolHandle;
use tracing::Span;
use tracing::field::{Empty, display};

/// The spans that are open.
pub(super) struct Trace {
    session: Span,
    failover: Span,
}

impl Trace {
    pub(super) fn new(pool: &PoolHandle) -> Self {
        let session = tracing::info_span!("session", %pool, element = Empty);
        Self { session, failover: Span::none() }
    }

    /// Returns the span of what happens now.
    pub(super) fn current(&self) -> Span {
        if self.failover.is_none() { self.session.clone() } else { self.failover.clone() }
    }

    /// Begins and ends spans, and logs what happened to the session.
    pub(super) fn note(&mut self, event: &Event) {
        if let Event::Connected(element) = event {
            self.session.record("element", display(element));
            self.session.in_scope(|| tracing::debug!(%element, "connected"));
        } else if let Event::FailoverStarted { from } = event {
            self.failover =
                tracing::info_span!(parent: &self.session, "failover", %from, to = Empty);
            self.current().in_scope(|| tracing::info!(%from, "failover started"));
        } else if let Event::FailoverCompleted { from, to } = event {
            self.session.record("element", display(to));
            self.failover.record("to", display(to));
            self.current().in_scope(|| tracing::info!(%from, %to, "failover completed"));
            self.failover = Span::none();
        } else if let Event::Failed(error) = event {
            self.current().in_scope(|| tracing::info!(%error, "session failed"));
            self.failover = Span::none();
        }
    }
}
