"""Writes whole networks as SavedModels, with inputs and TensorFlow's own answers.

    python zoo.py [--full] [--only WORD] FOLDER

The weights are random, and so are the moments of the batch normalisations; both are drawn near what
the network's own inputs give, so that no layer is dead or saturated. Answers are logits, before any
softmax, and the last layer is scaled until they spread: a net whose answers hardly depend on its
input would prove nothing, so one with a spread of 0.1 or less ends the script. `--full` makes every
net in the size its users have; without it, sizes are as small as each family allows.

Each net is a folder: `model/` (the SavedModel), `case.txt` and raw little-endian arrays. `case.txt`
has lines of words:

    expect runs|refused [OPERATOR ...]   refused: what the refusal has to name
    run SIGNATURE                        one set of arrays follows
    in ALIAS DTYPE SHAPE FILE
    out ALIAS DTYPE SHAPE FILE           shapes are sizes with commas; `scalar` is rank 0
"""

import argparse
import contextlib
import importlib.util
import io
import os
import pathlib
import shutil
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
import tensorflow as tf

import zoo_nets

tf1 = tf.compat.v1
tf.get_logger().setLevel("ERROR")
SPREAD_MIN = 0.1
NUDGE, CONDITION_MAX = 1e-6, 100
BATCHES = (1, 3)
# Rows that the moments are taken of.
ROWS = 12


def shape_text(shape):
    return ",".join(map(str, shape)) if len(shape) else "scalar"


def leaves(layer):
    """All layers within a layer, itself too."""
    return [layer, *(leaf for inner in getattr(layer, "layers", []) for leaf in leaves(inner))]


def normalisations(model):
    return [layer for layer in leaves(model) if type(layer).__name__ == "BatchNormalization"]


def draw_affine(shape, rng):
    """Gamma and beta. A gamma below beta's spread keeps most units on one side of their bend: a deep
    random net whose units all bend would blow rounding errors up from layer to layer."""
    return rng.uniform(0.4, 0.8, shape).astype(np.float32), rng.normal(0, 0.6, shape).astype(np.float32)


def draw_moments(mean, variance, rng):
    """Mean and variance near the true ones, but none of them theirs.

    Where the rows hardly differ, to divide by how much they do would blow up rounding errors too; so
    a variance is kept from being small beside its mean and beside the layer's others."""
    variance = np.maximum(variance, 0.03 * mean**2 + 0.1 * np.mean(variance))
    mean = mean + rng.normal(0, 0.2, mean.shape) * np.sqrt(variance)
    return mean.astype(np.float32), (variance * rng.uniform(0.7, 1.4, variance.shape) + 1e-4).astype(np.float32)


def calibrate(model, inputs, rng):
    """Random weights of a Keras model that keep every layer alive."""
    for layer in leaves(model):
        for weight in getattr(layer, "_trainable_weights", None) or []:
            name = getattr(weight, "path", weight.name).split("/")[-1].split(":")[0]
            # What Keras begins with at zero is to count, too.
            if name == "bias":
                weight.assign(rng.normal(0, 0.1, weight.shape).astype(np.float32))
    norms = normalisations(model)
    for layer in norms:
        layer.momentum = 0.0
        for weight, drawn in zip((layer.gamma, layer.beta), draw_affine(layer.moving_mean.shape, rng)):
            if weight is not None:
                weight.assign(drawn)
    if norms:
        model(inputs, training=True)
    for layer in norms:
        layer.momentum = 0.99
        moments = (layer.moving_mean, layer.moving_variance)
        for weight, drawn in zip(moments, draw_moments(*map(np.asarray, moments), rng)):
            weight.assign(drawn)


def scale_last(model, inputs):
    """Makes the answers of several rows differ by about one."""
    answers = model(inputs, training=False)
    answers = answers[0] if isinstance(answers, (list, tuple)) else answers
    answers = next(iter(answers.values())) if isinstance(answers, dict) else answers
    apart = float(np.mean(np.std(np.asarray(answers), axis=0)))
    assert apart > 0, "the answers do not depend on the input"
    last = [layer for layer in leaves(model) if hasattr(layer, "kernel")][-1]
    last.kernel.assign(np.asarray(last.kernel) / apart)


class Lean(tf.Module):
    """A Keras model as one function and its variables: in half the time of `export`."""

    def __init__(self, model, shape):
        super().__init__()
        self.held = [getattr(variable, "value", variable) for variable in model.variables]
        spec = tf.TensorSpec([None, *shape[1:]], tf.float32, "images")
        self.serve = tf.function(lambda images: {"logits": model(images, training=False)}, input_signature=[spec])


def keras_net(net, folder, rng):
    model = net.build()
    inputs = net.inputs(rng, ROWS)
    fed = inputs if len(inputs) > 1 else next(iter(inputs.values()))
    calibrate(model, fed, rng)
    scale_last(model, fed)
    if net.lean:
        served = Lean(model, next(iter(inputs.values())).shape)
        tf.saved_model.save(served, str(folder), signatures=served.serve)
    elif net.whole:
        model.save(str(folder), save_format="tf")
    else:
        with contextlib.redirect_stdout(io.StringIO()):
            model.export(str(folder))


def put(session, values):
    """All at once: a session looks at its whole graph for every new thing that it is asked."""
    initializers = {variable.initializer: array for variable, array in values.items()}
    session.run(list(initializers), {op.inputs[1]: array for op, array in initializers.items()})


def slim_net(net, folder, rng):
    """A TF1 network: trained for one step's moments, then saved as frozen users save theirs."""
    images = next(iter(net.inputs(rng, ROWS).values()))
    with tf.Graph().as_default(), session_of() as session:
        net.build(tf1.placeholder(tf.float32, [None, *images.shape[1:]], "images"), True)
        session.run(tf1.global_variables_initializer())
        drawn = {}
        for variable in tf1.trainable_variables():
            shape = variable.shape.as_list()
            if variable.op.name.endswith("biases"):
                drawn[variable] = rng.normal(0, 0.1, shape)
            for part, values in zip(("gamma", "beta"), draw_affine(shape, rng)):
                if variable.op.name.endswith("/" + part):
                    drawn[variable] = values
        put(session, drawn)
        session.run(tf1.get_collection(tf1.GraphKeys.UPDATE_OPS), {"images:0": images})
        values = session.run({v.op.name: v for v in tf1.global_variables()})
    for name in [name for name in values if name.endswith("/moving_mean")]:
        names = [name, name.replace("moving_mean", "moving_variance")]
        values.update(zip(names, draw_moments(*(values[part] for part in names), rng)))
    with tf.Graph().as_default(), session_of() as session:
        fed = tf1.placeholder(tf.float32, [None, *images.shape[1:]], "images")
        logits = net.build(fed, False)
        put(session, {variable: values[variable.op.name] for variable in tf1.global_variables()})
        apart = float(np.mean(np.std(session.run(logits, {fed: images}), axis=0)))
        last = [v for v in tf1.trainable_variables() if v.op.name.endswith("weights")][-1]
        put(session, {last: values[last.op.name] / apart})
        tf1.saved_model.simple_save(session, str(folder), {"images": fed}, {"logits": logits})


def module_net(net, folder, rng):
    module = net.build(rng)
    tf.saved_model.save(module, str(folder), signatures=module.serve)


def graph_net(net, folder, rng):
    """A graph of TF1 with its old control flow."""
    tf1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default(), session_of() as session:
            fed = tf1.placeholder(tf.float32, [None, 4], "x")
            tf1.saved_model.simple_save(session, str(folder), {"x": fed}, {"y": net.build(fed)})
    finally:
        tf1.enable_control_flow_v2()


def ready_net(net, folder, rng):
    """A SavedModel that a package carries."""
    package, place = net.build()
    found = importlib.util.find_spec(package)
    shutil.copytree(pathlib.Path(found.submodule_search_locations[0]) / place, folder)


MAKERS = {"keras": keras_net, "slim": slim_net, "graph": graph_net, "module": module_net, "ready": ready_net}


def session_of(graph=None):
    """A session that runs a graph as it stands: to optimise each of these takes longer than to run it."""
    config = tf1.ConfigProto()
    config.graph_options.optimizer_options.opt_level = -1
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return tf1.Session(graph=graph, config=config)


def answers(folder, runs):
    """What TensorFlow answers from the files alone."""
    with tf.Graph().as_default() as graph, session_of(graph) as session:
        signatures = tf1.saved_model.load(session, ["serve"], str(folder)).signature_def
        for signature, inputs in runs:
            definition = signatures[signature]
            # Keras names the one input of an application as it likes.
            inputs = {alias or min(definition.inputs): array for alias, array in inputs.items()}
            feeds = {definition.inputs[alias].name: array for alias, array in inputs.items()}
            fetches = {alias: spec.name for alias, spec in definition.outputs.items()}
            outputs = session.run(fetches, feeds)
            nudged = {name: nudge(array) for name, array in feeds.items()}
            check_condition(outputs, session.run(fetches, nudged))
            yield signature, inputs, outputs


def nudge(array):
    if array.dtype != np.float32:
        return array
    noise = np.random.default_rng(0).standard_normal(array.shape)
    return (array * (1 + NUDGE * noise)).astype(np.float32)


def check_condition(outputs, moved):
    """A net that blows a rounding error up would be judged by chance."""
    for alias, array in outputs.items():
        off = float(np.abs(array - moved[alias]).max() / np.abs(array).max())
        print(f"  {alias} moves {off / NUDGE:.1f} times as far as the input")
        assert off < CONDITION_MAX * NUDGE, f"{alias} moves by {off / NUDGE:.0f} times what its input does"


def check_spread(name, outputs):
    for alias, array in outputs.items():
        spread = float(array.max() - array.min())
        assert np.isfinite(array).all(), f"{name}: {alias} is not finite"
        assert spread > SPREAD_MIN, f"{name}: {alias} spreads by {spread} only"
        if len(array) > 1:
            apart = float(np.abs(array[0] - array[-1]).max())
            assert apart > SPREAD_MIN, f"{name}: rows of {alias} differ by {apart} only"


def write(net, folder):
    rng = np.random.default_rng(sum(net.name.encode()))
    keras.utils.set_random_seed(1)
    folder.mkdir(parents=True)
    MAKERS[net.kind](net, folder / "model", rng)
    keras.backend.clear_session()
    (folder / "model" / "fingerprint.pb").unlink(missing_ok=True)
    lines = ["expect " + (f"refused {' '.join(net.refused)}" if net.refused else "runs")]
    signature = net.signature
    runs = [(signature, net.inputs(rng, batch)) for batch in BATCHES]
    runs += [(signature, inputs) for inputs in net.more(rng)]
    if net.refused:
        runs = []
    for number, (signature, inputs, outputs) in enumerate(answers(folder / "model", runs)):
        check_spread(net.name, outputs)
        lines.append(f"run {signature}")
        for kind, arrays in (("in", inputs), ("out", outputs)):
            for alias, array in arrays.items():
                file = f"{number}.{kind}.{alias}"
                (folder / file).write_bytes(np.ascontiguousarray(array).tobytes())
                dtype = tf.as_dtype(array.dtype).name
                lines.append(f"{kind} {alias} {dtype} {shape_text(array.shape)} {file}")
    (folder / "case.txt").write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--full", action="store_true", help="sizes that users have")
    parser.add_argument("--only", default="", help="nets whose name has this in it")
    parser.add_argument("--part", default="0/1", help="I/N: every Nth net, from the Ith on")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    failed = []
    first, step = map(int, options.part.split("/"))
    nets = [net for net in zoo_nets.nets(options.full) if options.only in net.name][first::step]
    for net in nets:
        folder = options.folder / net.name
        shutil.rmtree(folder, ignore_errors=True)
        begun = time.monotonic()
        try:
            write(net, folder)
        except Exception as error:  # the rest is of use still; the exit code tells
            failed.append(net.name)
            shutil.rmtree(folder, ignore_errors=True)
            print(f"{net.name}: {type(error).__name__} {str(error)[:800]}", file=sys.stderr)
        print(f"{net.name} {time.monotonic() - begun:.1f} s", flush=True)
    print(f"{len(nets) - len(failed)} nets in {options.folder}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
