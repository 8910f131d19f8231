//! How texts are to be written: the options of `generate` and `plan`, and what they ask for.

use std::str::FromStr;

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use pocketgpt_runtime::Overflow;
use pocketgpt_runtime::config::Gpt2Config;
use pocketgpt_runtime::decoding::{
    BeamOptions, ContrastiveOptions, DecodingError, DecodingOptions, EarlyStopping,
    SamplingOptions, SequenceBias, Strategy,
};
use pocketgpt_runtime::workspace::SessionOptions;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::args::{UsageError, number};
use crate::model::Model;

#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Choosing tokens")]
#[serde(default, deny_unknown_fields)]
pub struct DecodingArgs {
    /// How tokens are chosen [default: beam with --num-beams, contrastive with --penalty-alpha,
    /// else sample]
    #[arg(long, value_enum)]
    strategy: Option<StrategyName>,
    /// Below 1 more predictable, above 1 less
    #[arg(long, value_name = "T", value_parser = positive)]
    temperature: Option<f32>,
    /// Choose among the K most probable tokens; 0: among all. With contrastive search the number
    /// of candidates [default there: 4]
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Choose among the most probable tokens that together reach P; 1: among all
    #[arg(long, value_name = "P", value_parser = share_above_zero)]
    top_p: Option<f32>,
    /// Leave out tokens less probable than P times the most probable one; 0: none
    #[arg(long, value_name = "P", value_parser = share)]
    min_p: Option<f32>,
    /// Choose among the tokens that are about as surprising as is to be expected, which together
    /// reach P; 1: among all
    #[arg(long, value_name = "P", value_parser = share_above_zero)]
    typical_p: Option<f32>,
    /// Above 1: tokens that are in the text already become less probable
    #[arg(long, value_name = "R", value_parser = penalty)]
    repetition_penalty: Option<f32>,
    /// No N tokens in a row occur twice; 0: they may
    #[arg(long, value_name = "N")]
    no_repeat_ngram_size: Option<usize>,
    /// The text does not end before it has N new tokens [default: 0]
    #[arg(long, value_name = "N")]
    min_new_tokens: Option<usize>,
    /// Make a token more (above 0) or less probable, as `198=-2`, or impossible, as `198=-inf`;
    /// with several ids the last one, where the others stand before it (can be given several times)
    #[arg(long, alias = "sequence-bias", value_name = "ID[,ID…]=B", allow_hyphen_values = true)]
    logit_bias: Vec<Bias>,
    /// Beam search: texts that are written side by side [default: 4]
    #[arg(long, value_name = "B", value_parser = number(SessionOptions::MAX_BRANCHES))]
    num_beams: Option<usize>,
    /// Beam search: above 0 longer texts win, below 0 shorter ones [default: 1]
    #[arg(long, value_name = "L", value_parser = length_penalty, allow_hyphen_values = true)]
    length_penalty: Option<f32>,
    /// Beam search: stop when as many texts as beams have ended (true), when no text of the present
    /// length could be better (false), or when none at all could (never) [default: false]
    #[arg(long, value_enum)]
    early_stopping: Option<EarlyStoppingName>,
    /// Contrastive search: how much a token must differ from the text, above 0 to 1 [default: 0.6]
    #[arg(long, value_name = "A", value_parser = share_above_zero)]
    penalty_alpha: Option<f32>,
    /// How many texts: drawn independently, or the best of a beam search
    #[arg(long, value_name = "N", value_parser = number(SessionOptions::MAX_BRANCHES))]
    num_return_sequences: Option<usize>,
    /// Guess up to N tokens at once from what is repeated in the text, which changes only the speed;
    /// 0: do not [default: 0]
    #[arg(long, value_name = "N", value_parser = zero_to(DecodingOptions::MAX_PROMPT_LOOKUP))]
    prompt_lookup: Option<usize>,
    /// Number that the random choices follow from [default: a random one, told at the end]
    #[arg(long, value_name = "S")]
    #[serde(skip)]
    pub seed: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StrategyName {
    /// Always the most probable token
    Greedy,
    /// Drawn at random, by probability
    Sample,
    /// The most probable of several texts written side by side
    Beam,
    /// Probable, and unlike what has been written
    Contrastive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EarlyStoppingName {
    True,
    False,
    Never,
}

/// `ID[,ID…]=BIAS`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Bias {
    tokens: Vec<u32>,
    bias: f32,
}

impl From<Bias> for String {
    fn from(Bias { tokens, bias }: Bias) -> Self {
        let ids: Vec<Self> = tokens.iter().map(u32::to_string).collect();
        format!("{}={bias}", ids.join(","))
    }
}

impl TryFrom<String> for Bias {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Bias {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (ids, bias) = text.split_once('=')?;
            let tokens = ids.split(',').map(|id| id.trim().parse().ok()).collect::<Option<_>>()?;
            let bias: f32 = bias.trim().parse().ok()?;
            (bias.abs() <= 1e6 || bias == f32::NEG_INFINITY).then_some(Self { tokens, bias })
        };
        parse().ok_or_else(|| {
            "expected token ids and a number, as 198=-2.5 or 12,198=-inf; \
             pocketgpt tokenize shows the ids of a text"
                .into()
        })
    }
}

fn decimal(text: &str, ok: impl Fn(f32) -> bool, expected: &str) -> Result<f32, String> {
    text.parse().ok().filter(|&x| ok(x)).ok_or_else(|| format!("expected {expected}"))
}

fn positive(text: &str) -> Result<f32, String> {
    decimal(text, |x| x > 0.0 && x.is_finite(), "a number above 0")
}

fn share(text: &str) -> Result<f32, String> {
    decimal(text, |x| (0.0..=1.0).contains(&x), "a number from 0 to 1")
}

fn share_above_zero(text: &str) -> Result<f32, String> {
    decimal(text, |x| x > 0.0 && x <= 1.0, "a number above 0, at most 1")
}

fn penalty(text: &str) -> Result<f32, String> {
    decimal(text, |x| (0.01..=100.0).contains(&x), "a number from 0.01 to 100")
}

fn length_penalty(text: &str) -> Result<f32, String> {
    decimal(text, |x| (-10.0..=10.0).contains(&x), "a number from -10 to 10")
}

fn zero_to(max: usize) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    move |text| {
        let n = text.parse().ok().filter(|n| (0..=max).contains(n));
        n.ok_or_else(|| format!("expected a whole number from 0 to {max}"))
    }
}

/// What the command line and the model file ask for; [`Decoding::options`] borrows from it.
#[derive(Debug)]
pub struct Decoding {
    options: DecodingOptions<'static>,
    biases: Vec<Bias>,
}

impl StrategyName {
    fn flag(self) -> &'static str {
        match self {
            Self::Greedy => "greedy",
            Self::Sample => "sample",
            Self::Beam => "beam",
            Self::Contrastive => "contrastive",
        }
    }
}

impl DecodingArgs {
    /// The strategy that is asked for, by its name or by an option that has no other meaning.
    fn asked_for(&self) -> Option<StrategyName> {
        let beam = self.num_beams.map(|_| StrategyName::Beam);
        let contrastive = self.penalty_alpha.map(|_| StrategyName::Contrastive);
        self.strategy.or(beam).or(contrastive)
    }

    fn strategy_name(&self) -> StrategyName {
        self.asked_for().unwrap_or(StrategyName::Sample)
    }

    /// Whether one text is written, token by token.
    pub fn writes_one_text(&self) -> bool {
        let strategy = self.strategy_name();
        matches!(strategy, StrategyName::Greedy | StrategyName::Sample)
            && self.num_return_sequences.is_none_or(|n| n == 1)
    }

    /// What is not given here is as it was given in `earlier`; what belongs to a strategy, only if
    /// no other one is asked for.
    pub fn or(self, earlier: Self) -> Self {
        let same = self.asked_for().is_none_or(|name| name == earlier.strategy_name());
        let of_strategy = if same { earlier.clone() } else { Self::default() };
        let biases = if self.logit_bias.is_empty() { earlier.logit_bias } else { self.logit_bias };
        Self {
            strategy: self.strategy.or(of_strategy.strategy),
            temperature: self.temperature.or(of_strategy.temperature),
            top_k: self.top_k.or(of_strategy.top_k),
            top_p: self.top_p.or(of_strategy.top_p),
            min_p: self.min_p.or(of_strategy.min_p),
            typical_p: self.typical_p.or(of_strategy.typical_p),
            repetition_penalty: self.repetition_penalty.or(earlier.repetition_penalty),
            no_repeat_ngram_size: self.no_repeat_ngram_size.or(earlier.no_repeat_ngram_size),
            min_new_tokens: self.min_new_tokens.or(earlier.min_new_tokens),
            logit_bias: biases,
            num_beams: self.num_beams.or(of_strategy.num_beams),
            length_penalty: self.length_penalty.or(of_strategy.length_penalty),
            early_stopping: self.early_stopping.or(of_strategy.early_stopping),
            penalty_alpha: self.penalty_alpha.or(of_strategy.penalty_alpha),
            num_return_sequences: self.num_return_sequences.or(of_strategy.num_return_sequences),
            prompt_lookup: self.prompt_lookup.or(of_strategy.prompt_lookup),
            seed: self.seed.or(earlier.seed),
        }
    }

    /// # Errors
    /// If an option has no meaning with the strategy.
    fn refuse_meaningless(&self) -> Result<(), UsageError> {
        use StrategyName::{Beam, Contrastive, Greedy, Sample};
        let strategy = self.strategy_name();
        let several = self.num_return_sequences.is_some_and(|n| n > 1);
        for (given, flag, with) in [
            (self.temperature.is_some(), "--temperature", &[Sample][..]),
            (self.top_k.is_some(), "--top-k", &[Sample, Contrastive]),
            (self.top_p.is_some(), "--top-p", &[Sample]),
            (self.min_p.is_some(), "--min-p", &[Sample]),
            (self.typical_p.is_some(), "--typical-p", &[Sample]),
            (self.num_beams.is_some(), "--num-beams", &[Beam]),
            (self.length_penalty.is_some(), "--length-penalty", &[Beam]),
            (self.early_stopping.is_some(), "--early-stopping", &[Beam]),
            (self.penalty_alpha.is_some(), "--penalty-alpha", &[Contrastive]),
            (several, "--num-return-sequences", &[Sample, Beam]),
            (self.prompt_lookup.is_some_and(|n| n > 0), "--prompt-lookup", &[Greedy, Sample]),
        ] {
            if given && !with.contains(&strategy) {
                let names: Vec<&str> = with.iter().map(|name| name.flag()).collect();
                let (names, strategy) = (names.join(" or "), strategy.flag());
                return Err(UsageError::conflict(format!(
                    "{flag} works with --strategy {names}, not with {strategy}"
                )));
            }
        }
        Ok(())
    }

    /// What the options ask for; those that are not given the model file's `generation_config.json`
    /// may say.
    ///
    /// # Errors
    /// A [`UsageError`] if they make no sense together; another if the model file's values are out of
    /// range.
    pub fn resolve(
        &self,
        model: &Model,
        config: &Gpt2Config,
        max_new_tokens: usize,
        overflow: Overflow,
    ) -> Result<Decoding> {
        self.refuse_meaningless()?;
        let most = DecodingOptions::MAX_NEW_TOKENS;
        if overflow != Overflow::Stop && max_new_tokens > most {
            let text = format!("--max-new-tokens {max_new_tokens}: with --overflow at most {most}");
            return Err(UsageError::value(text).into());
        }
        let metadata = model.metadata()?;
        let file = Defaults(&metadata["generation"]);
        let strategy = match self.strategy_name() {
            StrategyName::Greedy => Strategy::Greedy,
            StrategyName::Sample => Strategy::Sample(self.sampling(&file)),
            StrategyName::Beam => Strategy::Beam(self.beam(&file)),
            StrategyName::Contrastive => Strategy::Contrastive(ContrastiveOptions {
                penalty_alpha: self.penalty_alpha.or(file.number("penalty_alpha")).unwrap_or(0.6),
                top_k: self.top_k.map_or(4, |k| k as usize),
            }),
        };
        let penalty = self.repetition_penalty.or(file.number("repetition_penalty"));
        let ngram = self.no_repeat_ngram_size.or(file.count("no_repeat_ngram_size"));
        let options = DecodingOptions {
            strategy,
            max_new_tokens,
            min_new_tokens: self.min_new_tokens.unwrap_or(0),
            num_return_sequences: self.num_return_sequences.unwrap_or(1),
            repetition_penalty: penalty.unwrap_or(1.0),
            no_repeat_ngram_size: ngram.unwrap_or(0),
            prompt_lookup_num_tokens: self.prompt_lookup.unwrap_or(0),
            overflow,
            seed: self.seed.unwrap_or(0),
            ..DecodingOptions::new(config)
        };
        for id in self.logit_bias.iter().flat_map(|bias| &bias.tokens) {
            let last = config.vocab_size - 1;
            if *id > last {
                let text = format!("--logit-bias {id}: the model has the tokens 0 to {last}");
                return Err(UsageError::value(text).into());
            }
        }
        match options.validate() {
            Ok(()) => Ok(Decoding { options, biases: self.logit_bias.clone() }),
            Err(error @ DecodingError::Conflict { .. }) => {
                Err(UsageError::conflict(as_flags(&error)).into())
            }
            Err(error) => Err(anyhow!("{}: {error}; give the option yourself", model.name())),
        }
    }

    fn sampling(&self, file: &Defaults<'_>) -> SamplingOptions {
        let top_k = file.count("top_k").and_then(|k| u32::try_from(k).ok());
        SamplingOptions {
            temperature: self.temperature.or(file.number("temperature")).unwrap_or(0.8),
            top_k: self.top_k.or(top_k).unwrap_or(40),
            top_p: self.top_p.or(file.number("top_p")).unwrap_or(1.0),
            min_p: self.min_p.or(file.number("min_p")).unwrap_or(0.0),
            typical_p: self.typical_p.or(file.number("typical_p")).unwrap_or(1.0),
        }
    }

    fn beam(&self, file: &Defaults<'_>) -> BeamOptions {
        let early_stopping = match self.early_stopping {
            Some(EarlyStoppingName::True) => EarlyStopping::True,
            Some(EarlyStoppingName::False) => EarlyStopping::False,
            Some(EarlyStoppingName::Never) => EarlyStopping::Never,
            None => file.early_stopping(),
        };
        let length_penalty = self.length_penalty.or(file.number("length_penalty"));
        BeamOptions {
            num_beams: self.num_beams.or(file.beams()).unwrap_or(4),
            length_penalty: length_penalty.unwrap_or(1.0),
            early_stopping,
        }
    }
}

/// An error that names options, naming flags.
fn as_flags(error: &DecodingError) -> String {
    let mut text = error.to_string();
    for (name, flag) in [
        ("num_return_sequences", "--num-return-sequences"),
        ("prompt_lookup_num_tokens", "--prompt-lookup"),
        ("min_new_tokens", "--min-new-tokens"),
        ("max_new_tokens", "--max-new-tokens"),
        ("num_beams", "--num-beams"),
        ("sequence_bias", "--logit-bias"),
        ("overflow", "--overflow"),
    ] {
        text = text.replace(name, flag);
    }
    text
}

/// The model file's `generation_config.json`.
struct Defaults<'a>(&'a Value);

impl Defaults<'_> {
    fn number(&self, key: &str) -> Option<f32> {
        self.0[key].as_f64().map(|x| x as f32)
    }

    fn count(&self, key: &str) -> Option<usize> {
        self.0[key].as_u64().and_then(|n| usize::try_from(n).ok())
    }

    /// One beam is transformers' way to say that there is no beam search.
    fn beams(&self) -> Option<usize> {
        self.count("num_beams").filter(|&n| n > 1)
    }

    fn early_stopping(&self) -> EarlyStopping {
        match &self.0["early_stopping"] {
            Value::Bool(true) => EarlyStopping::True,
            Value::String(text) if text == "never" => EarlyStopping::Never,
            _ => EarlyStopping::False,
        }
    }
}

impl Decoding {
    /// What `generate` does where nothing is asked for, as far as memory goes.
    pub fn standard(config: &Gpt2Config, max_new_tokens: usize) -> Self {
        let strategy = Strategy::Sample(SamplingOptions::default());
        let options = DecodingOptions { strategy, max_new_tokens, ..DecodingOptions::new(config) };
        Self { options, biases: Vec::new() }
    }

    /// Calls `f` with the options, which borrow from this.
    pub fn with_options<T>(&self, f: impl FnOnce(&DecodingOptions<'_>) -> T) -> T {
        let biases: Vec<SequenceBias<'_>> = self
            .biases
            .iter()
            .map(|Bias { tokens, bias }| SequenceBias { tokens, bias: *bias })
            .collect();
        f(&DecodingOptions { sequence_bias: &biases, ..self.options })
    }

    /// The strategy's name.
    pub fn strategy(&self) -> &'static str {
        match self.options.strategy {
            Strategy::Greedy => "greedy",
            Strategy::Sample(_) => "sample",
            Strategy::Beam(_) => "beam",
            Strategy::Contrastive(_) => "contrastive",
        }
    }

    /// What the strategy writes side by side, for people; nothing where it is one text.
    pub fn side_by_side(&self) -> Option<String> {
        let options = &self.options;
        match options.strategy {
            Strategy::Beam(beam) => Some(crate::units::count(beam.num_beams, "beam")),
            Strategy::Contrastive(contrastive) => {
                Some(crate::units::count(contrastive.top_k, "candidate"))
            }
            Strategy::Sample(_) if options.num_return_sequences > 1 => {
                Some(crate::units::count(options.num_return_sequences, "sequence"))
            }
            _ => None,
        }
    }
}
