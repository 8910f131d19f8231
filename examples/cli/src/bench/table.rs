//! What came out, for people.

use std::fmt::Write;

use super::report::{Machine, Measured, Report, Roofline};
use crate::units;

/// The report as text.
pub fn table(report: &Report) -> String {
    let mut out = machine(&report.machine);
    for result in [Some(&report.result), report.baseline.as_ref()].into_iter().flatten() {
        out += &model(result);
    }
    if let Some(ratio) = &report.ratio {
        let decode: Vec<String> =
            ratio.decode_tokens_per_second.iter().map(|ratio| format!("{ratio:.3}")).collect();
        let prefill = ratio.prefill_tokens_per_second;
        let decode = decode.join(", ");
        out += &format!("\ntimes as fast as {}: prefill {prefill:.3}, decode {decode}\n", {
            report.baseline.as_ref().map_or("the baseline", |baseline| &baseline.model)
        });
    }
    if let Some(pauses) = &report.pauses {
        out += &format!(
            "\npast the context ({}, keep {}, tail {}): {:.1} tokens/s over {} tokens, in which the \
             context begins anew {} times\np50 {:.3} ms, longest {:.3} ms, which is {:.2} times p50\n",
            pauses.overflow,
            pauses.keep,
            pauses.tail,
            pauses.tokens_per_second,
            pauses.tokens,
            pauses.restarts,
            1e3 * pauses.p50_seconds,
            1e3 * pauses.longest_seconds,
            pauses.longest_over_p50,
        );
    }
    if let Some(bytes) = report.machine.peak_rss_bytes {
        out += &format!("\npeak memory in RAM: {}\n", units::bytes(bytes));
    }
    out
}

fn machine(machine: &Machine) -> String {
    let mut out = format!(
        "{}, {}, {}, {}\n",
        machine.cpu.as_deref().unwrap_or("unknown CPU"),
        machine.isa,
        units::count(machine.threads, "thread"),
        units::count(machine.repeat, "repetition"),
    );
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "reads {:.1} GB/s from memory, multiplies {:.1} G int8 ({}) or {:.1} G f32 ({}) a second",
        machine.read_bytes_per_second / 1e9,
        machine.int8_macs_per_second / 1e9,
        machine.int8_instruction,
        machine.f32_macs_per_second / 1e9,
        machine.f32_instruction,
    );
    let mut sensors = Vec::new();
    if let (Some(low), Some(high)) = (machine.frequency_hertz_min, machine.frequency_hertz_max) {
        let giga = |hertz| hertz as f64 / 1e9;
        let of = machine
            .frequency_limit_hertz
            .map_or_else(String::new, |limit| format!(" (of {:.2})", giga(limit)));
        sensors.push(format!("{:.2} to {:.2} GHz{of}", giga(low), giga(high)));
    }
    if let Some(degrees) = machine.temperature_celsius_max {
        sensors.push(format!("up to {degrees:.0} °C"));
    }
    match machine.throttling.as_deref() {
        None => {}
        Some([]) => sensors.push("not throttled".into()),
        Some(flags) => sensors.push(format!("THROTTLED: {}", flags.join(", ").replace('_', " "))),
    }
    if !sensors.is_empty() {
        out += &format!("{}\n", sensors.join(", "));
    }
    out
}

fn model(result: &Measured) -> String {
    let Roofline { read_bytes_per_second, read_buffer_bytes, arithmetic, macs_per_second } =
        &result.roofline;
    let mut out = format!(
        "\n{}: {}, {:.3} bits per weight, kv {}\n\
         limits: {:.1} GB/s when reading {} again and again, {:.1} G multiply-adds/s in {arithmetic}\n",
        result.model,
        units::bytes(result.file_bytes),
        result.bits_per_weight,
        result.kv,
        read_bytes_per_second / 1e9,
        units::bytes(*read_buffer_bytes as u64),
        macs_per_second / 1e9,
    );
    let header = ["", "tokens/s", "of limit", "p50 ms", "p99 ms"];
    let mut line = |[name, speed, share, p50, p99]: [&str; 5], rest: &str| {
        let line = format!("{name:<22} {speed:>9} {share:>9} {p50:>9} {p99:>9}  {rest}");
        let _ = writeln!(out, "{}", line.trim_end());
    };
    line(header, "");
    for prefill in &result.prefill {
        let macs = format!("{:.1} G multiply-adds/s", prefill.macs_per_second / 1e9);
        let name = format!("prefill {} at {}", prefill.tokens, prefill.depth);
        let speed = units::speed(Some(prefill.prefill_tokens_per_second));
        line([&name, &speed, &share(prefill.roofline_fraction), "", ""], &macs);
    }
    for decode in &result.decode {
        let name = format!("decode {} at {}", decode.tokens, decode.depth);
        let speed = units::speed(Some(decode.decode_tokens_per_second));
        let [p50, p99] = [decode.token_seconds_p50, decode.token_seconds_p99]
            .map(|seconds| format!("{:.3}", 1e3 * seconds));
        let rest = format!(
            "weights {:.2} GB/s; cache {} a token",
            decode.weight_bytes_per_second / 1e9,
            units::bytes(decode.cache_bytes_per_token),
        );
        line([&name, &speed, &share(decode.roofline_fraction), &p50, &p99], &rest);
    }
    if let Some(seconds) = result.time_to_first_token_seconds {
        let first_run =
            result.first_run_time_to_first_token_seconds.map_or_else(String::new, |seconds| {
                format!(" ({:.1} ms in the first run)", 1e3 * seconds)
            });
        let _ = writeln!(out, "first token after {:.1} ms{first_run}", 1e3 * seconds);
    }
    out
}

fn share(fraction: f64) -> String {
    format!("{:.1} %", 100.0 * fraction)
}
