//! Metrics of the process and of the build.
//!
//! Owns: what is told of both, under the names that Prometheus' own client libraries use.

use prometheus::process_collector::ProcessCollector;
use prometheus::{IntGauge, Opts};
use vesta_model::Status;

use super::Metrics;

impl Metrics {
    /// Puts what is known of this process, and `version` as what was built, on the page.
    ///
    /// # Errors
    /// `INTERNAL` when they are on it already.
    pub fn describe_process(&self, version: &str) -> Result<(), Status> {
        let build = || {
            let options = Opts::new("vesta_build_info", "what was built")
                .const_label("version", version)
                .const_label("target", std::env::consts::ARCH);
            let build_info = IntGauge::with_opts(options)?;
            build_info.set(1);
            self.registry().register(Box::new(build_info))?;
            self.registry().register(Box::new(ProcessCollector::for_self()))
        };
        build().map_err(|error: prometheus::Error| {
            Status::internal(format!("the process cannot be measured: {error}")).with_cause(error)
        })
    }
}
