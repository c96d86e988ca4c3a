"""Versions and models that come and go under the built program, by files and by reloads; and what
its gRPC says of names and counts."""

import pathlib
import shutil
import threading
import time
import unittest

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2, get_model_status_pb2, model_management_pb2, model_service_pb2_grpc,
    predict_pb2, prediction_service_pb2_grpc)

from server import SHARED, Server
from test_program import MODEL, TF2, WithModels, ask, predict, states, wait_for

THREE = SHARED / "tfs-testdata" / "saved_model_half_plus_three"
REQUESTS = "/tensorflow/serving/request_count"


def answer_of(server, model="m"):
    """What the model makes of 2.0, or the error's text."""
    try:
        return predict(server, [2.0], model)
    except AssertionError as problem:
        return str(problem)


class FilesTest(WithModels):
    """Base paths are polled each second."""

    def overwrite(self, folder, source):
        for path in (source / "00000123").rglob("*"):
            if path.is_file():
                target = folder / path.relative_to(source / "00000123")
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, target)

    def test_an_emptied_base_path_unloads(self):
        folder = self.put(1)
        with Server(*self.flags()) as server:
            folder.rename(self.base.parent / "away")
            self.assertTrue(wait_for(lambda: states(server) == {"1": "END"}), states(server))
            self.assertIn("404: ", answer_of(server))
            self.assertIn("Servable not found for request: Latest(m)", answer_of(server))
            self.assertIn(f"No versions of servable m found under base path {self.base}. Did you "
                          "forget to name your leaf directory as a number (eg. '/1/')?",
                          server.log())
            (self.base.parent / "away").rename(folder)
            self.assertTrue(wait_for(lambda: states(server) == {"1": "AVAILABLE"}), states(server))
            self.assertEqual(predict(server, [2.0]), [3.0])

    def test_a_vanished_base_path_keeps_serving(self):
        self.put(1)
        with Server(*self.flags()) as server:
            away = self.base.rename(self.base.parent / "away")
            text = f"Could not find base path {self.base} for servable m with error"
            self.assertTrue(wait_for(lambda: text in server.log()), server.log())
            self.assertEqual(states(server), {"1": "AVAILABLE"})
            self.assertEqual(predict(server, [2.0]), [3.0])
            (away / "1").rename(away / "2")
            away.rename(self.base)
            self.assertTrue(wait_for(
                lambda: states(server) == {"1": "END", "2": "AVAILABLE"}), states(server))

    def test_overwriting_in_place_does_not_reload(self):
        folder = self.put(1)
        with Server(*self.flags()) as server:
            self.overwrite(folder, THREE)
            time.sleep(2.1)
            self.assertEqual(predict(server, [2.0]), [3.0])
            self.assertEqual(states(server), {"1": "AVAILABLE"})
            self.assertEqual(server.log().count("Loading servable version"), 1)
        with Server(*self.flags()) as server:
            self.assertEqual(predict(server, [2.0]), [4.0])

    def test_a_partial_copy_is_tried_again(self):
        self.put(1)
        with Server(*self.flags("--max_num_load_retries=9",
                                "--load_retry_interval_micros=200000")) as server:
            (self.base / "2").mkdir()
            self.assertTrue(wait_for(
                lambda: states(server) == {"1": "AVAILABLE", "2": "LOADING"}), states(server))
            time.sleep(0.3)
            self.assertEqual(states(server), {"1": "AVAILABLE", "2": "LOADING"})
            self.assertEqual(predict(server, [2.0]), [3.0])
            self.overwrite(self.base / "2", THREE)
            self.assertTrue(wait_for(
                lambda: states(server) == {"1": "END", "2": "AVAILABLE"}), states(server))
            self.assertEqual(predict(server, [2.0]), [4.0])

    def test_a_partial_copy_without_tries_left_ends(self):
        self.put(1)
        with Server(*self.flags()) as server:
            (self.base / "2").mkdir()
            self.assertTrue(wait_for(lambda: states(server).get("2") == "END"), states(server))
            self.overwrite(self.base / "2", THREE)
            time.sleep(1.2)
            self.assertEqual(states(server), {"1": "AVAILABLE", "2": "END"})
            self.assertEqual(predict(server, [2.0]), [3.0])


class Asked(WithModels):
    def connect(self, server):
        channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}")
        self.addCleanup(channel.close)
        self.models = model_service_pb2_grpc.ModelServiceStub(channel)
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def reload(self, timeout=10, metrics=(), **paths):
        request = model_management_pb2.ReloadConfigRequest()
        request.metric_names.extend(metrics)
        request.config.model_config_list.SetInParent()
        for name, path in paths.items():
            entry = request.config.model_config_list.config.add()
            entry.name, entry.base_path, entry.model_platform = name, str(path), "tensorflow"
        return self.models.HandleReloadConfigRequest(request, timeout=timeout)

    def failure(self, call):
        with self.assertRaises(grpc.RpcError) as caught:
            call()
        return caught.exception.code().name, caught.exception.details()


class ReloadTest(Asked):
    def test_a_broken_model_is_told_and_the_good_part_applies(self):
        self.put(1)
        bad = self.base.parent / "bad"
        (bad / "1").mkdir(parents=True)
        with Server(*self.flags()) as server:
            self.connect(server)
            for _ in range(2):
                self.assertEqual(self.failure(lambda: self.reload(m=self.base, bad=bad)), (
                    "UNKNOWN", "1 model(s) did not become available: {{{name: bad version: 1} due "
                    "to error: NOT_FOUND: Specified file path does not appear to contain a "
                    "SavedModel bundle (should have a file called `saved_model.pb`)\n"
                    f"Specified file path: {bad / '1'}}}, }}"))
                self.assertEqual(states(server, "bad"), {"1": "END"})
                self.assertEqual(predict(server, [2.0]), [3.0])
                self.reload(m=self.base)
                self.assertTrue(wait_for(lambda: "404" in answer_of(server, "bad")))
            self.failure(lambda: self.reload(bad=bad, good=THREE))
            self.assertEqual(predict(server, [2.0], "good"), [4.0])

    def test_a_new_base_path_swaps(self):
        self.put(1)
        with Server(*self.flags()) as server:
            self.connect(server)
            self.assertEqual(self.reload(m=THREE).status.error_code, 0)
            self.assertIn(answer_of(server), ([3.0], [4.0]))
            while answer_of(server) == [3.0]:
                time.sleep(0.02)
            self.assertEqual(predict(server, [2.0]), [4.0])
            self.assertTrue(wait_for(
                lambda: states(server) == {"1": "END", "123": "AVAILABLE"}), states(server))

    def test_a_missing_base_path_blocks_its_own_reload_alone(self):
        self.put(1)
        missing = self.base.parent / "missing"
        with Server(*self.flags()) as server:
            self.connect(server)
            blocked = []
            call = threading.Thread(target=lambda: blocked.append(self.failure(
                lambda: self.reload(1.5, m=self.base, missing=missing))))
            call.start()
            self.assertTrue(wait_for(lambda: "Could not find base path" in server.log()))
            self.assertEqual(predict(server, [2.0]), [3.0])
            started = time.monotonic()
            self.reload(m=self.base, missing=missing, three=THREE)
            self.assertLess(time.monotonic() - started, 1)
            self.assertEqual(predict(server, [2.0], "three"), [4.0])
            call.join()
            self.assertEqual(blocked[0][0], "DEADLINE_EXCEEDED", blocked)
            # Its client is gone, but the model is still wanted.
            shutil.copytree(TF2, missing)
            self.assertTrue(wait_for(lambda: answer_of(server, "missing") == [3.0]))

    def test_metrics_tell_what_was_counted_meanwhile(self):
        self.put(1)
        late = self.base.parent / "late"
        with Server(*self.flags()) as server:
            self.connect(server)
            predict(server, [2.0])
            answers = []
            call = threading.Thread(target=lambda: answers.append(
                self.reload(metrics=[REQUESTS, "/nothing"], m=self.base, late=late)))
            call.start()
            self.assertTrue(wait_for(lambda: "Could not find base path" in server.log()))
            for _ in range(3):
                predict(server, [2.0])
            shutil.copytree(THREE, late)
            call.join()
            metrics = {metric.name: metric.int64_value_increase for metric in answers[0].metric}
            self.assertEqual(metrics, {REQUESTS: 3, "/nothing": 0})


class NamesTest(Asked):
    def setUp(self):
        super().setUp()
        self.put(1)
        config = self.base.parent / "monitoring.config"
        config.write_text("prometheus_config { enable: true }")
        self.server = Server(*self.flags(f"--monitoring_config_file={config}"))
        self.addCleanup(self.server.__exit__)
        self.connect(self.server)

    def request(self, names=("x",), signature=""):
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "m", signature
        tensor = tf.make_tensor_proto([2.0])
        for name in names:
            request.inputs[name].CopyFrom(tensor)
        return request

    def test_an_unknown_signature(self):
        self.assertEqual(
            self.failure(lambda: self.predictions.Predict(self.request(signature="nope"))),
            ("FAILED_PRECONDITION", 'Serving signature key "nope" not found.'))

    def test_more_names_than_any_model_has(self):
        many = self.request([f"x{i}" for i in range(4097)])
        code, _ = self.failure(lambda: self.predictions.Predict(many))
        self.assertEqual(code, "RESOURCE_EXHAUSTED")
        wide = self.request()
        wide.output_filter.extend(f"y{i}" for i in range(4097))
        code, _ = self.failure(lambda: self.predictions.Predict(wide))
        self.assertEqual(code, "RESOURCE_EXHAUSTED")
        fewer = self.request([f"x{i}" for i in range(4096)])
        code, text = self.failure(lambda: self.predictions.Predict(fewer))
        self.assertEqual(code, "INVALID_ARGUMENT")
        self.assertIn("input size does not match signature: 4096!=1", text)

    def test_calls_about_models_are_not_counted(self):
        def count():
            _, page = ask(self.server, "GET", "/monitoring/prometheus/metrics")
            return [line for line in page.splitlines()
                    if line.startswith(":tensorflow:serving:request_count{")]
        status = get_model_status_pb2.GetModelStatusRequest()
        status.model_spec.name = "m"
        metadata = get_model_metadata_pb2.GetModelMetadataRequest()
        metadata.model_spec.name = "m"
        metadata.metadata_field.append("signature_def")
        self.models.GetModelStatus(status)
        self.predictions.GetModelMetadata(metadata)
        status.model_spec.name = "nope"
        self.failure(lambda: self.models.GetModelStatus(status))
        self.reload(m=self.base)
        self.assertEqual(count(), [])
        self.predictions.Predict(self.request())
        self.assertEqual(
            count(), [':tensorflow:serving:request_count{model_name="m",status="OK"} 1'])


if __name__ == "__main__":
    unittest.main()
