// A web server as plain as they come: files of a folder, and what `virtual` makes up. It counts what it sends.

import { createServer } from 'node:http';
import { readFile, stat } from 'node:fs/promises';
import { extname, join, normalize } from 'node:path';

const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json',
  '.svg': 'image/svg+xml',
  '.csv': 'text/csv; charset=utf-8',
};

export async function serve(folder, virtual = () => null) {
  const sent = { bytes: 0, requests: 0 };
  const server = createServer(async (request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, 'http://x').pathname));
    let bytes = virtual(path);
    try {
      let file = join(folder, path);
      if (!bytes) {
        if ((await stat(file)).isDirectory()) file = join(file, 'index.html');
        bytes = await readFile(file);
      }
      response.writeHead(200, {
        'content-type': TYPES[extname(file)] ?? 'application/octet-stream',
        'cache-control': 'no-cache',
      });
    } catch {
      response.writeHead(404, { 'content-type': 'text/plain' });
      bytes = 'not found\n';
    }
    sent.bytes += bytes.length;
    sent.requests += 1;
    response.end(bytes);
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  return { url: `http://127.0.0.1:${server.address().port}`, sent, close: () => server.close() };
}
