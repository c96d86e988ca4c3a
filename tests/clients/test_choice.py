"""Which engine serves a model: measured, remembered, too quick to matter, named by the model's own file."""

import json
import re
import unittest

import numpy as np
import tensorflow as tf

from models import Folders, save, save_graph
from server import HOME, Server, need_tensorflow
from test_program import ask, children_of, predict

METRICS = "/monitoring/prometheus/metrics"
SIZE = 96


def network(seed, layers=8, channels=32):
    """A convolutional net that takes some milliseconds on each engine."""
    random = np.random.default_rng(seed)
    kernels = [tf.constant(random.normal(0, 0.1, [3, 3, channels if i else 3, channels]), tf.float32)
               for i in range(layers)]

    def call(image):
        for kernel in kernels:
            image = tf.nn.relu(tf.nn.conv2d(image, kernel, 1, "SAME"))
        return {"y": tf.reduce_mean(image, [1, 2])}

    return call


class WithChoice(Folders):
    """Each test has a home of its own, so that nothing is remembered from elsewhere; the engines in it
    are those of the machine."""

    @classmethod
    def setUpClass(cls):
        need_tensorflow()

    def setUp(self):
        super().setUp()
        self.home = self.base / "home"
        self.home.mkdir()
        (self.home / "engines").symlink_to(HOME / "engines")
        self.monitoring = self.base / "monitoring.config"
        self.monitoring.write_text("prometheus_config { enable: true }")

    def put_network(self, model="m", seed=1):
        folder = self.base / model / "1"
        folder.parent.mkdir(exist_ok=True)
        call = network(seed)
        save(folder, call, tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32, name="image"))
        return call

    def put_graph(self, model="m"):
        """As small as a model can be."""
        def build():
            x = tf.compat.v1.placeholder(tf.float32, [None], name="x")
            return {"x": x}, {"y": tf.multiply(x, 3.0, name="y")}

        folder = self.base / model / "1"
        folder.parent.mkdir(exist_ok=True)
        save_graph(folder, build)

    def start(self, *flags, model="m"):
        return Server(*self.flags(model, f"--monitoring_config_file={self.monitoring}", *flags),
                      environment={"VESTA_HOME": str(self.home)}, seconds=60)

    def choice(self, server, model="m"):
        """The labels of the model's one series, and the seconds that trials took."""
        _, page = ask(server, "GET", METRICS)
        found = re.findall(r'^vesta_engine_choice_info\{(.*)\} 1$', page, re.M)
        labels = [dict(re.findall(r'(\w+)="([^"]*)"', text)) for text in found]
        mine, = [label for label in labels if label["model_name"] == model]
        seconds, = re.findall(
            rf'^vesta_engine_trial_seconds\{{model_name="{model}",version="1"\}} (\S+)$', page, re.M)
        return mine, float(seconds)


class ChoiceTest(WithChoice):
    def verdicts(self):
        return sorted((self.home / "choices").glob("*.json"))

    def check(self, server, call):
        image = np.random.default_rng(7).random([2, SIZE, SIZE, 3], np.float32)
        y = self.connect(server).predict("m", image=image)["y"]
        np.testing.assert_allclose(y, call(tf.constant(image))["y"], rtol=1e-4, atol=1e-5)

    def check_listed(self, server, choice):
        """The list of models says what the metrics page says, with the figures behind it."""
        _, text = ask(server, "GET", "/v1/models")
        loaded, = json.loads(text)["models"][0]["loaded_versions"]
        self.assertEqual([loaded[key] for key in ("version", "engine", "engine_version", "reason")],
                         [choice[key] for key in ("version", "engine", "engine_version", "reason")])
        by_name = {entry["engine"]: entry for entry in loaded["contenders"]}
        self.assertTrue(by_name["tensorflow"]["reference"])
        self.assertGreater(by_name[choice["engine"]]["cpu_ms"], 0)
        self.assertLess(by_name[choice["engine"]]["max_error"], 1e-4)
        self.assertEqual((loaded["threads"], "worker" in loaded), (1, loaded["isolation"] == "worker"))

    def test_measured_then_remembered_until_the_files_change(self):
        call = self.put_network()
        with self.start() as server:
            first, seconds = self.choice(server)
            self.assertEqual(first["reason"], "measured")
            self.assertIn(first["engine"], ("embedded", "tensorflow", "onnxruntime", "openvino"))
            self.assertGreater(seconds, 0)
            self.check(server, call)
            self.check_listed(server, first)
            # Whoever lost has been closed.
            self.assertEqual(len(children_of(server.process.pid)), int(first["engine"] != "embedded"))
            said, = [line for line in server.log().splitlines() if "engines were measured" in line]
            self.assertRegex(said, r"tensorflow==[\d.]+ [\d.]+ ms \(reference\)")
            self.assertRegex(said, r"embedded==[\d.]+ [\d.]+ ms \(error [\d.e-]+\)")
        verdict, = self.verdicts()
        told = json.loads(verdict.read_text())
        self.assertEqual((told["engine"], told["model"]), (first["engine"], "m"))
        errors = [entry["error"] for entry in told["engines"] if "error" in entry]
        self.assertLess(max(errors), 1e-4)

        with self.start() as server:
            again, seconds = self.choice(server)
            self.assertEqual(again, {**first, "reason": "remembered"})
            self.assertEqual(seconds, 0)
            self.assertNotIn("engines were measured", server.log())
            self.check(server, call)
            self.check_listed(server, again)
            if first["engine"] == "embedded":
                # Nothing of TensorFlow was started.
                self.assertNotIn("engine=tensorflow", server.log())

        # Other weights, under the same names.
        (self.base / "m" / "1").rename(self.base / "before")
        call = self.put_network(seed=2)
        with self.start() as server:
            self.assertEqual(self.choice(server)[0]["reason"], "measured")
            self.check(server, call)

    def test_what_is_quick_anyhow_needs_no_contest(self):
        self.put_graph()
        with self.start() as server:
            found, _ = self.choice(server)
            self.assertEqual((found["engine"], found["reason"]), ("embedded", "quick"))
            self.assertEqual(predict(server, [2.0]), [6.0])
            self.assertNotIn("tensorflow", "".join(
                line for line in server.log().splitlines() if "loaded" in line))
        self.assertEqual(self.verdicts(), [])

    def test_without_a_budget_nothing_is_measured(self):
        call = self.put_network()
        with self.start("--engine_choice_budget_ms=0") as server:
            found, seconds = self.choice(server)
            self.assertEqual((found["engine"], found["reason"]), ("embedded", "unmeasured"))
            self.assertEqual(seconds, 0)
            self.check(server, call)
        self.assertEqual(self.verdicts(), [])

    def test_the_budget_is_a_number_of_milliseconds(self):
        self.put_graph()
        with Server(*self.flags("m", "--engine_choice_budget_ms=-1"), wait=False) as server:
            self.assertEqual(server.process.wait(20), 255)
            self.assertIn("--engine_choice_budget_ms=-1 must be 0 or a positive number of milliseconds",
                          server.process.stdout.read().decode())

    def test_a_place_that_cannot_be_written_is_a_warning(self):
        (self.home / "choices").write_text("not a folder")
        call = self.put_network()
        with self.start() as server:
            self.assertEqual(self.choice(server)[0]["reason"], "measured")
            self.assertIn("which engine serves best cannot be remembered in", server.log())
            self.check(server, call)

    def test_a_models_own_file_goes_before_all(self):
        self.put_graph()
        (self.base / "m" / "vesta.toml").write_text('engine = "tensorflow"\n')
        with self.start() as server:
            found, _ = self.choice(server)
            self.assertEqual((found["engine"], found["reason"]), ("tensorflow", "named"))
            self.assertEqual(predict(server, [2.0]), [6.0])
        # The version's own, and before the server's flag, too.
        (self.base / "m" / "1" / "vesta.toml").write_text('engine = "embedded"\n')
        with self.start("--engine=tensorflow") as server:
            found, _ = self.choice(server)
            self.assertEqual((found["engine"], found["reason"]), ("embedded", "named"))
            self.assertEqual(predict(server, [2.0]), [6.0])
            self.assertEqual(children_of(server.process.pid), [])

    def test_mistakes_in_a_models_own_file_are_told(self):
        self.put_graph()
        own = self.base / "m" / "1" / "vesta.toml"
        for text, said in (
                ('engin = "tensorflow"\n', f"{own}:1:1: unknown field `engin`, expected one of `engine`, "
                 "`shadow_check_rate`, `graph`"),
                ('\nengine = "torch"\n', f"{own}:2:10: engine = torch: expected auto, embedded, tensorflow"),
                ('engine = "tensorflow==0.0.1"\n',
                 'vesta.toml says engine = "tensorflow==0.0.1", but engine tensorflow==0.0.1 is not '
                 "installed; run `vesta engine install tensorflow==0.0.1`")):
            own.write_text(text)
            with self.subTest(text), Server(*self.flags("m"), wait=False) as server:
                self.assertEqual(server.process.wait(20), 255)
                self.assertIn(said, server.process.stdout.read().decode())

    def test_a_version_that_one_engine_runs_is_not_measured(self):
        (self.home / "engines").unlink()
        (self.home / "engines").mkdir()
        (self.home / "engines" / "tensorflow").symlink_to(HOME / "engines" / "tensorflow")
        folder = self.base / "m" / "1"
        folder.parent.mkdir()
        save(folder, lambda x: {"y": tf.linalg.det(tf.reshape(x, [-1, 2, 2]))},
             tf.TensorSpec([None, 4], tf.float32, name="x"))
        with self.start() as server:
            found, seconds = self.choice(server)
            self.assertEqual((found["engine"], found["reason"], seconds), ("tensorflow", "only", 0))
            self.assertEqual(predict(server, [[2.0, 0, 0, 3.0]]), [6.0])


if __name__ == "__main__":
    unittest.main()
