//! pocketgpt-tests
