//! Flags of the original that ask for something which does not exist here.
//!
//! Owns: that such a flag is taken, checked as the original checks it, and told in the log when it was
//! set. Invariant: none of them changes what is served.

use std::path::Path;

use vesta_model::Status;
use vesta_protos::tensorflow::serving as proto;

use super::text;
use crate::flags::Flags;

/// Warns of every such flag that is away from its default.
///
/// # Errors
/// Those of a file that cannot be read or understood.
pub(super) fn check(flags: &Flags) -> Result<(), Status> {
    if !flags.thread_pool_factory_config_file.is_empty() {
        let file = Path::new(&flags.thread_pool_factory_config_file);
        let _: proto::ThreadPoolFactoryConfig =
            text::read(file, "tensorflow.serving.ThreadPoolFactoryConfig")?;
    }
    for (name, why) in set(flags) {
        tracing::warn!("--{name} is accepted and changes nothing: {why}");
    }
    Ok(())
}

/// Flags that were set, and why they change nothing.
fn set(flags: &Flags) -> Vec<(&'static str, &'static str)> {
    const JIT: &str = "the just-in-time compiler of TensorFlow is never turned off here, so models \
                       that use it work without";
    let all = [
        (
            !flags.flush_filesystem_caches,
            "flush_filesystem_caches",
            "nothing of a model's files is cached in memory",
        ),
        (
            !flags.remove_unused_fields_from_bundle_metagraph,
            "remove_unused_fields_from_bundle_metagraph",
            "only what calls use of a graph is kept",
        ),
        (flags.xla_cpu_compilation_enabled, "xla_cpu_compilation_enabled", JIT),
        (flags.xla_gpu_compilation_enabled, "xla_gpu_compilation_enabled", JIT),
        (
            !flags.thread_pool_factory_config_file.is_empty(),
            "thread_pool_factory_config_file",
            "no thread pool can be plugged in; say the threads of TensorFlow with \
             --tensorflow_session_parallelism",
        ),
        (flags.skip_initialize_tpu, "skip_initialize_tpu", "no TPU is ever set up"),
    ];
    all.into_iter().filter(|(set, ..)| *set).map(|(_, name, why)| (name, why)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_set_is_told() {
        assert_eq!(set(&Flags::default()), []);
        let flags = Flags {
            flush_filesystem_caches: false,
            xla_cpu_compilation_enabled: true,
            skip_initialize_tpu: true,
            ..Flags::default()
        };
        let names: Vec<&str> = set(&flags).into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            ["flush_filesystem_caches", "xla_cpu_compilation_enabled", "skip_initialize_tpu"]
        );
    }

    #[test]
    fn a_file_that_is_not_used_is_checked_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pool.config");
        let flags = Flags {
            thread_pool_factory_config_file: file.display().to_string(),
            ..Flags::default()
        };
        assert!(check(&flags).unwrap_err().message().ends_with("; No such file or directory"));
        std::fs::write(&file, "thread_pool_factory_config {}").unwrap();
        assert_eq!(check(&flags), Ok(()));
        std::fs::write(&file, "threads: 3").unwrap();
        assert!(check(&flags).unwrap_err().message().starts_with("Invalid protobuf file: '"));
    }
}
