"""OpenVINO's own models over the API, and SavedModels on OpenVINO.

Models are those that the engine's own tests keep, SavedModels made here, and some out of packages.
"""

import json
import shutil
import subprocess
import unittest

import grpc
import numpy as np
import onnxruntime
import tensorflow as tf

from models import KeptModels, Reference, content, package_folder, save
from server import BIN, ROOT, Server, need_openvino, quiet_free
from test_inspect import vesta

KEPT = ROOT / "crates" / "engines" / "tests" / "models" / "ir"
ENGINE = "--engine=openvino"


class OpenVino(KeptModels):
    kept = KEPT
    file = "model.xml"


class IrTest(OpenVino):
    @classmethod
    def setUpClass(cls):
        need_openvino()

    def test_a_version_with_an_ir_alone_needs_no_flag(self):
        for name, flags in (("model.xml", []), ("net v2.xml", []), ("model.xml", [ENGINE])):
            shutil.rmtree(self.base / "half_plus_two", ignore_errors=True)
            with self.subTest(name), self.serve("half_plus_two", *flags, file=name) as server:
                self.assertIn("engine=openvino", server.log())
                given = self.connect(server).predict("half_plus_two", x=np.float32([1, 2, 5]))
                self.assertEqual(given["y"].tolist(), [2.5, 3.0, 4.5])
                self.assertEqual(self.post(server, "half_plus_two", instances=[1.0, 2.0]),
                                 (200, {"predictions": [2.5, 3.0]}))

    def test_several_inputs_and_metadata(self):
        with self.serve("sum_and_difference") as server:
            answer = self.post(server, "sum_and_difference", instances=[{"a": 3.0, "b": 1.0}])
            self.assertEqual(answer, (200, {"predictions": [{"sum": 4.0, "difference": 2.0}]}))
            told = self.signatures(server, "sum_and_difference")["serving_default"]
            self.assertEqual(sorted(told.inputs), ["a", "b"])
            self.assertEqual([dim.size for dim in told.inputs["a"].tensor_shape.dim], [-1])

    def test_an_answer_does_not_wait_for_a_run_that_is_late(self):
        with self.serve("slow_half_plus_two") as server:
            client = self.connect(server)
            with self.assertRaises(grpc.RpcError) as caught:
                client.predict("slow_half_plus_two", timeout=0.1, x=[1.0])
            self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
            self.assertEqual(client.predict("slow_half_plus_two", x=[1.0])["y"].tolist(), [2.5])

    def test_integers_that_would_be_cut_off_are_refused(self):
        with self.serve("integers") as server:
            self.assertEqual(self.post(server, "integers", inputs=[7]), (200, {"outputs": [8]}))
            status, body = self.post(server, "integers", inputs=[1 << 40])
            self.assertEqual(status, 400)
            self.assertIn("integers of more than 32 bits", body["error"])

    def test_damaged_files_are_refused_with_what_to_do(self):
        whole = (KEPT / "half_plus_two.xml").read_bytes()
        for name, found in {"empty": b"", "text": b"not a model\n" * 20,
                            "cut": whole[: len(whole) // 2]}.items():
            folder = self.base / name / "1"
            folder.mkdir(parents=True)
            (folder / "model.xml").write_bytes(found)
            (folder / "model.bin").write_bytes(bytes(8))
            with self.subTest(name):
                self.assertIn("model.xml is damaged", self.refused(name))
        (self.put("half_plus_two") / "model.bin").write_bytes(b"")
        self.assertIn("OpenVINO does not take model.xml", self.refused("half_plus_two"))

    def test_inspect_tells_of_it(self):
        self.put("half_plus_two")
        told = vesta("inspect", self.base / "half_plus_two").stdout
        for words in ("format     OpenVINO IR (model.xml)", "it runs no OpenVINO IR",
                      "run `vesta engine install openvino`"):
            self.assertIn(words, told)


class OnnxFileTest(OpenVino):
    kept = ROOT / "crates" / "engines" / "tests" / "models" / "onnx"
    file = "model.onnx"

    @classmethod
    def setUpClass(cls):
        need_openvino()

    def test_an_onnx_file_is_served_by_name(self):
        with self.serve("sum_and_difference", ENGINE) as server:
            self.assertIn("engine=openvino", server.log())
            answer = self.post(server, "sum_and_difference", instances=[{"a": 3.0, "b": 1.0}])
            self.assertEqual(answer, (200, {"predictions": [{"sum": 4.0, "difference": 2.0}]}))


class SavedModelTest(OpenVino):
    @classmethod
    def setUpClass(cls):
        need_openvino()

    def test_a_saved_model_gives_tensorflows_answers(self):
        weights = np.random.default_rng(0).normal(size=(3, 3, 3, 8)).astype(np.float32)

        def serve(image, ids):
            features = tf.nn.relu(tf.nn.conv2d(image, weights, 1, "SAME"))
            pooled = tf.reduce_mean(features, [1, 2])
            return {"pooled": pooled, "scores": tf.nn.softmax(pooled), "next": ids * 3 + 1}

        folder = self.base / "net" / "1"
        save(folder, serve, tf.TensorSpec([None, 8, 8, 3], tf.float32, "image"),
             tf.TensorSpec([None], tf.int32, "ids"))
        reference = Reference(folder)
        self.addCleanup(reference.close)
        dice = np.random.default_rng(1)
        with Server(*self.flags("net", ENGINE)) as server:
            self.assertIn("engine=openvino", server.log())
            client = self.connect(server)
            for batch in (1, 3):
                image = dice.normal(size=(batch, 8, 8, 3)).astype(np.float32)
                ids = np.arange(batch, dtype=np.int32)
                want = reference.run("serving_default", image=image, ids=ids)
                given = client.predict("net", image=content(image), ids=content(ids))
                self.assertEqual(set(given), set(want))
                for name, values in want.items():
                    self.assertEqual(given[name].dtype, values.dtype)
                    np.testing.assert_allclose(given[name], values, rtol=1e-4, atol=1e-5,
                                               err_msg=name)

    def test_what_openvino_has_not_is_refused_by_name(self):
        save(self.base / "m" / "1", lambda x: {"y": tf.linalg.inv(x)},
             tf.TensorSpec([None, None], tf.float32, "x"))
        said = self.refused("m", ENGINE)
        self.assertIn("MatrixInverse at ", said)
        self.assertIn("the openvino engine cannot run signature serving_default of model m", said)
        save(self.base / "d" / "1", lambda x: {"y": x * 2}, tf.TensorSpec([None], tf.float64, "x"))
        self.assertIn("double is not kept", self.refused("d", ENGINE))
        save(self.base / "i" / "1", lambda x: {"y": x + 1}, tf.TensorSpec([None], tf.int64, "x"))
        self.assertIn("of int64 (it is cut to 32 bits)", self.refused("i", ENGINE))

    def test_inspect_says_whether_a_saved_model_has_a_translation(self):
        for name, function, want in (("good", lambda x: {"y": x + 1}, "vesta engine install openvino"),
                                     ("bad", lambda x: {"y": tf.linalg.inv(x)}, "MatrixInverse")):
            save(self.base / name / "1", function, tf.TensorSpec([None, None], tf.float32, "x"))
            told = json.loads(vesta("inspect", self.base / name, "--json").stdout)
            engines = {engine["name"]: engine for engine in told["engines"]}
            self.assertIn(want, engines["openvino"]["verdict"])

    def test_a_saved_model_comes_before_an_ir(self):
        folder = self.put("half_plus_two")
        save(folder, lambda x: {"y": x + 100}, tf.TensorSpec([None], tf.float32, "x"))
        with Server(*self.flags("half_plus_two", ENGINE)) as server:
            self.assertEqual(self.post(server, "half_plus_two", instances=[1.0]),
                             (200, {"predictions": [101.0]}))


class TrainedTest(OpenVino):
    """Models that others trained, out of packages."""

    @classmethod
    def setUpClass(cls):
        need_openvino()

    def hold(self, given, want):
        self.assertEqual(set(given), set(want))
        for name, values in want.items():
            self.assertEqual(given[name].shape, values.shape)
            np.testing.assert_allclose(given[name], values, atol=1e-4 * np.abs(values).max(), rtol=0,
                                       err_msg=name)

    def sounds(self):
        dice = np.random.default_rng(4)
        time = np.arange(43844) / 22050
        tone = np.sin(2 * np.pi * 440 * time) + 0.1 * dice.normal(size=time.size)
        return [np.float32(sound)[..., None] for sound in ([tone], [tone, -0.3 * tone, tone[::-1]])]

    def test_basic_pitch_as_onnx_gives_onnx_runtime_s_answers(self):
        path = package_folder("basic_pitch", "saved_models", "icassp_2022", "nmp.onnx")
        folder = self.base / "pitch" / "1"
        folder.mkdir(parents=True)
        shutil.copy(path, folder / "model.onnx")
        reference = onnxruntime.InferenceSession(str(path))
        [fed] = [end.name for end in reference.get_inputs()]
        names = [end.name for end in reference.get_outputs()]
        with Server(*self.flags("pitch", ENGINE)) as server:
            self.assertIn("engine=openvino", server.log())
            client = self.connect(server)
            for sound in self.sounds():
                want = dict(zip(names, reference.run(None, {fed: sound})))
                self.hold(client.predict("pitch", **{fed: content(sound)}), want)

    def test_basic_pitch_as_a_saved_model_gives_tensorflows_answers(self):
        folder = package_folder("basic_pitch", "saved_models", "icassp_2022", "nmp")
        self.link("pitch", folder)
        reference = Reference(folder)
        self.addCleanup(reference.close)
        with Server(*self.flags("pitch", ENGINE)) as server:
            self.assertIn("engine=openvino", server.log())
            client = self.connect(server)
            for sound in self.sounds():
                want = reference.run("serving_default", input_2=sound)
                self.hold(client.predict("pitch", input_2=content(sound)), want)

    def test_guesslang_is_refused_by_name(self):
        self.link("guess", package_folder("guesslang", "data", "model"))
        self.assertIn("StringNGrams", self.refused("guess", ENGINE))


class WithoutEngineTest(OpenVino):
    def test_a_missing_engine_is_named_with_what_to_do(self):
        self.put("half_plus_two")
        words = ("--port=0", f"--grpc_socket_path={self.base / 's'}", "--strict_startup",
                 *self.flags("half_plus_two"))
        done = subprocess.run(
            [str(BIN / "tensorflow_model_server"), *words], capture_output=True, text=True, timeout=60,
            env={**quiet_free(), "VESTA_HOME": str(self.base / "no-home")})
        self.assertEqual(done.returncode, 255, done.stdout + done.stderr)
        self.assertIn("run `vesta engine install openvino`", done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
