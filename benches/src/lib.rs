//! pocketgpt-benches
