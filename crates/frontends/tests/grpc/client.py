"""Calls every method of a server with the models of the recorded exchanges, over each target given.

usage: client.py TARGET...
"""
import sys

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)


def fails(call, code, text):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, error
        assert text in error.details(), error
    else:
        raise AssertionError(f"wanted {code}")


def predict(x, model="half_plus_two"):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(x))
    return request


def examples(request):
    request.model_spec.name = "estimator"
    for x in (1.0, 2.0):
        example = request.input.example_list.examples.add()
        example.features.feature["x"].float_list.value.append(x)
    return request


def check(target):
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    channel = grpc.insecure_channel(target, options=options)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    models = model_service_pb2_grpc.ModelServiceStub(channel)

    for compression in (None, grpc.Compression.Gzip, grpc.Compression.Deflate):
        x = np.arange(5000, dtype=np.float32)
        y = stub.Predict(predict(x), timeout=10, compression=compression).outputs["y"]
        assert np.array_equal(tf.make_ndarray(y), x / 2 + 2)
    large = np.ones(5_000_000, dtype=np.float32)
    y = stub.Predict(predict(large), timeout=60).outputs["y"]
    assert np.array_equal(tf.make_ndarray(y), large / 2 + 2)

    code = grpc.StatusCode
    fails(lambda: stub.Predict(predict([1.0], "nope")), code.NOT_FOUND, "Servable not found")
    fails(lambda: stub.Predict(predict(np.array([1.0]))), code.INVALID_ARGUMENT, "but double")

    request = examples(classification_pb2.ClassificationRequest())
    request.model_spec.signature_name = "classify_x_to_y"
    classes = stub.Classify(request).result.classifications[0].classes
    assert [(c.label, c.score) for c in classes] == [("neg", -2.5), ("pos", 2.5)]
    request = examples(regression_pb2.RegressionRequest())
    request.model_spec.signature_name = "regress_x_to_y"
    assert [r.value for r in stub.Regress(request).result.regressions] == [2.5, 3.0]

    request = inference_pb2.MultiInferenceRequest()
    for method in ("classify", "regress"):
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name = "estimator"
        task.model_spec.signature_name = f"{method}_x_to_y"
    example = request.input.example_list.examples.add()
    example.features.feature["x"].float_list.value.append(1.0)
    assert len(stub.MultiInference(request).results) == 2

    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "half_plus_two"
    assert "signature_def" in stub.GetModelMetadata(request).metadata
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "versioned"
    assert [s.version for s in models.GetModelStatus(request).model_version_status] == [2, 1]
    request = model_management_pb2.ReloadConfigRequest()
    config = request.config.model_config_list.config.add(name="a", base_path="/m/a")
    config.model_platform = "tensorflow"
    assert models.HandleReloadConfigRequest(request).status.error_code == 0

    raw = channel.unary_unary("/grpc.health.v1.Health/Check")
    assert raw(b"") == b"\x08\x01"
    futures = [stub.Predict.future(predict([float(i)]), timeout=10) for i in range(200)]
    for i, future in enumerate(futures):
        assert future.result().outputs["y"].float_val[0] == i / 2 + 2
    stub.Predict.future(predict(large), timeout=10).cancel()


for target in sys.argv[1:]:
    check(target)
    print(f"{target}: all calls agree")
