"""ONNX files over the API, and SavedModels on ONNX Runtime.

Models are those that the engine's own tests keep, and SavedModels made here.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import unittest

import grpc
import numpy as np
import tensorflow as tf

from models import KeptModels, Reference, content, package_folder, save
from server import BIN, ROOT, Server, need_onnxruntime, quiet_free
from test_inspect import vesta
from test_program import ask, wait_for

KEPT = ROOT / "crates" / "engines" / "tests" / "models" / "onnx"
ENGINE = "--engine=onnxruntime"


class Onnx(KeptModels):
    kept = KEPT
    file = "model.onnx"


class OnnxFileTest(Onnx):
    @classmethod
    def setUpClass(cls):
        need_onnxruntime()

    def test_a_version_with_an_onnx_file_alone_needs_no_flag(self):
        for name, flags, engine in (("model.onnx", [], "(embedded|onnxruntime)"),
                                    ("net v2.onnx", [], "(embedded|onnxruntime)"),
                                    ("model.onnx", [ENGINE], "onnxruntime")):
            shutil.rmtree(self.base / "half_plus_two", ignore_errors=True)
            with self.subTest(name), self.serve("half_plus_two", *flags, file=name) as server:
                self.assertRegex(server.log(), f'engine="?{engine}')
                client = self.connect(server)
                given = client.predict("half_plus_two", x=np.float32([1, 2, 5]))
                self.assertEqual(given["y"].tolist(), [2.5, 3.0, 4.5])
                self.assertEqual(self.post(server, "half_plus_two", instances=[1.0, 2.0]),
                                 (200, {"predictions": [2.5, 3.0]}))

    def test_metadata_is_of_the_file(self):
        with self.serve("fixed_batch") as server:
            [(name, signature)] = self.signatures(server, "fixed_batch").items()
            self.assertEqual((name, signature.method_name),
                             ("serving_default", "tensorflow/serving/predict"))
            self.assertEqual(signature.inputs["x"].name, "x")
            self.assertEqual(signature.inputs["x"].dtype, tf.float32.as_datatype_enum)
            self.assertEqual([dim.size for dim in signature.inputs["x"].tensor_shape.dim], [1, 3])
        for name, want in (("half_plus_two", {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}),
                           ("unknown_rank", {"dim": [], "unknown_rank": True})):
            with self.subTest(name), self.serve(name) as server:
                _, text = ask(server, "GET", f"/v1/models/{name}/metadata")
                told = json.loads(text)["metadata"]["signature_def"]["signature_def"]
                self.assertEqual(told["serving_default"]["inputs"]["x"]["tensor_shape"], want)

    def test_shapes_are_held_to_what_the_file_declares(self):
        with self.serve("fixed_batch") as server:
            client = self.connect(server)
            y = client.predict("fixed_batch", x=np.float32([[0, 2, 4]]))["y"]
            self.assertEqual(y.tolist(), [[2.0, 3.0, 4.0]])
            with self.assertRaises(grpc.RpcError) as caught:
                client.predict("fixed_batch", x=np.zeros((2, 3), np.float32))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
            self.assertIn("the model declares [1,3]", caught.exception.details())
        with self.serve("unknown_rank") as server:
            client = self.connect(server)
            for shape in ((), (3,), (2, 1, 2), (0, 4)):
                y = client.predict("unknown_rank", x=np.full(shape, 2, np.float32))["y"]
                self.assertEqual((y.shape, bool((y == 3).all())), (shape, True))

    def test_several_inputs_and_odd_names(self):
        with self.serve("sum_and_difference") as server:
            answer = self.post(server, "sum_and_difference", instances=[{"a": 3.0, "b": 1.0}])
            self.assertEqual(answer, (200, {"predictions": [{"sum": 4.0, "difference": 2.0}]}))
        with self.serve("odd_names") as server:
            far = np.array([1, -(1 << 60)], np.int64)
            given = self.connect(server).predict("odd_names", **{"525": far})
            self.assertEqual({name: y.tolist() for name, y in given.items()},
                             {"a b/ü:0": [-1, 1 << 60]})
            self.assertEqual(self.post(server, "odd_names", inputs={"525": [7]}),
                             (200, {"outputs": [-7]}))

    def test_strings(self):
        with self.serve("string_identity") as server:
            words = np.array([b"a", b"", b"\xff\x00b" * 5000], object)
            same = self.connect(server).predict("string_identity", x=words)["y"]
            self.assertEqual(same.tolist(), words.tolist())
            status, body = self.post(server, "string_identity", instances=["é", {"b64": "AP8="}])
            self.assertEqual((status, body["predictions"][0]), (200, "é"))

    def test_every_dtype_travels(self):
        with self.serve("dtypes") as server:
            given = self.connect(server).predict("dtypes", x=np.array([0, 1, 2, 100], np.int64))
            self.assertEqual({y.dtype.name for y in given.values()}, {
                "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "bool", "float16",
                "float64", "uint32", "uint64", "bfloat16", "float8_e4m3fn", "float8_e5m2"})
            for name, y in given.items():
                want = [False, True, True, True] if name == "bool" else [0, 1, 2, 100]
                if not name.startswith("float8"):
                    self.assertEqual(y.astype(np.float64).tolist(), want, name)
        with self.serve("wide") as server:
            numbers = {"i": np.array([-(1 << 63), (1 << 63) - 1]), "d": np.array([0.1, 1e300]),
                       "u": np.array([0, (1 << 64) - 1], np.uint64)}
            sent = {name: content(values) for name, values in numbers.items()}
            given = self.connect(server).predict("wide", **sent)
            for name, values in numbers.items():
                self.assertEqual(given[f"{name}_out"].tolist(), values.tolist())

    def test_a_run_ends_at_its_deadline(self):
        with self.serve("slow_half_plus_two") as server:
            client = self.connect(server)
            with self.assertRaises(grpc.RpcError) as caught:
                client.predict("slow_half_plus_two", timeout=0.1, x=[1.0])
            self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
            self.assertEqual(client.predict("slow_half_plus_two", x=[1.0])["y"].tolist(), [2.5])
            self.assertEqual(len(self.workers(server)), 1)

    def test_a_worker_that_dies_is_replaced(self):
        with self.serve("half_plus_two", ENGINE) as server:
            os.kill(self.workers(server)[-1], signal.SIGKILL)
            self.assertTrue(wait_for(lambda: len(self.workers(server)) == 2))
            self.assertTrue(
                wait_for(lambda: self.post(server, "half_plus_two", instances=[1.0])[0] == 200))

    def test_ends_that_are_no_tensors_are_named(self):
        self.put("sequence")
        said = self.refused("sequence")
        self.assertIn("output `parts` of model.onnx is a sequence of tensors", said)
        # Of a package that nobody here made.
        folder = self.base / "iris" / "1"
        folder.mkdir(parents=True)
        shutil.copy(KEPT / "maps.onnx", folder / "logreg.onnx")
        self.assertIn("output `scores` of logreg.onnx is a sequence of maps", self.refused("iris"))

    def test_damaged_files_are_refused_with_what_to_do(self):
        whole = (KEPT / "half_plus_two.onnx").read_bytes()
        for name, found in {"empty": b"", "text": b"not a model\n" * 20,
                            "cut": whole[: len(whole) // 2]}.items():
            folder = self.base / name / "1"
            folder.mkdir(parents=True)
            (folder / "model.onnx").write_bytes(found)
            with self.subTest(name):
                self.assertIn("model.onnx is damaged", self.refused(name))

    def test_hostile_files_harm_no_neighbour(self):
        """Files with a few bits changed, each a model beside a good one."""
        paths = {"good": self.put("half_plus_two").parent}
        dice = random.Random(20)
        for number in range(20):
            source = dice.choice(["sum_and_difference", "dtypes", "slow_half_plus_two", "wide"])
            found = bytearray((KEPT / f"{source}.onnx").read_bytes())
            for _ in range(dice.randint(1, 4)):
                found[dice.randrange(len(found))] ^= 1 << dice.randrange(8)
            folder = self.base / f"bad{number}" / "1"
            folder.mkdir(parents=True)
            (folder / "model.onnx").write_bytes(found)
            paths[f"bad{number}"] = folder.parent
        with Server(self.config(**paths), "--max_num_load_retries=0", "--startup_wait=90s",
                    seconds=120) as server:
            client = self.connect(server)
            for name in paths:
                status, body = ask(server, "GET", f"/v1/models/{name}")
                self.assertEqual(status, 200, body)
            self.assertEqual(client.predict("good", x=[1.0])["y"].tolist(), [2.5])
            self.assertIsNone(server.process.poll())

    def test_weights_beside_the_file_stay_in_the_folder(self):
        folder = self.put("external_outside")
        (folder.parent / "weights.bin").write_bytes(bytes(200_000))
        (folder / "weights.bin").write_bytes(bytes(200_000))
        self.assertIn("outside of the version's folder", self.refused("external_outside"))

    def test_inspect_tells_of_it(self):
        self.put("sum_and_difference")
        told = vesta("inspect", self.base / "sum_and_difference").stdout
        for words in ("format     ONNX (model.onnx)", "signature serving_default",
                      "input   a           float  [?]  a", "Add 1", "it runs no ONNX files",
                      "run `vesta engine install onnxruntime`"):
            self.assertIn(words, told)
        told = json.loads(vesta("inspect", self.base / "sum_and_difference", "--json").stdout)
        self.assertEqual(told["formats"], [{"file": "model.onnx", "name": "ONNX", "served": True}])
        self.assertEqual(told["signatures"][0]["onnx"]["operators"], {"Add": 1, "Sub": 1})

    def test_a_real_model_gives_its_answers(self):
        path = package_folder("basic_pitch", "saved_models", "icassp_2022", "nmp.onnx")
        folder = self.base / "pitch" / "1"
        folder.mkdir(parents=True)
        shutil.copy(path, folder)
        reference = Reference(path.with_name("nmp"))
        self.addCleanup(reference.close)
        # The net takes logarithms: of silence, rounding alone would be seen.
        noise = np.random.default_rng(0).normal(size=43844) / 10
        sound = np.sin(2 * np.pi * 440 * np.arange(43844) / 22050) + noise
        sound = sound.astype(np.float32).reshape(1, -1, 1)
        want = reference.run("serving_default", input_2=sound)
        with Server(*self.flags("pitch")) as server:
            given = self.connect(server).predict("pitch", **{"serving_default_input_2:0": sound})
        for values in want.values():
            # The file's names are another numbering of the same three.
            nearest = min(np.abs(y - values).max() for y in given.values() if y.shape == values.shape)
            self.assertLess(nearest, 2e-4)


class SavedModelTest(Onnx):
    @classmethod
    def setUpClass(cls):
        need_onnxruntime()

    def net(self, name="net"):
        """A small network with what engines differ in: wide integers, ties, NaN."""
        weights = np.random.default_rng(0).normal(size=(3, 3, 3, 8)).astype(np.float32)

        def serve(image, ids):
            features = tf.nn.relu(tf.nn.conv2d(image, weights, 1, "SAME"))
            pooled = tf.reduce_mean(features, [1, 2])
            return {"pooled": pooled, "scores": tf.nn.softmax(pooled),
                    "first": tf.argmax(tf.round(image[:, :, 0, 0]), 1),
                    "wide": ids * 3 + (1 << 40), "exact": tf.cast(ids, tf.float64) / 3.0}

        folder = self.base / name / "1"
        save(folder, serve, tf.TensorSpec([None, 8, 8, 3], tf.float32, "image"),
             tf.TensorSpec([None], tf.int64, "ids"))
        return folder

    def test_a_saved_model_gives_tensorflows_answers(self):
        folder = self.net()
        reference = Reference(folder)
        self.addCleanup(reference.close)
        dice = np.random.default_rng(1)
        with Server(*self.flags("net", ENGINE)) as server:
            self.assertIn("engine=onnxruntime", server.log())
            client = self.connect(server)
            for batch in (1, 3):
                image = dice.normal(size=(batch, 8, 8, 3)).astype(np.float32)
                image[0, 1:5, 0, 0] = 7  # ties
                ids = np.arange(batch, dtype=np.int64) + (1 << 41)
                for odd in (None, np.nan):
                    if odd is not None:
                        image[-1, 0, 0, 1] = odd
                    want = reference.run("serving_default", image=image, ids=ids)
                    given = client.predict("net", image=content(image), ids=content(ids))
                    self.assertEqual(set(given), set(want))
                    for name, values in want.items():
                        self.assertEqual(given[name].dtype, values.dtype)
                        np.testing.assert_allclose(given[name], values, rtol=1e-4, atol=1e-5,
                                                   err_msg=name)

    def test_what_has_no_translation_is_refused_by_name(self):
        save(self.base / "m" / "1", lambda x: {"y": tf.linalg.inv(x)},
             tf.TensorSpec([None, None], tf.float32, "x"))
        said = self.refused("m", ENGINE)
        self.assertIn("MatrixInverse at ", said)
        self.assertIn("the onnxruntime engine cannot run signature serving_default of model m", said)

    def test_a_saved_model_comes_before_an_onnx_file(self):
        folder = self.put("half_plus_two", model="m")
        save(folder, lambda x: {"y": x + 100}, tf.TensorSpec([None], tf.float32, "x"))
        for flags in ([], [ENGINE]):
            with self.subTest(flags), Server(*self.flags("m", *flags)) as server:
                self.assertEqual(self.post(server, "m", instances=[1.0]),
                                 (200, {"predictions": [101.0]}))

    def test_inspect_says_whether_a_saved_model_has_a_translation(self):
        told = vesta("inspect", self.net().parent, "--json").stdout
        engines = {engine["name"]: engine for engine in json.loads(told)["engines"]}
        self.assertIn("vesta engine install onnxruntime", engines["onnxruntime"]["verdict"])
        save(self.base / "m" / "1", lambda x: {"y": tf.linalg.inv(x)},
             tf.TensorSpec([None, None], tf.float32, "x"))
        told = vesta("inspect", self.base / "m", "--json").stdout
        engines = {engine["name"]: engine for engine in json.loads(told)["engines"]}
        self.assertIn("MatrixInverse", engines["onnxruntime"]["verdict"])


class WithoutEngineTest(Onnx):
    def test_a_missing_engine_is_named_with_what_to_do(self):
        # A loop is what the embedded engine has no form for.
        self.put("slow_half_plus_two")
        words = ("--port=0", f"--grpc_socket_path={self.base / 's'}", "--strict_startup",
                 *self.flags("slow_half_plus_two"))
        done = subprocess.run(
            [str(BIN / "tensorflow_model_server"), *words], capture_output=True, text=True, timeout=60,
            env={**quiet_free(), "VESTA_HOME": str(self.base / "no-home")})
        self.assertEqual(done.returncode, 255, done.stdout + done.stderr)
        self.assertIn("run `vesta engine install onnxruntime`", done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
