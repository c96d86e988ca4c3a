"""Models that `vesta convert` writes as ONNX, run by ONNX Runtime and held to TensorFlow."""

import pathlib
import subprocess
import tempfile
import unittest

import numpy as np
import onnx
import onnxruntime
import tensorflow as tf

from server import BIN

# Another order of summation, over the length of a network.
TOLERANCE = {"rtol": 2e-4, "atol": 2e-5}


class Translation(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)
        tf.random.set_seed(7)
        self.random = np.random.default_rng(7)

    def numbers(self, *shape, low=-2.0, high=2.0, dtype=np.float32):
        return self.random.uniform(low, high, shape).astype(dtype)

    def convert(self, place, code=0):
        out = self.folder / "model.onnx"
        ran = subprocess.run([str(BIN / "vesta"), "convert", str(place), str(out)], capture_output=True,
                             text=True, timeout=120, env={"PATH": "/usr/bin:/bin", "VESTA_HOME": "/nonexistent"})
        self.assertEqual(ran.returncode, code, ran.stderr)
        return ran.stderr if code else out

    def save(self, function, keep=(), **specs):
        """A SavedModel of `function`, whose inputs have these dtypes and shapes."""
        module = tf.Module()
        module.variables_of_function = list(keep)
        signature = [tf.TensorSpec(shape, dtype, alias) for alias, (dtype, shape) in specs.items()]
        function = function if hasattr(function, "get_concrete_function") else tf.function(function)
        module.serve = tf.function(lambda *inputs: function(*inputs), input_signature=signature)
        module.kept = function
        place = self.folder / "saved"
        tf.saved_model.save(module, str(place), signatures=module.serve.get_concrete_function())
        return place

    def run_both(self, place, runs):
        """Holds the translation to the checker and its answers to TensorFlow's."""
        out = self.convert(place)
        onnx.checker.check_model(str(out), full_check=True)
        session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
        loaded = tf.saved_model.load(str(place))
        serve = loaded.signatures["serving_default"]
        for feeds in runs:
            wants = serve(**{alias: tf.constant(value) for alias, value in feeds.items()})
            known = {value.name for value in session.get_inputs()}
            answers = session.run(sorted(wants), {k: np.asarray(v) for k, v in feeds.items() if k in known})
            for alias, got in zip(sorted(wants), answers):
                want = wants[alias].numpy()
                self.assertEqual((got.dtype, got.shape), (want.dtype, want.shape), alias)
                if want.dtype.kind == "f":
                    np.testing.assert_allclose(got, want, **TOLERANCE, err_msg=alias)
                else:
                    np.testing.assert_array_equal(got, want, err_msg=alias)
        return onnx.load(out)

    def hold(self, function, runs, keep=(), **specs):
        return self.run_both(self.save(function, keep, **specs), runs)


class Branches(Translation):
    def test_a_branch_reads_what_stands_around_it(self):
        weights = tf.Variable(self.numbers(3, 3))

        def choose(x, flag):
            y = tf.matmul(x, weights)
            return {"y": tf.cond(flag, lambda: tf.nn.relu(y) + x, lambda: tf.matmul(y, weights) - 1.0)}

        x = self.numbers(4, 3)
        model = self.hold(choose, [{"x": x, "flag": True}, {"x": x, "flag": False}, {"x": x[:1], "flag": True}],
                          [weights], x=(tf.float32, [None, 3]), flag=(tf.bool, []))
        self.assertIn("If", [node.op_type for node in model.graph.node])

    def test_branches_may_give_other_sizes(self):
        def choose(x):
            return {"y": tf.cond(tf.reduce_sum(x) > 0, lambda: x[:1], lambda: tf.concat([x, x], 0)),
                    "n": tf.cond(tf.shape(x)[0] > 2, lambda: 1, lambda: tf.shape(x)[1])}

        x = np.abs(self.numbers(3, 2))
        self.hold(choose, [{"x": x}, {"x": -x}, {"x": -x[:2]}], x=(tf.float32, [None, 2]))

    def test_branches_within_branches_and_calls(self):
        @tf.function
        def inner(x, flag):
            return tf.cond(flag, lambda: tf.cond(x[0] > 0, lambda: x * 2, lambda: -x), lambda: x)

        @tf.function
        def outer(x, flag):
            return {"y": inner(inner(x, flag) + 1, tf.logical_not(flag)), "x2": x}

        x = self.numbers(5)
        self.hold(outer, [{"x": x, "flag": True}, {"x": -x, "flag": False}, {"x": -x, "flag": True}],
                  x=(tf.float32, [None]), flag=(tf.bool, []))

    def test_one_tensor_given_twice_and_constants(self):
        def choose(x, flag):
            a, b, c = tf.cond(flag, lambda: (x, x, tf.constant([1, 2])), lambda: (x + 1, x, tf.constant([3, 4])))
            return {"a": a, "b": b, "c": c}

        x = self.numbers(2, 2)
        self.hold(choose, [{"x": x, "flag": True}, {"x": x, "flag": False}], x=(tf.float32, [2, 2]), flag=(tf.bool, []))

    def test_images_go_through_a_branch(self):
        kernel, bias = self.numbers(3, 3, 3, 4), self.numbers(4)

        def choose(x, flag):
            y = tf.nn.conv2d(x, kernel, 1, "SAME")
            y = tf.cond(flag, lambda: tf.nn.bias_add(y, bias), lambda: tf.nn.max_pool2d(y, 3, 1, "SAME"))
            return {"y": tf.nn.conv2d(y, kernel[:, :, :1].repeat(4, 2), 2, "SAME")}

        x = self.numbers(2, 5, 6, 3)
        self.hold(choose, [{"x": x, "flag": True}, {"x": x, "flag": False}], x=(tf.float32, [None, 5, 6, 3]), flag=(tf.bool, []))


    def test_one_of_many_by_a_number(self):
        weights = tf.Variable(self.numbers(3, 3))

        def choose(x, number):
            ways = [lambda: x + 1.0, lambda: x @ weights, lambda: -x, lambda: x * x, lambda: x[::-1]]
            sizes = [lambda: x[:1], lambda: tf.concat([x, x], 0)]
            return {"y": tf.switch_case(number, ways), "z": tf.switch_case(number, sizes),
                    "last": tf.switch_case(number - 3, ways[:3]), "only": tf.switch_case(number, ways[1:2]),
                    "known": tf.switch_case(tf.constant(2), ways)}

        x = self.numbers(4, 3)
        # What has no number goes the last way.
        model = self.hold(choose, [{"x": x, "number": np.int32(n)} for n in (-2**31, -1, 0, 1, 2, 3, 4, 5, 7, 2**31 - 1)],
                          [weights], x=(tf.float32, [None, 3]), number=(tf.int32, []))
        self.assertIn("If", [node.op_type for node in model.graph.node])

    def test_one_of_many_within_loops_and_branches(self):
        def count(x, number):
            def inner(i, y):
                doubled = lambda: tf.cond(y[0] > 3.0, lambda: y - 1.0, lambda: y * 2.0)
                halved = lambda: tf.while_loop(lambda j, z: j < 2, lambda j, z: (j + 1, z / 2.0), (0, y))[1]
                return i + 1, tf.switch_case((i + number) % 3, [doubled, halved, lambda: y + 1.0])

            return {"y": tf.while_loop(lambda i, y: i < 5, inner, (0, x))[1]}

        x = self.numbers(4)
        self.hold(count, [{"x": x, "number": np.int32(n)} for n in (0, 1, 2)], x=(tf.float32, [4]), number=(tf.int32, []))

    def test_many_ways_stay_shallow(self):
        def choose(x, number):
            return {"y": tf.switch_case(number, [lambda n=n: x * float(n) for n in range(200)])}

        x = self.numbers(2)
        self.hold(choose, [{"x": x, "number": np.int32(n)} for n in (0, 99, 100, 199, 200)], x=(tf.float32, [2]), number=(tf.int32, []))


class Loops(Translation):
    def test_a_loop_hands_on_states_of_one_size(self):
        weights = tf.Variable(self.numbers(3, 3, low=-0.5, high=0.5))

        def repeat(x, n):
            step = lambda i, y: (i + 1, tf.tanh(tf.matmul(y, weights)))
            i, y = tf.while_loop(lambda i, y: i < n, step, (tf.constant(0), x))
            return {"y": y, "i": i}

        x = self.numbers(4, 3)
        model = self.hold(repeat, [{"x": x, "n": np.int32(n)} for n in (0, 1, 5)] + [{"x": x[:1], "n": np.int32(2)}],
                          [weights], x=(tf.float32, [None, 3]), n=(tf.int32, []))
        self.assertIn("Loop", [node.op_type for node in model.graph.node])

    def test_a_state_may_grow(self):
        def grow(x, n):
            shapes = (tf.TensorShape([]), tf.TensorShape([None, 2]))
            i, y = tf.while_loop(lambda i, y: tf.shape(y)[0] < n, lambda i, y: (i + 1, tf.concat([y, y * 0.5, x], 0)),
                                 (tf.constant(0, tf.int64), x), shape_invariants=shapes)
            return {"y": y, "rows": tf.reshape(y, [tf.shape(y)[0] * 2]), "i": i}

        x = self.numbers(2, 2)
        self.hold(grow, [{"x": x, "n": np.int32(n)} for n in (0, 3, 9)] + [{"x": x[:1], "n": np.int32(20)}],
                  x=(tf.float32, [None, 2]), n=(tf.int32, []))

    def test_states_change_places(self):
        def fibonacci(a, b, n):
            _, a, b = tf.while_loop(lambda i, a, b: i < n, lambda i, a, b: (i + 1, b, a + b), (0, a, b))
            return {"c": a, "d": b}

        self.hold(fibonacci, [{"a": np.int64([1, 2]), "b": np.int64([3, 5]), "n": np.int32(n)} for n in (0, 1, 10)],
                  a=(tf.int64, [2]), b=(tf.int64, [2]), n=(tf.int32, []))

    def test_loops_and_branches_within_loops(self):
        def collatz(x):
            def body(i, y):
                halve = lambda: tf.map_fn(lambda v: v * 0.5, y)
                row = tf.while_loop(lambda j, s: j < i, lambda j, s: (j + 1, s + y[0]), (0, tf.zeros([])))[1]
                return i + 1, tf.cond(tf.reduce_max(y) > 4.0, halve, lambda: y + row + 1.0)

            return {"y": tf.while_loop(lambda i, y: i < 6, body, (0, x))[1]}

        x = np.abs(self.numbers(4))
        self.hold(collatz, [{"x": x}, {"x": x * 9}, {"x": x[:1]}], x=(tf.float32, [None]))

    def test_a_loop_that_never_begins_and_one_that_ends_by_its_state(self):
        def newton(x):
            never = tf.while_loop(lambda y: tf.constant(False), lambda y: (y * 2,), (x,))[0]
            root = tf.while_loop(lambda y: tf.reduce_any(tf.abs(y * y - x) > 1e-3), lambda y: (0.5 * (y + x / y),), (x,))[0]
            return {"never": never, "root": root}

        x = self.numbers(5, low=1, high=9)
        self.hold(newton, [{"x": x}, {"x": x[:2]}], x=(tf.float32, [None]))

    def test_convert_refuses_by_operator_and_place_in_a_loop(self):
        def repeat(x):
            return {"y": tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, tf.linalg.inv(y)), (0, x))[1]}

        said = self.convert(self.save(repeat, x=(tf.float32, [2, 2])), code=1)
        self.assertRegex(said, r"MatrixInverse at \S*while/\S*MatrixInverse \(no translation\)")


class Checks(Translation):
    """Where TensorFlow ends a run with an error, so does the translation."""

    def hold_failing(self, function, runs, fails, **specs):
        place = self.save(function, **specs)
        self.run_both(place, runs)
        session = onnxruntime.InferenceSession(str(self.folder / "model.onnx"), providers=["CPUExecutionProvider"])
        serve = tf.saved_model.load(str(place)).signatures["serving_default"]
        for feeds in fails:
            with self.assertRaises(tf.errors.OpError):
                serve(**{alias: tf.constant(value) for alias, value in feeds.items()})
            with self.assertRaises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
                session.run(None, {alias: np.asarray(value) for alias, value in feeds.items()})

    def test_what_is_asserted(self):
        def checked(x, n):
            tf.debugging.assert_non_negative(x, "no less than zero")
            tf.debugging.assert_less(n, 5, [n])
            return {"y": tf.sqrt(x), "more": n + 1, "flag": n > 2}

        x, two = self.numbers(3, low=0.1), np.int32(2)
        self.hold_failing(checked, [{"x": x, "n": two}, {"x": x[:0], "n": two}],
                          [{"x": -x, "n": two}, {"x": x, "n": np.int32(5)}], x=(tf.float32, [None]), n=(tf.int32, []))

    def test_numbers_and_shapes(self):
        def checked(x):
            y = tf.debugging.check_numerics(tf.math.log(x), "a logarithm")
            return {"y": tf.ensure_shape(y, [None, 3]) * 2}

        x = self.numbers(2, 3, low=0.1)
        self.hold_failing(checked, [{"x": x}, {"x": x[:0]}], [{"x": -x}, {"x": x * 0}, {"x": x[:, :2]}],
                          x=(tf.float32, [None, None]))

    def test_checks_in_branches_and_loops(self):
        def checked(x, flag):
            def strict():
                tf.debugging.assert_positive(x)
                return tf.math.log(x)

            def step(i, y):
                tf.debugging.assert_less(y, 100.0)
                return i + 1, y * 2

            y = tf.cond(flag, strict, lambda: x)
            return {"y": tf.while_loop(lambda i, y: i < 4, step, (0, y))[1]}

        x = self.numbers(3, low=0.5)
        self.hold_failing(checked, [{"x": x, "flag": True}, {"x": -x, "flag": False}],
                          [{"x": -x, "flag": True}, {"x": x + 50, "flag": False}], x=(tf.float32, [None]), flag=(tf.bool, []))

    def test_divisions_by_zero(self):
        def divided(x, n):
            return {"a": x // n, "b": x % n, "c": tf.truncatediv(x, n)}

        x = np.array([7, -7, 2**31 - 1, -(2**31)], np.int32)
        self.hold_failing(divided, [{"x": x, "n": np.int32(n)} for n in (3, -3, -1, 2**31 - 1)],
                          [{"x": x, "n": np.int32(0)}], x=(tf.int32, [None]), n=(tf.int32, []))


class Lists(Translation):
    def test_maps(self):
        weights = tf.constant(self.numbers(3, 2))

        def mapped(x, n):
            return {"rows": tf.map_fn(lambda row: tf.matmul(row, weights), x),
                    "squares": tf.map_fn(lambda i: i * i, tf.range(n)),
                    "pairs": tf.map_fn(lambda p: p[0] + tf.cast(p[1], tf.float32), (x, tf.range(tf.shape(x)[0])), fn_output_signature=tf.float32)}

        x = self.numbers(4, 5, 3)
        self.hold(mapped, [{"x": x, "n": np.int32(3)}, {"x": x[:1, :2], "n": np.int32(1)}],
                  x=(tf.float32, [None, None, 3]), n=(tf.int32, []))

    def test_elements_have_the_size_of_the_first(self):
        """As detectors resize images of any size: the loop alone says how large its elements are."""
        def resized(image):
            size = tf.shape(image)
            scale = tf.maximum(8.0 / tf.cast(tf.reduce_min(size[:2]), tf.float32), 0.5)
            size = tf.cast(tf.round(tf.cast(size[:2], tf.float32) * scale), tf.int32)
            image = tf.image.resize(tf.cast(image, tf.float32), size)
            return image, tf.concat([size, [3]], 0), tf.boolean_mask(tf.range(size[0]), tf.range(size[0]) > 100)

        def detected(images):
            kinds = (tf.float32, tf.int32, tf.int32)
            images, sizes, none = tf.map_fn(resized, images, fn_output_signature=kinds)
            return {"resized": images - 1.0, "sizes": sizes, "none": none}

        images = (np.abs(self.numbers(3, 7, 12, 3)) * 60).astype(np.uint8)
        runs = [{"images": images}, {"images": images[:1, :4]}, {"images": images[:2, :, :3]}]
        self.hold(detected, runs, images=(tf.uint8, [None, None, None, 3]))

    def test_elements_of_different_sizes_end_the_run(self):
        def grown(x):
            return {"rows": tf.map_fn(lambda n: tf.ones([n, 2]), x, fn_output_signature=tf.TensorSpec([None, 2], tf.float32))}

        self.hold(grown, [{"x": np.array([3, 3], np.int32)}], x=(tf.int32, [None]))
        session = onnxruntime.InferenceSession(str(self.folder / "model.onnx"), providers=["CPUExecutionProvider"])
        for sizes in ([3, 2], [2, 3], [0, 2]):
            with self.assertRaises(Exception, msg=sizes):
                session.run(None, {"x": np.array(sizes, np.int32)})

    def test_arrays(self):
        @tf.function
        def collect(x):
            array = tf.TensorArray(tf.float32, size=tf.shape(x)[0])
            for i in tf.range(tf.shape(x)[0]):
                array = array.write(tf.shape(x)[0] - 1 - i, x[i] * 2.0)
            scattered = tf.TensorArray(tf.float32, 5).unstack(tf.ones([5, 2])).write(2, tf.constant([7.0, 8.0]))
            return {"stack": array.stack(), "last": array.read(0), "size": array.size(), "gather": array.gather([0, 0]),
                    "scattered": scattered.stack()}

        x = self.numbers(4, 3)
        self.hold(collect, [{"x": x}, {"x": x[:1]}], x=(tf.float32, [None, 3]))

    def test_arrays_of_dynamic_size(self):
        @tf.function
        def collect(x):
            rows, sparse = (tf.TensorArray(tf.float32, size=0, dynamic_size=True) for _ in range(2))
            for i in tf.range(tf.shape(x)[0]):
                rows = rows.write(2 * i, x[i]).write(2 * i + 1, x[i] * 0.5)
                sparse = sparse.write(3 * i, x[i] + 1.0)
            return {"rows": rows.stack(), "size": rows.size(), "sparse": sparse.stack()}

        x = self.numbers(4, 3)
        self.hold(collect, [{"x": x}, {"x": x[:1]}, {"x": x[:0]}], x=(tf.float32, [None, 3]))

    def test_arrays_that_grow_beyond_their_first_size(self):
        """The loop alone says how large elements are, and how many there come to be."""
        @tf.function
        def collect(x):
            rows = tf.TensorArray(tf.float32, size=2, dynamic_size=True, infer_shape=False)
            for i in tf.range(tf.shape(x)[0]):
                rows = rows.write(i, tf.boolean_mask(x[i], x[0] > 0.0))
            stacked = rows.stack()
            return {"rows": stacked, "size": rows.size(), "count": tf.shape(stacked)[0] + 1}

        x = self.numbers(4, 7)
        self.hold(collect, [{"x": x}, {"x": x[:2]}, {"x": x[:1]}], x=(tf.float32, [None, 7]))

    def test_words_one_by_one(self):
        """As decoders write them: each from the one before, until all are done."""
        table = tf.constant(self.numbers(11, 11))

        @tf.function
        def decode(start):
            word, i = start, 0
            words = tf.TensorArray(tf.int32, size=0, dynamic_size=True)
            scores = tf.TensorArray(tf.float32, size=0, dynamic_size=True)
            is_done = tf.zeros_like(start, tf.bool)
            while i < 12 and not tf.reduce_all(is_done):
                given = tf.gather(table, word)
                word = tf.argmax(given, 1, tf.int32)
                words, scores = words.write(i, tf.where(is_done, 0, word)), scores.write(i, tf.reduce_max(given, 1))
                is_done = is_done | (word < 3)
                i += 1
            return {"words": tf.transpose(words.stack()), "scores": tf.transpose(scores.stack()), "steps": i}

        self.hold(decode, [{"start": np.int32(own)} for own in ([3, 5, 9], [10], [4, 4, 4, 4, 7, 8])], start=(tf.int32, [None]))

    def test_scans(self):
        def scanned(x):
            return {"sums": tf.scan(lambda a, row: a + tf.tanh(row), x), "back": tf.scan(lambda a, row: a * 0.5 + row, x, reverse=True)}

        x = self.numbers(6, 3)
        self.hold(scanned, [{"x": x}, {"x": x[:1]}], x=(tf.float32, [None, 3]))


class Detectors(Translation):
    """A small detector with the ends that those of others have."""

    def head(self, images, boxes, classes):
        """Boxes and scores of each cell of a feature map, whatever size the image has."""
        x = tf.image.resize(tf.cast(images, tf.float32) / 127.5 - 1.0, [32, 32])
        x = tf.nn.relu(tf.nn.conv2d(x, self.kernel, 4, "SAME"))
        places = tf.sigmoid(tf.reshape(tf.nn.conv2d(x, boxes, 1, "SAME"), [tf.shape(x)[0], -1, 4]))
        corners, sizes = places[..., :2], places[..., 2:] * 0.3
        places = tf.concat([corners - sizes, corners + sizes], -1)
        return places, tf.sigmoid(tf.reshape(tf.nn.conv2d(x, classes, 1, "SAME"), [tf.shape(x)[0], -1, 5]))

    def setUp(self):
        super().setUp()
        self.kernel = self.numbers(5, 5, 3, 8, low=-0.4, high=0.4)
        # Not so large that scores saturate and come out equal.
        self.boxes, self.classes = self.numbers(3, 3, 8, 8), self.numbers(3, 3, 8, 10, low=-0.1, high=0.1)

    def photographs(self, *shape):
        return self.random.integers(0, 256, shape).astype(np.uint8)

    def test_suppression_by_class(self):
        def detect(images):
            places, scores = self.head(images, self.boxes, self.classes)
            found = tf.image.combined_non_max_suppression(places[:, :, None], scores, 10, 20, 0.5, 0.4)
            return {"boxes": found[0], "scores": found[1], "classes": found[2], "count": found[3]}

        runs = [{"images": self.photographs(1, 40, 50, 3)}, {"images": self.photographs(2, 32, 32, 3)}]
        self.hold(detect, runs, images=(tf.uint8, [None, None, None, 3]))

    def test_suppression_image_by_image(self):
        def one(args):
            places, scores = args
            best = tf.reduce_max(scores, -1)
            chosen, count = tf.image.non_max_suppression_padded(places, best, 15, 0.5, 0.4, pad_to_max_output_size=True)
            kind = tf.cast(tf.argmax(tf.gather(scores, chosen), -1), tf.float32)
            is_there = tf.range(15) < count
            return tf.where(is_there[:, None], tf.gather(places, chosen), 0.0), tf.where(is_there, kind, -1.0), count

        def detect(images):
            outcome = tf.map_fn(one, self.head(images, self.boxes, self.classes),
                                fn_output_signature=(tf.float32, tf.float32, tf.int32))
            return dict(zip(("boxes", "classes", "count"), outcome))

        runs = [{"images": self.photographs(1, 40, 50, 3)}, {"images": self.photographs(3, 20, 70, 3)}]
        self.hold(detect, runs, images=(tf.uint8, [None, None, None, 3]))

    def test_second_looks_at_what_was_found(self):
        # A sum whose terms cancel would tell of nothing but roundings.
        weights = np.abs(self.numbers(7 * 7 * 3, 4)) / 50.0

        def detect(images):
            places, scores = self.head(images, self.boxes, self.classes)
            top, at = tf.math.top_k(tf.reduce_max(scores[0], -1), 6)
            chosen = tf.gather(places[0], at)
            kept = tf.where(top > 0.5)[:, 0]
            chosen = tf.gather(chosen, kept)
            crops = tf.image.crop_and_resize(tf.cast(images, tf.float32), chosen, tf.zeros_like(kept, tf.int32), [7, 7])
            found = tf.cond(tf.size(kept) > 0, lambda: tf.tanh(tf.matmul(tf.reshape(crops, [-1, 7 * 7 * 3]) / 255.0, weights)),
                            lambda: tf.zeros([0, 4]))
            return {"boxes": chosen, "found": found}

        runs = [{"images": self.photographs(1, 40, 50, 3)}, {"images": self.photographs(1, 20, 70, 3)}]
        self.hold(detect, runs, images=(tf.uint8, [1, None, None, 3]))


class Recurrent(Translation):
    def keras(self, layers, shape, runs, dtype=tf.float32):
        model = tf.keras.Sequential([tf.keras.Input(shape[1:], dtype=dtype), *layers])
        place = self.folder / "saved"
        model.export(str(place), verbose=False)
        loaded = tf.saved_model.load(str(place))
        [alias] = loaded.signatures["serving_default"].structured_input_signature[1]
        return self.run_both(place, [{alias: run} for run in runs])

    def test_lstm(self):
        x = self.numbers(3, 7, 4)
        self.keras([tf.keras.layers.LSTM(5, return_sequences=True), tf.keras.layers.LSTM(6)], [None, None, 4], [x, x[:1, :2]])

    def test_gru_both_ways(self):
        x = self.numbers(3, 6, 4)
        both = tf.keras.layers.Bidirectional(tf.keras.layers.GRU(5, return_sequences=True))
        self.keras([both, tf.keras.layers.GRU(3, reset_after=False, activation="relu")], [None, 6, 4], [x, x[:1]])

    def test_simple_cells_behind_masked_words(self):
        words = self.random.integers(0, 9, (3, 6)).astype(np.int32)
        words[1, 3:] = 0
        layers = [tf.keras.layers.Embedding(9, 4, mask_zero=True), tf.keras.layers.SimpleRNN(5)]
        self.keras(layers, [None, 6], [words, words[1:2]], tf.int32)


if __name__ == "__main__":
    unittest.main()
