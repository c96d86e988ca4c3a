"""Frozen graphs: a TF1 GraphDef in a `.pb` of its own, over the whole API, on each engine.

Graphs are made and answered by TensorFlow itself.
"""

import importlib
import json
import subprocess
import sys
import unittest

import numpy as np
import tensorflow as tf
import tf_slim as slim
from tensorflow.core.framework import graph_pb2
from tf_slim.nets import inception

from models import KeptModels, save
from server import BIN, HOME, Server, need_onnxruntime, need_tensorflow
from test_inspect import vesta
from test_program import ask, run

# Slim's batch normalisation looks for it where it once was.
sys.modules["tf_keras.legacy_tf_layers.normalization"] = importlib.import_module(
    "tf_keras.src.legacy_tf_layers.normalization")

tf1 = tf.compat.v1
ENGINES = ("embedded", "onnxruntime", "tensorflow", "auto")
FILE = "frozen_inference_graph.pb"


def freeze(build, version=None):
    """A frozen GraphDef of the graph that `build` makes, whose outputs it names."""
    with tf.Graph().as_default() as graph, tf1.Session() as session:
        tf1.set_random_seed(3)
        outputs = build()
        session.run(tf1.global_variables_initializer())
        frozen = tf1.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(), outputs)
    if version is not None:
        frozen.versions.producer = version
    return frozen


def answers(graph_def, outputs, feeds):
    with tf.Graph().as_default(), tf1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        names = [name if ":" in name else f"{name}:0" for name in outputs]
        feeds = {name if ":" in name else f"{name}:0": value for name, value in feeds.items()}
        return dict(zip(outputs, session.run(names, feeds)))


def dense():
    """Two layers with weights as they were trained, one output."""
    x = tf1.placeholder(tf.float32, [None, 3], name="x")
    with tf1.variable_scope("hidden"):
        hidden = tf.nn.relu(x @ tf1.get_variable("kernel", [3, 5]), name="Relu")
    tf.nn.softmax(hidden @ tf1.get_variable("logits", [5, 4]), name="scores")
    return ["scores"]


def slim_net():
    images = tf1.placeholder(tf.float32, [None, 79, 79, 3], name="input")
    with slim.arg_scope(inception.inception_v3_arg_scope()):
        _, ends = inception.inception_v3(images, 11, is_training=False, depth_multiplier=0.2,
                                         create_aux_logits=False)
    return [ends["Predictions"].op.name]


def detector():
    """What the Object Detection API's exports look like from outside."""
    image = tf1.placeholder(tf.uint8, [1, None, None, 3], name="image_tensor")
    scaled = tf1.image.resize_bilinear(tf.cast(image, tf.float32), [16, 16])
    features = tf.nn.conv2d(scaled / 255.0, tf1.get_variable("kernel", [3, 3, 3, 5]), 4, "SAME")
    features = tf.reshape(features, [-1, 5])
    scores = tf.sigmoid(features[:, 0])
    corners = tf.sort(tf.reshape(tf.sigmoid(features[:, 1:]), [-1, 2, 2]), axis=1)
    boxes = tf.reshape(corners, [-1, 4])
    chosen = tf.image.non_max_suppression(boxes, scores, 6, 0.6)
    tf.expand_dims(tf.gather(boxes, chosen), 0, name="detection_boxes")
    tf.expand_dims(tf.gather(scores, chosen), 0, name="detection_scores")
    tf.cast(tf.shape(chosen), tf.float32, name="num_detections")
    return ["detection_boxes", "detection_scores", "num_detections"]


def odd_names():
    """Scopes, dots and an operator of two outputs; a default that nobody need give."""
    x = tf1.placeholder(tf.float32, [None, 6], name="net.v1/In_put-0")
    rate = tf1.placeholder_with_default(np.float32(2), [], name="rate")
    top = tf.nn.top_k(x * rate, 2, name="net.v1/top")
    return [top.values.op.name]


CASES = {
    "dense": (dense, {"x": np.float32([[1, -2, 0.5], [0, 3, 1]])}),
    "slim": (slim_net, {"input": np.random.default_rng(1).random((2, 79, 79, 3), np.float32)}),
    "detector": (detector, {"image_tensor": np.random.default_rng(2).integers(
        0, 256, (1, 37, 52, 3), np.uint8)}),
    "odd": (odd_names, {"net.v1/In_put-0": np.float32([[3, 1, 4, 1, 5, 9]])}),
}


class FrozenGraphTest(KeptModels):
    @classmethod
    def setUpClass(cls):
        need_tensorflow()
        need_onnxruntime()

    def write(self, model, graph_def, file=FILE, settings=None):
        folder = self.base / model / "1"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(graph_def.SerializeToString())
        if settings:
            (self.base / model / "vesta.toml").write_text(settings)
        return folder

    def refused(self, model, *more):
        done = run("--port=0", f"--grpc_socket_path={self.base / 's'}", "--strict_startup",
                   *self.flags(model, *more), seconds=60)
        self.assertEqual(done.returncode, 255, done.stdout)
        return done.stdout

    def test_each_engine_serves_them_as_tensorflow_answers(self):
        wanted, paths = {}, {}
        for name, (build, feeds) in CASES.items():
            graph = freeze(build)
            outputs = ["net.v1/top", "net.v1/top:1"] if name == "odd" else build_outputs(graph)
            wanted[name] = answers(graph, outputs, feeds)
            self.write(name, graph)
            paths[name] = self.base / name
        for engine in ENGINES:
            # The embedded engine has no NonMaxSuppression.
            served = {name: path for name, path in paths.items()
                      if (engine, name) != ("embedded", "detector")}
            with self.subTest(engine), Server(self.config(**served), f"--engine={engine}") as server:
                client = self.connect(server)
                for name in served:
                    feeds = CASES[name][1]
                    given = client.predict(name, **feeds)
                    self.assertEqual(given.keys(), wanted[name].keys())
                    for output, want in wanted[name].items():
                        self.assertEqual(given[output].dtype, want.dtype)
                        np.testing.assert_allclose(
                            given[output], want, rtol=2e-4, atol=2e-5, err_msg=f"{name} {output}")

    def test_the_whole_api_speaks_of_them(self):
        self.write("dense", freeze(dense))
        x = [[1, -2, 0.5], [0, 3, 1]]
        want = answers(freeze(dense), ["scores"], {"x": x})["scores"]
        with Server(*self.flags("dense")) as server:
            status, body = self.post(server, "dense", instances=x)
            self.assertEqual(status, 200, body)
            np.testing.assert_allclose(body["predictions"], want, rtol=1e-4)
            [(name, signature)] = self.signatures(server, "dense").items()
            self.assertEqual((name, signature.method_name),
                             ("serving_default", "tensorflow/serving/predict"))
            self.assertEqual(signature.inputs["x"].name, "x:0")
            self.assertEqual([d.size for d in signature.inputs["x"].tensor_shape.dim], [-1, 3])
            self.assertEqual(signature.outputs["scores"].dtype, tf.float32.as_datatype_enum)
            _, text = ask(server, "GET", "/v1/models/dense")
            self.assertEqual(json.loads(text)["model_version_status"][0]["state"], "AVAILABLE")

    def test_tensors_are_those_that_the_models_own_file_names(self):
        graph = freeze(dense)
        x = np.float32([[1, -2, 0.5]])
        hidden = answers(graph, ["hidden/Relu"], {"x": x})["hidden/Relu"]
        self.write("inner", graph, settings="[graph]\noutputs = ['hidden/Relu:0', 'scores']\n")
        self.write("from_inside", graph, settings=(
            "[graph]\ninputs = ['hidden/Relu']\noutputs = ['scores:0']\n"))
        self.write("odd", freeze(odd_names), settings=(
            "[graph]\ninputs = ['net.v1/In_put-0:0', 'rate']\noutputs = ['net.v1/top:0']\n"))
        paths = {name: self.base / name for name in ("inner", "from_inside", "odd")}
        for engine in ENGINES:
            with self.subTest(engine), Server(self.config(**paths), f"--engine={engine}") as server:
                client = self.connect(server)
                given = client.predict("inner", x=x)
                self.assertEqual(set(given), {"hidden/Relu", "scores"})
                np.testing.assert_allclose(given["hidden/Relu"], hidden, rtol=1e-4, atol=1e-6)
                again = client.predict("from_inside", **{"hidden/Relu": hidden})
                np.testing.assert_allclose(again["scores"], given["scores"], rtol=1e-4)
                top = client.predict("odd", **{"net.v1/In_put-0": np.float32([[1, 2, 3, 0, 0, 0]]),
                                               "rate": np.float32(10)})
                self.assertEqual({k: v.tolist() for k, v in top.items()},
                                 {"net.v1/top": [[30, 20]]})

    def test_old_graphs_load(self):
        """Placeholders without shapes, devices that are not there, attributes of later releases."""
        graph = freeze(lambda: [tf.nn.relu(tf1.placeholder(tf.float32, [], name="x"), name="y").op.name],
                       version=21)
        for node in graph.node:
            node.device = "/job:train/task:3/device:GPU:7"
            node.attr["of_a_later_release"].b = True
            node.attr["_class"].list.s.append(b"loc:@gone")
        self.write("old", graph)
        for engine in ENGINES:
            with self.subTest(engine), Server(*self.flags("old", f"--engine={engine}")) as server:
                given = self.connect(server).predict("old", x=np.float32([[1, -1]]))
                self.assertEqual(given["y"].tolist(), [[1, 0]])

    def test_normalisations_of_the_first_releases(self):
        """As the Inception of 2015 has them; TensorFlow runs them in graphs of that time alone."""
        random = np.random.default_rng(5)

        def build():
            x = tf1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
            net = tf.nn.conv2d(x, random.normal(size=[3, 3, 3, 5]).astype("f"), 1, "SAME", name="net")
            for name in ("mean", "variance", "beta", "gamma"):
                tf.constant(random.uniform(0.2, 2, 5).astype("f"), name=name)
            return [tf.nn.relu(net, name="y").op.name, "mean", "variance", "beta", "gamma"]
        for model, is_scaled in (("scaled", True), ("plain", False)):
            graph = freeze(build, version=8)
            relu = next(node for node in graph.node if node.name == "y")
            norm = graph.node.add(name="norm", op="BatchNormWithGlobalNormalization")
            norm.input.extend(["net", "mean", "variance", "beta", "gamma"])
            norm.attr["T"].type = tf.float32.as_datatype_enum
            norm.attr["variance_epsilon"].f = 0.001
            norm.attr["scale_after_normalization"].b = is_scaled
            relu.input[0] = "norm"
            x = random.normal(size=[2, 8, 8, 3]).astype("f")
            want = answers(graph, ["y"], {"x": x})["y"]
            self.write(model, graph, settings="[graph]\noutputs = ['y']\n")
            for engine in ENGINES:
                with self.subTest(engine, model=model), Server(*self.flags(model, f"--engine={engine}")) as server:
                    given = self.connect(server).predict(model, x=x)
                    np.testing.assert_allclose(given["y"], want, rtol=2e-4, atol=2e-5)

    def test_what_a_folders_names_say_is_remembered_apart(self):
        """A verdict on an engine is no verdict on other tensors of the same files."""
        self.write("m", freeze(slim_net))
        ends = ("InceptionV3/Predictions/Reshape_1", "InceptionV3/Predictions/Softmax")
        home = self.base / "home"
        home.mkdir()
        (home / "engines").symlink_to(HOME / "engines")
        for outputs in ends:
            (self.base / "m" / "vesta.toml").write_text(f"[graph]\noutputs = ['{outputs}']\n")
            with Server(*self.flags("m"), environment={"VESTA_HOME": str(home)}) as server:
                given = self.connect(server).predict("m", **CASES["slim"][1])
                self.assertEqual(list(given), [outputs])
        self.assertEqual(len(list((home / "choices").glob("*.json"))), 2)

    def test_a_savedmodel_comes_first(self):
        folder = self.write("m", freeze(dense))
        save(folder, lambda x: {"y": x + 1}, tf.TensorSpec([None], tf.float32, name="x"))
        with Server(*self.flags("m")) as server:
            self.assertEqual(self.connect(server).predict("m", x=np.float32([1]))["y"].tolist(), [2])

    def test_commands_take_them(self):
        folder = self.write("dense", freeze(dense))
        told = vesta("inspect", folder).stdout
        for line in (f"frozen graph ({FILE})", "signature serving_default", "scores", "MatMul"):
            self.assertIn(line, told)
        self.assertEqual(vesta("inspect", self.base / "dense").stdout, told)
        out = self.base / "dense.onnx"
        self.assertIn("wrote", vesta("convert", folder, out).stdout)
        self.assertGreater(out.stat().st_size, 100)
        done = subprocess.run(
            [BIN / "vesta", "tune", folder, "--json", "--batches=1", "--threads=1", "--time-ms=20"],
            capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        for engine in ("embedded", "onnxruntime", "tensorflow"):
            self.assertIn(f'"{engine}"', done.stdout)

    def test_bad_files_are_refused_with_what_to_do(self):
        folder = self.write("m", freeze(dense))
        file = folder / FILE
        whole = file.read_bytes()
        unfrozen = tf.Graph()
        with unfrozen.as_default():
            dense()
        unknown = graph_pb2.GraphDef.FromString(whole)
        next(n for n in unknown.node if n.op == "Relu").op = "MyRelu"
        cases = {
            b"": "is no frozen graph: the file is empty",
            b"node {\n  name: \"x\"\n}\n" * 20: "it is text; write the GraphDef in its binary form",
            b"\xff\x00garbage" * 9: "no GraphDef can be read from it",
            whole[:len(whole) // 2]: "is no frozen graph: ",
            unfrozen.as_graph_def().SerializeToString():
                "the graph is not frozen: the value of its variable `hidden/kernel`",
            unknown.SerializeToString(): "MyRelu",
        }
        for content, want in cases.items():
            with self.subTest(want):
                file.write_bytes(content)
                self.assertIn(want, self.refused("m", "--engine=embedded"))
        self.assertIn("has no operator MyRelu, which node `hidden/Relu` needs; give its library by",
                      self.refused("m"))
        file.write_bytes(whole)
        (folder / "other.pb").write_bytes(whole)
        self.assertIn(f"holds several graphs ({FILE}, other.pb); keep one of them, or name it in "
                      "vesta.toml: [graph] file =", self.refused("m"))
        (self.base / "m" / "vesta.toml").write_text(f"[graph]\nfile = '{FILE}'\n")
        with Server(*self.flags("m")) as server:
            self.assertIn("scores", self.connect(server).predict("m", x=np.float32([[1, 2, 3]])))
        for table, want in (
                ("inputs = ['y']", "[graph] inputs names `y`, which the graph does not have; it has x"),
                ("outputs = ['scors']", "`scors`, which the graph does not have; it has scores"),
                ("outputs = ['scores:3']", "`scores:3` is named, but operator Softmax gives 1"),
                ("inputs = ['scores']\noutputs = ['hidden/Relu']", "placeholder `x`"),
                ("input = ['x']", "unknown field `input`")):
            with self.subTest(table):
                (self.base / "m" / "vesta.toml").write_text(
                    f"[graph]\nfile = '{FILE}'\n{table}\n")
                self.assertIn(want, self.refused("m", "--engine=embedded"))


def build_outputs(graph):
    """Nodes that no other takes."""
    taken = {name.strip("^").split(":")[0] for node in graph.node for name in node.input}
    return [n.name for n in graph.node if n.name not in taken and n.op not in ("NoOp", "Const")]


if __name__ == "__main__":
    unittest.main()
