"""TensorFlow Lite models over the API: `model.tflite` with and without `--prefer_tflite_model`.

Models are those that the engine's own tests keep, the original's, and a real one out of a package.
"""

import concurrent.futures
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import unittest

import grpc
import numpy as np
import tensorflow as tf

from models import KeptModels, package_folder, save
from server import BIN, ROOT, SHARED, Server, need_litert, need_shared, quiet_free
from test_inspect import vesta
from test_program import ask, run, wait_for

KEPT = ROOT / "crates" / "engines" / "tests" / "models" / "lite"
ORIGINAL = SHARED / "tfs-testdata"
PREFER = "--prefer_tflite_model=true"


def is_running(pid):
    # A process that ended may stay for a moment until it is reaped.
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except OSError:  # gone before it was opened, or while it was read
        return False


class Lite(KeptModels):
    kept = KEPT
    file = "model.tflite"


class LiteModelTest(Lite):
    @classmethod
    def setUpClass(cls):
        need_litert()

    def original(self, name):
        need_shared("tfs-testdata")
        return Server("--model_name=default", f"--model_base_path={ORIGINAL / name}", PREFER)

    def predicts_as_the_original(self, name):
        with self.original(name) as server:
            client = self.connect(server)
            self.assertEqual(client.predict("default", x=[2.0])["y"].tolist(), [3.0])
            self.assertEqual(self.post(server, "default", instances=[2.0, 4.0]),
                             (200, {"predictions": [3.0, 4.0]}))

    def test_predict_on_tflite(self):
        self.predicts_as_the_original("saved_model_half_plus_two_tflite")

    def test_predict_with_signature_def_on_tflite(self):
        self.predicts_as_the_original("saved_model_half_plus_two_tflite_with_sigdef")

    def test_metadata_is_of_the_file(self):
        with self.original("saved_model_half_plus_two_tflite_with_sigdef") as server:
            [(name, signature)] = self.signatures(server, "default").items()
            self.assertEqual((name, signature.method_name),
                             ("serving_default", "tensorflow/serving/predict"))
            # The name in the file, which lacks the `:0` of the signature.
            self.assertEqual(signature.inputs["x"].name, "tflite_input")
            self.assertEqual(signature.inputs["x"].dtype, tf.float32.as_datatype_enum)
            self.assertEqual([dim.size for dim in signature.inputs["x"].tensor_shape.dim], [1, 1])
        with self.serve("twice_as_many") as server:
            _, text = ask(server, "GET", "/v1/models/twice_as_many/metadata")
            told = json.loads(text)["metadata"]["signature_def"]["signature_def"]
            dims = told["serving_default"]["inputs"]["x"]["tensor_shape"]["dim"]
            self.assertEqual([dim["size"] for dim in dims], ["-1", "3"])

    def test_examples_are_parsed(self):
        def example(**features):
            return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()

        x = tf.train.Feature(float_list=tf.train.FloatList(value=[1.5]))
        y = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"text"]))
        with self.original("parse_example_tflite") as server:
            client = self.connect(server)
            texts = np.array([example(x=x, y=y), example()], object)
            parsed = client.predict("default", input=texts)
            self.assertEqual(sorted((value.tolist() for value in parsed.values()), key=repr),
                             [[[1.5], [0.0]], [[b"text"], [b"missing"]]])
            with self.assertRaises(grpc.RpcError) as caught:
                client.predict("default", input=np.array([b"no Example"], object))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
            self.assertIn("Could not parse example input", caught.exception.details())

    def test_signatures_of_a_converted_file(self):
        with self.serve("two_signatures") as server:
            client = self.connect(server)
            halved = client.predict("two_signatures", "halve", x=[1.0, 2.0])
            self.assertEqual(halved["y"].tolist(), [0.5, 1.0])
            sums = client.predict("two_signatures", "add", x=[1.0, 2.0], z=[3.0, 4.0])
            self.assertEqual(sums["sum"].tolist(), [4.0, 6.0])
            # What the original knows of the file: its first graph, by the names of its tensors.
            named = client.predict("two_signatures", add_x=[1.0, 2.0], add_z=[3.0, 4.0])
            [made] = named.values()
            self.assertEqual(made.tolist(), [4.0, 6.0])

    def test_a_version_with_model_tflite_alone_needs_no_flag(self):
        with self.serve("half_plus_two") as server:
            self.assertIn("engine=litert", server.log())
            self.assertEqual(self.post(server, "half_plus_two", instances=[1.0]),
                             (200, {"predictions": [2.5]}))

    def test_a_version_with_both_is_served_by_the_flag(self):
        # The SavedModel says something else, so that it shows which of the two answers.
        folder = self.put("half_plus_two", model="m")
        save(folder, lambda x: {"y": x + 100}, tf.TensorSpec([None], tf.float32, "x"))
        for flags, want in (([], 101.0), (["--prefer_tflite_model=false"], 101.0), ([PREFER], 2.5),
                            ([PREFER, "--engine=embedded"], 2.5), (["--engine=litert"], 2.5)):
            with self.subTest(flags), Server(*self.flags("m", *flags)) as server:
                self.assertEqual(self.post(server, "m", instances=[1.0]),
                                 (200, {"predictions": [want]}))

    def test_without_model_tflite_the_flag_changes_nothing(self):
        save(self.base / "m" / "1", lambda x: {"y": x + 100}, tf.TensorSpec([None], tf.float32, "x"))
        with Server(*self.flags("m", PREFER)) as server:
            self.assertEqual(self.post(server, "m", instances=[1.0]), (200, {"predictions": [101.0]}))

    def test_strings(self):
        with self.serve("string_identity") as server:
            words = np.array([b"a", b"", b"\xff\x00b" * 5000], object)
            same = self.connect(server).predict("string_identity", text=words)["same"]
            self.assertEqual(same.tolist(), words.tolist())
            status, body = self.post(server, "string_identity", instances=["é", {"b64": "AP8="}])
            self.assertEqual((status, body["predictions"][0]), (200, "é"))

    def test_quantized_models_take_and_give_bytes(self):
        for name, dtype in (("int8", np.int8), ("uint8", np.uint8)):
            interpreter = tf.lite.Interpreter(str(KEPT / f"{name}.tflite"))
            x = np.arange(8, dtype=dtype).reshape(1, 8)
            want = interpreter.get_signature_runner()(x=x)["y"]
            with self.subTest(name), self.serve(name) as server:
                y = self.connect(server).predict(name, x=x)["y"]
                self.assertEqual((y.dtype, y.shape), (dtype, (1, 4)))
                self.assertLessEqual(np.abs(y.astype(int) - want.astype(int)).max(), 1)

    def test_any_batch_and_outputs_of_sizes_known_late(self):
        with self.serve("positive") as server:
            client = self.connect(server)
            for rows in (1, 1000, 3, 50_000, 1):
                x = np.where(np.arange(rows) % 3 == 1, -1, np.arange(rows) + 1).astype(np.float32)
                y = client.predict("positive", x=x)["y"]
                self.assertEqual(y.tolist(), x[x > 0].tolist())

    def test_what_does_not_fit_is_the_clients_error(self):
        with self.serve("two_signatures") as server:
            client = self.connect(server)
            for bad in (np.zeros(3, np.float32), np.zeros(0, np.float32)):
                with self.assertRaises(grpc.RpcError) as caught:
                    client.predict("two_signatures", "add", x=bad, z=[1.0, 2.0])
                self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
            self.assertEqual(len(self.workers(server)), 1)
            sums = client.predict("two_signatures", "add", x=[1.0, 2.0], z=[3.0, 4.0])
            self.assertEqual(sums["sum"].tolist(), [4.0, 6.0])

    def test_many_clients_at_once_get_their_own_rows(self):
        for flags in ([], ["--num_tflite_pools=1"],
                      ["--num_tflite_pools=2", "--num_tflite_interpreters_per_pool=2"]):
            shutil.rmtree(self.base / "positive", ignore_errors=True)
            with self.subTest(flags), self.serve("positive", *flags) as server:
                client = self.connect(server)

                def own(number):
                    x = np.full(number % 37 + 1, number + 1, np.float32)
                    return client.predict("positive", x=x)["y"].tolist() == x.tolist()

                with concurrent.futures.ThreadPoolExecutor(16) as pool:
                    self.assertTrue(all(pool.map(own, range(300))))

    def test_state_is_kept_and_each_request_counts_once(self):
        with self.serve("counter") as server:
            client = self.connect(server)
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                counts = list(pool.map(lambda _: int(client.predict("counter")["count"]), range(40)))
            self.assertEqual(sorted(counts), list(range(1, 41)))

    def test_a_run_ends_at_its_deadline(self):
        with self.serve("slow_half_plus_two") as server:
            client = self.connect(server)
            with self.assertRaises(grpc.RpcError) as caught:
                client.predict("slow_half_plus_two", timeout=0.1, x=[1.0])
            self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
            self.assertEqual(client.predict("slow_half_plus_two", x=[1.0])["y"].tolist(), [2.5])
            self.assertEqual(len(self.workers(server)), 1)

    def test_a_worker_that_dies_is_replaced(self):
        with self.serve("half_plus_two") as server:
            client = self.connect(server)
            for times in (1, 2):
                os.kill(self.workers(server)[-1], signal.SIGKILL)
                self.assertTrue(wait_for(lambda: len(self.workers(server)) == times + 1))
                answers = wait_for(lambda: self.post(server, "half_plus_two", instances=[1.0])[0] == 200)
                self.assertTrue(answers)
                self.assertEqual(client.predict("half_plus_two", x=[1.0])["y"].tolist(), [2.5])

    def test_an_unloaded_version_leaves_no_process(self):
        self.put("half_plus_two", 1)
        with Server(*self.flags("half_plus_two")) as server:
            [first] = self.workers(server)
            self.put("half_plus_two", 2, model="next")
            (self.base / "next" / "2").rename(self.base / "half_plus_two" / "2")
            self.assertTrue(wait_for(lambda: len(self.workers(server)) == 2 and not is_running(first)))
            self.assertTrue(is_running(self.workers(server)[-1]))

    def test_damaged_files_are_refused_with_what_to_do(self):
        whole = (KEPT / "half_plus_two.tflite").read_bytes()
        far = bytearray(whole)
        far[0:4] = (0x7ffffff0).to_bytes(4, "little")
        damaged = {"empty": b"", "text": b"not a model\n" * 20, "cut": whole[: len(whole) // 2],
                   "far": bytes(far)}
        for name, content in damaged.items():
            folder = self.base / name / "1"
            folder.mkdir(parents=True)
            (folder / "model.tflite").write_bytes(content)
            done = run("--port=0", f"--grpc_socket_path={self.base / 's'}", "--strict_startup",
                       *self.flags(name), seconds=60)
            with self.subTest(name):
                self.assertEqual(done.returncode, 255, done.stdout)
                self.assertIn("the model.tflite is damaged", done.stdout)

    def test_hostile_files_harm_no_neighbour(self):
        """Files that pass all checks and are damaged all the same, each a model beside a good one."""
        paths = {"good": self.put("half_plus_two").parent}
        dice = random.Random(20)
        for number in range(30):
            source = dice.choice(["positive", "twice_as_many", "int8", "dtypes", "counter"])
            content = bytearray((KEPT / f"{source}.tflite").read_bytes())
            for _ in range(dice.randint(1, 4)):
                content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
            folder = self.base / f"bad{number}" / "1"
            folder.mkdir(parents=True)
            (folder / "model.tflite").write_bytes(content)
            paths[f"bad{number}"] = folder.parent
        with Server(self.config(**paths), "--max_num_load_retries=0", "--startup_wait=60s",
                    seconds=90) as server:
            client = self.connect(server)
            self.assertEqual(client.predict("good", x=[1.0])["y"].tolist(), [2.5])
            for name in paths:
                status, body = ask(server, "GET", f"/v1/models/{name}")
                self.assertEqual(status, 200, body)
                if '"AVAILABLE"' in body and name != "good":
                    # Whatever it answers, it answers.
                    self.assertIn(self.post(server, name, inputs=[1.0, 2.0])[0], (200, 400, 500, 503))
            self.assertEqual(client.predict("good", x=[1.0])["y"].tolist(), [2.5])
            self.assertIsNone(server.process.poll())

    def test_operators_of_another_runtime_are_named(self):
        self.put("of_tensorflow")
        done = run("--port=0", f"--grpc_socket_path={self.base / 's'}", "--strict_startup",
                   *self.flags("of_tensorflow"), seconds=60)
        self.assertEqual(done.returncode, 255, done.stdout)
        self.assertIn("FlexAddV2", done.stdout)
        self.assertIn("serve the SavedModel", done.stdout)

    def test_inspect_tells_of_it(self):
        self.put("two_signatures")
        told = vesta("inspect", self.base / "two_signatures").stdout
        for words in ("format     TensorFlow Lite (model.tflite)", "signature halve", "signature add",
                      "input   x  float  [2]  halve_x:0", "ADD 1", "it runs no TensorFlow Lite models",
                      "run `vesta engine install litert`"):
            self.assertIn(words, told)
        told = json.loads(vesta("inspect", self.base / "two_signatures", "--json").stdout)
        self.assertEqual(told["formats"],
                         [{"file": "model.tflite", "name": "TensorFlow Lite", "served": True}])
        self.assertEqual(told["signatures"][0]["tensorflow_lite"]["operators"]["ADD"], 1)
        self.put("of_tensorflow")
        told = vesta("inspect", self.base / "of_tensorflow").stdout
        self.assertIn("no: operators are no part of TensorFlow Lite: FlexAddV2", told)

    def test_a_real_model_gives_tensorflows_answers(self):
        path = package_folder("basic_pitch", "saved_models", "icassp_2022", "nmp.tflite")
        folder = self.base / "pitch" / "1"
        folder.mkdir(parents=True)
        shutil.copy(path, folder / "model.tflite")
        interpreter = tf.lite.Interpreter(str(path))
        runner = interpreter.get_signature_runner()
        [name] = runner.get_input_details()
        second = np.arange(43844) / 22050
        sound = np.sin(2 * np.pi * 440 * second, dtype=np.float32).reshape(1, -1, 1)
        want = runner(**{name: sound})
        with Server(*self.flags("pitch")) as server:
            given = self.connect(server).predict("pitch", **{name: sound})
        self.assertEqual(set(given), set(want))
        for output, values in want.items():
            np.testing.assert_allclose(given[output], values, atol=2e-4)


class WithoutEngineTest(Lite):
    def test_a_missing_engine_is_named_with_what_to_do(self):
        self.put("half_plus_two")
        words = ("--port=0", f"--grpc_socket_path={self.base / 's'}", "--strict_startup",
                 *self.flags("half_plus_two"))
        done = subprocess.run(
            [str(BIN / "tensorflow_model_server"), *words], capture_output=True, text=True, timeout=60,
            env={**quiet_free(), "VESTA_HOME": str(self.base / "no-home")})
        self.assertEqual(done.returncode, 255, done.stdout)
        self.assertIn("engine litert is not installed; run `vesta engine install litert`", done.stdout)


if __name__ == "__main__":
    unittest.main()
