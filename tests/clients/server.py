"""Starts the built program for a test and stops it again.

Owns: free ports, waiting for readiness, the folders that tests need. Knows no protocol.
"""

import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("VESTA_BIN", ROOT / "target" / "release"))
SHARED = pathlib.Path(os.environ.get("VESTA_SHARED", ROOT.parent / "shared"))
STRICT = bool(os.environ.get("CI"))
HOME = pathlib.Path(os.environ.get(
    "VESTA_HOME", pathlib.Path(os.environ.get("XDG_DATA_HOME", "~/.local/share"), "vesta"))).expanduser()


def missing(what):
    """Ends a test that lacks something: visibly skipped, and failed where nothing may be missing."""
    raise AssertionError(what) if STRICT else unittest.SkipTest(what)


def need_tensorflow():
    if not list(HOME.glob("engines/tensorflow/*/engine.json")):
        missing(f"TensorFlow is not installed in {HOME}; run `vesta engine install tensorflow`")


def need_litert():
    if not list(HOME.glob("engines/litert/*/engine.json")):
        missing(f"LiteRT is not installed in {HOME}; run `vesta engine install litert`")


def need_onnxruntime():
    if not list(HOME.glob("engines/onnxruntime/*/engine.json")):
        missing(f"ONNX Runtime is not installed in {HOME}; run `vesta engine install onnxruntime`")


def need_openvino():
    if not list(HOME.glob("engines/openvino/*/engine.json")):
        missing(f"OpenVINO is not installed in {HOME}; run `vesta engine install openvino`")


def need_shared(folder):
    if not (SHARED / folder).is_dir():
        missing(f"test models are missing: {SHARED / folder}")


def free_port():
    with socket.socket(socket.AF_INET6) as s:
        s.bind(("::", 0))
        return s.getsockname()[1]


def can_connect(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def quiet_free():
    """The environment without what quiets TensorFlow in these scripts: servers read it, too."""
    return {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}


class Server:
    """`tensorflow_model_server` with free ports; a context manager."""

    def __init__(self, *flags, program="tensorflow_model_server", wait=True, environment=None,
                 seconds=30, **process):
        """`environment` is set besides (`None` takes a name away); `process` goes to Popen."""
        self.grpc_port, self.rest_port = free_port(), free_port()
        self.folder = tempfile.TemporaryDirectory()
        self.log_path = pathlib.Path(self.folder.name) / "log"
        words = [str(pathlib.Path(process.pop("folder", BIN)) / program)]
        if program == "vesta":
            words.append("serve")
        # Tests whose point is the end give a delay of their own; the last repeat wins.
        words += [f"--port={self.grpc_port}", f"--rest_api_port={self.rest_port}",
                  "--drain_delay=0", *flags]
        self.started = time.monotonic()
        variables = {**quiet_free(), **(environment or {})}
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=log,
                env={name: value for name, value in variables.items() if value is not None},
                **process)
        if wait:
            self.wait_ready(seconds)

    def wait_ready(self, seconds=30):
        deadline = time.monotonic() + seconds
        while not can_connect(self.rest_port):
            if self.process.poll() is not None:
                raise AssertionError(
                    f"the server ended with {self.process.returncode}\n"
                    f"{self.process.stdout.read().decode()}\n{self.log()}")
            if time.monotonic() > deadline:
                self.stop(signal.SIGKILL)
                raise AssertionError(f"no port opened in {seconds} s\n{self.log()}")
            time.sleep(0.01)
        self.ready_after = time.monotonic() - self.started

    def log(self):
        return self.log_path.read_text(errors="replace")

    def stop(self, with_signal=signal.SIGTERM, seconds=30):
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        try:
            return self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        self.process.stdout.close()
        self.folder.cleanup()
