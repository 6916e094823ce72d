/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* How the ends of a connection find each other and become members, or stay out. */
#ifndef ACKWARD_BYPASS_JOINING_H
#define ACKWARD_BYPASS_JOINING_H

#include "bypass_learning.h"
#include "bypass_scope.h"

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
	pair.netns = netns_of(common);
	numbers.client = BPF_CORE_READ(request, rcv_isn);
	numbers.server = BPF_CORE_READ(request, snt_isn);
	/* Two connections with the same numbers: which client belongs to which server cannot be told. */
	if (bpf_map_update_elem(&pairs, &numbers, &pair, BPF_NOEXIST)) {
		bpf_map_delete_elem(&pairs, &numbers);
		count(AMBIGUOUS);
	}
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
		.first = first_byte(tp),
	};

	end->self.cookie = bpf_get_socket_cookie(ops);
	end->self.socket = (u64)tp;
	end->server = server;
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
	pair->service.client = BPF_CORE_READ(cgroup_of((struct sock___bypass *)tp), kn, id);
	pair->service.within = pair->netns == netns_of((struct sock_common *)tp);
	pair->manner = manner_of(scope, &pair->service);
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
		pair->client.socket = (u64)tp;
		sample(ops, socket, pair, false);
		return;
	}
	if (!ordinary(tp))
		goto forget;
	end.numbers = numbers;
	end.service = pair->service;
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
		sample(ops, socket, pair, true);
		bpf_map_delete_elem(&pairs, &numbers);
		return;
	}
	end.numbers = numbers;
	end.peer = pair->client;
	end.service = pair->service;
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

#endif
