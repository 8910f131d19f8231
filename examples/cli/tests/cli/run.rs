//! Starting the program.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;

/// The bundled model's file, as the build script made it.
pub const MODEL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/model.pgpt"));

/// What a run left behind.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pocketgpt"));
    command.args(args).stdin(Stdio::null());
    command
}

pub fn run(args: &[&str]) -> Run {
    finish(command(args).stdout(Stdio::piped()).stderr(Stdio::piped()), b"")
}

pub fn run_with_stdin(args: &[&str], stdin: &[u8]) -> Run {
    let mut command = command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(&mut command, stdin)
}

fn finish(command: &mut Command, stdin: &[u8]) -> Run {
    let mut child = command.spawn().unwrap();
    let writer = child.stdin.take().map(|mut pipe| {
        let bytes = stdin.to_vec();
        // The program may end without reading it.
        thread::spawn(move || drop(pipe.write_all(&bytes)))
    });
    let output = child.wait_with_output().unwrap();
    if let Some(writer) = writer {
        writer.join().unwrap();
    }
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Run {
    /// Standard output of a run that worked.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// JSON of a run that worked, which is one line.
    #[track_caller]
    pub fn json(self) -> Value {
        let stdout = self.ok();
        assert_eq!(stdout.lines().count(), 1);
        serde_json::from_str(&stdout).unwrap()
    }

    /// The one line of a run that failed, without `error: `.
    #[track_caller]
    pub fn error(self) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert_eq!(self.stdout, "");
        let line = self.stderr.strip_suffix('\n').unwrap();
        assert!(!line.contains('\n'), "{line}");
        line.strip_prefix("error: ").unwrap().to_owned()
    }
}

/// Numbers of a NumPy file, which must have this shape.
#[track_caller]
pub fn npy_numbers(path: &Path, shape: &[usize]) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    assert_eq!(bytes[..8], *b"\x93NUMPY\x01\x00");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert!(start.is_multiple_of(64));
    let header = std::str::from_utf8(&bytes[10..start]).unwrap();
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    let sizes = sizes.join(", ") + if shape.len() == 1 { "," } else { "" };
    assert!(header.contains(&format!("({sizes})")) && header.contains("'<f4'"), "{header}");
    let numbers = bytes[start..].as_chunks::<4>().0;
    assert_eq!(bytes.len(), start + 4 * shape.iter().product::<usize>());
    numbers.iter().map(|&x| f32::from_le_bytes(x)).collect()
}

/// A file of this repository.
pub fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Instruction sets of this CPU, as the program tells them.
pub fn isas() -> Vec<String> {
    let info = run(&["info", "--json"]).json();
    let isas = info["machine"]["isas"].as_array().unwrap();
    isas.iter().map(|isa| isa.as_str().unwrap().to_owned()).collect()
}
