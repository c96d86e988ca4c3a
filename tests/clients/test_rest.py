"""REST as clients see it, asked of the built program: the contract's exchanges, dtypes that the
original's JSON lacks, texts and their order, time limits, the metrics page, the end."""

import gzip
import http.client
import json
import os
import pathlib
import signal
import socket
import tempfile
import threading
import time
import unittest

from server import SHARED, STRICT, Server, can_connect
from test_program import MODEL, TF2, WithModels, ask, children_of, predict, wait_for

TESTDATA = SHARED / "tfs-testdata"
GOLDEN = SHARED / "golden"
VECTORS = SHARED / "contracts" / "tfs-rest-vectors.jsonl"
METRICS = "/monitoring/prometheus/metrics"


def exchange(server, method, path, body=None, headers=()):
    """Status, headers in their order, body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=20)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.getheaders(), answer.read().decode()
    finally:
        connection.close()


def error_of(body):
    return json.loads(body)["error"]


def outputs(server, model, body):
    status, answer = ask(server, "POST", f"/v1/models/{model}:predict", body)
    if status != 200:
        raise AssertionError(f"{status}: {answer}")
    return json.loads(answer)


class Shared(unittest.TestCase):
    """One server for all tests of a class, over test models that must be there."""

    needs = TESTDATA
    options = ()

    @classmethod
    def models(cls, folder):
        """The text of the configuration file."""
        raise NotImplementedError

    @classmethod
    def setUpClass(cls):
        if not cls.needs.exists():
            if STRICT:
                raise AssertionError(f"test data is missing: {cls.needs}")
            raise unittest.SkipTest(f"test data is missing: {cls.needs}")
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        config = pathlib.Path(folder.name) / "models.config"
        config.write_text("model_config_list {" + cls.models(pathlib.Path(folder.name)) + "}")
        monitoring = pathlib.Path(folder.name) / "monitoring.config"
        monitoring.write_text("prometheus_config { enable: true }")
        cls.flags = (f"--model_config_file={config}", f"--monitoring_config_file={monitoring}",
                     "--allow_version_labels_for_unavailable_models=true", *cls.options)
        cls.server = Server(*cls.flags)
        cls.addClassCleanup(cls.server.__exit__)

    @staticmethod
    def entry(name, path, more=""):
        return f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" {more} }}\n'


class VectorsTest(Shared):
    """The exchanges that the contract takes from the original's own tests and source."""

    needs = VECTORS
    # Answered better on purpose: the list of models, a version beyond 64 bits.
    differ = ("http-033", "http-034")
    two = "saved_model_half_plus_two_2_versions"
    three = "saved_model_half_plus_three"

    @classmethod
    def models(cls, folder):
        pinned = ("model_version_policy { specific { versions: 123 } } "
                  'version_labels { key: "LABEL" value: 123 }')
        return (cls.entry("default", MODEL) + cls.entry(cls.two, TESTDATA / cls.two, pinned)
                + cls.entry(cls.three, TESTDATA / cls.three))

    @staticmethod
    def vectors():
        lines = map(json.loads, VECTORS.read_text().splitlines())
        return [vector for vector in lines if vector["kind"] == "http"]

    def check(self, server, vector):
        request, expect = vector["request"], vector["expect"]
        body = request.get("body")
        if request.get("headers", {}).get("Content-Encoding") == "gzip":
            body = gzip.compress(b'{"instances":[1.0]}')
        status, headers, text = exchange(
            server, request["method"], request["path"], body, request.get("headers", {}))
        self.assertEqual(status, expect["status"], text)
        self.assertLessEqual(set(expect.get("headers", {}).items()), set(headers))
        if "json" in expect:
            self.assertEqual(json.loads(text), expect["json"])
        if "raw_body" in expect:
            self.assertEqual(text, expect["raw_body"])
        if "error_exact" in expect:
            self.assertEqual(error_of(text), expect["error_exact"])
        if "error_contains" in expect:
            self.assertIn(expect["error_contains"], error_of(text))
        if expect.get("empty_body"):
            self.assertEqual(text, "")
        return text, dict(headers)

    def test_every_exchange(self):
        count = 0
        for vector in self.vectors():
            if "cors" in vector.get("flags", "") or vector["id"] in self.differ:
                continue
            with self.subTest(vector["id"]):
                self.check(self.server, vector)
                count += 1
        self.assertEqual(count, 64)

    def test_the_exchange_with_cors(self):
        found = [vector for vector in self.vectors() if "cors" in vector.get("flags", "")]
        self.assertEqual(len(found), 1)
        with Server(*self.flags, found[0]["flags"]) as server:
            self.check(server, found[0])

    def test_metadata_and_metrics_are_those_of_the_files(self):
        for model, file in (("default", "half_plus_two_model_metadata.json"),
                            (self.two, f"{self.two}_metadata.json")):
            status, text = ask(self.server, "GET", f"/v1/models/{model}/metadata")
            self.assertEqual(status, 200)
            self.assertEqual(json.loads(text), json.loads((TESTDATA / file).read_text()))
        status, headers, text = exchange(self.server, "GET", METRICS)
        self.assertEqual((status, dict(headers)["Content-Type"]), (200, "text/plain"))
        self.assertIn("# TYPE", text)


class TypesTest(Shared):
    """Dtypes, texts and their order, over the models of the recorded answers."""

    needs = GOLDEN / "models"

    @classmethod
    def models(cls, folder):
        import tensorflow as tf
        module = tf.Module()
        module.serve = tf.function(
            lambda x: {"y": tf.identity(x)},
            input_signature=[tf.TensorSpec([None], tf.uint16, name="x")])
        tf.saved_model.save(module, str(folder / "id_uint16" / "1"), signatures=module.serve)
        golden = ("id_float16", "id_bfloat16", "types", "multi", "strs", "half_plus_two")
        return (cls.entry("id_uint16", folder / "id_uint16") + cls.entry("tf2", TF2)
                + "".join(cls.entry(name, cls.needs / name) for name in golden))

    def answers(self, model, text, want):
        """Rows and columns go in and come out, to the character."""
        status, row = ask(self.server, "POST", f"/v1/models/{model}:predict",
                          f'{{"instances": [{text}]}}')
        self.assertEqual((status, row), (200, f'{{\n    "predictions": [{want}\n    ]\n}}'))
        got = outputs(self.server, model, f'{{"inputs": {{"x": [{text}]}}}}')["outputs"]
        self.assertEqual(json.dumps(got), json.dumps(json.loads(f"[{want}]")))

    def test_half_in_and_out(self):
        self.answers("id_float16", "1, 0.1, 65504, 65520, 6e-08, 1e-08, NaN, -Infinity, 2049",
                     "1.0, 0.0999755859, 65504.0, Infinity, 5.96046448e-08, 0.0, NaN, -Infinity, "
                     "2048.0")

    def test_bfloat16_in_and_out(self):
        self.answers("id_bfloat16", "1, 0.1, 257, 259, 3.3e38, 3.4e38, NaN, -Infinity",
                     "1.0, 0.100097656, 256.0, 260.0, 3.29648543e+38, Infinity, NaN, -Infinity")

    def test_uint16_in_and_out(self):
        self.answers("id_uint16", "0, 1, 32768, 65535", "0, 1, 32768, 65535")

    def test_uint16_out_of_range_is_refused(self):
        for value in ("65536", "-1", "1.0", "99999999999"):
            status, text = ask(self.server, "POST", "/v1/models/id_uint16:predict",
                               f'{{"inputs": [{value}]}}')
            self.assertEqual(status, 400, value)
            self.assertEqual(error_of(text), f"JSON Value: {value} Type: Number is not of expected "
                             "type: uint16")

    def test_wrong_kinds_are_named_by_their_dtype(self):
        for model, name in (("id_float16", "half"), ("id_bfloat16", "bfloat16"),
                            ("id_uint16", "uint16")):
            status, text = ask(self.server, "POST", f"/v1/models/{model}:predict",
                               '{"inputs": ["a"]}')
            self.assertEqual((status, error_of(text)), (
                400, f'JSON Value: "a" Type: String is not of expected type: {name}'))

    def test_every_dtype_out(self):
        body = '{"signature_name": "nocomplex", "inputs": [1.0, 0.1, 3]}'
        got = outputs(self.server, "types", body)["outputs"]
        floats = {"float16": 0.0999755859, "bfloat16": 0.100097656, "float32": 0.1,
                  "float64": 0.10000000149011612}
        want = {name: [1.0, value, 3.0] for name, value in floats.items()}
        want |= {f"{sign}int{bits}": [1, 0, 3] for sign in ("", "u") for bits in (8, 16, 32, 64)}
        want["bool"] = [True] * 3
        self.assertEqual(got, want)

    def test_complex_numbers_cannot_be_written(self):
        status, text = ask(self.server, "POST", "/v1/models/types:predict", '{"inputs": [1.0]}')
        self.assertEqual((status, error_of(text)), (
            400, "Failed to write JSON value for tensor type: complex64"))

    def test_members_are_sorted(self):
        names_of = []

        def names(pairs):
            names_of.append([name for name, _ in pairs])
            return dict(pairs)
        body = '{"signature_name": "nocomplex", "instances": [1.0, 2.0]}'
        _, text = ask(self.server, "POST", "/v1/models/types:predict", body)
        json.loads(text, object_pairs_hook=names)
        _, text = ask(self.server, "POST", "/v1/models/strs:predict", '{"inputs": ["a"]}')
        json.loads(text, object_pairs_hook=names)
        rows = [found for found in names_of if len(found) > 1]
        self.assertEqual([len(found) for found in rows], [13, 13, 3])
        for model in ("types", "multi"):
            _, text = ask(self.server, "GET", f"/v1/models/{model}/metadata")
            signatures = json.loads(text)["metadata"]["signature_def"]["signature_def"]
            rows.append(list(signatures))
            for signature in signatures.values():
                rows += [list(signature["inputs"]), list(signature["outputs"])]
        self.assertGreater(max(map(len, rows)), 13)
        for found in rows:
            self.assertEqual(found, sorted(found))

    def test_a_model_name_is_missed(self):
        for path in ("/v1/models/versions/1", "/v1/models/labels/stable"):
            status, text = ask(self.server, "GET", path)
            self.assertEqual((status, error_of(text)), (400, "Missing model name in request."))

    def test_a_version_beyond_64_bits(self):
        for method, path in (("GET", "/v1/models/tf2/versions/18446744073709551615"),
                             ("POST", "/v1/models/foo/versions/18446744073709551615:regress")):
            status, text = ask(self.server, method, path)
            self.assertEqual((status, error_of(text)), (
                400, "the version 18446744073709551615 is larger than any, 9223372036854775807"))

    def test_brackets_have_a_limit(self):
        """The original's parser of dense tensors recursed until the process died (CVE-2025-0649)."""
        for depth in (513, 100_000):
            deep = "[" * depth + "]" * depth
            for body in (f'{{"instances": {deep}}}', f'{{"inputs": {deep}}}', deep,
                         f'{{"instances": [1.0], "beside": {deep}}}'):
                status, text = ask(self.server, "POST", "/v1/models/half_plus_two:predict", body)
                self.assertEqual(status, 400, body[:40])
                self.assertIn("More than 512 levels of brackets", error_of(text))
        deep = "[" * 400 + "1" + "]" * 400
        status, text = ask(self.server, "POST", "/v1/models/half_plus_two:predict",
                           f'{{"instances": {deep}}}')
        self.assertEqual((status, error_of(text)), (400, "tensor parsing error: x"))
        self.assertEqual(predict(self.server, [2.0], "half_plus_two"), [3.0])

    def test_a_signature_without_inputs(self):
        body = '{"signature_name": "__saved_model_init_op", "instances": [1.0]}'
        status, text = ask(self.server, "POST", "/v1/models/half_plus_two:predict", body)
        self.assertEqual((status, error_of(text)), (
            400, "Failed to get input map for signature: __saved_model_init_op"))

    def test_bad_json_is_told_before_an_unknown_model(self):
        for body, status, text in (
                ('{"instances": [1.0', 400, "JSON Parse error: "),
                ("[1]", 400, "JSON Value: [1] Is not object"),
                ('{"signature_name": 1}', 400, "JSON Value: "),
                ('{"instances": [1.0]}', 404, "Servable not found for request: Latest(nope)"),
                ('{}', 404, "Servable not found for request: Latest(nope)")):
            got, answer = ask(self.server, "POST", "/v1/models/nope:predict", body)
            self.assertEqual(got, status, body)
            self.assertTrue(error_of(answer).startswith(text), answer)

    def test_inputs_with_a_default_are_asked_for_all_the_same(self):
        for body, text in (
                ('{"inputs": {}}', "Missing named input: x in 'inputs' object."),
                ('{"instances": [{}]}', "Failed to process element: 0 of 'instances' list. JSON "
                 "object: {} keys must be equal to: x")):
            status, answer = ask(self.server, "POST", "/v1/models/tf2:predict", body)
            self.assertEqual((status, error_of(answer)), (400, text))
        self.assertEqual(predict(self.server, [2.0], "tf2"), [3.0])


class AnswersTest(Shared):
    """Headers, and the metrics page."""

    @classmethod
    def models(cls, folder):
        return cls.entry("m", MODEL)

    def test_headers_of_answers_and_errors(self):
        for method, path, body, status, kind in (
                ("POST", "/v1/models/m:predict", '{"instances": [1.0]}', 200, "application/json"),
                ("GET", "/v1/models/m", None, 200, "application/json"),
                ("GET", "/v1/models/m/metadata", None, 200, "application/json"),
                ("POST", "/v1/models/m:predict", "{", 400, "application/json"),
                ("GET", "/v1/models/nope", None, 404, "application/json"),
                ("GET", "/v1/models/m/versions/99999999999999999999", None, 400, "application/json"),
                ("GET", METRICS, None, 200, "text/plain"),
                ("GET", "/nothing", None, 404, "text/html")):
            got, headers, text = exchange(self.server, method, path, body)
            names = dict(headers)
            self.assertEqual((got, names["Content-Type"]), (status, kind), path)
            self.assertEqual(int(names["Content-Length"]), len(text), path)
            self.assertRegex(names["Date"], r"^\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$")
            closed = {"Connection"} if kind == "text/html" else set()
            self.assertEqual(set(names), {"Content-Type", "Content-Length", "Date"} | closed, path)

    def test_the_metrics_page_by_any_method(self):
        for method, body in (("GET", None), ("POST", "x"), ("PUT", "{}"), ("DELETE", None)):
            status, headers, text = exchange(self.server, method, METRICS, body)
            self.assertEqual((status, dict(headers)["Content-Type"]), (200, "text/plain"), method)
            self.assertIn("# TYPE :tensorflow:serving:request_count counter\n", text)
        status, headers, text = exchange(self.server, "HEAD", METRICS)
        self.assertEqual((status, text), (200, ""))
        self.assertGreater(int(dict(headers)["Content-Length"]), 1000)


class WrongDeclarationTest(WithModels):
    """A model that declares its serialised examples as numbers, which the original never looks at."""

    def test_examples_are_fed_all_the_same(self):
        self.put(1, TESTDATA / "saved_model_half_plus_three")
        signature = "tensorflow/serving/regress"
        examples = json.dumps({"signature_name": signature, "examples": [{"x": 1.0}, {"x": 2.0}]})
        numbers = json.dumps({"signature_name": signature, "inputs": [1.0]})
        for isolation in ("inline", "worker"):
            with Server(*self.flags(f"--isolation={isolation}")) as server:
                self.assertEqual(ask(server, "POST", "/v1/models/m:regress", examples),
                                 (200, '{\n    "results": [3.5, 4.0]\n}'))
                status, text = ask(server, "POST", "/v1/models/m:predict", numbers)
                self.assertEqual((status, error_of(text)), (
                    400, "Expects arg[0] to be string but float is provided"))


class SlowTest(WithModels):
    """A run that takes long, which a stopped worker makes."""

    def start(self, *more):
        self.put(1)
        server = Server(*self.flags("--isolation=worker", *more))
        self.addCleanup(server.__exit__)
        self.assertEqual(predict(server, [2.0]), [3.0])
        (self.worker,) = children_of(server.process.pid)
        os.kill(self.worker, signal.SIGSTOP)
        self.addCleanup(self.go_on)
        return server

    def go_on(self):
        try:
            os.kill(self.worker, signal.SIGCONT)
        except ProcessLookupError:
            pass

    def test_a_run_past_the_time_limit_is_504(self):
        server = self.start("--rest_api_timeout_in_ms=300")
        started = time.monotonic()
        for call, body in (("predict", {"instances": [2.0]}),
                           ("regress", {"signature_name": "regress_x_to_y",
                                        "examples": [{"x": 2.0}]})):
            status, text = ask(server, "POST", f"/v1/models/m:{call}", json.dumps(body))
            self.assertEqual((status, error_of(text)), (504, "Timed out waiting for notification"))
        self.assertGreater(time.monotonic() - started, 0.6)
        self.assertLess(time.monotonic() - started, 2.5)
        self.assertEqual(ask(server, "GET", "/v1/models/m")[0], 200)

    def test_a_call_in_flight_is_answered_after_sigterm(self):
        server = self.start()
        answers = []
        call = threading.Thread(target=lambda: answers.append(predict(server, [2.0])))
        with socket.create_connection(("127.0.0.1", server.rest_port)) as idle:
            call.start()
            time.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            self.assertTrue(wait_for(lambda: not can_connect(server.rest_port)))
            self.assertEqual(answers, [])
            self.assertIsNone(server.process.poll())
            self.go_on()
            call.join(10)
            self.assertEqual(answers, [[3.0]])
            self.assertEqual(server.process.wait(10), 0)
            idle.settimeout(5)
            self.assertEqual(idle.recv(1), b"")


if __name__ == "__main__":
    unittest.main()
