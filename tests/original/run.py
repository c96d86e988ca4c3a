"""Runs TensorFlow Serving's own end-to-end test, as it is, against the built program.

usage: run.py CHECKOUT, where CHECKOUT is a clone of github.com/tensorflow/serving, bare or not. Its
file is taken from there and never kept here. VESTA_BIN says where the built programs are, VESTA_SHARED
where the original's test models are. Needs the tests' Python with `portpicker` and `six`; ends with
the cases and how each ended, and with 0 when no case failed but those of KNOWN.

Every server of that test listens on /tmp/tf-serving.sock, so run it alone on a machine.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "clients"))

from server import BIN, SHARED  # noqa: E402

SERVERS = "tensorflow_serving/model_servers"
FILES = (f"{SERVERS}/tensorflow_model_server_test.py",
         f"{SERVERS}/test_util/tensorflow_model_server_test_base.py")
# What cannot pass, and why; a case that is listed and passes is told.
KNOWN = {
    "test_tf_text": "its model is not among the original's published test models",
}
SECONDS = 900


def lay_out(checkout, folder):
    """The tree that the test expects: sources beside the published client, data and program."""
    import tensorflow_serving
    sources = folder / "python"
    shutil.copytree(list(tensorflow_serving.__path__)[0], sources / "tensorflow_serving")
    for file in FILES:
        path = sources / file
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_bytes(subprocess.run(["git", "-C", checkout, "show", f"HEAD:{file}"],
                                        check=True, capture_output=True).stdout)
    run = folder / "run" / "tf_serving" / "tensorflow_serving"
    shutil.copytree(SHARED / "tfs-testdata", run / "servables" / "tensorflow" / "testdata")
    (run / "model_servers").mkdir()
    (run / "model_servers" / "tensorflow_model_server").symlink_to(
        BIN.resolve() / "tensorflow_model_server")
    return sources, folder / "run"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        sources, run = lay_out(sys.argv[1], folder)
        (folder / "tmp").mkdir()
        done = subprocess.run(
            [sys.executable, str(sources / FILES[0])], capture_output=True, text=True,
            timeout=SECONDS,
            env={**os.environ, "TEST_SRCDIR": str(run), "TEST_TMPDIR": str(folder / "tmp"),
                 "PYTHONPATH": f"{sources}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
                 "TF_USE_LEGACY_KERAS": "1"})
    said = re.findall(r"^\[ +(OK|FAILED|SKIPPED) +\] \w+\.(\w+)", done.stderr + done.stdout,
                      re.MULTILINE)
    ended = {case: how for how, case in said}
    # One of TensorFlow's own test class.
    ended.pop("test_session", None)
    if not ended:
        sys.exit(f"the test did not run:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    surprises = 0
    for case, how in sorted(ended.items()):
        surprise = (how != "OK") != (case in KNOWN)
        surprises += surprise
        print(f"{how:8}{case}" + (f": {KNOWN[case]}" if case in KNOWN else "")
              + (" (unexpected)" if surprise else ""))
    passed = sum(how == "OK" for how in ended.values())
    print(f"{passed} passed of {len(ended)}, {surprises} unexpected")
    return 0 if surprises == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
