"""Runs that a model itself ends with an error say so in TensorFlow's words on a translated model, too."""

import json

import numpy as np
import tensorflow as tf

from models import Folders, save
from server import Server, need_onnxruntime, need_tensorflow
from test_program import ask


def asserting(x):
    tf.debugging.Assert(tf.reduce_sum(x) > 0, ["the sum must be above", 0, "but is", tf.reduce_sum(x)])
    return {"y": tf.sqrt(x)}


def asserting_by_name(x):
    tf.debugging.assert_less(x, 10.0, message="too much")
    return {"y": x + 1}


def asserting_in_a_loop(x):
    def body(x):
        tf.debugging.assert_less(x, 10.0, message="too much")
        return x * 2

    return {"y": tf.while_loop(lambda x: tf.reduce_sum(x) < 100, body, [x], maximum_iterations=20)[0]}


def asserting_in_a_branch(x):
    def checked():
        tf.debugging.assert_less(x, 10.0, message="too much")
        return x * 2

    return {"y": tf.cond(tf.reduce_sum(x) > 5, checked, lambda: x)}


def checking_numbers(x):
    return {"y": tf.debugging.check_numerics(tf.math.log(x), "a logarithm")}


def dividing(x):
    whole = tf.cast(x, tf.int32)
    return {"y": 7 // whole}


# Name, function, what passes, what fails, the words up to the first number of the run.
CASES = [
    ("assert", asserting, [1, 2], [-3, 1], "assertion failed: [the sum must be above] ["),
    ("assert_by_name", asserting_by_name, [1, 2], [3, 11], "assertion failed: [too much] [Condition x < y"),
    ("loop", asserting_in_a_loop, [60, 60], [30, 5], "assertion failed: [too much] [Condition x < y"),
    ("branch", asserting_in_a_branch, [0, 3], [3, 11], "assertion failed: [too much] [Condition x < y"),
    ("numerics", checking_numbers, [1, 2], [-1, 2], "a logarithm : Tensor had"),
    ("division", dividing, [1, 2], [0, 2], "Integer division by zero"),
]


class RaisedErrorsTest(Folders):
    @classmethod
    def setUpClass(cls):
        need_tensorflow()
        need_onnxruntime()

    def hold(self, engine):
        folders = {}
        for name, function, *_ in CASES:
            folder = self.base / name / "1"
            if not folder.exists():
                folder.parent.mkdir()
                save(folder, function, tf.TensorSpec([None], tf.float32, name="x"))
            folders[name] = folder.parent
        with Server(self.config(**folders), f"--engine={engine}", seconds=120) as server:
            for name, function, passes, fails, words in CASES:
                with self.subTest(name, engine=engine):
                    path = f"/v1/models/{name}:predict"
                    status, text = ask(server, "POST", path, json.dumps({"inputs": passes}))
                    self.assertEqual(status, 200, text)
                    want = function(tf.constant(passes, tf.float32))["y"]
                    np.testing.assert_allclose(json.loads(text)["outputs"], want, rtol=1e-5)
                    status, text = ask(server, "POST", path, json.dumps({"inputs": fails}))
                    self.assertEqual(status, 400, text)
                    error = json.loads(text)["error"]
                    self.assertTrue(error.startswith(words), error)
                    self.assertIn("{{node ", error)

    def test_on_tensorflow(self):
        self.hold("tensorflow")

    def test_on_onnx_runtime(self):
        self.hold("onnxruntime")
