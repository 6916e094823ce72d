/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Joins the two sockets of a connection within this host: what one sends is put into the other's receive queue.
 *
 * Pairing. A connection's two initial sequence numbers are known to its two ends and to nobody else; they survive
 * namespaces, NAT and IPv4-mapped addresses. The server's end *offers* at the SYN, before there is a socket
 * (RWND_INIT), so that the client's end, which *joins* before connect() returns (ACTIVE_ESTABLISHED), knows that its peer
 * is here. The server's socket joins before its first byte is looked at (PASSIVE_ESTABLISHED).
 *
 * One queue. A member has a verdict program, so that bytes which come over TCP go into the same queue as those that are
 * redirected (sk_psock.ingress_msg), in the order of their arrival. So TCP is a way out at any message: when the reader
 * is slow, when an end is closing, when the bypass is being undone.
 *
 * Laws
 *  - A socket is a member from its first byte on, or never, and until it closes.
 *  - A message is redirected only when all that was sent before it is in the reader's queue: nothing that went over TCP
 *    is unacknowledged. bpf_tcp_ingress() takes the reader's lock, so what was being queued meanwhile is queued.
 *  - At most `most_bytes` and `most_messages` wait in a reader's queue because of us; more goes over TCP, which stops the
 *    writer with its window. The kernel opens a window again only when bytes of TCP are read, and if then the queue is
 *    nearly empty. So nothing is redirected behind bytes that closed the window: the last of them are the queue's last. That
 *    the writer's word on the window is not an old one follows from the law before: it came with the last acknowledgement.
 *  - No verdict but SK_PASS: what cannot be redirected goes over TCP. Another owner's sockets are not touched.
 */
#include "bypass_types.h"
#include "cgroup.h"

char LICENSE[] SEC("license") = "GPL";

#define AF_INET 2
#define IPPROTO_TCP 6
#define O_NONBLOCK 04000 /* include/uapi/asm-generic/fcntl.h */
#define TCP_ESTABLISHED 1 /* include/net/tcp_states.h */
#define TCP_CLOSE 7
#define PSOCK_POINTER (~7UL) /* SK_USER_DATA_PTRMASK, include/net/sock.h */
#define IS_PSOCK 4	     /* SK_USER_DATA_PSOCK */
#define CONNECTIONS 65536
#define RULES 8
#define MOST_SKIPPED 4095 /* sk_skb_adjust_room(), net/core/filter.c */
#define LARGEST_SEGMENT 524280 /* GSO_MAX_SIZE */
#define SERVICES 4096
/*
 * Learning. Peers that take turns send about as many segments each way; one that streams sends many for each that comes
 * back, and loses by joining unless its messages are large (docs/bypass.md). A sample ends after some segments, and fades
 * when others come.
 */
#define SAMPLE 64
#define ENOUGH 8
#define FADE 1024
#define TURNS 4	 /* at least one segment back for so many there */
#define AGAIN 32 /* one of so many connections of a service that is known is sampled again */

/* What an end of a connection must meet; both ends together must meet all that is asked for. */
enum criterion { OF_CGROUP = 1, OF_NETNS = 2, OF_PORT = 4, TO_NETWORK = 8, FROM_NETWORK = 16 };

struct network {
	u32 address[4]; /* in network order; IPv4 as ::ffff:0:0/96 */
	u32 mask[4];
};

struct ports {
	u16 first, last;
};

struct scope {
	u32 joining;	 /* 0: nobody joins any more */
	u32 redirecting; /* 0: all goes over TCP */
	u32 asked;	 /* criteria */
	u32 most_bytes;
	u32 most_messages;
	u32 forbidden_networks;
	u32 learning; /* 1: only connections of services that were learned to profit join */
	u32 pollers_only; /* 1: ends whose program waits in recv() itself stay out */
	u64 cgroup; /* its id */
	u64 netns;  /* its cookie */
	struct network to, from;
	struct network forbidden[RULES];
	struct ports port;
	struct ports forbidden_ports[RULES]; /* first 0: none */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scope);
} scope_map SEC(".maps");

/* What became of connections and of messages. Names for people are in counters.py, in this order. */
enum counter {
	JOINED, /* ends; two for each connection */
	LEFT,	/* ends that closed */
	OUT_OF_SCOPE,
	FORBIDDEN,
	IS_MPTCP,
	FAST_OPEN,
	OTHER_OWNER,
	HAS_ULP,
	TABLE_FULL,
	SAMPLED,  /* connections of which their service's ways are learned */
	STREAMS,  /* connections of services that do not take turns */
	BLOCKS,	  /* ends whose program waits in recv() itself */
	PECULIAR_OPTIONS, /* ends with options that a sock map has no regard for */
	WROTE_EARLY, /* connections whose client wrote before the server's end had joined */
	REDIRECTED,
	REDIRECTED_BYTES,
	PASSED_UNPAIRED, /* the other end is no member */
	PASSED_BEHIND,	 /* what went over TCP before it has not arrived */
	PASSED_FULL,	 /* too many bytes wait in the reader's queue */
	PASSED_MANY,	 /* too many messages do */
	PASSED_MEMORY,	 /* TCP's memory is short on this machine */
	PASSED_WINDOW,	 /* TCP's window is too small to be a way out */
	PASSED_CLOSING,
	PASSED_STOPPED,
	OVERLAPPED, /* segments of which a part had arrived before */
	CONNECTED_ANEW, /* sockets that were taken out because their program uses them for another connection */
	COUNTERS
};

struct counters {
	u64 of[COUNTERS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct counters);
} counters_map SEC(".maps");

struct sequence_numbers {
	u32 client, server; /* initial ones */
};

struct half {
	u64 cookie; /* of the socket, which is never given to another; 0: not a member (yet) */
	u64 socket; /* its address */
};

/* Whose ways are learned. */
struct service {
	u64 cgroup; /* the server's, its id */
	u32 port;   /* as the server knows it */
	u32 reserved;
};

enum manner { UNDECIDED, JOINS, STREAMING, BLOCKING, PECULIAR };

struct learned {
	u32 manner;
	u32 connections; /* offered since */
	u64 turns;	 /* segments of those samples, the way that had fewer */
	u64 segments;	 /* ... and the other way */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SERVICES);
	__type(key, struct service);
	__type(value, struct learned);
} services SEC(".maps");

enum progress { OFFERED, COMPLETE, BROKEN };

struct pair {
	u32 met; /* criteria that the server's end meets */
	u32 manner;
	u64 progress; /* from OFFERED to one of the others, once */
	struct half client, server;
	struct service service;
};

/* The server's end of a connection that is sampled. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct service);
} samples SEC(".maps");

/* Between a SYN and the client's first message. Full, the oldest go: their connections stay on TCP. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, CONNECTIONS);
	__type(key, struct sequence_numbers);
	__type(value, struct pair);
} pairs SEC(".maps");

/* The members, by their cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, CONNECTIONS);
	__type(key, u64);
	__type(value, u64);
} members SEC(".maps");

/* What a member knows as a writer. Only its own sends write here, under its lock. */
struct end {
	struct sequence_numbers numbers;
	struct half self, peer;
	u64 messages, bytes; /* redirected */
	u64 read_messages;   /* at least so many of them were read */
	u64 mark_messages, mark_bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct end);
} ends SEC(".maps");

/* The members once more, for the survey: a sockhash cannot be walked by a program. */
struct member {
	u64 socket;
	u64 netns;
	u64 joined_ns; /* CLOCK_MONOTONIC */
	u32 server;    /* 1: the end that accepted */
	u16 port;      /* the server's, as this end knows it */
	u16 reserved;
	u32 received;  /* the sequence number after the last byte that came over TCP into the queue */
	u32 reserved_too;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, CONNECTIONS);
	__type(key, u64);
	__type(value, struct member);
} listed SEC(".maps");

static const u32 zero;

static __always_inline void count_more(enum counter which, u64 more)
{
	struct counters *counters = bpf_map_lookup_elem(&counters_map, &zero);

	if (counters)
		counters->of[which] += more;
}

static __always_inline void count(enum counter which)
{
	count_more(which, 1);
}

/* ---- the scope ---- */

static __always_inline void mapped(u32 address[4], const struct sock_common *common, bool remote)
{
	if (BPF_CORE_READ(common, skc_family) == AF_INET) {
		address[0] = address[1] = 0;
		address[2] = bpf_htonl(0xffff);
		address[3] = remote ? BPF_CORE_READ(common, skc_daddr) : BPF_CORE_READ(common, skc_rcv_saddr);
	} else if (remote) {
		BPF_CORE_READ_INTO((struct in6_addr *)address, common, skc_v6_daddr);
	} else {
		BPF_CORE_READ_INTO((struct in6_addr *)address, common, skc_v6_rcv_saddr);
	}
}

static __always_inline bool in_network(const struct network *network, const u32 address[4])
{
	for (int i = 0; i < 4; i++)
		if ((address[i] ^ network->address[i]) & network->mask[i])
			return false;
	return true;
}

static __always_inline bool in_ports(const struct ports *ports, u16 port)
{
	return port >= ports->first && port <= ports->last;
}

static __always_inline u64 netns_of(const struct sock_common *common)
{
	struct net___bypass *net = (void *)BPF_CORE_READ((const struct sock_common___bypass *)common, skc_net.net);

	return BPF_CORE_READ(net, net_cookie);
}

/* The criteria that one end meets. `owner`: the socket whose cgroup counts, the listener for a SYN. */
static __always_inline u32 met_by(const struct scope *scope, const struct sock_common *common,
				  const struct sock___bypass *owner, bool server, u16 port)
{
	u32 address[4], met = 0;

	if (scope->asked & OF_PORT && in_ports(&scope->port, port))
		met |= OF_PORT;
	if (scope->asked & OF_NETNS && netns_of(common) == scope->netns)
		met |= OF_NETNS;
	if (scope->asked & OF_CGROUP && below_cgroup(cgroup_of(owner), scope->cgroup))
		met |= OF_CGROUP;
	if (scope->asked & TO_NETWORK) {
		mapped(address, common, !server);
		if (in_network(&scope->to, address))
			met |= TO_NETWORK;
	}
	if (scope->asked & FROM_NETWORK) {
		mapped(address, common, server);
		if (in_network(&scope->from, address))
			met |= FROM_NETWORK;
	}
	return met;
}

static __always_inline bool forbidden(const struct scope *scope, const struct sock_common *common, u16 port)
{
	u32 local[4], remote[4];

	for (int i = 0; i < RULES; i++)
		if (scope->forbidden_ports[i].first && in_ports(&scope->forbidden_ports[i], port))
			return true;
	if (!scope->forbidden_networks)
		return false;
	mapped(local, common, false);
	mapped(remote, common, true);
	for (int i = 0; i < RULES; i++)
		if (i < scope->forbidden_networks && (in_network(&scope->forbidden[i], local) ||
						      in_network(&scope->forbidden[i], remote)))
			return true;
	return false;
}

/* ---- learning ---- */

static __always_inline enum manner manner_of(const struct scope *scope, const struct service *service)
{
	struct learned *learned;

	if (!scope->learning)
		return JOINS;
	learned = bpf_map_lookup_elem(&services, service);
	if (!learned || __sync_fetch_and_add(&learned->connections, 1) % AGAIN == AGAIN - 1)
		return UNDECIDED;
	return learned->manner;
}

static __always_inline void sample(struct bpf_sock_ops *ops, struct bpf_sock *socket, struct service *service)
{
	if (bpf_sk_storage_get(&samples, socket, service, BPF_SK_STORAGE_GET_F_CREATE))
		bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG |
						       BPF_SOCK_OPS_RTT_CB_FLAG);
}

/*
 * A reader that blocks in recv() gets EAGAIN from tcp_msg_wait_data() (net/ipv4/tcp_bpf.c) when it is woken for anything but
 * data: the ACK of its own FIN, a reset, room for another thread's write. One that polls gets it anyway, and asks again.
 */
static __always_inline bool blocks(struct tcp_sock *tp)
{
	struct socket___bypass *socket = BPF_CORE_READ((struct sock___bypass *)tp, sk_socket);

	return !(BPF_CORE_READ(socket, file, f_flags) & O_NONBLOCK);
}

/* Options that the functions of a sock map ignore: what a program set them for would not happen. */
static __always_inline bool peculiar(struct tcp_sock *tp)
{
	struct sock___bypass *sk = (void *)tp;

	return BPF_CORE_READ(sk, sk_rcvlowat) > 1 || BPF_CORE_READ(sk, sk_peek_off) >= 0 ||
	       BPF_CORE_READ_BITFIELD_PROBED((struct tcp_sock___bypass *)tp, recvmsg_inq) ||
	       BPF_CORE_READ(sk, __sk_common.skc_flags) &
		       1UL << bpf_core_enum_value(enum sock_flags___bypass, SOCK_ZEROCOPY___bypass);
}

/* Two samples that end at once may lose one of them: it is evidence, not an account. */
static __always_inline void learn(const struct scope *scope, struct bpf_sock_ops *ops, struct bpf_sock *socket,
				  struct tcp_sock *tp, bool ends)
{
	struct service *service = bpf_sk_storage_get(&samples, socket, 0, 0);
	u32 there = ((struct tcp_sock___bypass *)tp)->data_segs_out;
	u32 back = ((struct tcp_sock___bypass *)tp)->data_segs_in;
	struct learned first = {}, *learned;

	if (!service || (!ends && there + back < SAMPLE))
		return;
	learned = bpf_map_lookup_elem(&services, service);
	if (!learned) {
		bpf_map_update_elem(&services, service, &first, BPF_NOEXIST);
		learned = bpf_map_lookup_elem(&services, service);
	}
	/* One that closes before it was accepted shows nothing. */
	if (learned && BPF_CORE_READ((struct sock___bypass *)tp, sk_socket)) {
		if (learned->segments > FADE) {
			learned->turns /= 2;
			learned->segments /= 2;
		}
		learned->turns += there < back ? there : back;
		learned->segments += there < back ? back : there;
		if (peculiar(tp))
			learned->manner = PECULIAR;
		else if (scope->pollers_only && blocks(tp))
			learned->manner = BLOCKING;
		else if (learned->segments >= ENOUGH)
			learned->manner = learned->turns * TURNS >= learned->segments ? JOINS : STREAMING;
	}
	bpf_sk_storage_delete(&samples, socket);
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags &
					       ~(BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG));
}

/* ---- joining ---- */

static __always_inline void offer(const struct scope *scope, struct bpf_sock_ops *ops)
{
	struct sock_common *common = (void *)BPF_CORE_READ((struct bpf_sock_ops_kern___bypass *)ops, sk);
	struct tcp_request_sock___bypass *request = (void *)common;
	struct sock___bypass *listener = BPF_CORE_READ((struct sock_common___bypass *)common, skc_listener);
	struct sequence_numbers numbers;
	struct pair pair = {};
	u16 port = BPF_CORE_READ(common, skc_num);

	if (BPF_CORE_READ(request, is_mptcp)) {
		count(IS_MPTCP);
		return;
	}
	/* TCP_DEFER_ACCEPT: the client always writes before there is a socket to join. */
	if (BPF_CORE_READ((struct inet_connection_sock___bypass *)listener, icsk_accept_queue.rskq_defer_accept)) {
		count(PECULIAR_OPTIONS);
		return;
	}
	if (forbidden(scope, common, port)) {
		count(FORBIDDEN);
		return;
	}
	pair.met = met_by(scope, common, listener, true, port);
	pair.service.cgroup = BPF_CORE_READ(cgroup_of(listener), kn, id);
	pair.service.port = port;
	pair.manner = manner_of(scope, &pair.service);
	numbers.client = BPF_CORE_READ(request, rcv_isn);
	numbers.server = BPF_CORE_READ(request, snt_isn);
	bpf_map_update_elem(&pairs, &numbers, &pair, BPF_ANY);
}

/* Whether the socket is an ordinary one that nobody else has a hand on. */
static __always_inline bool ordinary(struct tcp_sock *tp)
{
	struct tcp_sock___bypass *more = (void *)tp;

	if (tp->is_mptcp) {
		count(IS_MPTCP);
		return false;
	}
	if (BPF_CORE_READ_BITFIELD_PROBED(more, syn_data) || BPF_CORE_READ_BITFIELD_PROBED(more, syn_fastopen) ||
	    BPF_CORE_READ(more, fastopen_rsk)) {
		count(FAST_OPEN);
		return false;
	}
	if (BPF_CORE_READ((struct sock___bypass *)tp, sk_user_data)) {
		count(OTHER_OWNER);
		return false;
	}
	if (BPF_CORE_READ((struct inet_connection_sock___bypass *)tp, icsk_ulp_ops)) {
		count(HAS_ULP);
		return false;
	}
	if (peculiar(tp)) {
		count(PECULIAR_OPTIONS);
		return false;
	}
	return true;
}

static __always_inline bool join(struct bpf_sock_ops *ops, struct bpf_sock *socket, struct tcp_sock *tp, bool server,
				 u16 port, struct end *end)
{
	struct member member = {
		.socket = (u64)tp,
		.netns = netns_of((struct sock_common *)tp),
		.joined_ns = bpf_ktime_get_ns(),
		.server = server,
		.port = port,
		.received = tp->rcv_nxt,
	};

	end->self.cookie = bpf_get_socket_cookie(ops);
	end->self.socket = (u64)tp;
	bpf_sk_storage_delete(&ends, socket);
	if (!bpf_sk_storage_get(&ends, socket, end, BPF_SK_STORAGE_GET_F_CREATE) ||
	    bpf_map_update_elem(&listed, &end->self.cookie, &member, BPF_ANY)) {
		count(TABLE_FULL);
		return false;
	}
	if (bpf_sock_hash_update(ops, &members, &end->self.cookie, BPF_ANY)) {
		bpf_map_delete_elem(&listed, &end->self.cookie);
		bpf_sk_storage_delete(&ends, socket);
		count(TABLE_FULL);
		return false;
	}
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	count(JOINED);
	return true;
}

static __always_inline void join_client(const struct scope *scope, struct bpf_sock_ops *ops, struct bpf_sock *socket,
					struct tcp_sock *tp)
{
	struct sequence_numbers numbers = { tp->snd_una - 1, tp->rcv_nxt - 1 };
	u64 cookie = bpf_get_socket_cookie(ops);
	u16 port = bpf_ntohs(BPF_CORE_READ(tp, inet_conn.icsk_inet.sk.__sk_common.skc_dport));
	struct pair *pair = bpf_map_lookup_elem(&pairs, &numbers);
	struct end end = {};
	u32 met;

	/*
	 * A socket that its program has disconnected, with connect(AF_UNSPEC), and connects anew. What it left unread must
	 * not be read here: tcp_disconnect() purges only TCP's own queue.
	 */
	if (BPF_CORE_READ((struct sock___bypass *)tp, sk_user_data) && !bpf_map_delete_elem(&members, &cookie))
		count(CONNECTED_ANEW);
	if (!pair) /* its peer is on another host, or is none of ours */
		return;
	if (forbidden(scope, (struct sock_common *)tp, port)) {
		count(FORBIDDEN);
		goto forget;
	}
	met = pair->met | met_by(scope, (struct sock_common *)tp, (struct sock___bypass *)tp, false, port);
	if ((met & scope->asked) != scope->asked) {
		count(OUT_OF_SCOPE);
		goto forget;
	}
	switch (pair->manner) {
	case STREAMING:
		count(STREAMS);
		goto forget;
	case BLOCKING:
		count(BLOCKS);
		goto forget;
	case PECULIAR:
		count(PECULIAR_OPTIONS);
		goto forget;
	}
	if (scope->pollers_only && blocks(tp)) {
		count(BLOCKS);
		goto forget;
	}
	if (pair->manner == UNDECIDED) {
		count(SAMPLED);
		pair->client.cookie = cookie;
		return;
	}
	if (!ordinary(tp))
		goto forget;
	end.numbers = numbers;
	if (join(ops, socket, tp, false, port, &end)) {
		pair->client = end.self;
		return;
	}
forget:
	bpf_map_delete_elem(&pairs, &numbers);
}

static __always_inline void join_server(struct bpf_sock_ops *ops, struct bpf_sock *socket, struct tcp_sock *tp)
{
	struct sequence_numbers numbers = { tp->rcv_nxt - 1, tp->snd_una - 1 };
	struct pair *pair = bpf_map_lookup_elem(&pairs, &numbers);
	struct end end = {};

	if (!pair || !pair->client.cookie)
		return;
	if (pair->manner == UNDECIDED) {
		sample(ops, socket, &pair->service);
		bpf_map_delete_elem(&pairs, &numbers);
		return;
	}
	end.numbers = numbers;
	end.peer = pair->client;
	if (!ordinary(tp) || !join(ops, socket, tp, true, tp->inet_conn.icsk_inet.sk.__sk_common.skc_num, &end)) {
		bpf_map_delete_elem(&pairs, &numbers);
		return;
	}
	pair->server = end.self;
	if (__sync_val_compare_and_swap(&pair->progress, OFFERED, COMPLETE) == OFFERED)
		return;
	/* The client has written already. Nobody has read here, nor redirected to here: it can still go. */
	bpf_map_delete_elem(&members, &end.self.cookie);
	bpf_map_delete_elem(&listed, &end.self.cookie);
	bpf_sk_storage_delete(&ends, socket);
	bpf_map_delete_elem(&pairs, &numbers);
	count(LEFT);
	count(WROTE_EARLY);
}

static __always_inline void left(struct bpf_sock *socket)
{
	struct end *end = bpf_sk_storage_get(&ends, socket, 0, 0);

	if (!end)
		return;
	bpf_map_delete_elem(&pairs, &end->numbers);
	bpf_map_delete_elem(&listed, &end->self.cookie);
	count(LEFT);
	bpf_sk_storage_delete(&ends, socket);
}

SEC("sockops")
int connections(struct bpf_sock_ops *ops)
{
	struct scope *scope;
	struct bpf_sock *socket;
	struct tcp_sock *tp;

	switch (ops->op) {
	case BPF_SOCK_OPS_RWND_INIT:
		scope = bpf_map_lookup_elem(&scope_map, &zero);
		if (scope && scope->joining && !ops->is_fullsock)
			offer(scope, ops);
		return 1;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_STATE_CB:
	case BPF_SOCK_OPS_RTT_CB:
		break;
	default:
		return 1;
	}
	socket = ops->sk;
	if (!socket)
		return 1;
	tp = bpf_skc_to_tcp_sock(socket);
	scope = bpf_map_lookup_elem(&scope_map, &zero);
	if (!tp || !scope)
		return 1;
	if (ops->op == BPF_SOCK_OPS_RTT_CB) {
		learn(scope, ops, socket, tp, false);
	} else if (ops->op == BPF_SOCK_OPS_STATE_CB) {
		if (ops->args[0] == TCP_ESTABLISHED)
			learn(scope, ops, socket, tp, true);
		if (ops->args[1] == TCP_CLOSE)
			left(socket);
	} else if (!scope->joining) {
		return 1;
	} else if (ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB) {
		join_client(scope, ops, socket, tp);
	} else {
		join_server(ops, socket, tp);
	}
	return 1;
}

/* ---- sending ---- */

/* The other end, if it has joined before our first message; else it never does. */
static __always_inline bool knows_peer(struct end *end)
{
	struct pair *pair;

	if (end->peer.cookie)
		return true;
	pair = bpf_map_lookup_elem(&pairs, &end->numbers);
	if (!pair || __sync_val_compare_and_swap(&pair->progress, OFFERED, BROKEN) != COMPLETE)
		return false;
	end->peer = pair->server;
	bpf_map_delete_elem(&pairs, &end->numbers);
	return true;
}

/*
 * A struct of the kernel at an address that we noted. Where that leads nowhere, its fields read as 0: a load, not a call of
 * bpf_probe_read_kernel(), of which there would be seven a message.
 */
extern void *bpf_rdonly_cast(const void *address, u32 type) __ksym;
#define AT(type, address) ((type *)bpf_rdonly_cast((void *)(address), bpf_core_type_id_kernel(type)))

static __always_inline struct sk_psock___bypass *psock_of(const struct sock___bypass *socket)
{
	u64 data = (u64)socket->sk_user_data;

	return data & IS_PSOCK ? AT(struct sk_psock___bypass, data & PSOCK_POINTER) : NULL;
}

/* Whether all messages but the last few were read, as far as can be told from the bytes that still wait. */
static __always_inline bool few_wait(const struct scope *scope, struct end *end, u32 waiting)
{
	if (!waiting || end->bytes >= end->mark_bytes + waiting) {
		end->read_messages = waiting ? end->mark_messages : end->messages;
		end->mark_messages = end->messages;
		end->mark_bytes = end->bytes;
	}
	return end->messages - end->read_messages < scope->most_messages;
}

/* REDIRECTED, or why not. */
static __always_inline enum counter way_of(const struct scope *scope, struct sk_msg_md *message, struct bpf_sock *socket,
					   struct end *end)
{
	struct sock___bypass *peer;
	struct sk_psock___bypass *psock;
	unsigned long pressure;
	struct tcp_sock *tp;
	u32 waiting;

	if (!scope->redirecting)
		return PASSED_STOPPED;
	if (!knows_peer(end))
		return PASSED_UNPAIRED;
	tp = bpf_skc_to_tcp_sock(socket);
	peer = AT(struct sock___bypass, end->peer.socket);
	/* The address may be another socket's by now: these are freed and given out again. */
	if (!tp || peer->__sk_common.skc_cookie.counter != end->peer.cookie)
		return PASSED_CLOSING;
	psock = psock_of(peer);
	if (!psock || tp->inet_conn.icsk_inet.sk.__sk_common.skc_state != TCP_ESTABLISHED ||
	    peer->__sk_common.skc_state != TCP_ESTABLISHED)
		return PASSED_CLOSING;
	/* Before accept(), what comes over TCP lies in the socket's own queue, until the first recv(). */
	if (tp->snd_una != tp->write_seq || peer->sk_receive_queue.qlen || psock->ingress_skb.qlen)
		return PASSED_BEHIND;
	/* TCP waits where there is no memory; a message that is redirected would fail with ENOMEM. */
	if (bpf_probe_read_kernel(&pressure, sizeof(pressure), peer->__sk_common.skc_prot->memory_pressure) || pressure)
		return PASSED_MEMORY;
	if (tp->snd_wnd < ((struct tcp_sock___bypass *)tp)->max_window / 2)
		return PASSED_WINDOW;
	waiting = psock->msg_tot_len;
	if (waiting && waiting + message->size > scope->most_bytes)
		return PASSED_FULL;
	return few_wait(scope, end, waiting) ? REDIRECTED : PASSED_MANY;
}

SEC("sk_msg")
int send(struct sk_msg_md *message)
{
	struct scope *scope = bpf_map_lookup_elem(&scope_map, &zero);
	struct bpf_sock *socket = message->sk;
	enum counter way;
	struct end *end;

	if (!scope || !socket)
		return SK_PASS;
	end = bpf_sk_storage_get(&ends, socket, 0, 0);
	if (!end)
		return SK_PASS;
	way = way_of(scope, message, socket, end);
	/* SK_DROP here means that the peer is no member any more; the message then goes over TCP. */
	if (way == REDIRECTED &&
	    bpf_msg_redirect_hash(message, &members, &end->peer.cookie, BPF_F_INGRESS) != SK_PASS)
		way = PASSED_CLOSING;
	if (way == REDIRECTED) {
		end->messages++;
		end->bytes += message->size;
		count_more(REDIRECTED_BYTES, message->size);
	}
	count(way);
	return SK_PASS;
}

/*
 * What came over TCP goes into the one queue, without what is there already: a segment that was sent again may begin before
 * the end of what has arrived. tcp_recvmsg() skips that part by its sequence numbers; tcp_read_skb(), which hands segments to
 * us, does not.
 */
struct skipping {
	struct __sk_buff *skb;
	u32 left;
};

static long skip(u32 _, struct skipping *skipping)
{
	u32 now = skipping->left < MOST_SKIPPED ? skipping->left : MOST_SKIPPED;

	if (!now || bpf_skb_adjust_room(skipping->skb, -(int)now, 0, 0))
		return 1;
	skipping->left -= now;
	return 0;
}

SEC("sk_skb")
int received(struct __sk_buff *skb)
{
	u64 cookie = bpf_get_socket_cookie(skb);
	struct member *member = bpf_map_lookup_elem(&listed, &cookie);
	struct skipping skipping = { skb, 0 };
	u32 first = 0, length = skb->len;

	/* TCP_SKB_CB(skb)->seq is the first word of the control block (include/net/tcp.h). */
	if (!member || bpf_probe_read_kernel(&first, sizeof(first), ((struct sk_buff___bypass *)skb)->cb))
		return SK_PASS;
	if ((int)(member->received - first) > 0) {
		skipping.left = member->received - first;
		if (skipping.left > length)
			skipping.left = length;
		count(OVERLAPPED);
		bpf_loop(LARGEST_SEGMENT / MOST_SKIPPED + 1, skip, &skipping, 0);
	}
	member->received = first + length;
	return SK_PASS;
}

/* ---- looking ---- */

struct survey {
	u64 ends;
	u64 connections;
	u64 waiting_ends;
	u64 waiting_bytes;
	u64 most_waiting_bytes; /* of one end */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct survey);
} survey_map SEC(".maps");

static long look_at(void *map, const u64 *cookie, struct member *member, struct survey *survey)
{
	struct sock___bypass *socket = AT(struct sock___bypass, member->socket);
	struct sk_psock___bypass *psock;
	u32 waiting;

	if (socket->__sk_common.skc_cookie.counter != *cookie)
		return 0;
	psock = psock_of(socket);
	if (!psock)
		return 0;
	survey->ends++;
	survey->connections += member->server;
	waiting = psock->msg_tot_len;
	if (waiting || psock->ingress_skb.qlen) {
		survey->waiting_ends++;
		survey->waiting_bytes += waiting;
		if (waiting > survey->most_waiting_bytes)
			survey->most_waiting_bytes = waiting;
	}
	return 0;
}

/* Run by user space (BPF_PROG_TEST_RUN): sees no packet. */
SEC("tc")
int look(struct __sk_buff *skb)
{
	struct survey survey = {};

	bpf_for_each_map_elem(&listed, look_at, &survey, 0);
	bpf_map_update_elem(&survey_map, &zero, &survey, BPF_ANY);
	return 0;
}
