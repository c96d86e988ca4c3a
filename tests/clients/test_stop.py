"""The end of the built program: signals, the drain, and life as the first process of a container."""

import os
import pathlib
import shutil
import signal
import subprocess
import time
import unittest

import grpc

from server import BIN, STRICT, Server, can_connect, free_port, quiet_free
from test_program import WithModels, ask, children_of, predict, states, wait_for

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


def health(channel):
    return channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)


def state_of(pid):
    """The kernel's letter for the state of a process, and its name; None when it is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rsplit(")", 1)[1].split()[0], text.split("(", 1)[1].rsplit(")", 1)[0]


def descendants_of(pid):
    found = []
    for child in children_of(pid):
        found += [child, *descendants_of(child)]
    return found


class StopTest(WithModels):
    def test_signals_end_with_0(self):
        self.put(1)
        for number in (signal.SIGTERM, signal.SIGINT):
            with Server(*self.flags()) as server:
                self.assertEqual(server.stop(number), 0)

    def test_before_ready_it_ends_at_once(self):
        with Server("--model_base_path=/nonexistent", "--drain_delay=60", wait=False) as server:
            self.assertTrue(wait_for(lambda: "Could not find base path" in server.log()))
            started = time.monotonic()
            self.assertEqual(server.stop(), 0)
            self.assertLess(time.monotonic() - started, 5)

    def test_it_serves_on_for_the_delay_and_is_not_ready(self):
        self.put(1)
        flags = self.flags("--drain_delay=2", "--enable_grpc_healthcheck_service")
        with Server(*flags) as server, \
                grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            self.assertEqual(health(channel), SERVING)
            self.assertEqual(ask(server, "GET", "/readyz")[0], 200)
            changes = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=20)
            self.assertEqual(next(changes), SERVING)
            started = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(next(changes), NOT_SERVING)
            self.assertLess(time.monotonic() - started, 1)
            self.assertEqual(health(channel), NOT_SERVING)
            status, text = ask(server, "GET", "/readyz")
            self.assertEqual(status, 503)
            self.assertIn("the server is shutting down", text)
            self.assertEqual(ask(server, "GET", "/healthz")[0], 200)
            answered = 0
            while time.monotonic() - started < 1.5:
                # Each on a connection of its own.
                self.assertEqual(predict(server, [2.0]), [3.0])
                answered += 1
            self.assertGreater(answered, 5)
            self.assertEqual(server.process.wait(20), 0)
            self.assertGreater(time.monotonic() - started, 1.9)
            self.assertFalse(can_connect(server.rest_port) or can_connect(server.grpc_port))

    def test_the_delay_is_five_seconds_unless_told_otherwise(self):
        usage = subprocess.run([BIN / "tensorflow_model_server", "--help"], capture_output=True,
                               text=True, env=quiet_free()).stdout
        for setting in ("--drain_delay=5s", "--drain_timeout=20s", "--startup_wait=10s",
                        "--strict_startup=false"):
            self.assertIn(setting, usage)

    def test_a_second_signal_ends_at_once(self):
        self.put(1)
        with Server(*self.flags("--drain_delay=60")) as server:
            server.process.send_signal(signal.SIGTERM)
            self.assertTrue(wait_for(lambda: "SIGTERM: no longer ready" in server.log()))
            started = time.monotonic()
            self.assertEqual(server.stop(signal.SIGINT), 0)
            self.assertLess(time.monotonic() - started, 2)


class FirstProcessTest(WithModels):
    """Under PID 1 of a PID namespace, as in a container without an init of its own."""

    def setUp(self):
        super().setUp()
        probe = None
        if shutil.which("unshare"):
            probe = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"],
                                   capture_output=True, text=True)
        if probe is None or probe.returncode != 0:
            reason = "no PID namespace can be made here: " + (
                "unshare is missing" if probe is None else probe.stderr.strip())
            if STRICT and os.geteuid() == 0 and probe is None:
                raise AssertionError(reason)
            self.skipTest(reason)

    def start(self, *flags, before=""):
        self.ports = free_port(), free_port()
        words = [str(BIN / "tensorflow_model_server"), f"--port={self.ports[0]}",
                 f"--rest_api_port={self.ports[1]}", "--drain_delay=0", *self.flags(*flags)]
        log = open(self.base.parent / "log", "wb")
        self.addCleanup(log.close)
        outer = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
             f'{before} exec "$@"', "sh", *words],
            stdout=subprocess.DEVNULL, stderr=log, env=quiet_free())
        self.addCleanup(outer.wait)
        self.addCleanup(outer.kill)
        self.rest_port = self.ports[1]
        self.assertTrue(wait_for(lambda: can_connect(self.rest_port)), self.log())
        first, = children_of(outer.pid)
        return outer, first

    def log(self):
        return (self.base.parent / "log").read_text()

    def test_orphans_are_reaped_and_workers_are_replaced(self):
        self.put(1)
        # The first sleep is a child that the program inherits; the second becomes an orphan of it.
        outer, first = self.start("--isolation=worker",
                                  before="sleep 0.1 & sh -c 'sleep 0.2 & :';")
        self.assertEqual(predict(self, [2.0]), [3.0])

        def zombies():
            return [pid for pid in descendants_of(first) if (state_of(pid) or "?")[0] == "Z"]
        self.assertTrue(wait_for(
            lambda: not any((state_of(pid) or "??")[1] == "sleep" for pid in descendants_of(first)),
            5), self.log())
        server, = children_of(first)
        worker, = children_of(server)
        for _ in range(2):
            os.kill(worker, signal.SIGKILL)
            self.assertTrue(wait_for(lambda: [p for p in children_of(server) if p != worker]))

            def answers():
                try:
                    return predict(self, [2.0]) == [3.0]
                except AssertionError as problem:
                    self.assertRegex(str(problem), "^503: ")
                    return False
            self.assertTrue(wait_for(answers), self.log())
            worker, = [pid for pid in children_of(server) if pid != worker]
        self.assertEqual(zombies(), [])
        # How a worker ended is known, so nobody else reaped it.
        self.assertIn("signal 9", self.log())
        self.assertNotIn("in an unknown way", self.log())
        os.kill(first, signal.SIGTERM)
        self.assertEqual(outer.wait(20), 0)

    def test_signals_and_exit_codes_pass_through(self):
        self.put(1)
        outer, first = self.start("--drain_delay=60")
        self.assertEqual(states(self), {"1": "AVAILABLE"})
        os.kill(first, signal.SIGINT)
        self.assertTrue(wait_for(lambda: "SIGINT: no longer ready" in self.log()), self.log())
        os.kill(first, signal.SIGTERM)
        self.assertEqual(outer.wait(5), 0)
        failed = subprocess.run(
            ["unshare", "--pid", "--fork", "--mount-proc", BIN / "tensorflow_model_server",
             f"--port={free_port()}", "--model_base_path=relative"],
            capture_output=True, text=True, env=quiet_free(), timeout=20)
        self.assertEqual(failed.returncode, 255)
        self.assertTrue(failed.stdout.startswith("Failed to start server. Error: "), failed.stdout)


if __name__ == "__main__":
    unittest.main()
