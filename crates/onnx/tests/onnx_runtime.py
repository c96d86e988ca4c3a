"""Runs ONNX files in ONNX Runtime and holds them to the answers that fixtures.py got from TensorFlow.

    python onnx_runtime.py MODELS CASES

`onnx_runtime.txt` beside this file lists what ONNX Runtime does not do as TensorFlow does: rows of a
case, a verdict and the reason. A case that is not listed and does not agree fails the run, and so
does a listed one that agrees. A verdict is `unsupported` (it does not take the model, or has no
kernel) or `wrong` (it answers something else, or answers where TensorFlow has an error).
"""

import pathlib
import sys

import numpy as np
import onnxruntime

# As in against_tensorflow/engine.rs: relative to the number, and to the largest of its tensor.
RELATIVE, RELATIVE_TO_LARGEST = 2e-5, 4e-6
HALF = 4e-3


def dtype(name):
    return np.dtype({"half": "float16", "double": "float64", "float": "float32"}.get(name, name))


def read(folder):
    feeds, fetches, runs = [], [], []
    for line in (folder / "case.txt").read_text().splitlines():
        word, *rest = line.split(" ")
        if word == "feed":
            feeds.append(rest[0])
        elif word == "fetch":
            fetches.append(rest[0])
        elif word in ("run", "fails"):
            runs.append(({}, {}, word == "fails"))
        elif word in ("in", "out"):
            tensor, kind, shape, file = rest
            sizes = [] if shape == "scalar" else [int(size) for size in shape.split(",")]
            array = np.frombuffer((folder / file).read_bytes(), dtype(kind)).reshape(sizes)
            runs[-1][word == "out"][tensor] = array
    return fetches, runs


def differs(got, want):
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"{got.dtype} {got.shape}, not {want.dtype} {want.shape}"
    if want.dtype.kind != "f":
        return None if np.array_equal(got, want) else f"{got.tolist()}, not {want.tolist()}"[:120]
    finite = np.abs(want[np.isfinite(want)], dtype=np.float64)
    # Which steps are rounded to half is the engine's own affair.
    share, of_largest = (HALF, HALF) if want.dtype == np.float16 else (RELATIVE, RELATIVE_TO_LARGEST)
    slack = max(1.0, finite.max(initial=0.0)) * of_largest
    with np.errstate(all="ignore"):
        same = (got == want) | (np.isnan(got) & np.isnan(want))
        near = np.abs(got.astype(np.float64) - want) <= slack + share * np.abs(want.astype(np.float64))
    bad = ~(same | (near & np.isfinite(want)))
    return f"{got[bad][0]}, not {want[bad][0]}" if bad.any() else None


def judge(model, folder):
    fetches, runs = read(folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        return "unsupported", str(error)
    taken = {value.name for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    for feeds, wants, fails in runs:
        try:
            answers = session.run(names, {name: value for name, value in feeds.items() if name in taken})
        except Exception as error:
            if fails:
                continue
            return "unsupported", str(error)
        if fails:
            return "wrong", "it answers where TensorFlow has an error"
        for got, fetch in zip(answers, fetches):
            reason = differs(np.asarray(got), wants[fetch])
            if reason:
                return "wrong", reason
    return "agree", ""


def main():
    models, cases = map(pathlib.Path, sys.argv[1:3])
    table = pathlib.Path(__file__).with_name("onnx_runtime.txt")
    rows = [line.split(" ", 2) for line in table.read_text().splitlines() if line and line[0] != "#"]
    known = {row[0]: row[1] for row in rows}
    failed, count = [], 0
    for model in sorted(models.glob("*.onnx")):
        verdict, reason = judge(model, cases / model.stem)
        count += verdict == "agree"
        if verdict != known.pop(model.stem, "agree"):
            failed.append(f"{model.stem} {verdict} {' '.join(reason.split())[:160]}")
    failed += [f"{name} is listed and is no case" for name in known]
    print("\n".join(failed))
    print(f"{count} cases agree, {len(failed)} are not as listed")
    sys.exit(1 if failed or not count else 0)


main()
