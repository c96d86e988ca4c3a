"""The built program as a user starts it: flags, exit codes, logs, damaged models, signals."""

import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

from server import BIN, ROOT, SHARED, STRICT, Server, free_port, quiet_free

MODEL = SHARED / "tfs-testdata" / "saved_model_half_plus_two_cpu"
TF2 = SHARED / "tfs-testdata" / "saved_model_half_plus_two_tf2_cpu"


def run(*words, program="tensorflow_model_server", seconds=20):
    return subprocess.run([str(BIN / program), *words], capture_output=True, text=True,
                          timeout=seconds, env=quiet_free())


def ask(server, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=20)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf8", "replace")
    finally:
        connection.close()


def predict(server, values, model="m"):
    status, body = ask(server, "POST", f"/v1/models/{model}:predict", json.dumps({"instances": values}))
    if status != 200:
        raise AssertionError(f"{status}: {body}")
    return json.loads(body)["predictions"]


def states(server, model="m"):
    status, body = ask(server, "GET", f"/v1/models/{model}")
    if status != 200:
        return {}
    return {entry["version"]: entry["state"] for entry in json.loads(body)["model_version_status"]}


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def children_of(pid):
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue
            if int(text.rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(entry.name))
    return found


class WithModels(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not MODEL.is_dir():
            if STRICT:
                raise AssertionError(f"test models are missing: {MODEL}")
            raise unittest.SkipTest(f"test models are missing: {MODEL}")

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.base = pathlib.Path(folder.name) / "m"
        self.base.mkdir()

    def flags(self, *more):
        return ("--model_name=m", f"--model_base_path={self.base}", "--max_num_load_retries=0", *more)

    def put(self, version, source=MODEL):
        """Renames a complete version into its place."""
        hidden = self.base.parent / f"incoming-{version}"
        shutil.copytree(source / "00000123", hidden)
        hidden.chmod(0o755)
        hidden.rename(self.base / str(version))
        return self.base / str(version)


class FlagsTest(WithModels):
    def test_help_and_version(self):
        done = run("--help")
        self.assertEqual(done.returncode, 255)
        self.assertTrue(done.stdout.startswith("usage: tensorflow_model_server\nFlags:\n\t--port=8500"))
        done = run("--version")
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stdout, r"\ATensorFlow ModelServer: .+\nTensorFlow Library: .+\n\Z")

    def test_a_bad_value(self):
        done = run("--port=abc", "--model_base_path=/x")
        self.assertEqual(done.returncode, 255)
        self.assertIn("Couldn't interpret value abc for flag port.", done.stderr)
        self.assertTrue(done.stdout.startswith("usage: tensorflow_model_server"))

    def test_nothing_to_serve(self):
        done = run()
        self.assertEqual(done.returncode, 255)
        self.assertEqual(done.stdout, "Failed to start server. Error: INVALID_ARGUMENT: Both "
                         "server_options.model_base_path and server_options.model_config_file are empty!\n")

    def test_unknown_words_are_reported_and_passed_over(self):
        self.put(1)
        with Server(*self.flags("--no_such_flag=1")) as server:
            self.assertEqual(predict(server, [2.0]), [3.0])
            server.stop()
            out = server.process.stdout.read().decode()
        self.assertTrue(out.startswith("unknown argument: --no_such_flag=1\nusage:"), out[:80])

    def test_a_config_file_that_cannot_be_parsed(self):
        path = self.base.parent / "bad.config"
        path.write_text("improper model config\n")
        done = run(f"--model_config_file={path}")
        self.assertEqual(done.returncode, 255)
        self.assertIn("Error parsing text-format tensorflow.serving.ModelServerConfig: 1:", done.stderr)
        self.assertIn(f"INVALID_ARGUMENT: Invalid protobuf file: '{path}'", done.stdout)

    def test_a_missing_monitoring_file_stops_the_start(self):
        done = run(*self.flags("--monitoring_config_file=/nonexistent"))
        self.assertEqual(done.returncode, 255)
        self.assertIn("NOT_FOUND: /nonexistent; No such file or directory", done.stdout)

    def test_a_busy_grpc_port(self):
        self.put(1)
        with socket.socket(socket.AF_INET6) as held:
            held.bind(("::", 0))
            held.listen()
            done = run(f"--port={held.getsockname()[1]}", *self.flags())
        self.assertEqual(done.returncode, 255)
        self.assertEqual(done.stdout, "Failed to start server. Error: INVALID_ARGUMENT: "
                         "Failed to BuildAndStart gRPC server\n")


class LogTest(WithModels):
    def test_the_lines_that_people_search(self):
        self.put(1)
        with Server(*self.flags()) as server:
            predict(server, [1.0])
            log = server.log()
        for text in ("Successfully loaded servable version {name: m version: 1}",
                     f"Running gRPC ModelServer at 0.0.0.0:{server.grpc_port} ...",
                     f"Exporting HTTP/REST API at:localhost:{server.rest_port} ...",
                     "Entering the event loop ..."):
            self.assertIn(text, log)
        self.assertRegex(log, r"(?m)^I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ \S+\] ")

    def test_json(self):
        self.put(1)
        with Server(*self.flags("--log_format=json", "--isolation=worker")) as server:
            server.stop()
            lines = [json.loads(line) for line in server.log().splitlines()]
        self.assertTrue(any("Successfully loaded servable version" in line.get("message", "")
                            for line in lines), lines)

    def test_levels(self):
        self.put(1)
        with Server(*self.flags(), environment={"TF_CPP_MIN_LOG_LEVEL": "1"}) as server:
            log = server.log()
        self.assertNotIn("Successfully loaded", log)
        self.assertIn("Entering the event loop ...", log)


class MetricsTest(WithModels):
    def test_the_page(self):
        self.put(1)
        config = self.base.parent / "monitoring.config"
        config.write_text("prometheus_config { enable: true }")
        with Server(*self.flags(f"--monitoring_config_file={config}")) as server:
            predict(server, [1.0])
            ask(server, "POST", "/v1/models/m:predict", "{")
            status, page = ask(server, "GET", "/monitoring/prometheus/metrics")
        self.assertEqual(status, 200)
        self.assertIn("# TYPE :tensorflow:serving:request_count counter", page)
        self.assertIn(':tensorflow:serving:request_count{model_name="m",status="OK"} 1', page)
        self.assertIn(':tensorflow:serving:request_count{model_name="m",status="INVALID_ARGUMENT"} 1', page)
        self.assertRegex(page, r':tensorflow:serving:request_latency_count\{model_name="m",'
                               r'API="predict",entrypoint="REST"\} 1')

    def test_off_without_the_file(self):
        self.put(1)
        with Server(*self.flags()) as server:
            self.assertEqual(ask(server, "GET", "/monitoring/prometheus/metrics")[0], 404)


class DamagedModelTest(WithModels):
    def failed_start(self, *flags):
        done = run(f"--port={free_port()}", *self.flags(*flags))
        self.assertEqual(done.returncode, 255)
        head = ("Failed to start server. Error: UNKNOWN: 1 servable(s) did not become available: "
                "{{{name: m version: 1} due to error: ")
        self.assertTrue(done.stdout.startswith(head), done.stdout)
        self.assertTrue(done.stdout.endswith("}, }\n"), done.stdout)
        return done.stdout[len(head):-len("}, }\n")]

    def test_no_saved_model(self):
        (self.base / "1").mkdir()
        self.assertEqual(self.failed_start(),
                         "NOT_FOUND: Specified file path does not appear to contain a SavedModel "
                         "bundle (should have a file called `saved_model.pb`)\n"
                         f"Specified file path: {self.base / '1'}")

    def test_a_truncated_graph(self):
        folder = self.put(1)
        (folder / "saved_model.pb").write_bytes((MODEL / "00000123" / "saved_model.pb").read_bytes()[:5000])
        self.assertRegex(self.failed_start(), r"^(DATA_LOSS|INVALID_ARGUMENT): .*saved_model\.pb")

    def test_a_truncated_bundle(self):
        folder = self.put(1)
        data = folder / "variables" / "variables.data-00000-of-00001"
        data.chmod(0o644)
        data.write_bytes(b"")
        self.assertRegex(self.failed_start(), r"^DATA_LOSS: .*variables\.data-00000-of-00001")

    def test_a_flipped_bit_in_a_weight(self):
        folder = self.put(1)
        data = folder / "variables" / "variables.data-00000-of-00001"
        data.chmod(0o644)
        bytes_ = bytearray(data.read_bytes())
        bytes_[0] ^= 1
        data.write_bytes(bytes_)
        self.assertRegex(self.failed_start(), r"^DATA_LOSS: ")

    def test_an_untranslatable_graph_names_its_operators(self):
        import tensorflow as tf
        module = tf.Module()
        module.serve = tf.function(
            lambda x: {"y": tf.linalg.det(tf.reshape(x, [-1, 2, 2]))},
            input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
        tf.saved_model.save(module, str(self.base / "1"), signatures=module.serve)
        text = self.failed_start("--engine=embedded")
        self.assertTrue(text.startswith("UNIMPLEMENTED: "), text)
        for word in ("serving_default", "MatrixDeterminant", "TensorFlow"):
            self.assertIn(word, text)

    def test_a_stateful_model_is_refused(self):
        shutil.copytree(SHARED / "tfs-testdata" / "saved_model_counter" / "00000123", self.base / "1")
        text = self.failed_start("--engine=embedded")
        self.assertTrue(text.startswith("UNIMPLEMENTED: "), text)
        for word in ("get_counter", "it keeps state", "TensorFlow"):
            self.assertIn(word, text)


class VersionsTest(WithModels):
    def test_one_version_then_two(self):
        self.put(1)
        with Server(*self.flags()) as server:
            self.assertEqual(states(server), {"1": "AVAILABLE"})
            self.put(2, TF2)
            self.assertTrue(wait_for(lambda: states(server) == {"2": "AVAILABLE", "1": "END"}),
                            states(server))
            self.assertEqual(predict(server, [2.0]), [3.0])

    def test_a_broken_version_leaves_the_old_one_serving(self):
        self.put(1)
        with Server(*self.flags()) as server:
            (self.base / "2").mkdir()
            self.assertTrue(wait_for(lambda: states(server).get("2") == "END"), states(server))
            self.assertEqual(states(server)["1"], "AVAILABLE")
            self.assertEqual(predict(server, [2.0]), [3.0])

    def test_no_answer_is_lost_while_versions_change(self):
        self.put(1)
        with Server(*self.flags()) as server:
            answered = 0
            for version in (2, 3, 4):
                self.put(version)
                while states(server).get(str(version)) != "AVAILABLE":
                    self.assertEqual(predict(server, [2.0]), [3.0])
                    answered += 1
            self.assertGreater(answered, 3)


class WorkerTest(WithModels):
    def test_a_killed_worker_is_replaced(self):
        self.put(1)
        with Server(*self.flags("--isolation=worker")) as server:
            self.assertEqual(predict(server, [2.0]), [3.0])
            workers = children_of(server.process.pid)
            self.assertEqual(len(workers), 1)
            os.kill(workers[0], signal.SIGKILL)

            def answers():
                try:
                    return predict(server, [2.0]) == [3.0]
                except AssertionError as problem:
                    self.assertRegex(str(problem), "^503: ")
                    return False
            self.assertTrue(wait_for(answers))
            self.assertNotEqual(children_of(server.process.pid), workers)
            self.assertEqual(server.stop(), 0)
        for worker in workers:
            self.assertFalse(pathlib.Path(f"/proc/{worker}").exists())

    def test_workers_end_with_a_killed_server(self):
        self.put(1)
        with Server(*self.flags("--isolation=worker")) as server:
            workers = children_of(server.process.pid)
            server.stop(signal.SIGKILL)
            self.assertTrue(wait_for(
                lambda: not any(pathlib.Path(f"/proc/{pid}/exe").exists() for pid in workers)))

    def test_inline_leaves_no_worker(self):
        self.put(1)
        with Server(*self.flags()) as server:
            self.assertEqual(children_of(server.process.pid), [])


class BadInputTest(WithModels):
    def test_the_server_serves_on(self):
        self.put(1)
        with Server(*self.flags()) as server:
            deep = '{"instances": ' + "[" * 500_000 + "]" * 500_000 + "}"
            cases = [
                ("POST", "/v1/models/m:predict", "{", 400),
                ("POST", "/v1/models/m:predict", deep, 400),
                ("POST", "/v1/models/m:predict", b"\xff\xfe\x00", 400),
                ("POST", "/v1/models/m:predict", '{"instances": [1, [2]]}', 400),
                ("POST", "/v1/models/nope:predict", '{"instances": [1]}', 404),
                ("POST", "/v1/models/m/versions/9:predict", '{"instances": [1]}', 404),
                ("POST", "/v1/models/m:predict",
                 '{"instances": [1], "signature_name": "nope"}', 400),
                ("DELETE", "/v1/models/m", None, 400),
                ("GET", "/nothing", None, 404),
            ]
            for method, path, body, want in cases:
                with self.subTest(path=path, body=str(body)[:40]):
                    self.assertEqual(ask(server, method, path, body)[0], want)
            for garbage in (b"\x00" * 64, b"GET\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 99):
                for port in (server.rest_port, server.grpc_port):
                    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
                        raw.sendall(garbage)
            self.assertEqual(predict(server, [2.0]), [3.0])


class DemoTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.measured = pathlib.Path(folder.name) / "measured"
        self.ports = (free_port(), free_port())
        self.demo = subprocess.Popen(
            [sys.executable, str(pathlib.Path(__file__).with_name("peak.py")), str(self.measured),
             str(BIN / "vesta"), "demo", f"--port={self.ports[0]}", f"--rest_api_port={self.ports[1]}"],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.addCleanup(self.demo.stdout.close)
        self.addCleanup(self.demo.kill)

    def greeting(self):
        text = ""
        for line in self.demo.stdout:
            text += line
            if "Ctrl-C" in line:
                return text
        raise AssertionError(f"the demo ended and said {text!r}")

    def predictions_of(self, command):
        """What the printed command gets, without a curl that a machine may lack."""
        words = command.split()
        body = (ROOT / words[2].removeprefix("@")).read_text()
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[1], timeout=20)
        self.addCleanup(connection.close)
        connection.request("POST", words[3].split(f":{self.ports[1]}", 1)[1], body)
        return json.loads(connection.getresponse().read())["predictions"]

    def test_the_printed_command_shows_the_label(self):
        text = self.greeting()
        after = int(re.search(r"AVAILABLE (\d+) ms after start", text).group(1))
        self.assertLess(after, 1000)
        command = next(line.strip() for line in text.splitlines() if line.strip().startswith("curl "))
        answer, = self.predictions_of(command)
        want = json.loads((ROOT / "demo" / "expected.json").read_text())
        self.assertEqual(answer["label"], "cat")
        for got, expected in zip(answer["scores"], want["scores"], strict=True):
            self.assertAlmostEqual(got, expected, delta=1e-4)
        os.kill(int(self.measured.read_text().split()[0]), signal.SIGINT)
        self.assertEqual(self.demo.wait(30), 0)
        # Twice the larger of the server and its throw-away worker is more than both took.
        self.assertLess(2 * int(self.measured.read_text().split()[1]), 60_000, "kilobytes")


if __name__ == "__main__":
    unittest.main()
