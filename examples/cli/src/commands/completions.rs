//! `pocketgpt completions`

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Outcome;
use crate::args::Cli;
use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pocketgpt completions bash > ~/.local/share/bash-completion/completions/pocketgpt
  pocketgpt completions fish > ~/.config/fish/completions/pocketgpt.fish")]
pub struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

pub fn run(args: &CompletionsArgs) -> Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pocketgpt", &mut script);
    output::write_bytes(&script)?;
    Ok(Outcome::Done)
}
