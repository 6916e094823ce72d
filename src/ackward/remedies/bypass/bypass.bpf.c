/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Joins the two sockets of a connection within this host: what one sends is put into the other's receive queue.
 *
 * Pairing. A connection's two initial sequence numbers are known to its two ends; they survive namespaces, NAT and
 * IPv4-mapped addresses. secure_tcp_seq() makes each from addresses, ports and the time, in steps of 64 ns, so two connections
 * with equal addresses in two namespaces might have the same: then neither joins. The server's end *offers* at the SYN,
 * before there is a socket (RWND_INIT), so that the client's end, which *joins* before connect() returns
 * (ACTIVE_ESTABLISHED), knows that its peer is here. The server's socket joins before its first byte is looked at
 * (PASSIVE_ESTABLISHED).
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
#include "bypass_joining.h"

char LICENSE[] SEC("license") = "GPL";

#define TCP_ESTABLISHED 1 /* include/net/tcp_states.h */
#define TCP_CLOSE 7
#define PSOCK_POINTER (~7UL) /* SK_USER_DATA_PTRMASK, include/net/sock.h */
#define IS_PSOCK 4	     /* SK_USER_DATA_PSOCK */
#define MEMCG_POINTER (~7UL) /* newer kernels keep flags in sk_memcg's low bits */
#define SMALLEST_PAGE 4096 /* larger ones make a message look larger than it is */
#define SPARE_PAGES 256 /* four of the portions that a processor takes at once: MEMCG_CHARGE_BATCH */
#define MOST_SKIPPED 4095    /* sk_skb_adjust_room(), net/core/filter.c */
#define LARGEST_SEGMENT 524280 /* GSO_MAX_SIZE */

/* ---- connections ---- */

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
	case BPF_SOCK_OPS_TSTAMP_SENDMSG_CB:
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
	if (ops->op == BPF_SOCK_OPS_TSTAMP_SENDMSG_CB) {
		see_write(socket, tp);
	} else if (ops->op == BPF_SOCK_OPS_RTT_CB) {
		learn(scope, ops, socket, tp, false);
	} else if (ops->op == BPF_SOCK_OPS_STATE_CB) {
		if (ops->args[0] == TCP_ESTABLISHED) {
			reconsider(scope, socket, tp);
			learn(scope, ops, socket, tp, true);
		}
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
 * bpf_probe_read_kernel(), of which there would be eight a message.
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

/*
 * Whether a cgroup that the reader's memory is charged to may have no room for so many bytes more, and what other processors take
 * meanwhile. bpf_tcp_ingress() would fail then, or have a program of that cgroup killed; TCP stops its writer.
 */
static __always_inline bool cgroup_is_short(const struct sock___bypass *reader, u32 size)
{
	struct page_counter___bypass *counter;
	struct mem_cgroup___bypass *group;
	u64 owner;

	if (!bpf_core_field_exists(reader->sk_memcg))
		return false;
	/* As a number, which can be masked; any struct that begins with one would do. */
	owner = AT(struct page_counter___bypass, &reader->sk_memcg)->usage.counter & MEMCG_POINTER;
	if (!owner)
		return false;
	group = AT(struct mem_cgroup___bypass, owner);
	counter = &group->memory;
	if (bpf_core_field_exists(group->tcpmem) && group->tcpmem_active)
		counter = &group->tcpmem;
	for (int i = 0; i < DEEPEST_CGROUP; i++) {
		if (counter->usage.counter + size / SMALLEST_PAGE + SPARE_PAGES > counter->max)
			return true;
		counter = counter->parent;
		if (!counter)
			return false;
	}
	return true;
}

/* REDIRECTED, or why not. */
static __always_inline enum counter way_of(const struct scope *scope, struct sk_msg_md *message, struct bpf_sock *socket,
					   struct end *end)
{
	struct tcp_sock *tp = AT(struct tcp_sock, socket);
	struct sk_psock___bypass *psock;
	struct sock___bypass *peer;
	u32 waiting;

	if (!scope->redirecting)
		return PASSED_STOPPED;
	if (!knows_peer(end))
		return PASSED_UNPAIRED;
	peer = AT(struct sock___bypass, end->peer.socket);
	/* The address may be another socket's by now: these are freed and given out again. */
	if (peer->__sk_common.skc_cookie.counter != end->peer.cookie)
		return PASSED_CLOSING;
	psock = psock_of(peer);
	if (!psock || tp->inet_conn.icsk_inet.sk.__sk_common.skc_state != TCP_ESTABLISHED ||
	    peer->__sk_common.skc_state != TCP_ESTABLISHED)
		return PASSED_CLOSING;
	/* Before accept(), what comes over TCP lies in the socket's own queue, until the first recv(). */
	if (tp->snd_una != tp->write_seq || peer->sk_receive_queue.qlen || psock->ingress_skb.qlen)
		return PASSED_BEHIND;
	/* TCP waits where there is no memory; a message that is redirected would fail with ENOMEM. */
	if (AT(struct hlist_head___bypass, peer->__sk_common.skc_prot->memory_pressure)->first ||
	    cgroup_is_short(peer, message->size))
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
	struct counters *counters;
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
	counters = bpf_map_lookup_elem(&counters_map, &zero);
	if (counters)
		counters->of[way]++;
	if (way == REDIRECTED) {
		end->messages++;
		end->bytes += message->size;
		if (counters)
			counters->of[REDIRECTED_BYTES] += message->size;
	}
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
	u32 first = 0, length = skb->len, start;

	/* TCP_SKB_CB(skb)->seq is the first word of the control block (include/net/tcp.h). */
	if (!member || bpf_probe_read_kernel(&first, sizeof(first), ((struct sk_buff___bypass *)skb)->cb))
		return SK_PASS;
	start = first_byte(AT(struct tcp_sock, member->socket));
	if (start != member->first) { /* connected anew, after an undo: while we are attached such a socket leaves */
		member->first = start;
	} else if ((int)(member->received - first) > 0) {
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
