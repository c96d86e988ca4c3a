"""Versions and models that come and go under the built program, by files and by reloads; and what
its gRPC says of names and counts."""

import json
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

    def test_a_copy_that_is_slower_than_the_polls_heals(self):
        self.put(1)
        with Server(*self.flags()) as server:
            (self.base / "2").mkdir()
            self.assertTrue(wait_for(lambda: states(server).get("2") == "END"), states(server))
            time.sleep(2.2)
            self.assertEqual(server.log().count("Loading servable version {name: m version: 2}"), 1)
            self.overwrite(self.base / "2", THREE)
            self.assertTrue(wait_for(
                lambda: states(server) == {"1": "END", "2": "AVAILABLE"}), states(server))
            self.assertEqual(predict(server, [2.0]), [4.0])

    def test_a_good_version_in_the_place_of_a_failed_one_is_loaded(self):
        self.put(1)
        with Server(*self.flags()) as server:
            bad = self.base.parent / "bad"
            bad.mkdir()
            (bad / "saved_model.pb").write_bytes(b"no graph")
            bad.rename(self.base / "2")
            self.assertTrue(wait_for(lambda: states(server).get("2") == "END"), states(server))
            (self.base / "2").rename(self.base.parent / "away")
            self.put(2, THREE)
            self.assertTrue(wait_for(
                lambda: states(server) == {"1": "END", "2": "AVAILABLE"}), states(server))
            self.assertEqual(predict(server, [2.0]), [4.0])

    def test_to_save_memory_the_old_version_goes_first(self):
        self.put(1)
        with Server(*self.flags("--aspired_version_policy=resource_preserving")) as server:
            self.put(2, THREE)
            self.assertTrue(wait_for(
                lambda: states(server) == {"1": "END", "2": "AVAILABLE"}), states(server))
            log = server.log()
            self.assertLess(log.index("Done unloading servable version {name: m version: 1}"),
                            log.index("Loading servable version {name: m version: 2}"))
            self.assertEqual(predict(server, [2.0]), [4.0])


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

    def labelled(self, labels, name="m", base=None, specific=(), keep=False):
        """Reloads one model with labels; `keep` leaves the model m beside it."""
        request = model_management_pb2.ReloadConfigRequest()
        listed = request.config.model_config_list.config
        if keep:
            listed.add(name="m", base_path=str(self.base), model_platform="tensorflow")
        entry = listed.add(name=name, base_path=str(base or self.base), model_platform="tensorflow")
        entry.version_labels.update(labels)
        if specific:
            entry.model_version_policy.specific.versions.extend(specific)
        return self.models.HandleReloadConfigRequest(request, timeout=10)

    def by_label(self, server, label, model="m"):
        status, text = ask(server, "POST", f"/v1/models/{model}/labels/{label}:predict",
                           json.dumps({"instances": [2.0]}))
        self.assertEqual(status, 200, text)
        return json.loads(text)["predictions"]

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


    def test_load_and_label_in_one_reload(self):
        self.put(1)
        with Server(*self.flags()) as server:
            self.connect(server)
            self.labelled(labels={"stable": 1}, specific=[1])
            self.assertEqual(self.by_label(server, "stable"), [3.0])
            self.put(2, THREE)
            failures, stop = [], threading.Event()

            def ask_all_the_while():
                while not stop.is_set():
                    try:
                        answer = self.by_label(server, "stable")
                    except AssertionError as problem:
                        answer = str(problem)
                    if answer not in ([3.0], [4.0]):
                        failures.append(answer)
            asking = threading.Thread(target=ask_all_the_while)
            asking.start()
            self.labelled(labels={"stable": 2, "new": 2}, specific=[2])
            self.assertEqual(self.by_label(server, "stable"), [4.0])
            self.assertEqual(self.by_label(server, "new"), [4.0])
            self.assertTrue(wait_for(
                lambda: states(server) == {"1": "END", "2": "AVAILABLE"}), states(server))
            stop.set()
            asking.join()
            self.assertEqual(failures, [], "a label that moves always names a version that serves")
            # A model that is new comes with its label, too.
            self.labelled(name="three", base=THREE, labels={"first": 123}, keep=True)
            self.assertEqual(self.by_label(server, "first", "three"), [4.0])

    def test_with_the_flag_nothing_waits_for_labels(self):
        self.put(1)
        with Server(*self.flags("--allow_version_labels_for_unavailable_models=true")) as server:
            self.connect(server)
            self.labelled(labels={"stable": 1}, specific=[1])
            self.put(2, THREE)
            text = ("Request to assign label to version 2 of model m, which is not currently "
                    "available for inference")
            self.assertEqual(
                self.failure(lambda: self.labelled(labels={"stable": 2}, specific=[1, 2])),
                ("FAILED_PRECONDITION", text))
            time.sleep(1.2)
            self.assertEqual(states(server), {"1": "AVAILABLE"})
            self.labelled(labels={"stable": 1, "new": 2}, specific=[1, 2])
            self.assertTrue(wait_for(
                lambda: states(server) == {"1": "AVAILABLE", "2": "AVAILABLE"}), states(server))
            self.assertEqual(self.by_label(server, "new"), [4.0])

    def test_a_label_of_a_version_that_is_not_there_changes_nothing(self):
        self.put(1)
        with Server(*self.flags()) as server:
            self.connect(server)
            self.labelled(labels={"stable": 1})
            text = ("Request to assign label to version 9 of model m, which is not currently "
                    "available for inference")
            self.assertEqual(
                self.failure(lambda: self.labelled(labels={"stable": 9, "x": 1}, specific=[9])),
                ("FAILED_PRECONDITION", text))
            time.sleep(1.2)
            self.assertEqual(states(server), {"1": "AVAILABLE"})
            self.assertEqual(self.by_label(server, "stable"), [3.0])
            with self.assertRaisesRegex(AssertionError, "Unrecognized servable version label: x"):
                self.by_label(server, "x")

    def test_a_label_of_a_version_that_fails(self):
        self.put(1)
        with Server(*self.flags()) as server:
            self.connect(server)
            self.labelled(labels={"stable": 1})
            (self.base / "2").mkdir()
            text = ("Request to assign label to version 2 of model m, which is not currently "
                    "available for inference")
            for _ in range(2):
                self.assertEqual(self.failure(lambda: self.labelled(labels={"stable": 2})),
                                 ("FAILED_PRECONDITION", text))
                self.assertEqual(self.by_label(server, "stable"), [3.0])

    def test_a_refused_list_changes_nothing(self):
        self.put(1)
        with Server(*self.flags()) as server:
            self.connect(server)
            config = model_management_pb2.ReloadConfigRequest().config.model_config_list.config
            good = config.add(name="good", base_path=str(THREE), model_platform="tensorflow")
            bad = {
                "Illegal to list model good multiple times in config list": good,
                "Expected model rel to have an absolute path or URI; got base_path()=rel/path":
                    config.add(name="rel", base_path="rel/path", model_platform="tensorflow"),
                "Model p requests unsupported platform caffe":
                    config.add(name="p", base_path="/p", model_platform="caffe"),
            }
            for text, entry in bad.items():
                request = model_management_pb2.ReloadConfigRequest()
                request.config.model_config_list.config.extend([good, entry])
                self.assertEqual(
                    self.failure(lambda: self.models.HandleReloadConfigRequest(request)),
                    ("INVALID_ARGUMENT", text))
            time.sleep(0.3)
            self.assertEqual(states(server), {"1": "AVAILABLE"})
            self.assertEqual(states(server, "good"), {})

    def test_remove_and_add_again(self):
        self.put(1)
        with Server(*self.flags()) as server:
            self.connect(server)
            for pause in (0, 0, 0.3, 0, 0.12):
                self.reload(other=THREE)
                time.sleep(pause)
                self.reload(m=self.base, other=THREE)
                self.assertEqual(predict(server, [2.0]), [3.0])
            # Quickly back from another place, with the same number.
            other = self.base.parent / "elsewhere"
            shutil.copytree(THREE / "00000123", other / "1")
            self.reload(other=THREE)
            self.reload(m=other, other=THREE)
            self.assertEqual(predict(server, [2.0]), [4.0])
            self.assertEqual(states(server), {"1": "AVAILABLE"})

    def test_a_reload_that_a_later_one_makes_void_ends(self):
        self.put(1)
        with Server(*self.flags()) as server:
            self.connect(server)
            ended = []
            call = threading.Thread(target=lambda: ended.append(self.failure(
                lambda: self.reload(20, m=self.base, missing=self.base.parent / "missing"))))
            call.start()
            self.assertTrue(wait_for(lambda: "Could not find base path" in server.log()))
            self.reload(m=self.base)
            call.join(5)
            self.assertEqual(ended, [("ABORTED", "a later configuration no longer asks for this "
                                      "of missing")])


class PolledFileTest(Asked):
    """`--model_config_file_poll_wait_seconds`."""

    def setUp(self):
        super().setUp()
        self.folder = self.base.parent / "config"
        self.folder.mkdir()
        self.file = self.folder / "models.config"
        self.flags = (f"--model_config_file={self.file}", "--model_config_file_poll_wait_seconds=1",
                      "--max_num_load_retries=0")

    def text(self, more="", **bases):
        return "model_config_list {" + "".join(
            f'config {{ name: "{name}" base_path: "{base}" model_platform: "tensorflow" {more} }}'
            for name, base in bases.items()) + "}"

    def swap(self, text):
        """As a ConfigMap does: the folder behind a link is exchanged."""
        self.generation = getattr(self, "generation", 0) + 1
        behind = self.folder / f"..{self.generation}"
        behind.mkdir()
        (behind / "models.config").write_text(text)
        new = self.folder / "..new"
        new.symlink_to(behind.name)
        new.rename(self.folder / "..data")
        if not self.file.is_symlink():
            self.file.symlink_to("..data/models.config")

    def test_a_config_map_that_changes(self):
        self.swap(self.text(a=MODEL))
        with Server(*self.flags) as server:
            self.assertEqual(states(server, "a"), {"123": "AVAILABLE"})
            self.swap(self.text(b=THREE))
            self.assertTrue(wait_for(lambda: states(server, "a") == {"123": "END"}))
            self.assertTrue(wait_for(lambda: states(server, "b") == {"123": "AVAILABLE"}))
            self.assertEqual(predict(server, [2.0], "b"), [4.0])
            self.swap(self.text(a=MODEL))
            self.assertTrue(wait_for(lambda: states(server, "b") == {"123": "END"}))
            self.assertTrue(wait_for(lambda: states(server, "a") == {"123": "AVAILABLE"}))
            self.assertEqual(predict(server, [2.0], "a"), [3.0])
            # A model that is missing blocks no later file.
            self.swap(self.text(a=MODEL, z=self.base.parent / "nowhere"))
            self.assertTrue(wait_for(lambda: "Could not find base path" in server.log()))
            self.swap(self.text(a=MODEL, b=THREE))
            self.assertTrue(wait_for(lambda: states(server, "b") == {"123": "AVAILABLE"}))
            self.assertEqual(states(server, "z"), {})

    def test_a_bad_file_keeps_what_was(self):
        self.file.write_text(self.text(a=MODEL))
        with Server(*self.flags) as server:
            for bad, told in (
                    ("garbage", "Failed to read ModelServerConfig file: Invalid protobuf file: "),
                    ("", f"Failed to read ModelServerConfig file: {self.file}; Invalid argument"),
                    ("# nothing\n", "Taking no action for empty config."),
                    (self.text(a="relative"), "PollFilesystemAndReloadConfig failed to ReloadConfig: "
                     "Expected model a to have an absolute path or URI; got base_path()=relative"),
                    (None, f"file: {self.file}; No such file or directory")):
                if bad is None:
                    self.file.unlink()
                else:
                    self.file.write_text(bad)
                self.assertTrue(wait_for(lambda: told in server.log()), server.log())
                self.assertEqual(predict(server, [2.0], "a"), [3.0])
                self.assertEqual(states(server, "a"), {"123": "AVAILABLE"})
            time.sleep(2.2)
            self.assertEqual(server.log().count("No such file or directory"), 1, "told once")
            self.file.write_text(self.text(b=THREE))
            self.assertTrue(wait_for(lambda: states(server, "b") == {"123": "AVAILABLE"}))
            self.file.write_text("model_config_list {}")
            self.assertTrue(wait_for(lambda: states(server, "b") == {"123": "END"}))

    def test_only_a_changed_file_is_applied(self):
        self.put(1)
        self.file.write_text(self.text(a=MODEL))
        with Server(*self.flags) as server:
            self.connect(server)
            self.reload(a=MODEL, b=THREE)
            time.sleep(2.2)
            self.assertEqual(predict(server, [2.0], "b"), [4.0])
            self.assertEqual(server.log().count("Adding/updating models."), 2)

    def test_a_broken_model_is_told_and_a_refused_label_is_tried_again(self):
        self.put(1)
        bad = self.base.parent / "bad"
        (bad / "1").mkdir(parents=True)
        self.file.write_text(self.text(m=self.base))
        with Server(*self.flags) as server:
            self.file.write_text(self.text(m=self.base, bad=bad))
            self.assertTrue(wait_for(
                lambda: "PollFilesystemAndReloadConfig failed to ReloadConfig: 1 model(s) did not "
                "become available: {{{name: bad version: 1} due to error: NOT_FOUND" in server.log()))
            label = 'version_labels { key: "next" value: 2 }'
            self.file.write_text(self.text(label, m=self.base))
            self.assertTrue(wait_for(
                lambda: "failed to ReloadConfig: Request to assign label to version 2 of model m"
                in server.log()), server.log())
            self.assertEqual(states(server, "bad"), {"1": "END"})
            self.put(2, THREE)
            self.assertTrue(wait_for(lambda: "200" in str(ask(
                server, "GET", "/v1/models/m/labels/next/metadata")[0])), server.log())

    def test_without_the_flag_it_is_read_once(self):
        self.file.write_text(self.text(a=MODEL))
        with Server(self.flags[0]) as server:
            self.file.write_text(self.text(b=THREE))
            time.sleep(2.2)
            self.assertEqual(states(server, "a"), {"123": "AVAILABLE"})
            self.assertEqual(states(server, "b"), {})

    def test_a_better_file_ends_the_wait_of_the_start(self):
        self.file.write_text(self.text(a=self.base.parent / "nowhere"))
        with Server(*self.flags, wait=False) as server:
            self.assertTrue(wait_for(lambda: "Could not find base path" in server.log()))
            self.file.write_text(self.text(a=MODEL))
            server.wait_ready()
            self.assertEqual(predict(server, [2.0], "a"), [3.0])


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
