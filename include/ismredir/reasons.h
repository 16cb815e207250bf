/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Why a connection, or a message of it, is on TCP: the codes, their names, and what to do about them.
 *
 * Numbers are part of the map format (maps.h) and of the JSON output: never reuse one. The high
 * byte groups them as the SMC CLC decline codes do: 1 handshake, 2 switch rule, 3 application,
 * 4 kernel and resources, 5 administration.
 *
 * R(symbol, code, "name", "meaning", "remedy")
 */
#ifndef ISMREDIR_REASONS_H
#define ISMREDIR_REASONS_H

/* clang-format off */
#define ISM_REASONS(R)                                                                             \
	R(NONE, 0x0000, "none", "redirected, or nothing sent yet", "nothing to do")                \
	R(PENDING, 0x0101, "pending", "the handshake is still under way",                          \
	  "wait until the connection is established")                                              \
	R(NO_ANSWER, 0x0102, "no_answer", "the peer did not answer the offer",                     \
	  "the server must run in a cgroup that ismredir is loaded on and be allowed by policy")   \
	R(NO_OFFER, 0x0103, "no_offer", "the peer's SYN carried no offer",                         \
	  "the client must run in a cgroup that ismredir is loaded on and be allowed by policy")   \
	R(ECHO, 0x0104, "echo", "something on the path echoed our own option",                     \
	  "a middlebox copies TCP options; connect without it or exclude the destination")         \
	R(BAD_OPTION, 0x0105, "bad_option", "the peer's option is malformed or of another version",\
	  "run the same version of ismredir on both sides")                                        \
	R(UNKNOWN_TOKEN, 0x0106, "unknown_token", "the offered token is not in this kernel's table",\
	  "the peer is on another kernel, or its record is gone; only a fabric can reach it")      \
	R(NO_ROOM, 0x0107, "no_room", "no room for the option beside the kernel's own",            \
	  "TCP fast open cookies, MPTCP, MD5 and SMC take the place; switch them off to use this") \
	R(SYN_COOKIE, 0x0108, "syn_cookie", "the listener answered with a SYN cookie",             \
	  "raise the listen backlog or net.ipv4.tcp_max_syn_backlog; cookies keep no state")       \
	R(SYN_RETRANS, 0x0109, "syn_retrans", "the SYN was retransmitted, so without the option",  \
	  "the first SYN was lost or a middlebox eats the option")                                 \
	R(NEGATIVE, 0x010a, "negative", "this destination did not answer a short while ago",       \
	  "asked again after the negative cache's time, or when a listener is armed")              \
	R(NOT_MUTUAL, 0x010b, "not_mutual", "the two records do not name each other",              \
	  "the partner closed, was reset, or took another connection")                             \
	R(PEER_GONE, 0x010c, "peer_gone", "the partner's record is gone",                          \
	  "the partner has closed its end")                                                        \
	R(POLICY, 0x010d, "policy", "a rule says tcp for this connection",                         \
	  "see `ismredir policy`")                                                                 \
	R(NOT_LOCAL, 0x010e, "not_local", "the peer is neither loopback nor directly connected",   \
	  "allow it with --peer CIDR")                                                             \
	R(DIRECT_WAIT, 0x010f, "direct_wait", "both ends can use rings; not attached yet",         \
	  "attached after some messages; `ismredir run --after` says how many")                    \
	R(NOT_DIRECT, 0x0110, "not_direct", "a rule says direct, and an end cannot use rings",     \
	  "start both programs by `ismredir run`")                                                 \
	R(OTHER_FABRIC, 0x0111, "other_fabric", "the peer is on another kernel, and on no fabric of ours",             \
	  "both hosts need an ismredird with the same fabric; see `ismredir fabrics`")             \
	R(RELAY_WAIT, 0x0112, "relay_wait", "the peer is on another kernel; not relayed yet",       \
	  "taken by ismredird once both ends have registered their buffers")                       \
	R(NO_PLANE, 0x0113, "no_plane", "the peer is on another kernel, and an end has neither rings nor a relay",     \
	  "start the program by `ismredir run`, as a user that the fabric allows, or ismredird with --relay")                \
	R(UNREAD_TCP, 0x0201, "unread_tcp", "bytes given to TCP are not read by the peer yet",     \
	  "passes by itself when the reader catches up")                                           \
	R(BUDGET, 0x0202, "budget", "redirected and unread bytes are at their budget",             \
	  "the reader is slower than the writer; TCP's flow control holds the writer")             \
	R(MESSAGES, 0x0203, "messages", "redirected and unread messages are at their budget",      \
	  "many small messages without a reader; TCP coalesces them")                              \
	R(STREAM, 0x0204, "stream", "a one-way stream that TCP does better: small messages or a slow reader",   \
	  "nothing to do; such a connection leaves the sockhash and is plain TCP from then on")                           \
	R(SHUTDOWN, 0x0205, "shutdown", "one side is shut down or closing", "nothing to do")       \
	R(PRESSURE, 0x0206, "pressure", "TCP memory of the host or of a memory cgroup is nearly used up",               \
	  "raise net.ipv4.tcp_mem or the limit of the reader's memory cgroup")                                  \
	R(PLAIN_READER, 0x0208, "plain_reader", "the reader sleeps where only TCP can wake it",    \
	  "it uses MSG_WAITALL or splice(2); nothing to do, exclude it by --comm to save the cost")\
	R(DUPLEX, 0x0209, "duplex", "a task of the sending end sleeps in recv() on this socket",    \
	  "the kernel would give that task EAGAIN; load with --set readers=any to allow it")       \
	R(BLOCKING, 0x020a, "blocking", "the reader sleeps in recv() and readers=poll is set",      \
	  "load with --set readers=safe")                                                          \
	R(PEER_FROZEN, 0x020b, "peer_frozen", "the partner reads its ring no more",                \
	  "see the partner's record for its reason")                                               \
	R(DETACHED, 0x020c, "detached", "the rings of this connection were given back",            \
	  "nothing to do; the connection goes on by TCP")                                          \
	R(CROWDED, 0x020d, "crowded", "the relay has so many connections with small messages that TCP does them better",  \
	  "nothing to do; such a connection is plain TCP from then on. ismredird --crowd 0 keeps it")                          \
	R(URGENT, 0x0301, "urgent", "the application sent urgent data (MSG_OOB)",                  \
	  "urgent data exists only on TCP")                                                        \
	R(RCVLOWAT, 0x0302, "rcvlowat", "the application set SO_RCVLOWAT above 1",                 \
	  "redirected bytes have no low-water mark")                                               \
	R(ZEROCOPY, 0x0303, "zerocopy", "the application asked for SO_ZEROCOPY",                   \
	  "redirected bytes never complete on the error queue")                                    \
	R(ULP, 0x0304, "ulp", "the application asked for an upper layer protocol (kTLS)",          \
	  "kTLS and redirection exclude each other")                                               \
	R(PACING, 0x0305, "pacing", "the application set SO_MAX_PACING_RATE",                      \
	  "redirected bytes cannot be paced")                                                      \
	R(TIMESTAMP, 0x0306, "timestamp", "the application asked for packet timestamps",           \
	  "redirected bytes carry none")                                                           \
	R(INQ, 0x0307, "inq", "the application asked for TCP_INQ",                                 \
	  "redirected bytes are not counted there")                                                \
	R(PEEK_OFF, 0x0308, "peek_off", "the application set SO_PEEK_OFF",                         \
	  "redirected bytes ignore the peek offset")                                               \
	R(FILTER, 0x0309, "filter", "the application attached a socket filter",                    \
	  "a filter does not see redirected bytes")                                                \
	R(REPAIR, 0x030a, "repair", "the socket is in TCP_REPAIR", "nothing to do")                \
	R(WAITALL, 0x030b, "waitall", "the reader waits with MSG_WAITALL",                         \
	  "redirected bytes would end its wait early")                                             \
	R(SPLICE, 0x030c, "splice", "the reader waits in splice(2)",                               \
	  "splice does not see redirected bytes")                                                  \
	R(PEER_PINNED, 0x030d, "peer_pinned", "the partner keeps this connection on TCP",          \
	  "see the partner's record for its reason")                                               \
	R(EXEC, 0x030e, "exec", "the process that held the rings called exec()",                   \
	  "nothing to do; the new program goes on by TCP")                                         \
	R(FD_PASSED, 0x030f, "fd_passed", "the socket was sent to another process",                \
	  "only the process that holds the rings can use them")                                    \
	R(IO_URING, 0x0310, "io_uring", "the socket is used through io_uring",                     \
	  "io_uring works inside the kernel; use the skmsg plane")                                 \
	R(STDIO, 0x0311, "stdio", "the socket is behind a FILE of the C library",                  \
	  "use read() and write(), or the skmsg plane")                                            \
	R(ERRQUEUE, 0x0312, "errqueue", "the application reads the error queue",                   \
	  "it describes TCP segments; nothing to do")                                              \
	R(SHARED, 0x0313, "shared", "several processes use the socket",                            \
	  "nothing to do; the connection goes on by TCP")                                          \
	R(SPAWN, 0x0314, "spawn", "the socket was inherited by a spawned program",                 \
	  "open sockets with SOCK_CLOEXEC")                                                        \
	R(SECCOMP, 0x0315, "seccomp", "the process put itself under a filter of system calls",     \
	  "such a filter may kill for calls that rings need; nothing to do")                       \
	R(MAP_FULL, 0x0401, "map_full", "the connection table is full",                            \
	  "load with a larger --max-conns")                                                        \
	R(FOREIGN_SOCKMAP, 0x0402, "foreign_sockmap", "another tool's sockmap holds the socket",    \
	  "Cilium, Beyla, Envoy or similar; exclude its connections from one of the two")          \
	R(INSERT, 0x0403, "insert", "the kernel refused the socket for the sockhash",              \
	  "MPTCP subflows and sockets with an upper layer protocol are refused")                   \
	R(NO_STORAGE, 0x0404, "no_storage", "no memory for the socket's record", "free memory")    \
	R(NO_DAEMON, 0x0405, "no_daemon", "ismredird does not run or does not answer",             \
	  "start ismredird")                                                                       \
	R(DAEMON_REFUSED, 0x0406, "daemon_refused", "ismredird refused the rings",                 \
	  "see its log, its limits, and `ismredir status`")                                        \
	R(HOSTILE, 0x0407, "hostile", "the partner wrote nonsense into the ring",                  \
	  "a bug or an attack in the partner process; look at it")                                 \
	R(NO_FDS, 0x0408, "no_fds", "no file descriptors are left",                                \
	  "raise the limit of open files (ulimit -n)")                                             \
	R(NOT_ALLOWED, 0x0409, "not_allowed", "the user may not use the memory of the fabric itself",                 \
	  "name the user in the fabric's option direct=, or start ismredird with --relay")         \
	R(DRAIN, 0x0501, "drain", "ismredir is being unloaded", "nothing to do")                   \
	R(OFF, 0x0502, "off", "redirection is switched off", "`ismredir load --replace`")
/* clang-format on */

enum ism_reason {
#define ISM_REASON_ENUM(sym, code, name, text, todo) ISM_R_##sym = code,
	ISM_REASONS(ISM_REASON_ENUM)
#undef ISM_REASON_ENUM
};

#endif
