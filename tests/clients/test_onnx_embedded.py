"""ONNX files on the embedded engine, held to ONNX Runtime.

Each operator that it takes from such a file, in the forms of old and new versions of it; forms that are
refused; files that others made.
"""

import json
import pathlib
import shutil
import unittest

import numpy as np
import onnx
import onnxruntime
import onnx.version_converter
from onnx import TensorProto as T
from onnx import helper as h

from models import KeptModels
from server import Server, need_onnxruntime
from test_onnx import KEPT
from test_program import ask

ENGINE = "--engine=embedded"
DICE = np.random.default_rng(7)
IMAGE = ("n", 4, 9, 11)


def weights(*shape):
    return DICE.normal(size=shape).astype(np.float32)


def numbers(*values):
    return np.array(values, np.int64)


class Case:
    """A model of one node over `x`, and `b` if it has a second shape."""

    def __init__(self, op, shape, *constants, opset=17, second=None, **attributes):
        self.name = f"{op} {shape} {opset} {attributes}"
        self.shape, self.second = shape, second
        named = [(f"c{at}", value) for at, value in enumerate(constants)]
        inputs = ["x"] + (["b"] if second else []) + ["" if value is None else name for name, value in named]
        ends = [h.make_tensor_value_info("x", T.FLOAT, shape)]
        if second:
            ends.append(h.make_tensor_value_info("b", T.FLOAT, second))
        graph = h.make_graph(
            [h.make_node(op, inputs, ["y"], **attributes)], "g", ends,
            [h.make_tensor_value_info("y", T.FLOAT, None)],
            [onnx.numpy_helper.from_array(value, name) for name, value in named if value is not None])
        ir = 3 if opset < 9 else 8 if opset < 19 else 10
        if ir == 3:
            graph.input.extend(h.make_tensor_value_info(t.name, t.data_type, t.dims)
                               for t in graph.initializer)
        self.model = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=ir)

    def feeds(self, rows):
        def draw(shape):
            values = weights(*[rows if size == "n" else size for size in shape])
            values.flat[0] = 0
            return values
        given = {"x": draw(self.shape)}
        if self.second:
            given["b"] = draw(self.second)
        return given


def cases():
    for op in ("Abs", "Ceil", "Cos", "Exp", "Floor", "Identity", "Neg", "Relu", "Sigmoid", "Sin", "Softplus",
               "Softsign", "Tanh", "Elu", "LeakyRelu", "Reciprocal", "Log", "Sqrt", "Dropout"):
        yield Case(op, ("n", 5), opset=7)
        yield Case(op, ("n", 3, 2), opset=11)
        yield Case(op, ("n", 3, 2), opset=21)
    yield Case("Erf", ("n", 5), opset=9)
    yield Case("Elu", ("n", 5), alpha=0.3)
    yield Case("LeakyRelu", ("n", 5), alpha=0.3)
    yield Case("Dropout", ("n", 5), opset=11, ratio=0.9)
    for op in ("Add", "Sub", "Mul", "Div", "Max", "Min"):
        yield Case(op, ("n", 3, 4), weights(4), opset=8)
        yield Case(op, ("n", 1, 4), opset=14, second=("n", 3, 1))
        yield Case(op, ("n", 1, 4), opset=21, second=("n", 3, 1))
    yield Case("Pow", ("n", 4), np.float32(2), opset=12)
    yield Case("Sum", ("n", 4), weights(4), weights(1, 4), opset=8)
    yield Case("Clip", ("n", 4), opset=7, min=-0.5)
    yield Case("Clip", ("n", 4), opset=10, min=-0.5, max=0.25)
    yield Case("Clip", ("n", 4), np.float32(0), np.float32(6), opset=11)
    yield Case("Clip", ("n", 4), None, np.float32(0.5), opset=13)
    for op in ("ReduceMean", "ReduceMax", "ReduceMin"):
        yield Case(op, IMAGE, opset=11, axes=[-1, 2])
        yield Case(op, IMAGE, numbers(2, 3), opset=18, keepdims=0)
    yield Case("ReduceSum", IMAGE, opset=11, axes=[1], keepdims=0)
    yield Case("ReduceSum", IMAGE, numbers(-2), opset=13)
    for opset in (7, 13, 17, 21):
        yield Case("GlobalAveragePool", IMAGE, opset=opset)
        yield Case("GlobalMaxPool", IMAGE, opset=opset)
        yield Case("Conv", IMAGE, weights(6, 4, 3, 3), opset=opset)
        yield Case("MaxPool", IMAGE, opset=opset, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 1, 1, 0])
        yield Case("AveragePool", IMAGE, opset=opset, kernel_shape=[2, 3], strides=[1, 2], pads=[0, 1, 1, 1])
        yield Case("Softmax", ("n", 6), opset=opset)
        yield Case("LogSoftmax", ("n", 3, 6), opset=opset, axis=2)
        yield Case("Gemm", ("n", 6), weights(3, 6), weights(3), opset=opset, transB=1)
        yield Case("Flatten", IMAGE, opset=opset)
        yield Case("Reshape", IMAGE, numbers(0, -1, 11), opset=opset)
        yield Case("Reshape", IMAGE, numbers(-1, 36, 11), opset=opset)
        yield Case("Transpose", IMAGE, opset=opset, perm=[0, 2, 3, 1])
        yield Case("MatMul", ("n", 3, 6), weights(6, 2), opset=opset)
        yield Case("Concat", ("n", 3), opset=opset, second=("n", 2), axis=1)
    yield Case("Conv", IMAGE, weights(8, 1, 3, 2), weights(8), group=4, pads=[1, 0, 2, 1], strides=[2, 1],
               dilations=[2, 1], kernel_shape=[3, 2])
    yield Case("Conv", IMAGE, weights(2, 4, 2, 2), auto_pad="VALID", strides=[2, 2])
    yield Case("AveragePool", IMAGE, kernel_shape=[2, 2], count_include_pad=1)
    yield Case("Gemm", ("n", 6), weights(6, 3), opset=11)
    yield Case("MatMul", ("n", 3, 6), opset=13, second=("n", 6, 2))
    yield Case("BatchNormalization", IMAGE, weights(4), weights(4), weights(4), weights(4) ** 2, opset=7,
               epsilon=1e-3)
    yield Case("BatchNormalization", IMAGE, weights(4), weights(4), weights(4), weights(4) ** 2, opset=15)
    yield Case("LRN", IMAGE, opset=7, size=3)
    yield Case("LRN", IMAGE, size=5, alpha=0.02, beta=0.5, bias=2.0)
    yield Case("Squeeze", ("n", 1, 3), opset=11, axes=[1])
    yield Case("Squeeze", ("n", 1, 3), numbers(-2), opset=13)
    yield Case("Unsqueeze", ("n", 3), opset=11, axes=[0, 3])
    yield Case("Unsqueeze", ("n", 3), numbers(1), opset=13)


FLOAT_TO_LONG = {"to": T.INT64}
REFUSED = (
    (Case("MaxPool", IMAGE, kernel_shape=[2, 2], dilations=[2, 2]), "MaxPool at y (its windows have gaps)"),
    (Case("Conv", IMAGE, weights(4, 3, 2, 2)), "Conv at y (its weights do not fit its input)"),
    (Case("AveragePool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, count_include_pad=1),
     "AveragePool at y (it counts padding"),
    (Case("Cast", ("n", 3), **FLOAT_TO_LONG), "Cast at y (it is from floats of any size to int64)"),
    (Case("Resize", IMAGE, np.float32([]), np.float32([1, 1, 2, 2]), mode="cubic"), "Resize at y (its mode is not known)"),
    (Case("Resize", IMAGE, np.float32([]), np.float32([1, 1, 0.7, 0.7]), mode="linear"),
     "Resize at y (its scale 0.7 gives no whole sizes)"),
    (Case("Conv", IMAGE, weights(4, 4, 2, 2), auto_pad="SAME_UPPER", dilations=[2, 2]),
     "Conv at y (its padding follows from windows with gaps)"),
    (Case("ConvTranspose", IMAGE, weights(4, 4, 2, 2), auto_pad="SAME_UPPER"), "its padding is not told in numbers"),
    (Case("Einsum", ("n", 3, 3), weights(3), equation="nii,i->n"), "Einsum at y (its equation is nii,i->n)"),
    (Case("Gather", ("n", 3), numbers(0, 3), axis=1), "Gather at y (its indices are out of range)"),
    (Case("Acosh", ("n", 3)), "Acosh at y (no form of it was held to ONNX Runtime)"),
    (Case("Add", ("n", 3), weights(3), opset=6, broadcast=1), "operators of version 6"),
    (Case("Add", ("n", 3), weights(3), opset=22), "operators of version 22"),
)


class EmbeddedTest(KeptModels):
    kept = KEPT
    file = "model.onnx"

    def write(self, case, name):
        folder = self.base / name / "1"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(case.model.SerializeToString())
        return folder.parent

    def test_operators_are_computed_as_onnxruntime_does(self):
        all_cases = {f"m{at}": case for at, case in enumerate(cases())}
        paths = {name: self.write(case, name) for name, case in all_cases.items()}
        with Server(self.config(**paths), ENGINE, seconds=120) as server:
            client = self.connect(server)
            for name, case in all_cases.items():
                session = onnxruntime.InferenceSession(case.model.SerializeToString())
                for rows in (1, 3):
                    with self.subTest(case.name, rows=rows):
                        given = case.feeds(rows)
                        [want] = session.run(["y"], given)
                        answer = client.predict(name, **given)["y"]
                        self.assertEqual(answer.shape, want.shape)
                        np.testing.assert_allclose(answer, want, rtol=2e-5, atol=1e-5)

    def test_forms_that_were_not_held_are_refused_by_name(self):
        for at, (case, words) in enumerate(REFUSED):
            with self.subTest(case.name):
                self.write(case, f"r{at}")
                said = self.refused(f"r{at}", ENGINE)
                self.assertIn(words, said)
                self.assertIn("install ONNX Runtime with `vesta engine install onnxruntime`", said)

    def test_files_that_pytorch_wrote_give_their_answers(self):
        """The `onnx` package has layers of PyTorch, each with what PyTorch answers."""
        found, paths = {}, {}
        folder = pathlib.Path(onnx.__file__).parent / "backend" / "test" / "data" / "pytorch-converted"
        for path in sorted(folder.iterdir()):
            model = onnx.load(path / "model.onnx")
            if model.opset_import[0].version < 9:
                try:
                    model = onnx.version_converter.convert_version(model, 9)
                except RuntimeError:
                    continue
            name = path.name
            found[name] = [[onnx.numpy_helper.to_array(onnx.load_tensor(path / "test_data_set_0" / f"{side}_0.pb"))
                            for side in ("input", "output")], model]
            target = self.base / name / "1"
            target.mkdir(parents=True)
            onnx.save(model, target / "model.onnx")
            paths[name] = target.parent
        taken = []
        with Server(self.config(**paths), ENGINE, "--max_num_load_retries=0", "--startup_wait=90s",
                    seconds=120) as server:
            client = self.connect(server)
            for name, ((x, want), model) in found.items():
                _, text = ask(server, "GET", f"/v1/models/{name}")
                [state] = json.loads(text)["model_version_status"]
                if state["state"] != "AVAILABLE":
                    self.assertRegex(state["status"]["error_message"],
                                     "the embedded engine cannot run model|it has no", name)
                    continue
                constants = {tensor.name for tensor in model.graph.initializer}
                [given] = [end.name for end in model.graph.input if end.name not in constants]
                answer = client.predict(name, **{given: x})[model.graph.output[0].name]
                with self.subTest(name):
                    np.testing.assert_allclose(answer, want, rtol=1e-3, atol=1e-5)
                taken.append(name)
        self.assertGreaterEqual(len(taken), 60, taken)

    def test_what_takes_longer_is_measured_against_onnxruntime(self):
        need_onnxruntime()
        shape = ("n", 32, 64, 64)
        # Another file each time: the verdict on one that was measured before is remembered.
        kernel = np.random.default_rng().normal(size=(32, 32, 3, 3)).astype(np.float32)
        case = Case("Conv", shape, kernel, pads=[1, 1, 1, 1])
        self.write(case, "m")
        with Server(*self.flags("m")) as server:
            log = server.log()
            self.assertIn("engines were measured", log)
            self.assertRegex(log, r"onnxruntime==[0-9.]+ [0-9.]+ ms \(reference\)")
            self.assertRegex(log, r"embedded==[0-9.]+ [0-9.]+ ms \(error ")
            x = weights(2, 32, 64, 64)
            session = onnxruntime.InferenceSession(case.model.SerializeToString())
            answer = self.connect(server).predict("m", x=x)["y"]
            np.testing.assert_allclose(answer, session.run(["y"], {"x": x})[0], rtol=1e-3, atol=1e-4)

    def test_shapes_are_held_to_what_the_file_declares(self):
        with self.serve("fixed_batch", ENGINE) as server:
            client = self.connect(server)
            y = client.predict("fixed_batch", x=np.float32([[0, 2, 4]]))["y"]
            self.assertEqual(y.tolist(), [[2.0, 3.0, 4.0]])
            with self.assertRaisesRegex(Exception, "the model declares \\[1,3\\]"):
                client.predict("fixed_batch", x=np.zeros((2, 3), np.float32))

    def test_the_server_needs_no_flag_and_no_other_engine(self):
        self.put("half_plus_two")
        nothing = {"VESTA_HOME": str(self.base / "no-home")}
        with Server(*self.flags("half_plus_two"), environment=nothing) as server:
            self.assertIn('engine="embedded"', server.log())
            given = self.connect(server).predict("half_plus_two", x=np.float32([1, 2, 5]))
            self.assertEqual(given["y"].tolist(), [2.5, 3.0, 4.5])


if __name__ == "__main__":
    unittest.main()
