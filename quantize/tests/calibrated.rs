//! Conversions that are fitted to a text.

mod checkpoint;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use checkpoint::{Checkpoint, D, names, tiny, write_tokenizer};
use pocketgpt_quantize::{
    CalibrationText, ConvertError, ConvertOptions, Encoding, Method, Progress, Report, Target,
    compare, convert,
};
use pocketgpt_runtime::format::{MappedFile, WeightFile};

const TEXT: &str = "Once upon a time there was a king who had three daughters.\n<|endoftext|>\nThe \
                    youngest was so fair that the sun itself wondered whenever it shone in her face.\n";

fn options(folder: &Path, text: &str) -> ConvertOptions {
    let file = folder.join("text");
    std::fs::write(&file, text).unwrap();
    let method = Method::Gptq { text: CalibrationText::File(file), tokens: Some(4096) };
    ConvertOptions { to: Encoding::Q4, method, ..ConvertOptions::default() }
}

fn converted(folder: &Path, options: &ConvertOptions) -> Result<(Vec<u8>, Report), ConvertError> {
    let output = folder.join("out.pgpt");
    let report = convert(folder, &output, options, &mut ())?;
    Ok((std::fs::read(output).unwrap(), report))
}

#[test]
fn bytes_do_not_depend_on_threads() {
    let folder = tiny();
    let mut options = options(folder.path(), &TEXT.repeat(20));
    options.head = Some(Encoding::Q4);
    let files: Vec<Vec<u8>> = [1, 2, 3]
        .into_iter()
        .map(|threads| {
            options.threads = Some(threads);
            converted(folder.path(), &options).unwrap().0
        })
        .collect();
    assert!(files[0] == files[1] && files[0] == files[2]);
}

#[test]
fn report_tells_how() {
    let folder = tiny();
    let options = options(folder.path(), &TEXT.repeat(200));
    let (_, report) = converted(folder.path(), &options).unwrap();
    assert_eq!((report.recipe.method, report.recipe.head), ("gptq", "q8"));
    assert_eq!(report.recipe.calibration.as_deref(), Some("text"));
    let cost = report.divergence.expect("a sixteenth of the text is held out");
    assert!(cost.mean_kl_divergence > 0.0 && cost.top1_agreement > 0.5 && cost.positions > 0);
    let text = report.to_string();
    assert!(text.contains("mean KL divergence"), "{text}");
}

#[test]
fn one_short_document_will_do() {
    let folder = tiny();
    for text in ["Once upon a time", "a b"] {
        let options = options(folder.path(), text);
        let (_, report) = converted(folder.path(), &options).unwrap();
        assert!(report.divergence.is_none());
        assert!(report.tensors.iter().all(|t| t.snr_db.is_none_or(f64::is_finite)));
    }
}

#[test]
fn no_text_is_an_error() {
    let folder = tiny();
    for text in ["", "\n\n", "<|endoftext|>\n<|endoftext|>"] {
        let options = options(folder.path(), text);
        let before = names(folder.path());
        let error = converted(folder.path(), &options).unwrap_err().to_string();
        assert!(error.contains("text: there is no text"), "{error}");
        assert_eq!(names(folder.path()), before);
    }
}

#[test]
fn dead_inputs_do_no_harm() {
    let folder = tiny();
    let mut options = options(folder.path(), TEXT);
    options.method = Method::Gptq { text: CalibrationText::BuiltIn, tokens: Some(1) };
    // More inputs than tokens: most directions are never seen.
    let (_, report) = converted(folder.path(), &options).unwrap();
    assert!(report.snr_db.unwrap() > 10.0, "{:?}", report.snr_db);
}

/// What a fuzzer would call a model: channels that are always zero, groups of zeros, one weight that is
/// larger than all others together.
#[test]
fn strange_weights_stay_finite() {
    let mut checkpoint = Checkpoint::new();
    checkpoint.config["vocab_size"] = 300.into();
    checkpoint.config["n_positions"] = 64.into();
    for (name, rows) in [("wte.weight", 300), ("wpe.weight", 64)] {
        let tensor = checkpoint.tensor(name);
        tensor.shape[0] = rows;
        *tensor = checkpoint::Tensor::f32(
            &tensor.name.clone(),
            &[rows, D],
            &checkpoint::numbers(rows as u32, rows * D),
        );
    }
    let mut edit = |name: &str, change: &mut dyn FnMut(usize, &mut f32)| {
        let tensor = checkpoint.tensor(name);
        for (i, bytes) in tensor.bytes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let mut value = f32::from_le_bytes(*bytes);
            change(i, &mut value);
            *bytes = value.to_le_bytes();
        }
    };
    // Inputs 3 and 17 of c_attn and c_fc are dead, and all of attn.c_proj's, whose values are zero.
    for norm in ["ln_1", "ln_2"] {
        let mut dead = |i: usize, x: &mut f32| *x = if i == 3 || i == 17 { 0.0 } else { *x };
        edit(&format!("{norm}.weight"), &mut dead);
        edit(&format!("{norm}.bias"), &mut dead);
    }
    edit("c_attn.bias", &mut |i, x| *x = if i >= 2 * D { 0.0 } else { *x });
    edit("c_attn.weight", &mut |i, x| *x = if i % (3 * D) >= 2 * D { 0.0 } else { *x });
    // An output without weights, and one weight of a million.
    edit("c_fc.weight", &mut |i, x| *x = if i % (4 * D) == 5 { 0.0 } else { *x });
    edit("mlp.c_proj.weight", &mut |i, x| *x = if i == 40 * D + 7 { 1e6 } else { *x });
    checkpoint.write();
    write_tokenizer(checkpoint.folder.path(), 300);
    for to in [Encoding::Q4, Encoding::Q3, Encoding::Q8] {
        let mut options = options(checkpoint.folder.path(), &TEXT.repeat(20));
        options.to = to;
        let (_, report) = converted(checkpoint.folder.path(), &options).unwrap();
        assert!(report.tensors.iter().all(|t| t.snr_db.is_none_or(f64::is_finite)));
        assert!(report.divergence.is_some_and(|d| d.mean_kl_divergence.is_finite()));
        let map = MappedFile::open(&checkpoint.output()).unwrap();
        // Checks that scales and floats are finite.
        WeightFile::new(map.bytes()).unwrap().verify().unwrap();
    }
}

/// Gives up after it was asked so often.
struct Impatient(usize, AtomicUsize);

impl Progress for Impatient {
    fn is_cancelled(&self) -> bool {
        self.1.fetch_add(1, Ordering::Relaxed) >= self.0
    }
}

#[test]
fn giving_up_leaves_nothing_behind() {
    let folder = tiny();
    let mut options = options(folder.path(), &TEXT.repeat(200));
    options.target = Some(Target::BitsPerWeight(6.0));
    let before = names(folder.path());
    let output = folder.path().join("out.pgpt");
    let (mut patience, mut stopped) = (0, 0);
    loop {
        let mut progress = Impatient(patience, AtomicUsize::new(0));
        match convert(folder.path(), &output, &options, &mut progress) {
            Err(ConvertError::Cancelled) => {
                assert_eq!(names(folder.path()), before, "asked {patience} times");
                (patience, stopped) = (2 * patience + 1, stopped + 1);
            }
            done => {
                done.unwrap();
                break;
            }
        }
    }
    // While the text is read, while matrices are tried, while weights are fitted.
    assert!(stopped > 5, "{stopped}");
}

#[test]
fn targets_are_met() {
    let folder = tiny();
    let mut options = options(folder.path(), &TEXT.repeat(20));
    options.target = Some(Target::BitsPerWeight(6.0));
    let (file, report) = converted(folder.path(), &options).unwrap();
    assert!(
        report.bits_per_weight <= 6.0 && report.bits_per_weight > 5.0,
        "{}",
        report.bits_per_weight
    );
    assert_eq!((report.recipe.to, report.recipe.target_bpw), ("mixed", Some(6.0)));
    options.target = Some(Target::FileBytes(file.len() as u64));
    let (again, _) = converted(folder.path(), &options).unwrap();
    assert!(again.len() <= file.len() && again.len() as f64 > 0.98 * file.len() as f64);
    // Less than everything in q4 takes.
    options.target = Some(Target::BitsPerWeight(4.2));
    let (_, report) = converted(folder.path(), &options).unwrap();
    assert!(
        report.bits_per_weight <= 4.2 && report.bits_per_weight > 3.75,
        "{}",
        report.bits_per_weight
    );
    assert!(report.tensors.iter().any(|tensor| tensor.encoding == "q3"));
    options.target = Some(Target::BitsPerWeight(3.0));
    let error = converted(folder.path(), &options).unwrap_err().to_string();
    assert!(error.contains("the smallest possible is"), "{error}");
}

#[test]
fn report_compares_two_files() {
    let folder = tiny();
    let [f32_file, q4_file] = [Encoding::F32, Encoding::Q4].map(|to| {
        let output = folder.path().join(to.name());
        let options = ConvertOptions { to, ..ConvertOptions::default() };
        convert(folder.path(), &output, &options, &mut ()).unwrap();
        output
    });
    let found = compare(&q4_file, &f32_file, TEXT, 4096, &mut ()).unwrap();
    assert_eq!((found.matrices.len(), found.stream_snr_db.len()), (8, 3));
    for matrix in &found.matrices {
        // Noise of 4 bits; inputs that lost something make outputs worse.
        assert!((15.0..30.0).contains(&matrix.weight_snr_db.unwrap()), "{matrix:?}");
        assert!(matrix.output_snr_db.unwrap() > 10.0, "{matrix:?}");
        assert!(matrix.stream_output_snr_db.unwrap() < matrix.output_snr_db.unwrap() + 1.0);
    }
    assert!(found.divergence.mean_kl_divergence > 0.0);
    let svg = found.svg();
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && !svg.contains("NaN"));
    assert!(found.to_string().contains("behind block 1"));
    let same = compare(&f32_file, &f32_file, TEXT, 4096, &mut ()).unwrap();
    assert!(same.stream_snr_db.iter().all(Option::is_none));
    assert_eq!(same.divergence.mean_kl_divergence, 0.0);
}
