"""Server reflection, asked by the client that comes with gRPC's Python."""

import threading
import time
import unittest

import grpc
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase)
from tensorflow_serving.apis import predict_pb2

from server import Server
from test_program import WithModels

ALWAYS = {"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
          "tensorflow.serving.ModelService", "tensorflow.serving.PredictionService"}


class ReflectionTest(WithModels):
    def setUp(self):
        super().setUp()
        self.put(1)

    def channel(self, server):
        channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}")
        self.addCleanup(channel.close)
        return channel

    def ask(self, channel, version="v1alpha", **question):
        """One answer; the messages of both versions are the same."""
        call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString)
        return next(call(iter([reflection_pb2.ServerReflectionRequest(**question)]), timeout=10))

    def services(self, channel, version):
        answer = self.ask(channel, version, list_services="")
        return {service.name for service in answer.list_services_response.service}

    def test_services_that_are_served_are_listed(self):
        with Server(*self.flags("--enable_profiler=false")) as server:
            for version in ("v1", "v1alpha"):
                self.assertEqual(self.services(self.channel(server), version), ALWAYS)
        with Server(*self.flags("--enable_grpc_healthcheck_service")) as server:
            self.assertEqual(self.services(self.channel(server), "v1"),
                             ALWAYS | {"grpc.health.v1.Health", "tensorflow.ProfilerService"})

    def test_a_client_that_knows_no_message_can_call(self):
        with Server(*self.flags()) as server:
            channel = self.channel(server)
            database = ProtoReflectionDescriptorDatabase(channel)
            self.assertIn("tensorflow.serving.PredictionService", database.get_services())
            pool = DescriptorPool(database)
            service = pool.FindServiceByName("tensorflow.serving.PredictionService")
            method = service.FindMethodByName("Predict")
            request = GetMessageClass(method.input_type)()
            request.model_spec.name = "m"
            request.inputs["x"].dtype = 1
            request.inputs["x"].tensor_shape.dim.add().size = 2
            request.inputs["x"].float_val.extend([1.0, 2.0])
            answers = GetMessageClass(method.output_type)
            call = channel.unary_unary(f"/{service.full_name}/{method.name}",
                                       request_serializer=lambda message: message.SerializeToString(),
                                       response_deserializer=answers.FromString)
            self.assertEqual(list(call(request, timeout=10).outputs["y"].float_val), [2.5, 3.0])

    def test_files_are_the_originals(self):
        name = "tensorflow_serving/apis/predict.proto"
        with Server(*self.flags()) as server:
            answer = self.ask(self.channel(server), file_by_filename=name)
            encoded, = answer.file_descriptor_response.file_descriptor_proto
        ours = descriptor_pb2.FileDescriptorProto.FromString(encoded)
        theirs = descriptor_pb2.FileDescriptorProto()
        predict_pb2.DESCRIPTOR.CopyToProto(theirs)

        def fields(file):
            return {(message.name, field.name, field.number, field.type, field.type_name)
                    for message in file.message_type for field in message.field}
        self.assertEqual((ours.name, ours.package), (theirs.name, theirs.package))
        self.assertEqual(fields(ours), fields(theirs))

    def test_an_unknown_name_is_not_found(self):
        with Server(*self.flags()) as server:
            for question in ({"file_containing_symbol": "no.such.Thing"},
                             {"file_by_filename": "onnx/onnx.proto"}):
                with self.assertRaises(grpc.RpcError) as caught:
                    self.ask(self.channel(server), **question)
                self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)

    def test_a_conversation_that_stays_open_ends_with_the_server(self):
        with Server(*self.flags()) as server:
            done = threading.Event()
            self.addCleanup(done.set)

            def questions():
                yield reflection_pb2.ServerReflectionRequest(list_services="")
                done.wait(20)
            stub = reflection_pb2_grpc.ServerReflectionStub(self.channel(server))
            answers = stub.ServerReflectionInfo(questions())
            next(answers)
            started = time.monotonic()
            self.assertEqual(server.stop(), 0)
            self.assertLess(time.monotonic() - started, 5)


if __name__ == "__main__":
    unittest.main()
