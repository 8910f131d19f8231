//! A model with everything it takes to run it: kernels, threads, memory.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, anyhow, bail};
use pocketgpt_runtime::KvType;
use pocketgpt_runtime::error::CapacityError;
use pocketgpt_runtime::format::WeightFile;
use pocketgpt_runtime::huge_pages::HugePages;
use pocketgpt_runtime::isa::Isa;
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::{MAX_THREADS, Parallel};
use pocketgpt_runtime::pool::ThreadPool;
use pocketgpt_runtime::session::Session;
use pocketgpt_runtime::workspace::{Plan, SessionOptions};

use crate::args::{RunArgs, UsageError};
use crate::machine::{self, CpuList};
use crate::model::{Model, block_encoding};
use crate::{output, units};

/// More threads than this wait for each other rather than help: a token of a small model is
/// short, and memory is shared.
const MAX_DEFAULT_THREADS: usize = 8;

/// How many threads to use where the user does not say.
pub fn default_threads() -> usize {
    machine::fast_cores().min(MAX_DEFAULT_THREADS)
}

/// How many threads the command line asks for.
fn threads(args: &RunArgs) -> Result<usize> {
    let Some(affinity) = &args.affinity else {
        return Ok(args.threads.unwrap_or_else(default_threads));
    };
    let (cpus, threads) = (affinity.len(), args.threads.unwrap_or(affinity.len()));
    if threads > cpus {
        bail!("--threads {threads}: --affinity names {cpus} CPUs; give each thread one");
    }
    if threads > MAX_THREADS {
        bail!("--affinity: these are {threads} CPUs; give at most {MAX_THREADS}, or --threads");
    }
    Ok(threads)
}

/// Starts the threads, each on its CPU where the command line names them.
fn thread_pool(threads: usize, affinity: Option<&CpuList>) -> Result<ThreadPool> {
    let refused = |error| anyhow!("--threads {threads}: {error}; use fewer");
    let Some(affinity) = affinity else { return ThreadPool::new(threads).map_err(refused) };
    affinity.pin(0).map_err(|error| anyhow!("--affinity: {error}"))?;
    let failed = Arc::new(Mutex::new(None));
    let (cpus, result) = (affinity.clone(), Arc::clone(&failed));
    let pool = ThreadPool::with_start(threads, move |thread| {
        if let Err(error) = cpus.pin(thread) {
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    })
    .map_err(refused)?;
    let failed = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
    failed.map_or(Ok(pool), |error| Err(anyhow!("--affinity: {error}")))
}

/// How keys and values are kept where the user does not say: as exactly as the weights are.
pub fn default_kv(file: &WeightFile<'_>) -> KvType {
    if block_encoding(file).is_quantized() { KvType::Q8 } else { KvType::F32 }
}

/// The kernels for `--isa`.
pub fn kernels(isa: Option<Isa>) -> Result<Kernels> {
    let Some(isa) = isa else {
        return Ok(Kernels::best_tested(|error| {
            output::note(format_args!(
                "warning: {error}; trying slower ones. Please report this CPU."
            ));
        }));
    };
    let kernels = Kernels::for_isa(isa).ok_or_else(|| {
        let available: Vec<&str> = Isa::available().map(Isa::name).collect();
        anyhow!("--isa {isa}: this machine does not have it; use one of {}", available.join(", "))
    })?;
    kernels.self_test().map_err(|error| anyhow!("--isa {isa}: {error}; use another"))?;
    Ok(kernels)
}

/// What the command line asks for, as the runtime takes it.
pub fn session_options(file: &WeightFile<'_>, args: &RunArgs) -> Result<SessionOptions> {
    let mut options = SessionOptions::new(file.config());
    let n_ctx = options.window;
    if let Some(window) = args.window {
        if window > n_ctx {
            bail!("--window {window}: the model has {n_ctx} positions; give at most that");
        }
        options.window = window;
    }
    options.keep = args.keep.unwrap_or_else(|| default_keep(&options));
    options.kv = args.kv.unwrap_or_else(|| default_kv(file));
    options.threads = threads(args)?;
    options.batch = args.batch;
    Ok(options)
}

/// Tokens that stay at the beginning where the user does not say: one, which is what attention rests
/// on when it looks for nothing, if there is room for another beside it.
pub fn default_keep(options: &SessionOptions) -> usize {
    usize::from(options.window > 2)
}

/// What a session takes.
///
/// # Errors
/// If options of the command line are out of the model's range.
pub fn plan(model: &Model, options: &SessionOptions) -> Result<Plan> {
    Plan::new(model.weights()?.config(), options).map_err(|error| match error {
        CapacityError::Keep { keep, max } => UsageError::value(format!(
            "--keep {keep}: at most {max} tokens of the beginning leave room for what follows"
        ))
        .into(),
        CapacityError::Option { name: "tail", value, max } => UsageError::value(format!(
            "--tail {value}: with --overflow {} and --keep {} it can be 1 to {max}",
            options.overflow, options.keep
        ))
        .into(),
        error => anyhow!("{}: {error}", model.name()),
    })
}

/// A session's memory: zeroed by the system page by page, when a page is first used.
#[derive(Debug)]
enum Memory {
    Ordinary(Box<[u8]>),
    Huge(HugePages),
}

impl Memory {
    /// `None` if there is not that much.
    fn zeroed(bytes: usize, huge_pages: bool) -> Option<Self> {
        if huge_pages {
            return HugePages::zeroed(bytes).ok().map(Self::Huge);
        }
        // Asked for in bytes: memory that has to be aligned the allocator would zero itself, all of
        // it, here and now.
        bytemuck::allocation::try_zeroed_slice_box(bytes).ok().map(Self::Ordinary)
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Ordinary(bytes) => bytes,
            Self::Huge(pages) => pages.bytes_mut(),
        }
    }
}

/// A model that is ready to run.
#[derive(Debug)]
pub struct Engine<'w> {
    model: Gpt2<'w>,
    options: SessionOptions,
    pool: ThreadPool,
    /// The session's lines, and room to begin at a multiple of their size.
    memory: Memory,
}

impl<'w> Engine<'w> {
    /// `logit_rows`: how many rows of logits are computed together, where more than the last are
    /// asked for.
    pub fn new(model: &'w Model, args: &RunArgs, logit_rows: usize) -> Result<Self> {
        Self::with(model, args, |options| SessionOptions { logit_rows, ..options })
    }

    /// `change`: what the session has to be able to do besides what the command line says.
    pub fn with(
        model: &'w Model,
        args: &RunArgs,
        change: impl FnOnce(SessionOptions) -> SessionOptions,
    ) -> Result<Self> {
        let file = model.weights()?;
        let kernels = kernels(args.isa)?;
        let options = change(session_options(&file, args)?);
        let plan = plan(model, &options)?;
        let bytes = plan.total_bytes() + align_of::<Line>() - 1;
        let memory = Memory::zeroed(bytes, args.huge_pages).ok_or_else(|| {
            let needed = units::bytes(plan.total_bytes() as u64);
            anyhow!(
                "{}: there is no memory for the session, which takes {needed}; use --kv q8 or a smaller --window",
                model.name()
            )
        })?;
        let pool = thread_pool(options.threads, args.affinity.as_ref())?;
        Ok(Self { model: Gpt2::new(file, kernels), options, pool, memory })
    }

    /// A text to begin, and the threads to work on it with. One at a time: it uses the memory.
    pub fn session(&mut self) -> Result<(Session<'_, 'w>, &dyn Parallel)> {
        let (_, memory, _) = bytemuck::pod_align_to_mut::<u8, Line>(self.memory.bytes_mut());
        let session = Session::new(self.model, &self.options, memory)?;
        Ok((session, &self.pool))
    }

    /// The threads, to work on something else with.
    pub fn pool(&self) -> &ThreadPool {
        &self.pool
    }

    /// The model.
    pub fn model(&self) -> &Gpt2<'w> {
        &self.model
    }

    /// Positions of the model.
    pub fn n_ctx(&self) -> usize {
        self.model.config().n_ctx as usize
    }

    /// What the session is able to do.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// The instructions in use.
    pub fn isa(&self) -> Isa {
        self.model.kernels().isa()
    }
}
