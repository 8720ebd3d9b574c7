//! Sending the handlespace to peers, page by page (RFC 5353 section 3.2.3).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::shares::Limit;
use super::{Registrar, Timer};
use crate::ConnectionId;
use crate::handlespace::ElementKey;
use crate::wire::Ppid;
use crate::wire::enrp::{HandleTableRequest, HandleTableResponse};

/// The maximum number of elements in a page (one message with a part of the handlespace; rsplib's
/// value), and the size in bytes from which no further element is added.
const MAX_ELEMENTS: usize = 128;
const MAX_SIZE: usize = 8 * 1024;

/// The time within which a peer has to ask for the next page, or its download is abandoned.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// The number of downloads by a peer within [`RESTLESS_TIME`] that is reported as misbehaviour. Not
/// from the RFCs: audits (comparisons of checksums) should find differences only now and then.
const RESTLESS: u32 = 8;
const RESTLESS_TIME: Duration = Duration::from_secs(30);

/// Position of a peer's download of the handlespace from this registrar.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    own_children_only: bool,
    /// The last element that was sent.
    last: ElementKey,
}

impl Registrar {
    pub(super) fn handle_handle_table_request(
        &mut self,
        now: Instant,
        from: ConnectionId,
        request: &HandleTableRequest,
    ) {
        let own_children_only = request.own_children_only;
        let Some(host) = self.peers.host_of_link(from) else { return };
        if !self.knows_others() || !self.allows(now, host, Limit::Pages) {
            let route = self.route(request.route.sender);
            let response =
                HandleTableResponse { more_to_send: false, reject: true, route, pools: Vec::new() };
            return self.out.send_enrp(from, response);
        }
        let Some(link) = self.peers.link_mut(from) else { return };
        let begun = link.page.take().filter(|page| page.own_children_only == own_children_only);
        let last = begun.map(|page| page.last);
        if last.is_none() {
            let (since, count) = link.downloads;
            let counts = now < since + RESTLESS_TIME;
            link.downloads = if counts { (since, count + 1) } else { (now, 1) };
            if link.downloads.1 == RESTLESS {
                let reason = "asks for the handle table again and again: what it hears of elements \
                              does not stay with it. Registrars of rsplib want --compatibility rsplib";
                self.report_link(from, reason.to_owned());
            }
        }
        let (keys, more) = match own_children_only {
            true => one_page(self, host, self.handlespace.owned_by(self.config.identifier, last)),
            false => one_page(self, host, self.handlespace.all(last)),
        };
        let next = keys.last().copied().filter(|_| more);
        let entries = keys.iter().filter_map(|key| {
            Some((self.handlespace.handle_of(*key)?, self.handlespace.get(*key)?.encoded()))
        });
        let route = self.route(request.route.sender);
        let response = HandleTableResponse::encode_page(route, more, entries.collect());
        self.out.send_encoded(from, Ppid::ENRP, response);
        if let (Some(last), Some(link)) = (next, self.peers.link_mut(from)) {
            link.page = Some(Page { own_children_only, last });
            self.timers.set(Timer::Page(from), now + PAGE_TIMEOUT);
        } else {
            self.timers.cancel(Timer::Page(from));
        }
    }

    /// Abandons the download of a peer that did not ask for the next page in time.
    pub(super) fn handle_page_timeout(&mut self, connection: ConnectionId) {
        if let Some(link) = self.peers.link_mut(connection) {
            link.page = None;
        }
    }
}

/// Returns the next elements whose addresses are valid for `host`, as many as fit into a page, and
/// whether there are more.
fn one_page(
    registrar: &Registrar,
    host: IpAddr,
    keys: impl Iterator<Item = ElementKey>,
) -> (Vec<ElementKey>, bool) {
    let (mut page, mut size) = (Vec::new(), 0);
    for key in keys.filter(|key| registrar.may_tell(*key, Some(host))) {
        if page.len() == MAX_ELEMENTS || size >= MAX_SIZE {
            return (page, true);
        }
        let handle = registrar.handlespace.handle_of(key).map_or(0, |its| its.as_bytes().len() + 8);
        let element = registrar.handlespace.get(key).map_or(0, |e| e.encoded().as_bytes().len());
        size += handle + element;
        page.push(key);
    }
    (page, false)
}
