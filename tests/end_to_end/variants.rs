//! Every form of checkpoint, against outputs of transformers.

use pocketgpt_quantize::Encoding;
use pocketgpt_runtime::format::Role;
use pocketgpt_runtime::parallel::Serial;
use pocketgpt_runtime::workspace::SessionOptions;
use pocketgpt_tests::{Converted, Golden, max_difference, repository, with_session};

use crate::golden_forward::{Collect, compare_inside};

#[test]
fn every_variant_equals_transformers() {
    let folder = repository("tests/fixtures/variants");
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .expect("the fixtures")
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    names.sort();
    assert!(names.len() >= 26, "fixtures are missing");
    for path in names {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let tokenizer = path.join("tokenizer.json").exists() || path.join("vocab.json").exists();
        let convert = if tokenizer { Converted::new } else { Converted::without_tokenizer };
        let file = convert(&path, Encoding::F32);
        file.file().verify().unwrap_or_else(|e| panic!("{name}: {e}"));
        let model = file.model();
        let config = model.config();
        let golden = Golden::open(&path.join("expected.safetensors"));
        let ids = golden.ids("input_ids");

        let options = SessionOptions { batch: 5, logit_rows: 3, ..SessionOptions::new(config) };
        let (mut seen, mut logits) = (Collect::default(), Vec::new());
        with_session(model, &options, |session| {
            session.feed_tapped(&ids, &Serial, &mut seen).unwrap();
            session.truncate(0);
            session.feed_all(&ids, &Serial, &mut |_, row| logits.extend(row)).unwrap();
        });
        let (hidden, attention) = compare_inside(&model, &seen, &golden, ids.len());
        let difference = max_difference(&logits, &golden.f32s("logits"));
        println!("{name:20} logits {difference:e}, hidden {hidden:e}, attention {attention:e}");
        assert!(difference < 3e-5 && hidden < 1e-5 && attention < 3e-6, "{name}");

        if let Some(text) = expected_text(&path) {
            let tokenizer = file.file().tokenizer().unwrap().expect("has a tokenizer");
            assert_eq!(tokenizer.encode_to_vec(&text), ids, "{name}");
        }
    }
}

/// The text that the fixture's ids came from, where it has a tokenizer.
fn expected_text(path: &std::path::Path) -> Option<String> {
    let bytes = std::fs::read(path.join("expected.safetensors")).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    header.metadata().as_ref()?.get("text").cloned()
}

/// The forms of head: what the checkpoint holds decides, as in transformers.
#[test]
fn heads_are_tied_when_they_are_equal() {
    for (name, tied) in [
        ("f32", true),
        ("head-equal", true),
        ("head-untied", false),
        ("head-untied-unsaid", false),
        ("old-buffers", true),
    ] {
        let path = repository("tests/fixtures/variants").join(name);
        let file = Converted::without_tokenizer(&path, Encoding::Q8);
        assert_eq!(file.file().config().tied_head, tied, "{name}");
        let roles = file.file().tensors().filter(|t| t.entry.role == Role::LmHead).count();
        assert_eq!(roles, usize::from(!tied), "{name}");
    }
}
