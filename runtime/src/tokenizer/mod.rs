//! Byte-level BPE, used in place from a `.pgpt` file.
