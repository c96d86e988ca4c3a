"""Batching as clients and operators meet it: what is run together, what is refused and how, starts and
files, metrics; on the embedded engine and on TensorFlow."""

import concurrent.futures
import json
import random
import re
import shutil
import threading
import time

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, predict_pb2, regression_pb2

from models import Folders, save, save_graph
from server import SHARED, Server, need_shared, need_tensorflow
from test_program import ask, run, wait_for
from test_serving_api import example
from test_warmup import predict_log

TESTDATA = SHARED / "tfs-testdata"
MODEL = TESTDATA / "saved_model_half_plus_two_cpu"
COUNTER = TESTDATA / "saved_model_counter"
METRICS = "/monitoring/prometheus/metrics"
SESSION = ":tensorflow:serving:batching_session:"

# Longer than any test lasts: a batch is then closed by its size alone.
FOR_EVER = 600_000_000


def parameters(**values):
    """Text BatchingParameters; lists and booleans bare, numbers wrapped as the message has them."""
    lines = []
    for name, value in values.items():
        bare = isinstance(value, list) or name == "pad_variable_length_inputs"
        text = json.dumps(value)
        lines.append(f"{name}: {text}" if bare else f"{name} {{ value: {text} }}")
    return "\n".join(lines) + "\n"


class Batching(Folders):
    """Servers that batch, and what their pages say."""

    engine = "embedded"

    @classmethod
    def setUpClass(cls):
        need_shared("tfs-testdata")
        if cls.engine == "tensorflow":
            need_tensorflow()

    def file(self, name, text):
        path = self.base / name
        path.write_text(text)
        return path

    def monitored(self):
        path = self.file("monitoring.config", "prometheus_config { enable: true }")
        return f"--monitoring_config_file={path}"

    def start(self, *more, model=MODEL, **values):
        flags = [f"--model_base_path={model}", "--model_name=m", f"--engine={self.engine}",
                 "--max_num_load_retries=0", "--enable_batching", self.monitored()]
        if values:
            path = self.file("batching.config", parameters(**values))
            flags.append(f"--batching_parameters_file={path}")
        server = Server(*flags, *more, seconds=120)
        self.addCleanup(server.__exit__)
        return server, self.connect(server)

    def page(self, server):
        return ask(server, "GET", METRICS)[1]

    def value(self, server, line):
        """The number on a line of the page; 0 when it is not there yet."""
        found = re.search(f"^{re.escape(line)} (\\S+)$", self.page(server), re.MULTILINE)
        return float(found.group(1)) if found else 0

    def together(self, *calls):
        """The outcome of calls that are all under way at once: a value, or an RPC's error."""
        def outcome(call):
            try:
                return call()
            except grpc.RpcError as error:
                return error
        with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
            return [done.result() for done in [pool.submit(outcome, call) for call in calls]]

    def refused(self, code, text, call):
        with self.assertRaises(grpc.RpcError) as caught:
            call()
        self.assertEqual((caught.exception.code(), caught.exception.details()), (code, text))


def floats(*values):
    return np.array(values, np.float32)


def over_rest(server, values):
    status, body = ask(server, "POST", "/v1/models/m:predict", json.dumps({"instances": values}))
    return json.loads(body)["predictions"] if status == 200 else (status, json.loads(body)["error"])


class FormedTest(Batching):
    def test_calls_over_both_wires_are_run_as_one(self):
        server, client = self.start(max_batch_size=8, batch_timeout_micros=FOR_EVER)
        before = time.monotonic()
        grpc_calls = [lambda n=n: client.predict("m", x=floats(n))["y"].tolist() for n in range(4)]
        rest_calls = [lambda n=n: over_rest(server, [float(n)]) for n in range(4, 8)]
        answers = self.together(*grpc_calls, *rest_calls)
        self.assertLess(time.monotonic() - before, 30)
        self.assertEqual(answers, [[n / 2 + 2] for n in range(8)])
        self.assertEqual(self.value(server, f"{SESSION}wrapped_run_count{{}}"), 1)
        self.assertEqual(self.value(server, f"{SESSION}processed_batch_size_sum{{}}"), 8)

    def test_each_of_many_gets_its_own_rows(self):
        server, client = self.start(max_batch_size=32, batch_timeout_micros=2000,
                                    max_enqueued_batches=1_000_000, num_batch_threads=1)
        dice = random.Random(5)
        sizes = [dice.randint(1, 9) for _ in range(400)]

        def call(caller, size):
            x = caller * 16 + np.arange(size, dtype=np.float32)
            np.testing.assert_array_equal(client.predict("m", x=x)["y"], x / 2 + 2)

        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            for done in [pool.submit(call, *pair) for pair in enumerate(sizes)]:
                done.result()
        runs = self.value(server, f"{SESSION}wrapped_run_count{{}}")
        self.assertLess(runs, len(sizes) / 2, "hardly any request was run with another")
        self.assertEqual(self.value(server, f"{SESSION}processed_batch_size_count{{}}"), runs)
        self.assertEqual(self.value(server, f"{SESSION}processed_batch_size_sum{{}}"), sum(sizes))
        self.assertEqual(self.value(server, f"{SESSION}input_batch_size_sum{{}}"), sum(sizes))
        waits = f'{SESSION}queuing_latency_count{{thread_pool_name=""}}'
        self.assertEqual(self.value(server, waits), len(sizes))
        self.assertEqual(
            self.value(server, f'{SESSION}processed_batch_size_bucket{{le="32"}}'), runs)

    def test_classify_and_regress_are_batched_by_their_examples(self):
        server, client = self.start(max_batch_size=3, batch_timeout_micros=FOR_EVER)

        def classify(*values):
            request = classification_pb2.ClassificationRequest()
            request.model_spec.name, request.model_spec.signature_name = "m", "classify_x_to_y"
            request.input.example_list.examples.extend(example(x=value) for value in values)
            answer = client.predictions.Classify(request, timeout=30)
            return [each.classes[0].score for each in answer.result.classifications]

        def regress(*values):
            request = regression_pb2.RegressionRequest()
            request.model_spec.name, request.model_spec.signature_name = "m", "regress_x_to_y"
            request.input.example_list.examples.extend(example(x=value) for value in values)
            answer = client.predictions.Regress(request, timeout=30)
            return [each.value for each in answer.result.regressions]

        answers = self.together(lambda: classify(2.0), lambda: classify(4.0, 6.0),
                                lambda: regress(8.0, 10.0), lambda: regress(12.0))
        self.assertEqual(answers, [[3.0], [4.0, 5.0], [6.0, 7.0], [8.0]])
        self.assertEqual(self.value(server, f"{SESSION}wrapped_run_count{{}}"), 2)

    def test_without_a_file_a_request_is_not_kept_waiting(self):
        server, client = self.start()
        self.assertEqual(client.predict("m", x=floats(2))["y"].tolist(), [3.0])
        self.assertEqual(self.value(server, f"{SESSION}wrapped_run_count{{}}"), 1)
        self.assertIn("Wrapping session to perform batch processing", server.log())

    def test_recorded_requests_are_run_as_they_are(self):
        folder = self.base / "warm" / "7"
        shutil.copytree(MODEL / "00000123", folder)
        path = folder / "assets.extra" / "tf_serving_warmup_requests"
        path.parent.mkdir()
        # More rows than a request may have.
        with tf.io.TFRecordWriter(str(path)) as writer:
            log = predict_log()
            log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto(floats(1, 2, 3)))
            writer.write(log.SerializeToString())
        server, _ = self.start(model=folder.parent, max_batch_size=2)
        self.assertIn("Number of warmup records read: 1", server.log())
        self.assertEqual(self.value(server, f"{SESSION}wrapped_run_count{{}}"), 0)

    def test_without_the_flag_nothing_is_batched(self):
        with Server(f"--model_base_path={MODEL}", "--model_name=m", self.monitored()) as server:
            self.assertEqual(over_rest(server, [2.0]), [3.0])
            self.assertEqual(self.value(server, f"{SESSION}wrapped_run_count{{}}"), 0)
            wait = 'vesta_queue_wait_seconds_count{model_name="m"}'
            self.assertEqual(self.value(server, wait), 1, "waits are measured all the same")

    def test_at_the_end_no_batch_waits_for_more(self):
        server, client = self.start(max_batch_size=8, batch_timeout_micros=FOR_EVER)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(lambda: client.predict("m", x=floats(2))["y"].tolist())
            depth = 'vesta_queue_depth{model_name="m",version="123"}'
            while self.value(server, depth) < 1:
                time.sleep(0.01)
            self.assertEqual(server.stop(), 0)
            self.assertEqual(answer.result(), [3.0])

    def test_a_batch_waits_as_long_as_it_is_told(self):
        _, client = self.start(max_batch_size=8, batch_timeout_micros=300_000)
        before = time.monotonic()
        self.assertEqual(client.predict("m", x=floats(2))["y"].tolist(), [3.0])
        self.assertGreaterEqual(time.monotonic() - before, 0.3)


class FormedOnTensorFlowTest(FormedTest):
    engine = "tensorflow"
    test_without_the_flag_nothing_is_batched = None
    test_without_a_file_a_request_is_not_kept_waiting = None
    test_recorded_requests_are_run_as_they_are = None

    def test_strings_are_batched(self):
        folder = self.base / "strings" / "1"
        save(folder, lambda x: {"y": tf.strings.join([x, "!"])},
             tf.TensorSpec([None, 2], tf.string, name="x"))
        server, client = self.start(
            model=folder.parent, max_batch_size=4, batch_timeout_micros=FOR_EVER,
            allowed_batch_sizes=[4])
        rows = [[[f"caller {n}", "é" * n]] * (n + 1) for n in range(2)]
        calls = [lambda rows=rows: client.predict("m", x=np.array(rows, object))["y"]
                 for rows in (*rows, [["", "z"]])]
        for asked, got in zip((*rows, [["", "z"]]), self.together(*calls)):
            self.assertEqual(got.tolist(), [[(word + "!").encode() for word in row] for row in asked])
        self.assertEqual(self.value(server, f"{SESSION}wrapped_run_count{{}}"), 1)

    def test_a_stateful_signature_is_run_for_each_call(self):
        server, client = self.start(
            model=COUNTER, max_batch_size=8, batch_timeout_micros=FOR_EVER)

        def increase():
            return client.predict("m", signature="incr_counter")["output"].tolist()

        # One after the other: the graph itself does not add and read in one step.
        self.assertEqual([increase() for _ in range(3)], [1, 2, 3])
        self.assertEqual(self.value(server, f"{SESSION}wrapped_run_count{{}}"), 0)

    def test_an_error_of_one_is_not_the_error_of_others(self):
        folder = self.base / "checked" / "1"

        def build():
            x = tf.compat.v1.placeholder(tf.float32, [None], name="x")
            check = tf.debugging.Assert(tf.reduce_all(x >= 0), ["x is negative"])
            with tf.control_dependencies([check]):
                return {"x": x}, {"y": tf.add(x, 1.0, name="y")}

        save_graph(folder, build)
        server, client = self.start(
            model=folder.parent, max_batch_size=4, batch_timeout_micros=FOR_EVER)
        calls = [lambda n=n: client.predict("m", x=floats(n))["y"].tolist() for n in (1, 2, -3, 4)]
        answers = self.together(*calls)
        self.assertEqual(answers[:2] + answers[3:], [[2.0], [3.0], [5.0]])
        self.assertEqual(answers[2].code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertIn("x is negative", answers[2].details())


class RefusedTest(Batching):
    def test_too_large(self):
        server, client = self.start(max_batch_size=4)
        text = "Task size 5 is larger than maximum input batch size 4"
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, text,
                     lambda: client.predict("m", x=floats(*range(5))))
        self.assertEqual(over_rest(server, [0.0] * 5), (400, text))
        self.assertEqual(over_rest(server, [0.0] * 4), [2.0] * 4)

    def test_without_rows(self):
        _, client = self.start(max_batch_size=4)
        self.refused(grpc.StatusCode.INVALID_ARGUMENT,
                     "Batching Run() input tensors must have at least one dimension",
                     lambda: client.predict("m", x=np.float32(1)))

    def test_inputs_of_unequal_rows(self):
        folder = self.base / "sum" / "1"
        save(folder, lambda a, b: {"y": a + b}, tf.TensorSpec([None], tf.float32, name="a"),
             tf.TensorSpec([None], tf.float32, name="b"))
        _, client = self.start(model=folder.parent, max_batch_size=4)
        self.assertEqual(client.predict("m", a=floats(1), b=floats(2))["y"].tolist(), [3.0])
        self.refused(grpc.StatusCode.INVALID_ARGUMENT,
                     "Batching Run() input tensors must have equal 0th-dimension size",
                     lambda: client.predict("m", a=floats(1, 2), b=floats(3)))

    def test_a_full_queue(self):
        server, client = self.start(
            max_batch_size=2, batch_timeout_micros=FOR_EVER, max_enqueued_batches=1)
        first = threading.Thread(target=lambda: client.predict("m", x=floats(1)))
        first.start()
        depth = 'vesta_queue_depth{model_name="m",version="123"}'
        while self.value(server, depth) < 1:
            time.sleep(0.01)
        text = ("The batch scheduling queue to which this task was submitted is full; currently 1 "
                "batches enqueued and max_enqueued_batches is 1")
        self.refused(grpc.StatusCode.UNAVAILABLE, text,
                     lambda: client.predict("m", x=floats(1, 2)))
        self.assertEqual(over_rest(server, [1.0, 2.0]), (503, text))
        client.predict("m", x=floats(1))
        first.join()
        self.assertEqual(self.value(server, depth), 0)

    def test_a_call_that_is_cancelled_leaves_the_queue(self):
        server, client = self.start(
            max_batch_size=2, batch_timeout_micros=FOR_EVER, max_enqueued_batches=1)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "m"
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(floats(1)))
        call = client.predictions.Predict.future(request)
        depth = 'vesta_queue_depth{model_name="m",version="123"}'
        while self.value(server, depth) < 1:
            time.sleep(0.01)
        call.cancel()

        def answered():
            try:
                return client.predict("m", x=floats(2, 4))["y"].tolist() == [3.0, 4.0]
            except grpc.RpcError as error:
                # The server has not heard of it yet.
                self.assertEqual(error.code(), grpc.StatusCode.UNAVAILABLE)
                return False

        self.assertTrue(wait_for(answered))
        self.assertEqual(self.value(server, f"{SESSION}processed_batch_size_sum{{}}"), 2)

    def test_shapes_that_differ(self):
        server, client = self.start(max_batch_size=2, batch_timeout_micros=FOR_EVER)
        answers = self.together(lambda: client.predict("m", x=np.zeros([1, 2], np.float32)),
                                lambda: client.predict("m", x=np.zeros([1, 3], np.float32)))
        for error in answers:
            self.assertEqual(error.code(), grpc.StatusCode.FAILED_PRECONDITION)
            self.assertRegex(
                error.details(),
                "^Tensors with name '.*:0' from different tasks have different shapes and padding "
                "is turned off. Set pad_variable_length_inputs to true, or ensure that all tensors "
                "with the same name have equal dimensions starting with the first dim.$")

    def test_a_wait_that_is_too_long(self):
        server, client = self.start(
            "--rest_api_timeout_in_ms=200", max_batch_size=4, batch_timeout_micros=FOR_EVER)
        text = "Run() timeout exceeded while waiting in batching queue"
        self.assertEqual(over_rest(server, [1.0]), (429, text))
        with self.assertRaises(grpc.RpcError) as caught:
            client.predict("m", x=floats(1), timeout=0.2)
        self.assertIn(caught.exception.code(), (grpc.StatusCode.RESOURCE_EXHAUSTED,
                                                grpc.StatusCode.DEADLINE_EXCEEDED))
        self.assertEqual(self.value(server, f"{SESSION}wrapped_run_count{{}}"), 0)


class FilledUpTest(Batching):
    def test_to_an_allowed_size(self):
        server, client = self.start(max_batch_size=8, allowed_batch_sizes=[3, 8])
        for size in (1, 3, 4):
            x = np.arange(size, dtype=np.float32)
            np.testing.assert_array_equal(client.predict("m", x=x)["y"], x / 2 + 2)
        for size, count, padding in ((3, 2, 2), (8, 1, 4)):
            name = f'{SESSION}padding_size_{{}}{{{{execution_batch_size="{size}"}}}}'
            self.assertEqual(self.value(server, name.format("count")), count)
            self.assertEqual(self.value(server, name.format("sum")), padding)
        fill = 'vesta_batch_fill_ratio_bucket{model_name="m",le="0.4"}'
        self.assertEqual(self.value(server, fill), 2)

    def test_inputs_of_different_lengths(self):
        folder = self.base / "twice" / "1"
        save(folder, lambda x: {"y": 2.0 * x}, tf.TensorSpec([None, None], tf.float32, name="x"))
        server, client = self.start(
            model=folder.parent, max_batch_size=2, batch_timeout_micros=FOR_EVER,
            pad_variable_length_inputs=True)
        short, long = self.together(lambda: client.predict("m", x=np.array([[5]], np.float32)),
                                    lambda: client.predict("m", x=np.array([[1, 2]], np.float32)))
        self.assertEqual(short["y"].tolist(), [[10.0, 10.0]], "with its own first element")
        self.assertEqual(long["y"].tolist(), [[2.0, 4.0]])
        self.assertEqual(self.value(server, f"{SESSION}wrapped_run_count{{}}"), 1)

    def test_large_requests_are_cut(self):
        server, client = self.start(
            max_batch_size=100, max_execution_batch_size=8, enable_large_batch_splitting=True,
            max_enqueued_batches=100)
        x = np.arange(100, dtype=np.float32)
        np.testing.assert_array_equal(client.predict("m", x=x)["y"], x / 2 + 2)
        self.assertEqual(self.value(server, f"{SESSION}wrapped_run_count{{}}"), 13)
        self.refused(grpc.StatusCode.INVALID_ARGUMENT,
                     "Task size 101 is larger than maximum input batch size 100",
                     lambda: client.predict("m", x=floats(*range(101))))


class OutputsTest(Batching):
    def test_outputs_without_rows(self):
        folder = self.base / "total" / "1"
        save(folder, lambda x: {"y": tf.reduce_sum(x)}, tf.TensorSpec([None], tf.float32, name="x"))
        _, client = self.start(model=folder.parent, max_batch_size=4)
        self.refused(grpc.StatusCode.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions",
                     lambda: client.predict("m", x=floats(1, 2)))

    def test_outputs_with_other_rows(self):
        folder = self.base / "twice" / "1"
        save(folder, lambda x: {"y": tf.concat([x, x], 0)},
             tf.TensorSpec([None], tf.float32, name="x"))
        _, client = self.start(model=folder.parent, max_batch_size=4)
        self.refused(
            grpc.StatusCode.FAILED_PRECONDITION,
            "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes "
            "of the input tensors", lambda: client.predict("m", x=floats(1, 2)))

    def test_a_filter_of_outputs_has_its_own_queue(self):
        folder = self.base / "both" / "1"
        save(folder, lambda x: {"a": x + 1.0, "b": x + 2.0},
             tf.TensorSpec([None], tf.float32, name="x"))
        server, client = self.start(
            model=folder.parent, max_batch_size=2, batch_timeout_micros=FOR_EVER)

        def call(value, *outputs):
            request = predict_pb2.PredictRequest(output_filter=outputs)
            request.model_spec.name = "m"
            request.inputs["x"].CopyFrom(tf.make_tensor_proto(floats(value)))
            answer = client.predictions.Predict(request, timeout=30)
            return {name: tf.make_ndarray(y).tolist() for name, y in answer.outputs.items()}

        answers = self.together(lambda: call(1), lambda: call(2, "b"), lambda: call(3, "b"),
                                lambda: call(4, "b", "a"))
        self.assertEqual(answers, [{"a": [2], "b": [3]}, {"b": [4]}, {"b": [5]},
                                   {"a": [5], "b": [6]}])
        self.assertEqual(self.value(server, f"{SESSION}wrapped_run_count{{}}"), 2)


class PerModelTest(Batching):
    def place(self, model, text=None):
        folder = self.base / model / "7"
        shutil.copytree(MODEL / "00000123", folder)
        if text is not None:
            (folder / "batching_params.pbtxt").write_text(text)
        return folder.parent

    def test_only_models_with_a_file_are_batched(self):
        own = self.place("own", parameters(max_batch_size=2))
        config = self.config(own=own, plain=self.place("plain"))
        flags = ["--enable_batching", "--enable_per_model_batching_parameters", self.monitored()]
        # What the file for all says of sizes does not count then.
        path = self.file("batching.config", parameters(max_batch_size=1, num_batch_threads=1))
        with Server(config, *flags, f"--batching_parameters_file={path}") as server:
            client = self.connect(server)
            self.assertEqual(client.predict("own", x=floats(2, 4))["y"].tolist(), [3.0, 4.0])
            self.refused(grpc.StatusCode.INVALID_ARGUMENT,
                         "Task size 3 is larger than maximum input batch size 2",
                         lambda: client.predict("own", x=floats(1, 2, 3)))
            self.assertEqual(client.predict("plain", x=floats(*[2] * 5))["y"].tolist(), [3.0] * 5)
            self.assertEqual(self.value(server, f"{SESSION}wrapped_run_count{{}}"), 1)

    def test_a_file_with_a_mistake_fails_the_load(self):
        for text, error in (
                (parameters(max_batch_size=8, allowed_batch_sizes=[4]),
                 "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; "
                 "expected 8"),
                ("max_batch_size 8", "Invalid protobuf file: '")):
            with self.subTest(error):
                base = self.place(f"m{len(error)}", text)
                done = run(f"--model_base_path={base}", "--port=0", "--max_num_load_retries=0",
                           f"--grpc_socket_path={self.base}/s", "--enable_batching",
                           "--enable_per_model_batching_parameters")
                self.assertEqual(done.returncode, 255, done.stdout)
                self.assertIn(f"due to error: INVALID_ARGUMENT: {error}", done.stdout)


class StartTest(Batching):
    def fails(self, *flags):
        done = run(f"--model_base_path={MODEL}", "--port=0", f"--grpc_socket_path={self.base}/s",
                   *flags)
        self.assertEqual(done.returncode, 255, done.stdout)
        return done

    def test_a_file_without_the_flag(self):
        path = self.file("b", parameters(max_batch_size=8))
        self.assertEqual(
            self.fails(f"--batching_parameters_file={path}").stdout,
            "Failed to start server. Error: INVALID_ARGUMENT: "
            "server_options.batching_parameters_file is set without setting "
            "server_options.enable_batching to true.\n")

    def test_files_that_cannot_be_read(self):
        flag = "--enable_batching"
        path = self.file("empty", "")
        self.assertEqual(
            self.fails(flag, f"--batching_parameters_file={path}").stdout,
            f"Failed to start server. Error: INVALID_ARGUMENT: {path}; Invalid argument\n")
        missing = self.base / "missing"
        self.assertEqual(
            self.fails(flag, f"--batching_parameters_file={missing}").stdout,
            f"Failed to start server. Error: NOT_FOUND: {missing}; No such file or directory\n")
        path = self.file("garbage", "max_batch_size { value: 8 }\nmax_batch_sise { value: 8 }\n")
        done = self.fails(flag, f"--batching_parameters_file={path}")
        self.assertIn("Error parsing text-format tensorflow.serving.BatchingParameters: 2:",
                      done.stderr)

    def test_parameters_that_contradict_each_other(self):
        path = self.file("b", parameters(max_batch_size=8, allowed_batch_sizes=[2, 4]))
        self.assertEqual(
            self.fails("--enable_batching", f"--batching_parameters_file={path}").stdout,
            "Failed to start server. Error: INVALID_ARGUMENT: Last entry in allowed_batch_sizes "
            "must match max_batch_size; last entry was 4; expected 8\n")

    def test_the_originals_own_file(self):
        flag = f"--batching_parameters_file={TESTDATA / 'batching_config.txt'}"
        server, client = self.start(flag)
        self.assertEqual(client.predict("m", x=floats(2))["y"].tolist(), [3.0])
        self.refused(grpc.StatusCode.INVALID_ARGUMENT,
                     "Task size 129 is larger than maximum input batch size 128",
                     lambda: client.predict("m", x=floats(*range(129))))
