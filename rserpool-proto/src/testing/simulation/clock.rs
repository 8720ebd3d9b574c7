//! Clocks of different speeds.

use std::time::{Duration, Instant};

/// The speed of an exact clock, in parts of a million.
const MILLION: u128 = 1_000_000;

/// The clock of a process. It has its own starting point, and runs slightly too fast or too slowly.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    base: Instant,
    started: Duration,
    /// Its speed, in parts of a million: 1,010,000 is one percent too fast.
    speed: u128,
}

impl Clock {
    /// Creates a clock that starts at the true time `started`.
    pub(super) fn new(base: Instant, started: Duration, speed: u32) -> Self {
        Self { base, started, speed: u128::from(speed) }
    }

    /// Returns the clock's reading at the true time `time`.
    pub(super) fn at(&self, time: Duration) -> Instant {
        let passed = (time - self.started).as_nanos();
        self.base + nanoseconds(passed * self.speed / MILLION)
    }

    /// Returns the first true time at which the clock shows `instant` or more.
    pub(super) fn when(&self, instant: Instant) -> Duration {
        let passed = instant.saturating_duration_since(self.base).as_nanos();
        self.started + nanoseconds((passed * MILLION).div_ceil(self.speed))
    }
}

fn nanoseconds(count: u128) -> Duration {
    Duration::from_nanos(u64::try_from(count).expect("less than 500 years"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn a_timer_is_never_called_too_early() {
        let base = Instant::now();
        for speed in [950_000, 999_999, 1_000_000, 1_000_001, 1_049_999] {
            let clock = Clock::new(base, Duration::from_secs(7), speed);
            for nanos in (0..10_000_000_000_u64).step_by(123_456_789) {
                let instant = base + Duration::from_nanos(nanos);
                assert!(clock.at(clock.when(instant)) >= instant, "{speed} {nanos}");
                let before = clock.when(instant).saturating_sub(Duration::from_nanos(2));
                assert!(before < Duration::from_secs(7) || clock.at(before) <= instant);
            }
        }
    }
}
