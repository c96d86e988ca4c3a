//! What an installation tells while it goes on; who shows it decides how.

/// Hears of the steps of an installation.
pub trait Progress: Sync {
    /// One line for people.
    fn say(&self, text: &str);

    /// A step begins, such as `downloading tensorflow_cpu-2.21.0...whl`.
    fn begin(&self, step: &str);

    /// How far the step is, in bytes; `total_bytes` is 0 while unknown.
    fn reach(&self, done_bytes: u64, total_bytes: u64);

    /// The step is over, whether it went well or not.
    fn end(&self);
}

/// A step that ends when it is dropped, so that no error leaves a bar behind.
pub(super) struct Step<'a> {
    progress: &'a dyn Progress,
}

impl<'a> Step<'a> {
    pub(super) fn begin(progress: &'a dyn Progress, step: &str) -> Step<'a> {
        progress.begin(step);
        Step { progress }
    }

    pub(super) fn reach(&self, done_bytes: u64, total_bytes: u64) {
        self.progress.reach(done_bytes, total_bytes);
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.progress.end();
    }
}
