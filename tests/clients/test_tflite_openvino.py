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

import lite_cases
from lite_cases import ACTIVATIONS, CASES
from models import KeptModels, content, package_folder, save
from server import HOME, ROOT, Server, missing, need_litert, need_openvino
from test_inspect import vesta
from test_program import ask
from test_tune import QUICK, tune

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


class ServedTest(Lite):
    def test_clients_see_what_litert_serves(self):
        with self.on_both(self.kept / "two_signatures.tflite") as server:
            self.assertEqual(str(self.signatures(server, "o")), str(self.signatures(server, "l")))
            client = self.connect(server)
            for signature, fed in (("halve", {"x": [1.0, 2.0]}), ("halve", {"x": [1.0, 2.0, 3.0]}),
                                   ("add", {"x": [1.0, 2.0], "z": [3.0, 4.0]}),
                                   ("", {"add_x": [1.0, 2.0], "add_z": [3.0, 4.0]})):
                with self.subTest(signature, fed=fed):
                    given, want = (client.predict(model, signature, **fed) for model in "ol")
                    self.assert_same(given, want, signature)
            for bad in (np.zeros(3, np.float32), np.zeros(0, np.float32)):
                for model in "ol":
                    with self.assertRaises(grpc.RpcError) as caught:
                        client.predict(model, "add", x=bad, z=[1.0, 2.0])
                    self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
            self.assertEqual(len(self.workers(server)), 2)

    def test_ids_that_lie_outside_are_errors(self):
        [case] = [case for case in CASES if case.name == "GATHER by ids"]
        with self.on_both(convert([case])) as server:
            client = self.connect(server)
            for bad in (20, -1, 1 << 30):
                for model in "ol":
                    with self.subTest(bad, model=model), self.assertRaises(grpc.RpcError) as caught:
                        client.predict(model, "s0", a0=np.int32([[0, 1, bad, 2, 3]]))
                    self.assertIn("gather index out of bounds", caught.exception.details())

    def test_a_file_alone_and_a_file_that_is_preferred(self):
        folder = self.put("half_plus_two", model="m")
        with tempfile.TemporaryDirectory() as place:
            with Server(*self.flags("m", ENGINE), environment={"TMPDIR": place}) as server:
                self.assertIn("engine=openvino", server.log())
                self.assertEqual(self.post(server, "m", instances=[1.0]), (200, {"predictions": [2.5]}))
            self.assertEqual(list(pathlib.Path(place).iterdir()), [], "the file for the reader is gone")
        # The SavedModel says something else, so that it shows which of the two answers.
        save(folder, lambda x: {"y": x + 100}, tf.TensorSpec([None], tf.float32, "x"))
        for flags, want in (([ENGINE], 101.0), ([ENGINE, PREFER], 2.5)):
            with self.subTest(flags), Server(*self.flags("m", *flags)) as server:
                self.assertIn("engine=openvino", server.log())
                self.assertEqual(self.post(server, "m", instances=[1.0]), (200, {"predictions": [want]}))

    def test_a_folder_for_temporary_files_is_not_needed(self):
        self.put("half_plus_two")
        with Server(*self.flags("half_plus_two", ENGINE),
                    environment={"TMPDIR": str(self.base / "nowhere")}) as server:
            self.assertEqual(self.post(server, "half_plus_two", instances=[1.0]),
                             (200, {"predictions": [2.5]}))
            self.assertEqual(list(pathlib.Path("/dev/shm").glob("vesta-openvino-*.tflite")), [])

    def test_damaged_and_hostile_files_harm_no_neighbour(self):
        paths = {"good": self.put("half_plus_two").parent}
        dice = np.random.default_rng(21)
        for number in range(20):
            source = ("two_signatures", "twice_as_many", "the_same", "late_sizes")[number % 4]
            damaged = bytearray((self.kept / f"{source}.tflite").read_bytes())
            for _ in range(dice.integers(1, 4)):
                damaged[dice.integers(len(damaged))] ^= 1 << dice.integers(8)
            paths[f"bad{number}"] = self.write(f"bad{number}", bytes(damaged)).parent
        with Server(self.config(**paths), ENGINE, "--max_num_load_retries=0", "--startup_wait=60s",
                    seconds=90) as server:
            client = self.connect(server)
            for name in paths:
                if name != "good":
                    # Whatever it answers, it answers.
                    self.assertIn(self.post(server, name, inputs=[1.0, 2.0])[0], (200, 400, 404, 500, 503))
            self.assertEqual(client.predict("good", x=[1.0])["y"].tolist(), [2.5])
            self.assertIsNone(server.process.poll())


class RefusedTest(Lite):
    def verdict(self, function, *specs, tweak=None):
        case = lite_cases.Case("", function, list(specs), [])
        folder = self.base / "refused"
        shutil.rmtree(folder, ignore_errors=True)
        self.write("refused", convert([case], tweak))
        told = json.loads(vesta("inspect", folder, "--json").stdout)
        [engine] = [engine for engine in told["engines"] if engine["name"] == "openvino"]
        return engine["verdict"]

    def test_what_differs_or_is_not_known_is_refused_by_name(self):
        floats, whole = tf.TensorSpec([2, 6], tf.float32, "a0"), tf.TensorSpec([2, 6], tf.int32, "a0")
        long = tf.TensorSpec([2, 6], tf.int64, "a0")
        image = tf.TensorSpec([1, 4, 4, 3], tf.float32, "a0")
        other = lambda spec, name="a1": tf.TensorSpec(spec.shape, spec.dtype, name)
        kernel = lite_cases.weights(3, 3, 2, 3)
        for words, function, *specs in (
                ("CEIL at ", tf.math.ceil, floats),
                ("UNIQUE at ", lambda x: tf.unique(tf.reshape(x, [-1]))[0], whole),
                ("RELU_N1_TO_1 at ", ACTIVATIONS["RELU_N1_TO_1"], floats),
                ("(of what may be 0)", tf.math.rsqrt, floats),
                ("EQUAL at ", tf.equal, whole, other(whole)),
                ("SUM at ", lambda x: tf.reduce_sum(x, 1), whole),
                ("REVERSE_V2 at ", lambda x: tf.reverse(x, [1]), whole),
                ("FLOOR_MOD at ", lambda x: x % 7, whole),
                ("float to int32", lambda x: tf.cast(x, tf.int32), floats),
                ("by indices that a run computes", tf.gather, floats, tf.TensorSpec([3], tf.int32, "a1")),
                ("by indices that may lie outside", lambda x: tf.gather(x, 2),
                 tf.TensorSpec([None, 6], tf.float32, "a0")),
                ("of int64, which is cut to 32 bits", lambda x: x + 1, long),
                ("with half pixels as centres", lambda x: tf.raw_ops.ResizeNearestNeighbor(
                    images=x, size=[9, 4], align_corners=False, half_pixel_centers=True), image),
                ("with an activation", lambda x: tf.nn.relu(tf.nn.conv2d_transpose(
                    x, kernel, [1, 8, 8, 2], 2, "SAME") + tf.constant([1.0, 2.0])), image)):
            with self.subTest(words):
                self.assertIn(words, self.verdict(function, *specs))

    def test_quantised_files_are_refused(self):
        def tweak(converter):
            generator = np.random.default_rng(0)
            samples = [generator.normal(size=(2, 6)).astype(np.float32) for _ in range(20)]
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([sample] for sample in samples)

        dense = lambda x: tf.nn.relu(x @ lite_cases.weights(6, 4))
        spec = tf.TensorSpec([2, 6], tf.float32, "a0")
        self.assertIn("quantised, which OpenVINO computes in floats", self.verdict(dense, spec, tweak=tweak))
        self.assertNotIn("OpenVINO does not compute", self.verdict(dense, spec))


class ChoiceTest(Lite):
    """Each test has a home of its own, so that nothing is remembered from elsewhere."""

    def setUp(self):
        super().setUp()
        self.home = self.base / "home"
        (self.home / "engines").mkdir(parents=True)
        for name in ("litert", "openvino"):
            (self.home / "engines" / name).symlink_to(HOME / "engines" / name)

    def put_network(self):
        """A net that takes some milliseconds on each engine."""
        generator = np.random.default_rng(2)
        kernels = [tf.constant(generator.normal(0, 0.1, [3, 3, 24 if n else 3, 24]), tf.float32)
                   for n in range(10)]

        def call(image):
            for kernel in kernels:
                image = tf.nn.relu(tf.nn.conv2d(image, kernel, 1, "SAME"))
            return tf.reduce_mean(image, [1, 2])

        spec = tf.TensorSpec([None, 128, 128, 3], tf.float32, "a0")
        return self.write("m", convert([lite_cases.Case("", call, [spec], [])]))

    def start(self, *flags):
        return Server(*self.flags("m", *flags), environment={"VESTA_HOME": str(self.home)}, seconds=60)

    def loaded(self, server):
        status, text = ask(server, "GET", "/v1/models")
        [model] = json.loads(text)["models"]
        [version] = model["loaded_versions"]
        return version

    def test_both_engines_are_weighed_and_the_outcome_is_remembered(self):
        self.put_network()
        with self.start() as server:
            found = self.loaded(server)
            self.assertEqual(found["reason"], "measured", server.log())
            self.assertEqual({other["engine"] for other in found["contenders"]}, {"litert", "openvino"})
            self.assertIn("(reference)", re.search("figures=.*", server.log())[0].split(",")[0])
            self.assertIn("litert", re.search("figures=.*", server.log())[0].split(",")[0])
        with self.start() as server:
            self.assertEqual(self.loaded(server)["reason"], "remembered")

    def test_without_a_second_engine_or_without_a_budget_litert_serves(self):
        self.put_network()
        with self.start("--engine_choice_budget_ms=0") as server:
            self.assertEqual(self.loaded(server)["engine"], "litert")
        (self.home / "engines" / "openvino").unlink()
        with self.start() as server:
            found = self.loaded(server)
            self.assertEqual((found["engine"], found["reason"]), ("litert", "only"))

    def test_what_openvino_refuses_needs_no_second_process(self):
        self.put("positive", model="m")
        with self.start() as server:
            found = self.loaded(server)
            self.assertEqual((found["engine"], found["reason"]), ("litert", "only"))
            self.assertIn("WHERE at ", server.log())
            self.assertEqual(len(re.findall("worker started", server.log())), 1)

    def test_without_litert_openvino_serves_what_it_can(self):
        (self.home / "engines" / "litert").unlink()
        self.put("half_plus_two", model="m")
        with self.start() as server:
            found = self.loaded(server)
            self.assertEqual((found["engine"], found["reason"]), ("openvino", "only"))
        shutil.rmtree(self.base / "m")
        self.put("positive", model="m")
        with Server(*self.flags("m"), environment={"VESTA_HOME": str(self.home)}, wait=False) as server:
            server.process.wait(30)
            self.assertIn("WHERE at ", server.log())
            self.assertIn("run `vesta engine install litert`", server.log())

    def test_tune_measures_both(self):
        self.put("half_plus_two", model="m")
        done = tune(self.base / "m", "--json", "--batches=1,8", *QUICK)
        self.assertEqual(done.returncode, 0, done.stderr)
        found = json.loads(done.stdout)["engines"]
        self.assertEqual([entry["engine"] for entry in found], ["litert", "openvino"])

    def test_an_installation_without_the_reader_is_told_of(self):
        (self.home / "engines" / "openvino").unlink()
        for release in (HOME / "engines" / "openvino").iterdir():
            older = self.home / "engines" / "openvino" / release.name
            shutil.copytree(release, older, ignore=shutil.ignore_patterns("*tensorflow_lite_frontend*"))
            told = json.loads((older / "engine.json").read_text())
            told["files"] = [file for file in told["files"] if "tensorflow_lite" not in file["path"]]
            (older / "engine.json").write_text(json.dumps(told))
        self.put("half_plus_two", model="m")
        with Server(*self.flags("m", ENGINE), environment={"VESTA_HOME": str(self.home)},
                    wait=False) as server:
            server.process.wait(30)
            self.assertIn("without its reader for TensorFlow Lite; run `vesta engine remove openvino==",
                          server.log())
        with self.start() as server:
            self.assertEqual(self.loaded(server)["engine"], "litert")


class TrainedTest(Lite):
    def test_basic_pitch_gives_litert_s_answers(self):
        path = package_folder("basic_pitch", "saved_models", "icassp_2022", "nmp.tflite")
        sound = np.sin(2 * np.pi * 440 * np.arange(43844) / 22050, dtype=np.float32).reshape(1, -1, 1)
        with self.on_both(path) as server:
            client = self.connect(server)
            for fed in (sound, np.concatenate([sound, -0.5 * sound])):
                given, want = (client.predict(model, input_2=content(fed)) for model in "ol")
                self.assertEqual(set(given), {"note", "onset", "contour"})
                for name, values in want.items():
                    np.testing.assert_allclose(given[name], values, atol=1e-4 * values.max())
            # A 440 Hz tone is the 48th key.
            self.assertEqual(given["note"][0].mean(0).argmax(), 48)


if __name__ == "__main__":
    unittest.main()
