"""The container's entry script, run as it is; the recipe, held to the files that it names; and KServe's
TensorFlow runtime, started with its arguments and probed as KServe does."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import unittest

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

from server import BIN, ROOT, can_connect, free_port, need_shared, quiet_free
from test_program import MODEL, ask, predict, states, wait_for

DOCKER = ROOT / "docker"
SCRIPT = DOCKER / "tf_serving_entrypoint.sh"


class Started(unittest.TestCase):
    """Programs that are started by other words than the tests' own."""

    def setUp(self):
        need_shared("tfs-testdata")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.grpc_port, self.rest_port = free_port(), free_port()

    def start(self, words, **variables):
        self.log_path = self.folder / "log"
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        with open(self.log_path, "wb") as log:
            process = subprocess.Popen(list(map(str, words)), stdout=log, stderr=log,
                                       env={**quiet_free(), "PATH": path, **variables})
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def serves(self, process, model):
        self.assertTrue(wait_for(lambda: can_connect(self.rest_port)
                                 or process.poll() is not None), self.log_path.read_text())
        self.assertEqual(states(self, model), {"123": "AVAILABLE"}, self.log_path.read_text())
        self.assertEqual(predict(self, [2.0], model), [3.0])


class EntryTest(Started):
    def setUp(self):
        super().setUp()
        self.models = self.folder / "models"
        self.models.mkdir()

    def ports(self):
        # The last of two equal flags counts, so the script's own ports are left alone.
        return [f"--port={self.grpc_port}", f"--rest_api_port={self.rest_port}", "--drain_delay=0"]

    def test_the_model_of_the_variables_is_served(self):
        shutil.copytree(MODEL, self.models / "half plus two")
        process = self.start([SCRIPT, *self.ports()], MODEL_NAME="half plus two",
                             MODEL_BASE_PATH=str(self.models))
        self.assertTrue(wait_for(lambda: can_connect(self.rest_port)), self.log_path.read_text())
        self.assertEqual(predict(self, [2.0], "half%20plus%20two"), [3.0])
        self.assertTrue(can_connect(self.grpc_port))

    def test_signals_reach_the_server(self):
        shutil.copytree(MODEL, self.models / "m")
        process = self.start([SCRIPT, *self.ports()], MODEL_NAME="m",
                             MODEL_BASE_PATH=str(self.models))
        self.serves(process, "m")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0)
        self.assertIn("SIGTERM: no longer ready", self.log_path.read_text())

    def test_what_is_added_counts(self):
        config = self.folder / "models.config"
        config.write_text(f'model_config_list {{ config {{ name: "other" base_path: "{MODEL}" '
                          'model_platform: "tensorflow" } }')
        process = self.start([SCRIPT, f"--model_config_file={config}", *self.ports()])
        self.serves(process, "other")
        self.assertEqual(states(self, "model"), {})

    def test_without_variables_it_is_the_originals_model(self):
        program = self.folder / "bin"
        program.mkdir()
        fake = program / "tensorflow_model_server"
        fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        fake.chmod(0o755)
        said = subprocess.run(
            [SCRIPT, "--enable_batching", "two words"], capture_output=True, text=True, check=True,
            env={"PATH": f"{program}{os.pathsep}{os.environ['PATH']}"})
        self.assertEqual(said.stdout.splitlines(), [
            "--port=8500", "--rest_api_port=8501", "--model_name=model",
            "--model_base_path=/models/model", "--enable_batching", "two words"])

    def test_as_the_first_process_it_ends_with_its_container(self):
        probe = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
        if not shutil.which("unshare") or subprocess.run(probe, capture_output=True).returncode:
            self.skipTest("no PID namespace can be made here")
        shutil.copytree(MODEL, self.models / "m")
        outer = self.start(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", SCRIPT,
                            *self.ports()], MODEL_NAME="m", MODEL_BASE_PATH=str(self.models))
        self.serves(outer, "m")
        first = int(subprocess.run(["ps", "-o", "pid=", "--ppid", str(outer.pid)],
                                   capture_output=True, text=True, check=True).stdout)
        os.kill(first, signal.SIGTERM)
        self.assertEqual(outer.wait(20), 0)


class RecipeTest(unittest.TestCase):
    recipe = (DOCKER / "Dockerfile").read_text()

    def test_it_has_what_the_originals_image_has(self):
        for line in ("ENV MODEL_NAME=model", "ENV MODEL_BASE_PATH=/models", "EXPOSE 8500",
                     "EXPOSE 8501", 'ENTRYPOINT ["/usr/bin/tf_serving_entrypoint.sh"]',
                     "COPY docker/tf_serving_entrypoint.sh /usr/bin/tf_serving_entrypoint.sh"):
            self.assertIn(f"\n{line}\n", self.recipe)
        for program in ("tensorflow_model_server", "vesta"):
            self.assertIn(f"target/release/{program}", self.recipe)
        self.assertTrue(os.access(SCRIPT, os.X_OK))

    def test_what_it_copies_is_there_and_let_through(self):
        taken = [line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().split()
                 if line.startswith("!")]
        copied = [word for line in re.findall(r"^COPY (?!--from)(.*)$", self.recipe, re.MULTILINE)
                  for word in line.split()[:-1]]
        self.assertEqual(sorted(copied), sorted(taken))
        for path in copied:
            self.assertTrue((ROOT / path).exists(), path)
        # The whole of the workspace, without which nothing is built.
        members = re.search(r"^members = \[(.*?)\]", (ROOT / "Cargo.toml").read_text(),
                            re.MULTILINE | re.DOTALL).group(1)
        for member in re.findall(r'"([^"]+)"', members):
            self.assertIn(member.split("/")[0], copied)


class KserveTest(Started):
    # What KServe's TensorFlow runtime starts.
    ARGUMENTS = ["--model_name={{.Name}}", "--port=9000", "--rest_api_port=8080",
                 "--model_base_path=/mnt/models", "--rest_api_timeout_in_ms=60000"]

    def arguments(self, name, models):
        places = {"--port=9000": f"--port={self.grpc_port}",
                  "--rest_api_port=8080": f"--rest_api_port={self.rest_port}",
                  "--model_base_path=/mnt/models": f"--model_base_path={models}"}
        return [places.get(word, word).replace("{{.Name}}", name) for word in self.ARGUMENTS]

    def test_it_comes_up_and_goes_as_a_pod_does(self):
        models = self.folder / "mnt" / "models"
        models.mkdir(parents=True)
        process = self.start([BIN / "tensorflow_model_server", *self.arguments("flowers", models)])
        # The probe of a pod connects, and fails until the model is there.
        waits = "waiting for"
        self.assertTrue(wait_for(lambda: process.poll() is not None
                                 or "Could not find" in self.log_path.read_text()
                                 or waits in self.log_path.read_text(), 15),
                        self.log_path.read_text())
        self.assertFalse(can_connect(self.rest_port))
        shutil.copytree(MODEL / "00000123", self.folder / "incoming")
        (self.folder / "incoming").rename(models / "0001")
        self.assertTrue(wait_for(lambda: can_connect(self.rest_port)), self.log_path.read_text())
        self.assertTrue(can_connect(self.grpc_port))
        # Protocol V1: is the model ready, then ask it.
        status, text = ask(self, "GET", "/v1/models/flowers")
        self.assertEqual((status, json.loads(text)["model_version_status"][0]["state"]),
                         (200, "AVAILABLE"))
        status, text = ask(self, "POST", "/v1/models/flowers:predict", '{"instances": [2.0, 5.0]}')
        self.assertEqual((status, json.loads(text)), (200, {"predictions": [3.0, 4.5]}))
        self.assertEqual(ask(self, "GET", "/readyz")[0], 200)
        with grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}") as channel:
            request = get_model_status_pb2.GetModelStatusRequest()
            request.model_spec.name = "flowers"
            answer = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request)
            self.assertEqual(answer.model_version_status[0].version, 1)
        # The end of a pod: not ready first, then the end, with 0.
        process.send_signal(signal.SIGTERM)
        self.assertTrue(wait_for(lambda: ask(self, "GET", "/readyz")[0] == 503, 4))
        self.assertEqual(predict(self, [2.0], "flowers"), [3.0])
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0)

    def test_the_example_starts_it_so(self):
        runtime = (ROOT / "docs" / "kserve" / "runtime.yaml").read_text()
        arguments = re.search(r"\n +args:\n((?: +- .*\n)+)", runtime).group(1)
        self.assertEqual([line.strip()[2:] for line in arguments.splitlines()], self.ARGUMENTS)
        self.assertIn("- /usr/bin/tensorflow_model_server\n", runtime)
        (name,) = re.findall(r"kind: ClusterServingRuntime\nmetadata:\n  name: (\S+)\n", runtime)
        service = (ROOT / "docs" / "kserve" / "inference-service.yaml").read_text()
        self.assertIn(f"runtime: {name}\n", service)


if __name__ == "__main__":
    unittest.main()
