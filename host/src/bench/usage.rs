//! What processes use, from `/proc`: CPU time in nanoseconds, and resident memory.

use std::collections::HashMap;
use std::fs;

/// The CPU time of a process or some of its threads, at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Usage {
    /// By thread: nanoseconds on a CPU, and nanoseconds of waiting for one.
    threads: HashMap<u32, (u64, u64)>,
    /// Ticks in user and in kernel mode. Coarse: only their ratio is used.
    ticks: (u64, u64),
}

/// What was used between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Used {
    pub(super) cpu_ns: u64,
    /// Of the thread that used most.
    pub(super) busiest_ns: u64,
    /// For how long threads were ready to run, but had no CPU.
    pub(super) waited_ns: u64,
    /// The part in user mode, from 0 to 1.
    pub(super) user_share: f64,
}

impl Used {
    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        let cpu_ns = self.cpu_ns + other.cpu_ns;
        let user_ns = self.user_share * self.cpu_ns as f64 + other.user_share * other.cpu_ns as f64;
        Self {
            cpu_ns,
            busiest_ns: self.busiest_ns + other.busiest_ns,
            waited_ns: self.waited_ns + other.waited_ns,
            user_share: user_ns / (cpu_ns as f64).max(1.0),
        }
    }
}

impl Usage {
    /// All threads of a process. An error says what is wrong with its number.
    pub(super) fn of(pid: u32) -> Result<Self, String> {
        let explain = |error| format!("cannot read /proc/{pid}: {error}. Is it the number of a process that runs?");
        let mut usage = Self::default();
        for task in fs::read_dir(format!("/proc/{pid}/task")).map_err(explain)?.flatten() {
            let thread = task.file_name().to_string_lossy().parse().unwrap_or(0);
            // A thread may end between the two.
            if let Some(times) = fs::read_to_string(task.path().join("schedstat")).ok().as_deref().and_then(times) {
                usage.threads.insert(thread, times);
            }
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(explain)?;
        usage.ticks = ticks(&stat).unwrap_or_default();
        Ok(usage)
    }

    /// These threads of this process.
    pub(super) fn of_threads(threads: &[u32]) -> Self {
        let of = |thread: &u32| {
            let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
            Some((*thread, times(&text)?))
        };
        Self { threads: threads.iter().filter_map(of).collect(), ticks: (0, 0) }
    }

    /// From an earlier moment until this one.
    pub(super) fn since(&self, before: &Self) -> Used {
        let mut used = Used::default();
        for (thread, (cpu, waited)) in &self.threads {
            let (cpu_before, waited_before) = before.threads.get(thread).copied().unwrap_or_default();
            let cpu = cpu.saturating_sub(cpu_before);
            used.cpu_ns += cpu;
            used.busiest_ns = used.busiest_ns.max(cpu);
            used.waited_ns += waited.saturating_sub(waited_before);
        }
        let user = self.ticks.0.saturating_sub(before.ticks.0) as f64;
        let system = self.ticks.1.saturating_sub(before.ticks.1) as f64;
        used.user_share = user / (user + system).max(1.0);
        used
    }
}

/// What a process has in memory, in bytes; 0 if that cannot be read.
pub(super) fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// The system's number of the thread that calls it.
pub(super) fn this_thread() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()
}

/// The fields of `schedstat`: on a CPU, waiting for one.
fn times(schedstat: &str) -> Option<(u64, u64)> {
    let mut fields = schedstat.split_ascii_whitespace().map(str::parse);
    Some((fields.next()?.ok()?, fields.next()?.ok()?))
}

/// The fields 14 and 15 of `stat`. The second one, a name, may contain anything but ends with the last parenthesis.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11).map(str::parse);
    Some((fields.next()?.ok()?, fields.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        assert_eq!(times("123456 789 10\n"), Some((123_456, 789)));
        assert_eq!(times("x"), None);
        let stat = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 111 222 0 0 20 0 1";
        assert_eq!(ticks(stat), Some((111, 222)));
    }

    #[test]
    fn own_process_uses_time_and_memory() {
        let pid = std::process::id();
        let thread = this_thread();
        let (all, own) = (Usage::of(pid).unwrap(), Usage::of_threads(&[thread]));
        let mut sum = 0_u64;
        // The kernel counts at its ticks.
        while Usage::of_threads(&[thread]).since(&own).cpu_ns == 0 {
            sum = std::hint::black_box((0..100_000).fold(sum, |sum, number| sum ^ number));
        }
        let used = Usage::of(pid).unwrap().since(&all);
        assert!(used.cpu_ns > 0 && used.busiest_ns <= used.cpu_ns, "{used:?}");
        assert!(resident_bytes(pid) > 100_000);
        assert!(Usage::of(0).unwrap_err().contains("/proc/0"));
    }
}
