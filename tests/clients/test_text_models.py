"""SavedModels whose file is text (`saved_model.pbtxt`), of TF1 and TF2, on each engine."""

import shutil
import unittest

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2

from models import Folders, save_graph
from server import Server, need_onnxruntime, need_tensorflow
from test_inspect import vesta
from test_onnx import KEPT
from test_program import run

WEIGHTS = np.float32([[1, 2], [3, 4], [5, 6]])


def as_text(folder):
    """Puts the text in the place of the binary file."""
    binary = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(binary.read_bytes())
    (folder / "saved_model.pbtxt").write_text(text_format.MessageToString(model))
    binary.unlink()


class TextModelTest(Folders):
    @classmethod
    def setUpClass(cls):
        need_tensorflow()
        need_onnxruntime()

    def save_both(self):
        module = tf.Module()
        module.weights = tf.Variable(WEIGHTS)
        module.serve = tf.function(lambda x: {"y": tf.nn.relu(x @ module.weights)}, input_signature=[
            tf.TensorSpec([None, 3], tf.float32, name="x")])
        tf.saved_model.save(module, str(self.base / "tf2" / "1"), signatures=module.serve)

        def build():
            x = tf.compat.v1.placeholder(tf.float32, [None, 3], name="x")
            weights = tf.compat.v1.get_variable("w", initializer=WEIGHTS, use_resource=False)
            return {"x": x}, {"y": tf.nn.relu(x @ weights)}
        save_graph(self.base / "tf1" / "1", build)

    def test_each_engine_serves_them(self):
        self.save_both()
        x = np.float32([[1, 0, -1], [0.5, 2, 0]])
        paths = {name: self.base / name for name in ("tf1", "tf2")}
        for path in paths.values():
            as_text(path / "1")
            # It is a SavedModel still: an ONNX file beside it is not asked.
            shutil.copy(KEPT / "half_plus_two.onnx", path / "1" / "model.onnx")
        for engine in ("embedded", "tensorflow", "onnxruntime", "auto"):
            with self.subTest(engine), Server(self.config(**paths), f"--engine={engine}") as server:
                client = self.connect(server)
                for name in paths:
                    given = client.predict(name, x=x)
                    np.testing.assert_allclose(given["y"], np.maximum(x @ WEIGHTS, 0), rtol=1e-6)

    def test_the_binary_file_comes_first_and_a_mistake_has_its_place(self):
        self.save_both()
        folder = self.base / "tf2" / "1"
        (folder / "saved_model.pbtxt").write_text("this is no message")
        self.assertIn("saved_model.pb)", vesta("inspect", folder).stdout)
        (folder / "saved_model.pb").unlink()
        done = run("inspect", str(folder), program="vesta")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"saved_model\.pbtxt: cannot be parsed: 1:6: ")


if __name__ == "__main__":
    unittest.main()
