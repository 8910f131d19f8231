//! What `pocketgpt bench` is made of.
//!
//! | module | what it does |
//! |---|---|
//! | [`task`] | what every model has to do |
//! | [`limits`] | how fast the machine reads and multiplies |
//! | [`subject`] | a model that does the task, and its times |
//! | [`mod@pauses`] | how evenly tokens come past the context |
//! | [`mod@float_twin`] | the same model in f32, to compare with |
//! | [`report`], [`mod@table`], `chart` | what came out, for programs and for people |

#[cfg(feature = "plot")]
mod chart;
mod float_twin;
mod limits;
mod pauses;
mod report;
mod subject;
mod table;
mod task;

#[cfg(feature = "plot")]
pub use chart::draw;
pub use float_twin::{float_twin, float_twin_bytes};
pub use limits::{Arithmetic, Limits};
pub use pauses::{Pauses, pauses};
pub use report::{Machine, Measured, Ratio, Report};
pub use subject::Subject;
pub use table::table;
pub use task::{Task, Wishes};
