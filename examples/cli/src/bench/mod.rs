//! What `pocketgpt bench` is made of.
//!
//! | module | what it does |
//! |---|---|
//! | [`task`] | what every model has to do |
//! | [`limits`] | how fast the machine reads and multiplies |
//! | [`subject`] | a model that does the task, and its times |
//! | [`mod@float_twin`] | the same model in f32, to compare with |
//! | [`report`], [`mod@table`] | what came out, for programs and for people |

mod float_twin;
mod limits;
mod report;
mod subject;
mod table;
mod task;

pub use float_twin::{float_twin, float_twin_bytes};
pub use limits::{Arithmetic, Limits};
pub use report::{Machine, Measured, Ratio, Report};
pub use subject::Subject;
pub use table::table;
pub use task::Task;
