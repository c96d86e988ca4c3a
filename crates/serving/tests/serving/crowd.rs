//! A crowd: thousands of concurrent requests of unequal sizes, shapes, signatures and patience, from
//! callers of whom some leave, through the real scheduler. Whatever happens, each caller who gets
//! outputs gets those of its own rows, and batches keep to their limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use vesta_model::{BatchingParameters, Code, Shape, Status, StringsBuilder, Tensor};
use vesta_serving::{InferRequest, Lease, ServingOptions};

use crate::fake::BAD;
use crate::world::{PATIENCE, World, eventually, options};

/// A xorshift generator: what a run does can be told from its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

const ROWS_MAX: u64 = 9;

/// What came of all requests.
#[derive(Default)]
struct Tally {
    answered: AtomicUsize,
    late: AtomicUsize,
    left: AtomicUsize,
    bad: AtomicUsize,
    full: AtomicUsize,
    large: AtomicUsize,
}

/// A request, the outputs that it must get, and whether it is bad; `columns_max` says how different
/// shapes may be.
fn request(
    dice: &mut Dice,
    version: i64,
    caller: u64,
    columns_max: u64,
) -> (InferRequest, Vec<Tensor>, bool) {
    let rows = 1 + dice.roll(ROWS_MAX) as usize;
    let number = |row: usize| (caller * 16 + row as u64) as f32;
    if dice.roll(4) == 0 {
        let mut strings = StringsBuilder::new();
        (0..rows).for_each(|row| strings.push(format!("caller {caller} row {row}").as_bytes()));
        let whole: Vec<i64> = (0..rows).map(|row| number(row) as i64).collect();
        let inputs = vec![
            Tensor::of(Shape::vector(rows), &whole).unwrap(),
            Tensor::of_strings(Shape::vector(rows), &strings).unwrap(),
        ];
        let outputs = [vec![0, 1], vec![1, 0], vec![1], vec![0]][dice.roll(4) as usize].clone();
        let want = outputs.iter().map(|&output: &usize| inputs[output].clone()).collect();
        let request =
            InferRequest { signature: "pair".to_owned(), inputs, outputs, deadline: None };
        return (request, want, false);
    }
    let columns = 1 + dice.roll(columns_max) as usize;
    let shape = Shape::new(vec![rows, columns]).unwrap();
    let is_bad = dice.roll(50) == 0;
    let mut x: Vec<f32> =
        (0..rows * columns).map(|at| number(at / columns) + (at % columns) as f32 / 8.0).collect();
    let y: Vec<f32> = x.iter().map(|x| x / 2.0 + version as f32).collect();
    if is_bad {
        x[0] = BAD;
    }
    let request = InferRequest {
        signature: "serving_default".to_owned(),
        inputs: vec![Tensor::of(shape.clone(), &x).unwrap()],
        outputs: vec![0],
        deadline: None,
    };
    (request, vec![Tensor::of(shape, &y).unwrap()], is_bad)
}

/// What is left of an output when columns of padding are cut off, which must be copies of its first
/// element.
fn unpadded(output: &Tensor, want: &Tensor) -> Tensor {
    if output.shape() == want.shape() {
        return output.clone();
    }
    let (columns, kept) = (output.shape().dims()[1], want.shape().dims()[1]);
    let values = output.to_vec::<f32>().unwrap();
    let mut own = Vec::new();
    for row in values.chunks(columns) {
        own.extend_from_slice(&row[..kept]);
        assert!(row[kept..].iter().all(|&padding| padding == values[0]), "foreign padding");
    }
    Tensor::of(want.shape().clone(), &own).unwrap()
}

async fn call(
    leases: Arc<Vec<Lease>>,
    caller: u64,
    seed: u64,
    columns_max: u64,
    tally: Arc<Tally>,
) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for turn in 0..4 {
        let lease = &leases[dice.roll(leases.len() as u64) as usize];
        let (mut request, want, is_bad) =
            request(&mut dice, lease.version().0, caller * 4 + turn, columns_max);
        let rows = request.inputs[0].shape().dims()[0];
        let patience = [None, None, None, Some(2), Some(2000)][dice.roll(5) as usize];
        request.deadline = patience.map(|ms| Instant::now() + Duration::from_millis(ms));
        let answer = if dice.roll(10) == 0 {
            let leaves = Duration::from_micros(dice.roll(3000));
            match tokio::time::timeout(leaves, lease.infer(request)).await {
                Ok(answer) => answer,
                Err(_) => {
                    tally.left.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            }
        } else {
            lease.infer(request).await
        };
        let count = match answer {
            Ok(outputs) => {
                assert!(!is_bad, "a bad request was answered");
                assert_eq!(outputs.len(), want.len());
                for (output, want) in outputs.iter().zip(&want) {
                    assert_eq!(unpadded(output, want), *want, "caller {caller} got rows of others");
                }
                &tally.answered
            }
            Err(status) => tally.of_error(&status, is_bad, patience, rows),
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Tally {
    fn of_error(
        &self,
        status: &Status,
        is_bad: bool,
        patience: Option<u64>,
        rows: usize,
    ) -> &AtomicUsize {
        match status.code() {
            Code::InvalidArgument if status.message().starts_with("Task size") => {
                assert!(rows > 8, "{status}");
                &self.large
            }
            Code::InvalidArgument => {
                assert!(is_bad, "an error of somebody else: {status}");
                &self.bad
            }
            Code::ResourceExhausted | Code::DeadlineExceeded => {
                assert!(patience.is_some(), "{status}");
                &self.late
            }
            Code::Unavailable => {
                assert!(status.message().contains("max_enqueued_batches"), "{status}");
                &self.full
            }
            _ => panic!("{status}"),
        }
    }
}

/// `callers` at once, four requests each, at three models.
async fn crowd(seed: u64, callers: u64, parameters: BatchingParameters) {
    let world = World::with(ServingOptions { run_threads: 3, queue_runs_max: 10_000, ..options() });
    let models = ["a", "b", "alone"];
    for model in &models[..2] {
        for version in [1, 2] {
            let script = world.engine.script(&format!("{model}:{version}"));
            *script.batching.lock().unwrap() = Some(parameters.clone());
            *script.run_takes.lock().unwrap() = Duration::from_micros(300);
        }
    }
    for (model, version) in models.iter().zip([1, 2, 1]) {
        world.serve(model, &[version]);
    }
    let leases: Vec<Lease> = models.iter().map(|model| world.lease(model).unwrap()).collect();
    let (leases, tally) = (Arc::new(leases), Arc::new(Tally::default()));
    let columns_max = if parameters.pad_variable_length_inputs { 4 } else { 1 };
    let calls: Vec<_> = (0..callers)
        .map(|caller| {
            let (leases, tally) = (Arc::clone(&leases), Arc::clone(&tally));
            tokio::spawn(call(leases, caller, seed + caller, columns_max, tally))
        })
        .collect();
    for call in calls {
        // A request that nobody runs is a failure, too.
        tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap();
    }
    let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    let Tally { answered, late, left, bad, full, large } = &*tally;
    let all = [answered, late, left, bad, full, large].map(count);
    assert_eq!(all.iter().sum::<usize>() as u64, callers * 4, "seed {seed}: {all:?}");
    assert!(count(answered) > 0, "seed {seed}: {all:?}");

    let mut batched = 0;
    for (model, version) in models[..2].iter().zip([1, 2]) {
        let script = world.engine.script(&format!("{model}:{version}"));
        for &rows in script.rows_run.lock().unwrap().iter() {
            let rounded = parameters.filled_up(rows);
            assert!(rows <= parameters.batch_rows_max().max(rounded), "{rows} rows were run");
            assert_eq!(rows, rounded, "a batch of another size than is allowed");
            batched += usize::from(rows > ROWS_MAX as usize);
        }
    }
    assert!(batched > 0, "seed {seed}: no batch was larger than a request");
    // Nothing stays behind, and nobody keeps a version alive.
    eventually(|| world.serving.queue_watch().depths().iter().all(|depth| depth.requests == 0));
    drop(leases);
    models.iter().for_each(|model| world.want(model, &[]));
    eventually(|| world.engine.count("unloaded") == 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_of_a_crowd_gets_its_own_rows() {
    let parameters = BatchingParameters {
        max_batch_size: 32,
        batch_timeout: Duration::from_millis(1),
        max_enqueued_batches: 1_000_000,
        ..BatchingParameters::with_defaults(2)
    };
    crowd(1, 1000, parameters).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn also_with_allowed_sizes_and_a_short_queue() {
    let parameters = BatchingParameters {
        max_batch_size: 24,
        batch_timeout: Duration::ZERO,
        max_enqueued_batches: 6,
        num_batch_threads: 1,
        allowed_batch_sizes: vec![12, 24],
        ..BatchingParameters::with_defaults(2)
    };
    crowd(2, 600, parameters).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn also_when_their_inputs_are_padded() {
    let parameters = BatchingParameters {
        max_batch_size: 32,
        batch_timeout: Duration::from_micros(200),
        max_enqueued_batches: 1_000_000,
        allowed_batch_sizes: vec![16, 32],
        pad_variable_length_inputs: true,
        ..BatchingParameters::with_defaults(2)
    };
    crowd(4, 600, parameters).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn also_when_requests_are_cut() {
    let parameters = BatchingParameters {
        max_batch_size: 8,
        max_execution_batch_size: 5,
        batch_timeout: Duration::from_micros(500),
        max_enqueued_batches: 1_000_000,
        enable_large_batch_splitting: true,
        allowed_batch_sizes: vec![],
        ..BatchingParameters::with_defaults(2)
    };
    // No batch can be larger than a request here; what it proves is how requests are put together.
    crowd_of_pieces(3, 600, parameters).await;
}

async fn crowd_of_pieces(seed: u64, callers: u64, parameters: BatchingParameters) {
    let world = World::with(ServingOptions { run_threads: 3, queue_runs_max: 10_000, ..options() });
    let script = world.engine.script("a:1");
    *script.batching.lock().unwrap() = Some(parameters.clone());
    world.serve("a", &[1]);
    let leases = Arc::new(vec![world.lease("a").unwrap()]);
    let tally = Arc::new(Tally::default());
    let calls: Vec<_> = (0..callers)
        .map(|caller| {
            let (leases, tally) = (Arc::clone(&leases), Arc::clone(&tally));
            tokio::spawn(call(leases, caller, seed + caller, 1, tally))
        })
        .collect();
    for call in calls {
        // A request that nobody runs is a failure, too.
        tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap();
    }
    assert!(tally.answered.load(Ordering::Relaxed) > 100);
    assert!(tally.large.load(Ordering::Relaxed) > 0);
    let rows_run = script.rows_run.lock().unwrap();
    assert!(rows_run.iter().all(|&rows| rows <= parameters.batch_rows_max()));
    assert!(rows_run.contains(&parameters.batch_rows_max()));
}
