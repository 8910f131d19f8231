//! Rules of the config section: each fires through a file.

use pocketgpt_runtime::config::Gpt2Config;
use pocketgpt_runtime::error::{ConfigError, FormatError, Section};

use crate::tiny::{self, CONFIG, FileBytes, assemble, parts, seal};

/// The tiny file with one word of its config replaced, CRCs correct again.
fn with_word(at: usize, value: u32) -> FileBytes {
    let mut file = tiny::file();
    file.bytes_mut()[CONFIG + at..][..4].copy_from_slice(&value.to_le_bytes());
    seal(file.bytes_mut(), 0);
    file
}

fn refused_config(at: usize, value: u32) -> ConfigError {
    match with_word(at, value).refused() {
        FormatError::Config(error) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn rejects_config_length() {
    let file = tiny::file();
    let ([config, directory, tokenizer, metadata], data) = parts(&file);
    let longer = [config, &[0; 64]].concat();
    for wrong in [&[][..], &config[..63], &longer[..65], &longer] {
        let file = assemble([wrong, directory, tokenizer, metadata], data, tiny::TENSORS as u32);
        assert_eq!(file.refused(), FormatError::ConfigLength { found: wrong.len() as u64 });
    }
}

#[test]
fn rejects_unknown_activation() {
    for code in [4, 0x100, u32::MAX] {
        assert_eq!(with_word(24, code).refused(), FormatError::UnknownActivation { code });
    }
}

#[test]
fn rejects_reserved_bytes_and_flags_of_the_config() {
    let error = FormatError::ReservedNotZero { section: Section::Config };
    for bit in 3..32 {
        assert_eq!(with_word(28, 1 << bit).refused(), error);
    }
    for at in 44..64 {
        let mut file = tiny::file();
        file.bytes_mut()[CONFIG + at] = 1;
        seal(file.bytes_mut(), 0);
        assert_eq!(file.refused(), error);
    }
}

#[test]
fn rejects_sizes_out_of_range() {
    let sizes = [
        ("vocab_size", 0, Gpt2Config::MAX_VOCAB),
        ("n_ctx", 4, Gpt2Config::MAX_CTX),
        ("n_embd", 8, Gpt2Config::MAX_EMBD),
        ("n_layer", 12, Gpt2Config::MAX_LAYER),
        ("n_head", 16, Gpt2Config::MAX_EMBD),
        ("n_inner", 20, Gpt2Config::MAX_INNER),
    ];
    for (field, at, max) in sizes {
        for value in [0, max + 1, u32::MAX] {
            assert_eq!(refused_config(at, value), ConfigError::OutOfRange { field, value, max });
        }
    }
}

#[test]
fn rejects_heads_that_do_not_divide() {
    let error = ConfigError::HeadsDoNotDivide { n_embd: 64, n_head: 3 };
    assert_eq!(refused_config(16, 3), error);
    // More heads than dimensions.
    let error = ConfigError::HeadsDoNotDivide { n_embd: 64, n_head: 128 };
    assert_eq!(refused_config(16, 128), error);
}

#[test]
fn rejects_head_sizes() {
    assert_eq!(refused_config(16, 4), ConfigError::HeadDim { head_dim: 16 });
    assert_eq!(refused_config(8, 258), ConfigError::HeadDim { head_dim: 129 });
    assert_eq!(refused_config(8, 62), ConfigError::HeadDim { head_dim: 31 });
}

#[test]
fn rejects_epsilon() {
    let wrong = [0.0, -0.0, -1e-5, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.000_000_1];
    for epsilon in wrong {
        assert_eq!(refused_config(32, epsilon.to_bits()), ConfigError::Epsilon, "{epsilon}");
    }
    for epsilon in [f32::MIN_POSITIVE, f32::from_bits(1), 1.0] {
        with_word(32, epsilon.to_bits()).open().unwrap();
    }
}

#[test]
fn rejects_token_ids_outside_the_vocabulary() {
    for (field, at) in [("bos_token_id", 36), ("eos_token_id", 40)] {
        for value in [17, 18, u32::MAX - 1] {
            let error = ConfigError::TokenId { field, value, vocab_size: 17 };
            assert_eq!(refused_config(at, value), error);
        }
        with_word(at, 0).open().unwrap();
        with_word(at, 16).open().unwrap();
        // The one value that stands for "none".
        let file = with_word(at, u32::MAX);
        let config = *file.open().unwrap().config();
        let id = if at == 36 { config.bos_token_id } else { config.eos_token_id };
        assert_eq!(id, None);
    }
}

/// `Some` of the value that stands for none cannot be written: it is outside every vocabulary.
#[test]
fn rejects_the_id_that_stands_for_none() {
    let config = Gpt2Config { eos_token_id: Some(u32::MAX), ..tiny::config() };
    let error = ConfigError::TokenId { field: "eos_token_id", value: u32::MAX, vocab_size: 17 };
    assert_eq!(config.validate(), Err(error));
}

#[test]
fn accepts_the_caps() {
    let config = Gpt2Config {
        vocab_size: Gpt2Config::MAX_VOCAB,
        n_ctx: Gpt2Config::MAX_CTX,
        n_embd: Gpt2Config::MAX_EMBD,
        n_layer: Gpt2Config::MAX_LAYER,
        n_head: Gpt2Config::MAX_EMBD / 32,
        n_inner: Gpt2Config::MAX_INNER,
        ..tiny::config()
    };
    assert_eq!(config.validate(), Ok(()));
}
