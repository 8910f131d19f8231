//! `pocketgpt interactive`

mod conversation;
mod lines;
mod settings;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use pocketgpt_runtime::workspace::SessionOptions;

use self::conversation::{Answer, Conversation};
use self::lines::{Line, Lines};
use self::settings::Settings;
use super::Outcome;
use super::generate::{StopReason, random_seed};
use crate::args::{ModelArgs, RunArgs};
use crate::context::ContextArgs;
use crate::engine::Engine;
use crate::model::Model;
use crate::{input, interrupt, machine, output, units};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pocketgpt interactive
  pocketgpt interactive -m gpt2.pgpt -n 60 --temperature 0.7 --history ~/.pocketgpt_history
  pocketgpt interactive --overflow shadow --keep 20
  pocketgpt interactive -m dialogpt.pgpt --in-prefix \"\" --in-suffix \"<|endoftext|>\"
  printf 'Once upon a time\\nThe queen said\\n' | pocketgpt interactive --seed 1 --quiet

Every line goes on with the text, and the model continues it; an empty line lets it write on. Ctrl-C
stops the answer, Ctrl-D or /quit ends the program. /help tells the commands. GPT-2 continues texts:
it answers questions only if it was trained to. Without a terminal lines are read as they come, and
the first error ends the program.")]
pub struct InteractiveArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Put this before each line but the first of a text [default: a line break]
    #[arg(long, value_name = "TEXT", default_value = "\n", hide_default_value = true)]
    in_prefix: String,
    /// Put this behind each line
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    in_suffix: String,
    /// Keep the lines that were typed in this file, for the next time
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// No statistics on standard error
    #[arg(short, long)]
    quiet: bool,
    /// Print one JSON object for each answer, in place of its text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    run: RunArgs,
}

const HELP: &str = "\
/set NAME VALUE  change an option of generate: /set temperature 0.7, /set top-k 40, /set seed 1
/set             show the options
/reset           forget the text and begin a new one
/stats           tell how full the context is, and how fast it goes
/help            this
/quit            end, as Ctrl-D does
Everything else goes on with the text; an empty line lets the model write on. // begins a line with /.
Ctrl-C stops the answer.";

pub fn run(args: &InteractiveArgs) -> Result<Outcome> {
    args.context.check()?;
    let model = Model::open_to_run(&args.model, &args.run)?;
    let mut settings = args.settings.clone();
    settings.decoding.seed.get_or_insert_with(random_seed);
    settings.overflow = args.context.overflow;
    // A wrong option is told before anything is typed.
    let decoding = settings.resolve(&model)?;
    let n_ctx = model.weights()?.config().n_ctx as usize;
    let mut engine = Engine::with(&model, &args.run, |base| {
        decoding.with_options(|options| options.session_options(&args.context.apply(base), n_ctx))
    })?;
    let (about, options) = (About::new(&engine), *engine.options());
    let (session, par) = engine.session()?;
    let mut conversation = Conversation::new(&model, session, par)?;
    let mut lines = Lines::new(args.history.as_deref())?;
    if lines.are_typed() && !args.quiet {
        let (name, n_ctx) = (model.name(), conversation.n_ctx());
        output::note(format_args!("{name}, {about}; {n_ctx} tokens fit; /help tells the commands"));
    }
    interrupt::catch_each();
    loop {
        let line = match lines.next()? {
            Line::Text(line) => line,
            Line::Interrupted => {
                output::note("Ctrl-D or /quit ends");
                continue;
            }
            Line::End => break,
        };
        let done = match command(&line) {
            Some(("quit" | "exit", _)) => break,
            Some((name, rest)) => {
                obey(name, rest, &model, &mut conversation, &mut settings, (&about, &options))
            }
            None => say(args, &line, &settings, &model, &mut conversation),
        };
        match done {
            Err(error) if lines.are_typed() && !error.is::<output::ReaderGone>() => {
                output::error(&error);
            }
            done => done?,
        }
    }
    lines.finish()?;
    Ok(Outcome::Done)
}

/// Name and value of a command; nothing for a line of text.
fn command(line: &str) -> Option<(&str, &str)> {
    let command = line.strip_prefix('/').filter(|rest| !rest.starts_with('/'))?;
    let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    Some((name, rest.trim()))
}

fn obey(
    name: &str,
    rest: &str,
    model: &Model,
    conversation: &mut Conversation<'_, '_, '_>,
    settings: &mut Settings,
    (about, options): (&About, &SessionOptions),
) -> Result<()> {
    match name {
        "set" if rest.is_empty() => output::note(settings.describe(model)?),
        "set" => settings.set(rest, model, options)?,
        "reset" => conversation.reset(),
        "stats" => output::note(statistics(conversation, settings, about)),
        "help" | "?" => output::note(HELP),
        _ => bail!("/{name}: there is no such command; /help tells which there are"),
    }
    Ok(())
}

/// Adds a line to the text and prints what the model goes on with.
fn say(
    args: &InteractiveArgs,
    line: &str,
    settings: &Settings,
    model: &Model,
    conversation: &mut Conversation<'_, '_, '_>,
) -> Result<()> {
    let line = line.strip_prefix('/').unwrap_or(line);
    if line.is_empty() {
        conversation.go_on()?;
    } else {
        let prefix = if conversation.goes_on() { args.in_prefix.as_str() } else { "" };
        conversation.add(&format!("{prefix}{line}{}", args.in_suffix))?;
    }
    interrupt::begin_work();
    let answer = conversation.answer(settings, model, |piece| {
        if args.json { Ok(()) } else { output::write_foreign(piece) }
    });
    interrupt::begin_waiting();
    let answer = answer?;
    if args.json {
        output::json(&answer)?;
    } else if !answer.text.ends_with('\n') {
        output::write("\n")?;
    }
    if !args.quiet {
        note_end(&answer, conversation.n_ctx());
    }
    Ok(())
}

fn note_end(answer: &Answer, n_ctx: usize) {
    match answer.stop_reason {
        StopReason::ContextFull => {
            output::note(format_args!(
                "the context of {n_ctx} tokens is full; /reset begins a new text; begun with \
                 --overflow shadow it would go on"
            ));
        }
        StopReason::Interrupted => output::note("stopped; an empty line goes on"),
        _ => {}
    }
}

/// What does not change.
struct About {
    isa: &'static str,
    threads: usize,
    kv: &'static str,
}

impl About {
    fn new(engine: &Engine<'_>) -> Self {
        let options = engine.options();
        Self { isa: engine.isa().name(), threads: options.threads, kv: options.kv.name() }
    }
}

impl std::fmt::Display for About {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { isa, threads, kv } = self;
        write!(f, "{isa}, {}, kv {kv}", units::count(*threads, "thread"))
    }
}

fn statistics(
    conversation: &Conversation<'_, '_, '_>,
    settings: &Settings,
    about: &About,
) -> String {
    let speeds = conversation.speeds();
    let (len, used) = (conversation.len(), conversation.in_context());
    let text = if len > used { format!(", the text has {len}") } else { String::new() };
    let memory = machine::peak_rss_bytes().map_or_else(|| "-".into(), units::bytes);
    format!(
        "context: {} of {} tokens{} | answers: {} | prompt: {}, {} tokens/s | new: {}, {} tokens/s\n\
         seed {} | {about} | memory {memory}",
        conversation.in_context(),
        conversation.n_ctx(),
        text,
        conversation.answers(),
        units::count(speeds.prompt_tokens, "token"),
        units::speed(units::per_second(speeds.prompt_tokens, speeds.prefill_seconds)),
        units::count(speeds.new_tokens, "token"),
        units::speed(units::per_second(speeds.decoded_tokens, speeds.decode_seconds)),
        settings.decoding.seed.unwrap_or_default(),
    )
}

/// Lines of a terminal or a pipe, without the line break at their end.
fn without_break(line: String) -> String {
    input::without_final_newline(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_begin_with_one_slash() {
        assert_eq!(command("/set top-k  5 "), Some(("set", "top-k  5")));
        assert_eq!(command("/quit"), Some(("quit", "")));
        assert_eq!(command("//quit"), None);
        assert_eq!(command("and/or"), None);
        assert_eq!(command(""), None);
    }
}
