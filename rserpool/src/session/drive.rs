//! Drives a session: passes the events of its connection and its timer to the state machine, and
//! performs the outputs of the state machine.

use std::task::{Context, Poll, ready};

use futures::channel::oneshot;
use futures::future::FutureExt;
use rserpool_proto::access::AccessRole;
use rserpool_proto::session::{Event, Output};
use rserpool_proto::user::ResolveError;
use rserpool_proto::wire::Ppid;
use rserpool_proto::{ConnectionEvent, ConnectionId};

use super::Session;
use crate::session_error::SessionClosed;
use crate::transport;
use crate::user_task::Command;
use crate::verify::has_role;

impl Session {
    /// Handles one event and the resulting outputs of the state machine. Ready when an event was
    /// handled.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let span = self.trace.current();
        ready!(span.in_scope(|| self.step(cx)));
        self.drain();
        Poll::Ready(())
    }

    pub(super) fn drain(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            self.perform(output);
        }
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.commands.is_empty() && self.user.poll_ready(cx).is_ready() {
            if let Some(command) = self.commands.pop_front() {
                // If the pool user has been dropped, the command is dropped with its answer's
                // sender.
                let _ = self.user.start_send(command);
            }
        }
        if let Some(resolution) = &mut self.resolution
            && let Poll::Ready(result) = resolution.poll_unpin(cx)
        {
            self.resolution = None;
            let gone = |_| Err(ResolveError::NoRegistrar(Vec::new()));
            let elements = result.unwrap_or_else(gone).map(|answer| answer.elements);
            self.machine.handle_resolution(self.network.now(), elements);
            return Poll::Ready(());
        }
        if let Some((name, connection)) = &mut self.connection
            && let Poll::Ready(event) = connection.poll_event(cx)
        {
            let name = *name;
            self.handle_event(name, event);
            return Poll::Ready(());
        }
        let deadline = self.machine.poll_timeout();
        ready!(self.timer.poll(cx, self.network.runtime(), deadline));
        self.machine.handle_timeout(self.network.now());
        Poll::Ready(())
    }

    fn handle_event(&mut self, name: ConnectionId, event: transport::Event) {
        let now = self.network.now();
        let event = match event {
            transport::Event::Message(message) => {
                return self.machine.handle_message(now, name, message);
            }
            transport::Event::Established { local, peer } => {
                let Some((_, connection)) = &mut self.connection else { return };
                let (rules, role) = (&self.rules, AccessRole::Element);
                if has_role(now, rules, role, Some(&self.handle), &**connection) {
                    self.max_message_size = connection.max_message_size();
                    let identity = connection.identity();
                    self.set_heartbeat();
                    ConnectionEvent::Established { local, peer, identity }
                } else {
                    ConnectionEvent::Lost
                }
            }
            transport::Event::Path { address, up } => {
                tracing::info!(pool = %self.handle, %address, up, "path changed");
                return;
            }
            transport::Event::Addresses { local, peer } => {
                tracing::info!(pool = %self.handle, %local, %peer, "addresses changed");
                return;
            }
            transport::Event::SendFailed(message) => {
                if message.ppid != Ppid::ASAP {
                    self.events.push_back(Event::NotDelivered(message));
                }
                return;
            }
            transport::Event::Closed => ConnectionEvent::Closed,
            transport::Event::Lost(error) => {
                tracing::debug!(pool = %self.handle, %error, "connection lost");
                ConnectionEvent::Lost
            }
        };
        if !matches!(event, ConnectionEvent::Established { .. }) {
            self.connection = None;
        }
        self.machine.handle_connection(now, name, &event);
    }

    fn set_heartbeat(&mut self) {
        if let (Some(interval), Some((_, connection))) =
            (self.machine.heartbeat(), &mut self.connection)
            && let Err(error) = connection.set_heartbeat(interval)
        {
            tracing::warn!(pool = %self.handle, ?interval, %error, "cannot set the heartbeat interval");
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Resolve(options) => {
                let (answer, wait) = oneshot::channel();
                self.commands.push_back(Command::Resolve(self.handle.clone(), options, answer));
                self.resolution = Some(wait);
            }
            Output::Report(element) => {
                self.commands.push_back(Command::Report(self.handle.clone(), element));
            }
            Output::Connect { connection, to } => {
                // The state machine connects only to elements whose protocol one of these endpoints
                // has.
                let mut endpoints = self.endpoints.iter_mut();
                if let Some((_, endpoint)) = endpoints.find(|(its, _)| *its == to.protocol) {
                    self.connection = Some((connection, endpoint.connect(&to)));
                }
            }
            Output::Send { connection, message } => {
                if let Some((name, open)) = &mut self.connection
                    && *name == connection
                    && let Err(error) = open.send(message)
                {
                    tracing::debug!(%error, "not sent");
                }
            }
            Output::Close { connection, .. } => {
                self.connection.take_if(|(name, _)| *name == connection);
            }
            Output::Event(event) => self.handle_own_event(event),
        }
    }

    fn handle_own_event(&mut self, event: Event) {
        self.trace.note(&event);
        if let Event::Failed(error) = event {
            self.end = Some(error.into());
        } else if event == Event::Closed {
            self.end = Some(SessionClosed::ByPeer);
        } else {
            self.events.push_back(event);
        }
    }
}
