"""What operators ask of a running server over REST: which models there are, load this one, unload that
one; and how their orders and reloaded configurations meet."""

import concurrent.futures
import http.client
import json
import pathlib
import shutil
import tempfile
import time
import unittest

from server import SHARED, Server, need_shared
from test_program import MODEL, TF2, ask, predict, run, states, wait_for

THREE = SHARED / "tfs-testdata" / "saved_model_half_plus_three"


def names(server):
    status, text = ask(server, "GET", "/v1/models")
    if status != 200:
        raise AssertionError(f"{status}: {text}")
    return [model["name"] for model in json.loads(text)["models"]]


class AdminTest(unittest.TestCase):
    def setUp(self):
        need_shared("tfs-testdata")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.config = self.folder / "models.config"

    def write(self, **models):
        entries = "".join(
            f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }}\n'
            for name, path in models.items())
        hidden = self.folder / "incoming"
        hidden.write_text(f"model_config_list {{\n{entries}}}\n")
        hidden.rename(self.config)

    def start(self, *flags, admin=True):
        server = Server(f"--model_config_file={self.config}", "--max_num_load_retries=0",
                        *(["--enable_admin_api"] if admin else []), *flags)
        self.addCleanup(server.__exit__)
        return server

    def order(self, server, model, verb, body=None):
        body = json.dumps(body) if isinstance(body, dict) else body
        status, text = ask(server, "POST", f"/v1/models/{model}:{verb}", body)
        return status, json.loads(text)

    def test_models_are_listed(self):
        self.write(b=MODEL, a=THREE, none=self.folder)
        server = self.start("--startup_wait=0", admin=False)
        wait_for(lambda: states(server, "a") and states(server, "b"))
        status, text = ask(server, "GET", "/v1/models")
        available = [{"version": "123", "state": "AVAILABLE",
                      "status": {"error_code": "OK", "error_message": ""}}]
        models = json.loads(text)["models"]
        self.assertEqual(status, 200)
        self.assertEqual(
            [(model["name"], model["model_version_status"], model["ready"]) for model in models],
            [("a", available, True), ("b", available, True), ("none", [], False)])
        self.assertIn("no version was found yet", models[2]["not_ready_reason"])

    def test_without_the_flag_orders_are_malformed(self):
        self.write(m=MODEL)
        server = self.start(admin=False)
        for verb in ("load", "unload"):
            self.assertEqual(self.order(server, "m", verb), (
                400, {"error": f"Malformed request: POST /v1/models/m:{verb}"}))
        self.assertEqual(predict(server, [2.0]), [3.0])

    def test_web_pages_give_no_orders(self):
        self.write(m=MODEL)
        server = self.start("--rest_api_enable_cors_support")
        connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=20)
        self.addCleanup(connection.close)
        connection.request("POST", "/v1/models/m:unload", "", {"Origin": "http://evil.example"})
        answer = connection.getresponse()
        self.assertEqual((answer.status, json.loads(answer.read())),
                         (403, {"error": "orders of web pages are refused"}))
        self.assertEqual(predict(server, [2.0]), [3.0])
        self.assertIn("Models may be loaded and unloaded over the REST port", server.log())

    def test_one_model_is_unloaded_and_loaded_again(self):
        self.write(m=MODEL, other=THREE)
        server = self.start()
        status, answer = self.order(server, "m", "unload")
        self.assertEqual((status, answer["model_version_status"][0]["state"]), (200, "END"))
        status, text = ask(server, "POST", "/v1/models/m:predict", '{"instances": [1.0]}')
        self.assertEqual((status, json.loads(text)["error"]),
                         (404, "Servable not found for request: Latest(m)"))
        self.assertEqual(names(server), ["other"])
        self.assertEqual(ask(server, "GET", "/readyz")[0], 200)
        self.assertEqual(predict(server, [2.0], "other"), [4.0])
        status, answer = self.order(server, "m", "load")
        self.assertEqual((status, answer["model_version_status"][0]["state"]), (200, "AVAILABLE"))
        self.assertEqual(predict(server, [2.0]), [3.0])

    def test_a_model_is_added_by_its_description(self):
        self.write(m=MODEL)
        server = self.start()
        status, answer = self.order(server, "three", "load", {"base_path": str(THREE)})
        self.assertEqual((status, answer["model_version_status"][0]["state"]), (200, "AVAILABLE"))
        self.assertEqual(predict(server, [2.0], "three"), [4.0])
        status, _ = self.order(server, "labelled", "load", {
            "base_path": str(TF2), "version_labels": {"stable": 123}})
        self.assertEqual(status, 200)
        status, text = ask(server, "POST", "/v1/models/labelled/labels/stable:predict",
                           '{"instances": [2.0]}')
        self.assertEqual((status, json.loads(text)["predictions"]), (200, [3.0]))
        self.assertEqual(self.order(server, "three", "unload")[0], 200)
        self.assertEqual(names(server), ["labelled", "m"])

    def test_what_cannot_be_done_is_told(self):
        self.write(m=MODEL)
        server = self.start("--rest_api_timeout_in_ms=700")
        for verb in ("load", "unload"):
            status, answer = self.order(server, "nope", verb)
            self.assertEqual(status, 404)
            self.assertIn("model nope is not configured", answer["error"])
        for body in ("{", '{"base_path": "relative"}', '{"base_path": "/x", "name": "other"}'):
            self.assertEqual(self.order(server, "n", "load", body)[0], 400, body)
        broken = self.folder / "broken"
        (broken / "1").mkdir(parents=True)
        status, answer = self.order(server, "n", "load", {"base_path": str(broken)})
        self.assertEqual(status, 500)
        self.assertIn("1 model(s) did not become available: {{{name: n version: 1} due to error: ",
                      answer["error"])
        # It is tried again when it is ordered again, with files that are whole now.
        shutil.rmtree(broken / "1")
        shutil.copytree(MODEL / "00000123", self.folder / "incoming-1")
        (self.folder / "incoming-1").rename(broken / "1")
        self.assertEqual(self.order(server, "n", "load")[0], 200)
        self.assertEqual(predict(server, [2.0], "n"), [3.0])
        # One that never comes is answered in time; the order stands.
        late = self.folder / "late"
        status, answer = self.order(server, "late", "load", {"base_path": str(late)})
        self.assertEqual(status, 504)
        self.assertIn("model late does not serve yet, and its load goes on: no version was found",
                      answer["error"])
        late.mkdir()
        shutil.copytree(MODEL / "00000123", self.folder / "incoming-2")
        (self.folder / "incoming-2").rename(late / "1")
        self.assertTrue(wait_for(lambda: states(server, "late") == {"1": "AVAILABLE"}))

    def test_a_file_that_changes_elsewhere_leaves_orders_alone(self):
        self.write(a=MODEL, b=MODEL)
        server = self.start("--model_config_file_poll_wait_seconds=1")
        self.assertEqual(self.order(server, "a", "unload")[0], 200)
        self.assertEqual(self.order(server, "mine", "load", {"base_path": str(THREE)})[0], 200)
        self.write(a=MODEL, b=MODEL, c=MODEL)
        self.assertTrue(wait_for(lambda: "c" in names(server)))
        self.assertEqual(names(server), ["b", "c", "mine"])
        # What the file says anew of a model counts from then on.
        shutil.copytree(MODEL / "00000123", self.folder / "mine" / "200")
        self.write(a=THREE, b=MODEL, mine=self.folder / "mine")
        self.assertTrue(wait_for(lambda: names(server) == ["a", "b", "mine"]))
        self.assertTrue(wait_for(lambda: states(server, "a").get("123") == "AVAILABLE"))
        self.assertEqual(predict(server, [2.0], "a"), [4.0])
        self.assertTrue(wait_for(lambda: predict(server, [2.0], "mine") == [3.0]))

    def test_orders_and_lists_at_once_lose_nothing(self):
        self.write(listed0=MODEL)
        server = self.start("--model_config_file_poll_wait_seconds=1")

        def rewrite():
            for number in range(1, 5):
                self.write(**{f"listed{i}": MODEL for i in range(number + 1)})
                time.sleep(0.5)
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            rewritten = pool.submit(rewrite)
            orders = [pool.submit(self.order, server, f"own{i}", "load", {"base_path": str(THREE)})
                      for i in range(12)]
            self.assertEqual({order.result()[0] for order in orders}, {200})
            gone = [pool.submit(self.order, server, f"own{i}", "unload") for i in range(0, 12, 2)]
            self.assertEqual({order.result()[0] for order in gone}, {200})
            rewritten.result()
        want = sorted([f"listed{i}" for i in range(5)] + [f"own{i}" for i in range(1, 12, 2)])
        self.assertTrue(wait_for(lambda: names(server) == want), names(server))
        for name in want:
            self.assertTrue(wait_for(lambda: states(server, name).get("123") == "AVAILABLE"))

    def test_the_probe_names_what_is_not_ready(self):
        broken = self.folder / "broken"
        (broken / "1").mkdir(parents=True)
        self.write(m=MODEL, broken=broken, none=self.folder)
        server = self.start("--startup_wait=0")
        self.assertTrue(wait_for(lambda: states(server, "broken") == {"1": "END"}))
        status, text = ask(server, "GET", "/readyz")
        answer = json.loads(text)
        self.assertEqual((status, answer["ready"]), (503, False))
        why = {model["name"]: model["reason"] for model in answer["models"]}
        self.assertEqual(set(why), {"broken", "none"})
        self.assertIn("version 1 failed: NOT_FOUND: ", why["broken"])
        self.assertIn("no version was found yet", why["none"])
        for model in ("broken", "none"):
            self.assertEqual(self.order(server, model, "unload")[0], 200)
        self.assertEqual(ask(server, "GET", "/readyz")[0], 200)
        self.assertEqual(ask(server, "GET", "/healthz"), (200, "ok"))


class BodyTest(unittest.TestCase):
    def test_a_body_past_the_limit(self):
        need_shared("tfs-testdata")
        with Server("--model_name=m", f"--model_base_path={MODEL}",
                    "--rest_api_max_body_mb=1") as server:
            for length, status in ((1 << 20, 400), ((1 << 20) + 1, 413)):
                body = "[" + " " * (length - 2) + "]"
                got, text = ask(server, "POST", "/v1/models/m:predict", body)
                self.assertEqual(got, status, text)
            self.assertEqual(json.loads(text)["error"],
                             "the body is larger than the 1048576 bytes that the server takes")
            # What is only announced is refused at once.
            connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=20)
            self.addCleanup(connection.close)
            start = time.monotonic()
            connection.putrequest("POST", "/v1/models/m:predict")
            connection.putheader("Content-Length", str(1 << 40))
            connection.endheaders()
            self.assertEqual(connection.getresponse().status, 413)
            self.assertLess(time.monotonic() - start, 5)
            self.assertEqual(predict(server, [2.0]), [3.0])

    def test_it_is_two_gibibytes_unless_told(self):
        done = run("--help")
        self.assertIn("--rest_api_max_body_mb=2048", done.stdout)


if __name__ == "__main__":
    unittest.main()
