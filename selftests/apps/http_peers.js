// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// HTTP peers on node: the server streams a file to a GET and answers a POST with the SHA-256 of its
// body; the client does both with the same file and prints the two checksums.
//
// node http_peers.js serve PORT FILE | node http_peers.js fetch PORT FILE
'use strict';

const crypto = require('crypto');
const fs = require('fs');
const http = require('http');

const [what, port, file] = process.argv.slice(2);

function checksum(stream, done) {
	const digest = crypto.createHash('sha256');

	stream.on('data', (piece) => digest.update(piece));
	stream.on('end', () => done(digest.digest('hex')));
}

function answer(request, response) {
	if (request.method === 'GET')
		fs.createReadStream(file).pipe(response);
	else
		checksum(request, (sum) => response.end(sum));
}

function ask(method, done) {
	return http.request({ host: '127.0.0.1', port, method, agent: ask.agent }, done);
}
ask.agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

function upload(downloaded) {
	const request = ask('POST', (response) => {
		let sum = '';

		response.setEncoding('latin1');
		response.on('data', (piece) => (sum += piece));
		response.on('end', () => {
			console.log(`${downloaded} ${sum}`);
			ask.agent.destroy();
		});
	});

	fs.createReadStream(file).pipe(request);
}

if (what === 'serve')
	http.createServer(answer).listen(port, '127.0.0.1');
else
	ask('GET', (response) => checksum(response, upload)).end();
