"""Calls at a fixed rate, whatever the server does: latencies count from when a call was due.

Owns: the rate, and what became of each call. Knows no faults and no versions.
"""

import threading
import time

import grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

FLOAT = 1


def predict_request(model, x, alias="x", signature=""):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    tensor = request.inputs[alias]
    tensor.dtype = FLOAT
    tensor.tensor_shape.dim.add().size = 1
    tensor.float_val.append(x)
    return request


class OpenLoop:
    """Predict over gRPC, `rate` times a second, from a thread of its own; a context manager.

    `judge` gets each answer and gives what is wrong with it, or None.
    """

    def __init__(self, server, model, rate, judge, timeout=10):
        self.channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}")
        self.stub = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.request = predict_request(model, 2.0)
        self.interval, self.judge, self.timeout = 1 / rate, judge, timeout
        self.lock = threading.Lock()
        self.seconds, self.failed, self.wrong = [], [], []
        self.sent = 0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.send, daemon=True)

    def send(self):
        due = time.monotonic()
        while not self.stopping.is_set():
            time.sleep(max(0, due - time.monotonic()))
            call = self.stub.Predict.future(self.request, timeout=self.timeout)
            self.sent += 1
            call.add_done_callback(lambda call, due=due: self.take(call, due))
            due += self.interval

    def take(self, call, due):
        seconds = time.monotonic() - due
        problem = call.exception()
        with self.lock:
            self.seconds.append(seconds)
            if problem is not None:
                self.failed.append((problem.code().name, problem.details()))
            elif (what := self.judge(call.result())) is not None:
                self.wrong.append(what)

    def done(self):
        with self.lock:
            return len(self.seconds)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()
        deadline = time.monotonic() + self.timeout + 5
        while self.done() < self.sent and time.monotonic() < deadline:
            time.sleep(0.01)
        self.channel.close()

    def percentile(self, share):
        """Seconds that this share of the calls took at most."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

    def summary(self, name):
        return (f"{name}: {self.sent} calls, {len(self.failed)} failed, {len(self.wrong)} wrong, "
                f"median {self.percentile(0.5) * 1e3:.1f} ms, p99 {self.percentile(0.99) * 1e3:.1f} ms")
