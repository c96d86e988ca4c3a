"""ProfilerService, asked by TensorFlow's own profiler client."""

import threading
import time
import unittest

import grpc
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from server import Server
from test_flags import predict_over_grpc
from test_program import WithModels, ask, predict, wait_for


class ProfilerTest(WithModels):
    def setUp(self):
        super().setUp()
        self.put(1)
        self.logs = self.base.parent / "logs"

    def start(self, *flags):
        server = Server(*self.flags(*flags))
        self.addCleanup(server.__exit__)
        return server

    def traces(self):
        found = []
        for path in self.logs.rglob("*.xplane.pb"):
            found.append(xplane_pb2.XSpace.FromString(path.read_bytes()))
        return found

    def events(self, space):
        """The titles of all events with the lines that they are on, and what they say of themselves."""
        plane, = space.planes
        self.assertEqual(plane.name, "/host:CPU")
        for line in plane.lines:
            end = 0
            for event in line.events:
                self.assertGreaterEqual(event.offset_ps, end, "events of a line do not overlap")
                end = event.offset_ps + event.duration_ps
                self.assertLessEqual(end, line.duration_ps)
                stats = {plane.stat_metadata[stat.metadata_id].name: stat.str_value
                         for stat in event.stats}
                yield plane.event_metadata[event.metadata_id].name, line.name, stats

    def test_a_trace_holds_the_calls_of_its_time(self):
        server = self.start()
        stop = threading.Event()
        self.addCleanup(stop.set)

        def calls():
            while not stop.is_set():
                predict(server, [2.0])
                predict_over_grpc(f"127.0.0.1:{server.grpc_port}", [2.0])
        threading.Thread(target=calls, daemon=True).start()
        tf.profiler.experimental.client.trace(
            f"127.0.0.1:{server.grpc_port}", str(self.logs), duration_ms=600,
            num_tracing_attempts=3)
        stop.set()
        space, = self.traces()
        titles = {title for title, _, _ in self.events(space)}
        self.assertEqual(titles, {"predict m", "Predict m", "run m:serving_default"})
        for title, line, stats in self.events(space):
            kind = {"predict m": "REST calls", "Predict m": "gRPC calls"}.get(title, "runs")
            self.assertTrue(line.startswith(kind), (title, line))
            self.assertEqual(stats["model"], "m")
        self.assertEqual(server.stop(), 0)

    def test_nothing_to_trace_is_an_empty_trace(self):
        server = self.start()
        # The class of the error depends on the release.
        with self.assertRaisesRegex(Exception, "No trace event was collected"):
            tf.profiler.experimental.client.trace(
                f"127.0.0.1:{server.grpc_port}", str(self.logs), duration_ms=50,
                num_tracing_attempts=1)
        self.assertEqual(self.traces(), [])

    def raw(self, server, method, message=b"", seconds=10):
        """A call with a message that was encoded by hand, since no package has these messages."""
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            call = channel.unary_unary(f"/tensorflow.ProfilerService/{method}")
            return call(message, timeout=seconds)

    def test_a_profile_ends_when_it_is_terminated_and_only_one_is_on(self):
        server = self.start()
        # duration_ms: 30000, session_id: "mine"
        request = b"\x08\xb0\xea\x01" + b"\x32\x04mine"
        outcome = []
        started = time.monotonic()
        profile = threading.Thread(
            target=lambda: outcome.append(self.raw(server, "Profile", request, 40)))
        profile.start()
        time.sleep(0.5)

        def second():
            try:
                self.raw(server, "Profile", b"\x08\x01")
            except grpc.RpcError as error:
                return error.code()
        self.assertEqual(second(), grpc.StatusCode.ALREADY_EXISTS)
        self.raw(server, "Terminate", b"\x0a\x05other")
        time.sleep(0.2)
        self.assertEqual(outcome, [])
        self.raw(server, "Terminate", b"\x0a\x04mine")
        profile.join(10)
        self.assertLess(time.monotonic() - started, 15)
        self.assertEqual(len(outcome), 1)

    def test_a_profile_ends_with_its_client_and_with_the_server(self):
        server = self.start()
        with self.assertRaises(grpc.RpcError) as caught:
            self.raw(server, "Profile", b"\x08\xb0\xea\x01", seconds=0.3)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        # The next one may begin.
        self.assertTrue(wait_for(lambda: self.raw(server, "Profile", b"\x08\x01") is not None))
        outcome = []
        profile = threading.Thread(
            target=lambda: outcome.append(self.raw(server, "Profile", b"\x08\xb0\xea\x01", 40)))
        profile.start()
        time.sleep(0.3)
        started = time.monotonic()
        self.assertEqual(server.stop(), 0)
        profile.join(10)
        self.assertLess(time.monotonic() - started, 5)
        self.assertEqual(len(outcome), 1)

    def test_monitor_tells_the_figures(self):
        server = self.start()
        for _ in range(3):
            predict(server, [2.0])
        ask(server, "POST", "/v1/models/m:predict", "{")
        text = tf.profiler.experimental.client.monitor(
            f"127.0.0.1:{server.grpc_port}", duration_ms=50, level=1)
        self.assertIn("models ready: 1, not ready: 0\n", text)
        self.assertIn("m: 0 calls answered, 0 failed in 50 ms (3 and 1 since the start)\n", text)

    def test_it_can_be_turned_off(self):
        server = self.start("--enable_profiler=false")
        for method in ("Profile", "Terminate", "Monitor"):
            with self.assertRaises(grpc.RpcError) as caught:
                self.raw(server, method)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNIMPLEMENTED)


if __name__ == "__main__":
    unittest.main()
