//! What a load of one model does to another that serves: its latency at a fixed rate while nothing
//! happens, and while versions of a TensorFlow model are loaded and unloaded beside it.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::served::Served;
use crate::python::Python;
use crate::run::{say, take};

/// Requests per second.
const RATE: u32 = 100;
/// Length of one window, in which one version is loaded or none.
const WINDOW: Duration = Duration::from_secs(5);
/// Windows of each kind.
const WINDOWS: u64 = 6;

/// Writes a SavedModel that the embedded engine refuses, since it keeps state.
const COUNTER: &str = "
import sys, tensorflow as tf
class Counter(tf.Module):
    def __init__(self):
        self.count = tf.Variable(0, dtype=tf.int64)
        self.weights = tf.Variable(tf.random.normal([2048, 2048]))
    @tf.function(input_signature=[])
    def __call__(self):
        return {'count': self.count.assign_add(1), 'sum': tf.reduce_sum(self.weights)}
counter = Counter()
tf.saved_model.save(counter, sys.argv[1], signatures=counter.__call__)
";

pub(super) fn run(root: &Path) -> Result<()> {
    let python = Python::set_up(root)?;
    let folder = root.join("target/bench");
    let artifact = folder.join("counter");
    if !artifact.join("saved_model.pb").is_file() {
        take(root, python.command().args(["-c", COUNTER]).arg(&artifact))?;
    }
    let versions = folder.join("counter_versions");
    let _ = std::fs::remove_dir_all(&versions);
    std::fs::create_dir_all(&versions)?;
    symlink(&artifact, versions.join("1"))?;
    let config = folder.join("loading.config");
    let demo = root.join("demo/models/resnet8");
    std::fs::write(&config, models_config(&[("resnet8", &demo), ("counter", &versions)]))?;
    let flags = [format!("--model_config_file={}", config.display()), "--engine=auto".to_owned()];
    let server = Served::start(root, "resnet8", &demo, &flags)
        .context("an engine may have to be installed: vesta engine install tensorflow")?;
    let body = std::fs::read(root.join("demo/cat.json")).context("demo/cat.json")?;

    let (mut quiet, mut loading) = (Vec::new(), Vec::new());
    for window in 1..=WINDOWS {
        say(&format!("window {window} of {WINDOWS}"));
        quiet.extend(server.measure_at(&body, RATE, WINDOW)?);
        // The new version is loaded beside the old one, which is then unloaded.
        symlink(&artifact, versions.join((window + 1).to_string()))?;
        loading.extend(server.measure_at(&body, RATE, WINDOW)?);
    }
    say(&format!("\nresnet8 at {RATE} requests a second   median µs   p99 µs   longest µs"));
    for (name, times) in [("nothing else", &mut quiet), ("a load beside", &mut loading)] {
        times.sort_unstable();
        let at = |share: usize| times[(times.len() - 1) * share / 100].as_micros();
        say(&format!("{name:32} {:11} {:8} {:12}", at(50), at(99), at(100)));
    }
    Ok(())
}

fn models_config(models: &[(&str, &Path)]) -> String {
    let models: String = models
        .iter()
        .map(|(name, base)| {
            format!(
                "config {{ name: '{name}' base_path: '{}' model_platform: 'tensorflow' }}\n",
                base.display()
            )
        })
        .collect();
    format!("model_config_list {{\n{models}}}\n")
}

impl Served {
    /// Sends requests at a fixed rate over one connection. A request that cannot be sent at its time
    /// because the one before is still open counts from that time on, so that nothing is left out.
    fn measure_at(&self, body: &[u8], rate: u32, length: Duration) -> Result<Vec<Duration>> {
        let mut connection = self.connect(body)?;
        let gap = Duration::from_secs(1) / rate;
        let begin = Instant::now();
        let mut times = Vec::new();
        let mut due = begin;
        while due < begin + length {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            connection.ask()?;
            times.push(due.elapsed());
            due += gap;
        }
        Ok(times)
    }
}
