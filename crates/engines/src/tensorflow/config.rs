//! Options of TensorFlow's sessions: threads and what an operator's own `ConfigProto` says.

use std::path::PathBuf;

use prost::Message as _;
use vesta_protos::tensorflow::ConfigProto;

use crate::overrides::SessionOverrides;

/// What an operator says of TensorFlow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TensorFlowOptions {
    /// The configuration of every session; threads that it leaves at 0 are filled in.
    pub session_config: ConfigProto,
    /// Libraries of custom operators, opened in this order before any model is loaded.
    pub op_libraries: Vec<PathBuf>,
}

impl TensorFlowOptions {
    /// The serialized `ConfigProto` of a session whose runs may use `threads` threads each, with what
    /// its model changes.
    ///
    /// Threads between operators stay TensorFlow's choice: they are shared by all runs, and an
    /// operator that waits for a thread of its own pool does not occupy one of those.
    pub(crate) fn config_for(&self, threads: usize, overrides: &SessionOverrides) -> Vec<u8> {
        let mut config = self.session_config.clone();
        overrides.apply(&mut config);
        if config.intra_op_parallelism_threads == 0 {
            config.intra_op_parallelism_threads = i32::try_from(threads.max(1)).unwrap_or(i32::MAX);
        }
        config.encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(config: ConfigProto, threads: usize) -> (i32, i32) {
        let options = TensorFlowOptions { session_config: config, ..TensorFlowOptions::default() };
        let config = options.config_for(threads, &SessionOverrides::default());
        let config = ConfigProto::decode(config.as_slice()).unwrap();
        (config.intra_op_parallelism_threads, config.inter_op_parallelism_threads)
    }

    #[test]
    fn the_budget_fills_in_what_the_operator_left_open() {
        assert_eq!(threads(ConfigProto::default(), 2), (2, 0));
        assert_eq!(threads(ConfigProto::default(), 0), (1, 0));
        let own = ConfigProto {
            intra_op_parallelism_threads: 5,
            inter_op_parallelism_threads: 3,
            ..ConfigProto::default()
        };
        assert_eq!(threads(own, 2), (5, 3));
    }
}
