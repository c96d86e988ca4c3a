"""TF1's control flow (`Switch`, `Merge`, `Enter`, `Exit`, TensorArrays), translated for each engine.

Graphs are made with control flow of TF1 and answered by TensorFlow itself.
"""

import unittest

import numpy as np
import tensorflow as tf

from models import Folders, Reference, save_graph
from server import Server, need_onnxruntime, need_tensorflow
from test_frozen_graphs import FILE, freeze
from test_program import run

tf1 = tf.compat.v1


def vector():
    return tf1.placeholder(tf.float32, [None, 3], name="x")


def cond():
    x = vector()
    positive = tf.reduce_sum(x) > 0
    y = tf1.cond(positive, lambda: x * 2 + 1, lambda: x - 1)
    z = tf1.cond(positive, lambda: tf.reduce_sum(x), lambda: tf.constant(7.0))
    return {"x": x}, {"y": y, "z": z}


def nested_cond():
    x = vector()
    total = tf.reduce_sum(x)

    def large():
        return tf1.cond(total > 10, lambda: x * total, lambda: tf1.cond(
            x[0, 0] > 1, lambda: x + total, lambda: -x))
    return {"x": x}, {"y": tf1.cond(total > 0, large, lambda: x * 0.5)}


def loop():
    x = vector()
    w = tf1.get_variable("w", initializer=np.float32(np.eye(3) * 0.5), use_resource=False)
    _, y = tf1.while_loop(
        lambda i, a: tf.logical_and(i < 7, tf.reduce_max(a) < 100), lambda i, a: (i + 1, a @ w + x),
        [0, x], shape_invariants=[tf.TensorShape([]), tf.TensorShape([None, 3])])
    return {"x": x}, {"y": y}


def nested_loop():
    x = vector()

    def outer(i, a):
        _, b = tf1.while_loop(lambda j, b: j < i + 1, lambda j, b: (j + 1, b + x), [0, a])
        c = tf1.cond(tf.equal(i % 2, 0), lambda: b * 0.5, lambda: b + a)
        return i + 1, c
    return {"x": x}, {"y": tf1.while_loop(lambda i, a: i < 4, outer, [0, x])[1]}


def loop_in_cond():
    x = vector()

    def power():
        return tf1.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, a * x), [0, x])[1]
    return {"x": x}, {"y": tf1.cond(tf.reduce_sum(x) > 0, power, lambda: -x)}


def map_rows():
    x = vector()
    y = tf1.map_fn(lambda row: tf.cumsum(row) * tf.reduce_max(row), x)
    z = tf1.map_fn(lambda row: (row * 2, tf.cast(row[0], tf.int32)), x, dtype=(tf.float32, tf.int32))
    return {"x": x}, {"y": y, "z0": z[0], "z1": z[1]}


def fold():
    x = vector()
    return {"x": x}, {"y": tf1.foldl(lambda a, row: a * 0.5 + row, x),
                      "z": tf1.scan(lambda a, row: a + row, x)}


def array():
    """An array that is written in a loop and read back in another order."""
    x = vector()
    squares = tf.TensorArray(tf.float32, size=4, clear_after_read=False, element_shape=[None, 3])
    _, squares = tf1.while_loop(
        lambda i, _: i < 4, lambda i, a: (i + 1, a.write(i, x * tf.cast(i, tf.float32))), [0, squares])
    return {"x": x}, {"y": squares.stack(), "z": squares.gather([3, 0]), "first": squares.read(1)}


def growing():
    """Arrays that get longer as they are written to: in a loop, past their end, and where nothing was."""
    x = vector()
    rows = tf.TensorArray(tf.float32, size=0, dynamic_size=True)
    _, rows = tf1.while_loop(
        lambda i, _: i < 2 * tf.shape(x)[0], lambda i, a: (i + 1, a.write(i, x[i // 2])), [0, rows])
    one = tf.TensorArray(tf.float32, size=1, dynamic_size=True, clear_after_read=False).write(0, x[0]).write(1, x[0] * 2)
    return {"x": x}, {"y": rows.stack(), "size": rows.size(), "one": one.stack(), "last": one.read(1)}


def decoding():
    """As decoders write their words: until all are done, and no longer than that."""
    x = vector()
    words = tf.TensorArray(tf.int32, size=0, dynamic_size=True)
    word = tf.cast(tf.abs(x[:, 0]) * 4, tf.int32) + 1

    def step(i, word, words):
        word = (word * 5 + 3) % 11
        return i + 1, word, words.write(i, word)
    steps, _, words = tf1.while_loop(
        lambda i, word, _: tf.logical_and(i < 20, tf.reduce_any(tf.not_equal(word, 0))), step, [0, word, words])
    return {"x": x}, {"words": tf.transpose(words.stack()), "steps": steps}


def together():
    """The elements of an array, one behind the other."""
    x = vector()
    rows = tf.TensorArray(tf.float32, size=3)
    _, rows = tf1.while_loop(
        lambda i, _: i < 3, lambda i, a: (i + 1, a.write(i, tf.stack([x[0] + tf.cast(i, tf.float32), x[0]]))), [0, rows])
    return {"x": x}, {"y": rows.concat()}


CASES = (cond, nested_cond, loop, nested_loop, loop_in_cond, map_rows, fold, array, growing, decoding, together)
ROWS = ([[1, 2, 3], [0.5, -1, 2]], [[-1, -2, 0.5]], [[0.25, 0.5, 0.1], [0, 0, 0.3], [0.2, 0.1, 0]],
        [[9, 8, 7]])


class ControlTest(Folders):
    @classmethod
    def setUpClass(cls):
        need_tensorflow()
        need_onnxruntime()

    def setUp(self):
        super().setUp()
        tf1.disable_control_flow_v2()
        self.addCleanup(tf1.enable_control_flow_v2)

    def test_translated_branches_and_loops_answer_as_tensorflow_does(self):
        paths, wanted = {}, {}
        for build in CASES:
            name = build.__name__
            save_graph(self.base / name / "1", build)
            paths[name] = self.base / name
            reference = Reference(self.base / name / "1")
            wanted[name] = [reference.run("serving_default", x=np.float32(x)) for x in ROWS]
            reference.close()
        # The embedded engine has neither branches nor loops.
        with Server(self.config(**paths), "--engine=onnxruntime") as server:
            client = self.connect(server)
            for name in paths:
                for x, want in zip(ROWS, wanted[name]):
                    with self.subTest(name, x=x):
                        given = client.predict(name, x=np.float32(x))
                        for output, value in want.items():
                            np.testing.assert_allclose(given[output], value, rtol=1e-5, atol=1e-6,
                                                       err_msg=output)

    def test_frozen_graphs_with_loops_are_translated(self):
        def outputs():
            _, found = nested_loop()
            return [tf.identity(found["y"], name="y").op.name]
        graph = freeze(outputs)
        self.assertTrue({"Enter", "Switch", "Merge"} <= {node.op for node in graph.node})
        folder = self.base / "m" / "1"
        folder.mkdir(parents=True)
        (folder / FILE).write_bytes(graph.SerializeToString())
        answers = []
        for engine in ("onnxruntime", "tensorflow"):
            with Server(*self.flags("m", f"--engine={engine}")) as server:
                client = self.connect(server)
                answers.append([client.predict("m", x=np.float32(x))["y"] for x in ROWS])
        for given in answers[:-1]:
            for one, want in zip(given, answers[-1]):
                np.testing.assert_allclose(one, want, rtol=1e-5)

    def test_what_cannot_be_lifted_is_refused_by_name_and_tensorflow_serves_it(self):
        def taken_apart():
            x = vector()
            rows = tf.TensorArray(tf.float32, size=3, clear_after_read=False).split(tf.tile(x[:1], [3, 1]), [1, 1, 1])
            return {"x": x}, {"y": rows.read(0) + rows.read(2)}
        save_graph(self.base / "m" / "1", taken_apart)
        done = run("--port=0", f"--grpc_socket_path={self.base / 's'}", "--strict_startup",
                   "--engine=onnxruntime", *self.flags("m"), seconds=60)
        self.assertEqual(done.returncode, 255, done.stdout)
        self.assertRegex(done.stdout, "TensorArrayV3 .*TensorArray.*TensorArraySplitV3 at .* has no form as a list")
        with Server(*self.flags("m")) as server:
            given = self.connect(server).predict("m", x=np.float32([[1, 2, 3]]))
            self.assertEqual(given["y"].tolist(), [[2, 4, 6]])


if __name__ == "__main__":
    unittest.main()
