"""A receiver of webhooks that works out their signatures by itself, from what the guide says and from nothing of ours.

Prints its port, then a line of JSON for each message. Argument: the secret.
"""
import hashlib
import hmac
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

SECRET = sys.argv[1].encode()
HASHES = {"HMAC-SHA256": "sha256", "HMAC-SHA384": "sha384", "HMAC-SHA512": "sha512"}
seen = set()


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        verdict = self.judge(body)
        line = {
            "verdict": verdict,
            "target": self.path,
            "key": self.headers.get("X-DebVisor-Key-Id"),
            "body": json.loads(body),
        }
        print(json.dumps(line), flush=True)
        self.send_response(200 if verdict == "good" else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def judge(self, body):
        head = lambda name: self.headers.get("X-DebVisor-" + name, "")
        names = head("Signed-Headers").split(";")
        if not {"content-type", "host"} <= set(names):
            return "too little is signed"
        lines = ["POST", self.path, head("Timestamp"), head("Nonce")]
        lines += [f"{name}:{self.headers.get(name, '').strip()}" for name in names]
        lines.append(hashlib.sha256(body).hexdigest())
        made = hmac.new(SECRET, "\n".join(lines).encode(), HASHES[head("Algorithm")])
        if not hmac.compare_digest(made.hexdigest(), head("Signature")):
            return "bad signature"
        if abs(time.time() - int(head("Timestamp"))) > 300:
            return "stale"
        if head("Nonce") in seen:
            return "replayed"
        seen.add(head("Nonce"))
        return "good"

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_port, flush=True)
server.serve_forever()
