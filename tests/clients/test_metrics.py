"""What the metrics page and the log tell beyond what the original does, and of loads what it does."""

import os
import pathlib
import tempfile
import time
import unittest

import grpc
from tensorflow_serving.apis import inference_pb2, prediction_service_pb2_grpc

from server import SHARED, Server, need_shared
from test_program import MODEL, ask, predict, states, wait_for
from test_warmup import example

METRICS = "/monitoring/prometheus/metrics"
MLMD = SHARED / "tfs-testdata" / "saved_model_half_plus_two_mlmd"


class MetricsTest(unittest.TestCase):
    def setUp(self):
        need_shared("tfs-testdata")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def start(self, base, *flags, **process):
        monitoring = self.folder / "monitoring.config"
        monitoring.write_text("prometheus_config { enable: true }")
        server = Server("--model_name=m", f"--model_base_path={base}", "--max_num_load_retries=1",
                        "--load_retry_interval_micros=1000", f"--monitoring_config_file={monitoring}",
                        *flags, **process)
        self.addCleanup(server.__exit__)
        return server

    def samples(self, server):
        status, page = ask(server, "GET", METRICS)
        self.assertEqual(status, 200)
        lines = [line for line in page.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def test_the_process_and_the_build(self):
        before = time.time()
        server = self.start(MODEL)
        found = self.samples(server)
        self.assertTrue(before - 5 <= found["process_start_time_seconds{}"] <= time.time() + 5)
        self.assertGreater(found["process_resident_memory_bytes{}"], 1 << 20)
        self.assertTrue(3 < found["process_open_fds{}"] < found["process_max_fds{}"])
        self.assertIn("process_cpu_seconds_total{}", found)
        self.assertGreater(found["process_threads{}"], 2)
        (build,) = [name for name in found if name.startswith("vesta_build_info{")]
        self.assertRegex(build, r'version="\d+\.\d+\.\d+"')
        self.assertEqual(found[build], 1)

    def test_signatures_and_examples(self):
        server = self.start(MODEL)
        for _ in range(3):
            predict(server, [2.0])
        request = inference_pb2.MultiInferenceRequest()
        for word in ("classify", "regress"):
            task = request.tasks.add(method_name=f"tensorflow/serving/{word}")
            task.model_spec.name, task.model_spec.signature_name = "m", f"{word}_x_to_y"
        request.input.example_list.examples.extend([example(), example(), example()])
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            prediction_service_pb2_grpc.PredictionServiceStub(channel).MultiInference(request)
        found = self.samples(server)
        for signature, count in (("serving_default", 3), ("classify_x_to_y", 1),
                                 ("regress_x_to_y", 1)):
            name = (':vesta:serving:signature_latency_count{model_name="m",'
                    f'signature_name="{signature}"}}')
            self.assertEqual(found[name], count)
        self.assertEqual(found[':tensorflow:serving:request_example_count_total{model="m"}'], 3)
        bucket = ':tensorflow:serving:request_example_counts_bucket{model="m",le="%s"}'
        self.assertEqual((found[bucket % 2], found[bucket % 4]), (0, 1))

    def test_loads_are_counted_and_timed(self):
        base = self.folder / "m"
        base.mkdir()
        os.symlink(MODEL / "00000123", base / "1")
        server = self.start(base)
        (base / "2").mkdir()
        self.assertTrue(wait_for(lambda: states(server).get("2") == "END"))
        found = self.samples(server)
        count = (":tensorflow:cc:saved_model:load_attempt_count"
                 '{model_path="%s",status="%s"}')
        self.assertEqual(found[count % (base / "1", "success")], 1)
        self.assertEqual(found[count % (base / "2", "fail")], 2)
        latency = ':tensorflow:cc:saved_model:load_latency{model_path="%s"}'
        self.assertGreater(found[latency % (base / "1")], 0)
        self.assertNotIn(latency % (base / "2"), found)
        log = server.log()
        self.assertIn(f"Reading SavedModel from: {base / '1'}\n", log)
        self.assertRegex(log, r"SavedModel load for tags \{ serve \}; Status: success: OK\. Took \d+ "
                         r"microseconds\.")
        self.assertIn("SavedModel load for tags { serve }; Status: fail: NOT_FOUND: ", log)

    def test_a_record_in_ml_metadata(self):
        server = self.start(MLMD)
        uuid = (MLMD / "00000123" / "assets.extra" / "mlmd_uuid").read_text().strip()
        found = self.samples(server)
        names = [name for name in found if name.startswith(":tensorflow:serving:mlmd_map{")]
        (name,) = names
        for label in ('model_name="m"', 'version="123"', f'mlmd_uuid="{uuid}"'):
            self.assertIn(label, name)

    def test_a_line_for_each_request(self):
        line = "Processing HTTP request: POST /v1/models/m:predict body: "
        for variables, wanted in (({}, False), ({"TF_CPP_VMODULE": "http_server=1"}, True),
                                  ({"TF_CPP_MAX_VLOG_LEVEL": "1"}, True)):
            server = self.start(MODEL, environment=variables)
            predict(server, [2.0])
            server.stop()
            self.assertEqual(line in server.log(), wanted, variables)


if __name__ == "__main__":
    unittest.main()
