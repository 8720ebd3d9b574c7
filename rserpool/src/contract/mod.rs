//! The contract suite: tests of what every runtime and every transport must do, written once and
//! run by each of them. See [`contract_suite!`](crate::contract_suite).

#![allow(clippy::wildcard_enum_match_arm, reason = "a test says what it expects, all else fails")]

mod cancellation;
mod elements;
mod halves;
mod hostile;
#[cfg(target_os = "linux")]
mod paths;
mod policies;
mod replay;
mod requests;
mod runtime;
#[cfg(all(target_os = "linux", feature = "sctp"))]
mod sctp_auth;
mod service;
#[cfg(feature = "tls")]
mod tls;
mod transport;
mod transports;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rserpool_proto::wire::TransportAddress;

use crate::Network;

pub use cancellation::*;
pub use elements::*;
pub use halves::*;
pub use hostile::*;
#[cfg(target_os = "linux")]
pub use paths::*;
pub use policies::*;
pub use replay::*;
pub use requests::*;
pub use runtime::*;
#[cfg(all(target_os = "linux", feature = "sctp"))]
pub use sctp_auth::*;
pub use service::*;
#[cfg(feature = "tls")]
pub use tls::*;
pub use transport::*;
pub use transports::*;

/// Generates a test of every case, for each combination of a runtime and a transport.
///
/// Attributes for the tests may come first, in brackets. `$block_on` runs a future to completion;
/// `$network` makes the [`Network`] in the context of `$block_on`. `paths:` in front generates the
/// cases that only transports with several paths can pass, `tls:` those for TLS over a transport that
/// keeps message boundaries, and `sctp_auth:` those for SCTP with keys.
#[macro_export]
macro_rules! contract_suite {
    ([$($attribute:tt)*] $block_on:expr, $network:expr) => {
        $crate::contract_suite! {
            cases: [$($attribute)*] $block_on, $network,
            timers_fire_in_time_and_can_be_reset,
            tasks_run_and_wake_each_other,
            messages_keep_order_boundaries_and_identifiers,
            nobody_there_is_lost_at_once,
            an_end_in_good_order_is_told_from_a_broken_connection,
            last_words_and_the_end_both_arrive,
            a_peer_that_does_not_read_holds_the_sender_up_and_nothing_is_lost,
            an_address_in_use_is_an_error,
            a_session_reaches_an_element,
            a_session_outlives_its_element,
            a_session_goes_over_the_transport_of_its_pool,
            a_registrar_offers_several_transports,
            a_program_may_be_an_element_and_a_user,
            open_sessions_go_on_when_their_element_has_left,
            data_are_not_sent_as_control,
            what_is_unknown_on_a_control_channel_is_answered,
            many_sessions_at_a_time,
            one_who_talks_without_end_does_not_keep_others_waiting,
            an_element_that_leaves_is_not_resolved_any_more,
            the_state_of_an_element_is_observed,
            a_subscriber_sees_the_pool_change,
            weights_hold_however_a_pool_is_used,
            messages_reach_a_pool_without_a_session,
            a_message_to_all_tells_whom_it_did_not_reach,
            elements_are_chosen_and_named_and_answers_forgotten,
            halves_of_a_session_work_in_two_tasks,
            what_has_no_room_is_returned_and_a_sink_closes,
            a_registrar_restart_is_survived,
            futures_that_are_dropped_lose_nothing,
            no_registrar_and_no_pool_are_errors_that_say_so,
            what_ends_other_registrars_is_answered,
            requests_are_answered_once_whoever_dies,
            a_request_that_is_given_up_does_not_confuse_the_next,
            a_server_that_stops_hands_its_sessions_over,
            a_foreign_checkpoint_is_refused,
            a_server_with_other_keys_is_passed_over,
            a_request_that_is_too_long_is_refused_alone,
            clones_of_a_client_share_its_session,
            a_request_that_panics_or_crashes_servers_fails_alone,
            a_request_that_takes_too_long_is_moved_or_given_up,
            replies_of_any_length_fit_or_fail_alone,
            many_more_replies_than_fit_a_checkpoint_are_on_their_way,
            a_session_is_resumed_from_its_checkpoint,
            a_server_that_hangs_is_left_and_one_that_is_busy_is_not,
            futures_may_be_dropped_wherever_they_wait,
            an_opening_that_is_given_up_leaves_no_session,
            messages_without_a_session_are_not_sent_by_futures_that_are_dropped,
            requests_and_reports_may_be_dropped_wherever_they_wait,
            an_end_that_is_given_up_is_an_end,
        }
    };
    (paths: [$($attribute:tt)*] $block_on:expr, $network:expr) => {
        $crate::contract_suite! {
            cases: [$($attribute)*] $block_on, $network,
            all_addresses_of_both_ends_are_known,
            data_go_where_they_are_wanted,
            the_way_to_the_peer_and_back_is_measured,
            the_peer_is_asked_as_often_as_one_wants,
            addresses_come_and_go_while_the_connection_lives,
            streams_and_order_are_kept_or_left,
            sessions_choose_streams_and_order,
            what_is_too_old_is_given_up_and_told,
            sessions_tell_what_was_not_delivered,
            messengers_tell_what_was_not_delivered,
            what_was_cut_off_is_no_message,
        }
    };
    (sctp_auth: [$($attribute:tt)*] $block_on:expr, $network:expr) => {
        $crate::contract_suite! {
            cases: [$($attribute)*] $block_on, $network,
            who_has_the_key_is_known,
            who_has_no_key_is_not_heard,
            a_server_without_the_key_is_refused,
            large_messages_are_authenticated,
        }
    };
    (tls: [$($attribute:tt)*] $block_on:expr, $network:expr) => {
        $crate::contract_suite! {
            cases: [$($attribute)*] $block_on, $network,
            both_ends_are_identified,
            messages_keep_order_boundaries_and_identifiers,
            nobody_there_is_lost_at_once,
            an_end_in_good_order_is_told_from_a_broken_connection,
            last_words_and_the_end_both_arrive,
            a_peer_that_does_not_read_holds_the_sender_up_and_nothing_is_lost,
            a_session_outlives_its_element,
            many_sessions_at_a_time,
            requests_are_answered_once_whoever_dies,
            a_registrar_restart_is_survived,
        }
    };
    (cases: $attributes:tt $block_on:expr, $network:expr, $($case:ident,)*) => {
        $(
            $crate::contract_suite!(case: $attributes $case, $block_on, $network);
        )*
    };
    (case: [$($attribute:tt)*] $case:ident, $block_on:expr, $network:expr) => {
        #[test]
        $($attribute)*
        fn $case() {
            $block_on(async { $crate::contract::$case($network).await });
        }
    };
    ($block_on:expr, $network:expr) => {
        $crate::contract_suite!([] $block_on, $network);
    };
}

/// Returns an address of this host with any free port.
fn any_address(network: &Network) -> TransportAddress {
    TransportAddress::new(network.protocol(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

/// Waits for a time on the runtime's clock.
async fn pause(network: &Network, milliseconds: u64) {
    network.sleep(Duration::from_millis(milliseconds)).await;
}
