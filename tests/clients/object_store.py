"""A small object store that speaks as much of S3 as reading needs: list-objects-v2 and get-object.

Owns: the buckets, and what can go wrong on purpose. Knows nothing of models.
"""

import hashlib
import http.server
import threading
import urllib.parse
from xml.sax.saxutils import escape

DATE = "Wed, 25 Nov 2026 12:00:00 GMT"


class ObjectStore:
    """Listens on a free port of this machine; a context manager."""

    def __init__(self):
        self.objects = {}
        self.fetched = []
        self.fetched_bytes = 0
        self.open = threading.Event()
        self.open.set()
        # Keys that are answered with a changed byte, or cut in the middle, so many times.
        self.damaged, self.cut = {}, {}
        store = self

        class Requests(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                store.open.wait(60)
                url = urllib.parse.urlsplit(self.path)
                bucket, _, key = urllib.parse.unquote(url.path).lstrip("/").partition("/")
                query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
                if key:
                    store.get(self, f"{bucket}/{key}")
                else:
                    store.list(self, bucket, query)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Requests)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def environment(self):
        """What points a client at it."""
        return {"AWS_ENDPOINT": f"http://127.0.0.1:{self.server.server_port}",
                "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}

    def put(self, place, folder):
        """Puts a folder's files under bucket and prefix."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.objects[f"{place}/{path.relative_to(folder)}"] = path.read_bytes()

    def remove(self, place):
        for key in [key for key in self.objects if key.startswith(place + "/")]:
            del self.objects[key]

    def list(self, request, bucket, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        contents, folders = [], set()
        for name in sorted(self.objects):
            holder, _, key = name.partition("/")
            if holder != bucket or not key.startswith(prefix):
                continue
            rest = key[len(prefix):]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
                continue
            data = self.objects[name]
            contents.append(
                f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size>"
                f"<LastModified>2026-11-25T12:00:00.000Z</LastModified>"
                f'<ETag>"{hashlib.md5(data).hexdigest()}"</ETag></Contents>')
        body = ("<?xml version='1.0'?><ListBucketResult>"
                f"<Name>{bucket}</Name><IsTruncated>false</IsTruncated>" + "".join(contents)
                + "".join(f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
                          for folder in sorted(folders)) + "</ListBucketResult>").encode()
        self.answer(request, 200, body, {"Content-Type": "application/xml"})

    def get(self, request, name):
        data = self.objects.get(name)
        if data is None:
            self.answer(request, 404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        if request.headers.get("If-Match", tag) != tag:
            self.answer(request, 412, b"<Error><Code>PreconditionFailed</Code></Error>")
            return
        self.fetched.append(name)
        headers, status, body = {"ETag": tag, "Last-Modified": DATE}, 200, data
        asked = request.headers.get("Range")
        if asked:
            first, last = asked.removeprefix("bytes=").split("-")
            last = min(int(last or len(data) - 1), len(data) - 1)
            body, status = data[int(first):last + 1], 206
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        if self.damaged.get(name, 0) > 0 and body:
            self.damaged[name] -= 1
            body = bytes([body[0] ^ 1]) + body[1:]
        sent = body
        if self.cut.get(name, 0) > 0:
            self.cut[name] -= 1
            sent = body[:len(body) // 2]
        self.fetched_bytes += len(sent)
        self.answer(request, status, sent, headers, length=len(body))

    def answer(self, request, status, body, headers=None, length=None):
        length = len(body) if length is None else length
        request.send_response(status)
        for name, value in (headers or {}).items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(length))
        try:
            request.end_headers()
            request.wfile.write(body)
        except OSError:
            # The client did not wait.
            request.close_connection = True
        if len(body) < length:
            request.close_connection = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.open.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
