"""Writes the IRs that the tests of OpenVINO keep, with the `openvino` package (2026.4).

    python make.py

`slow_half_plus_two` is that of ONNX, which must lie in `../onnx`.
"""

import pathlib

import numpy as np
import openvino as ov
from openvino import opset13 as op

HERE = pathlib.Path(__file__).parent


def parameter(name, shape, dtype=np.float32):
    made = op.parameter(shape, dtype, name=name)
    made.output(0).set_names({name})
    return made


def named(node, name):
    node.output(0).set_names({name})
    return node


def write(name, outputs, inputs):
    ov.save_model(ov.Model(outputs, inputs, name), HERE / f"{name}.xml", compress_to_fp16=False)


def half_plus_two(shape):
    x = parameter("x", shape)
    return named(op.add(op.multiply(x, np.float32(0.5)), np.float32(2)), "y"), x


y, x = half_plus_two([-1])
write("half_plus_two", [y], [x])
y, x = half_plus_two([1, 3])
write("fixed_batch", [y], [x])
b, a = parameter("b", [-1]), parameter("a", [-1])
# A weight, for IRs without any have an empty file of them.
less = op.add(op.subtract(a, b), np.float32(0))
write("sum_and_difference", [named(op.add(a, b), "sum"), named(less, "difference")], [b, a])
d = parameter("d", [-1], np.float64)
write("doubles", [named(op.negative(d), "y")], [d])
i = parameter("i", [-1], np.int64)
write("integers", [named(op.add(i, np.int64(1)), "y")], [i])
model = ov.Core().read_model(HERE.parent / "onnx" / "slow_half_plus_two.onnx")
ov.save_model(model, HERE / "slow_half_plus_two.xml", compress_to_fp16=False)
