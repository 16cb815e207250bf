# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""HTTP server that answers a POST or PUT with the SHA-256 of its body."""

import hashlib
import http.server
import sys


class Upload(http.server.BaseHTTPRequestHandler):
    """Reads the body in pieces, as large as they come."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        digest = hashlib.sha256()
        left = int(self.headers["Content-Length"])
        while left:
            piece = self.rfile.read1(min(left, 1 << 18))
            if not piece:
                self.close_connection = True
                return
            digest.update(piece)
            left -= len(piece)
        answer = digest.hexdigest().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_PUT = do_POST


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Upload).serve_forever()
