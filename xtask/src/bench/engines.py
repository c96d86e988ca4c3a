"""Networks for `cargo xtask bench engines`, and requests to a server of one.

    engines.py make NET FOLDER
    engines.py ask NET

The second reads lines `REQUESTS SOCKET`, and says `done` after each.
"""

import sys

import numpy as np


def image(size):
    return {"images": ((None, size, size, 3), np.float32)}


# Inputs of one row by name: shape with the batch open, dtype.
INPUTS = {
    "mobilenet_v2": image(224),
    "efficientnet_b0": image(224),
    "resnet50": image(224),
    "inception_v3": image(299),
    "slim_inception_v3": image(299),
    "bert_like": {"ids": ((None, 128), np.int32)},
}


def make(net, folder):
    if net == "slim_inception_v3":
        return make_slim(net, folder)
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    if net == "bert_like":
        model = encoder(keras)
    else:
        name = {"mobilenet_v2": "MobileNetV2", "efficientnet_b0": "EfficientNetB0",
                "resnet50": "ResNet50", "inception_v3": "InceptionV3"}[net]
        [(shape, _)] = INPUTS[net].values()
        model = getattr(keras.applications, name)(weights=None, input_shape=shape[1:])
    [(alias, (shape, dtype))] = INPUTS[net].items()
    spec = tf.TensorSpec(shape, dtype, alias)
    serve = tf.function(lambda x: {"outputs": model(x, training=False)}, input_signature=[spec])
    module = tf.Module()
    module.serve = serve
    # What is not an attribute of the module is not saved.
    module.weights = [variable.value for variable in model.variables]
    tf.saved_model.save(module, folder, signatures=serve)


def make_slim(net, folder):
    """A network of TF1, whose variables stay such."""
    import tensorflow as tf
    from tf_slim.nets import inception

    tf1 = tf.compat.v1
    [(alias, (shape, _))] = INPUTS[net].items()
    with tf.Graph().as_default(), tf1.Session() as session:
        tf1.set_random_seed(1)
        images = tf1.placeholder(tf.float32, shape, alias)
        logits, _ = inception.inception_v3(images, num_classes=1001, is_training=False, create_aux_logits=False)
        session.run(tf1.global_variables_initializer())
        tf1.saved_model.simple_save(session, folder, {alias: images}, {"outputs": logits})


def encoder(keras, layers=4, width=256, heads=4, words=8000, length=128):
    """A small encoder of the kind of BERT."""
    ops = keras.ops
    ids = keras.Input((length,), dtype="int32")
    x = keras.layers.Embedding(words, width)(ids)
    x = x + keras.layers.Embedding(length, width)(ops.arange(length))
    for _ in range(layers):
        attended = keras.layers.MultiHeadAttention(heads, width // heads)(x, x)
        x = keras.layers.LayerNormalization()(x + attended)
        wide = keras.layers.Dense(4 * width, activation="gelu")(x)
        x = keras.layers.LayerNormalization()(x + keras.layers.Dense(width)(wide))
    return keras.Model(ids, keras.layers.Dense(2)(x[:, 0]))


def ask(net):
    import grpc
    from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    dice = np.random.default_rng(0)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = net
    for alias, (shape, dtype) in INPUTS[net].items():
        dims = [1, *shape[1:]]
        values = dice.random(dims) if dtype == np.float32 else dice.integers(0, 1000, dims)
        number = types_pb2.DT_FLOAT if dtype == np.float32 else types_pb2.DT_INT32
        sizes = [tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in dims]
        request.inputs[alias].CopyFrom(tensor_pb2.TensorProto(
            dtype=number, tensor_shape=tensor_shape_pb2.TensorShapeProto(dim=sizes),
            tensor_content=values.astype(dtype).tobytes()))
    for order in sys.stdin:
        requests, socket = order.rstrip("\n").split(" ", 1)
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
            for _ in range(int(requests)):
                predict(request, timeout=60)
        print("done", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(*sys.argv[2:])
    else:
        ask(sys.argv[2])
