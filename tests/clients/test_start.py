"""The start of the built program: flags, configuration files, ports, sockets."""

import http.client
import os
import pathlib
import shutil
import signal
import socket
import stat
import time
import unittest

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

from server import Server, can_connect, free_port
from test_program import WithModels, ask, predict, run, states, wait_for

# Flags of the original that are known here, with its defaults.
DEFAULTS = {
    "port": "8500",
    "grpc_socket_path": '""',
    "rest_api_port": "0",
    "rest_api_timeout_in_ms": "30000",
    "rest_api_enable_cors_support": "false",
    "allow_version_labels_for_unavailable_models": "false",
    "model_config_file": '""',
    "model_name": '"default"',
    "model_base_path": '""',
    "num_load_threads": "0",
    "max_num_load_retries": "5",
    "load_retry_interval_micros": "60000000",
    "model_config_file_poll_wait_seconds": "0",
    "file_system_poll_wait_seconds": "1",
    "saved_model_tags": '"serve"',
    "monitoring_config_file": '""',
    "enable_grpc_healthcheck_service": "false",
    "num_unload_threads": "0",
    "grpc_max_threads": str(4 * len(os.sched_getaffinity(0))),
    "rest_api_num_threads": str(4 * len(os.sched_getaffinity(0))),
    "enable_serialization_as_tensor_content": "false",
    "enable_signature_method_name_check": "false",
    "flush_filesystem_caches": "true",
    "platform_config_file": '""',
    "per_process_gpu_memory_fraction": "0",
    "mixed_precision": '""',
    "xla_cpu_compilation_enabled": "false",
    "xla_gpu_compilation_enabled": "false",
    "thread_pool_factory_config_file": '""',
    "remove_unused_fields_from_bundle_metagraph": "true",
    "skip_initialize_tpu": "false",
    "enable_model_warmup": "true",
    "num_request_iterations_for_warmup": "0",
    "tensorflow_session_parallelism": "0",
    "tensorflow_intra_op_parallelism": "0",
    "tensorflow_inter_op_parallelism": "0",
    "tensorflow_session_config_file": '""',
    "version": "false",
}


def state_over_grpc(target, model="m"):
    """The state of the newest version, as the unmodified client reads it."""
    with grpc.insecure_channel(target) as channel:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        answer = stub.GetModelStatus(request, timeout=5, wait_for_ready=True)
        entry = answer.model_version_status[0]
        return get_model_status_pb2.ModelVersionStatus.State.Name(entry.state)


class ConfigTest(WithModels):
    def config(self, text):
        path = self.base.parent / "models.config"
        path.write_text(text)
        return path

    def entry(self, name, more=""):
        return (f'model_config_list {{ config {{ name: "{name}" base_path: "{self.base}" '
                f'model_platform: "tensorflow" {more} }} }}')

    def test_defaults_are_the_originals(self):
        usage = run("--help").stdout
        found = dict(line.split("\t")[1].strip().removeprefix("--").split("=", 1)
                     for line in usage.splitlines() if line.startswith("\t--"))
        self.assertGreater(len(found), len(DEFAULTS))
        for name, default in DEFAULTS.items():
            self.assertEqual(found.get(name), default, name)

    def test_the_file_wins_over_the_single_model(self):
        self.put(1)
        path = self.config(self.entry("listed"))
        with Server(f"--model_config_file={path}", "--model_name=single",
                    "--model_base_path=/nonexistent") as server:
            self.assertEqual(states(server, "listed"), {"1": "AVAILABLE"})
            self.assertEqual(ask(server, "GET", "/v1/models/single")[0], 404)

    def test_the_file_may_have_a_relative_path(self):
        self.put(1)
        path = self.config(self.entry("m"))
        up = "../" * (len(pathlib.Path.cwd().parts) - 1)
        with Server(f"--model_config_file={up}{path.relative_to('/')}") as server:
            self.assertEqual(states(server), {"1": "AVAILABLE"})

    def test_an_empty_list_starts_and_serves(self):
        for text in ("model_config_list {}", "# nothing yet\n"):
            path = self.config(text)
            with Server(f"--model_config_file={path}") as server:
                self.assertEqual(ask(server, "GET", "/v1/models/m"), (
                    404, '{\n    "error": "Could not find any versions of model m"\n}'))
                self.assertIn("Running gRPC ModelServer at", server.log())
                self.assertEqual(server.stop(), 0)

    def test_labels_in_the_first_configuration_end_the_start(self):
        self.put(123)
        path = self.config(self.entry("m", 'version_labels { key: "stable" value: 123 }'))
        done = run(f"--port={free_port()}", f"--model_config_file={path}")
        self.assertEqual(done.returncode, 255)
        self.assertEqual(
            done.stdout, "Failed to start server. Error: FAILED_PRECONDITION: Request to assign "
            "label to version 123 of model m, which is not currently available for inference\n")

    def test_labels_in_the_first_configuration_with_the_flag(self):
        self.put(123)
        path = self.config(self.entry("m", 'version_labels { key: "stable" value: 123 }'))
        with Server(f"--model_config_file={path}",
                    "--allow_version_labels_for_unavailable_models=true") as server:
            status, text = ask(server, "POST", "/v1/models/m/labels/stable:predict",
                               '{"instances": [2.0]}')
            self.assertEqual((status, text), (200, '{\n    "predictions": [3.0\n    ]\n}'))


class WaitingTest(WithModels):
    """Which models the open ports wait for."""

    def setUp(self):
        super().setUp()
        self.put(1)
        self.other = self.base.parent / "other"

    def two(self, *more):
        path = self.base.parent / "models.config"
        path.write_text("model_config_list {" + "".join(
            f'config {{ name: "{name}" base_path: "{base}" model_platform: "tensorflow" }}'
            for name, base in (("m", self.base), ("other", self.other))) + "}")
        return (f"--model_config_file={path}", *more)

    def assert_closed(self, server):
        self.assertIsNone(server.process.poll())
        self.assertFalse(can_connect(server.rest_port) or can_connect(server.grpc_port))

    def test_a_failed_model_does_not_keep_the_others_closed(self):
        (self.other / "1").mkdir(parents=True)
        with Server(*self.two("--max_num_load_retries=0")) as server:
            self.assertLess(server.ready_after, 9)
            self.assertEqual(states(server, "other"), {"1": "END"})
            self.assertEqual(predict(server, [2.0]), [3.0])
            self.assertIn("opening the ports without some of the models: other (version 1 failed: "
                          "NOT_FOUND: Specified file path", server.log())

    def test_a_missing_model_is_waited_for_a_while(self):
        with Server(*self.two("--startup_wait=1500ms")) as server:
            self.assertGreater(server.ready_after, 1.4)
            self.assertIn("the ports are closed until a model serves; waiting for: other (no "
                          "version under its base path)", server.log())
            self.assertEqual(predict(server, [2.0]), [3.0])
            shutil.copytree(self.base, self.other)
            self.assertTrue(wait_for(lambda: states(server, "other") == {"1": "AVAILABLE"}))

    def test_a_model_that_is_tried_again_is_waited_for_a_while(self):
        (self.other / "1").mkdir(parents=True)
        with Server(*self.two("--startup_wait=1.5")) as server:
            self.assertGreater(server.ready_after, 1.4)
            self.assertEqual(states(server, "other"), {"1": "LOADING"})
            status, text = ask(server, "GET", "/v1/models/other")
            self.assertNotIn("NOT_FOUND", text)
            self.assertEqual(predict(server, [2.0]), [3.0])

    def test_ports_stay_closed_while_nothing_serves(self):
        shutil.rmtree(self.base / "1")
        (self.other / "1").mkdir(parents=True)
        with Server(*self.two("--startup_wait=0.2", "--max_num_load_retries=0"),
                    wait=False) as server:
            text = "waiting for: m (no version under its base path), other (version 1 failed: "
            self.assertTrue(wait_for(lambda: text in server.log()), server.log())
            self.assert_closed(server)
            self.put(1)
            server.wait_ready()
            self.assertEqual(predict(server, [2.0]), [3.0])

    def test_a_start_of_which_all_models_failed(self):
        (self.other / "1").mkdir(parents=True)
        (self.base / "1" / "saved_model.pb").unlink()
        done = run(f"--port={free_port()}", *self.two("--max_num_load_retries=0"))
        self.assertEqual(done.returncode, 255)
        errors = "".join(
            f"{{{{name: {name} version: 1}} due to error: NOT_FOUND: Specified file path does not "
            "appear to contain a SavedModel bundle (should have a file called `saved_model.pb`)\n"
            f"Specified file path: {base / '1'}}}, "
            for name, base in (("m", self.base), ("other", self.other)))
        self.assertEqual(done.stdout, "Failed to start server. Error: UNKNOWN: 2 servable(s) did "
                         f"not become available: {{{errors}}}\n")

    def test_a_strict_start_fails_with_any_model(self):
        (self.other / "1").mkdir(parents=True)
        done = run(f"--port={free_port()}",
                   *self.two("--max_num_load_retries=0", "--strict_startup"))
        self.assertEqual(done.returncode, 255)
        self.assertTrue(done.stdout.startswith(
            "Failed to start server. Error: UNKNOWN: 1 servable(s) did not become available: "
            "{{{name: other version: 1} due to error: "), done.stdout)

    def test_a_strict_start_waits_without_end(self):
        with Server(*self.two("--startup_wait=0.1", "--strict_startup"), wait=False) as server:
            text = "Successfully loaded servable version {name: m version: 1}"
            self.assertTrue(wait_for(lambda: text in server.log()), server.log())
            time.sleep(1)
            self.assert_closed(server)
            shutil.copytree(self.base, self.other)
            server.wait_ready()


class PortsTest(WithModels):
    def test_a_busy_rest_port_leaves_grpc(self):
        self.put(1)
        with socket.socket(socket.AF_INET6) as held:
            held.bind(("::", 0))
            held.listen()
            port = held.getsockname()[1]
            with Server(*self.flags(f"--rest_api_port={port}"), wait=False) as server:
                text = f"Failed to start HTTP Server at localhost:{port}"
                self.assertTrue(wait_for(lambda: text in server.log()), server.log())
                self.assertEqual(state_over_grpc(f"127.0.0.1:{server.grpc_port}"), "AVAILABLE")
                self.assertNotIn("Exporting HTTP/REST API", server.log())
                self.assertEqual(server.stop(), 0)

    def test_one_port_for_both_leaves_grpc(self):
        self.put(1)
        port = free_port()
        with Server(*self.flags(f"--port={port}", f"--rest_api_port={port}"), wait=False) as server:
            text = ("server_options.http_port cannot be same as grpc_port. Please use a different "
                    "port for HTTP/REST API. Skipped exporting HTTP/REST API.")
            self.assertTrue(wait_for(lambda: text in server.log(), 5), server.log())
            self.assertEqual(state_over_grpc(f"127.0.0.1:{port}"), "AVAILABLE")

    def test_both_ports_answer_over_ipv6(self):
        self.put(1)
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
        except OSError:
            self.skipTest("this machine has no ::1")
        with Server(*self.flags()) as server:
            connection = http.client.HTTPConnection("::1", server.rest_port, timeout=5)
            connection.request("POST", "/v1/models/m:predict", '{"instances": [2.0]}')
            answer = connection.getresponse()
            self.assertEqual((answer.status, answer.read()),
                             (200, b'{\n    "predictions": [3.0\n    ]\n}'))
            connection.close()
            self.assertEqual(state_over_grpc(f"[::1]:{server.grpc_port}"), "AVAILABLE")

    def test_ports_open_only_after_loading(self):
        with Server(*self.flags(), wait=False) as server:
            text = f"No versions of servable m found under base path {self.base}"
            self.assertTrue(wait_for(lambda: text in server.log()), server.log())
            self.assertFalse(can_connect(server.rest_port) or can_connect(server.grpc_port))
            self.assertNotIn("Running gRPC ModelServer", server.log())
            self.put(1)
            server.wait_ready()
            self.assertEqual(predict(server, [2.0]), [3.0])
            loaded, opened, exported = (server.log().index(text) for text in (
                "Successfully loaded servable version {name: m version: 1}",
                "Running gRPC ModelServer at 0.0.0.0", "Exporting HTTP/REST API"))
            self.assertTrue(loaded < opened < exported)

    def test_a_slow_load_keeps_the_ports_closed(self):
        self.put(1)
        (self.base / "1" / "saved_model.pb").rename(self.base.parent / "kept.pb")
        with Server(*self.flags("--max_num_load_retries=9",
                                "--load_retry_interval_micros=200000"), wait=False) as server:
            text = "Specified file path does not appear to contain a SavedModel bundle"
            self.assertTrue(wait_for(lambda: text in server.log()), server.log())
            time.sleep(0.5)
            self.assertFalse(can_connect(server.rest_port) or can_connect(server.grpc_port))
            self.assertIsNone(server.process.poll())
            (self.base.parent / "kept.pb").rename(self.base / "1" / "saved_model.pb")
            server.wait_ready()
            self.assertEqual(predict(server, [2.0]), [3.0])


class SocketTest(WithModels):
    def test_the_file_is_left_behind_and_replaced(self):
        self.put(1)
        path = self.base.parent / "grpc.sock"
        flags = self.flags("--port=0", f"--grpc_socket_path={path}")
        for with_signal in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
            with Server(*flags) as server:
                self.assertEqual(state_over_grpc(f"unix:{path}"), "AVAILABLE")
                self.assertIn(f"Running gRPC ModelServer at UNIX socket {path} ...", server.log())
                server.stop(with_signal)
            self.assertTrue(stat.S_ISSOCK(path.stat().st_mode))

    def test_a_live_socket_is_taken_over(self):
        self.put(1)
        path = self.base.parent / "grpc.sock"
        flags = (f"--model_base_path={self.base}", f"--grpc_socket_path={path}")
        with Server("--model_name=first", *flags), Server("--model_name=second", *flags) as second:
            self.assertEqual(state_over_grpc(f"unix:{path}", "second"), "AVAILABLE")
            self.assertIsNone(second.process.poll())

    def test_a_plain_file_or_no_directory_ends_the_start(self):
        self.put(1)
        plain = self.base.parent / "plain"
        plain.write_text("kept")
        for path in (plain, self.base.parent / "nowhere" / "grpc.sock"):
            done = run(f"--port={free_port()}", f"--grpc_socket_path={path}", *self.flags())
            self.assertEqual(done.returncode, 255)
            self.assertEqual(done.stdout, "Failed to start server. Error: INVALID_ARGUMENT: "
                             "Failed to BuildAndStart gRPC server\n")
        self.assertEqual(plain.read_text(), "kept")


if __name__ == "__main__":
    unittest.main()
