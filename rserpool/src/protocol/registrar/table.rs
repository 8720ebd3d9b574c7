//! Handing out the handlespace, page by page (RFC 5353 section 3.2.3).

use std::time::{Duration, Instant};

use super::{Registrar, Timer};
use crate::handlespace::ElementKey;
use crate::protocol::ConnectionId;
use crate::wire::enrp::{HandleTableRequest, HandleTableResponse, PoolEntry};
use crate::wire::{PoolHandle, RegistrarId};

/// The most elements of a page, which is rsplib's, and about how many bytes they take at most.
const MAX_ELEMENTS: usize = 128;
const MAX_SIZE: usize = 8 * 1024;

/// How long the next page may not be asked for until the download is given up; ours.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// How far a download is.
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
        if !self.is_ready() {
            let route = self.route(request.route.sender);
            let response =
                HandleTableResponse { more_to_send: false, reject: true, route, pools: Vec::new() };
            self.out.send_enrp(from, response).expect("it is short");
            return;
        }
        let Some(link) = self.peers.link_mut(from) else { return };
        let begun = link.page.take().filter(|page| page.own_children_only == own_children_only);
        let (pools, more) = self.page(own_children_only, begun.map(|page| page.last));
        if let (Some(last), Some(link)) = (more, self.peers.link_mut(from)) {
            link.page = Some(Page { own_children_only, last });
            self.timers.set(Timer::Page(from), now + PAGE_TIMEOUT);
        } else {
            self.timers.cancel(Timer::Page(from));
        }
        let response = HandleTableResponse {
            more_to_send: more.is_some(),
            reject: false,
            route: self.route(request.route.sender),
            pools,
        };
        self.out.send_enrp(from, response).expect("a page is chosen to fit");
    }

    /// The elements after `last`, as many as a page takes, and the last of them if there are
    /// more.
    fn page(
        &self,
        own_children_only: bool,
        last: Option<ElementKey>,
    ) -> (Vec<PoolEntry>, Option<ElementKey>) {
        let home: RegistrarId = self.config.identifier;
        let (mut all, mut own);
        let keys: &mut dyn Iterator<Item = ElementKey> = if own_children_only {
            own = self.handlespace.owned_by(home, last);
            &mut own
        } else {
            all = self.handlespace.all(last);
            &mut all
        };
        let mut pools: Vec<PoolEntry> = Vec::new();
        let (mut count, mut size, mut sent) = (0, 0, last);
        for key in keys {
            let (Some(element), Some(pool_handle)) =
                (self.handlespace.get(key), self.handlespace.handle_of(key))
            else {
                continue;
            };
            let length =
                element.encoded().as_bytes().len() + PoolHandle::as_bytes(pool_handle).len() + 8;
            if count == MAX_ELEMENTS || count > 0 && size + length > MAX_SIZE {
                return (pools, sent);
            }
            (count, size, sent) = (count + 1, size + length, Some(key));
            let value = element.value();
            match pools.iter_mut().find(|pool| pool.pool_handle == *pool_handle) {
                Some(pool) => pool.elements.push(value),
                None => pools
                    .push(PoolEntry { pool_handle: pool_handle.clone(), elements: vec![value] }),
            }
        }
        (pools, None)
    }

    /// The next page was not asked for in time.
    pub(super) fn handle_page_timeout(&mut self, connection: ConnectionId) {
        if let Some(link) = self.peers.link_mut(connection) {
            link.page = None;
        }
    }
}
