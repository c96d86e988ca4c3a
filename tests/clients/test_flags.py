"""Flags of the original that change how the built program serves, and those that it only accepts."""

import json
import os
import signal
import threading
import time
import unittest

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from server import Server
from test_program import WithModels, ask, children_of, predict, run, wait_for



def predict_request(values, model="m", signature=""):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(values, dtype=tf.float32))
    return request


def predict_over_grpc(target, values, **more):
    with grpc.insecure_channel(target) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        return stub.Predict(predict_request(values, **more), timeout=10)


class SyntaxTest(WithModels):
    """The forms of flags, as they were seen on the original."""

    def test_words_that_are_no_flags_are_told_first(self):
        self.put(1)
        for word in ("-port=1", "--port", "serve", "--rest-api-port=1", "--no_such_flag=1"):
            with Server(*self.flags(word)) as server:
                server.stop()
                out = server.process.stdout.read().decode()
            self.assertTrue(out.startswith(f"unknown argument: {word}\nusage: "), out[:80])

    def test_the_last_repeat_wins_and_booleans_have_forms(self):
        self.put(1)
        with Server("--model_name=other", *self.flags(
                "--rest_api_enable_cors_support", "--enable_model_warmup=1",
                "--enable_grpc_healthcheck_service=True", "--grpc_channel_arguments=")) as server:
            self.assertEqual(predict(server, [2.0]), [3.0])
            server.stop()
            self.assertEqual(server.process.stdout.read(), b"")

    def test_garbage_in_numbers_ends_the_start_with_the_usage(self):
        for flag, value in (("port", "abc"), ("file_system_poll_wait_seconds", "1s"),
                            ("rest_api_timeout_in_ms", "")):
            done = run(*self.flags(f"--{flag}={value}"))
            self.assertEqual(done.returncode, 255)
            self.assertTrue(done.stdout.startswith("usage: tensorflow_model_server\n"))
            self.assertIn(f"Couldn't interpret value {value} for flag {flag}.", done.stderr)


class AcceptedTest(WithModels):
    def test_flags_without_a_meaning_are_accepted_and_told(self):
        self.put(1)
        pool = self.base.parent / "pool.config"
        pool.write_text("thread_pool_factory_config {}")
        idle = ("flush_filesystem_caches=false", "xla_cpu_compilation_enabled=true",
                "xla_gpu_compilation_enabled", "skip_initialize_tpu=true",
                "remove_unused_fields_from_bundle_metagraph=false",
                f"thread_pool_factory_config_file={pool}")
        quiet = ("per_process_gpu_memory_fraction=0.5", "mixed_precision=bfloat16",
                 "num_unload_threads=2", "flush_filesystem_caches=false")
        with Server(*self.flags(*(f"--{flag}" for flag in idle + quiet))) as server:
            self.assertEqual(predict(server, [2.0]), [3.0])
            server.stop()
            self.assertEqual(server.process.stdout.read(), b"")
            for flag in idle:
                name = flag.partition("=")[0]
                self.assertIn(f"--{name} is accepted and changes nothing", server.log())
            self.assertIn("Running inference with bfloat16 auto mixed precision", server.log())

    def test_their_values_are_checked(self):
        for flag in ("per_process_gpu_memory_fraction=much", "skip_initialize_tpu=maybe",
                     "num_unload_threads=few", "grpc_max_threads=all"):
            name, _, value = flag.partition("=")
            done = run(f"--{flag}", "--model_base_path=/x")
            self.assertEqual(done.returncode, 255)
            self.assertIn(f"Couldn't interpret value {value} for flag {name}.", done.stderr)
        done = run(*self.flags("--thread_pool_factory_config_file=/nonexistent"))
        self.assertEqual(done.returncode, 255)
        self.assertIn("NOT_FOUND: /nonexistent; No such file or directory", done.stdout)

    def test_contradicting_threads_end_the_start(self):
        done = run(*self.flags("--tensorflow_intra_op_parallelism=1",
                               "--tensorflow_inter_op_parallelism=1",
                               "--tensorflow_session_parallelism=1"))
        self.assertEqual(done.returncode, 255)
        self.assertIn("INVALID_ARGUMENT: Either configure server_options.tensorflow_session_parallelism "
                      "or (server_options.tensorflow_intra_op_parallelism, "
                      "server_options.tensorflow_inter_op_parallelism) separately. "
                      "You cannot configure all.\n", done.stdout)

    def test_another_precision_is_told_and_passed_over(self):
        self.put(1)
        with Server(*self.flags("--mixed_precision=float16")) as server:
            self.assertEqual(predict(server, [2.0]), [3.0])
            self.assertIn("float16 auto mixed precision is not supported. Valid option: bfloat16",
                          server.log())


class PlatformTest(WithModels):
    def file(self, legacy_config):
        path = self.base.parent / "platform.config"
        path.write_text(
            "# what the server knows of its platform\n"
            "platform_configs { key: 'tensorflow' value { source_adapter_config: {\n"
            "  [type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig] {\n"
            f"    legacy_config {{ {legacy_config} }}\n"
            "} } } }\n")
        return f"--platform_config_file={path}"

    def test_a_platform_file_says_what_the_flags_said(self):
        self.put(1)
        file = self.file("saved_model_tags: 'serve' session_target: 'elsewhere'")
        with Server(*self.flags(file, "--saved_model_tags=ignored")) as server:
            self.assertEqual(predict(server, [2.0]), [3.0])
            self.assertIn("session_target of the platform configuration is accepted and changes "
                          "nothing", server.log())
        file = self.file("saved_model_tags: ['nobody', 'has']")
        done = run("--port=0", f"--grpc_socket_path={self.base.parent}/s", *self.flags(file))
        self.assertEqual(done.returncode, 255)
        self.assertIn("nobody", done.stdout)

    def test_a_mistake_in_it_is_told_with_its_place(self):
        path = self.base.parent / "platform.config"
        path.write_text("platform_configs {\n  name: 'x'\n}\n")
        done = run(*self.flags(f"--platform_config_file={path}"))
        self.assertEqual(done.returncode, 255)
        self.assertIn("Error parsing text-format tensorflow.serving.PlatformConfigMap: 2:3: ",
                      done.stderr)
        path.write_text("platform_configs { key: 'other' value {} }\n")
        done = run(*self.flags(f"--platform_config_file={path}"))
        self.assertEqual(done.returncode, 255)
        self.assertIn("says nothing of the platform tensorflow", done.stdout)


class MethodNameTest(WithModels):
    def examples(self, server, verb, signature):
        body = {"signature_name": signature, "examples": [{"x": 2.0}]}
        status, text = ask(server, "POST", f"/v1/models/m:{verb}", json.dumps(body))
        return status, json.loads(text)

    def test_method_names_are_checked_when_asked_for(self):
        self.put(1)
        with Server(*self.flags("--enable_signature_method_name_check")) as server:
            self.assertEqual(predict(server, [2.0]), [3.0])
            status, answer = self.examples(server, "regress", "regress_x_to_y")
            self.assertEqual((status, answer), (200, {"results": [3.0]}))
            status, answer = self.examples(server, "regress", "classify_x_to_y")
            self.assertEqual(status, 400)
            self.assertEqual(
                answer["error"], "Expected regression signature method_name to be "
                "tensorflow/serving/regress. Was: tensorflow/serving/classify")
            status, answer = self.examples(server, "classify", "regress_x_to_y")
            self.assertEqual(status, 400)
            self.assertEqual(
                answer["error"], "Expected classification signature method_name to be "
                "tensorflow/serving/classify. Was: tensorflow/serving/regress")

    def test_a_foreign_method_name_is_refused_by_predict(self):
        import tensorflow.compat.v1 as tf1
        with tf1.Graph().as_default(), tf1.Session() as session:
            x = tf1.placeholder(tf.float32, [None], name="x")
            signature = tf1.saved_model.build_signature_def(
                {"x": tf1.saved_model.build_tensor_info(x)},
                {"y": tf1.saved_model.build_tensor_info(x * 2.0)}, "mine")
            builder = tf1.saved_model.Builder(str(self.base / "1"))
            builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
            builder.save()
        want = ("Expected prediction signature method_name to be one of {tensorflow/serving/predict, "
                "tensorflow/serving/classify, tensorflow/serving/regress}. Was: mine")
        with Server(*self.flags("--enable_signature_method_name_check")) as server:
            with self.assertRaises(grpc.RpcError) as caught:
                predict_over_grpc(f"127.0.0.1:{server.grpc_port}", [2.0])
            self.assertEqual(caught.exception.code(), grpc.StatusCode.INTERNAL)
            self.assertEqual(caught.exception.details(), want)
            status, body = ask(server, "POST", "/v1/models/m:predict", '{"instances": [2.0]}')
            self.assertEqual((status, json.loads(body)["error"]), (500, want))
        with Server(*self.flags()) as server:
            self.assertEqual(predict(server, [2.0]), [4.0])


class ContentTest(WithModels):
    def test_tensors_come_as_content_when_asked_for(self):
        self.put(1)
        with Server(*self.flags("--enable_serialization_as_tensor_content")) as server:
            answer = predict_over_grpc(f"127.0.0.1:{server.grpc_port}", [1.0, 2.0])
            tensor = answer.outputs["y"]
            self.assertEqual(list(tensor.float_val), [])
            self.assertEqual(tensor.tensor_content, np.array([2.5, 3.0], "<f4").tobytes())
            np.testing.assert_array_equal(tf.make_ndarray(tensor), [2.5, 3.0])
            # The original's REST answers are broken by the flag.
            self.assertEqual(predict(server, [1.0, 2.0]), [2.5, 3.0])


class CapTest(WithModels):
    """Calls that hang, since the worker that computes them is held."""

    def start(self, *flags):
        self.put(1)
        server = Server(*self.flags("--isolation=worker", *flags))
        self.addCleanup(server.__exit__)
        self.worker, = children_of(server.process.pid)
        os.kill(self.worker, signal.SIGSTOP)
        self.addCleanup(self.go_on)
        return server

    def go_on(self):
        try:
            os.kill(self.worker, signal.SIGCONT)
        except ProcessLookupError:
            pass

    def test_more_grpc_calls_than_threads_are_refused(self):
        server = self.start("--grpc_max_threads=2")
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            # The two must be there before a third comes, which could have the place of one.
            grpc.channel_ready_future(channel).result(20)
            under_way = [stub.Predict.future(predict_request([2.0]), timeout=20) for _ in range(2)]
            time.sleep(0.5)

            def refusal():
                try:
                    stub.Predict(predict_request([2.0]), timeout=0.2)
                except grpc.RpcError as error:
                    return error.code(), error.details()
            want = (grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
            self.assertTrue(wait_for(lambda: refusal() == want))
            self.go_on()
            for call in under_way:
                self.assertEqual(list(call.result().outputs["y"].float_val), [3.0])
            stub.Predict(predict_request([2.0]), timeout=20)

    def test_more_rest_calls_than_threads_wait(self):
        server = self.start("--rest_api_num_threads=1")
        answers = []
        calls = [threading.Thread(target=lambda: answers.append(predict(server, [2.0])))
                 for _ in range(2)]
        calls[0].start()
        time.sleep(0.3)
        # What is asked of the server itself needs no turn.
        self.assertEqual(ask(server, "GET", "/healthz")[0], 200)
        waiting = threading.Thread(target=lambda: answers.append(ask(server, "GET", "/v1/models/m")[0]))
        waiting.start()
        calls[1].start()
        time.sleep(0.3)
        self.assertEqual(answers, [])
        self.go_on()
        for call in (*calls, waiting):
            call.join(20)
        self.assertEqual(sorted(answers, key=str), [200, [3.0], [3.0]])

    def test_by_default_no_number_of_calls_is_refused(self):
        server = self.start()
        count = 16 * (os.cpu_count() or 1)
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            calls = [stub.Predict.future(predict_request([2.0]), timeout=20) for _ in range(count)]
            time.sleep(0.5)
            self.assertFalse(any(call.done() for call in calls))
            self.go_on()
            for call in calls:
                self.assertEqual(list(call.result().outputs["y"].float_val), [3.0])


if __name__ == "__main__":
    unittest.main()
