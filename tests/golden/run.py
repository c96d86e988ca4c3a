"""Replays the answers that were recorded from the original against the built program.

Prints, per engine, file and method, how many lines agree. A line that disagrees must be listed in
`disagreements.jsonl` with its reason, and a listed line must still disagree; else the run fails.
What is answered differently on purpose stands in `differences-<file>.jsonl`, with the row of
`docs/compat` that says why and the answer that is given instead.
"""

import collections
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "clients"))

from server import SHARED, STRICT, Server, need_tensorflow  # noqa: E402
from test_program import states  # noqa: E402

GOLDEN = SHARED / "golden"
FILES = {"rest": "tfs-rest.jsonl", "grpc": "tfs-grpc.jsonl", "reload": "tfs-grpc-reload.jsonl"}
# `auto` gives TensorFlow what the embedded engine refuses; `tensorflow` gives it all.
ENGINES = ("auto", "tensorflow")
MODEL_PATH = re.compile(r"(?i)^/v1/models/([^/:?#]+)")


def lines_of(kind):
    return [json.loads(line) for line in open(GOLDEN / FILES[kind])]


def read_list(name):
    lines = (HERE / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def method_of(kind, line):
    if kind != "rest":
        return line["method"]
    path, verb = line["path"], line["method"]
    if verb == "POST":
        word = path.split("?")[0].rsplit(":", 1)[-1]
        return word if word in ("predict", "classify", "regress") else "other"
    if path.endswith("/metadata"):
        return "metadata"
    return "status" if MODEL_PATH.match(path) else "other"


def write_config(folder):
    path = pathlib.Path(folder) / "models.config"
    path.write_text((GOLDEN / "models.config").read_text().replace("GOLDEN_DIR", str(GOLDEN)))
    return path


def replay(kind, group, server, folder):
    """The ids that disagree, with what was said of them."""
    path = pathlib.Path(folder) / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in group))
    port = server.rest_port if kind == "rest" else server.grpc_port
    words = [sys.executable, str(GOLDEN / "replay.py"), kind, str(path), str(GOLDEN), "127.0.0.1",
             str(port), "-v"]
    differences = HERE / f"differences-{kind}.jsonl"
    if differences.is_file():
        words += ["--differences", str(differences)]
    done = subprocess.run(words, capture_output=True, text=True)
    said = {}
    for line in done.stdout.splitlines():
        found = re.match(r"#(\d+) ", line)
        if found:
            said[int(found.group(1))] = line
    total = re.search(r"agree (\d+) of (\d+)", done.stdout)
    if not total:
        raise AssertionError(f"replay.py failed:\n{done.stdout}\n{done.stderr}")
    agree, count = int(total.group(1)), int(total.group(2))
    if count - agree != len(said):
        raise AssertionError(f"replay.py names {len(said)} disagreements of {count - agree}")
    return agree, count, said


def replay_file(kind, engine, server, folder, known):
    groups = collections.defaultdict(list)
    for line in lines_of(kind):
        groups["sequence" if kind == "reload" else method_of(kind, line)].append(line)
    passed = failed = agree_all = count_all = 0
    for method, group in sorted(groups.items()):
        agree, count, said = replay(kind, group, server, folder)
        agree_all, count_all = agree_all + agree, count_all + count
        ids = {line["id"] for line in group}
        expected = {number for (file, number) in known if file == kind and number in ids}
        surprises = set(said) ^ expected
        print(f"  {engine:10} {kind:6} {method:55} agree {agree:3} of {count:3}"
              + (f" ({len(expected)} known to differ)" if expected else ""))
        for number in sorted(surprises):
            print(f"    unexpected: {said.get(number, f'#{number} agrees, but is listed')}")
        passed, failed = passed + (not surprises), failed + bool(surprises)
    print(f"  {engine:10} {kind:6} in all: agree {agree_all} of {count_all}", flush=True)
    return passed, failed


def replay_all(engine, folder, known):
    config = write_config(folder)
    flags = [f"--engine={engine}", f"--model_config_file={config}",
             "--allow_version_labels_for_unavailable_models=true",
             f"--monitoring_config_file={GOLDEN / 'monitoring.config'}"]
    counts = []
    with Server(*flags, seconds=120) as server:
        settle(server)
        for kind in ("rest", "grpc"):
            counts.append(replay_file(kind, engine, server, folder, known))
    with Server(*flags, "--enable_grpc_healthcheck_service=true", "--max_num_load_retries=0",
                seconds=120) as server:
        counts.append(replay_file("reload", engine, server, folder, known))
    return [sum(column) for column in zip(*counts)]


def settle(server, seconds=60):
    """Ports open when each model has a version; the recorded answers are of a server with all."""
    deadline = time.monotonic() + seconds
    while set(states(server, "versioned").values()) != {"AVAILABLE"} or \
            len(states(server, "versioned")) != 2:
        if time.monotonic() > deadline:
            raise AssertionError(f"not all versions are there: {states(server, 'versioned')}")
        time.sleep(0.05)


def known_of(engine):
    """The lines that are known to differ on this engine: those that name it, or none."""
    return {(entry["file"], entry["id"])
            for entry in map(json.loads, read_list("disagreements.jsonl"))
            if entry.get("engine", engine) == engine}


def main():
    if not (GOLDEN / "replay.py").is_file():
        print(f"skipped: no recorded answers at {GOLDEN}")
        print("0 passed, 1 failed, 0 skipped" if STRICT else "0 passed, 0 failed, 1 skipped")
        return int(STRICT)
    passed = failed = skipped = 0
    for engine in ENGINES:
        try:
            if engine == "tensorflow":
                need_tensorflow()
        except unittest.SkipTest as reason:
            print(f"skipped: the recorded answers on {engine}: {reason}")
            skipped += 1
            continue
        except AssertionError as problem:
            print(f"failed: the recorded answers on {engine}: {problem}")
            failed += 1
            continue
        with tempfile.TemporaryDirectory() as folder:
            ok, bad = replay_all(engine, folder, known_of(engine))
        passed, failed = passed + ok, failed + bad
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 0 if failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
