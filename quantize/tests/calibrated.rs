//! Conversions that are fitted to a text.

mod checkpoint;

use std::path::Path;

use checkpoint::{names, tiny};
use pocketgpt_quantize::{
    CalibrationText, ConvertError, ConvertOptions, Encoding, Method, Report, Target, compare,
    convert,
};

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
