//! What can be changed while the program runs: `/set`.

use std::fmt::Write;

use anyhow::{Result, anyhow, bail};
use clap::builder::Resettable;
use clap::{ArgAction, Args, Command, FromArgMatches, value_parser};
use pocketgpt_runtime::Overflow;
use pocketgpt_runtime::decoding::{DecodingOptions, Strategy};
use pocketgpt_runtime::workspace::SessionOptions;

use crate::args::UsageError;
use crate::decoding::{Decoding, DecodingArgs};
use crate::model::Model;

/// Options of an answer.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// Most tokens of an answer
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    pub max_new_tokens: usize,
    /// Stop an answer before this text (can be given several times)
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub stop: Vec<String>,
    /// Go on where the model ends its text
    #[arg(long)]
    pub ignore_eos: bool,
    #[command(flatten)]
    pub decoding: DecodingArgs,
    /// What the session was begun with.
    #[arg(skip)]
    pub overflow: Overflow,
}

impl Settings {
    /// How tokens are chosen; an error if options are out of range or make no sense together.
    pub fn resolve(&self, model: &Model) -> Result<Decoding> {
        let config = *model.weights()?.config();
        let decoding = self.decoding.resolve(model, &config, self.max_new_tokens, self.overflow)?;
        if decoding.with_options(|options| options.num_return_sequences) > 1 {
            let text = "--num-return-sequences: a conversation has one text".into();
            return Err(UsageError::conflict(text).into());
        }
        Ok(decoding)
    }

    /// [`Settings::resolve`], in the session that there is.
    pub fn resolve_within(&self, model: &Model, session: &SessionOptions) -> Result<Decoding> {
        let decoding = self.resolve(model)?;
        let n_ctx = model.weights()?.config().n_ctx as usize;
        let needed = decoding.with_options(|options| options.session_options(session, n_ctx));
        let fits = needed.branches <= session.branches
            && needed.branch_slots <= session.branch_slots
            && needed.logit_rows <= session.logit_rows;
        if !fits {
            bail!("the program began without the memory for this; begin it with these options");
        }
        Ok(decoding)
    }

    /// Takes `NAME VALUE`, the name as on the command line. Nothing changes if there is an error.
    pub fn set(&mut self, assignment: &str, model: &Model, session: &SessionOptions) -> Result<()> {
        let separator = |c: char| c.is_whitespace() || c == '=';
        let (name, value) = assignment.split_once(separator).unwrap_or((assignment, ""));
        let (name, value) = (name.trim_start_matches('-').replace('_', "-"), value.trim());
        let known = command();
        if !known.get_arguments().any(|arg| arg.get_long() == Some(&name)) {
            let names: Vec<&str> = known.get_arguments().filter_map(|arg| arg.get_long()).collect();
            bail!("/set {name}: there is no such option; there are {}", names.join(", "));
        }
        if value.is_empty() {
            bail!("/set {name}: give a value behind the name");
        }
        let matches = known.try_get_matches_from([format!("--{name}={value}")]);
        let matches = matches.map_err(|error| {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            anyhow!("/set {name}: {}", line.trim_start_matches("error: "))
        })?;
        let mut changed = self.clone();
        changed.update_from_arg_matches(&matches)?;
        changed.resolve_within(model, session).map_err(|error| anyhow!("/set {name}: {error}"))?;
        *self = changed;
        Ok(())
    }

    /// The options as they are, those of the model file included.
    pub fn describe(&self, model: &Model) -> Result<String> {
        let mut text = format!("max-new-tokens {}, ", self.max_new_tokens);
        self.resolve(model)?.with_options(|options| describe(options, &mut text));
        let _ = write!(
            text,
            ", seed {}, ignore-eos {}",
            self.decoding.seed.unwrap_or_default(),
            self.ignore_eos
        );
        for stop in &self.stop {
            let _ = write!(text, ", stop {stop:?}");
        }
        Ok(text)
    }
}

fn describe(options: &DecodingOptions<'_>, text: &mut String) {
    // Writing to a string cannot fail.
    let _ = match options.strategy {
        Strategy::Greedy => write!(text, "strategy greedy"),
        Strategy::Sample(o) => write!(
            text,
            "strategy sample, temperature {}, top-k {}, top-p {}, min-p {}, typical-p {}",
            o.temperature, o.top_k, o.top_p, o.min_p, o.typical_p
        ),
        Strategy::Beam(o) => write!(
            text,
            "strategy beam, num-beams {}, length-penalty {}, early-stopping {}",
            o.num_beams,
            o.length_penalty,
            format!("{:?}", o.early_stopping).to_lowercase()
        ),
        Strategy::Contrastive(o) => write!(
            text,
            "strategy contrastive, penalty-alpha {}, top-k {}",
            o.penalty_alpha, o.top_k
        ),
    };
    let _ = write!(
        text,
        ", repetition-penalty {}, no-repeat-ngram-size {}, min-new-tokens {}, prompt-lookup {}",
        options.repetition_penalty,
        options.no_repeat_ngram_size,
        options.min_new_tokens,
        options.prompt_lookup_num_tokens
    );
    for bias in options.sequence_bias {
        let ids: Vec<String> = bias.tokens.iter().map(u32::to_string).collect();
        let _ = write!(text, ", logit-bias {}={}", ids.join(","), bias.bias);
    }
}

/// The options as a command line of their own, in which only what is given counts.
fn command() -> Command {
    let command = Settings::augment_args_for_update(Command::new("/set"));
    command.no_binary_name(true).disable_help_flag(true).mut_args(|arg| {
        // Switches take their value as the other options do.
        let arg = match arg.get_action() {
            ArgAction::SetTrue => {
                arg.action(ArgAction::Set).num_args(1).value_parser(value_parser!(bool))
            }
            _ => arg,
        };
        arg.default_value(Resettable::Reset)
    })
}

#[cfg(all(test, feature = "embedded-model"))]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::ModelArgs;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn settings(args: &[&str]) -> Settings {
        Line::parse_from([&["x"], args].concat()).settings
    }

    #[test]
    fn one_option_changes_and_the_others_stay() {
        let model = Model::open(&ModelArgs::default()).unwrap();
        let mut found =
            settings(&["-n", "7", "--strategy", "greedy", "--ignore-eos", "--logit-bias", "5=-1"]);
        let session = SessionOptions::new(model.weights().unwrap().config());
        let mut set = |assignment| found.set(assignment, &model, &session);
        // Greedy decoding has no temperature.
        assert!(set("temperature 0.5").unwrap_err().to_string().contains("--strategy sample"));
        set("strategy sample").unwrap();
        set("temperature 0.5").unwrap();
        set("--top_p=0.9").unwrap();
        assert_eq!((found.max_new_tokens, found.ignore_eos), (7, true));
        assert_eq!(
            found.describe(&model).unwrap(),
            "max-new-tokens 7, strategy sample, temperature 0.5, top-k 40, top-p 0.9, min-p 0, \
             typical-p 1, repetition-penalty 1, no-repeat-ngram-size 0, min-new-tokens 0, \
             prompt-lookup 0, logit-bias 5=-1, seed 0, ignore-eos true"
        );
        found.set("ignore-eos false", &model, &session).unwrap();
        found.set("stop a b", &model, &session).unwrap();
        assert!(!found.ignore_eos);
        assert_eq!(found.stop, ["a b"]);
    }

    #[test]
    fn errors_name_the_option_and_change_nothing() {
        let model = Model::open(&ModelArgs::default()).unwrap();
        let session = SessionOptions::new(model.weights().unwrap().config());
        let mut found = settings(&[]);
        let before = found.describe(&model).unwrap();
        for (assignment, cause) in [
            ("temperature 0", "a number above 0"),
            ("temperature", "give a value"),
            ("strategy beam-me-up", "invalid value"),
            ("warmth 3", "there are max-new-tokens, stop,"),
            ("repetition-penalty 1000", "0.01 to 100"),
            ("num-return-sequences 2", "one text"),
            ("num-beams 2", "without the memory for this"),
        ] {
            let error = found.set(assignment, &model, &session).unwrap_err().to_string();
            assert!(error.contains(cause) && !error.contains('\n'), "{error}");
        }
        assert_eq!(found.describe(&model).unwrap(), before);
    }
}
