//! Options for the registrar's timers.

use std::time::Duration;

use clap::Args;
use rserpool::RegistrarConfig;

use crate::options::seconds;

/// Parses an interval in seconds, which must not be zero.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = seconds(text)?;
    if interval < Duration::from_millis(10) {
        return Err("an interval has at least 0.01 seconds".to_owned());
    }
    Ok(interval)
}

/// Timers, in seconds. Slow networks need longer ones.
#[derive(Debug, Args)]
#[command(next_help_heading = "Timers")]
pub(super) struct TimerOptions {
    /// Interval between keep-alives to an element
    #[arg(long, value_name = "SECONDS", value_parser = interval, default_value = "5")]
    keep_alive_interval: Duration,
    /// Time that an element may take to answer a keep-alive
    #[arg(long, value_name = "SECONDS", value_parser = interval, default_value = "5")]
    keep_alive_timeout: Duration,
    /// Interval between presence messages to other registrars: PEER-HEARTBEAT-CYCLE [default: 2,
    /// with --compatibility rfc 30]
    #[arg(long, value_name = "SECONDS", value_parser = interval)]
    heartbeat_cycle: Option<Duration>,
    /// Time after which a silent registrar is probed: MAX-TIME-LAST-HEARD [default: 3, with
    /// --compatibility rfc 61]
    #[arg(long, value_name = "SECONDS", value_parser = interval)]
    max_time_last_heard: Option<Duration>,
    /// Time that a probed registrar may take to answer: MAX-TIME-NO-RESPONSE [default: 1.5, with
    /// --compatibility rfc 5]
    #[arg(long, value_name = "SECONDS", value_parser = interval)]
    max_time_no_response: Option<Duration>,
    /// Time to look for a mentor
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "5")]
    mentor_discovery: Duration,
    /// Time that other registrars may take to agree to a takeover
    #[arg(long, value_name = "SECONDS", value_parser = interval, default_value = "5")]
    takeover_expiry: Duration,
    /// Time for which a registrar that started without peers defers answers about unknown pools
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "3")]
    ready_after: Duration,
    /// Time that a registrar which connects may take to identify itself
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    first_message_timeout: Duration,
    /// Interval between announcements, multiplied by the number of registrars that announce:
    /// T6-Serverannounce
    #[arg(long, value_name = "SECONDS", value_parser = interval, default_value = "1")]
    announce_interval: Duration,
    /// Time after which an announcement is outdated: T7-ENRPoutdate
    #[arg(long, value_name = "SECONDS", value_parser = interval, default_value = "5")]
    announce_outdate: Duration,
}

impl TimerOptions {
    pub(super) fn apply(&self, mut config: RegistrarConfig) -> RegistrarConfig {
        if let Some(cycle) = self.heartbeat_cycle {
            config = config.heartbeat_cycle(cycle);
        }
        if let Some(time) = self.max_time_last_heard {
            config = config.max_time_last_heard(time);
        }
        if let Some(time) = self.max_time_no_response {
            config = config.max_time_no_response(time);
        }
        config
            .keep_alive_interval(self.keep_alive_interval)
            .keep_alive_timeout(self.keep_alive_timeout)
            .mentor_discovery(self.mentor_discovery)
            .takeover_expiry(self.takeover_expiry)
            .ready_after(self.ready_after)
            .first_message_timeout(self.first_message_timeout)
            .announce_interval(self.announce_interval)
            .announce_outdate(self.announce_outdate)
    }
}
