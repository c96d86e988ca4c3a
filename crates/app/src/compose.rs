//! The wiring: who gets whom, in which order things start and stop.
//!
//! Invariant: ports open only once `startup.rs` says so, gRPC before REST, as in the original; the
//! server says that it is not ready before they close, and they close before the models go.

use std::future::Future;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tracing::{error, info, warn};
use vesta_frontends::{
    Budget, GrpcOptions, MethodCheck, Metrics, RequestLog, RestOptions, RunMetrics, WarmUp,
    serve_grpc, serve_rest, show_queue_depths,
};
use vesta_model::{BasePath, Engine, ModelConfig, Status};
use vesta_repository::Stores;
use vesta_serving::{RealClock, Serving, ServingOptions};

use crate::batched::Batched;
use crate::config::Resolved;
use crate::config_poll;
use crate::fetching::Fetching;
use crate::listen::{self, Sharing};
use crate::logs::LogFormat;
use crate::measured::Measured;
use crate::models::{Models, Orders};
use crate::placement;
use crate::request_log;
use crate::signals::Signals;
use crate::startup;
use crate::warmup::WarmedUp;

/// How long the end waits until recorded requests are written.
const REQUEST_LOG_FLUSH_LIMIT: Duration = Duration::from_secs(5);
/// Runs of one version that may wait; more are refused at once.
const QUEUE_RUNS_MAX: usize = 1024;

/// Serves until SIGTERM or SIGINT; `ready` is told once the ports are open.
///
/// # Errors
/// What keeps the server from starting.
pub(crate) fn serve(
    resolved: &Resolved,
    format: LogFormat,
    ready: impl FnOnce(&Resolved),
) -> Result<(), Status> {
    vesta_ffi::keep_freed_memory();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = runtime(cores)?;
    let metrics = Metrics::new()?;
    // Engines are tried on the first of a version's recorded requests; a session of theirs is not warm
    // by that alone.
    let recorded = WarmUp::new(1, resolved.request_bytes_max, metrics.clone());
    let engine = placement::engine(&resolved.engine, format, recorded, metrics.clone())?;
    metrics.describe_process(env!("CARGO_PKG_VERSION"))?;
    let engine = Arc::new(Measured { engine, metrics: metrics.clone() });
    let engine = with_warm_up(engine, resolved, &metrics);
    let engine = Arc::new(Batched { engine, batching: resolved.batching.clone() });
    let stores = Arc::new(Stores::new(resolved.model_cache.clone()));
    let is_in_store = |model: &ModelConfig| matches!(model.base_path, BasePath::Store(_));
    if resolved.models.iter().any(is_in_store) {
        stores.check_cache()?;
    }
    // Outermost, since all else looks at the files.
    let engine = Arc::new(Fetching { engine, store: Arc::clone(&stores) as _ });
    let serving = Serving::start_observed(
        engine,
        ServingOptions {
            load_threads: resolved.load_threads,
            unload_threads: resolved.unload_threads,
            run_threads: cores,
            queue_runs_max: QUEUE_RUNS_MAX,
            load_retries_max: resolved.load_retries_max,
            load_retry_interval: resolved.load_retry_interval,
            // Run threads times engine threads is the number of cores.
            engine_threads: 1,
            policy: resolved.policy,
        },
        Arc::new(RealClock),
        Arc::new(RunMetrics::new(&metrics)?),
    )?;
    show_queue_depths(&metrics, serving.queue_watch())?;
    let (request_log, recordings) = RequestLog::new(resolved.tags.clone(), metrics.clone());
    request_log::start(recordings, resolved.request_log_limits, metrics.clone())?;
    let models = Models::start(
        serving.clone(),
        resolved.poll,
        stores,
        resolved.tags.clone(),
        resolved.labels_for_unavailable,
        request_log.clone(),
    )?;
    let outcome = runtime.block_on(run(
        resolved,
        format,
        serving,
        Arc::new(models),
        metrics,
        request_log.clone(),
        ready,
    ));
    request_log.flush(REQUEST_LOG_FLUSH_LIMIT);
    // What still hangs was given its time.
    runtime.shutdown_background();
    outcome
}

/// The engine whose versions run their recorded requests before they are available, if that is
/// wanted.
fn with_warm_up(
    engine: Arc<dyn Engine>,
    resolved: &Resolved,
    metrics: &Metrics,
) -> Arc<dyn Engine> {
    match resolved.warm_up_iterations {
        0 => engine,
        iterations => {
            let warm_up = WarmUp::new(iterations, resolved.request_bytes_max, metrics.clone());
            Arc::new(WarmedUp::new(engine, warm_up))
        }
    }
}

fn runtime(cores: usize) -> Result<Runtime, Status> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores)
        .thread_name("vesta-wire")
        .enable_all()
        .build()
        .map_err(|e| Status::internal("the threads of the wire cannot be started").with_cause(e))
}

async fn run(
    resolved: &Resolved,
    format: LogFormat,
    serving: Serving,
    models: Arc<Models>,
    metrics: Metrics,
    request_log: RequestLog,
    ready: impl FnOnce(&Resolved),
) -> Result<(), Status> {
    let mut signals = Signals::take()?;
    models.begin(resolved.models.clone()).await?;
    if let Some((file, interval)) = &resolved.polled_file {
        // Already while the start waits: a better file may be what it waits for.
        tokio::spawn(config_poll::run(file.clone(), *interval, Arc::clone(&models)));
    }
    tokio::select! {
        started = started(resolved, &serving, &models) => started?,
        signal = signals.recv() => {
            info!("{signal} before the models were ready");
            return Ok(());
        }
    }

    let (stop, stopped) = watch::channel(false);
    let budget = Budget::new(resolved.request_bytes_max);
    let grpc_options = GrpcOptions { request_log: request_log.clone(), ..grpc_options(resolved) };
    let grpc =
        grpc(resolved, &serving, &models, grpc_options, &metrics, &budget, until(stopped.clone()))?;
    let grpc = tokio::spawn(grpc);
    let rest_options = RestOptions { request_log, ..rest_options(resolved, &models) };
    let rest = rest(resolved, format, &serving, rest_options, metrics, budget, until(stopped));
    let rest = rest.map(tokio::spawn);
    ready(resolved);

    let signal = signals.recv().await;
    serving.begin_drain();
    info!(
        "{signal}: no longer ready; calls are taken for {:?} more, then those in flight get {:?}; a \
         second signal ends it at once",
        resolved.drain_delay, resolved.drain_timeout
    );
    let end = async {
        tokio::time::sleep(resolved.drain_delay).await;
        info!("finishing the calls in flight");
        let _ = stop.send(true);
        serving.hurry_batches();
        let drain = async {
            // A task that panicked has said so; there is nothing left to drain in it.
            let _ = grpc.await;
            if let Some(rest) = rest {
                let _ = rest.await;
            }
        };
        if tokio::time::timeout(resolved.drain_timeout, drain).await.is_err() {
            warn!(
                "calls were still in flight after {:?}; they are cut off",
                resolved.drain_timeout
            );
        }
        // Unloading may block, and must not keep a second signal from being heard.
        let _ = tokio::task::spawn_blocking(move || serving.shutdown(Duration::ZERO)).await;
        info!("stopped");
    };
    signals.interrupt(end).await;
    Ok(())
}

/// Resolves when the ports may open.
async fn started(resolved: &Resolved, serving: &Serving, models: &Models) -> Result<(), Status> {
    if resolved.strict_startup {
        return models.settled(&models.names(), "servable(s)").await;
    }
    startup::wait(serving, || models.names(), resolved.startup_wait).await
}

/// Resolves once `true` is sent.
async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop, too.
    let _ = stopped.wait_for(|&stop| stop).await;
}

fn grpc_options(resolved: &Resolved) -> GrpcOptions {
    GrpcOptions {
        tls: resolved.tls.clone(),
        health: resolved.grpc_health,
        profiler: resolved.profiler,
        tensors_as_content: resolved.tensors_as_content,
        method_check: MethodCheck::new(resolved.method_check),
        calls_max: resolved.grpc_calls_max,
        drain: resolved.drain_timeout,
        ..resolved.channel.options.clone()
    }
}

fn rest_options(resolved: &Resolved, models: &Arc<Models>) -> RestOptions {
    RestOptions {
        timeout: resolved.rest_timeout,
        cors: resolved.rest_cors,
        method_check: MethodCheck::new(resolved.method_check),
        calls_max: resolved.rest_calls_max,
        metrics_path: resolved.metrics_path.clone(),
        drain: resolved.drain_timeout,
        body_bytes_max: resolved.rest_body_bytes_max,
        log_requests: crate::logs::requests_are_logged(),
        admin: resolved.admin_api.then(|| Arc::new(Orders(Arc::clone(models))) as _),
        ..RestOptions::default()
    }
}

fn grpc(
    resolved: &Resolved,
    serving: &Serving,
    models: &Arc<Models>,
    options: GrpcOptions,
    metrics: &Metrics,
    budget: &Budget,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> Result<impl Future<Output = ()> + Send + 'static, Status> {
    let refused = |place: String, problem: std::io::Error| {
        error!("gRPC cannot listen on {place}: {problem}");
        Status::invalid_argument("Failed to BuildAndStart gRPC server").with_cause(problem)
    };
    let mut tcp = Vec::new();
    if let Some(address) = resolved.grpc_address {
        tcp.push(
            listen::tcp(address, resolved.channel.sharing)
                .map_err(|problem| refused(format!("port {}", address.port()), problem))?,
        );
        info!("Running gRPC ModelServer at 0.0.0.0:{} ...", address.port());
    }
    let unix = match &resolved.grpc_socket {
        Some(path) => {
            let listener = listen::unix(path)
                .map_err(|problem| refused(path.display().to_string(), problem))?;
            info!("Running gRPC ModelServer at UNIX socket {} ...", path.display());
            Some(listener)
        }
        None => None,
    };
    let (serving, models) = (serving.clone(), Arc::clone(models));
    let (metrics, budget) = (metrics.clone(), budget.clone());
    Ok(async move {
        let served =
            serve_grpc(tcp, unix, serving, models, options, metrics, budget, stopped).await;
        if let Err(problem) = served {
            error!("the gRPC server ended: {problem}");
        }
    })
}

/// `None` when REST is off or cannot listen; as in the original, gRPC goes on without it.
fn rest(
    resolved: &Resolved,
    format: LogFormat,
    serving: &Serving,
    options: RestOptions,
    metrics: Metrics,
    budget: Budget,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> Option<impl Future<Output = ()> + Send + 'static> {
    let address = resolved.rest_address?;
    let listener = match listen::tcp(address, Sharing::Exclusive) {
        Ok(listener) => listener,
        Err(problem) => {
            error!("Failed to start HTTP Server at localhost:{}: {problem}", address.port());
            return None;
        }
    };
    if format == LogFormat::Text {
        // The original writes this line past its log levels, and start scripts wait for it.
        let _ = std::io::stderr()
            .write_all(b"[evhttp_server.cc : 261] NET_LOG: Entering the event loop ...\n");
    }
    if resolved.admin_api {
        info!("Models may be loaded and unloaded over the REST port, by anyone who reaches it");
    }
    info!("Exporting HTTP/REST API at:localhost:{} ...", address.port());
    let serving = serving.clone();
    Some(async move {
        if let Err(problem) = serve_rest(listener, serving, options, metrics, budget, stopped).await
        {
            error!("the REST server ended: {problem}");
        }
    })
}
