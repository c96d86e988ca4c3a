"""Requests with NaN, infinity and large numbers, on engines whose fast form of a network is not made for them."""

import grpc
import numpy as np
import tensorflow as tf

from models import Folders, Reference
from server import Server, need_onnxruntime, need_openvino


class Net(tf.Module):
    """Activations behind sums and products, of which TensorFlow fuses none, and a pool that passes over NaN."""

    def __init__(self):
        super().__init__()
        random = np.random.default_rng(3)
        self.filter = tf.Variable(random.normal(0, 0.2, [3, 3, 3, 16]).astype("f"))
        self.deep = [tf.Variable(random.normal(0, 0.18, [64, 64]).astype("f")) for _ in range(50)]
        self.head = tf.Variable(random.normal(0, 0.3, [16, 5]).astype("f"))

    def image(self, image):
        scaled = tf.nn.conv2d(image, self.filter, 1, "SAME") * 1.25 + 0.1
        active = tf.nn.relu(scaled)
        pooled = tf.nn.max_pool2d(active, 2, 2, "VALID")
        bounded = tf.nn.relu6(pooled * 0.5 - 0.2)
        return {"active": active, "pooled": pooled, "bounded": bounded,
                "scores": tf.matmul(tf.reduce_mean(bounded, [1, 2]), self.head)}

    def chain(self, x):
        """Too deep for bounds that are known beforehand."""
        for weights in self.deep:
            x = tf.nn.relu(tf.matmul(x, weights) * 0.9 + 0.01)
        return {"y": x, "largest": tf.reduce_max(x, 1)}

    def growth(self, x):
        """Overflows within, for numbers that are not large: infinity less infinity is none."""
        for _ in range(8):
            x = tf.nn.relu(x * 1e6)
        return {"y": tf.nn.relu(x - 2.0 * x), "largest": tf.maximum(x - 2.0 * x, -1.0)}

    def signatures(self):
        def signature(compute, shape, name):
            spec = tf.TensorSpec(shape, tf.float32, name=name)
            return tf.function(compute, input_signature=[spec])
        return {"serving_default": signature(self.image, [None, None, None, 3], "image"),
                "chain": signature(self.chain, [None, 64], "x"),
                "growth": signature(self.growth, [None, 4], "x")}


def odd_requests():
    """Signature, input, and what is asked."""
    random = np.random.default_rng(5)
    image = random.normal(size=[2, 8, 10, 3]).astype("f")
    row = random.normal(size=[3, 64]).astype("f")
    yield "serving_default", "image", image
    yield "chain", "x", row
    for odd in (np.nan, np.inf, -np.inf, 1e12, 3e38, -1e20):
        one = image.copy()
        one[0, 3, 4, 1] = odd
        yield "serving_default", "image", one
        one = row.copy()
        one[1, 7] = odd
        yield "chain", "x", one
    yield "serving_default", "image", np.full([1, 4, 4, 3], np.nan, "f")
    yield "chain", "x", row[:0]
    for size in (1e-14, 1e-12, 1.0, 30.0, np.nan):
        yield "growth", "x", np.array([[size, -size, 0, size / 2]], "f")
    # What came before changes nothing for those that come after.
    yield "serving_default", "image", image
    yield "chain", "x", row


class OrdinaryTest(Folders):
    def assert_answers(self, engine):
        net = Net()
        base = self.base / "net"
        tf.saved_model.save(net, str(base / "1"), net.signatures())
        reference = Reference(base / "1")
        self.addCleanup(reference.close)
        with Server(self.config(net=base), f"--engine={engine}") as server:
            client = self.connect(server)
            for number, (name, alias, value) in enumerate(odd_requests()):
                given = client.predict("net", name, **{alias: value})
                want = reference.run(name, **{alias: value})
                self.assertEqual(given.keys(), want.keys())
                for output, expected in want.items():
                    with self.subTest(number=number, signature=name, output=output):
                        np.testing.assert_allclose(given[output], expected, rtol=1e-3, atol=1e-4)

    def test_onnxruntime_answers_what_is_not_ordinary(self):
        need_onnxruntime()
        self.assert_answers("onnxruntime")

    def test_openvino_answers_what_is_not_ordinary(self):
        need_openvino()
        self.assert_answers("openvino")

    def test_the_embedded_engine_answers_what_is_not_ordinary(self):
        self.assert_answers("embedded")

    def test_without_the_files_ordinary_requests_go_on(self):
        need_onnxruntime()
        net = Net()
        base = self.base / "net"
        tf.saved_model.save(net, str(base / "1"), net.signatures())
        flags = ["--engine=onnxruntime", "--file_system_poll_wait_seconds=0"]
        with Server(self.config(net=base), *flags) as server:
            client = self.connect(server)
            image = np.ones([1, 4, 4, 3], "f")
            before = client.predict("net", image=image)["scores"]
            for file in (base / "1" / "variables").iterdir():
                file.unlink()
            with self.assertRaises(grpc.RpcError) as caught:
                client.predict("net", image=np.full_like(image, np.nan))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.FAILED_PRECONDITION)
            self.assertIn("needs the files of model net version 1 once more", caught.exception.details())
            np.testing.assert_array_equal(client.predict("net", image=image)["scores"], before)
