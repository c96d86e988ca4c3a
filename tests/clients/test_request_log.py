"""Requests that are recorded with their answers (`logging_config`): what is in the files, read by
TensorFlow itself, and that they warm models up."""

import json
import pathlib
import shutil
import tempfile
import unittest

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2, inference_pb2, model_management_pb2, model_service_pb2_grpc, predict_pb2,
    prediction_log_pb2, prediction_service_pb2_grpc, regression_pb2)
from google.protobuf import text_format

from server import Server, need_shared
from test_program import MODEL, ask, predict, states, wait_for
from test_warmup import example

METRICS = "/monitoring/prometheus/metrics"


class RequestLogTest(unittest.TestCase):
    def setUp(self):
        need_shared("tfs-testdata")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.logs = self.folder / "logs"
        self.base = self.folder / "m"
        self.put(1)

    def put(self, version, requests=None):
        hidden = self.folder / f"incoming-{version}"
        shutil.copytree(MODEL / "00000123", hidden)
        if requests:
            (hidden / "assets.extra").mkdir(exist_ok=True)
            shutil.copy(requests, hidden / "assets.extra" / "tf_serving_warmup_requests")
        self.base.mkdir(exist_ok=True)
        hidden.rename(self.base / str(version))

    def text(self, kind="", prefix=None, rate=1.0, more=""):
        prefix = self.logs / "requests" if prefix is None else prefix
        return (f'model_config_list {{ config {{ name: "m" base_path: "{self.base}" '
                f'model_platform: "tensorflow" logging_config {{ log_collector_config {{ '
                f'type: "{kind}" filename_prefix: "{prefix}" }} '
                f'sampling_config {{ sampling_rate: {rate} }} }} {more} }} }}')

    def start(self, text, *flags):
        config = self.folder / "models.config"
        config.write_text(text)
        monitoring = self.folder / "monitoring.config"
        monitoring.write_text("prometheus_config { enable: true }")
        server = Server(f"--model_config_file={config}", "--max_num_load_retries=0",
                        f"--monitoring_config_file={monitoring}", *flags)
        self.addCleanup(server.__exit__)
        channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}")
        self.addCleanup(channel.close)
        self.calls = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(channel)
        return server

    def counted(self, server, code):
        _, page = ask(server, "GET", METRICS)
        line = f':tensorflow:serving:request_log_count{{model_name="m",status_code="{code}"}} '
        return sum(int(found[len(line):]) for found in page.splitlines() if found.startswith(line))

    def files(self, suffix="tfrecord", folder=None):
        return sorted((folder or self.logs).glob(f"requests-m-*.{suffix}"))

    def records(self):
        return [prediction_log_pb2.PredictionLog.FromString(record.numpy())
                for record in tf.data.TFRecordDataset([str(path) for path in self.files()])]

    def ask_all(self, server):
        """One call of each kind over both wires; the gRPC requests and answers."""
        asked = []
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "m"
        request.inputs["x"].CopyFrom(tf.make_tensor_proto([2.0, 5.0]))
        asked.append((request, self.calls.Predict(request)))
        for kind, call, signature in (
                (classification_pb2.ClassificationRequest, self.calls.Classify, "classify_x_to_y"),
                (regression_pb2.RegressionRequest, self.calls.Regress, "regress_x_to_y")):
            request = kind()
            request.model_spec.name, request.model_spec.signature_name = "m", signature
            request.input.example_list.examples.append(example())
            asked.append((request, call(request)))
        request = inference_pb2.MultiInferenceRequest()
        for word in ("classify", "regress"):
            task = request.tasks.add(method_name=f"tensorflow/serving/{word}")
            task.model_spec.name, task.model_spec.signature_name = "m", f"{word}_x_to_y"
        request.input.example_list.examples.append(example())
        asked.append((request, self.calls.MultiInference(request)))
        predict(server, [2.0, 5.0])
        for word in ("classify", "regress"):
            status, text = ask(server, "POST", f"/v1/models/m/versions/1:{word}", json.dumps({
                "signature_name": f"{word}_x_to_y", "examples": [{"x": 2.0}]}))
            self.assertEqual(status, 200, text)
        return asked

    def test_every_call_is_recorded_with_its_answer(self):
        server = self.start(self.text())
        asked = self.ask_all(server)
        # What fails has no answer, and leaves no record.
        self.assertEqual(ask(server, "POST", "/v1/models/m:predict", '{"instances": ["a"]}')[0], 400)
        self.assertEqual(ask(server, "POST", "/v1/models/n:predict", '{"instances": [1.0]}')[0], 404)
        self.assertTrue(wait_for(lambda: self.counted(server, "OK") == 7))
        records = self.records()
        kinds = ["predict_log", "classify_log", "regress_log", "multi_inference_log", "predict_log",
                 "classify_log", "regress_log"]
        self.assertEqual([record.WhichOneof("log_type") for record in records], kinds)
        for record, (request, response) in zip(records, asked):
            log = getattr(record, record.WhichOneof("log_type"))
            self.assertEqual(log.request, request)
            self.assertEqual(log.response, response)
        for record in records:
            metadata = record.log_metadata
            self.assertEqual((metadata.model_spec.name, metadata.model_spec.version.value), ("m", 1))
            self.assertEqual(list(metadata.saved_model_tags), ["serve"])
            self.assertEqual(metadata.sampling_config.sampling_rate, 1.0)
            self.assertGreater(metadata.timestamp_secs, 1_700_000_000)
        over_rest = records[4].predict_log
        self.assertEqual(list(over_rest.request.inputs["x"].float_val), [2.0, 5.0])
        self.assertEqual(list(over_rest.response.outputs["y"].float_val), [3.0, 4.5])
        classified, regressed = records[5].classify_log, records[6].regress_log
        self.assertEqual(classified.request.model_spec.version.value, 1)
        (got,) = classified.request.input.example_list.examples
        self.assertEqual(list(got.features.feature["x"].float_list.value), [2.0])
        self.assertEqual(classified.response.result.classifications[0].classes[0].score, 3.0)
        self.assertEqual(regressed.response.result.regressions[0].value, 3.0)

    def test_records_warm_the_next_version_up(self):
        server = self.start(self.text())
        self.ask_all(server)
        self.assertTrue(wait_for(lambda: self.counted(server, "OK") == 7))
        (recorded,) = self.files()
        self.put(2, recorded)
        self.assertTrue(wait_for(lambda: states(server).get("2") == "AVAILABLE"))
        _, page = ask(server, "GET", METRICS)
        line = (f':tensorflow:serving:model_warmup_records_read{{model_path="{self.base / "2"}",'
                'status="OK"} 7')
        self.assertIn(line, page)

    def test_json_lines(self):
        server = self.start(self.text("jsonl"))
        self.ask_all(server)
        self.assertTrue(wait_for(lambda: self.counted(server, "OK") == 7))
        (path,) = self.files("jsonl")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        self.assertEqual(len(lines), 7)
        self.assertEqual(lines[4]["predict_log"]["request"]["inputs"]["x"]["float_val"], [2.0, 5.0])
        (got,) = lines[1]["classify_log"]["request"]["input"]["example_list"]["examples"]
        self.assertEqual(got["features"]["feature"]["x"]["float_list"]["value"], [2.0])
        self.assertEqual(lines[0]["log_metadata"]["model_spec"], {
            "name": "m", "version": "1", "signature_name": "serving_default"})

    def test_a_share_of_the_requests(self):
        server = self.start(self.text(rate=0.2))
        for _ in range(400):
            predict(server, [2.0])
        server.stop()
        # 80 are expected; three standard deviations are 24, and these are seven.
        self.assertTrue(24 <= len(self.records()) <= 136, len(self.records()))

    def test_what_is_recorded_is_there_after_the_end(self):
        server = self.start(self.text())
        predict(server, [2.0])
        self.assertEqual(server.stop(), 0)
        self.assertEqual(len(self.records()), 1)

    def test_an_unwritable_path_is_a_warning_and_a_number(self):
        (self.folder / "file").write_text("")
        server = self.start(self.text(prefix=self.folder / "file" / "below"))
        self.assertEqual(predict(server, [2.0]), [3.0])
        self.assertTrue(wait_for(lambda: self.counted(server, "UNAVAILABLE") == 1))
        self.assertIn("requests of model m cannot be recorded at", server.log())
        self.assertEqual(predict(server, [2.0]), [3.0])

    def test_what_is_not_known_is_told_and_serves(self):
        server = self.start(self.text("snitch"))
        self.assertIn("logging_config of model m: type snitch is unknown, so no request is recorded; "
                      "choose tfrecord or jsonl", server.log())
        self.assertEqual(predict(server, [2.0]), [3.0])
        self.assertFalse(self.logs.exists())

    def test_a_reload_changes_where_requests_go(self):
        server = self.start(self.text())
        predict(server, [2.0])
        elsewhere = self.folder / "elsewhere"
        for text, folder in ((self.text("jsonl", prefix=elsewhere / "requests"), elsewhere),
                             (self.text(rate=0.0), None)):
            request = model_management_pb2.ReloadConfigRequest()
            text_format.Parse(text, request.config)
            self.assertEqual(self.models.HandleReloadConfigRequest(request).status.error_code, 0)
            # What came before is written when the reload is.
            self.assertTrue(wait_for(lambda: len(self.records()) == 1, 2))
            predict(server, [5.0])
            if folder:
                self.assertTrue(wait_for(lambda: len(self.files("jsonl", folder)) == 1))
        server.stop()
        (path,) = self.files("jsonl", elsewhere)
        self.assertEqual(len(path.read_text().splitlines()), 1)
        self.assertEqual(len(self.records()), 1)

    def test_files_end_by_the_count_of_their_records(self):
        server = self.start(self.text(), "--request_log_file_records=3", "--request_log_files_max=2")
        for number in range(7):
            predict(server, [float(number)])
            self.assertTrue(wait_for(lambda: self.counted(server, "OK") == number + 1))
        values = [record.predict_log.request.inputs["x"].float_val[0] for record in self.records()]
        self.assertEqual((len(self.files()), values), (2, [3.0, 4.0, 5.0, 6.0]))


if __name__ == "__main__":
    unittest.main()
