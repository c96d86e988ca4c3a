"""TLS on the gRPC port and socket, with real secure channels and certificates made for the test."""

import datetime
import socket
import ssl
import unittest

import grpc
from tensorflow_serving.apis import prediction_service_pb2_grpc

from certificates import Authority, ssl_config
from server import Server
from test_flags import predict_request
from test_program import WithModels, predict, run


def ask(target, credentials, options=(), seconds=10):
    """The answer to a Predict over a secure channel."""
    with grpc.secure_channel(target, credentials, options=options) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        answer = stub.Predict(predict_request([2.0]), timeout=seconds)
        return list(answer.outputs["y"].float_val)


class TlsTest(WithModels):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.authority = Authority()
        cls.trusting = grpc.ssl_channel_credentials(cls.authority.pem)

    def file(self, *parts, **more):
        path = self.base.parent / "ssl.config"
        path.write_text(ssl_config(*parts, **more))
        return f"--ssl_config_file={path}"

    def refused(self, target, credentials):
        with self.assertRaises(grpc.RpcError) as caught:
            ask(target, credentials, seconds=3)
        self.assertIn(caught.exception.code(),
                      (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED))

    def test_calls_go_over_tls_and_nothing_else(self):
        self.put(1)
        for kind in ("ec", "rsa"):
            flag = self.file(*self.authority.server(kind=kind))
            with Server(*self.flags(flag)) as server:
                target = f"localhost:{server.grpc_port}"
                self.assertEqual(ask(target, self.trusting), [3.0])
                self.assertEqual(predict(server, [2.0]), [3.0], "REST stays as it is")
                self.refused(target, grpc.ssl_channel_credentials(Authority().pem))
                with grpc.insecure_channel(target) as channel:
                    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                    with self.assertRaises(grpc.RpcError) as caught:
                        stub.Predict(predict_request([2.0]), timeout=3)
                    self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
                self.assertEqual(server.stop(), 0)

    def test_large_messages_and_many_connections(self):
        self.put(1)
        values = [float(i % 100) for i in range(500_000)]
        with Server(*self.flags(self.file(*self.authority.server()))) as server:
            for _ in range(3):
                with grpc.secure_channel(
                        f"localhost:{server.grpc_port}", self.trusting,
                        options=[("grpc.max_receive_message_length", -1)]) as channel:
                    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                    answer = stub.Predict(predict_request(values), timeout=20)
                    got = list(answer.outputs["y"].float_val)
                    self.assertEqual(got[:3] + got[-1:], [2.0, 2.5, 3.0, 51.5])

    def test_both_sides_agree_upon_http2(self):
        self.put(1)
        trusting = ssl.create_default_context(cadata=self.authority.pem.decode())
        trusting.set_alpn_protocols(["h2"])
        with Server(*self.flags(self.file(*self.authority.server()))) as server:
            address = ("localhost", server.grpc_port)
            with socket.create_connection(address, timeout=5) as raw:
                with trusting.wrap_socket(raw, server_hostname="localhost") as private:
                    self.assertEqual(private.selected_alpn_protocol(), "h2")
                    self.assertIn(private.version(), ("TLSv1.2", "TLSv1.3"))

    def test_who_is_slow_in_the_handshake_holds_up_nobody(self):
        self.put(1)
        with Server(*self.flags(self.file(*self.authority.server()))) as server:
            slow = [socket.create_connection(("localhost", server.grpc_port)) for _ in range(20)]
            slow[0].sendall(b"\x16\x03\x01")
            slow[1].sendall(b"GET / HTTP/1.1\r\n\r\n")
            self.assertEqual(ask(f"localhost:{server.grpc_port}", self.trusting), [3.0])
            self.assertEqual(server.stop(), 0)
            for connection in slow:
                connection.close()

    def test_the_socket_is_encrypted_too(self):
        self.put(1)
        path = self.base.parent / "grpc.sock"
        flag = self.file(*self.authority.server())
        override = [("grpc.ssl_target_name_override", "localhost")]
        with Server(*self.flags(flag, f"--grpc_socket_path={path}")):
            self.assertEqual(ask(f"unix:{path}", self.trusting, options=override), [3.0])
            with grpc.insecure_channel(f"unix:{path}") as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                with self.assertRaises(grpc.RpcError):
                    stub.Predict(predict_request([2.0]), timeout=3)

    def test_clients_must_show_a_certificate_of_the_authority(self):
        self.put(1)
        clients = Authority("authority of clients")
        flag = self.file(*self.authority.server(), ca=clients.pem, verify=True)
        with Server(*self.flags(flag)) as server:
            target = f"localhost:{server.grpc_port}"
            mine = grpc.ssl_channel_credentials(self.authority.pem, *clients.client())
            self.assertEqual(ask(target, mine), [3.0])
            self.refused(target, self.trusting)
            for key, certificate in (
                    Authority("authority of clients").client(), self.authority.client(),
                    clients.client(age=datetime.timedelta(days=30))):
                self.refused(target, grpc.ssl_channel_credentials(
                    self.authority.pem, key, certificate))
            self.assertEqual(ask(target, mine), [3.0])

    def test_without_client_verify_nobody_is_asked_for_one(self):
        self.put(1)
        flag = self.file(*self.authority.server(), ca=Authority().pem)
        with Server(*self.flags(flag)) as server:
            self.assertEqual(ask(f"localhost:{server.grpc_port}", self.trusting), [3.0])
            self.assertIn("custom_ca of ", server.log())


class RefusedTest(WithModels):
    """Starts that end before a port opens."""

    def outcome(self, text, *more):
        path = self.base.parent / "ssl.config"
        path.write_text(text)
        done = run(*self.flags(f"--ssl_config_file={path}", *more))
        self.assertEqual(done.returncode, 255)
        self.assertNotIn("Running gRPC ModelServer", done.stderr)
        return done.stdout.replace(str(path), "FILE"), done.stderr

    def test_what_is_wrong_is_said_before_a_port_opens(self):
        self.put(1)
        authority = Authority()
        (key, certificate), (other, _) = authority.server(), authority.server()
        head = "Failed to start server. Error: INVALID_ARGUMENT: FILE: "
        for text, want in (
                (ssl_config(b"/etc/key.pem", certificate), "server_key must hold a private key in PEM"),
                (ssl_config(key, b"/etc/cert.pem"), "server_cert must hold a certificate in PEM form"),
                (ssl_config(other, certificate), "server_key does not belong to the first certificate"),
                (ssl_config(key, certificate, verify=True), "custom_ca must hold a certificate"),
                ("", "FILE; Invalid argument")):
            out, _ = self.outcome(text)
            self.assertTrue(out.startswith((head + want, head.replace("FILE: ", "") + want)), out)
        out, log = self.outcome("server_key: 1")
        self.assertIn("INVALID_ARGUMENT: Invalid protobuf file: 'FILE'", out)
        self.assertIn("Error parsing text-format tensorflow.serving.SSLConfig: 1:13: ", log)

    def test_a_missing_file(self):
        done = run(*self.flags("--ssl_config_file=/nonexistent"))
        self.assertEqual((done.returncode, done.stdout), (
            255, "Failed to start server. Error: NOT_FOUND: /nonexistent; No such file or directory\n"))

    def test_alts(self):
        done = run(*self.flags("--use_alts_credentials"))
        self.assertEqual(done.returncode, 255)
        self.assertIn("Error: UNIMPLEMENTED: --use_alts_credentials: ALTS works between", done.stdout)
        done = run(*self.flags("--use_alts_credentials", "--ssl_config_file=/nonexistent"))
        self.assertEqual((done.returncode, done.stdout), (
            255, "Failed to start server. Error: INVALID_ARGUMENT: Either use_alts_credentials must be "
            "false or ssl_config_file must be empty.\n"))

    def test_a_flag_that_was_meant_to_encrypt_is_not_passed_over(self):
        for words in (("--ssl_config_file", "/f"), ("--ssl-config-file=/f",), ("-ssl_config_file=/f",)):
            done = run(*self.flags(*words))
            self.assertEqual(done.returncode, 255)
            self.assertIn("write --ssl_config_file=FILE", done.stdout)


if __name__ == "__main__":
    unittest.main()
