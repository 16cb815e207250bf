/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What rx.c, tx.c and io.c share, which nobody else needs: pieces of an iovec, and words of the partner. */
#ifndef ISM_SHIM_IO_H
#define ISM_SHIM_IO_H

#include "shim.h"
#include <string.h>
#include <ismredir/sockctl.h>

/* Where a transfer is in the pieces that the application gave. */
struct cursor {
	const struct iovec *v;
	int n;
	size_t off; /* in v[0] */
	size_t left;
};

static inline void cursor_init(struct cursor *k, const struct iovec *v, int n)
{
	k->v = v;
	k->n = n;
	k->off = 0;
	k->left = 0;
	for (int i = 0; i < n; i++)
		k->left += v[i].iov_len;
}

static inline void cursor_move(struct cursor *k, size_t n)
{
	k->left -= n;
	while (k->n && n >= k->v->iov_len - k->off) {
		n -= k->v->iov_len - k->off;
		k->off = 0;
		k->v++;
		k->n--;
	}
	k->off += n;
}

/* The next contiguous piece. */
static inline size_t cursor_piece(const struct cursor *k, void **at)
{
	const struct iovec *v = k->v;
	int n = k->n;
	size_t off = k->off;

	while (n && v->iov_len == off) {
		v++;
		n--;
		off = 0;
	}
	if (!n)
		return 0;
	*at = (char *)v->iov_base + off;
	return v->iov_len - off;
}

#define TCP_PIECES 64

/* A message header over the rest, as far as it fits @out. */
static inline void cursor_msg(const struct cursor *k, struct msghdr *m,
			      struct iovec out[TCP_PIECES])
{
	int n = k->n < TCP_PIECES ? k->n : TCP_PIECES;

	memset(m, 0, sizeof(*m));
	m->msg_iov = out;
	m->msg_iovlen = n;
	for (int i = 0; i < n; i++)
		out[i] = k->v[i];
	if (n && k->off) {
		out[0].iov_base = (char *)out[0].iov_base + k->off;
		out[0].iov_len -= k->off;
	}
}

/* The partner's receiving state: its TCP position and ISM_RX_*. */
static inline uint64_t rx_word(const struct conn *c)
{
	return __atomic_load_n(&ism_dmb_rx(c->own)->tcp, __ATOMIC_ACQUIRE);
}

static inline uint64_t rx_bits(const struct ism_slot *s)
{
	return (s->rx_ready ? ISM_RX_READY : 0) | (s->rx_frozen ? ISM_RX_FROZEN : 0);
}

static inline uint64_t deadline_of(uint64_t timeo)
{
	return timeo ? ism_now_ns() + timeo : 0;
}

/* The partner's receiver stopped reading our ring, and that is not dealt with yet. */
static inline int tx_needs_service(const struct conn *c)
{
	return rx_word(c) & (ISM_RX_FROZEN | ISM_RX_CLOSED) &&
	       atomic_load(&c->slot->tx_state) != ISM_TX_FOREVER;
}

/** sock_info() - the record of the connection and the kernel's byte positions; 0 or -errno */
int sock_info(int fd, struct ism_sock_info *i);
/** io_ended_on_tcp() - nobody may be there to read the ring: when it is full, bytes take TCP */
int io_ended_on_tcp(const struct conn *c);
/** have_space() - room in the ring, or sending is not on it, or need not be */
int have_space(struct conn *c);
/** serve() - io_serve() if it is needed; no lock held */
void serve(struct conn *c, int fd);
/** tell_epoll() - sending moved between ring and TCP: who decides about EPOLLOUT? No lock held. */
void tell_epoll(struct conn *c);

#endif
