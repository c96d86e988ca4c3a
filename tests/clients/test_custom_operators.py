"""Operators that a library brings: `--custom_op_libraries`, with those of the tensorflow-text wheel."""

import subprocess
import sys
import unittest

import numpy as np

from models import Folders, package_folder
from server import Server, need_tensorflow
from test_program import run

# A process of its own: operators that are once registered stay in it.
WRITE = """
import sys
import tensorflow as tf
folder, fold, binarize = sys.argv[1:]
fold, binarize = tf.load_op_library(fold), tf.load_op_library(binarize)
module = tf.Module()
module.serve = tf.function(lambda x: {
    "folded": fold.case_fold_utf8(x),
    "bits": binarize.tf_text_utf8_binarize(
        x, word_length=3, bits_per_char=8, replacement_char=63)},
    input_signature=[tf.TensorSpec([None], tf.string, name="x")])
tf.saved_model.save(module, folder, signatures=module.serve)
"""

# An operator without a shape function.
WRITE_SEQUENCE = """
import numpy as np
import sys
import tensorflow as tf
folder, sequence = sys.argv[1:]
sequence = tf.load_op_library(sequence)
module = tf.Module()
module.serve = tf.function(lambda scores: {"states": sequence.constrained_sequence(
    scores, tf.fill([tf.shape(scores)[0]], 2), np.ones((3, 3), bool), np.zeros((3, 3), np.float32),
    use_viterbi=True, use_log_space=True, use_start_and_end_states=False).states},
    input_signature=[tf.TensorSpec([None, 2, 3], tf.float32, name="scores")])
tf.saved_model.save(module, folder, signatures=module.serve)
"""


class CustomOperatorsTest(Folders):
    @classmethod
    def setUpClass(cls):
        need_tensorflow()
        folder = package_folder("tensorflow_text", "python", "ops")
        cls.libraries = [str(folder / "_normalize_ops.so"), str(folder / "_utf8_binarize_op.so")]

        cls.sequence = str(folder / "_constrained_sequence_op.so")

    def setUp(self):
        super().setUp()
        self.write(WRITE, "m", *self.libraries)

    def write(self, script, model, *libraries):
        done = subprocess.run([sys.executable, "-c", script, str(self.base / model / "1"),
                               *libraries], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    def failed(self, *flags):
        done = run("--port=0", f"--grpc_socket_path={self.base / 's'}", *self.flags("m", *flags),
                   seconds=60)
        self.assertEqual(done.returncode, 255, done.stdout)
        return done.stdout

    def test_both_libraries_serve(self):
        for engine in ("tensorflow", "auto"):
            with self.subTest(engine), Server(*self.flags(
                    "m", f"--engine={engine}",
                    f"--custom_op_libraries={','.join(self.libraries)}")) as server:
                words = np.array(["Straße".encode(), b"ABC"], object)
                answer = self.connect(server).predict("m", x=words)
                self.assertEqual(answer["folded"].tolist(), [b"strasse", b"abc"])
                bits = [[int(bit) for letter in "ABC" for bit in f"{ord(letter):08b}"[::-1]]]
                self.assertEqual(answer["bits"][1:].tolist(), bits)

    def test_an_operator_without_a_shape_function(self):
        self.write(WRITE_SEQUENCE, "s", self.sequence)
        with Server(*self.flags("s", f"--custom_op_libraries={self.sequence}")) as server:
            scores = np.array([[[1, 9, 2], [7, 1, 3]], [[0, 1, 5], [1, 2, 8]]], np.float32)
            answer = self.connect(server).predict("s", scores=scores)
            self.assertEqual(answer["states"].tolist(), [1, 0, 2, 2])

    def test_without_a_library_its_operator_is_named(self):
        for flags, missing in (([], ("CaseFoldUTF8", "TFText>Utf8Binarize")),
                               ([f"--custom_op_libraries={self.libraries[0]}"],
                                ("TFText>Utf8Binarize",))):
            text = self.failed("--engine=tensorflow", *flags)
            self.assertTrue(any(f"Op type not registered '{name}' in binary running on" in text
                                for name in missing), text)

    def test_a_missing_file(self):
        for engine in ("tensorflow", "auto"):
            text = self.failed(f"--engine={engine}", "--custom_op_libraries=/nowhere/ops.so")
            self.assertIn("Failed to start server. Error: NOT_FOUND: --custom_op_libraries: "
                          "/nowhere/ops.so cannot be found", text)

    def test_a_file_that_is_no_library(self):
        path = self.base / "ops.so"
        path.write_text("not a library\n")
        text = self.failed("--engine=tensorflow", f"--custom_op_libraries={path}")
        self.assertIn(f"the library of custom operators {path} cannot be opened by TensorFlow", text)


if __name__ == "__main__":
    unittest.main()
