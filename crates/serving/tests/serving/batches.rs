//! Batches: what is run together, what is refused, who gets what.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use vesta_model::{
    BatchingParameters, Code, DType, ModelName, Shape, Status, StringsBuilder, Tensor,
};
use vesta_serving::{
    FormedBatch, InferRequest, Lease, QueueDepth, RealClock, RunObserver, Serving, ServingOptions,
};

use crate::fake::{BAD, FakeEngine, Script};
use crate::world::{World, ask, eventually, halve, options};

/// Batches of 4 rows, closed by size or after a long time.
fn parameters() -> BatchingParameters {
    BatchingParameters {
        max_batch_size: 4,
        batch_timeout: Duration::from_secs(100),
        ..BatchingParameters::with_defaults(2)
    }
}

/// A server of `m`, whose versions batch like that.
fn world(parameters: BatchingParameters) -> (World, Script, Lease) {
    let world = World::with(ServingOptions { run_threads: 2, ..options() });
    let script = world.engine.script("m:1");
    *script.batching.lock().unwrap() = Some(parameters);
    world.serve("m", &[1]);
    let lease = world.lease("m").unwrap();
    (world, script, lease)
}

/// Lets a request go as far as it gets at once: into its queue, and further when it fills a batch.
async fn begun<F: Future>(request: F) -> impl Future<Output = F::Output> {
    let mut request = Box::pin(request);
    let first = poll_fn(|cx| Poll::Ready(request.as_mut().poll(cx))).await;
    async move {
        match first {
            Poll::Ready(output) => output,
            Poll::Pending => request.await,
        }
    }
}

fn of(signature: &str, values: &[f32]) -> InferRequest {
    InferRequest { signature: signature.to_owned(), ..halve(values) }
}

fn within(request: InferRequest, ms: u64) -> InferRequest {
    InferRequest { deadline: Some(Instant::now() + Duration::from_millis(ms)), ..request }
}

fn floats(outputs: Result<Vec<Tensor>, Status>) -> Vec<f32> {
    outputs.unwrap()[0].to_vec().unwrap()
}

fn rows_run(script: &Script) -> Vec<usize> {
    script.rows_run.lock().unwrap().clone()
}

fn failed<T>(code: Code, text: &str) -> Result<T, Status> {
    Err(Status::new(code, text))
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_run_as_one_and_each_gets_its_rows() {
    let (_world, script, lease) = world(parameters());
    let one = begun(lease.infer(halve(&[2.0]))).await;
    let two = begun(lease.infer(halve(&[4.0, 6.0]))).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(rows_run(&script).is_empty(), "the batch waits for more");
    let three = begun(lease.infer(halve(&[8.0]))).await;
    assert_eq!(floats(one.await), [2.0]);
    assert_eq!(floats(two.await), [3.0, 4.0]);
    assert_eq!(floats(three.await), [5.0]);
    assert_eq!(rows_run(&script), [4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_run_once_its_oldest_has_waited() {
    let timeout = Duration::from_millis(60);
    let (_world, script, lease) =
        world(BatchingParameters { batch_timeout: timeout, ..parameters() });
    let since = Instant::now();
    let (one, two) = tokio::join!(lease.infer(halve(&[2.0])), lease.infer(halve(&[4.0])));
    assert!(since.elapsed() >= timeout, "{:?}", since.elapsed());
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    assert_eq!((floats(one), floats(two)), (vec![2.0], vec![3.0]));
    assert_eq!(rows_run(&script), [2]);
    // And again, whichever thread watches the time now.
    for _ in 0..5 {
        assert_eq!(floats(lease.infer(halve(&[2.0])).await), [2.0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_is_kept_while_other_models_are_busy() {
    let timeout = Duration::from_millis(30);
    let (world, _script, lease) =
        world(BatchingParameters { batch_timeout: timeout, ..parameters() });
    world.serve("busy", &[1]);
    let busy = world.lease("busy").unwrap();
    // One run takes the thread that watched the time.
    *world.engine.script("busy:1").run_takes.lock().unwrap() = Duration::from_millis(700);
    let waits = begun(lease.infer(halve(&[2.0]))).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let since = Instant::now();
    let hogs = begun(ask(&busy)).await;
    assert_eq!(floats(waits.await), [2.0]);
    assert!(since.elapsed() < Duration::from_millis(600), "{:?}", since.elapsed());
    assert_eq!(hogs.await, Ok(1.5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_batches_is_served_while_another_hangs() {
    let (world, _script, lease) =
        world(BatchingParameters { batch_timeout: Duration::from_millis(5), ..parameters() });
    let hung = world.engine.script("hung:1");
    *hung.batching.lock().unwrap() =
        Some(BatchingParameters { batch_timeout: Duration::ZERO, ..parameters() });
    world.serve("hung", &[1]);
    hung.run.shut();
    let other = world.lease("hung").unwrap();
    let mut stuck = Vec::new();
    for _ in 0..4 {
        stuck.push(begun(other.infer(halve(&[1.0; 4]))).await);
    }
    eventually(|| hung.run.waiting() == 2);
    for _ in 0..10 {
        assert_eq!(floats(lease.infer(halve(&[2.0])).await), [2.0]);
    }
    hung.run.open();
    for request in stuck {
        assert_eq!(floats(request.await), [1.5; 4]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_batches_are_run_at_once_as_there_are_batch_threads() {
    let (_world, script, lease) = world(BatchingParameters {
        num_batch_threads: 1,
        batch_timeout: Duration::ZERO,
        ..parameters()
    });
    script.run.shut();
    let first = begun(lease.infer(halve(&[2.0]))).await;
    eventually(|| script.run.waiting() == 1);
    let more = [
        begun(lease.infer(halve(&[4.0]))).await,
        begun(lease.infer(halve(&[6.0]))).await,
        begun(lease.infer(halve(&[8.0]))).await,
    ];
    tokio::time::sleep(Duration::from_millis(40)).await;
    assert_eq!(script.run.waiting(), 1, "the other thread leaves the queue alone");
    script.run.open();
    assert_eq!(floats(first.await), [2.0]);
    for (request, want) in more.into_iter().zip([3.0, 4.0, 5.0]) {
        assert_eq!(floats(request.await), [want]);
    }
    assert_eq!(rows_run(&script), [1, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_the_originals_codes_texts_and_order() {
    let (_world, script, lease) =
        world(BatchingParameters { max_enqueued_batches: 1, num_batch_threads: 1, ..parameters() });
    let invalid = |text| failed(Code::InvalidArgument, text);
    assert_eq!(
        lease.infer(InferRequest { inputs: vec![], ..of("none", &[]) }).await,
        invalid("Batching Run() must have at least one input tensor")
    );
    let scalar = vec![Tensor::of(Shape::scalar(), &[1f32]).unwrap()];
    assert_eq!(
        lease.infer(InferRequest { inputs: scalar, ..halve(&[]) }).await,
        invalid("Batching Run() input tensors must have at least one dimension")
    );
    let uneven = InferRequest {
        signature: "pair".to_owned(),
        inputs: vec![
            Tensor::of(Shape::vector(3), &[1i64, 2, 3]).unwrap(),
            Tensor::of_strings(Shape::vector(0), &StringsBuilder::new()).unwrap(),
        ],
        ..halve(&[])
    };
    assert_eq!(
        lease.infer(uneven).await,
        invalid("Batching Run() input tensors must have equal 0th-dimension size")
    );
    // Too large is told before too late.
    assert_eq!(
        lease.infer(within(halve(&[0.0; 5]), 0)).await,
        invalid("Task size 5 is larger than maximum input batch size 4")
    );
    script.run.shut();
    let running = begun(lease.infer(halve(&[1.0; 4]))).await;
    eventually(|| script.run.waiting() == 1);
    let open = begun(lease.infer(halve(&[1.0; 3]))).await;
    assert_eq!(
        lease.infer(halve(&[1.0; 2])).await,
        failed(
            Code::Unavailable,
            "The batch scheduling queue to which this task was submitted is full; currently 1 \
             batches enqueued and max_enqueued_batches is 1"
        )
    );
    let last = begun(lease.infer(halve(&[1.0]))).await;
    script.run.open();
    assert_eq!(floats(running.await), [1.5; 4]);
    assert_eq!(floats(open.await), [1.5; 3]);
    assert_eq!(floats(last.await), [1.5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_expires_in_the_queue_is_told_so_and_not_run() {
    let (_world, script, lease) = world(parameters());
    let late =
        failed(Code::ResourceExhausted, "Run() timeout exceeded while waiting in batching queue");
    let since = Instant::now();
    assert_eq!(lease.infer(within(halve(&[2.0]), 40)).await, late);
    assert!(since.elapsed() < Duration::from_secs(5), "told at its deadline");
    assert_eq!(lease.infer(within(halve(&[2.0]), 0)).await, late);
    // It leaves no row in the batch of others.
    let (one, two) = tokio::join!(lease.infer(halve(&[1.0, 2.0])), lease.infer(halve(&[3.0, 4.0])));
    assert_eq!((floats(one), floats(two)), (vec![1.5, 2.0], vec![2.5, 3.0]));
    let sizes = rows_run(&script);
    assert!(!sizes.is_empty() && sizes.iter().sum::<usize>() == 4, "{sizes:?}");

    // One whose batch has begun is late as any run is.
    script.run.shut();
    let status = lease.infer(within(halve(&[1.0; 4]), 40)).await;
    assert_eq!(status, failed(Code::DeadlineExceeded, "Timed out waiting for notification"));
    script.run.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_of_a_batch_is_the_latest_of_its_requests() {
    let (_world, script, lease) = world(BatchingParameters { max_batch_size: 2, ..parameters() });
    script.run.shut();
    let short = begun(lease.infer(within(halve(&[2.0]), 30))).await;
    let long = begun(lease.infer(within(halve(&[4.0]), 20_000))).await;
    assert_eq!(short.await.unwrap_err().code(), Code::DeadlineExceeded);
    script.run.open();
    assert_eq!(floats(long.await), [3.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_leave_make_room_and_are_not_run() {
    let timeout = Duration::from_millis(200);
    let (_world, script, lease) = world(BatchingParameters {
        max_enqueued_batches: 1,
        batch_timeout: timeout,
        ..parameters()
    });
    for _ in 0..20 {
        drop(begun(lease.infer(halve(&[7.0; 3]))).await);
    }
    let (one, two) = tokio::join!(lease.infer(halve(&[1.0])), lease.infer(halve(&[3.0; 3])));
    assert_eq!((floats(one), floats(two)), (vec![1.5], vec![2.5; 3]));
    assert_eq!(rows_run(&script).iter().sum::<usize>(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_filled_up_to_an_allowed_size() {
    let (_world, script, lease) = world(BatchingParameters {
        max_batch_size: 8,
        batch_timeout: Duration::ZERO,
        allowed_batch_sizes: vec![3, 8],
        ..parameters()
    });
    assert_eq!(floats(lease.infer(halve(&[2.0])).await), [2.0]);
    assert_eq!(floats(lease.infer(halve(&[2.0; 3])).await), [2.0; 3]);
    assert_eq!(floats(lease.infer(halve(&[2.0; 4])).await), [2.0; 4]);
    assert_eq!(rows_run(&script), [3, 3, 8]);
}

fn table(rows: usize, columns: usize, value: f32) -> InferRequest {
    let shape = Shape::new(vec![rows, columns]).unwrap();
    let x = Tensor::of(shape, &vec![value; rows * columns]).unwrap();
    InferRequest { inputs: vec![x], ..halve(&[]) }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_different_shapes_fail_together_unless_padding_is_on() {
    let (_world, script, lease) = world(parameters());
    let narrow = begun(lease.infer(table(1, 2, 2.0))).await;
    let wide = begun(lease.infer(table(3, 3, 4.0))).await;
    let status = narrow.await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().starts_with("Tensors with name 'x:0' from different tasks have"));
    assert_eq!(wide.await, Err(status));
    assert!(rows_run(&script).is_empty());

    let (_world, script, lease) =
        world(BatchingParameters { pad_variable_length_inputs: true, ..parameters() });
    let narrow = begun(lease.infer(table(1, 2, 2.0))).await;
    let wide = begun(lease.infer(table(3, 3, 4.0))).await;
    // What the graph makes of the padding is in the answer, as in the original.
    let narrow = narrow.await.unwrap();
    assert_eq!(narrow[0].shape().dims(), [1, 3]);
    assert_eq!(floats(Ok(narrow)), [2.0; 3]);
    assert_eq!(floats(wide.await), [3.0; 9]);
    assert_eq!(rows_run(&script), [4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_must_have_a_row_for_each_of_the_inputs() {
    let (_world, _script, lease) =
        world(BatchingParameters { batch_timeout: Duration::ZERO, ..parameters() });
    assert_eq!(
        lease.infer(of("total", &[1.0])).await,
        failed(Code::FailedPrecondition, "Batched output tensor has 0 dimensions")
    );
    assert_eq!(
        lease.infer(of("odd", &[1.0])).await,
        failed(
            Code::FailedPrecondition,
            "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes \
             of the input tensors"
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn large_requests_are_cut_and_put_together() {
    let (_world, script, lease) = world(BatchingParameters {
        max_batch_size: 10,
        max_execution_batch_size: 4,
        enable_large_batch_splitting: true,
        ..parameters()
    });
    let first = begun(lease.infer(halve(&[2.0]))).await;
    let large: Vec<f32> = (0..10).map(|n| n as f32 * 2.0).collect();
    let second = begun(lease.infer(halve(&large))).await;
    let third = begun(lease.infer(halve(&[20.0]))).await;
    assert_eq!(floats(first.await), [2.0]);
    let want: Vec<f32> = (0..10).map(|n| n as f32 + 1.0).collect();
    assert_eq!(floats(second.await), want);
    assert_eq!(floats(third.await), [11.0]);
    assert_eq!(rows_run(&script), [4, 4, 4]);
    assert_eq!(
        lease.infer(halve(&[0.0; 11])).await,
        failed(Code::InvalidArgument, "Task size 11 is larger than maximum input batch size 10")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_one_request_is_not_the_error_of_others() {
    let (_world, script, lease) = world(parameters());
    let one = begun(lease.infer(halve(&[2.0]))).await;
    let bad = begun(lease.infer(halve(&[BAD]))).await;
    let two = begun(lease.infer(halve(&[4.0, 6.0]))).await;
    assert_eq!(floats(one.await), [2.0]);
    assert_eq!(bad.await, failed(Code::InvalidArgument, "x is bad"));
    assert_eq!(floats(two.await), [3.0, 4.0]);
    assert_eq!(rows_run(&script), [4, 1, 3, 1, 2], "in halves");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_told_to_all_and_the_session_is_replaced() {
    let (world, _script, lease) = world(parameters());
    let one = begun(lease.infer(halve(&[2.0, 2.0]))).await;
    let two = begun(lease.infer(halve(&[4.0, f32::NAN]))).await;
    for answer in [one.await, two.await] {
        assert_eq!(answer.unwrap_err().code(), Code::Internal);
    }
    assert_eq!(lease.infer(halve(&[2.0])).await.unwrap_err().code(), Code::Unavailable);
    eventually(|| world.engine.count("loaded m:1") == 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_signature_is_run_alone() {
    let (_world, script, lease) = world(BatchingParameters {
        allowed_batch_sizes: vec![4],
        batch_timeout: Duration::from_millis(50),
        ..parameters()
    });
    let requests: Vec<_> = (0..4).map(|_| lease.infer(of("count", &[1.0]))).collect();
    let mut counts = Vec::new();
    for request in requests {
        counts.extend(floats(request.await));
    }
    counts.sort_by(f32::total_cmp);
    assert_eq!(counts, [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(rows_run(&script), [1; 4]);
}

fn pair(rows: &[i64], outputs: Vec<usize>) -> InferRequest {
    let mut strings = StringsBuilder::new();
    rows.iter().for_each(|row| strings.push("s".repeat(*row as usize).as_bytes()));
    InferRequest {
        signature: "pair".to_owned(),
        inputs: vec![
            Tensor::of(Shape::vector(rows.len()), rows).unwrap(),
            Tensor::of_strings(Shape::vector(rows.len()), &strings).unwrap(),
        ],
        outputs,
        deadline: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_set_of_outputs_has_a_queue_and_each_request_its_order() {
    let (_world, script, lease) = world(parameters());
    let strings = begun(lease.infer(pair(&[1], vec![1]))).await;
    let both = begun(lease.infer(pair(&[2, 3], vec![1, 0]))).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(rows_run(&script).is_empty());
    let turned = begun(lease.infer(pair(&[4, 5], vec![0, 1]))).await;
    let (both, turned) = (both.await.unwrap(), turned.await.unwrap());
    let want = pair(&[2, 3], vec![]).inputs;
    assert_eq!(both, [want[1].clone(), want[0].clone()]);
    assert_eq!(turned, pair(&[4, 5], vec![]).inputs);
    assert_eq!(rows_run(&script), [4]);
    let last = begun(lease.infer(pair(&[0, 0, 6], vec![1]))).await;
    assert_eq!(strings.await.unwrap(), [pair(&[1], vec![]).inputs[1].clone()]);
    assert_eq!(last.await.unwrap()[0].dtype(), DType::String);
    assert_eq!(rows_run(&script), [4, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_cannot_make_queues_without_bound() {
    let (_world, script, lease) = world(parameters());
    let wanting = |bits: u32| InferRequest {
        outputs: (0..7).filter(|output| bits & (1 << output) != 0).collect(),
        ..of("many", &[3.0])
    };
    let mut waiting = Vec::new();
    for bits in 0..64 {
        waiting.push(begun(lease.infer(wanting(bits))).await);
    }
    assert!(rows_run(&script).is_empty(), "each set of outputs has a queue");
    for bits in 64..70 {
        let outputs = lease.infer(wanting(bits)).await.unwrap();
        assert_eq!(outputs.len() as u32, bits.count_ones(), "run alone, and at once");
    }
    assert_eq!(rows_run(&script), [1; 6]);
    // All outputs of a signature always have theirs.
    let all = begun(lease.infer(wanting(127))).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(rows_run(&script).len(), 6);
    drop(all);
}

#[tokio::test(flavor = "multi_thread")]
async fn once_nobody_comes_any_more_nobody_waits() {
    let (world, script, lease) = world(parameters());
    let waits = begun(lease.infer(halve(&[2.0]))).await;
    let others = begun(lease.infer(pair(&[1], vec![0]))).await;
    world.serving.hurry_batches();
    assert_eq!(floats(waits.await), [2.0]);
    assert!(others.await.is_ok());
    assert_eq!(floats(lease.infer(halve(&[4.0])).await), [3.0]);
    // One that has no queue yet.
    assert!(lease.infer(pair(&[1], vec![1])).await.is_ok());
    assert_eq!(rows_run(&script), [1; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_with_waiting_batches_is_unloaded_after_them() {
    let (world, script, lease) = world(parameters());
    let waits = begun(lease.infer(halve(&[2.0]))).await;
    drop(lease.clone());
    world.want("m", &[]);
    eventually(|| world.lease("m").is_err());
    assert_eq!(world.engine.count("unload m:1"), 0);
    let fills = begun(lease.infer(halve(&[4.0; 3]))).await;
    assert_eq!(floats(waits.await), [2.0]);
    assert_eq!(floats(fills.await), [3.0; 3]);
    drop(lease);
    eventually(|| world.engine.count("unloaded m:1") == 1);
    assert_eq!(rows_run(&script), [4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_refuses_what_waits_for_its_batch() {
    let (world, _script, lease) = world(parameters());
    let waits = begun(lease.infer(halve(&[2.0]))).await;
    let serving = world.serving.clone();
    tokio::task::spawn_blocking(move || serving.shutdown(Duration::ZERO)).await.unwrap();
    assert_eq!(waits.await.unwrap_err().code(), Code::Unavailable);
}

/// Writes down what it hears.
#[derive(Default)]
struct Heard {
    waits: Mutex<Vec<bool>>,
    entered: Mutex<Vec<(usize, usize)>>,
    formed: Mutex<Vec<FormedBatch>>,
    handed_over: AtomicUsize,
}

impl RunObserver for Heard {
    fn waited(&self, model: &ModelName, batched: bool, _: Duration) {
        assert!(["m", "n"].contains(&model.as_str()));
        self.waits.lock().unwrap().push(batched);
    }

    fn entered(&self, _: &ModelName, rows: usize, inputs: usize) {
        self.entered.lock().unwrap().push((rows, inputs));
    }

    fn formed(&self, _: &ModelName, batch: FormedBatch) {
        self.formed.lock().unwrap().push(batch);
    }

    fn handed_over(&self, _: &ModelName) {
        self.handed_over.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_batches_and_depths_are_told() {
    let engine = FakeEngine::default();
    let heard = Arc::new(Heard::default());
    let serving = Serving::start_observed(
        Arc::new(engine.clone()),
        options(),
        Arc::new(RealClock),
        Arc::clone(&heard) as _,
    );
    let world = World { engine, serving: serving.unwrap() };
    let allowed = BatchingParameters { allowed_batch_sizes: vec![4], ..parameters() };
    *world.engine.script("m:1").batching.lock().unwrap() = Some(allowed);
    world.serve("m", &[1]);
    world.serve("n", &[1]);
    let lease = world.lease("m").unwrap();
    let waits = begun(lease.infer(pair(&[1], vec![0, 1]))).await;
    let depth = |model: &str, requests| QueueDepth {
        model: model.into(),
        version: vesta_model::Version(1),
        requests,
    };
    assert_eq!(world.serving.queue_watch().depths(), [depth("m", 1), depth("n", 0)]);
    let more = begun(lease.infer(pair(&[2, 3], vec![0, 1]))).await;
    let last = begun(lease.infer(pair(&[2, 3], vec![0, 1]))).await;
    waits.await.unwrap();
    more.await.unwrap();
    drop(last);
    ask(&world.lease("n").unwrap()).await.unwrap();
    assert_eq!(*heard.entered.lock().unwrap(), [(1, 2), (2, 2), (2, 2)]);
    let formed = FormedBatch { requests: 2, rows: 3, padding_rows: 1, rows_max: 4 };
    assert_eq!(*heard.formed.lock().unwrap(), [formed]);
    assert_eq!(heard.handed_over.load(Ordering::Relaxed), 1);
    assert_eq!(*heard.waits.lock().unwrap(), [true, true, false]);
}
