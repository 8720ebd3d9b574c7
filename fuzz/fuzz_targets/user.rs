//! Fuzzes the state machine of a pool user with arbitrary messages and events: it must not panic,
//! and has to answer each request once.
#![no_main]

use std::time::Duration;

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use rserpool::proto::user::{ResolveOptions, UserConfig};
use rserpool::proto::wire::PoolElementId;
use rserpool::proto::{HuntConfig, User};
use rserpool_fuzz::{Player, address, handle};

fuzz_target!(|data: &[u8]| {
    let _ = play(&mut Unstructured::new(data));
});

fn play(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let hunt = HuntConfig::new([address(u)?, address(u)?]).listen_for_announcements();
    let config = UserConfig::new(hunt).cache_capacity(u.int_in_range(0..=2)?);
    let mut player = Player::new(User::new(config, 1));
    while !u.is_empty() {
        match u.int_in_range(0..=20)? {
            0..=2 => {
                let max_age = Duration::from_secs(u.int_in_range(0..=9)?);
                let options = ResolveOptions::default().items(u.arbitrary()?).max_age(max_age);
                player.machine.resolve(player.now, handle(u)?, &options);
            }
            3 => {
                let _ = player.machine.subscribe(player.now, handle(u)?);
            }
            4 => player.machine.unsubscribe(&handle(u)?),
            5 => {
                let element = PoolElementId(u.int_in_range(0..=5)?);
                player.machine.report_unreachable(player.now, handle(u)?, element);
            }
            _ => player.step(u)?,
        }
        player.drain();
    }
    Ok(())
}
