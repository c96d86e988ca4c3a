"""`vesta inspect` and `vesta convert` as a person runs them."""

import json
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import numpy as np
import onnx
import tensorflow as tf

from server import BIN, ROOT, SHARED

DEMO = ROOT / "demo" / "models" / "resnet8"
COUNTER = SHARED / "tfs-testdata" / "saved_model_counter"


def vesta(*words, code=0, home=None):
    environment = {"PATH": "/usr/bin:/bin", "VESTA_HOME": str(home or "/nonexistent")}
    ran = subprocess.run([str(BIN / "vesta"), *map(str, words)], capture_output=True, text=True,
                         timeout=120, env=environment)
    if ran.returncode != code:
        raise AssertionError(f"exit code {ran.returncode}\n{ran.stdout}\n{ran.stderr}")
    return ran


class Files(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)

    def model(self, function, name="model", **shapes):
        """A SavedModel of one function of tensors, in a version of its own."""
        module = tf.Module()
        specs = [tf.TensorSpec(shape, tf.float32, alias) for alias, shape in shapes.items()]
        module.serve = tf.function(function, input_signature=specs)
        place = self.folder / name / "1"
        tf.saved_model.save(module, str(place), signatures=module.serve)
        return place.parent


class Inspect(Files):
    def test_inspect_tells_what_a_person_asks(self):
        told = vesta("inspect", DEMO).stdout
        for words in ("format     SavedModel (saved_model.pb)", "tags       serve",
                      "signature serving_default (tensorflow/serving/predict)",
                      "input   image   float   [?,32,32,3]  serving_default_image:0",
                      "Conv2D 9", "embedded", "runs, in the server's own process",
                      "engine tensorflow is not installed; run `vesta engine install tensorflow`",
                      "openvino", "onnxruntime"):
            self.assertIn(words, told)

    def test_inspect_as_json_has_all_of_it(self):
        told = json.loads(vesta("inspect", DEMO, "--json", "--signature=serving_default").stdout)
        self.assertEqual(told["directory"], str(DEMO / "1"))
        self.assertEqual(told["formats"], [{"file": "saved_model.pb", "name": "SavedModel", "served": True}])
        self.assertEqual(told["tag_sets"], [["serve"]])
        self.assertEqual(told["bytes"]["graph"], (DEMO / "1" / "saved_model.pb").stat().st_size)
        [signature] = told["signatures"]
        self.assertEqual(signature["inputs"][0]["shape"], [-1, 32, 32, 3])
        self.assertEqual(signature["tensorflow"]["operators"]["Conv2D"], 9)
        self.assertIn("string", signature["onnx"]["refused"])
        engines = {engine["name"]: engine for engine in told["engines"]}
        self.assertTrue(engines["embedded"]["runs"])
        self.assertFalse(engines["tensorflow"]["runs"])

    def test_inspect_takes_the_newest_version_or_the_one_given(self):
        place = self.model(lambda x: {"y": x + 1}, x=[None])
        shutil.copytree(place / "1", place / "10")
        told = json.loads(vesta("inspect", place, "--json").stdout)
        self.assertEqual(told["directory"], str(place / "10"))
        told = json.loads(vesta("inspect", place / "1", "--json").stdout)
        self.assertEqual(told["directory"], str(place / "1"))

    def test_inspect_says_why_a_model_does_not_run(self):
        told = vesta("inspect", COUNTER).stdout
        self.assertIn("keeps state", told)
        self.assertIn("install TensorFlow with `vesta engine install tensorflow`", told)
        place = self.model(lambda x: {"y": tf.linalg.inv(x)}, x=[2, 2])
        told = vesta("inspect", place).stdout
        self.assertIn("no MatrixInverse (float) at PartitionedCall/", told)

    def test_inspect_says_what_is_wrong_with_a_call(self):
        self.assertIn("usage: vesta inspect", vesta("inspect", code=2).stderr)
        self.assertIn("usage: vesta inspect", vesta("inspect", "--help").stdout)
        self.assertIn("unknown option --out", vesta("inspect", DEMO, "--out=x", code=2).stderr)
        self.assertIn("gone", vesta("inspect", self.folder / "gone", code=1).stderr)
        self.assertIn("choose one of", vesta("inspect", DEMO, "--signature=none", code=1).stderr)
        self.assertIn("{ gpu }", vesta("inspect", DEMO, "--tags=gpu", code=1).stderr)
        (self.folder / "net.tflite").write_bytes(b"")
        self.assertIn("does not serve", vesta("inspect", self.folder, code=1).stderr)
        (self.folder / "graph.pb").write_bytes(b"")
        self.assertIn("is no frozen graph: the file is empty", vesta("inspect", self.folder, code=1).stderr)
        (self.folder / "model.onnx").write_bytes(b"")
        self.assertIn("is damaged", vesta("inspect", self.folder, code=1).stderr)
        (self.folder / "model.tflite").write_bytes(b"TFL3")
        self.assertIn("is damaged", vesta("inspect", self.folder, code=1).stderr)
        (self.folder / "saved_model.pb").write_bytes(b"\xff\xff")
        self.assertIn("cannot be parsed", vesta("inspect", self.folder, code=1).stderr)


class Convert(Files):
    def test_convert_writes_what_the_checker_takes(self):
        weights = np.random.default_rng(1).normal(0, 1, (4, 3)).astype(np.float32)
        place = self.model(lambda x: {"logits": tf.nn.relu(tf.matmul(x, weights)), "x": x}, x=[None, 4])
        out = self.folder / "model.onnx"
        said = vesta("convert", place, out).stdout
        self.assertTrue(said.startswith(f"wrote {out} ("), said)
        onnx.checker.check_model(str(out), full_check=True)
        graph = onnx.load(out).graph
        self.assertEqual([value.name for value in graph.input], ["x"])
        # One name cannot stand for an input and an output.
        self.assertEqual([value.name for value in graph.output], ["logits", "x_output"])
        self.assertEqual({file.name for file in self.folder.iterdir()}, {"model", "model.onnx"})

    def test_convert_refuses_by_operator_and_place(self):
        place = self.model(lambda x: {"y": tf.linalg.inv(x)}, x=[2, 2])
        out = self.folder / "model.onnx"
        said = vesta("convert", place, out, code=1).stderr
        self.assertIn("MatrixInverse at PartitionedCall/", said)
        self.assertFalse(out.exists())

    def test_loops_and_conditions_are_converted_and_not_run_by_the_embedded_engine(self):
        def loop(x):
            return {"y": tf.while_loop(lambda i, y: i < tf.cast(y[0], tf.int32), lambda i, y: (i + 1, y + 1), (0, x))[1]}

        def choice(x):
            return {"y": tf.cond(x[0] > 0, lambda: x + 1, lambda: x - 1)}

        for function, operator in ((loop, "While"), (choice, "If")):
            place = self.model(function, operator, x=[1])
            out = self.folder / "out.onnx"
            vesta("convert", place, out)
            onnx.checker.check_model(str(out), full_check=True)
            told = json.loads(vesta("inspect", place, "--json").stdout)
            embedded = told["engines"][0]
            self.assertFalse(embedded["runs"], embedded)
            self.assertIn(operator, embedded["verdict"])
            self.assertIn("vesta engine install tensorflow", embedded["verdict"])

    def test_convert_refuses_an_input_without_rank(self):
        place = self.model(lambda x: {"y": x * 2}, x=None)
        said = vesta("convert", place, self.folder / "out.onnx", code=1).stderr
        self.assertIn("its input x is declared without a rank", said)

    def test_convert_says_what_is_wrong_with_a_call(self):
        self.assertIn("usage: vesta convert", vesta("convert", DEMO, code=2).stderr)
        self.assertIn("usage: vesta convert", vesta("convert", "--help").stdout)
        place = self.model(lambda x: {"y": x * 2}, x=[None])
        said = vesta("convert", place, self.folder / "no" / "out.onnx", code=1).stderr
        self.assertIn("cannot be written", said)
        self.assertIn("choose one of", vesta("convert", place, self.folder / "o", "--signature=z", code=1).stderr)


if __name__ == "__main__":
    unittest.main()
