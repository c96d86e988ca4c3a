"""The unmodified `tensorflow-serving-api` client against the built program."""

import pathlib
import tempfile
import time
import unittest

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import wrappers_pb2
from tensorflow_serving.apis import (
    classification_pb2, get_model_metadata_pb2, get_model_status_pb2, inference_pb2,
    model_management_pb2, model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc,
    regression_pb2)

from server import SHARED, STRICT, Server

TESTDATA = SHARED / "tfs-testdata"
TF1 = "saved_model_half_plus_two_cpu"
TF2 = "saved_model_half_plus_two_tf2_cpu"


def example(**features):
    return tf.train.Example(features=tf.train.Features(feature={
        name: tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        for name, value in features.items()}))


class Calls:
    """Every call of both services; subclasses say which model and which channel."""

    model = TF1
    socket = False

    @classmethod
    def setUpClass(cls):
        if not TESTDATA.is_dir():
            if STRICT:
                raise AssertionError(f"test models are missing: {TESTDATA}")
            raise unittest.SkipTest(f"test models are missing: {TESTDATA}")
        cls.folder = tempfile.TemporaryDirectory()
        flags = ["--model_name=default", f"--model_base_path={TESTDATA / cls.model}"]
        path = pathlib.Path(cls.folder.name) / "grpc.sock"
        if cls.socket:
            flags.append(f"--grpc_socket_path={path}")
        cls.server = Server(*flags)
        target = f"unix:{path}" if cls.socket else f"127.0.0.1:{cls.server.grpc_port}"
        cls.channel = grpc.insecure_channel(target)
        cls.predictions = prediction_service_pb2_grpc.PredictionServiceStub(cls.channel)
        cls.models = model_service_pb2_grpc.ModelServiceStub(cls.channel)

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()
        code = cls.server.stop()
        cls.server.__exit__()
        cls.folder.cleanup()
        assert code == 0, f"the server ended with {code}"

    def predict(self, values, **tensor):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "default"
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(values, **tensor))
        return self.predictions.Predict(request, timeout=10)

    def status_of(self, call):
        with self.assertRaises(grpc.RpcError) as caught:
            call()
        return caught.exception.code(), caught.exception.details()

    def test_predict(self):
        for values in ([2.0], [1.0, 2.0, 5.0], [[1.0, 2.0], [3.0, 4.0]], 7.0):
            answer = self.predict(values, dtype=tf.float32)
            np.testing.assert_array_equal(
                tf.make_ndarray(answer.outputs["y"]), np.asarray(values, np.float32) / 2 + 2)
            self.assertEqual(list(answer.outputs["y"].float_val)[:1],
                             [np.ravel(values)[0] / 2 + 2])
            self.assertEqual(answer.model_spec.name, "default")
            self.assertEqual(answer.model_spec.signature_name, "serving_default")
            self.assertEqual(answer.model_spec.version.value, 123)

    def test_predict_nothing(self):
        answer = self.predict(np.zeros([0], np.float32))
        self.assertEqual(tf.make_ndarray(answer.outputs["y"]).shape, (0,))

    def test_predict_large(self):
        values = np.arange(2_000_000, dtype=np.float32)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "default"
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(values))
        options = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(f"127.0.0.1:{self.server.grpc_port}", options=options) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            answer = stub.Predict(request, timeout=30)
        np.testing.assert_array_equal(
            np.asarray(answer.outputs["y"].float_val, np.float32), values / 2 + 2)

    def test_predict_compressed(self):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "default"
        request.inputs["x"].CopyFrom(tf.make_tensor_proto([2.0] * 1000))
        for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            answer = self.predictions.Predict(request, timeout=10, compression=compression)
            self.assertEqual(answer.outputs["y"].float_val[999], 3.0)

    def test_predict_errors(self):
        code, details = self.status_of(lambda: self.predict([1.0], dtype=tf.float64))
        self.assertEqual(code, grpc.StatusCode.INVALID_ARGUMENT)
        self.assertIn("to be float but double is provided", details)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "intentionally_missing_model"
        code, details = self.status_of(lambda: self.predictions.Predict(request, timeout=10))
        self.assertEqual(code, grpc.StatusCode.NOT_FOUND)
        self.assertIn("Servable", details)

    def test_classify(self):
        request = classification_pb2.ClassificationRequest()
        request.model_spec.name = "default"
        request.model_spec.signature_name = "classify_x_to_y"
        request.input.example_list.examples.extend([example(x=2.0), example(x=4.0)])
        answer = self.predictions.Classify(request, timeout=10)
        scores = [c.classes[0].score for c in answer.result.classifications]
        self.assertEqual(scores, [3.0, 4.0])
        self.assertEqual(answer.model_spec.signature_name, "classify_x_to_y")

    def test_classify_with_context(self):
        request = classification_pb2.ClassificationRequest()
        request.model_spec.name = "default"
        request.model_spec.signature_name = "classify_x_to_y"
        request.input.example_list_with_context.context.CopyFrom(example(x=6.0))
        request.input.example_list_with_context.examples.extend([tf.train.Example(), example(x=2.0)])
        answer = self.predictions.Classify(request, timeout=10)
        scores = [c.classes[0].score for c in answer.result.classifications]
        self.assertEqual(scores, [5.0, 3.0])

    def test_classify_nothing(self):
        request = classification_pb2.ClassificationRequest()
        request.model_spec.name = "default"
        request.model_spec.signature_name = "classify_x_to_y"
        code, details = self.status_of(lambda: self.predictions.Classify(request, timeout=10))
        self.assertEqual((code, details), (grpc.StatusCode.INVALID_ARGUMENT, "Input is empty."))

    def test_regress(self):
        request = regression_pb2.RegressionRequest()
        request.model_spec.name = "default"
        request.model_spec.signature_name = "regress_x_to_y"
        request.input.example_list.examples.extend([example(x=2.0)])
        answer = self.predictions.Regress(request, timeout=10)
        self.assertEqual([r.value for r in answer.result.regressions], [3.0])
        self.assertEqual(answer.model_spec.version.value, 123)

    def test_multi_inference(self):
        request = inference_pb2.MultiInferenceRequest()
        for method in ("regress", "classify"):
            task = request.tasks.add()
            task.model_spec.name = "default"
            task.model_spec.signature_name = f"{method}_x_to_y"
            task.method_name = f"tensorflow/serving/{method}"
        request.input.example_list.examples.extend([example(x=2.0)])
        answer = self.predictions.MultiInference(request, timeout=10)
        self.assertEqual(answer.results[0].regression_result.regressions[0].value, 3.0)
        classes = answer.results[1].classification_result.classifications[0].classes
        self.assertEqual(classes[0].score, 3.0)

    def test_metadata(self):
        request = get_model_metadata_pb2.GetModelMetadataRequest()
        request.model_spec.name = "default"
        request.metadata_field.append("signature_def")
        answer = self.predictions.GetModelMetadata(request, timeout=10)
        self.assertEqual(answer.model_spec.version.value, 123)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        self.assertTrue(answer.metadata["signature_def"].Unpack(signatures))
        served = signatures.signature_def["serving_default"]
        self.assertEqual(served.inputs["x"].dtype, tf.float32.as_datatype_enum)
        request.metadata_field[0] = "nothing"
        code, details = self.status_of(
            lambda: self.predictions.GetModelMetadata(request, timeout=10))
        self.assertEqual(details, "Metadata field nothing is not supported")

    def test_status(self):
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "default"
        answer = self.models.GetModelStatus(request, timeout=10)
        states = [(s.version, s.state, s.status.error_code) for s in answer.model_version_status]
        available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
        self.assertEqual(states, [(123, available, 0)])
        request.model_spec.version.CopyFrom(wrappers_pb2.Int64Value(value=9))
        code, details = self.status_of(lambda: self.models.GetModelStatus(request, timeout=10))
        self.assertEqual(details, "Could not find version 9 of model default")


class Tf1Test(Calls, unittest.TestCase):
    def test_unbatched_input_of_an_interior_tensor(self):
        answer = self.predict(np.full([2, 3], 4.0, np.float32))
        self.assertEqual(tf.make_ndarray(answer.outputs["y"]).tolist(), [[4.0] * 3] * 2)


class Tf2Test(Calls, unittest.TestCase):
    model = TF2

    def test_default_input(self):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "default"
        answer = self.predictions.Predict(request, timeout=10)
        self.assertEqual(len(answer.outputs["y"].float_val), 1)


class UnixSocketTest(Calls, unittest.TestCase):
    socket = True


class ReloadTest(unittest.TestCase):
    """HandleReloadConfigRequest adds and removes models."""

    def test_add_and_remove(self):
        if not TESTDATA.is_dir():
            self.skipTest(f"test models are missing: {TESTDATA}")
        with Server("--model_name=a", f"--model_base_path={TESTDATA / TF1}") as server, \
                grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            models = model_service_pb2_grpc.ModelServiceStub(channel)
            predictions = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            request = model_management_pb2.ReloadConfigRequest()
            entry = request.config.model_config_list.config.add()
            entry.name, entry.model_platform = "b", "tensorflow"
            entry.base_path = str(TESTDATA / "saved_model_half_plus_three")
            answer = models.HandleReloadConfigRequest(request, timeout=20)
            self.assertEqual(answer.status.error_code, 0)
            predict = predict_pb2.PredictRequest()
            predict.model_spec.name = "b"
            predict.inputs["x"].CopyFrom(tf.make_tensor_proto([2.0]))
            self.assertEqual(
                list(predictions.Predict(predict, timeout=10).outputs["y"].float_val), [4.0])
            predict.model_spec.name = "a"
            # The model goes a moment later, as in the original.
            for _ in range(100):
                try:
                    predictions.Predict(predict, timeout=10)
                except grpc.RpcError as problem:
                    self.assertEqual(problem.code(), grpc.StatusCode.NOT_FOUND)
                    break
                time.sleep(0.05)
            else:
                self.fail("the model that was removed is still served")
            entry.base_path = "relative"
            with self.assertRaises(grpc.RpcError) as caught:
                models.HandleReloadConfigRequest(request, timeout=20)
            self.assertIn("to have an absolute path or URI", caught.exception.details())


if __name__ == "__main__":
    unittest.main()
