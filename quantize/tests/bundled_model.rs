//! The bundled model, converted to every encoding.

use std::path::{Path, PathBuf};

use pocketgpt_quantize::{ConvertOptions, Encoding, Report, TokenizerChoice, convert};
use pocketgpt_runtime::format::{MappedFile, WeightFile};

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/model")
}

fn to(encoding: Encoding) -> ConvertOptions {
    ConvertOptions { to: encoding, ..ConvertOptions::default() }
}

fn converted(options: &ConvertOptions) -> (Vec<u8>, Report) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pgpt");
    let report = convert(&model(), &path, options, &mut ()).unwrap();
    let map = MappedFile::open(&path).unwrap();
    WeightFile::new(map.bytes()).unwrap().verify().unwrap();
    (std::fs::read(&path).unwrap(), report)
}

#[test]
fn every_encoding_is_valid_and_good_enough() {
    for (encoding, bits, snr) in [
        (Encoding::F32, 32.0, None),
        (Encoding::F16, 16.0, None),
        (Encoding::Q8, 8.5, Some(43.0)),
        (Encoding::Q4, 5.5, Some(21.0)),
        (Encoding::Q3, 3.6, Some(15.0)),
    ] {
        let (bytes, report) = converted(&to(encoding));
        println!("{report}");
        assert_eq!(bytes.len() as u64, report.file_bytes);
        assert!(report.bits_per_weight <= bits);
        match (report.snr_db, snr) {
            (None, None) => {}
            (Some(found), Some(least)) => assert!(found > least, "{found} dB"),
            _ => panic!("{report}"),
        }
    }
}

#[test]
fn same_bytes_twice_and_with_any_number_of_threads() {
    for encoding in [Encoding::Q8, Encoding::Q4, Encoding::Q3] {
        let (bytes, _) = converted(&to(encoding));
        for threads in [1, 2, 3] {
            let options = ConvertOptions { threads: Some(threads), ..to(encoding) };
            assert!(converted(&options).0 == bytes, "{encoding:?} with {threads} threads");
        }
    }
}

#[test]
fn metadata_tells_source_recipe_and_quality() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pgpt");
    let report = convert(&model(), &path, &to(Encoding::Q4), &mut ()).unwrap();
    let map = MappedFile::open(&path).unwrap();
    let file = WeightFile::new(map.bytes()).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(file.metadata().unwrap()).unwrap();
    assert_eq!(metadata["tool"], pocketgpt_quantize::TOOL);
    assert_eq!(metadata["source"]["name"], "model");
    assert_eq!(metadata["source"]["sha256"], report.source.sha256);
    assert_eq!(metadata["recipe"]["to"], "q4");
    assert_eq!(metadata["recipe"]["head"], "q8");
    assert_eq!(metadata["generation"]["top_k"], 40);
    let quality = metadata["quality"].as_array().unwrap();
    assert_eq!(quality.len(), file.tensors().len());
    assert_eq!(quality[0], report.tensors[0].snr_db.unwrap());
    assert!(file.tokenizer().unwrap().is_some());
}

#[test]
fn the_head_has_an_encoding_of_its_own() {
    let options = ConvertOptions { head: Some(Encoding::Q4), ..to(Encoding::Q8) };
    let (_, report) = converted(&options);
    assert_eq!((report.tensors[0].role, report.tensors[0].encoding), ("wte.weight", "q4"));
    assert_eq!(report.tensors[4].encoding, "q8");
}

#[test]
fn f16_is_bit_equal_to_an_f16_source() {
    let bytes = std::fs::read(model().join("model.safetensors")).unwrap();
    let source = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pgpt");
    let options = ConvertOptions { tokenizer: TokenizerChoice::Skip, ..to(Encoding::F16) };
    convert(&model(), &path, &options, &mut ()).unwrap();
    let map = MappedFile::open(&path).unwrap();
    let file = WeightFile::new(map.bytes()).unwrap();
    assert!(file.tokenizer().unwrap().is_none());

    let u16_at = |bytes: &[u8], i: usize| [bytes[2 * i], bytes[2 * i + 1]];
    let (rows, cols) = (3 * 256, 256);
    let expected = source.tensor("transformer.h.2.attn.c_attn.weight").unwrap();
    let found = file.tensor(pocketgpt_runtime::format::Role::CAttnWeight, 2);
    for row in 0..rows {
        for col in 0..cols {
            let stored = u16_at(found.bytes, row / 16 * 16 * cols + col * 16 + row % 16);
            assert_eq!(stored, u16_at(expected.data(), col * rows + row), "{row}, {col}");
        }
    }
    let expected = source.tensor("transformer.wte.weight").unwrap();
    let found = file.tensor(pocketgpt_runtime::format::Role::Wte, 0);
    for row in [0, 1, 17, 4095] {
        for col in 0..cols {
            let stored = u16_at(found.bytes, row / 16 * 16 * cols + col * 16 + row % 16);
            assert_eq!(stored, u16_at(expected.data(), row * cols + col), "{row}, {col}");
        }
    }
    let expected = source.tensor("transformer.wpe.weight").unwrap();
    assert!(file.tensor(pocketgpt_runtime::format::Role::Wpe, 0).bytes == expected.data());
}
