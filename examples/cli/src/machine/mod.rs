//! What the operating system tells about the machine, where it does.

mod cores;
mod sensors;

use std::fs;
use std::path::Path;

pub use cores::{CpuList, fast_cores};
pub use sensors::{Readings, Sensors};

/// Name of the CPU, or of the board on small ones.
pub fn cpu_name() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    ["model name", "Model", "Hardware"].into_iter().find_map(|key| {
        text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == key).then(|| value.trim().to_owned())
        })
    })
}

/// Most memory that this program has had in RAM so far, pages of mapped files included.
pub fn peak_rss_bytes() -> Option<u64> {
    kib_after("/proc/self/status", "VmHWM:")
}

/// Memory that programs can still have before the system has to swap.
pub fn available_bytes() -> Option<u64> {
    kib_after("/proc/meminfo", "MemAvailable:")
}

/// The number of a line like `MemAvailable:  123 kB`, in bytes.
fn kib_after(path: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix(key))?;
    kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Size of the largest cache.
pub fn last_level_cache_bytes() -> Option<u64> {
    let caches = fs::read_dir("/sys/devices/system/cpu/cpu0/cache").ok()?;
    caches.flatten().filter_map(|cache| cache_bytes(&cache.path().join("size"))).max()
}

/// The number of a file like `32768K`, in bytes.
fn cache_bytes(path: &Path) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let (number, unit) = text.trim().split_at_checked(text.trim().len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "K" => Some(number << 10),
        "M" => Some(number << 20),
        _ => None,
    }
}
