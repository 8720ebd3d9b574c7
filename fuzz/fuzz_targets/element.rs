//! Fuzzes the state machine of a pool element with arbitrary messages and events: it must not
//! panic.
#![no_main]

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use rserpool::proto::element::ElementConfig;
use rserpool::proto::wire::PoolElementId;
use rserpool::proto::{Element, HuntConfig};
use rserpool_fuzz::{Player, address, handle};

fuzz_target!(|data: &[u8]| {
    let _ = play(&mut Unstructured::new(data));
});

fn play(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let hunt = HuntConfig::new([address(u)?, address(u)?]).listen_for_announcements();
    let (pool, service) = (handle(u)?, address(u)?);
    let mut config = ElementConfig::new(pool, service, hunt).asap_transport(address(u)?);
    if u.arbitrary()? {
        config = config.identifier(PoolElementId(1));
    }
    let mut player = Player::new(Element::new(config, 1));
    while !u.is_empty() {
        match u.int_in_range(0..=40)? {
            0 => player.machine.deregister(player.now),
            1 => player.machine.set_load(player.now, u.arbitrary()?),
            2 => {
                let load = format!("LeastUsed:{}", u.arbitrary::<u8>()?);
                player.machine.set_policy(player.now, load.parse().expect("a policy"));
            }
            _ => player.step(u)?,
        }
        player.drain();
    }
    Ok(())
}
