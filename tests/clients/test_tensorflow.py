"""What only TensorFlow runs, as a user meets it: tags, assets, deadlines, session options, graphs
that end its process, and a machine where it is not installed."""

import collections
import http.client
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
import time
import unittest

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

from models import Folders, add_graph, content, save, save_graph
from server import BIN, HOME, SHARED, Server, missing, need_shared, need_tensorflow
from test_program import ask, children_of, run, states, wait_for

ON_TENSORFLOW = "--engine=tensorflow"


def times(factor):
    """A TF1 graph: y = factor * x."""
    def build():
        x = tf.compat.v1.placeholder(tf.float32, [None], name="x")
        return {"x": x}, {"y": tf.multiply(x, float(factor), name="y")}
    return build


def looped():
    """A TF1 graph that counts to n, one by one."""
    n = tf.compat.v1.placeholder(tf.int64, [], name="n")
    count = tf.while_loop(lambda i: i < n, lambda i: i + 1, [tf.constant(0, tf.int64)],
                          parallel_iterations=1)
    return {"n": n}, {"count": count[0]}


def contradictory(folder):
    """A SavedModel whose one constant says float in its attribute and holds an integer: TensorFlow
    reads it, and ends its process at the first run."""
    def build():
        x = tf.compat.v1.placeholder(tf.float32, [None], name="x")
        return {"x": x}, {"y": tf.add(x, tf.constant([1.0], name="lie"), name="y")}

    save_graph(folder, build)
    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for node in model.meta_graphs[0].graph_def.node:
        if node.name == "lie":
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto([1], tf.int32))
            assert node.attr["dtype"].type == types_pb2.DT_FLOAT
    path.write_bytes(model.SerializeToString())


class OnTensorFlow(Folders):
    @classmethod
    def setUpClass(cls):
        need_tensorflow()

    def path(self, model, version=1):
        path = self.base / model / str(version)
        path.parent.mkdir(exist_ok=True)
        return path


class GraphTest(OnTensorFlow):
    def test_tags_choose_a_graph(self):
        folder = self.path("m")
        builder = tf.compat.v1.saved_model.Builder(str(folder))
        add_graph(builder, times(2), ["serve"])
        add_graph(builder, times(3), ["serve", "gpu"], first=False)
        add_graph(builder, times(5), ["nightly"], first=False)
        builder.save()
        for tags, factor in (("serve", 2), ("serve,gpu", 3), ("gpu,serve", 3), ("nightly", 5)):
            with self.subTest(tags), Server(
                    *self.flags("m", ON_TENSORFLOW, f"--saved_model_tags={tags}")) as server:
                y = self.connect(server).predict("m", x=np.array([7], np.float32))["y"]
                self.assertEqual(y.tolist(), [7 * factor])

    def test_assets_are_found_where_the_version_lies(self):
        written = self.base / "written"
        words = written / "words.txt"
        written.mkdir()
        words.write_text("ash\nbeech\nelm\n")

        def table():
            return tf.lookup.StaticVocabularyTable(tf.lookup.TextFileInitializer(
                str(words), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER), num_oov_buckets=1)

        module = tf.Module()
        module.table = table()
        module.serve = tf.function(lambda x: {"y": module.table.lookup(x)},
                                   input_signature=[tf.TensorSpec([None], tf.string, name="x")])
        tf.saved_model.save(module, str(written / "tf2"), signatures=module.serve)

        def with_table(argument):
            def build():
                x = tf.compat.v1.placeholder(tf.string, [None], name="x")
                y = table().lookup(x)
                return {"x": x}, {"y": y}, {
                    argument: tf.compat.v1.tables_initializer(),
                    "assets_collection": tf.compat.v1.get_collection(
                        tf.compat.v1.GraphKeys.ASSET_FILEPATHS)}
            return build

        # Both names that a TF1 model may give its init operator.
        save_graph(written / "tf1_legacy", with_table("legacy_init_op"))
        save_graph(written / "tf1_main", with_table("main_op"))
        names = ("tf2", "tf1_legacy", "tf1_main")
        for name in names:
            shutil.copytree(written / name, self.path(name))
        shutil.rmtree(written)
        with Server(self.config(**{name: self.base / name for name in names}),
                    ON_TENSORFLOW) as server:
            client = self.connect(server)
            for name in names:
                with self.subTest(name):
                    y = client.predict(name, x=np.array([b"elm", b"oak", b"ash"], object))["y"]
                    self.assertEqual(y.tolist(), [2, 3, 0])

    def test_interior_tensors_take_any_shape(self):
        def build():
            x = tf.compat.v1.placeholder(tf.float32, [None, 3], name="x")
            inner = tf.identity(x, name="inner")
            return {"x": inner}, {"y": tf.add(inner, 2.0, name="y")}
        save_graph(self.path("m"), build)
        with Server(*self.flags("m", ON_TENSORFLOW)) as server:
            client = self.connect(server)
            for shape in ([], [0], [2, 2], [1, 3], [2, 1, 2]):
                x = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
                y = client.predict("m", x=content(x))["y"]
                self.assertEqual(y.shape, tuple(shape))
                np.testing.assert_array_equal(y, x + 2)


class DeadlineTest(OnTensorFlow):
    ENDLESS = 10 ** 12

    def test_a_run_ends_with_its_call_and_the_worker_serves_on(self):
        save_graph(self.path("m"), looped)
        with Server(*self.flags("m", ON_TENSORFLOW, "--rest_api_timeout_in_ms=300")) as server:
            client = self.connect(server)
            self.assertEqual(client.predict("m", n=np.int64(1000))["count"], 1000)
            workers = children_of(server.process.pid)
            self.assertEqual(len(workers), 1)
            for _ in range(3):
                started = time.monotonic()
                with self.assertRaises(grpc.RpcError) as caught:
                    client.predict("m", timeout=0.3, n=np.int64(self.ENDLESS))
                self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
                self.assertLess(time.monotonic() - started, 1.5)
                started = time.monotonic()
                self.assertEqual(client.predict("m", n=np.int64(1000))["count"], 1000)
                self.assertLess(time.monotonic() - started, 1.5)
            started = time.monotonic()
            status, text = ask(server, "POST", "/v1/models/m:predict",
                               json.dumps({"inputs": {"n": self.ENDLESS}}))
            self.assertEqual(status, 504, text)
            self.assertLess(time.monotonic() - started, 1.5)
            status, text = ask(server, "POST", "/v1/models/m:predict", '{"inputs": {"n": 9}}')
            self.assertEqual((status, json.loads(text)), (200, {"outputs": 9}))
            self.assertEqual(children_of(server.process.pid), workers)


class SessionTest(OnTensorFlow):
    def threads(self, *flags):
        """How many threads of each name the worker has after a run of many operators."""
        with Server(*self.flags("m", ON_TENSORFLOW, *flags)) as server:
            client = self.connect(server)
            x = np.ones([256, 256], np.float32)
            client.predict("m", x=x)
            worker, = children_of(server.process.pid)
            names = collections.Counter()
            for task in pathlib.Path(f"/proc/{worker}/task").iterdir():
                try:
                    names[(task / "comm").read_text().strip()] += 1
                except OSError:
                    pass  # it has ended meanwhile
            return names

    def put(self):
        save(self.path("m"), lambda x: {"y": tf.matmul(x, x) + tf.sin(x)},
             tf.TensorSpec([None, None], tf.float32, name="x"))

    def test_threads_are_what_the_flags_or_the_file_say(self):
        self.put()
        file = self.base / "session.config"
        file.write_text("intra_op_parallelism_threads: 11 inter_op_parallelism_threads: 9")
        few = self.threads("--tensorflow_intra_op_parallelism=2",
                           "--tensorflow_inter_op_parallelism=3")
        for flags in (["--tensorflow_intra_op_parallelism=11",
                       "--tensorflow_inter_op_parallelism=9"],
                      # A file wins over the flags.
                      [f"--tensorflow_session_config_file={file}",
                       "--tensorflow_intra_op_parallelism=2"]):
            with self.subTest(flags):
                many = self.threads(*flags)
                # Nine more within operators and six more between them, whatever else there is.
                self.assertEqual(sum(many.values()) - sum(few.values()), 15, (few, many))

    def test_a_file_with_a_mistake_is_named(self):
        self.put()
        file = self.base / "session.config"
        file.write_text("intra_op_parallelism_threads: 2\nwarp_factor: 9\n")
        done = run("--port=0", f"--grpc_socket_path={self.base / 's'}",
                   *self.flags("m", ON_TENSORFLOW, f"--tensorflow_session_config_file={file}"))
        self.assertEqual(done.returncode, 255)
        self.assertIn(f"INVALID_ARGUMENT: Invalid protobuf file: '{file}'", done.stdout)
        self.assertIn("Error parsing text-format tensorflow.ConfigProto: 2:1: ", done.stderr)
        self.assertIn("warp_factor", done.stderr)


class AbortTest(OnTensorFlow):
    """A graph that ends TensorFlow's process at its first run harms its version alone."""

    def setUp(self):
        super().setUp()
        save_graph(self.path("near"), times(2))
        save_graph(self.path("m"), times(3))

    def calls(self, server, stop, missed, made):
        client = self.connect(server)
        x = np.array([4], np.float32)
        while not stop.is_set():
            try:
                if client.predict("near", timeout=10, x=x)["y"].tolist() != [8]:
                    missed.append("a wrong answer")
            except grpc.RpcError as problem:
                missed.append(problem.details())
            made.append(1)
            time.sleep(0.002)

    def test_a_new_version_and_a_new_model(self):
        with Server(self.config(near=self.base / "near", m=self.base / "m"), ON_TENSORFLOW,
                    "--max_num_load_retries=0") as server:
            client = self.connect(server)
            stop, missed, made = threading.Event(), [], []
            caller = threading.Thread(target=self.calls, args=(server, stop, missed, made))
            caller.start()
            self.addCleanup(caller.join)
            self.addCleanup(stop.set)
            # As version 2 of a model whose version 1 serves.
            contradictory(self.base / "bad")
            (self.base / "bad").rename(self.path("m", 2))
            self.assertTrue(wait_for(lambda: states(server, "m").get("2") == "END"),
                            states(server, "m"))
            self.assertEqual(states(server, "m"), {"2": "END", "1": "AVAILABLE"})
            y = client.predict("m", x=np.array([4], np.float32))["y"]
            self.assertEqual(y.tolist(), [12])
            _, text = ask(server, "GET", "/v1/models/m/versions/2")
            said = json.loads(text)["model_version_status"][0]["status"]
            self.assertEqual(said["error_code"], "UNAVAILABLE")
            self.assertIn("the worker process of model m version 2 ended (signal 6) while loading",
                          said["error_message"])
            # As a model of its own.
            contradictory(self.path("broken"))
            with self.assertRaises(grpc.RpcError) as caught:
                client.reload(near=self.base / "near", m=self.base / "m",
                              broken=self.base / "broken")
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNKNOWN)
            self.assertIn("the worker process of model broken version 1 ended (signal 6) while loading",
                          caught.exception.details())
            self.assertEqual(states(server, "broken"), {"1": "END"})
            self.assertIsNone(server.process.poll())
            stop.set()
            caller.join()
            self.assertEqual(missed, [])
            self.assertGreater(len(made), 50)


class AbsentTest(Folders):
    """A machine where TensorFlow is not installed."""

    COMMAND = "vesta engine install tensorflow"

    def fails(self, *flags):
        home = self.base / "home"
        home.mkdir(exist_ok=True)
        with Server(*self.flags("m", *flags), wait=False,
                    environment={"VESTA_HOME": str(home)}) as server:
            self.assertEqual(server.process.wait(30), 255)
            return server.process.stdout.read().decode()

    def test_asked_for_tensorflow(self):
        self.assertEqual(
            self.fails(ON_TENSORFLOW), "Failed to start server. Error: NOT_FOUND: engine tensorflow "
            f"is not installed; run `{self.COMMAND}`\n")

    def test_a_model_that_needs_it(self):
        save(self.base / "m" / "1",
             lambda x: {"y": tf.linalg.det(tf.reshape(x, [-1, 2, 2]))},
             tf.TensorSpec([None, 4], tf.float32, name="x"))
        text = self.fails("--engine=auto")
        self.assertIn("UNIMPLEMENTED: ", text)
        for word in ("MatrixDeterminant", "serving_default", self.COMMAND):
            self.assertIn(word, text)


class PlaceTest(OnTensorFlow):
    """Whose process opens the library, and what it needs of its surroundings."""

    def test_not_in_the_servers_process_unless_that_is_allowed(self):
        save_graph(self.path("m"), times(2))
        done = run("--port=0", f"--grpc_socket_path={self.base / 's'}",
                   *self.flags("m", ON_TENSORFLOW, "--isolation=inline"))
        self.assertEqual(done.returncode, 255)
        self.assertIn("FAILED_PRECONDITION: --isolation=inline would open tensorflow in the server's "
                      "own process", done.stdout)
        self.assertIn("--allow_native_inline", done.stdout)
        with Server(*self.flags("m", ON_TENSORFLOW, "--isolation=inline",
                                "--allow_native_inline")) as server:
            y = self.connect(server).predict("m", x=np.array([4], np.float32))["y"]
            self.assertEqual(y.tolist(), [8])
            self.assertEqual(children_of(server.process.pid), [])

    def test_as_nobody_without_a_home_in_a_folder_that_cannot_be_written(self):
        if os.geteuid() != 0:
            missing("only root can start a server as another user")
        save_graph(self.path("m"), times(2))
        # Where the program and the engine lie may be closed to others.
        place = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        shutil.copy(BIN / "tensorflow_model_server", place)
        home = place / "home"
        shutil.copytree(HOME / "engines" / "tensorflow", home / "engines" / "tensorflow",
                        copy_function=link_or_copy)
        here = place / "here"
        here.mkdir()
        for folder in (self.base, place, here):
            folder.chmod(0o755)
        with Server(*self.flags("m", ON_TENSORFLOW), folder=place, cwd=here, user=65534,
                    group=65534, extra_groups=[],
                    environment={"VESTA_HOME": str(home), "HOME": None, "XDG_DATA_HOME": None,
                                 "TMPDIR": None}) as server:
            worker, = children_of(server.process.pid)
            for pid in (server.process.pid, worker):
                self.assertEqual(os.stat(f"/proc/{pid}").st_uid, 65534)
            y = self.connect(server).predict("m", x=np.array([4], np.float32))["y"]
            self.assertEqual(y.tolist(), [8])
            self.assertEqual(list(here.iterdir()), [])
            self.assertEqual(server.stop(), 0)


def link_or_copy(source, target):
    source = os.path.realpath(source)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


if __name__ == "__main__":
    unittest.main()
