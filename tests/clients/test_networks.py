"""Signatures that share a network, or weights alone, on engines that lay out weights for themselves."""

import json

import numpy as np
import tensorflow as tf

from models import Folders, Reference
from server import Server, need_onnxruntime, need_openvino
from test_program import ask

# Bytes of the weights of each model here.
WEIGHTS = 4 * 3 * (3 * 3 * 512 * 512)


class Net(tf.Module):
    """Filters of convolutions, and what is asked of them."""

    def __init__(self):
        super().__init__()
        random = np.random.default_rng(7)
        self.filters = [
            tf.Variable(random.normal(0, 0.02, [3, 3, 512, 512]).astype("f")) for _ in range(3)]
        self.head = tf.Variable(random.normal(0, 0.1, [512, 10]).astype("f"))

    def features(self, x):
        for filter in self.filters:
            x = tf.nn.relu(tf.nn.conv2d(x, filter, 1, "SAME"))
        return tf.reduce_mean(x, [1, 2])

    def signature(self, compute, shape=(None, 8, 8, 512), dtype=tf.float32):
        return tf.function(compute, input_signature=[tf.TensorSpec(shape, dtype, name="image")])

    def signatures(self):
        def logits(x):
            return tf.matmul(self.features(x), self.head)

        def probabilities(image):
            return {"probabilities": tf.nn.softmax(logits(image))}

        def classes(image):
            own = logits(image)
            return {"classes": tf.argmax(own, 1), "logits": own}

        def features(image):
            return {"features": self.features(image)}

        def of_bytes(image):
            sized = tf.image.resize(tf.cast(image, tf.float32) / 127.5 - 1.0, [8, 8])
            return {"probabilities": tf.nn.softmax(logits(sized))}

        floats = {"serving_default": probabilities, "classes": classes, "features": features}
        return {**{name: self.signature(compute) for name, compute in floats.items()},
                "of_bytes": self.signature(of_bytes, (None, None, None, 512), tf.uint8)}


class Products(tf.Module):
    """One product with weights, of inputs that differ."""

    def __init__(self):
        super().__init__()
        random = np.random.default_rng(8)
        self.weights = tf.Variable(random.normal(0, 0.02, [1536, 4608]).astype("f"))

    def signature(self, number):
        def compute(x):
            return {"y": tf.reduce_sum(tf.matmul(x + float(number), self.weights), 1)}
        return tf.function(compute, input_signature=[tf.TensorSpec([None, 1536], tf.float32, name="x")])


class NetworksTest(Folders):
    def memory(self, server):
        """What the worker of each model takes, in bytes."""
        listed = json.loads(ask(server, "GET", "/v1/models")[1])
        return {model["name"]: int(model["loaded_versions"][0]["worker"]["memory_bytes"])
                for model in listed["models"]}

    def save_net(self):
        net = Net()
        signatures = net.signatures()
        tf.saved_model.save(net, str(self.base / "several" / "1"), signatures)
        one = {"serving_default": signatures["serving_default"]}
        tf.saved_model.save(net, str(self.base / "one" / "1"), one)
        return list(signatures)

    def assert_one_network(self, engine):
        names = self.save_net()
        reference = Reference(self.base / "several" / "1")
        self.addCleanup(reference.close)
        paths = {name: self.base / name for name in ("one", "several")}
        with Server(self.config(**paths), f"--engine={engine}") as server:
            client = self.connect(server)
            for rows in (1, 3):
                random = np.random.default_rng(rows)
                floats = random.normal(size=[rows, 8, 8, 512]).astype("f")
                sent = random.integers(0, 256, [rows, 5, 11, 512]).astype(np.uint8)
                for name in names:
                    image = sent if name == "of_bytes" else floats
                    given = client.predict("several", name, image=image)
                    want = reference.run(name, image=image)
                    self.assertEqual(given.keys(), want.keys())
                    for output, value in want.items():
                        np.testing.assert_allclose(given[output], value, rtol=1e-3, atol=1e-4, err_msg=output)
            client.predict("one", image=floats)
            taken = self.memory(server)
        self.assertLess(taken["several"], taken["one"] + 0.5 * WEIGHTS)

    def test_signatures_of_one_network_have_its_weights_once_on_onnxruntime(self):
        need_onnxruntime()
        self.assert_one_network("onnxruntime")

    def test_signatures_of_one_network_have_its_weights_once_on_openvino(self):
        need_openvino()
        self.assert_one_network("openvino")

    def test_weights_of_products_are_packed_once_on_onnxruntime(self):
        need_onnxruntime()
        products = Products()
        for model, count in (("one", 1), ("several", 8)):
            signatures = {f"times_{n}": products.signature(n) for n in range(1, count + 1)}
            tf.saved_model.save(products, str(self.base / model / "1"), signatures)
        paths = {name: self.base / name for name in ("one", "several")}
        with Server(self.config(**paths), "--engine=onnxruntime") as server:
            client = self.connect(server)
            x = np.random.default_rng(9).normal(size=[5, 1536]).astype("f")
            for number in range(1, 9):
                given = client.predict("several", f"times_{number}", x=x)["y"]
                want = ((x + np.float32(number)) @ products.weights.numpy()).sum(1)
                np.testing.assert_allclose(given, want, rtol=1e-3, atol=1e-2)
            client.predict("one", "times_1", x=x)
            taken = self.memory(server)
        # One copy as it is in the file, and one as kernels read it.
        self.assertLess(taken["several"], taken["one"] + 2 * 1536 * 4608 * 4)
