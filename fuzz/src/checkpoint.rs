//! A checkpoint's files through the quantizer, and what comes out through the runtime.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use pocketgpt_quantize::{ConvertOptions, Encoding, TokenizerChoice, convert, inspect};
use tempfile::TempDir;

use crate::numbers::Numbers;
use crate::run::open_and_run;

/// The files of an input, in order.
pub const FILES: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];

/// Input: for each but the last of [`FILES`] its length (four bytes) and bytes; what is left is
/// the last.
pub fn join(files: [&[u8]; 3]) -> Vec<u8> {
    let [config, tokenizer, weights] = files;
    let part = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat();
    [part(config), part(tokenizer), weights.to_vec()].concat()
}

/// The inverse of [`join`], for any bytes.
fn split(data: &[u8]) -> [Vec<u8>; 3] {
    fn part<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
        let Some((len, tail)) = rest.split_first_chunk::<4>() else { return &[] };
        let (part, tail) = tail.split_at(tail.len().min(u32::from_le_bytes(*len) as usize));
        *rest = tail;
        part
    }
    let mut rest = data;
    [part(&mut rest).into(), part(&mut rest).into(), rest.into()]
}

/// A folder for this process, in memory where the system has such a place.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let new = || {
        let memory = PathBuf::from("/dev/shm");
        let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
        tempfile::Builder::new().prefix("pocketgpt-fuzz-").tempdir_in(place).expect("a folder")
    };
    FOLDER.get_or_init(new).path()
}

/// Converts, and decodes with what comes out. A file that was written must be correct.
pub fn run(data: &[u8]) {
    let files = split(data);
    for (name, bytes) in FILES.iter().zip(&files) {
        fs::write(folder().join(name), bytes).expect("room in memory");
    }
    let choice = crc32fast::hash(data) as usize;
    let options = ConvertOptions {
        to: [Encoding::Q4, Encoding::Q8, Encoding::F16, Encoding::F32, Encoding::Q3][choice % 5],
        tokenizer: match choice / 5 % 4 {
            0 => TokenizerChoice::Skip,
            _ => TokenizerChoice::FromSource,
        },
        ..ConvertOptions::default()
    };
    let output = folder().join("model.pgpt");
    let _ = fs::remove_file(&output);
    match convert(folder(), &output, &options, &mut ()) {
        Ok(_) => {
            let bytes = fs::read(&output).expect("it was written");
            let copy = crate::file::Aligned::new(&bytes);
            let file = pocketgpt_runtime::format::WeightFile::new(copy.bytes()).expect("a model");
            file.verify().expect("a correct model");
            open_and_run(&bytes);
        }
        Err(error) => {
            assert!(!output.exists());
            let text = error.to_string();
            assert!(text.len() < 4000, "a message of {} bytes", text.len());
        }
    }
    let _ = inspect(folder()).map(|found| found.to_string());
}

/// One mutation of one of the files; the length of the safetensors header is made to fit again.
pub fn mutate(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    fuzz: impl Fn(&mut [u8], usize, usize) -> usize,
) -> usize {
    let mut random = Numbers::new(seed.into());
    let mut files = split(&data[..size]);
    let which = random.pick(&[0, 1, 1, 2, 2]);
    // The header of the weights is where the decisions are.
    let weights = &files[2];
    let header = weights.first_chunk::<8>().map_or(0, |len| u64::from_le_bytes(*len));
    let header_end = (8 + header.min(1 << 20) as usize).min(weights.len());
    let (mut part, tail) = match which {
        2 if random.below(8) != 0 => {
            (files[2][8.min(header_end)..header_end].to_vec(), files[2][header_end..].to_vec())
        }
        2 => (std::mem::take(&mut files[2]), vec![]),
        other => (std::mem::take(&mut files[other]), vec![]),
    };
    let whole = which == 2 && !files[2].is_empty();
    match random.below(4) {
        0 => edit_number(&mut part, &mut random),
        1 => edit_json(&mut part, &mut random),
        _ => {
            let len = part.len();
            part.resize(len + 64, 0);
            let len = fuzz(&mut part, len, len + 64);
            part.truncate(len);
        }
    }
    files[which] =
        if whole { [&(part.len() as u64).to_le_bytes()[..], &part, &tail].concat() } else { part };
    let joined = join([&files[0], &files[1], &files[2]]);
    let len = joined.len().min(max_size);
    data[..len].copy_from_slice(&joined[..len]);
    len
}

/// Another number in place of one.
fn edit_number(text: &mut Vec<u8>, random: &mut Numbers) {
    let starts: Vec<usize> = (1..text.len())
        .filter(|&i| text[i].is_ascii_digit() && !text[i - 1].is_ascii_digit())
        .collect();
    if starts.is_empty() {
        return;
    }
    let start = random.pick(&starts);
    let end = start + text[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = match random.below(6) {
        0 => u64::MAX.to_string(),
        1 => (1u64 << random.below(64)).to_string(),
        2 => "-1".into(),
        3 => "1e308".into(),
        4 => "0".into(),
        _ => random.word().to_string(),
    };
    text.splice(start..end, number.bytes());
}

/// A piece of JSON where a quote or a bracket begins another, or a piece taken out.
fn edit_json(text: &mut Vec<u8>, random: &mut Numbers) {
    const PIECES: [&str; 18] = [
        "null",
        "true",
        "[]",
        "{}",
        "\"\"",
        "[[[[[[[[",
        "\"a\":",
        ",",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"F16\"",
        "\"BF16\"",
        "\"I8\"",
        "[18446744073709551615,2]",
        "[0]",
        "-0.0",
        "\"Ġ\"",
        "[\"a\",\"b\"]",
    ];
    let at: Vec<usize> = (0..text.len())
        .filter(|&i| matches!(text[i], b'"' | b'[' | b'{' | b',' | b']' | b'}'))
        .collect();
    if at.is_empty() {
        return;
    }
    let start = random.pick(&at);
    let end = match random.below(3) {
        0 => start,
        1 => (start + 1 + random.below(12)).min(text.len()),
        _ => at.iter().copied().find(|&i| i > start).unwrap_or(text.len()),
    };
    let piece = random.pick(&PIECES);
    text.splice(start..end, piece.bytes());
}
