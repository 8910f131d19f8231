//! How a conversion tells how far it is, and is told to stop.

/// Told about a conversion while it runs. `()` ignores everything.
pub trait Progress: Send {
    /// The work begins: how many bytes of the checkpoint there are.
    fn start(&mut self, _total_bytes: u64) {}
    /// The next tensor begins.
    fn tensor(&mut self, _name: &str) {}
    /// So many more bytes of the checkpoint are done.
    fn advance(&mut self, _bytes: u64) {}
    /// The file is complete.
    fn finish(&mut self) {}
    /// Asked every few milliseconds: whether to give up, leaving nothing behind.
    fn is_cancelled(&self) -> bool {
        false
    }
}

impl Progress for () {}
