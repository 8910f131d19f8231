//! pocketgpt-quantize
