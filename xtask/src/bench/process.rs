//! What a process takes of the machine, as the kernel counts it.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

/// What the kernel counts processor time in, on every architecture.
const TICKS_PER_SECOND: u64 = 100;

/// Memory of a process in MiB.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// Resident now.
    pub(super) now: f64,
    /// Resident at most, since it began.
    pub(super) most: f64,
}

/// The memory of a process.
pub(super) fn memory(pid: i32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("look at {path}"))?;
    Ok(Memory {
        now: mebibytes(&text, "VmRSS:"),
        most: mebibytes(&text, "VmHWM:"),
    })
}

/// How long a process has been on a processor, all its threads together.
pub(super) fn processor_time(pid: i32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("look at {path}"))?;
    ticks(&text)
        .map(|ticks| Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
        .with_context(|| format!("understand {path}"))
}

/// The same to the nanosecond, of the threads that there are: what those did that have ended is not in it.
pub(super) fn threads_time(pid: i32) -> Result<Duration> {
    let folder = format!("/proc/{pid}/task");
    let threads = fs::read_dir(&folder).with_context(|| format!("look at {folder}"))?;
    threads
        .map(|thread| {
            let path = thread?.path().join("schedstat");
            let text = fs::read_to_string(&path).with_context(|| format!("look at {}", path.display()))?;
            let nanoseconds = text.split_whitespace().next().and_then(|word| word.parse().ok());
            nanoseconds
                .map(Duration::from_nanos)
                .with_context(|| format!("understand {}", path.display()))
        })
        .sum()
}

/// Memory of a process in MiB in which what it shares with others counts for a share; nothing where the process has ended.
pub(super) fn proportional_memory(pid: i32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    mebibytes(&text, "Pss:")
}

/// The processes of a cgroup and of all below it whose program has this name.
pub(super) fn in_cgroup(cgroup: &str, is_wanted: impl Fn(&str) -> bool) -> Vec<i32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let read = |pid: &i32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    pids.filter(|pid| read(pid, "cgroup").contains(cgroup) && is_wanted(read(pid, "comm").trim()))
        .collect()
}

/// The value of a line of kilobytes; 0 where there is none.
fn mebibytes(text: &str, key: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kibibytes.unwrap_or_default() / 1024.0
}

/// User and system time. The name of the program comes before them, in parentheses, and may have spaces.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(") ")?;
    let mut fields = after.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_spaces() {
        let stat = "12 (a ) b) S 1 12 12 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 5 0 100 1 2";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("12 (a"), None);
    }

    #[test]
    fn memory_is_in_mebibytes() {
        let text = "VmPeak:\t 9999 kB\nVmHWM:\t    4096 kB\nVmRSS:\t    2048 kB\n";
        assert!((mebibytes(text, "VmHWM:") - 4.0).abs() < 1e-9);
        assert!((mebibytes(text, "VmRSS:") - 2.0).abs() < 1e-9);
        assert!(mebibytes(text, "Pss:").abs() < 1e-9);
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(memory(pid).unwrap().now > 0.5);
        assert!(proportional_memory(pid) > 0.1);
        processor_time(pid).unwrap();
        assert!(threads_time(pid).unwrap() > Duration::ZERO);
    }
}
