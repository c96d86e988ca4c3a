"""`model.tflite` on OpenVINO: its table of operators held to LiteRT's answers, and that clients see no difference.

Models are those of `lite_cases.py`, those that LiteRT's own tests keep, and one of a package.
"""

import json
import pathlib
import re
import shutil
import tempfile
import unittest

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from lite_cases import CASES
from models import KeptModels, content, package_folder, save
from server import HOME, ROOT, Server, missing, need_litert, need_openvino
from test_inspect import vesta

ENGINE = "--engine=openvino"
PREFER = "--prefer_tflite_model"
TABLE = ROOT / "crates" / "engines" / "src" / "openvino" / "lite" / "table.rs"


def need_both():
    need_litert()
    need_openvino()
    if not list(HOME.glob("engines/openvino/*/libopenvino_tensorflow_lite_frontend.so*")):
        missing("OpenVINO was installed without its reader for TensorFlow Lite; install it again")


def convert(cases, tweak=None):
    """A file with a signature for each of `cases`, called by its number."""
    module, signatures = tf.Module(), {}

    def named(case):
        @tf.autograph.experimental.do_not_convert
        def outputs(*arrays):
            given = case.function(*arrays)
            given = given if isinstance(given, (list, tuple)) else [given]
            return {f"y{number}": tensor for number, tensor in enumerate(given)}
        return outputs

    for number, case in enumerate(cases):
        function = tf.function(named(case), input_signature=case.specs).get_concrete_function()
        signatures[f"s{number}"] = function
        setattr(module, f"s{number}", function)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(signatures))
        if tweak:
            tweak(converter)
        return converter.convert()


def operators_of(path):
    """The names of a file's operators."""
    model = schema.Model.GetRootAsModel(path.read_bytes(), 0)
    names = {number: name for name, number in vars(schema.BuiltinOperator).items()
             if isinstance(number, int)}
    codes = (model.OperatorCodes(number) for number in range(model.OperatorCodesLength()))
    return {names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())] for code in codes}


class Lite(KeptModels):
    kept = ROOT / "crates" / "engines" / "tests" / "models" / "lite"
    file = "model.tflite"

    @classmethod
    def setUpClass(cls):
        need_both()

    def write(self, name, bytes_or_path, engine=None):
        """A version with this file, on this engine."""
        folder = self.base / name / "1"
        folder.mkdir(parents=True)
        if isinstance(bytes_or_path, bytes):
            (folder / self.file).write_bytes(bytes_or_path)
        else:
            shutil.copy(bytes_or_path, folder / self.file)
        if engine:
            (folder / "vesta.toml").write_text(f'engine = "{engine}"\n')
        return folder

    def on_both(self, content_or_path):
        """A server with the same file on both engines, as `o` and `l`."""
        for name, engine in (("o", "openvino"), ("l", "litert")):
            self.write(name, content_or_path, engine)
        return Server(self.config(o=self.base / "o", l=self.base / "l"), "--max_num_load_retries=0",
                      "--startup_wait=120s", seconds=120)

    def assert_same(self, given, want, label):
        self.assertEqual(set(given), set(want), label)
        for name, values in want.items():
            own = given[name]
            self.assertEqual((own.dtype, own.shape), (values.dtype, values.shape), label)
            if values.dtype.kind == "f":
                most = np.abs(values).max(initial=0)
                self.assertLessEqual(np.abs(own - values).max(initial=0), 1e-5 * most + 1e-30, label)
            else:
                np.testing.assert_array_equal(own, values, label)


class TableTest(Lite):
    def test_every_operator_of_the_table_gives_litert_s_answers(self):
        """`DEQUANTIZE` stands in a case of its own."""
        text = TABLE.read_text()
        rows = text[text.index("const ROWS"):text.index("/// What an operator may be given; `None`")]
        table = set(re.findall(r'"([A-Z0-9_]+)"', rows))
        seen = {"DEQUANTIZE"}
        for part in (CASES[::2], CASES[1::2]):
            shutil.rmtree(self.base)
            self.base.mkdir()
            path = self.base / "cases.tflite"
            path.write_bytes(convert(part))
            seen |= operators_of(path)
            with self.on_both(path) as server:
                self.assertIn("engine=openvino", server.log())
                client = self.connect(server)
                for number, case in enumerate(part):
                    for feed in case.feeds:
                        fed = {spec.name: content(array) for spec, array in zip(case.specs, feed)}
                        with self.subTest(case.name):
                            given, want = (client.predict(model, f"s{number}", **fed) for model in "ol")
                            self.assert_same(given, want, case.name)
        self.assertEqual(table - seen, set())

    def test_numbers_that_are_not_finite(self):
        """What is said to take them gives LiteRT's answers; all else refuses them."""
        text = TABLE.read_text()
        rows = text[text.index("const SPECIAL"):text.index("/// A field of an operator's options")]
        special = set(re.findall(r'"([A-Z0-9_]+)"', rows))
        floats = [case for case in CASES if case.feeds[0] and all(
            spec.dtype == tf.float32 for spec in case.specs)]
        plain = [case for case in floats if re.fullmatch(r"([A-Z0-9_]+)( over rows| float32)?", case.name)]
        path = self.base / "special.tflite"
        path.write_bytes(convert(plain))
        seen = set()
        odd = np.float32([np.nan, np.inf, -np.inf, 0.0, -1.5])
        with self.on_both(path) as server:
            client = self.connect(server)
            for number, case in enumerate(plain):
                fed = {}
                for spec, array in zip(case.specs, case.feeds[0]):
                    array = array.copy()
                    array.reshape(-1)[:odd.size] = odd[:array.size]
                    fed[spec.name] = content(array)
                with self.subTest(case.name):
                    if case.name.split()[0] not in special:
                        with self.assertRaises(grpc.RpcError) as caught:
                            client.predict("o", f"s{number}", **fed)
                        self.assertIn("numbers that are not finite", caught.exception.details())
                        continue
                    seen.add(case.name.split()[0])
                    given, want = (client.predict(model, f"s{number}", **fed) for model in "ol")
                    for name, values in want.items():
                        np.testing.assert_array_equal(given[name], values)
        self.assertEqual(special - seen, set())

    def test_weights_in_half_precision(self):
        halves = [case for case in CASES if case.name in ("CONV_2D SAME RELU", "FULLY_CONNECTED none")]

        def tweak(converter):
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]

        path = self.base / "halves.tflite"
        path.write_bytes(convert(halves, tweak))
        self.assertIn("DEQUANTIZE", operators_of(path))
        with self.on_both(path) as server:
            client = self.connect(server)
            for number, case in enumerate(halves):
                fed = {"a0": content(case.feeds[0][0])}
                given, want = (client.predict(model, f"s{number}", **fed) for model in "ol")
                self.assert_same(given, want, case.name)


if __name__ == "__main__":
    unittest.main()
