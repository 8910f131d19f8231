//! What happens to texts that are longer than the model's context: options of the commands that
//! write or read such.

use anyhow::Result;
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use pocketgpt_runtime::Overflow;
use pocketgpt_runtime::workspace::SessionOptions;

use crate::args::{UsageError, number};

#[derive(Clone, Copy, Debug, Default, Args)]
#[command(next_help_heading = "Long texts")]
pub struct ContextArgs {
    /// What happens when all positions of the model are used
    #[arg(long, default_value = "stop", value_parser = overflow())]
    pub overflow: Overflow,
    /// Last tokens of the text that --overflow goes on with, behind those of --keep [default: half
    /// of the positions that --keep leaves]
    #[arg(long, value_name = "N", value_parser = number(usize::MAX))]
    pub tail: Option<usize>,
}

/// Reads the name of a policy.
fn overflow() -> impl TypedValueParser<Value = Overflow> {
    let values = Overflow::ALL.map(|overflow| {
        PossibleValue::new(overflow.name()).help(match overflow {
            Overflow::Stop => "The text ends",
            Overflow::Refill => "Go on from the text's beginning and end, read again: a pause",
            Overflow::Shadow => "The same without the pause, for twice the cache and some speed",
        })
    });
    PossibleValuesParser::new(values).map(|name| {
        let found = Overflow::ALL.into_iter().find(|overflow| overflow.name() == name);
        found.expect("one of the possible values")
    })
}

impl ContextArgs {
    /// # Errors
    /// If options make no sense together.
    pub fn check(&self) -> Result<()> {
        if self.tail.is_some() && self.overflow == Overflow::Stop {
            let text = "--tail works with --overflow refill or shadow, not with stop";
            return Err(UsageError::conflict(text.into()).into());
        }
        Ok(())
    }

    /// What is not said here is as it was said in `earlier`.
    pub fn or(self, earlier: Self) -> Self {
        let same = self.overflow == Overflow::Stop || self.overflow == earlier.overflow;
        if same { Self { tail: self.tail.or(earlier.tail), ..earlier } } else { self }
    }

    /// A session that does so.
    pub fn apply(&self, options: SessionOptions) -> SessionOptions {
        SessionOptions { overflow: self.overflow, tail: self.tail, ..options }
    }
}
