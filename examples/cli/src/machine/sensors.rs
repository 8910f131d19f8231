//! Clocks, temperatures, and what holds the CPU back: a slow result may be the machine's.

use std::fs;
use std::path::{Path, PathBuf};

/// Where Linux shows its sensors. Everything is read as often as asked for; what a machine does
/// not show is missing in the readings.
#[derive(Clone, Debug)]
pub struct Sensors {
    sys: PathBuf,
    /// How often x86 CPUs had throttled themselves when this was made.
    throttle_count: Option<u64>,
}

/// What the sensors showed, over all times that they were read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Readings {
    /// Lowest and highest clock of any CPU.
    pub frequency_hertz: Option<(u64, u64)>,
    /// Highest clock that the CPUs can have.
    pub frequency_limit_hertz: Option<u64>,
    /// Highest temperature of the CPU, or of whatever has one if none says that it is the CPU's.
    pub temperature_celsius: Option<f64>,
    /// What held the CPU back. Empty where the system says that nothing did; `None` where it does
    /// not say anything.
    pub throttling: Option<Vec<&'static str>>,
}

impl Sensors {
    /// Those of this machine.
    pub fn new() -> Self {
        Self::at("/sys".into())
    }

    fn at(sys: PathBuf) -> Self {
        let throttle_count = throttle_count(&sys);
        Self { sys, throttle_count }
    }

    /// Adds what the sensors show now.
    pub fn read(&self, into: &mut Readings) {
        let cpus = numbered(&self.sys.join("devices/system/cpu"), "cpu");
        for cpu in &cpus {
            if let Some(hertz) = kilohertz(&cpu.join("cpufreq/scaling_cur_freq")) {
                let (low, high) = into.frequency_hertz.unwrap_or((hertz, hertz));
                into.frequency_hertz = Some((low.min(hertz), high.max(hertz)));
            }
            let limit = kilohertz(&cpu.join("cpufreq/cpuinfo_max_freq"));
            into.frequency_limit_hertz = into.frequency_limit_hertz.max(limit);
        }
        if let Some(now) = self.temperature() {
            let highest = into.temperature_celsius.map_or(now, |before| before.max(now));
            into.temperature_celsius = Some(highest);
        }
        if let Some(now) = self.throttling() {
            let all = into.throttling.get_or_insert_default();
            let new: Vec<_> = now.into_iter().filter(|name| !all.contains(name)).collect();
            all.extend(new);
        }
    }

    fn temperature(&self) -> Option<f64> {
        let zones = numbered(&self.sys.join("class/thermal"), "thermal_zone");
        let zones: Vec<(bool, f64)> = zones
            .iter()
            .filter_map(|zone| {
                let millidegrees: f64 = text(&zone.join("temp"))?.parse().ok()?;
                let kind = text(&zone.join("type")).unwrap_or_default().to_ascii_lowercase();
                let of_cpu = ["cpu", "x86_pkg", "soc"].iter().any(|part| kind.contains(part));
                Some((of_cpu, millidegrees / 1e3))
            })
            .collect();
        let any_of_cpu = zones.iter().any(|zone| zone.0);
        let relevant = zones.iter().filter(|zone| zone.0 || !any_of_cpu);
        relevant.map(|zone| zone.1).max_by(f64::total_cmp)
    }

    fn throttling(&self) -> Option<Vec<&'static str>> {
        let sources =
            [self.raspberry_pi(), self.under_voltage(), self.cooling(), self.throttled_x86()];
        let mut said = sources.into_iter().flatten().peekable();
        said.peek()?;
        Some(said.flatten().collect())
    }

    /// What `vcgencmd get_throttled` prints.
    fn raspberry_pi(&self) -> Option<Vec<&'static str>> {
        const BITS: [(u32, &str); 8] = [
            (0, "under_voltage"),
            (1, "frequency_capped"),
            (2, "throttled"),
            (3, "soft_temperature_limit"),
            (16, "under_voltage_since_boot"),
            (17, "frequency_capped_since_boot"),
            (18, "throttled_since_boot"),
            (19, "soft_temperature_limit_since_boot"),
        ];
        let hex = text(&self.sys.join("devices/platform/soc/soc:firmware/get_throttled"))?;
        let flags = u32::from_str_radix(hex.trim_start_matches("0x"), 16).ok()?;
        let set = BITS.iter().filter(|(bit, _)| flags >> bit & 1 == 1);
        Some(set.map(|&(_, name)| name).collect())
    }

    /// The alarm of a Raspberry Pi's power supply, which newer kernels show without the firmware.
    fn under_voltage(&self) -> Option<Vec<&'static str>> {
        let monitors = numbered(&self.sys.join("class/hwmon"), "hwmon");
        let volts = monitors
            .iter()
            .find(|monitor| text(&monitor.join("name")).as_deref() == Some("rpi_volt"))?;
        let alarm = text(&volts.join("in0_lcrit_alarm"))?;
        Some(if alarm == "0" { vec![] } else { vec!["under_voltage"] })
    }

    /// Devices that cool by slowing the CPU down, as most ARM boards have them.
    fn cooling(&self) -> Option<Vec<&'static str>> {
        let devices = numbered(&self.sys.join("class/thermal"), "cooling_device");
        let states: Vec<String> = devices
            .iter()
            .filter(|device| {
                let kind = text(&device.join("type")).unwrap_or_default().to_ascii_lowercase();
                kind.contains("cpufreq") || kind == "processor"
            })
            .filter_map(|device| text(&device.join("cur_state")))
            .collect();
        let slowed = states.iter().any(|state| state != "0");
        let found = !states.is_empty();
        found.then(|| if slowed { vec!["slowed_to_cool"] } else { vec![] })
    }

    /// x86 CPUs count how often they were too hot.
    fn throttled_x86(&self) -> Option<Vec<&'static str>> {
        let (before, now) = (self.throttle_count?, throttle_count(&self.sys)?);
        Some(if now > before { vec!["too_hot"] } else { vec![] })
    }
}

fn throttle_count(sys: &Path) -> Option<u64> {
    let cpus = numbered(&sys.join("devices/system/cpu"), "cpu");
    let files = ["core_throttle_count", "package_throttle_count"];
    let counts: Vec<u64> = cpus
        .iter()
        .flat_map(|cpu| files.map(|file| cpu.join("thermal_throttle").join(file)))
        .filter_map(|path| text(&path)?.parse().ok())
        .collect();
    (!counts.is_empty()).then(|| counts.iter().sum())
}

fn kilohertz(path: &Path) -> Option<u64> {
    text(path)?.parse::<u64>().ok().map(|kilohertz| kilohertz * 1000)
}

/// Entries of a folder that are called `prefix` and a number.
fn numbered(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let is_number = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit());
    let named = |name: &str| name.strip_prefix(prefix).is_some_and(is_number);
    let entries = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(named));
    entries.map(|entry| entry.path()).collect()
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new(files: &[(&str, &str)]) -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            files.iter().for_each(|(path, text)| machine.set(path, text));
            machine
        }
        fn set(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
        fn sensors(&self) -> Sensors {
            Sensors::at(self.0.path().into())
        }
    }

    fn read(sensors: &Sensors) -> Readings {
        let mut readings = Readings::default();
        sensors.read(&mut readings);
        readings
    }

    #[test]
    fn nothing_is_made_up() {
        assert_eq!(read(&Machine::new(&[]).sensors()), Readings::default());
    }

    #[test]
    fn clocks_and_temperatures_keep_their_extremes() {
        let frequency = "devices/system/cpu/cpu1/cpufreq/scaling_cur_freq";
        let temperature = "class/thermal/thermal_zone1/temp";
        let machine = Machine::new(&[
            ("devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1500000"),
            ("devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "1800000"),
            (frequency, "600000"),
            // Not a CPU.
            ("devices/system/cpu/cpufreq/scaling_cur_freq", "1"),
            ("class/thermal/thermal_zone0/temp", "90000"),
            ("class/thermal/thermal_zone0/type", "wifi"),
            (temperature, "48300"),
            ("class/thermal/thermal_zone1/type", "cpu-thermal"),
        ]);
        let (sensors, mut readings) = (machine.sensors(), Readings::default());
        sensors.read(&mut readings);
        machine.set(frequency, "1800000");
        machine.set(temperature, "47000");
        sensors.read(&mut readings);
        assert_eq!(readings.frequency_hertz, Some((600_000_000, 1_800_000_000)));
        assert_eq!(readings.frequency_limit_hertz, Some(1_800_000_000));
        assert_eq!(readings.temperature_celsius, Some(48.3));
        assert_eq!(readings.throttling, None);
    }

    #[test]
    fn a_raspberry_pi_tells_what_holds_it_back() {
        let throttled = "devices/platform/soc/soc:firmware/get_throttled";
        let alarm = "class/hwmon/hwmon2/in0_lcrit_alarm";
        let machine = Machine::new(&[
            (throttled, "0"),
            ("class/hwmon/hwmon1/name", "cpu_thermal"),
            ("class/hwmon/hwmon2/name", "rpi_volt"),
            (alarm, "0"),
        ]);
        let (sensors, mut readings) = (machine.sensors(), Readings::default());
        sensors.read(&mut readings);
        assert_eq!(readings.throttling, Some(vec![]));
        machine.set(throttled, "80008");
        machine.set(alarm, "1");
        sensors.read(&mut readings);
        sensors.read(&mut readings);
        let expected =
            ["soft_temperature_limit", "soft_temperature_limit_since_boot", "under_voltage"];
        assert_eq!(readings.throttling, Some(expected.into()));
    }

    #[test]
    fn cooling_devices_and_counters_tell_as_well() {
        let state = "class/thermal/cooling_device0/cur_state";
        let count = "devices/system/cpu/cpu0/thermal_throttle/package_throttle_count";
        let machine = Machine::new(&[
            ("class/thermal/cooling_device0/type", "cpufreq-cpu0"),
            (state, "0"),
            ("class/thermal/cooling_device1/type", "fan"),
            ("class/thermal/cooling_device1/cur_state", "3"),
            (count, "17"),
        ]);
        let sensors = machine.sensors();
        assert_eq!(read(&sensors).throttling, Some(vec![]));
        machine.set(count, "18");
        machine.set(state, "2");
        assert_eq!(read(&sensors).throttling, Some(vec!["slowed_to_cool", "too_hot"]));
    }
}
