"""Shadow checks: a part of a version's runs is made again on the reference engine while another serves."""

import concurrent.futures
import json
import re
import subprocess
import unittest

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from models import save
from server import BIN, Server
from test_choice import METRICS, WithChoice
from test_program import ask, children_of, predict, wait_for

CELLS, STEPS = 24, 60


def reservoir(x):
    """A recurrent net without any damping: every step multiplies differences, so that engines which
    round in another way soon have nothing in common. Of nothing it makes nothing on each of them."""
    gains = np.random.default_rng(5).normal(0, 4 / np.sqrt(CELLS), [CELLS, CELLS])
    for _ in range(STEPS):
        x = tf.tanh(tf.matmul(x, tf.constant(gains, tf.float32)))
    return {"y": x}


class ShadowTest(WithChoice):
    def put_reservoir(self, model):
        """With a recorded request of nothing, on which all engines agree."""
        folder = self.base / model / "1"
        folder.parent.mkdir()
        save(folder, reservoir, tf.TensorSpec([None, CELLS], tf.float32, name="x"))
        request = predict_pb2.PredictRequest(model_spec={"name": model})
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.zeros([1, CELLS], np.float32)))
        log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
        path = folder / "assets.extra" / "tf_serving_warmup_requests"
        path.parent.mkdir()
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(log.SerializeToString())

    def checks(self, server, model="m"):
        _, page = ask(server, "GET", METRICS)
        counts = re.findall(rf'^vesta_shadow_checks_total\{{model_name="{model}",outcome="(\w+)",'
                            r'version="1"\} (\d+)$', page, re.M)
        return {outcome: int(count) for outcome, count in counts}

    def loaded(self, server, model="m"):
        _, text = ask(server, "GET", "/v1/models")
        mine, = [each for each in json.loads(text)["models"] if each["name"] == model]
        loaded, = mine["loaded_versions"]
        return loaded

    def test_a_difference_hands_the_version_to_the_reference(self):
        self.put_reservoir("m")
        self.put_reservoir("pinned")
        (self.base / "pinned" / "vesta.toml").write_text('engine = "tensorflow"\n')
        (self.base / "m" / "vesta.toml").write_text("shadow_check_rate = 1\n")
        x = np.random.default_rng(6).random([1, CELLS], np.float32)
        with Server(self.config(m=self.base / "m", pinned=self.base / "pinned"),
                    f"--monitoring_config_file={self.monitoring}",
                    environment={"VESTA_HOME": str(self.home)}, seconds=60) as server:
            first = self.loaded(server)
            self.assertNotEqual(first["engine"], "tensorflow")
            client = self.connect(server)
            # From several at once; none of them fails, whichever engine is asked meanwhile.
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                answers = list(pool.map(lambda _: client.predict("m", x=x)["y"], range(200)))
            want = client.predict("pinned", x=x)["y"]
            wait_for(lambda: self.loaded(server)["reason"] == "refuted")
            self.assertEqual(client.predict("m", x=x)["y"].tolist(), want.tolist())
            self.assertFalse(np.allclose(answers[0], want, atol=1e-2))

            now = self.loaded(server)
            self.assertEqual((now["engine"], now["isolation"]), ("tensorflow", "worker"))
            title = f"{first['engine']}=={first['engine_version']}"
            self.assertRegex(now["because"], rf"a shadow check refuted another: {re.escape(title)}, "
                                             r"signature serving_default: output \w+ differs by ")
            out, = [each for each in now["contenders"] if each["engine"] == first["engine"]]
            self.assertIn(f"it disagreed with tensorflow=={now['engine_version']} in a shadow check", out["out"])
            self.assertEqual(self.choice(server)[0]["reason"], "refuted")
            self.assertEqual(self.checks(server)["disagreed"], 1)
            said = [line for line in server.log().splitlines() if "a shadow check found other answers" in line]
            self.assertEqual(len(said), 1)
            # One worker each: what served before is closed.
            wait_for(lambda: len(children_of(server.process.pid)) == 2)
            table = subprocess.run([BIN / "vesta", "status", str(server.rest_port)],
                                   capture_output=True, text=True, timeout=60, check=True).stdout
            self.assertRegex(table, r"(?m)^m +1 +- +AVAILABLE +tensorflow \S+ +refuted +worker ")
            self.assertIn("m version 1 runs on tensorflow, since a shadow check refuted another: ", table)

        # It is remembered, without the flag, too.
        (self.base / "m" / "vesta.toml").unlink()
        with self.start() as server:
            again = self.loaded(server)
            self.assertNotEqual(again["engine"], first["engine"])
            out, = [each for each in again["contenders"] if each["engine"] == first["engine"]]
            self.assertIn("in a shadow check", out["out"])

    def test_answers_that_agree_change_nothing(self):
        self.put_graph()
        with self.start("--shadow_check_rate=1") as server:
            self.assertIn("answers are checked against the reference", server.log())
            self.assertEqual(self.checks(server)["disagreed"], 0)
            for value in range(5):
                self.assertEqual(predict(server, [value]), [3.0 * value])
            wait_for(lambda: self.checks(server)["agreed"] + self.checks(server)["dropped"] == 5)
            self.assertEqual([self.checks(server)[outcome] for outcome in ("disagreed", "failed")], [0, 0])
            found, _ = self.choice(server)
            self.assertEqual((found["engine"], found["reason"]), ("embedded", "quick"))
            # The reference beside it.
            self.assertEqual(len(children_of(server.process.pid)), 1)
            self.assertEqual(server.stop(), 0)

    def test_without_the_flag_there_are_none(self):
        self.put_graph()
        with self.start() as server:
            self.assertEqual(predict(server, [2.0]), [6.0])
            self.assertEqual((self.checks(server), children_of(server.process.pid)), ({}, []))

    def test_what_keeps_state_or_was_named_is_not_checked(self):
        class Counter(tf.Module):
            def __init__(self):
                self.count = tf.Variable(0.0)

            @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
            def add(self, x):
                return {"y": self.count.assign_add(tf.reduce_sum(x)) + 0.0 * x}

        module = Counter()
        tf.saved_model.save(module, str(self.base / "m" / "1"), signatures=module.add)
        self.put_graph("named")
        (self.base / "named" / "vesta.toml").write_text('engine = "embedded"\n')
        with Server(self.config(m=self.base / "m", named=self.base / "named"), "--shadow_check_rate=1",
                    f"--monitoring_config_file={self.monitoring}",
                    environment={"VESTA_HOME": str(self.home)}, seconds=60) as server:
            # Once for each request.
            self.assertEqual(predict(server, [1.0]), [1.0])
            self.assertEqual(predict(server, [1.0]), [2.0])
            self.assertEqual(predict(server, [1.0], model="named"), [3.0])
            self.assertEqual((self.checks(server), self.checks(server, "named")), ({}, {}))
            self.assertRegex(server.log(), r"no shadow checks are made: it keeps state")
            self.assertRegex(server.log(), r"no shadow checks are made: the engine was not chosen by measuring")

    def test_the_rate_is_a_part(self):
        self.put_graph()
        for rate in ("-0.1", "1.1", "nan"):
            with self.subTest(rate), \
                    Server(*self.flags("m", f"--shadow_check_rate={rate}"), wait=False) as server:
                self.assertEqual(server.process.wait(20), 255)
                self.assertIn("is no part of the runs; give a number from 0 (none) to 1 (all)",
                              server.process.stdout.read().decode())


if __name__ == "__main__":
    unittest.main()
