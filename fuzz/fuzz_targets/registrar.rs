//! Fuzzes the state machine of a registrar with arbitrary ASAP and ENRP messages and events: it
//! must not panic.
#![no_main]

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use rserpool::proto::Registrar;
use rserpool::proto::registrar::{Limits, RegistrarConfig};
use rserpool::proto::wire::RegistrarId;
use rserpool_fuzz::{Player, address};

fuzz_target!(|data: &[u8]| {
    let _ = play(&mut Unstructured::new(data));
});

fn play(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let mut config = RegistrarConfig::default().identifier(RegistrarId(1));
    if u.arbitrary()? {
        config = config
            .limits(Limits::default().elements_per_host(2).elements(3).connections_per_host(2));
    }
    if u.arbitrary()? {
        config = config.enrp(address(u)?);
        if u.arbitrary()? {
            config = config.peers([address(u)?]);
        }
    }
    let mut player = Player::new(Registrar::new(config, 1));
    while !u.is_empty() {
        if u.ratio(1, 200)? {
            player.machine.leave(player.now);
            player.drain();
        }
        player.step(u)?;
    }
    Ok(())
}
