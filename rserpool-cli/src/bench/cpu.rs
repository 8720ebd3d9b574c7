//! The processor time of other processes.

use std::fs;
use std::time::Duration;

use anyhow::{Context, bail};

/// Returns the processor time of the process: of all its running threads, in user and kernel mode.
/// Threads that have exited do not count.
pub(super) fn time(pid: u32) -> anyhow::Result<Duration> {
    let tasks = format!("/proc/{pid}/task");
    let tasks = fs::read_dir(&tasks).with_context(|| format!("there is no process {pid}"))?;
    let mut nanoseconds = 0;
    for task in tasks {
        let task = task?.path();
        let statistics = match fs::read_to_string(task.join("schedstat")) {
            // The thread has exited meanwhile.
            Err(_) if !task.exists() => continue,
            result => result.context("this kernel does not tell the processor time of threads")?,
        };
        let Some(Ok(on_cpu)) = statistics.split_whitespace().next().map(str::parse::<u64>) else {
            bail!("not the processor time of a thread: {statistics:?}");
        };
        nanoseconds += on_cpu;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn who_computes_takes_time() {
        let pid = std::process::id();
        let before = time(pid).expect("it is us");
        let mut sum = 0_u64;
        while time(pid).expect("it is us") < before + Duration::from_millis(5) {
            sum = (0..100_000).fold(sum, |sum, number| sum.wrapping_mul(31) ^ number);
        }
        assert_ne!(sum, 1);
        assert!(time(u32::MAX).is_err());
    }
}
