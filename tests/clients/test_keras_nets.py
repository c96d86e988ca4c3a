"""Nets that users of Keras 3 export, beyond classifiers, translated and held to TensorFlow."""

import contextlib
import io
import unittest

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from keras import layers

from test_translation import Translation


class KerasNets(Translation):
    def setUp(self):
        super().setUp()
        keras.utils.set_random_seed(3)

    def hold_net(self, model, runs):
        """Weights of a model's biases are drawn, too; then it is exported as its users do."""
        for weight in model.trainable_weights:
            if getattr(weight, "path", weight.name).split(":")[0].endswith("bias"):
                weight.assign(self.numbers(*weight.shape))
        place = self.folder / "saved"
        with contextlib.redirect_stdout(io.StringIO()):
            model.export(str(place))
        return self.run_both(place, runs)

    def hold_images(self, model, *shapes, alias="images"):
        return self.hold_net(model, [{alias: self.numbers(*shape)} for shape in shapes])

    def test_segmentation_by_a_u_net_of_open_sizes(self):
        x = layers.Input([None, None, 3], name="images")
        first = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
        second = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.MaxPool2D()(first))
        deep = layers.Conv2D(32, 3, padding="same", activation="relu")(layers.MaxPool2D()(second))
        up = layers.Concatenate()([layers.Conv2DTranspose(16, 2, 2, padding="same")(deep), second])
        up = layers.Conv2DTranspose(8, 3, 2, padding="same")(layers.Conv2D(16, 3, padding="same")(up))
        up = layers.BatchNormalization()(layers.Concatenate()([up, first]))
        model = keras.Model(x, layers.Conv2D(2, 1, activation="softmax")(up))
        self.hold_images(model, (2, 16, 24, 3), (1, 32, 8, 3))

    def test_segmentation_with_dilated_convolutions(self):
        for corners in (False, True):
            with self.subTest(align_corners=corners):
                x = layers.Input([None, None, 3], name="images")
                net = layers.Conv2D(8, 3, 2, padding="same", activation="relu")(x)
                rates = [layers.Conv2D(4, 3, padding="same", dilation_rate=rate)(net) for rate in (1, 2, 4)]
                pooled = layers.GlobalAveragePooling2D(keepdims=True)(net)
                rates.append(layers.Lambda(lambda it: keras.ops.broadcast_to(
                    it[0], (*keras.ops.shape(it[1])[:3], 8)))([pooled, net]))
                net = layers.Conv2D(3, 1)(layers.Concatenate()(rates))

                def resize(it, corners=corners):
                    size = tf.shape(it[1])[1:3]
                    return tf.raw_ops.ResizeBilinear(images=it[0], size=size, align_corners=corners, half_pixel_centers=not corners)

                net = layers.Lambda(resize)([net, x])
                self.hold_images(keras.Model(x, [net, keras.ops.argmax(net, -1)]), (2, 17, 24, 3), (1, 32, 9, 3))

    def test_autoencoders(self):
        x = layers.Input([28, 28, 1], name="images")
        code = layers.Dense(12)(layers.Flatten()(layers.Conv2D(8, 3, 2, padding="same", activation="relu")(x)))
        net = layers.Reshape([14, 14, 8])(layers.Dense(14 * 14 * 8)(code))
        net = layers.Cropping2D(1)(layers.Conv2DTranspose(4, 4, 2)(net))
        net = layers.Conv2DTranspose(1, 3, padding="same", activation="sigmoid")(net)
        self.hold_images(keras.Model(x, net), (3, 28, 28, 1), (1, 28, 28, 1))
        older = tf_keras.Sequential([
            tf_keras.layers.Input([None, None, 2], name="images"),
            tf_keras.layers.Conv2D(8, 3, 2, padding="same", activation="relu"),
            tf_keras.layers.Conv2DTranspose(4, 3, 2, padding="same"),
            tf_keras.layers.Conv2DTranspose(2, 2, 3, padding="valid"),
        ])
        self.hold_images(older, (2, 8, 6, 2), (1, 4, 10, 2))

    def test_texts_by_recurrent_nets_with_masks(self):
        for cell, dtype in ((layers.LSTM(8), "int64"), (layers.GRU(8), "int32")):
            with self.subTest(dtype):
                ids = layers.Input([None], dtype=dtype, name="ids")
                net = layers.Bidirectional(cell)(layers.Embedding(100, 16, mask_zero=True)(ids))
                model = keras.Model(ids, layers.Dense(3, activation="softmax")(net))
                padded = np.array([[3, 5, 0, 0], [9, 1, 7, 99]], dtype)
                self.hold_net(model, [{"ids": padded}, {"ids": padded[:1, :2]}])

    def test_a_transformer_that_looks_back_alone(self):
        ids = layers.Input([None], dtype="int32", name="ids")
        net = layers.Embedding(100, 16, mask_zero=True)(ids)
        net = layers.LayerNormalization()(net + layers.MultiHeadAttention(2, 8)(net, net, use_causal_mask=True))
        net = layers.LayerNormalization()(net + layers.Dense(16)(layers.Dense(32, activation="gelu")(net)))
        model = keras.Model(ids, layers.Dense(100)(net))
        padded = np.array([[3, 5, 2, 0, 0], [9, 1, 7, 99, 4]], np.int32)
        self.hold_net(model, [{"ids": padded}, {"ids": padded[:1, :3]}])

    def test_tables_of_numbers(self):
        scale = layers.Normalization()
        scale.adapt(self.numbers(20, 3))
        numbers, bins = layers.Input([3], name="numbers"), layers.Input([1], name="bins")
        kind, kinds = (layers.Input([n], dtype="int64", name=name) for n, name in ((1, "kind"), (4, "kinds")))
        net = layers.Concatenate()([
            scale(numbers), layers.Discretization([0.0, 1.0, 2.5], output_mode="one_hot")(bins),
            layers.CategoryEncoding(5, output_mode="one_hot")(kind),
            layers.CategoryEncoding(6, output_mode="multi_hot")(kinds),
            layers.CategoryEncoding(6, output_mode="count")(kinds)])
        model = keras.Model([numbers, bins, kind, kinds], layers.Dense(2)(net))
        row = {"numbers": self.numbers(4, 3), "bins": np.array([[-1], [0], [1.5], [9]], np.float32),
               "kind": np.array([[0], [4], [2], [1]]), "kinds": np.array([[1, 1, 0, 5]] * 4)}
        self.hold_net(model, [row, {name: value[:1] for name, value in row.items()}])

    def test_images_through_many_layers(self):
        x = layers.Input([None, None, 3], name="images")
        net = layers.CenterCrop(32, 32)(layers.Rescaling(1 / 255.0)(layers.Resizing(48, 48)(x)))
        net = layers.SeparableConv2D(8, 3)(layers.Conv2D(8, 3, 2)(net))
        net = layers.ZeroPadding2D(1)(layers.UpSampling2D(2, interpolation="bilinear")(net))
        net = layers.PReLU(shared_axes=[1, 2])(layers.GroupNormalization(4)(net))
        self.hold_images(keras.Model(x, layers.GlobalAveragePooling2D()(net)), (2, 40, 30, 3), (1, 64, 70, 3))

    def test_sequences_of_images_and_volumes(self):
        frames = layers.Input([None, 8, 8, 2], name="frames")
        each = layers.TimeDistributed(layers.Flatten())(layers.TimeDistributed(layers.Conv2D(3, 3))(frames))
        model = keras.Model(frames, [layers.SimpleRNN(4)(each), layers.ConvLSTM2D(4, 3, padding="same")(frames)])
        self.hold_images(model, (2, 3, 8, 8, 2), (1, 5, 8, 8, 2), alias="frames")
        volume = layers.Input([8, 8, 8, 1], name="volumes")
        net = layers.Conv3DTranspose(2, 3, 2)(layers.Conv3D(4, 3, dilation_rate=2)(volume))
        self.hold_images(keras.Model(volume, layers.GlobalMaxPool3D()(net)), (2, 8, 8, 8, 1), alias="volumes")

    def test_sounds(self):
        x = layers.Input([None, 4], name="samples")
        net = layers.Conv1D(8, 3, padding="causal", dilation_rate=2)(x)
        net = layers.AveragePooling1D(2)(layers.MaxPool1D()(layers.Conv1DTranspose(4, 3, 2)(net)))
        self.hold_images(keras.Model(x, net), (2, 16, 4), (1, 9, 4), alias="samples")


if __name__ == "__main__":
    unittest.main()
