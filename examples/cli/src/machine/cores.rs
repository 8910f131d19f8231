//! Which CPUs are fast, and on which of them threads run.

use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::thread::available_parallelism;

/// Where Linux describes CPUs.
const SYSTEM: &str = "/sys/devices/system/cpu";

/// CPUs that help with a token: those this program may use, without the little ones. A thread on a
/// little core would make the others wait.
pub fn fast_cores() -> usize {
    let available = available_parallelism().map_or(1, usize::from);
    big_cores(Path::new(SYSTEM)).map_or(available, |big| big.min(available))
}

/// CPUs with more than half the capacity of the fastest, as `cpu_capacity` tells it (arm64; 1024
/// for the fastest). `None` where it does not.
fn big_cores(system: &Path) -> Option<usize> {
    let capacity = |entry: fs::DirEntry| -> Option<u64> {
        let name = entry.file_name();
        let number = name.to_str()?.strip_prefix("cpu")?;
        number.parse::<u32>().ok()?;
        fs::read_to_string(entry.path().join("cpu_capacity")).ok()?.trim().parse().ok()
    };
    let capacities: Vec<u64> = fs::read_dir(system).ok()?.flatten().filter_map(capacity).collect();
    let most = *capacities.iter().max()?;
    Some(capacities.iter().filter(|&&capacity| 2 * capacity > most).count())
}

/// CPUs in the order in which threads take them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuList(Vec<usize>);

/// More CPUs than any machine has, so that a list cannot take all memory.
const MAX_CPU: usize = 1023;

impl CpuList {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Keeps the calling thread on one of the CPUs.
    ///
    /// # Errors
    /// What the system says, with the CPU.
    pub fn pin(&self, thread: usize) -> Result<(), String> {
        let cpu = self.0[thread % self.0.len()];
        pin_to(cpu).map_err(|error| format!("CPU {cpu}: {error}"))
    }
}

#[cfg(target_os = "linux")]
fn pin_to(cpu: usize) -> Result<(), String> {
    use nix::sched::{CpuSet, sched_setaffinity};
    use nix::unistd::Pid;

    let mut set = CpuSet::new();
    // The calling thread is number 0.
    set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)).map_err(|error| {
        match error {
            nix::errno::Errno::EINVAL => {
                "this machine does not have it, or does not give it".into()
            }
            error => error.desc().into(),
        }
    })
}

#[cfg(not(target_os = "linux"))]
fn pin_to(_: usize) -> Result<(), String> {
    Err("threads can be kept on CPUs on Linux only".into())
}

impl FromStr for CpuList {
    type Err = String;

    /// Numbers and ranges with commas between, as `taskset -c` takes them: `0-3`, `4,6,7`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| match text.parse::<usize>() {
            Ok(cpu) if cpu <= MAX_CPU => Ok(cpu),
            _ => Err(format!("expected CPUs as in 0-3 or 4,6,7; `{text}` is not one")),
        };
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("{part} ends before it begins"));
            }
            for cpu in first..=last {
                if cpus.contains(&cpu) {
                    return Err(format!("CPU {cpu} is named twice"));
                }
                cpus.push(cpu);
            }
        }
        Ok(Self(cpus))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder as Linux has it, with a capacity for each CPU that tells one.
    fn system(capacities: &[Option<&str>]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (cpu, capacity) in capacities.iter().enumerate() {
            let path = folder.path().join(format!("cpu{cpu}"));
            fs::create_dir(&path).unwrap();
            if let Some(capacity) = capacity {
                fs::write(path.join("cpu_capacity"), capacity).unwrap();
            }
        }
        // What lies beside them.
        fs::create_dir(folder.path().join("cpufreq")).unwrap();
        fs::create_dir(folder.path().join("cpuidle")).unwrap();
        fs::write(folder.path().join("online"), "0-7\n").unwrap();
        folder
    }

    #[test]
    fn little_cores_do_not_count() {
        let cases: [(&[Option<&str>], Option<usize>); 6] = [
            // Raspberry Pi: all alike.
            (&[Some("1024\n"); 4], Some(4)),
            // RK3588: four A55, four A76.
            (
                &[
                    Some("414\n"),
                    Some("414\n"),
                    Some("414\n"),
                    Some("414\n"),
                    Some("1024\n"),
                    Some("1024\n"),
                    Some("1024\n"),
                    Some("1024\n"),
                ],
                Some(4),
            ),
            // One prime, three big, four little.
            (
                &[
                    Some("325"),
                    Some("325"),
                    Some("325"),
                    Some("325"),
                    Some("860"),
                    Some("860"),
                    Some("860"),
                    Some("1024"),
                ],
                Some(4),
            ),
            // x86 tells nothing.
            (&[None, None], None),
            // A CPU that is off has no capacity; one that is damaged counts as none.
            (&[Some("1024"), None, Some("1024"), Some("fast")], Some(2)),
            (&[], None),
        ];
        for (capacities, expected) in cases {
            assert_eq!(big_cores(system(capacities).path()), expected, "{capacities:?}");
        }
        assert_eq!(big_cores(Path::new("/nowhere")), None);
        assert!(fast_cores() >= 1);
    }

    #[test]
    fn lists_of_cpus() {
        let parse = |text: &str| text.parse::<CpuList>().map(|list| list.0);
        assert_eq!(parse("3"), Ok(vec![3]));
        assert_eq!(parse("0-3"), Ok(vec![0, 1, 2, 3]));
        assert_eq!(parse("6,4-5,0"), Ok(vec![6, 4, 5, 0]));
        for wrong in ["", "a", "1,", "3-1", "0-", "-1", "1,0-2", "0-99999999999", "1024", "0 1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_pinned_thread_stays() {
        use nix::sched::sched_getaffinity;
        use nix::unistd::Pid;

        // On a thread of its own: what is pinned stays so.
        std::thread::spawn(|| {
            let before = sched_getaffinity(Pid::from_raw(0)).unwrap();
            let cpu = (0..MAX_CPU).rfind(|&cpu| before.is_set(cpu).unwrap_or(false)).unwrap();
            let list = CpuList(vec![MAX_CPU, cpu]);
            list.pin(3).unwrap();
            let after = sched_getaffinity(Pid::from_raw(0)).unwrap();
            assert!((0..MAX_CPU).all(|other| after.is_set(other).unwrap() == (other == cpu)));
            assert!(list.pin(0).unwrap_err().starts_with("CPU 1023: "));
        })
        .join()
        .unwrap();
    }
}
