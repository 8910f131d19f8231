//! The `.pgpt` format, version 1: every rule refuses what breaks it, damage is found, what is
//! written comes back, and the bytes never change by accident.

mod damage;
mod decoder;
mod decoding;
mod golden;
mod open;
mod rejects_config;
mod rejects_directory;
mod rejects_header;
mod rejects_weights;
mod round_trip;
mod tiny;
