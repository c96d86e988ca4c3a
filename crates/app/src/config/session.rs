//! The configuration of TensorFlow's sessions, out of flags and a file.
//!
//! Owns: which of them wins. May not know: what TensorFlow makes of it.

use std::path::Path;

use vesta_model::Status;
use vesta_protos::tensorflow::ConfigProto;
use vesta_protos::tensorflow::rewriter_config::Toggle;

use super::text;
use crate::flags::Flags;

/// The one value that TensorFlow Serving has for mixed precision.
const BFLOAT16: &str = "bfloat16";

/// The configuration that the flags ask for.
///
/// # Errors
/// `INVALID_ARGUMENT` for threads that contradict each other or are too many, and for a file with a
/// mistake.
pub(super) fn from_flags(flags: &Flags) -> Result<ConfigProto, Status> {
    let mut config = match &*flags.tensorflow_session_config_file {
        "" => ConfigProto::default(),
        file => text::read(Path::new(file), "tensorflow.ConfigProto")?,
    };
    let (intra, inter) = threads(flags)?;
    // Threads that the file says are not undone by flags that nobody gave.
    for (own, flag) in [
        (&mut config.intra_op_parallelism_threads, intra),
        (&mut config.inter_op_parallelism_threads, inter),
    ] {
        if *own == 0 {
            *own = flag;
        }
    }
    if flags.per_process_gpu_memory_fraction != 0.0 {
        config.gpu_options.get_or_insert_default().per_process_gpu_memory_fraction =
            f64::from(flags.per_process_gpu_memory_fraction);
    }
    set_mixed_precision(&mut config, &flags.mixed_precision);
    Ok(config)
}

/// Lets TensorFlow compute in bfloat16 where its grappler sees fit, if that is asked for.
pub(super) fn set_mixed_precision(config: &mut ConfigProto, asked: &str) {
    match asked {
        "" => {}
        BFLOAT16 => {
            tracing::info!("Running inference with bfloat16 auto mixed precision");
            let graph = config.graph_options.get_or_insert_default();
            let rewrites = graph.rewrite_options.get_or_insert_default();
            rewrites.auto_mixed_precision_onednn_bfloat16 = Toggle::On.into();
        }
        other => tracing::warn!(
            "{other} auto mixed precision is not supported. Valid option: {BFLOAT16}"
        ),
    }
}

/// Threads within operators and between them; 0 leaves them open.
fn threads(flags: &Flags) -> Result<(i32, i32), Status> {
    let (intra, inter, both) = (
        flags.tensorflow_intra_op_parallelism,
        flags.tensorflow_inter_op_parallelism,
        flags.tensorflow_session_parallelism,
    );
    if intra > 0 && inter > 0 && both > 0 {
        return Err(Status::invalid_argument(
            "Either configure server_options.tensorflow_session_parallelism or \
             (server_options.tensorflow_intra_op_parallelism, \
             server_options.tensorflow_inter_op_parallelism) separately. You cannot configure all.",
        ));
    }
    let count = |name: &str, count: i64| {
        i32::try_from(count).map_err(|_| {
            Status::invalid_argument(format!("--{name}={count} is no number of threads"))
        })
    };
    if intra > 0 || inter > 0 {
        return Ok((
            count("tensorflow_intra_op_parallelism", intra)?,
            count("tensorflow_inter_op_parallelism", inter)?,
        ));
    }
    let both = count("tensorflow_session_parallelism", both)?;
    Ok((both, both))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: Flags) -> ConfigProto {
        from_flags(&flags).unwrap()
    }

    fn threads_of(flags: Flags) -> (i32, i32) {
        let config = config(flags);
        (config.intra_op_parallelism_threads, config.inter_op_parallelism_threads)
    }

    #[test]
    fn threads_of_a_session_come_from_the_flags() {
        assert_eq!(threads_of(Flags::default()), (0, 0));
        let both = Flags { tensorflow_session_parallelism: 4, ..Flags::default() };
        assert_eq!(threads_of(both.clone()), (4, 4));
        let one = Flags { tensorflow_intra_op_parallelism: 2, ..both };
        assert_eq!(threads_of(one.clone()), (2, 0));
        let all = Flags { tensorflow_inter_op_parallelism: 2, ..one };
        let refused = from_flags(&all).unwrap_err();
        assert!(refused.message().ends_with("You cannot configure all."), "{refused}");
        let many = Flags { tensorflow_inter_op_parallelism: 1 << 40, ..Flags::default() };
        let refused = from_flags(&many).unwrap_err();
        assert!(refused.message().contains("--tensorflow_inter_op_parallelism=1099511627776"));
    }

    #[test]
    fn a_file_keeps_its_threads() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("session.config");
        std::fs::write(&file, "intra_op_parallelism_threads: 3").unwrap();
        let flags = Flags {
            tensorflow_session_config_file: file.display().to_string(),
            tensorflow_session_parallelism: 4,
            ..Flags::default()
        };
        assert_eq!(threads_of(flags), (3, 4));
    }

    #[test]
    fn memory_of_a_gpu_and_precision_reach_the_session() {
        let plain = config(Flags::default());
        assert_eq!((plain.gpu_options, plain.graph_options), (None, None));
        let flags = Flags {
            per_process_gpu_memory_fraction: 0.25,
            mixed_precision: "bfloat16".to_owned(),
            ..Flags::default()
        };
        let config = config(flags);
        assert_eq!(config.gpu_options.unwrap().per_process_gpu_memory_fraction, 0.25);
        let rewrites = config.graph_options.unwrap().rewrite_options.unwrap();
        assert_eq!(rewrites.auto_mixed_precision_onednn_bfloat16(), Toggle::On);
        let flags = Flags { mixed_precision: "float16".to_owned(), ..Flags::default() };
        assert_eq!(from_flags(&flags).unwrap().graph_options, None);
    }
}
