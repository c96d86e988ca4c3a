"""`vesta status`: what a running server serves, and by what."""

import http.server
import json
import re
import socket
import subprocess
import threading
import unittest

from models import Folders
from server import BIN, SHARED, Server, need_shared
from test_program import ask

MODEL = SHARED / "tfs-testdata" / "saved_model_half_plus_two_cpu"


def status(*arguments):
    return subprocess.run([BIN / "vesta", "status", *arguments], capture_output=True, text=True,
                          timeout=60)


class Original(http.server.BaseHTTPRequestHandler):
    """Answers the question as TensorFlow Serving does."""

    def do_GET(self):
        body = b'{ "error": "Missing model name in request." }'
        self.send_response(400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class StatusTest(Folders):
    def setUp(self):
        super().setUp()
        need_shared("tfs-testdata")

    def put(self, model, engine=None):
        self.link(model, MODEL / "00000123", 123)
        if engine:
            (self.base / model / "vesta.toml").write_text(f'engine = "{engine}"\n')

    def test_versions_engines_and_reasons_are_told(self):
        self.put("own", engine="embedded")
        self.put("flag")
        (self.base / "none").mkdir()
        with Server(self.config(own=self.base / "own", flag=self.base / "flag",
                                none=self.base / "none"),
                    "--engine=embedded", "--isolation=worker", "--startup_wait=0") as server:
            address = f"127.0.0.1:{server.rest_port}"
            for _ in range(200):
                done = status(address)
                if done.stdout.count("AVAILABLE") == 2:
                    break
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            lines = done.stdout.splitlines()
            self.assertRegex(lines[0], r"^model +version +labels +state +engine +chosen ")
            for line, model in zip(lines[1:], ("flag", "none", "own")):
                self.assertEqual(line.split()[0], model)
            for line in (lines[1], lines[3]):
                words = line.split()
                self.assertEqual(words[1:5], ["123", "-", "AVAILABLE", "embedded"])
                self.assertEqual(words[6:10], ["named", "worker", "1", "-"])
                self.assertGreater(int(words[10]), 0)
                self.assertEqual(words[11], "0")
            self.assertIn("flag version 123 runs on embedded, since --engine names it", lines)
            self.assertIn("own version 123 runs on embedded, since vesta.toml names it", lines)
            self.assertTrue(any(line.startswith("none is not ready: no version was found") for line in lines))

            # The same for programs, and by URL.
            told = json.loads(status(f"--url=http://{address}", "--json").stdout)
            listed = json.loads(ask(server, "GET", "/v1/models")[1])
            for model in (*told["models"], *listed["models"]):
                for loaded in model["loaded_versions"]:
                    self.assertGreater(int(loaded["worker"].pop("memory_bytes")), 0)
            self.assertEqual(told, listed)

            # The wrong port.
            wrong = status(f"127.0.0.1:{server.grpc_port}")
            self.assertEqual((wrong.returncode, wrong.stdout), (1, ""))
            self.assertIn("is that the gRPC port?", wrong.stderr)

    def test_where_nothing_listens_the_way_is_told(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        done = status(str(port))
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, rf"^vesta status: nothing can be reached at http://localhost:{port} ")
        self.assertIn("--rest_api_port=PORT", done.stderr)
        self.assertIn("vesta status HOST:PORT", done.stderr)
        self.assertEqual(status("--url=nowhere").returncode, 1)
        self.assertEqual(status("--nothing").returncode, 2)
        self.assertIn("--timeout-ms", status("--help").stdout)

    def test_a_server_that_says_nothing_is_given_up(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            done = status(f"127.0.0.1:{silent.getsockname()[1]}", "--timeout-ms=300")
        self.assertEqual(done.returncode, 1)
        self.assertIn("does not answer within 300 ms", done.stderr)

    def test_the_original_has_no_list(self):
        with http.server.HTTPServer(("127.0.0.1", 0), Original) as original:
            threading.Thread(target=original.handle_request, daemon=True).start()
            done = status(str(original.server_port))
        self.assertEqual(done.returncode, 1)
        self.assertIn("is a server of TensorFlow, or an older Vesta", done.stderr)


if __name__ == "__main__":
    unittest.main()
