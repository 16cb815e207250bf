/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A process as a peer of an ivshmem server (protocol version 0): it gets a number, the memory, and
 * the eventfds by which all peers are rung, guests and processes alike.
 *
 * Not thread-safe for one struct.
 */
#ifndef ISM_FABRIC_IVCLIENT_H
#define ISM_FABRIC_IVCLIENT_H

#include <linux/types.h>

struct ism_err;
struct ism_ivclient;

/**
 * ism_ivclient_open() - connect; waits for the server, 10 seconds at most
 * @path: of its socket
 *
 * Return: 0; -EPROTO or -EPERM: it does not speak the protocol, or not the whole; -ECONNRESET: it hung up;
 * -EMFILE: there was no room for the descriptors; -ETIMEDOUT; what connect() says.
 */
int ism_ivclient_open(const char *path, struct ism_ivclient **ret, struct ism_err *err);

/** ism_ivclient_close() - leave. NULL is allowed */
void ism_ivclient_close(struct ism_ivclient *c);

/** ism_ivclient_id() - the own number */
unsigned int ism_ivclient_id(const struct ism_ivclient *c);

/** ism_ivclient_memory() - the memory's descriptor, which stays the client's */
int ism_ivclient_memory(const struct ism_ivclient *c);

/**
 * ism_ivclient_fd() - a descriptor that polls readable while ism_ivclient_drain() has something to do;
 * it stays the client's
 */
int ism_ivclient_fd(const struct ism_ivclient *c);

/**
 * ism_ivclient_drain() - take what has happened, without waiting: bells, and who came and left
 *
 * When the server has gone, or speaks nonsense, bells go on; who leaves is not known any more. While this
 * process has no room for a descriptor, what the server says stays where it is until the next drain, which
 * does not make the descriptor readable.
 */
void ism_ivclient_drain(struct ism_ivclient *c);

/** ism_ivclient_knows() - 1: the server says that this peer is there; 0: it is not; -1: unknown */
int ism_ivclient_knows(const struct ism_ivclient *c, __u64 id);

/**
 * ism_ivclient_ring() - ring a peer, by its first vector
 *
 * Return: 0, also when it is rung already; -EHOSTUNREACH: no such peer.
 */
int ism_ivclient_ring(struct ism_ivclient *c, __u64 id);

#endif
