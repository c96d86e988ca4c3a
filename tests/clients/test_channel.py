"""What `--grpc_channel_arguments` changes, seen by unmodified clients; compression both ways."""

import socket
import threading
import time
import unittest

import grpc
from tensorflow_serving.apis import prediction_service_pb2_grpc

from server import Server
from test_flags import predict_request
from test_program import WithModels, predict, run, wait_for


def stub_of(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


class ChannelTest(WithModels):
    def setUp(self):
        super().setUp()
        self.put(1)

    def start(self, arguments="", *more):
        server = Server(*self.flags(f"--grpc_channel_arguments={arguments}", *more))
        self.addCleanup(server.__exit__)
        return server

    def channel(self, server, *options, **more):
        channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", options=options, **more)
        self.addCleanup(channel.close)
        return channel

    def states(self, channel):
        """The states of a channel as they come."""
        seen = []
        channel.subscribe(seen.append, try_to_connect=True)
        self.assertTrue(wait_for(lambda: grpc.ChannelConnectivity.READY in seen))
        return seen

    def status_of(self, call):
        with self.assertRaises(grpc.RpcError) as caught:
            call()
        return caught.exception.code(), caught.exception.details()

    def test_old_connections_end_and_no_call_is_lost(self):
        server = self.start("grpc.max_connection_age_ms=400,grpc.max_connection_age_grace_ms=500")
        channel = self.channel(server)
        seen = self.states(channel)
        stub, end = stub_of(channel), time.monotonic() + 1.5
        while time.monotonic() < end:
            self.assertEqual(
                list(stub.Predict(predict_request([2.0]), timeout=5).outputs["y"].float_val), [3.0])
        self.assertGreaterEqual(seen.count(grpc.ChannelConnectivity.IDLE), 3, seen)
        self.assertNotIn(grpc.ChannelConnectivity.TRANSIENT_FAILURE, seen)

    def test_idle_connections_end(self):
        server = self.start("grpc.max_connection_idle_ms=300")
        channel = self.channel(server)
        seen = self.states(channel)
        stub = stub_of(channel)
        for _ in range(6):
            stub.Predict(predict_request([2.0]), timeout=5)
            time.sleep(0.1)
        self.assertEqual(seen[-1], grpc.ChannelConnectivity.READY, "calls keep it open")
        self.assertTrue(wait_for(lambda: seen[-1] == grpc.ChannelConnectivity.IDLE, 5))
        stub.Predict(predict_request([2.0]), timeout=5)

    def test_frequent_pings_are_borne(self):
        server = self.start()
        channel = self.channel(server, ("grpc.keepalive_time_ms", 100),
                               ("grpc.keepalive_permit_without_calls", 1),
                               ("grpc.http2.max_pings_without_data", 0))
        seen = self.states(channel)
        time.sleep(1)
        stub_of(channel).Predict(predict_request([2.0]), timeout=5)
        self.assertEqual(seen[-1], grpc.ChannelConnectivity.READY)

    def test_a_client_that_answers_no_ping_is_cut(self):
        server = self.start("grpc.keepalive_time_ms=200,grpc.keepalive_timeout_ms=200")
        with socket.create_connection(("127.0.0.1", server.grpc_port), timeout=5) as raw:
            raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0")
            started = time.monotonic()
            while raw.recv(4096):
                pass
            self.assertLess(time.monotonic() - started, 4)

    def test_limits_of_messages(self):
        server = self.start("grpc.max_receive_message_length=1000,grpc.max_send_message_length=500")
        stub = stub_of(self.channel(server))
        stub.Predict(predict_request([2.0]), timeout=5)
        code, text = self.status_of(lambda: stub.Predict(predict_request([2.0] * 500), timeout=5))
        self.assertEqual(code, grpc.StatusCode.RESOURCE_EXHAUSTED)
        self.assertRegex(text, r"^SERVER: Received message larger than max \(\d+ vs\. 1000\)$")
        code, text = self.status_of(lambda: stub.Predict(predict_request([2.0] * 200), timeout=5))
        self.assertEqual(code, grpc.StatusCode.RESOURCE_EXHAUSTED)
        self.assertRegex(text, r"^SERVER: Sent message larger than max \(\d+ vs\. 500\)$")

    def test_limit_of_metadata(self):
        def outcome(server, size):
            stub = stub_of(self.channel(server))
            try:
                stub.Predict(predict_request([2.0]), timeout=5, metadata=[("big", "x" * size)])
                return grpc.StatusCode.OK
            except grpc.RpcError as error:
                return error.code()
        narrow, usual = self.start("grpc.max_metadata_size=4000"), self.start()
        self.assertEqual(outcome(narrow, 1000), grpc.StatusCode.OK)
        self.assertNotEqual(outcome(narrow, 6000), grpc.StatusCode.OK)
        self.assertEqual(outcome(usual, 6000), grpc.StatusCode.OK)

    def test_answers_are_compressed_when_asked_for(self):
        values = [2.0] * 20_000
        answers = {}
        for algorithm in (0, 1, 2):
            server = self.start(f"grpc.default_compression_algorithm={algorithm}")
            with Relay(server.grpc_port) as relay:
                with grpc.insecure_channel(f"127.0.0.1:{relay.port}") as channel:
                    call = stub_of(channel).Predict.with_call(predict_request(values), timeout=10)
                    self.assertEqual(list(call[0].outputs["y"].float_val), [3.0] * len(values))
                answers[algorithm] = relay.received
        self.assertGreater(answers[0], 80_000)
        for algorithm in (1, 2):
            self.assertLess(answers[algorithm], 8_000)

    def test_compressed_requests_are_taken(self):
        server = self.start()
        for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            channel = self.channel(server, compression=compression)
            answer = stub_of(channel).Predict(predict_request([2.0] * 1000), timeout=10)
            self.assertEqual(list(answer.outputs["y"].float_val), [3.0] * 1000)

    def test_health_by_short_and_full_names(self):
        def health(channel, name):
            call = channel.unary_unary("/grpc.health.v1.Health/Check")
            return call(b"\x0a" + bytes([len(name)]) + name if name else b"", timeout=5)
        channel = self.channel(self.start("", "--enable_grpc_healthcheck_service"))
        for name in (b"", b"ModelService", b"PredictionService", b"tensorflow.serving.ModelService",
                     b"tensorflow.serving.PredictionService"):
            self.assertEqual(health(channel, name), b"\x08\x01", name)
        self.assertEqual(self.status_of(lambda: health(channel, b"nobody")),
                         (grpc.StatusCode.NOT_FOUND, "service name unknown"))
        channel = self.channel(self.start())
        self.assertEqual(self.status_of(lambda: health(channel, b"")),
                         (grpc.StatusCode.UNIMPLEMENTED, ""))

    def test_junk_is_told_and_passed_over(self):
        server = self.start("junk,a=b=c,grpc.max_concurrent_streams=many,grpc.so_reuseport=1")
        self.assertEqual(predict(server, [2.0]), [3.0])
        self.assertIn("--grpc_channel_arguments: junk cannot be used and is passed over", server.log())
        self.assertIn("grpc.max_concurrent_streams=many cannot be used", server.log())

    def test_a_second_server_shares_the_port_unless_told_otherwise(self):
        first = self.start()
        with Server(*self.flags(f"--port={first.grpc_port}")) as second:
            self.assertIn(f"Running gRPC ModelServer at 0.0.0.0:{first.grpc_port} ...", second.log())
        done = run(f"--port={first.grpc_port}", *self.flags(
            "--grpc_channel_arguments=grpc.so_reuseport=0"))
        self.assertEqual((done.returncode, done.stdout), (
            255, "Failed to start server. Error: INVALID_ARGUMENT: Failed to BuildAndStart gRPC "
            "server\n"))
        alone = self.start("grpc.so_reuseport=0")
        done = run(f"--port={alone.grpc_port}", *self.flags())
        self.assertEqual(done.returncode, 255)


class Relay:
    """Passes a connection on and counts what comes back."""

    def __init__(self, port):
        self.target, self.received = port, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.ends = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.target))
            self.ends += [near, far]
            threading.Thread(target=self.pump, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self.pump, args=(far, near, True), daemon=True).start()

    def pump(self, source, sink, counted):
        try:
            while data := source.recv(1 << 16):
                if counted:
                    self.received += len(data)
                sink.sendall(data)
        except OSError:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for end in (self.listener, *self.ends):
            end.close()


if __name__ == "__main__":
    unittest.main()
