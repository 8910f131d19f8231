//! Texts in files, to go on with: `--save-session` and `--load-session`.

use std::path::Path;

use anyhow::{Result, anyhow, bail};
use pocketgpt_runtime::decoding::StopReason;
use pocketgpt_runtime::format::MappedFile;
use pocketgpt_runtime::saved::{MAGIC, SavedError, SavedSession, SavedText};
use pocketgpt_runtime::session::Session;
use pocketgpt_runtime::workspace::SessionOptions;
use serde::{Deserialize, Serialize};

use super::GenerateArgs;
use crate::args::UsageError;
use crate::context::ContextArgs;
use crate::decoding::DecodingArgs;
use crate::model::Model;
use crate::outfile::OutFile;
use crate::{output, units};

/// What is kept beside the text and the cache: the options that the text depends on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Metadata {
    options: DecodingArgs,
    stop: Vec<String>,
    ignore_eos: bool,
    /// The model has ended the text.
    ended: bool,
}

/// The file of a text to go on with, in memory.
pub fn map(path: &Path) -> Result<MappedFile> {
    MappedFile::open(path).map_err(|error| anyhow!("{}: {error}; check the path", path.display()))
}

/// A text to go on with, whose file was proven with the model.
#[derive(Debug)]
pub struct Loaded<'a> {
    path: &'a Path,
    /// What was saved.
    pub session: SavedSession<'a>,
    metadata: Metadata,
}

impl<'a> Loaded<'a> {
    /// Proves a file, which reads all of it.
    pub fn new(path: &'a Path, file: &'a MappedFile, model: &Model) -> Result<Self> {
        let session = SavedSession::new(file.bytes(), &model.weights()?)
            .map_err(|error| refused(path, &error))?;
        let metadata = serde_json::from_str(session.metadata()).map_err(|error| {
            let name = path.display();
            anyhow!(
                "{name}: its options are not such as this program saves, {error}; save it again"
            )
        })?;
        Ok(Self { path, session, metadata })
    }

    /// The command line with what was saved, where it says nothing else.
    ///
    /// # Errors
    /// If it says something else that the cache depends on.
    pub fn complete(&self, args: &GenerateArgs, model: &Model) -> Result<GenerateArgs> {
        let saved = &self.session;
        let (header, metadata) = (saved.header(), self.metadata.clone());
        let differs = |flag: &str, given: &str, was: &str| {
            let name = self.path.display();
            let text = format!("{flag} {given}: {name} was saved with {was}; leave out {flag}");
            Err(UsageError::conflict(text).into())
        };
        let mut args = args.clone();
        match args.run.kv {
            Some(kv) if kv != header.kv => return differs("--kv", kv.name(), header.kv.name()),
            _ => args.run.kv = Some(header.kv),
        }
        for (flag, given, was) in [
            ("--window", &mut args.run.window, header.window as usize),
            ("--keep", &mut args.run.keep, header.keep as usize),
        ] {
            match given {
                Some(n) if *n != was => return differs(flag, &n.to_string(), &was.to_string()),
                _ => *given = Some(was),
            }
        }
        let options = saved.session_options(&SessionOptions::new(model.weights()?.config()));
        args.context =
            args.context.or(ContextArgs { overflow: options.overflow, tail: options.tail });
        args.decoding = args.decoding.or(metadata.options);
        args.decoding.seed.get_or_insert(saved.seed());
        args.ignore_eos |= metadata.ignore_eos;
        if args.stop.is_empty() {
            args.stop = metadata.stop;
        }
        Ok(args)
    }

    /// # Errors
    /// If nothing can follow the text as it is.
    pub fn check_open_end(&self) -> Result<()> {
        if self.metadata.ended {
            bail!(
                "{}: the model has ended this text; give a text to add to it",
                self.path.display()
            );
        }
        Ok(())
    }

    /// Takes up the session.
    pub fn restore(&self, session: &mut Session<'_, '_>) -> Result<()> {
        session.restore(&self.session).map_err(|error| refused(self.path, &error))
    }
}

fn refused(path: &Path, error: &SavedError) -> anyhow::Error {
    let name = path.display();
    match error {
        SavedError::BadMagic | SavedError::TooShort { .. } => anyhow!(
            "{name}: this is not a saved session, which begins with {}; make one with --save-session",
            MAGIC.escape_ascii()
        ),
        // Their texts say what to do.
        SavedError::OtherModel | SavedError::UnsupportedVersion { .. } => {
            anyhow!("{name}: {error}")
        }
        SavedError::Differs { option } => {
            anyhow!("{name}: {error}; leave out --{option}")
        }
        _ => anyhow!("{name}: {error}; save it again"),
    }
}

/// # Errors
/// If a text written like this cannot be gone on with.
pub fn check_strategy(args: &GenerateArgs) -> Result<()> {
    if args.save_session.is_some() && !args.decoding.writes_one_text() {
        let text = "--save-session keeps one text that is written token by token: use --strategy \
                    sample or greedy, without --num-return-sequences";
        return Err(UsageError::conflict(text.into()).into());
    }
    Ok(())
}

/// Saves the text that was written, and tells where.
pub fn save(
    args: &GenerateArgs,
    path: &Path,
    session: &Session<'_, '_>,
    (tokens, new_tokens): (&[u32], usize),
    (seed, reason): (u64, StopReason),
) -> Result<()> {
    let metadata = Metadata {
        options: args.decoding.clone(),
        stop: args.stop.clone(),
        ignore_eos: args.ignore_eos,
        ended: reason == StopReason::EndOfText,
    };
    let metadata = serde_json::to_string(&metadata)?;
    let text = SavedText { tokens, new_tokens, seed, metadata: &metadata };
    let (mut file, mut bytes) = (OutFile::create(path)?, 0);
    session.save(&text, |piece| {
        bytes += piece.len() as u64;
        file.write(piece)
    })?;
    file.finish()?;
    if !args.quiet {
        output::note(format_args!("saved {}, {}", path.display(), units::bytes(bytes)));
    }
    Ok(())
}
