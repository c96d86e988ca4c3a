"""Workers that are killed while a neighbour is loaded: who loses what, and what the server says of it.

`WorkerFaultsTest` runs the embedded engine in workers; a class with other `FLAGS` and `VICTIM` runs
another engine.
"""

import json
import os
import re
import shutil
import signal
import time
import unittest

import grpc
from load import OpenLoop
from server import SHARED, Server, need_tensorflow
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from test_program import MODEL, WithModels, ask, states, wait_for

THREE = SHARED / "tfs-testdata" / "saved_model_half_plus_three"


def half_plus(number):
    def judge(answer):
        y = list(answer.outputs["y"].float_val)
        return None if y == [1.0 + number] else y
    return judge


def status_of(server, model):
    """State, code and text of the one version."""
    status, body = ask(server, "GET", f"/v1/models/{model}")
    if status != 200:
        raise AssertionError(f"{status}: {body}")
    shown = json.loads(body)["model_version_status"][0]
    return shown["state"], shown["status"]["error_code"], shown["status"]["error_message"]


def readiness(server):
    status, body = ask(server, "GET", "/readyz")
    told = json.loads(body)
    return status, {model["name"]: model["reason"] for model in told.get("models", [])}


class WorkerFaults:
    """What an engine in workers has to stand; mixed into a test case."""

    FLAGS = ("--isolation=worker",)
    #: Where the model that is killed lies (version 123 of it), and what it adds to half of x.
    VICTIM, ADDS = THREE, 3.0
    #: Kills of each kind.
    KILLS = 7
    RATE = 80

    def start(self, *more):
        """A server with the models `victim` and `neighbour`, both in workers."""
        for name, source in (("victim", self.VICTIM), ("neighbour", MODEL)):
            shutil.copytree(source / "00000123", self.base / name / "1")
            (self.base / name / "1").chmod(0o755)
        config = self.base / "models.config"
        entries = "".join(
            f"config {{ name: '{name}' base_path: '{self.base / name}' "
            "model_platform: 'tensorflow' }\n" for name in ("victim", "neighbour"))
        config.write_text(f"model_config_list {{ {entries} }}\n")
        return Server(f"--model_config_file={config}", "--max_num_load_retries=0", *self.FLAGS, *more)

    def pids(self, server, model="victim"):
        """The workers that served the model, in their order."""
        lines = re.findall(r"worker serves.*", server.log())
        found = [re.search(r"pid=(\d+)", line) for line in lines if f"model={model} " in line]
        return [int(match[1]) for match in found if match]

    def kill(self, server, number):
        """Kills the victim's worker; gives how many served before."""
        served = self.pids(server)
        os.kill(served[-1], number)
        return len(served)

    def is_back(self, server, served):
        return (len(self.pids(server)) > served
                and status_of(server, "victim")[0] == "AVAILABLE")

    def test_the_neighbour_loses_nothing_and_the_victim_little(self):
        with self.start() as server:
            load_seconds = server.ready_after
            signals = [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT] * self.KILLS
            back = []
            with OpenLoop(server, "neighbour", self.RATE, half_plus(2.0)) as neighbour, \
                    OpenLoop(server, "victim", self.RATE / 4, half_plus(self.ADDS)) as victim:
                for number in signals:
                    time.sleep(0.25)
                    since = time.monotonic()
                    served = self.kill(server, number)
                    self.assertTrue(wait_for(lambda: self.is_back(server, served), 60),
                                    status_of(server, "victim"))
                    back.append(time.monotonic() - since)
            print(f"\n{len(signals)} kills; {neighbour.summary('neighbour')}; "
                  f"{victim.summary('victim')}; back after {max(back):.2f} s at most, "
                  f"loaded in {load_seconds:.2f} s", flush=True)
            self.assertGreaterEqual(len(signals), 20)
            self.assertEqual((neighbour.failed, neighbour.wrong), ([], []))
            self.assertEqual(neighbour.done(), neighbour.sent)
            # Its signature is stateless: what was under way is sent again, what comes while there is
            # no worker is told so at once.
            self.assertEqual(victim.wrong, [])
            self.assertEqual({code for code, _ in victim.failed} - {"UNAVAILABLE"}, set())
            self.assertLess(max(back), load_seconds + 1)
            self.assertEqual(len(self.pids(server, "neighbour")), 1)
            self.assertEqual(readiness(server), (200, {}))

    def test_status_and_readiness_tell_the_truth_during_an_outage(self):
        with self.start() as server:
            self.assertEqual(readiness(server), (200, {}))
            graph = self.base / "victim" / "1" / "saved_model.pb"
            away = graph.with_name("away.pb")
            with OpenLoop(server, "neighbour", self.RATE, half_plus(2.0)) as neighbour:
                graph.rename(away)
                served = self.kill(server, signal.SIGKILL)
                self.assertTrue(wait_for(lambda: status_of(server, "victim")[0] == "LOADING"))
                state, code, text = status_of(server, "victim")
                self.assertEqual((state, code), ("LOADING", "UNAVAILABLE"))
                self.assertIn("it is being restarted", text)
                status, models = readiness(server)
                self.assertEqual((status, list(models)), (503, ["victim"]))
                self.assertIn("version 1 is being restarted: UNAVAILABLE", models["victim"])
                since = time.monotonic()
                code, body = ask(server, "POST", "/v1/models/victim:predict",
                                 json.dumps({"instances": [2.0]}))
                self.assertEqual(code, 503, body)
                self.assertLess(time.monotonic() - since, 1)
                away.rename(graph)
                self.assertTrue(wait_for(lambda: self.is_back(server, served)))
            self.assertEqual((neighbour.failed, neighbour.wrong), ([], []))
            self.assertEqual(readiness(server), (200, {}))
            self.assertEqual(states(server, "victim"), {"1": "AVAILABLE"})

    def test_a_crash_loop_ends_and_new_files_bring_the_version_back(self):
        with self.start() as server:
            graph = self.base / "victim" / "1" / "saved_model.pb"
            away = graph.with_name("away.pb")
            graph.rename(away)
            self.kill(server, signal.SIGABRT)
            # Ten tries, each later than the one before, take 52 s and their loads.
            self.assertTrue(wait_for(lambda: status_of(server, "victim")[0] == "END", 120),
                            status_of(server, "victim"))
            _, code, text = status_of(server, "victim")
            self.assertEqual(code, "UNAVAILABLE")
            self.assertIn("it is not restarted any more", text)
            status, models = readiness(server)
            self.assertEqual((status, list(models)), (503, ["victim"]))
            self.assertIn("version 1 failed", models["victim"])
            self.assertEqual(ask(server, "POST", "/v1/models/victim:predict",
                                 json.dumps({"instances": [2.0]}))[0], 404)
            self.assertEqual(ask(server, "POST", "/v1/models/neighbour:predict",
                                 json.dumps({"instances": [2.0]}))[0], 200)
            away.rename(graph)
            os.utime(graph)
            self.assertTrue(wait_for(lambda: status_of(server, "victim")[0] == "AVAILABLE", 30),
                            status_of(server, "victim"))
            self.assertEqual(readiness(server), (200, {}))


class WorkerFaultsTest(WorkerFaults, WithModels):
    pass


class TensorFlowFaultsTest(WorkerFaults, WithModels):
    FLAGS = ("--engine=tensorflow",)

    # It takes a minute and says nothing of the engine.
    test_a_crash_loop_ends_and_new_files_bring_the_version_back = None

    def setUp(self):
        need_tensorflow()
        super().setUp()

    def test_a_stateful_signature_never_counts_twice(self):
        """What a worker counted since it started is what was answered since, and no more."""
        shutil.copytree(SHARED / "tfs-testdata" / "saved_model_counter" / "00000123",
                        self.base / "1")
        (self.base / "1").chmod(0o755)
        with Server(*self.flags("--max_num_load_retries=0", *self.FLAGS)) as server:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(
                grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}"))
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = "m", "incr_counter"

            def count():
                answer = stub.Predict(request, timeout=30)
                return int(answer.outputs["output"].float_val[0])

            self.assertEqual([count(), count()], [1, 2])
            lost, restarts = 0, 0
            for number in [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT] * 2:
                under_way = [stub.Predict.future(request, timeout=30) for _ in range(20)]
                served = self.kill_of(server, number)
                for call in under_way:
                    if call.exception() is not None:
                        self.assertEqual(call.exception().code(), grpc.StatusCode.UNAVAILABLE)
                        lost += 1
                self.assertTrue(wait_for(
                    lambda: len(self.pids(server, "m")) > served
                    and status_of(server, "m")[0] == "AVAILABLE", 60))
                # Its state went with its worker, so the next one began at 0. What it counted since was
                # answered, each call once. (Concurrent counts may give the same number, since the
                # model adds without a lock; so it is how many that is held to it.)
                answered = sum(call.exception() is None for call in under_way)
                now = count()
                self.assertLessEqual(now, answered + 1)
                self.assertEqual(count(), now + 1)
                restarts += 1
            print(f"\n{restarts} restarts under 20 calls each, {lost} calls lost", flush=True)

    def kill_of(self, server, number):
        served = self.pids(server, "m")
        os.kill(served[-1], number)
        return len(served)


if __name__ == "__main__":
    unittest.main()
