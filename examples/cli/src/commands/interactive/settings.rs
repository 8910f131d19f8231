//! What can be changed while the program runs: `/set`.

use std::fmt::Write;

use anyhow::{Result, anyhow, bail};
use clap::builder::Resettable;
use clap::{ArgAction, Args, Command, FromArgMatches, value_parser};
use pocketgpt_runtime::sampling::{Sampler, Strategy};

use crate::commands::generate::{SamplingArgs, strategy};
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
    pub sampling: SamplingArgs,
}

impl Settings {
    /// How tokens are chosen, and the repetition penalty; an error if an option is out of range.
    pub fn strategy(&self, model: &Model) -> Result<(Strategy, f32)> {
        let (strategy, penalty) = strategy(&self.sampling, model)?;
        Sampler::new(strategy, penalty, 0, &mut [], &mut [])?;
        Ok((strategy, penalty))
    }

    /// Takes `NAME VALUE`, the name as on the command line. Nothing changes if there is an error.
    pub fn set(&mut self, assignment: &str, model: &Model) -> Result<()> {
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
        changed.strategy(model)?;
        *self = changed;
        Ok(())
    }

    /// The options as they are, those of the model file included.
    pub fn describe(&self, model: &Model) -> Result<String> {
        let (strategy, penalty) = self.strategy(model)?;
        let mut text = format!("max-new-tokens {}, ", self.max_new_tokens);
        // Writing to a string cannot fail.
        let _ = match strategy {
            Strategy::Greedy => write!(text, "strategy greedy"),
            Strategy::Sample(o) => write!(
                text,
                "strategy sample, temperature {}, top-k {}, top-p {}, min-p {}",
                o.temperature, o.top_k, o.top_p, o.min_p
            ),
        };
        let _ = write!(
            text,
            ", repetition-penalty {penalty}, seed {}, ignore-eos {}",
            self.sampling.seed.unwrap_or_default(),
            self.ignore_eos
        );
        for stop in &self.stop {
            let _ = write!(text, ", stop {stop:?}");
        }
        Ok(text)
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
        let model = Model::open(&ModelArgs { model: None }).unwrap();
        let mut found =
            settings(&["-n", "7", "--top-k", "3", "--strategy", "greedy", "--ignore-eos"]);
        found.set("temperature 0.5", &model).unwrap();
        found.set("--top_p=0.9", &model).unwrap();
        found.set("strategy sample", &model).unwrap();
        assert_eq!((found.max_new_tokens, found.ignore_eos), (7, true));
        assert_eq!(
            found.describe(&model).unwrap(),
            "max-new-tokens 7, strategy sample, temperature 0.5, top-k 3, top-p 0.9, min-p 0, \
             repetition-penalty 1, seed 0, ignore-eos true"
        );
        found.set("ignore-eos false", &model).unwrap();
        found.set("stop a b", &model).unwrap();
        assert!(!found.ignore_eos);
        assert_eq!(found.stop, ["a b"]);
    }

    #[test]
    fn errors_name_the_option_and_change_nothing() {
        let model = Model::open(&ModelArgs { model: None }).unwrap();
        let mut found = settings(&[]);
        let before = found.describe(&model).unwrap();
        for (assignment, cause) in [
            ("temperature 0", "a number above 0"),
            ("temperature", "give a value"),
            ("strategy beam-me-up", "invalid value"),
            ("warmth 3", "there are max-new-tokens, stop,"),
            ("repetition-penalty 1000", "0.01 to 100"),
        ] {
            let error = found.set(assignment, &model).unwrap_err().to_string();
            assert!(error.contains(cause) && !error.contains('\n'), "{error}");
        }
        assert_eq!(found.describe(&model).unwrap(), before);
    }
}
