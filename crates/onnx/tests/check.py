"""Holds ONNX files to ONNX's own checker, shape inference included.

    python check.py FOLDER

Names each file that it does not take; the exit code tells whether there was one.
"""

import pathlib
import sys

import onnx


def main():
    files = sorted(pathlib.Path(sys.argv[1]).glob("*.onnx"))
    failed = 0
    for file in files:
        try:
            onnx.checker.check_model(str(file), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
            failed += 1
            print(f"{file.stem}: {str(error).strip().splitlines()[0]}")
    print(f"{len(files) - failed} of {len(files)} files are taken")
    sys.exit(1 if failed or not files else 0)


main()
