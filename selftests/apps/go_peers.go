// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

// HTTP peers in Go, with a TCP proxy between them that copies with io.Copy, which is splice(2).
//
// go_peers serve PORT PROXY_PORT FILE | go_peers fetch PORT FILE
package main

import (
	"bytes"
	"crypto/sha256"
	"io"
	"log"
	"net"
	"net/http"
	"os"
)

func pass(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		log.Print(err)
	}
	to.(*net.TCPConn).CloseWrite()
}

func proxy(listener net.Listener, target string) {
	for {
		client, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		server, err := net.Dial("tcp", target)
		if err != nil {
			log.Fatal(err)
		}
		go pass(client, server)
		go pass(server, client)
	}
}

func listen(port string) net.Listener {
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		log.Fatal(err)
	}
	return listener
}

func serve(port, proxyPort, file string) {
	listener := listen(proxyPort)
	go proxy(listener, "127.0.0.1:"+port)
	handler := func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) }
	log.Fatal(http.Serve(listen(port), http.HandlerFunc(handler)))
}

func fetch(port, file string) {
	want, err := os.ReadFile(file)
	if err != nil {
		log.Fatal(err)
	}
	response, err := http.Get("http://127.0.0.1:" + port + "/")
	if err != nil {
		log.Fatal(err)
	}
	digest := sha256.New()
	if _, err := io.Copy(digest, response.Body); err != nil {
		log.Fatal(err)
	}
	sum := sha256.Sum256(want)
	if !bytes.Equal(digest.Sum(nil), sum[:]) {
		log.Fatal("the file differs")
	}
}

func main() {
	if os.Args[1] == "serve" {
		serve(os.Args[2], os.Args[3], os.Args[4])
	} else {
		fetch(os.Args[2], os.Args[3])
	}
}
