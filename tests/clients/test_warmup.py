"""Recorded requests in `assets.extra/tf_serving_warmup_requests`, written by TensorFlow itself, run
before a version is available."""

import unittest

import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2, inference_pb2, predict_pb2, prediction_log_pb2, regression_pb2)

from server import Server
from test_program import WithModels, ask, run, states, wait_for

MONITORING = "prometheus_config { enable: true }"


def predict_log(x=2.0, signature="", alias="x"):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "whatever", signature
    request.inputs[alias].CopyFrom(tf.make_tensor_proto([x], shape=[1]))
    return prediction_log_pb2.PredictionLog(
        predict_log=prediction_log_pb2.PredictLog(request=request))


def example(x=2.0):
    return tf.train.Example(features=tf.train.Features(feature={
        "x": tf.train.Feature(float_list=tf.train.FloatList(value=[x]))}))


def classify_log(signature="classify_x_to_y"):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.signature_name = signature
    request.input.example_list.examples.append(example())
    return prediction_log_pb2.PredictionLog(
        classify_log=prediction_log_pb2.ClassifyLog(request=request))


def regress_log():
    request = regression_pb2.RegressionRequest()
    request.model_spec.signature_name = "regress_x_to_y"
    request.input.example_list.examples.append(example())
    return prediction_log_pb2.PredictionLog(
        regress_log=prediction_log_pb2.RegressLog(request=request))


def multi_inference_log():
    request = inference_pb2.MultiInferenceRequest()
    for word in ("classify", "regress"):
        task = request.tasks.add(method_name=f"tensorflow/serving/{word}")
        task.model_spec.name = "whatever"
        task.model_spec.signature_name = f"{word}_x_to_y"
    request.input.example_list.examples.append(example())
    return prediction_log_pb2.PredictionLog(
        multi_inference_log=prediction_log_pb2.MultiInferenceLog(request=request))


class WarmUpTest(WithModels):
    def record(self, folder, *logs):
        path = folder / "assets.extra" / "tf_serving_warmup_requests"
        path.parent.mkdir(exist_ok=True)
        with tf.io.TFRecordWriter(str(path)) as writer:
            for log in logs:
                writer.write(log if isinstance(log, bytes) else log.SerializeToString())
        return path

    def failure(self, *logs, raw=None):
        folder = self.put(1)
        path = self.record(folder, *logs)
        if raw is not None:
            path.write_bytes(raw)
        done = run(*self.flags("--port=0", f"--grpc_socket_path={self.base.parent / 's'}"))
        self.assertEqual(done.returncode, 255, done.stdout)
        return done.stdout.replace(str(path), "FILE")

    def monitored(self, *more):
        path = self.base.parent / "monitoring.config"
        path.write_text(MONITORING)
        return self.flags(f"--monitoring_config_file={path}", *more)

    def count(self, server, folder, what="records_read"):
        _, page = ask(server, "GET", "/monitoring/prometheus/metrics")
        line = f':tensorflow:serving:model_warmup_{what}{{model_path="{folder}",status="OK"}} '
        found = [text[len(line):] for text in page.splitlines() if text.startswith(line)]
        return int(found[0]) if found else None

    def test_every_kind_is_run_before_the_version_is_available(self):
        folder = self.put(1)
        path = self.record(folder, predict_log(), classify_log(), regress_log(),
                           multi_inference_log(), prediction_log_pb2.PredictionLog())
        with Server(*self.monitored("--num_request_iterations_for_warmup=3")) as server:
            self.assertEqual(states(server), {"1": "AVAILABLE"})
            log = server.log()
            self.assertIn(f"Starting to read warmup data for model at {path}", log)
            self.assertIn("Number of warmup records read: 5", log)
            self.assertLess(log.index("Finished reading warmup data"),
                            log.index("Successfully loaded servable version {name: m version: 1}"))
            self.assertEqual(self.count(server, folder), 5)
            self.assertEqual(self.count(server, folder, "latency_count"), 1)

    def test_without_the_file_or_with_the_flag_nothing_is_run(self):
        folder = self.put(1)
        with Server(*self.monitored()) as server:
            self.assertIsNone(self.count(server, folder))
            self.assertIn("No warmup data file found at ", server.log())
        self.record(folder, b"\xff this is no PredictionLog")
        with Server(*self.monitored("--enable_model_warmup=false")) as server:
            self.assertEqual(states(server), {"1": "AVAILABLE"})
            self.assertIsNone(self.count(server, folder))

    def test_a_request_that_fails_fails_the_load(self):
        out = self.failure(predict_log(), predict_log(signature="no_such"))
        self.assertIn('FAILED_PRECONDITION: Serving signature key "no_such" not found.', out)

    def test_kinds_that_are_not_run(self):
        session_run = prediction_log_pb2.PredictionLog()
        session_run.session_run_log.request.target.append("x")
        out = self.failure(session_run)
        self.assertIn("UNIMPLEMENTED: Unsupported log_type for warmup: 5", out)

    def test_too_many_records(self):
        nothing = prediction_log_pb2.PredictionLog()
        out = self.failure(*[nothing] * 1001)
        self.assertIn("INVALID_ARGUMENT: Number of warmup records exceeds the maximum (1000) at FILE",
                      out)

    def test_a_file_of_another_form(self):
        out = self.failure(raw=b"this is no TFRecord at all")
        self.assertIn("DATA_LOSS: corrupted record at 0. Please verify your warmup data is in "
                      "TFRecord format.", out)

    def test_a_record_that_cannot_be_parsed(self):
        self.assertIn("INVALID_ARGUMENT: Failed to parse warmup record: ",
                      self.failure(b"\xff\xff\xff\xff"))

    def test_a_new_version_that_fails_leaves_the_old_one(self):
        self.put(1)
        with Server(*self.flags("--file_system_poll_wait_seconds=1")) as server:
            hidden = self.put(2)
            self.record(hidden, predict_log(alias="no_such"))
            # The version may have been seen before its requests lay there: a new one has them.
            third = self.base.parent / "third"
            hidden.rename(third)
            third.rename(self.base / "3")
            self.assertTrue(wait_for(lambda: states(server).get("3") == "END"), states(server))
            status, _ = ask(server, "POST", "/v1/models/m:predict", '{"instances": [2.0]}')
            self.assertEqual(status, 200)


if __name__ == "__main__":
    unittest.main()
