//! The tokenizer against golden ids, and against Hugging Face's `tokenizers` on random texts.
//!
//! `POCKETGPT_TOKENIZER_CASES` sets the number of random texts for each vocabulary.

use pocketgpt_runtime::tokenizer::{
    AddedFlags, CapacityError, SpecialTokens, TokenizerBuilder, TokenizerView,
};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};
use tokenizers::Tokenizer;

const END_OF_TEXT: &str = "<|endoftext|>";

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn read(path: &str) -> String {
    let path = root(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn parse(path: &str) -> Value {
    serde_json::from_str(&read(path)).unwrap()
}

/// `tokenizer.json` of the bundled model.
fn bundled() -> Value {
    parse("examples/model/tokenizer.json")
}

/// GPT-2's `vocab.json` and `merges.txt` as a `tokenizer.json`.
fn gpt2() -> Value {
    let merges = read("tests/data/gpt2-tokenizer/merges.txt");
    let merges: Vec<&str> = merges.lines().skip(1).collect();
    let mut json = bundled();
    json["model"]["vocab"] = parse("tests/data/gpt2-tokenizer/vocab.json");
    json["model"]["merges"] = json!(merges);
    json["added_tokens"][0]["id"] = json!(50256);
    json
}

/// The section of a `tokenizer.json`.
fn section(json: &Value) -> Vec<u8> {
    let id = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    let mut builder = TokenizerBuilder::new();
    builder.add_prefix_space(json["pre_tokenizer"]["add_prefix_space"] == true);
    for (token, value) in json["model"]["vocab"].as_object().unwrap() {
        builder.token(token, id(value));
    }
    for merge in json["model"]["merges"].as_array().unwrap() {
        let (left, right) = match merge {
            Value::String(pair) => pair.split_once(' ').unwrap(),
            pair => (pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
        };
        builder.merge(left, right);
    }
    for token in json["added_tokens"].as_array().unwrap() {
        let flags = [
            ("special", AddedFlags::SPECIAL),
            ("single_word", AddedFlags::SINGLE_WORD),
            ("lstrip", AddedFlags::LSTRIP),
            ("rstrip", AddedFlags::RSTRIP),
            ("normalized", AddedFlags::NORMALIZED),
        ]
        .into_iter()
        .filter(|(name, _)| token[name] == true)
        .fold(AddedFlags::default(), |flags, (_, flag)| flags.with(flag));
        builder.added_token(token["content"].as_str().unwrap(), id(&token["id"]), flags);
    }
    builder.build().unwrap()
}

fn judge(json: &Value) -> Tokenizer {
    Tokenizer::from_str(&json.to_string()).unwrap()
}

#[test]
fn golden_ids_and_texts() {
    let sections = [("model", section(&bundled())), ("gpt2", section(&gpt2()))];
    let golden = parse("tests/data/golden/tokenizer.json");
    let mut seen = 0;
    for case in golden["cases"].as_array().unwrap() {
        let (name, section) = (sections.iter())
            .find(|(name, _)| case["tokenizer"] == *name)
            .expect("a known tokenizer");
        let view = TokenizerView::new(section).unwrap();
        let text = case["text"].as_str().unwrap();
        let ids = view.encode_to_vec(text);
        assert_eq!(json!(ids), case["ids"], "{name}: {text:?}");
        assert_eq!(json!(view.decode_to_string(&ids)), case["decoded"], "{name}: {text:?}");
        seen += 1;
    }
    assert_eq!(seen, 62);
}

#[test]
fn sections_are_valid_and_compact() {
    for (name, json, limit) in [("model", bundled(), 120_000), ("gpt2", gpt2(), 1_200_000)] {
        let section = section(&json);
        println!("{name}: {} bytes", section.len());
        assert!(section.len() < limit, "{name}: {} bytes", section.len());
        TokenizerView::new(&section).unwrap().verify().unwrap();
    }
}

#[test]
fn a_megabyte_of_one_letter_takes_no_quadratic_time() {
    let section = section(&gpt2());
    let view = TokenizerView::new(&section).unwrap();
    let text = "a".repeat(1 << 20);
    let start = Instant::now();
    let ids = view.encode_to_vec(&text);
    let elapsed = start.elapsed();
    println!("{} ids in {elapsed:?}", ids.len());
    assert_eq!(view.decode_to_string(&ids), text);
    // Quadratic time would be minutes; a busy machine is allowed for.
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
}

/// Texts that come near the corners of the pattern and of the merges.
struct Texts(Xoshiro256PlusPlus);

impl Texts {
    fn below(&mut self, end: u32) -> u32 {
        // The bias is of no matter here.
        self.0.next_u32() % end
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u32) as usize]
    }

    fn char_in(&mut self, first: u32, last: u32) -> char {
        let code = first + self.below(last - first + 1);
        char::from_u32(code).unwrap_or('\u{FFFD}')
    }

    fn word(&mut self, text: &mut String) {
        const WORDS: &[&str] = &[
            "the",
            "king",
            "and",
            "said",
            "Once",
            "upon",
            "time",
            "princess",
            "un",
            "ing",
            "Ġ",
            "Straße",
            "naïve",
            "école",
            "İstanbul",
            "ﬁ",
            "ǅ",
            "HTTP",
            "snake_case",
            "日本語",
            "Привет",
            "שלום",
            "مرحبا",
            "हिन्दी",
            "e\u{301}",
            "한국어",
            "ไทย",
        ];
        const SPACES: &[char] = &[
            ' ', ' ', ' ', '\n', '\t', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{a0}', '\u{1680}',
            '\u{2003}', '\u{2028}', '\u{2029}', '\u{202f}', '\u{205f}', '\u{3000}',
            // Not white space.
            '\u{180e}', '\u{200b}', '\u{feff}', '\u{1c}', '\0',
        ];
        const CONTRACTIONS: &[&str] =
            &["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'r", "'l", "'v", "'", "''", "’s"];
        const SPECIALS: &[&str] = &[
            END_OF_TEXT,
            "<|endoftext|",
            "|endoftext|>",
            "<",
            "<|",
            "<pad>",
            "<pad",
            "<pad>>",
            "[S]",
            "[SS]",
            "[N]",
            "Day",
            "☃",
            "☃☃",
        ];
        // Letters, digits and marks of many scripts; emoji; private, unassigned and last planes.
        const BLOCKS: &[(u32, u32)] = &[
            (0xa0, 0x24f),
            (0x250, 0x36f),
            (0x370, 0x52f),
            (0x590, 0x6ff),
            (0x900, 0xdff),
            (0x660, 0x669),
            (0x966, 0x96f),
            (0x1d7ce, 0x1d7ff),
            (0x2150, 0x218b),
            (0x2000, 0x20ff),
            (0x2460, 0x24ff),
            (0x3000, 0x30ff),
            (0x4e00, 0x9fff),
            (0xac00, 0xd7a3),
            (0xe000, 0xe0ff),
            (0xfe00, 0xfe0f),
            (0x1f1e6, 0x1f1ff),
            (0x1f300, 0x1faff),
            (0x20000, 0x2ffff),
            (0xe0000, 0xe01ff),
            (0x10fff0, 0x10ffff),
            (0x10000, 0x1ffff),
            (0, 0x10ffff),
        ];
        match self.below(20) {
            0..=4 => text.push_str(self.pick(WORDS)),
            5..=7 => {
                for _ in 0..=self.below(4) {
                    text.push(self.pick(SPACES));
                }
            }
            8 => text.push_str(self.pick(CONTRACTIONS)),
            9..=12 => {
                for _ in 0..=self.below(6) {
                    text.push(self.char_in(0x20, 0x7e));
                }
            }
            13 | 14 => {
                for _ in 0..=self.below(8) {
                    text.push(self.char_in(u32::from('a'), u32::from('z')));
                }
            }
            15 => {
                for _ in 0..=self.below(5) {
                    text.push(self.char_in(u32::from('0'), u32::from('9')));
                }
            }
            16 => text.push_str(self.pick(SPECIALS)),
            17 => {
                let c = self.char_in(0x20, 0x2ff);
                text.extend(std::iter::repeat_n(c, self.below(30) as usize));
            }
            _ => {
                let (first, last) = self.pick(BLOCKS);
                for _ in 0..=self.below(4) {
                    text.push(self.char_in(first, last));
                }
            }
        }
        if self.below(2) == 0 {
            text.push(' ');
        }
    }

    fn next(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..self.below(14) {
            self.word(&mut text);
        }
        text
    }
}

/// Compares ids and decoded text on random texts.
fn compare(name: &str, json: &Value, seed: u64, cases: usize) {
    let section = section(json);
    let view = TokenizerView::new(&section).unwrap();
    view.verify().unwrap();
    let judge = judge(json);
    let mut texts = Texts(Xoshiro256PlusPlus::seed_from_u64(seed));
    for case in 0..cases {
        let text = texts.next();
        let wanted = judge.encode_fast(text.as_str(), false).unwrap();
        let found = view.encode_to_vec(&text);
        assert_eq!(found, wanted.get_ids(), "{name}, case {case}: {text:?}");
        // The judge decodes added tokens through the byte alphabet where it can, we give their
        // content: the same for the contents of these tests, ASCII or outside of the alphabet.
        let wanted = judge.decode(&found, false).unwrap();
        assert_eq!(view.decode_to_string(&found), wanted, "{name}, case {case}: {text:?}");
    }
    println!("{name}: {cases} texts agree");
}

fn cases(default: usize) -> usize {
    match std::env::var("POCKETGPT_TOKENIZER_CASES") {
        Ok(value) => value.parse().unwrap(),
        Err(_) => default,
    }
}

#[test]
fn agrees_with_the_reference_on_the_bundled_vocabulary() {
    compare("model", &bundled(), 1, cases(20_000));
}

#[test]
fn agrees_with_the_reference_on_the_vocabulary_of_gpt2() {
    compare("gpt2", &gpt2(), 2, cases(20_000));
}

/// Every character, most unassigned ones too, between letters, digits and spaces.
#[test]
fn agrees_with_the_reference_on_every_character() {
    let json = bundled();
    let section = section(&json);
    let view = TokenizerView::new(&section).unwrap();
    let judge = judge(&json);
    let characters: Vec<char> = ('\0'..='\u{10ffff}')
        // Planes 4 to 13 are empty; a part of them will do.
        .filter(|&c| !('\u{41000}'..'\u{d0000}').contains(&c))
        .collect();
    for chunk in characters.chunks(64) {
        let text: String = chunk.iter().flat_map(|&c| ['a', c, '1', c, ' ', c]).collect();
        let wanted = judge.encode_fast(text.as_str(), false).unwrap();
        assert_eq!(view.encode_to_vec(&text), wanted.get_ids(), "{text:?}");
    }
}

/// All ways to match an added token, with and without a space before the text.
#[test]
fn agrees_with_the_reference_on_added_tokens() {
    let mut json = bundled();
    let token = |id: u32, content: &str, flags: &[&str]| {
        let mut token = json!({ "id": id, "content": content });
        for name in ["special", "single_word", "lstrip", "rstrip", "normalized"] {
            token[name] = json!(flags.contains(&name));
        }
        token
    };
    let added = [
        token(4096, "<pad>", &["special", "lstrip"]),
        token(4097, "[S]", &["special", "rstrip", "normalized"]),
        token(4098, "[SS]", &["lstrip", "rstrip"]),
        token(4099, "[N]", &["normalized"]),
        token(4100, "Day", &["single_word"]),
        token(4101, "pad", &["normalized", "single_word"]),
        token(4102, "☃", &["special"]),
        token(4103, "☃☃", &["special", "single_word"]),
        token(4104, "\t", &["normalized"]),
        token(4105, "<|", &[]),
    ];
    json["added_tokens"].as_array_mut().unwrap().extend(added);
    for (prefix, seed) in [(false, 3), (true, 4)] {
        json["pre_tokenizer"]["add_prefix_space"] = json!(prefix);
        compare("added tokens", &json, seed, cases(5_000));
    }
}

/// Texts in which special tokens are not looked for.
#[test]
fn agrees_with_the_reference_on_plain_text() {
    let json = bundled();
    let section = section(&json);
    let view = TokenizerView::new(&section).unwrap();
    let mut judge = judge(&json);
    judge.set_encode_special_tokens(true);
    for text in [END_OF_TEXT, "a<|endoftext|>b", "  <|endoftext|>  <|endoftext|>\n"] {
        let wanted = judge.encode_fast(text, false).unwrap();
        let mut scratch = vec![0; view.scratch_len(text)];
        let mut found = Vec::new();
        view.encode_with(text, SpecialTokens::Plain, &mut scratch, |id, _| {
            found.push(id);
            Ok::<(), CapacityError>(())
        })
        .unwrap();
        assert_eq!(found, wanted.get_ids(), "{text:?}");
    }
}
